"""Whole-pipeline runs, as a user starts them: the command, its exit code, its files."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.schema import TABLES
from core.wide_columns import documented

ROOT = Path(__file__).resolve().parents[1]
STAGES = ["capture", "bars", "features", "labels", "train", "backtest", "export", "live"]
SECTIONS = ["symbols", "data", "features", "labels", "models", "taker", "maker"]
SECTIONS += ["selection", "truth", "winner", "holdout", "live"]
TREND = "(sub (at_10s (mean_3 bar_return_bps)) (at_volume_1 bar_return_bps))"
TOGETHER = "(mul (cs_rank signed_usd) (corr_60s bar_return_bps (of_BTCUSDT bar_return_bps)))"
SMOKE = [
    "--set",
    "profile=smoke",
    "--set",
    f"features.mine.trend={TREND}",
    "--set",
    f"features.mine.together={TOGETHER}",
]
pytestmark = pytest.mark.slow


def pipeline(data: Path, *arguments: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *arguments, "--data-dir", str(data)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)


def last_report(data: Path) -> dict[str, Any]:
    folder = data / "runs" / (data / "runs" / "latest.txt").read_text().strip()
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert (folder / "report.txt").exists()
    assert (folder / "report.html").exists()
    return report


def without_times(report: dict[str, Any]) -> dict[str, Any]:
    """The report less what may differ between equal runs (design section 9)."""
    kept = {name: value for name, value in report.items() if name != "run_id"}
    kept["stages"] = [{name: value for name, value in row.items() if name != "seconds"} for row in kept["stages"]]
    if kept.get("live"):
        kept["live"] = {name: value for name, value in kept["live"].items() if name != "latency_us"}
    return kept


def figures(tree: Any) -> list[float]:
    if isinstance(tree, dict):
        return [figure for value in tree.values() for figure in figures(value)]
    if isinstance(tree, list):
        return [figure for value in tree for figure in figures(value)]
    return [tree] if isinstance(tree, float) else []


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One smoke run over real sockets, from another working directory, as cron would."""
    data = tmp_path_factory.mktemp("simulated")
    done = pipeline(data, *SMOKE, cwd=Path("/"))
    assert done.returncode == 0, done.stderr + done.stdout
    return data


def test_a_run_on_the_simulated_exchange_reports_every_section(simulated: Path) -> None:
    report = last_report(simulated)
    assert [stage["name"] for stage in report["stages"]] == STAGES
    assert [name for name in SECTIONS if report[name] is None] == []
    assert report["simulated"] is True
    assert report["features"]["count"] >= 40
    assert report["selection"]["verdict"] == "no edge"
    assert any("insufficient data" in reason for reason in report["selection"]["reasons"])
    assert all(math.isfinite(figure) for figure in figures(report))


def test_the_live_runner_computes_what_the_batch_computes(simulated: Path) -> None:
    live = last_report(simulated)["live"]
    assert live["mode"] == "shadow"  # no edge: scores, no orders
    assert live["parity"]["bars_compared"] > 0
    assert live["parity"]["max_abs_feature_diff"] == 0.0
    assert live["decisions"] > 4 * 170, "the runner goes on where features ended, joined ones too"
    manifest = json.loads(next((simulated / "models").glob("*/manifest.json")).read_text())
    text = dict(manifest["features"])["together"]
    assert "(of_BTCUSDT (mul" in text, "an exported model's features are text, joins too"


def test_every_metric_line_keeps_its_form_and_says_simulated(simulated: Path) -> None:
    run = (simulated / "runs" / "latest.txt").read_text().strip()
    lines = (simulated / "runs" / run / "report.txt").read_text().splitlines()
    metric = [line.strip() for line in lines if "thr=" in line and "edge≥" in line]
    assert any("fill≥$" in line for line in metric)
    assert any("fill≥$" not in line for line in metric)
    assert all("avg_net_bps=" in line and "SIMULATED" in line for line in metric)


def test_every_column_of_every_table_stands_in_the_catalogue(simulated: Path) -> None:
    for table in TABLES:
        written = {
            name for path in simulated.glob(f"{table.name}/**/*.parquet") for name in pl.read_parquet_schema(path)
        }
        unknown = {name for name in written - table.columns.keys() if not documented(table.name, name)}
        assert not unknown, f"{table.name}: tell of them in core/wide_columns.py"


def test_no_edge_leaves_no_model_in_use(simulated: Path) -> None:
    assert not (simulated / "models" / "current.txt").exists()
    manifests = list((simulated / "models").glob("*/manifest.json"))
    assert [json.loads(path.read_text())["tradeable"] for path in manifests] == [False]


def test_a_second_run_and_a_nightly_rebuild_nothing(simulated: Path) -> None:
    before = last_report(simulated)
    tables = list(simulated.rglob("*.parquet"))
    written = {path: path.stat().st_mtime_ns for path in tables}
    again = pipeline(simulated, *SMOKE)
    assert again.returncode == 0, again.stderr
    assert without_times(last_report(simulated)) == without_times(before)
    nightly = pipeline(simulated, "nightly", *SMOKE)
    assert nightly.returncode == 0, nightly.stderr
    assert nightly.stdout.startswith("nightly: no edge")
    assert {path: path.stat().st_mtime_ns for path in simulated.rglob("*.parquet")} == written


def test_sockets_and_the_direct_transport_reach_the_same_report(simulated: Path, tmp_path: Path) -> None:
    done = pipeline(tmp_path, *SMOKE, "--set", "sim.transport=direct")
    assert done.returncode == 0, done.stderr
    direct, socket = without_times(last_report(tmp_path)), without_times(last_report(simulated))
    assert direct["selection"] == socket["selection"]
    assert direct["labels"] == socket["labels"]
    assert direct["taker"] == socket["taker"]


def test_fitted_numbers_go_to_the_runner_and_nightly_keeps_them(tmp_path: Path) -> None:
    chosen = [*SMOKE, "--set", 'features.sets=["tob", "flow", "fitted"]', "--set", "features.fit_frac=0.4"]
    chosen += ["--set", "sim.transport=direct"]
    first = pipeline(tmp_path, *chosen)
    assert first.returncode == 1
    assert "nothing was fitted on time_200ms" in first.stderr
    done = pipeline(tmp_path, *STAGES[1:2], "fit", *STAGES[2:], *chosen)
    assert done.returncode == 0, done.stderr + done.stdout
    parity = last_report(tmp_path)["live"]["parity"]
    assert parity["bars_compared"] > 0
    assert parity["max_abs_feature_diff"] == 0.0
    features = dict(json.loads(next((tmp_path / "models").glob("*/manifest.json")).read_text())["features"])
    assert "(hmm" in features["regime_turbulent"]
    assert "(hmm" in features["regime_entropy"], "whole, though the file of what was fitted names other features"
    tables = [*tmp_path.rglob("*.parquet"), *tmp_path.glob("fitted/*")]
    written = {path: path.stat().st_mtime_ns for path in tables}
    nightly = pipeline(tmp_path, "nightly", *chosen)
    assert nightly.returncode == 0, nightly.stderr
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_recorded_frames_too_short_to_train_keep_what_came_before(market_data: Path, tmp_path: Path) -> None:
    path = f"replay.path={market_data / 'raw' / 'bybit_20260809'}"
    done = pipeline(tmp_path, "--source", "replay", "--set", path)
    assert done.returncode == 1
    assert "no decision of" in done.stderr or "fits" in done.stderr
    assert "Traceback" not in done.stderr
    report = last_report(tmp_path)
    assert report["simulated"] is False
    assert report["data"]["bybit"]["trades"]["rows"] > 0
    assert report["selection"] is None
    assert list((tmp_path / "features").rglob("*.parquet"))


def test_a_recorded_day_goes_all_the_way_to_the_runner(market_data: Path, tmp_path: Path) -> None:
    path = f"replay.path={market_data / 'raw' / 'binance_spot_nexousdt_20240723'}"
    done = pipeline(tmp_path, "--source", "replay", "--set", path, "--set", "train.rounds=30")
    assert done.returncode == 0, done.stderr + done.stdout
    report = last_report(tmp_path)
    assert report["data"]["binance"]["top_of_book"]["rows"] == 33_437
    assert report["data"]["binance"]["trades"]["rows"] == 12_458
    assert report["selection"]["verdict"] == "no edge"
    assert report["live"]["parity"]["max_abs_feature_diff"] == 0.0
    assert "SIMULATED" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "sim.hour=1"], 2, "$.sim"),
        (["fly"], 2, "unknown stage"),
        (["--source", "moon"], 2, "$.source"),
        (["nightly", "bars"], 2, "nightly runs its own stages"),
        (["features"], 1, "run_pipeline.py bars"),
        (["nightly"], 1, "run_pipeline.py capture"),
        (["--source", "replay", "--set", "replay.path=/nowhere"], 1, "/nowhere"),
    ],
)
def test_what_is_wrong_is_said_with_the_exit_code_of_the_contract(
    arguments: list[str], code: int, message: str, tmp_path: Path
) -> None:
    done = pipeline(tmp_path, *arguments)
    assert done.returncode == code, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_script_is_the_stage(simulated: Path) -> None:
    script = [sys.executable, str(ROOT / "research" / "build_bars.py"), *SMOKE, "--data-dir", str(simulated)]
    done = subprocess.run(script, cwd="/", capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "unchanged" in done.stdout


def test_an_interrupted_capture_leaves_whole_tables(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "capture", "--data-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        while not list(tmp_path.rglob("*.parquet")) and process.poll() is None:
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"Traceback" not in errors
    assert not list(tmp_path.rglob("*.part"))
