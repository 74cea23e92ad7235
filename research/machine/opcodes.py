"""The numbers that instructions are made of, and how much memory each operator keeps.

An instruction is a row of the code matrix. OP names the operator, OUT the register of its result, A to D those of its
operands; ARG is the window of a rolling operator, the column of LOAD, the feature of EMIT; an operator's memory is
state[STATE:STATE_END]. Operands beyond four are named by MORE instructions that follow.
"""

from typing import Final

OP, OUT, A, B, C, D, ARG, STATE, STATE_END, CODE_WIDTH = range(10)

LOAD, EMIT = range(2)
NEG, ABS, SIGN, FLOOR, SQRT, LOG, LOG1P, EXP, TANH, SIN, COS, KNOWN = range(8, 20)
ADD, SUB, MUL, DIV, RATIO, MIN2, MAX2, COALESCE, POWER = range(20, 29)
GT, GE, LT, LE, EQ, NE = range(30, 36)
IF_GT, LOG_NORMAL, CLIP = range(40, 43)
LAG, DELTA, TOTAL, MOMENTS, SUM, MEAN, STD, ZSCORE, MIN, MAX = range(50, 60)
ARGMIN, ARGMAX, DECAY, RUN, SKEW, KURT = range(60, 66)
COV, CORR, BETA, AUTOCORR = range(70, 74)
RANK, QUANTILE, LATEST = range(80, 83)
EWM_SUM, EWM_MEAN, EWM_STD, EWM_VOL = range(90, 94)
HURST, DFA, SAMPEN, PERMEN, SHANNON, HIGUCHI = range(100, 106)
FRACDIFF, VPIN, MICROPRICE = range(110, 113)
HMM2, HMM3, HMM4, STATE_OF, MORE = range(120, 125)

HOPS: Final = 16
"""How often within its window an operator that costs O(w) or more is computed; in between its value is held."""

HALF_LIVES: Final = 7
"""Of exponential weights until their statistics are known: 2^-7 < 1 % of the weight is then on bars that a run from
further back would have seen and this one has not."""

SHORT: Final = 64
"""Sums and extremes of windows up to so many bars are made anew for each tile (rolling_short.py): the blocks of the
other scheme would be all beginnings and ends. Also how much longer than a tile registers are, for the rows before."""

# State of a rolling window: running values of this block (up to HEAD numbers), then arrays of one value per bar of the
# window: the values of this block, and what is kept of the suffixes of the block before.
HEAD: Final = 8
_ARRAYS: Final = {
    **dict.fromkeys((TOTAL, MIN, MAX, DECAY), 2),
    **dict.fromkeys((MOMENTS, ARGMIN, ARGMAX), 3),
    **dict.fromkeys((SKEW, KURT), 5),
    **dict.fromkeys((COV, CORR, BETA), 7),
    **dict.fromkeys((RANK, QUANTILE, VPIN), 2),
    **dict.fromkeys((HURST, DFA, SAMPEN, PERMEN, SHANNON, HIGUCHI, FRACDIFF), 3),
}
MICRO_STATES: Final = 5
"""Of the book, for the micro-price, beside balance: fifths of the imbalance."""
# Operators that keep as much whatever their window is.
_FEW: Final = {RUN: 3, LATEST: 3, **dict.fromkeys((EWM_SUM, EWM_MEAN, EWM_STD, EWM_VOL), 4)}


def state_size(opcode: int, window: int) -> int:
    """How many doubles of state an instruction keeps."""
    if opcode in (LAG, DELTA):
        return window
    if opcode in _FEW:
        return _FEW[opcode]
    if opcode >= HMM2:
        states = opcode - HMM2 + 2
        return states * (states + 2)
    if opcode == MICROPRICE:
        return HEAD + MICRO_STATES + 2 * window
    if opcode == AUTOCORR:
        return state_size(CORR, window - 1) + 1
    if opcode < LAG or SUM <= opcode <= ZSCORE:
        return 0
    if opcode <= MAX and window <= SHORT:
        return window - 1
    return HEAD + _ARRAYS[opcode] * window
