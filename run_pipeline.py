"""Does a signal survive its costs? Frames to bars, features, labels, models, a backtest and a paper-trading runner.

python run_pipeline.py                                        every stage, on the simulated exchange
python run_pipeline.py features labels                        some stages, on what is captured
python run_pipeline.py --source replay --set replay.path=DIR  every stage, on recorded frames
python run_pipeline.py capture --source live --duration 12h   one stage, on the real feeds
python run_pipeline.py nightly                                for cron: retrain on what is captured
"""

import importlib
import sys
import time
from contextlib import redirect_stderr, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from backtest.report import write_page
from core.cli import (
    DataDir,
    Duration,
    File,
    Seed,
    Set,
    Source,
    StageRun,
    guarded,
    run_stages,
    settings_of,
    settled,
)
from core.config import ROOT, Config
from core.errors import ConfigError, StageError
from core.run_record import SIMULATED, RunRecord

STAGES: Final = {
    "capture": "ingest.capture",
    "backfill": "ingest.backfill",
    "poll": "ingest.poll",
    "compact": "ingest.compact",
    "quality": "ingest.quality",
    "export_events": "ingest.export_events",
    "operators": "research.show_operators",
    "bars": "research.build_bars",
    "fit": "research.fit_features",
    "features": "research.build_features",
    "labels": "labels.build_labels",
    "assess": "research.assess_features",
    "correlate": "research.correlate_symbols",
    "train": "research.train_models",
    "backtest": "backtest.run_backtest",
    "export": "live.export_model",
    "live": "live.run_live",
}
ON_REQUEST: Final = frozenset(
    {"backfill", "poll", "compact", "quality", "export_events", "operators", "fit", "assess", "correlate"}
)
"""Stages that run only where they are named; with `--source archive`, backfill also runs in place of capture."""
FROM_FEATURES: Final = frozenset({"bars", "fit", "features"})
"""Stages that need the features of the configuration to be in the language."""
NIGHTLY: Final = "nightly"
NIGHTLY_STAGES: Final = ("bars", "features", "labels", "train", "backtest", "export")


def stage_runs(names: list[str]) -> dict[str, StageRun]:
    """The `run` of each stage, in the pipeline's order.

    Imported when asked for: `bars` need not wait for the training libraries.
    """
    return {name: importlib.import_module(module).run for name, module in STAGES.items() if name in names}


def default_stages(source: str) -> list[str]:
    """The stages of a run that names none: how events come in depends on where from."""
    first = "backfill" if source == "archive" else "capture"
    return [first, *(name for name in STAGES if name not in {"capture", *ON_REQUEST})]


def run(config: Config, names: list[str], console: Console | None = None) -> RunRecord:
    """Run stages in order; the report is written and rendered also when one of them fails: then its place is a note."""
    _check_features(config, names)
    out = console or Console(highlight=False, soft_wrap=True)
    pages: list[Path] = []
    try:
        record = run_stages(config, stage_runs(names), out, lambda folder: pages.append(write_page(folder)))
    except BaseException as error:
        for page in pages:
            error.add_note(f"report: {page}")
        raise
    out.print(f"report: {pages[0]}")
    return record


def _check_features(config: Config, names: list[str]) -> None:
    """Mistakes in features are told before hours of capture, and before there is any data. Raises ConfigError."""
    if FROM_FEATURES & set(names):
        with suppress(StageError):  # of what was fitted: the stage says so
            importlib.import_module("research.fitting.fitted").features_so_far(config)


def nightly(config: Config) -> None:
    """Retrain on what is captured: stale partitions only, `current.txt` only on the verdict.

    The stages speak to `logs/nightly-DATE.log`; standard output gets one line, errors go to the log and to standard
    error, so that cron mails what matters. Raises StageError if another run holds the data directory.
    """
    logs, began = ROOT / "logs", time.perf_counter()
    logs.mkdir(exist_ok=True)
    with (logs / f"nightly-{datetime.now(UTC):%Y-%m-%d}.log").open("a") as log, redirect_stderr(log):
        try:
            record = run(config, list(NIGHTLY_STAGES), Console(file=log, highlight=False, soft_wrap=True))
        except (StageError, ConfigError) as error:
            print(f"error: {error}", file=log)
            raise
    verdict = (record.sections.get("selection") or {}).get("verdict")
    kept = ", ".join(record.kept)
    tag = f" | {SIMULATED}" if record.simulated else ""
    seconds = time.perf_counter() - began
    print(f"nightly: {verdict} on {config.root} in {seconds:.1f} s; unchanged: {kept or 'none'}{tag}")


def command(
    stages: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STAGE]...", help=f"{' '.join(STAGES)}, or {NIGHTLY}; none: the whole pipeline."),
    ] = None,
    pairs: Set = [],  # noqa: B006 (typer reads the default, nothing mutates it)
    config: File = None,
    source: Source = None,
    data_dir: DataDir = None,
    seed: Seed = None,
    duration: Duration = None,
) -> None:
    """Run the pipeline, or some of its stages; options may stand before or after the stages."""

    def work() -> None:
        _check_names(stages or [])
        options = {"source": source, "data_dir": data_dir, "seed": seed}
        settings = settings_of(config, pairs, options, stages or ["capture"], duration)
        names = stages or default_stages(settings.source)
        settings = settled(settings, names, source)
        if NIGHTLY in names:
            nightly(settings)
        else:
            run(settings, names)

    raise typer.Exit(guarded(work))


def _check_names(names: list[str]) -> None:
    unknown = [name for name in names if name not in {*STAGES, NIGHTLY}]
    if unknown:
        raise ConfigError(f"unknown stage {unknown[0]!r}: the stages are {' '.join(STAGES)}, and {NIGHTLY}")
    if NIGHTLY in names and len(names) > 1:
        raise ConfigError(f"{NIGHTLY} runs its own stages: give it alone")
    if {"capture", "backfill"} <= set(names):
        raise ConfigError("capture and backfill both fill the event tables: give one of them")


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, rich_markup_mode=None)
    app.command()(command)
    sys.exit(app())
