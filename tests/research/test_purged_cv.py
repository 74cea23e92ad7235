"""Splits against a naive pairwise reference; no training label meets a test label."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.learning.purged_cv import holdout, k_fold, thinned, walk_forward


@st.composite
def intervals(draw: st.DrawFn):
    """Sorted starts with ties, and lengths that differ per row."""
    n = draw(st.integers(2, 60))
    steps = draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    lengths = draw(st.lists(st.integers(0, 40), min_size=n, max_size=n))
    start = np.cumsum(steps)
    return start, start + np.array(lengths)


def naive_train(start, end, test, embargo, past_only):
    """Every pair compared, one by one."""
    first, last = start[test].min(), end[test].max() + embargo
    return [
        row
        for row in range(start.size)
        if row not in set(test) and not (start[row] <= last and end[row] >= first) and not (past_only and row > test[0])
    ]


def test_five_rows_by_hand() -> None:
    start = np.array([0, 10, 20, 30, 40])
    end = np.array([5, 20, 25, 35, 45])
    folds = [(list(train), list(test)) for train, test in k_fold(start, end, 5, embargo_ns=5)]
    # Row 1 ends when row 2 starts: closed intervals meet. Row 3 starts at 30 = 25 + embargo: it meets too.
    assert folds[2] == ([0, 4], [2])
    assert folds[0] == ([2, 3, 4], [0])


@given(intervals(), st.integers(2, 6), st.integers(0, 30))
def test_k_fold_equals_the_pairwise_reference(rows, n_folds: int, embargo: int) -> None:
    start, end = rows
    if start.size < n_folds:
        return
    tests = []
    for train, test in k_fold(start, end, n_folds, embargo):
        assert list(train) == naive_train(start, end, test, embargo, past_only=False)
        tests.extend(test)
    assert tests == list(range(start.size))


@given(intervals(), st.integers(2, 6))
def test_walk_forward_equals_the_pairwise_reference(rows, n_blocks: int) -> None:
    start, end = rows
    if start.size < n_blocks:
        return
    for train, test in walk_forward(start, end, n_blocks):
        assert list(train) == naive_train(start, end, test, 0, past_only=True)


@given(intervals(), st.integers(2, 6), st.integers(0, 30))
def test_no_training_label_overlaps_a_test_label(rows, n_folds: int, embargo: int) -> None:
    start, end = rows
    if start.size < n_folds:
        return
    for train, test in [*k_fold(start, end, n_folds, embargo), *walk_forward(start, end, n_folds)]:
        meets = (start[train][:, None] <= end[test]) & (end[train][:, None] >= start[test])
        assert not meets.any()


@given(intervals(), st.floats(0.05, 0.9))
def test_the_holdout_is_the_last_of_time_and_was_not_known_before(rows, frac: float) -> None:
    start, end = rows
    train, test = holdout(start, end, frac)
    assert test[-1] == start.size - 1
    assert (end[train] < start[test[0]]).all()
    assert (start[test] >= start[0] + (1 - frac) * (start[-1] - start[0]) - 1e-6).all()


@given(st.integers(1, 3_000), st.integers(1, 400), st.integers(1, 7))
def test_thinning_is_even_and_favours_no_symbol(n: int, at_most: int, n_symbols: int) -> None:
    rows = np.arange(n)
    kept = thinned(rows, at_most)
    assert min(n, at_most) - 2 <= kept.size <= at_most
    assert (np.diff(kept) > 0).all()
    if n > at_most >= 100 * n_symbols:
        shares = np.bincount(kept % n_symbols, minlength=n_symbols) / kept.size
        assert (np.abs(shares - 1 / n_symbols) < 0.05).all()
        assert np.diff(kept).max() <= 3 * n / at_most + 1


def test_nonsense_is_refused_before_the_first_split() -> None:
    with pytest.raises(ValueError, match="sorted"):
        next(k_fold(np.array([2, 1]), np.array([3, 3]), 2))
    with pytest.raises(ValueError, match="ends"):
        next(walk_forward(np.array([1]), np.array([1]), 2))
    with pytest.raises(ValueError, match="before it starts"):
        holdout(np.array([1, 2]), np.array([0, 3]), 0.5)
