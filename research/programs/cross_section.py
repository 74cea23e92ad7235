"""Symbols of a run compared at one instant: rank, mean and z-score across those whose bars closed then.

A symbol whose value is not known, or that has no bar there, does not count and gets NaN. Sums go through the symbols in
order, so the bits do not depend on how many instants are compared at a time.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from research.programs.joins import Form

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
_FEW: Final = 4
_RANK, _MEAN, _ZSCORE = range(3)
_CODES: Final[dict[Form, int]] = {"cs_rank": _RANK, "cs_mean": _MEAN, "cs_zscore": _ZSCORE}
_FLAT: Final = 1e-13  # a deviation below this share of the mean is rounding, as in the operator zscore


def across(form: Form, closes: Sequence[NDArray[np.int64]], values: Sequence[Floats]) -> list[Floats]:
    """For each symbol, at its closes (n,), ascending, where its values (n,) stand among those of all symbols."""
    if not any(each.size for each in closes):
        return list(values)
    instants, table = aligned(closes, values)
    compared = np.empty_like(table)
    compare(_CODES[form], table, compared)
    places = (slice(None) if are_equal(each, instants) else np.searchsorted(instants, each) for each in closes)
    return [compared[place, k] for k, place in enumerate(places)]


def aligned(closes: Sequence[Ints], values: Sequence[Floats]) -> tuple[Ints, Floats]:
    """The instants (m,) at which any symbol's bar closed, and all values there (m, symbols): NaN without a bar."""
    if all(are_equal(closes[0], each) for each in closes):
        return closes[0], np.array(values).T.copy()
    instants = np.unique(np.concatenate(closes))
    table = np.full((instants.size, len(closes)), np.nan)
    for k, (close_ns, mine) in enumerate(zip(closes, values, strict=True)):
        table[np.searchsorted(instants, close_ns), k] = mine
    return instants, table


def are_equal(left: Ints, right: Ints) -> bool:
    """`np.array_equal`, without its 2 us where there is a single one."""
    if left is right or left.size != right.size:
        return left is right
    return left.tolist() == right.tolist() if left.size < _FEW else bool((left == right).all())


@njit(cache=True, nogil=True, error_model="numpy")
def compare(code: int, table: Floats, out: Floats) -> None:
    """Fill `out` from `table` (instants, symbols) row by row."""
    for i in range(table.shape[0]):
        row = table[i]
        known, total = 0, 0.0
        for k in range(row.size):
            if not math.isnan(row[k]):
                known, total = known + 1, total + row[k]
        mean, square = total / known, 0.0
        for k in range(row.size):
            if not math.isnan(row[k]):
                square += (row[k] - mean) ** 2
        deviation = math.sqrt(square / known)
        for k in range(row.size):
            if math.isnan(row[k]) or code == _MEAN:
                out[i, k] = mean if not math.isnan(row[k]) else math.nan
            elif code == _ZSCORE:
                out[i, k] = (row[k] - mean) / deviation if deviation > _FLAT * abs(mean) else 0.0
            else:
                out[i, k] = _rank(row, k, known)


@njit(cache=True, nogil=True, error_model="numpy")
def _rank(row: Floats, k: int, known: int) -> float:
    """The share of the other known values that lie below, equal ones half."""
    if known == 1:
        return 0.5
    below = -0.5  # the value itself, which equals itself
    for j in range(row.size):
        below += 1.0 if row[j] < row[k] else 0.5 if row[j] == row[k] else 0.0
    return float(below / (known - 1))
