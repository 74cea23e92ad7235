"""A symbol-day's events from the tables, in the total order, in slices of time that bound the memory."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from core import store
from core.errors import StageError
from core.gaps import of_archives, settled
from core.schema import BOOK_DELTAS, GAPS, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES, Table
from core.store import Partition, hash_of
from core.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE
from research.bars.events import Events, merge_events

SLICE_ROWS: Final = 500_000  # events merged at a time: 24 MB, which the allocator keeps instead of faulting in anew
_Columns = tuple[Table, tuple[str, ...]]
_COLUMNS: Final[tuple[_Columns, ...]] = (
    (TOP_OF_BOOK, ("recv_ns", "bid_price", "bid_qty", "ask_price", "ask_qty")),
    (TRADES, ("recv_ns", "price", "qty", "taker_side", "recv_assumed")),
    (LIQUIDATIONS, ("recv_ns", "liquidated", "price", "qty")),
    (MARK_PRICES, ("recv_ns", "mark_price", "index_price", "funding_rate", "next_funding_ns", "open_interest")),
)
_DEPTH: Final[_Columns] = (BOOK_DELTAS, ("recv_ns", "update_id", "side", "price", "qty", "is_snapshot"))
TABLES: Final = tuple(table for table, _ in _COLUMNS)
"""Of what every bar is made, besides gaps. A day that none of them holds has no bars."""


@dataclass(frozen=True)
class DayEvents:
    """The events of a symbol-day; of the book's depth only if asked, which many bars do without."""

    root: Path
    day: Partition
    with_depth: bool = False

    @property
    def _parts(self) -> list[tuple[Partition, tuple[str, ...]]]:
        tables = (*_COLUMNS, _DEPTH) if self.with_depth else _COLUMNS
        return [(self.day.of(table), columns) for table, columns in tables]

    def hash(self) -> str:
        """Equal for equal events."""
        return hash_of(store.fingerprint(self.root, [part for part, _ in self._parts]), self._gaps().rows())

    def last_ns(self) -> int:
        """The receipt of the day's last event that is no gap; the day's start where there is none."""
        return max(self._last_of(part) for part, _ in self._parts)

    def _last_of(self, part: Partition) -> int:
        """Read from the end, by the hour where there is more than fits in the memory of a slice."""
        starts_ns = self.day.starts_ns
        step_ns = NS_PER_DAY if store.rows(self.root, part) <= SLICE_ROWS else NS_PER_HOUR
        for from_ns in range(starts_ns + NS_PER_DAY - step_ns, starts_ns - 1, -step_ns):
            found = store.read_between(self.root, part, ["recv_ns"], from_ns, from_ns + step_ns)
            if found.height:
                return int(found["recv_ns"][-1])
        return starts_ns

    def slices(self) -> Iterator[Events]:
        """The events in order. Raises StageError if the tables hold rows of another day."""
        gaps, left = self._gaps(), sum(store.rows(self.root, part) for part, _ in self._parts)
        for from_ns, to_ns in pairwise(self._bounds_ns(left)):
            quotes, trades, *others = (
                store.read_between(self.root, part, columns, from_ns, to_ns) for part, columns in self._parts
            )
            left -= sum(frame.height for frame in (quotes, trades, *others))
            told = gaps.filter(pl.col("told_ns").is_between(from_ns, to_ns, closed="left"))
            liquidations, marks, *deltas = others
            yield merge_events(quotes, _as_it_came(trades, gaps), liquidations, marks, told, *deltas)
        if left:
            day = self.day
            raise StageError(f"{day.instrument} {day.date}: {left} events are of another day: capture again")

    def _bounds_ns(self, rows: int) -> list[int]:
        """Times that cut the day at whole minutes into slices of some SLICE_ROWS, or of one minute if it has more."""
        ends_ns = [self.day.starts_ns, self.day.starts_ns + NS_PER_DAY]
        if rows <= SLICE_ROWS:
            return ends_ns
        counts = np.zeros(NS_PER_DAY // NS_PER_MINUTE, np.int64)
        for part, _ in self._parts:
            for path in store.files(self.root, part):
                minute = (pl.col("recv_ns") - self.day.starts_ns) // NS_PER_MINUTE
                found = store.scan(path).group_by(minute.alias("minute")).len().collect(engine="streaming")
                within = found.filter(pl.col("minute").is_between(0, counts.size, closed="left"))
                counts[within["minute"].to_numpy()] += within["len"].to_numpy()
        slices = (np.cumsum(counts) - counts) // SLICE_ROWS
        cuts = np.flatnonzero(np.diff(slices)) + 1
        return [ends_ns[0], *(self.day.starts_ns + cuts * NS_PER_MINUTE).tolist(), ends_ns[1]]

    def _gaps(self) -> pl.DataFrame:
        """The gaps that touch this day or were told in it, whichever day they began and were written on. A hole that
        was mended is one too: who acts at once has it, and does not wait for the refill.

        A gap counts from when it was told, as for the live runner: what was found late (a stream that turned out to be
        silent) was not known before.
        """
        parts = store.partitions(self.root, GAPS, [self.day.instrument])
        found = pl.concat([pl.DataFrame(schema=GAPS.columns), *(store.read(self.root, part) for part in parts)])
        end_ns = self.day.starts_ns + NS_PER_DAY
        return settled(found.filter((pl.col("told_ns") >= self.day.starts_ns) & (pl.col("from_ns") < end_ns)))


def _as_it_came(trades: pl.DataFrame, gaps: pl.DataFrame) -> pl.DataFrame:
    """Trades of shape (rows,) by receipt, without those that were fetched after the fact to fill a hole, all of it or
    a part: a bar in the hole closed without them when it was lived. Of an archive all receipts are assumed.
    """
    holes = gaps.filter((pl.col("stream") == TRADES.name) & ~of_archives())
    if not (holes.height and trades["recv_assumed"].any()):
        return trades
    ns, depth = trades["recv_ns"].to_numpy(), np.zeros(trades.height + 1, np.int64)
    np.add.at(depth, np.searchsorted(ns, holes["from_ns"].to_numpy(), "left"), 1)
    np.add.at(depth, np.searchsorted(ns, holes["to_ns"].to_numpy(), "right"), -1)
    return trades.filter(~(pl.col("recv_assumed") & pl.Series(depth.cumsum()[:-1] > 0)))
