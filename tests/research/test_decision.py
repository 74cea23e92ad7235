"""The decision rule by hand, its symmetry, and Platt's calibration against scipy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit

from research.learning.decision import Calibration, decide, fit_calibration, log_odds, probability_up, sides

FAIR = Calibration(0.0, 1.0)


def test_both_the_probability_and_the_edge_are_needed() -> None:
    scores = np.array([0.5, 2.0, 3.0, -3.0, -0.5, np.nan, 0.0])
    chance = probability_up(scores[:3], FAIR)
    np.testing.assert_allclose(chance, expit(scores[:3]))
    np.testing.assert_array_equal(decide(scores, FAIR, 0.6, 1.0), [0, 1, 1, -1, 0, 0, 0])
    np.testing.assert_array_equal(decide(scores, FAIR, 0.9, 1.0), [0, 0, 1, -1, 0, 0, 0])
    np.testing.assert_array_equal(decide(scores, FAIR, 0.6, 2.5), [0, 0, 1, -1, 0, 0, 0])


def test_at_a_half_and_no_edge_a_score_of_zero_is_no_order() -> None:
    np.testing.assert_array_equal(decide(np.array([0.0, 1e-9, -1e-9]), FAIR, 0.5, 0.0), [0, 1, -1])


def test_the_threshold_itself_passes() -> None:
    odds = np.log(0.7 / 0.3)
    assert sides(np.array([1.0]), np.array([odds]), 0.7, 1.0)[0] == 1


def test_a_biased_calibration_needs_more_on_one_side() -> None:
    bullish, scores = Calibration(0.5, 1.0), np.array([0.2, -0.2, -0.9, -1.0])  # log odds of 0.6 are 0.405
    np.testing.assert_array_equal(decide(scores, bullish, 0.6, 0.0), [1, 0, 0, -1])


@pytest.mark.parametrize(("threshold", "edge"), [(0.49, 0.0), (1.0, 0.0), (0.5, -0.1), (float("nan"), 0.0)])
def test_rules_that_could_buy_and_sell_at_once_are_refused(threshold: float, edge: float) -> None:
    with pytest.raises(ValueError, match="threshold"):
        decide(np.zeros(1), FAIR, threshold, edge)


@given(
    st.lists(st.floats(-50, 50), min_size=1, max_size=20),
    st.floats(0.01, 3.0),
    st.floats(0.5, 0.99),
    st.floats(0.0, 5.0),
)
def test_mirrored_scores_give_mirrored_sides(scores: list[float], b: float, threshold: float, edge: float) -> None:
    calibration, x = Calibration(0.0, b), np.array(scores)
    np.testing.assert_array_equal(decide(-x, calibration, threshold, edge), -decide(x, calibration, threshold, edge))


def test_calibration_is_the_maximum_likelihood_that_scipy_finds() -> None:
    rng = np.random.default_rng(3)
    scores = rng.normal(0.0, 4.0, 4_000)
    returns = np.where(rng.random(4_000) < expit(0.3 + 0.5 * scores), 1.0, -1.0)
    returns[:200] = 0.0
    found = fit_calibration(scores, returns)

    scale = np.sqrt(np.mean(scores**2))
    up = 0.5 * (1.0 + np.sign(returns))

    def loss(w: np.ndarray) -> float:
        odds = w[0] + w[1] * scores / scale
        return float(np.sum(np.logaddexp(0.0, odds) - up * odds) + 0.5 * w @ w)

    best = minimize(loss, np.zeros(2), tol=1e-12).x
    assert found.a == pytest.approx(best[0], abs=1e-5)
    assert found.b == pytest.approx(best[1] / scale, abs=1e-5)
    assert 0.4 < found.b < 0.55


def test_separable_constant_and_empty_scores_stay_finite() -> None:
    split = fit_calibration(np.array([-1.0, -2.0, 1.0, 2.0] * 50), np.array([-1.0, -1.0, 1.0, 1.0] * 50))
    assert 0.0 < split.b < 100.0
    assert fit_calibration(np.zeros(10), np.ones(10)) == Calibration(0.0, 0.0)
    assert fit_calibration(np.full(10, np.nan), np.ones(10)) == Calibration(0.0, 0.0)
    level = fit_calibration(np.ones(300), np.r_[np.ones(200), -np.ones(100)])
    np.testing.assert_allclose(expit(log_odds(np.ones(1), level)), 2 / 3, atol=0.01)
