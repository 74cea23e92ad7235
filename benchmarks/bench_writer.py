"""The table writer: CPU per row, how late rows are on disk, and what many symbols cost, without sockets or decoding.

    python benchmarks/bench_writer.py [SECONDS] [--data-dir DIR]

Packing: structs of each kind to a frame. Sustained: best prices of one symbol as fast as the writer takes them. Many:
200 symbols with four streams each, 50 events per symbol and second, paced by the clock; `late` is from `add` to the
rows being in a readable file. Pin it to a core (taskset -c 0) for figures of one.
"""

import argparse
import asyncio
import os
import platform
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import polars as pl

from core.plain_rows import PlainRows
from core.schema import Table
from core.units import NS_PER_MS, NS_PER_S
from ingest.events import BookUpdate, Event, Mark, Quote, Trade
from ingest.packing import TABLES, rows_of
from ingest.rows import TableWriter

SYMBOLS: Final = 200
BATCH: Final = 64  # events that a socket read brings
TICK_S: Final = 0.05
PAUSE_ROWS: Final = 65_536


def quote(symbol: str, ns: int) -> Quote:
    price = 60_000 + ns // NS_PER_MS % 1000 / 10
    return Quote(symbol, ns - 3 * NS_PER_MS, ns, ns // 1000, price, ns % 997 / 1000, price + 0.1, ns % 991 / 1000)


def trade(symbol: str, ns: int) -> Trade:
    return Trade(symbol, ns - 3 * NS_PER_MS, ns, str(ns // 1000), 60_000.1, ns % 997 / 1000, "buy")


def book_update(symbol: str, ns: int) -> BookUpdate:
    levels = [(60_000 - level / 10, ns % (997 + level) / 1000) for level in range(10)]
    return BookUpdate(symbol, ns - 3 * NS_PER_MS, ns, ns // 1000, levels, levels)


def mark(symbol: str, ns: int) -> Mark:
    return Mark(symbol, ns - 3 * NS_PER_MS, ns, 60_000.1, 60_000.2, 0.0001, ns + NS_PER_S, None)


def packing() -> Iterator[str]:
    """ns per event and per row, of batches as a busy and as a quiet stream has them."""
    for make in (quote, trade, book_update, mark):
        for size in (4096, 10):
            events: list[Event] = [make("BTCUSDT", 1_767_592_800 * NS_PER_S + k * NS_PER_MS) for k in range(size)]
            table = TABLES[type(events[0])]
            rows = rows_of(table, events).height
            seconds = best_of(lambda table=table, events=events: rows_of(table, events))
            cost = f"{seconds / size * 1e9:>12,.0f} ns/event{seconds / rows * 1e9:>10,.0f} ns/row"
            yield f"{table.name:<14}{size:>6}{cost}"


def best_of(work: Callable[[], Any], repeats: int = 20) -> float:
    seconds = []
    for _ in range(repeats):
        began_s = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - began_s)
    return min(seconds)


class Lateness:
    """From the receive time of rows to their being on disk, as the writer's observer sees it; a count per ms."""

    def __init__(self) -> None:
        self.counts = np.zeros(60_000, np.int64)

    def __call__(self, venue: str, table: Table, symbol: str, rows: PlainRows) -> None:
        late_ms = (time.time_ns() - rows.ints("recv_ns")) // NS_PER_MS
        np.add.at(self.counts, late_ms.clip(0, self.counts.size - 1), 1)

    def said(self) -> str:
        share = self.counts.cumsum() / self.counts.sum()
        p50, p99, most = np.searchsorted(share, (0.5, 0.99, 1.0 - 1e-12))
        return f"late p50 {p50} ms, p99 {p99} ms, max {most} ms"


def memory_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


async def sustained(root: Path, seconds: float) -> str:
    """One symbol as fast as it goes; the cost of making the events is measured by itself and taken off."""
    late = Lateness()
    writer = TableWriter(root, durable_s=1.0, observe=late)
    made = [quote("BTCUSDT", time.time_ns() + k) for k in range(BATCH)]
    began_s, cpu_s, count = time.perf_counter(), time.process_time(), 0
    ticked_s = began_s
    loop_s = 0.0
    while (now_s := time.perf_counter()) - began_s < seconds:
        before_s = time.thread_time()
        ns = time.time_ns()
        made = [quote("BTCUSDT", ns + k) for k in range(BATCH)]
        loop_s += time.thread_time() - before_s
        writer.add("binance_um", made)
        count += BATCH
        if now_s - ticked_s > TICK_S:
            ticked_s = now_s
            writer.tick()
    writer.flush()
    wall_s, used_s = time.perf_counter() - began_s, time.process_time() - cpu_s - loop_s
    peak = memory_mb()
    writer.close()
    return (
        f"{count / wall_s:,.0f} quotes/s, {used_s / count * 1e6:.2f} us CPU per row in all "
        f"(structs made apart: {loop_s / count * 1e6:.2f}), {late.said()}, {peak:.0f} MB"
    )


async def many(root: Path, seconds: float) -> str:
    """Four streams of each symbol: 42 best prices, 5 trades, 2 book updates and a mark price each second."""
    late = Lateness()
    writer = TableWriter(root, durable_s=1.0, observe=late)
    kinds: list[Callable[[str, int], Event]] = [quote] * 42 + [trade] * 5 + [book_update] * 2 + [mark]
    plan = [(make, f"S{number}USDT") for make in kinds for number in range(SYMBOLS)]
    began_s, cpu_s, start = time.perf_counter(), time.process_time(), 0
    main_s = time.thread_time()
    longest_ms = 0.0
    while (elapsed_s := time.perf_counter() - began_s) < seconds:
        due = int(elapsed_s * len(plan))
        for number in range(start, due):
            make, symbol = plan[number % len(plan)]
            writer.add("binance_um", [make(symbol, time.time_ns())])
        start = due
        ticked_s = time.perf_counter()
        writer.tick()
        longest_ms = max(longest_ms, (time.perf_counter() - ticked_s) * 1000)
        await asyncio.sleep(TICK_S)
    wall_s = time.perf_counter() - began_s
    main_s, cpu_s = time.thread_time() - main_s, time.process_time() - cpu_s
    mb, backlog = memory_mb(), writer.backlog
    line = (
        f"{start / wall_s:,.0f} events/s of {SYMBOLS * 4} streams, {late.said()}, {cpu_s / wall_s:.2f} cores in all, "
        f"{main_s / wall_s:.2f} of them the loop's, longest tick {longest_ms:.1f} ms, {mb:.0f} MB, backlog {backlog:,}"
    )
    closing_s = time.perf_counter()
    writer.close()
    return f"{line}; closed in {time.perf_counter() - closing_s:.1f} s"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("seconds", nargs="?", type=float, default=60.0)
    options.add_argument("--data-dir", type=Path, default=None)
    given = options.parse_args()
    cores = len(os.sched_getaffinity(0))
    print(
        f"{platform.processor() or platform.machine()}, {cores} cores, Python {platform.python_version()}, "
        f"Polars {pl.__version__}, {datetime.now(UTC):%Y-%m-%d}"
    )
    for line in packing():
        print(line)
    for work in (sustained, many):
        with tempfile.TemporaryDirectory(dir=given.data_dir) as folder:
            print(f"{work.__name__}: {asyncio.run(work(Path(folder), given.seconds))}", flush=True)


if __name__ == "__main__":
    main()
