"""One symbol's trades whose ids a venue counts up by one: what is missing, what comes late, what comes again."""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from core.schema import TRADES
from ingest.events import NOT_RUNNING, Gap, TradeHole
from ingest.open_holes import OpenHole
from ingest.sequence import Progress

_MOST_HOLES: Final = 4_096  # several times what may wait to be refilled (refill.py)
_MOST_REFILLED: Final = 50_000
"""Trades that are worth asking for: 50 requests of weight 20. A jump beyond stays a gap."""


class _Hole(NamedTuple):
    """Ids [first_id, last_id] that did not come between two receipts."""

    first_id: int
    last_id: int
    from_ns: int
    to_ns: int


class TradeStream:
    """Follows the ids. `stream` is the venue's name for what feeds it: rows of another would count trades twice."""

    def __init__(self, symbol: str, stream: str) -> None:
        self.symbol = symbol
        self.stream = stream
        self.next_id = -1
        """The id that follows on, once there was one."""
        self._progress = Progress(-1, 0, 0)
        self._resumed_ns = -1
        self._holes: list[_Hole] = []  # by id
        self._forgotten: deque[_Hole] = deque(maxlen=_MOST_HOLES)

    @property
    def last_ns(self) -> int:
        """Receipt of the last trade in order; 0 before the first."""
        return self._progress.recv_ns

    def follow(self, number: int, exch_ns: int, recv_ns: int) -> None:
        """Move on to a trade: to the one with `next_id`, of which there is nothing else to tell, or to another."""
        progress = self._progress
        progress.last_id, progress.exch_ns, progress.recv_ns = number, exch_ns, recv_ns
        self.next_id = number + 1

    def resume(self, number: int, exch_ns: int, recv_ns: int, holes: Sequence[OpenHole]) -> None:
        """Go on from the last trade that an earlier process wrote, and from the holes that it left, in order."""
        self.follow(number, exch_ns, recv_ns)
        self._resumed_ns = recv_ns
        self._holes = sorted(_Hole(*ids, hole.from_ns, hole.to_ns) for hole, left in holes for ids in left)

    def take(self, number: int, exch_ns: int, recv_ns: int, missed: list[TradeHole] | None) -> list[Gap] | None:
        """What is to be told before a trade: a gap or nothing; None for a trade that was there before.

        Holes go to `missed` too, if that is given and they can be refilled.
        """
        progress, told = self._progress, list[Gap]()
        if self.next_id >= 0 and number < self.next_id:
            if progress.is_repeat(number, exch_ns, recv_ns):
                return None if self.fill(number) is None else told
            self._forget(len(self._holes))
            told = [self._gap(recv_ns, f"{self.stream} {progress.last_id} is followed by {number}: counted anew")]
        elif self.next_id >= 0 and number > self.next_id:
            told = self._jump(number, recv_ns, missed)
        self.follow(number, exch_ns, recv_ns)
        return told

    def fill(self, number: int) -> tuple[int, int] | None:
        """(from_ns, to_ns) of the hole that an id, late or refilled, belongs to, less that id; None if it was there."""
        place = bisect_right(self._holes, number, key=attrgetter("first_id")) - 1
        if place < 0 or number > self._holes[place].last_id:
            return None
        hole = self._holes[place]
        parts = hole._replace(last_id=number - 1), hole._replace(first_id=number + 1)
        self._holes[place : place + 1] = [part for part in parts if part.first_id <= part.last_id]
        return hole.from_ns, hole.to_ns

    def missing(self, hole: TradeHole) -> list[tuple[int, int]]:
        """(first_id, last_id) of what has not come of a hole, in order. What is forgotten does not come any more."""
        parts = (part for held in (self._holes, self._forgotten) for part in held)
        ids = hole.first_id, hole.last_id
        return sorted(part[:2] for part in parts if ids[0] <= part.first_id and part.last_id <= ids[1])

    def is_beyond(self, number: int) -> bool:
        """Whether the stream itself has still to bring this trade."""
        return number >= self.next_id

    def _jump(self, number: int, recv_ns: int, missed: list[TradeHole] | None) -> list[Gap]:
        """Ids were left out: note which, the oldest of too many holes being forgotten."""
        hole = _Hole(self.next_id, number - 1, self.last_ns, recv_ns)
        self._forget(len(self._holes) + 1 - _MOST_HOLES)
        self._holes.append(hole)
        if missed is not None and hole.last_id - hole.first_id < _MOST_REFILLED:
            missed.append(TradeHole(self.symbol, *hole))
        return [self._gap(recv_ns, f"{self.stream} {self.next_id - 1} is followed by {number}")]

    def _forget(self, count: int) -> None:
        """Fill the oldest holes no more."""
        if count > 0:
            self._forgotten.extend(self._holes[:count])
            del self._holes[:count]

    def _gap(self, recv_ns: int, reason: str) -> Gap:
        if self.last_ns == self._resumed_ns:
            reason = f"{NOT_RUNNING}: {reason}"
        return Gap(self.symbol, TRADES.name, self.last_ns, recv_ns, reason, False)
