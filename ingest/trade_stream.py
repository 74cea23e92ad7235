"""One symbol's trades whose ids a venue counts up by one: what is missing, what comes late, what comes again."""

from typing import Final, NamedTuple

from core.schema import TRADES
from ingest.events import Gap, TradeHole
from ingest.sequence import Progress

_MOST_HOLES: Final = 64
_MOST_REFILLED: Final = 50_000
"""Trades that are worth asking for: 50 requests of weight 20. A jump beyond is told as a gap at once."""


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
        self._progress: Progress | None = None
        self._holes: list[_Hole] = []

    @property
    def last_ns(self) -> int:
        """Receipt of the last trade in order; 0 before the first."""
        return self._progress.recv_ns if self._progress else 0

    def take(self, number: int, exch_ns: int, recv_ns: int, missed: list[TradeHole] | None) -> list[Gap] | None:
        """What is to be told before a trade: a gap or nothing; None for a trade that was there before.

        Holes go to `missed`, if that is given and they can be refilled: then they are told by who refills them.
        """
        progress = self._progress
        if progress is None:
            self._progress = Progress(number, exch_ns, recv_ns)
            return []
        if number == progress.last_id + 1:
            progress.move(number, exch_ns, recv_ns)
            return []
        if number > progress.last_id:
            return self._jump(progress, number, exch_ns, recv_ns, missed)
        if progress.is_repeat(number, exch_ns, recv_ns):
            return None if self.fill(number) is None else []
        self._holes.clear()
        gap = self._gap(progress, recv_ns, f"{self.stream} {progress.last_id} is followed by {number}: counted anew")
        progress.move(number, exch_ns, recv_ns)
        return [gap]

    def fill(self, number: int) -> tuple[int, int] | None:
        """(from_ns, to_ns) of the hole that an id, late or refilled, belongs to, less that id; None if it was there."""
        for place, hole in enumerate(self._holes):
            if hole.first_id <= number <= hole.last_id:
                parts = hole._replace(last_id=number - 1), hole._replace(first_id=number + 1)
                self._holes[place : place + 1] = [part for part in parts if part.first_id <= part.last_id]
                return hole.from_ns, hole.to_ns
        return None

    def is_beyond(self, number: int) -> bool:
        """Whether the stream itself has still to bring this trade."""
        return self._progress is None or number > self._progress.last_id

    def _jump(
        self, progress: Progress, number: int, exch_ns: int, recv_ns: int, missed: list[TradeHole] | None
    ) -> list[Gap]:
        """Ids were left out: note which, the oldest of too many holes being forgotten."""
        hole = _Hole(progress.last_id + 1, number - 1, progress.recv_ns, recv_ns)
        self._holes = [*self._holes[1 - _MOST_HOLES :], hole]
        told = self._gap(progress, recv_ns, f"{self.stream} {progress.last_id} is followed by {number}")
        progress.move(number, exch_ns, recv_ns)
        if missed is None or hole.last_id - hole.first_id >= _MOST_REFILLED:
            return [told]
        missed.append(TradeHole(self.symbol, *hole))
        return []

    def _gap(self, progress: Progress, recv_ns: int, reason: str) -> Gap:
        return Gap(self.symbol, TRADES.name, progress.recv_ns, recv_ns, reason, False)
