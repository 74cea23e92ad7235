"""The run record: what a run did, said and found, and which stages it could leave alone.

A `RunRecord` collects the sections of `report.json`, the printed lines and the stages' times. Each stage gets a `Stage`
to speak through. A stage whose inputs hash to the same key as at its last success is not run again: its sections and
lines are restored from `<data>/stages/<name>.json`.
"""

import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from rich.console import Console
from rich.progress import Progress, track

from core.compile_notice import NOTICE
from core.config import ROOT, Config, hash_config
from core.origin import read_origin
from core.store import write_atomic

SIMULATED: Final = "SIMULATED"
_MARK: Final = f" | {SIMULATED}"
T = TypeVar("T")


class Stage:
    """What one stage says, counts and reports. Made by `RunRecord.stage`."""

    def __init__(self, name: str, record: "RunRecord") -> None:
        self.name = name
        self.rows_in = 0
        self.rows_out = 0
        self.reused = False
        self._record = record
        self._key = ""
        self._sections: dict[str, Any] = {}
        self._lines: list[str] = []

    def say(self, text: str, keep: bool = True) -> None:
        """Print lines, also into report.txt. On a simulated market each says SIMULATED: any could be quoted.

        `keep` them for the runs that need not do this again; what was done once, and how fast, is not for those.
        """
        tagged = self._record.simulated
        lines = [f"{line}{_MARK}" if tagged and line.strip() else line for line in text.split("\n")]
        if keep:
            self._keep("\n".join(lines))
        else:
            self._record.print("\n".join(lines))

    def note(self, text: str) -> None:
        """Print a line to the terminal alone: a capture that runs for months must not gather them for a report.

        What takes the output may be a file on a full disk: that must not end a capture either, so the line is dropped.
        """
        with suppress(OSError):
            self._record.console.print(text, markup=False)

    @property
    def width(self) -> int:
        """Signs that a line of a table may have: the screen's, or 80 where there is none, less the mark's."""
        return self._record.console.width - (len(_MARK) if self._record.simulated else 0)

    @property
    def console(self) -> Console:
        """Where the run prints, for displays that live on the terminal."""
        return self._record.console

    @property
    def simulated(self) -> bool:
        return self._record.simulated

    def _keep(self, text: str) -> None:
        self._lines.append(text)
        self._record.print(text)

    def put(self, section: str, value: Any) -> None:
        """Set a section of report.json. NaN and infinities become null.

        A mapping adds its keys to those that stand there: `features` tells names, `train` their importance.
        """
        clean = msgspec.json.decode(msgspec.json.encode(value))
        for sections in (self._sections, self._record.sections):  # what a reuse restores, and the report
            present = sections.get(section)
            both = isinstance(present, dict) and isinstance(clean, dict)
            sections[section] = present | clean if both else clean

    def reuse(self, key: str, whole: bool = True) -> bool:
        """True, with sections and lines restored, if this stage last succeeded on the same key.

        `whole`: what it wrote then is still there. The key is noted either way, so that success is stamped with it.
        """
        self._key = key
        saved = self._record.load_stamp(self.name)
        if saved is None or saved["key"] != key or not whole:
            return False
        self.reused = True
        self.rows_in, self.rows_out = saved["rows_in"], saved["rows_out"]
        for section, value in saved["sections"].items():
            self.put(section, value)
        self._keep(f"{self.name}: unchanged, kept; it said")
        for line in saved["lines"]:
            self._keep(line)
        return True

    def track(self, items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
        """Iterate with a progress bar (on a terminal; silent elsewhere)."""
        console = self._record.console
        yield from track(items, what, total, console=console, transient=True, disable=not console.is_terminal)

    @contextmanager
    def progress(self, what: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """A progress bar for work that is no loop: call what this yields with how much is done, of `total`."""
        console = self._record.console
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task(what, total=total)
            yield lambda done: bar.update(task, completed=done)

    def stamp(self) -> dict[str, Any]:
        return {
            "key": self._key,
            "rows_in": self.rows_in,
            "rows_out": self.rows_out,
            "sections": self._sections,
            "lines": self._lines,
        }

    @property
    def has_key(self) -> bool:
        return bool(self._key)


class RunRecord:
    """One run: `<data>/runs/<run_id>/`. Sections of the contract that no stage filled are null."""

    def __init__(self, config: Config, console: Console | None = None) -> None:
        self.config = config
        self.run_id = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.sections: dict[str, Any] = {}
        self.error: str | None = None
        self._now = ""
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._lines: list[str] = []
        self.stages: list[dict[str, Any]] = []
        self.kept: list[str] = []

    @property
    def folder(self) -> Path:
        return self.config.root / "runs" / self.run_id

    @property
    def simulated(self) -> bool:
        """Whether the market is made up: the source is, or what the data directory holds, whoever asks for it."""
        origin = read_origin(self.config)
        return self.config.simulated or (origin is not None and origin.simulated)

    def print(self, text: str) -> None:
        self._lines.append(text)
        self.console.print(text, markup=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Run one stage: times it and, when it ends without an error, stamps its key."""
        self.print(f"== {name}")
        self._now = name
        NOTICE.stage_begins()
        stage, began = Stage(name, self), time.perf_counter()
        yield stage
        seconds = round(time.perf_counter() - began, 3)
        if stage.has_key and not stage.reused:
            write_atomic(self._stamp_path(name), msgspec.json.encode(stage.stamp()))
        self.stages.append({"name": name, "seconds": seconds, "rows_in": stage.rows_in, "rows_out": stage.rows_out})
        self.kept += [name] if stage.reused else []
        self.console.print(f"   {name} {seconds:.1f} s", style="dim")

    def load_stamp(self, name: str) -> dict[str, Any] | None:
        """What a stage left at its last success, or None."""
        path = self._stamp_path(name)
        try:
            saved: dict[str, Any] = msgspec.json.decode(path.read_bytes())
        except (FileNotFoundError, msgspec.DecodeError):
            return None
        return saved

    def fail(self, why: str) -> None:
        """Note what ended the run, for its report; the message itself goes to standard error."""
        self.error = f"{self._now}: {why}" if self._now else why
        self._lines.append(f"error: {self.error}")

    def report(self) -> dict[str, Any]:
        """The tree of report.json (design section 9)."""
        config = self.config
        head = {
            "run_id": self.run_id,
            "source": config.source,
            "simulated": self.simulated,
            "error": self.error,
            "seed": config.seed,
            "git_sha": git_sha(),
            "config_hash": hash_config(config),
        }
        names = "symbols data features labels models taker maker selection truth winner holdout live"
        body = {name: self.sections.get(name) for name in names.split()}
        rest = {name: value for name, value in self.sections.items() if name not in body}
        return head | body | {"stages": self.stages} | rest

    def finish(self) -> Path:
        """Write report.json and report.txt and point `runs/latest.txt` here. Returns the folder."""
        encoded = msgspec.json.format(msgspec.json.encode(self.report()), indent=2)
        write_atomic(self.folder / "report.json", encoded + b"\n")
        write_atomic(self.folder / "report.txt", ("\n".join(self._lines) + "\n").encode())
        write_atomic(self.folder.parent / "latest.txt", (self.run_id + "\n").encode())
        return self.folder

    def _stamp_path(self, name: str) -> Path:
        return self.config.root / "stages" / f"{name}.json"


def git_sha() -> str | None:
    """The commit of the code that ran, with `+` if the tree was changed; None outside a repository."""
    try:
        sha = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=10
        )
        changed = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=ROOT, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return sha.stdout.strip() + ("+" if changed.stdout.strip() else "")
