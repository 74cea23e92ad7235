"""A hidden Markov model of two to four states: its forward filter, an operator of the language.

In state k an observation x has the density f_k. The filter needs the log likelihood ratios log f_k(x) - log f_0(x)
alone, so that any densities, and several observations at once (their ratios added), are a matter of the feature's text.
It looks back only: smoothed probabilities would tell today's regime from tomorrow's bars (Rabiner, "A tutorial on
hidden Markov models and selected applications in speech recognition", Proceedings of the IEEE 77(2), 1989, section
III.A). Its numbers are fitted in fitting/regimes.py.
"""

import math

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import HMM2, A, D

_OPERANDS = D - A + 1
_SQUARINGS = 64  # 2^64 steps of a chain: beyond any memory it has


@njit_inner(error_model="numpy")
def filter_states(code, line, registers, first, rows, memory):  # type: ignore[no-untyped-def]
    """P(state k | observations so far) for k = 1, 2, … to the registers `first`, `first` + 1, … over `rows` rows.

    The instruction at `line` and those below it name the registers of its operands: a ratio for each state but the
    first, then the chances of moves (`_read_moves`). Begins from the chain's stationary distribution. Where a ratio is
    not finite the chain moves on unobserved, and the result is NaN in that row alone.
    """
    states = code[line, 0] - HMM2 + 2
    p, ahead = memory[:states], memory[states : 2 * states]
    moves = memory[2 * states :].reshape((states, states))
    _read_moves(code, line, registers, moves)
    if p[0] != p[0]:
        long_run = stationary(moves)
        for k in range(states):  # assigned at once, numba compiles the text of an error too, for 2 s
            p[k] = long_run[k]
    for i in range(rows):
        for j in range(states):
            chance = 0.0
            for k in range(states):
                chance += p[k] * moves[k, j]
            ahead[j] = chance
        is_known = _weigh(code, line, registers, i, ahead, p)
        for k in range(1, states):
            registers[first + k - 1, i] = p[k] if is_known else np.nan


@njit_inner(error_model="numpy")
def _weigh(code, line, registers, i, ahead, p):  # type: ignore[no-untyped-def]
    """Bayes' rule from the prediction `ahead` to `p`; False, and the prediction, where a ratio is not finite.

    Weights are taken against the likeliest state's, so that none overflows.
    """
    states, most, is_known = p.size, 0.0, True
    for k in range(1, states):
        odds = registers[code[line, A + k - 1], i]
        is_known = is_known and odds - odds == 0.0
        most = max(most, odds)
    total = 0.0
    if is_known:
        for k in range(states):
            short = most - (registers[code[line, A + k - 1], i] if k > 0 else 0.0)
            p[k] = ahead[k] * (math.exp(-short) if short > 0.0 else 1.0)
            total += p[k]
    per_total = 1.0 / total
    for k in range(states):
        p[k] = p[k] * per_total if total > 0.0 else ahead[k]
    return is_known


@njit_inner(error_model="numpy")
def _read_moves(code, line, registers, moves):  # type: ignore[no-untyped-def]
    """The chances of moves (states, states) from an instruction's operands: row by row that of staying, then those of
    the other states in order but for the last, which has what is left of 1."""
    states = moves.shape[0]
    operand = states - 1
    for k in range(states):
        left = 1.0
        for place in range(states - 1):
            chance = registers[code[line + operand // _OPERANDS, A + operand % _OPERANDS], 0]
            moves[k, _named(k, place)] = chance
            left, operand = left - chance, operand + 1
        moves[k, _named(k, states - 1)] = max(left, 0.0)


@njit_inner(error_model="numpy")
def _named(k, place):  # type: ignore[no-untyped-def]
    """The state that a place in the row of state k is about: k itself first, then the others in order."""
    if place == 0:
        return k
    return place - 1 if place <= k else place


@njit(cache=True, nogil=True, error_model="numpy")
def stationary(moves):  # type: ignore[no-untyped-def]
    """Where a chain with chances `moves` (states, states) is in the long run, begun in any state alike: (states,).

    By squaring the chain that stays put every other time, which has the same answer and no period.
    """
    states = moves.shape[0]
    walk, twice, p = np.empty((states, states)), np.empty((states, states)), np.zeros(states)
    for k in range(states):
        for j in range(states):
            walk[k, j] = 0.5 * moves[k, j] + (0.5 if j == k else 0.0)
    for _ in range(_SQUARINGS):
        for k in range(states):
            total = 0.0
            for j in range(states):
                twice[k, j] = 0.0
                for m in range(states):
                    twice[k, j] += walk[k, m] * walk[m, j]
                total += twice[k, j]
            for j in range(states):
                twice[k, j] /= total
        walk, twice = twice, walk
    for k in range(states):
        for j in range(states):
            p[j] += walk[k, j] / states
    return p
