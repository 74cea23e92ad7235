"""The capture stage as a user runs it, on recorded frames served by the replay server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from core.cli import run_stages
from core.config import Config, Replay, load
from core.errors import ConfigError, StageError
from core.origin import Origin, read_origin, write_origin
from core.run_record import RunRecord
from core.schema import BOOK_DELTAS, EVENTS, GAPS, TOP_OF_BOOK, TRADES
from core.store import partitions, read
from ingest import capture, capture_log, recordings
from ingest.raw import RawReader, RawWriter, raw_files
from ingest.rows import TableWriter
from tests.ingest.local_venue import LIVE_URL as URL
from tests.ingest.local_venue import trade

ROOT = Path(__file__).resolve().parents[2]
MS = 1_000_000


def record(folder: Path, count: int, name: str = "a", url: str = URL) -> Path:
    """A raw capture of `count` trades, 1 ms apart."""
    with RawWriter(folder / f"{name}.jsonl.zst") as writer:
        for number in range(1, count + 1):
            writer.write(number * MS, url, trade(number))
    return folder


def replay(data: Path, folder: Path, *pairs: str) -> RunRecord:
    config = load(pairs=[f"replay.path={folder}", *pairs], options={"source": "replay", "data_dir": str(data)})
    return run_stages(config, {"capture": capture.run})


def rows(data: Path, table: Any) -> int:
    return sum(read(data, part).height for part in partitions(data, table))


def test_a_recording_of_bybit_becomes_tables_of_as_many_rows(market_data: Path, tmp_path: Path) -> None:
    report = replay(tmp_path, market_data / "raw" / "bybit_20260809").report()
    assert report["data"]["bybit"]["mark_prices"]["rows"] == 758
    assert report["data"]["bybit"]["trades"]["rows"] == rows(tmp_path, TRADES) == 327
    assert report["symbols"] == ["bybit:BTCUSDT", "bybit:DOGEUSDT", "bybit:ETHUSDT", "bybit:SOLUSDT"]
    assert report["capture"]["frames"] == 2_548
    assert report["capture"]["undecoded"] == 0
    snapshots = [read(tmp_path, part).filter("is_snapshot") for part in partitions(tmp_path, BOOK_DELTAS)]
    assert all(frame.height for frame in snapshots)


def test_chosen_symbols_of_a_recording_are_all_that_is_captured(market_data: Path, tmp_path: Path) -> None:
    report = replay(tmp_path, market_data / "raw" / "bybit_20260809", "symbols=bybit:ETHUSDT").report()
    assert report["symbols"] == ["bybit:ETHUSDT"]


def test_the_same_recording_is_captured_once_and_another_takes_its_place(tmp_path: Path) -> None:
    first, second = record(tmp_path / "one", 50), record(tmp_path / "two", 70)
    data = tmp_path / "data"
    assert replay(data, first).kept == []
    again = replay(data, first)
    assert again.kept
    assert again.report()["data"]["binance_um"]["trades"]["rows"] == 50
    for name in ("bars", "fitted", "models"):
        (data / name).mkdir()
    assert replay(data, second).kept == []
    assert rows(data, TRADES) == 70
    assert [name for name in ("bars", "fitted", "models") if (data / name).exists()] == ["models"]


def test_a_replay_waits_while_its_rows_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([True, True])
    monkeypatch.setattr(TableWriter, "is_behind", property(lambda self: next(answers, False)))
    replay(tmp_path / "data", record(tmp_path / "one", 5_000), "replay.transport=socket")
    assert next(answers, None) is None
    assert rows(tmp_path / "data", TRADES) == 5_000


def test_no_model_of_a_market_that_was_replaced_stays_in_use(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    replay(data, record(tmp_path / "one", 50))
    current = data / "models" / "current.txt"
    (data / "models" / "champion").mkdir(parents=True)
    current.write_text("champion\n")
    replay(data, tmp_path / "one")
    assert current.exists()
    replay(data, record(tmp_path / "two", 70))
    assert not current.exists()
    assert (data / "models" / "champion").exists()
    assert "models/current.txt" in capsys.readouterr().out


def test_what_was_done_once_is_not_said_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    replay(data, record(tmp_path / "one", 50))
    replay(data, record(tmp_path / "two", 70))
    said = capsys.readouterr().out
    assert "removed the replay market" in said
    assert "frames/s" in said
    replay(data, tmp_path / "two")
    said = capsys.readouterr().out
    assert "unchanged" in said
    assert "trades" in said
    assert "removed" not in said
    assert "frames/s" not in said


def test_a_symbol_that_was_asked_for_and_has_no_prices_is_an_error(market_data: Path, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="no best price and no book came of bybit:ADAUSDT"):
        replay(tmp_path, market_data / "raw" / "bybit_20260809", "symbols=bybit:ETHUSDT,bybit:ADAUSDT")
    with pytest.raises(StageError, match="no best price and no book came of binance_um:BTCUSDT, only of none"):
        replay(tmp_path / "data", record(tmp_path / "one", 50), "symbols=binance_um:BTCUSDT")


def test_a_recording_of_the_simulator_stays_simulated(tmp_path: Path) -> None:
    pairs = ["sim.hours=0.02", "capture.keep_raw=true", "symbols=bybit:BTCUSDT"]
    made = load(pairs=pairs, options={"source": "sim", "data_dir": str(tmp_path / "sim")})
    assert run_stages(made, {"capture": capture.run}).report()["simulated"]
    for _ in range(2):  # captured, then kept
        record = replay(tmp_path / "again", tmp_path / "sim" / "raw")
        assert record.report()["simulated"]
        latest = (tmp_path / "again" / "runs" / record.run_id / "report.txt").read_text().splitlines()
        assert all("SIMULATED" in line for line in latest if "top_of_book" in line or "frames/s" in line)


def test_a_recording_of_a_venue_is_not_simulated(tmp_path: Path) -> None:
    assert not replay(tmp_path / "data", record(tmp_path / "one", 50)).report()["simulated"]


def test_tables_that_were_deleted_are_captured_again(tmp_path: Path) -> None:
    folder, data = record(tmp_path / "one", 50), tmp_path / "data"
    replay(data, folder)
    for part in partitions(data, TRADES):
        for path in (data / part.path).iterdir():
            path.unlink()
    assert replay(data, folder).kept == []
    assert replay(data, folder).kept


def test_what_cannot_be_made_again_is_never_replaced(tmp_path: Path) -> None:
    folder, data = record(tmp_path / "one", 50), tmp_path / "data"
    replay(data, folder)
    for source in ("live", "archive"):
        write_origin(Config(data_dir=str(data)), Origin(source, complete=True))  # type: ignore[arg-type]
        with pytest.raises(StageError, match="choose another --data-dir"):
            replay(data, folder)
    (data / "source.json").unlink()
    with pytest.raises(StageError, match="unknown source"):
        replay(data, folder)
    assert rows(data, TRADES) == 50


def test_a_cut_last_line_is_reported_and_not_fatal(tmp_path: Path) -> None:
    lines = [json.dumps({"recv_ns": n * MS, "url": URL, "frame": trade(n)}) for n in range(1, 6)]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(lines)[:-10])
    report = replay(tmp_path / "data", tmp_path / "raw").report()
    assert report["capture"]["cut_lines"] == ["a.jsonl:5"]
    assert rows(tmp_path / "data", TRADES) == 4


def test_a_broken_line_is_fatal_and_what_came_before_is_kept(tmp_path: Path) -> None:
    lines = [json.dumps({"recv_ns": n * MS, "url": URL, "frame": trade(n)}) for n in range(1, 6)]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join([*lines[:3], "{broken", *lines[3:]]))
    with pytest.raises(StageError, match=r"a\.jsonl:4: broken line"):
        replay(tmp_path / "data", tmp_path / "raw")
    assert rows(tmp_path / "data", TRADES) == 3
    origin = read_origin(Config(data_dir=str(tmp_path / "data")))
    assert origin is not None
    assert not origin.complete


def test_a_foreign_recording_is_refused_before_anything_is_removed(tmp_path: Path, market_data: Path) -> None:
    folder, data = record(tmp_path / "one", 50), tmp_path / "data"
    replay(data, folder)
    with pytest.raises(StageError):
        replay(data, market_data / "raw" / "wire_samples")
    okx = record(tmp_path / "okx", 5, url="wss://ws.okx.com:8443/ws/v5/public")
    with pytest.raises(StageError, match=r"a\.jsonl\.zst: no decoder for"):
        replay(data, okx)
    assert rows(data, TRADES) == 50


def test_replay_without_a_path_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"\$\.replay\.path"):
        run_stages(Config(source="replay", data_dir=str(tmp_path)), {"capture": capture.run})
    with pytest.raises(StageError, match="does not exist"):
        replay(tmp_path, tmp_path / "nowhere")


def test_kept_raw_frames_replay_to_the_same_tables(market_data: Path, tmp_path: Path) -> None:
    source = market_data / "raw" / "bybit_20260809"
    replay(tmp_path / "one", source, "capture.keep_raw=true")
    raw = tmp_path / "one" / "raw"
    (kept,), (original,) = raw_files(raw), raw_files(source)
    assert list(RawReader(kept)) == list(RawReader(original))
    replay(tmp_path / "two", raw)
    for table in (TOP_OF_BOOK, TRADES, BOOK_DELTAS):
        for part in partitions(tmp_path / "one", table):
            assert read(tmp_path / "two", part).equals(read(tmp_path / "one", part))


@pytest.mark.parametrize("folder", ["binance_altcoins_2021", "bybit_20260809"])
def test_a_recording_gives_the_same_tables_however_it_is_read(
    market_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    source, transports = market_data / "raw" / folder, {"socket": "socket", "files": "direct", "runs": "direct"}
    told = {}
    for name, transport in transports.items():
        monkeypatch.setattr(recordings, "WORTH_COMPILING_BYTES", 0 if name == "runs" else 2**62)
        told[name] = replay(tmp_path / name, source, f"replay.transport={transport}").report()
    for name in ("files", "runs"):
        assert {**told[name]["capture"], "data": told[name]["data"]} == {
            **told["socket"]["capture"],
            "data": told["socket"]["data"],
        }
        for table in (*EVENTS, GAPS):
            for part in partitions(tmp_path / "socket", table):
                assert read(tmp_path / name, part).equals(read(tmp_path / "socket", part))


def test_frames_that_do_not_decode_are_counted_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(capture_log, "LOGS", tmp_path / "logs")
    folder = record(tmp_path / "one", 5)
    replay(tmp_path / "data", folder)
    assert not (tmp_path / "logs").exists()
    with RawWriter(folder / "b.jsonl.zst") as writer:
        writer.write(1, URL, "no frame at all")
        writer.write(2, URL, trade(77))
    report = replay(tmp_path / "data", folder).report()
    assert report["capture"]["undecoded"] == 1
    (log,) = (tmp_path / "logs").iterdir()
    assert json.loads(log.read_text())["frame"] == "no frame at all"
    assert str(log) in capsys.readouterr().out


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_capture_leaves_whole_tables(tmp_path: Path, how: signal.Signals) -> None:
    folder, data = record(tmp_path / "one", 60_000), tmp_path / "data"
    command = [sys.executable, str(ROOT / "ingest" / "capture.py"), "--source", "replay", "--data-dir", str(data)]
    pairs = ["--set", f"replay.path={folder}", "--set", "replay.speed=2", "--set", "capture.flush_rows=100"]
    process = subprocess.Popen([*command, *pairs], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", text=True)
    while not partitions(data, TRADES) and process.poll() is None:
        time.sleep(0.05)
    os.kill(process.pid, how)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    written = [read(data, part) for part in partitions(data, TRADES)]
    assert 0 < pl.concat(written).height < 60_000
    assert list(data.rglob("*.part")) == []
    assert read_origin(Config(data_dir=str(data), replay=Replay(path=str(folder)))) == Origin(
        "replay",
        read_origin(Config(data_dir=str(data))).identity,  # type: ignore[union-attr]
    )
