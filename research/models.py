"""The model families side by side: a name, settings to tune over, and how to fit. All predict through `TreeEnsemble`.

Targets are mid returns in bps, squared loss. Features are cast to float32 before training, so that a threshold found
here routes the same way everywhere (method section 7). One thread per fit: fits run side by side instead, and a
fit's bits do not depend on how many cores there are.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import catboost
import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from research import trees
from research.trees import TreeEnsemble

Settings = Mapping[str, float]
Fit = Callable[[NDArray[np.float32], NDArray[np.float64], Settings, int, int], TreeEnsemble]

BINS: Final = 63  # features are noisy: finer borders cost time and find nothing
WINSOR_SDS: Final = 10.0


@dataclass(frozen=True)
class Family:
    """`grid`: few settings each, from stiff to supple, since every one costs inner_folds fits per horizon.

    `fit(x, y, settings, rounds, seed)`: x (n, k) float32, y (n,) bps.
    """

    name: str
    grid: tuple[Settings, ...]
    fit: Fit


def fit(
    family: Family, x: NDArray[np.float32], y: NDArray[np.float64], settings: Settings, rounds: int, seed: int
) -> TreeEnsemble:
    """Fit one family on rows x (n, k) float32 and returns y (n,) in bps, winsorised on these rows alone."""
    return family.fit(x, winsorised(y), settings, rounds, seed)


def winsorised(y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns cut at WINSOR_SDS robust deviations of these rows: one cascade must not be a leaf of its own.

    The bound is wide on purpose: a burst worth trading is several deviations by itself.
    """
    middle = float(np.median(y))
    spread = 1.4826 * float(np.median(np.abs(y - middle)))
    if spread == 0.0:
        return y
    return np.clip(y, middle - WINSOR_SDS * spread, middle + WINSOR_SDS * spread)


def _fit_lightgbm(
    x: NDArray[np.float32], y: NDArray[np.float64], settings: Settings, rounds: int, seed: int
) -> TreeEnsemble:
    parameters = {
        "objective": "regression",
        "num_leaves": int(settings["leaves"]),
        "min_data_in_leaf": int(settings["min_rows"]),
        "learning_rate": settings["rate"],
        "max_bin": BINS,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(x, y, free_raw_data=True), num_boost_round=rounds)
    return trees.from_lightgbm(booster.dump_model())


def _fit_catboost(
    x: NDArray[np.float32], y: NDArray[np.float64], settings: Settings, rounds: int, seed: int
) -> TreeEnsemble:
    model = catboost.CatBoostRegressor(
        iterations=rounds,
        depth=int(settings["depth"]),
        min_data_in_leaf=int(settings["min_rows"]),
        learning_rate=settings["rate"],
        border_count=BINS,
        boosting_type="Plain",
        bootstrap_type="No",
        random_seed=seed,
        thread_count=1,
        logging_level="Silent",
        allow_writing_files=False,
    )
    model.fit(x, y)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        model.save_model(str(path), format="json")
        return trees.from_catboost(json.loads(path.read_text()))


def _fit_hgb(
    x: NDArray[np.float32], y: NDArray[np.float64], settings: Settings, rounds: int, seed: int
) -> TreeEnsemble:
    model = HistGradientBoostingRegressor(
        max_iter=rounds,
        max_leaf_nodes=int(settings["leaves"]),
        min_samples_leaf=int(settings["min_rows"]),
        learning_rate=settings["rate"],
        max_bins=BINS,
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(limits=1, user_api="openmp"):
        model.fit(x, y)
    return trees.from_hgb(model._predictors, float(model._baseline_prediction[0, 0]), x.shape[1])


_LEAFWISE: Final = (
    {"leaves": 6, "min_rows": 60, "rate": 0.10},
    {"leaves": 16, "min_rows": 30, "rate": 0.07},
)
FAMILIES: Final = {
    family.name: family
    for family in (
        Family("hgb", _LEAFWISE, _fit_hgb),
        Family("lightgbm", _LEAFWISE, _fit_lightgbm),
        Family(
            "catboost",
            ({"depth": 3, "min_rows": 60, "rate": 0.15}, {"depth": 5, "min_rows": 30, "rate": 0.10}),
            _fit_catboost,
        ),
    )
}
