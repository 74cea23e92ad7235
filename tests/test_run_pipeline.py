"""The stages that the entry point knows, and what it refuses before anything runs."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import run_pipeline
from core.cli import guarded
from core.config import Config, Features
from core.errors import ConfigError
from run_pipeline import NIGHTLY_STAGES, ON_REQUEST, STAGES, default_stages, stage_runs

ROOT = Path(__file__).resolve().parents[1]
DEFAULT = ["capture", "bars", "features", "labels", "train", "backtest", "export", "live"]


def test_the_default_run_is_the_pipeline_and_archives_come_in_by_backfill() -> None:
    assert default_stages("sim") == default_stages("live") == default_stages("replay") == DEFAULT
    assert default_stages("archive") == ["backfill", *DEFAULT[1:]]
    assert set(NIGHTLY_STAGES) <= set(DEFAULT)
    assert set(STAGES) >= ON_REQUEST


def test_every_stage_is_a_module_and_the_order_is_the_pipelines() -> None:
    assert all(importlib.util.find_spec(module) for module in STAGES.values())
    assert list(stage_runs(["bars", "compact", "capture"])) == ["capture", "compact", "bars"]
    assert run_pipeline.__doc__


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["capture", "backfill"], "both fill the event tables"),
        (["nightly", "quality"], "nightly runs its own stages"),
        (["capture", "--duration", "5"], "--duration is how long"),
        (["capture", "--source", "live", "--duration", "soon"], "was 'soon'"),
        (["backfill", "--source", "live"], "backfill reads archives"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_exit_code_2(arguments: list[str], message: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "run_pipeline.py"), *arguments, "--data-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, message in done.stderr) == (2, True), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stages", [["features"], ["capture", "bars"]])
def test_mistakes_in_features_are_told_before_there_is_any_data(stages: list[str], tmp_path: Path) -> None:
    mine = Features(sets=(), mine={"x": "(meen_20 mid)"})
    with pytest.raises(ConfigError, match=r"(?s)did you mean mean\?.*\^.*mine\.x"):
        run_pipeline.run(Config(data_dir=str(tmp_path / "none"), features=mine), stages)
    assert not list(tmp_path.iterdir())


def test_what_failed_is_told_before_where_the_report_lies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = Config(data_dir=str(tmp_path))
    assert guarded(lambda: run_pipeline.run(config, ["labels"])) == 1
    out, err = capsys.readouterr()
    assert "report:" not in out
    said, report = err.splitlines()
    assert said.startswith("error: table `bars`")
    assert Path(report.removeprefix("report: ")).read_text().startswith("<!")


def test_a_stage_script_takes_a_duration_only_where_it_captures(tmp_path: Path) -> None:
    script = str(ROOT / "ingest" / "compact.py")
    done = subprocess.run(
        [sys.executable, script, "--duration=5", f"--data-dir={tmp_path}"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "--duration is how long" in done.stderr
