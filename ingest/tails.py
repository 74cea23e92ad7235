"""The growing shard of a partition, its tail: written again, with all its rows and in one step, until it is sealed."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from core.plain_parquet import PlainParquet, frame_of_rows
from core.plain_rows import PlainRows, joined, plain_rows_of
from core.schema import Table, check
from core.shard_files import seal_shard, spare_of, take_over
from core.store import Partition, shard_name, split_by_date
from core.turned_file import TurnedFile
from core.units import NS_PER_DAY
from ingest.packing import in_order

_BATCH_ROWS: Final = 16_384


class Tail:
    """The tail of a partition under `root`. `name` is that of its file, empty where there is none.

    What raises OSError has changed nothing, on disk or here.
    """

    def __init__(self, root: Path, part: Partition, table: Table) -> None:
        self.name = ""
        self._root = root
        self._part = part
        self._path = root  # of the file, if there is one
        self._table = table
        self._number: int | None = None  # of the next shard, once it is known
        self._held: PlainParquet | None = None
        self._file: TurnedFile | None = None
        self._last_ns = 0

    @property
    def rows(self) -> int:
        return self._held.rows if self._held else 0

    def begin(self, first_ns: int) -> list[Path]:
        """Begin a new shard; what was set aside of files that a power cut had left."""
        torn: list[Path] = []
        if self._number is None:
            self._number, torn = take_over(self._root, self._part)
        self.name = shard_name(first_ns, self._number)
        self._path = self._root / self._part.path / self.name
        self._number += 1
        return torn

    def grow(self, fresh: PlainRows, fsync: bool) -> None:
        """Write the tail with more rows. What is encoded already stays so, unless a new row belongs before it."""
        held = self._held
        if held is None or fresh.first_ns < self._last_ns:
            held = PlainParquet(self._table)
            fresh = fresh if self._held is None else plain_rows_of(self._table, self._with(fresh))
        mark = held.mark()
        held.add(fresh)
        self._file = self._file or TurnedFile(self._path, spare_of(self._root, self._part, self.name))
        try:
            self._file.put(held.content(), fsync)
        except OSError:
            held.cut(mark)
            raise
        self._held, self._last_ns = held, fresh.last_ns

    def seal(self, fresh: PlainRows, fsync: bool) -> None:
        """Write the tail for the last time, checked, compressed and with its digest."""
        rows = self._with(fresh)
        check(self._table, rows)
        if self._file is not None:
            self._file.drop_spare()  # the disk may be full
        seal_shard(self._path, rows, fsync)
        self.let_go()

    def let_go(self) -> None:
        """The next rows begin a new tail."""
        if self._file is not None:
            self._file.drop_spare()
        self.name, self._held, self._file = "", None, None

    def _with(self, fresh: PlainRows) -> pl.DataFrame:
        """All rows of the tail, and these."""
        held = self._held or PlainParquet(self._table)
        mark = held.mark()
        held.add(fresh)
        rows = in_order(self._table, held.frame())
        held.cut(mark)
        return rows


def ordered(rows: PlainRows) -> PlainRows:
    """The rows sorted as their table asks."""
    return rows if rows.is_sorted else plain_rows_of(rows.table, in_order(rows.table, frame_of_rows(rows)))


def by_day(rows: PlainRows) -> Iterator[tuple[int, PlainRows]]:
    """(days since 1970, rows) for each UTC day that sorted rows touch."""
    first = rows.first_ns // NS_PER_DAY
    if first == rows.last_ns // NS_PER_DAY:
        yield first, rows
        return
    for _, frame in split_by_date(frame_of_rows(rows), rows.table.order[0]):
        piece = plain_rows_of(rows.table, frame)
        yield piece.first_ns // NS_PER_DAY, piece


def packed(batches: Sequence[PlainRows]) -> Iterator[PlainRows]:
    """The same rows in batches of at least `_BATCH_ROWS`, but for the last."""
    run: list[PlainRows] = []
    for batch in batches:
        run.append(batch)
        if sum(each.height for each in run) >= _BATCH_ROWS:
            yield joined(run)
            run = []
    if run:
        yield joined(run)
