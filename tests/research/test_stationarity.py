"""The unit root test against published critical values and its own size and power; the least order of difference."""

import numpy as np
import pytest

from research.fitting.stationarity import adf_critical, adf_statistic, is_stationary, least_order


def test_critical_values_are_those_of_the_published_tables() -> None:
    """MacKinnon 2010 in the limit; Fuller 1976, table 8.5.2, constant, 5 %: n = 100 and 500."""
    assert adf_critical(10**9) == pytest.approx(-2.86154, abs=1e-5)
    assert adf_critical(100) == pytest.approx(-2.89, abs=0.005)
    assert adf_critical(500) == pytest.approx(-2.87, abs=0.005)


def test_the_statistic_is_that_of_statsmodels() -> None:
    """statsmodels 0.15.0, adfuller(y, maxlag=1, regression="c", autolag=None); benchmarks/reference_indicators.py."""
    y = np.sin(np.arange(200.0) ** 1.1) + 0.01 * np.arange(200.0)
    assert adf_statistic(y) == pytest.approx(-11.15036156041268, rel=1e-9)


def test_a_random_walk_is_found_stationary_as_often_as_the_test_says() -> None:
    rng = np.random.default_rng(3)
    rejected = sum(is_stationary(rng.normal(size=400).cumsum()) for _ in range(400))
    assert 400 * 0.05 - 3 * 4.4 < rejected < 400 * 0.05 + 3 * 4.4


def test_a_series_that_returns_to_its_mean_is_found_stationary() -> None:
    rng = np.random.default_rng(4)
    y = np.zeros(1000)
    for k in range(1, 1000):
        y[k] = 0.9 * y[k - 1] + rng.normal()
    assert is_stationary(y)
    assert is_stationary(1e9 + y)  # the level cancels


def test_the_least_order_is_the_first_at_which_every_symbol_passes() -> None:
    rng = np.random.default_rng(5)
    noise, walk = rng.normal(size=500), rng.normal(size=500).cumsum()
    easy, hard = np.column_stack([noise, noise, noise]), np.column_stack([walk, walk, noise])
    easy[:20] = np.nan
    assert least_order((0.0, 0.5, 1.0), [easy]) == 0.0
    assert least_order((0.0, 0.5, 1.0), [easy, hard]) == 1.0
    assert least_order((0.0, 0.5), [easy[:, :2], hard[:, :2]]) is None


def test_a_constant_has_no_statistic() -> None:
    with pytest.raises(ValueError, match="6 values that differ"):
        adf_statistic(np.full(100, 3.0))
