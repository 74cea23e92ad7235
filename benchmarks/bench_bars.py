"""Bars: events per second of the merge and of the kernel, on one core, with Polars' group_by_dynamic in the same run.

    python benchmarks/bench_bars.py [EVENTS]

A day of one symbol: three best prices to a trade, at random times. Polars makes the aggregates that it can make in one
pass (last book, OHLC of the mid, flow by taker, OFI by shifts); it carries nothing over empty bars and marks no gaps.
It runs on one thread, as the kernel does. Each figure is the best of five, warm. The last line is the whole stage, read
and write included, in a process of its own.
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

import multiprocessing

import numpy as np
import polars as pl
from rich.console import Console

from core import schema, store
from core.cli import run_stages
from core.config import Config
from core.units import NS_PER_DAY
from research.bar_events import Events, merge_events
from research.bars import Bars
from research.build_bars import run
from research.clocks import parse_clock

DATE = "2026-01-05"
EVENTS = 10_000_000
CLOCK = "time_200ms"


def made_up_day(n_events: int) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Rows of top_of_book and trades: a random walk of the mid on a tick of 0.1."""
    rng = np.random.default_rng(7)
    n_trades = n_events // 4
    times_ns = store.day_start_ns(DATE) + np.sort(rng.integers(0, NS_PER_DAY, n_events))
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
    return top, traded


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
    """(least seconds, result) of some runs after one that warms up."""
    result = work()
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return min(seconds), result


def in_slices(events: Events, size: int) -> int:
    """Bars of a day that is pushed in slices, as the stage does it."""
    bars = Bars(parse_clock(CLOCK))
    return sum(len(bars.push(events[begin : begin + size])) for begin in range(0, events.size, size))


def one_by_one(events: Events) -> int:
    bars = Bars(parse_clock(CLOCK))
    return sum(len(bars.push(events[k : k + 1])) for k in range(events.size))


def stage_alone(folder: str, send: Any) -> None:
    """The stage in this process: sends (seconds, peak memory in MiB before, after)."""
    config = Config(data_dir=folder, bars=CLOCK, source="replay")
    idle_mib = peak_mib()
    began = time.perf_counter()
    run_stages(config, {"bars": run}, Console(quiet=True))
    seconds = time.perf_counter() - began
    send.send((seconds, idle_mib, peak_mib()))


def peak_mib() -> float:
    """Most resident memory of this process so far (ru_maxrss would count the parent's, which exec hands down)."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def stage_figures(top: pl.DataFrame, traded: pl.DataFrame) -> tuple[float, float, float]:
    """Write the day, build it in a fresh process, and return what it reports."""
    with tempfile.TemporaryDirectory() as folder:
        for table, frame in ((schema.TOP_OF_BOOK, top), (schema.TRADES, traded)):
            store.write(Path(folder), store.Partition(table.name, "binance_um", "BTCUSDT", DATE), frame)
        spawn = multiprocessing.get_context("spawn")
        receive, send = spawn.Pipe(duplex=False)
        process = spawn.Process(target=stage_alone, args=(folder, send))
        process.start()
        figures: tuple[float, float, float] = receive.recv()
        process.join()
    return figures


def main() -> None:
    n_events = int(sys.argv[1]) if len(sys.argv) > 1 else EVENTS
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {machine()}")
    top, traded = made_up_day(n_events)
    none = [pl.DataFrame(schema=table.columns) for table in (schema.LIQUIDATIONS, schema.MARK_PRICES, schema.GAPS)]

    seconds, events = best_of(lambda: merge_events(top, traded, *none))
    print(f"merge, a day at once        {n_events / seconds / 1e6:7.1f} M events/s")
    piece = [top.head(375_000), traded.head(125_000), *none]
    seconds, merged = best_of(lambda: merge_events(*piece), 20)
    print(f"merge, 500 k at a time      {merged.size / seconds / 1e6:7.1f} M events/s")
    for clock in (CLOCK, "time_1s", "time_1d", "volume_10"):
        seconds, closed = best_of(lambda clock=clock: Bars(parse_clock(clock)).push(events))
        print(f"bars, {clock:<22}{n_events / seconds / 1e6:7.1f} M events/s, {len(closed):,} bars")
    seconds, _ = best_of(lambda: in_slices(events, 500_000))
    print(f"bars, {CLOCK} in slices  {n_events / seconds / 1e6:7.1f} M events/s")
    seconds, _ = best_of(lambda: one_by_one(events[:100_000]))
    print(f"live, one event a call      {seconds / 100_000 * 1e6:7.2f} us an event")
    seconds, rows = best_of(lambda: with_polars(top, traded, "200000000i"))
    peer = f"Polars {pl.__version__}, {pl.thread_pool_size()} thread"
    print(f"{peer:<28}{n_events / seconds / 1e6:7.1f} M events/s, {rows.height:,} bars that are not empty")
    seconds, idle_mib, most_mib = stage_figures(top, traded)
    print(
        f"stage, a fresh process      {seconds:7.2f} s, peak {most_mib:,.0f} MiB of which {idle_mib:,.0f} are imports"
    )


def machine() -> str:
    """Processor and cores, as the system names them."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


if __name__ == "__main__":
    main()
