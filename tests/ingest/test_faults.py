"""A capture under fault, end to end: a venue in the present that does wrong, real sockets, real tables.

Each run is reconciled with what the venue published (backtest/market/reconcile.py): no row stands twice, none is of no
frame, and every hole is told in `gaps`. What no protocol shows is named there as NO_SEQUENCE: a single message that is
dropped, or comes after its successor, of streams whose messages do not count on.
"""

import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl
import pytest
from rich.console import Console

from backtest.market.reconcile import Account, accounts, unexplained
from backtest.market.rehearsal import Rehearsal, beside, rehearsed
from core.config import ROOT, Config, Faults, load
from core.gaps import unmended
from core.run_record import RunRecord
from core.schema import GAPS
from core.store import partitions, read
from ingest import capture

SYMBOLS = [f"{venue}:S{number}USDT" for venue in ("binance_um", "bybit") for number in range(4)]
KINDS = ("quotes", "trades", "depth", "marks", "liquidations")

S = 10**9
LONGEST_S = 100.0  # of a capture that ends when something has come about
Act = Callable[[Rehearsal], None]
Until = Callable[[Rehearsal], bool]


class Run(NamedTuple):
    """What a capture under fault left."""

    accounts: list[Account]
    gaps: pl.DataFrame
    report: dict[str, Any]
    ledger: list[dict[str, Any]]

    def of(self, *faults: str) -> list[dict[str, Any]]:
        return [row for row in self.ledger if row["fault"] in faults]


def captured(
    folder: Path,
    seconds: float,
    act: Act | None = None,
    every_s: float = 1.0,
    silence_s: float = 2.0,
    until: Until | None = None,
    **faults: Any,
) -> Run:
    """A capture of some seconds, or until something has come about, from a venue with these faults, on which `act` is
    done again and again.
    """
    with (
        rehearsed(Config(symbols=tuple(SYMBOLS), faults=Faults(**faults))) as venue,
        venue.acting(act and (lambda: act(venue)), every_s),
    ):
        return captured_from(venue, folder, seconds, silence_s, until)


def captured_from(
    venue: Rehearsal, folder: Path, seconds: float, silence_s: float = 2.0, until: Until | None = None
) -> Run:
    """A capture from a venue that runs, and goes on when it has ended."""
    config = config_for(venue, folder, LONGEST_S if until else seconds, silence_s)
    record = RunRecord(config, Console(quiet=True))
    with ended_when(until and (lambda: until(venue)), seconds), record.stage("capture") as stage:
        capture.run(config, stage)
    return Run(accounts(folder, venue.tapes), gaps_of(folder), record.report()["capture"], venue.ledger.rows)


def ended_when(come_about: Callable[[], bool] | None, after_s: float) -> AbstractContextManager[None]:
    """SIGTERM for the capture inside, `after_s` after something came about: a slow machine takes its time."""
    if come_about is None:
        return nullcontext()

    def watch(over: threading.Event) -> None:
        while not come_about():
            if over.wait(0.1):
                return
        if not over.wait(after_s):
            os.kill(os.getpid(), signal.SIGTERM)

    return beside(watch)


def config_for(venue: Rehearsal, folder: Path, seconds: float, silence_s: float = 2.0) -> Config:
    """Twice the least that is sent, markPrice each second, is silence."""
    pairs = [f"symbols={','.join(SYMBOLS)}", f"capture.duration_s={seconds}", f"capture.silence_s={silence_s}"]
    pairs += [f"capture.hosts.{name}={getattr(venue.hosts, name)}" for name in venue.hosts.__struct_fields__]
    return load(pairs=pairs, options={"source": "live", "data_dir": str(folder)})


def gaps_of(folder: Path) -> pl.DataFrame:
    frames = [read(folder, part).with_columns(symbol=pl.lit(part.instrument)) for part in partitions(folder, GAPS)]
    return pl.concat(frames) if frames else pl.DataFrame(schema=GAPS.columns | {"symbol": pl.String})


def assert_honest(run: Run) -> None:
    """What holds under any fault."""
    assert sum(account.captured for account in run.accounts) > 50
    assert [account for account in run.accounts if account.doubled or account.extra] == []
    untold = {(each.venue, each.symbol, each.table): unexplained(each, run.ledger) for each in run.accounts}
    assert {stream: keys for stream, keys in untold.items() if keys} == {}


def test_without_a_fault_every_frame_is_a_row_and_there_is_no_gap(tmp_path: Path) -> None:
    run = captured(tmp_path, 3.0, silence_s=10.0)
    assert_honest(run)
    assert sum(account.lost + account.holes for account in run.accounts) == 0
    assert run.gaps.is_empty()
    assert run.report["undecoded"] == 0


def test_dropped_frames_are_told_where_ids_show_it_and_trades_are_fetched(tmp_path: Path) -> None:
    run = captured(tmp_path, 5.0, drop=dict.fromkeys(KINDS, 0.1))
    assert_honest(run)
    binance = {(each.symbol, each.table): each for each in run.accounts if each.venue == "binance_um"}
    for symbol, table in {(row["symbol"], row["kind"]) for row in run.of("drop") if row["kind"] == "trades"}:
        each = binance[symbol, table]
        assert each.gaps >= each.holes
    assert sum(each.refilled for each in binance.values()) > 0
    assert sum(each.lost for each in binance.values() if each.table == "trades") == 0


def test_doubled_frames_leave_no_row_twice(tmp_path: Path) -> None:
    run = captured(tmp_path, 3.0, silence_s=10.0, double=dict.fromkeys(KINDS, 0.5))
    assert_honest(run)
    assert len(run.of("double")) > 20
    assert run.gaps.is_empty()
    assert sum(each.lost for each in run.accounts) == 0


def test_frames_out_of_order_leave_books_and_trades_in_order(tmp_path: Path) -> None:
    late_books: dict[str, Any] = {"rest": 500, "rest_calls": 8, "rest_path": "/fapi/v1/depth"}
    run = captured(tmp_path, 4.0, reorder=dict.fromkeys(KINDS, 0.1), **late_books)
    assert_honest(run)
    assert len(run.of("reorder")) > 10


def test_frames_cut_short_are_counted_and_leave_a_gap(tmp_path: Path) -> None:
    run = captured(tmp_path, 4.0, truncate=dict.fromkeys(KINDS, 0.1))
    assert_honest(run)
    cut = run.of("truncate")
    early = [row for row in cut if row["time_ns"] < cut[-1]["time_ns"] - 2 * S]  # some are on their way when it ends
    assert len(cut) >= run.report["undecoded"] >= len(early) > 5


def test_lost_connections_are_made_again_and_what_was_missed_is_told(tmp_path: Path) -> None:
    ways = itertools.cycle(("reset", "close", "shutdown"))

    def hit_often(venue: Rehearsal) -> bool:
        return len(venue.ledger.of("reset", "close", "shutdown")) > 5

    run = captured(
        tmp_path, 1.5, lambda venue: venue.hit_one(getattr(venue.injector, next(ways))), 0.5, until=hit_often
    )
    assert_honest(run)
    assert run.report["reconnects"] > 2


@pytest.mark.parametrize("how", ["silence", "half_open"])
def test_a_connection_that_is_open_and_dead_is_replaced(tmp_path: Path, how: str) -> None:
    def act(venue: Rehearsal) -> None:
        injector = venue.injector
        if not venue.ledger.rows:
            venue.hit_one((lambda outlet: injector.silence(outlet, 30.0)) if how == "silence" else injector.half_open)

    run = captured(tmp_path, 0.7, act, until=lambda venue: gaps_of(tmp_path).height > 0)
    assert_honest(run)
    assert len(run.of(how)) == 1
    assert run.gaps.height > 0


@pytest.mark.slow
def test_a_stream_that_is_acknowledged_and_never_comes_is_told(tmp_path: Path) -> None:
    run = captured(tmp_path, 8.5, silence_s=1.0, mute=("trades",))
    told = run.gaps.filter(pl.col("stream") == "trades")
    assert set(told["symbol"]) == set(SYMBOLS)
    assert [each for each in run.accounts if each.doubled or each.extra] == []


def test_a_restart_of_the_venue_starts_its_books_anew(tmp_path: Path) -> None:
    run = captured(tmp_path, 5.0, lambda venue: venue.injector.restart(), 2.0)
    assert_honest(run)
    assert run.of("restart")
    assert sum(each.lost for each in run.accounts if each.venue == "binance_um" or each.table == "trades") == 0


@pytest.mark.slow
def test_old_snapshots_are_not_built_upon(tmp_path: Path) -> None:
    def act(venue: Rehearsal) -> None:
        venue.injector.stale_books(6)
        venue.hit_one(venue.injector.reset, with_books=True)

    run = captured(tmp_path, 6.0, act, 2.0, stale_s=2.0)
    assert_honest(run)
    assert run.of("stale_snapshot")


@pytest.mark.slow
def test_rest_that_fails_in_any_way_costs_no_stream(tmp_path: Path) -> None:
    ways: Iterator[Any] = itertools.cycle((500, "garbled", "cut", 503, 429, 418, "timeout", 451, 403))

    def act(venue: Rehearsal) -> None:
        venue.injector.rest_fails(next(ways), 2)
        venue.hit_one(venue.injector.reset, with_books=True)

    run = captured(tmp_path, 10.0, act, 0.8, drop={"trades": 0.1})
    assert_honest(run)
    assert len({row["how"] for row in run.of("rest")}) > 2


def test_a_clock_that_is_set_is_a_gap_and_time_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SteppedClock()
    monkeypatch.setattr("ingest.receive_clock.time", clock)
    steps = ("clock set by +2000 ms", "clock set by -2000 ms")

    def told() -> set[str]:
        return set(steps) & set(gaps_of(tmp_path)["reason"])

    def act(venue: Rehearsal) -> None:
        if venue.connections() and len(told()) == clock.steps < len(steps):
            clock.step()

    run = captured(tmp_path, 0.5, act, 0.5, until=lambda venue: len(told()) == len(steps))
    assert_honest(run)
    assert sum(each.lost for each in run.accounts) == 0
    assert told() == set(steps)


class SteppedClock:
    """Stands for the module `time`: a wall clock that is set by 2 s, forward and back."""

    def __init__(self) -> None:
        self.steps = 0
        self._set_ns = 0
        self.monotonic_ns = time.monotonic_ns

    def step(self) -> None:
        self.steps += 1
        self._set_ns = 0 if self._set_ns else 2 * 10**9

    def time_ns(self) -> int:
        return time.time_ns() + self._set_ns


@pytest.mark.slow
def test_kill_9_at_any_moment_leaves_whole_files_and_loses_a_second(tmp_path: Path) -> None:
    with rehearsed(Config(symbols=tuple(SYMBOLS))) as venue:
        chances = random.Random(1)
        for _ in range(5):
            process = started(venue, tmp_path)
            try:
                time.sleep(chances.uniform(1.0, 4.0))
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait()
        config = config_for(venue, tmp_path, 2.0)
        with RunRecord(config, Console(quiet=True)).stage("capture") as stage:
            capture.run(config, stage)
        run = Run(accounts(tmp_path, venue.tapes), gaps_of(tmp_path), {}, venue.ledger.rows)
    assert_honest(run)
    reasons = "capture was not running|refilled by REST|no trade since"  # the last where a capture ended before one
    assert run.gaps.filter(~pl.col("reason").str.contains(reasons)).is_empty()
    numbered = [each for each in run.accounts if (each.venue, each.table) == ("binance_um", "trades")]
    assert sum(each.refilled for each in numbered) > 0
    assert sum(each.lost for each in numbered) == 0


def test_holes_that_are_open_at_a_kill_9_are_told_and_fetched_by_the_next_capture(tmp_path: Path) -> None:
    """REST does not answer until the process is killed, so that no hole is mended before."""
    mute_rest = Faults(drop={"trades": 0.2}, rest="timeout", rest_chance=1.0, rest_path="/fapi/v1/aggTrades")
    with rehearsed(Config(symbols=tuple(SYMBOLS), faults=mute_rest)) as venue:
        process = started(venue, tmp_path)
        try:
            wait_for(lambda: sum(each.holes for each in trades_of(tmp_path, venue)) >= 3)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        found = trades_of(tmp_path, venue)
        assert [unexplained(each, venue.ledger.rows) for each in found] == [[]] * len(found)
        assert len(venue.ledger.of("rest")) > 0
        assert not gaps_of(tmp_path)["mended"].any()
        venue.do(venue.injector.calm)
        captured_from(venue, tmp_path, 0.5, until=lambda _: not still_open(tmp_path))
        whole = trades_of(tmp_path, venue)
    assert sum(each.refilled for each in found) == 0 < sum(each.refilled for each in whole)
    assert [(each.lost, unexplained(each, venue.ledger.rows)) for each in whole] == [(0, [])] * len(whole)


def still_open(folder: Path) -> int:
    """How many holes of the trades that are numbered no row says to be mended."""
    gaps = gaps_of(folder).filter((pl.col("stream") == "trades") & pl.col("symbol").str.starts_with("binance_um"))
    return sum(unmended(rows).height for rows in gaps.partition_by("symbol"))


def trades_of(folder: Path, venue: Rehearsal) -> list[Account]:
    """The accounts of the streams whose holes show."""
    return [each for each in accounts(folder, venue.tapes) if (each.venue, each.table) == ("binance_um", "trades")]


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LONGEST_S
    while not condition():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def started(venue: Rehearsal, folder: Path) -> "subprocess.Popen[bytes]":
    """A capture as a process of its own, without end."""
    config = config_for(venue, folder, 0)
    pairs = [f"symbols={','.join(SYMBOLS)}", "capture.duration_s=0"]
    pairs += [f"capture.hosts.{name}={getattr(config.capture.hosts, name)}" for name in venue.hosts.__struct_fields__]
    command = [sys.executable, str(ROOT / "ingest" / "capture.py"), "--source", "live", "--data-dir", str(folder)]
    command += [part for pair in pairs for part in ("--set", pair)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
