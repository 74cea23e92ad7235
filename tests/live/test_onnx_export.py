"""The exported graph scores as the trained model does: all three families, on thresholds, with missing values."""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from live.onnx_export import features_metadata, to_onnx
from live.scorer import Scorer
from research.learning.trees import TreeEnsemble, from_catboost, from_hgb, from_lightgbm

BOUND = 1e-6
Rows = NDArray[np.float32]


def training_rows() -> tuple[Rows, NDArray[np.float64]]:
    random = np.random.default_rng(3)
    x = random.normal(size=(1_500, 8)).astype(np.float32)
    x[:, 3] = np.round(x[:, 3])  # ties, so that thresholds and rows meet
    x[random.random(x.shape) < 0.05] = np.nan
    y = np.nan_to_num(x[:, 0]) + np.sign(np.nan_to_num(x[:, 3])) + 0.1 * random.normal(size=x.shape[0])
    return x, y * 12.0


def hgb(x: Rows, y: NDArray[np.float64]) -> TreeEnsemble:
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(max_iter=40, random_state=0).fit(x, y)
    return from_hgb(model._predictors, float(model._baseline_prediction.item()), x.shape[1])


def lightgbm(x: Rows, y: NDArray[np.float64]) -> TreeEnsemble:
    import lightgbm as lgb

    options = {"verbose": -1, "deterministic": True, "num_threads": 1, "objective": "l2"}
    return from_lightgbm(lgb.train(options, lgb.Dataset(x.astype(np.float64), y), 40).dump_model())


def catboost(x: Rows, y: NDArray[np.float64], folder: Path) -> TreeEnsemble:
    from catboost import CatBoostRegressor

    model = CatBoostRegressor(iterations=40, depth=5, verbose=False, thread_count=1, allow_writing_files=False)
    model.fit(x, y).save_model(str(folder / "model.json"), format="json")
    return from_catboost(json.loads((folder / "model.json").read_text()))


@pytest.fixture(scope="module", params=["hgb", "lightgbm", "catboost"])
def trees(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> TreeEnsemble:
    x, y = training_rows()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fits: dict[str, Callable[[], TreeEnsemble]] = {
            "hgb": lambda: hgb(x, y),
            "lightgbm": lambda: lightgbm(x, y),
            "catboost": lambda: catboost(x, y, tmp_path_factory.mktemp("catboost")),
        }
        return fits[request.param]()


def rows_on_thresholds(trees: TreeEnsemble) -> Rows:
    """For every split a row whose feature is the threshold, one just below, one just above, and one missing."""
    x, _ = training_rows()
    rows = []
    for number, node in enumerate(np.flatnonzero(trees.feature >= 0)):
        at = trees.threshold[node]
        with np.errstate(over="ignore"):  # CatBoost's lowest border is the least float32
            below, above = np.nextafter(at, np.float32(-np.inf)), np.nextafter(at, np.float32(np.inf))
        for value in (at, below, above, np.nan):
            row = x[number % x.shape[0]].copy()
            row[trees.feature[node]] = value
            rows.append(row)
    return np.stack(rows)


def walk(trees: TreeEnsemble, row: Rows) -> float:
    """The slow obvious twin: one row down every tree, as the docstring of TreeEnsemble says."""
    total = trees.base
    for root in trees.roots:
        node = int(root)
        while trees.feature[node] >= 0:
            seen = row[trees.feature[node]]
            left = trees.missing_left[node] if np.isnan(seen) else seen <= trees.threshold[node]
            node = int(trees.left[node] if left else trees.right[node])
        total += float(trees.value[node])
    return total


def test_scores_are_those_of_the_ensemble_on_thresholds_and_with_missing_values(trees: TreeEnsemble) -> None:
    scorer = Scorer(to_onnx(trees, {}))
    rows = rows_on_thresholds(trees)
    expected = np.array([walk(trees, row) for row in rows])
    np.testing.assert_allclose(scorer.score_rows(rows), expected, rtol=0.0, atol=BOUND)
    np.testing.assert_allclose(trees.predict(rows), expected, rtol=0.0, atol=1e-9)


def test_one_row_scores_as_many_rows_do(trees: TreeEnsemble) -> None:
    scorer = Scorer(to_onnx(trees, {}))
    rows = training_rows()[0][:200].astype(np.float64)
    assert [scorer.score(row) for row in rows] == scorer.score_rows(rows).tolist()


def test_equal_ensembles_give_equal_bytes(trees: TreeEnsemble) -> None:
    names = features_metadata([("a", "(f)"), ("b", "(g)")])
    assert to_onnx(trees, names) == to_onnx(trees, dict(reversed(names.items())))


def test_the_model_file_lists_its_own_features(trees: TreeEnsemble) -> None:
    features = (("a", "(sub bid_price 1.0)"), ("b", "(mean_5s ofi_qty)"))
    assert Scorer(to_onnx(trees, features_metadata(features))).features == features


def stump(feature: int, threshold: float, low: float, high: float, missing_left: bool) -> dict[str, Any]:
    return {"f": [feature, -1, -1], "t": [threshold, 0, 0], "m": [missing_left, False, False], "v": [0.0, low, high]}


def ensemble_of(stumps: list[dict[str, Any]], leaves: list[float], base: float) -> TreeEnsemble:
    """Stumps first, then trees that are a single leaf."""
    first = 3 * np.arange(len(stumps))
    lone = 3 * len(stumps) + np.arange(len(leaves))
    own = np.arange(3 * len(stumps) + len(leaves))
    left, right = own.copy(), own.copy()
    left[first], right[first] = first + 1, first + 2
    joined = {name: [value for one in stumps for value in one[name]] for name in "ftmv"}
    return TreeEnsemble(
        feature=np.array(joined["f"] + [-1] * len(leaves), dtype=np.int32),
        threshold=np.array(joined["t"] + [0.0] * len(leaves), dtype=np.float32),
        missing_left=np.array(joined["m"] + [False] * len(leaves), dtype=np.bool_),
        left=left.astype(np.int32),
        right=right.astype(np.int32),
        value=np.array(joined["v"] + leaves, dtype=np.float64),
        cover=np.ones(own.size),
        roots=np.concatenate([first, lone]).astype(np.int32),
        base=base,
        n_features=2,
    )


def test_a_stump_by_hand() -> None:
    trees = ensemble_of([stump(1, 0.5, -1.0, 2.0, missing_left=True)], [], base=0.25)
    scorer = Scorer(to_onnx(trees, {}))
    rows = np.array([[9.0, 0.5], [9.0, 0.5000001], [9.0, np.nan], [np.nan, -np.inf], [0.0, np.inf]])
    assert scorer.score_rows(rows).tolist() == [-0.75, 2.25, -0.75, -0.75, 2.25]


small = st.floats(-4, 4, width=32)
stumps = st.lists(st.builds(stump, st.integers(0, 1), small, small, small, st.booleans()), max_size=5)


@settings(max_examples=60, deadline=None)
@given(stumps, st.lists(small, max_size=3), small, st.lists(st.tuples(small, small), min_size=1, max_size=5))
def test_any_ensemble_of_stumps_and_single_leaves_scores_as_walked(
    splits: list[dict[str, Any]], leaves: list[float], base: float, points: list[tuple[float, float]]
) -> None:
    trees = ensemble_of(splits, leaves, base)
    rows = np.array([*points, (np.nan, np.nan)], dtype=np.float32)
    expected = [walk(trees, row) for row in rows]
    np.testing.assert_allclose(Scorer(to_onnx(trees, {})).score_rows(rows), expected, rtol=0.0, atol=1e-12)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot load"):
        Scorer(b"not a model")
