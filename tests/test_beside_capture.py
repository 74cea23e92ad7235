"""Nightly beside a live capture of the same data directory: neither waits for the other, neither harms the other."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import polars as pl
import pytest

from core.cli import run_stages
from core.config import load
from core.origin import Origin, write_origin
from core.schema import GAPS, TRADES
from core.servers import wall_clock_hosts
from core.store import date_of_ns, partitions, read
from ingest import capture
from ingest.events import NOT_RUNNING

ROOT = Path(__file__).resolve().parents[1]
QUICK = '--set=train.families=["hgb"]'
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1_200)]


def command(data: Path, *arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "run_pipeline.py"), *arguments, "--data-dir", str(data)]


def test_nightly_works_while_a_capture_writes(tmp_path: Path) -> None:
    pairs = ["profile=smoke", "sim.transport=direct", "symbols=binance_um:BTCUSDT,bybit:BTCUSDT"]
    history = load(pairs=pairs, options={"source": "sim", "data_dir": str(tmp_path)})
    run_stages(history, {"capture": capture.run})
    write_origin(history, Origin("live", complete=True, simulated=True))  # an hour that was captured some days ago
    with wall_clock_hosts(history) as hosts:
        live = [f"--set=capture.hosts.{name}={url}" for name, url in msgspec.structs.asdict(hosts).items()]
        capturing = subprocess.Popen(
            [*command(tmp_path, "capture", "--source", "live", "--duration", "forever", f"--set={pairs[2]}"), *live],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            wait_for_trades(tmp_path, 1)
            before = trades_today(tmp_path).height
            night = subprocess.run(
                [*command(tmp_path, "nightly"), "--set=profile=smoke", f"--set={pairs[2]}", QUICK],
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert night.returncode == 0, night.stderr
            assert night.stdout.startswith("nightly: no edge on ")
            assert night.stdout.count("\n") == 1
            wait_for_trades(tmp_path, before + 1)  # the capture went on
            capturing.send_signal(signal.SIGTERM)
            _, errors = capturing.communicate(timeout=180)
            assert capturing.returncode == 0, errors
        finally:
            capturing.kill()
            capturing.communicate()
    assert trades_today(tmp_path)["trade_id"].is_unique().all()
    lost = [read(tmp_path, part).filter(~pl.col("mended")) for part in partitions(tmp_path, GAPS)]
    reasons = [reason for frame in lost for reason in frame["reason"]]  # some with the ids that the venue began anew
    assert all(reason.startswith(NOT_RUNNING) for reason in reasons)


def trades_today(data: Path) -> pl.DataFrame:
    today = date_of_ns(time.time_ns())
    parts = [part for part in partitions(data, TRADES, ["binance_um:BTCUSDT"]) if part.date >= today]
    return pl.concat([pl.DataFrame(schema=TRADES.columns), *(read(data, part) for part in parts)])


def wait_for_trades(data: Path, rows: int) -> None:
    deadline_s = time.monotonic() + 180
    while trades_today(data).height < rows:
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
