"""A bundle that does not agree with itself, or with this version of the program, is refused."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.errors import StageError
from live import manifest
from live.manifest import load_bundle
from live.onnx_export import features_metadata, to_onnx
from research.catalogue import FEATURE_COLUMNS
from tests.live.synthetic import FEATURES, forest, write

Edit = Callable[[dict[str, Any]], None]


def edited(folder: Path, edit: Edit) -> Path:
    path = folder / "manifest.json"
    tree = json.loads(path.read_text())
    edit(tree)
    path.write_text(json.dumps(tree))
    return folder


def test_a_whole_bundle_is_loaded_and_scores(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path))
    assert bundle.program.names == tuple(name for name, _ in FEATURES)
    assert bundle.scorer.features == FEATURES
    assert bundle.manifest.tradeable


def swap_features(tree: dict[str, Any]) -> None:
    tree["features"][0], tree["features"][1] = tree["features"][1], tree["features"][0]


def change_expression(tree: dict[str, Any]) -> None:
    tree["features"][2][1] = "(zscore_11 ofi_qty)"


def rename(tree: dict[str, Any]) -> None:
    tree["features"][0][0] = "balance"


def unknown_operator(tree: dict[str, Any]) -> None:
    tree["features"][2][1] = "(hurst_10 ofi_qty)"


def unknown_column(tree: dict[str, Any]) -> None:
    tree["columns"].append("depth_10_qty")


def another_definition(tree: dict[str, Any]) -> None:
    tree["probe"][2] *= 1.0 + 1e-6


def another_model(tree: dict[str, Any]) -> None:
    tree["model_sha256"] = "0" * 64


def a_later_format(tree: dict[str, Any]) -> None:
    tree["format"] = 99


def a_further_key(tree: dict[str, Any]) -> None:
    tree["leverage"] = 20


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (swap_features, "another order"),
        (change_expression, "other features"),
        (rename, "other features"),
        (unknown_operator, "hurst"),
        (unknown_column, "other columns"),
        (another_definition, "feature ofi_z of the probe"),
        (another_model, "not the model"),
        (a_later_format, "format 99"),
        (a_further_key, "leverage"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_bundle_that_disagrees_is_refused_with_the_reason(edit: Edit, reason: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=reason) as refused:
        load_bundle(edited(write(tmp_path), edit))
    assert "is refused" in str(refused.value)
    assert "run_pipeline.py export" in str(refused.value)


def test_a_changed_model_file_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path)
    (folder / "model.onnx").write_bytes(to_onnx(forest(seed=6), features_metadata(FEATURES)))
    with pytest.raises(StageError, match="not the model"):
        load_bundle(folder)


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_missing_file_is_refused_by_name(name: str, tmp_path: Path) -> None:
    folder = write(tmp_path)
    os.unlink(folder / name)
    with pytest.raises(StageError, match=name.replace(".", r"\.")):
        load_bundle(folder)


def test_the_probe_is_the_same_in_every_process(tmp_path: Path) -> None:
    rows = manifest.probe_bars(3, FEATURE_COLUMNS)
    assert rows[0, 0] == 0.5
    assert rows[0, 1] == 0.5 + 2_654_435_761 / 2**32
    assert ((rows >= 0.5) | (rows == 0.0)).all()
