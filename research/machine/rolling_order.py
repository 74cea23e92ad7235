"""Rolling ranks and quantiles, and the length of runs.

The values of a window are kept twice: by time, to know which leaves, and sorted. A row costs a search and a shift of
the sorted values between the places where one leaves and one enters: O(w), but at the speed of moving memory.
"""

import math

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import HEAD, RANK

_KNOWN = 0
_LENGTH, _SIGN, _SEEN = range(3)
_HELD, _AGE, _BARS = range(3)


@njit_inner(error_model="numpy")
def remember_order(op, x, level, to, n, memory, window, offset):  # type: ignore[no-untyped-def]
    """RANK or QUANTILE over n rows. `offset` is the place of the first row in the ring, `level` the quantile's."""
    ring, ordered = memory[HEAD : HEAD + window], memory[HEAD + window :]
    known = 0 if memory[_KNOWN] != memory[_KNOWN] else int(memory[_KNOWN])
    place = offset
    for i in range(n):
        old, new = ring[place], x[i] + 0.0  # -0.0 becomes 0.0: equal values must not differ in their bits
        ring[place] = new
        if old == old and new == new:
            _replace(ordered, known, old, new)
        elif old == old:
            known = _remove(ordered, known, old)
        elif new == new:
            known = _insert(ordered, known, new)
        if known < window:
            to[i] = np.nan
        elif op == RANK:
            to[i] = _rank(ordered, new, window)
        else:
            to[i] = _quantile(ordered, level[i], window)
        place = place + 1 if place + 1 < window else 0
    memory[_KNOWN] = known


@njit(nogil=True, error_model="numpy", inline="always")
def _first_at_least(ordered, known, value):  # type: ignore[no-untyped-def]
    low, high = 0, known
    while low < high:
        middle = (low + high) // 2
        if ordered[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit_inner(error_model="numpy")
def _replace(ordered, known, old, new):  # type: ignore[no-untyped-def]
    """One value leaves and one enters: only those between the two places move."""
    place, wanted = _first_at_least(ordered, known, old), _first_at_least(ordered, known, new)
    if wanted > place:
        wanted -= 1
        values, behind = ordered[place:], ordered[place + 1 :]
        for k in range(wanted - place):
            values[k] = behind[k]
    else:
        values, before = ordered[wanted + 1 :], ordered[wanted:]
        for k in range(place - wanted - 1, -1, -1):
            values[k] = before[k]
    ordered[wanted] = new


@njit_inner(error_model="numpy")
def _remove(ordered, known, value):  # type: ignore[no-untyped-def]
    for k in range(_first_at_least(ordered, known, value), known - 1):
        ordered[k] = ordered[k + 1]
    return known - 1


@njit_inner(error_model="numpy")
def _insert(ordered, known, value):  # type: ignore[no-untyped-def]
    place = _first_at_least(ordered, known, value)
    for k in range(known, place, -1):
        ordered[k] = ordered[k - 1]
    ordered[place] = value
    return known + 1


@njit(nogil=True, error_model="numpy", inline="always")
def _rank(ordered, value, window):  # type: ignore[no-untyped-def]
    """The share of the other values that lie below, equal ones counted half; 0.5 for a window of one."""
    if window == 1:
        return 0.5
    below = _first_at_least(ordered, window, value)
    equal = below + 1
    while equal < window and ordered[equal] == value:
        equal += 1
    return (below + 0.5 * (equal - below - 1)) / (window - 1)


@njit(nogil=True, error_model="numpy", inline="always")
def _quantile(ordered, level, window):  # type: ignore[no-untyped-def]
    """Linear between the two nearest ranks (type 7 of Hyndman and Fan, "Sample Quantiles", 1996; numpy's default)."""
    if not 0.0 <= level <= 1.0:
        return np.nan
    at = level * (window - 1)
    low = math.floor(at)
    high = min(low + 1, window - 1)
    share = at - low
    return ordered[low] if share == 0.0 else ordered[low] + share * (ordered[high] - ordered[low])


@njit_inner(error_model="numpy")
def run_length(x, to, n, memory, window):  # type: ignore[no-untyped-def]
    """How many bars in a row, at most `window`, x has had its sign: positive or negative, 0 where x is 0."""
    length, sign = memory[_LENGTH], memory[_SIGN]
    seen = 0 if memory[_SEEN] != memory[_SEEN] else int(memory[_SEEN])
    for i in range(n):
        now = 1.0 if x[i] > 0.0 else (-1.0 if x[i] < 0.0 else x[i])
        length = min(length + 1.0, float(window)) if now == sign else 1.0
        sign = now
        seen = min(seen + 1, window) if now == now else 0
        to[i] = now * length if seen == window else np.nan
    memory[_LENGTH], memory[_SIGN], memory[_SEEN] = length, sign, seen


@njit_inner(error_model="numpy")
def latest(x, event, to, n, memory, window):  # type: ignore[no-untyped-def]
    """The value that x had in the latest of the last `window` bars with an event (not 0); NaN where there was none.

    Where it is not known whether there was an event, the value is not known either, until the next one.
    """
    held, age = memory[_HELD], memory[_AGE]
    seen = 0 if memory[_BARS] != memory[_BARS] else int(memory[_BARS])
    for i in range(n):
        seen = min(seen + 1, window)
        age += 1.0
        if event[i] != 0.0:
            held, age = x[i] if event[i] == event[i] else np.nan, 0.0
        to[i] = held if seen == window and age < window else np.nan
    memory[_HELD], memory[_AGE], memory[_BARS] = held, age, seen
