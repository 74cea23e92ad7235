"""Backfill: a day of liquid BTCUSDT aggTrades from zip to Parquet, checksum included.

    python benchmarks/bench_backfill.py [ROWS]

The file is made to the archive's format: a header, ids without a gap, prices to 0.1, quantities to 0.001, ms.
"""

import hashlib
import platform
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.config import ROOT
from core.units import NS_PER_DAY, NS_PER_MS
from ingest.archives.choice import choose
from ingest.archives.download import sha256_of
from ingest.archives.importing import import_file
from ingest.archives.local import find
from ingest.archives.manifest import Manifest

ROWS = 2_000_000
DAY = "2024-03-29"
DAY_MS = 1_711_670_400_000
HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
REPEATS = 3


def make_day(folder: Path, rows: int) -> Path:
    """A day's aggTrades as Binance packs them, and its .CHECKSUM."""
    random = np.random.default_rng(1)
    times = np.sort(random.integers(0, NS_PER_DAY // NS_PER_MS, rows)) + DAY_MS
    trades = np.cumsum(random.integers(1, 4, rows)) + 4_700_000_000
    frame = pl.DataFrame(
        {
            "id": np.arange(rows) + 2_091_000_000,
            "price": np.round(70_000 + np.cumsum(random.choice([-0.1, 0.0, 0.1], rows)), 1),
            "quantity": np.round(random.exponential(0.05, rows) + 0.001, 3),
            "first": trades,
            "last": trades + random.integers(0, 3, rows),
            "time": times,
            "maker": random.choice(["true", "false"], rows),
        }
    )
    target = folder / f"BTCUSDT-aggTrades-{DAY}.zip"
    text = frame.write_csv(include_header=False)
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(target.with_suffix(".csv").name, f"{HEADER}\n{text}")
    digest = hashlib.sha256(target.read_bytes()).hexdigest()
    target.with_name(target.name + ".CHECKSUM").write_text(f"{digest}  {target.name}\n")
    return target


def once(zipped: Path, root: Path) -> tuple[float, int]:
    """(seconds, rows written) of one import, the checksum verified first."""
    began_s = time.perf_counter()
    published = zipped.with_name(zipped.name + ".CHECKSUM").read_text().split()[0]
    assert sha256_of(zipped) == published
    files, _ = find(zipped, "", ("binance_um:BTCUSDT",))
    jobs, _ = choose(files, None, ())
    entry = import_file(root, jobs[0], 10.0, Manifest(root), 1)
    return time.perf_counter() - began_s, entry.written["trades"]


def stage_seconds(zipped: Path, root: Path) -> float:
    """Seconds of the whole command, the interpreter's start included."""
    pairs = [f"backfill.path={zipped}", 'symbols=["binance_um:BTCUSDT"]']
    sets = [text for pair in pairs for text in ("--set", pair)]
    began_s = time.perf_counter()
    subprocess.run(
        [sys.executable, str(ROOT / "ingest" / "backfill.py"), "--data-dir", str(root), *sets],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return time.perf_counter() - began_s


def main() -> None:
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else ROWS
    print(
        f"{datetime.now(UTC):%Y-%m-%d} | {platform.processor() or platform.machine()} | Python {sys.version.split()[0]}"
    )
    with tempfile.TemporaryDirectory() as folder:
        zipped = make_day(Path(folder), rows)
        print(f"{rows:,} aggTrades, {zipped.stat().st_size / 1e6:.0f} MB zip")
        before_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for repeat in range(REPEATS):
            seconds, written = once(zipped, Path(folder) / f"data{repeat}")
            assert written == rows
            print(f"zip to Parquet, checksum included: {seconds:.2f} s ({rows / seconds:,.0f} rows/s)")
        after_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak RSS {after_mb:,.0f} MB (before the import {before_mb:,.0f} MB)")
        print(f"the whole command, start included: {stage_seconds(zipped, Path(folder) / 'stage'):.2f} s")


if __name__ == "__main__":
    main()
