"""The capture stage, with the delays of its rows measured inside: `measured.json` in the data directory tells them.

    python benchmarks/measured_capture.py --source live --data-dir DIR ...      (as ingest/capture.py)

Of each best price, when the row is handed to the writer: the time since its frame was received, and since it was sent,
which its update id tells (benchmarks/venue_server.py).
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import msgspec
import numpy as np

from core.cli import stage_main
from core.config import Config
from core.run_record import Stage
from ingest import capture, live_capture
from ingest.events import Event, Quote
from ingest.stream_quality import DelayHistogram

_BATCH = 4_096
_MINUTE_S = 60.0
_SHARES = {"p50": 0.5, "p99": 0.99, "p999": 0.999, "max": 1.0}


class Minute:
    """Delays of one minute."""

    def __init__(self) -> None:
        self.received, self.sent = DelayHistogram(), DelayHistogram()
        self.rows = 0

    def figures(self) -> dict[str, Any]:
        names = {"receive_to_row": self.received, "sent_to_row": self.sent}
        quantiles = {
            name: {share: (delays.quantile_ns(value) or 0) / 1e3 for share, value in _SHARES.items()}
            for name, delays in names.items()
        }
        return {"rows": self.rows, **quantiles}


class MeasuredWriter(live_capture.TableWriter):
    """Times what it is given, some thousand rows at a time, so that timing costs little."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.minutes: list[Minute] = []
        self._began_s = 0.0
        self._batch: list[tuple[int, int, int]] = []
        writers.append(self)

    def add(self, venue: str, events: Sequence[Event]) -> None:
        super().add(venue, events)
        now_ns = time.time_ns()
        self._batch += [(now_ns, each.recv_ns, each.update_id) for each in events if type(each) is Quote]
        if len(self._batch) >= _BATCH:
            self.count()

    def count(self) -> None:
        """Put the batch into the histograms of its minute."""
        now_s = time.monotonic()
        self._began_s = self._began_s or now_s
        while len(self.minutes) <= (now_s - self._began_s) / _MINUTE_S:
            self.minutes.append(Minute())
        if self._batch:
            rows = np.array(self._batch, np.int64)
            self.minutes[-1].received.add((rows[:, 0] - rows[:, 1]).astype(np.float64))
            self.minutes[-1].sent.add((rows[:, 0] - rows[:, 2]).astype(np.float64))
            self.minutes[-1].rows += len(rows)
            self._batch.clear()


writers: list[MeasuredWriter] = []


def run(cfg: Config, stage: Stage) -> None:
    """Capture, then write what was measured."""
    live_capture.TableWriter = MeasuredWriter  # type: ignore[misc]
    capture.run(cfg, stage)
    (writer,) = writers
    writer.count()
    minutes = [minute.figures() for minute in writer.minutes if minute.rows]
    (cfg.root / "measured.json").write_bytes(msgspec.json.encode({"minutes": minutes}))


if __name__ == "__main__":
    stage_main("capture", run)
