"""Splits that keep what a label saw out of training: K-fold, walk-forward and hold-out on label intervals.

A row is a closed interval [start_ns, end_ns]: decided at its start, known at its end. Rows are sorted by start. A
training row goes iff its interval meets [first start, last end + embargo] of the test block (López de Prado, "Advances
in Financial Machine Learning", 2018, section 7.4, on times instead of row counts). Each splitter is a stateless
generator of index pairs. Only rows near a block's boundary can overlap it, so only they are compared.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]
Rows = NDArray[np.int64]


class Split(NamedTuple):
    """Row indices, ascending, to learn from and to predict."""

    train: Rows
    test: Rows


def k_fold(start_ns: Times, end_ns: Times, n_folds: int, embargo_ns: int = 0) -> Iterator[Split]:
    """`n_folds` contiguous test blocks, each with the rows before and after it that do not meet it. For tuning.

    Raises ValueError for unsorted starts, an end before its start, or fewer rows than folds.
    """
    _check(start_ns, end_ns, n_folds)
    known_ns = np.maximum.accumulate(end_ns)
    for test in np.array_split(np.arange(start_ns.size), n_folds):
        closes_ns = int(end_ns[test].max()) + embargo_ns
        after = np.arange(max(test[-1] + 1, start_ns.searchsorted(closes_ns, side="right")), start_ns.size)
        yield Split(np.concatenate([_before(start_ns, end_ns, known_ns, test[0]), after]), test)


def walk_forward(start_ns: Times, end_ns: Times, n_blocks: int) -> Iterator[Split]:
    """Blocks 1, 2, … of `n_blocks`, each with all earlier rows whose end it does not meet: the window expands.

    Block 0 has no past and is never a test. Raises ValueError as `k_fold` does.
    """
    _check(start_ns, end_ns, n_blocks)
    known_ns = np.maximum.accumulate(end_ns)
    for test in np.array_split(np.arange(start_ns.size), n_blocks)[1:]:
        yield Split(_before(start_ns, end_ns, known_ns, test[0]), test)


def holdout(start_ns: Times, end_ns: Times, last_frac: float) -> Split:
    """The last `last_frac` of time to test, and all rows known before it begins to learn from."""
    _check(start_ns, end_ns, 1)
    opens_ns = start_ns[0] + (1.0 - last_frac) * (start_ns[-1] - start_ns[0])
    first = int(start_ns.searchsorted(opens_ns, side="left"))
    train = _before(start_ns, end_ns, np.maximum.accumulate(end_ns), first)
    return Split(train, np.arange(first, start_ns.size))


def thinned(rows: Rows, at_most: int) -> Rows:
    """At most `at_most` of `rows`, evenly over their order.

    Every n-th row would beat with the symbols, which take turns in the order of time, and could keep one symbol only.
    The golden-ratio sequence is as even and beats with nothing (Weyl, 1916).
    """
    if rows.size <= at_most:
        return rows
    golden = (np.sqrt(5.0) - 1.0) / 2.0
    kept = np.flatnonzero((np.arange(rows.size) * golden) % 1.0 < at_most / rows.size)
    return rows[kept[:at_most]]


def _before(start_ns: Times, end_ns: Times, known_ns: Times, first: int) -> Rows:
    """Rows before index `first` that ended before it starts; `known_ns` is the running maximum of the ends."""
    if first == start_ns.size:
        return np.arange(first)
    opens_ns = start_ns[first]
    clear = int(known_ns[:first].searchsorted(opens_ns, side="left"))
    near = np.arange(clear, first)
    return np.concatenate([np.arange(clear), near[end_ns[near] < opens_ns]])


def _check(start_ns: Times, end_ns: Times, n_blocks: int) -> None:
    if start_ns.shape != end_ns.shape or start_ns.size < n_blocks:
        raise ValueError(f"{n_blocks} blocks need as many rows at least, were {start_ns.size} and {end_ns.size} ends")
    if (np.diff(start_ns) < 0).any() or (end_ns < start_ns).any():
        raise ValueError("rows must be sorted by start_ns, and no row may end before it starts")
