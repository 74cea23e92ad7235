"""What the time of the day, and of the week, explains of volume and volatility, as a few waves.

It is the flexible Fourier form of Andersen, Bollerslev, "Intraday periodicity and volatility persistence in financial
markets", Journal of Empirical Finance 4, 1997. A few numbers fit into an expression, and waves are smooth: a table of
means per quarter of an hour would jump at each. Markets that never close still have weekends, with a level and a day of
their own: where the stretch holds enough of them, Saturdays and Sundays have waves of their own about it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from research.fitting.not_fitted import NotFitted

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

WAVES: Final = 4  # the shortest lasts 6 h: sessions and their overlaps, with 8 numbers
LEAST_DAYS: Final = 2
"""Days on which each hour must have been seen: a wave of a day cannot be told from a trend in less."""
LEAST_WEEKS: Final = 3
"""Weeks in which each hour of weekends and of the days between must have been seen: a quiet weekend is no rule yet."""
_HOURS: Final = 24
_DAY_S: Final = 86_400
_WEEK_DAYS: Final = 7
_SATURDAY: Final = 5
_MONDAY: Final = 4  # 1970-01-05, in days since 1970


@dataclass(frozen=True)
class Season:
    """Cosine and sine of each wave of the day (2 WAVES,); at weekends `weekend` is added, its level first, then waves
    (1 + 2 WAVES,). None where weekends are not told apart."""

    day: tuple[float, ...]
    weekend: tuple[float, ...] | None

    def text(self) -> str:
        """What the time explains, in the language, over `second_of_day` and `weekday`."""
        if self.weekend is None:
            return _waves_text(self.day)
        level, *waves = self.weekend
        return f"(add {_waves_text(self.day)} (if_gt 5 weekday 0 (add {level:.6g} {_waves_text(waves)})))"


def fit_season(y: Floats, second_of_day: Floats, day: Ints, symbol: Ints) -> Season:
    """Least squares over y (n,), each symbol about a level of its own; `day` counts since 1970, NaN is left out.

    Weekends are told apart where `weeks_seen` is LEAST_WEEKS or more. Raises NotFitted where some hour of the day was
    not seen on LEAST_DAYS days.
    """
    is_known = np.isfinite(y)
    y, second_of_day, day, symbol = y[is_known], second_of_day[is_known], day[is_known], symbol[is_known]
    least = _least_seen(second_of_day, day)
    if least < LEAST_DAYS:
        raise NotFitted(f"a season needs every hour of the day on {LEAST_DAYS} days, some hour was seen on {least}")
    x, has_weekends = _waves(second_of_day), weeks_seen(second_of_day, day) >= LEAST_WEEKS
    if has_weekends:
        at_weekends = is_weekend(day).astype(np.float64)[:, None]
        x = np.hstack([x, at_weekends, at_weekends * x])
    for each in np.unique(symbol):
        rows = symbol == each
        y[rows] -= y[rows].mean()
        x[rows] -= x[rows].mean(axis=0)
    found = np.linalg.lstsq(x, y, rcond=None)[0].tolist()
    return Season(tuple(found[: 2 * WAVES]), tuple(found[2 * WAVES :]) if has_weekends else None)


def weeks_seen(second_of_day: Floats, day: Ints) -> int:
    """In how many weeks, from Monday on, each hour of the day was seen at a weekend and on a day between."""
    week, at_weekends = (day - _MONDAY) // _WEEK_DAYS, is_weekend(day)
    return min(_least_seen(second_of_day[rows], week[rows]) for rows in (at_weekends, ~at_weekends))


def is_weekend(day: Ints) -> NDArray[np.bool_]:
    return (day - _MONDAY) % _WEEK_DAYS >= _SATURDAY


def _least_seen(second_of_day: Floats, period: Ints) -> int:
    """In how many periods the hour of the day that was seen in fewest of them was."""
    seen = np.unique(np.column_stack([second_of_day // 3600, period]).astype(np.int64), axis=0)
    return int(np.bincount(seen[:, 0], minlength=_HOURS).min())


def _waves_text(waves: Sequence[float]) -> str:
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
