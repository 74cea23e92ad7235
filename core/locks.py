"""Who may work in a data directory at one time.

Stages that replace tables hold `run.lock`: two such runs would remove and rebuild each other's tables. What only adds
rows, and may do so for months, holds a lock of its own, so that `nightly` retrains beside it. A lock dies with its
process: a crash leaves nothing to clear away.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import filelock

from core.config import Config
from core.errors import StageError

RUN: Final = "run.lock"
CAPTURE: Final = "capture.lock"
POLL: Final = "poll.lock"
_APPENDING: Final = {"capture": CAPTURE, "poll": POLL}
_WHO: Final = {RUN: "another run works", CAPTURE: "a live capture writes", POLL: "another poll writes"}


class Busy(StageError):
    """Somebody else holds the lock."""


def lock_of(config: Config, stage: str) -> str:
    """The lock that a stage works under. A simulated or replayed market replaces tables, a live one adds to them."""
    return _APPENDING.get(stage, RUN) if config.source == "live" else RUN


@contextmanager
def held(root: Path, lock: str) -> Iterator[None]:
    """Hold a lock of the data directory `root`, which is made. Raises Busy, at once, if another process holds it."""
    make_usable(root)
    try:
        ours = filelock.FileLock(root / lock, blocking=False).acquire()
    except filelock.Timeout:
        raise Busy(f"{_WHO[lock]} in {root}: wait for it to end, or choose another --data-dir") from None
    with ours:
        yield


def make_usable(root: Path) -> None:
    """Make a data directory, if it is not there. Raises StageError where there can be none."""
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = "it is a file" if root.exists() else (error.strerror or str(error)).lower()
        raise StageError(f"{root} cannot be a data directory: {why}: choose another --data-dir") from error
    if not os.access(root, os.R_OK | os.W_OK | os.X_OK):
        raise StageError(f"{root} cannot be a data directory: it is not writable: choose another --data-dir")
