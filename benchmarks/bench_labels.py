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
from labels.grid import Decisions, Grid, Terms, cells_per_decision, label
from labels.venue_events import VenueDay, venue_day

QUOTES_PER_S, TRADES_PER_S = 50, 12
TICK: Final = 0.1
OBVIOUS_DECISIONS: Final = 200


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


def obvious_nets(decisions: Decisions, day: VenueDay, terms: Terms) -> np.ndarray:
    """Net bps of every maker cell, (2, D, K, H, n): one decision and cell at a time with boolean masks."""
    quotes, trades, costs = day.quotes, day.trades, terms.costs
    nets = np.zeros(
        (2, terms.deltas_bps.size, 2 + terms.gates_usd.size, terms.maker_holds_ns.size, decisions.t_ns.size)
    )
    for i, t_ns in enumerate(decisions.t_ns):
        arrival = t_ns - decisions.skew_ns[i] + terms.entry_latency_ns
        mid = (decisions.bid[i] + decisions.ask[i]) / 2
        met = np.searchsorted(quotes.exch_ns, arrival, "right") - 1
        for s, d, r in np.ndindex(nets.shape[:3]):
            side, touch = 1 - 2 * s, (decisions.bid[i], decisions.ask[i])[s]
            units = touch * (1 - side * terms.deltas_bps[d] / 1e4) / terms.tick
            limit = (np.floor(units + 1e-6) if side > 0 else np.ceil(units - 1e-6)) * terms.tick
            opposite, slack = (quotes.ask, quotes.bid)[s], terms.tick / 2
            if side * (limit - opposite[met]) >= -slack:
                continue
            rest = (terms.rest_ns if r < 2 else terms.gate_rest_ns) + terms.entry_latency_ns
            alive = slice(
                np.searchsorted(trades.exch_ns, arrival, "right"), np.searchsorted(trades.exch_ns, arrival + rest)
            )
            reach = side * (limit - trades.price[alive])
            if r == 0:
                hits = trades.exch_ns[alive][reach >= -slack][:1]
            elif r == 1:
                past = slice(met + 1, np.searchsorted(quotes.exch_ns, arrival + rest))
                crossed = quotes.exch_ns[past][side * (limit - opposite[past]) >= -slack][:1]
                hits = np.sort(np.concatenate([trades.exch_ns[alive][reach > slack][:1], crossed]))
            else:
                mine = (reach >= -slack) & (trades.taker[alive] == -side)
                eaten = np.cumsum(trades.price[alive][mine] * trades.qty[alive][mine])
                hits = trades.exch_ns[alive][mine][eaten >= terms.gates_usd[r - 2]]
            for h, hold_ns in enumerate(terms.maker_holds_ns if hits.size else ()):
                left = np.searchsorted(quotes.exch_ns, hits[0] + hold_ns + terms.exit_latency_ns, "right") - 1
                price = (quotes.bid, quotes.ask)[s][left]
                fees = (costs.maker_bps * limit + costs.taker_bps * price) / mid
                nets[s, d, r, h, i] = side * (price - limit) / mid * 1e4 - fees
    return nets


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
    best = cpu = 1e9
    grid: Grid | None = None
    for _ in range(3):
        began, cpu_began = time.perf_counter(), time.process_time()
        grid = label(decisions, day.quotes, day.trades, day.funding, terms)
        best, cpu = min(best, time.perf_counter() - began), min(cpu, time.process_time() - cpu_began)
    cells = cells_per_decision(terms) * decisions.t_ns.size
    print(f"grid kernel: {cells:,} decision x cells in {best:.2f} s: {cells / best / 1e6:.1f} M/s on one thread")
    print(f"grid kernel: {cells / cpu / 1e6:.1f} M per second of CPU (the same on an idle machine)")
    assert grid is not None
    few = first(decisions, OBVIOUS_DECISIONS)
    began = time.perf_counter()
    nets = obvious_nets(few, day, terms)
    slow = nets.size / (time.perf_counter() - began)
    off = float(np.abs(nets - grid.maker.net_bps[..., :OBVIOUS_DECISIONS]).max())
    print(f"obvious numpy on {OBVIOUS_DECISIONS} decisions: {slow / 1e6:.3f} M/s; largest difference {off:.1e} bps")
    print(f"kernel over obvious: {cells / best / slow:,.0f} x")
    began = time.perf_counter()
    frame = to_frame(decisions, grid, terms)
    print(f"frame of {frame.width} columns, {frame.estimated_size() >> 20} MiB: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
