"""Stage `assess`: what each feature is worth, before a model is fitted.

    python run_pipeline.py assess
    python research/assess_features.py --set features.sets='["book", "toxicity"]'

Coverage, warm-up, range, cost, drift from the training stretch to the hold-out (PSI), clusters of features that say the
same, and information coefficients by horizon. Returns are read in the training stretch alone: the hold-out is looked
at by `train`, once. Months of decisions are thinned evenly to 200,000.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from core import schema, store
from core.cells import TakerCell
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.labelled import require_settings
from core.run_record import Stage
from core.schema import Table
from core.store import Partition
from core.units import seconds_label
from research import dataset, drift
from research.catalogue import CALENDAR, compile_texts
from research.dataset import Dataset
from research.feature_counts import DayCount, day_count
from research.feature_quality import (
    SAME,
    Coefficient,
    Matrix,
    Range,
    clusters,
    coefficients,
    correlations,
    range_of,
    rank_scores,
    with_false_discovery,
)
from research.purged_cv import Split, holdout, thinned
from research.show_operators import cost_ns

READS: tuple[Table, ...] = (schema.FEATURES, schema.LABELS)
WRITES: tuple[Table, ...] = ()
_MOST_ROWS: Final = 200_000
_NOISE_ROWS: Final = 20_000
_FALSE_DISCOVERIES: Final = 0.05
_MOVED: Final = 0.2  # of the PSI: see drift.py
_WIDE: Final = 120  # signs of a line: narrower, quantiles are left to report.json


@dataclass(frozen=True)
class Assessment:
    """All that is known of one feature. `psi` is None without a hold-out; `alike` are the others of its cluster."""

    name: str
    coverage_frac: float | None
    warmup_bars: int
    range: Range | None
    psi: float | None
    cost_ns: float
    coefficients: tuple[Coefficient, ...]
    alike: tuple[str, ...]

    @property
    def best_z(self) -> float:
        return max((abs(each.z) for each in self.coefficients if each.z is not None), default=0.0)

    def row(self) -> dict[str, Any]:
        """As report.json has it."""
        return {
            "name": self.name,
            "coverage_frac": self.coverage_frac,
            "warmup_bars": self.warmup_bars,
            "range": self.range and self.range._asdict(),
            "psi": self.psi,
            "cost_ns": self.cost_ns,
            "ic": [each._asdict() for each in self.coefficients],
            "alike": self.alike,
        }


def run(cfg: Config, stage: Stage) -> None:
    """Assess the features of the configuration. Raises StageError where no horizon's labels fit the data."""
    parts = store.require(cfg.root, schema.FEATURES, cfg.symbols or (), cfg.bars)
    parts = [part for part in parts if part.exchange not in schema.INVERSE]
    for part in parts:
        require_settings(cfg, part.of(schema.LABELS))
    data, horizons_s = _joined(cfg, parts)
    stage.rows_in = data.n_rows
    found = _assess(cfg, data, horizons_s, [day_count(cfg.root, part) for part in parts])
    _report(stage, data, horizons_s, found)
    stage.put("symbols", data.instruments)
    stage.put("assessment", [each.row() for each in found])


def _joined(cfg: Config, parts: Sequence[Partition]) -> tuple[Dataset, list[float]]:
    """The decisions that have labels of as many horizons as fit the data."""
    horizons_s = sorted(cfg.labels.horizons_s)
    while horizons_s:
        data = dataset.join(cfg.root, parts, [TakerCell(each) for each in horizons_s])
        if data.n_rows:
            return data, horizons_s
        horizons_s.pop()
    raise StageError("no decision has a label of any horizon: the data are shorter than the shortest; capture more")


def _assess(cfg: Config, data: Dataset, horizons_s: list[float], days: Sequence[DayCount | None]) -> list[Assessment]:
    split = holdout(data.start_ns, data.end_ns, cfg.train.holdout_frac)
    train, test = (thinned(rows, _MOST_ROWS) for rows in split)
    matrix = dataset.feature_matrix(data, cfg.root / "train" / "assess.f32")
    seen, unseen = matrix[train], matrix[test]
    scores = rank_scores(seen, data.symbol[train])
    groups = clusters(correlations(scores))
    table = _coefficients(data, Split(train, test), scores, horizons_s)
    programs = [
        compile_texts({name: text}, cfg.bars).main for name, text in dataset.expressions(cfg, data.feature_names)
    ]
    width = max(len(program.columns) for program in programs)
    noise = np.random.default_rng(cfg.seed).lognormal(size=(width, _NOISE_ROWS)).T
    found = []
    for k, (name, program) in enumerate(zip(data.feature_names, programs, strict=True)):
        alike = next((group for group in groups if k in group), [])
        found.append(
            Assessment(
                name,
                _coverage(days, k),
                program.warmup_bars,
                range_of(seen[:, k]),
                drift.psi(seen[:, k].astype(np.float64), unseen[:, k].astype(np.float64)),
                cost_ns(program, noise[:, : len(program.columns)]),
                tuple(table[k]),
                tuple(data.feature_names[other] for other in alike if other != k),
            )
        )
    return sorted(found, key=lambda each: -each.best_z)


def _coefficients(data: Dataset, split: Split, scores: Matrix, horizons_s: Sequence[float]) -> list[list[Coefficient]]:
    """The coefficients of each feature, by horizon."""
    rows = split.train
    start_ns, symbol = data.start_ns[rows], data.symbol[rows]
    columns = []
    for horizon_s in horizons_s:
        outcome = dataset.outcomes(data, TakerCell(horizon_s))
        forward_bps, end_ns = outcome.gross_bps[0, rows], outcome.end_ns[0, rows]
        columns.append(list(coefficients(scores, forward_bps, start_ns, end_ns, symbol, horizon_s)))
    return with_false_discovery([list(row) for row in zip(*columns, strict=True)])


def _coverage(days: Sequence[DayCount | None], feature: int) -> float | None:
    """Share of the decisions with full windows in which a feature was finite."""
    known = [day for day in days if day is not None]
    warm = sum(day.decisions - day.filling for day in known)
    return 1.0 - sum(day.blame[feature] for day in known) / warm if warm else None


def _report(stage: Stage, data: Dataset, horizons_s: Sequence[float], found: Sequence[Assessment]) -> None:
    symbols = f"{len(data.instruments)} symbol{'s' * (len(data.instruments) > 1)}"
    stage.say(
        f"{len(found)} features, {data.n_rows:,} labelled decisions of {symbols}; returns of the training stretch"
    )
    is_wide = stage.width >= _WIDE
    head = f"{'feature':<25}{'cover':>6}{'warm-up':>8}{'ns':>4}{'PSI':>6}"
    head += f"{'p1':>9}{'median':>9}{'p99':>9}" if is_wide else ""
    stage.say(head + "".join(f"{'IC ' + seconds_label(each):>8} " for each in horizons_s))
    for each in found:
        stage.say(_line(each, is_wide))
    _say_findings(stage, found)


def _line(one: Assessment, is_wide: bool) -> str:
    cover = "–" if one.coverage_frac is None else f"{one.coverage_frac:.0%}"
    psi = "–" if one.psi is None else f"{one.psi:.2f}"
    line = f"{one.name:<25}{cover:>6}{one.warmup_bars:>8,}{one.cost_ns:>4.0f}{psi:>6}"
    if is_wide:
        values = (one.range.p01, one.range.median, one.range.p99) if one.range else ()
        line += "".join(f"{value:>9.3g}" for value in values) or " " * 27
    return line + "".join(f"{_ic(each):>9}" for each in one.coefficients)


def _ic(one: Coefficient) -> str:
    """The coefficient, with a star where it stands among all that were looked at."""
    if one.ic is None or one.q is None:
        return "– "
    return f"{one.ic:+.3f}{'*' if one.q < _FALSE_DISCOVERIES else ' '}"


def _say_findings(stage: Stage, found: Sequence[Assessment]) -> None:
    judged = [each for one in found for each in one.coefficients if each.q is not None]
    stars = sum(each.q is not None and each.q < _FALSE_DISCOVERIES for each in judged)
    stage.say(
        f"* {stars} of {len(judged)} coefficients stand at a false discovery rate of {_FALSE_DISCOVERIES:.0%}: returns "
        "are predicted, which is not yet to pay their costs"
    )
    moved = [f"{one.name} {one.psi:.2f}" for one in found if (one.psi or 0.0) > _MOVED and one.name not in CALENDAR]
    if moved:
        stage.say(f"moved between training stretch and hold-out (PSI > {_MOVED}): {', '.join(moved)}")
    for group in sorted({tuple(sorted((one.name, *one.alike))) for one in found if one.alike}, key=len, reverse=True):
        stage.say(f"|rho| > {SAME} within: {', '.join(group)}")


if __name__ == "__main__":
    stage_main("assess", run)
