"""The time that a live capture was not running, as gaps: from what is on disk to what comes first.

A stream that is never silent for long was captured until its own last row. Of one whose silence is normal (a forced
order may not come for a day) the last row tells little: it was captured as long as its symbol's other streams on the
same connection. A stream that the data directory holds nothing of is new and has no gap.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from core.schema import KLINES, LIQUIDATIONS
from core.shard_files import set_torn_aside, torn_text
from core.store import Partition, files
from ingest.events import Event, Gap
from ingest.feed import Feed
from ingest.reception import TABLE_OF

REASON: Final = "capture was not running"
_SPARSE: Final = (LIQUIDATIONS.name, KLINES.name)
_RECEIVED: Final = "recv_ns"

Stream = tuple[str, str]
"""(symbol, table) of one connection."""


class Resumption:
    """Gaps of the streams that an earlier capture left off. Holds no more once each of them goes on."""

    def __init__(self, root: Path, feeds: Sequence[Feed], say: Callable[[str], None] = print) -> None:
        self._since_ns = {id(feed): since for feed in feeds if (since := _left_off(root, feed, say))}
        self._open_ns: dict[int, int] = {}
        self.last_ns = max((ns for since in self._since_ns.values() for ns in since.values()), default=0)
        """The last row of all, 0 where there is none."""

    @property
    def is_over(self) -> bool:
        return not self._since_ns

    def opened(self, feed: Feed, now_ns: int) -> None:
        """The venue has acknowledged all subscriptions of a connection: from here on nothing is missed."""
        self._open_ns[id(feed)] = now_ns

    def gaps(self, feed: Feed, recv_ns: int, events: Sequence[Event]) -> list[Event]:
        """The gaps that end with what a connection received at `recv_ns`: at its first row, or when it was opened."""
        since_ns = self._since_ns.get(id(feed))
        if since_ns is None:
            return []
        ends_ns: dict[Stream, int] = {}
        for event in events:
            stream = (event.symbol, TABLE_OF.get(type(event), ""))
            if stream in since_ns:
                ends_ns.setdefault(stream, recv_ns)
        open_ns = self._open_ns.get(id(feed))
        if open_ns is not None and recv_ns >= open_ns:
            ends_ns = {stream: min(ends_ns.get(stream, open_ns), open_ns) for stream in since_ns}
            del self._since_ns[id(feed)]
        return [_gap(stream, since_ns.pop(stream), end_ns) for stream, end_ns in ends_ns.items()]


def _gap(stream: Stream, from_ns: int, to_ns: int) -> Gap:
    return Gap(*stream, from_ns, max(from_ns, to_ns), REASON, False)


def _left_off(root: Path, feed: Feed, say: Callable[[str], None]) -> dict[Stream, int]:
    """Until when each stream of a connection was captured, as far as it was."""
    rows_ns = {stream: last_row_ns(root, feed.venue, *stream, say) for stream in feed.plan.feeds}
    alive_ns: dict[str, int] = {}
    for (symbol, _), last_ns in rows_ns.items():
        alive_ns[symbol] = max(alive_ns.get(symbol, 0), last_ns)
    since_ns = {stream: alive_ns[stream[0]] if stream[1] in _SPARSE else last for stream, last in rows_ns.items()}
    return {stream: last_ns for stream, last_ns in since_ns.items() if last_ns}


def last_row_ns(root: Path, venue: str, symbol: str, table: str, say: Callable[[str], None] = print) -> int:
    """The receive time of the last row on disk, 0 where there is none. Torn shards are set aside and told.

    Every shard of the day is asked: the last may begin, and end, with trades that were refilled from before.
    """
    folder = root / table / f"exchange={venue}" / f"symbol={symbol}"
    for date in sorted((path.name.removeprefix("date=") for path in folder.glob("date=*")), reverse=True):
        part = Partition(table, venue, symbol, date)
        for path in set_torn_aside(root, part):
            say(torn_text(path))
        if last_ns := max((_end_ns(path, say) for path in files(root, part)), default=0):
            return last_ns
    return 0


def _end_ns(path: Path, say: Callable[[str], None]) -> int:
    """The time of a shard's last row, which is its latest; 0 where it cannot be read. Reads one row group."""
    try:
        rows = pl.scan_parquet(path, hive_partitioning=False).select(_RECEIVED).tail(1).collect()
    except pl.exceptions.PolarsError as error:
        say(f"{path} cannot be read as Parquet ({error}): what it holds is taken for missing")
        return 0
    return int(rows.item()) if rows.height else 0
