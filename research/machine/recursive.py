"""Exponentially weighted statistics: the value of k bars ago weighs 2^(-k / w), where w is the half-life in bars.

They remember everything, so their bits depend on where the run began, and a run that goes on needs the saved state. A
value that is not finite has no weight, and gives NaN in its own row alone. They are known once seven half-lives were
seen, when what lies before the run would weigh less than 1 %. The deviation is updated as in West ("Updating mean and
variance estimates: an improved method", Communications of the ACM 22(9), 1979).
"""

import math

import numpy as np

from core.kernels import njit_inner
from research.machine.opcodes import EWM_MEAN, EWM_SUM, EWM_VOL, HALF_LIVES

_WEIGHT, _MEAN, _M2, _SEEN = range(4)


@njit_inner(error_model="numpy")
def remember_all(op, x, to, n, memory, half_life):  # type: ignore[no-untyped-def]
    """EWM_SUM, EWM_MEAN, EWM_STD or EWM_VOL over n rows; NaN until HALF_LIVES half-lives of a run were seen."""
    keep, whole = math.exp2(-1.0 / half_life), float(HALF_LIVES * half_life)
    if memory[_SEEN] != memory[_SEEN]:
        for k in range(_SEEN + 1):
            memory[k] = 0.0
    weight, mean, m2, seen = memory[_WEIGHT], memory[_MEAN], memory[_M2], memory[_SEEN]
    for i in range(n):
        seen = min(seen + 1.0, whole)
        weight *= keep
        m2 *= keep
        is_known = x[i] - x[i] == 0.0
        if is_known:
            share = 1.0 / (weight + 1.0)  # waits for the weights alone, not for the mean
            away = x[i] - mean
            m2 += away * away * (weight * share)
            weight += 1.0
            mean += away * share
        if seen < whole or not is_known:
            to[i] = np.nan
        elif op == EWM_MEAN:
            to[i] = mean
        elif op == EWM_SUM:
            to[i] = mean * weight
        elif op == EWM_VOL:
            to[i] = math.sqrt(mean * mean + m2 / weight)
        else:
            to[i] = math.sqrt(m2 / weight)
    memory[_WEIGHT], memory[_MEAN], memory[_M2], memory[_SEEN] = weight, mean, m2, seen
