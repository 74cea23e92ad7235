"""Stoikov's micro-price: what the mid is expected to gain from here on, given the imbalance, learnt from w bars.

Stoikov ("The micro-price: a high-frequency estimator of future prices", Quantitative Finance 18(12), 2018): the state
of the book is a Markov chain, and the adjustment g = lim E[M(t + k) - M(t) | state] solves g = r + P g, where r is the
expected move of one step and P the chain's transitions. Up and down are alike (the paper's symmetrised data): the
imbalances I and -I are one state with g of opposite sign, and a balanced book has g = 0.

Here the states are |I| rounded to fifths, bars are the steps, and the spread is not part of the state. One step back to
balance without a move is added to each state, so that what was never seen has g = 0 and g is finite.
"""

import numpy as np

from core.kernels import njit, njit_inner
from research.machine.opcodes import HEAD, HOPS, MICRO_STATES

_KNOWN = 0
_WIDE = MICRO_STATES + 2  # a row of the system: counts of where a state leads, its expected move, how often it was left


@njit_inner(error_model="numpy")
def learn_microprice(imbalance, move, to, n, memory, window, first_index):  # type: ignore[no-untyped-def]
    """The adjustment in the unit of `move` over n rows; learnt where bar_index % (w / 16) == 0 and held in between.

    Memory: how many rows of the window are known, the adjustments by state, then rings of both operands.
    """
    table, rings = memory[HEAD : HEAD + MICRO_STATES], memory[HEAD + MICRO_STATES :]
    books, moves = rings[:window], rings[window:]
    hop, place = max(window // HOPS, 1), first_index % window
    known = 0 if memory[_KNOWN] != memory[_KNOWN] else int(memory[_KNOWN])
    for i in range(n):
        known -= int(books[place] - books[place] + moves[place] - moves[place] == 0.0)
        books[place], moves[place] = imbalance[i], move[i]
        known += int(books[place] - books[place] + moves[place] - moves[place] == 0.0)
        place = place + 1 if place + 1 < window else 0
        if (first_index + i) % hop == 0:
            table[:] = np.nan
            if known == window:
                _learn(books, moves, place, window, table)
        to[i] = _sign(imbalance[i]) * _at(table, _state(imbalance[i])) if imbalance[i] == imbalance[i] else np.nan
    memory[_KNOWN] = known


@njit_inner(error_model="numpy")
def _learn(books, moves, oldest, window, table):  # type: ignore[no-untyped-def]
    """Count the window's transitions, from the oldest bar on, and solve for `table`."""
    system = np.zeros((MICRO_STATES, _WIDE))
    before = oldest
    for _ in range(window - 1):
        here = before + 1 if before + 1 < window else 0
        state, sign = _state(books[before]), _sign(books[before])
        if state > 0:
            row = system[state - 1]
            row[MICRO_STATES] += sign * moves[here]
            row[MICRO_STATES + 1] += 1.0
            if _state(books[here]) > 0:
                row[_state(books[here]) - 1] += sign * _sign(books[here])
        before = here
    for k in range(MICRO_STATES):
        left = system[k, MICRO_STATES + 1] + 1.0  # and once to balance
        for j in range(MICRO_STATES + 1):
            system[k, j] /= left if j == MICRO_STATES else -left
        system[k, k] += 1.0
    _solve(system, table)


@njit_inner(error_model="numpy")
def _solve(system, to):  # type: ignore[no-untyped-def]
    """Gauss' elimination; the diagonal dominates, so nothing need be swapped. `system` (m, m + 2) is used up."""
    for k in range(MICRO_STATES):
        for row in range(k + 1, MICRO_STATES):
            factor = system[row, k] / system[k, k]
            for j in range(k, MICRO_STATES + 1):
                system[row, j] -= factor * system[k, j]
    for k in range(MICRO_STATES - 1, -1, -1):
        rest = system[k, MICRO_STATES]
        for j in range(k + 1, MICRO_STATES):
            rest -= system[k, j] * to[j]
        to[k] = rest / system[k, k]


@njit(nogil=True, error_model="numpy", inline="always")
def _state(imbalance):  # type: ignore[no-untyped-def]
    """0 for a balanced book, then fifths of the way to a one-sided one."""
    return int(min(abs(imbalance), 1.0) * MICRO_STATES + 0.5)


@njit(nogil=True, error_model="numpy", inline="always")
def _sign(x):  # type: ignore[no-untyped-def]
    return 1.0 if x >= 0.0 else -1.0


@njit(nogil=True, error_model="numpy", inline="always")
def _at(table, state):  # type: ignore[no-untyped-def]
    """The adjustment of a state; that of balance is 0 where the others are known."""
    return table[state - 1] if state > 0 else 0.0 * table[0]
