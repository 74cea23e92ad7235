"""The filter of regimes is Bayes' rule over all paths so far, whatever comes, for two states to four."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from research.language import compile_features
from research.machine.hmm import stationary
from tests.research.feature_programs import SEEDS

Floats = NDArray[np.float64]
NAN = np.nan


def filtered(odds: Floats, chances: str) -> Floats:
    """Probabilities (n, states - 1) of the states but the first from ratios (n, states - 1)."""
    ratios = odds.shape[1]
    columns = [f"x{k}" for k in range(ratios)]
    heads = ["hmm"] if ratios == 1 else [f"hmm{ratios + 1}_{k}" for k in range(1, ratios + 1)]
    texts = {head: f"({head} {' '.join(columns)} {chances})" for head in heads}
    return compile_features(texts, columns).evaluate(odds)


def written(moves: Floats) -> str:
    """Row by row the chance to stay, then those of the other states but the last."""
    rows = [[row[k], *np.delete(row, k)[:-1]] for k, row in enumerate(moves)]
    return " ".join(repr(float(chance)) for row in rows for chance in row)


def over_all_paths(odds: Floats, moves: Floats) -> Floats:
    """P(state | rows so far) by the sum over every path, of which there are states^n."""
    n, states = len(odds), len(moves)
    ratios = np.nan_to_num(np.column_stack([np.zeros(n), odds]))
    ratios[np.isnan(odds).any(axis=1)] = 0.0
    start, found = long_run(moves), np.full((n, states), NAN)
    for end in range(1, n + 1):
        weight = np.zeros(states)
        for path in itertools.product(range(states), repeat=end):
            chance = start[path[0]] * np.prod([moves[a, b] for a, b in itertools.pairwise(path)])
            weight[path[-1]] += chance * np.exp(ratios[np.arange(end), path].sum())
        found[end - 1] = weight / weight.sum()
    found[np.isnan(odds).any(axis=1)] = NAN
    return found[:, 1:]


def long_run(moves: Floats) -> Floats:
    """The left eigenvector of 1, from the equations that it solves."""
    states = len(moves)
    equations = np.vstack([moves.T - np.eye(states), np.ones(states)])
    return np.linalg.lstsq(equations, np.append(np.zeros(states), 1.0), rcond=None)[0]


@pytest.mark.parametrize("states", [2, 3, 4])
@given(seed=SEEDS, stay=st.floats(0.01, 0.99))
@settings(max_examples=10, deadline=None)
def test_it_is_bayes_rule_over_all_paths_so_far(states: int, seed: int, stay: float) -> None:
    rng, n = np.random.default_rng(seed), {2: 9, 3: 7, 4: 5}[states]
    odds = rng.normal(0.0, 3.0, (n, states - 1))
    odds[n // 2, rng.integers(states - 1)] = NAN
    moves = (1.0 - stay) * rng.dirichlet(np.ones(states), states) + stay * np.eye(states)
    np.testing.assert_allclose(filtered(odds, written(moves)), over_all_paths(odds, moves), rtol=1e-8, atol=1e-12)


def test_it_survives_whatever_comes_and_finds_its_way_back() -> None:
    extremes = np.concatenate([np.full(100_000, 1e300), np.full(100_000, -1e300), np.zeros(50), np.full(50, -5.0)])
    for stay_0, stay_1 in ((0.999999, 0.999999), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0)):
        got = filtered(extremes[:, None], f"{stay_0} {stay_1}")[:, 0]
        assert ((got >= 0.0) & (got <= 1.0)).all()
        if stay_0 == 0.999999:
            np.testing.assert_array_equal(got[[99_999, 199_999]], [1.0, 0.0])
            assert got[100_000] == 0.0
    three = filtered(np.column_stack([extremes, np.roll(extremes, 7)]), "0.99 0.01 0.99 0.01 0.99 0.01")
    assert ((three >= 0.0) & (three <= 1.0)).all()
    assert (three.sum(axis=1) <= 1.0 + 1e-12).all()


def test_states_of_one_filter_are_one_pass() -> None:
    chances = "0.9 0.05 0.9 0.05 0.9 0.05"
    one, both = ({f"p{k}": f"(hmm3_{k} a b {chances})" for k in states} for states in ((2,), (1, 2)))
    alone, together = compile_features(one, ["a", "b"]), compile_features(both, ["a", "b"])
    assert together.state_size == alone.state_size
    x = np.random.default_rng(1).normal(size=(50, 2))
    stream = together.start()
    stream.run(x[:30])
    restored = alone.start()
    restored.restore(stream.save())  # whichever state is asked for, the memory is the filter's
    np.testing.assert_array_equal(restored.run(x[30:])[:, 0], together.evaluate(x)[30:, 1])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(hmm3_3 x x 0.9 0.1 0.9 0.1 0.9 0.1)", "takes an n up to 2, was 3"),
        ("(hmm3_1 x x 0.9 0.2 0.9 0.1 0.9 0.1)", "together are 1 at most"),
        ("(hmm3_1 x x 0.9 x 0.9 0.1 0.9 0.1)", "a number from 0 to 1 here"),
        ("(hmm3_1 x 0.9 0.9)", "takes 8 operands, was given 3"),
        ("(hmm3 x x 0.9 0.1 0.9 0.1 0.9 0.1)", "needs a number"),
    ],
)
def test_what_is_no_filter_is_refused_where_it_stands(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_features({"f": text}, ["x"])


@pytest.mark.parametrize(
    ("moves", "wanted"),
    [
        ([[1.0, 0.0], [0.0, 1.0]], [0.5, 0.5]),  # never left: begun in either alike
        ([[0.0, 1.0], [1.0, 0.0]], [0.5, 0.5]),  # a period
        ([[0.9, 0.1], [0.0, 1.0]], [0.0, 1.0]),
        ([[0.999999, 0.000001], [0.000003, 0.999997]], [0.75, 0.25]),
        ([[0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]], [0.25, 0.5, 0.25]),
    ],
)
def test_a_chain_begins_where_it_is_in_the_long_run(moves: list[list[float]], wanted: list[float]) -> None:
    np.testing.assert_allclose(stationary(np.array(moves)), wanted, rtol=1e-9, atol=1e-12)
