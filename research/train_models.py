"""Train stage: features and labels to scores, models, a winner and the verdict.

python run_pipeline.py train
python research/train_models.py --set train.families='["lightgbm"]'

Reads `features` and `labels`; writes `scores`, `<data>/train/{family}_{T}.npz`, `<data>/train/winner.json` and the
ledger of trials and looks.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from typing import Any, Final

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import schema, store
from core.cells import TakerCell
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.labelled import require_settings
from core.run_record import Stage
from core.store import Partition
from core.units import NS_PER_HOUR, NS_PER_S, seconds_label
from research.catalogue import CALENDAR, compile_texts
from research.fitting.fitted import chosen_features
from research.learning import dataset, metrics, training
from research.learning.candidates import Candidate, Winner, held_s, model_name, model_path, winner_path, write_winner
from research.learning.dataset import Dataset
from research.learning.decision import probability_up
from research.learning.explain import MAX_ROWS, importance
from research.learning.ledger import Data, read_ledger, with_look, with_trials, write_ledger
from research.learning.nested import Plan, walk
from research.learning.purged_cv import thinned
from research.learning.training import Judged, Scores
from research.learning.verdict import MIN_DEFLATED_SHARPE, hours_to_judge
from research.quality import drift

READS, WRITES = (schema.FEATURES, schema.LABELS), (schema.SCORES,)
VERSION: Final = 5
HOLD_OUT: Final = -1
_PRINTED_MIN_FILLS: Final = 30


def run(cfg: Config, stage: Stage) -> None:
    """Fit, choose and judge. Raises StageError where the data are too short for any horizon."""
    parts = feature_parts(cfg, stage)
    key = inputs_key(cfg, parts)
    if stage.reuse(key, whole=is_whole(cfg.root, parts, key)):
        return
    require_same_settings(cfg, parts)
    data, made, horizons_s = fitting(cfg, parts, stage)
    stage.rows_in = data.n_rows
    x = dataset.feature_matrix(data, cfg.root / "train" / "features.f32")
    targets = {horizon_s: dataset.returns_bps(data, horizon_s) for horizon_s in horizons_s}
    scores = walk(x, data.start_ns, targets, cfg.train.families, made, cfg.train.max_rows, cfg.train.rounds, cfg.seed)
    case = judge_candidates(cfg, stage, data, made, scores)
    report_models(cfg, stage, data, made, scores, targets)
    explain(stage, data, made, scores, case.winner, x, targets)
    row = training.policy_row(data, made, scores, case.winner, training.outcomes_reader(data), cfg.train, cfg.labels)
    report_verdict(stage, case, held_s(case.winner.cell, cfg.labels), row)
    write_outputs(cfg, data, made, scores, case, key)
    stage.rows_out = data.n_rows


def feature_parts(cfg: Config, stage: Stage) -> list[Partition]:
    """The symbol-days to train on; inverse contracts are captured only."""
    parts = store.require(cfg.root, schema.FEATURES, cfg.symbols or (), cfg.bars)
    store.require(cfg.root, schema.LABELS, cfg.symbols or ())
    usable = [part for part in parts if part.exchange not in schema.INVERSE]
    if len(usable) < len(parts):
        skipped = sorted({part.exchange for part in parts} & schema.INVERSE)
        stage.say(f"{', '.join(skipped)}: skipped, quantities are contracts")
    if not usable:
        raise StageError(
            "only inverse contracts were captured, which are not trained on: capture linear or spot symbols"
        )
    return usable


def inputs_key(cfg: Config, parts: list[Partition]) -> str:
    """What the results depend on: rows of both tables, the settings, the code's version."""
    labels = [part.of(schema.LABELS) for part in parts]
    rows = store.fingerprint(cfg.root, parts), store.fingerprint(cfg.root, labels)
    used = cfg.train, cfg.labels, cfg.fees, cfg.features, cfg.bars, cfg.decision, cfg.seed
    return store.hash_of("train", VERSION, rows, *used)


def is_whole(root: Path, parts: list[Partition], key: str) -> bool:
    """Whether all that a run on this key wrote is still there: winner, scores of each symbol-day, their models."""
    scored = [part.of(schema.SCORES) for part in parts]
    if not winner_path(root).exists() or any(store.built_from(root, part) != key for part in scored):
        return False
    columns = {name for part in scored for path in store.files(root, part) for name in pl.read_parquet_schema(path)}
    models = [name.removeprefix("score_") for name in columns if name.startswith("score_")]
    return all(model_path(root, model).exists() for model in models)


def require_same_settings(cfg: Config, parts: list[Partition]) -> None:
    """Raises StageError where features or labels were built with other settings, ConfigError for a broken feature.

    Before any fit: a run that fails must not have looked at the hold-out.
    """
    compile_texts(chosen_features(cfg), cfg.bars)
    for part in parts:
        dataset.expressions(cfg, dataset.feature_names(cfg.root, [part]))
        require_settings(cfg, part.of(schema.LABELS))


def fitting(cfg: Config, parts: list[Partition], stage: Stage) -> tuple[Dataset, Plan, list[float]]:
    """The common rows and splits of as many of the configured horizons as the data are long enough for.

    Raises StageError where not even the shortest fits.
    """
    horizons_s = sorted(cfg.train.horizons_s)
    while horizons_s:
        cells = training.cells_of(cfg.train, cfg.labels, horizons_s)
        data = dataset.join(cfg.root, parts, cells)
        made = training.split(data, cfg.train, cfg.labels, cells)
        if made is not None:
            symbols = f"{len(data.instruments)} symbols"
            stage.say(f"{data.n_rows:,} decisions on {symbols}; {data.n_unlabelled:,} unlabelled dropped")
            for line in unjudged_lines(cfg, data):
                stage.say(line)
            return data, made, horizons_s
        stage.say(
            f"T={seconds_label(horizons_s[-1])} s: dropped, {data.n_rows:,} labelled decisions are too few or too short"
        )
        horizons_s.pop()
    raise StageError(
        f"no horizon of train.horizons_s {list(cfg.train.horizons_s)} fits the data: {cfg.train.walk_forward_blocks} "
        "walk-forward blocks and a hold-out need some minutes of labelled decisions at least; capture more, or set "
        "shorter horizons"
    )


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


def judge_candidates(cfg: Config, stage: Stage, data: Dataset, made: Plan, scores: Scores) -> Judged:
    """Choose for each block and for the hold-out, note trials and look in the ledger, and judge."""
    horizons_s = sorted({horizon_s for _, horizon_s in scores})
    cells, read = training.cells_of(cfg.train, cfg.labels, horizons_s), training.outcomes_reader(data)
    found = training.find(data, made, scores, cells, read, cfg.train, cfg.labels)
    if found.chosen[-1] is None:
        raise StageError(
            f"no candidate has {cfg.train.min_fills_per_fold} fills per block (train.min_fills_per_fold), the most had "
            f"{int(found.fills[:, -1].max()) / cfg.train.walk_forward_blocks:.1f}: capture more data, or lower it"
        )
    winner = found.candidates[found.chosen[-1]]
    look, trials = note_look(cfg, data, made, scores, found.candidates)
    walk_orders = training.walk_forward_orders(data, made, scores, found, read)
    held_out = training.holdout_orders(data, made, scores, winner, read)
    held = training.longest_chosen_s(found, winner, cfg.labels)
    case = training.judged(data, made, winner, walk_orders, held_out, held, look, trials)
    stage.put("selection", training.selection_section(case, found))
    return case


def note_look(cfg: Config, data: Dataset, made: Plan, scores: Scores, candidates: list[Candidate]) -> tuple[int, int]:
    """(k, N): this is the k-th distinct look at the hold-out, after N distinct trials on data that overlap these."""
    judged_on = ledger_data(cfg, data)
    settings = {key: sorted(score.settings.items()) for key, score in scores.items()}
    priced = cfg.bars, cfg.decision, cfg.labels, cfg.fees
    fitted = dataset.expressions(cfg, data.feature_names), cfg.train.rounds, cfg.train.max_rows, cfg.seed, priced
    trials = {
        store.hash_of(judged_on.fingerprint, fitted, settings[each.family, each.horizon_s], each)[:16]
        for each in candidates
    }
    minute = 60 * NS_PER_S
    interval = int(data.start_ns[made.final.test[0]]) // minute, int(data.start_ns[-1]) // minute
    configuration = store.hash_of(fitted, cfg.train)
    ledger, look, known = with_look(
        with_trials(read_ledger(cfg.root), judged_on, trials), judged_on, interval, configuration
    )
    write_ledger(cfg.root, ledger)
    return look, known


def ledger_data(cfg: Config, data: Dataset) -> Data:
    """What the ledger knows these data by: the captured best prices of each symbol-day."""
    events = store.partitions(cfg.root, schema.TOP_OF_BOOK, data.instruments)
    days = (f"{part.instrument} {part.date} {store.fingerprint(cfg.root, [part])}" for part in events)
    return Data(data_fingerprint(cfg, data), frozenset(days))


def data_fingerprint(cfg: Config, data: Dataset) -> str:
    """A hash of the captured best prices, which no setting of labels or features changes."""
    events = store.partitions(cfg.root, schema.TOP_OF_BOOK, data.instruments)
    return store.fingerprint(cfg.root, events)


def report_models(
    cfg: Config, stage: Stage, data: Dataset, made: Plan, scores: Scores, targets: dict[float, NDArray[np.float64]]
) -> None:
    """Sections `models`, `taker` and `maker`, and their lines: all out of sample, on the walk-forward blocks."""
    models = training.model_rows(scores, targets, made)
    stage.put("models", models)
    for row in models:
        oof = row["oof"]
        figures = f"R²={_digits(oof['r2'], 4)} | correlation={_digits(oof['correlation'], 3)} | n={oof['n']}"
        stage.say(f"{row['name']}: out of sample {figures}")
    best, read = training.best_families(models, scores), training.outcomes_reader(data)
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
    targets: dict[float, NDArray[np.float64]],
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


def drift_rows(x: NDArray[np.float32], made: Plan, names: list[str]) -> list[dict[str, Any]]:
    """PSI of each feature between the training part and the hold-out; not of the calendar's, which must move."""
    moved = drift.between(x, *made.final)
    return [{"name": name, "psi": psi} for name, psi in zip(names, moved, strict=True) if name not in CALENDAR]


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


def write_outputs(cfg: Config, data: Dataset, made: Plan, scores: Scores, case: Judged, key: str) -> None:
    """Trees, scores and, last, the winner: without it the stage has not succeeded."""
    for (family, horizon_s), score in scores.items():
        score.ensemble.save(model_path(cfg.root, model_name(family, horizon_s)))
    write_scores(cfg.root, data, made, scores, key)
    candidate = case.winner
    learned, held_out = made.final.train, made.final.test
    write_winner(
        cfg.root,
        Winner(
            candidate=candidate,
            calibration=scores[candidate.family, candidate.horizon_s].calibration,
            features=dataset.expressions(cfg, data.feature_names),
            bars=cfg.bars,
            decision=cfg.decision,
            symbols=data.instruments,
            train_window=(int(data.start_ns[learned[0]]), int(data.end_ns[learned].max())),
            holdout_window=(int(data.start_ns[held_out[0]]), int(data.start_ns[held_out[-1]])),
            verdict=case.verdict.verdict,
            reasons=case.verdict.reasons,
            tradeable=case.verdict.verdict == "edge",
            metrics={
                "walk_forward": metrics.summary(case.walk_forward, training.n_walked(made), case.held_s),
                "holdout": metrics.summary(case.holdout, held_out.size, case.held_s),
                "z": case.verdict.z,
                "deflated_sharpe": case.deflated_sharpe,
            },
            data_fingerprint=data_fingerprint(cfg, data),
        ),
    )


def write_scores(root: Path, data: Dataset, made: Plan, scores: Scores, key: str) -> None:
    """One scores partition per symbol-day; those of other symbols or days are from another run and go."""
    fold = np.zeros(data.n_rows, np.int64)
    for block, split in enumerate(made.walk, start=1):
        fold[split.test] = block
    fold[made.final.test] = HOLD_OUT
    written = set()
    for joined in data.parts:
        columns: dict[str, Any] = {"decision_ns": data.start_ns[joined.place], "fold": fold[joined.place]}
        columns |= {f"score_{model_name(*name)}": score.scores[joined.place] for name, score in scores.items()}
        part = joined.features.of(schema.SCORES)
        store.write(root, part, pl.DataFrame(columns, nan_to_null=True), key)
        written.add(part)
    for part in set(store.partitions(root, schema.SCORES)) - written:
        for path in store.files(root, part):
            path.unlink()


def _digits(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


if __name__ == "__main__":
    stage_main("train", run)
