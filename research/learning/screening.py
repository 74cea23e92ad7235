"""Which features a fit may look at: those that moved with the return in most of the past, and not in one stretch of it.

Returns of overlapping holds and slow features (time of day, basis, open interest) drift together for minutes, and trees
take that for a signal: on a simulated market all 76 features gave an out-of-sample R² below 0 where the best third gave
one above. So features are ranked by the t of their covariance with the return over disjoint calendar blocks, in which a
slow feature has few degrees of freedom. Part of every fit: it sees that fit's training rows only.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

CLIP_SDS: Final = 8.0
MIN_BLOCK_S: Final = 120.0
_CONSTANT: Final = 1e-6  # a float32 column that spreads less than this share of its mean holds rounding only


class Screen(NamedTuple):
    """What a fit may look at: the `t` (k,) of every feature, and the columns `kept`, ascending."""

    t: NDArray[np.float64]
    kept: NDArray[np.int64]


def block_s(horizon_s: float) -> float:
    """Length of a calendar block: two holds, and long enough that a slow feature hardly changes within one."""
    return max(2.0 * horizon_s, MIN_BLOCK_S)


def covariance_t(
    x: NDArray[np.float32], y: NDArray[np.float64], weights: NDArray[np.float64], block: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The t (k,) of the weighted covariance of each feature with y. x (n, k); `block` (n,) ascending block numbers.

    Features are standardised and clipped; a constant one, and one with NaN, gets 0.
    """
    share = (weights / weights.sum()).astype(np.float32)
    mean = share @ x
    scaled = x - mean
    spread = np.sqrt(share @ np.square(scaled))
    scaled /= np.where(spread > _CONSTANT * np.abs(mean), spread, np.float32(np.inf))
    np.clip(scaled, -CLIP_SDS, CLIP_SDS, out=scaled)
    scaled *= (weights * (y - share @ y)).astype(np.float32)[:, None]
    first = np.flatnonzero(np.r_[True, block[1:] != block[:-1]])
    sums = np.add.reduceat(scaled, first, axis=0).astype(np.float64)
    power = np.sqrt(np.sum(sums**2, axis=0))
    t: NDArray[np.float64] = np.nan_to_num(sums.sum(axis=0) / np.where(power > 0.0, power, 1.0), nan=0.0)
    return t


def screened(
    x: NDArray[np.float32], y: NDArray[np.float64], weights: NDArray[np.float64], block: NDArray[np.int64], at_most: int
) -> Screen:
    """Keep the columns with the largest |t|, at most `at_most`; the first of equals."""
    t = covariance_t(x, y, weights, block)
    ranked = np.argsort(-np.abs(t), kind="stable")
    return Screen(t, np.sort(ranked[:at_most]))
