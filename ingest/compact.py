"""Compact: the shards of captured events, merged into one sorted file per partition.

    python ingest/compact.py [--data-dir DIR]

A running capture merges its own shards and, when a day is over, the whole day. This is for what is left after one was
killed, or was on a file system that cannot exchange folders while others read. It also writes anew what is older than a
column of its table.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from core.cli import stage_main
from core.compaction import CannotExchangeError, clear_staging, compact_partition
from core.config import Config
from core.errors import StageError
from core.locks import CAPTURE, held
from core.run_record import Stage
from core.schema import EVENTS, GAPS, Table
from core.store import files, partitions
from core.units import counted

READS: tuple[Table, ...] = (*EVENTS, GAPS)
WRITES: tuple[Table, ...] = READS


def run(cfg: Config, stage: Stage) -> None:
    """Make one file of each partition of the event tables. Rows stay the same, so nothing becomes stale by it.

    Raises StageError while a live capture runs (it compacts what it writes), or where the disk refuses.
    """
    with held(cfg.root, CAPTURE):
        clear_staging(cfg.root)
        parts = [part for table in READS for part in partitions(cfg.root, table)]
        before = after = merged = 0
        for part in stage.track(parts, "compact"):
            before += len(files(cfg.root, part))
            try:
                merged += compact_partition(cfg.root, part)
            except CannotExchangeError as error:
                raise StageError(
                    f"{error}: shards can only be merged on a file system that can exchange folders"
                ) from error
            after += len(files(cfg.root, part))
    stage.rows_in, stage.rows_out = before, after
    done = f"{merged:,} of {counted(len(parts), 'partition')} merged: {before:,} files are now {after:,}"
    stage.say(
        done if merged else f"nothing to merge: {counted(before, 'file')} of {len(parts):,} partitions", keep=False
    )


if __name__ == "__main__":
    stage_main("compact", run)
