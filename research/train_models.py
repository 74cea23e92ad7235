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

import math
from typing import Final

from core import schema, store
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.labelled import require_settings
from core.run_record import Stage
from core.store import Partition
from core.units import seconds_label
from research import feature_settings
from research.learning import dataset, training
from research.learning.candidates import held_s
from research.learning.dataset import Dataset
from research.learning.looks import note_look
from research.learning.nested import MIN_TRAIN_ROWS, Plan, walk
from research.learning.trained_files import is_whole, write_outputs
from research.learning.training import Judged, Scores
from research.learning.training_report import explain, report_models, report_screen, report_verdict, unjudged_lines

READS, WRITES = (schema.FEATURES, schema.LABELS), (schema.SCORES,)
VERSION: Final = 6


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
    kept = scores[case.winner.family, case.winner.horizon_s].screen
    report_screen(stage, kept, data.feature_names, cfg.features.mine)
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


def require_same_settings(cfg: Config, parts: list[Partition]) -> None:
    """Raises StageError where features or labels were built with other settings, ConfigError for a broken feature.

    Before any fit: a run that fails must not have looked at the hold-out.
    """
    for part in parts:
        dataset.expressions(cfg, dataset.feature_names(cfg.root, [part]))
        require_settings(cfg, part.of(schema.LABELS))
    feature_settings.require_settings(cfg, parts)


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
    train = cfg.train
    in_first = MIN_TRAIN_ROWS * train.inner_folds / (train.inner_folds - 1)
    needed = math.ceil(in_first * train.walk_forward_blocks / (1.0 - train.holdout_frac))
    raise StageError(
        f"no horizon of train.horizons_s {list(train.horizons_s)} fits the data: {train.walk_forward_blocks} "
        f"walk-forward blocks, {train.inner_folds} folds in the first and a hold-out need about {needed:,} labelled "
        f"decisions, so that every model has {MIN_TRAIN_ROWS}: capture more, or set smaller `bars`, fewer blocks or "
        "shorter horizons"
    )


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


if __name__ == "__main__":
    stage_main("train", run)
