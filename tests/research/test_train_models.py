"""The stage on made-up markets: it finds what was planted, finds nothing in a null, and repeats itself."""

import io
import json
from pathlib import Path
from types import ModuleType

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import schema, store
from core.config import Config, Features, Fee, Labels, Train
from core.errors import ConfigError, StageError
from core.run_record import RunRecord
from research import assess_features, catalogue, train_models
from research.learning import training_report, trees
from research.learning.candidates import Candidate, model_path, read_winner
from research.learning.inference import Ratio
from research.learning.screening import Screen
from research.learning.selection import Orders
from research.learning.training import Judged
from research.learning.verdict import Stretch, judge
from tests.research.synthetic_tables import write_market

FEATURES = Features(sets=("ofi",))
NAMES = list(catalogue.choose(FEATURES.sets, {}, "200ms"))
QUICK = Train(families=("lightgbm",), horizons_s=(10.0,), thresholds=(0.5, 0.6, 0.7), rounds=25, max_rows=12_000)
CELLS = Labels(horizons_s=(1.0, 10.0), deltas_bps=(0.0, 5.0), gates_usd=(50.0,))


def settings(folder: Path, **changes: object) -> Config:
    symbols = ("binance_um:BTCUSDT", "binance_um:ETHUSDT")
    made = Config(data_dir=str(folder), symbols=symbols, features=FEATURES, labels=CELLS, train=QUICK)
    return msgspec.structs.replace(made, **changes)


def trained(cfg: Config, printed: io.StringIO | None = None) -> dict[str, object]:
    """The report's sections after the stage, what it says in `printed`."""
    record = RunRecord(cfg, Console(file=printed or io.StringIO(), width=300))
    with record.stage("train") as stage:
        train_models.run(cfg, stage)
    return {**record.report(), "kept": record.kept}


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, dict]:
    cfg = settings(tmp_path_factory.mktemp("planted"))
    write_market(cfg, hours=9.0, edge_bps=20.0, seed=3, names=NAMES, bursts_per_hour=40.0)
    return cfg, trained(cfg)


def test_a_planted_edge_is_found_and_said_with_its_evidence(planted) -> None:
    _, report = planted
    chosen = report["selection"]
    assert chosen["verdict"] == "edge", chosen["reasons"]
    assert chosen["reasons"] == []
    assert chosen["ci95"][0] < chosen["mean_net_bps"] < chosen["ci95"][1]
    assert chosen["z"] > chosen["z_needed"]
    assert 0.95 <= chosen["deflated_sharpe"] <= 1.0
    assert chosen["n_walk_forward"] >= 100
    assert 3 * 4 * 3 < chosen["trials"] <= 3 * 9 * 3
    top = [row["name"] for row in report["features"]["importance"][:3]]
    assert set(top) & set(NAMES[:3])


def test_what_the_screen_left_out_is_told_and_is_not_in_the_model(planted) -> None:
    cfg, report = planted
    rows = {row["name"]: row for row in report["features"]["screen"]["rows"]}
    assert set(rows) == set(NAMES)
    kept = {name for name, row in rows.items() if row["kept"]}
    assert len(kept) == min(12, len(NAMES))
    assert min(abs(rows[name]["t"]) for name in kept) >= max((abs(rows[n]["t"]) for n in set(NAMES) - kept), default=0)
    ensemble = trees.load(model_path(cfg.root, read_winner(cfg.root).candidate.model))
    assert {NAMES[column] for column in ensemble.feature[ensemble.feature >= 0]} <= kept
    line = f"{len(kept)} of {len(NAMES)} features kept by the screen (at most 12, by |t| over calendar blocks"
    assert any(line in said for said in json.loads((cfg.root / "stages" / "train.json").read_text())["lines"])


def test_one_s_own_features_are_each_said_to_be_kept_or_not_with_their_t() -> None:
    screen = Screen(np.array([3.0, *np.arange(12) + 5.0, -0.5, -99.0]), np.array([*range(1, 13), 14]))
    names = ["weak", *(f"x{k}" for k in range(12)), "idle", "mine"]
    lines = training_report.screen_lines(training_report.screen_rows(screen, names, {"mine": "", "weak": ""}))
    assert lines[0].startswith("13 of 15 features kept by the screen")
    assert "mine -99.0, x11 +16.0" in lines[0]
    assert lines[1] == "features.mine: mine kept, t -99.00; weak not kept, t +3.00"
    assert "SHAP is 0" in lines[2]


def test_the_winner_can_be_run_from_its_files_alone(planted) -> None:
    cfg, _ = planted
    winner = read_winner(cfg.root)
    assert winner.tradeable
    assert [name for name, _ in winner.features] == NAMES
    assert winner.train_window[1] < winner.holdout_window[0]
    ensemble = trees.load(model_path(cfg.root, winner.candidate.model))
    part = store.require(cfg.root, schema.SCORES, cfg.symbols or ())[0]
    scores = store.read(cfg.root, part).filter(pl.col("fold") == -1)
    features = store.read(cfg.root, part.of(schema.FEATURES, cfg.bars)).join(scores, on="decision_ns", how="semi")
    x = features.select(NAMES).to_numpy().astype(np.float32)
    np.testing.assert_array_equal(ensemble.predict(x), scores[f"score_{winner.candidate.model}"])


def test_scores_are_of_past_models_only_and_folds_stand_in_order(planted) -> None:
    cfg, _ = planted
    for part in store.require(cfg.root, schema.SCORES, cfg.symbols or ()):
        fold = store.read(cfg.root, part)["fold"].to_numpy()
        assert set(fold) == {-1, *range(8)}
        assert (np.diff(np.where(fold < 0, 8, fold)) >= 0).all()


def test_the_report_holds_every_row_and_no_nan(planted) -> None:
    _, report = planted
    assert len(report["taker"]) == 3 * 4
    assert len(report["maker"]) == 2 * 2 * 3 * 4
    assert {row["fill_usd"] for row in report["maker"]} == {None, 50.0}
    assert "NaN" not in json.dumps(report)
    assert [row["name"] for row in report["models"]] == ["lightgbm_10"]


def test_the_same_inputs_give_the_same_bytes_and_an_unchanged_stage_is_kept(planted) -> None:
    cfg, report = planted
    printed = io.StringIO()
    kept = trained(cfg, printed)
    assert "winner: taker lightgbm_10" in printed.getvalue()
    assert "evidence: walk-forward z=" in printed.getvalue()
    assert kept["kept"] == ["train"]
    assert kept["selection"] == report["selection"]
    files = [*sorted((cfg.root / "train").iterdir()), cfg.root / "ledger.json"]
    before = [path.read_bytes() for path in files]
    (cfg.root / "stages" / "train.json").unlink()
    again = trained(cfg)
    assert again["kept"] == []
    assert [path.read_bytes() for path in files] == before
    varies = {"run_id", "stages", "git_sha"}
    assert {name: again[name] for name in again.keys() - varies} == {
        name: report[name] for name in report.keys() - varies
    }


def test_a_null_market_has_no_edge_and_still_a_winner(tmp_path: Path) -> None:
    cfg = settings(tmp_path)
    write_market(cfg, hours=9.0, edge_bps=0.0, seed=4, names=NAMES)
    printed = io.StringIO()
    chosen = trained(cfg, printed)["selection"]
    assert "best candidate (not good enough): " in printed.getvalue()
    assert "winner" not in printed.getvalue()
    assert printed.getvalue().count("T=1 s: labelled, not judged: not in train.horizons_s") == 1
    assert chosen["verdict"] == "no edge"
    assert chosen["reasons"]
    winner = read_winner(cfg.root)
    assert not winner.tradeable
    assert winner.reasons == chosen["reasons"]


def test_another_configuration_is_another_look_at_the_hold_out(tmp_path: Path) -> None:
    cfg = settings(tmp_path)
    write_market(cfg, hours=1.5, edge_bps=0.0, seed=5, names=NAMES)
    changes = ({"rounds": 10}, {"holdout_frac": 0.3})
    fewer, longer = (msgspec.structs.replace(QUICK, **change) for change in changes)
    others = [msgspec.structs.replace(cfg, train=changed) for changed in (fewer, longer)]
    chosen = [trained(each)["selection"] for each in (cfg, *others, cfg)]
    assert [each["holdout_looks"] for each in chosen] == [1, 2, 3, 1]
    trials = [each["trials"] for each in chosen]
    assert trials[0] == trials[3] < trials[1]


def test_a_result_with_a_file_missing_is_made_again(tmp_path: Path) -> None:
    cfg = settings(tmp_path)
    write_market(cfg, hours=1.5, edge_bps=0.0, seed=5, names=NAMES)
    trained(cfg)
    scores = store.files(cfg.root, store.partitions(cfg.root, schema.SCORES)[0])[0]
    for lost in (scores, model_path(cfg.root, "lightgbm_10"), cfg.root / "train" / "winner.json"):
        lost.unlink()
        assert trained(cfg)["kept"] == []
        assert lost.exists()
    assert trained(cfg)["kept"] == ["train"]


def test_horizons_that_do_not_fit_are_dropped_and_where_none_fits_the_stage_fails(tmp_path: Path) -> None:
    cfg = settings(tmp_path, train=msgspec.structs.replace(QUICK, horizons_s=(1.0, 10.0), min_fills_per_fold=1))
    write_market(cfg, hours=0.45, edge_bps=0.0, seed=6, names=NAMES)
    report = trained(cfg)
    assert [row["cell"]["horizon_s"] for row in report["models"]] == [1.0]
    with pytest.raises(StageError, match=r"no horizon .* about [\d,]+ labelled decisions, so that every model has 200"):
        trained(settings(tmp_path))  # T = 10 s alone


def test_one_symbol_and_a_constant_price_are_no_edge_without_a_nan(tmp_path: Path) -> None:
    cfg = settings(tmp_path, symbols=("binance_um:BTCUSDT",))
    write_market(cfg, hours=2.0, edge_bps=0.0, seed=7, names=NAMES)
    for part in store.require(cfg.root, schema.LABELS):
        flat = store.read(cfg.root, part).with_columns(
            pl.col("^tk_.*_ret_bps$") * 0.0, pl.col("^.*_net_bps$") * 0.0 - 10.0
        )
        store.write(cfg.root, part, flat, store.built_from(cfg.root, part))
    every = msgspec.structs.replace(QUICK, families=("hgb", "lightgbm", "catboost"))
    with pytest.raises(StageError, match="fills"):
        trained(
            msgspec.structs.replace(cfg, train=every)
        )  # a constant price gives a score of 0, and a score of 0 is no order


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fees": {"binance_um": Fee(0.0, 0.5)}}, "labels .* were built with other settings"),
        ({"labels": msgspec.structs.replace(CELLS, entry_latency_ms=5.0)}, "labels .* were built with other settings"),
        ({"features": Features(sets=("tob",))}, "`features` was built with other settings"),
        ({"features": Features(sets=("ofi",), mine={"bad": "(sub imbalance"})}, "features.mine.bad"),
    ],
)
def test_other_settings_end_the_stage_before_it_looks(tmp_path: Path, change: dict, message: str) -> None:
    cfg = settings(tmp_path)
    write_market(cfg, hours=0.2, edge_bps=0.0, seed=5, names=NAMES)
    with pytest.raises((StageError, ConfigError), match=message):
        trained(msgspec.structs.replace(cfg, **change))
    assert not (tmp_path / "ledger.json").exists()


@pytest.mark.parametrize("stage", [train_models, assess_features])
def test_another_text_under_the_same_name_is_refused(tmp_path: Path, stage: ModuleType) -> None:
    cfg = settings(tmp_path, features=Features(sets=("ofi",), mine={"own": "(sum_5s ofi_qty)"}))
    write_market(cfg, hours=0.2, edge_bps=0.0, seed=5, names=[*NAMES, "own"])
    other = msgspec.structs.replace(cfg, features=Features(sets=("ofi",), mine={"own": "(neg (sum_5s ofi_qty))"}))
    record = RunRecord(other, Console(file=io.StringIO()))
    refused = pytest.raises(StageError, match=r"features of .* other settings .* run `features`")
    with refused, record.stage("train") as run:
        stage.run(other, run)
    assert not (tmp_path / "ledger.json").exists()


def test_a_grid_row_is_printed_once_whatever_edge_or_gate_leaves_its_orders_alone() -> None:
    def row(gate: float | None, edge_bps: float, n: int) -> dict:
        head = {"horizon_s": 10.0, "family": "hgb", "delta_bps": 0.0, "fill_usd": gate, "thr": 0.5}
        figures = dict.fromkeys(("hit", "trade_rate", "avg_gross_bps", "avg_net_bps", "ci95"))
        return (
            head | figures | {"edge_bps": edge_bps, "n": n, "n_orders": n, "fill_rate": 1.0, "net_bps_per_order": 0.0}
        )

    rows = [row(0.0, 0.0, 90), row(0.0, 0.5, 90), row(0.0, 1.0, 50), row(50.0, 0.0, 90), row(50.0, 1.0, 40)]
    heading, *lines = training_report.grid_lines("maker", rows)
    assert heading == "maker T=10 s δ=0 bps, hgb, walk-forward, averages per fill"
    assert [line.partition("]")[0] for line in lines] == [
        "[thr=0.50, edge≥0.00bps, fill≥$0",
        "[thr=0.50, edge≥1.00bps, fill≥$0",
        "[thr=0.50, edge≥1.00bps, fill≥$50",
    ]


def test_evidence_that_is_not_significant_alone_says_so() -> None:
    orders = Orders(*(np.zeros(0),) * 7)
    walked = Stretch(400, 8.4, 1.0, Ratio(1.0, 5.0, 0.6, 1.4, 60))
    for low, alone in ((-0.2, True), (0.1, False)):
        final = Stretch(100, 2.4, 0.9, Ratio(0.9, 1.6, low, 2.0, 14))
        found = judge(walked, final, 0.99, 2, 10.0)
        winner = Candidate("taker", "hgb", 10.0, 0.6, 5.0)
        text = training_report.evidence_line(Judged(winner, orders, orders, 10.0, 0.99, found, walked, final, 2, 84))
        assert ("alone not significant" in text) == alone
        assert "(needs 2.81, look 2 at this hold-out)" in text
        assert f"net_bps_per_order=0.90 ci95=[{low:.2f}, 2.00]" in text
        assert "DSR=0.990 (needs 0.95, 84 trials)" in text


def test_a_missing_table_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"run `python run_pipeline\.py features` first"):
        trained(settings(tmp_path))
