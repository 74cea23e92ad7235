"""Stage `assess`: what each feature is worth, before a model is fitted.

    python run_pipeline.py assess
    python research/assess_features.py --set features.sets='["book", "toxicity"]'

Coverage, warm-up, range, cost, drift from the training stretch to the hold-out and to the last live session (PSI),
clusters of features that say the same, and information coefficients by horizon. Returns are read in the training
stretch alone: the hold-out is looked at by `train`, once. Months of decisions are thinned evenly to 200,000.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import textwrap
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core import schema, store
from core.cells import TakerCell
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.labelled import require_settings
from core.run_record import Stage
from core.schema import Table
from core.store import Partition
from research import feature_settings
from research.catalogue import compile_texts, is_calendar
from research.learning import dataset
from research.learning.dataset import Dataset
from research.learning.purged_cv import Rows, Split, holdout, thinned
from research.learning.training import cells_of
from research.quality import drift
from research.quality.assessment import FALSE_DISCOVERIES, Assessment, findings, table, too_short
from research.quality.cost import made_up_rows, panel_cost_ns
from research.quality.feature_counts import DayCount, day_count
from research.quality.feature_quality import (
    SAME,
    Coefficient,
    Matrix,
    clusters,
    coefficients,
    correlations,
    range_of,
    rank_scores,
    with_false_discovery,
)
from research.quality.live_features import LiveSample, live_sample

READS: tuple[Table, ...] = (schema.FEATURES, schema.LABELS)
WRITES: tuple[Table, ...] = ()
_MOST_ROWS: Final = 200_000
_NOISE_ROWS: Final = 20_000
_LEGEND: Final = (  # lines of their own, that a screen of 80 signs has room for beside the mark of a simulation
    "|z|: of the strongest horizon, over disjoint calendar blocks",
    "IC: Spearman's, with the mid's return from entry, training stretch",
    "PSI: from the training stretch to the hold-out",
    "cover: share of decisions with full windows in which it was finite",
    "warm-up: in bars; ns: per row",
)
_LIVE: Final = "live: PSI to the {0.rows:,} decisions of the session {0.session}"
_FEW: Final = "live: – , {0.rows:,} decisions of the session {0.session} are too few for a PSI, which takes {1}"


def run(cfg: Config, stage: Stage) -> None:
    """Assess the features of the configuration. Raises StageError where no horizon's labels fit the data."""
    parts = store.require(cfg.root, schema.FEATURES, cfg.symbols or (), cfg.bars)
    parts = [part for part in parts if part.exchange not in schema.INVERSE]
    for part in parts:
        dataset.expressions(cfg, dataset.feature_names(cfg.root, [part]))
        require_settings(cfg, part.of(schema.LABELS))
    feature_settings.require_settings(cfg, parts)
    data = _joined(cfg, parts)
    stage.rows_in = data.n_rows
    live = live_sample(cfg.root, dataset.expressions(cfg, data.feature_names), cfg.bars, data.instruments)
    found, groups = _assess(cfg, data, [day_count(cfg.root, part) for part in parts], live)
    span_ns = int((1.0 - cfg.train.holdout_frac) * (data.start_ns[-1] - data.start_ns[0]))
    _report(stage, data, found, groups, live, span_ns)
    stage.put("symbols", data.instruments)
    told = live and {"session": live.session, "rows": live.rows, "first_ns": live.first_ns, "last_ns": live.last_ns}
    limits = {
        "psi_moved": drift.MOVED,
        "psi_least_rows": drift.LEAST_ROWS,
        "same_rho": SAME,
        "false_discoveries": FALSE_DISCOVERIES,
    }
    stage.put("assessment", {"features": [each.row() for each in found], "clusters": groups, "live": told, **limits})


def _joined(cfg: Config, parts: Sequence[Partition]) -> Dataset:
    """The decisions that `train` learns from and judges, those that are labelled at as many of its horizons as fit."""
    horizons_s = sorted(set(cfg.train.horizons_s) & set(cfg.labels.horizons_s))
    while horizons_s:
        data = dataset.join(cfg.root, parts, cells_of(cfg.train, cfg.labels, horizons_s))
        if data.n_rows:
            return data
        horizons_s.pop()
    raise StageError(
        "no decision that has features has a label of any horizon of train.horizons_s: the data are shorter than the "
        "shortest, or labels.horizons_s has none of them; capture more, or set train.horizons_s"
    )


def _assess(
    cfg: Config, data: Dataset, days: Sequence[DayCount | None], live: LiveSample | None
) -> tuple[list[Assessment], list[list[str]]]:
    """What is known of each feature, the strongest first, and the names of those that say the same."""
    split, names = holdout(data.start_ns, data.end_ns, cfg.train.holdout_frac), data.feature_names
    matrix = dataset.feature_matrix(data, cfg.root / "train" / "assess.f32")
    train = thinned(split.train, _MOST_ROWS)
    seen = matrix[train]
    scores = rank_scores(seen, data.symbol[train])
    groups = clusters(correlations(scores))
    by_horizon = _coefficients(data, split, train, scores, sorted(cfg.labels.horizons_s))
    moved, moved_live = drift.between(matrix, *split), _live_drift(matrix, data.symbol, split, live)
    programs = [compile_texts({name: text}, cfg.bars) for name, text in dataset.expressions(cfg, names)]
    noise = made_up_rows(cfg.seed, _NOISE_ROWS, programs)
    found = [
        Assessment(
            name,
            _coverage(days, k),
            program.warmup_bars,
            range_of(seen[:, k]),
            moved[k],
            moved_live[k],
            is_calendar(name),
            panel_cost_ns(program, noise),
            tuple(by_horizon[k]),
        )
        for k, (name, program) in enumerate(zip(names, programs, strict=True))
    ]
    return sorted(found, key=lambda each: -each.best_z), [[names[k] for k in group] for group in groups]


def _live_drift(matrix: Matrix, symbol: NDArray[np.int64], split: Split, live: LiveSample | None) -> list[float | None]:
    """PSI of each feature from the training stretch to the live session, in which each symbol has the session's share;
    None for what it did not compute, and for a session too short to tell.
    """
    moved: list[float | None] = [None] * matrix.shape[1]
    if live is not None and live.rows >= drift.LEAST_ROWS:
        rows = drift.alike(split.train, symbol[split.train], live.symbol)
        sample = live.values[np.isin(live.symbol, symbol[rows])]
        for place, psi in zip(live.places, drift.of_columns(matrix[rows][:, live.places], sample), strict=True):
            moved[place] = psi
    return moved


def _coefficients(
    data: Dataset, split: Split, rows: Rows, scores: Matrix, horizons_s: Sequence[float]
) -> list[list[Coefficient]]:
    """The coefficients of each feature, by horizon, on some rows of the training stretch.

    A return that ends in the hold-out is none: the longest horizons are longer than what the stretch was purged for.
    """
    start_ns, symbol = data.start_ns[rows], data.symbol[rows]
    opens_ns, columns = data.start_ns[split.test[0]] if split.test.size else np.inf, []
    for horizon_s in horizons_s:
        outcome = dataset.outcomes(data, TakerCell(horizon_s))
        end_ns = outcome.end_ns[0, rows]
        forward_bps = np.where(end_ns < opens_ns, dataset.entered_bps(outcome)[rows], np.nan)
        columns.append(list(coefficients(scores, forward_bps, start_ns, end_ns, symbol, horizon_s)))
    return with_false_discovery([list(row) for row in zip(*columns, strict=True)])


def _coverage(days: Sequence[DayCount | None], feature: int) -> float | None:
    """Share of the decisions with full windows in which a feature was finite."""
    known = [day for day in days if day is not None]
    warm = sum(day.decisions - day.filling for day in known)
    return 1.0 - sum(day.blame[feature] for day in known) / warm if warm else None


def _report(
    stage: Stage,
    data: Dataset,
    found: Sequence[Assessment],
    groups: Sequence[Sequence[str]],
    live: LiveSample | None,
    span_ns: int,
) -> None:
    symbols = f"{len(data.instruments)} symbol{'s' * (len(data.instruments) > 1)}"
    head = f"{len(found)} features, {data.n_rows:,} labelled decisions, {symbols}; largest |z| first"
    for line in (
        *(line for text in (head, *_LEGEND, *_live_lines(live)) for line in _wrapped(text, stage.width)),
        *table(found, stage.width),
        *findings(found, groups, stage.width),
        *(line for text in too_short(found, span_ns) for line in _wrapped(text, stage.width)),
    ):
        stage.say(line)


def _live_lines(live: LiveSample | None) -> list[str]:
    """What the drift to the live session rests on, if there is one."""
    if live is None:
        return []
    return [(_LIVE if live.rows >= drift.LEAST_ROWS else _FEW).format(live, drift.LEAST_ROWS)]


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ")


if __name__ == "__main__":
    stage_main("assess", run)
