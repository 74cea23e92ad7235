"""What people see of a running capture: every stream where the screen has room, less where it has not."""

from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from ingest.monitor import Monitor
from ingest.status import span, status_line, status_table


def monitor_of(symbols: int) -> Monitor:
    """A monitor of silent streams: two venues, two tables."""
    monitor = Monitor(SimpleNamespace(write=lambda *_, **__: None))  # type: ignore[arg-type]
    names = [f"S{number}USDT" for number in range(symbols)]
    counts = SimpleNamespace(frames=10, undecoded=0, reconnects=1, rotations=0, refilled=0, paused=0)
    feeds: list[Any] = [
        SimpleNamespace(
            venue=venue,
            url="wss://x",
            counts=counts,
            plan=SimpleNamespace(feeds=[(name, table) for name in names for table in ("top_of_book", "trades")]),
        )
        for venue in ("binance_um", "bybit")
    ]
    monitor.watch(feeds)
    return monitor


def shown(monitor: Monitor, height: int, trouble: str = "") -> str:
    console = Console(width=120, file=StringIO())
    with console.capture() as capture:
        console.print(status_table(monitor, "capture 5 s into data", trouble, height))
    return capture.get()


@pytest.mark.parametrize(("symbols", "rows"), [(2, "S1USDT"), (50, "50 streams"), (5_000, "5,000 streams")])
def test_the_table_shows_what_fits(symbols: int, rows: str) -> None:
    text = shown(monitor_of(symbols), height=20)
    assert rows in text
    assert len(text.splitlines()) <= 20


def test_a_small_screen_gets_a_line_per_venue() -> None:
    text = shown(monitor_of(2), height=9)
    assert "4 streams" in text
    assert "top_of_book" not in text


def test_connections_and_trouble_stand_below() -> None:
    text = shown(monitor_of(1), height=30, trouble="No space left on device")
    assert "2 connections: 20 frames" in text
    assert "2 reconnects, 0 rotations" in text
    assert text.rstrip().endswith("No space left on device")


def test_one_line_says_it_all() -> None:
    line = status_line(monitor_of(3), "capture 1 m 00 s into data", "")
    assert line.startswith("capture 1 m 00 s into data | 0 rows, 0/s, of 12 streams, 0 gaps | 2 connections")
    assert line.endswith("binance_um, last never | bybit, last never")
    assert "\n" not in line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.9, "59 s"), (60, "1 m 00 s"), (3_723, "1 h 02 m"), (86_400 * 40 + 7_200, "40 d 2 h")],
)
def test_spans_are_told_in_their_two_largest_units(seconds: float, text: str) -> None:
    assert span(seconds) == text
