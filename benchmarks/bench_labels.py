"""Labels: decision x cells per second of the grid kernel on a day of one symbol, and of the obvious loop on a slice.

python benchmarks/bench_labels.py
"""

import platform
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import polars as pl

from core.config import Labels
from core.schema import GAPS, MARK_PRICES, TRADES
from core.store import day_start_ns
from core.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from labels.build_labels import grid_terms, sound_decisions, to_frame
from labels.fees import Costs
from labels.grid import Decisions, Grid, cells_per_decision, label
from labels.venue_events import VenueDay, venue_day

QUOTES_PER_S, TRADES_PER_S = 50, 12
TICK: Final = 0.1


def random_day(seed: int = 0) -> VenueDay:
    """A day of one symbol: a random walk of 1.5 bps per square root second with a one-tick spread."""
    rng = np.random.default_rng(seed)
    start, n = day_start_ns("2026-01-05"), QUOTES_PER_S * 86_400
    exch = start + np.sort(rng.integers(0, NS_PER_DAY // NS_PER_MS, n)) * NS_PER_MS
    walk = np.cumsum(rng.normal(0.0, 1.5e-4 / np.sqrt(QUOTES_PER_S), n))
    bid = np.round(60_000.0 * np.exp(walk) / TICK)
    recv = exch + 5 * NS_PER_MS + np.arange(n) % NS_PER_MS
    quotes = pl.DataFrame(
        {"exch_ns": exch, "recv_ns": recv, "bid_price": bid * TICK, "ask_price": (bid + 1) * TICK}
    ).with_columns(exch_assumed=pl.lit(False))
    picked = np.sort(rng.choice(n, TRADES_PER_S * 86_400, replace=False))
    buys = rng.random(picked.size) < 0.5
    trades = pl.DataFrame(
        {
            "exch_ns": exch[picked],
            "recv_ns": recv[picked] + NS_PER_MS,
            "price": (bid[picked] + buys) * TICK,
            "qty": rng.exponential(0.05, picked.size),
            "taker_side": np.where(buys, "buy", "sell"),
        },
        schema_overrides={"taker_side": TRADES.columns["taker_side"]},
    )
    nothing = pl.DataFrame(schema=MARK_PRICES.columns), pl.DataFrame(schema=GAPS.columns)
    return venue_day(quotes, trades, *nothing, stale_ns=60 * NS_PER_S)


def first(decisions: Decisions, n: int) -> Decisions:
    return Decisions(*(column[:n] for column in decisions))


def main() -> None:
    began = time.perf_counter()
    day = random_day()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, {datetime.now(UTC):%F}")
    print(
        f"{day.quotes.exch_ns.size:,} quotes, {day.trades.exch_ns.size:,} trades: {time.perf_counter() - began:.1f} s"
    )
    times = day_start_ns("2026-01-05") + np.arange(60, 86_400 - 960) * NS_PER_S
    began = time.perf_counter()
    decisions, _ = sound_decisions(times, day)
    print(f"clock and book of {times.size:,} decisions: {time.perf_counter() - began:.2f} s (with compiling)")
    began = time.perf_counter()
    decisions, _ = sound_decisions(times, day)
    print(f"clock and book of {times.size:,} decisions: {time.perf_counter() - began:.2f} s")
    terms = grid_terms(Labels(), Costs(2.0, 5.0, 0.0), TICK, day.covered_ns)
    began = time.perf_counter()
    label(first(decisions, 10), day.quotes, day.trades, day.funding, terms)
    print(f"compile or load the kernel: {time.perf_counter() - began:.1f} s")
    best = 1e9
    grid: Grid | None = None
    for _ in range(3):
        began = time.perf_counter()
        grid = label(decisions, day.quotes, day.trades, day.funding, terms)
        best = min(best, time.perf_counter() - began)
    cells = cells_per_decision(terms) * decisions.t_ns.size
    print(f"grid kernel: {cells:,} decision x cells in {best:.2f} s: {cells / best / 1e6:.1f} M/s")
    assert grid is not None
    began = time.perf_counter()
    frame = to_frame(decisions, grid, terms)
    print(f"frame of {frame.width} columns, {frame.estimated_size() >> 20} MiB: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
