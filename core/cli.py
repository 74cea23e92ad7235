"""The command line that all entry points share (design section 9): stages and options in any order.

`run_pipeline.py` passes all its stages; `python research/build_features.py` is the same program with one.
"""

import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec
import typer
from rich.console import Console

from core.config import Config, load
from core.errors import ConfigError, StageError
from core.locks import Busy, held, lock_of, make_usable
from core.origin import read_origin, settle_source
from core.run_record import RunRecord, Stage
from core.units import NS_PER_S, parse_duration_ns

StageRun = Callable[[Config, Stage], None]
After = Callable[[Path], None]
FILLING: Final = frozenset({"capture", "backfill", "poll", "operators"})
"""Stages that need no data directory to be there: they fill it, or show what is in none."""
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def run_stages(
    config: Config, stages: Mapping[str, StageRun], console: Console | None = None, after: After | None = None
) -> RunRecord:
    """Run stages in order under one run record, which is written also when one of them fails.

    `after` gets the record's folder once it is written. Raises StageError if another run works in the data directory,
    or if that is none.
    A live capture does not hold others up, nor do stages behind it hold up another capture (core/locks.py).
    """
    _refuse_nowhere(config, stages)
    make_usable(config.root)
    record = RunRecord(config, console)
    try:
        for lock, names in groupby(stages, key=partial(lock_of, config)):
            with held(config.root, lock):
                _run_in_turn(config, {name: stages[name] for name in names}, record)
    except ConfigError:
        raise  # nothing ran that deserves a report
    except BaseException as error:
        if isinstance(error, Busy) and not record.stages:
            raise  # nor did anything here
        record.fail(str(error) or type(error).__name__)
        try:
            _finish(record, after)
        except OSError as full:  # what ended the run says more than that
            print(f"the report could not be written: {full}", file=sys.stderr)
        raise
    _finish(record, after)
    return record


def _refuse_nowhere(config: Config, stages: Collection[str]) -> None:
    """A data directory that was mistyped must not be made by who only reads."""
    if not config.root.exists() and not FILLING & set(stages):
        raise StageError(f"{config.root} does not exist: name the --data-dir of a capture, or run `capture` into it")


def _run_in_turn(config: Config, stages: Mapping[str, StageRun], record: RunRecord) -> None:
    _warn_of_half_a_capture(config, stages, record)
    for name, run in stages.items():
        with record.stage(name) as stage:
            run(config, stage)


def _finish(record: RunRecord, after: After | None) -> None:
    folder = record.finish()
    if after is not None:
        after(folder)


def _warn_of_half_a_capture(config: Config, stages: Mapping[str, StageRun], record: RunRecord) -> None:
    origin = read_origin(config)
    if origin is not None and not origin.complete and origin.source in ("sim", "replay") and "capture" not in stages:
        record.sections["capture"] = {"complete": False}
        record.print("the capture in this data directory was not finished: what follows rests on a part of the market")


def guarded(work: Callable[[], Any]) -> int:
    """Call `work` and turn its errors into the contract's exit codes, each with one clear message and its notes."""
    try:
        work()
    except ConfigError as error:
        return _told(error, f"error: {error}", EXIT_USAGE)
    except (StageError, OSError) as error:  # OSError: a disk that is full, read-only or not a folder
        return _told(error, f"error: {error}", EXIT_FAILED)
    except KeyboardInterrupt as error:
        return _told(error, "interrupted: tables written so far are whole", EXIT_INTERRUPTED)
    return 0


def _told(error: BaseException, message: str, exit_code: int) -> int:
    for line in (message, *getattr(error, "__notes__", ())):
        print(line, file=sys.stderr)
    return exit_code


Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be repeated.")]
File = Annotated[str | None, typer.Option("--config", help="TOML file in place of pipeline.toml.")]
Source = Annotated[str | None, typer.Option(help="sim, replay, archive or live.")]
DataDir = Annotated[str | None, typer.Option(help="Where tables, models and runs live.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the market and of the training.")]
Duration = Annotated[
    str | None, typer.Option(help="How long a live capture or a poll runs: 3600, 90m, 12h, 7d or forever.")
]


def seconds_of(text: str) -> float:
    """Seconds of a --duration; 0, which is without an end, of `forever`. Raises ConfigError."""
    if text == "forever":
        return 0.0
    try:
        return parse_duration_ns(f"{text}s" if text.isdigit() else text) / NS_PER_S
    except ValueError:
        raise ConfigError(
            f"--duration: seconds, or a time such as 90m, 12h or 7d, or `forever`, was {text!r}"
        ) from None


def settings_of(
    file: str | None, pairs: list[str], options: Mapping[str, Any], stages: Collection[str], duration: str | None
) -> Config:
    """The configuration that a command line asks for. Raises ConfigError where --duration has nothing to say."""
    settings = load(file, pairs, {**options, **_lengths(stages, duration)})
    is_live_capture = settings.source == "live" and "capture" in stages
    if duration is not None and not is_live_capture and ("poll" not in stages or "capture" in stages):
        raise ConfigError(
            f"--duration is how long `capture --source live` or `poll` runs, this is `{' '.join(stages)}` of source "
            f"{settings.source}: a simulated market lasts sim.hours, a replay as long as its recording"
        )
    return settings


def _lengths(stages: Collection[str], duration: str | None) -> dict[str, Any]:
    """What --duration sets. Raises ConfigError."""
    if duration is None:
        return {}
    seconds = seconds_of(duration)
    poll = {"poll": {"duration": f"{seconds:.0f}s" if seconds else "forever"}} if "poll" in stages else {}
    return {"capture": {"duration_s": seconds}} | poll


def settled(settings: Config, stages: Collection[str], asked: str | None) -> Config:
    """The configuration with the source that these stages work on; `asked` is the command line's.

    Capture makes what it is told to, backfill archives; every other stage takes what the tables hold.
    """
    if "capture" in stages:
        return settings
    if "backfill" not in stages:
        return settle_source(settings, asked)
    if asked not in (None, "archive"):
        raise ConfigError(f"--source {asked}: backfill reads archives: leave --source out, or run `capture`")
    return msgspec.structs.replace(settings, source="archive")


def stage_main(name: str, run: StageRun) -> None:
    """The `__main__` of a stage script."""

    def command(
        pairs: Set = [],  # noqa: B006 (typer reads the default, nothing mutates it)
        config: File = None,
        source: Source = None,
        data_dir: DataDir = None,
        seed: Seed = None,
        duration: Duration = None,
    ) -> None:
        def work() -> None:
            options = {"source": source, "data_dir": data_dir, "seed": seed}
            settings = settings_of(config, pairs, options, [name], duration)
            run_stages(settled(settings, [name], source), {name: run})

        raise typer.Exit(guarded(work))

    typer.run(command)
