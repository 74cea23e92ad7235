"""Rolling sums, means, deviations and extremes over the last w bars, at O(1) per row.

The two-block scheme of van Herk ("A fast algorithm for local minimum and maximum filters on rectangular and octagonal
kernels", Pattern Recognition Letters 13(7), 1992), with blocks that begin where bar_index % w == 0:

  window that ends at offset o of a block = the block before from o + 1 on (a suffix) + this block up to o (a prefix)

The prefix is carried forward, the suffixes of a block are made from its values in one backward pass when it ends.
Nothing is ever subtracted again, so nothing drifts, and the bits depend on the w values of the window and on bar_index
alone: neither on where the run began, nor on how its rows were cut.

Sums and moments are taken of x - shift, where shift is a value of the window itself: the first of this block, the last
of the block before. A constant window thus has exactly that constant as its mean and 0 as its deviation, and
sum (x - shift)^2 <= (n + 1) M2 bounds the cancellation in M2 = sum (x - mean)^2. The two blocks are merged as in Chan,
Golub, LeVeque ("Algorithms for computing the sample variance", The American Statistician 37(3), 1983).

A running sum is a chain of additions, each waiting for the one before. So rows are summed in groups of four (by their
place in the block), and only the groups' totals are chained.
"""

import math

import numpy as np

from core.kernels import njit
from research.opcodes import DELTA, HEAD, MAX, MEAN, STD, SUM, ZSCORE

_BASE, _PART, _BASE2, _PART2, _SHIFT, _OLD_SHIFT = range(6)
_GROUP = 4
_ROUNDING = 1e-13  # a window that varies by less of its mean is constant but for rounding: its z-scores would be noise


@njit(nogil=True, error_model="numpy", inline="always")
def remember(op, x, to, n, memory, window, offset, scratch, scratch2):  # type: ignore[no-untyped-def]
    """LAG to MAX over n rows, block by block. `offset` is the place of the first row in its block."""
    begin = np.int64(0)
    while begin < n:
        end = min(n, begin + window - offset)
        is_whole = offset + end - begin == window
        values, results = x[begin:end], to[begin:end]
        if op <= DELTA:
            _lag(op, values, results, memory, offset)
        elif op <= MEAN:
            _total(op, values, results, memory, window, offset)
            if is_whole:
                _total_suffixes(memory, window)
        elif op <= ZSCORE:
            _spread(op, values, results, memory, window, offset, scratch, scratch2)
            if is_whole:
                _spread_suffixes(memory, window)
        else:
            _extreme(1.0 if op == MAX else -1.0, values, results, memory, window, offset)
            if is_whole:
                _extreme_suffixes(memory, window)
        begin, offset = end, 0


@njit(cache=True, nogil=True, error_model="numpy")
def short(op, x, to, n, memory, window, line, square):  # type: ignore[no-untyped-def]
    """SUM to MAX over few bars. Memory holds the last window - 1 values, oldest first; `line`, `square` are scratch."""
    reach = window - 1
    for i in range(reach):
        line[i] = memory[i]
    for i in range(n):
        line[reach + i] = x[i]
    for i in range(reach):
        memory[i] = line[n + i]
    if op <= MEAN:
        _short_total(op, x, to, n, window, line)
    elif op <= ZSCORE:
        _short_spread(op, x, to, n, window, line, square)
    else:
        sign = 1.0 if op == MAX else -1.0
        for i in range(n):
            to[i] = sign * x[i]
        for k in range(reach):
            for i in range(n):
                value = sign * line[k + i]
                to[i] = value if value > to[i] or value != value else to[i]
        for i in range(n):
            to[i] = sign * to[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _short_total(op, x, to, n, window, line):  # type: ignore[no-untyped-def]
    for i in range(n):
        to[i] = x[i] - x[i]  # 0, or NaN if x is not finite
    for k in range(window - 1):
        for i in range(n):
            to[i] += line[k + i] - x[i]
    if op == SUM:
        for i in range(n):
            to[i] = window * x[i] + to[i]
    else:
        for i in range(n):
            to[i] = x[i] + to[i] / window


@njit(cache=True, nogil=True, error_model="numpy")
def _short_spread(op, x, to, n, window, line, square):  # type: ignore[no-untyped-def]
    for i in range(n):
        to[i] = square[i] = x[i] - x[i]
    for k in range(window - 1):
        for i in range(n):
            away = line[k + i] - x[i]
            to[i] += away
            square[i] += away * away
    for i in range(n):
        total = to[i]
        mean = total / window
        to[i] = _standard(op, -mean, square[i] - total * mean, x[i] + mean, window)


@njit(cache=True, nogil=True, error_model="numpy")
def _standard(op, away, m2, mean, window):  # type: ignore[no-untyped-def]
    """Deviation or z-score of a value `away` from the mean, where m2 is the sum of squares about the mean."""
    if op == STD:
        return math.sqrt(m2 / window) if not m2 <= 0.0 else 0.0
    return away / math.sqrt(m2 / window) if not is_constant(m2, mean, window) else 0.0


@njit(nogil=True, error_model="numpy", inline="always")
def is_constant(m2, mean, window):  # type: ignore[no-untyped-def]
    """Whether a window varies by no more than rounding does; false where that is not known."""
    level = _ROUNDING * mean
    return m2 <= level * level * window and m2 < np.inf


@njit(cache=True, nogil=True, error_model="numpy")
def _lag(op, x, to, memory, offset):  # type: ignore[no-untyped-def]
    """The value of `window` bars ago, or the change since. Memory is a ring over bar_index."""
    for i in range(x.size):
        before = memory[offset + i]
        memory[offset + i] = x[i]
        to[i] = x[i] - before if op == DELTA else before


@njit(cache=True, nogil=True, error_model="numpy")
def _total(op, x, to, memory, window, offset):  # type: ignore[no-untyped-def]
    """Sum or mean over rows of one block: sum = window * shift + sum (x - shift)."""
    if offset == 0:
        memory[_BASE] = memory[_PART] = 0.0
        memory[_SHIFT] = x[0]
    shift, n = memory[_SHIFT], x.size
    values, suffix = memory[HEAD + offset :], memory[HEAD + window + offset :]
    for i in range(n):
        values[i] = x[i]
    _running_sum(x, to, shift, memory, offset)
    between, left = memory[_OLD_SHIFT] - shift, window - offset - 1
    for i in range(min(n, left)):
        to[i] += suffix[i + 1] + (left - i) * between
    if op == SUM:
        for i in range(n):
            to[i] = window * shift + to[i]
    else:
        for i in range(n):
            to[i] = shift + to[i] / window


@njit(cache=True, nogil=True, error_model="numpy")
def _running_sum(x, to, shift, memory, offset):  # type: ignore[no-untyped-def]
    """Sums of x - shift from the block's beginning, for rows from `offset` of it on."""
    base, part, n = memory[_BASE], memory[_PART], x.size
    begin = min(n, -offset % _GROUP)
    for i in range(begin):
        part += x[i] - shift
        to[i] = base + part
    if (offset + begin) % _GROUP == 0:
        base, part = base + part, 0.0
    end = begin + (n - begin) // _GROUP * _GROUP
    for i in range(begin, end, _GROUP):
        first = part + (x[i] - shift)
        second = first + (x[i + 1] - shift)
        third = second + (x[i + 2] - shift)
        to[i], to[i + 1], to[i + 2] = base + first, base + second, base + third
        base += third + (x[i + 3] - shift)
        to[i + 3] = base
    for i in range(end, n):
        part += x[i] - shift
        to[i] = base + part
    memory[_BASE], memory[_PART] = base, part


@njit(cache=True, nogil=True, error_model="numpy")
def _total_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values, suffix = memory[HEAD : HEAD + window], memory[HEAD + window :]
    shift, base = values[window - 1], 0.0
    i = window - 1
    while i >= _GROUP - 1:
        first = values[i] - shift
        second = first + (values[i - 1] - shift)
        third = second + (values[i - 2] - shift)
        suffix[i], suffix[i - 1], suffix[i - 2] = base + first, base + second, base + third
        base += third + (values[i - 3] - shift)
        suffix[i - 3] = base
        i -= _GROUP
    while i >= 0:
        base += values[i] - shift
        suffix[i] = base
        i -= 1
    memory[_OLD_SHIFT] = shift


@njit(cache=True, nogil=True, error_model="numpy")
def _spread(op, x, to, memory, window, offset, total, square):  # type: ignore[no-untyped-def]
    """Deviation or z-score over rows of one block, from sums of x - shift and of its square."""
    if offset == 0:
        memory[_BASE] = memory[_PART] = memory[_BASE2] = memory[_PART2] = 0.0
        memory[_SHIFT] = x[0]
    shift, rows = memory[_SHIFT], x.size
    values = memory[HEAD + offset :]
    old_total, old_square = memory[HEAD + window + offset :], memory[HEAD + 2 * window + offset :]
    for i in range(rows):
        values[i] = x[i]
    _running_sums(x, total, square, shift, memory, offset)
    between, left = memory[_OLD_SHIFT] - shift, window - offset - 1
    for i in range(min(rows, left)):
        moved = (left - i) * between
        square[i] += old_square[i + 1] + between * (2.0 * old_total[i + 1] + moved)
        total[i] += old_total[i + 1] + moved
    for i in range(rows):
        mean = total[i] / window
        to[i] = _standard(op, x[i] - shift - mean, square[i] - total[i] * mean, shift + mean, window)


@njit(cache=True, nogil=True, error_model="numpy")
def _running_sums(x, total, square, shift, memory, offset):  # type: ignore[no-untyped-def]
    """Sums of x - shift and of its square from the block's beginning, for rows from `offset` of it on."""
    base, part, base2, part2, n = memory[_BASE], memory[_PART], memory[_BASE2], memory[_PART2], x.size
    begin = min(n, -offset % _GROUP)
    for i in range(begin):
        away = x[i] - shift
        part, part2 = part + away, part2 + away * away
        total[i], square[i] = base + part, base2 + part2
    if (offset + begin) % _GROUP == 0:
        base, part, base2, part2 = base + part, 0.0, base2 + part2, 0.0
    end = begin + (n - begin) // _GROUP * _GROUP
    for i in range(begin, end, _GROUP):
        a, b, c, d = x[i] - shift, x[i + 1] - shift, x[i + 2] - shift, x[i + 3] - shift
        first, first2 = part + a, part2 + a * a
        second, second2 = first + b, first2 + b * b
        third, third2 = second + c, second2 + c * c
        total[i], total[i + 1], total[i + 2] = base + first, base + second, base + third
        square[i], square[i + 1], square[i + 2] = base2 + first2, base2 + second2, base2 + third2
        base, base2 = base + (third + d), base2 + (third2 + d * d)
        total[i + 3], square[i + 3] = base, base2
    for i in range(end, n):
        away = x[i] - shift
        part, part2 = part + away, part2 + away * away
        total[i], square[i] = base + part, base2 + part2
    memory[_BASE], memory[_PART], memory[_BASE2], memory[_PART2] = base, part, base2, part2


@njit(cache=True, nogil=True, error_model="numpy")
def _spread_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values = memory[HEAD : HEAD + window]
    total, square = memory[HEAD + window : HEAD + 2 * window], memory[HEAD + 2 * window :]
    shift, base, base2 = values[window - 1], 0.0, 0.0
    i = window - 1
    while i >= _GROUP - 1:
        a, b, c, d = values[i] - shift, values[i - 1] - shift, values[i - 2] - shift, values[i - 3] - shift
        second, second2 = a + b, a * a + b * b
        third, third2 = second + c, second2 + c * c
        total[i], total[i - 1], total[i - 2] = base + a, base + second, base + third
        square[i], square[i - 1], square[i - 2] = base2 + a * a, base2 + second2, base2 + third2
        base, base2 = base + (third + d), base2 + (third2 + d * d)
        total[i - 3], square[i - 3] = base, base2
        i -= _GROUP
    while i >= 0:
        away = values[i] - shift
        base, base2 = base + away, base2 + away * away
        total[i], square[i] = base, base2
        i -= 1
    memory[_OLD_SHIFT] = shift


@njit(nogil=True, error_model="numpy", inline="always")
def _larger(best, value):  # type: ignore[no-untyped-def]
    """The larger, the first of equals, NaN if either is."""
    return value if value > best or value != value else best


@njit(cache=True, nogil=True, error_model="numpy")
def _extreme(sign, x, to, memory, window, offset):  # type: ignore[no-untyped-def]
    """Maximum of sign * x over rows of one block, NaN if any is NaN; times sign it is the maximum or the minimum.

    Groups of four need no alignment here: the largest of some values is the same in any order.
    """
    if offset == 0:
        memory[_BASE] = -np.inf
    best, n = memory[_BASE], x.size
    values, suffix = memory[HEAD + offset :], memory[HEAD + window + offset :]
    for i in range(n):
        values[i] = sign * x[i]
    end = n // _GROUP * _GROUP
    for i in range(0, end, _GROUP):
        second = _larger(values[i], values[i + 1])
        third = _larger(second, values[i + 2])
        to[i], to[i + 1], to[i + 2] = _larger(best, values[i]), _larger(best, second), _larger(best, third)
        best = _larger(best, _larger(third, values[i + 3]))
        to[i + 3] = best
    for i in range(end, n):
        best = _larger(best, values[i])
        to[i] = best
    memory[_BASE] = best
    for i in range(min(n, window - offset - 1)):
        to[i] = _larger(suffix[i + 1], to[i])
    for i in range(n):
        to[i] = sign * to[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _extreme_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values, suffix, best = memory[HEAD : HEAD + window], memory[HEAD + window :], -np.inf
    i = window - 1
    while i >= _GROUP - 1:
        second = _larger(values[i - 1], values[i])
        third = _larger(values[i - 2], second)
        suffix[i], suffix[i - 1], suffix[i - 2] = _larger(values[i], best), _larger(second, best), _larger(third, best)
        best = _larger(_larger(values[i - 3], third), best)
        suffix[i - 3] = best
        i -= _GROUP
    while i >= 0:
        best = _larger(values[i], best)
        suffix[i] = best
        i -= 1
