"""Training: purged splits per second on label intervals, tree predictions, and the whole stage on a made-up market.

    python benchmarks/bench_training.py [HOURS]

Splits: a million rows 100 ms apart, ends exponential with a mean of 5 s, ten folds, checked against comparing each row
with the block. The stage: four symbols, the whole catalogue, the default grid, tables read and written; in a process of
its own, with its peak memory.
"""

import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.console import Console

from core.cli import run_stages
from core.config import DEFAULT_SYMBOLS, Config, Features
from core.units import NS_PER_MS, NS_PER_S
from research import catalogue
from research.learning import models
from research.learning.purged_cv import k_fold
from research.train_models import run
from tests.research.synthetic_tables import write_market

HOURS = 12.0


def main() -> None:
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    splits(1_000_000, 10)
    predictions(200_000)
    command = [sys.executable, __file__, "stage", sys.argv[1] if len(sys.argv) > 1 else str(HOURS)]
    subprocess.run(command, check=True)


def splits(n: int, folds: int) -> None:
    """Time and check the K-fold."""
    start = np.arange(n) * 100 * NS_PER_MS
    end = start + (np.random.default_rng(1).exponential(5.0, n).clip(max=30.0) * NS_PER_S).astype(np.int64)
    embargo = 30 * NS_PER_S
    began = time.perf_counter()
    made = list(k_fold(start, end, folds, embargo))
    seconds = time.perf_counter() - began
    for train, test in made:
        meets = (end >= start[test[0]]) & (start <= end[test].max() + embargo)
        assert np.array_equal(train, np.flatnonzero(~meets))
    print(f"purged K-fold, {n:,} rows: {1e3 * seconds / folds:.1f} ms a split, equal to the comparison of all rows")


def predictions(n: int) -> None:
    """Time the array form of one default model."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(n, 32)).astype(np.float32)
    y = x[:, 0] * (x[:, 1] > 0) + rng.normal(size=n)
    family, some = models.FAMILIES["lightgbm"], slice(0, 20_000)
    ensemble = models.fit(family, x[some], y[some], np.ones(20_000), np.arange(20_000) // 100, family.grid[1], 60, 1)
    ensemble.predict(x[:10])
    began = time.perf_counter()
    ensemble.predict(x)
    seconds = time.perf_counter() - began
    print(
        f"predict, {ensemble.n_trees} trees of 8 leaves: {1e9 * seconds / n / ensemble.n_trees:.1f} ns a row and tree"
    )


def stage(hours: float) -> None:
    """Time the stage as a run would see it, imports apart."""
    names = list(catalogue.choose(Features().sets, {}, "200ms"))
    with tempfile.TemporaryDirectory(prefix="training-") as folder:
        cfg = Config(data_dir=folder, symbols=DEFAULT_SYMBOLS)
        write_market(cfg, hours, edge_bps=14.0, seed=1, names=names)
        began, cpu = time.perf_counter(), time.process_time()
        record = run_stages(cfg, {"train": run}, Console(quiet=True))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    rows, chosen = record.stages[0]["rows_in"], record.sections["selection"]
    print(f"train stage, {rows:,} decisions x {len(names)} features: {seconds:.1f} s ({cpu:.1f} CPU), {peak_mb:.0f} MB")
    print(f"  {chosen['trials']} trials, verdict {chosen['verdict']}, z {chosen['z']:.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["stage"]:
        stage(float(sys.argv[2]))
    else:
        main()
