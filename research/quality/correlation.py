"""Correlation and beta of symbols' returns, day by day in bounded memory.

Each pair is judged on the instants at which both returns are known. Returns of short steps correlate less than those of
long ones, as prices do not move at the same moment (Epps, "Comovements in stock prices in the very short run", J.
American Statistical Association 74, 1979): look at several.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_LEAST: Final = 3  # instants: two points always lie on a line
_ROUNDING: Final = 1e-12


@dataclass(frozen=True)
class CoMoments:
    """Sums over the instants at which both of a pair are known, each (symbols, symbols): how many, of the row's symbol,
    of its squares, and of the products."""

    n: Floats
    sums: Floats
    squares: Floats
    products: Floats

    def __add__(self, other: "CoMoments") -> "CoMoments":
        """Of both stretches together."""
        return CoMoments(
            self.n + other.n, self.sums + other.sums, self.squares + other.squares, self.products + other.products
        )

    @property
    def correlation(self) -> Floats:
        """Pearson's, NaN with fewer than three instants or where one of a pair does not vary."""
        spread = np.sqrt(self._variances * self._variances.T)
        return _ratio(self._covariances, spread)

    @property
    def beta(self) -> Floats:
        """The slope of the row's symbol on the column's; NaN as for the correlation."""
        return _ratio(self._covariances, self._variances.T)

    @property
    def _covariances(self) -> Floats:
        return _ratio(self.products, self._enough) - _ratio(self.sums, self._enough) * _ratio(self.sums.T, self._enough)

    @property
    def _variances(self) -> Floats:
        """Of the row's symbol, over the instants of each pair; 0 where it is no more than rounding."""
        square = _ratio(self.squares, self._enough)
        variance = square - _ratio(self.sums, self._enough) ** 2
        return np.where(variance > _ROUNDING * square, variance, 0.0)

    @property
    def _enough(self) -> Floats:
        return np.where(self.n >= _LEAST, self.n, 0.0)


def co_moments(values: Floats) -> CoMoments:
    """Of values (instants, symbols), NaN where not known. Returns in bps: their mean is small beside their deviation,
    so that sums of squares lose no digits that count."""
    known = np.isfinite(values).astype(np.float64)
    filled = np.where(known > 0.0, values, 0.0)
    return CoMoments(known.T @ known, filled.T @ known, (filled * filled).T @ known, filled.T @ filled)


def _ratio(a: Floats, b: Floats) -> Floats:
    """a / b, NaN where b is not above 0."""
    out: Floats = np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0.0)
    return out
