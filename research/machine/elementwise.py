"""Operators without memory, over the n rows of a tile. Each kernel reads operand registers and writes `to`.

The kernels that are inlined are so small that the call would cost more than the work of a live row.
"""

import math
from typing import Final

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import (
    ABS,
    ADD,
    COALESCE,
    COS,
    DIV,
    EQ,
    EXP,
    FLOOR,
    GE,
    GT,
    IF_GT,
    KNOWN,
    LE,
    LOG,
    LOG1P,
    LOG_NORMAL,
    LT,
    MAX2,
    MIN2,
    MUL,
    NE,
    NEG,
    RATIO,
    SIGN,
    SIN,
    SQRT,
    SUB,
    TANH,
)

_LOG_ROOT_2_PI: Final = 0.5 * math.log(2.0 * math.pi)


@njit_inner(error_model="numpy")
def unary(op, a, to, n):  # type: ignore[no-untyped-def]
    if op == NEG:
        for i in range(n):
            to[i] = -a[i]
    elif op == ABS:
        for i in range(n):
            to[i] = abs(a[i])
    elif op == SIGN:
        for i in range(n):
            to[i] = 1.0 if a[i] > 0.0 else (-1.0 if a[i] < 0.0 else a[i])
    elif op == FLOOR:
        for i in range(n):
            to[i] = np.floor(a[i])
    elif op == SQRT:
        for i in range(n):
            to[i] = math.sqrt(a[i])
    elif op == KNOWN:
        for i in range(n):
            to[i] = 1.0 if a[i] == a[i] else 0.0
    else:
        _transcendental(op, a, to, n)


@njit_inner(error_model="numpy")
def _transcendental(op, a, to, n):  # type: ignore[no-untyped-def]
    if op == LOG:
        for i in range(n):
            to[i] = math.log(a[i]) if a[i] > 0.0 else np.nan
    elif op == LOG1P:
        for i in range(n):
            to[i] = math.log1p(a[i]) if a[i] > -1.0 else np.nan
    elif op == EXP:
        for i in range(n):
            to[i] = math.exp(a[i])
    elif op == TANH:
        for i in range(n):
            to[i] = math.tanh(a[i])
    elif op == SIN:
        for i in range(n):
            to[i] = math.sin(a[i]) if a[i] - a[i] == 0.0 else np.nan
    elif op == COS:
        for i in range(n):
            to[i] = math.cos(a[i]) if a[i] - a[i] == 0.0 else np.nan


@njit(nogil=True, error_model="numpy", inline="always")
def binary(op, a, b, to, n):  # type: ignore[no-untyped-def]
    if op == ADD:
        for i in range(n):
            to[i] = a[i] + b[i]
    elif op == SUB:
        for i in range(n):
            to[i] = a[i] - b[i]
    elif op == MUL:
        for i in range(n):
            to[i] = a[i] * b[i]
    elif op == DIV:
        for i in range(n):
            to[i] = a[i] / b[i] if b[i] != 0.0 else np.nan
    elif op == RATIO:
        for i in range(n):
            to[i] = a[i] / b[i] if b[i] != 0.0 else 0.0 * a[i]
    elif op == MIN2:
        for i in range(n):
            to[i] = a[i] if a[i] < b[i] or a[i] != a[i] else b[i]
    elif op == MAX2:
        for i in range(n):
            to[i] = a[i] if a[i] > b[i] or a[i] != a[i] else b[i]
    elif op == COALESCE:
        for i in range(n):
            to[i] = a[i] if a[i] == a[i] else b[i]
    else:
        _power_or_compare(op, a, b, to, n)


@njit_inner(error_model="numpy")
def _power_or_compare(op, a, b, to, n):  # type: ignore[no-untyped-def]
    """A comparison is 1 or 0; NaN where an operand is NaN."""
    if op in (EQ, NE):
        same = 1.0 if op == EQ else 0.0
        for i in range(n):
            to[i] = same if a[i] == b[i] else 1.0 - same
    elif op <= LE and op >= GT:
        is_less, at_equal = op in (LT, LE), 1.0 if op in (GE, LE) else 0.0
        for i in range(n):
            to[i] = at_equal if a[i] == b[i] else (1.0 if (a[i] < b[i]) == is_less else 0.0)
    else:
        for i in range(n):
            to[i] = math.pow(a[i], b[i])
    for i in range(n):
        to[i] = np.nan if a[i] != a[i] or b[i] != b[i] else to[i]


@njit_inner(error_model="numpy")
def choose(op, a, b, c, d, to, n):  # type: ignore[no-untyped-def]
    if op == IF_GT:
        for i in range(n):
            chosen = c[i] if a[i] > b[i] else d[i]
            to[i] = np.nan if a[i] != a[i] or b[i] != b[i] else chosen
    elif op == LOG_NORMAL:
        for i in range(n):
            away = (a[i] - b[i]) / c[i]
            to[i] = -0.5 * away * away - math.log(c[i]) - _LOG_ROOT_2_PI if c[i] > 0.0 else np.nan
    else:  # CLIP of a between b and c
        for i in range(n):
            floored = a[i] if a[i] > b[i] or a[i] != a[i] else b[i]
            to[i] = floored if floored < c[i] or floored != floored else c[i]
