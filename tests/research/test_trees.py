"""Each family's own predict is the reference of the array form, NaN included."""

import json
from pathlib import Path

import catboost
import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import HistGradientBoostingRegressor

from research.learning import trees


def sample(seed: int, n: int = 3_000, width: int = 7, missing: float = 0.05):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)).astype(np.float32)
    x[:, 0] = np.round(x[:, 0], 1)  # ties and values that equal thresholds
    x[rng.random(x.shape) < missing] = np.nan
    y = np.nan_to_num(x[:, 0] * (x[:, 1] > 0)) + np.isnan(x[:, 2]) + rng.normal(size=n)
    return x, y


def lightgbm_pair(x, y):
    settings = {"num_leaves": 12, "verbose": -1, "num_threads": 1, "max_bin": 63}
    model = lightgbm.train(settings, lightgbm.Dataset(x, y), 30)
    return trees.from_lightgbm(model.dump_model()), model.predict


def catboost_pair(x, y, folder: Path, **settings):
    model = catboost.CatBoostRegressor(
        iterations=30, depth=4, thread_count=1, logging_level="Silent", allow_writing_files=False, **settings
    )
    model.fit(x, y)
    model.save_model(str(folder / "model.json"), format="json")
    return trees.from_catboost(json.loads((folder / "model.json").read_text())), model.predict


def hgb_pair(x, y):
    model = HistGradientBoostingRegressor(max_iter=30, max_leaf_nodes=12, early_stopping=False).fit(x, y)
    baseline = float(model._baseline_prediction[0, 0])
    return trees.from_hgb(model._predictors, baseline, x.shape[1]), model.predict


@pytest.mark.parametrize("missing", [0.0, 0.05])
@pytest.mark.parametrize("family", ["lightgbm", "catboost", "catboost_max", "hgb"])
def test_array_form_predicts_as_the_family_does(family: str, missing: float, tmp_path: Path) -> None:
    x, y = sample(1, missing=missing)
    unseen = sample(2, missing=missing)[0]
    if family.startswith("catboost"):
        mode = "Max" if family.endswith("max") else "Min"
        ensemble, reference = catboost_pair(x, y, tmp_path, nan_mode=mode)
    else:
        ensemble, reference = {"lightgbm": lightgbm_pair, "hgb": hgb_pair}[family](x, y)
    assert np.ptp(reference(unseen)) > 0.5
    np.testing.assert_allclose(ensemble.predict(unseen), reference(unseen), atol=1e-9, rtol=0)
    np.testing.assert_allclose(ensemble.predict(x), reference(x), atol=1e-9, rtol=0)


@pytest.mark.parametrize("pair", [lightgbm_pair, hgb_pair])
def test_nan_that_training_never_saw_is_routed_as_the_family_routes_it(pair) -> None:
    ensemble, reference = pair(*sample(1, missing=0.0))
    unseen = sample(2, missing=0.3)[0]
    np.testing.assert_allclose(ensemble.predict(unseen), reference(unseen), atol=1e-9, rtol=0)


def test_rows_on_a_threshold_go_left() -> None:
    ensemble, reference = hgb_pair(*sample(3, missing=0.0))
    splits = np.flatnonzero(ensemble.feature >= 0)[:50]
    rows = np.zeros((splits.size, ensemble.n_features), np.float32)
    rows[np.arange(splits.size), ensemble.feature[splits]] = ensemble.threshold[splits]
    np.testing.assert_allclose(ensemble.predict(rows), reference(rows), atol=1e-9, rtol=0)


def test_two_stumps_by_hand() -> None:
    stump = {
        "feature": np.array([0, trees.LEAF, trees.LEAF]),
        "threshold": np.array([1.5, 0, 0], np.float32),
        "missing_left": np.array([False, False, False]),
        "left": np.array([1, 1, 2]),
        "right": np.array([2, 1, 2]),
        "value": np.array([0.0, -2.0, 4.0]),
        "cover": np.array([0.0, 3.0, 1.0]),
    }
    ensemble = trees._ensemble([stump, stump], base=10.0, n_features=2)
    rows = np.array([[1.5, 0], [1.6, 0], [np.nan, 0]], np.float32)
    np.testing.assert_array_equal(ensemble.predict(rows), [6.0, 18.0, 18.0])
    np.testing.assert_array_equal(ensemble.value[[0, 3]], [-0.5, -0.5])
    np.testing.assert_array_equal(ensemble.cover[[0, 3]], [4.0, 4.0])
    assert [list(nodes) for nodes in ensemble.tree_nodes()] == [[0, 1, 2], [3, 4, 5]]


def test_one_row_has_the_bits_of_many() -> None:
    ensemble, _ = lightgbm_pair(*sample(5))
    x = sample(6, n=700)[0]
    alone = np.concatenate([ensemble.predict(x[row : row + 1]) for row in range(x.shape[0])])
    np.testing.assert_array_equal(alone, ensemble.predict(x))


def test_saving_keeps_every_bit(tmp_path: Path) -> None:
    ensemble, _ = lightgbm_pair(*sample(7))
    ensemble.save(tmp_path / "model.npz")
    again, x = trees.load(tmp_path / "model.npz"), sample(8)[0]
    np.testing.assert_array_equal(again.predict(x), ensemble.predict(x))
    np.testing.assert_array_equal(again.cover, ensemble.cover)
    assert (again.base, again.n_features) == (ensemble.base, ensemble.n_features)


def test_other_widths_and_dtypes_are_refused() -> None:
    ensemble, _ = lightgbm_pair(*sample(9))
    with pytest.raises(ValueError, match="float32"):
        ensemble.predict(np.zeros((2, ensemble.n_features)))
    with pytest.raises(ValueError, match="7"):
        ensemble.predict(np.zeros((2, 3), np.float32))


@given(st.floats(allow_nan=False), st.floats(allow_nan=False, width=32))
def test_a_floored_threshold_splits_float32_rows_as_the_float64_one(threshold: float, x: float) -> None:
    floored = float(trees.floor32(np.array([threshold]))[0])
    assert floored <= threshold
    assert (x <= floored) == (x <= threshold)
