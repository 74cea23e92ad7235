"""Export writes a checked bundle, and puts it in use only with an edge."""

import io
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import store
from core.config import Config, Fee
from core.errors import StageError
from core.origin import Origin, write_origin
from core.run_record import RunRecord
from core.store import Partition
from core.units import NS_PER_S
from live import export_model
from live.export_model import check_parity, run
from live.manifest import CURRENT, EXPORTED, load_bundle
from live.onnx_export import to_onnx
from live.scorer import Scorer
from research.learning.candidates import Winner, model_path, read_winner, write_winner
from research.learning.decision import Calibration
from tests.live.synthetic import BARS, BEGIN_NS, FEATURES, TAKER, forest

Verdict = Literal["edge", "no edge"]


def trained(root: Path, verdict: Verdict, threshold: float = 0.5) -> Config:
    """What training leaves: features, a winner, its trees."""
    random = np.random.default_rng(2)
    times = BEGIN_NS + NS_PER_S * np.arange(400)
    columns = {name: random.normal(size=times.size) for name, _ in FEATURES}
    part = Partition("features", "binance_um", "BTCUSDT", store.date_of_ns(BEGIN_NS), BARS)
    store.write(root, part, pl.DataFrame({"decision_ns": times, **columns}))
    candidate = TAKER.__class__("taker", "hgb", 10.0, threshold, 0.0)
    forest().save(model_path(root, candidate.model))
    winner = Winner(
        candidate=candidate,
        calibration=Calibration(0.0, 1.0),
        features=list(FEATURES),
        bars=BARS,
        decision="1s",
        symbols=["binance_um:BTCUSDT"],
        train_window=(BEGIN_NS, int(times[300])),
        holdout_window=(int(times[310]), int(times[-1])),
        verdict=verdict,
        reasons=[] if verdict == "edge" else ["hold-out mean is -1.00 bps net, needs to be above 0"],
        tradeable=verdict == "edge",
        metrics={"z": 3.0},
        data_fingerprint="abc",
    )
    write_winner(root, winner)
    return Config(data_dir=str(root))


def exported(cfg: Config) -> tuple[RunRecord, str]:
    out = io.StringIO()
    record = RunRecord(cfg, Console(file=out, width=200))
    with record.stage("export") as stage:
        run(cfg, stage)
    return record, out.getvalue()


def named(cfg: Config, pointer: str) -> str:
    return (cfg.root / "models" / pointer).read_text().strip()


def test_an_edge_is_put_in_use(tmp_path: Path) -> None:
    cfg = trained(tmp_path, "edge")
    record, _ = exported(cfg)
    section: dict[str, Any] = record.sections["export"]
    assert named(cfg, CURRENT) == named(cfg, EXPORTED) == section["model_id"]
    bundle = load_bundle(cfg.root / "models" / section["model_id"])
    assert bundle.manifest.tradeable
    assert bundle.manifest.features == FEATURES
    assert section["parity"]["rows"] == 90
    assert section["parity"]["max_abs_score_diff"] <= 1e-6


def test_the_check_says_of_how_many_rows_it_took_a_sample_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cfg = trained(tmp_path, "edge")
    assert "on all 90 held-out rows (bound" in exported(cfg)[1]
    monkeypatch.setattr(export_model, "PARITY_ROWS", 40)
    (cfg.root / "stages" / "export.json").unlink()
    record, printed = exported(cfg)
    assert "on 30 of 90 held-out rows, one in 3 as each is scored alone too (bound" in printed
    assert record.sections["export"]["parity"]["held_out_rows"] == 90


def test_no_edge_leaves_the_model_in_use_alone(tmp_path: Path) -> None:
    champion = exported(trained(tmp_path, "edge"))[0].sections["export"]["model_id"]
    cfg = trained(tmp_path, "no edge", threshold=0.6)
    section = exported(cfg)[0].sections["export"]
    assert not section["tradeable"]
    assert named(cfg, CURRENT) == champion
    assert named(cfg, EXPORTED) == section["model_id"] != champion


def test_the_id_is_a_function_of_the_content(tmp_path: Path) -> None:
    ids = [
        exported(trained(tmp_path / folder, "no edge", threshold))[0].sections["export"]["model_id"]
        for folder, threshold in (("a", 0.5), ("b", 0.5), ("c", 0.6))
    ]
    assert ids[0] == ids[1] != ids[2]
    models = [next((tmp_path / folder / "models").glob("*/model.onnx")).read_bytes() for folder in "ab"]
    assert models[0] == models[1]


def test_an_unchanged_winner_is_not_exported_again(tmp_path: Path) -> None:
    cfg = trained(tmp_path, "no edge")
    first, _ = exported(cfg)
    again, said = exported(cfg)
    assert "unchanged" in said
    assert again.sections["export"] == first.sections["export"]


@pytest.mark.parametrize("name", ["model.onnx", "manifest.json"])
def test_a_bundle_that_live_would_refuse_is_exported_again(name: str, tmp_path: Path) -> None:
    cfg = trained(tmp_path, "no edge")
    folder = cfg.root / "models" / exported(cfg)[0].sections["export"]["model_id"]
    whole = (folder / name).read_bytes()
    for spoil in (lambda path: path.unlink(), lambda path: path.write_bytes(whole[:-9])):
        spoil(folder / name)
        assert "unchanged" not in exported(cfg)[1]
        load_bundle(folder)


def test_the_bundle_in_use_stays_as_it_was_when_its_trees_lose_their_verdict(tmp_path: Path) -> None:
    champion = exported(trained(tmp_path, "edge"))[0].sections["export"]["model_id"]
    folder = tmp_path / "models" / champion
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    cfg = trained(tmp_path, "no edge")
    assert exported(cfg)[0].sections["export"]["model_id"] != champion
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert named(cfg, CURRENT) == champion
    assert load_bundle(folder).manifest.tradeable


def test_a_bundle_tells_a_simulated_market_from_a_real_one(tmp_path: Path) -> None:
    cases = [("sim", None, True), ("live", None, False), ("replay", Origin("replay", simulated=True), True)]
    for number, (source, origin, simulated) in enumerate(cases):
        cfg = msgspec.structs.replace(trained(tmp_path / str(number), "edge"), source=source)
        if origin is not None:
            write_origin(cfg, origin)
        manifest = load_bundle(cfg.root / "models" / exported(cfg)[0].sections["export"]["model_id"]).manifest
        assert (manifest.source, manifest.simulated) == (source, simulated)


def backtested(cfg: Config, fees: dict[str, Fee]) -> None:
    """What the backtest stage leaves of its fees."""
    with RunRecord(cfg, Console(quiet=True)).stage("backtest") as stage:
        stage.reuse("key", whole=False)
        stage.put("backtest", {"winner": store.hash_of(read_winner(cfg.root)), "fees": fees})


def test_other_fees_than_the_backtest_paid_are_refused(tmp_path: Path) -> None:
    cfg = trained(tmp_path, "edge")
    assert "fees not compared" in exported(cfg)[1]
    backtested(cfg, {"binance_um": Fee(1.0, 3.0)})
    with pytest.raises(
        StageError, match=r"fees\.binance_um is 2/5 bps .* paid 1/3 bps .* labels train backtest export"
    ):
        exported(cfg)
    backtested(cfg, {"binance_um": cfg.fees["binance_um"]})
    assert "fees not compared" not in exported(cfg)[1]


def test_a_graph_that_scores_otherwise_is_not_exported() -> None:
    rows = np.random.default_rng(3).normal(size=(50, len(FEATURES))).astype(np.float32)
    with pytest.raises(StageError, match="over the bound"):
        check_parity(forest(seed=5), Scorer(to_onnx(forest(seed=6), {})), rows)


def test_without_training_the_stage_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"run_pipeline\.py train"):
        exported(Config(data_dir=str(tmp_path)))
    cfg = trained(tmp_path, "edge")
    model_path(tmp_path, "hgb_10").unlink()
    with pytest.raises(StageError, match=r"hgb_10\.npz does not exist"):
        exported(cfg)


def test_damaged_trees_are_named(tmp_path: Path) -> None:
    cfg = trained(tmp_path, "edge")
    model_path(tmp_path, "hgb_10").write_bytes(b"PK not a zip")
    with pytest.raises(StageError, match="damaged"):
        exported(cfg)


def test_no_model_is_put_in_use_when_its_bundle_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(export_model, "write_bundle", full)
    cfg = trained(tmp_path, "edge")
    with pytest.raises(OSError, match="no space"):
        exported(cfg)
    assert not (cfg.root / "models" / CURRENT).exists()
