"""The capture stage itself, a process of its own on one core, under a load from benchmarks/venue_server.py.

What it wrote is checked against the server's ledger: lost, doubled or foreign rows are faults of the run.
"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from durability import Lags, Sampler
from venue_frames import Ledger
from venue_server import HOST, Load, server_main

from core.schema import BOOK_DELTAS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.store import partitions, rows, scan

ROOT = Path(__file__).resolve().parents[1]
PLAIN, MEASURED = "ingest/capture.py", "benchmarks/measured_capture.py"
CAPTURE_CORE, SERVER_CORE = 0, 1
_COUNTED = (TOP_OF_BOOK, TRADES, MARK_PRICES)
IDS = {"top_of_book": "update_id", "trades": "trade_id", "book_deltas": "update_id"}
_PATIENCE_S = 30.0  # for rows to appear after the last frame was sent
_POLL_S = 0.25
_WORD = 2**64


@dataclass(frozen=True)
class Outcome:
    """What a run came to. `seconds` is from the first frame to the last row in a file, `cpu_s` the process's own.

    `rss_mb` is its memory at each minute, `measured` what benchmarks/measured_capture.py saw inside, `durable`
    how long rows were in no file, by table (None where nobody looked).
    """

    ledger: Ledger
    seconds: float
    cpu_s: float
    rows: int
    files: int
    peak_rss_mb: float
    rss_mb: list[float]
    measured: dict[str, Any]
    durable: dict[str, Lags] | None
    faults: list[str]


class Process:
    """A running capture, seen from /proc."""

    def __init__(self, script: str, data: Path, port: int, symbols: Sequence[str], pairs: Sequence[str]) -> None:
        hosts = [f"capture.hosts.binance_um_{kind}={scheme}://{HOST}:{port}" for kind, scheme in _SCHEMES]
        names = "symbols=" + ",".join(f"binance_um:{symbol}" for symbol in symbols)
        settings = [names, "capture.duration_s=0", *hosts, *pairs]
        arguments = [part for pair in settings for part in ("--set", pair)]
        self.popen = subprocess.Popen(
            [sys.executable, ROOT / script, "--source", "live", "--data-dir", data, *arguments],
            cwd=ROOT,
            env={**os.environ, "POLARS_MAX_THREADS": "1"},
            stdout=(data.parent / "out.txt").open("wb"),
            stderr=subprocess.STDOUT,
        )
        os.sched_setaffinity(self.popen.pid, {CAPTURE_CORE})

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self, name: str) -> float:
        """`VmRSS`, what is resident now, or `VmHWM`, the most that ever was."""
        lines = Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024

    def stop(self) -> int:
        """SIGTERM, which flushes and ends it; its exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(timeout=120)


_SCHEMES = (("ws", "ws"), ("rest", "http"))


def run(load: Load, pairs: Sequence[str] = (), script: str = PLAIN, watch_files: bool = False) -> Outcome:
    """Capture a load to its end and check what came of it."""
    with tempfile.TemporaryDirectory(prefix="bench-capture-") as folder, _server(load) as (port, pipe):
        data = Path(folder) / "data"
        process = Process(script, data, port, load.symbols, pairs)
        sampler = Sampler(data, SERVER_CORE) if watch_files else None
        try:
            return _follow(process, data, pipe, sampler)
        finally:
            process.popen.kill()
            process.popen.wait()


@contextmanager
def _server(load: Load) -> Iterator[tuple[int, Connection]]:
    ours, theirs = multiprocessing.Pipe()
    arguments = (load, SERVER_CORE, theirs)
    server = multiprocessing.get_context("spawn").Process(target=server_main, args=arguments, daemon=True)
    server.start()
    try:
        yield ours.recv(), ours
    finally:
        server.kill()
        server.join()


def _follow(process: Process, data: Path, pipe: Connection, sampler: Sampler | None) -> Outcome:
    """Wait until all is sent and in files, then end the capture and look at what it wrote."""
    rss_mb, next_minute_s = [], time.monotonic() + 60.0
    began_cpu_s = process.cpu_s
    while not pipe.poll(_POLL_S):
        _check_alive(process, data)
        if time.monotonic() >= next_minute_s:
            next_minute_s += 60.0
            rss_mb.append(process.memory_mb("VmRSS"))
    ledger: Ledger = pipe.recv()
    ended_s = _until_written(data, _rows_of(ledger, books=False))
    _check_alive(process, data)
    cpu_s, peak_mb = process.cpu_s - began_cpu_s, process.memory_mb("VmHWM")
    durable = sampler.stop() if sampler else None
    code = process.stop()
    faults = [f"exit code {code}: {(data.parent / 'out.txt').read_text()[-2000:]}"] if code else []
    faults += ledger.broken + _faults(data, ledger)
    measured = data / "measured.json"
    return Outcome(
        ledger=ledger,
        seconds=ended_s - ledger.first_ns / 1e9,
        cpu_s=cpu_s,
        rows=_rows_of(ledger, books=True),
        files=len(list(data.glob("*/exchange=*/*/*/*.parquet"))),
        peak_rss_mb=peak_mb,
        rss_mb=rss_mb,
        measured=json.loads(measured.read_text()) if measured.exists() else {},
        durable=durable(data) if durable else None,
        faults=faults,
    )


def _check_alive(process: Process, data: Path) -> None:
    if process.popen.poll() is not None:
        raise SystemExit(f"the capture ended early:\n{(data.parent / 'out.txt').read_text()}")


def _rows_of(ledger: Ledger, books: bool) -> int:
    return sum(entry[0] for name, entry in ledger.rows.items() if books or BOOK_DELTAS.name not in name)


def _until_written(data: Path, expected: int) -> float:
    """The time at which so many rows were in files, or at which none had been added for long."""
    seen, changed_s = 0, time.time()
    while seen < expected and time.time() - changed_s < _PATIENCE_S:
        now = _rows_in_files(data)
        if now != seen:
            seen, changed_s = now, time.time()
        time.sleep(_POLL_S)
    return changed_s


def _rows_in_files(data: Path) -> int:
    """Rows of the tables as they stand, books left out; 0 where a partition was swapped while we looked."""
    try:
        return sum(rows(data, part) for table in _COUNTED for part in partitions(data, table))
    except FileNotFoundError:
        return 0


def _scan(data: Path, table: str, column: str) -> pl.LazyFrame | None:
    """One column of a table, as `id`, and its symbol."""
    frames = []
    for path in sorted(data.glob(f"{table}/*/*/*/*.parquet")):
        frame = scan(path).filter(~pl.col("is_snapshot")) if table == "book_deltas" else scan(path)
        symbol = path.parts[-3].partition("=")[2]
        frames.append(frame.select(pl.lit(symbol).alias("symbol"), pl.col(column).cast(pl.Int64).alias("id")))
    return pl.concat(frames) if frames else None


def _faults(data: Path, ledger: Ledger) -> list[str]:
    """Where the tables differ from what was sent: rows, or the sum of their ids, or ids that came twice; and gaps."""
    found: dict[str, tuple[int, int, int]] = {}
    for table in (*IDS, "mark_prices"):
        frame = _scan(data, table, IDS.get(table, "recv_ns"))
        if frame is None:
            continue
        for (symbol,), group in frame.collect().group_by("symbol"):
            ids = group["id"].to_numpy().astype(np.uint64)
            total = int(ids.sum(dtype=np.uint64)) if table in IDS else 0
            found[f"{symbol} {table}"] = group.height, total, group["id"].n_unique()
    faults = []
    for name in sorted(found.keys() | ledger.rows.keys()):
        sent_rows, sent_ids = ledger.rows.get(name, [0, 0])
        written, ids, distinct = found.get(name, (0, 0, 0))
        if (written, ids) != (sent_rows, sent_ids % _WORD):
            faults.append(f"{name}: {sent_rows:,} rows sent, {written:,} written, {distinct:,} distinct ids")
    return faults + _gaps(data, ledger)


def _gaps(data: Path, ledger: Ledger) -> list[str]:
    """Gaps in what was sent; when all is sent, the silence is the server's."""
    paths = sorted(data.glob("gaps/*/*/*/*.parquet"))
    if not paths:
        return []
    gaps = pl.read_parquet(paths, hive_partitioning=False).filter(pl.col("to_ns") < ledger.last_ns)
    return [f"{gaps.height:,} gaps: {gaps.head(3).to_dicts()}"] if gaps.height else []
