"""Bars: events per second of the merge and of the pass, on one core, with Polars and mlfinpy in the same run.

    python -m venv .venv-references && .venv-references/bin/pip install -r benchmarks/requirements-references.txt
    python benchmarks/bench_bars.py [EVENTS]

A day of one symbol: three best prices to a trade, at random times; its L2 messages, of eight deltas each, most of them
near the touch. Polars makes the aggregates that it can make in one pass (last book, OHLC of the mid, flow by taker, OFI
by shifts); it carries nothing over empty bars and marks no gaps. It runs on one thread, as the kernel does. mlfinpy
makes volume bars of a tenth of the trades, in an environment of its own. Figures are CPU seconds, the best of five,
warm. The last lines are the whole stage, read and write included, in processes of their own, over one day and over four
of a quarter of the events each, with as many deltas, on three clocks with ten levels.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("POLARS_MAX_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import json
import multiprocessing
import subprocess
from dataclasses import dataclass

import numpy as np
import polars as pl
from rich.console import Console

from core import schema, store
from core.cli import run_stages
from core.config import Config
from core.units import NS_PER_DAY
from research.bars.bar_pass import BarPass, Bars
from research.bars.clocks import parse_clock
from research.bars.events import TRADE, Events, merge_events
from research.build_bars import run

DATE = "2026-01-05"
EVENTS = 10_000_000
CLOCK = "time_200ms"
FIVE = ("time_100ms", "time_1s", "time_1m", "volume_10", "tick_imbalance_200")
ROOT = Path(__file__).resolve().parents[1]
MLFINPY = ROOT / ".venv-references" / "bin" / "python"


@dataclass(frozen=True)
class Day:
    """Rows of top_of_book, trades and book_deltas of one day."""

    date: str
    top: pl.DataFrame
    trades: pl.DataFrame
    deltas: pl.DataFrame

    def merged(self, with_depth: bool = False) -> Events:
        none = [pl.DataFrame(schema=table.columns) for table in (schema.LIQUIDATIONS, schema.MARK_PRICES, schema.GAPS)]
        return merge_events(self.top, self.trades, *none, self.deltas if with_depth else None)


def made_up_day(n_events: int, n_deltas: int, date: str = DATE) -> Day:
    """A random walk of the mid on a tick of 0.1."""
    rng = np.random.default_rng(7)
    n_trades = n_events // 4
    times_ns = store.day_start_ns(date) + 1 + np.sort(rng.integers(0, NS_PER_DAY - 1, n_events))
    is_trade = rng.permutation(n_events) < n_trades
    bid = np.round(50_000.0 + np.cumsum(rng.normal(0.0, 0.02, n_events)), 1)
    times = dict.fromkeys(("exch_ns", "recv_ns", "update_id"), times_ns[~is_trade])
    qty = rng.exponential(1.0, (2, n_events - n_trades))
    prices = {"bid_price": bid[~is_trade], "bid_qty": qty[0], "ask_price": bid[~is_trade] + 0.1, "ask_qty": qty[1]}
    top = pl.DataFrame({**times, **prices}).with_columns(exch_assumed=False, recv_assumed=False)
    traded = pl.DataFrame(
        {
            "exch_ns": times_ns[is_trade],
            "recv_ns": times_ns[is_trade],
            "trade_id": np.arange(n_trades).astype("U8"),
            "price": bid[is_trade],
            "qty": rng.exponential(0.1, n_trades),
            "taker_side": np.where(rng.random(n_trades) < 0.5, "buy", "sell"),
            "recv_assumed": np.zeros(n_trades, bool),
        },
        schema_overrides={"taker_side": schema.TAKER_SIDE},
    )
    return Day(date, top, traded, made_up_depth(rng, n_deltas, date))


def made_up_depth(rng: np.random.Generator, n_deltas: int, date: str) -> pl.DataFrame:
    """A snapshot of 500 levels a side at midnight, then messages of eight changes.

    As the mid moves, the levels that it passes are taken away first, so that the book is never crossed; the others are
    near the touch, a third of them removals.
    """
    message = np.concatenate([np.zeros(1_000, np.int64), 1 + np.arange(n_deltas) // 8])
    of_message = np.concatenate([np.zeros(1_000, np.int64), np.arange(n_deltas) % 8])
    moves = np.clip(np.round(rng.normal(0.0, 0.6, message[-1] + 1)), -8, 8).astype(np.int64)
    moves[0] = 0
    mid_ticks, move = (500_000 + np.cumsum(moves))[message], moves[message]
    is_passed = of_message < np.abs(move)
    is_bid = np.where(is_passed, move < 0, rng.random(message.size) < 0.5)
    is_bid[:1_000] = np.arange(1_000) % 2 == 0
    away = np.concatenate([np.arange(1_000) // 2, np.floor(rng.exponential(8.0, n_deltas)).astype(np.int64)])
    away = np.where(is_passed, of_message - np.abs(move), away)  # behind the new mid
    gone = is_passed | ((message > 0) & (rng.random(message.size) < 1 / 3))
    times_ns = np.sort(rng.integers(1, NS_PER_DAY, message[-1] + 1))
    times_ns[0] = 0
    recv_ns = store.day_start_ns(date) + times_ns[message]
    return pl.DataFrame(
        {
            "exch_ns": recv_ns,
            "recv_ns": recv_ns,
            "update_id": message,
            "side": pl.Series(np.where(is_bid, "bid", "ask"), dtype=schema.BOOK_SIDE),
            "price": (mid_ticks + np.where(is_bid, -away, 1 + away)) / 10.0,
            "qty": np.where(gone, 0.0, rng.exponential(1.0, message.size)),
            "is_snapshot": message == 0,
            "recv_assumed": np.zeros(message.size, bool),
        }
    )


def with_polars(top: pl.DataFrame, traded: pl.DataFrame, every: str) -> pl.DataFrame:
    """The same flow and book columns, of the bars that are not empty."""
    bid, ask = pl.col("bid_price"), pl.col("ask_price")
    bid_flow = pl.when(bid >= bid.shift()).then(pl.col("bid_qty")).otherwise(0.0) - pl.when(bid <= bid.shift()).then(
        pl.col("bid_qty").shift()
    ).otherwise(0.0)
    ask_flow = pl.when(ask <= ask.shift()).then(pl.col("ask_qty")).otherwise(0.0) - pl.when(ask >= ask.shift()).then(
        pl.col("ask_qty").shift()
    ).otherwise(0.0)
    mid, book = pl.col("mid"), pl.col("bid_price", "bid_qty", "ask_price", "ask_qty")
    quoted = (
        top.lazy()
        .with_columns(mid=(bid + ask) / 2, ofi=bid_flow - ask_flow)
        .group_by_dynamic("recv_ns", every=every)
        .agg(
            book.last(),
            mid.first().alias("open"),
            mid.max().alias("high"),
            mid.min().alias("low"),
            mid.last().alias("close"),
            pl.col("ofi").sum(),
            pl.len().alias("quotes"),
        )
    )
    usd, qty = pl.col("price") * pl.col("qty"), pl.col("qty")
    flows = [
        flow
        for side in ("buy", "sell")
        for mine in [pl.col("taker_side") == side]
        for flow in (
            qty.filter(mine).sum().alias(f"{side}_qty"),
            usd.filter(mine).sum().alias(f"{side}_usd"),
            mine.sum().alias(f"{side}_count"),
        )
    ]
    flow = traded.lazy().group_by_dynamic("recv_ns", every=every).agg(flows)
    return quoted.join(flow, on="recv_ns", how="full", coalesce=True).collect()


def best_of(work: Callable[[], Any], times: int = 5) -> tuple[float, Any]:
    """(least CPU seconds, result) of some runs after one that warms up."""
    result = work()
    seconds = []
    for _ in range(times):
        began = time.process_time()
        result = work()
        seconds.append(time.process_time() - began)
    return min(seconds), result


def in_slices(events: Events, size: int) -> int:
    """Bars of a day that is pushed in slices, as the stage does it."""
    bars = Bars(parse_clock(CLOCK))
    return sum(len(bars.push(events[begin : begin + size])) for begin in range(0, events.size, size))


def one_by_one(events: Events) -> int:
    bars = Bars(parse_clock(CLOCK))
    return sum(len(bars.push(events[k : k + 1])) for k in range(events.size))


def with_mlfinpy(day: Day, size: float) -> dict[str, Any]:
    """Its CPU seconds and number of volume bars of a tenth of the day's trades."""
    trades = day.trades.head(day.trades.height // 10)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trades.csv"
        rows = trades.select(date_time=pl.from_epoch("recv_ns", "ns"), price="price", volume="qty")
        rows.write_csv(path, datetime_format="%Y-%m-%d %H:%M:%S%.9f")
        command = [str(MLFINPY), str(ROOT / "benchmarks" / "run_mlfinpy.py"), str(path), str(size)]
        answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer


def compare_volume_bars(day: Day) -> None:
    if not MLFINPY.exists():
        print("mlfinpy is not installed: see the head of this file")
        return
    theirs = with_mlfinpy(day, 10.0)
    n_trades = day.trades.height // 10
    events = day.merged()
    mine = events[: int(np.flatnonzero(events["kind"] == TRADE)[n_trades - 1]) + 1]
    mine = np.concatenate([mine[:1], mine[mine["kind"] == TRADE]])  # a first best price, or there are no bars
    seconds, closed = best_of(lambda: Bars(parse_clock("volume_10")).push(mine))
    ratio = theirs["seconds"] / seconds
    print(
        f"mlfinpy {theirs['version']}, volume bars   {n_trades / theirs['seconds'] / 1e6:7.3f} M trades/s, "
        f"{theirs['bars']:,} bars; ours {n_trades / seconds / 1e6:.1f}, {len(closed):,}: {ratio:,.0f}x"
    )


def stage_alone(folder: str, send: Any) -> None:
    """The stage in this process: sends (seconds, peak memory in MiB before, after)."""
    config = Config(data_dir=folder, bars=CLOCK, bars_also=("time_1m", "volume_10"), bars_levels=10, source="replay")
    idle_mib = peak_mib()
    began = time.perf_counter()
    run_stages(config, {"bars": run}, Console(quiet=True))
    seconds = time.perf_counter() - began
    send.send((seconds, idle_mib, peak_mib()))


def peak_mib() -> float:
    """Most resident memory of this process so far (ru_maxrss would count the parent's, which exec hands down)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def stage_figures(n_events: int, dates: list[str]) -> tuple[float, float, float]:
    """Write some days, build them in a fresh process, and return what it reports."""
    with tempfile.TemporaryDirectory() as folder:
        for date in dates:
            day = made_up_day(n_events, n_events, date)
            rows = ((schema.TOP_OF_BOOK, day.top), (schema.TRADES, day.trades), (schema.BOOK_DELTAS, day.deltas))
            for table, frame in rows:
                store.write(Path(folder), store.Partition(table.name, "binance_um", "BTCUSDT", date), frame)
        spawn = multiprocessing.get_context("spawn")
        receive, send = spawn.Pipe(duplex=False)
        process = spawn.Process(target=stage_alone, args=(folder, send))
        process.start()
        figures: tuple[float, float, float] = receive.recv()
        process.join()
    return figures


def rate_of(name: str, clocks: tuple[str, ...], events: Events, levels: int = 0) -> None:
    def work() -> list[int]:
        return [len(closed) for closed in BarPass(list(map(parse_clock, clocks)), levels, True).push(events)]

    seconds, made = best_of(work)
    bars = " + ".join(f"{count:,}" for count in made)
    print(f"{name:<28}{events.size / seconds / 1e6:7.1f} M events/s, {bars} bars")


def main() -> None:
    n_events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine()}")
    day = made_up_day(n_events, n_events)
    seconds, events = best_of(day.merged)
    print(f"merge, a day at once        {n_events / seconds / 1e6:7.1f} M events/s")
    for clock in (CLOCK, "time_1s", "time_1d", "volume_10"):
        rate_of(f"bars, {clock}", (clock,), events)
    rate_of("bars, five clocks", FIVE, events)
    for levels in (10, 20):
        deltas = made_up_day(n_events // 100, n_events).merged(with_depth=True)
        rate_of(f"L2, {levels} levels, {CLOCK}", (CLOCK,), deltas, levels)
        rate_of(f"L2, {levels} levels, five", FIVE, deltas, levels)
    seconds, _ = best_of(lambda: in_slices(events, 500_000))
    print(f"bars, {CLOCK} in slices  {n_events / seconds / 1e6:7.1f} M events/s")
    seconds, _ = best_of(lambda: one_by_one(events[:50_000]))
    print(f"live, one event a call      {seconds / 50_000 * 1e6:7.2f} us an event")
    seconds, rows = best_of(lambda: with_polars(day.top, day.trades, "200000000i"), 2)
    peer = f"Polars {pl.__version__}, {pl.thread_pool_size()} thread"
    print(f"{peer:<28}{n_events / seconds / 1e6:7.1f} M events/s, {rows.height:,} bars that are not empty")
    compare_volume_bars(day)
    for count in (1, 4):
        dates = [f"2026-01-0{5 + k}" for k in range(count)]
        seconds, idle_mib, most_mib = stage_figures(n_events // 4, dates)
        what = f"stage, {count} d in a fresh process"
        print(f"{what:<28} {seconds:6.2f} s, peak {most_mib:,.0f} MiB of which {idle_mib:,.0f} are imports")


def machine() -> str:
    """Processor and cores, as the system names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
