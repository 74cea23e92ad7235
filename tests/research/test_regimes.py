"""Planted regimes are found, counted and told apart forward only; what is none is refused with the reason."""

import numpy as np
import pytest
from numpy.typing import NDArray

from research.fitting.regimes import (
    Regimes,
    _begun,
    _expected,
    _maximised,
    choose_regimes,
    fit_regimes,
    overlap_bars,
    regime_features,
)
from research.language import compile_features
from research.programs.expression import parse

Floats = NDArray[np.float64]
COUNTS = (2, 3, 4)


def truth(states: int) -> Regimes:
    """States two deviations apart, of which each goes to the next more often than elsewhere."""
    mean, sd = 2.0 * np.arange(states)[:, None] - 1.0, np.linspace(0.6, 1.0, states)[:, None]
    moves = 0.005 + 0.98 * np.eye(states) + 0.01 * np.roll(np.eye(states), 1, axis=1)
    return Regimes(mean, sd, moves / moves.sum(axis=1, keepdims=True))


def simulated(seed: int, n: int, model: Regimes) -> tuple[Floats, NDArray[np.int64]]:
    rng, state = np.random.default_rng(seed), np.zeros(n, np.int64)
    draws, ends = rng.random(n), model.moves.cumsum(axis=1)
    for k in range(1, n):
        state[k] = min(int(np.searchsorted(ends[state[k - 1]], draws[k])), model.states - 1)
    return rng.normal(model.mean[state], model.sd[state]), state


def begins_at(n: int, *rows: int) -> NDArray[np.bool_]:
    return np.isin(np.arange(n), (0, *rows))


def probabilities(model: Regimes, x: Floats) -> Floats:
    """Filtered, of every state: (n, states)."""
    inputs = [f"x{k}" for k in range(x.shape[1])]
    texts = {f"p{state}": model.text(inputs, state) for state in range(1, model.states)}
    p = compile_features(texts, inputs).evaluate(x)
    return np.column_stack([1.0 - p.sum(axis=1), p])


@pytest.mark.parametrize("states", COUNTS)
def test_planted_regimes_are_counted_and_found_and_told_apart(states: int) -> None:
    wanted = truth(states)
    x, state = simulated(states, 30_000, wanted)
    found, said = choose_regimes(x, begins_at(len(x)), COUNTS, seed=1)
    assert found.states == states
    assert f"{states}: 0" in said
    for name in ("mean", "sd", "moves"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), atol=0.06, err_msg=name)
    p = probabilities(found, x)
    assert np.mean(p.argmax(axis=1) == state) > 0.9
    for low in (0.1, 0.5, 0.8):  # the probability means what it says
        rows = (p[:, 1] > low) & (p[:, 1] < low + 0.1)
        assert (state[rows] == 1).mean() == pytest.approx(p[rows, 1].mean(), abs=0.1)


def test_states_that_two_observations_tell_apart_are_found_where_one_would_not_do() -> None:
    wanted = Regimes(np.array([[0.0, -1.0], [0.2, 1.5]]), np.ones((2, 2)), np.array([[0.99, 0.01], [0.02, 0.98]]))
    x, state = simulated(5, 20_000, wanted)
    found = fit_regimes(x, begins_at(len(x)), 2)
    np.testing.assert_allclose(found.mean, wanted.mean, atol=0.1)
    assert np.mean(probabilities(found, x).argmax(axis=1) == state) > 0.95


def test_the_order_of_states_does_not_hang_on_the_seed() -> None:
    x, _ = simulated(6, 10_000, truth(3))
    found = [fit_regimes(x, begins_at(len(x)), 3, seed) for seed in (1, 2, 3)]
    for each in found[1:]:
        np.testing.assert_allclose(each.mean, found[0].mean, atol=1e-2)
    assert (np.diff(found[0].mean[:, 0]) > 0.0).all()


def test_without_regimes_there_are_none() -> None:
    x = np.random.default_rng(7).normal(size=(20_000, 1))
    with pytest.raises(ValueError, match="one state explains the stretch as well: BIC above the least 1: 0"):
        choose_regimes(x, begins_at(len(x)), COUNTS, seed=1)


def test_repeats_of_an_observation_are_no_news() -> None:
    """Each value held for 50 bars: counted as 50 it would be a regime of its own."""
    held = np.repeat(np.random.default_rng(8).normal(size=(400, 1)), 50, axis=0)
    with pytest.raises(ValueError, match="one state explains the stretch as well"):
        choose_regimes(held, begins_at(len(held)), (2,), seed=1, overlap=50)
    assert choose_regimes(held, begins_at(len(held)), (2,), seed=1)[0].states == 2


@pytest.mark.parametrize("overlap", [1, 10])
@pytest.mark.parametrize("states", COUNTS)
def test_the_likelihood_never_falls_from_round_to_round(states: int, overlap: int) -> None:
    x, _ = simulated(2, 3000, truth(states))
    begins, before = begins_at(len(x), 1000), -np.inf
    model = _begun(x, np.arange(1, states) / states, 1, overlap)
    for _ in range(20):
        moves, sums, after = _expected(model, x, begins)
        assert after >= before - 1e-4 * abs(after)  # beginnings hang on the moves too, which the step leaves out
        assert sums[:, 0].sum() == pytest.approx(len(x))
        assert moves.sum() == pytest.approx(len(x) - 2)  # none across the two beginnings
        model, before = _maximised(moves, sums, overlap), after


def test_missing_observations_do_no_harm() -> None:
    wanted = truth(2)
    x, _ = simulated(4, 20_000, wanted)
    x[::7] = np.nan
    np.testing.assert_allclose(fit_regimes(x, begins_at(len(x), 9000), 2).mean, wanted.mean, atol=0.05)


def test_states_that_are_none_are_refused() -> None:
    x, _ = simulated(4, 20_000, truth(2))
    begins = begins_at(len(x))
    spiked = np.where(np.arange(len(x))[:, None] % 3 == 0, -30.0, x)  # one value a third of the time
    with pytest.raises(ValueError, match="state 0 sits on one repeated value"):
        fit_regimes(spiked, begins, 2)
    outliers = np.where(np.arange(len(x))[:, None] % 500 == 0, 90.0, x)
    with pytest.raises(ValueError, match=r"state 1 holds 0\.\d+% of the time, a regime at least 1%"):
        fit_regimes(outliers, begins, 2)
    flicker = np.where(np.arange(len(x))[:, None] % 5 == 0, 9.0 + 0.1 * x, 0.1 * x)
    with pytest.raises(ValueError, match=r"state 1 lasts 1\.0 bars, too short to be seen in less than 2"):
        fit_regimes(flicker, begins, 2)
    with pytest.raises(ValueError, match="at least 8 different observations, there are 2"):
        fit_regimes(np.tile([[0.0], [1.0]], (500, 1)), begins_at(1000), 2)


@pytest.mark.parametrize("states", COUNTS)
def test_features_of_regimes_say_which_and_how_sure(states: int) -> None:
    model = truth(states)
    x, _ = simulated(9, 500, model)
    p = probabilities(model, x)
    texts = regime_features(model, ["x0"])
    assert list(texts)[-3:] == ["regime_turbulent", "regime_likely", "regime_entropy"]
    y = compile_features(texts, ["x0"], definitions=texts).evaluate(x)
    np.testing.assert_allclose(y[:, : states - 1], p[:, 1:], atol=1e-12)
    np.testing.assert_array_equal(y[:, -2], p.argmax(axis=1))
    entropy = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1) / np.log(states)
    np.testing.assert_allclose(y[:, -1], entropy, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize(
    ("text", "bars"),
    [
        ("x", 1),
        ("(log (ratio (std_30s (delta_1 x)) (std_900s x)))", 150),
        ("(sub (mean_20 (sum_5 x)) 1)", 20),
        ("(lag_9 x)", 1),
        ("(add x (sum_5 x))", 1),
    ],
)
def test_an_expression_is_a_new_one_when_its_shortest_outer_window_has_passed(text: str, bars: int) -> None:
    assert overlap_bars(parse(text), "200ms") == bars
