"""Nested walk-forward: every score is made by a model, and with settings, that knew only its past.

The first part of time is cut into blocks, the last is the hold-out. Block 0 has no past of its own: purged K-fold
inside it gives its out-of-fold scores and tunes the settings. Block k is then predicted by models fitted on all that
was known before it opened, and the hold-out by models fitted on all blocks: those are the ones that are exported.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from core.units import NS_PER_S
from research.learning import models
from research.learning.decision import Calibration, fit_calibration
from research.learning.models import FAMILIES, Family, Settings
from research.learning.purged_cv import Rows, Split, Times, holdout, k_fold, thinned, walk_forward
from research.learning.screening import Screen, block_s
from research.learning.trees import TreeEnsemble

WORKERS: Final = 2  # fits are independent and release the GIL; the result does not depend on their number
MIN_TRAIN_ROWS: Final = 200  # below this a tree ensemble is noise
LOUD_SHARE: Final = 0.25  # of a fit's rows: those on which earlier models spoke up
Floats = NDArray[np.float64]
T = TypeVar("T")


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
    calibration that its past gave; `calibration`, `ensemble` and `screen` are the hold-out's, fitted on all blocks.
    """

    scores: Floats
    odds: Floats
    calibration: Calibration
    ensemble: TreeEnsemble
    settings: Settings
    n_train: list[int]
    screen: Screen


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
    start_ns: Times,
    targets: dict[float, Floats],
    families: Iterable[str],
    made: Plan,
    max_rows: int,
    rounds: int,
    seed: int,
) -> dict[tuple[str, float], Score]:
    """Scores per (family, horizon). x (n, k) float32; `targets` horizon -> mid returns (n,) in bps."""
    blocks = {horizon_s: start_ns // round(block_s(horizon_s) * NS_PER_S) for horizon_s in targets}
    tasks = {
        (name, horizon_s): _Task(FAMILIES[name], x, target, blocks[horizon_s], made, max_rows, rounds, seed)
        for name in families
        for horizon_s, target in targets.items()
    }
    tuning = [
        (task, settings, split) for task in tasks.values() for settings in task.family.grid for split in made.inner
    ]
    folds = iter(_in_threads(lambda job: job[0].fold(*job[1:]), tuning))
    chains = [(task, *task.tuned(folds)) for task in tasks.values()]
    return dict(zip(tasks, _in_threads(lambda job: job[0].walked(*job[1:]), chains), strict=True))


@dataclass(frozen=True)
class _Task:
    """One family at one horizon: `target` (n,) in bps, `block` (n,) the calendar block that each row starts in."""

    family: Family
    x: NDArray[np.float32]
    target: Floats
    block: NDArray[np.int64]
    made: Plan
    max_rows: int
    rounds: int
    seed: int

    def fitted(self, settings: Settings, rows: Rows, weights: Floats) -> TreeEnsemble:
        target, block = self.target[rows], self.block[rows]
        return models.fit(self.family, self.x[rows], target, weights, block, settings, self.rounds, self.seed)

    def fold(self, settings: Settings, split: Split) -> Floats:
        """What a fold of block 0 is predicted with some settings."""
        rows = thinned(split.train, self.max_rows)
        return self.fitted(settings, rows, np.ones(rows.size)).predict(self.x[split.test])

    def tuned(self, folds: Iterator[Floats]) -> tuple[Settings, Floats]:
        """The settings with the least squared error out of fold in block 0, and the scores (n,) they gave there."""
        tried, first = [], self.made.first
        for settings in self.family.grid:
            scores = np.full(self.target.size, np.nan)
            for split in self.made.inner:
                scores[split.test] = next(folds)
            tried.append((float(np.mean((self.target[first] - scores[first]) ** 2)), settings, scores))
        _, settings, scores = min(tried, key=lambda each: each[0])
        return settings, scores

    def walked(self, settings: Settings, scores: Floats) -> Score:
        """All blocks and the hold-out, each by a model of what was known before it; `scores` (n,) hold block 0."""
        calibration = self._calibrated(scores, self.made.first)
        odds, sampled = _odds(scores, calibration), []
        for split in self.made.splits:
            rows, weights = sample(split.train, scores, self.max_rows)
            ensemble = self.fitted(settings, rows, weights)
            calibration = self._calibrated(scores, thinned(split.train, self.max_rows))
            scores[split.test] = ensemble.predict(self.x[split.test])
            odds[split.test] = _odds(scores[split.test], calibration)
            sampled.append(rows.size)
        screen = models.screen(self.x[rows], self.target[rows], weights, self.block[rows])
        return Score(scores, odds, calibration, ensemble, settings, sampled, screen)

    def _calibrated(self, scores: Floats, rows: Rows) -> Calibration:
        return fit_calibration(scores[rows], self.target[rows])


def sample(rows: Rows, scores: Floats, at_most: int) -> tuple[Rows, Floats]:
    """At most `at_most` of the training rows, ascending, and their weights.

    What a signal looks like is in a few rows of a hundred, and even thinning loses them with the rest. So the rows on
    which earlier models, which never saw them, gave the largest |score| are all kept, up to a share of the places; the
    others are thinned evenly and weigh as many rows as they stand for. A row's own label has no say in it.
    """
    if rows.size <= at_most:
        return rows, np.ones(rows.size)
    size = np.abs(np.nan_to_num(scores[rows], nan=0.0))
    n_loud = round(LOUD_SHARE * at_most)
    loud = np.zeros(rows.size, np.bool_)
    loud[np.argsort(-size, kind="stable")[:n_loud]] = True
    quiet = thinned(rows[~loud], at_most - n_loud)
    chosen = np.concatenate([rows[loud], quiet])
    weights = np.repeat([1.0, (rows.size - n_loud) / quiet.size], [n_loud, quiet.size])
    order = np.argsort(chosen, kind="stable")
    return chosen[order], weights[order]


def _odds(scores: Floats, calibration: Calibration) -> Floats:
    return calibration.a + calibration.b * scores


def _in_threads(work: Callable[[Any], T], jobs: list[Any]) -> list[T]:
    with ThreadPoolExecutor(WORKERS) as pool:
        return list(pool.map(work, jobs))
