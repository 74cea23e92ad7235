"""The monitor: what it counts, over which time, and what a clock that is off does to it."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.plain_rows import PlainRows
from core.schema import GAPS, MARK_PRICES, TOP_OF_BOOK, TRADES, Table
from ingest.capture_log import CaptureLog
from ingest.events import Event, Gap, Mark, Quote, Trade
from ingest.monitor import Monitor, StreamKey, StreamStatus, by_table, by_venue
from ingest.packing import rows_of

MS, S = 1_000_000, 1_000_000_000
NOW = 1_700_000_000 * S


def monitor_in(folder: Path) -> Monitor:
    return Monitor(CaptureLog(folder), read_clock_ns=lambda: NOW)


def trades(*latencies_ms: float, symbol: str = "BTCUSDT", assumed: bool = False) -> PlainRows:
    """Trades received one ms apart, the last one at NOW - 1 s, each some ms after the venue's time."""
    last = NOW - S - len(latencies_ms) * MS
    events: list[Event] = [
        Trade(symbol, last + place * MS - round(latency * MS), last + place * MS, "1", 1.0, 1.0, "buy", assumed)
        for place, latency in enumerate(latencies_ms, 1)
    ]
    return rows_of(TRADES, events)


def observe(monitor: Monitor, rows: PlainRows, table: Table = TRADES, venue: str = "binance_um") -> None:
    monitor.observe(venue, table, "BTCUSDT", rows)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """The log."""
    return [json.loads(line) for path in folder.iterdir() for line in path.read_text().splitlines()]


def only(found: list[StreamStatus]) -> StreamStatus:
    (status,) = found
    return status


def test_a_stream_shows_its_rows_rate_latency_and_age(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    for second in range(4):
        monitor.tick(float(second))
        observe(monitor, trades(*[10.0] * 98, 40.0, 40.0))
    monitor.tick(4.0)
    status = only(monitor.streams())
    assert status.key == StreamKey("binance_um", "trades", "BTCUSDT")
    assert (status.rows, status.rows_per_s, status.gaps, status.age_s) == (400, 100.0, 0, 1.0)
    assert status.latency_ms == pytest.approx([10.0, 40.0], rel=0.05)
    assert status.excess_ms == pytest.approx([0.0, 30.0], abs=2.0)


@pytest.mark.parametrize("skew_ms", [-1_300.0, 0.0, 86_400_000.0])
def test_the_excess_does_not_depend_on_the_clock(tmp_path: Path, skew_ms: float) -> None:
    monitor = monitor_in(tmp_path)
    observe(monitor, trades(*[skew_ms + 5.0] * 50, *[skew_ms + 25.0] * 50))
    status = only(monitor.streams())
    assert status.latency_ms is not None
    assert status.latency_ms[0] == pytest.approx(skew_ms + 5.0, abs=0.01)
    assert status.excess_ms == pytest.approx([0.0, 20.0], abs=1.0)


def test_latencies_are_of_the_last_minutes_only(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    monitor.tick(0.0)
    observe(monitor, trades(900.0, 900.0))
    for minute in (61.0, 122.0, 183.0):
        observe(monitor, trades(5.0, 5.0))
        monitor.tick(minute)
    observe(monitor, trades(5.0))
    assert only(monitor.streams()).latency_ms == pytest.approx([5.0, 5.0])


def test_rates_forget_what_was_before_the_last_ten_seconds(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    for second in range(40):
        monitor.tick(float(second))
        if second < 20:
            observe(monitor, trades(1.0, 1.0))
    assert only(monitor.streams()).rows_per_s == 0.0


def test_times_that_are_assumed_are_no_latencies(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    observe(monitor, trades(1.0, 2.0, assumed=True))
    status = only(monitor.streams())
    assert (status.rows, status.latency_ms, status.excess_ms) == (2, None, None)
    spot: list[Event] = [Quote("BTCUSDT", NOW, NOW, 1, 1.0, 1.0, 2.0, 1.0, exch_assumed=True)]
    monitor.observe("binance", TOP_OF_BOOK, "BTCUSDT", rows_of(TOP_OF_BOOK, spot))
    assert [each.latency_ms for each in monitor.streams()] == [None, None]


def test_groups_add_up_and_share_one_distribution(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    marks: list[Event] = [Mark("BTCUSDT", NOW - 501 * MS, NOW - MS, 1.0, None, None, None, None)]
    observe(monitor, trades(*[10.0] * 99))
    observe(monitor, rows_of(MARK_PRICES, marks), MARK_PRICES)
    monitor.observe("binance_um", TRADES, "ETHUSDT", trades(10.0, symbol="ETHUSDT"))
    observe(monitor, trades(7.0), venue="bybit")
    assert [(each.key, each.streams, each.rows) for each in monitor.streams(by_table)] == [
        (StreamKey("binance_um", "mark_prices"), 1, 1),
        (StreamKey("binance_um", "trades"), 2, 100),
        (StreamKey("bybit", "trades"), 1, 1),
    ]
    binance, bybit = monitor.streams(by_venue)
    assert binance.latency_ms == pytest.approx([10.0, 10.0], rel=0.05)
    assert bybit.excess_ms == [0.0, 0.0]
    assert monitor.count() == 4
    assert monitor.count(by_venue) == 2


def gaps(*streams: str, mended: bool = False) -> PlainRows:
    return rows_of(GAPS, [Gap("BTCUSDT", stream, NOW, NOW + S, "lost", mended) for stream in streams])


def test_gaps_count_for_the_stream_that_misses_something_and_stand_in_the_log(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    observe(monitor, gaps("trades", "trades", "book_deltas"), GAPS)
    assert {each.key.table: each.gaps for each in monitor.streams()} == {"book_deltas": 1, "trades": 2}
    lines = lines_of(tmp_path)
    assert [line["event"] for line in lines] == ["gap"] * 3
    assert lines[0] | {"stream": "trades", "reason": "lost", "venue": "binance_um"} == lines[0]


def test_a_hole_that_is_mended_later_counts_once(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    observe(monitor, gaps("trades"), GAPS)
    observe(monitor, gaps("trades", "book_deltas", mended=True), GAPS)
    assert {each.key.table: each.gaps for each in monitor.streams()} == {"book_deltas": 1, "trades": 1}
    assert [line["mended"] for line in lines_of(tmp_path)] == [False, True, True]


def test_a_flood_of_gaps_does_not_flood_the_log(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    observe(monitor, gaps(*["trades"] * 500), GAPS)
    lines = lines_of(tmp_path)
    assert only(monitor.streams()).gaps == 500
    assert len(lines) == 21
    assert lines[-1]["more"] == 480


def test_a_stream_that_never_comes_is_shown_and_connections_are_counted(tmp_path: Path) -> None:
    monitor = monitor_in(tmp_path)
    counts: Any = SimpleNamespace(frames=0, undecoded=1, reconnects=2, rotations=3, refilled=4, paused=5)
    plan = SimpleNamespace(
        feeds=(("BTCUSDT", "trades"), ("BTCUSDT", "klines")), silence_s={("BTCUSDT", "trades"): 60.0}
    )
    feed: Any = SimpleNamespace(venue="bybit", url="wss://x", counts=counts, plan=plan)
    monitor.watch([feed])
    monitor.tick(0.0)
    counts.frames, counts.reconnects, counts.refilled = 500, 3, 40
    monitor.tick(5.0)
    assert [(each.key.table, each.rows, each.age_s, each.mute) for each in monitor.streams()] == [
        ("klines", 0, None, 0),
        ("trades", 0, None, 1),
    ]
    assert only(monitor.streams(by_venue)).mute == 1
    (connection,) = monitor.connections()
    assert connection == ("bybit", "wss://x", 500, 100.0, 1, 3, 3, 40, 5)
    assert [(line["event"], line["count"]) for line in lines_of(tmp_path)] == [("reconnect", 1), ("refill", 36)]
