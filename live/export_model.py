"""Export stage: the winner of training to `data/models/<model_id>/{model.onnx, manifest.json}`.

    python run_pipeline.py export

Before anything is written, the graph's scores are compared with the trained ensemble's on held-out rows. `exported.txt`
names the last model exported; `current.txt`, the model in use, is switched only on the verdict "edge", and atomically.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Mapping
from typing import Final, Literal
from zipfile import BadZipFile

import msgspec
import numpy as np
from numpy.typing import NDArray

from core import schema, store
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.origin import read_origin
from core.run_record import Stage, git_sha
from live.manifest import (
    CURRENT,
    EXPORTED,
    ExportParity,
    Manifest,
    load_bundle,
    models_folder,
    probe,
    sha256,
    write_bundle,
)
from live.onnx_export import features_metadata, to_onnx
from live.scorer import Scorer
from research.catalogue import compile_texts
from research.learning import trees
from research.learning.candidates import Winner, model_path, read_winner
from research.learning.trees import TreeEnsemble

READS, WRITES = (schema.FEATURES,), ()
VERSION: Final = 3
PARITY_BOUND: Final = 1e-6
"""Largest difference of a score, in bps, between the graph and the ensemble (method section 7)."""
PARITY_ROWS: Final = 5_000  # held-out rows compared, evenly in time over all symbols

Rows = NDArray[np.float32]
Source = Literal["sim", "replay", "archive", "live"]


def run(cfg: Config, stage: Stage) -> None:
    """The trained winner to a bundle that the runner can load."""
    winner = read_winner(cfg.root)
    ensemble = read_ensemble(cfg.root, winner)
    parts = store.require(cfg.root, schema.FEATURES, cfg.symbols or (), winner.bars)
    note = check_fees(cfg, winner)
    origin = origin_of(cfg)
    rows_key = store.fingerprint(cfg.root, parts)
    key = store.hash_of(VERSION, winner, ensemble_digest(ensemble), cfg.fees, origin, note, rows_key)
    if stage.reuse(key, whole=is_exported(cfg.root)):
        return
    rows, n_held_out = held_out_rows(cfg.root, parts, winner)
    model = to_onnx(ensemble, features_metadata(winner.features))
    manifest = describe(cfg, winner, model, check_parity(ensemble, Scorer(model), rows))
    write_bundle(models_folder(cfg.root) / manifest.model_id, manifest, model)
    point_at(cfg.root, manifest)
    stage.rows_in, stage.rows_out = rows.shape[0], 1
    report(stage, manifest, len(model), ensemble.n_trees, n_held_out)
    if note:
        stage.say(note)


def read_ensemble(root: Path, winner: Winner) -> TreeEnsemble:
    """The winner's trees. Raises StageError where training left none."""
    path = model_path(root, winner.candidate.model)
    try:
        return trees.load(path)
    except FileNotFoundError:
        raise StageError(f"{path} does not exist: run `python run_pipeline.py train` first") from None
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise StageError(f"{path} is damaged ({error}): run `python run_pipeline.py train` again") from error


def check_fees(cfg: Config, winner: Winner) -> str:
    """What is to be said of the fees: nothing where the backtest of this winner paid those of the configuration.

    Raises StageError where it paid others: a runner would count on costs that the verdict does not rest on.
    """
    try:
        stamp = msgspec.json.decode((cfg.root / "stages" / "backtest.json").read_bytes())
        tested = stamp["sections"]["backtest"]
    except (FileNotFoundError, msgspec.DecodeError, KeyError):
        tested = {}
    if tested.get("winner") != store.hash_of(winner):
        return "fees not compared with those of the backtest: this winner has had none"
    for venue, paid in tested["fees"].items():
        given = msgspec.to_builtins(cfg.fees.get(venue))
        if given != paid:
            raise StageError(
                f"fees.{venue} is {_fee_text(given)}, the backtest of this winner paid {_fee_text(paid)}: export with "
                "the same fees, or run `python run_pipeline.py labels train backtest export` with the new ones"
            )
    return ""


def origin_of(cfg: Config) -> tuple[Source, bool]:
    """(source, simulated) of the market that the tables hold."""
    origin = read_origin(cfg)
    if origin is None:
        return cfg.source, cfg.simulated
    return origin.source, cfg.simulated or origin.simulated


def held_out_rows(root: Path, parts: list[store.Partition], winner: Winner) -> tuple[Rows, int]:
    """The hold-out's feature rows, float32 (rows, features), thinned evenly to PARITY_ROWS; of how many they are."""
    names = [name for name, _ in winner.features]
    found = []
    for part in parts:
        frame = store.read(root, part, ["decision_ns", *names])
        late = frame["decision_ns"].to_numpy() >= winner.holdout_window[0]
        found.append(frame.select(names).to_numpy()[late])
    rows = np.concatenate(found)
    step = max(1, -(-rows.shape[0] // PARITY_ROWS))
    return rows[::step].astype(np.float32), rows.shape[0]


def check_parity(ensemble: TreeEnsemble, scorer: Scorer, rows: Rows) -> ExportParity:
    """Scores of the graph against the ensemble's, many rows at once and row by row.

    Raises StageError over the bound.
    """
    expected = ensemble.predict(rows)
    one_by_one = np.array([scorer.score(row) for row in rows.astype(np.float64)])
    worst = max(float(np.abs(got - expected).max(initial=0.0)) for got in (scorer.score_rows(rows), one_by_one))
    if not worst <= PARITY_BOUND:
        raise StageError(
            f"the exported graph scores {worst:.3g} bps off the trained ensemble on {rows.shape[0]} held-out rows, "
            f"over the bound of {PARITY_BOUND:g}: nothing was exported; install the pinned onnx and onnxruntime"
        )
    return ExportParity(rows=rows.shape[0], max_abs_score_diff=worst, bound=PARITY_BOUND)


def describe(cfg: Config, winner: Winner, model: bytes, parity: ExportParity) -> Manifest:
    """The manifest. The id is a hash of what the runner acts on, so equal content has equal ids.

    The verdict is part of it: the bundle in use stays as it was exported when the same trees fail a later test.
    """
    policy = (winner.candidate, winner.calibration, winner.bars, winner.decision, cfg.fees)
    source, simulated = origin_of(cfg)
    standing = (source, simulated, winner.verdict, winner.reasons, winner.train_window, winner.symbols)
    program = compile_texts(dict(winner.features), winner.bars)
    slow = (cfg.signals,) if program.signals else ()
    content = store.hash_of(sha256(model), winner.features, *policy, *standing, *slow)
    return Manifest(
        model_id=f"{winner.candidate.model}s_{content[:12]}",
        source=source,
        simulated=simulated,
        features=tuple(winner.features),
        columns=program.columns,
        probe=probe(program),
        bars=winner.bars,
        decision=winner.decision,
        candidate=winner.candidate,
        calibration=winner.calibration,
        fees=cfg.fees,
        train_window=winner.train_window,
        symbols=tuple(sorted(winner.symbols)),
        metrics=winner.metrics,
        verdict=winner.verdict,
        reasons=tuple(winner.reasons),
        tradeable=winner.verdict == "edge",
        export_parity=parity,
        model_sha256=sha256(model),
        data_fingerprint=winner.data_fingerprint,
        git_sha=git_sha(),
        signals=tuple(layer.name for layer in program.signals),
        signals_read=cfg.signals,
    )


def is_exported(root: Path) -> bool:
    """Is the last exported bundle still there, and one that the runner takes?"""
    pointer = models_folder(root) / EXPORTED
    try:
        load_bundle(pointer.parent / pointer.read_text().strip())
    except (OSError, UnicodeDecodeError, StageError):
        return False
    return True


def point_at(root: Path, manifest: Manifest) -> None:
    """Name the model: as the last one exported, and, only with an edge, as the one in use."""
    name = f"{manifest.model_id}\n".encode()
    store.write_atomic(models_folder(root) / EXPORTED, name)
    if manifest.tradeable:
        store.write_atomic(models_folder(root) / CURRENT, name)


def report(stage: Stage, manifest: Manifest, size: int, n_trees: int, n_held_out: int) -> None:
    """Section `export` and its lines; `n_held_out` rows are those that the scores' check took a sample of."""
    parity = manifest.export_parity
    stage.put(
        "export",
        {
            "model_id": manifest.model_id,
            "tradeable": manifest.tradeable,
            "trees": n_trees,
            "bytes": size,
            "parity": msgspec.to_builtins(parity) | {"held_out_rows": n_held_out},
        },
    )
    stage.say(f"{manifest.model_id}: {n_trees} trees, {len(manifest.features)} features, {size / 1024:.0f} KiB of ONNX")
    stage.say(
        f"scores equal the ensemble's within {parity.max_abs_score_diff:.1e} bps on "
        f"{sampled_text(parity.rows, n_held_out)} (bound {parity.bound:g})"
    )
    if manifest.tradeable:
        stage.say(f"verdict edge: {CURRENT} now names {manifest.model_id}")
    else:
        stage.say(f"verdict no edge: tradeable=false, {CURRENT} is left alone")


def sampled_text(rows: int, n_held_out: int) -> str:
    """How many of the held-out rows were compared, and why not all: each is scored by itself too, as live does it."""
    if rows == n_held_out:
        return f"all {rows:,} held-out rows"
    every = -(-n_held_out // PARITY_ROWS)
    return f"{rows:,} of {n_held_out:,} held-out rows, one in {every} as each is scored alone too"


def _fee_text(fee: Mapping[str, float] | None) -> str:
    return "not set" if fee is None else f"{fee['maker_bps']:g}/{fee['taker_bps']:g} bps (maker/taker)"


def ensemble_digest(ensemble: TreeEnsemble) -> str:
    """A hash of every array of the ensemble."""
    arrays = (
        ensemble.feature,
        ensemble.threshold,
        ensemble.missing_left,
        ensemble.left,
        ensemble.right,
        ensemble.value,
    )
    return store.hash_of(*(array.tobytes() for array in (*arrays, ensemble.roots)), ensemble.base, ensemble.n_features)


if __name__ == "__main__":
    stage_main("export", run)
