"""The metrics endpoint, scraped over HTTP as Prometheus does."""

import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.errors import StageError
from core.schema import TRADES
from ingest.capture_log import CaptureLog
from ingest.clock_check import Clocks, KernelClock, VenueClock
from ingest.events import Trade
from ingest.monitor import Monitor
from ingest.packing import rows_of
from ingest.prometheus import CaptureMetrics, served

MS = 1_000_000


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def metrics_in(folder: Path, trouble: str = "", clocks: Clocks | None = None) -> CaptureMetrics:
    monitor = Monitor(CaptureLog(folder), read_clock_ns=lambda: 3_000 * MS)
    counts = SimpleNamespace(frames=7, undecoded=1, reconnects=2, rotations=3, refilled=4, paused=5)
    feed: Any = SimpleNamespace(
        venue="bybit", url="wss://x", counts=counts, plan=SimpleNamespace(feeds=(), silence_s={})
    )
    monitor.watch([feed])
    rows = rows_of(TRADES, [Trade("BTCUSDT", 1_000 * MS, 1_020 * MS, "1", 1.0, 1.0, "buy")])
    monitor.observe("bybit", TRADES, "BTCUSDT", rows)
    return CaptureMetrics(monitor, lambda: trouble, lambda: clocks)


def scrape(metrics: CaptureMetrics) -> dict[tuple[str, ...], float]:
    port = free_port()
    with served(metrics, port):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).raise_for_status().text
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_holds_what_the_monitor_knows(tmp_path: Path) -> None:
    found = scrape(metrics_in(tmp_path))
    stream = ("BTCUSDT", "trades", "bybit")  # labels in order of their names: symbol, table, venue
    assert found["capture_rows_total", *stream] == 1
    assert found["capture_gaps_total", *stream] == 0
    assert found["capture_last_message_age_seconds", *stream] == pytest.approx(1.98)
    assert found["capture_frames_total", "0", "bybit"] == 7
    assert found["capture_undecoded_total", "0", "bybit"] == 1
    assert found["capture_reconnects_total", "0", "bybit"] == 2
    assert found["capture_rotations_total", "0", "bybit"] == 3
    assert found["capture_latency_seconds", "0.99", "trades", "bybit"] == pytest.approx(0.020)
    assert found["capture_excess_latency_seconds", "0.5", "trades", "bybit"] == 0
    assert found["capture_write_trouble",] == 0
    assert found["process_resident_memory_bytes",] > 0


def test_trouble_and_clocks_can_be_alerted_on(tmp_path: Path) -> None:
    clocks = Clocks(KernelClock(False, 0, 0, 0), [VenueClock("bybit", 60 * MS, MS), VenueClock("x", 0, 0, "HTTP 451")])
    found = scrape(metrics_in(tmp_path, "No space left on device", clocks))
    assert found["capture_write_trouble",] == 1
    assert found["capture_clock_synchronised",] == 0
    assert found["capture_clock_offset_seconds", "bybit"] == pytest.approx(0.06)
    assert ("capture_clock_offset_seconds", "x") not in found


def test_nothing_but_loopback_is_listened_on_and_the_port_is_free_afterwards(tmp_path: Path) -> None:
    port = free_port()
    with served(metrics_in(tmp_path), port), pytest.raises(OSError, match="refused"):
        socket.create_connection((_own_address(), port), timeout=2)
    with socket.socket() as again:
        again.bind(("127.0.0.1", port))


def _own_address() -> str:
    """An address of this machine that is not 127.0.0.1; all of 127/8 is local on Linux."""
    return "127.0.0.2"


def test_a_port_that_is_taken_is_said_with_its_setting(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with (
            pytest.raises(StageError, match=r"capture\.metrics_port: cannot listen"),
            served(metrics_in(tmp_path), taken.getsockname()[1]),
        ):
            pass


def test_no_port_serves_nothing(tmp_path: Path) -> None:
    with served(metrics_in(tmp_path), 0):
        pass
