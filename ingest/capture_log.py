"""The structured log of a live capture: `logs/capture-DATE.jsonl`, one JSON object per line, a file per UTC day."""

import os
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import msgspec

from core.config import ROOT
from ingest.raw import RawWriter
from ingest.reception import Counts
from ingest.venues import Decoder

LOGS = ROOT / "logs"


def unfailing(say: Callable[[str], None]) -> Callable[[str], None]:
    """`say` that drops what cannot be told: the disk that is full may be the one that takes the output, too."""

    def tell(text: str) -> None:
        with suppress(OSError):
            say(text)

    return tell


def _warn(text: str) -> None:
    with suppress(OSError):
        print(text, file=sys.stderr)


class CaptureLog:
    """Appends events, from any thread. A disk that is full must not end a capture: it is told once per outage."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or LOGS
        self._lock = threading.Lock()
        self._failing = False

    def path(self, now: datetime) -> Path:
        """The file of the UTC day."""
        return self._folder / f"capture-{now:%Y-%m-%d}.jsonl"

    def write(self, event: str, **facts: Any) -> None:
        """One line: when, what, which process (captures into several data directories share the file), and facts."""
        now = datetime.now(UTC)
        stamp = now.isoformat(timespec="milliseconds")
        line = msgspec.json.encode({"time": stamp, "event": event, "pid": os.getpid(), **facts}) + b"\n"
        with self._lock:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with self.path(now).open("ab", buffering=0) as file:
                    file.write(line)  # one call: lines of several processes do not mix
                self._failing = False
            except OSError as error:
                if not self._failing:
                    _warn(f"capture log: {error}; events are not logged until that ends")
                self._failing = True


class Source(Protocol):
    """A feed, or a recording of one: what is told of it."""

    venue: str
    url: str
    counts: Counts
    decoder: Decoder

    @property
    def farewell(self) -> str: ...

    def keep_raw(self, raw: RawWriter) -> None: ...


def log_samples(feeds: Sequence[Source]) -> Path:
    """Move the feeds' samples of frames that did not decode to `undecoded-DATE.jsonl`, one JSON object per line.

    Where the disk refuses they stay with the feeds, which keep few, for the next time.
    """
    path = LOGS / f"undecoded-{datetime.now(UTC):%Y-%m-%d}.jsonl"
    samples = [sample for feed in feeds for sample in feed.counts.samples]
    if samples:
        try:
            LOGS.mkdir(parents=True, exist_ok=True)
            with path.open("ab") as file:
                file.writelines(msgspec.json.encode(sample._asdict()) + b"\n" for sample in samples)
        except OSError as error:
            _warn(f"samples of what did not decode are not written: {error}")
            return path
    for feed in feeds:
        feed.counts.samples.clear()
    return path
