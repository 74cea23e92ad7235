"""The run record: sections, stamps and the contract's report."""

import json
import math
from pathlib import Path

import pytest
from rich.console import Console

from core.cli import guarded, run_stages
from core.config import Config, load
from core.errors import ConfigError, StageError
from core.origin import Origin, write_origin
from core.run_record import RunRecord, Stage


def config_at(folder: Path, *pairs: str) -> Config:
    return load(pairs=pairs, options={"data_dir": str(folder)}, root=folder)


def quiet() -> Console:
    return Console(quiet=True)


def test_a_report_holds_null_where_a_figure_is_bad_or_missing(tmp_path: Path) -> None:
    def count(config: Config, stage: Stage) -> None:
        stage.put("labels", [{"n": 1, "mean_net_bps": math.nan}])

    run_stages(config_at(tmp_path), {"labels": count}, quiet())
    run_id = (tmp_path / "runs" / "latest.txt").read_text().strip()
    report = json.loads((tmp_path / "runs" / run_id / "report.json").read_text())
    assert report["labels"] == [{"n": 1, "mean_net_bps": None}]
    assert report["selection"] is None
    assert report["simulated"] is True
    assert [stage["name"] for stage in report["stages"]] == ["labels"]


def test_an_unchanged_stage_is_kept_with_its_sections_and_lines(tmp_path: Path) -> None:
    calls = []

    def work(config: Config, stage: Stage) -> None:
        if stage.reuse("key"):
            return
        calls.append(1)
        stage.rows_out = 3
        stage.put("truth", {"n": 3})
        stage.put("truth", {"gross_bps": 14.0})
        stage.say("three rows")

    first, second = (run_stages(config_at(tmp_path), {"truth": work}, quiet()) for _ in range(2))
    assert calls == [1]
    assert second.sections == first.sections
    assert second.sections["truth"] == {"n": 3, "gross_bps": 14.0}
    assert (first.kept, second.kept) == ([], ["truth"])
    assert second.stages[0]["rows_out"] == 3


def test_a_failed_stage_leaves_no_stamp_but_a_report(tmp_path: Path) -> None:
    def fail(config: Config, stage: Stage) -> None:
        stage.reuse("key")
        raise StageError("no table")

    with pytest.raises(StageError):
        run_stages(config_at(tmp_path), {"bars": fail}, quiet())
    assert (tmp_path / "runs" / "latest.txt").exists()
    assert not (tmp_path / "stages" / "bars.json").exists()
    run_id = (tmp_path / "runs" / "latest.txt").read_text().strip()
    report = json.loads((tmp_path / "runs" / run_id / "report.json").read_text())
    assert report["error"] == "bars: no table"


def test_a_wrong_configuration_leaves_no_report(tmp_path: Path) -> None:
    def refuse(config: Config, stage: Stage) -> None:
        raise ConfigError("wrong")

    with pytest.raises(ConfigError):
        run_stages(config_at(tmp_path), {"bars": refuse}, quiet())
    assert not (tmp_path / "runs").exists()


def test_every_line_says_simulated_on_a_simulated_market_and_none_elsewhere(tmp_path: Path) -> None:
    def speak(config: Config, stage: Stage) -> None:
        stage.say("net 3 bps\nverdict: edge")

    for source, lines in (
        ("sim", ["net 3 bps | SIMULATED", "verdict: edge | SIMULATED"]),
        ("live", ["net 3 bps", "verdict: edge"]),
    ):
        config = config_at(tmp_path, f"source={source}")
        run_stages(config, {"backtest": speak}, quiet())
        run_id = (tmp_path / "runs" / "latest.txt").read_text().strip()
        report = (tmp_path / "runs" / run_id / "report.txt").read_text().splitlines()
        assert report == ["== backtest", *lines]


def test_a_replay_of_the_simulator_is_simulated(tmp_path: Path) -> None:
    config = config_at(tmp_path, "source=replay")
    write_origin(config, Origin("replay", simulated=True))
    assert RunRecord(config).simulated
    write_origin(config, Origin("replay"))
    assert not RunRecord(config).simulated


def test_errors_become_the_exit_codes_of_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    def raising(error: BaseException) -> int:
        def work() -> None:
            raise error

        return guarded(work)

    assert raising(StageError("stage")) == 1
    assert raising(KeyboardInterrupt()) == 130
    assert guarded(lambda: None) == 0
    assert "error: stage" in capsys.readouterr().err


def test_two_records_differ_in_their_id(tmp_path: Path) -> None:
    assert RunRecord(config_at(tmp_path)).run_id != RunRecord(config_at(tmp_path)).run_id


def test_two_runs_do_not_share_a_data_directory(tmp_path: Path) -> None:
    def start_another(config: Config, stage: Stage) -> None:
        with pytest.raises(StageError, match="another run works"):
            run_stages(config, {"bars": start_another}, quiet())

    run_stages(config_at(tmp_path), {"bars": start_another}, quiet())


def test_a_data_directory_that_cannot_be_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    config = config_at(tmp_path / "file")
    assert guarded(lambda: run_stages(config, {}, quiet())) == 1
    assert "file" in capsys.readouterr().err


def test_what_ended_a_run_is_told_though_no_report_can_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs").write_text("no folder")

    def fail(config: Config, stage: Stage) -> None:
        raise StageError("rows are lost")

    assert guarded(lambda: run_stages(config_at(tmp_path), {"bars": fail}, quiet())) == 1
    errors = capsys.readouterr().err
    assert "the report could not be written" in errors
    assert "error: rows are lost" in errors


def test_later_stages_say_that_a_capture_was_not_finished(tmp_path: Path) -> None:
    config = config_at(tmp_path)
    write_origin(config, Origin("sim", "a market", complete=False))
    record = run_stages(config, {"bars": lambda config, stage: None}, quiet())
    assert record.sections["capture"] == {"complete": False}
