"""How far a series must be differenced until it has no unit root.

That is the least order d of fixed-window fractional differences that passes the augmented Dickey-Fuller test at 5 %
(Lopez de Prado, "Advances in Financial Machine Learning", 2018, section 5.6). Differencing once, as returns do, throws
away all memory of the level; less may be enough.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from research.fitting.not_fitted import NotFitted

Floats = NDArray[np.float64]

# MacKinnon, "Critical Values for Cointegration Tests", Queen's Economics Department Working Paper 1227, 2010, table 2:
# constant, no trend, one series, 5 %: polynomial in 1 / n.
_CRITICAL_5: Final = (-2.86154, -2.8903, -4.234, -40.040)


def adf_statistic(y: Floats) -> float:
    """t of b in dy(t) = a + b y(t - 1) + c dy(t - 1) + e, over y (n,) without NaN: negative where y returns to a mean.

    Raises NotFitted where the regression has no answer: fewer than 6 values, or a constant.
    """
    if y.size < 6 or np.ptp(y) == 0.0:
        raise NotFitted(f"a unit root test needs 6 values that differ, was given {y.size}")
    change = np.diff(y)
    level = y[1:-1] - y.mean()  # about the mean: the constant takes it, and nothing cancels
    x = np.column_stack([np.ones(change.size - 1), level, change[:-1]])
    inverse = np.linalg.inv(x.T @ x)
    slopes = inverse @ (x.T @ change[1:])
    residual = change[1:] - x @ slopes
    variance = residual @ residual / (residual.size - x.shape[1])
    return float(slopes[1] / np.sqrt(variance * inverse[1, 1]))


def adf_critical(n: int) -> float:
    """The value below which the statistic of n regression rows rejects a unit root at 5 %."""
    return float(np.polyval(_CRITICAL_5[::-1], 1.0 / n))


def is_stationary(y: Floats) -> bool:
    """Whether the test rejects a unit root at 5 %."""
    return adf_statistic(y) < adf_critical(y.size - 2)


def least_order(orders: Sequence[float], series: Sequence[Floats]) -> float | None:
    """The least of ascending `orders` at which every series is stationary; None where none is.

    `series` are (n, len(orders)), one per symbol: column k is differenced to the order k. Rows with NaN are left out.
    """
    known = [each[np.isfinite(each).all(axis=1)] for each in series]
    for k, order in enumerate(orders):
        if all(is_stationary(each[:, k]) for each in known):
            return order
    return None
