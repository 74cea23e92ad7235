"""What a training leaves on disk: trees, scores and, last, the winner; and whether all of it is still there."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from core import schema, store
from core.config import Config
from core.store import Partition
from research.learning import dataset, metrics, training
from research.learning.candidates import HOLD_OUT, Winner, model_name, model_path, winner_path, write_winner
from research.learning.dataset import Dataset
from research.learning.looks import data_fingerprint
from research.learning.nested import Plan
from research.learning.training import Judged, Scores


def is_whole(root: Path, parts: list[Partition], key: str) -> bool:
    """Whether all that a run on this key wrote is still there: winner, scores of each symbol-day, their models."""
    scored = [part.of(schema.SCORES) for part in parts]
    if not winner_path(root).exists() or any(store.built_from(root, part) != key for part in scored):
        return False
    columns = {name for part in scored for path in store.files(root, part) for name in pl.read_parquet_schema(path)}
    models = [name.removeprefix("score_") for name in columns if name.startswith("score_")]
    return all(model_path(root, model).exists() for model in models)


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
