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
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Final

from core.cli import stage_main
from core.config import ROOT, Config
from core.errors import ConfigError, StageError
from core.origin import Origin, read_origin, write_origin
from core.run_record import Stage
from core.schema import EVENTS, GAPS, OPTIONS, SIGNALS, Table
from core.units import counted
from ingest.archives.choice import Job, check_datasets, choose
from ingest.archives.continuity import write_holes_between
from ingest.archives.download import Downloader
from ingest.archives.formats import ArchiveFile, days_between, unverified_mark
from ingest.archives.importing import import_file, is_imported
from ingest.archives.local import find
from ingest.archives.manifest import Manifest
from ingest.archives.remote import headers_for, plan
from ingest.backfill_report import FEW, Result, report_backfill, some, tell_left_out, tell_others, tell_strangers
from ingest.ownership import make_room

READS: tuple[Table, ...] = ()
WRITES: tuple[Table, ...] = (*EVENTS, GAPS, SIGNALS, OPTIONS)
_DOWNLOADS: Final = "archives"


@dataclass
class _Import:
    """One run at work: what each job needs, and what has become of them."""

    cfg: Config
    manifest: Manifest
    numbers: dict[str, int]
    result: Result = field(default_factory=Result)

    def is_new(self, job: Job) -> bool:
        """Whether the job has anything to bring; what it would bring again is counted as kept."""
        is_kept = is_imported(self.manifest, job, self.cfg.backfill.latency_ms)
        self.result.kept += is_kept
        return not is_kept

    def take(self, job: Job) -> None:
        """Import one file; a damaged one is told at the end, and the others go on."""
        number = self.numbers[job.file.key]
        try:
            entry = import_file(self.cfg.root, job, self.cfg.backfill.latency_ms, self.manifest, number)
        except StageError as error:
            self.result.failed.append(str(error))
            shutil.rmtree(self.manifest.staging(job.file.key), ignore_errors=True)
            if job.file.url:
                _forget(job.file)  # cut short or damaged: the next run gets it again
        else:
            self.result.imported.append(entry)


def run(cfg: Config, stage: Stage) -> None:
    """Import what the settings name and the tables do not hold yet."""
    days = _days(cfg)
    files = _files(cfg, stage, days)
    manifest = Manifest(cfg.root)
    manifest.recover()
    jobs, left_out = choose(files, frozenset(days) if days else None, manifest.entries.values())
    tell_left_out(left_out, stage)
    if not jobs and not manifest.entries:
        raise StageError("nothing to import: no file is of the symbols and days asked for")
    _make_room(cfg, jobs, stage)
    work = _Import(cfg, manifest, manifest.reserve([job.file.key for job in jobs]))
    new = [job for job in jobs if work.is_new(job)]
    if any(job.file.url for job in new):
        asyncio.run(_download_and_import(work, new, stage))
    else:
        for job in stage.track(new, "backfill", total=len(new)):
            work.take(job)
    for line in write_holes_between(cfg.root, manifest.entries.values()):
        stage.say(line)
    report_backfill(cfg.root, work.result, manifest.entries.values(), stage)
    _finish(cfg, work)


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
    check_datasets(settings.datasets, settings.provider)
    found = find(ROOT / settings.path, settings.provider, symbols)
    wanted = [file for file in found.files if not settings.datasets or _is_asked(file, settings.datasets)]
    tell_strangers(found.strangers, stage)
    tell_others(found.others, stage)
    if not wanted:
        asked = [" of ".join(("", ", ".join(names))) for names in (settings.datasets, symbols) if names]
        has = sorted({file.label for file in (*found.files, *found.others)})
        but = f", but of {some(has, 'kinds')}" if has else ""
        raise StageError(f"{settings.path} holds no archive file{''.join(asked)}{but}")
    return wanted


def _is_asked(file: ArchiveFile, datasets: Sequence[str]) -> bool:
    return (f"klines_{file.interval}" if file.interval else file.dataset) in datasets or file.dataset in datasets


def _make_room(cfg: Config, jobs: Sequence[Job], stage: Stage) -> None:
    """Mark the data directory as an archive's. Signals alone may also join what was captured live."""
    origin, found = Origin("archive"), read_origin(cfg)
    only_signals = all(set(job.days) <= {SIGNALS.name} for job in jobs)
    if found is not None and found.source == "live" and only_signals and not found.simulated:
        return
    removed = make_room(cfg, origin)
    write_origin(cfg, origin)
    if removed:
        stage.say(removed, keep=False)


async def _download_and_import(work: _Import, jobs: Sequence[Job], stage: Stage) -> None:
    """Import each file as soon as it is there, while the next ones come."""
    settings = work.cfg.backfill
    by_url = {job.file.url: job for job in jobs}
    files = [job.file for job in jobs]
    arriving = Downloader(settings.connections, headers_for(files)).in_order(files, _has_checksum)
    with stage.progress("backfill", len(files)) as done:
        count = 0
        async for file, outcome in arriving:
            if isinstance(outcome, StageError):
                work.result.failed.append(str(outcome))
            elif outcome == "absent":
                work.result.absent.append(file)
            else:
                await asyncio.to_thread(work.take, by_url[file.url])
                if not settings.keep_files:
                    _forget(file)
            count += 1
            done(count)


def _forget(file: ArchiveFile) -> None:
    for path in (file.path, unverified_mark(file.path)):
        path.unlink(missing_ok=True)


def _has_checksum(file: ArchiveFile) -> bool:
    return file.provider == "binance"


def _finish(cfg: Config, work: _Import) -> None:
    """Raises StageError for what failed, and where nothing is there at all."""
    failed = work.result.failed
    if failed:
        more = f"\nand {len(failed) - FEW:,} more" if len(failed) > FEW else ""
        raise StageError(
            f"{counted(len(failed), 'file')} could not be imported, the others are:\n" + "\n".join(failed[:FEW]) + more
        )
    if not work.manifest.entries:
        raise StageError("nothing was imported: the archive has none of the files asked for")
    origin = read_origin(cfg)
    if origin is not None and origin.source == "archive":
        write_origin(cfg, Origin("archive", complete=True))


if __name__ == "__main__":
    stage_main("backfill", run)
