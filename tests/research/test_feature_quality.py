"""What a feature is worth: ranges, redundancy, information coefficients."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from core.units import NS_PER_S
from research.quality.feature_quality import (
    clusters,
    coefficients,
    correlations,
    inside_blocks,
    range_of,
    rank_scores,
    with_false_discovery,
)

ONE = np.zeros(4_000, np.int64)


def test_the_range_knows_zeros_and_ties() -> None:
    found = range_of(np.array([0.0, 0.0, 0.0, 4.0]))
    assert found is not None
    assert (found.least, found.most, found.median, found.mean) == (0.0, 4.0, 0.0, 1.0)
    assert found.zero_frac == found.tied_frac == 0.75
    assert range_of(np.empty(0)) is None


def test_correlations_are_spearmans() -> None:
    random = np.random.default_rng(1)
    x = np.exp(random.standard_normal((4_000, 3)) @ [[1.0, 0.8, 0.0], [0.0, 0.6, 0.0], [0.0, 0.0, 1.0]])
    wanted = spearmanr(x).statistic
    assert np.abs(correlations(rank_scores(x, ONE)) - wanted).max() < 1e-5


def test_a_level_that_differs_between_symbols_is_no_correlation() -> None:
    random = np.random.default_rng(2)
    symbol = np.repeat([0, 1], 2_000)
    x = random.standard_normal((4_000, 2)) + 100.0 * symbol[:, None]
    assert abs(correlations(rank_scores(x, symbol))[0, 1]) < 0.06


def test_a_constant_feature_correlates_with_nothing() -> None:
    x = np.random.default_rng(3).standard_normal((4_000, 2))
    x[:, 1] = 0.1
    assert correlations(rank_scores(x, ONE)).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_clusters_hold_only_features_that_all_say_the_same() -> None:
    rho = np.eye(5)
    for one, other, value in ((0, 1, 0.9), (1, 2, -0.8), (0, 2, -0.75), (2, 3, 0.72), (0, 3, 0.2), (1, 3, 0.2)):
        rho[one, other] = rho[other, one] = value
    assert clusters(rho) == [[0, 1, 2]]
    assert clusters(np.eye(1)) == clusters(np.eye(3)) == []


def test_a_pair_at_the_limit_is_no_cluster() -> None:
    rho = np.array([[1.0, 0.7], [0.7, 1.0]])
    assert clusters(rho) == []
    assert clusters(rho + np.array([[0.0, 1e-6], [1e-6, 0.0]])) == [[0, 1]]


def test_rows_that_end_in_another_block_are_purged() -> None:
    start_ns = np.array([0, 599, 600, 1_190]) * NS_PER_S
    assert inside_blocks(start_ns, start_ns + 10 * NS_PER_S, 600.0).tolist() == [True, False, True, False]


def test_the_coefficient_of_a_planted_feature_is_that_of_scipy_and_noise_is_near_zero() -> None:
    random = np.random.default_rng(4)
    n = 20_000
    x = random.standard_normal((n, 2)).astype(np.float32)
    forward = 0.1 * x[:, 0] + random.standard_normal(n)
    start_ns = np.arange(n) * NS_PER_S
    end_ns = start_ns + 1  # nothing to purge
    symbol = np.zeros(n, np.int64)
    planted, noise = coefficients(rank_scores(x, symbol), forward, start_ns, end_ns, symbol, 1.0)
    assert planted.ic is not None
    assert planted.z is not None
    assert noise.z is not None
    assert planted.ic == pytest.approx(spearmanr(x[:, 0], forward).statistic, abs=1e-4)
    assert planted.z > 5.0 > 4.0 > abs(noise.z)
    assert planted.n_blocks == noise.n_blocks == 34


def test_a_persistent_feature_on_overlapping_returns_is_not_called_significant_too_often() -> None:
    """The naive t of overlapping returns rejects most nulls at 5 %; disjoint blocks keep to about 5 %."""
    rejected, n, horizon = 0, 7_200, 60
    for seed in range(40):
        random = np.random.default_rng(seed)
        price = np.cumsum(random.standard_normal(n + horizon))
        x = np.convolve(random.standard_normal(n + 599), np.ones(600), "valid")[:, None]
        start_ns = np.arange(n) * NS_PER_S
        symbol = np.zeros(n, np.int64)
        forward = price[horizon:] - price[:n]
        (found,) = coefficients(
            rank_scores(x, symbol), forward, start_ns, start_ns + horizon * NS_PER_S, symbol, float(horizon)
        )
        assert found.z is not None
        rejected += abs(found.z) > 1.96
    assert rejected <= 7


def test_few_blocks_and_constant_features_have_no_coefficient() -> None:
    n = 3_000
    random = np.random.default_rng(5)
    start_ns, symbol = np.arange(n) * NS_PER_S, np.zeros(n, np.int64)
    short = coefficients(rank_scores(random.random((n, 1)), symbol), random.random(n), start_ns, start_ns, symbol, 1.0)
    assert [(each.ic, each.n_blocks) for each in short] == [(None, 5)]
    start_ns *= 10
    flat = coefficients(rank_scores(np.ones((n, 1)), symbol), random.random(n), start_ns, start_ns, symbol, 1.0)
    assert [each.ic for each in flat] == [None]


def test_the_false_discovery_rate_counts_all_that_was_looked_at() -> None:
    random = np.random.default_rng(6)
    n, k = 20_000, 40
    x = random.standard_normal((n, k)).astype(np.float32)
    start_ns, symbol = np.arange(n) * NS_PER_S, np.zeros(n, np.int64)
    forward = 0.1 * x[:, 0] + random.standard_normal(n)
    table = [[each] for each in coefficients(rank_scores(x, symbol), forward, start_ns, start_ns, symbol, 1.0)]
    judged = [row[0] for row in with_false_discovery(table)]
    assert judged[0].q is not None
    assert judged[0].q < 0.001
    assert sum(each.q is not None and each.q < 0.05 for each in judged) <= 2
