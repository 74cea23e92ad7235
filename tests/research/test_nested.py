"""No score knows its future: what is predicted for a block stays put when everything after it changes."""

import numpy as np
import pytest

from core.units import NS_PER_S
from research.learning.nested import plan, sample, walk

HELD_NS = 10 * NS_PER_S


@pytest.fixture(scope="module")
def market():
    rng, n = np.random.default_rng(1), 6_000
    start = np.repeat(np.arange(n // 2), 2) * NS_PER_S
    x = rng.normal(size=(n, 5)).astype(np.float32)
    y = 2.0 * x[:, 0] + rng.normal(size=n)
    made = plan(start, start + HELD_NS, 8, 4, 0.2, HELD_NS)
    assert made is not None
    return x, y, start, made


def scores_of(x, y, start, made, families=("lightgbm",)):
    return walk(x, start, {10.0: y}, families, made, max_rows=1_500, rounds=8, seed=1)


def test_a_block_is_predicted_from_its_past_alone(market) -> None:
    x, y, start, made = market
    before = scores_of(x, y, start, made)["lightgbm", 10.0]
    for split in (made.walk[2], made.final):
        changed_x, changed_y = x.copy(), y.copy()
        opens = start[split.test[0]]
        unknown = start + HELD_NS >= opens  # labels that end in or after the block
        changed_y[unknown] = 1_000.0
        changed_x[split.test[-1] + 1 :] = 9.0
        after = scores_of(changed_x, changed_y, start, made)["lightgbm", 10.0]
        past = slice(0, split.test[-1] + 1)
        np.testing.assert_array_equal(after.scores[past], before.scores[past])
        np.testing.assert_array_equal(after.odds[past], before.odds[past])


def test_two_runs_are_equal_to_the_bit_in_every_family(market) -> None:
    x, y, start, made = market
    families = ("hgb", "lightgbm", "catboost")
    once, again = (scores_of(x, y, start, made, families) for _ in range(2))
    for key, score in once.items():
        np.testing.assert_array_equal(score.scores, again[key].scores)
        assert score.calibration == again[key].calibration
        known = np.isfinite(score.scores)
        assert np.corrcoef(score.scores[known], y[known])[0, 1] > 0.7


def test_block_zero_has_out_of_fold_scores_of_what_is_known_when_block_one_opens(market) -> None:
    x, y, start, made = market
    score = scores_of(x, y, start, made)["lightgbm", 10.0]
    opens = start[made.walk[0].test[0]]
    here = slice(0, made.walk[0].test[0])
    np.testing.assert_array_equal(np.isfinite(score.scores[here]), start[here] + HELD_NS < opens)
    assert np.isfinite(score.scores[made.walk[0].test[0] :]).all()


def test_every_block_follows_the_one_before_and_the_hold_out_is_the_last_fifth(market) -> None:
    _, _, start, made = market
    tested = np.concatenate([made.first, *(split.test for split in made.splits)])
    assert (np.diff(tested) > 0).all()
    assert made.final.test.size == pytest.approx(0.2 * start.size, rel=0.01)


def test_too_few_rows_have_no_plan() -> None:
    start = np.arange(300) * NS_PER_S
    assert plan(start, start + HELD_NS, 8, 4, 0.2, HELD_NS) is None
    assert plan(start[:5], start[:5] + HELD_NS, 8, 4, 0.2, HELD_NS) is None
    assert plan(start[:0], start[:0], 8, 4, 0.2, HELD_NS) is None


def test_loud_rows_are_kept_and_the_others_stand_for_those_left_out() -> None:
    rows, scores = np.arange(10_000), np.random.default_rng(2).normal(size=10_000)
    chosen, weights = sample(rows, scores, 2_000)
    assert chosen.size <= 2_000
    assert (np.diff(chosen) > 0).all()
    loud = np.argsort(-np.abs(scores))[:500]
    assert np.isin(loud, chosen).all()
    assert (weights[np.isin(chosen, loud)] == 1.0).all()
    assert weights.sum() == pytest.approx(10_000)
    everything, equal = sample(rows[:100], scores, 2_000)
    assert everything.size == 100
    assert (equal == 1.0).all()
