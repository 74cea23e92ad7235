"""Parquet settings on recorded data: size, and the time to write, to read, and to read one minute of it.

    python benchmarks/bench_encodings.py DATA_DIR ...

Takes the event tables of data directories that hold replayed recordings (`capture --source replay`), all symbols of a
table as one file. The columns stay as the schema has them, but for the lines `ticks and lots`, which show what integers
would save. Lines of pyarrow show encodings that Polars does not offer; they need pyarrow, which is no requirement here.
Best of three, warm; MB/s are of rows in memory.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import polars as pl

from core.schema import BOOK_DELTAS, F64, TOP_OF_BOOK, TRADES, Table
from core.store import ENCODING, LASTING, partitions, read
from core.units import NS_PER_S

try:
    import pyarrow.parquet as pq
except ImportError:
    pq = None

REPEATS: Final = 3
MINUTE_NS: Final = 60 * NS_PER_S
Write = Callable[[pl.DataFrame, Path], Any]


def by_polars(**settings: Any) -> Write:
    return lambda frame, path: frame.write_parquet(path, **settings)


def by_pyarrow(**settings: Any) -> Write:
    def write(frame: pl.DataFrame, path: Path) -> None:
        names = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Enum)]
        table = frame.with_columns(pl.col(names).cast(pl.String)).to_arrow()
        encoded = {name: how for name, how in settings.get("column_encoding", {}).items() if name in frame.columns}
        pq.write_table(table, path, **{**settings, **({"column_encoding": encoded} if encoded else {})})

    return write


def settings_of(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame, Write]]:
    """(name, rows, how to write them): one line of the report each."""
    for level in (1, 2, 3, 6, 9, 15):
        yield f"zstd {level}", frame, by_polars(compression="zstd", compression_level=level)
    for codec in ("lz4", "snappy", "uncompressed"):
        yield codec, frame, by_polars(compression=codec)
    yield "zstd 1, no statistics", frame, by_polars(compression="zstd", compression_level=1, statistics=False)
    for rows in (16_384, 65_536, 262_144, 1_048_576):
        settings = {"compression": "zstd", "compression_level": 1, "row_group_size": rows}
        yield f"zstd 1, groups of {rows:,}", frame, by_polars(**settings)
    for level, size in ((1, 64), (1, 128), (1, 256), (1, 512), (1, 4096), (3, 128), (3, 256), (3, 512)):
        settings = {"compression": "zstd", "compression_level": level, "data_page_size": size * 1024}
        yield f"zstd {level}, pages of {size} KB", frame, by_polars(**settings)
    yield "as the store writes shards", frame, by_polars(**ENCODING)
    yield "as the store writes merges", frame, by_polars(**LASTING)
    yield "ticks and lots, zstd 1", integers(frame), by_polars(compression="zstd", compression_level=1)
    if pq is not None:
        yield from pyarrow_settings(frame)


def pyarrow_settings(frame: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame, Write]]:
    times = ("exch_ns", "recv_ns", "update_id")
    floats = [name for name, dtype in frame.schema.items() if dtype == F64]
    zstd = {"compression": "zstd", "compression_level": 1}
    yield "pyarrow zstd 1, dictionary", frame, by_pyarrow(**zstd)
    yield "pyarrow zstd 1, plain", frame, by_pyarrow(**zstd, use_dictionary=False)
    delta = dict.fromkeys(times, "DELTA_BINARY_PACKED")
    rest = [name for name in frame.columns if name not in times]
    yield "pyarrow zstd 1, times as deltas", frame, by_pyarrow(**zstd, use_dictionary=rest, column_encoding=delta)
    split = dict.fromkeys(floats, "BYTE_STREAM_SPLIT")
    settings = {**zstd, "use_dictionary": False, "column_encoding": {**delta, **split}}
    yield "pyarrow zstd 1, deltas, bytes split", frame, by_pyarrow(**settings)
    packed = {
        **zstd,
        "use_dictionary": False,
        "column_encoding": dict.fromkeys([*times, *floats], "DELTA_BINARY_PACKED"),
    }
    yield "pyarrow zstd 1, ticks and lots as deltas", integers(frame), by_pyarrow(**packed)


def integers(frame: pl.DataFrame) -> pl.DataFrame:
    """Prices and quantities in units of 1e-8."""
    return frame.with_columns((pl.col(pl.Float64) * 1e8).round().cast(pl.Int64))


def best_s(work: Callable[[], Any]) -> float:
    seconds = []
    for _ in range(REPEATS):
        began_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began_s)
    return min(seconds)


def measured(frame: pl.DataFrame, write: Write, path: Path) -> tuple[float, float, float, float]:
    """Bytes per row, and MB/s written and read, and ms for a minute in the middle."""
    write_s = best_s(lambda: write(frame, path))
    read_s = best_s(lambda: pl.read_parquet(path))
    middle = int(frame["recv_ns"][frame.height // 2])
    minute = pl.col("recv_ns").is_between(middle, middle + MINUTE_NS)
    minute_s = best_s(lambda: pl.scan_parquet(path).filter(minute).collect())
    megabytes = frame.estimated_size("mb")
    return path.stat().st_size / frame.height, megabytes / write_s, megabytes / read_s, minute_s * 1000


def recorded(roots: Sequence[Path], table: Table) -> pl.DataFrame:
    """All rows of a table, symbol after symbol."""
    return pl.concat([read(root, part) for root in roots for part in partitions(root, table)])


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("folders", nargs="+", type=Path, metavar="DATA_DIR")
    roots = options.parse_args().folders
    cores = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cores} cores, Polars {pl.__version__}, {datetime.now(UTC):%Y-%m-%d}")
    with tempfile.TemporaryDirectory() as folder:
        for table in (TOP_OF_BOOK, TRADES, BOOK_DELTAS):
            frame = recorded(roots, table)
            print(f"\n{table.name}, {frame.height:,} rows, {frame.estimated_size('mb'):.0f} MB in memory")
            print(f"{'':<48}{'bytes/row':>10}{'write MB/s':>12}{'read MB/s':>12}{'minute ms':>12}")
            for name, rows, write in settings_of(frame):
                size, write_mbps, read_mbps, minute_ms = measured(rows, write, Path(folder, "file.parquet"))
                print(
                    f"{name[:47]:<48}{size:>10.2f}{write_mbps:>12,.0f}{read_mbps:>12,.0f}{minute_ms:>12.1f}", flush=True
                )


if __name__ == "__main__":
    main()
