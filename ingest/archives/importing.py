"""One archive file into the event tables: read, convert, sort, write aside, commit."""

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from core.errors import StageError
from core.schema import GAPS, SIGNALS, TRADES, Table
from core.store import Partition, append, day_start_ns, split_by_date
from core.units import NS_PER_DAY, NS_PER_MS
from ingest.archives.choice import Job
from ingest.archives.formats import (
    BROKEN,
    DUPLICATE,
    OTHER_DAY,
    OTHER_SYMBOL,
    TOLD_BEFORE,
    UNSOUND,
    Counts,
    Piece,
    unverified_mark,
)
from ingest.archives.manifest import FORMAT_VERSION, Entry, Manifest
from ingest.archives.seams import clocks_by_day, seams_of, told_before
from ingest.archives.spool import MOST_ROWS, IdRange, Spool, hole_rows
from ingest.archives.withdrawal import withdraw_signals
from ingest.signals import merge_signals

_SYMBOL: Final = r"^\w[\w.-]{0,39}$"  # what is fit to be part of a path


def sha256_of(path: Path) -> str:
    """The checksum of a file as `sha256sum` prints it."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def is_imported(manifest: Manifest, job: Job, latency_ms: float) -> bool:
    """Whether the tables hold what the job would bring. What the file holds is compared only if it is at hand."""
    entry = manifest.entries.get(job.file.key)
    if entry is None or entry.state != "done":
        return False
    made = entry.version, entry.latency_ms, entry.tables, entry.only
    if made != (FORMAT_VERSION, latency_ms, job.days_by_table, list(job.file.only)) or manifest.has_lost(entry):
        return False
    path = job.file.path
    if not path.exists():
        return bool(job.file.url)
    facts = path.stat()
    return (facts.st_size, facts.st_mtime_ns) == (entry.size, entry.mtime_ns) or sha256_of(path) == entry.sha256


@dataclass
class _Writer:
    """The sorted rows of one file on their way into the staging folder."""

    root: Path
    manifest: Manifest
    job: Job
    number: int
    counts: Counts
    most_rows: int
    later_ns: int | None
    """By how much its assumed latency is longer than when the file was imported before; None for a new file."""
    spools: dict[tuple[str, str], Spool] = field(default_factory=dict)
    signals: list[pl.DataFrame] = field(default_factory=list)
    gaps: list[pl.DataFrame] = field(default_factory=list)
    written: dict[str, int] = field(default_factory=dict)
    spans_ns: dict[str, tuple[int, int]] = field(default_factory=dict)
    shards: list[str] = field(default_factory=list)

    @property
    def staging(self) -> Path:
        return self.manifest.staging(self.job.file.key)

    def take(self, piece: Piece) -> None:
        """Take the rows of a piece that are wanted from this file."""
        if piece.table is GAPS:
            self.gaps.append(piece.rows)
            return
        if piece.table.name not in self.job.days:
            return
        rows = self._of_the_days(piece)
        if piece.table is SIGNALS:
            self.signals.append(rows)
        elif "symbol" in rows.columns:
            rows = self._of_the_symbols(rows)
            for (symbol,), same in rows.partition_by("symbol", as_dict=True, include_key=False).items():
                self._spool(piece.table, str(symbol)).add(same)
        else:
            self._spool(piece.table, self.job.file.symbol).add(rows)

    def _of_the_symbols(self, rows: pl.DataFrame) -> pl.DataFrame:
        named = self.counts.keep(rows, pl.col("symbol").str.contains(_SYMBOL), "no symbol")
        if not (only := self.job.file.only):
            return named
        wanted = named.filter(pl.col("symbol").is_in(only))
        self.counts.drop(OTHER_SYMBOL, named.height - wanted.height, [])
        return wanted

    def _of_the_days(self, piece: Piece) -> pl.DataFrame:
        days = self.job.days[piece.table.name]
        if days is None:
            return piece.rows
        time = self.job.dataset.time_of(piece.table)
        numbers = [day_start_ns(day) // NS_PER_DAY for day in days]
        return self.counts.keep(piece.rows, (pl.col(time) // NS_PER_DAY).is_in(numbers), OTHER_DAY)

    def _spool(self, table: Table, symbol: str) -> Spool:
        spool = self.spools.get((table.name, symbol))
        if spool is None:
            dataset = self.job.dataset
            unique = tuple(name for name in dataset.unique.get(table.name, ()) if name != "symbol")
            has_ids = dataset.has_contiguous_ids
            spool = Spool(table, unique, has_ids, self.staging, self.counts, self.most_rows)
            self.spools[table.name, symbol] = spool
        return spool

    def finish(self) -> None:
        """Sort and write everything; signals go into their partitions at once, which is repeatable."""
        for (_, symbol), spool in self.spools.items():
            for frame in spool.shards():
                self._write(spool.table, symbol, self._without_told(spool.table, symbol, frame))
            holes = self._own_holes(spool)
            if holes.height:
                self._write(GAPS, symbol, holes)
        if self.gaps:
            self._write(GAPS, self.job.file.symbol, pl.concat(self.gaps).sort("from_ns"))
        if self.signals:
            self._merge_signals(pl.concat(self.signals))

    def _without_told(self, table: Table, symbol: str, frame: pl.DataFrame) -> pl.DataFrame:
        """But for trades around midnight that the day beyond it has too, as another clock cut it."""
        if table is not TRADES:
            return frame
        file, entries = self.job.file, self.manifest.entries
        same = [each for each in entries.values() if (each.venue, each.symbol) == (file.venue, file.symbol)]
        own = dict.fromkeys(self.job.days_by_table[table.name], self.job.dataset.day_column)
        seams = seams_of(clocks_by_day(each for each in same if each.key != file.key) | own)
        shards = entries[file.key].shards if file.key in entries else ()
        told = told_before(self.root, file.venue, symbol, seams, frame, shards)
        return self.counts.keep(frame, ~pl.lit(told), TOLD_BEFORE)

    def _own_holes(self, spool: Spool) -> pl.DataFrame:
        """Holes of the ids, but for those made by leaving out a day of this file that another one fills."""
        days = self.job.days[spool.table.name]
        if days is None:
            return hole_rows(spool.gaps)
        numbers = [day_start_ns(day) // NS_PER_DAY for day in days]
        kept = [each for each in spool.gaps if all(day in numbers for day in _days_inside(each[1], each[2]))]
        return hole_rows(kept)

    def _write(self, table: Table, symbol: str, frame: pl.DataFrame) -> None:
        for date, day in split_by_date(frame.select(*table.columns), table.order[0]):
            part = Partition(table.name, self.job.file.venue, symbol, date)
            first_ns, last_ns = day[table.order[0]][0], day[table.order[0]][-1]
            path = append(self.staging, part, day, first_ns, self.number)
            self.shards.append(str(path.relative_to(self.staging)))
            self._count(table, day.height, first_ns, last_ns)

    def _count(self, table: Table, rows: int, first_ns: int, last_ns: int) -> None:
        before = self.spans_ns.get(table.name, (first_ns, last_ns))
        self.spans_ns[table.name] = min(before[0], first_ns), max(before[1], last_ns)
        self.written[table.name] = self.written.get(table.name, 0) + rows

    def _merge_signals(self, rows: pl.DataFrame) -> None:
        key = list(self.job.dataset.unique[SIGNALS.name])
        unique = rows.unique(key, keep="first", maintain_order=True)
        self.counts.drop(DUPLICATE, rows.height - unique.height, [])
        if self.later_ns is not None:
            earlier = unique.with_columns(pl.col("known_ns") - self.later_ns)
            withdraw_signals(self.root, self.job.file.venue, self.job.file.symbol, earlier)
        merge_signals(self.root, self.job.file.venue, self.job.file.symbol, unique, assumed=True)
        if unique.height:
            times = unique["time_ns"].sort()
            self._count(SIGNALS, unique.height, times[0], times[-1])


def import_file(
    root: Path, job: Job, latency_ms: float, manifest: Manifest, number: int, most_rows: int = MOST_ROWS
) -> Entry:
    """Import a file and commit it. Raises StageError if it is damaged or is not what its name says."""
    facts, before = job.file.path.stat(), manifest.entries.get(job.file.key)
    _require_unmerged(manifest, job, before)
    latency_ns = round(latency_ms * NS_PER_MS)
    later_ns = latency_ns - round(before.latency_ms * NS_PER_MS) if before else None
    writer = _Writer(root, manifest, job, number, Counts(), most_rows, later_ns)
    for pieces in job.dataset.pieces(job.file, latency_ns, writer.counts):
        for piece in pieces:
            writer.take(piece)
    _require_as_named(job, writer.counts)
    writer.finish()
    return manifest.commit(_entry(writer, latency_ms, facts, before))


def _require_unmerged(manifest: Manifest, job: Job, before: Entry | None) -> None:
    """Raise StageError where rows of an earlier import would have to go that cannot be told from others any more."""
    if before and (merged := manifest.merged(before)):
        raise StageError(
            f"{job.file.path} differs from what was imported, whose rows were merged with others since: import into "
            f"another --data-dir, or delete {', '.join(sorted({str(Path(name).parent) for name in merged}))[:300]}"
        )


def _require_as_named(job: Job, counts: Counts) -> None:
    """Raise StageError for a file of which no row is fit to be taken."""
    strange = () if job.file.only else (OTHER_SYMBOL,)
    if counts.read and sum(counts.dropped[why] for why in (BROKEN, UNSOUND, *strange)) >= counts.read:
        raise StageError(
            f"{job.file.path}: none of its {counts.read:,} rows is what its name promises: {counts.samples[0]}"
        )


def _entry(writer: _Writer, latency_ms: float, facts: os.stat_result, before: Entry | None) -> Entry:
    """What the manifest is to hold of a file that was written aside. `facts` are those of before it was read."""
    file, counts = writer.job.file, writer.counts
    ids = next((spool.ids for spool in writer.spools.values() if spool.has_contiguous_ids), IdRange())
    return Entry(
        key=file.key,
        number=writer.number,
        file=file.path.name,
        sha256=sha256_of(file.path),
        size=facts.st_size,
        mtime_ns=facts.st_mtime_ns,
        provider=file.provider,
        dataset=file.dataset,
        venue=file.venue,
        symbol=file.symbol,
        interval=file.interval,
        only=list(file.only),
        latency_ms=latency_ms,
        tables=writer.job.days_by_table,
        rows_read=counts.read,
        written=writer.written,
        spans_ns=writer.spans_ns,
        dropped=dict(counts.dropped),
        samples=counts.samples,
        first_id=ids.first_id,
        last_id=ids.last_id,
        first_ns=ids.first_ns,
        last_ns=ids.last_ns,
        shards=writer.shards,
        outdated=before.shards if before else [],
        unverified=unverified_mark(file.path).exists(),
    )


def _days_inside(from_ns: int, to_ns: int) -> range:
    return range(from_ns // NS_PER_DAY, to_ns // NS_PER_DAY + 1)
