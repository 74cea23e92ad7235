"""Backfill: archives of Binance, Bybit and Tardis, as event tables and signals. From a folder, or downloaded.

    python ingest/backfill.py --set backfill.path=DIR [--set 'symbols=["binance_um:BTCUSDT"]']
    python ingest/backfill.py --set 'symbols=["binance_um:BTCUSDT"]' --set backfill.from=2024-03-01 --set ...to=...

Rows without a receive time get the venue's plus `backfill.latency_ms`, and say so in `recv_assumed`. Every row that is
not imported is counted with its reason. What was imported is in a manifest: a second run does only what is new.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from itertools import groupby
from typing import Final

from core.cli import stage_main
from core.config import ROOT, Config
from core.errors import ConfigError, StageError
from core.origin import Origin, read_origin, write_origin
from core.run_record import Stage
from core.schema import EVENTS, GAPS, OPTIONS, SIGNALS, TOP_OF_BOOK, TRADES, Table
from core.store import partitions, read
from ingest.archives.choice import Job, LeftOut, choose
from ingest.archives.continuity import write_holes_between
from ingest.archives.download import Downloader
from ingest.archives.formats import ArchiveFile, days_between
from ingest.archives.importing import import_file, is_imported
from ingest.archives.local import find
from ingest.archives.manifest import Entry, Manifest
from ingest.archives.remote import headers_for, plan
from ingest.capture_report import Data, report
from ingest.ownership import make_room

READS: tuple[Table, ...] = ()
WRITES: tuple[Table, ...] = (*EVENTS, GAPS, SIGNALS, OPTIONS)
_DOWNLOADS: Final = "archives"
_FEW: Final = 5
"""Of what is alike, so many are named and the rest counted."""


class _Import:
    """One run: what is imported, kept, absent and failed."""

    def __init__(self, cfg: Config, stage: Stage, manifest: Manifest, jobs: Sequence[Job]) -> None:
        self.cfg = cfg
        self.stage = stage
        self.manifest = manifest
        self.numbers = manifest.reserve([job.file.key for job in jobs])
        self.imported: list[Entry] = []
        self.kept: list[Entry] = []
        self.absent: list[ArchiveFile] = []
        self.failed: list[str] = []

    def is_new(self, job: Job) -> bool:
        """Whether the job has anything to bring; what it would bring again is counted as kept."""
        entry = self.manifest.entries.get(job.file.key)
        if not is_imported(self.cfg.root, entry, job, self.cfg.backfill.latency_ms):
            return True
        assert entry is not None
        self.kept.append(entry)
        return False

    def take(self, job: Job) -> None:
        """Import one file; a damaged one is told at the end, and the others go on."""
        number = self.numbers[job.file.key]
        try:
            entry = import_file(self.cfg.root, job, self.cfg.backfill.latency_ms, self.manifest, number)
        except StageError as error:
            self.failed.append(str(error))
            shutil.rmtree(self.manifest.staging(job.file.key), ignore_errors=True)
            if job.file.url:
                job.file.path.unlink()  # cut short or damaged: the next run gets it again
            return
        self.imported.append(entry)


def run(cfg: Config, stage: Stage) -> None:
    """Import what the settings name and the tables do not hold yet."""
    days = _days(cfg)
    files = _files(cfg, stage, days)
    wanted = frozenset(days) if days else None
    manifest = Manifest(cfg.root)
    manifest.recover()
    jobs, left_out = choose(files, wanted, manifest.entries.values())
    _tell_left_out(left_out, stage)
    if not jobs and not manifest.entries:
        raise StageError("nothing to import: no file is of the symbols and days asked for")
    _make_room(cfg, jobs, stage)
    work = _Import(cfg, stage, manifest, jobs)
    new = [job for job in jobs if work.is_new(job)]
    if any(job.file.url for job in new):
        asyncio.run(_download_and_import(work, new))
    else:
        for job in stage.track(new, "backfill", total=len(new)):
            work.take(job)
    write_holes_between(cfg.root, manifest.entries.values())
    _report(work)
    _finish(work)


def _days(cfg: Config) -> tuple[str, ...]:
    """The days asked for, none where a folder says it. Raises ConfigError."""
    settings = cfg.backfill
    for key, day in (("from", settings.first_day), ("to", settings.last_day)):
        try:
            date.fromisoformat(day or "2024-03-01")
        except ValueError as error:
            raise ConfigError(f"backfill.{key}: {day} is no date ({error}) - at `$.backfill.{key}`") from error
    if not settings.first_day and not settings.last_day and settings.path:
        return ()
    if not (settings.first_day and settings.last_day):
        raise ConfigError(
            "backfill: give backfill.path=DIR, or days to download with backfill.from=YYYY-MM-DD and backfill.to="
            "YYYY-MM-DD - at `$.backfill`"
        )
    if settings.last_day < settings.first_day:
        raise ConfigError(f"backfill.to: {settings.last_day} is before {settings.first_day} - at `$.backfill.to`")
    return days_between(settings.first_day, settings.last_day)


def _files(cfg: Config, stage: Stage, days: tuple[str, ...]) -> list[ArchiveFile]:
    settings, symbols = cfg.backfill, cfg.symbols or ()
    if not settings.path:
        if not symbols:
            raise ConfigError("symbols: a download needs to know which, as in binance_um:BTCUSDT - at `$.symbols`")
        if settings.provider == "recorded":
            raise ConfigError("backfill.provider: recorded files need backfill.path - at `$.backfill.provider`")
        return plan(settings, symbols, days, cfg.root / _DOWNLOADS)
    files, strangers = find(ROOT / settings.path, settings.provider, symbols)
    wanted = [file for file in files if not settings.datasets or _is_asked(file, settings.datasets)]
    for path, why in strangers[:_FEW]:
        stage.say(f"left out {path}: {why}")
    if len(strangers) > _FEW:
        stage.say(f"left out {len(strangers) - _FEW:,} more files that are none of an archive's")
    if not wanted:
        raise StageError(
            f"{ROOT / settings.path} holds no archive file{' of ' + ', '.join(symbols) if symbols else ''}"
        )
    return wanted


def _is_asked(file: ArchiveFile, datasets: Sequence[str]) -> bool:
    return (f"klines_{file.interval}" if file.interval else file.dataset) in datasets or file.dataset in datasets


def _tell_left_out(left_out: Sequence[LeftOut], stage: Stage) -> None:
    for (label, why), same in groupby(left_out, key=lambda each: (each.file.label, each.why)):
        stage.say(f"left out {label}, {len(list(same)):,} files: {why}")


def _make_room(cfg: Config, jobs: Sequence[Job], stage: Stage) -> None:
    """Mark the data directory as an archive's. Signals alone may also join what was captured live."""
    origin, found = Origin("archive"), read_origin(cfg)
    only_signals = all(set(job.days) <= {SIGNALS.name} for job in jobs)
    if found is not None and found.source == "live" and only_signals:
        return
    removed = make_room(cfg, origin)
    write_origin(cfg, origin)
    if removed:
        stage.say(removed, keep=False)


async def _download_and_import(work: _Import, jobs: Sequence[Job]) -> None:
    """Import each file as soon as it is there, while the next ones come."""
    settings = work.cfg.backfill
    by_url = {job.file.url: job for job in jobs}
    files = [job.file for job in jobs]
    downloader = Downloader(settings.connections, headers_for(files))
    with work.stage.progress("backfill", len(files)) as done:
        arriving = downloader.in_order(files, lambda file: file.provider == "binance")
        at = 0
        async for file, outcome in arriving:
            if isinstance(outcome, StageError):
                work.failed.append(str(outcome))
            elif outcome == "absent":
                work.absent.append(file)
            else:
                await asyncio.to_thread(work.take, by_url[file.url])
                if not settings.keep_files:
                    file.path.unlink(missing_ok=True)
            at += 1
            done(at)


def _report(work: _Import) -> None:
    """What became of the rows, by data set; what is absent; which days have trades and no best prices."""
    say = work.stage.say
    for label, entries in groupby(sorted(work.imported, key=_label), key=_label):
        say(_line(label, list(entries)))
    for sample in [sample for entry in work.imported for sample in entry.samples][:_FEW]:
        say(f"  for example {sample}")
    if work.kept:
        say(f"{len(work.kept):,} files were imported before and are unchanged", keep=False)
    for label, absent in groupby(work.absent, key=lambda file: file.label):
        days = [file.days[0] for file in absent]
        say(f"{label}: the archive has no file of {', '.join(days[:_FEW])}{_and_more(len(days))}")
    _tell_unpriced(work)
    if data := _data(work.manifest.entries.values(), work.cfg.root):
        report(work.stage, data, _symbols(work.cfg.root))
    work.stage.put("backfill", _section(work))
    work.stage.rows_in = sum(entry.rows_read for entry in work.imported)
    work.stage.rows_out = sum(sum(entry.written.values()) for entry in work.imported)


def _data(entries: Iterable[Entry], root: Path) -> Data:
    """The section `data` from the manifest: years of tables are not read to say what they hold."""
    data: Data = {}
    for entry in entries:
        for table in set(entry.written) & {table.name for table in EVENTS}:
            facts = data.setdefault(entry.venue, {}).setdefault(table, {"rows": 0, "gaps": 0})
            first_ns, last_ns = entry.spans_ns[table]
            facts["rows"] += entry.written[table]
            facts["first_ns"] = min(facts.get("first_ns", first_ns), first_ns)
            facts["last_ns"] = max(facts.get("last_ns", last_ns), last_ns)
    for part in partitions(root, GAPS):
        for stream, count in read(root, part).group_by("stream").len().rows():
            data.setdefault(part.exchange, {}).setdefault(stream, {"rows": 0, "gaps": 0})["gaps"] += count
    return data


def _symbols(root: Path) -> list[str]:
    return sorted({part.instrument for table in EVENTS for part in partitions(root, table)})


def _label(entry: Entry) -> str:
    interval = f" {entry.interval}" if entry.interval else ""
    return f"{entry.venue}:{entry.symbol} {entry.dataset}{interval}"


def _line(label: str, entries: Sequence[Entry]) -> str:
    written, dropped = _total(entries, "written"), _total(entries, "dropped")
    to = ", ".join(f"{rows:,} to {table}" for table, rows in sorted(written.items())) or "none kept"
    out = ", ".join(f"{why} {rows:,}" for why, rows in sorted(dropped.items()))
    read = sum(entry.rows_read for entry in entries)
    return f"{label}: {len(entries):,} files, {read:,} rows, {to}{f'; dropped: {out}' if out else ''}"


def _total(entries: Sequence[Entry], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for entry in entries:
        total.update(getattr(entry, name))
    return total


def _and_more(count: int) -> str:
    return f" and {count - _FEW:,} more days" if count > _FEW else ""


def _tell_unpriced(work: _Import) -> None:
    """Bars need best prices: say on which days there are none."""
    root = work.cfg.root
    priced = {(part.instrument, part.date) for part in partitions(root, TOP_OF_BOOK)}
    imported = {
        (f"{entry.venue}:{entry.symbol}", day) for entry in work.imported for day in entry.tables.get("trades", ())
    }
    traded = {(part.instrument, part.date) for part in partitions(root, TRADES)} & imported
    for instrument, pairs in groupby(sorted(traded - priced), key=lambda pair: pair[0]):
        days = [day for _, day in pairs]
        work.stage.say(
            f"{instrument}: trades without best prices on {', '.join(days[:_FEW])}{_and_more(len(days))}: no bars "
            f"can be made there. Best prices are in Binance's bookTicker (USD-M, up to 2024-03-30), in Bybit's order "
            f"books, in Tardis' book_ticker and quotes"
        )


def _section(work: _Import) -> dict[str, object]:
    """The section `backfill` of the report."""
    return {
        "files": len(work.imported),
        "kept": len(work.kept),
        "absent": [file.key for file in work.absent],
        "failed": work.failed,
        "rows": [
            {
                "what": label,
                "files": len(group),
                "read": sum(entry.rows_read for entry in group),
                "written": _total(group, "written"),
                "dropped": _total(group, "dropped"),
            }
            for label, group in (
                (label, list(same)) for label, same in groupby(sorted(work.imported, key=_label), _label)
            )
        ],
    }


def _finish(work: _Import) -> None:
    """Raises StageError for what failed, and where nothing is there at all."""
    if work.failed:
        failures = "\n".join(work.failed[:_FEW])
        more = f"\nand {len(work.failed) - _FEW:,} more" if len(work.failed) > _FEW else ""
        raise StageError(f"{len(work.failed):,} files could not be imported, the others are:\n{failures}{more}")
    if not work.manifest.entries:
        raise StageError("nothing was imported: the archive has none of the files asked for")
    origin = read_origin(work.cfg)
    if origin is not None and origin.source == "archive":
        write_origin(work.cfg, Origin("archive", complete=True))


if __name__ == "__main__":
    stage_main("backfill", run)
