"""The figures of one stream, by hand and against plain computations, whatever the slices."""

import itertools
import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.schema import TOP_OF_BOOK
from core.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_MS, NS_PER_S
from ingest import stream_quality
from ingest.stream_quality import DelayHistogram, StreamTally, drift_ms_per_hour, merged, slices_of, windows_of

DAY_NS = 20_000 * 24 * NS_PER_HOUR


def rows_of(recv_ns: list[int], exch_ns: list[int], ids: list[int] | None = None) -> pl.DataFrame:
    count = len(recv_ns)
    frame = pl.DataFrame({"recv_ns": recv_ns, "exch_ns": exch_ns, "update_id": ids or list(range(1, count + 1))})
    prices = {"bid_price": 1.0, "bid_qty": 1.0, "ask_price": 2.0, "ask_qty": 1.0}
    return frame.with_columns(**prices, recv_assumed=False, exch_assumed=False)


def tallied(frame: pl.DataFrame, slice_rows: int, monkeypatch: pytest.MonkeyPatch | None = None) -> StreamTally:
    """A tally of a frame that is read in slices of about so many rows."""
    times = frame["recv_ns"].to_numpy()
    minutes, counts = np.unique(times // NS_PER_MINUTE, return_counts=True)
    minutes = minutes * NS_PER_MINUTE
    tally = StreamTally(TOP_OF_BOOK.name, 10 * NS_PER_S, int(times[0]))
    before, stream_quality.SLICE_ROWS = stream_quality.SLICE_ROWS, slice_rows  # type: ignore[misc]
    try:
        groups = slices_of(windows_of(minutes, counts), minutes, counts)
    finally:
        stream_quality.SLICE_ROWS = before  # type: ignore[misc]
    for windows in groups:
        tally.add(frame.filter(pl.col("recv_ns").is_between(windows[0][0], windows[-1][1], closed="left")), windows)
    return tally


def noisy(hours: float, skew_ms: float = -1_270.0, drift: float = 0.0, seed: int = 1) -> pl.DataFrame:
    """10 rows a second, delays 1 ms + exponential of 4 ms beyond a skew that drifts by `drift` ms an hour."""
    random = np.random.default_rng(seed)
    exch_ns = DAY_NS + np.arange(int(hours * 36_000)) * (NS_PER_S // 10)
    delay_ms = skew_ms + drift * (exch_ns - DAY_NS) / NS_PER_HOUR + 1.0 + random.exponential(4.0, exch_ns.size)
    recv_ns = np.sort(exch_ns + (delay_ms * NS_PER_MS).astype(np.int64))
    return rows_of(recv_ns.tolist(), exch_ns.tolist())


def test_skew_drift_and_latency_are_those_that_were_put_in() -> None:
    timing = tallied(noisy(2.0, drift=3.0), 10_000).timing()
    assert timing["skew_ms"] == pytest.approx(-1_270 + 1 + 3, abs=0.2)
    assert timing["drift_ms_per_hour"] == pytest.approx(3.0, abs=0.1)
    assert timing["latency_p50_ms"] == pytest.approx(4 * math.log(2), abs=0.15)
    assert timing["latency_p99_ms"] == pytest.approx(4 * math.log(100), rel=0.05)


def test_a_step_of_the_clock_does_not_pass_for_drift() -> None:
    frame = noisy(2.0)
    stepped = frame.with_columns(pl.col("recv_ns") + (pl.int_range(pl.len()) > pl.len() * 0.9) * 2 * NS_PER_S)
    drift = tallied(stepped.sort("recv_ns"), 10_000).timing()["drift_ms_per_hour"]
    assert drift == pytest.approx(0.0, abs=0.5)


def test_ten_minutes_are_needed_for_a_drift() -> None:
    times = [minute * NS_PER_MINUTE for minute in range(10)]
    assert drift_ms_per_hour(times, [0.0] * 10) is None
    assert drift_ms_per_hour([*times, 10 * NS_PER_MINUTE], [0.0] * 11) == 0.0


def test_figures_do_not_depend_on_the_slices() -> None:
    frame = noisy(0.5)
    whole, sliced = tallied(frame, 10**9), tallied(frame, 700)
    assert whole.timing() == sliced.timing()
    assert (whole.rows, whole.silences, whole.ascending) == (sliced.rows, sliced.silences, sliced.ascending)
    assert np.array_equal(whole.delays.counts, sliced.delays.counts)


def test_silences_are_found_within_a_slice_between_slices_and_at_both_ends() -> None:
    s = [DAY_NS + at * NS_PER_S for at in (0, 1, 2, 20, 21, 200, 201)]
    frame = rows_of(s, s)
    tally = tallied(frame, 1)
    tally.end(s[-1] + 30 * NS_PER_S)
    assert [(a - DAY_NS, b - DAY_NS) for a, b in tally.silences] == [
        (2 * NS_PER_S, 20 * NS_PER_S),
        (21 * NS_PER_S, 200 * NS_PER_S),
        (201 * NS_PER_S, 231 * NS_PER_S),
    ]
    assert tally.longest_ns == 179 * NS_PER_S


def test_rising_ids_prove_that_nothing_came_twice_and_an_equal_one_does_not() -> None:
    times = [DAY_NS + at * NS_PER_S for at in range(4)]
    assert tallied(rows_of(times, times, [1, 2, 5, 9]), 100).ascending
    assert not tallied(rows_of(times, times, [1, 2, 2, 9]), 100).ascending


def test_rows_that_are_late_by_the_venues_clock_are_counted() -> None:
    recv = [DAY_NS + at * NS_PER_S for at in range(5)]
    exch = [DAY_NS + at * NS_PER_S for at in (0, 3, 2, 3, 4)]
    assert tallied(rows_of(recv, exch), 100).timing()["out_of_order_frac"] == 1 / 5


@given(st.lists(st.floats(1e-6, 1e4), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_quantiles_of_the_histogram_are_those_of_the_values(delays_s: list[float], share: float) -> None:
    histogram = DelayHistogram()
    histogram.add(np.array(delays_s) * 1e9)
    exact = np.sort(delays_s)[math.ceil(share * len(delays_s)) - 1] * 1e9
    assert histogram.quantile_ns(share) == pytest.approx(exact, rel=0.006)


intervals = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=8)


@given(intervals)
def test_merged_intervals_cover_the_same_instants(found: list[tuple[int, int]]) -> None:
    joined = merged(found, (5, 40))
    inside = {at for a, b in found for at in range(max(a, 5), min(b, 40))}
    assert {at for a, b in joined for at in range(a, b)} == inside
    assert all(before[1] < after[0] for before, after in itertools.pairwise(joined))


@given(
    st.lists(st.tuples(st.integers(0, 600), st.integers(1, 2_000)), min_size=1, max_size=60, unique_by=lambda m: m[0])
)
def test_every_row_is_in_one_window_and_only_a_short_day_has_few_in_one(minutes: list[tuple[int, int]]) -> None:
    ordered = sorted(minutes)
    starts = np.array([DAY_NS + minute * NS_PER_MINUTE for minute, _ in ordered])
    counts = np.array([count for _, count in ordered])
    windows = windows_of(starts, counts)
    held = [int(counts[(starts >= a) & (starts < b)].sum()) for a, b in windows]
    assert sum(held) == counts.sum()
    assert len(held) == 1 or min(held) >= stream_quality.WINDOW_ROWS
    assert [window for group in slices_of(windows, starts, counts) for window in group] == windows
