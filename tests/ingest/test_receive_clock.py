"""Receive times rise, steps of the wall clock are told, silence is noticed and patience grows."""

import time

import pytest

from ingest.receive_clock import ReceiveClock, Silence


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    now = {"wall": 1_000_000_000_000, "monotonic": 5_000}
    monkeypatch.setattr(time, "time_ns", lambda: now["wall"])
    monkeypatch.setattr(time, "monotonic_ns", lambda: now["monotonic"])
    return now


def test_receive_times_rise_even_if_the_clock_stands_still_or_falls(clocks: dict[str, int]) -> None:
    clock = ReceiveClock()
    first = clock.now_ns()
    assert clock.now_ns() == first + 1
    clocks["wall"] -= 10_000_000
    assert clock.now_ns() == first + 2
    assert clock.steps == []


def test_a_clock_that_is_set_by_more_than_50_ms_shows_as_a_step(clocks: dict[str, int]) -> None:
    clock = ReceiveClock()
    for name in clocks:
        clocks[name] += 3_000_000_000
    clock.now_ns()
    assert clock.steps == []
    clocks["wall"] += 51_000_000
    at_ns = clock.now_ns()
    clock.now_ns()
    assert clock.steps == [(at_ns, 51_000_000)]


def test_a_silent_stream_is_noticed_and_gets_twice_the_patience_each_time() -> None:
    quotes, trades = ("BTCUSDT", "top_of_book"), ("BTCUSDT", "trades")
    silence = Silence([quotes, trades], patience_s=10.0, now_s=0.0)
    silence.heard(quotes, 9.0)
    silence.heard(("BTCUSDT", "mark_prices"), 9.0)  # not watched
    assert silence.overdue(10.0) is None
    assert silence.overdue(10.5) == (trades, 10.0)
    assert silence.overdue(20.0) is None  # all start afresh after the reconnect
    silence.heard(quotes, 30.0)
    assert silence.overdue(30.4) is None
    assert silence.overdue(30.6) == (trades, 20.0)
