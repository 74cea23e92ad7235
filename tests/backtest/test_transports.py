"""Sockets and the direct transport leave the same tables: what a study finds without sockets holds with them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal
from rich.console import Console

from core.config import ROOT, Config, load
from core.errors import ConfigError
from core.origin import read_origin
from core.run_record import RunRecord
from core.schema import EVENTS, GAPS
from core.store import partitions, read
from ingest import capture

DAY_END = "2026-01-05T23:57:00Z"  # the stretch crosses midnight and a funding time
MINUTES = 6.0


def captured(folder: Path, transport: str, *pairs: str) -> Config:
    """A few simulated minutes, captured over one transport."""
    settings = [f"sim.hours={MINUTES / 60}", f"sim.start={DAY_END}", f"sim.transport={transport}", *pairs]
    config = load(pairs=settings, options={"source": "sim", "data_dir": str(folder / transport)})
    with RunRecord(config, Console(quiet=True)).stage("capture") as stage:
        capture.run(config, stage)
    return config


@pytest.mark.parametrize("pairs", [(), ("capture.depth=off", "sim.edge=0")])
def test_both_transports_leave_equal_tables_row_by_row(tmp_path: Path, pairs: tuple[str, ...]) -> None:
    socket, direct = (captured(tmp_path, transport, *pairs) for transport in ("socket", "direct"))
    for table in EVENTS:
        parts = partitions(socket.root, table)
        assert parts == partitions(direct.root, table)
        assert bool(parts) == (table.name not in ({"klines", "book_deltas"} if pairs else {"klines"}))
        for part in parts:
            assert_frame_equal(read(socket.root, part), read(direct.root, part), check_exact=True)
    assert {part.date for part in partitions(socket.root, EVENTS[0])} == {"2026-01-05", "2026-01-06"}
    assert not partitions(socket.root, GAPS)
    bursts = [pl.read_parquet(config.root / "truth" / "bursts.parquet") for config in (socket, direct)]
    assert_frame_equal(*bursts)


def test_a_market_that_cannot_be_simulated_costs_no_tables(tmp_path: Path) -> None:
    config = captured(tmp_path, "direct", "capture.depth=off", "symbols=bybit:BTCUSDT")
    with pytest.raises(ConfigError):
        captured(tmp_path, "direct", "symbols=binance:BTCUSDT")
    assert [part.instrument for part in partitions(config.root, EVENTS[0])][:1] == ["bybit:BTCUSDT"]
    origin = read_origin(config)
    assert origin is not None
    assert origin.complete


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_direct_capture_leaves_no_process_behind(tmp_path: Path, how: signal.Signals) -> None:
    command = [sys.executable, str(ROOT / "ingest" / "capture.py"), "--data-dir", str(tmp_path)]
    pairs = ["--set", "sim.transport=direct", "--set", "sim.hours=2000"]
    process = subprocess.Popen([*command, *pairs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 30
    while not (tmp_path / "source.json").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert children
    assert not any(Path(f"/proc/{child}").exists() for child in children)
