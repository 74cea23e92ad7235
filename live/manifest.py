"""What a model needs in order to go live: `data/models/<model_id>/{model.onnx, manifest.json}`, and what is refused.

The runner computes features from the manifest's text, so a bundle is only as good as the agreement between that text,
the model and this version of the program. `load_bundle` refuses a bundle

  - whose model has another digest than the manifest says,
  - whose model was made for other features, or for another order of them (the model file lists its own inputs),
  - whose features need columns or operators that this version does not have, or computes otherwise: the manifest holds
    the features' values on a fixed made-up series of bars, the probe, and they must come out again.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.config import Fee, Signals
from core.errors import StageError
from core.store import write_atomic
from live.scorer import Scorer
from research.catalogue import compile_texts
from research.learning.candidates import Candidate
from research.learning.decision import Calibration
from research.programs.panel_program import PanelProgram
from research.programs.program import Program

FORMAT: Final = 3
CURRENT: Final = "current.txt"
"""Names the model in use; switched atomically, and only on the verdict "edge"."""
EXPORTED: Final = "exported.txt"
"""Names the last model exported, whatever its verdict: what the live stage of the same run takes."""
PROBE_ROWS_AFTER_WARMUP: Final = 32
PROBE_TOLERANCE: Final = 1e-9
"""Relative. Another C library may round a logarithm differently in its last bit; another definition is far off."""


class ExportParity(msgspec.Struct, frozen=True):
    """The exported graph against the ensemble it was made from, on held-out rows."""

    rows: int
    max_abs_score_diff: float
    bound: float


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`manifest.json`. `features` are (name, S-expression) in the model's order; times are UTC nanoseconds; `symbols`
    (`venue:SYMBOL`) are those of the training, `signals` the slow series that features read, and `signals_read` how.

    `simulated`: it learned from a made-up market, be it by way of a recording of one.
    """

    model_id: str
    source: Literal["sim", "replay", "archive", "live"]
    simulated: bool
    features: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    probe: tuple[float | None, ...]
    bars: str
    decision: str
    candidate: Candidate
    calibration: Calibration
    fees: dict[str, Fee]
    train_window: tuple[int, int]
    symbols: tuple[str, ...]
    metrics: dict[str, Any]
    verdict: Literal["edge", "no edge"]
    reasons: tuple[str, ...]
    tradeable: bool
    export_parity: ExportParity
    model_sha256: str
    data_fingerprint: str
    git_sha: str | None
    signals: tuple[str, ...] = ()
    signals_read: Signals = Signals()
    format: int = FORMAT


class Bundle(msgspec.Struct, frozen=True):
    """A bundle that passed every check: ready to compute features and to score."""

    manifest: Manifest
    program: PanelProgram
    scorer: Scorer


def models_folder(root: Path) -> Path:
    return root / "models"


def write_bundle(folder: Path, manifest: Manifest, model: bytes) -> None:
    """Write both files; the manifest last, so that a folder with a manifest is whole."""
    write_atomic(folder / "model.onnx", model)
    write_atomic(folder / "manifest.json", msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def load_bundle(folder: Path) -> Bundle:
    """Read a bundle and check it. Raises StageError with what differs and what to do."""
    manifest, model = read_manifest(folder), _read(folder / "model.onnx")
    _expect(folder, sha256(model) == manifest.model_sha256, "model.onnx is not the model that the manifest describes")
    try:
        scorer, program = Scorer(model), compile_texts(dict(manifest.features), manifest.bars)
    except ValueError as error:
        raise _refusal(folder, str(error)) from error
    _expect(folder, manifest.columns == program.columns, "its features read other columns than bars have now")
    _expect(folder, scorer.features == manifest.features, "the model was made for other features or another order")
    _expect(folder, scorer.n_features == len(manifest.features), "the model takes another number of features")
    _expect(
        folder,
        program.names == tuple(name for name, _ in manifest.features),
        "features would be computed in another order",
    )
    read = tuple(layer.name for layer in program.signals)
    _expect(folder, manifest.signals == read, f"its features read the signals {read}, it names {manifest.signals}")
    _check_probe(folder, manifest, program)
    return Bundle(manifest=manifest, program=program, scorer=scorer)


def read_manifest(folder: Path) -> Manifest:
    """The manifest alone, checked for its form. Raises StageError."""
    content = _read(folder / "manifest.json")
    try:
        manifest = msgspec.json.decode(content, type=Manifest)
    except msgspec.DecodeError as error:
        raise _refusal(folder, f"manifest.json: {error}") from error
    _expect(
        folder, manifest.format == FORMAT, f"manifest.json has format {manifest.format}, this version reads {FORMAT}"
    )
    return manifest


def probe(program: PanelProgram) -> tuple[float | None, ...]:
    """The features' values at the end of the probe series, then those of what they join: None where not finite."""
    values = np.concatenate([_probe(each) for each in _probed(program)])
    return tuple(float(value) if np.isfinite(value) else None for value in values)


def _probed(program: PanelProgram) -> list[Program]:
    layers = [program.layers[-1], *program.layers[:-1]]
    return [layer.program for layer in layers] + [layer.program for layer in program.signals]


def _probe(program: Program) -> NDArray[np.float64]:
    rows = program.warmup_bars + PROBE_ROWS_AFTER_WARMUP
    last: NDArray[np.float64] = program.evaluate(probe_bars(rows, program.columns), np.arange(rows, dtype=np.int64))[-1]
    return last


def probe_bars(rows: int, columns: Sequence[str]) -> NDArray[np.float64]:
    """Made-up bars of shape (rows, columns): every column in (0.5, 1.5), none empty, no gap.

    Integer arithmetic (Knuth's multiplicative hash), so that no library's random numbers can change them.
    """
    cells = np.arange(rows * len(columns), dtype=np.uint64).reshape(rows, -1)
    values = 0.5 + (cells * np.uint64(2_654_435_761) % np.uint64(2**32)).astype(np.float64) / 2**32
    for name in {"is_empty", "has_gap"} & set(columns):
        values[:, columns.index(name)] = 0.0
    return values


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _check_probe(folder: Path, manifest: Manifest, program: PanelProgram) -> None:
    now, then = _floats(probe(program)), _floats(manifest.probe)
    _expect(folder, now.shape == then.shape, "the manifest's probe has another number of features")
    differs = ~np.isclose(now, then, rtol=PROBE_TOLERANCE, atol=PROBE_TOLERANCE, equal_nan=True)
    if differs.any():
        at = int(np.flatnonzero(differs)[0])
        name = [name for each in _probed(program) for name in each.names][at]
        raise _refusal(
            folder, f"feature {name} of the probe is {now[at]!r} in this version, was {then[at]!r} at export"
        )


def _floats(values: Sequence[float | None]) -> NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _expect(folder: Path, holds: bool, otherwise: str) -> None:
    if not holds:
        raise _refusal(folder, otherwise)


def _refusal(folder: Path, why: str) -> StageError:
    return StageError(
        f"{folder} is refused: {why}: export it again with `python run_pipeline.py export`; "
        "if it is not the model of the last training, leave live.model out"
    )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _refusal(path.parent, f"{path.name} cannot be read ({error})") from error
