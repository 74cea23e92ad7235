"""Nested walk-forward: every score is made by a model, and with settings, that knew only its past.

The first part of time is cut into blocks, the last is the hold-out. Block 0 has no past of its own: purged K-fold
inside it gives its out-of-fold scores and tunes the settings. Block k is then predicted by models fitted on all that
was known before it opened, and the hold-out by models fitted on all blocks: those are the ones that are exported.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from research import models
from research.decision import Calibration, fit_calibration
from research.models import FAMILIES, Settings
from research.purged_cv import Rows, Split, Times, holdout, k_fold, thinned, walk_forward
from research.trees import TreeEnsemble

WORKERS: Final = 2  # fits are independent and release the GIL; the result does not depend on their number
MIN_TRAIN_ROWS: Final = 200  # below this a tree ensemble is noise
T = TypeVar("T")
U = TypeVar("U")


@dataclass(frozen=True)
class Plan:
    """All splits of one run, as row indices of the dataset.

    `first` is what is known of block 0 when block 1 opens; `inner` are its folds (indices into the dataset);
    `walk[k - 1]` learns from the past of block k and predicts it; `final` learns from all, predicts the hold-out.
    """

    first: Rows
    inner: list[Split]
    walk: list[Split]
    final: Split

    @property
    def splits(self) -> list[Split]:
        """The walk-forward splits and the final one, in order of time."""
        return [*self.walk, self.final]

    def fits(self) -> bool:
        """Whether every model has rows enough to learn from and something to predict."""
        return all(split.train.size >= MIN_TRAIN_ROWS and split.test.size > 0 for split in [*self.inner, *self.splits])


class Score(NamedTuple):
    """Out-of-sample scores of one family at one horizon.

    `scores` (n,) bps, NaN where no model was allowed to look; `odds` (n,) log odds of a rise, each row with the
    calibration that its past gave; `calibration` and `ensemble` are those of the hold-out, fitted on all blocks.
    """

    scores: NDArray[np.float64]
    odds: NDArray[np.float64]
    calibration: Calibration
    ensemble: TreeEnsemble
    settings: Settings
    n_train: list[int]


def plan(
    start_ns: Times, end_ns: Times, n_blocks: int, n_folds: int, holdout_frac: float, embargo_ns: int
) -> Plan | None:
    """The splits, or None where there are not rows enough for them."""
    if start_ns.size < n_blocks * n_folds:
        return None
    final = holdout(start_ns, end_ns, holdout_frac)
    past = final.test[0]
    if past < n_blocks * n_folds:
        return None
    walk = list(walk_forward(start_ns[:past], end_ns[:past], n_blocks))
    first = walk[0].train
    if first.size < n_folds:
        return None
    inner = [
        Split(first[train], first[test]) for train, test in k_fold(start_ns[first], end_ns[first], n_folds, embargo_ns)
    ]
    made = Plan(first, inner, walk, final)
    return made if made.fits() else None


def walk(
    x: NDArray[np.float32],
    targets: dict[float, NDArray[np.float64]],
    families: Iterable[str],
    made: Plan,
    max_rows: int,
    rounds: int,
    seed: int,
) -> dict[tuple[str, float], Score]:
    """Scores per (family, horizon). x (n, k) float32; `targets` horizon -> mid returns (n,) in bps."""
    keys = [(family, horizon_s) for family in families for horizon_s in targets]

    def predicted(job: tuple[str, float, Settings, Split]) -> tuple[NDArray[np.float64], TreeEnsemble]:
        family, horizon_s, settings, split = job
        rows = thinned(split.train, max_rows)
        ensemble = models.fit(FAMILIES[family], x[rows], targets[horizon_s][rows], settings, rounds, seed)
        return ensemble.predict(x[split.test]), ensemble

    tuning = [
        (family, horizon_s, settings, split)
        for family, horizon_s in keys
        for settings in FAMILIES[family].grid
        for split in made.inner
    ]
    folds = iter([scores for scores, _ in _in_threads(predicted, tuning)])
    first = {key: _tuned(targets[key[1]], key[0], made, folds) for key in keys}
    fits = [(*key, first[key][0], split) for key in keys for split in made.splits]
    results = iter(_in_threads(predicted, fits))
    return {
        key: _score(*first[key], targets[key[1]], made, [next(results) for _ in made.splits], max_rows) for key in keys
    }


def _tuned(
    target: NDArray[np.float64], family: str, made: Plan, folds: "Iterable[NDArray[np.float64]]"
) -> tuple[Settings, NDArray[np.float64]]:
    """The settings with the least out-of-fold squared error in block 0, and the scores (n,) that they gave there."""
    supply, best, best_loss = iter(folds), None, np.inf
    for settings in FAMILIES[family].grid:
        scores = np.full(target.size, np.nan)
        for split in made.inner:
            scores[split.test] = next(supply)
        loss = float(np.mean((target[made.first] - scores[made.first]) ** 2))
        if best is None or loss < best_loss:
            best, best_loss = (settings, scores), loss
    assert best is not None
    return best


def _score(
    settings: Settings,
    scores: NDArray[np.float64],
    target: NDArray[np.float64],
    made: Plan,
    fitted: list[tuple[NDArray[np.float64], TreeEnsemble]],
    max_rows: int,
) -> Score:
    """Put the blocks together; each block's calibration knows the scores and returns of the blocks before it only."""
    calibration = fit_calibration(scores[made.first], target[made.first])
    odds = _odds(scores, calibration)
    for split, (predicted, _) in zip(made.splits, fitted, strict=True):
        calibration = fit_calibration(scores[split.train], target[split.train])
        scores[split.test] = predicted
        odds[split.test] = _odds(predicted, calibration)
    n_train = [min(split.train.size, max_rows) for split in made.splits]
    return Score(scores, odds, calibration, fitted[-1][1], settings, n_train)


def _odds(scores: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
    return calibration.a + calibration.b * scores


def _in_threads(work: Callable[[Any], T], jobs: list[Any]) -> list[T]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(work, jobs))
