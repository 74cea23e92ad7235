"""What the time of the day alone explains of volume and volatility, as a few waves.

It is the flexible Fourier form of Andersen, Bollerslev, "Intraday periodicity and volatility persistence in financial
markets", Journal of Empirical Finance 4, 1997. A few numbers fit into an expression, and waves are smooth: a table of
means per quarter of an hour would jump at each.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from research.fitting.not_fitted import NotFitted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WAVES: Final = 4  # the shortest lasts 6 h: sessions and their overlaps, with 8 numbers
LEAST_DAYS: Final = 2
"""Days on which each hour must have been seen: a wave of a day cannot be told from a trend in less."""
_HOURS: Final = 24
_DAY_S: Final = 86_400


def fit_season(y: Floats, second_of_day: Floats, day: Ints, symbol: Ints) -> tuple[float, ...]:
    """Least-squares waves (2 WAVES,), cosine and sine of each, of y (n,), each symbol about a level of its own.

    NaN is left out. Raises NotFitted where some hour of the day was not seen on LEAST_DAYS days.
    """
    is_known = np.isfinite(y)
    y, second_of_day, day, symbol = y[is_known], second_of_day[is_known], day[is_known], symbol[is_known]
    seen = np.unique(np.column_stack([second_of_day // 3600, day]), axis=0)
    least = np.bincount(seen[:, 0].astype(np.int64), minlength=_HOURS).min()
    if least < LEAST_DAYS:
        raise NotFitted(f"a season needs every hour of the day on {LEAST_DAYS} days, some hour was seen on {least}")
    waves = _waves(second_of_day)
    for each in np.unique(symbol):
        rows = symbol == each
        y[rows] -= y[rows].mean()
        waves[rows] -= waves[rows].mean(axis=0)
    return tuple(np.linalg.lstsq(waves, y, rcond=None)[0].tolist())


def season_text(waves: Sequence[float]) -> str:
    """The waves as an expression over `second_of_day`."""
    terms = []
    for k in range(len(waves) // 2):
        angle = f"(mul {math.tau * (k + 1) / _DAY_S!r} second_of_day)"
        terms += [f"(mul {waves[2 * k]:.6g} (cos {angle}))", f"(mul {waves[2 * k + 1]:.6g} (sin {angle}))"]
    total = terms[-1]
    for term in terms[-2::-1]:
        total = f"(add {term} {total})"
    return total


def _waves(second_of_day: Floats) -> Floats:
    angles = math.tau / _DAY_S * np.outer(second_of_day, np.arange(1, WAVES + 1))
    return np.stack([np.cos(angles), np.sin(angles)], axis=2).reshape(second_of_day.size, 2 * WAVES)
