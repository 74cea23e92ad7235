"""Rolling statistics of more than two sums, at O(1) per row, by the two-block scheme of rolling.py.

Skewness and kurtosis carry the first four central moments of a block and merge two blocks' by the formulas of Pebay
("Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical moments", Sandia
report SAND2008-6212, 2008, eqs. 1.5-1.6 and 2.1-2.3). Covariances carry sums of x - shift, y - shift and of products.
"""

import math

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import ARGMAX, BETA, CORR, COV, DECAY, HEAD, KURT
from research.machine.rolling import is_constant

_MEAN, _M2, _M3, _M4 = range(4)
_DX, _DY, _DXX, _DYY, _DXY, _SHIFT, _SHIFT_Y = range(7)
_BEST, _PLACE = range(2)
_TOTAL, _WEIGHTED = range(2)


@njit_inner(error_model="numpy")
def remember_moments(op, x, y, to, n, memory, window, offset):  # type: ignore[no-untyped-def]
    """ARGMIN to BETA over n rows, block by block. `offset` is the place of the first row in its block."""
    begin = np.int64(0)
    while begin < n:
        end = min(n, begin + window - offset)
        is_whole = offset + end - begin == window
        if op <= ARGMAX:
            _place(1.0 if op == ARGMAX else -1.0, x[begin:end], to[begin:end], memory, window, offset)
            if is_whole:
                _place_suffixes(memory, window)
        elif op == DECAY:
            _decay(x[begin:end], to[begin:end], memory, window, offset)
            if is_whole:
                _decay_suffixes(memory, window)
        elif op <= KURT:
            _shape(op, x[begin:end], to[begin:end], memory, window, offset)
            if is_whole:
                _shape_suffixes(memory, window)
        else:
            _together(op, x[begin:end], y[begin:end], to[begin:end], memory, window, offset)
            if is_whole:
                _together_suffixes(memory, window)
        begin, offset = end, 0


@njit_inner(error_model="numpy")
def _place(sign, x, to, memory, window, offset):  # type: ignore[no-untyped-def]
    """Bars since the maximum of sign * x, the latest of equals; NaN if any is NaN."""
    if offset == 0:
        memory[_BEST] = -np.inf
    best, place = memory[_BEST], memory[_PLACE]
    values, old_best = memory[HEAD + offset :], memory[HEAD + window + offset :]
    old_place = memory[HEAD + 2 * window + offset :]
    for i in range(x.size):
        value = sign * x[i]
        values[i] = value
        if value >= best or value != value:
            best, place = value, float(offset + i)
        to[i] = offset + i - place
        if offset + i < window - 1:
            old = old_best[i + 1]
            if old > best or old != old:
                to[i] = offset + i + window - old_place[i + 1]
            if old != old:
                to[i] = np.nan
        if best != best:
            to[i] = np.nan
    memory[_BEST], memory[_PLACE] = best, place


@njit_inner(error_model="numpy")
def _place_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values, old_best = memory[HEAD : HEAD + window], memory[HEAD + window : HEAD + 2 * window]
    old_place, best, place = memory[HEAD + 2 * window :], -np.inf, 0.0
    for i in range(window - 1, -1, -1):
        if best == best and (values[i] > best or values[i] != values[i] or i == window - 1):
            best, place = values[i], float(i)
        old_best[i], old_place[i] = best, place


@njit_inner(error_model="numpy")
def _decay(x, to, memory, window, offset):  # type: ignore[no-untyped-def]
    """Mean weighted w, w - 1, … 1 from the newest back.

    A row at offset i of its block, seen from offset o, weighs w - o + i; one of the block before weighs i - o.
    """
    if offset == 0:
        memory[_TOTAL] = memory[_WEIGHTED] = 0.0
        memory[_SHIFT] = x[0]
    total, weighted, shift = memory[_TOTAL], memory[_WEIGHTED], memory[_SHIFT]
    values, old = memory[HEAD + offset :], memory[HEAD + window + offset :]
    weight = 0.5 * window * (window + 1)
    between = memory[_SHIFT_Y] - shift  # the shift of the block before lies there
    for i in range(x.size):
        values[i] = x[i]
        total += x[i] - shift
        weighted += (offset + i) * (x[i] - shift)
        to[i] = (window - offset - i) * total + weighted
        left = window - 1 - offset - i
        if left > 0:
            to[i] += old[i] + 0.5 * left * (left + 1) * between
        to[i] = shift + to[i] / weight
    memory[_TOTAL], memory[_WEIGHTED] = total, weighted


@njit_inner(error_model="numpy")
def _decay_suffixes(memory, window):  # type: ignore[no-untyped-def]
    """old[o]: sum over the rows i > o of (i - o) (x - shift)."""
    values, old = memory[HEAD : HEAD + window], memory[HEAD + window :]
    shift, total, weighted = values[window - 1], 0.0, 0.0
    for i in range(window - 1, -1, -1):
        weighted += total
        old[i] = weighted
        total += values[i] - shift
    memory[_SHIFT_Y] = shift


@njit(nogil=True, error_model="numpy", inline="always")
def _add(x, n, mean, m2, m3, m4):  # type: ignore[no-untyped-def]
    """Mean and central moments (sums) of n values, the last of which is x, from those of the n - 1 before it."""
    away = x - mean
    step = away * (1.0 / n)  # only the product waits for the mean
    term = away * step * (n - 1)
    m4 += term * step * step * (n * n - 3 * n + 3) + 6.0 * step * step * m2 - 4.0 * step * m3
    m3 += term * step * (n - 2) - 3.0 * step * m2
    return mean + step, m2 + term, m3, m4


@njit_inner(error_model="numpy")
def _shape(op, x, to, memory, window, offset):  # type: ignore[no-untyped-def]
    """Skewness or excess kurtosis of the window, divided by w (no correction for small samples)."""
    if offset == 0:
        memory[_MEAN], memory[_M2], memory[_M3], memory[_M4] = x[0], 0.0, 0.0, 0.0
    mean, m2, m3, m4 = memory[_MEAN], memory[_M2], memory[_M3], memory[_M4]
    values, old = memory[HEAD + offset :], memory[HEAD + window :].reshape(4, window)
    old_mean, old_m2, old_m3, old_m4 = old[0, offset:], old[1, offset:], old[2, offset:], old[3, offset:]
    for i in range(x.size):
        values[i] = x[i]
        taken = offset + i + 1.0
        mean, m2, m3, m4 = _add(x[i], taken, mean, m2, m3, m4)
        b, c, d, e = mean, m2, m3, m4
        if taken < window:
            other, k2, k3, k4 = old_mean[i + 1], old_m2[i + 1], old_m3[i + 1], old_m4[i + 1]
            b, c, d, e = _merged(taken, mean, m2, m3, m4, window - taken, other, k2, k3, k4)
        to[i] = _third_or_fourth(op, b, c, d, e, window)
    memory[_MEAN], memory[_M2], memory[_M3], memory[_M4] = mean, m2, m3, m4


@njit(nogil=True, error_model="numpy", inline="always")
def _merged(n, mean, m2, m3, m4, k, other, k2, k3, k4):  # type: ignore[no-untyped-def]
    """Mean and central moments of two sets of n and k values together."""
    away = other - mean
    step = away * (1.0 / (n + k))
    square = step * step
    joint = n * k * away * step
    four = m4 + k4 + joint * square * (n * n - n * k + k * k) + 6.0 * square * (n * n * k2 + k * k * m2)
    four += 4.0 * step * (n * k3 - k * m3)
    three = m3 + k3 + joint * step * (n - k) + 3.0 * step * (n * k2 - k * m2)
    return mean + step * k, m2 + k2 + joint, three, four


@njit(nogil=True, error_model="numpy", inline="always")
def _third_or_fourth(op, mean, m2, m3, m4, window):  # type: ignore[no-untyped-def]
    if is_constant(m2, mean, window):
        return 0.0
    if op == KURT:
        return window * m4 / (m2 * m2) - 3.0
    return math.sqrt(window) * m3 / (m2 * math.sqrt(m2))


@njit_inner(error_model="numpy")
def _shape_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values = memory[HEAD : HEAD + window]
    old = memory[HEAD + window :].reshape(4, window)
    mean, m2, m3, m4 = values[window - 1], 0.0, 0.0, 0.0
    for i in range(window - 1, -1, -1):
        mean, m2, m3, m4 = _add(values[i], float(window - i), mean, m2, m3, m4)
        old[0, i], old[1, i], old[2, i], old[3, i] = mean, m2, m3, m4


@njit_inner(error_model="numpy")
def _together(op, x, y, to, memory, window, offset):  # type: ignore[no-untyped-def]
    """Covariance, correlation, or the slope of x on y."""
    if offset == 0:
        for k in range(_SHIFT):
            memory[k] = 0.0
        memory[_SHIFT], memory[_SHIFT_Y] = x[0], y[0]
    sx, sy, sxx, syy, sxy = memory[_DX], memory[_DY], memory[_DXX], memory[_DYY], memory[_DXY]
    shift, shift_y, n = memory[_SHIFT], memory[_SHIFT_Y], x.size
    values, values_y = memory[HEAD + offset :], memory[HEAD + window + offset :]
    # those of the last bar of the block before lie where this block has not come to yet
    ax, ay = memory[HEAD + window - 1] - shift, memory[HEAD + 2 * window - 1] - shift_y
    for i in range(n):
        values[i], values_y[i] = x[i], y[i]
    old = memory[HEAD + 2 * window :].reshape(5, window)
    old_x, old_y, old_xx, old_yy, old_xy = (
        old[_DX, offset:], old[_DY, offset:], old[_DXX, offset:], old[_DYY, offset:], old[_DXY, offset:]
    )  # fmt: skip
    share = 1.0 / window
    for i in range(n):
        dx, dy = x[i] - shift, y[i] - shift_y
        sx, sy, sxx, syy, sxy = sx + dx, sy + dy, sxx + dx * dx, syy + dy * dy, sxy + dx * dy
        x_, y_, xx, yy, xy = sx, sy, sxx, syy, sxy
        k = window - 1.0 - (offset + i)
        if k > 0.0:
            tx, ty = old_x[i + 1], old_y[i + 1]
            xx += old_xx[i + 1] + ax * (2.0 * tx + k * ax)
            yy += old_yy[i + 1] + ay * (2.0 * ty + k * ay)
            xy += old_xy[i + 1] + (ax * ty + ay * (tx + k * ax))
            x_ += tx + k * ax
            y_ += ty + k * ay
        mx, my = x_ * share, y_ * share
        to[i] = _coefficient(op, xy - x_ * my, xx - x_ * mx, yy - y_ * my, shift + mx, shift_y + my, window)
    memory[_DX], memory[_DY], memory[_DXX], memory[_DYY], memory[_DXY] = sx, sy, sxx, syy, sxy


@njit(nogil=True, error_model="numpy", inline="always")
def _coefficient(op, cxy, cxx, cyy, mean_x, mean_y, window):  # type: ignore[no-untyped-def]
    if op == COV:
        return cxy / window
    if is_constant(cyy, mean_y, window):
        return 0.0 * cxy
    if op == BETA:
        return cxy / cyy
    if is_constant(cxx, mean_x, window):
        return 0.0 * cxy
    r = cxy / math.sqrt(cxx * cyy)
    return 1.0 if r > 1.0 else (-1.0 if r < -1.0 else r)


@njit_inner(error_model="numpy")
def _together_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values = memory[HEAD : HEAD + 2 * window].reshape(2, window)
    old = memory[HEAD + 2 * window :].reshape(5, window)
    shift, shift_y = values[0, window - 1], values[1, window - 1]
    sx = sy = sxx = syy = sxy = 0.0
    for i in range(window - 1, -1, -1):
        dx, dy = values[0, i] - shift, values[1, i] - shift_y
        sx, sy, sxx, syy, sxy = sx + dx, sy + dy, sxx + dx * dx, syy + dy * dy, sxy + dx * dy
        old[_DX, i], old[_DY, i], old[_DXX, i], old[_DYY, i], old[_DXY, i] = sx, sy, sxx, syy, sxy


@njit_inner(error_model="numpy")
def self_correlation(x, to, n, memory, window, first_index, before):  # type: ignore[no-untyped-def]
    """Correlation of each value with the one before it: the window - 1 pairs that `window` bars hold.

    The last number of memory is the value before; `before` (n,) is scratch.
    """
    last, pairs = memory.size - 1, window - 1
    before[0] = memory[last]
    for i in range(1, n):
        before[i] = x[i - 1]
    memory[last] = x[n - 1]
    remember_moments(np.int64(CORR), x, before, to, n, memory[:last], pairs, first_index % pairs)
