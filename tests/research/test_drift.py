"""Population stability index."""

import numpy as np
import pytest

from research.quality.drift import ROWS, alike, psi

RANDOM = np.random.default_rng(3)
NORMAL = RANDOM.normal(size=20_000)


def test_a_sample_of_the_same_distribution_is_stable() -> None:
    value = psi(NORMAL, RANDOM.normal(size=20_000))
    assert value is not None
    assert value < 0.01


def test_two_bins_by_hand() -> None:
    reference, sample = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.0, 1.0, 1.0, 1.0])
    expected = (0.25 - 0.5) * np.log(0.25 / 0.5) + (0.75 - 0.5) * np.log(0.75 / 0.5)
    assert psi(reference, sample, bins=2) == pytest.approx(expected)


def test_a_shift_of_half_a_deviation_is_seen() -> None:
    value = psi(NORMAL, NORMAL + 0.5)
    assert value is not None
    assert 0.2 < value < 0.4


def test_a_constant_feature_is_stable_until_it_moves() -> None:
    constant = np.zeros(100)
    assert psi(constant, np.zeros(50)) == 0.0
    moved = psi(constant, np.ones(50))
    assert moved is not None
    assert moved > 1


def test_nothing_to_compare_is_unknown() -> None:
    assert psi(np.empty(0), NORMAL) is None
    assert psi(NORMAL, np.empty(0)) is None


def test_rows_are_alike_when_each_symbol_has_its_share_of_the_sample() -> None:
    rows, symbol = np.arange(3_000) * 2, np.repeat([0, 1, 2], [1_000, 1_900, 100])
    for sample, shares in (
        (np.repeat([1], 50), [0.0, 1.0, 0.0]),
        (np.repeat([0, 1], [30, 10]), [0.75, 0.25, 0.0]),
        (np.repeat([1, 2], [10, 30]), [0.0, 0.25, 0.75]),
        (np.repeat([0, 7], [1, 99]), [1.0, 0.0, 0.0]),
    ):
        got = symbol[alike(rows, symbol, sample) // 2]
        assert np.bincount(got, minlength=3) / got.size == pytest.approx(shares, abs=1e-3)
    assert alike(rows, symbol, np.array([7])).size == 0
    assert alike(np.arange(100_000), np.zeros(100_000, np.int64), np.array([0])).size == ROWS
