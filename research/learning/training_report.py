"""What the train stage says and puts into the report: models and grids out of sample, the winner, the verdict."""

import textwrap
from collections.abc import Container
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.cells import TakerCell
from core.config import Config
from core.run_record import Stage
from core.units import NS_PER_HOUR, seconds_label
from research.catalogue import is_calendar
from research.learning import dataset, metrics, models, training
from research.learning.candidates import Candidate
from research.learning.dataset import Dataset
from research.learning.decision import probability_up
from research.learning.explain import MAX_ROWS, importance
from research.learning.nested import Plan
from research.learning.purged_cv import thinned
from research.learning.screening import Screen
from research.learning.training import Judged, Scores
from research.learning.verdict import MIN_DEFLATED_SHARPE, hours_to_judge
from research.quality import drift

Targets = dict[float, NDArray[np.float64]]
"""Mid returns (n,) in bps by horizon."""
_PRINTED_MIN_FILLS: Final = 30


def unjudged_lines(cfg: Config, data: Dataset) -> list[str]:
    """A line per horizon that is labelled and that no candidate has: how long a capture it would take."""
    hours, lines = (int(data.start_ns[-1]) - int(data.start_ns[0])) / NS_PER_HOUR, []
    for horizon_s in sorted(set(cfg.labels.horizons_s) - set(cfg.train.horizons_s)):
        is_maker = horizon_s >= cfg.labels.min_maker_horizon_s
        held = horizon_s + cfg.labels.rest_s * is_maker
        needed = hours_to_judge(horizon_s, held, cfg.train.holdout_frac, len(data.instruments))
        why = f"needs about {needed:,.0f} h" if needed > hours else "not in train.horizons_s"
        lines.append(f"T={seconds_label(horizon_s)} s: labelled, not judged: {why}")
    return lines


def report_models(cfg: Config, stage: Stage, data: Dataset, made: Plan, scores: Scores, targets: Targets) -> None:
    """Sections `models`, `taker` and `maker`, and their lines: all out of sample, on the walk-forward blocks."""
    skills = training.model_rows(scores, targets, made)
    stage.put("models", skills)
    for row in skills:
        oof = row["oof"]
        figures = f"R²={_digits(oof['r2'], 4)} | correlation={_digits(oof['correlation'], 3)} | n={oof['n']}"
        stage.say(f"{row['name']}: out of sample {figures}")
    best, read = training.best_families(skills, scores), training.outcomes_reader(data)
    takers: list[tuple[dataset.Cell, float | None]] = [(TakerCell(horizon_s), None) for horizon_s in sorted(best)]
    for kind, cells in (("taker", takers), ("maker", training.maker_grid(cfg.labels, sorted(best)))):
        rows = list(training.grid_rows(data, made, scores, best, cells, read, cfg.train, cfg.labels))
        stage.put(kind, rows)
        for text in grid_lines(kind, rows):
            stage.say(text)


def grid_lines(kind: str, rows: list[dict[str, Any]]) -> list[str]:
    """The rows to read, under a heading per cell: with fills enough, and other orders than the row printed before (an
    edge can be idle beside a threshold) and than the same row of the smaller gate. The report holds them all."""
    lines: list[str] = []
    heading, before = "", (0, 0, 0.0)
    gated: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for row in rows:
        figures = row["n_orders"], row["n"], row["avg_net_bps"]
        is_told = figures == before
        if row.get("fill_usd") is not None:
            policy = row["horizon_s"], row["delta_bps"], row["thr"], row["edge_bps"]
            is_told |= figures == gated.get(policy)
            gated[policy] = figures
        if row["n"] < _PRINTED_MIN_FILLS or is_told:
            continue
        before = figures
        delta = "" if kind == "taker" else f" δ={row['delta_bps']:g} bps"
        now = f"{kind} T={seconds_label(row['horizon_s'])} s{delta}, {row['family']}, walk-forward, averages per fill"
        lines += [now] if now != heading else []
        heading = now
        lines.append(metrics.line(row))
    return lines


def explain(
    stage: Stage,
    data: Dataset,
    made: Plan,
    scores: Scores,
    winner: Candidate,
    x: NDArray[np.float32],
    targets: Targets,
) -> None:
    """Importance, calibration and drift of the winner's model."""
    score, held_out = scores[winner.family, winner.horizon_s], made.final.test
    ranked = importance(score.ensemble, x[thinned(made.final.train, MAX_ROWS)], data.feature_names)
    stage.put("features", {"importance": ranked})
    chance = probability_up(score.scores[held_out], score.calibration)
    stage.put("calibration", metrics.calibration_rows(chance, targets[winner.horizon_s][held_out]))
    stage.put("drift", drift_rows(x, made, data.feature_names))
    top = ", ".join(f"{row['name']} {row['mean_abs_shap']:.3f}" for row in ranked[:5])
    stage.say(f"most important (mean |SHAP|, bps): {top}")


def report_screen(stage: Stage, screen: Screen, names: list[str], mine: Container[str]) -> None:
    """What the winner may look at: a feature that the screen left out has a SHAP of 0, whatever it says of returns."""
    rows = screen_rows(screen, names, mine)
    stage.put("features", {"screen": {"at_most": models.MAX_FEATURES, "rows": rows}})
    for text in screen_lines(rows):
        for line in textwrap.wrap(text, stage.width, subsequent_indent="  "):
            stage.say(line)


def screen_rows(screen: Screen, names: list[str], mine: Container[str]) -> list[dict[str, Any]]:
    """Each feature's t, the largest |t| first, whether it is in the model, and whether it is of `features.mine`."""
    kept = set(screen.kept.tolist())
    order = np.argsort(-np.abs(screen.t), kind="stable").tolist()
    return [{"name": names[k], "t": float(screen.t[k]), "kept": k in kept, "mine": names[k] in mine} for k in order]


def screen_lines(rows: list[dict[str, Any]]) -> list[str]:
    """What was kept, and of one's own features what was and what was not, each with its t."""
    kept = [row for row in rows if row["kept"]]
    rule = f"at most {models.MAX_FEATURES}, by |t| over calendar blocks of the training part"
    named = ", ".join(f"{row['name']} {row['t']:+.1f}" for row in kept)
    lines = [f"{len(kept)} of {len(rows)} features kept by the screen ({rule}): {named}"]
    mine = [f"{row['name']} {'' if row['kept'] else 'not '}kept, t {row['t']:+.2f}" for row in rows if row["mine"]]
    if mine:
        lines.append(f"features.mine: {'; '.join(mine)}")
    if len(kept) < len(rows):
        lines.append("what was not kept is not in the model: its SHAP is 0 for that, not for having no effect")
    return lines


def drift_rows(x: NDArray[np.float32], made: Plan, names: list[str]) -> list[dict[str, Any]]:
    """PSI of each feature between the training part and the hold-out; not of the calendar's, which must move."""
    moved = drift.between(x, *made.final)
    return [{"name": name, "psi": psi} for name, psi in zip(names, moved, strict=True) if not is_calendar(name)]


def report_verdict(stage: Stage, case: Judged, winner_held_s: float, row: dict[str, Any]) -> None:
    """Say who won, what it did (`row`: its own metric row in walk-forward) and what the verdict is."""
    candidate, verdict = case.winner, case.verdict
    told = {"candidate": msgspec.to_builtins(candidate), "held_s": winner_held_s, "model": candidate.model}
    stage.put("winner", told)
    offset = "" if candidate.delta_bps is None else f" δ={candidate.delta_bps:g} bps"
    rule = f"threshold {candidate.threshold:.2f}, edge {candidate.edge_bps:.2f} bps"
    name = "winner" if verdict.verdict == "edge" else "best candidate (not good enough)"
    stage.say(f"{name}: {candidate.kind} {candidate.model}{offset}, {rule}")
    stage.say(f"  it alone, walk-forward, averages per fill: {metrics.line(row)}")
    for stretch, orders in (("walk-forward, each block's choice", case.walk_forward), ("hold-out", case.holdout)):
        net = float(orders.net_bps.mean()) if orders.row.size else None
        stage.say(
            f"{stretch}: {orders.n_fills} round trips of {orders.row.size} orders | net_bps_per_order={_digits(net, 2)}"
        )
    stage.say(f"verdict: {verdict.verdict}")
    stage.say(evidence_line(case))
    for reason in verdict.reasons:
        stage.say(f"  - {reason}")


def evidence_line(case: Judged) -> str:
    """What the verdict rests on, whichever it is."""
    walked, final, verdict = case.walk_stretch.ratio, case.holdout_stretch.ratio, case.verdict
    alone = " alone not significant" if final is not None and final.low <= 0.0 <= final.high else ""
    interval = "–" if final is None else f"[{final.low:.2f}, {final.high:.2f}]"
    parts = [
        f"walk-forward z={_digits(walked.z if walked else None, 2)}",
        f"hold-out z={_digits(final.z if final else None, 2)}",
        f"joint z={_digits(verdict.z, 2)} (needs {verdict.z_needed:.2f}, look {case.look} at this hold-out)",
        f"hold-out net_bps_per_order={_digits(case.holdout_stretch.mean_net_bps, 2)} ci95={interval}{alone}",
        f"DSR={_digits(case.deflated_sharpe, 3)} (needs {MIN_DEFLATED_SHARPE}, {case.trials:,} trials)",
    ]
    return "evidence: " + " | ".join(parts)


def _digits(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
