"""Stoikov's micro-price as the paper writes it: G* = G1 + B G1 + B^2 G1 + … over symmetrised data.

One step back to balance is added to each state, as in research/machine/microprice.py: what was never seen has no
adjustment.
"""

from typing import Any

import numpy as np

from benchmarks.references.windows import Bars, Floats

_STATES = np.arange(-5, 6)
"""The imbalance in fifths."""


def state_of(imbalance: Floats) -> Any:
    return (np.sign(imbalance) * np.floor(np.abs(imbalance) * 5 + 0.5)).astype(int)


def adjustments(imbalance: Floats, moves: Floats) -> Floats:
    """G* (11,) by state from -1 to 1, of bars in order: steps with a move of the mid and steps without one apart."""
    states = state_of(imbalance)
    still, moved, gain = np.zeros((11, 11)), np.zeros((11, 11)), np.zeros(11)
    for before, here, move in zip(states[:-1], states[1:], moves[1:], strict=True):
        for sign in (1, -1):
            (moved if move else still)[5 + sign * before, 5 + sign * here] += 1
            gain[5 + sign * before] += sign * move
    still[_STATES != 0, 5] += 1  # the step back to balance, from where all begins anew
    moved[5, 5] += 1
    left = (still + moved).sum(axis=1)
    waiting = np.eye(11) - still / left[:, None]
    term, step = np.linalg.solve(waiting, gain / left), np.linalg.solve(waiting, moved / left[:, None])
    total = np.zeros(11)
    while np.abs(term).max() > 1e-15 * max(1.0, np.abs(total).max()):
        total, term = total + term, step @ term
    return total


def micro_price(b: Bars) -> float:
    """Of 900 s, learnt at the last bar whose index is a multiple of a sixteenth of it."""
    window, end = 4500, b.imbalance.size - int(b.bar_index[-1]) % (4500 // 16)
    table = adjustments(b.imbalance[end - window : end], 1e4 * b.r[end - window : end])
    return float(table[5 + state_of(b.imbalance[-1:])[0]])
