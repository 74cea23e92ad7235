"""Integrated order flow imbalance: the levels' flows weighted by their first principal component.

Cont, Cucuringu, Zhang, "Cross-impact of order flow imbalance in equity markets", Quantitative Finance 23(10), 2023: of
ten levels' flows over the mean size of a level, w the first principal vector on training data, the integrated flow is
w'x over the sum of |w|. Stage `fit` finds w; `ofi_integrated_5s` of the set `book` has equal weights and needs none.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from research.fitting.not_fitted import NotFitted
from research.sets.book import known_mean
from research.sets.feature import or_zero

Floats = NDArray[np.float64]
LEVELS: Final = 10
_LEAST_SHARE: Final = 1e-12  # of a level's variance in all: below that the others are not known


def level_flows(window: str) -> list[str]:
    """Each level's order flow over a window in mean sizes of a level, in the language: not known where no bar's is."""
    size = known_mean(f"(div (add bids_{LEVELS} asks_{LEVELS}) {2 * LEVELS})", window)
    return [f"(ratio (sum_{window} ofi_qty_{k}) {size})" for k in range(1, LEVELS + 1)]


def first_component(flows: Floats) -> tuple[Floats, float]:
    """Weights (levels,) that add up to 1 in size, and the share of the variance that they hold. flows (n, levels).

    Rows that are not known are left out. Raises NotFitted where a level never moves: its book is not known.
    """
    known = flows[np.isfinite(flows).all(axis=1)]
    variances = known.var(axis=0) if len(known) else np.zeros(flows.shape[1])
    if (variances <= _LEAST_SHARE * variances.sum()).any():
        raise NotFitted("the book's levels are not known on this stretch")
    covariance = np.cov(known, rowvar=False)
    values, vectors = np.linalg.eigh(covariance)
    first = vectors[:, -1] * (1.0 if vectors[:, -1].sum() >= 0.0 else -1.0)
    return first / np.abs(first).sum(), float(values[-1] / values.sum())


def component_text(weights: Floats, window: str) -> str:
    """The integrated flow over a window, in the language, 0 where none is known. Four digits tell the weights well."""
    first, *rest = (f"(mul {weight:.4f} {flow})" for weight, flow in zip(weights, level_flows(window), strict=True))
    text = first
    for each in rest:
        text = f"(add {text} {each})"
    return or_zero(text, window)
