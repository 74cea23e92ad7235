"""Rows of one table from one file, in whatever order they come, to sorted shards, in bounded memory.

What fits is sorted in memory. What does not is put down in sorted runs and read back by stretches of time, each of
which fits again. Rows that share a table's unique columns are dropped but for the first.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import polars as pl

from core.gaps import NOT_ARCHIVED, Row, told_at_their_ends
from core.schema import TRADES, Table
from core.units import NS_PER_HOUR
from ingest.archives.formats import DUPLICATE, Counts

Hole: TypeAlias = Row
"""A row of `gaps`."""
MOST_ROWS: Final = 4_000_000
"""Rows held before they are put down, and about as many in a shard: 256 MB, twice that while they are sorted."""
_ROW_GROUP: Final = 250_000


@dataclass
class IdRange:
    """Contiguous ids as they were met: what one file began and ended with."""

    first_id: int | None = None
    last_id: int | None = None
    first_ns: int = 0
    last_ns: int = 0


@dataclass
class Spool:
    """Takes frames by `add`, gives sorted ones by `shards`. `newest_first` files are turned round."""

    table: Table
    unique: tuple[str, ...]
    has_contiguous_ids: bool
    folder: Path
    counts: Counts
    most_rows: int = MOST_ROWS
    ids: IdRange = field(default_factory=IdRange)
    gaps: list[Hole] = field(default_factory=list)
    _frames: list[pl.DataFrame] = field(default_factory=list)
    _rows: int = 0
    _runs: deque[Path] = field(default_factory=deque)
    _made: int = 0
    _per_hour: dict[int, int] = field(default_factory=dict)
    _newest_first: bool | None = None

    @property
    def time(self) -> str:
        return self.table.order[0]

    def add(self, frame: pl.DataFrame) -> None:
        """Take a batch; it may write a run."""
        if not frame.height:
            return
        self._frames.append(frame)
        self._rows += frame.height
        if self._rows >= self.most_rows:
            self._put_down()

    def shards(self) -> Iterator[pl.DataFrame]:
        """All rows in order, in frames whose times do not overlap. Call it once."""
        if not self._runs:
            if self._frames:
                yield self._finished(self._gathered())
            return
        self._put_down()
        for from_ns, to_ns in self._stretches():
            inside = pl.col(self.time).is_between(from_ns, to_ns, closed="left")
            runs = [pl.scan_parquet(run).filter(inside) for run in self._runs]
            yield self._finished(pl.concat(runs).collect())
        for run in self._runs:
            run.unlink()

    def _gathered(self) -> pl.DataFrame:
        """What is held, in order of time as far as the file was: turned round where that is newest first."""
        frame = pl.concat(self._frames)
        self._frames.clear()
        self._rows = 0
        if self._newest_first is None:
            self._newest_first = _falls(frame[self.time])
        return frame.reverse() if self._newest_first else frame

    def _put_down(self) -> None:
        if not self._frames:
            return
        frame = self._sorted(self._gathered())
        hours = np.unique(frame[self.time].to_numpy() // NS_PER_HOUR, return_counts=True)
        for hour, count in zip(*(values.tolist() for values in hours), strict=True):
            self._per_hour[hour] = self._per_hour.get(hour, 0) + count
        self._made += 1
        run = self.folder / f"run-{id(self):x}-{self._made:06d}.parquet"
        run.parent.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(run, compression="lz4", row_group_size=_ROW_GROUP)
        if self._newest_first:
            self._runs.appendleft(run)
        else:
            self._runs.append(run)

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Whole hours, together so many that their rows fit; one hour is never cut."""
        first, rows = None, 0
        for hour in sorted(self._per_hour):
            if first is not None and rows + self._per_hour[hour] > self.most_rows:
                yield first * NS_PER_HOUR, hour * NS_PER_HOUR
                first, rows = None, 0
            first = hour if first is None else first
            rows += self._per_hour[hour]
        if first is not None:
            yield first * NS_PER_HOUR, (max(self._per_hour) + 1) * NS_PER_HOUR

    def _finished(self, frame: pl.DataFrame) -> pl.DataFrame:
        rows = self._without_duplicates(self._sorted(frame))
        if self.has_contiguous_ids:
            self._note_holes(rows)
        if self.table is TRADES and rows["trade_id"].dtype != pl.String:
            rows = rows.with_columns(pl.col("trade_id").cast(pl.String))
        return rows

    def _sorted(self, frame: pl.DataFrame) -> pl.DataFrame:
        """By time, then by a numbered id where there is one: a venue's own order within a millisecond."""
        number = next((name for name in ("trade_id", "update_id") if frame.schema.get(name) == pl.Int64), None)
        if number is None:
            return frame if frame[self.time].is_sorted() else frame.sort(self.time, maintain_order=True)
        step, rise = np.diff(frame[self.time].to_numpy()), np.diff(frame[number].to_numpy())
        if not ((step < 0) | ((step == 0) & (rise < 0))).any():
            return frame
        return frame.sort(self.time, number, maintain_order=True)

    def _without_duplicates(self, frame: pl.DataFrame) -> pl.DataFrame:
        if not self.unique:
            return frame
        if len(self.unique) == 1 and frame[self.unique[0]].dtype == pl.Int64:
            values = frame[self.unique[0]].to_numpy()
            if (values[1:] > values[:-1]).all():
                return frame
        repeats = ~pl.struct(self.unique).is_first_distinct()
        if self.unique == ("trade_id",) and frame["trade_id"].dtype == pl.String:
            repeats = ~pl.col("trade_id").is_first_distinct() & (pl.col("trade_id") != "")
        return self.counts.keep(frame, ~repeats, DUPLICATE)

    def _note_holes(self, frame: pl.DataFrame) -> None:
        """Ids that the file jumps over, as gaps between the rows on either side."""
        if not frame.height:
            return
        ids, times = frame["trade_id"].to_numpy(), frame[self.time].to_numpy()
        order = np.argsort(ids, kind="stable")
        ids, times = ids[order], times[order]
        if self.ids.last_id is not None:
            ids, times = np.r_[self.ids.last_id, ids], np.r_[self.ids.last_ns, times]
        else:
            self.ids.first_id, self.ids.first_ns = int(ids[0]), int(times[0])
        for at in np.flatnonzero(np.diff(ids) > 1).tolist():
            self.gaps.append(hole(int(ids[at]), int(ids[at + 1]), int(times[at]), int(times[at + 1])))
        self.ids.last_id, self.ids.last_ns = int(ids[-1]), int(times[-1])


def hole_rows(holes: Sequence[Hole]) -> pl.DataFrame:
    """Rows of the table `gaps`."""
    return told_at_their_ends(holes).sort("from_ns")


def hole(last_id: int, next_id: int, last_ns: int, next_ns: int) -> Hole:
    """A row of `gaps` for the aggTrade ids between two."""
    reason = f"aggTrade ids {last_id + 1} to {next_id - 1} {NOT_ARCHIVED}"
    return TRADES.name, min(last_ns, next_ns), max(last_ns, next_ns), reason, False


def _falls(times: pl.Series) -> bool | None:
    """Whether times mostly fall; None if they do not change."""
    steps = np.diff(times.to_numpy())
    falling, rising = int((steps < 0).sum()), int((steps > 0).sum())
    return falling > rising if falling or rising else None
