"""The rule from a score to a side, shared by training's metrics, the backtest and the runner.

A score is a model's predicted mid return over the horizon T, in bps, signed. `Calibration` maps it to the probability
that the mid goes up (Platt, "Probabilistic outputs for support vector machines", 1999). An order needs both: a
probability at or above the threshold and a score at or beyond the edge.
"""

import math
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]
_NEWTON_STEPS: Final = 50
_TOLERANCE: Final = 1e-10


class Calibration(msgspec.Struct, frozen=True):
    """P(up | score) = 1 / (1 + exp(-(a + b * score)))."""

    a: float
    b: float


def log_odds(scores: Floats, calibration: Calibration) -> NDArray[np.float64]:
    """Log odds that the mid goes up, one per score."""
    return calibration.a + calibration.b * np.asarray(scores, dtype=np.float64)


def probability_up(scores: Floats, calibration: Calibration) -> NDArray[np.float64]:
    """P(up), one per score."""
    return 0.5 * (1.0 + np.tanh(0.5 * log_odds(scores, calibration)))


def decide(scores: Floats, calibration: Calibration, threshold: float, edge_bps: float) -> NDArray[np.int8]:
    """Sides (n,): +1 buy where P(up) >= threshold and score >= edge, -1 sell on the mirror image, else 0.

    A NaN score is no order, nor is a score of exactly 0 at edge 0. Raises ValueError for a threshold outside [0.5, 1)
    or a negative edge, where one row could ask for both sides.
    """
    return sides(np.asarray(scores, dtype=np.float64), log_odds(scores, calibration), threshold, edge_bps)


def sides(
    scores: NDArray[np.float64], odds: NDArray[np.float64], threshold: float, edge_bps: float
) -> NDArray[np.int8]:
    """`decide` on log odds that are known already: a grid of thresholds shares them.

    Log odds are compared with those of the threshold: no exponential, so the same bits everywhere.
    """
    if not 0.5 <= threshold < 1.0 or not edge_bps >= 0.0:
        raise ValueError(
            f"threshold must lie in [0.5, 1) and edge_bps be at least 0, were {threshold} and {edge_bps}: "
            "a lower bound would buy and sell at once"
        )
    needed = math.log(threshold / (1.0 - threshold))
    buy = (odds >= needed) & (scores >= edge_bps)
    sell = (-odds >= needed) & (-scores >= edge_bps)
    return np.subtract(buy, sell, dtype=np.int8)


def fit_calibration(scores: Floats, returns_bps: Floats) -> Calibration:
    """Maximum likelihood of `a` and `b` on out-of-sample scores; a return of 0 counts half up, half down.

    Newton's method on a strictly convex loss: the ridge of one observation of prior weight keeps separable and
    constant scores finite (Lin, Lin & Weng, "A note on Platt's probabilistic outputs", 2007). Rows whose score or
    return is not finite are left out; with none left the answer is a coin, a = b = 0.
    """
    known = np.isfinite(scores) & np.isfinite(returns_bps)
    x, y = np.asarray(scores, np.float64)[known], 0.5 * (1.0 + np.sign(returns_bps[known]))
    scale = float(np.sqrt(np.mean(x * x))) if x.size else 0.0
    if scale == 0.0:
        return Calibration(0.0, 0.0)
    x = x / scale
    weights = np.zeros(2)
    for _ in range(_NEWTON_STEPS):
        step = _newton_step(x, y, weights)
        weights += step
        if float(np.abs(step).max()) < _TOLERANCE:
            break
    return Calibration(float(weights[0]), float(weights[1]) / scale)


def _newton_step(x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    chance = 0.5 * (1.0 + np.tanh(0.5 * (weights[0] + weights[1] * x)))
    miss, curve = y - chance, chance * (1.0 - chance)
    slope = np.array([miss.sum(), miss @ x]) - weights
    cross = float(curve @ x)
    hessian = np.array([[curve.sum() + 1.0, cross], [cross, float(curve @ (x * x)) + 1.0]])
    return np.linalg.solve(hessian, slope)
