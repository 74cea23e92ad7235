"""Intervals and deflation by hand, against scipy, and by coverage on overlapping trades."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, ttest_1samp
from scipy.stats import t as student

from core.units import NS_PER_MINUTE, NS_PER_S
from research.learning import inference


def at_seconds(seconds: np.ndarray) -> np.ndarray:
    return (np.asarray(seconds) * NS_PER_S).astype(np.int64)


def test_one_trade_per_block_is_a_plain_t_test() -> None:
    net = np.random.default_rng(1).normal(1.0, 3.0, 40)
    found = inference.ratio_of_sums(at_seconds(np.arange(40) * 600.0 + 5.0), net, 600.0)
    assert found is not None
    plain = ttest_1samp(net, 0.0)
    low, high = plain.confidence_interval(0.95)
    np.testing.assert_allclose(found[:4], [net.mean(), plain.statistic, low, high], rtol=1e-12)
    assert norm.sf(found.z) == pytest.approx(student.sf(plain.statistic, 39))


def test_ten_blocks_by_hand() -> None:
    # Two trades in even blocks, one in odd ones: mean = (5 * 4 + 5 * 0) / 15.
    seconds = np.sort(np.r_[np.arange(10) * 600.0, np.arange(0, 10, 2) * 600.0 + 1.0])
    net = np.where((seconds // 600) % 2 == 0, 2.0, 0.0)
    found = inference.ratio_of_sums(at_seconds(seconds), net, 600.0)
    assert found is not None
    mean = 20 / 15
    error = math.sqrt(10 / 9 * (5 * (4 - 2 * mean) ** 2 + 5 * (0 - mean) ** 2)) / 15
    assert (found.mean, found.n_blocks) == (pytest.approx(mean), 10)
    assert found.t == pytest.approx(mean / error)


def test_nine_blocks_no_variation_and_no_trades_give_no_interval() -> None:
    nine = at_seconds(np.arange(9) * 600.0)
    assert inference.ratio_of_sums(nine, np.arange(9.0), 600.0) is None
    assert inference.ratio_of_sums(at_seconds(np.arange(20) * 600.0), np.full(20, 0.1), 600.0) is None
    assert inference.ratio_of_sums(nine[:0], np.zeros(0), 600.0) is None


def test_block_length_has_a_floor_of_ten_minutes() -> None:
    assert inference.block_s(20.0) == 600.0
    assert inference.block_s(930.0) == 1860.0


def test_the_interval_covers_where_trades_overlap_and_repeat_on_two_venues() -> None:
    rng, covered, runs = np.random.default_rng(5), 0, 300
    for _ in range(runs):
        shocks = rng.normal(0.0, 1.0, 16_000)
        held = np.convolve(shocks, np.ones(60), "valid")[:14_400:5]  # a hold of 60 s decided every 5 s
        start = np.repeat(at_seconds(np.arange(held.size) * 5.0), 2)
        found = inference.ratio_of_sums(start, np.repeat(held, 2), 600.0)
        assert found is not None
        covered += found.low <= 0.0 <= found.high
    assert 0.90 <= covered / runs <= 0.985  # the naive interval covers a third of the time


def test_joint_z_weighs_by_the_square_root_of_trades() -> None:
    assert inference.joint_z([(2.0, 100), (2.0, 100)]) == pytest.approx(2.0 * math.sqrt(2.0))
    assert inference.joint_z([(3.0, 400), (0.0, 100)]) == pytest.approx(3.0 * 20.0 / math.sqrt(500.0))


@given(st.floats(-60.0, 60.0), st.integers(2, 400))
def test_z_of_t_is_odd_finite_and_never_beyond_t(t: float, degrees: int) -> None:
    z = inference.z_of_t(t, degrees)
    assert math.isfinite(z)
    assert abs(z) <= abs(t) + 1e-6
    assert inference.z_of_t(-t, degrees) == pytest.approx(-z)


@pytest.mark.parametrize(("n", "expected"), [(1, 0.0), (45, 2.24), (10**3, 3.26), (10**4, 3.86), (10**6, 4.87)])
def test_expected_maximum_has_the_values_of_the_method(n: int, expected: float) -> None:
    assert inference.expected_max_z(n) == pytest.approx(expected, abs=0.005)


def test_expected_maximum_is_what_simulation_gives() -> None:
    drawn = np.random.default_rng(2).normal(size=(4_000, 200)).max(axis=1).mean()
    assert inference.expected_max_z(200) == pytest.approx(drawn, abs=0.05)


def test_minutes_without_trades_count_as_zero() -> None:
    start = at_seconds(np.array([30.0, 59.0, 185.0]))
    series = inference.minute_series(start, np.array([1.0, 2.0, 4.0]), [(0, 4 * NS_PER_MINUTE)])
    np.testing.assert_array_equal(series, [3.0, 0.0, 0.0, 4.0, 0.0])
    both = inference.minute_series(start, np.ones(3), [(0, NS_PER_MINUTE - 1), (3 * NS_PER_MINUTE, 3 * NS_PER_MINUTE)])
    np.testing.assert_array_equal(both, [2.0, 0.0])


def test_effective_length_falls_with_positive_autocorrelation_only() -> None:
    noise = np.random.default_rng(4).normal(size=20_000)
    smooth = np.convolve(noise, np.ones(3) / 3.0, "valid")
    assert inference.effective_length(noise, 5) == pytest.approx(20_000, rel=0.06)
    assert inference.effective_length(smooth, 30) == pytest.approx(20_000 / 3.0, rel=0.15)
    assert inference.effective_length(np.diff(noise), 5) == noise.size - 1


def test_deflated_sharpe_of_normal_returns_is_the_probabilistic_one_against_the_benchmark() -> None:
    series = np.random.default_rng(6).normal(0.12, 1.0, 2_000)
    ratio = series.mean() / series.std(ddof=1)
    alone = inference.deflated_sharpe(series, 1)
    of_many = inference.deflated_sharpe(series, 1_000)
    assert alone == pytest.approx(norm.cdf(ratio * math.sqrt(1_999)), abs=1e-3)
    benchmark = inference.expected_max_z(1_000) / math.sqrt(2_000)
    assert of_many == pytest.approx(norm.cdf((ratio - benchmark) * math.sqrt(1_999)), abs=0.02)
    assert of_many < alone


def test_a_best_of_many_without_skill_rarely_passes() -> None:
    rng, passed = np.random.default_rng(7), 0
    for _ in range(200):
        tried = rng.normal(0.0, 1.0, (100, 400))
        best = tried[np.argmax(tried.mean(axis=1) / tried.std(axis=1))]
        value = inference.deflated_sharpe(best, 100)
        passed += value is not None and value >= 0.95
    assert passed <= 6


def test_constant_and_short_series_have_no_sharpe() -> None:
    assert inference.deflated_sharpe(np.zeros(100), 10) is None
    assert inference.deflated_sharpe(np.array([1.0, 2.0]), 10) is None
