"""Who may work in a data directory at one time.

Stages that replace tables hold `run.lock`: two such runs would remove and rebuild each other's tables. What only adds
rows, and may do so for months, holds a lock of its own, so that `nightly` retrains beside it. A lock dies with its
process: a crash leaves nothing to clear away.
"""

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
    """Hold a lock of the data directory `root`. Raises Busy, at once, if another process does."""
    root.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(root / lock, blocking=False):
            yield
    except filelock.Timeout:
        raise Busy(f"{_WHO[lock]} in {root}: wait for it to end, or choose another --data-dir") from None
