"""Signals that an import made before and makes otherwise now: taken back first, or they would pass for revisions."""

from pathlib import Path

import polars as pl

from core.schema import SIGNALS
from core.store import Partition, read, split_by_date, write
from ingest.signals import writing


def withdraw_signals(root: Path, exchange: str, symbol: str, rows: pl.DataFrame) -> None:
    """Remove the rows with the keys of `rows` from one instrument's partitions. May be repeated.

    The lock is that of `merge_signals`. Raises StageError if another writer holds it for a minute.
    """
    with writing(root):
        for date, day in split_by_date(rows.sort("time_ns"), "time_ns"):
            part = Partition(SIGNALS.name, exchange, symbol, date)
            stored = read(root, part)
            kept = stored.join(day, on=SIGNALS.key, how="anti", maintain_order="left")
            if kept.height < stored.height:
                write(root, part, kept)
