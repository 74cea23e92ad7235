"""What people see of a running capture: every stream where the screen has room, less where it has not."""

import re
import time
from io import StringIO
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

from core.schema import TOP_OF_BOOK
from ingest.events import Quote
from ingest.monitor import Monitor
from ingest.packing import rows_of
from ingest.status import span, status_line, status_table


def monitor_of(symbols: int) -> Monitor:
    """A monitor of silent streams: two venues, two tables."""
    monitor = Monitor(SimpleNamespace(write=lambda *_, **__: None))  # type: ignore[arg-type]
    names = [f"S{number}USDT" for number in range(symbols)]
    counts = SimpleNamespace(frames=10, undecoded=0, reconnects=1, rotations=0, refilled=0, paused=0)
    feeds = [(name, table) for name in names for table in ("top_of_book", "trades")]
    watched: list[Any] = [
        SimpleNamespace(
            venue=venue,
            url="wss://x",
            counts=counts,
            plan=SimpleNamespace(feeds=feeds, silence_s=dict.fromkeys(feeds, 60.0)),
        )
        for venue in ("binance_um", "bybit")
    ]
    monitor.watch(watched)
    return monitor


def shown(monitor: Monitor, height: int, trouble: str = "", width: int = 120) -> str:
    console = Console(width=width, file=StringIO(), soft_wrap=True)  # as that of a run
    with console.capture() as capture:
        console.print(status_table(monitor, "capture 5 s into data", trouble, height))
    return capture.get()


@pytest.mark.parametrize(("symbols", "rows"), [(2, "S1USDT"), (50, "50 streams"), (5_000, "5,000 streams")])
def test_the_table_shows_what_fits(symbols: int, rows: str) -> None:
    text = shown(monitor_of(symbols), height=20)
    assert rows in text
    assert len(text.splitlines()) <= 20


def test_a_small_screen_gets_a_line_per_venue() -> None:
    text = shown(monitor_of(2), height=7)
    assert "4 streams" in text
    assert "top_of_book" not in text


def busy_monitor() -> Monitor:
    """Millions of rows of two streams, with latencies of minutes: the widest figures that are to be expected."""
    monitor = monitor_of(1)
    now_ns = time.time_ns()
    late_ns = np.linspace(1e6, 4e11, 1_000).astype(np.int64)
    quotes = [Quote("S0USDT", now_ns - late, now_ns, 1, 1.0, 1.0, 2.0, 1.0) for late in late_ns.tolist()]
    rows = rows_of(TOP_OF_BOOK, quotes)
    for _ in range(1_300):
        monitor.observe("binance_um", TOP_OF_BOOK, "S0USDT", rows)
    return monitor


ALWAYS = {"venue", "table", "symbol", "rows/s", "gaps", "last"}


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (60, ALWAYS),
        (80, ALWAYS | {"rows", "p99 ms"}),
        (120, ALWAYS | {"rows", "p50 ms", "p99 ms", "excess p99"}),
        (200, ALWAYS | {"rows", "p50 ms", "p99 ms", "excess p99"}),
    ],
)
def test_a_narrow_screen_gets_fewer_columns_and_each_of_them_whole(width: int, columns: set[str]) -> None:
    text = shown(busy_monitor(), height=30, width=width)
    header, *lines = text.splitlines()[1:6]
    assert set(re.split(r"\s{2,}", header.strip())) == columns
    assert max(map(cell_len, text.splitlines())) <= width
    assert "…" not in text
    for line, table in zip(lines, ["top_of_book", "trades"] * 2, strict=False):
        assert re.match(rf"(binance_um|bybit) +{table} +S0USDT ", line)
    assert ("1,300,000" in text) == ("rows" in columns)
    assert len(shown(busy_monitor(), height=12, width=width).splitlines()) <= 12


def test_a_screen_too_narrow_for_the_names_folds_them() -> None:
    text = shown(busy_monitor(), height=30, width=24)
    assert "…" not in text
    assert max(map(cell_len, text.splitlines())) <= 24


def test_connections_and_trouble_stand_below() -> None:
    text = shown(monitor_of(1), height=30, trouble="No space left on device")
    assert "2 connections: 20 frames" in text
    assert "2 reconnects, 0 rotations" in text
    narrow = shown(monitor_of(1), height=30, width=60)
    assert "2 reconnects, 0 rotations" in " ".join(narrow.split())
    assert text.rstrip().endswith("No space left on device")


def test_one_line_says_it_all() -> None:
    line = status_line(monitor_of(3), "capture 1 m 00 s into data", "")
    assert line.startswith("capture 1 m 00 s into data | 0 rows, 0/s, of 12 streams, 0 gaps | 2 connections")
    assert line.endswith("binance_um, last never in 0 s | bybit, last never in 0 s")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 m 00 s"), (3_723, "1 h 02 m"), (86_400 * 40 + 7_200, "40 d 2 h")],
)
def test_spans_are_told_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text
