"""The machine: a flat program of instructions, walked over tiles of rows. One row is a tile of one: batch and live are
the same compiled function.

An instruction reads and writes registers, which are rows of a small matrix that holds one tile; dispatch is paid once
per instruction and tile. Operators with memory keep it in one flat state array. NaN is "not known": a fresh state is
all NaN, so that windows that are not full yet, windows with a NaN in them and rows before a restart need no case of
their own.

A row that says `has_gap` gives NaN, and it and any step of bar_index other than +1 restart all windows.
"""

import numpy as np
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic
from numpy.typing import NDArray

from core.kernels import njit, njit_inner
from research.machine.elementwise import binary, choose, unary
from research.machine.fractal import fractional_difference, remember_hop
from research.machine.hmm import filter_states
from research.machine.microprice import learn_microprice
from research.machine.opcodes import (
    ARG,
    AUTOCORR,
    BETA,
    CLIP,
    DELTA,
    EMIT,
    EWM_SUM,
    FRACDIFF,
    HMM2,
    HMM4,
    HURST,
    KNOWN,
    LATEST,
    LOAD,
    MAX,
    MICROPRICE,
    MIN,
    NE,
    OP,
    OUT,
    RUN,
    SHORT,
    STATE,
    STATE_END,
    STATE_OF,
    SUM,
    VPIN,
    ZSCORE,
    A,
    B,
    C,
    D,
)
from research.machine.recursive import remember_all
from research.machine.rolling import lag, of_sums, sums
from research.machine.rolling_extremes import extremes
from research.machine.rolling_moments import remember_moments, self_correlation
from research.machine.rolling_order import latest, remember_order, run_length
from research.machine.rolling_short import short_extremes, short_sums
from research.machine.volume_buckets import fill_buckets

TILE = 512
"""Rows per tile of a batch: 512 doubles are 4 KiB, so the registers in use stay in the L1 and L2 caches."""

# The clock array: index of the last bar, row of `x` that holds has_gap (-1: none), whether the state is all NaN.
LAST, GAP_ROW, IS_BLANK, CLOCK_SIZE = range(4)
NO_BAR = -(2**62)
TOTALS, SQUARES, SHIFTS, LINE, SCRATCH = 0, 1, 2, 3, 8
"""The first registers are for the kernels' own use: what `sums` finds, and from LINE on whatever they need."""


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
    registers, state, out = _borrowed(registers), _borrowed(state), _borrowed(out)
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


@njit(nogil=True, error_model="numpy", inline="always")
def _statistic(op, a, b, c, to, rows, memory, window, first_index, lines):  # type: ignore[no-untyped-def]
    offset = first_index % max(window, 1)
    if op == RUN:
        run_length(a, to, rows, memory, window)
    elif op == LATEST:
        latest(a, b, to, rows, memory, window)
    elif op == MICROPRICE:
        learn_microprice(a, b, to, rows, memory, window, first_index)
    elif op == VPIN:
        fill_buckets(a, b, c, to, rows, memory, window)
    elif op == FRACDIFF:
        fractional_difference(a, b, to, rows, memory, window, offset)
    elif op >= HURST:
        remember_hop(op, a, to, rows, memory, window, first_index, lines)
    elif op >= EWM_SUM:
        remember_all(op, a, to, rows, memory, window)
    elif op <= BETA:
        remember_moments(op, a, b, to, rows, memory, window, offset)
    elif op == AUTOCORR:
        self_correlation(a, to, rows, memory, window, first_index, lines[0])
    else:
        remember_order(op, a, b, to, rows, memory, window, offset)


@njit(nogil=True, error_model="numpy", inline="always")
def _sums_or_extremes(op, a, to, rows, memory, window, first_index, registers):  # type: ignore[no-untyped-def]
    """TOTAL and MOMENTS leave what they find to the instructions that follow at once, in scratch registers."""
    total, square, shift = registers[TOTALS], registers[SQUARES], registers[SHIFTS]
    offset, lines = first_index % window, registers[LINE:SCRATCH]
    if op >= MIN and window <= SHORT:
        short_extremes(op, a, to, rows, memory, window, lines)
    elif op >= MIN:
        extremes(op, a, to, rows, memory, window, offset, lines[0])
    elif window <= SHORT:
        short_sums(op, a, rows, memory, window, total, square, shift, lines)
    else:
        sums(op, a, rows, memory, window, offset, total, square, shift)


@intrinsic
def _pointer(typing_context, address):  # type: ignore[no-untyped-def]
    """An address as a pointer to doubles."""

    def generate(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float64)(types.intp), generate  # type: ignore[no-untyped-call]


@njit_inner(error_model="numpy")
def _borrowed(array):  # type: ignore[no-untyped-def]
    """A view that owns nothing: counting references to its slices would take a live row more than half of its time."""
    return carray(_pointer(array.ctypes.data), array.shape)  # type: ignore[call-arg]


@njit_inner(error_model="numpy")
def _run_end(begin, limit, gap_row, x, bar_index):  # type: ignore[no-untyped-def]
    """The end of the run of neighbouring bars without a gap that starts at `begin`."""
    end = begin + 1
    while end < limit and bar_index[end] == bar_index[end - 1] + 1 and (gap_row < 0 or x[gap_row, end] == 0.0):
        end += 1
    return end


@njit(nogil=True, error_model="numpy", inline="always")
def _emit(values, to, take, first_row, rows):  # type: ignore[no-untyped-def]
    if take.size == rows:
        for i in range(rows):
            to[i] = values[i]
    else:
        for i in range(take.size):
            to[i] = values[take[i] - first_row]


@njit(nogil=True, error_model="numpy", inline="always")
def _run_tile(code, state, registers, x, begin, end, first_index, first_row, take, taken, stop, out):  # type: ignore[no-untyped-def]
    """All instructions over the rows begin..end of `x`, neighbouring bars from `first_index` on."""
    rows, lines = end - begin, registers[LINE:SCRATCH]
    for line in range(code.shape[0]):
        op, arg = code[line, OP], code[line, ARG]
        to, a, b = registers[code[line, OUT]], registers[code[line, A]], registers[code[line, B]]
        if op == LOAD:
            for i in range(rows):
                to[i] = x[arg, begin + i]
        elif op == EMIT:
            _emit(a, out[arg, taken:stop], take[taken:stop], first_row + begin, rows)
        elif op <= KNOWN:
            unary(op, a, to, rows)
        elif op <= NE:
            binary(op, a, b, to, rows)
        elif op <= CLIP:
            choose(op, a, b, registers[code[line, C]], registers[code[line, D]], to, rows)
        elif op >= SUM and op <= ZSCORE:
            of_sums(op, a, to, rows, arg, registers[TOTALS], registers[SQUARES], registers[SHIFTS])
        elif op == STATE_OF:
            for i in range(rows):
                to[i] = registers[LINE + arg, i]
        else:
            memory = state[code[line, STATE] : code[line, STATE_END]]
            if op >= HMM2:
                if op <= HMM4:
                    filter_states(code, line, registers, LINE, rows, memory)
            elif op > MAX:
                _statistic(op, a, b, registers[code[line, C]], to, rows, memory, arg, first_index, lines)
            elif op <= DELTA:
                lag(op, a, to, rows, memory, arg, first_index % arg)
            else:
                _sums_or_extremes(op, a, to, rows, memory, arg, first_index, registers)
