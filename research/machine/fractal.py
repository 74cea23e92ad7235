"""Scaling exponents and entropies of the last w bars.

They cost O(w) or more, so they are computed every w / 16 bars and held in between. When is a matter of bar_index
alone, so the bits do not depend on where the run began; each operator has a turn of its own, so that no bar waits for
all of them.

hurst   R/S with the expectation for white noise taken out (Anis, Lloyd, "The expected value of the adjusted rescaled
        Hurst range of independent normal summands", Biometrika 63(1), 1976; Weron, "Estimating long-range dependence",
        Physica A 312, 2002, section 2.1): H = 0.5 + slope of log(RS / E RS) over log n
dfa     detrended fluctuation analysis with straight lines (Peng et al., "Mosaic organization of DNA nucleotides",
        Physical Review E 49, 1994), the fluctuation over what white noise has in boxes of n: F^2 = (n^2 - 4) / (15 n)
sampen  sample entropy, m = 2, r = 0.2 deviations (Richman, Moorman, American J. Physiology 278(6), 2000)
permen  permutation entropy of order 3 over log 6 (Bandt, Pompe, Physical Review Letters 88, 2002)
shannon entropy of the histogram of ten equal bins from minimum to maximum, over log 10
higuchi fractal dimension of the curve in steps of 1 to 10 bars (Higuchi, "Approach to an irregular time series on the
        basis of the fractal theory", Physica D 31, 1988): 1.5 for a random walk, 2 for white noise
"""

import math

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import DFA, HEAD, HIGUCHI, HOPS, HURST, PERMEN, SAMPEN, SHANNON

_HELD, _KNOWN = range(2)
_SMALLEST_RS, _SMALLEST_BOX = 8, 4
_UNROLLED = 8
_TEMPLATE, _TOLERANCE = 2, 0.2
_BINS = 10
_LONGEST_STEP = 10


def _sum_of_roots(size: int) -> float:
    i = np.arange(1, size)
    return float(np.cumsum(np.sqrt((size - i) / i))[-1])


_SUMS_OF_ROOTS = np.array([_sum_of_roots(_SMALLEST_RS << k) for k in range(15)])
"""Of sqrt((n - i) / i) over i < n, for n = 8, 16, … to a quarter of the longest window."""


@njit_inner(error_model="numpy")
def remember_hop(op, x, to, n, memory, window, first_index, lines):  # type: ignore[no-untyped-def]
    """HURST to HIGUCHI over n rows, neighbouring bars from `first_index` on. Five `lines` are scratch."""
    ring, line = memory[HEAD : HEAD + window], memory[HEAD + window : HEAD + 2 * window]
    work = memory[HEAD + 2 * window : HEAD + 3 * window]
    hop, held = max(window // HOPS, 1), memory[_HELD]
    turn = (op - HURST) * hop // (HIGUCHI - HURST + 1)
    known = 0 if memory[_KNOWN] != memory[_KNOWN] else int(memory[_KNOWN])
    place = first_index % window
    for i in range(n):
        known += int(x[i] - x[i] == 0.0) - int(ring[place] - ring[place] == 0.0)
        ring[place] = x[i]
        place = place + 1 if place + 1 < window else 0
        if (first_index + i) % hop == turn:
            held = np.nan
            if known == window:
                for k in range(window):
                    line[k] = ring[place + k if place + k < window else place + k - window]
                held = _of_window(op, line, work, lines)
        to[i] = held
    memory[_HELD], memory[_KNOWN] = held, known


@njit_inner(error_model="numpy")
def _of_window(op, x, work, lines):  # type: ignore[no-untyped-def]
    if op == HURST:
        return hurst(x, work, lines)
    if op == DFA:
        return dfa(x, work)
    if op == SAMPEN:
        return sample_entropy(x)
    if op == PERMEN:
        return permutation_entropy(x)
    if op == SHANNON:
        return shannon_entropy(x, work)
    return higuchi_dimension(x)


@njit_inner(error_model="numpy")
def hurst(x, work, lines):  # type: ignore[no-untyped-def]
    """Hurst exponent of increments x (n,) by R/S, small samples corrected; 0.5 for white noise and a constant.

    `work` (n,) and five `lines` are scratch.
    """
    points, sx, sy, sxx, sxy = 0, 0.0, 0.0, 0.0, 0.0
    size, roots = _SMALLEST_RS, 0
    while size <= x.size // 4:
        scaled = _mean_rescaled_range(x, size, work, lines)
        if scaled > 0.0:
            a, b = math.log(size), math.log(scaled / _expected_range(size, _SUMS_OF_ROOTS[roots]))
            points, sx, sy, sxx, sxy = points + 1, sx + a, sy + b, sxx + a * a, sxy + a * b
        size, roots = 2 * size, roots + 1
    return 0.5 + (points * sxy - sx * sy) / (points * sxx - sx * sx) if points > 1 else 0.5


@njit_inner(error_model="numpy")
def _mean_rescaled_range(x, size, work, lines):  # type: ignore[no-untyped-def]
    """R/S averaged over the boxes of `size` that vary; 0 where none does."""
    total, varied = 0.0, 0
    boxes, most = x.size // size, lines.shape[1]
    for first in range(0, boxes, most):
        count = min(most, boxes - first)
        _rescaled_ranges(x[first * size :], size, work[: size * count].reshape(size, count), lines)
        for box in range(count):
            total += lines[0, box]
            varied += int(lines[0, box] > 0.0)
    return total / varied if varied else 0.0


@njit_inner(error_model="numpy")
def _rescaled_ranges(x, size, turned, lines):  # type: ignore[no-untyped-def]
    """R/S of neighbouring boxes to the first line, all boxes at once: each alone would wait at every sum for the one
    before. `turned` (size, boxes) has the k-th value of all boxes side by side; sizes are multiples of _UNROLLED."""
    scaled, mean, level, low, high, square = lines[0], lines[0], lines[1], lines[2], lines[3], lines[4]
    boxes = turned.shape[1]
    for box in range(boxes):
        values = x[box * size :]
        for k in range(size):
            turned[k, box] = values[k]
        mean[box] = level[box] = low[box] = high[box] = square[box] = 0.0
    first = turned[0]
    for begin in range(0, size, _UNROLLED):
        rows = turned[begin:]
        for box in range(boxes):
            for k in range(_UNROLLED):  # less the first value: a constant box then varies by nothing, not by rounding
                mean[box] += rows[k, box] - first[box]
    for box in range(boxes):
        mean[box] = first[box] + mean[box] / size
    for begin in range(0, size, _UNROLLED):
        rows = turned[begin:]
        for box in range(boxes):
            away, sum_, least, most, squares = 0.0, level[box], low[box], high[box], square[box]
            for k in range(_UNROLLED):
                away = rows[k, box] - mean[box]
                squares += away * away
                sum_ += away
                least, most = min(least, sum_), max(most, sum_)
            level[box], low[box], high[box], square[box] = sum_, least, most, squares
    for box in range(boxes):
        scaled[box] = (high[box] - low[box]) / math.sqrt(square[box] / size) if square[box] > 0.0 else 0.0


@njit_inner(error_model="numpy")
def _expected_range(size, sum_of_roots):  # type: ignore[no-untyped-def]
    """E(R/S) of `size` values of white noise, exactly."""
    gammas = math.exp(math.lgamma(0.5 * (size - 1)) - math.lgamma(0.5 * size))
    return gammas / math.sqrt(math.pi) * sum_of_roots


@njit_inner(error_model="numpy")
def dfa(x, profile):  # type: ignore[no-untyped-def]
    """DFA exponent of increments x (n,), 0.5 for white noise and for a constant. `profile` (n,) is scratch."""
    level, mean = 0.0, _mean(x)
    for k in range(x.size):
        level += x[k] - mean
        profile[k] = level
    points, sx, sy, sxx, sxy = 0, 0.0, 0.0, 0.0, 0.0
    size = _SMALLEST_BOX
    while size <= x.size // 4:
        square = _fluctuation(profile, size) / ((size * size - 4.0) / (15.0 * size))
        if square > 0.0:
            a, b = math.log(size), 0.5 * math.log(square)
            points, sx, sy, sxx, sxy = points + 1, sx + a, sy + b, sxx + a * a, sxy + a * b
        size += max(1, size // 2)
    return 0.5 + (points * sxy - sx * sy) / (points * sxx - sx * sx) if points > 1 else 0.5


@njit_inner(error_model="numpy")
def _mean(x):  # type: ignore[no-untyped-def]
    """Of x less its first value, and that added: a constant is its own mean, to the bit."""
    total = 0.0
    for value in x:
        total += value - x[0]
    return x[0] + total / x.size


@njit_inner(error_model="numpy")
def _fluctuation(profile, size):  # type: ignore[no-untyped-def]
    """Mean square about straight lines in boxes of `size`, from sums of the profile less its first value there.

    Two neighbours are added at a time: a running sum waits for the one before.
    """
    middle, total = 0.5 * (size - 1), 0.0
    spread = size * (size * size - 1.0) / 12.0
    boxes = profile.size // size
    for box in range(boxes):
        begin = box * size
        first = profile[begin]
        level = weighted = square = 0.0
        place = 1.0  # k as a float: turning it into one, twice for each pair, would take a fifth of the time
        for k in range(begin + 1, begin + size - 1, 2):
            a, b = profile[k] - first, profile[k + 1] - first
            level += a + b
            weighted += place * a + (place + 1.0) * b
            square += a * a + b * b
            place += 2.0
        if size % 2 == 0:
            a = profile[begin + size - 1] - first
            level, weighted, square = level + a, weighted + (size - 1) * a, square + a * a
        slope = weighted - middle * level
        total += square - level * level / size - slope * slope / spread
    return total / (boxes * size)


@njit_inner(error_model="numpy")
def sample_entropy(x):  # type: ignore[no-untyped-def]
    """-log(A / B): of pairs of templates of 2 values that match (B), how many match in the third too (A).

    0 for a constant. Where none does, the largest value that so many bars allow: one pair, of all that there are.
    """
    square, mean = 0.0, _mean(x)
    for value in x:
        square += (value - mean) * (value - mean)
    reach = _TOLERANCE * math.sqrt(square / x.size)
    if reach == 0.0:
        return 0.0
    templates = x.size - _TEMPLATE
    short = long = 0
    for i in range(templates):
        first, second, third = x[i + 1 :], x[i + 2 :], x[i + 3 :]
        for j in range(templates - i - 1):  # no branch, no sum of indices: several pairs are done at a time
            both = (abs(x[i] - first[j]) <= reach) & (abs(x[i + 1] - second[j]) <= reach)
            short += both
            long += both & (abs(x[i + 2] - third[j]) <= reach)
    return -math.log(long / short) if long else math.log(0.5 * templates * (templates - 1))


@njit_inner(error_model="numpy")
def permutation_entropy(x):  # type: ignore[no-untyped-def]
    """Entropy of the orders of three neighbours over log 6, from 0 to 1; equal values count as rising."""
    rising = falling = peak_up = peak_down = dip_up = dip_down = 0
    for i in range(x.size - 2):
        a, b, c = x[i], x[i + 1], x[i + 2]
        if a <= b:
            rising += int(b <= c)
            peak_up += int(b > c and a <= c)
            peak_down += int(b > c and a > c)
        else:
            falling += int(b > c)
            dip_up += int(b <= c and a <= c)
            dip_down += int(b <= c and a > c)
    entropy = 0.0
    for count in (rising, falling, peak_up, peak_down, dip_up, dip_down):
        entropy -= _plogp(count, x.size - 2)
    return entropy / math.log(6.0)


@njit_inner(error_model="numpy")
def shannon_entropy(x, counts):  # type: ignore[no-untyped-def]
    """Entropy of ten equal bins over log 10, from 0 to 1; 0 for a constant. `counts` (10,) or more is scratch."""
    low, high = x[0], x[0]
    for value in x:
        low, high = min(low, value), max(high, value)
    if low == high:
        return 0.0
    for k in range(_BINS):
        counts[k] = 0.0
    for value in x:
        counts[min(int((value - low) / (high - low) * _BINS), _BINS - 1)] += 1.0
    entropy = 0.0
    for k in range(_BINS):
        entropy -= _plogp(counts[k], x.size)
    return entropy / math.log(_BINS)


@njit_inner(error_model="numpy")
def higuchi_dimension(x):  # type: ignore[no-untyped-def]
    """Minus the slope of the logarithm of the curve's length in steps of k bars over log k. 1 for a constant."""
    points, sx, sy, sxx, sxy = 0, 0.0, 0.0, 0.0, 0.0
    for step in range(1, _LONGEST_STEP + 1):
        length = 0.0
        for first in range(step):
            moves, travelled = (x.size - 1 - first) // step, 0.0
            for k in range(moves):
                travelled += abs(x[first + (k + 1) * step] - x[first + k * step])
            length += travelled * (x.size - 1.0) / (moves * step * step)
        if length > 0.0:
            a, b = math.log(step), math.log(length / step)
            points, sx, sy, sxx, sxy = points + 1, sx + a, sy + b, sxx + a * a, sxy + a * b
    return -(points * sxy - sx * sy) / (points * sxx - sx * sx) if points > 1 else 1.0


@njit(nogil=True, error_model="numpy", inline="always")
def _plogp(count, total):  # type: ignore[no-untyped-def]
    return count / total * math.log(count / total) if count else 0.0


@njit_inner(error_model="numpy")
def fractional_difference(x, order, to, n, memory, window, offset):  # type: ignore[no-untyped-def]
    """sum of w_k x(t - k) over the last `window` bars, w_0 = 1, w_k = -w_(k - 1) (d - k + 1) / k (Hosking 1981).

    Memory: the weights in reverse, then a ring of twice the window, in which each window lies in one piece.
    """
    weights, ring = memory[HEAD : HEAD + window], memory[HEAD + window :]
    if weights[window - 1] != 1.0:
        weight = 1.0
        for k in range(window):
            weights[window - 1 - k] = weight
            weight *= -(order[0] - k) / (k + 1)
    place = offset
    for i in range(n):
        ring[place] = ring[place + window] = x[i]
        place = place + 1 if place + 1 < window else 0
        values = ring[place : place + window]
        a = b = c = d = 0.0
        end = window // 4 * 4
        for k in range(0, end, 4):
            a += weights[k] * values[k]
            b += weights[k + 1] * values[k + 1]
            c += weights[k + 2] * values[k + 2]
            d += weights[k + 3] * values[k + 3]
        for k in range(end, window):
            a += weights[k] * values[k]
        to[i] = (a + b) + (c + d)
