"""Backfill: a day of liquid BTCUSDT aggTrades from zip to Parquet, checksum included; and days on end in flat memory.

    python benchmarks/bench_backfill.py [ROWS] [DAYS]

Files are made to the archive's format, in a process of their own: a header, ids without a gap, prices to 0.1,
quantities to 0.001, times in ms.
"""

import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
import zipfile
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import polars as pl

from core.config import ROOT
from core.units import NS_PER_DAY, NS_PER_MS
from ingest.archives.choice import choose
from ingest.archives.importing import import_file, sha256_of
from ingest.archives.local import find
from ingest.archives.manifest import Manifest

ROWS, DAYS = 2_000_000, 8
FIRST_DAY = date(2024, 3, 1)
DAY_MS = NS_PER_DAY // NS_PER_MS
HEADER = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
REPEATS = 3


def make_day(folder: Path, rows: int, day: int) -> None:
    """The n-th day's aggTrades as Binance packs them, and the .CHECKSUM beside them."""
    random = np.random.default_rng(day)
    begin_ms = int(datetime.combine(FIRST_DAY, datetime.min.time(), UTC).timestamp()) * 1000 + day * DAY_MS
    trades = np.cumsum(random.integers(1, 4, rows)) + 4_700_000_000
    frame = pl.DataFrame(
        {
            "id": np.arange(rows) + 2_091_000_000 + day * rows,
            "price": np.round(70_000 + np.cumsum(random.choice([-0.1, 0.0, 0.1], rows)), 1),
            "quantity": np.round(random.exponential(0.05, rows) + 0.001, 3),
            "first": trades,
            "last": trades + random.integers(0, 3, rows),
            "time": np.sort(random.integers(0, DAY_MS, rows)) + begin_ms,
            "maker": random.choice(["true", "false"], rows),
        }
    )
    target = folder / f"BTCUSDT-aggTrades-{FIRST_DAY + timedelta(days=day)}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{target.stem}.csv", f"{HEADER}\n{frame.write_csv(include_header=False)}")
    target.with_name(f"{target.name}.CHECKSUM").write_text(f"{sha256_of(target)}  {target.name}\n")


def make_days(folder: Path, rows: int, days: int) -> list[Path]:
    """Files of `days` days; made elsewhere, so that their making is not in our memory."""
    for day in range(days):
        making = multiprocessing.get_context("spawn").Process(target=make_day, args=(folder, rows, day))
        making.start()
        making.join()
    return sorted(folder.glob("*.zip"))


def once(zipped: Path, root: Path, rows: int) -> tuple[float, float]:
    """(seconds, seconds of CPU on all cores) of one import, the published checksum compared first."""
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    published = zipped.with_name(f"{zipped.name}.CHECKSUM").read_text().split()[0]
    assert sha256_of(zipped) == published
    files = find(zipped, "", ("binance_um:BTCUSDT",)).files
    manifest = Manifest(root)
    (job,), _ = choose(files, None, manifest.entries.values())
    entry = import_file(root, job, 10.0, manifest, manifest.reserve([job.file.key])[job.file.key])
    assert entry.written["trades"] == rows
    return time.perf_counter() - began_s, time.process_time() - began_cpu_s


def whole_command(zipped: Path, root: Path) -> float:
    """Seconds of the stage as a user runs it, the interpreter's start included."""
    pairs = [f"backfill.path={zipped}", 'symbols=["binance_um:BTCUSDT"]']
    sets = [text for pair in pairs for text in ("--set", pair)]
    command = [sys.executable, str(ROOT / "ingest" / "backfill.py"), "--data-dir", str(root), *sets]
    began_s = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began_s


def resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def main() -> None:
    given = [int(text) for text in sys.argv[1:]]
    rows, days = (*given, *(ROWS, DAYS)[len(given) :])
    print(f"{datetime.now(UTC):%Y-%m-%d} | {platform.platform()} | Python {platform.python_version()}")
    with tempfile.TemporaryDirectory() as folder:
        archive = make_days(Path(folder), rows, days)
        print(f"{rows:,} aggTrades a day, {archive[0].stat().st_size / 1e6:.0f} MB zip each")
        print(f"resident memory before: {resident_mb():,.0f} MB")
        for repeat in range(REPEATS):
            seconds, cpu_s = once(archive[0], Path(folder) / f"repeat{repeat}", rows)
            rate = f"{rows / seconds:,.0f} rows/s, {cpu_s:.2f} s of CPU"
            print(f"zip to Parquet, checksum included: {seconds:.2f} s ({rate})")
        for zipped in archive:
            seconds, _ = once(zipped, Path(folder) / "days", rows)
            print(f"{zipped.stem}: {seconds:.2f} s, resident memory {resident_mb():,.0f} MB")
        print(f"the whole command, start included: {whole_command(archive[0], Path(folder) / 'stage'):.2f} s")


if __name__ == "__main__":
    main()
