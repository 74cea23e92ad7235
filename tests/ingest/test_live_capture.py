"""Live captures as a user runs them, against a venue on loopback in real time: told to end, killed, started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import polars as pl
import pytest

from core.cli import run_stages
from core.config import Capture, Config, Hosts
from core.errors import StageError
from core.locks import CAPTURE, RUN, held
from core.origin import Origin, read_origin, write_origin
from core.run_record import RunRecord
from core.schema import GAPS, TRADES
from core.store import append, files, partitions, read
from core.units import NS_PER_S
from ingest import capture, capture_log
from ingest.asked_streams import read_starts
from ingest.events import NOT_RUNNING
from ingest.raw import raw_files
from tests.ingest.local_venue import local_venue

ROOT = Path(__file__).resolve().parents[2]
SYMBOLS = "binance_um:BTCUSDT"


@pytest.fixture
def venue() -> Iterator[Hosts]:
    with local_venue() as hosts:
        yield hosts


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs of captures in this process go beside their data."""
    monkeypatch.setattr(capture_log, "LOGS", tmp_path / "logs")
    return tmp_path / "logs"


def config_of(data: Path, venue: Hosts, **settings: Any) -> Config:
    live = Capture(**{"duration_s": 2.0, "depth": "off", "hosts": venue, **settings})
    return Config(source="live", symbols=(SYMBOLS,), capture=live, data_dir=str(data))


def run(config: Config) -> RunRecord:
    return run_stages(config, {"capture": capture.run})


def trades(data: Path) -> pl.DataFrame:
    """All captured trades; fails if a row is in two files or in none that is whole."""
    found = pl.concat([pl.DataFrame(schema=TRADES.columns), *(read(data, part) for part in partitions(data, TRADES))])
    assert found["trade_id"].is_unique().all()
    return found


def gaps(data: Path) -> pl.DataFrame:
    found = [pl.DataFrame(schema=GAPS.columns), *(read(data, part) for part in partitions(data, GAPS))]
    return pl.concat(found).filter(pl.col("reason").str.starts_with(NOT_RUNNING))


@contextmanager
def capturing(data: Path, venue: Hosts, *pairs: str) -> Iterator["subprocess.Popen[str]"]:
    """`capture --source live --duration forever` in a process of its own, once it has written a row."""
    hosts = [f"capture.hosts.{name}={url}" for name, url in msgspec.structs.asdict(venue).items()]
    options = [f"--set={pair}" for pair in (*hosts, f"symbols={SYMBOLS}", "capture.depth=off", *pairs)]
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "capture", "--source=live", "--duration=forever"]
    before = trades(data).height
    process = subprocess.Popen(
        [*command, f"--data-dir={data}", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd="/", text=True
    )
    try:
        wait_for(lambda: trades(data).height > before or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.communicate()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.05)


def test_a_live_capture_ends_when_its_time_is_over_and_reports_what_it_added(tmp_path: Path, venue: Hosts) -> None:
    config = config_of(tmp_path, venue, keep_raw=True)
    done = [run(config), run(config)]
    added = [record.sections["data"]["binance_um"]["trades"]["rows"] for record in done]
    assert min(added) > 0
    found = trades(tmp_path)
    assert found.height == sum(added)
    assert (found["recv_ns"].diff().drop_nulls() > 0).all()
    assert abs(found["recv_ns"][-1] - time.time_ns()) < 60 * NS_PER_S
    assert done[0].sections["symbols"] == [SYMBOLS]
    assert [len(files(tmp_path, part)) for part in partitions(tmp_path, TRADES)] == [1]  # compacted when it ended
    assert len(raw_files(tmp_path / "raw")) == 4
    assert [{*start.streams} for start in read_starts(tmp_path)] == [{SYMBOLS}]


def test_a_symbol_that_never_came_is_an_error_in_the_end_and_the_others_are_kept(tmp_path: Path, venue: Hosts) -> None:
    config = config_of(tmp_path, venue)
    config = msgspec.structs.replace(config, symbols=(SYMBOLS, "binance_um:NOPEUSDT"))
    with pytest.raises(StageError, match="no row came of binance_um:NOPEUSDT: does the venue have it"):
        run(config)
    assert trades(tmp_path).height


def test_a_clock_that_was_set_back_while_nothing_ran_mixes_no_rows_and_is_told(
    tmp_path: Path, venue: Hosts, capsys: pytest.CaptureFixture[str]
) -> None:
    run(config_of(tmp_path, venue))
    before, part = trades(tmp_path).height, partitions(tmp_path, TRADES)[0]
    ahead_ns = time.time_ns() + 50 * NS_PER_S
    late = (
        read(tmp_path, part)
        .tail(1)
        .with_columns(pl.lit(ahead_ns).alias("recv_ns"), pl.lit("from before").alias("trade_id"))
    )
    append(tmp_path, part, late, ahead_ns, 900)
    run(config_of(tmp_path, venue))
    assert "the clock was set back" in capsys.readouterr().out
    found = trades(tmp_path).sort("recv_ns")
    assert found.filter(pl.col("recv_ns") > ahead_ns).height == found.height - before - 1 > 0
    reasons = pl.concat(read(tmp_path, each) for each in partitions(tmp_path, GAPS))["reason"]
    assert reasons.str.starts_with("clock set by -").any()


def test_the_log_tells_the_story(tmp_path: Path, venue: Hosts, logs: Path) -> None:
    run(config_of(tmp_path, venue))
    (path,) = logs.glob("capture-*.jsonl")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    events = [line["event"] for line in lines]
    assert events[0] == "start"
    assert events[-1] == "stop"
    assert events.count("subscribe") == 2
    assert "clocks" in events
    seen = {stream["table"]: stream["rows"] for stream in lines[-1]["streams"]}
    assert seen["trades"] == trades(tmp_path).height
    assert sum(connection["frames"] for connection in lines[-1]["connections"]) >= seen["trades"]


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_a_capture_with_everything_on_disk(
    tmp_path: Path, venue: Hosts, how: signal.Signals, code: int
) -> None:
    with capturing(tmp_path, venue) as process:
        process.send_signal(how)
        out, errors = process.communicate(timeout=30)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert list(tmp_path.rglob("*.part")) == []
    run_id = (tmp_path / "runs" / "latest.txt").read_text().strip()
    report = json.loads((tmp_path / "runs" / run_id / "report.json").read_text())
    assert report["capture"]["frames"] > 0
    if code == 0:
        assert report["data"]["binance_um"]["trades"]["rows"] == trades(tmp_path).height
        assert "SIMULATED" in out  # on loopback there is no venue


def test_what_is_on_disk_is_whole_at_any_moment_and_a_restart_says_what_is_missing(
    tmp_path: Path, venue: Hosts
) -> None:
    for _ in range(2):
        with capturing(tmp_path, venue) as process:
            process.send_signal(signal.SIGKILL)
            process.wait()
        last_ns = trades(tmp_path)["recv_ns"].max()
    run(config_of(tmp_path, venue))
    found = gaps(tmp_path).filter(pl.col("stream") == "trades").sort("from_ns")
    assert found.height == 2
    assert found["from_ns"][1] == last_ns
    for from_ns, to_ns in found.select("from_ns", "to_ns").iter_rows():
        inside = trades(tmp_path).filter(pl.col("recv_ns").is_between(from_ns, to_ns, closed="none"))
        assert inside.height == 0
    assert {"trades", "liquidations"} == set(gaps(tmp_path)["stream"])  # of what was never there nothing is missing


def test_two_live_captures_do_not_share_a_data_directory(tmp_path: Path, venue: Hosts) -> None:
    with held(tmp_path, CAPTURE), pytest.raises(StageError, match="a live capture writes"):
        run(config_of(tmp_path, venue))


def test_a_live_capture_runs_beside_other_stages_but_takes_no_market_from_them(tmp_path: Path, venue: Hosts) -> None:
    config = config_of(tmp_path, venue)
    write_origin(config, Origin("live", simulated=True))
    with held(tmp_path, RUN):
        run(config)
    rows = trades(tmp_path).height
    assert rows
    write_origin(config, Origin("sim", "a market", simulated=True))
    with held(tmp_path, RUN), pytest.raises(StageError, match="another run works"):
        run(config)
    assert trades(tmp_path).height == rows
    run(config)
    origin = read_origin(config)
    assert origin == Origin("live", complete=True, simulated=True)


def test_rows_of_a_venue_and_of_what_pretends_to_be_one_do_not_mix(tmp_path: Path, venue: Hosts) -> None:
    config = config_of(tmp_path, venue)
    write_origin(config, Origin("live"))
    with pytest.raises(StageError, match="real rows, simulated ones must not mix"):
        run(config)


def test_metrics_are_served_while_it_runs(tmp_path: Path, venue: Hosts) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with capturing(tmp_path, venue, f"capture.metrics_port={port}"):
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).raise_for_status().text
    assert 'capture_rows_total{symbol="BTCUSDT",table="trades",venue="binance_um"}' in text
    assert "capture_write_trouble 0.0" in text


def test_a_venue_that_is_not_there_is_one_clear_error(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_COLOR": "1"}
    command = [sys.executable, str(ROOT / "ingest" / "capture.py"), "--source=live", f"--data-dir={tmp_path}"]
    pairs = ["--set=capture.hosts.binance_um_ws=ws://127.0.0.1:9", f"--set=symbols={SYMBOLS}"]
    done = subprocess.run([*command, *pairs], capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 1
    assert "cannot connect to ws://127.0.0.1:9" in done.stderr
    assert "Traceback" not in done.stderr
