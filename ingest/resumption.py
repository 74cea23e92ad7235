"""The time that a live capture was not running, as gaps: from what is on disk to what comes first.

A stream that is never silent for long was captured until its own last row. Of one whose silence is normal (a forced
order may not come for a day) the last row tells little: it was captured as long as its symbol's other streams on the
same connection. A stream that the data directory holds nothing of is new and has no gap; one that never came, and was
told as missing, is missing since.

Trades whose ids count up tell it themselves: the feed goes on from the last one on disk, so that what came meanwhile is
a hole like any other, and is fetched by REST. So are the holes that it had told and did not live to fill.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import polars as pl

from core.errors import StageError
from core.schema import GAPS, KLINES, LIQUIDATIONS, TRADES
from core.shard_files import set_torn_aside, torn_text
from core.store import Partition, date_of_ns, files, read, read_between
from core.units import NS_PER_S
from ingest.events import NOT_RUNNING, Event, Gap, Trade, told_at
from ingest.feed import Feed
from ingest.open_holes import OpenHole, open_holes
from ingest.reception import TABLE_OF

_SPARSE: Final = (LIQUIDATIONS.name, KLINES.name)
_RECEIVED: Final = "recv_ns"
_DAMAGED: Final = (StageError, pl.exceptions.PolarsError)  # a file is, which must not keep a capture from starting
_LATE_NS: Final = 10 * NS_PER_S  # what comes out of order comes within this time of its successor (sequence.py)

Stream = tuple[str, str]
"""(symbol, table) of one connection."""


class Resumption:
    """Gaps of the streams that an earlier capture left off. Holds no more once each of them goes on."""

    def __init__(self, root: Path, feeds: Sequence[Feed], say: Callable[[str], None] = print) -> None:
        self._since_ns = {id(feed): since for feed in feeds if (since := _left_off(root, feed, say))}
        self._open_ns: dict[int, int] = {}
        self.last_ns = max((ns for since in self._since_ns.values() for ns in since.values()), default=0)
        """The last row of all, 0 where there is none."""
        for feed in feeds:
            _resume_trades(root, feed, self._since_ns.get(id(feed), {}))

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
        found = (_gap(stream, since_ns.pop(stream), end_ns) for stream, end_ns in ends_ns.items())
        return [told_at(gap, recv_ns) for gap in found]


def _gap(stream: Stream, from_ns: int, to_ns: int) -> Gap:
    return Gap(*stream, from_ns, max(from_ns, to_ns), NOT_RUNNING, False)


def _resume_trades(root: Path, feed: Feed, since_ns: dict[Stream, int]) -> None:
    """Let a feed go on from the last trades on disk, and take out the streams that tell their gap themselves so."""
    for symbol in [symbol for symbol, table in since_ns if table == TRADES.name and feed.refills]:
        if last := last_trade(root, feed.venue, symbol, since_ns[symbol, TRADES.name]):
            feed.resume(last, _holes_before(root, feed.venue, last))
            del since_ns[symbol, TRADES.name]


def _holes_before(root: Path, venue: str, last: Trade) -> list[OpenHole]:
    """The holes that an earlier process told and did not fill; none where a shard is damaged."""
    try:
        return open_holes(root, venue, last)
    except _DAMAGED:
        return []


def last_trade(root: Path, venue: str, symbol: str, last_ns: int) -> Trade | None:
    """The trade with the highest id of those received last, until `last_ns`; None where ids are no numbers, or a shard
    is damaged, so that what it holds is not known.
    """
    columns = ("exch_ns", "recv_ns", "trade_id", "price", "qty", "taker_side", "recv_assumed")
    days = [Partition(TRADES.name, venue, symbol, date_of_ns(ns)) for ns in (last_ns - _LATE_NS, last_ns)]
    try:
        frames = [read_between(root, day, columns, last_ns - _LATE_NS, last_ns + 1) for day in dict.fromkeys(days)]
    except _DAMAGED:
        return None
    rows = pl.concat(frames).filter(~pl.col("recv_assumed"))
    if rows.is_empty() or not rows["trade_id"].str.contains(r"^\d{1,18}$").all():
        return None
    return Trade(symbol, **rows.sort(pl.col("trade_id").cast(pl.Int64)).row(-1, named=True))


def _left_off(root: Path, feed: Feed, say: Callable[[str], None]) -> dict[Stream, int]:
    """Until when each stream of a connection was captured, as far as it was."""
    rows_ns = {
        stream: last_row_ns(root, feed.venue, *stream, say) or _last_gap_ns(root, feed.venue, *stream)
        for stream in feed.plan.feeds
    }
    alive_ns: dict[str, int] = {}
    for (symbol, _), last_ns in rows_ns.items():
        alive_ns[symbol] = max(alive_ns.get(symbol, 0), last_ns)
    since_ns = {stream: alive_ns[stream[0]] if stream[1] in _SPARSE else last for stream, last in rows_ns.items()}
    return {stream: last_ns for stream, last_ns in since_ns.items() if last_ns}


def last_row_ns(root: Path, venue: str, symbol: str, table: str, say: Callable[[str], None] = print) -> int:
    """The receive time of the last row on disk, 0 where there is none. Torn shards are set aside and told.

    Every shard of the day is asked: the last may begin, and end, with trades that were refilled from before.
    """
    for part in _newest_first(root, table, venue, symbol):
        for path in set_torn_aside(root, part):
            say(torn_text(path))
        if last_ns := max((_end_ns(path, say) for path in files(root, part)), default=0):
            return last_ns
    return 0


def _newest_first(root: Path, table: str, venue: str, symbol: str) -> list[Partition]:
    """The days of a stream that have a folder."""
    folder = root / table / f"exchange={venue}" / f"symbol={symbol}"
    dates = sorted((path.name.removeprefix("date=") for path in folder.glob("date=*")), reverse=True)
    return [Partition(table, venue, symbol, date) for date in dates]


def _last_gap_ns(root: Path, venue: str, symbol: str, table: str) -> int:
    """Until when a stream that has no row was told as missing; 0 where it was not."""
    for part in _newest_first(root, GAPS.name, venue, symbol):
        with suppress(*_DAMAGED):
            if ends_ns := read(root, part).filter(pl.col("stream") == table)["to_ns"].to_list():
                return int(max(ends_ns))
    return 0


def _end_ns(path: Path, say: Callable[[str], None]) -> int:
    """The time of a shard's last row, which is its latest; 0 where it cannot be read. Reads one row group."""
    try:
        rows = pl.scan_parquet(path, hive_partitioning=False).select(_RECEIVED).tail(1).collect()
    except pl.exceptions.PolarsError as error:
        say(f"{path} cannot be read as Parquet ({error}): what it holds is taken for missing")
        return 0
    return int(rows.item()) if rows.height else 0
