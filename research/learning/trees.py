"""One array form for the trees of all families: what is predicted with, explained, exported and saved.

A row goes left at a split iff its float32 value is at or below the float32 threshold; NaN goes where `missing_left`
says. Thresholds are floored to float32: for a float32 x and a float64 t, x <= t iff x <= floor32(t), so routing is
exact and any runtime that compares float32 takes the same path. The makers below read the libraries' dumps and need
none of the libraries.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from core.store import write_atomic

LEAF: Final = -1
"""`feature` of a leaf."""
_TILE: Final = 256  # rows whose features stay in the second-level cache while all trees pass over them


@dataclass(frozen=True)
class TreeEnsemble:
    """Sum of regression trees. Node arrays are (n_nodes,), trees one after the other, parents before children.

    `feature` int32 (LEAF at leaves), `threshold` float32, `missing_left` bool, `left` and `right` int32 indices into
    the same arrays (a leaf's own at leaves), `value` float64 (a leaf's output; at a split the mean under it, weighted
    by cover), `cover` float64 (training rows that passed), `roots` int32 (n_trees,) the first node of each tree.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    value: NDArray[np.float64]
    cover: NDArray[np.float64]
    roots: NDArray[np.int32]
    base: float
    n_features: int

    @property
    def n_trees(self) -> int:
        return int(self.roots.size)

    @property
    def n_nodes(self) -> int:
        return int(self.feature.size)

    def tree_nodes(self) -> Iterator[range]:
        """The node indices of each tree."""
        for first, last in zip(self.roots, [*self.roots[1:], self.n_nodes], strict=True):
            yield range(int(first), int(last))

    def predict(self, x: NDArray[np.float32]) -> NDArray[np.float64]:
        """Predictions (n,) of rows x (n, n_features) float32, in the unit of the training target.

        Raises ValueError for another width or dtype: a float64 row could pass a threshold that its float32 does not.
        """
        if x.ndim != 2 or x.shape[1] != self.n_features or x.dtype != np.float32:
            raise ValueError(f"x must be (n, {self.n_features}) float32, was {x.shape} {x.dtype}")
        nodes = (self.feature, self.threshold, self.missing_left, self.left, self.right, self.value)
        return _predict(*nodes, self.roots, self.base, np.ascontiguousarray(x))  # type: ignore[no-any-return]

    def with_cover(self, x: NDArray[np.float32]) -> "TreeEnsemble":
        """The same trees with covers counted on rows x (n, n_features): so they mean one thing for all families."""
        routes = (self.feature, self.threshold, self.missing_left, self.left, self.right)
        cover, value = _count(*routes, self.roots, np.ascontiguousarray(x)), self.value.copy()
        _fill_splits(self.feature, self.left, self.right, value, cover)
        return replace(self, cover=cover, value=value)

    def over(self, columns: NDArray[np.int64], n_features: int) -> "TreeEnsemble":
        """The same trees, fitted on some `columns`, as trees over all `n_features`."""
        feature = np.where(self.feature >= 0, columns[np.maximum(self.feature, 0)], LEAF).astype(np.int32)
        return replace(self, feature=feature, n_features=n_features)

    def save(self, path: Path) -> None:
        """Write as .npz, atomically."""
        buffer = io.BytesIO()
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        np.savez(buffer, **arrays)
        write_atomic(path, buffer.getvalue())


def load(path: Path) -> TreeEnsemble:
    """An ensemble saved by `TreeEnsemble.save`; nothing is unpickled."""
    with np.load(path, allow_pickle=False) as saved:
        arrays = {field.name: saved[field.name] for field in fields(TreeEnsemble)}
    return TreeEnsemble(**arrays | {"base": float(arrays["base"]), "n_features": int(arrays["n_features"])})


def constant(value: float, rows: int, n_features: int) -> TreeEnsemble:
    """One leaf that adds nothing to a base of `value`: what a target without any variation teaches."""
    leaf = {"feature": [LEAF], "threshold": [0.0], "missing_left": [False], "left": [0], "right": [0]}
    nodes = leaf | {"value": [0.0], "cover": [float(rows)]}
    return _ensemble([{name: np.array(each) for name, each in nodes.items()}], base=value, n_features=n_features)


def from_lightgbm(dump: dict[str, Any]) -> TreeEnsemble:
    """From `Booster.dump_model()`. Where training saw no NaN, LightGBM routes NaN as it routes 0."""
    trees = [_lightgbm_nodes(tree["tree_structure"]) for tree in dump["tree_info"]]
    return _ensemble(trees, base=0.0, n_features=dump["max_feature_idx"] + 1)


def from_catboost(dump: dict[str, Any]) -> TreeEnsemble:
    """From `save_model(format="json")`, oblivious trees unrolled. Its borders are float32, printed in decimal."""
    scale, bias = dump["scale_and_bias"]
    floats = dump["features_info"]["float_features"]
    nan_is_high = {
        entry["feature_index"]: entry.get("nan_value_treatment") == "AsTrue" and entry["has_nans"] for entry in floats
    }
    trees = [_catboost_nodes(tree, float(scale), nan_is_high) for tree in dump["oblivious_trees"]]
    return _ensemble(trees, base=float(bias[0]), n_features=len(floats))


def from_hgb(predictors: Sequence[Sequence[Any]], baseline: float, n_features: int) -> TreeEnsemble:
    """From scikit-learn's `HistGradientBoostingRegressor`: its `_predictors` and `_baseline_prediction`."""
    return _ensemble([_hgb_nodes(tree[0].nodes) for tree in predictors], base=baseline, n_features=n_features)


Nodes = dict[str, NDArray[Any]]


def _lightgbm_nodes(root: dict[str, Any]) -> Nodes:
    order: list[dict[str, Any]] = []
    children: list[tuple[int, int]] = []
    stack = [(root, -1, 0)]
    while stack:
        node, parent, side = stack.pop()
        here = len(order)
        order.append(node)
        children.append((here, here))
        if parent >= 0:
            lower, upper = children[parent]
            children[parent] = (here, upper) if side == 0 else (lower, here)
        if "split_feature" in node:
            stack += [(node["right_child"], here, 1), (node["left_child"], here, 0)]
    threshold = np.array([node.get("threshold", 0.0) for node in order])
    return {
        "feature": np.array([node.get("split_feature", LEAF) for node in order]),
        "threshold": floor32(threshold),
        "missing_left": np.array([_lightgbm_missing_left(node) for node in order]),
        "left": np.array([lower for lower, _ in children]),
        "right": np.array([upper for _, upper in children]),
        "value": np.array([node.get("leaf_value", 0.0) for node in order]),
        "cover": np.array([node.get("leaf_count", node.get("internal_count", 0)) for node in order]),
    }


def _lightgbm_missing_left(node: dict[str, Any]) -> bool:
    if "split_feature" not in node:
        return False
    if node["decision_type"] != "<=" or node["missing_type"] == "Zero":
        raise ValueError(f"only numeric splits are known, was {node['decision_type']} with {node['missing_type']}")
    return bool(node["default_left"]) if node["missing_type"] == "NaN" else bool(node["threshold"] >= 0.0)


def _catboost_nodes(tree: dict[str, Any], scale: float, nan_is_high: dict[int, bool]) -> Nodes:
    """Heap layout: the split of the highest bit on top, so that leaves stand in the order of CatBoost's leaf index."""
    splits = tree["splits"][::-1]
    inner = 2 ** len(splits) - 1
    level = np.log2(np.arange(1, inner + 1)).astype(np.int64)
    feature = np.array([split["float_feature_index"] for split in splits], dtype=np.int64)
    border = np.array([split["border"] for split in splits], dtype=np.float32)
    low_nan = np.array([not nan_is_high[int(name)] for name in feature], dtype=np.bool_)
    index, leaves = np.arange(2 * inner + 1), np.arange(inner, 2 * inner + 1)
    return {
        "feature": np.r_[feature[level], np.full(inner + 1, LEAF)],
        "threshold": np.r_[border[level], np.zeros(inner + 1, np.float32)],
        "missing_left": np.r_[low_nan[level], np.zeros(inner + 1, np.bool_)],
        "left": np.r_[2 * index[:inner] + 1, leaves],
        "right": np.r_[2 * index[:inner] + 2, leaves],
        "value": np.r_[np.zeros(inner), scale * np.array(tree["leaf_values"])],
        "cover": np.r_[np.zeros(inner), np.array(tree["leaf_weights"], dtype=np.float64)],
    }


def _hgb_nodes(nodes: NDArray[Any]) -> Nodes:
    if nodes["is_categorical"].any():
        raise ValueError("only numeric splits are known, the model holds categorical ones")
    leaf, index = nodes["is_leaf"].astype(np.bool_), np.arange(nodes.size)
    return {
        "feature": np.where(leaf, LEAF, nodes["feature_idx"]),
        "threshold": floor32(np.where(leaf, 0.0, nodes["num_threshold"])),
        "missing_left": nodes["missing_go_to_left"].astype(np.bool_) & ~leaf,
        "left": np.where(leaf, index, nodes["left"].astype(np.int64)),
        "right": np.where(leaf, index, nodes["right"].astype(np.int64)),
        "value": nodes["value"],
        "cover": nodes["count"].astype(np.float64),
    }


def floor32(values: NDArray[np.float64]) -> NDArray[np.float32]:
    """The largest float32 at or below each float64."""
    with np.errstate(over="ignore"):
        near = values.astype(np.float32)
        below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near > values, below, near).astype(np.float32)


def _ensemble(trees: list[Nodes], base: float, n_features: int) -> TreeEnsemble:
    sizes = np.array([tree["feature"].size for tree in trees], dtype=np.int64)
    roots = np.r_[0, np.cumsum(sizes)[:-1]] if trees else np.zeros(0)
    joined = {name: _joined(trees, name) for name in ("feature", "threshold", "missing_left", "value", "cover")}
    left, right = (
        np.concatenate([tree[side] + root for tree, root in zip(trees, roots, strict=True)] or [np.zeros(0)])
        for side in ("left", "right")
    )
    ensemble = TreeEnsemble(
        feature=joined["feature"].astype(np.int32),
        threshold=joined["threshold"].astype(np.float32),
        missing_left=joined["missing_left"].astype(np.bool_),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        value=joined["value"].astype(np.float64),
        cover=joined["cover"].astype(np.float64),
        roots=roots.astype(np.int32),
        base=base,
        n_features=n_features,
    )
    _fill_splits(ensemble.feature, ensemble.left, ensemble.right, ensemble.value, ensemble.cover)
    return ensemble


def _joined(trees: list[Nodes], name: str) -> NDArray[Any]:
    return np.concatenate([tree[name] for tree in trees] or [np.zeros(0)])


@njit(cache=True, nogil=True)
def _fill_splits(feature, left, right, value, cover):  # type: ignore[no-untyped-def]
    """Covers and mean values of the splits, from the leaves up: every child stands after its parent."""
    for node in range(feature.size - 1, -1, -1):
        if feature[node] >= 0:
            low, high = left[node], right[node]
            cover[node] = cover[low] + cover[high]
            share = cover[low] / cover[node] if cover[node] > 0.0 else 0.5
            value[node] = share * value[low] + (1.0 - share) * value[high]


@njit(cache=True, nogil=True)
def _predict(feature, threshold, missing_left, left, right, value, roots, base, x):  # type: ignore[no-untyped-def]
    """Trees are added in order to each row, whatever the tile: the same bits for one row and for many."""
    out = np.full(x.shape[0], base)
    for first in range(0, x.shape[0], _TILE):
        last = min(first + _TILE, x.shape[0])
        for root in roots:
            for row in range(first, last):
                node = root
                while feature[node] >= 0:
                    seen = x[row, feature[node]]
                    goes_left = seen <= threshold[node] or (missing_left[node] and np.isnan(seen))
                    node = left[node] if goes_left else right[node]
                out[row] += value[node]
    return out


@njit(cache=True, nogil=True)
def _count(feature, threshold, missing_left, left, right, roots, x):  # type: ignore[no-untyped-def]
    """Rows that end in each leaf (n_nodes,)."""
    cover = np.zeros(feature.size)
    for root in roots:
        for row in range(x.shape[0]):
            node = root
            while feature[node] >= 0:
                seen = x[row, feature[node]]
                goes_left = seen <= threshold[node] or (missing_left[node] and np.isnan(seen))
                node = left[node] if goes_left else right[node]
            cover[node] += 1.0
    return cover
