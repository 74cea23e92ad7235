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
from typing import NamedTuple, TypeAlias

import numpy as np
import polars as pl

from core.schema import BOOK_DELTAS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.store import Partition, partitions, read_between

LOOK_S = 0.2
PARTITIONS = 12  # per look
RECENT_NS = 120 * 10**9
TABLES = (TOP_OF_BOOK, TRADES, BOOK_DELTAS, MARK_PRICES)
Look: TypeAlias = tuple[str, int, int]
"""A partition's folder, when it was looked at, and the latest receive time found."""


class Lags(NamedTuple):
    """Seconds from receipt to a readable file, of the row that had waited longest at each look."""

    median: float
    p99: float
    longest: float


class Sampler:
    """Looks at a data directory until it is stopped."""

    def __init__(self, data: Path, core: int) -> None:
        self._ours, theirs = multiprocessing.Pipe()
        self._process = multiprocessing.get_context("spawn").Process(
            target=_look, args=(data, core, theirs), daemon=True
        )
        self._process.start()

    def stop(self) -> Callable[[Path], dict[str, Lags]]:
        """End the looking; what is returned gives, of the finished tables, how late rows were."""
        self._ours.send("stop")
        looks: list[Look] = json.loads(self._ours.recv())
        self._process.join()
        return lambda data: _lags(data, looks)


def _look(data: Path, core: int, pipe: Connection) -> None:
    os.sched_setaffinity(0, {core})
    looks: list[Look] = []
    while not pipe.poll(LOOK_S):
        parts = _partitions(data)
        for part in random.sample(parts, min(PARTITIONS, len(parts))):
            looked_ns = time.time_ns()
            rows = read_between(data, part, ["recv_ns"], looked_ns - RECENT_NS, looked_ns + RECENT_NS)
            if rows.height:
                looks.append((str(part.path), looked_ns, int(rows["recv_ns"][-1])))
    pipe.send(json.dumps(looks))


def _partitions(data: Path) -> list[Partition]:
    try:
        return [part for table in TABLES for part in partitions(data, table)]
    except FileNotFoundError:  # one was being swapped for its merged self
        return []


def _lags(data: Path, looks: list[Look]) -> dict[str, Lags]:
    """By table, over all looks at it: how long ago the first row that was in no file yet had been received."""
    lags_s: dict[str, list[float]] = {}
    for folder in {folder for folder, _, _ in looks}:
        paths = sorted((data / folder).glob("*.parquet"))
        received = pl.read_parquet(paths, columns=["recv_ns"], hive_partitioning=False)["recv_ns"].sort()
        for _, looked_ns, newest_ns in (look for look in looks if look[0] == folder):
            following = received.search_sorted(newest_ns, side="right")
            if following < received.len():
                lags_s.setdefault(folder.split("/")[0], []).append(
                    max(0, looked_ns - int(received[int(following)])) / 1e9
                )
    return {
        table: Lags(float(np.median(each)), float(np.quantile(each, 0.99)), max(each)) for table, each in lags_s.items()
    }
