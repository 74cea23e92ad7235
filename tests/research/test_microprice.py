"""The micro-price against the paper's own series over both signs, and on a book whose truth is known."""

import numpy as np
import pytest

from benchmarks.references.stoikov import adjustments, state_of
from research.language import compile_features
from tests.research.feature_programs import Floats

WINDOW = 160


def microprice(x: Floats, window: int, first: int = 0) -> Floats:
    program = compile_features({"g": f"(microprice_{window} imbalance move)"}, ("imbalance", "move"))
    return program.evaluate(x, first + np.arange(len(x)))[:, 0]


def a_market(n: int, seed: int) -> Floats:
    """An imbalance that wanders, and a mid that follows it now and then."""
    rng = np.random.default_rng(seed)
    imbalance = np.clip(np.cumsum(rng.normal(0, 0.3, n)) % 4 - 2, -1, 1) * rng.choice([1, 0.5], n)
    move = np.where(rng.random(n) < 0.3 * np.abs(imbalance), np.sign(imbalance), 0.0) * rng.choice([-1, 1, 1, 1], n)
    return np.column_stack([imbalance, np.roll(move, 1)])


@pytest.mark.parametrize("seed", range(4))
def test_the_micro_price_is_the_limit_of_the_papers_series(seed: int) -> None:
    x, hop = a_market(400, seed), WINDOW // 16
    got = microprice(x, WINDOW)
    for row in (WINDOW + 20, 277, 399):
        learnt = row // hop * hop
        wanted = adjustments(*x[learnt - WINDOW + 1 : learnt + 1].T)
        assert got[row] == pytest.approx(wanted[5 + state_of(x[row, 0])], rel=1e-9, abs=1e-12)


def test_a_book_that_leans_and_moves_once_gains_what_it_moves() -> None:
    """Balance, then one side heavy, then a move that way and balance again: from the heavy side one step is to come."""
    leans = np.array([0.0, 1.0, 0.0, -1.0] * 500)
    x = np.column_stack([leans, np.roll(leans, 1)])
    got = microprice(x, 1600)[-4:]
    np.testing.assert_allclose(got, leans[-4:] * 800 / 801, rtol=2e-3)


def test_up_and_down_are_alike_and_what_was_never_seen_is_nothing() -> None:
    x = a_market(400, 9)
    np.testing.assert_array_equal(microprice(-x, WINDOW), -microprice(x, WINDOW))
    x[:, 0] = np.where(np.arange(400) < 390, 0.2, 0.9)
    assert microprice(x, WINDOW)[391] == 0.0


def test_a_value_that_is_not_known_leaves_with_its_bar() -> None:
    x = a_market(600, 3)
    x[200, 1] = np.nan
    is_nan = np.flatnonzero(np.isnan(microprice(x, WINDOW)[WINDOW + 10 :])) + WINDOW + 10
    np.testing.assert_array_equal(is_nan, np.arange(200, 360))
