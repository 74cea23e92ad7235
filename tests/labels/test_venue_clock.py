"""d(t) against the obvious quantile, one receipt at a time, and on recorded frames."""

import json
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from core.units import NS_PER_MS, NS_PER_S
from labels.venue_clock import UNKNOWN, WINDOW_NS, SkewWindow, skew_ns

receipts = st.lists(st.tuples(st.integers(0, 150_000), st.integers(-1_300, 400)), max_size=80)


def stream(rows: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """(recv_ns, exch_ns) from (receipt, delay) in ms."""
    recv = np.array([at for at, _ in sorted(rows)], np.int64) * NS_PER_MS
    delay = np.array([late for _, late in sorted(rows)], np.int64) * NS_PER_MS
    return recv, recv - delay


def obvious(streams: list[tuple[np.ndarray, np.ndarray]], times: list[int]) -> list[int]:
    found, last = [], int(UNKNOWN)
    for t in times:
        lows = []
        for recv, exch in streams:
            delays = sorted((recv - exch)[(recv >= t - WINDOW_NS) & (recv < t)])
            if delays:
                lows.append(int(delays[max(int(np.ceil(0.01 * len(delays))), 1) - 1]))
        last = min(lows) if lows else last
        found.append(last)
    return found


@settings(deadline=None)  # the first example compiles
@given(receipts, receipts, st.lists(st.integers(0, 200_000), min_size=1, max_size=10))
def test_d_is_the_least_trailing_percentile_of_the_streams(
    one: list[tuple[int, int]], two: list[tuple[int, int]], at: list[int]
) -> None:
    streams, times = [stream(one), stream(two)], sorted(t * NS_PER_MS for t in at)
    assert skew_ns(streams, np.array(times)).tolist() == obvious(streams, times)


@settings(deadline=None)  # the first example compiles
@given(receipts, receipts, st.lists(st.integers(0, 200_000), min_size=1, max_size=10))
def test_one_receipt_at_a_time_gives_the_same_d(
    one: list[tuple[int, int]], two: list[tuple[int, int]], at: list[int]
) -> None:
    streams, times = [stream(one), stream(two)], sorted(t * NS_PER_MS for t in at)
    window = SkewWindow(2)
    rows = sorted(
        (int(r), k, int(e)) for k, (recv, exch) in enumerate(streams) for r, e in zip(recv, exch, strict=True)
    )
    found = []
    for t in times:
        while rows and rows[0][0] < t:
            recv, k, exch = rows.pop(0)
            window.push(k, recv, exch)
        found.append(window.at(t))
    assert found == skew_ns(streams, np.array(times)).tolist()


def test_a_percentile_of_many_passes_over_a_lone_outlier() -> None:
    recv = np.arange(200) * 100 * NS_PER_MS
    exch = recv - 5 * NS_PER_MS
    exch[50] = recv[50] + NS_PER_S  # one frame from the future
    assert skew_ns([(recv, exch)], np.array([20 * NS_PER_S])).tolist() == [5 * NS_PER_MS]


def test_d_does_not_look_ahead() -> None:
    rng = np.random.default_rng(3)
    recv = np.sort(rng.integers(0, 120 * NS_PER_S, 2_000))
    exch = recv - rng.integers(0, NS_PER_S, recv.size)
    times = np.arange(1, 120) * NS_PER_S
    cut = recv < times[60]
    whole, past = skew_ns([(recv, exch)], times), skew_ns([(recv[cut], exch[cut])], times)
    np.testing.assert_array_equal(whole[:61], past[:61])


def test_recorded_usdm_clocks_run_more_than_a_second_behind_the_venue(market_data: Path) -> None:
    recv, exch = [], []
    with zstandard.open(market_data / "raw" / "binance_20240808" / "usdm_btcusdt.jsonl.zst", "rt") as lines:
        for line, _ in zip(lines, range(5_000), strict=False):
            row = json.loads(line)
            event = json.loads(row["frame"]).get("data", {})
            if event.get("e") == "trade":
                recv.append(row["recv_ns"])
                exch.append(event["T"] * NS_PER_MS)
    d = skew_ns([(np.array(recv), np.array(exch))], np.array([recv[-1] + 1]))[0]
    assert d == pytest.approx(-1.271 * NS_PER_S, abs=20 * NS_PER_MS)
