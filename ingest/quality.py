"""Quality: what each captured stream of each symbol-day is worth, as table `quality` and in print.

    python ingest/quality.py [--data-dir DIR] [--set 'symbols=["binance_um:BTCUSDT"]']

It reads what is there, also while a capture is running. Days that have not changed since are kept.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import polars as pl

from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.run_record import Stage
from core.schema import BOOK_DELTAS, EVENTS, GAPS, QUALITY, Table
from core.store import Partition, built_from, fingerprint, hash_of, partitions, read, write
from ingest.asked_streams import Start, asked_on, read_starts
from ingest.day_quality import measure_day
from ingest.quality_report import report

READS: tuple[Table, ...] = (*EVENTS, GAPS)
WRITES: tuple[Table, ...] = (QUALITY,)
_VERSION: Final = 3
"""Raised when a figure is computed otherwise, so that days measured before are measured again."""


def run(cfg: Config, stage: Stage) -> None:
    """Measure every captured symbol-day that changed, and tell the worst streams first."""
    starts = read_starts(cfg.root)
    days = _symbol_days(cfg.root, cfg.symbols or (), starts)
    if not days:
        which = f" of {', '.join(cfg.symbols)}" if cfg.symbols else ""
        raise StageError(f"no events{which} under {cfg.root}: run `python run_pipeline.py capture` first")
    kept, frames = 0, []
    for day in stage.track(days, "quality"):
        asked = asked_on(starts, day.date).get(day.instrument, frozenset())
        inputs = _inputs(cfg.root, day, asked)
        if built_from(cfg.root, day) == inputs:
            frame, kept = read(cfg.root, day), kept + 1
        else:
            frame = measure_day(cfg.root, day.exchange, day.symbol, day.date, asked)
            write(cfg.root, day, frame, inputs)
        frames.append(frame.with_columns(symbol=pl.lit(day.instrument), date=pl.lit(day.date)))
    measured = pl.concat(frames)
    stage.rows_in, stage.rows_out = int(measured["rows"].sum()), measured.height
    stage.put("quality", measured.to_dicts())
    if kept:
        stage.say(f"{kept:,} of {len(days):,} symbol-days unchanged, kept", keep=False)
    stage.say(report(measured, stage.width))


def _symbol_days(root: Path, symbols: Sequence[str], starts: Sequence[Start]) -> list[Partition]:
    """The partitions of `quality` that should be: one per symbol-day with events or gaps.

    And one per symbol that was asked for on such a day, and of which nothing came.
    """
    days = {part.of(QUALITY) for table in (*EVENTS, GAPS) for part in partitions(root, table, symbols)}
    for each in {day.date for day in days}:
        wanted = (name.partition(":") for name in asked_on(starts, each) if not symbols or name in symbols)
        days |= {Partition(QUALITY.name, exchange, symbol, each) for exchange, _, symbol in wanted}
    return sorted(days)


def _inputs(root: Path, day: Partition, asked: frozenset[str]) -> str:
    """A hash of all that a symbol-day's figures rest on.

    Its events, all gaps so far, the book of the day before, and what was asked for.
    """
    before = (date.fromisoformat(day.date) - timedelta(days=1)).isoformat()
    gaps = [part for part in partitions(root, GAPS, [day.instrument]) if part.date <= day.date]
    yesterday = Partition(BOOK_DELTAS.name, day.exchange, day.symbol, before)
    parts = [*(day.of(table) for table in EVENTS), *gaps, yesterday]
    return hash_of(_VERSION, sorted(asked), fingerprint(root, parts))


if __name__ == "__main__":
    stage_main("quality", run)
