"""The log of what was odd about polled series: `logs/signal_events-DATE.jsonl`, one SignalEvent per line."""

import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from core.config import ROOT
from core.store import date_of_ns
from ingest.signal_checks import SignalEvent

LOGS = ROOT / "logs"


class SignalLog:
    """Appends events and counts them. A disk that is full must not end a poll: it is told once per outage."""

    def __init__(self, folder: Path | None = None) -> None:
        self.counts: Counter[str] = Counter()
        self._folder = folder or LOGS
        self._failing = False

    @property
    def path(self) -> Path:
        """The file of today, by the wall clock."""
        return self._folder / f"signal_events-{date_of_ns(time.time_ns())}.jsonl"

    def write(self, event: SignalEvent) -> None:
        self.counts[event.kind] += 1
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab", buffering=0) as file:
                file.write(msgspec.json.encode(event) + b"\n")  # one call: lines of several processes do not mix
            self._failing = False
        except OSError as error:
            if not self._failing:
                print(f"signal log: {error}; events are not logged until that ends", file=sys.stderr)
            self._failing = True
