"""Which features move the winner's predictions: SHAP values of its trees (Lundberg et al., Nature MI 2, 2020).

Path-dependent TreeSHAP on the array form, so one code explains all three families and the explained model is the very
one that is exported.
"""

import warnings
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from research.learning.purged_cv import thinned
from research.learning.trees import TreeEnsemble

with warnings.catch_warnings():
    # shap 0.51 draws its colour maps with a call that matplotlib 3.11 means to retire.
    warnings.simplefilter("ignore", PendingDeprecationWarning)
    import shap

MAX_ROWS: Final = 10_000  # that covers are counted on
EXPLAINED_ROWS: Final = 1_000  # the ranking settles well before; SHAP costs rows x leaves x depth²
_EMPTY: Final = 1e-6  # cover of a leaf that no training row reached: SHAP divides by covers


def shap_values(ensemble: TreeEnsemble, x: NDArray[np.float32]) -> NDArray[np.float64]:
    """SHAP values (n, n_features) in the unit of the prediction; with the expected value they sum to it."""
    return np.asarray(_explainer(ensemble).shap_values(x.astype(np.float64), check_additivity=False))


def expected_value(ensemble: TreeEnsemble) -> float:
    """The mean prediction over the training rows, weighted by cover."""
    return float(np.ravel(_explainer(ensemble).expected_value)[0])


def importance(ensemble: TreeEnsemble, x: NDArray[np.float32], names: list[str]) -> list[dict[str, Any]]:
    """Mean |SHAP| in bps per feature over rows x (n, k), the largest first.

    Rows are to be an even sample: covers are counted on them anew, since those of training are of weighted rows.
    """
    if not (ensemble.feature >= 0).any() or not x.shape[0]:
        return [{"name": name, "mean_abs_shap": 0.0} for name in names]
    explained = x[thinned(np.arange(x.shape[0]), EXPLAINED_ROWS)]
    size = np.abs(shap_values(ensemble.with_cover(x), explained)).mean(axis=0)
    order = np.argsort(-size, kind="stable")
    return [{"name": names[column], "mean_abs_shap": float(size[column])} for column in order]


def _explainer(ensemble: TreeEnsemble) -> Any:
    trees = [_as_dict(ensemble, nodes) for nodes in ensemble.tree_nodes()]
    return shap.TreeExplainer(
        {"trees": trees, "base_offset": ensemble.base}, feature_perturbation="tree_path_dependent"
    )


def _as_dict(ensemble: TreeEnsemble, nodes: range) -> dict[str, NDArray[Any]]:
    """One tree as shap's dictionary: child -1 at leaves, covers of empty leaves made positive, from the leaves up."""
    here = slice(nodes.start, nodes.stop)
    leaf = ensemble.feature[here] < 0
    left, right = (np.where(leaf, -1, side[here] - nodes.start) for side in (ensemble.left, ensemble.right))
    cover = np.where(leaf, np.maximum(ensemble.cover[here], _EMPTY), 0.0)
    value = np.where(leaf, ensemble.value[here], 0.0)
    for node in range(len(nodes) - 1, -1, -1):
        if not leaf[node]:
            low, high = left[node], right[node]
            cover[node] = cover[low] + cover[high]
            value[node] = (cover[low] * value[low] + cover[high] * value[high]) / cover[node]
    return {
        "children_left": left,
        "children_right": right,
        "children_default": np.where(leaf, -1, np.where(ensemble.missing_left[here], left, right)),
        "features": np.where(leaf, -2, ensemble.feature[here]),
        "thresholds": ensemble.threshold[here].astype(np.float64),
        "values": value.reshape(-1, 1),
        "node_sample_weight": cover,
    }
