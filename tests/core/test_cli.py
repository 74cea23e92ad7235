"""The command line: how long a live capture runs, and which source a stage works on."""

from pathlib import Path
from typing import Any

import filelock
import pytest
from rich.console import Console

from core.cli import run_stages, seconds_of, settings_of, settled
from core.config import Config, load
from core.errors import ConfigError, StageError
from core.locks import CAPTURE, POLL, RUN, Busy, held, lock_of
from core.origin import Origin, write_origin


@pytest.mark.parametrize(
    ("text", "seconds"), [("3600", 3_600), ("90m", 5_400), ("12h", 43_200), ("7d", 604_800), ("1s", 1), ("forever", 0)]
)
def test_a_duration_is_seconds_or_has_a_unit(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-5", "1.5.2", "5 m", "1w", "for ever", "inf", "nan", "0h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--duration"):
        seconds_of(text)


def settings(source: str, stages: list[str], duration: str | None) -> Config:
    return settings_of(None, [], {"source": source}, stages, duration)


def test_a_duration_is_for_a_live_capture_and_a_poll_alone() -> None:
    assert settings("live", ["capture"], "2h").capture.duration_s == 7_200
    assert settings("live", ["capture"], "forever").capture.duration_s == 0
    assert settings("live", ["capture"], None).capture.duration_s == Config().capture.duration_s
    for source, stages in (
        ("sim", ["capture"]),
        ("replay", ["capture"]),
        ("live", ["bars"]),
        ("archive", ["backfill"]),
        ("sim", ["capture", "poll"]),
    ):
        with pytest.raises(ConfigError, match=rf"of source {source}: a simulated market lasts sim\.hours"):
            settings(source, stages, "2h")
    with pytest.raises(ConfigError, match=r"\$\.capture\.duration_s"):
        settings("live", ["capture"], "400d")
    assert [settings("live", ["poll"], text).poll.duration for text in ("90", "2h", "forever")] == [
        "90s",
        "7200s",
        "forever",
    ]
    assert settings("sim", ["poll"], "90m").poll.duration == "5400s"  # its source is that of the data directory


def test_stages_work_on_what_the_tables_hold_but_those_that_fill_them(tmp_path: Path) -> None:
    config = load(options={"data_dir": str(tmp_path)})
    write_origin(config, Origin("live"))
    assert settled(config, ["bars"], None).source == "live"
    assert settled(config, ["capture", "bars"], "sim").source == "sim"
    assert settled(config, ["backfill", "bars"], None).source == "archive"
    with pytest.raises(ConfigError, match="backfill reads archives"):
        settled(config, ["backfill"], "live")
    with pytest.raises(ConfigError, match="hold live data"):
        settled(config, ["bars"], "sim")


def test_only_what_adds_rows_for_months_has_a_lock_of_its_own() -> None:
    live, sim = Config(source="live"), Config(source="sim")
    assert [lock_of(live, stage) for stage in ("capture", "poll", "bars")] == [CAPTURE, POLL, RUN]
    assert {lock_of(sim, stage) for stage in ("capture", "poll", "bars")} == {RUN}
    assert lock_of(Config(source="replay"), "capture") == RUN


def test_a_run_that_captures_live_holds_others_up_only_for_the_stages_behind_it(tmp_path: Path) -> None:
    seen: list[str] = []

    def probe(config: Config, stage: Any) -> None:
        for lock in (RUN, CAPTURE):
            try:
                with held(tmp_path, lock):
                    seen.append(f"{stage.name}: {lock} is free")
            except Busy:
                continue

    config = load(options={"data_dir": str(tmp_path), "source": "live"})
    run_stages(config, {"capture": probe, "bars": probe, "features": probe}, Console(quiet=True))
    assert seen == ["capture: run.lock is free", "bars: capture.lock is free", "features: capture.lock is free"]


def test_a_run_that_did_not_get_in_leaves_no_report_and_one_that_was_stopped_halfway_does(tmp_path: Path) -> None:
    config = load(options={"data_dir": str(tmp_path), "source": "live"})
    nothing: Any = lambda config, stage: None  # noqa: E731 (a stage that does nothing)
    with held(tmp_path, CAPTURE), pytest.raises(StageError, match="a live capture writes"):
        run_stages(config, {"capture": nothing, "bars": nothing}, Console(quiet=True))
    assert not (tmp_path / "runs").exists()
    with held(tmp_path, RUN), pytest.raises(StageError, match="another run works"):
        run_stages(config, {"capture": nothing, "bars": nothing}, Console(quiet=True))
    assert (tmp_path / "runs" / "latest.txt").exists()


def test_a_mistyped_data_directory_is_not_made_by_who_reads(tmp_path: Path) -> None:
    config = load(options={"data_dir": str(tmp_path / "dtaa"), "source": "live"})
    nothing: Any = lambda config, stage: None  # noqa: E731 (a stage that does nothing)
    for stage in ("bars", "quality", "compact", "export_events", "live"):
        with pytest.raises(StageError, match="dtaa does not exist"):
            run_stages(config, {stage: nothing}, Console(quiet=True))
    assert not config.root.exists()
    run_stages(config, {"capture": nothing, "bars": nothing}, Console(quiet=True))
    assert config.root.exists()


@pytest.mark.parametrize(("name", "why"), [("file", "it is a file"), ("file/below", "not a directory")])
def test_what_can_be_no_data_directory_is_told(
    tmp_path: Path, name: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x")
    config = load(options={"data_dir": str(tmp_path / name), "source": "live"})
    nothing: Any = lambda config, stage: None  # noqa: E731 (a stage that does nothing)
    assert settled(config, ["bars"], None) == config
    with pytest.raises(StageError, match=f"{name} cannot be a data directory: {why}: choose another --data-dir"):
        run_stages(config, {"capture": nothing}, Console(quiet=True))
    assert capsys.readouterr().err == ""  # nor is a report tried there


def test_a_directory_that_may_not_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.locks.os.access", lambda path, mode: False)  # a superuser may write anywhere
    with pytest.raises(StageError, match="it is not writable"), held(tmp_path, RUN):
        pass


def test_a_lock_that_times_out_under_a_held_one_is_not_told_as_that_one(tmp_path: Path) -> None:
    with pytest.raises(filelock.Timeout), held(tmp_path, RUN):
        raise filelock.Timeout("another.lock")
    with held(tmp_path, RUN):  # it was let go
        pass
