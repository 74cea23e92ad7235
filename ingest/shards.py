"""Rows to files: what the table writer's thread does.

Each partition that rows come to has one growing shard, the tail. It is written again, with all its rows and in one
step, whenever there are new ones, until it is long or old; then it is sealed and the next begins. So a row is in a
readable file as soon as it is in any, and never in two. A disk that refuses is told of once and tried once a second;
meanwhile rows wait in memory, up to a bound beyond which the oldest are dropped and leave a row in `gaps`.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

import polars as pl

from core.atomic import put_file
from core.plain_parquet import PlainParquet
from core.schema import GAPS, Table, check
from core.store import Partition, seal_shard, shard_name, split_by_date, take_over, torn_text
from ingest.events import Event, Gap
from ingest.packing import frame_of, in_order

Observe: TypeAlias = Callable[[str, Table, str, pl.DataFrame], None]
"""Gets (venue, table, symbol, rows) of each write, the new rows only, on the writer's thread."""

SEAL_AFTER_S: Final = 30.0
"""A tail this old is sealed: rewriting costs its length each time, some 0.15 us per row."""
_SPREAD: Final = 16
_TAIL_ROWS: Final = 1_000_000  # of all tails together, some 70 MB; beyond, what is written is sealed
_RETRY_S: Final = 1.0
_LOOSE: Final = 32  # frames that wait for a disk are put together by so many: an empty one takes 5 KB
_FRAME_ROWS: Final = 16_384
_FREED: Final = 0.1  # of the bound, each time it is reached


@dataclass
class _Growing:
    """A partition that rows come to: those that are in no file yet, and those of the tail."""

    part: Partition
    table: Table
    folder: Path
    number: int | None = None  # of the next shard, once it is known
    fresh: list[pl.DataFrame] = field(default_factory=list)
    fresh_rows: int = 0
    loose: int = 0  # frames since they were last put together
    tail: PlainParquet | None = None
    last: int = 0  # time of the tail's last row
    name: str = ""  # of the tail, empty where there is none
    old_s: float = 0.0  # when the tail is to be sealed
    lost: tuple[int, int, int] | None = None  # first and last time of rows that were dropped, and how many


@dataclass(frozen=True)
class ShardSettings:
    """`waiting_rows` bounds what waits in memory for a disk that refuses; `grows`: tails are rewritten (live)."""

    flush_rows: int
    waiting_rows: int
    fsync: bool
    grows: bool


class ShardWriter:
    """Puts rows into shards under `root`; one thread uses it. Others may read its counts and `trouble`.

    `waiting` counts rows that are in no file yet; `trouble` says why, where the disk refuses them. `lock` is held while
    a shard is written: whoever holds it sees a partition at rest. `sealed` is called with partitions that have a new
    sealed shard, and True where no more rows are expected.
    """

    def __init__(
        self,
        root: Path,
        settings: ShardSettings,
        lock: AbstractContextManager[Any],
        say: Callable[[str], None],
        observe: Observe | None = None,
        sealed: Callable[[Partition, bool], None] = lambda part, whole: None,
        read_clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waiting = 0
        self.written: Counter[tuple[str, str]] = Counter()
        self.dropped = 0
        self.trouble = ""
        self._root = root
        self._settings = settings
        self._lock = lock
        self._say = say
        self._observe = observe
        self._sealed = sealed
        self._read_clock_s = read_clock_s
        self._growing: dict[Partition, _Growing] = {}
        self._days: dict[tuple[str, str, str], list[_Growing]] = {}  # the same, by table, exchange and symbol
        self._tail_rows = 0
        self._since_s = 0.0  # of the trouble
        self._retry_s = 0.0
        self._tries = 0
        self._told = ""

    def take(self, venue: str, table: Table, symbol: str, events: Sequence[Event], write: bool) -> None:
        """Pack events of one kind and symbol; write them, and what was packed before, if asked to, or if many wait."""
        for date, rows in split_by_date(frame_of(table, events), table.order[0]) if events else ():
            growing = self._of(Partition(table.name, venue, symbol, date), table)
            growing.fresh.append(rows)
            growing.fresh_rows += rows.height
            growing.loose += 1
            self.waiting += rows.height
            if growing.fresh_rows >= self._settings.flush_rows:
                self._write(growing)
        if write:
            for growing in tuple(self._days.get((table.name, venue, symbol), ())):
                if growing.fresh:
                    self._write(growing)
        if self.waiting > self._settings.waiting_rows:
            self._make_room()

    def retry(self) -> None:
        """Where the disk has refused: try again, if it is time."""
        if self.trouble and self._read_clock_s() >= self._retry_s:
            waiting = [growing for growing in self._growing.values() if growing.fresh]
            self._tries += 1
            if waiting:  # another one each time: it may be a single folder that cannot be written to
                for growing in self._led_by_gaps(waiting[self._tries % len(waiting)]):
                    self._write(growing, probe=True)

    def _led_by_gaps(self, growing: _Growing) -> list[_Growing]:
        """What is to be tried first: where rows were dropped, the `gaps` that tell so, alone.

        Killed in between, a capture must not hide a hole. Once those are on disk, `_yielded` writes the rest.
        """
        stream = GAPS.name, growing.part.exchange, growing.part.symbol
        waiting = [gaps for gaps in self._days.get(stream, ()) if gaps.fresh]
        if growing.lost and not waiting:  # once only, or there would be a row for each second of an outage
            self._confess(growing, self.trouble)
            waiting = [gaps for gaps in self._days[stream] if gaps.fresh]
        return waiting or [growing]

    def _gaps_first(self) -> list[_Growing]:
        return sorted(self._growing.values(), key=lambda each: each.table is not GAPS)

    def seal_all(self) -> list[Partition]:
        """Write everything; the partitions that rows came to. No rows may follow."""
        for growing in list(self._growing.values()):
            if growing.lost:
                self._confess(growing, self.trouble)
        for growing in self._gaps_first():
            self._write(growing, seal=True, probe=True)
            self._let_go(growing)
        return list(self._growing)

    def tail_of(self, part: Partition) -> str:
        """The name of the shard of a partition that may be written again; empty where there is none."""
        growing = self._growing.get(part)
        return growing.name if growing else ""

    def _of(self, part: Partition, table: Table) -> _Growing:
        growing = self._growing.get(part)
        if growing is None:
            days = self._days.setdefault((part.table, part.exchange, part.symbol), [])
            days[:] = [*(day for day in days if day.part.date > part.date or not self._finish(day))]
            growing = self._growing[part] = _Growing(part, table, self._root / part.path)
            share = 1 - len(self._growing) % _SPREAD / _SPREAD  # or all would be sealed at once
            growing.old_s = self._read_clock_s() + share * SEAL_AFTER_S
            days.append(growing)
        return growing

    def _finish(self, growing: _Growing) -> bool:
        """A new day of a stream has begun: the one before gets no more rows, but for late ones. False if it has to
        wait for the disk."""
        self._write(growing, seal=True)
        if growing.fresh:
            return False
        self._let_go(growing)
        del self._growing[growing.part]
        self._sealed(growing.part, True)
        return True

    def _write(self, growing: _Growing, seal: bool = False, probe: bool = False) -> None:
        """Put the rows that are in no file into the tail. Where the disk refuses they stay, and it is told.

        While it refuses, nothing is tried but by a `probe`.
        """
        now_s = self._read_clock_s()
        if not growing.fresh or (self.trouble and not probe):
            self._tidy(growing)
            return
        fresh = in_order(growing.table, _joined(growing.fresh))
        first_ns = int(fresh[growing.table.order[0]][0])
        try:
            with self._lock:
                if not growing.name:
                    number = self._take_over(growing) if growing.number is None else growing.number
                    growing.name, growing.number = shard_name(first_ns, number), number + 1
                    growing.old_s = growing.old_s if growing.old_s > now_s else now_s + SEAL_AFTER_S
                if seal or self._is_long(growing, fresh, now_s):
                    self._seal(growing, fresh)
                else:
                    self._grow(growing, fresh)
        except OSError as error:
            self._refused(error, now_s)
            return
        self._wrote(growing, fresh)

    def _take_over(self, growing: _Growing) -> int:
        number, torn = take_over(self._root, growing.part)
        for path in torn:
            self._say(torn_text(path))
        return number

    def _is_long(self, growing: _Growing, fresh: pl.DataFrame, now_s: float) -> bool:
        rows = fresh.height + (growing.tail.rows if growing.tail else 0)
        is_old = now_s >= growing.old_s
        is_much = rows >= self._settings.flush_rows or self._tail_rows > _TAIL_ROWS
        return is_old or is_much or not self._settings.grows

    def _seal(self, growing: _Growing, fresh: pl.DataFrame) -> None:
        """Write the tail for the last time, checked, compressed and with its digest."""
        rows = self._with_tail(growing, fresh)
        check(growing.table, rows)
        seal_shard(growing.folder / growing.name, rows, self._settings.fsync)
        self._let_go(growing)

    def _grow(self, growing: _Growing, fresh: pl.DataFrame) -> None:
        """Write the tail with more rows. What is encoded already stays so, unless a new row belongs before it."""
        time = growing.table.order[0]
        tail, rows = growing.tail, fresh
        if tail is None or int(fresh[time][0]) < growing.last:
            tail, rows = PlainParquet(growing.table), self._with_tail(growing, fresh)
        before = tail.mark(), tail.rows
        tail.add(rows)
        content = tail.content()
        try:
            put_file(growing.folder / growing.name, lambda draft: draft.write_bytes(content), self._settings.fsync)
        except OSError:
            tail.cut(*before)
            raise
        growing.tail, growing.last = tail, int(rows[time][-1])
        self._tail_rows += fresh.height

    def _with_tail(self, growing: _Growing, fresh: pl.DataFrame) -> pl.DataFrame:
        tail = growing.tail
        return fresh if tail is None else in_order(growing.table, pl.concat([tail.frame(), fresh], rechunk=True))

    def _let_go(self, growing: _Growing) -> None:
        """The next rows begin a new tail."""
        self._tail_rows -= growing.tail.rows if growing.tail else 0
        growing.name, growing.tail = "", None

    def _wrote(self, growing: _Growing, fresh: pl.DataFrame) -> None:
        part = growing.part
        growing.fresh, growing.fresh_rows, growing.loose = [], 0, 0
        self.waiting -= fresh.height
        self.written[part.exchange, part.table] += fresh.height
        if self._observe:
            self._observe(part.exchange, growing.table, part.symbol, fresh)
        if not growing.name:
            self._sealed(part, False)
        if self.trouble:
            self._yielded()

    def _refused(self, error: OSError, now_s: float) -> None:
        """Tell of a disk that refuses, once per reason."""
        reason = error.strerror or str(error)
        self.trouble = f"{reason} ({error.filename or self._root})"
        self._retry_s = now_s + _RETRY_S
        if not self._told:
            self._since_s = now_s
        if reason != self._told:
            self._told = reason
            self._say(
                f"CANNOT WRITE: {self.trouble}. Rows wait in memory, up to {self._settings.waiting_rows:,}, and are "
                f"tried again each second: make room, or make {self._root} writable"
            )

    def _yielded(self) -> None:
        """The disk takes rows again: all that waited, and what was dropped as gaps."""
        why, self.trouble = self.trouble, ""
        for growing in list(self._growing.values()):
            if growing.lost and not self.trouble:
                self._confess(growing, why)
        for growing in self._gaps_first():
            self._write(growing)
        if not self.trouble:
            self._told = ""
            self._say(
                f"writing again after {self._read_clock_s() - self._since_s:.0f} s; "
                f"{self.dropped:,} rows were dropped in all" + (", see `gaps`" if self.dropped else "")
            )

    def _confess(self, growing: _Growing, why: str) -> None:
        """A row in `gaps` for what was dropped of a stream."""
        assert growing.lost is not None
        (from_ns, to_ns, rows), growing.lost = growing.lost, None
        part = growing.part
        gap = Gap(part.symbol, part.table, from_ns, to_ns, f"{rows:,} rows dropped: {why}", False)
        self.take(part.exchange, GAPS, part.symbol, [gap], write=True)

    def _make_room(self) -> None:
        """Too many rows wait: write all, or, where the disk refuses, drop the oldest."""
        for growing in list(self._growing.values()):
            self._write(growing)
        if self.waiting > self._settings.waiting_rows:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """The frames that begin first go, but for what tells of missing rows itself."""
        frames = [
            (int(frame[growing.table.order[0]][0]), number, growing)
            for growing in self._growing.values()
            if growing.table is not GAPS
            for number, frame in enumerate(growing.fresh)
        ]
        enough = self.waiting - int((1 - _FREED) * self._settings.waiting_rows)
        for _, _, growing in sorted(frames, key=itemgetter(0, 1)):
            if enough <= 0:
                return
            enough -= self._drop(growing)

    def _drop(self, growing: _Growing) -> int:
        """Drop the first frame that waits; how many rows it had."""
        frame = growing.fresh.pop(0)
        time = frame[growing.table.order[0]]
        from_ns, to_ns, rows = growing.lost or (int(time[0]), int(time[-1]), 0)
        growing.lost = min(from_ns, int(time[0])), max(to_ns, int(time[-1])), rows + frame.height
        growing.fresh_rows -= frame.height
        self.waiting -= frame.height
        self.dropped += frame.height
        return frame.height

    def _tidy(self, growing: _Growing) -> None:
        """Put frames that wait together, once they are many."""
        if growing.loose >= _LOOSE:
            growing.fresh, growing.loose = list(_packed(growing.fresh)), 0


def _joined(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    return frames[0] if len(frames) == 1 else pl.concat(frames, rechunk=True)


def _packed(frames: Sequence[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of at least `_FRAME_ROWS`, but for the last."""
    run: list[pl.DataFrame] = []
    for frame in frames:
        run.append(frame)
        if sum(each.height for each in run) >= _FRAME_ROWS:
            yield _joined(run)
            run = []
    if run:
        yield _joined(run)
