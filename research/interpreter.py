"""The machine: a flat program of instructions, walked over tiles of rows. One row is a tile of one: batch and live are
the same compiled function.

An instruction reads and writes registers, which are rows of a small matrix that holds one tile; dispatch is paid once
per instruction and tile. Operators with memory keep it in one flat state array. NaN is "not known": a fresh state is
all NaN, so that windows that are not full yet, windows with a NaN in them and rows before a restart need no case of
their own.

Rolling windows of w bars use the two-block scheme of van Herk ("A fast algorithm for local minimum and maximum filters
on rectangular and octagonal kernels", Pattern Recognition Letters 13(7), 1992), with blocks that begin where
bar_index % w == 0:

  window that ends at offset o of a block = the block before from o + 1 on (a suffix) + this block up to o (a prefix)

The prefix is carried forward, the suffixes of a block are made from its values in one backward pass when it ends. That
is O(1) per row, nothing is ever subtracted again, so nothing drifts, and the bits depend on the w values of the window
and on bar_index alone: neither on where the run began, nor on how its rows were cut.

Sums and moments are taken of x - shift, where shift is a value of the window itself: the first of this block, the last
of the block before. A constant window thus has exactly that constant as its mean and 0 as its deviation, and
sum (x - shift)^2 <= (n + 1) M2 bounds the cancellation in M2 = sum (x - mean)^2. The two blocks are merged as in Chan,
Golub, LeVeque ("Algorithms for computing the sample variance", The American Statistician 37(3), 1983).

A row that says `has_gap` gives NaN, and it and any step of bar_index other than +1 restart all windows.
"""

import math

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy.typing import NDArray

from core.kernels import njit

TILE = 512
"""Rows per tile of a batch: 512 doubles are 4 KiB, so the registers in use stay in the L1 and L2 caches."""

# Columns of the code matrix. ARG is the window of a rolling operator, the column of LOAD, the feature of EMIT; an
# operator's memory is state[STATE:STATE_END].
OP, OUT, A, B, C, D, ARG, STATE, STATE_END, CODE_WIDTH = range(10)
# The clock array: index of the last bar, row of `x` that holds has_gap (-1: none), whether the state is all NaN.
LAST, GAP_ROW, IS_BLANK, CLOCK_SIZE = range(4)
NO_BAR = -(2**62)
SCRATCH = 2  # the first registers are for the kernels' own use
SHORT = 12
"""Windows of so many bars or fewer are added up anew at each row: their blocks would be all beginnings and ends. Also
how much longer than a tile the registers are, for the rows before it."""

LOAD, EMIT = range(2)
NEG, ABS, SIGN, LOG, LOG1P, EXP, SQRT = range(10, 17)
ADD, SUB, MUL, DIV, RATIO, MIN2, MAX2, COALESCE = range(20, 28)
GT, GE, LT, LE, EQ, NE = range(30, 36)
IF_GT, CLIP = range(40, 42)
LAG, DELTA, SUM, MEAN, STD, ZSCORE, MIN, MAX = range(50, 58)

# State of a rolling window: running sums of this block, its shift and that of the block before, then the values of this
# block (w) and one or two arrays (w) over the suffixes of the block before.
_ACC, _ACC2, _SHIFT, _OLD_SHIFT, _HEAD = range(5)
_ROUNDING = 1e-13  # a window that varies by less of its mean is constant but for rounding: its z-scores would be noise


def state_size(opcode: int, window: int) -> int:
    """How many doubles of state an instruction keeps."""
    if opcode in (LAG, DELTA):
        return window
    if opcode < LAG or window <= SHORT:
        return max(window - 1, 0)
    return _HEAD + (3 if opcode in (STD, ZSCORE) else 2) * window


@njit(cache=True, nogil=True, error_model="numpy")
def walk(
    code: NDArray[np.int64],
    state: NDArray[np.float64],
    clock: NDArray[np.int64],
    registers: NDArray[np.float64],
    x: NDArray[np.float64],
    bar_index: NDArray[np.int64],
    first_row: int,
    take: NDArray[np.int64],
    taken: int,
    out: NDArray[np.float64],
) -> int:
    """Evaluate rows in order, going on from the state that the rows before left.

    `code` (instructions, CODE_WIDTH); `state`, `clock` and `registers` (registers, tile + SHORT) change in place; `x`
    (columns, n) and `bar_index` (n,) are the rows, numbered from `first_row`; `take` (m,), ascending, holds the numbers
    of the rows whose features go to `out` (features, m), of which `taken` are done. Returns how many are done then.
    The caller vouches for the code and the shapes: `Program` and `Stream` are the only ones.
    """
    registers, state = _borrowed(registers), _borrowed(state)
    n, tile = bar_index.size, registers.shape[1] - SHORT
    begin = np.int64(0)  # not a literal, which would compile everything below once more
    while begin < n:
        has_gap = clock[GAP_ROW] >= 0 and x[clock[GAP_ROW], begin] != 0.0
        if (has_gap or bar_index[begin] != clock[LAST] + 1) and clock[IS_BLANK] == 0:
            state[:] = np.nan
            clock[IS_BLANK] = 1
        end = begin + 1 if has_gap else _run_end(begin, min(begin + tile, n), clock[GAP_ROW], x, bar_index)
        stop = taken
        while stop < take.size and take[stop] < first_row + end:
            stop += 1
        if has_gap:
            for i in range(taken, stop):
                out[:, i] = np.nan
        else:
            _run_tile(code, state, registers, x, begin, end, bar_index[begin], first_row, take, taken, stop, out)
            clock[IS_BLANK] = 0
        clock[LAST] = bar_index[end - 1]
        begin, taken = end, stop
    return taken


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer to doubles."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float64)(types.intp), generate  # type: ignore[no-untyped-call]


@njit(cache=True, nogil=True, error_model="numpy")
def _borrowed(array):  # type: ignore[no-untyped-def]
    """A view that owns nothing: counting references to its slices would take a live row more than half of its time."""
    return carray(_pointer(array.ctypes.data), array.shape)  # type: ignore[call-arg]


@njit(cache=True, nogil=True, error_model="numpy")
def _run_end(begin, limit, gap_row, x, bar_index):  # type: ignore[no-untyped-def]
    """The end of the run of neighbouring bars without a gap that starts at `begin`."""
    end = begin + 1
    while end < limit and bar_index[end] == bar_index[end - 1] + 1 and (gap_row < 0 or x[gap_row, end] == 0.0):
        end += 1
    return end


@njit(nogil=True, error_model="numpy", inline="always")
def _run_tile(code, state, registers, x, begin, end, first_index, first_row, take, taken, stop, out):  # type: ignore[no-untyped-def]
    """All instructions over the rows begin..end of `x`, neighbouring bars from `first_index` on."""
    rows = end - begin
    for line in range(code.shape[0]):
        op, arg = code[line, OP], code[line, ARG]
        to, a, b = registers[code[line, OUT]], registers[code[line, A]], registers[code[line, B]]
        if op == LOAD:
            for i in range(rows):
                to[i] = x[arg, begin + i]
        elif op == EMIT:
            for i in range(taken, stop):
                out[arg, i] = a[take[i] - first_row - begin]
        elif op <= SQRT:
            _unary(op, a, to, rows)
        elif op <= NE:
            _binary(op, a, b, to, rows)
        elif op <= CLIP:
            _choose(op, a, b, registers[code[line, C]], registers[code[line, D]], to, rows)
        else:
            memory = state[code[line, STATE] : code[line, STATE_END]]
            if op >= SUM and arg <= SHORT:
                _short(op, a, to, rows, memory, arg, registers[0])
            else:
                _remember(op, a, to, rows, memory, arg, first_index % arg, registers[0], registers[1])


@njit(cache=True, nogil=True, error_model="numpy")
def _unary(op, a, to, n):  # type: ignore[no-untyped-def]
    if op == NEG:
        for i in range(n):
            to[i] = -a[i]
    elif op == ABS:
        for i in range(n):
            to[i] = abs(a[i])
    elif op == SIGN:
        for i in range(n):
            to[i] = 1.0 if a[i] > 0.0 else (-1.0 if a[i] < 0.0 else a[i])
    elif op == SQRT:
        for i in range(n):
            to[i] = math.sqrt(a[i])
    elif op == LOG:
        for i in range(n):
            to[i] = math.log(a[i]) if a[i] > 0.0 else np.nan
    elif op == LOG1P:
        for i in range(n):
            to[i] = math.log1p(a[i]) if a[i] > -1.0 else np.nan
    else:
        for i in range(n):
            to[i] = math.exp(a[i])


@njit(nogil=True, error_model="numpy", inline="always")
def _binary(op, a, b, to, n):  # type: ignore[no-untyped-def]
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
        _compare(op, a, b, to, n)


@njit(cache=True, nogil=True, error_model="numpy")
def _compare(op, a, b, to, n):  # type: ignore[no-untyped-def]
    """1 or 0, NaN where an operand is NaN."""
    if op in (EQ, NE):
        same = 1.0 if op == EQ else 0.0
        for i in range(n):
            to[i] = same if a[i] == b[i] else 1.0 - same
    else:
        is_less, at_equal = op in (LT, LE), 1.0 if op in (GE, LE) else 0.0
        for i in range(n):
            to[i] = at_equal if a[i] == b[i] else (1.0 if (a[i] < b[i]) == is_less else 0.0)
    for i in range(n):
        to[i] = np.nan if a[i] != a[i] or b[i] != b[i] else to[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _choose(op, a, b, c, d, to, n):  # type: ignore[no-untyped-def]
    if op == IF_GT:
        for i in range(n):
            chosen = c[i] if a[i] > b[i] else d[i]
            to[i] = np.nan if a[i] != a[i] or b[i] != b[i] else chosen
    else:  # CLIP of a between b and c
        for i in range(n):
            floored = a[i] if a[i] > b[i] or a[i] != a[i] else b[i]
            to[i] = floored if floored < c[i] or floored != floored else c[i]


@njit(nogil=True, error_model="numpy", inline="always")
def _remember(op, x, to, n, memory, window, offset, mean, m2):  # type: ignore[no-untyped-def]
    """Operators with memory over n rows, block by block. `offset` is the place of the first row in its block.

    `mean` and `m2` are scratch.
    """
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
            _spread(op, values, results, memory, window, offset, mean, m2)
            if is_whole:
                _spread_suffixes(memory, window)
        else:
            _extreme(1.0 if op == MAX else -1.0, values, results, memory, window, offset)
            if is_whole:
                _extreme_suffixes(memory, window)
        begin, offset = end, 0


@njit(cache=True, nogil=True, error_model="numpy")
def _short(op, x, to, n, memory, window, line):  # type: ignore[no-untyped-def]
    """Rolling operators over few bars. Memory holds the last window - 1 values, oldest first; `line` is scratch."""
    reach = window - 1
    for i in range(reach):
        line[i] = memory[i]
    for i in range(n):
        line[reach + i] = x[i]
    for i in range(reach):
        memory[i] = line[n + i]
    if op <= ZSCORE:
        for i in range(n):
            total = square = x[i] - x[i]  # 0, or NaN if x is not finite
            for k in range(i, i + reach):
                away = line[k] - x[i]
                total += away
                square += away * away
            if op == SUM:
                to[i] = window * x[i] + total
            elif op == MEAN:
                to[i] = x[i] + total / window
            else:
                mean = total / window
                to[i] = _standard(op, -mean, square - total * mean, x[i] + mean, window)
    else:
        sign = 1.0 if op == MAX else -1.0
        for i in range(n):
            best = sign * x[i]
            for k in range(i, i + reach):
                value = sign * line[k]
                best = value if value > best or value != value else best
            to[i] = sign * best


@njit(cache=True, nogil=True, error_model="numpy")
def _standard(op, away, m2, mean, window):  # type: ignore[no-untyped-def]
    """Deviation or z-score of a value `away` from the mean, where m2 is the sum of squares about the mean."""
    if op == STD:
        return math.sqrt(m2 / window) if not m2 <= 0.0 else 0.0
    level = _ROUNDING * mean
    return away / math.sqrt(m2 / window) if not m2 <= level * level * window else 0.0


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
        memory[_ACC], memory[_SHIFT] = 0.0, x[0]
    acc, shift = memory[_ACC], memory[_SHIFT]
    values, suffix = memory[_HEAD + offset :], memory[_HEAD + window + offset :]
    for i in range(x.size):
        values[i] = x[i]
        acc += x[i] - shift
        to[i] = acc
    memory[_ACC] = acc
    between, left = memory[_OLD_SHIFT] - shift, window - offset - 1
    for i in range(min(x.size, left)):
        to[i] += suffix[i + 1] + (left - i) * between
    if op == SUM:
        for i in range(x.size):
            to[i] = window * shift + to[i]
    else:
        for i in range(x.size):
            to[i] = shift + to[i] / window


@njit(cache=True, nogil=True, error_model="numpy")
def _total_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values, suffix = memory[_HEAD : _HEAD + window], memory[_HEAD + window :]
    shift, acc = values[window - 1], 0.0
    for i in range(window - 1, -1, -1):
        acc += values[i] - shift
        suffix[i] = acc
    memory[_OLD_SHIFT] = shift


@njit(cache=True, nogil=True, error_model="numpy")
def _spread(op, x, to, memory, window, offset, mean, m2):  # type: ignore[no-untyped-def]
    """Deviation or z-score over rows of one block; means are relative to the shift."""
    if offset == 0:
        memory[_ACC], memory[_ACC2], memory[_SHIFT] = 0.0, 0.0, x[0]
    shift, rows = memory[_SHIFT], x.size
    values = memory[_HEAD + offset :]
    suffix_mean, suffix_m2 = memory[_HEAD + window + offset :], memory[_HEAD + 2 * window + offset :]
    acc, acc2 = memory[_ACC], memory[_ACC2]
    for i in range(rows):
        values[i] = x[i]
        away = x[i] - shift
        acc += away
        acc2 += away * away
        mean[i], m2[i] = acc, acc2
    memory[_ACC], memory[_ACC2] = acc, acc2
    between, left = memory[_OLD_SHIFT] - shift, window - offset - 1
    for i in range(rows):
        total = mean[i]
        mean[i] = total / (offset + i + 1)
        m2[i] -= total * mean[i]
    for i in range(min(rows, left)):
        apart = suffix_mean[i + 1] + between - mean[i]
        share = (left - i) / window
        mean[i] += apart * share
        m2[i] += suffix_m2[i + 1] + apart * apart * share * (offset + i + 1)
    for i in range(rows):
        to[i] = _standard(op, x[i] - shift - mean[i], m2[i], shift + mean[i], window)


@njit(cache=True, nogil=True, error_model="numpy")
def _spread_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values = memory[_HEAD : _HEAD + window]
    mean, m2 = memory[_HEAD + window : _HEAD + 2 * window], memory[_HEAD + 2 * window :]
    shift, acc, acc2 = values[window - 1], 0.0, 0.0
    for i in range(window - 1, -1, -1):
        away = values[i] - shift
        acc += away
        acc2 += away * away
        mean[i], m2[i] = acc, acc2
    for i in range(window):
        total = mean[i]
        mean[i] = total / (window - i)
        m2[i] -= total * mean[i]
    memory[_OLD_SHIFT] = shift


@njit(cache=True, nogil=True, error_model="numpy")
def _extreme(sign, x, to, memory, window, offset):  # type: ignore[no-untyped-def]
    """Maximum of sign * x over rows of one block, NaN if any is NaN; times sign it is the maximum or the minimum."""
    if offset == 0:
        memory[_ACC] = -np.inf
    best = memory[_ACC]
    values, suffix = memory[_HEAD + offset :], memory[_HEAD + window + offset :]
    for i in range(x.size):
        value = sign * x[i]
        values[i] = value
        best = value if value > best or value != value else best
        to[i] = best
    memory[_ACC] = best
    for i in range(min(x.size, window - offset - 1)):
        old = suffix[i + 1]
        to[i] = old if old > to[i] or old != old else to[i]
    for i in range(x.size):
        to[i] = sign * to[i]


@njit(cache=True, nogil=True, error_model="numpy")
def _extreme_suffixes(memory, window):  # type: ignore[no-untyped-def]
    values, suffix, best = memory[_HEAD : _HEAD + window], memory[_HEAD + window :], -np.inf
    for i in range(window - 1, -1, -1):
        best = values[i] if values[i] > best or values[i] != values[i] else best
        suffix[i] = best
