"""Rolling sums and extremes over few bars, at O(log w) per row, each step over a whole tile at once.

What windows of n bars hold is put together to windows of 2n bars, and those to the window that is asked for, by its
binary digits: 25 = 1 + 8 + 16, the newest bars first. All is relative to a row's own value, so that the bits depend on
the w values of the window alone; the two-block scheme of rolling.py takes over where windows are longer.

Moments are merged as in Chan, Golub, LeVeque ("Algorithms for computing the sample variance", The American Statistician
37(3), 1983): pairwise sums, whose rounding errors grow with log w.
"""

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import MOMENTS
from research.machine.rolling_extremes import from_keys, to_keys


@njit_inner(error_model="numpy")
def short_sums(op, x, n, memory, window, total, m2, shift, lines):  # type: ignore[no-untyped-def]
    """What `rolling.sums` finds; each row's shift is its own value. Memory holds the last window - 1, oldest first.

    `lines` are five rows of scratch.
    """
    if n == 1:
        _one_row(op, x[0], memory, window, total, m2, lines)
        shift[0] = x[0]
        return
    reach, size = window - 1, window - 1 + n
    line, t, u, s, v = lines[0], lines[1], lines[2], lines[3], lines[4]
    now, last = line[reach:], line[n:]
    for i in range(reach):
        line[i] = memory[i]
    for i in range(n):
        now[i] = shift[i] = x[i]
    for i in range(reach):
        memory[i] = last[i]
    for i in range(size):
        t[i] = line[i] - line[i]  # 0, or NaN if x is not finite
    if op == MOMENTS:
        for i in range(size):
            s[i] = t[i]
    taken, block = np.int64(0), np.int64(1)
    while True:
        if window & block:
            if op == MOMENTS:
                _append_moments(line, t, s, total, m2, reach, n, taken, block)
            else:
                _append(line, t, total, reach, n, taken, block)
            taken += block
        if taken == window:
            break
        if op == MOMENTS:
            _double_moments(line, t, s, u, v, size, block)
            s, v = v, s
        else:
            _double(line, t, u, size, block)
        t, u = u, t
        block *= 2


@njit_inner(error_model="numpy")
def _double(x, t, u, size, block):  # type: ignore[no-untyped-def]
    """Sums u over 2 * block bars from sums t over `block`."""
    first, count = 2 * block - 1, size - 2 * block + 1
    new_x, old_x, new_t, old_t, to = x[first:], x[block - 1 :], t[first:], t[block - 1 :], u[first:]
    for i in range(count):
        to[i] = new_t[i] + (old_t[i] + block * (old_x[i] - new_x[i]))


@njit_inner(error_model="numpy")
def _double_moments(x, t, s, u, v, size, block):  # type: ignore[no-untyped-def]
    share, weight = 1.0 / block, 0.5 * block
    first, count = 2 * block - 1, size - 2 * block + 1
    new_x, old_x, new_t, old_t, to = x[first:], x[block - 1 :], t[first:], t[block - 1 :], u[first:]
    new_s, old_s, to_s = s[first:], s[block - 1 :], v[first:]
    for i in range(count):
        step = old_x[i] - new_x[i]
        away = step + (old_t[i] - new_t[i]) * share
        to[i] = new_t[i] + (old_t[i] + block * step)
        to_s[i] = (new_s[i] + old_s[i]) + weight * (away * away)


@njit_inner(error_model="numpy")
def _append(x, t, total, reach, n, taken, block):  # type: ignore[no-untyped-def]
    """Let the sums over `taken` bars take in the `block` bars before these."""
    new_x, old_x, old_t = x[reach:], x[reach - taken :], t[reach - taken :]
    if taken == 0:
        for i in range(n):
            total[i] = old_t[i]
        return
    for i in range(n):
        total[i] += old_t[i] + block * (old_x[i] - new_x[i])


@njit_inner(error_model="numpy")
def _append_moments(x, t, s, total, m2, reach, n, taken, block):  # type: ignore[no-untyped-def]
    new_x, old_x, old_t, old_s = x[reach:], x[reach - taken :], t[reach - taken :], s[reach - taken :]
    if taken == 0:
        for i in range(n):
            total[i], m2[i] = old_t[i], old_s[i]
        return
    share, taken_share, weight = 1.0 / block, 1.0 / taken, taken * (block / (taken + block))
    for i in range(n):
        step = old_x[i] - new_x[i]
        away = step + (old_t[i] * share - total[i] * taken_share)
        total[i] += old_t[i] + block * step
        m2[i] += old_s[i] + weight * (away * away)


@njit_inner(error_model="numpy")
def _one_row(op, x, memory, window, total, m2, lines):  # type: ignore[no-untyped-def]
    """The same sums in the same order, made for one row alone: half as many pairs at each step."""
    line, t, s, ends = lines[0], lines[1], lines[2], lines[3]
    reach = window - 1
    for i in range(reach):
        line[i] = memory[i]
    line[reach] = x
    newer = line[1:]
    for i in range(reach):
        memory[i] = newer[i]
    taken, block, sum_, squares = np.int64(0), np.int64(1), 0.0, 0.0
    while taken < window:
        if window & block:
            _pairs(op, line[reach + 1 - taken - block :], t, s, ends, block)
            if taken == 0:
                sum_, squares = t[0], s[0]
            else:
                step = ends[0] - x
                away = step + (t[0] * (1.0 / block) - sum_ * (1.0 / taken))
                sum_ += t[0] + block * step
                squares += s[0] + taken * (block / (taken + block)) * (away * away)
            taken += block
        block *= 2
    total[0], m2[0] = sum_, squares


@njit(nogil=True, error_model="numpy", inline="always")
def _pairs(op, x, t, s, ends, count):  # type: ignore[no-untyped-def]
    """Sums over all of `count` bars, a power of two, to the first places of `t` and `s`; the newest bar to `ends`."""
    for i in range(count):
        ends[i] = x[i]
        t[i] = s[i] = x[i] - x[i]
    block = 1.0
    while count > 1:
        count //= 2
        share, weight = 1.0 / block, 0.5 * block
        for i in range(count):
            step = ends[2 * i] - ends[2 * i + 1]
            if op == MOMENTS:
                away = step + (t[2 * i] - t[2 * i + 1]) * share
                s[i] = (s[2 * i + 1] + s[2 * i]) + weight * (away * away)
            t[i] = t[2 * i + 1] + (t[2 * i] + block * step)
            ends[i] = ends[2 * i + 1]
        block *= 2.0


@njit_inner(error_model="numpy")
def short_extremes(op, x, to, n, memory, window, lines):  # type: ignore[no-untyped-def]
    """MIN or MAX over few bars. Memory holds the last window - 1 values' keys, oldest first; `lines` are scratch."""
    reach, size, held = window - 1, window - 1 + n, memory.view(np.int64)
    if n == 1:
        _one_extreme(op, x, to, held, reach, lines[0].view(np.int64))
        return
    keys, other = lines[0].view(np.int64), lines[1].view(np.int64)
    last = keys[n:]
    for i in range(reach):
        keys[i] = held[i]
    to_keys(op, x, keys[reach:], n)
    for i in range(reach):
        held[i] = last[i]
    block = np.int64(1)
    while 2 * block <= window:
        _larger(keys[2 * block - 1 :], keys[block - 1 :], other[2 * block - 1 :], size - 2 * block + 1)
        keys, other = other, keys
        block *= 2
    best = to.view(np.int64)
    _larger(keys[reach:], keys[block - 1 :], best, n)  # the two may overlap
    from_keys(op, best, to, n)


@njit_inner(error_model="numpy")
def _larger(a, b, to, n):  # type: ignore[no-untyped-def]
    for i in range(n):
        to[i] = max(a[i], b[i])


@njit_inner(error_model="numpy")
def _one_extreme(op, x, to, held, reach, keys):  # type: ignore[no-untyped-def]
    for i in range(reach):
        keys[i] = held[i]
    to_keys(op, x, keys[reach:], 1)
    newer, largest = keys[1:], keys[0]
    for i in range(reach):
        held[i] = newer[i]
        largest = max(largest, newer[i])
    to.view(np.int64)[0] = largest
    from_keys(op, to.view(np.int64), to, 1)
