"""Rows to files: what the table writer's thread does.

Each partition that rows come to has one growing shard, the tail (ingest/tails.py). It is written again, with all its
rows and in one step, whenever there are new ones, until it is long or old; then the next begins. So a row is in a
readable file as soon as it is in any, and never in two. A disk that refuses is told of once and tried once
a second; meanwhile rows wait in memory, up to a bound beyond which the oldest are dropped and leave a row in `gaps`.
"""

import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

import polars as pl

from core.gaps import DROPPED
from core.plain_parquet import frame_of_rows
from core.plain_rows import PlainRows, joined, plain_rows_of
from core.schema import GAPS, TRADES, Table
from core.shard_files import torn_text
from core.store import Partition, date_of_ns
from core.units import NS_PER_DAY
from ingest.events import Gap
from ingest.packing import rows_of
from ingest.tails import Tail, by_day, ordered, packed

Observe: TypeAlias = Callable[[str, Table, str, PlainRows], None]
"""Gets (venue, table, symbol, rows) of each write, the new rows only, on the writer's thread."""

OLD_S: Final = 60.0
"""A tail this old gets no more rows: writing it again costs its length each time, some 0.1 us per row."""
WORTH_SEALING: Final = 4_096
"""A tail of fewer rows stays as it is when it is old, until it is merged: to seal it would cost 2 ms."""
_SPREAD: Final = 16
_TAIL_ROWS: Final = 1_000_000  # of all tails together, some 70 MB; beyond, what is written is sealed
_RETRY_S: Final = 1.0
_LOOSE: Final = 32  # batches that wait for a disk are put together by so many: each takes 1 KB beside its rows
_FREED: Final = 0.1  # of the bound, each time it is reached


_Stream: TypeAlias = tuple[str, str, str]
"""Table, exchange and symbol."""


@dataclass
class _Growing:
    """A partition that rows come to: those that are in no file yet, and those of the tail."""

    part: Partition
    table: Table
    tail: Tail
    fresh: list[PlainRows] = field(default_factory=list)
    fresh_rows: int = 0
    loose: int = 0  # batches since they were last put together
    old_s: float = 0.0  # when the tail is old
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
    a shard is written: whoever holds it sees a partition at rest. `ended` is called with partitions that have a shard
    which gets no more rows, and True where none of them does.
    """

    def __init__(
        self,
        root: Path,
        settings: ShardSettings,
        lock: AbstractContextManager[Any],
        say: Callable[[str], None],
        observe: Observe | None = None,
        ended: Callable[[Partition, bool], None] = lambda part, whole: None,
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
        self._ended = ended
        self._read_clock_s = read_clock_s
        self._growing: dict[Partition, _Growing] = {}
        self._days: dict[_Stream, dict[int, _Growing]] = {}  # the same, by stream and day since 1970
        self._tail_rows = 0
        self._since_s = 0.0  # of the trouble
        self._retry_s = 0.0
        self._tries = 0
        self._told = ""

    def take(self, venue: str, symbol: str, rows: PlainRows, write: bool) -> None:
        """Take rows of one symbol; write them, and what came before, if asked to, or if many wait."""
        stream = rows.table.name, venue, symbol
        self._take_rows(stream, rows)
        if write:
            for growing in tuple(self._days.get(stream, {}).values()):
                if growing.fresh:
                    self._write(growing)
        if self.waiting > self._settings.waiting_rows:
            self._make_room()

    def _take_rows(self, stream: _Stream, rows: PlainRows) -> None:
        for day, piece in by_day(ordered(rows)) if rows.height else ():
            growing = self._days.get(stream, {}).get(day) or self._begin(stream, rows.table, day)
            growing.fresh.append(piece)
            growing.fresh_rows += piece.height
            growing.loose += 1
            self.waiting += piece.height
            if growing.fresh_rows >= self._settings.flush_rows:
                self._write(growing)

    def retry(self) -> None:
        """Where the disk has refused: try again, if it is time."""
        if self.trouble and self._read_clock_s() >= self._retry_s:
            waiting = [growing for growing in self._growing.values() if growing.lost or self._is_due(growing)]
            self._tries += 1
            if waiting:  # another one each time: it may be a single folder that cannot be written to
                for growing in self._led_by_gaps(waiting[self._tries % len(waiting)]):
                    self._write(growing, probe=True)

    def _led_by_gaps(self, growing: _Growing) -> list[_Growing]:
        """What is to be tried first: where rows were dropped, the `gaps` that tell so, alone.

        Killed in between, a capture must not hide a hole. Once those are on disk, `_yielded` writes the rest.
        """
        waiting = [gaps for gaps in self._others(growing, GAPS) if self._is_due(gaps)]
        if growing.lost and not waiting:  # once only, or there would be a row for each second of an outage
            self._confess(growing, self.trouble)
            waiting = [gaps for gaps in self._others(growing, GAPS) if self._is_due(gaps)]
        return waiting or [growing]

    def seal_all(self) -> list[Partition]:
        """Write everything; the partitions that rows came to. No rows may follow."""
        for growing in list(self._growing.values()):
            if growing.lost:
                self._confess(growing, self.trouble)
        gaps = [growing for growing in self._growing.values() if growing.table is GAPS]
        others = [growing for growing in self._growing.values() if growing.table is not GAPS]
        for growing in (*gaps, *others, *gaps):  # the second time what was held back
            self._write(growing, seal=True, probe=True)
            self._let_go(growing)
        return list(self._growing)

    def tail_of(self, part: Partition) -> str:
        """The name of the shard of a partition that may be written again; empty where there is none."""
        growing = self._growing.get(part)
        return growing.tail.name if growing else ""

    def _begin(self, stream: _Stream, table: Table, day: int) -> _Growing:
        """A partition that rows come to for the first time."""
        days = self._days.setdefault(stream, {})
        for before in [before for before in days if before < day and self._finish(days[before])]:
            del days[before]
        name, venue, symbol = stream
        part = Partition(name, venue, symbol, date_of_ns(day * NS_PER_DAY))
        share = 1 - len(self._growing) % _SPREAD / _SPREAD  # or all would be old at once
        old_s = self._read_clock_s() + share * OLD_S
        days[day] = self._growing[part] = _Growing(part, table, Tail(self._root, part, table), old_s=old_s)
        return days[day]

    def _finish(self, growing: _Growing) -> bool:
        """A new day of a stream has begun: the one before gets no more rows, but for late ones. False if it has to
        wait for the disk."""
        self._write(growing, seal=True)
        if growing.fresh:
            return False
        self._let_go(growing)
        del self._growing[growing.part]
        self._ended(growing.part, True)
        return True

    def _write(self, growing: _Growing, seal: bool = False, probe: bool = False) -> None:
        """Put the rows that are in no file into the tail. Where the disk refuses they stay, and it is told.

        While it refuses, nothing is tried but by a `probe`.
        """
        now_s = self._read_clock_s()
        if not growing.fresh or (self.trouble and not probe):
            self._tidy(growing)
            return
        if now_s >= growing.old_s and 0 < growing.tail.rows < WORTH_SEALING and not seal:
            self._let_go(growing)
            self._ended(growing.part, False)
        fresh, held_back = self._apart(growing)
        if not fresh.height:
            return
        tail, fsync = growing.tail, self._settings.fsync
        try:
            with self._lock:
                if not tail.name:
                    self._tell_torn(tail.begin(fresh.first_ns))
                    growing.old_s = growing.old_s if growing.old_s > now_s else now_s + OLD_S
                before = tail.rows
                if seal or self._is_long(growing, fresh, now_s):
                    tail.seal(fresh, fsync)
                else:
                    tail.grow(fresh, fsync)
        except OSError as error:
            self._refused(error, now_s)
            return
        self._tail_rows += tail.rows - before
        self._wrote(growing, fresh, held_back)

    def _apart(self, growing: _Growing) -> tuple[PlainRows, list[PlainRows]]:
        """(what may be written now, what may not): that trades were fetched is told when they are on disk. Killed in
        between, a capture must not hide a hole, and a disk that is full may take the one and not the other.
        """
        rows = ordered(joined(growing.fresh))
        if growing.table is not GAPS or not rows.any("mended"):
            return rows, []
        if not any(each.fresh or each.lost for each in self._others(growing, TRADES)):
            return rows, []
        frame, is_early = frame_of_rows(rows), pl.col("mended") & (pl.col("stream") == TRADES.name)
        early = plain_rows_of(GAPS, frame.filter(is_early))
        return plain_rows_of(GAPS, frame.filter(~is_early)), [early] if early.height else []

    def _others(self, growing: _Growing, table: Table) -> list[_Growing]:
        """The days of another table of the same instrument."""
        part = growing.part
        return list(self._days.get((table.name, part.exchange, part.symbol), {}).values())

    def _is_due(self, growing: _Growing) -> bool:
        """Whether rows wait that may be written."""
        return bool(growing.fresh) and self._apart(growing)[0].height > 0

    def _tell_torn(self, paths: list[Path]) -> None:
        for path in paths:
            self._say(torn_text(path))

    def _is_long(self, growing: _Growing, fresh: PlainRows, now_s: float) -> bool:
        is_old = now_s >= growing.old_s
        is_much = fresh.height + growing.tail.rows >= self._settings.flush_rows or self._tail_rows > _TAIL_ROWS
        return is_old or is_much or not self._settings.grows

    def _let_go(self, growing: _Growing) -> None:
        """No row follows in the tail's file."""
        self._tail_rows -= growing.tail.rows
        growing.tail.let_go()

    def _wrote(self, growing: _Growing, fresh: PlainRows, held_back: list[PlainRows]) -> None:
        part = growing.part
        growing.fresh, growing.fresh_rows, growing.loose = held_back, sum(map(len, held_back)), len(held_back)
        self.waiting -= fresh.height
        self.written[part.exchange, part.table] += fresh.height
        if self._observe:
            self._observe(part.exchange, growing.table, part.symbol, fresh)
        if not growing.tail.name:
            self._ended(part, False)
        if self.trouble:
            self._yielded()
        if growing.table is TRADES:
            for gaps in self._others(growing, GAPS):
                self._write(gaps)  # what was held back

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
        for growing in sorted(self._growing.values(), key=lambda each: each.table is not GAPS):
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
        gap = Gap(part.symbol, part.table, from_ns, to_ns, f"{rows:,} {DROPPED}: {why}", False)
        self.take(part.exchange, part.symbol, rows_of(GAPS, [gap]), write=True)

    def _make_room(self) -> None:
        """Too many rows wait: write all, or, where the disk refuses, drop the oldest."""
        for growing in list(self._growing.values()):
            self._write(growing)
        if self.waiting > self._settings.waiting_rows:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        """The batches that begin first go, but for what tells of missing rows itself."""
        batches = [
            (batch.first_ns, number, growing)
            for growing in self._growing.values()
            if growing.table is not GAPS
            for number, batch in enumerate(growing.fresh)
        ]
        enough = self.waiting - int((1 - _FREED) * self._settings.waiting_rows)
        for _, _, growing in sorted(batches, key=itemgetter(0, 1)):
            if enough <= 0:
                return
            enough -= self._drop(growing)

    def _drop(self, growing: _Growing) -> int:
        """Drop the first batch that waits; how many rows it had."""
        batch = growing.fresh.pop(0)
        from_ns, to_ns, rows = growing.lost or (batch.first_ns, batch.last_ns, 0)
        growing.lost = min(from_ns, batch.first_ns), max(to_ns, batch.last_ns), rows + batch.height
        growing.fresh_rows -= batch.height
        self.waiting -= batch.height
        self.dropped += batch.height
        return batch.height

    def _tidy(self, growing: _Growing) -> None:
        """Put batches that wait together, once they are many."""
        if growing.loose >= _LOOSE:
            growing.fresh, growing.loose = list(packed(growing.fresh)), 0
