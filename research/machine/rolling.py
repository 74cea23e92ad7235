"""Rolling sums over the last w bars, and what is made of them: sum, mean, deviation, z-score. O(1) per row.

The two-block scheme of van Herk ("A fast algorithm for local minimum and maximum filters on rectangular and octagonal
kernels", Pattern Recognition Letters 13(7), 1992), with blocks that begin where bar_index % w == 0:

  window that ends at offset o of a block = the block before from o + 1 on (a suffix) + this block up to o (a prefix)

The prefix is carried forward, the suffixes of a block are made from its values in one backward pass when it ends.
Nothing is ever subtracted again, so nothing drifts, and the bits depend on the w values of the window and on bar_index
alone: neither on where the run began, nor on how its rows were cut.

Sums are taken of x - shift, where shift is a value of the window itself: the first of this block, the last of the block
before. A constant window thus has exactly that constant as its mean and 0 as its deviation, and
sum (x - shift)^2 <= (n + 1) M2 bounds the cancellation in M2 = sum (x - mean)^2. The two blocks are merged as in Chan,
Golub, LeVeque ("Algorithms for computing the sample variance", The American Statistician 37(3), 1983).

A running sum is a chain of additions, each waiting for the one before. So rows are summed in groups of four (by their
place in the block), and only the groups' totals are chained.

All statistics of one operand and window are made from one pass: TOTAL or MOMENTS leaves the sums of a tile in scratch
registers, and the instructions that follow at once take them from there.
"""

import math

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import DELTA, HEAD, MEAN, MOMENTS, STD, SUM

_BASE, _PART, _BASE2, _PART2, _OLD_SHIFT, _SHIFT = range(6)
_GROUP = 4
_ROUNDING = 1e-13  # a window that varies by less of its mean is constant but for rounding: its z-scores would be noise


@njit(nogil=True, error_model="numpy", inline="always")
def lag(op, x, to, n, memory, window, offset):  # type: ignore[no-untyped-def]
    """The value of `window` bars ago, or the change since, over n rows. Memory is a ring, `offset` the first row's."""
    begin = np.int64(0)
    while begin < n:
        end = min(n, begin + window - offset)
        _lag(op, x[begin:end], to[begin:end], memory[offset:])
        begin, offset = end, 0


@njit_inner(error_model="numpy")
def _lag(op, x, to, ring):  # type: ignore[no-untyped-def]
    for i in range(x.size):
        before = ring[i]
        ring[i] = x[i]
        to[i] = x[i] - before if op == DELTA else before


@njit_inner(error_model="numpy")
def sums(op, x, n, memory, window, offset, total, m2, shift):  # type: ignore[no-untyped-def]
    """For each of n rows its window's sum of x - shift, the shift, and if `op` is MOMENTS the sum of (x - mean)^2.

    `offset` is the place of the first row in its block.
    """
    begin, share = np.int64(0), 1.0 / window
    if n == 1:
        _one_row(op, x[0], memory, window, offset, total, m2)
        shift[0] = memory[_SHIFT]
        begin = n
    while begin < n:
        end = min(n, begin + window - offset)
        if offset == 0:
            for k in range(_OLD_SHIFT):
                memory[k] = 0.0
            memory[_SHIFT] = x[begin]
        is_whole, origin = offset + end - begin == window, memory[_SHIFT]
        for i in range(begin, end):
            shift[i] = origin
        if op == MOMENTS:
            _moments(x[begin:end], total[begin:end], m2[begin:end], memory, window, offset)
        else:
            _total(x[begin:end], total[begin:end], memory, window, offset)
        if is_whole and op == MOMENTS:
            _moment_suffixes(memory, window)
        elif is_whole:
            _total_suffixes(memory, window)
        begin, offset = end, 0
    if op == MOMENTS:
        for i in range(n):
            m2[i] -= total[i] * (total[i] * share)


@njit(nogil=True, error_model="numpy", inline="always")
def _one_row(op, x, memory, window, offset, total, square):  # type: ignore[no-untyped-def]
    """What `_total` or `_moments` does, in the same order, to one row alone: half of the time of a live row."""
    if offset == 0:
        for k in range(_OLD_SHIFT):
            memory[k] = 0.0
        memory[_SHIFT] = x
    away, between, left = x - memory[_SHIFT], memory[_OLD_SHIFT] - memory[_SHIFT], window - offset - 1
    old, is_group = HEAD + window + offset + 1, (offset + 1) % _GROUP == 0
    memory[HEAD + offset] = x
    memory[_PART] += away
    total[0] = memory[_BASE] + memory[_PART]
    if op == MOMENTS:
        memory[_PART2] += away * away
        square[0] = memory[_BASE2] + memory[_PART2]
        if left > 0:
            square[0] += memory[old + window] + between * (2.0 * memory[old] + left * between)
    if left > 0:
        total[0] += memory[old] + left * between
    if is_group:
        memory[_BASE] += memory[_PART]
        memory[_BASE2] += memory[_PART2]
        memory[_PART] = memory[_PART2] = 0.0
    if left == 0 and op == MOMENTS:
        _moment_suffixes(memory, window)
    elif left == 0:
        _total_suffixes(memory, window)


@njit_inner(error_model="numpy")
def of_sums(op, x, to, n, window, total, m2, shift):  # type: ignore[no-untyped-def]
    """SUM, MEAN, STD or ZSCORE of n rows from what `sums` left. They divide by `window`."""
    share = 1.0 / window
    if op == SUM:
        for i in range(n):
            to[i] = window * shift[i] + total[i]
    elif op == MEAN:
        for i in range(n):
            to[i] = shift[i] + total[i] * share
    elif op == STD:
        for i in range(n):
            to[i] = math.sqrt(m2[i] * share) if not m2[i] <= 0.0 else 0.0
    else:
        for i in range(n):
            mean = total[i] * share
            away = x[i] - shift[i] - mean
            to[i] = 0.0 if is_constant(m2[i], shift[i] + mean, window) else away / math.sqrt(m2[i] * share)


@njit(nogil=True, error_model="numpy", inline="always")
def is_constant(m2, mean, window):  # type: ignore[no-untyped-def]
    """Whether a window varies by no more than rounding does; false where that is not known."""
    level = _ROUNDING * mean
    return m2 <= level * level * window and m2 < np.inf


@njit_inner(error_model="numpy")
def _total(x, total, memory, window, offset):  # type: ignore[no-untyped-def]
    """Sums of x - shift over rows of one block."""
    shift, n = memory[_SHIFT], x.size
    values, suffix = memory[HEAD + offset :], memory[HEAD + window + offset :]
    for i in range(n):
        values[i] = x[i]
    _running_sum(x, total, shift, memory, offset)
    between, left = memory[_OLD_SHIFT] - shift, window - offset - 1
    for i in range(min(n, left)):
        total[i] += suffix[i + 1] + (left - i) * between


@njit_inner(error_model="numpy")
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


@njit_inner(error_model="numpy")
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


@njit_inner(error_model="numpy")
def _moments(x, total, square, memory, window, offset):  # type: ignore[no-untyped-def]
    """Sums of x - shift and of its square over rows of one block."""
    shift, n = memory[_SHIFT], x.size
    values = memory[HEAD + offset :]
    old_total, old_square = memory[HEAD + window + offset :], memory[HEAD + 2 * window + offset :]
    for i in range(n):
        values[i] = x[i]
    _running_sums(x, total, square, shift, memory, offset)
    between, left = memory[_OLD_SHIFT] - shift, window - offset - 1
    for i in range(min(n, left)):
        moved = (left - i) * between
        square[i] += old_square[i + 1] + between * (2.0 * old_total[i + 1] + moved)
        total[i] += old_total[i + 1] + moved


@njit_inner(error_model="numpy")
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


@njit_inner(error_model="numpy")
def _moment_suffixes(memory, window):  # type: ignore[no-untyped-def]
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
