"""Has a feature's distribution moved? Population stability index between two samples.

PSI = sum over bins of (q - p) ln(q / p), the symmetrised Kullback-Leibler divergence of the binned samples; bins are
the reference's quantiles (Siddiqi, Credit Risk Scorecards, 2006). Rule of thumb: < 0.1 stable, > 0.2 shifted.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from research.learning.purged_cv import Rows, thinned

Ints = NDArray[np.int64]

MOVED: Final = 0.2
"""A PSI above this says that a feature moved."""
ROWS: Final = 20_000
"""Of a stretch, evenly: a PSI of 0.2 is far beyond the noise of as many, which is 2 * (BINS - 1) / ROWS."""
LEAST_ROWS: Final = 200
"""Of a sample, in all: with fewer the noise alone, 2 * (BINS - 1) / rows and more, comes near MOVED."""
BINS: Final = 10
_FLOOR: Final = 1e-4  # an empty bin counts as this share, else one empty bin makes the index infinite


def between(x: NDArray[np.float32], before: Rows, after: Rows) -> list[float | None]:
    """PSI of each column of x (n, k) from the rows of one stretch to those of another."""
    return of_columns(x[thinned(before, ROWS)], x[thinned(after, ROWS)])


def of_columns(reference: NDArray[np.float32], sample: NDArray[np.float32]) -> list[float | None]:
    """PSI of each column of `sample` (n, k) against that of `reference` (m, k), both finite."""
    return [psi(old.astype(np.float64), new.astype(np.float64)) for old, new in zip(reference.T, sample.T, strict=True)]


def alike(rows: Rows, symbol: Ints, sample: Ints) -> Rows:
    """At most ROWS of some rows, in which each symbol has the share that it has in a sample.

    `symbol` (n,) are the rows' symbols, `sample` (m,) those of the sample's rows. Without this, another mix of symbols
    would pass for a move though each stood still. Symbols of which there are no rows have no share.
    """
    names, counts = np.unique(sample[np.isin(sample, symbol)], return_counts=True)
    most = min(int(np.isin(symbol, names).sum()), ROWS)
    wanted = np.rint(most * counts / counts.sum()).astype(np.int64)
    return np.concatenate(
        [rows[:0], *(_repeated(rows[symbol == name], n) for name, n in zip(names, wanted, strict=True))]
    )


def _repeated(rows: Rows, n: int) -> Rows:
    """So many of some rows: evenly where there are more, over again where there are fewer."""
    return np.resize(thinned(rows, n), n)


def psi(reference: NDArray[np.float64], sample: NDArray[np.float64], bins: int = BINS) -> float | None:
    """PSI of `sample` (n,) against `reference` (m,), both finite; None where either is empty.

    Ties make quantile bins coincide: equal edges are merged, so a constant feature has one bin and a PSI of 0 unless
    the sample leaves it.
    """
    if not reference.size or not sample.size:
        return None
    edges = np.unique(np.quantile(reference, np.linspace(0.0, 1.0, bins + 1)))
    expected, observed = (_shares(values, edges) for values in (reference, sample))
    return float(np.sum((observed - expected) * np.log(observed / expected)))


def _shares(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share of values at or below each edge and above the one before, plus those above the last."""
    counts = np.bincount(np.searchsorted(edges, values, side="left"), minlength=edges.size + 1)
    return np.maximum(counts / values.size, _FLOOR)
