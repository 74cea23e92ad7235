"""The command line that all entry points share (design section 9): stages and options in any order.

`run_pipeline.py` passes all its stages; `python research/build_features.py` is the same program with one.
"""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import filelock
import typer
from rich.console import Console

from core.config import Config, load
from core.errors import ConfigError, StageError
from core.origin import read_origin, settle_source
from core.run_record import RunRecord, Stage

StageRun = Callable[[Config, Stage], None]
After = Callable[[Path], None]
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def run_stages(
    config: Config, stages: Mapping[str, StageRun], console: Console | None = None, after: After | None = None
) -> RunRecord:
    """Run stages in order under one run record, which is written also when one of them fails.

    `after` gets the record's folder once it is written. Raises StageError if another run works in the data directory:
    two would remove and rebuild each other's tables.
    """
    record = RunRecord(config, console)
    with _alone(config.root):
        try:
            _warn_of_half_a_capture(config, stages, record)
            for name, run in stages.items():
                with record.stage(name) as stage:
                    run(config, stage)
        except ConfigError:
            raise  # nothing ran that deserves a report
        except BaseException as error:
            record.fail(str(error) or type(error).__name__)
            _finish(record, after)
            raise
        _finish(record, after)
    return record


def _finish(record: RunRecord, after: After | None) -> None:
    folder = record.finish()
    if after is not None:
        after(folder)


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold the data directory's lock. It dies with the process, so a crash leaves nothing to clear away."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(root / "run.lock", blocking=False):
            yield
    except filelock.Timeout:
        raise StageError(f"another run works in {root}: wait for it to end, or choose another --data-dir") from None


def _warn_of_half_a_capture(config: Config, stages: Mapping[str, StageRun], record: RunRecord) -> None:
    origin = read_origin(config)
    if origin is not None and not origin.complete and origin.source in ("sim", "replay") and "capture" not in stages:
        record.sections["capture"] = {"complete": False}
        record.print("the capture in this data directory was not finished: what follows rests on a part of the market")


def guarded(work: Callable[[], Any]) -> int:
    """Call `work` and turn its errors into the contract's exit codes, each with one clear message."""
    try:
        work()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except (StageError, OSError) as error:  # OSError: a disk that is full, read-only or not a folder
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted: tables written so far are whole", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


Set = Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one setting; may be repeated.")]
File = Annotated[str | None, typer.Option("--config", help="TOML file in place of pipeline.toml.")]
Source = Annotated[str | None, typer.Option(help="sim, replay, archive or live.")]
DataDir = Annotated[str | None, typer.Option(help="Where tables, models and runs live.")]
Seed = Annotated[int | None, typer.Option(help="Seed of the market and of the training.")]


def stage_main(name: str, run: StageRun) -> None:
    """The `__main__` of a stage script."""

    def command(
        pairs: Set = [],  # noqa: B006 (typer reads the default, nothing mutates it)
        config: File = None,
        source: Source = None,
        data_dir: DataDir = None,
        seed: Seed = None,
    ) -> None:
        def work() -> None:
            settings = load(config, pairs, {"source": source, "data_dir": data_dir, "seed": seed})
            run_stages(settings if name == "capture" else settle_source(settings, source), {name: run})

        raise typer.Exit(guarded(work))

    typer.run(command)
