"""Two connections that carry the same streams for a while, so that one can take over from the other without a hole.

Both feed the same decoder, which drops what it knows already. The old one may go as soon as the new one was seen to
carry every stream that the old one still carries.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Final

from ingest.transport import Socket, Take

_TICK_S: Final = 0.05
_LEAST_FRAC: Final = 0.1  # of the longest overlap: what the old one has not carried for so long may be taken as quiet
_NAME_BYTES: Final = 64
_MOST_NAMES: Final = 4_096  # a connection carries at most 1,024 streams; garbage names none worth keeping


def stream_name(message: bytes) -> bytes:
    """What tells a message's stream from others: the value that both venues write first, `stream` or `topic`."""
    parts = message[: 2 * _NAME_BYTES].split(b'"', 4)
    return parts[3][:_NAME_BYTES] if len(parts) > 3 else b""


class Overlap:
    """While it is open, notes which streams two connections carry."""

    def __init__(self, old: Socket, new: Socket) -> None:
        self._sockets = old, new
        self._takes = old.take, new.take
        self._carried: tuple[set[bytes], set[bytes]] = set(), set()

    async def until_taken_over(self, longest_s: float) -> None:
        """Return when the new connection carries what the old one does, when one of them ended, or after `longest_s`.

        Whoever asked looks at the connections then: after `longest_s` a stream that is quiet is no reason to wait.
        """
        began_s = time.monotonic()
        for socket, take, names in zip(self._sockets, self._takes, self._carried, strict=True):
            socket.take = _noting(take, names)
        try:
            while not any(socket.ended.done() for socket in self._sockets):
                passed_s = time.monotonic() - began_s
                if passed_s >= longest_s or (passed_s >= _LEAST_FRAC * longest_s and self._is_complete()):
                    return
                await asyncio.sleep(_TICK_S)
        finally:
            for socket, take in zip(self._sockets, self._takes, strict=True):
                if not socket.ended.done():
                    socket.take = take

    @property
    def old_was_dead(self) -> bool:
        """Whether the old connection was up and carried nothing while the new one did."""
        old, new = self._carried
        return bool(new) and not old and not self._sockets[0].ended.done()

    def _is_complete(self) -> bool:
        old, new = self._carried
        return bool(old) and old <= new


def _noting(take: Take, names: set[bytes]) -> Take:
    """`take`, with the names of the streams it is given."""

    def noting(message: bytes) -> None:
        if len(names) < _MOST_NAMES:
            names.add(stream_name(message))
        take(message)

    return noting


class Wish:
    """That another connection take over, why, and since when which streams were lost. Empty for a planned one."""

    def __init__(self) -> None:
        self._made = asyncio.Event()
        self._why = ""
        self._since_ns: dict[tuple[str, str], int] = {}

    def make(self, why: str, since_ns: Mapping[tuple[str, str], int]) -> None:
        self._why = why
        self._since_ns = {**since_ns, **self._since_ns}
        self._made.set()

    async def wait(self) -> None:
        await self._made.wait()

    def take(self) -> tuple[str, dict[tuple[str, str], int]]:
        """(why, what was lost since when); it is fulfilled with that."""
        why, since_ns = self._why, self._since_ns
        self._why, self._since_ns = "", {}
        self._made.clear()
        return why, since_ns
