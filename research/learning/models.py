"""The model families side by side: a name, settings to tune over, and how to fit. All predict through `TreeEnsemble`.

Targets are mid returns in bps, squared loss. Features are cast to float32 before training, so that a threshold found
here routes the same way everywhere (method section 7). One thread per fit: fits run side by side instead, and a
fit's bits do not depend on how many cores there are.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import catboost
import lightgbm
import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingRegressor
from threadpoolctl import threadpool_limits

from research.learning import trees
from research.learning.screening import Screen, screened
from research.learning.trees import TreeEnsemble

Settings = Mapping[str, float]
X = NDArray[np.float32]
Y = NDArray[np.float64]
Fit = Callable[[X, Y, Y, Settings, int, int], TreeEnsemble]

BINS: Final = 48
TAILS: Final = (0.01, 0.005, 0.0025, 0.001, 0.0005)
"""Borders are BINS - 1 even quantiles and these of both tails: a burst is half a percent of the rows, and the last of
even bins would mix it with three times as many others."""
CODES: Final = 254  # more than there can be borders: every code is a bin of its own
MAX_FEATURES: Final = 12  # a fit's time is in its features, and most of a catalogue is noise to any one horizon
WINSOR_SDS: Final = 10.0


@dataclass(frozen=True)
class Family:
    """`grid`: few settings each, from stiff to supple, since every one costs inner_folds fits per horizon.

    `fit(x, y, weights, settings, rounds, seed)`: x (n, k) float32, y (n,) bps, weights (n,).
    """

    name: str
    grid: tuple[Settings, ...]
    fit: Fit


def fit(
    family: Family, x: X, y: Y, weights: Y, block: NDArray[np.int64], settings: Settings, rounds: int, seed: int
) -> TreeEnsemble:
    """Fit one family on rows x (n, k) float32 and returns y (n,) in bps.

    What is learnt from these rows alone: the winsorised bounds, the features that pass the screen over the calendar
    blocks `block` (n,), the borders, the trees. Returns an ensemble over all k features.
    """
    target = winsorised(y)
    if np.ptp(target) == 0.0:  # CatBoost refuses it, and the others would each grow their own nothing
        return trees.constant(float(target[0]), target.size, x.shape[1])
    columns = screened(x, target, weights, block, MAX_FEATURES).kept
    borders = [_borders(x[:, column]) for column in columns]
    codes = np.column_stack([_codes(x[:, column], edges) for column, edges in zip(columns, borders, strict=True)])
    coded = family.fit(codes, target, weights, settings, rounds, seed)
    return _decoded(coded, borders).over(columns, x.shape[1])


def screen(x: X, y: Y, weights: Y, block: NDArray[np.int64]) -> Screen:
    """Which features `fit` looks at on these rows, and why."""
    return screened(x, winsorised(y), weights, block, MAX_FEATURES)


def winsorised(y: Y) -> Y:
    """Returns cut at WINSOR_SDS robust deviations of these rows: one cascade must not be a leaf of its own.

    The bound is wide on purpose: a burst worth trading is several deviations by itself.
    """
    middle = float(np.median(y))
    spread = 1.4826 * float(np.median(np.abs(y - middle)))
    if spread == 0.0:
        return y
    return np.clip(y, middle - WINSOR_SDS * spread, middle + WINSOR_SDS * spread)


def _fit_lightgbm(x: X, y: Y, weights: Y, settings: Settings, rounds: int, seed: int) -> TreeEnsemble:
    parameters = {
        "objective": "regression",
        "num_leaves": int(settings["leaves"]),
        "min_data_in_leaf": int(settings["min_rows"]),
        "learning_rate": settings["rate"],
        "max_bin": CODES,
        "min_data_in_bin": 1,
        "num_threads": 1,
        "deterministic": True,
        "force_col_wise": True,
        "seed": seed,
        "verbosity": -1,
    }
    booster = lightgbm.train(parameters, lightgbm.Dataset(x, y, weight=weights), num_boost_round=rounds)
    return trees.from_lightgbm(booster.dump_model())


def _fit_catboost(x: X, y: Y, weights: Y, settings: Settings, rounds: int, seed: int) -> TreeEnsemble:
    model = catboost.CatBoostRegressor(
        iterations=rounds,
        depth=int(settings["depth"]),
        min_data_in_leaf=int(settings["min_rows"]),
        learning_rate=settings["rate"],
        border_count=CODES,
        boosting_type="Plain",
        bootstrap_type="No",
        random_seed=seed,
        thread_count=1,
        logging_level="Silent",
        allow_writing_files=False,
    )
    model.fit(x, y, sample_weight=weights)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.json")
        model.save_model(str(path), format="json")
        return trees.from_catboost(json.loads(path.read_text()))


def _fit_hgb(x: X, y: Y, weights: Y, settings: Settings, rounds: int, seed: int) -> TreeEnsemble:
    model = HistGradientBoostingRegressor(
        max_iter=rounds,
        max_leaf_nodes=int(settings["leaves"]),
        min_samples_leaf=int(settings["min_rows"]),
        learning_rate=settings["rate"],
        max_bins=CODES,
        early_stopping=False,
        random_state=seed,
    )
    with threadpool_limits(limits=1, user_api="openmp"):
        model.fit(x, y, sample_weight=weights)
    return trees.from_hgb(model._predictors, float(model._baseline_prediction[0, 0]), x.shape[1])


def _borders(column: NDArray[np.float32]) -> NDArray[np.float32]:
    """At most BINS - 1 even quantiles of a column's known values and those of its TAILS, ascending, each once."""
    known = column[np.isfinite(column)]
    if not known.size:
        return np.zeros(0, np.float32)
    tails = np.array(TAILS)
    shares = np.sort(np.concatenate([np.arange(1, BINS) / BINS, tails, 1.0 - tails]))
    return np.unique(np.quantile(known, shares, method="lower"))


def _codes(column: NDArray[np.float32], borders: NDArray[np.float32]) -> NDArray[np.float32]:
    """How many borders lie below each value, so that code <= k iff value <= borders[k]; NaN stays NaN."""
    return np.where(np.isnan(column), np.nan, borders.searchsorted(column, side="left")).astype(np.float32)


def _decoded(coded: TreeEnsemble, borders: list[NDArray[np.float32]]) -> TreeEnsemble:
    """The same trees with thresholds on the values. A threshold above all codes parts the missing from the rest."""
    threshold = coded.threshold.copy()
    for node in np.flatnonzero(coded.feature >= 0):
        column, code = borders[coded.feature[node]], np.floor(coded.threshold[node])
        threshold[node] = column[int(code)] if code < column.size else np.inf
    return replace(coded, threshold=threshold)


_LEAFWISE: Final = (
    {"leaves": 4, "min_rows": 40, "rate": 0.08},
    {"leaves": 8, "min_rows": 30, "rate": 0.12},
)
FAMILIES: Final = {
    family.name: family
    for family in (
        Family("hgb", _LEAFWISE, _fit_hgb),
        Family("lightgbm", _LEAFWISE, _fit_lightgbm),
        Family(
            "catboost",
            ({"depth": 2, "min_rows": 40, "rate": 0.12}, {"depth": 4, "min_rows": 30, "rate": 0.18}),
            _fit_catboost,
        ),
    )
}
