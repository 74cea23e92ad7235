"""Until the writer has its own thread."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from core.config import Capture
from core.schema import Table
from ingest import rows
from ingest.events import Event


class TableWriter(rows.TableWriter):
    trouble = ""

    def __init__(
        self,
        root: Path,
        capture: Capture,
        live: bool = True,
        observe: Callable[[str, Table, str, pl.DataFrame], None] | None = None,
    ) -> None:
        super().__init__(root, capture.flush_rows, 1.0 if live else capture.flush_s)
        self._observe = observe

    def _write(self, pending: Any) -> None:
        if self._observe:
            pending.pack()
            for frame in pending.packed:
                self._observe(pending.venue, pending.table, pending.symbol, frame)
        super()._write(pending)

    def tick(self) -> None:
        self.flush_old()

    def close(self) -> None:
        self.flush()

    def add(self, venue: str, events: Sequence[Event]) -> None:
        super().add(venue, events)
