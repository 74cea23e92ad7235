"""What joins cost: the default features of four symbols with and without five joins, over history and at a live bar.

    python benchmarks/bench_panel.py

One process on one thread, best of three: history in CPU time, each live instant in wall time. Made-up bars of 200 ms,
and of a minute where joined.
"""

import sys
import time
from pathlib import Path
from typing import Final

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.config import Features
from core.units import NS_PER_MINUTE, NS_PER_MS
from research.bars.bar_pass import ClosedBars
from research.bars.clocks import parse_clock
from research.bars.columns import BAR_COLUMNS
from research.catalogue import DEFINITIONS, FEATURE_COLUMNS, choose
from research.programs.panel import Panel
from research.programs.panel_program import PanelProgram, compile_panel

NAMES: Final = tuple(f"binance_um:S{k}" for k in range(4))
JOINS: Final = {
    "trend": "(mul 1e4 (log (div close_price (at_1m (mean_20m close_price)))))",
    "beta": "(beta_300s bar_return_bps (of_S0 bar_return_bps))",
    "lead": "(mul 1e4 (delta_1s (of_binance_um:S1 log_mid)))",
    "standing": "(cs_rank (sum_10s signed_usd))",
    "broad": "(at_1m (cs_mean (of_S2 (delta_5 log_mid))))",
}
BAR: Final = "time_200ms"
END_NS: Final = 28_333_334 * NS_PER_MINUTE
ROWS, INSTANTS, TIMES = 200_000, 2_000, 3


def made_up(clock: str, rows: int, end_ns: int = END_NS) -> ClosedBars:
    step_ns = parse_clock(clock).step_ns
    close_ns = end_ns - step_ns * np.arange(rows)[::-1]
    values = np.random.default_rng(rows).lognormal(0.0, 0.1, (rows, len(BAR_COLUMNS)))
    values[:, [BAR_COLUMNS.index(name) for name in ("has_gap", "is_empty")]] = 0.0
    return ClosedBars(close_ns - step_ns, close_ns, close_ns // step_ns - 1, values)


def batch_ns(program: PanelProgram) -> float:
    """Per bar and symbol."""
    rows = {clock: ROWS * 200 * NS_PER_MS // parse_clock(clock).step_ns for clock in program.clocks}
    bars = {(name, clock): made_up(clock, rows[clock]) for name in NAMES for clock in program.clocks}
    taken_s = []
    for _ in range(TIMES):
        panel, began_s = Panel(program, NAMES), time.process_time()
        panel.run(lambda name, clock: bars[name, clock])
        taken_s.append(time.process_time() - began_s)
    return min(taken_s) / ROWS / len(NAMES) * 1e9


def live_us(program: PanelProgram) -> float:
    """Per bar: the median over instants at which a bar of every symbol closes, of each the least of some runs."""
    instants = [{(name, BAR): made_up(BAR, 1, END_NS + k * 200 * NS_PER_MS) for name in NAMES} for k in range(INSTANTS)]
    taken_ns = np.empty((TIMES, INSTANTS))
    for run in range(TIMES):
        panel = Panel(program, NAMES, tile=1)
        for k, bars in enumerate(instants):
            began_ns = time.perf_counter_ns()
            panel.run(lambda name, clock, bars=bars: bars.get((name, clock)))  # type: ignore[misc]
            taken_ns[run, k] = time.perf_counter_ns() - began_ns
    return float(np.median(taken_ns.min(axis=0))) / len(NAMES) / 1e3


def main() -> None:
    default = choose(Features().sets, {}, BAR)
    for label, texts in (
        ("default features", default),
        ("and five joins", {**default, **JOINS}),
        ("joins alone", JOINS),
    ):
        program = compile_panel(texts, FEATURE_COLUMNS, BAR, DEFINITIONS)
        cost = f"{batch_ns(program):6.0f} ns per bar of history, {live_us(program):5.1f} us per live bar"
        print(f"{label:17} {len(program.names):3} features, {program.nodes:3} operators: {cost}")


if __name__ == "__main__":
    main()
