"""Seeded random numbers whose whole state is one word, so that a market's state can be saved, split and replayed.

SplitMix64 (Steele, Lea, Flood 2014): a Weyl sequence through a mixing function; passes BigCrush. Its state is an array
`state` of shape (1,), uint64, advanced in place. Draws depend on nothing else, not on threads or chunk lengths.
"""

import math

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31, _S11 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(11)
_UNIT = 1.0 / 9007199254740992.0  # 2**-53: one step of a double in [0, 1)


def seeded(*words: int) -> NDArray[np.uint64]:
    """A state from a seed and the names of its stream, independent for different words."""
    state = np.random.SeedSequence([word & (2**64 - 1) for word in words]).generate_state(1, np.uint64)
    return state.astype(np.uint64)


@njit(cache=True, nogil=True)
def uniform(state: NDArray[np.uint64]) -> float:
    """A uniform number in [0, 1)."""
    state[0] += _GOLDEN
    z = state[0]
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return float((z ^ (z >> _S31)) >> _S11) * _UNIT


@njit(cache=True, nogil=True)
def exponential(state: NDArray[np.uint64]) -> float:
    """An exponential number of mean 1."""
    return -math.log(1.0 - uniform(state))


@njit(cache=True, nogil=True)
def normal(state: NDArray[np.uint64]) -> float:
    """A standard normal number (Box and Muller 1958; the second of the pair is let go, so that no state hides)."""
    radius = math.sqrt(2.0 * exponential(state))
    return radius * math.cos(2.0 * math.pi * uniform(state))
