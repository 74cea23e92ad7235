"""Features of shape and regime against scipy, published values and paths whose answer is known."""

import numpy as np
import pytest
import scipy.signal
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from research.catalogue import DEFINITIONS
from research.language import compile_features
from research.sets.fractal import SETS, fractional_bps
from tests.research.feature_programs import SEEDS

Floats = NDArray[np.float64]
TEXTS = {name: feature.text for features in SETS.values() for name, feature in features.items()}


def of_mid(text: str, mid: Floats, bar: str = "200ms") -> Floats:
    """A feature of bars whose prices are all the mid."""
    columns = ("high_price", "low_price", "close_price", "second_of_day", "day")
    seconds = np.arange(mid.size) / 5
    rows = np.column_stack([mid, mid, mid, seconds, np.full(mid.size, 20_000.0)])
    return compile_features({"f": text}, columns, bar, DEFINITIONS).evaluate(rows)[:, 0]


@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_fractals_are_the_extremes_of_scipy_known_a_wing_later(seed: int) -> None:
    mid = 100.0 + np.random.default_rng(seed).normal(size=400).cumsum()
    for name, extremes in (("top", scipy.signal.argrelmax), ("bottom", scipy.signal.argrelmin)):
        for wing_s in (1, 5):
            w = 5 * wing_s
            got = of_mid(f"is_{name}_{wing_s}s", mid)
            found = extremes(mid, order=w)[0]
            found = found[(found >= w) & (found < 400 - w)]  # scipy takes the edges for extremes as well
            np.testing.assert_array_equal(np.flatnonzero(got == 1.0), found + w)


def test_a_top_of_equal_highs_counts_once_from_its_last_bar() -> None:
    mid = np.full(60, 100.0)
    mid[20:23] = 101.0
    assert np.flatnonzero(of_mid("is_top_1s", mid) == 1.0).tolist() == [22 + 5]


def test_the_last_fractal_is_told_by_age_and_distance() -> None:
    mid = np.full(1700, 100.0)
    mid[1600] = 101.0
    age, gap = of_mid(TEXTS["top_age_1s"], mid), of_mid(TEXTS["top_gap_bps_1s"], mid)
    assert age[1604] == pytest.approx(np.log1p(1500))  # none in five minutes
    assert gap[1604] == 0.0
    assert (age[1605], age[1615]) == pytest.approx((0.0, np.log(11)))
    assert gap[1605] == pytest.approx(1e4 * np.log(100 / 101))


def test_wavelet_energies_are_those_of_the_haar_filters_and_add_up() -> None:
    """Against the level j filter of Percival and Walden, written out, and their equation of analysis of variance."""
    x = np.random.default_rng(3).normal(0.0, 1e-4, 1700).cumsum()
    mid = 100.0 * np.exp(x)
    for k in (1, 2, 4, 8, 16, 32, 64):
        filter_k = np.concatenate([np.full(k, 1 / (2 * k)), np.full(k, -1 / (2 * k))])
        wanted = np.convolve(x, filter_k)[: x.size]
        np.testing.assert_allclose(of_mid(f"haar_{k}", mid)[2 * k :], wanted[2 * k :], rtol=0, atol=1e-12)
    shares = np.array([of_mid(TEXTS[f"wavelet_share_{k}"], mid)[-1] for k in (1, 2, 4, 8, 16, 32, 64)])
    assert shares.sum() == pytest.approx(1.0)
    assert (np.diff(shares) > 0).all()  # a random walk's energy lies in its slow scales


def test_a_cycle_shows_at_the_scale_of_its_half_length() -> None:
    mid = 100.0 * np.exp(1e-3 * np.sign(np.sin(np.arange(1700) * np.pi / 16 + 0.1)))
    shares = {k: of_mid(TEXTS[f"wavelet_share_{k}"], mid)[-1] for k in (1, 2, 4, 8, 16, 32, 64)}
    assert max(shares, key=lambda k: shares[k]) == 16


def test_a_straight_path_has_dimension_one_and_a_bouncing_one_two() -> None:
    line, bounce = 100.0 * np.exp(1e-6 * np.arange(1700)), 100.0 + 0.01 * (np.arange(1700) % 2)
    for name, loose in (("katz_300s", 1e-6), ("higuchi_300s", 1e-6)):
        assert of_mid(TEXTS[name], line)[-1] == pytest.approx(1.0, abs=loose)
    assert of_mid(TEXTS["katz_300s"], bounce)[-1] == 2.0
    assert of_mid(TEXTS["higuchi_300s"], np.full(1700, 100.0))[-1] == 1.0
    assert of_mid(TEXTS["katz_300s"], np.full(1700, 100.0))[-1] == 1.0


def test_a_random_walk_has_a_variance_ratio_of_one_and_no_memory() -> None:
    rng = np.random.default_rng(8)
    mid = 100.0 * np.exp(rng.normal(0.0, 1e-4, 200_000).cumsum())
    wanted = {"variance_ratio_1s_300s": 1.0, "variance_ratio_60s_900s": 1.0, "higuchi_300s": 1.5,
              "bar_autocorr_60s": 0.0, "trend_fit_300s": 0.0}  # fmt: skip
    for name, value in wanted.items():
        y = of_mid(TEXTS[name], mid)[6000:]
        assert y.mean() == pytest.approx(value, abs=0.08), name


@given(st.floats(0.05, 0.95), st.floats(1e-3, 1e5))
@settings(max_examples=20, deadline=None)
def test_a_fractional_difference_is_free_of_the_price_level(order: float, level: float) -> None:
    path = np.exp(np.random.default_rng(1).normal(0.0, 1e-4, 400).cumsum())
    text = fractional_bps("60s", order)
    np.testing.assert_allclose(of_mid(text, level * path)[299:], of_mid(text, path)[299:], rtol=0, atol=1e-7)
