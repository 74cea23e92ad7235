"""A tree ensemble as an ONNX graph: one `ai.onnx.ml` 5 TreeEnsemble in double precision.

    x float32 (n, features) -> Cast to double -> TreeEnsemble -> score_bps double (n, 1)

Why double: onnxruntime adds up leaves in the type of the thresholds, and 120 float32 leaves are 1e-5 off (the older
TreeEnsembleRegressor returns float32 whatever its attributes). The cast is exact, and so are thresholds that were
floored to float32, so every row goes the way it went in training, a row on a threshold too: BRANCH_LEQ sends
`x <= threshold` left, and a missing value goes where `missing_left` says. Measured on onnxruntime 1.31: within 2e-14 of
adding the leaves tree by tree, for 1 us more a row than float32. The graph is made from the array form that all three
families share (research/learning/trees.py), because no converter reads all three at their current versions (skl2onnx
1.20 fails on scikit-learn's).
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from research.learning.trees import TreeEnsemble

INPUT: Final = "x"
OUTPUT: Final = "score_bps"
_OPSET: Final = 21  # of the Cast; the newest that onnxruntime 1.31 documents as covered
_ML_OPSET: Final = 5  # TreeEnsemble, which has double; opset 3 has it for thresholds but not for the output
_IR_VERSION: Final = 10
_SUM, _NO_TRANSFORM, _BRANCH_LEQ = 1, 0, 0


def to_onnx(trees: TreeEnsemble, metadata: Mapping[str, str]) -> bytes:
    """The serialised model. Equal ensembles and metadata give equal bytes.

    Raises onnx.checker.ValidationError if the graph is not a valid model.
    """
    nodes = [
        helper.make_node("Cast", [INPUT], ["x_double"], to=TensorProto.DOUBLE),
        helper.make_node("TreeEnsemble", ["x_double"], [OUTPUT], domain="ai.onnx.ml", **_attributes(trees)),
    ]
    rows = helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, ["rows", trees.n_features])
    scores = helper.make_tensor_value_info(OUTPUT, TensorProto.DOUBLE, ["rows", 1])
    opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid("ai.onnx.ml", _ML_OPSET)]
    graph = helper.make_graph(nodes, "tree_ensemble", [rows], [scores])
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION)
    helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def features_metadata(features: Sequence[tuple[str, str]]) -> dict[str, str]:
    """What the model file itself says of its inputs: names and expressions in order, to check a manifest against."""
    return {"features": json.dumps([list(feature) for feature in features], ensure_ascii=True)}


def _attributes(trees: TreeEnsemble) -> dict[str, Any]:
    """The attributes of TreeEnsemble: splits and leaves apart, each numbered over all trees.

    The base, and every tree that is a single leaf, is a split whose two branches are one and the same leaf; these stand
    after the real splits, the base last, with a leaf of its own.
    """
    leaf = trees.feature < 0
    number = np.where(leaf, np.cumsum(leaf), np.cumsum(~leaf)) - 1
    split = np.flatnonzero(~leaf)
    left, right = trees.left[split], trees.right[split]
    bare = np.append(number[trees.roots[leaf[trees.roots]]], np.count_nonzero(leaf))
    zeros, ones = np.zeros(bare.size), np.ones(bare.size)
    thresholds = np.append(trees.threshold[split].astype(np.float64), zeros)
    weights = np.append(trees.value[leaf], trees.base)
    return {
        "aggregate_function": _SUM,
        "post_transform": _NO_TRANSFORM,
        "n_targets": 1,
        "tree_roots": _ints(number[trees.roots[~leaf[trees.roots]]], split.size + np.arange(bare.size)),
        "nodes_featureids": _ints(trees.feature[split], zeros),
        "nodes_splits": numpy_helper.from_array(thresholds),
        "nodes_modes": numpy_helper.from_array(np.full(thresholds.size, _BRANCH_LEQ, dtype=np.uint8)),
        "nodes_missing_value_tracks_true": _ints(trees.missing_left[split], zeros),
        "nodes_truenodeids": _ints(number[left], bare),
        "nodes_trueleafs": _ints(leaf[left], ones),
        "nodes_falsenodeids": _ints(number[right], bare),
        "nodes_falseleafs": _ints(leaf[right], ones),
        "leaf_targetids": _ints(np.zeros(weights.size)),
        "leaf_weights": numpy_helper.from_array(weights),
    }


def _ints(*parts: NDArray[Any]) -> list[int]:
    """One list of Python integers from arrays (onnx takes neither NumPy integers nor booleans)."""
    joined: list[int] = np.concatenate(parts).astype(np.int64).tolist()
    return joined
