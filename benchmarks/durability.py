"""Are rows in readable files soon after their receipt? A process of its own looks at the newest files as they grow.

Each look notes, for some partitions, the latest receive time that a reader finds. Afterwards the whole tables tell
which row came next, and so how long it had been received and was in no file yet.
"""

import json
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import polars as pl

from core.store import scan

LOOK_S = 0.2
PARTITIONS = 12  # per look
TABLES = ("top_of_book", "trades", "book_deltas", "mark_prices")


class Sampler:
    """Looks at a data directory until it is stopped."""

    def __init__(self, data: Path, core: int) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_look, args=(data, core, theirs), daemon=True
        )
        self._process.start()

    def stop(self) -> Callable[[Path], float]:
        """End the looking; what is returned gives, of the finished tables, the longest lag in seconds."""
        self._ours.send("stop")
        looks: list[tuple[str, int, int]] = json.loads(self._ours.recv())
        self._process.join()
        return lambda data: _longest_lag_s(data, looks)


def _look(data: Path, core: int, pipe: Connection) -> None:
    os.sched_setaffinity(0, {core})
    looks: list[tuple[str, int, int]] = []
    while not pipe.poll(LOOK_S):
        folders = [str(path) for table in TABLES for path in data.glob(f"{table}/exchange=*/symbol=*/date=*")]
        for folder in random.sample(folders, min(PARTITIONS, len(folders))):
            looked_ns = time.time_ns()
            newest_ns = _newest_ns(Path(folder))
            if newest_ns:
                looks.append((str(Path(folder).relative_to(data)), looked_ns, newest_ns))
    pipe.send(json.dumps(looks))


def _newest_ns(folder: Path) -> int:
    """The latest receive time that a reader finds; 0 where there is none, or a file went away under its eyes."""
    try:
        return max(
            int(scan(path).select(pl.col("recv_ns").last()).collect().item())
            for path in sorted(folder.glob("*.parquet"))[-2:]
        )
    except (OSError, ValueError):
        return 0


def _longest_lag_s(data: Path, looks: list[tuple[str, int, int]]) -> float:
    """Over all looks: how long ago the first row that was in no file yet had been received."""
    longest_ns = 0
    for folder in {folder for folder, _, _ in looks}:
        paths = sorted((data / folder).glob("*.parquet"))
        received = pl.read_parquet(paths, columns=["recv_ns"], hive_partitioning=False)["recv_ns"].sort()
        for _, looked_ns, newest_ns in (look for look in looks if look[0] == folder):
            following = received.search_sorted(newest_ns, side="right")
            if following < received.len():
                longest_ns = max(longest_ns, looked_ns - int(received[int(following)]))
    return longest_ns / 1e9
