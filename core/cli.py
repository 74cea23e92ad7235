"""The command line that all entry points share (design section 9): stages and options in any order.

`run_pipeline.py` passes all its stages; `python research/build_features.py` is the same program with one.
"""

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

from core.config import Config, load
from core.errors import ConfigError, StageError
from core.origin import settle_source
from core.run_record import RunRecord, Stage

StageRun = Callable[[Config, Stage], None]
EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def run_stages(config: Config, stages: Mapping[str, StageRun], console: Console | None = None) -> RunRecord:
    """Run stages in order under one run record, which is written also when one of them fails."""
    record = RunRecord(config, console)
    for name, run in stages.items():
        try:
            with record.stage(name) as stage:
                run(config, stage)
        except ConfigError:
            raise  # nothing ran that deserves a report
        except BaseException as error:
            record.fail(name, str(error) or type(error).__name__)
            record.finish()
            raise
    record.finish()
    return record


def guarded(work: Callable[[], Any]) -> int:
    """Call `work` and turn its errors into the contract's exit codes, each with one clear message."""
    try:
        work()
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except StageError as error:
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
