"""The filter of two regimes is Bayes' rule; its fit finds planted ones, and odd observations do no harm."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from research.language import compile_features
from research.machine.hmm import Regimes, _expect, _maximise, fit_regimes
from tests.research.feature_programs import SEEDS

Floats = NDArray[np.float64]
NAN = np.nan


def simulated(seed: int, n: int, truth: Regimes) -> tuple[Floats, NDArray[np.int64]]:
    rng, state = np.random.default_rng(seed), np.zeros(n, np.int64)
    leaves = rng.random(n) > np.array(truth.stay)[:, None]
    for k in range(1, n):
        state[k] = state[k - 1] ^ leaves[state[k - 1], k]
    return rng.normal(np.array(truth.mean)[state], np.array(truth.sd)[state]), state


def begins_at(n: int, *rows: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(n), (0, *rows))


TRUTH = Regimes((-0.5, 1.0), (0.6, 0.9), (0.98, 0.95))


def test_planted_regimes_are_found_and_told_apart_forward_only() -> None:
    x, state = simulated(1, 40_000, TRUTH)
    found = fit_regimes(x, begins_at(x.size))
    for name in ("mean", "sd", "stay"):
        np.testing.assert_allclose(getattr(found, name), getattr(TRUTH, name), atol=0.02, err_msg=name)
    p = compile_features({"p": found.text("x")}, ["x"]).evaluate(x[:, None])[:, 0]
    assert np.mean((p > 0.5) == state) > 0.9
    for low in (0.1, 0.5, 0.8):  # the probability means what it says
        rows = (p > low) & (p < low + 0.1)
        assert state[rows].mean() == pytest.approx(p[rows].mean(), abs=0.08)


def test_the_likelihood_never_falls_from_round_to_round() -> None:
    x, _ = simulated(2, 3000, TRUTH)
    model, before = Regimes((0.0, 0.1), (1.0, 1.0), (0.5, 0.5)), -np.inf
    for _ in range(30):
        moves, sums, after = _expect(x, begins_at(x.size, 1000), np.array([model.mean, model.sd, model.stay]))
        assert after >= before - 1e-7 * abs(after)  # beginnings hang on `stay` too, which the step leaves out
        assert sums[:, 0].sum() == pytest.approx(x.size)
        assert moves.sum() == pytest.approx(x.size - 2)  # none across the two beginnings
        model, before = _maximise(moves, sums, float(x.std())), after


def test_the_likelihood_is_that_of_all_paths() -> None:
    """By the plain recursion over both states, unscaled."""
    x, _ = simulated(3, 12, TRUTH)
    stay_0, stay_1 = TRUTH.stay
    move = np.array([[stay_0, 1 - stay_0], [1 - stay_1, stay_1]])
    density = [
        np.exp(-0.5 * ((v - TRUTH.mean) / np.array(TRUTH.sd)) ** 2) / np.array(TRUTH.sd) / np.sqrt(2 * np.pi) for v in x
    ]
    alpha = np.array([1 - stay_1, 1 - stay_0]) / (2 - stay_0 - stay_1) * density[0]
    for each in density[1:]:
        alpha = alpha @ move * each
    got = _expect(x, begins_at(12), np.array([TRUTH.mean, TRUTH.sd, TRUTH.stay]))[2]
    assert got == pytest.approx(np.log(alpha.sum()), rel=1e-12)


def test_missing_and_repeated_observations_do_no_harm() -> None:
    x, _ = simulated(4, 20_000, TRUTH)
    x[::7] = np.nan
    found = fit_regimes(x, begins_at(x.size, 9000))
    np.testing.assert_allclose(found.mean, TRUTH.mean, atol=0.05)
    spiked = np.where(np.arange(x.size) % 3 == 0, -3.0, x)  # one value a third of the time: a state of no width
    assert min(fit_regimes(spiked, begins_at(x.size)).sd) > 0.0


def test_too_few_different_observations_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 different observations"):
        fit_regimes(np.tile([0.0, 1.0], 500), begins_at(1000))


@given(SEEDS, st.floats(0.01, 0.999), st.floats(0.01, 0.999))
@settings(max_examples=15, deadline=None)
def test_the_regime_filter_is_bayes_rule_over_all_paths_so_far(seed: int, stay_0: float, stay_1: float) -> None:
    """Against the sum over every path of the two states, of which there are 2^n."""
    odds = np.random.default_rng(seed).normal(0.0, 3.0, 9)
    odds[4] = NAN
    got = compile_features({"f": f"(hmm x {stay_0!r} {stay_1!r})"}, ["x"]).evaluate(odds[:, None])[:, 0]
    leave_0, leave_1 = 1 - stay_0, 1 - stay_1
    move = np.array([[stay_0, leave_0], [leave_1, stay_1]])
    for n in range(1, 10):
        weight = np.zeros(2)
        for path in itertools.product((0, 1), repeat=n):
            chance = (leave_0 if path[0] else leave_1) / (leave_0 + leave_1)
            chance *= np.prod([move[a, b] for a, b in itertools.pairwise(path)])
            weight[path[-1]] += chance * np.exp(np.nansum(odds[:n] * np.array(path)))
        wanted = NAN if np.isnan(odds[n - 1]) else weight[1] / weight.sum()
        np.testing.assert_allclose(got[n - 1], wanted, rtol=1e-9, atol=1e-12)


def test_the_regime_filter_survives_whatever_comes_and_finds_its_way_back() -> None:
    for stay_0, stay_1 in ((0.999999, 0.999999), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0)):
        x = np.concatenate([np.full(100_000, 1e300), np.full(100_000, -1e300), np.zeros(50), np.full(50, -5.0)])
        got = compile_features({"f": f"(hmm x {stay_0} {stay_1})"}, ["x"]).evaluate(x[:, None])[:, 0]
        assert ((got >= 0.0) & (got <= 1.0)).all()
        if stay_0 == 0.999999:
            np.testing.assert_array_equal(got[[99_999, 199_999]], [1.0, 0.0])
            assert got[100_000] == 0.0
