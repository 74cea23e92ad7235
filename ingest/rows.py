"""Event structs to rows of the event tables, in shards of bounded size.

Structs are packed into columns every few thousand (a struct with its numbers takes some 350 bytes, a packed row 64),
and columns are written as a shard when there are `flush_rows` of them or when they are `flush_s` old.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from core.schema import (
    BOOK_DELTAS,
    BOOK_SIDE,
    F64,
    GAPS,
    I64,
    KLINES,
    LIQUIDATIONS,
    MARK_PRICES,
    TOP_OF_BOOK,
    TRADES,
    Table,
)
from core.store import Partition, append, split_by_date
from ingest.events import BookUpdate, Event, Gap, Kline, Liquidation, Mark, Quote, Trade

TABLES: Final[dict[type, Table]] = {
    Quote: TOP_OF_BOOK,
    Trade: TRADES,
    BookUpdate: BOOK_DELTAS,
    Liquidation: LIQUIDATIONS,
    Mark: MARK_PRICES,
    Kline: KLINES,
    Gap: GAPS,
}
_SIDES: Final = pl.Series(["bid", "ask"], dtype=BOOK_SIDE)
_PACK_EVENTS: Final = 16_384
_WORTH_PACKING: Final = 1024


def frame_of(table: Table, events: Sequence[Any]) -> pl.DataFrame:
    """Rows of one kind of events, in the table's order; a book update has one row per level, bids first."""
    frame = _book_rows(events) if table is BOOK_DELTAS else _struct_rows(table, events)
    return frame if frame[table.order[0]].is_sorted() else frame.sort(table.order, maintain_order=True)


def _struct_rows(table: Table, events: Sequence[Any]) -> pl.DataFrame:
    return pl.DataFrame([_column(table, name, map(attrgetter(name), events), len(events)) for name in table.columns])


def _column(table: Table, name: str, values: Iterator[Any], count: int) -> pl.Series:
    """A column of the table's dtype. Numbers that are never null go through NumPy, which is 3 times as fast."""
    dtype = table.columns[name]
    if dtype in (I64, F64) and name not in table.nullable:
        return pl.Series(name, np.fromiter(values, np.int64 if dtype == I64 else np.float64, count))
    return pl.Series(name, list(values), dtype=dtype)


def _book_rows(updates: Sequence[BookUpdate]) -> pl.DataFrame:
    sides = [side for update in updates for side in (update.bids, update.asks)]
    levels_per_side = np.fromiter(map(len, sides), np.int64, len(sides))
    levels_per_update = levels_per_side[0::2] + levels_per_side[1::2]
    total = int(levels_per_update.sum())
    flat = np.fromiter(chain.from_iterable(chain.from_iterable(sides)), np.float64, 2 * total)
    side_codes = np.repeat(np.tile(np.array([0, 1], np.uint32), len(updates)), levels_per_side)

    def per_level(name: str, dtype: Any) -> np.ndarray[Any, Any]:
        return np.repeat(np.fromiter(map(attrgetter(name), updates), dtype, len(updates)), levels_per_update)

    return pl.DataFrame(
        [
            pl.Series("exch_ns", per_level("exch_ns", np.int64)),
            pl.Series("recv_ns", per_level("recv_ns", np.int64)),
            pl.Series("update_id", per_level("update_id", np.int64)),
            _SIDES.gather(side_codes).rename("side"),
            pl.Series("price", flat[0::2]),
            pl.Series("qty", flat[1::2]),
            pl.Series("is_snapshot", per_level("is_snapshot", np.bool_)),
            pl.Series("recv_assumed", per_level("recv_assumed", np.bool_)),
        ]
    )


@dataclass
class _Pending:
    """What is not yet written of one table of one symbol."""

    table: Table
    venue: str
    symbol: str
    since_s: float
    events: list[Event] = field(default_factory=list)
    packed: list[pl.DataFrame] = field(default_factory=list)
    packed_rows: int = 0

    def pack(self) -> None:
        if self.events:
            frame = frame_of(self.table, self.events)
            self.packed.append(frame)
            self.packed_rows += frame.height
            self.events.clear()


class TableWriter:
    """Takes decoded events of all connections and appends them to the event tables under `root`.

    `rows` counts what was taken, by (venue, table).
    """

    def __init__(
        self, root: Path, flush_rows: int, flush_s: float, read_clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.rows: Counter[tuple[str, str]] = Counter()
        self._root = root
        self._flush_rows = flush_rows
        self._flush_s = flush_s
        self._read_clock_s = read_clock_s
        self._pending: list[_Pending] = []
        self._waiting: dict[tuple[str, type, str], list[Event]] = {}
        self._unpacked = 0
        self._shards = 0

    def add(self, venue: str, events: Sequence[Event]) -> None:
        """Take events of one venue, in the order of their receipt."""
        waiting = self._waiting
        for event in events:
            try:
                waiting[venue, type(event), event.symbol].append(event)
            except KeyError:
                self._begin(venue, event)
        self._unpacked += len(events)
        if self._unpacked >= _PACK_EVENTS:
            self._pack()

    def _pack(self) -> None:
        """Pack what has become long, and write what is full."""
        self._unpacked = 0
        for pending in self._pending:
            if len(pending.events) >= _WORTH_PACKING:
                pending.pack()
                if pending.packed_rows >= self._flush_rows:
                    self._write(pending)

    def flush_old(self) -> None:
        """Write what has waited for longer than `flush_s`. To be called now and then."""
        oldest_s = self._read_clock_s() - self._flush_s
        for pending in self._pending:
            if pending.since_s <= oldest_s:
                self._write(pending)

    def flush(self) -> None:
        """Write everything."""
        for pending in self._pending:
            self._write(pending)

    def _begin(self, venue: str, event: Event) -> None:
        pending = _Pending(TABLES[type(event)], venue, event.symbol, self._read_clock_s(), [event])
        self._pending.append(pending)
        self._waiting[venue, type(event), event.symbol] = pending.events

    def _write(self, pending: _Pending) -> None:
        """Append shards, one per UTC day that the rows touch."""
        pending.pack()
        packed, pending.packed = pending.packed, []
        rows, pending.packed_rows, pending.since_s = pending.packed_rows, 0, self._read_clock_s()
        if not rows:
            return
        table, time_column = pending.table, pending.table.order[0]
        frame = packed[0] if len(packed) == 1 else pl.concat(packed)
        if not frame[time_column].is_sorted():
            frame = frame.sort(table.order, maintain_order=True)
        for date, day in split_by_date(frame, time_column):
            part = Partition(table.name, pending.venue, pending.symbol, date)
            self._shards += 1
            append(self._root, part, day, int(day[time_column][0]), self._shards)
        self.rows[pending.venue, table.name] += rows
