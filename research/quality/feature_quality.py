"""What a feature is worth before any model sees it: range, drift, redundancy, and how much it says of later returns.

Ranks, not values: one outlier must not make a correlation. Everything that looks at returns is for the training stretch
alone; the hold-out is no place to choose features (method section 4).
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import false_discovery_control, norm, rankdata

from core.units import NS_PER_S
from research.learning.inference import block_s, n_blocks, ratio_of_sums

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]
Times = NDArray[np.int64]

SAME: Final = 0.7
"""Above this absolute rank correlation two features say the same: SHAP splits between them, and one will do."""
_QUANTILES: Final = (0.01, 0.5, 0.99)
_CONSTANT: Final = 1e-6  # of the mean rank: float32 sums of equal ranks differ by less


class Range(NamedTuple):
    """How a feature is distributed. `zero_frac` and `tied_frac`: the share of zeros, and of its commonest value."""

    least: float
    p01: float
    median: float
    p99: float
    most: float
    mean: float
    std: float
    zero_frac: float
    tied_frac: float


class Coefficient(NamedTuple):
    """An information coefficient: Spearman's correlation of a feature with the return over T after it.

    `z` is the normal deviate of its t over disjoint calendar blocks, `q` the two-sided p adjusted for all that was
    looked at. None where fewer than ten blocks hold labels, or where the feature is constant.
    """

    horizon_s: float
    ic: float | None
    z: float | None
    n_blocks: int
    q: float | None = None


def range_of(values: NDArray[Any]) -> Range | None:
    """The range of finite values (n,); None for no values."""
    if not values.size:
        return None
    p01, median, p99 = np.quantile(values, _QUANTILES).tolist()
    _, counts = np.unique(values, return_counts=True)
    return Range(
        float(values.min()),
        p01,
        median,
        p99,
        float(values.max()),
        float(values.mean(dtype=np.float64)),
        float(values.std(dtype=np.float64)),
        float(np.mean(values == 0.0)),
        float(counts.max() / values.size),
    )


def rank_scores(x: NDArray[Any], symbol: NDArray[np.int64]) -> Matrix:
    """Ranks (n, k) of each column within each symbol, with mean 0 and variance 1; 0 where all values are equal."""
    scores = np.empty(x.shape, np.float32)
    for each in np.unique(symbol):
        rows = np.flatnonzero(symbol == each)
        scores[rows] = rankdata(x[rows], axis=0)
    return standardised(scores, symbol)


def standardised(scores: Matrix, symbol: NDArray[np.int64]) -> Matrix:
    """Columns (n, k) with mean 0 and variance 1 within each symbol; 0 where they are constant there."""
    out = np.empty_like(scores)
    for each in np.unique(symbol):
        rows = np.flatnonzero(symbol == each)
        mean, std = scores[rows].mean(axis=0, dtype=np.float64), scores[rows].std(axis=0, dtype=np.float64)
        is_constant = std <= _CONSTANT * np.maximum(np.abs(mean), 1.0)
        out[rows] = np.where(is_constant, 0.0, (scores[rows] - mean) / np.where(is_constant, 1.0, std))
    return out


def correlations(scores: Matrix) -> Floats:
    """Spearman's correlations (k, k) from `rank_scores` (n, k); 0 beside a constant feature."""
    together = (scores.T @ scores).astype(np.float64)
    own = np.sqrt(np.diag(together))
    scale = np.outer(own, own)
    together = np.clip(together / np.where(scale > 0.0, scale, 1.0), -1.0, 1.0)
    np.fill_diagonal(together, 1.0)
    return np.asarray((together + together.T) / 2.0)


def clusters(correlation: Floats, limit: float = SAME) -> list[list[int]]:
    """Groups of two and more features, the largest first, within which every pair has |rho| > `limit`.

    Complete linkage on 1 - |rho| (Kaufman, Rousseeuw, "Finding Groups in Data", 1990, section 5.1).
    """
    if len(correlation) < 2:
        return []
    distance = np.clip(1.0 - np.abs(correlation), 0.0, None)
    np.fill_diagonal(distance, 0.0)
    group = fcluster(linkage(squareform(distance, checks=False), "complete"), 1.0 - limit - 1e-12, "distance")
    members = [np.flatnonzero(group == each).tolist() for each in np.unique(group)]
    return sorted((each for each in members if len(each) > 1), key=lambda each: (-len(each), each[0]))


def inside_blocks(start_ns: Times, end_ns: Times, seconds: float) -> NDArray[np.bool_]:
    """Which rows (n,) end in the calendar block that they start in: no outcome is counted in two blocks."""
    length_ns = round(seconds * NS_PER_S)
    return np.asarray(start_ns // length_ns == end_ns // length_ns)


def coefficients(
    scores: Matrix, forward_bps: Floats, start_ns: Times, end_ns: Times, symbol: NDArray[np.int64], horizon_s: float
) -> Iterator[Coefficient]:
    """The information coefficient of each feature on the returns (n,) over `horizon_s`; rows are sorted by start.

    `scores` (n, k) are ranks over the whole stretch, so that slow features count. Rows whose interval leaves its block
    are purged, and the blocks are those of every other interval here (inference.py).
    """
    seconds = block_s(horizon_s)
    rows = np.flatnonzero(np.isfinite(forward_bps) & inside_blocks(start_ns, end_ns, seconds))
    target = rank_scores(forward_bps[rows, None], symbol[rows])
    products = standardised(scores[rows], symbol[rows]) * target
    for column in products.T:
        ratio = ratio_of_sums(start_ns[rows], column.astype(np.float64), seconds) if column.any() else None
        if ratio is None:
            yield Coefficient(horizon_s, None, None, n_blocks(start_ns[rows], seconds))
        else:
            yield Coefficient(horizon_s, ratio.mean, ratio.z, ratio.n_blocks)


def with_false_discovery(table: Sequence[Sequence[Coefficient]]) -> list[list[Coefficient]]:
    """The coefficients of all features and horizons, each with its `q` among all of them (Benjamini, Hochberg 1995)."""
    known = [each.z for row in table for each in row if each.z is not None]
    adjusted = iter(false_discovery_control(2.0 * norm.sf(np.abs(known))).tolist() if known else ())
    return [[each if each.z is None else each._replace(q=next(adjusted)) for each in row] for row in table]
