"""Latency counts: quantiles against NumPy's, whatever the clock."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.latency import LatencyCounts, least_ns, quantiles_ns

MS = 1_000_000


def counts_of(*batches: list[int]) -> LatencyCounts:
    counts = LatencyCounts()
    for batch in batches:
        counts.add(np.array(batch, np.int64))
    return counts


@given(
    st.lists(st.integers(0, 60_000 * MS), min_size=1, max_size=200),
    st.integers(-5_000 * MS, 5_000 * MS),
    st.sampled_from([0.0, 0.5, 0.9, 0.99, 1.0]),
)
def test_quantiles_are_within_a_bin_of_the_exact_ones_for_any_skew(
    excess_ns: list[int], skew_ns: int, probability: float
) -> None:
    latencies = np.array(excess_ns, np.int64) + skew_ns
    found = quantiles_ns([counts_of(latencies.tolist())], [probability])
    assert found is not None
    exact = np.quantile(latencies, probability, method="inverted_cdf")
    assert abs(found[0] - exact) <= 0.045 * (exact - latencies.min()) + 1_000


def test_what_is_below_the_first_base_is_counted_too() -> None:
    counts = counts_of([10 * MS], [4 * MS, 5 * MS, 6 * MS])
    found = quantiles_ns([counts], [0.25, 1.0])
    assert found == pytest.approx([4 * MS, 10 * MS], rel=0.1)
    assert counts.least_ns == 4 * MS


def test_counts_of_several_streams_are_one_distribution() -> None:
    fast, slow = counts_of([1 * MS] * 99), counts_of([-500 * MS] * 1)
    found = quantiles_ns([fast, slow], [0.01, 0.5])
    assert found == pytest.approx([-500 * MS, 1 * MS])
    assert least_ns([fast, slow, LatencyCounts()]) == -500 * MS


def test_no_message_has_no_quantile() -> None:
    assert quantiles_ns([], [0.5]) is None
    assert quantiles_ns([counts_of([])], [0.5]) is None
    assert least_ns([LatencyCounts()]) is None
