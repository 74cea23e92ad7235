"""Rolling minima and maxima, at O(1) per row, by the two-block scheme of rolling.py.

Values are compared as integers in the order of the numbers, where NaN comes above all: one instruction for what would
take three, and the largest of some values is the same in any order. So 0.0 is larger than -0.0 here.
"""

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import HEAD, MAX

_BEST = 0
_GROUP = 4
_ALL_BUT_SIGN = np.int64(2**63 - 1)
_UNKNOWN = np.array([np.nan]).view(np.int64)[0]  # what a fresh state is full of
_LEAST = np.int64(-(2**63))


@njit_inner(error_model="numpy")
def extremes(op, x, to, n, memory, window, offset, line):  # type: ignore[no-untyped-def]
    """MIN or MAX over n rows, block by block. `offset` is the place of the first row in its block."""
    keys, held, best = line.view(np.int64), memory.view(np.int64), to.view(np.int64)
    to_keys(op, x, keys, n)
    if n == 1:
        _one_row(keys[0], best, held, window, offset)
    begin = np.int64(n == 1)
    while begin < n:
        end = min(n, begin + window - offset)
        _extreme(keys[begin:end], best[begin:end], held, window, offset)
        if offset + end - begin == window:
            _suffixes(held, window)
        begin, offset = end, 0
    from_keys(op, best, to, n)


@njit_inner(error_model="numpy")
def to_keys(op, x, keys, n):  # type: ignore[no-untyped-def]
    """x, or -x for a minimum, as integers in the same order."""
    sign = 1.0 if op == MAX else -1.0
    for i in range(n):
        keys_as = sign * x[i]
        bits = np.float64(keys_as).view(np.int64)
        keys[i] = _UNKNOWN if x[i] != x[i] else bits ^ ((bits >> 63) & _ALL_BUT_SIGN)


@njit_inner(error_model="numpy")
def from_keys(op, keys, to, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        keys[i] ^= (keys[i] >> 63) & _ALL_BUT_SIGN
    sign = 1.0 if op == MAX else -1.0
    for i in range(n):
        to[i] = sign * to[i]


@njit_inner(error_model="numpy")
def _extreme(keys, to, held, window, offset):  # type: ignore[no-untyped-def]
    """The largest key over rows of one block."""
    best, n = _LEAST if offset == 0 else held[_BEST], keys.size
    values, suffix = held[HEAD + offset :], held[HEAD + window + offset :]
    for i in range(n):
        values[i] = keys[i]
    end = n // _GROUP * _GROUP
    for i in range(0, end, _GROUP):
        second = max(keys[i], keys[i + 1])
        third = max(second, keys[i + 2])
        to[i], to[i + 1], to[i + 2] = max(best, keys[i]), max(best, second), max(best, third)
        best = max(best, max(third, keys[i + 3]))
        to[i + 3] = best
    for i in range(end, n):
        best = max(best, keys[i])
        to[i] = best
    held[_BEST] = best
    for i in range(min(n, window - offset - 1)):
        to[i] = max(to[i], suffix[i + 1])


@njit_inner(error_model="numpy")
def _suffixes(held, window):  # type: ignore[no-untyped-def]
    values, suffix, best = held[HEAD : HEAD + window], held[HEAD + window :], _LEAST
    i = window - 1
    while i >= _GROUP - 1:
        second = max(values[i], values[i - 1])
        third = max(second, values[i - 2])
        suffix[i], suffix[i - 1], suffix[i - 2] = max(best, values[i]), max(best, second), max(best, third)
        best = max(best, max(third, values[i - 3]))
        suffix[i - 3] = best
        i -= _GROUP
    while i >= 0:
        best = max(best, values[i])
        suffix[i] = best
        i -= 1


@njit(nogil=True, error_model="numpy", inline="always")
def _one_row(key, to, held, window, offset):  # type: ignore[no-untyped-def]
    best = key if offset == 0 else max(held[_BEST], key)
    held[_BEST] = best
    held[HEAD + offset] = key
    if offset == window - 1:
        to[0] = best
        _suffixes(held, window)
    else:
        to[0] = max(best, held[HEAD + window + offset + 1])
