"""What came before: which message is a repeat, which comes late, and when a venue has begun to count anew.

Duplicates come from servers that double frames, from reconnects, and from two connections that overlap while one takes
over from the other. A late message has an id and a time from before the last one; a venue that restarted has ids from
before and times from after. One frame with an absurd id must not silence a stream for good: time tells it too.
"""

from collections.abc import Hashable
from typing import Final, TypeVar

from core.units import NS_PER_S

Key = TypeVar("Key", bound=Hashable)
_WENT_ON_NS: Final = NS_PER_S  # venue time that a late message cannot be ahead by
_FORGOTTEN_NS: Final = 10 * NS_PER_S  # receive time after which nothing comes late any more: where there is no other
_GENERATION: Final = 65_536


class Progress:
    """Where a numbered stream stands: its last id, and the venue's and our time of it."""

    __slots__ = ("exch_ns", "last_id", "recv_ns")

    def __init__(self, last_id: int, exch_ns: int, recv_ns: int) -> None:
        self.last_id, self.exch_ns, self.recv_ns = last_id, exch_ns, recv_ns

    def move(self, last_id: int, exch_ns: int, recv_ns: int) -> None:
        """Take the stream to a message, wherever it was."""
        self.last_id, self.exch_ns, self.recv_ns = last_id, exch_ns, recv_ns

    def is_ahead(self, exch_ns: int, recv_ns: int) -> bool:
        """Whether a message is from before the last one, by the venue's time, and not so long after it by ours."""
        return exch_ns < self.exch_ns and recv_ns < self.recv_ns + _FORGOTTEN_NS

    def is_repeat(self, message_id: int, exch_ns: int, recv_ns: int) -> bool:
        """Whether a message is the last one again or from before it; not if the venue has begun to count anew."""
        if message_id >= self.last_id:
            return message_id == self.last_id
        return self.is_ahead(exch_ns - _WENT_ON_NS, recv_ns)


def is_news(streams: dict[Key, Progress], key: Key, message_id: int, exch_ns: int, recv_ns: int) -> bool:
    """Whether a message of one of many streams is neither a repeat nor late; then its stream moves on to it."""
    last = streams.get(key)
    if last is None:
        streams[key] = Progress(message_id, exch_ns, recv_ns)
        return True
    if last.is_repeat(message_id, exch_ns, recv_ns):
        return False
    last.move(message_id, exch_ns, recv_ns)
    return True


class Seen:
    """Keys of the latest events, between 65,536 and twice as many, for streams whose ids have no order."""

    def __init__(self, generation: int = _GENERATION) -> None:
        self._generation = generation
        self._young: set[Hashable] = set()
        self._old: set[Hashable] = set()

    def is_new(self, key: Hashable) -> bool:
        """True at the first time for each key."""
        if key in self._young or key in self._old:
            return False
        if len(self._young) >= self._generation:
            self._young, self._old = set(), self._young
        self._young.add(key)
        return True
