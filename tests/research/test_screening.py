"""The screen's t by hand, and what it is for: slow features that drift with the return by chance do not pass."""

import numpy as np

from research.learning.screening import covariance_t, screened


def test_block_t_equals_a_slow_computation() -> None:
    rng = np.random.default_rng(1)
    x, y, weights = rng.normal(size=(60, 3)).astype(np.float32), rng.normal(size=60), rng.uniform(1, 5, 60)
    block = np.repeat(np.arange(6), 10)
    mean_y = np.average(y, weights=weights)
    for column, found in enumerate(covariance_t(x, y, weights, block)):
        values = x[:, column].astype(float)
        mean = np.average(values, weights=weights)
        scaled = (values - mean) / np.sqrt(np.average((values - mean) ** 2, weights=weights))
        sums = [float(np.sum((weights * scaled * (y - mean_y))[block == each])) for each in range(6)]
        np.testing.assert_allclose(found, np.sum(sums) / np.sqrt(np.sum(np.square(sums))), rtol=1e-5)


def test_a_fast_signal_passes_before_slow_features_that_drift_along() -> None:
    rng, n = np.random.default_rng(2), 6_000
    shocks = rng.normal(size=n + 60)
    y = np.convolve(shocks, np.ones(60), "valid")[:n]  # overlapping holds of 60 rows
    slow = np.cumsum(rng.normal(size=(n, 30)), axis=0)
    fast = rng.normal(size=n) + 0.05 * y
    x = np.column_stack([slow, fast]).astype(np.float32)
    assert 30 in screened(x, y, np.ones(n), np.arange(n) // 120, 5).kept


def test_constant_and_unknown_features_come_last_and_few_features_all_pass() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(100, 3)).astype(np.float32)
    x[:, 0], x[5, 1] = 7.0, np.nan
    t = covariance_t(x, rng.normal(size=100), np.ones(100), np.arange(100) // 10)
    assert t[0] == 0.0
    assert t[1] == 0.0
    assert t[2] != 0.0
    assert list(screened(x, np.zeros(100), np.ones(100), np.zeros(100, np.int64), 5).kept) == [0, 1, 2]
