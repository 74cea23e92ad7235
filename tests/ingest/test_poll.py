"""The poll stage over real sockets: a run from cron, failures of the venue, a long run, and the simulated exchange."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import polars as pl
import pytest
from rich.console import Console

from core.cli import run_stages
from core.config import ROOT, Config, load
from core.errors import ConfigError, StageError
from core.origin import Origin, read_origin, write_origin
from core.run_record import RunRecord
from core.schema import SIGNALS
from core.store import partitions
from core.units import NS_PER_MS, NS_PER_S
from ingest import poll
from ingest.signals import read_signal
from tests.ingest.slow_venue import SlowVenue, open_interest, serving

BOTH = "symbols=binance_um:BTCUSDT,bybit:BTCUSDT"


@pytest.fixture(autouse=True)
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Events go to a folder of the test; a venue that is down is given up sooner."""
    monkeypatch.setattr("ingest.signal_log.LOGS", tmp_path / "logs")
    monkeypatch.setattr("ingest.rest._ATTEMPTS", 2)
    monkeypatch.setattr("ingest.rest._LONGEST_BACKOFF_S", 0.01)
    monkeypatch.setattr("ingest.providers._LONGEST_BACKOFF_S", 0.01)
    return tmp_path / "logs"


def now_ms() -> int:
    return time.time_ns() // NS_PER_MS


def config_of(root: Path, base_url: str, *pairs: str, **options: Any) -> Config:
    hosts = [f"capture.hosts.{name}={base_url}" for name in ("binance_um_rest", "bybit_rest")]
    given = {"source": "live", "data_dir": str(root / "data")} | options
    return load(pairs=[BOTH, "poll.history_days=1", *hosts, *pairs], options=given, root=root)


def polled(config: Config) -> tuple[RunRecord, str]:
    """Run the stage; its record and what it printed."""
    with (config.root.parent / "printed.txt").open("w+") as printed:
        console = Console(file=printed, highlight=False, soft_wrap=True)
        record = run_stages(config, {"poll": poll.run}, console)
        printed.seek(0)
        return record, printed.read()


def events_in(logs: Path) -> list[dict[str, Any]]:
    files = sorted(logs.glob("signal_events-*.jsonl"))
    return [json.loads(line) for path in files for line in path.read_text().splitlines()]


def last_report(root: Path) -> Any:
    """The report of a run that failed: `polled` gives none."""
    return json.loads(next((root / "data" / "runs").glob("*/report.json")).read_text())


def failing(path: str, status: int, body: str = "no") -> Any:
    """The slow venue, but for one path."""
    venue = SlowVenue(now_ms)

    def answer(url: str) -> tuple[int, str]:
        return (status, body) if urlsplit(url).path.startswith(path) else venue.answer(url)

    return answer


def test_a_run_from_cron_stores_all_series_of_both_venues_and_what_follows(tmp_path: Path) -> None:
    with serving(SlowVenue(now_ms).answer) as url:
        record, text = polled(config_of(tmp_path, url))
    root = tmp_path / "data"
    section = record.sections["poll"]
    names = {(row["exchange"], row["series"]): row["new"] for row in section["series"]}
    assert len(names) == 10 + 7
    assert all(names.values())
    rows = read_signal(root, "oi_btc", "binance_um:BTCUSDT")
    assert rows["value"].to_list() == [open_interest(time_ns // NS_PER_MS) for time_ns in rows["time_ns"]]
    assert read_signal(root, "oi_total_btc", "all:BTC").height >= 286
    assert read_signal(root, "oi_total", "all:ALL").height <= 1
    assert not read_signal(root, "funding_velocity_btc", "bybit:BTCUSDT").is_empty()
    assert not section["errors"]
    assert "oi_btc" in text
    assert "error" not in text.replace("errors", "")
    assert record.stages[0]["rows_out"] == sum(names.values()) + sum(section["derived"].values())
    assert read_origin(config_of(tmp_path, url)) == Origin("live", complete=True, simulated=True)  # on loopback


def test_a_second_run_in_the_same_slot_asks_for_nothing(tmp_path: Path) -> None:
    venue = SlowVenue(now_ms)
    with serving(venue.answer) as url:
        config = config_of(tmp_path, url, "poll.only=binance_um_funding")
        polled(config)
        asked = len(venue.asked)
        _, text = polled(config)
    assert len(venue.asked) == asked
    assert "nothing is due yet" in text


@pytest.mark.parametrize(
    ("path", "status", "body", "told"),
    [
        ("/futures/data/basis", 400, '{"code":-1121,"msg":"Invalid symbol."}', "HTTP 400"),
        ("/futures/data/basis", 500, "oops", "HTTP 500"),
        ("/futures/data/basis", 200, "<html>maintenance</html>", "JSON is malformed"),
        ("/futures/data/basis", 200, '{"code":-4000,"msg":"strange"}', "-4000: strange"),
        ("/v5/market/account-ratio", 200, '{"retCode":10001,"retMsg":"params error","result":{}}', "retCode 10001"),
    ],
)
def test_a_collector_that_cannot_be_had_fails_the_run_and_the_rest_is_stored(
    path: str, status: int, body: str, told: str, tmp_path: Path, logs: Path
) -> None:
    name = "bybit_ls_ratio_global" if path.startswith("/v5") else "binance_um_basis"
    with serving(failing(path, status, body)) as url, pytest.raises(StageError) as caught:
        polled(config_of(tmp_path, url, "poll.history_days=0.1"))
    assert str(caught.value).startswith(f"collector {name} brought nothing (")
    assert told in str(caught.value)
    [error] = last_report(tmp_path)["poll"]["errors"].values()
    assert told in error
    assert {event["kind"] for event in events_in(logs)} <= {"refused", "unreachable"}
    assert not read_signal(tmp_path / "data", "oi_btc", "bybit:BTCUSDT").is_empty()


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v5/market/account-ratio", '{"retCode":0,"result":{"rows":[]}}', "nothing at result.list"),
        ("/v5/market/account-ratio", '{"retCode":0,"result":{"list":[{"when":1}]}}', "no time at timestamp"),
        ("/futures/data/basis", '[{"timestamp":1,"price":1}]', "no number for basis_btc"),
    ],
)
def test_a_collector_whose_answers_cannot_be_read_fails_the_run(
    path: str, body: str, told: str, tmp_path: Path
) -> None:
    with serving(failing(path, 200, body)) as url, pytest.raises(StageError, match=rf"brought nothing \({told}"):
        polled(config_of(tmp_path, url, "poll.history_days=0.1"))
    silent = [row for row in last_report(tmp_path)["poll"]["series"] if row["unreadable"]]
    assert silent
    assert not any(row["new"] for row in silent)


def test_a_collector_that_one_symbol_refuses_goes_on_with_the_others(tmp_path: Path) -> None:
    venue = SlowVenue(now_ms)

    def answer(url: str) -> tuple[int, str]:
        is_strange = "symbol=ETHUSDT" in url and "openInterestHist" in url
        return (400, '{"code":-1121,"msg":"Invalid symbol."}') if is_strange else venue.answer(url)

    with serving(answer) as url:
        symbols = ["binance_um:BTCUSDT", "binance_um:ETHUSDT"]
        record, text = polled(config_of(tmp_path, url, "poll.only=binance_um_open_interest", symbols=symbols))
    assert list(record.sections["poll"]["errors"]) == ["binance_um_open_interest/ETHUSDT"]
    assert "Invalid symbol" in text
    assert max(len(line) for line in text.splitlines() if "oi_" in line) <= 80


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [
        (418, {"retry-after": "300"}, "is not asked for another 300 s: HTTP 418"),
        (429, {"retry-after": "300"}, "is not asked for another 300 s: HTTP 429"),
        (403, {}, "HTTP 403"),
        (451, {}, "HTTP 451"),
        (503, {}, "HTTP 503"),
    ],
)
def test_a_venue_that_stops_us_is_an_error_and_is_not_asked_on(
    status: int, headers: dict[str, str], told: str, tmp_path: Path
) -> None:
    asked: list[str] = []

    def answer(url: str) -> tuple[int, str]:
        asked.append(url)
        return status, '{"code":-1003,"msg":"Too many requests."}'

    with serving(answer, headers) as url:
        config = config_of(tmp_path, url, "poll.history_days=0.1", symbols=["binance_um:BTCUSDT"])
        with pytest.raises(StageError, match="no series could be had from binance_um") as caught:
            polled(config)
    assert told in str(caught.value)
    assert len(asked) <= 16  # 8 collectors, twice each: those that were under way


def test_one_venue_that_is_down_leaves_the_other_stored_and_fails_the_run(tmp_path: Path) -> None:
    with serving(failing("/v5/", 503)) as url, pytest.raises(StageError, match="no series could be had from bybit"):
        polled(config_of(tmp_path, url, "poll.history_days=0.1"))
    assert not read_signal(tmp_path / "data", "oi_btc", "binance_um:BTCUSDT").is_empty()
    report = last_report(tmp_path)
    assert report["error"].startswith("poll: no series")
    assert report["poll"]["series"]


def test_over_the_limit_for_a_second_is_waited_out(tmp_path: Path) -> None:
    venue, refusals = SlowVenue(now_ms), [(429, "slow down")]

    def answer(url: str) -> tuple[int, str]:
        return refusals.pop() if refusals else venue.answer(url)

    with serving(answer, {"retry-after": "1"}) as url:
        record, text = polled(config_of(tmp_path, url, "poll.only=binance_um_premium"))
    assert not record.sections["poll"]["errors"]
    assert "over its rate limit; it is not asked for 1 s" in text


MINE = """
[poll.providers.mine]
host = "{url}"
status = "code"
message = "why"

[poll.collectors.supply]
provider = "mine"
path = "/supply"
symbols = ["ALL"]
rows = "rows"
time = "0"
time_unit = "s"
resolution = "1d"
series = [{{ name = "stablecoin_supply_usdt", fields = [{{ path = "1.usd" }}], above = 0 }}]

[poll.collectors.for_nobody]
provider = "mine"
path = "/x"
time = "0"
resolution = "1d"
series = [{{ name = "y", fields = [{{ path = "1" }}] }}]
"""


def test_a_users_own_collector_is_polled_like_ours(tmp_path: Path) -> None:
    day_s = time.time_ns() // NS_PER_S // 86_400 * 86_400
    body = json.dumps({"code": 0, "rows": [[str(day_s - 86_400), {"usd": 1.4e11}], [str(day_s), {"usd": 1.5e11}]]})
    with serving(lambda _: (200, body)) as url:
        (tmp_path / "pipeline.toml").write_text(MINE.format(url=url))
        config = config_of(tmp_path, url, 'poll.only=["supply", "for_nobody"]')
        _, text = polled(config)
    rows = read_signal(tmp_path / "data", "stablecoin_supply_usdt", "mine:ALL")
    assert rows["value"].to_list() == [1.4e11, 1.5e11]
    assert "collector for_nobody: no symbol of its exchange" in text


def test_there_must_be_something_to_poll(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing to poll for binance:BTCUSDT"):
        polled(config_of(tmp_path, "http://127.0.0.1:1", symbols=["binance:BTCUSDT"]))
    with pytest.raises(ConfigError, match="polled at its end, once"):
        polled(config_of(tmp_path, "http://127.0.0.1:1", "poll.duration=1h", source="sim"))
    with pytest.raises(StageError, match="no slow series"):
        polled(config_of(tmp_path, "http://127.0.0.1:1", "replay.path=x", source="replay"))
    with pytest.raises(ConfigError, match="no collector is named 'x'"):
        polled(config_of(tmp_path, "http://127.0.0.1:1", "poll.only=x"))


def test_another_simulated_market_is_not_mixed_with_the_one_that_is_there(tmp_path: Path) -> None:
    config = config_of(tmp_path, "http://127.0.0.1:1", source="sim")
    config.root.mkdir()
    write_origin(config, Origin("sim", "another", complete=True, simulated=True))
    with pytest.raises(StageError, match="holds another simulated market"):
        polled(config)


@pytest.mark.parametrize("simulated", [False, True])
def test_real_and_simulated_signals_never_mix(tmp_path: Path, simulated: bool) -> None:
    with serving(SlowVenue(now_ms).answer) as url:
        config = config_of(tmp_path, url, "poll.only=bybit_open_interest")
        config.root.mkdir()
        write_origin(config, Origin("live", complete=True, simulated=simulated))
        if simulated:
            polled(config)  # on loopback, as what is there
        else:
            with pytest.raises(StageError, match="holds real rows, simulated signals must not join"):
                polled(config)
    assert bool(partitions(config.root, SIGNALS)) == simulated


def test_a_simulated_market_is_polled_to_its_end(tmp_path: Path) -> None:
    """On the simulated exchange itself: 30 days by its formula, then what its market did."""
    pairs = ["sim.hours=0.3", "poll.history_days=2", "symbols=binance_um:BTCUSDT,bybit:BTCUSDT"]
    record, text = polled(load(pairs=pairs, options={"data_dir": str(tmp_path / "data")}, root=tmp_path))
    end_ns = 1_767_593_700 * NS_PER_S + 180 * NS_PER_S  # 2026-01-05 06:00 and 18 minutes
    rows = read_signal(tmp_path / "data", "oi_btc", "bybit:BTCUSDT")
    assert rows.height == 2 * 288
    assert end_ns - 300 * NS_PER_S < int(rows["time_ns"][-1]) <= end_ns
    both = [read_signal(tmp_path / "data", "premium_btc", f"{venue}:BTCUSDT") for venue in ("binance_um", "bybit")]
    assert [frame["time_ns"].to_list() for frame in both] == [[end_ns], [end_ns]]
    assert record.simulated
    assert all("SIMULATED" in line for line in text.splitlines() if "oi_btc" in line)


def test_a_long_run_stores_while_it_goes_and_ends_well_on_sigterm(tmp_path: Path) -> None:
    venue = SlowVenue(now_ms)
    with serving(venue.answer) as url:
        hosts = [f"--set=capture.hosts.{name}={url}" for name in ("binance_um_rest", "bybit_rest")]
        chosen = ["--duration=forever", '--set=poll.only=["binance_um_open_interest"]', f"--set={BOTH}"]
        command = [sys.executable, "ingest/poll.py", "--source=live", f"--data-dir={tmp_path / 'data'}"]
        process = subprocess.Popen(
            [*command, *chosen, *hosts], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        while not (tmp_path / "data" / "poll.json").exists() and process.poll() is None:
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert "oi_usd_btc" in text
    assert read_signal(tmp_path / "data", "oi_btc", "binance_um:BTCUSDT").height > 29 * 288


def test_signals_lie_where_the_schema_says(tmp_path: Path) -> None:
    with serving(SlowVenue(now_ms).answer) as url:
        polled(config_of(tmp_path, url, "poll.only=bybit_open_interest"))
    found = partitions(tmp_path / "data", SIGNALS)
    assert {(part.exchange, part.symbol) for part in found} == {("bybit", "BTCUSDT"), ("all", "BTC")}
    frame = pl.read_parquet(tmp_path / "data" / "signals" / "**" / "*.parquet", hive_partitioning=True)
    assert frame["exchange"].is_in(["bybit", "all"]).all()
