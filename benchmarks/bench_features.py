"""Features: ns per node and row, and one live bar, with the same features as Polars expressions in the same run.

    python benchmarks/bench_features.py [BARS]

Two programs over a day of 200 ms bars of a made-up market: the whole catalogue, and 100 rolling features (sum, mean,
std, zscore, min, max over windows of 5 to 1500 bars). The Polars expressions are made from the same trees and run
as one lazy query, which shares common parts too; one thread each. Each batch figure is the best of five, warm. The
results of both are compared; where ours is 0 and Polars' is not, its running sums have kept a residue of what has left
the window. A live bar includes the call from Python. The cold start is that of a process of its own, with an empty
cache: import and compile.
"""

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

os.environ.setdefault("POLARS_MAX_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import polars as pl

from core.config import Features
from research.catalogue import FEATURE_COLUMNS, compile_chosen
from research.expression import Node, parse
from research.language import compile_features, window_bars
from research.program import Floats, Program

BAR: Final = "200ms"
BARS: Final = 432_000
LIVE_BARS: Final = 20_000
WINDOWS: Final = (5, 7, 10, 15, 25, 37, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 1500)
ROLLING: Final = ("sum", "mean", "std", "zscore", "min", "max")


def made_up_bars(n: int) -> Floats:
    """Rows (n, 26) of FEATURE_COLUMNS: a random walk on a tick of 0.1, trades in 30 % of the bars, no gaps."""
    rng = np.random.default_rng(7)
    mid = np.round(50_000.0 + np.cumsum(rng.normal(0.0, 0.3, n)), 1)
    bid, ask = mid - 0.05, mid + 0.05
    flow = rng.lognormal(0.0, 1.0, (n, 11)) * (rng.random((n, 11)) < 0.3)
    qty = rng.exponential(1.0, (n, 2))
    marks = [mid, mid + rng.normal(0.0, 1.0, n), np.full(n, 1e-4), 1e5 + np.cumsum(rng.normal(size=n))]
    flow[:, 6] = rng.normal(size=n)
    ends = [np.zeros(n), np.zeros(n), np.arange(1, n + 1) / 5 % 86_400]
    return np.column_stack([bid, qty[:, 0], ask, qty[:, 1], mid, mid + 0.1, mid - 0.1, mid, flow, *marks, *ends])


def rolling_program() -> Program:
    calls = [(name, w) for w in WINDOWS for name in ROLLING][:100]
    return compile_features({f"{name}_{w}": f"({name}_{w} close_price)" for name, w in calls}, FEATURE_COLUMNS, BAR)


def in_polars(tree: Node) -> pl.Expr:
    """The same feature as a Polars expression. A zscore of a constant window is 0 there too."""
    if not tree.is_call:
        return pl.lit(tree.head) if tree.is_number else pl.col(str(tree.head))
    args = [in_polars(arg) for arg in tree.args]
    return _rolling(tree, *args) if tree.window else _plain(tree, *args)


def _rolling(tree: Node, x: pl.Expr) -> pl.Expr:
    w = window_bars(tree.window, BAR)
    if tree.head == "zscore":
        spread = x.rolling_std(w, ddof=0)
        return pl.when(spread == 0).then(0.0).otherwise((x - x.rolling_mean(w)) / spread)
    if tree.head == "std":
        return x.rolling_std(w, ddof=0)
    simple: dict[str | float, Callable[[int], pl.Expr]] = {
        "sum": x.rolling_sum, "mean": x.rolling_mean, "min": x.rolling_min, "max": x.rolling_max,
        "lag": x.shift, "delta": x.diff,
    }  # fmt: skip
    return simple[tree.head](w)


def _plain(tree: Node, a: pl.Expr, b: Any = None, *rest: pl.Expr) -> pl.Expr:
    forms: dict[str | float, Callable[[], pl.Expr]] = {
        "add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b,
        "div": lambda: pl.when(b != 0).then(a / b), "ratio": lambda: pl.when(b != 0).then(a / b).otherwise(0.0),
        "log": a.log, "log1p": a.log1p, "abs": a.abs, "coalesce": lambda: pl.when(a.is_not_nan()).then(a).otherwise(b),
        "ge": lambda: (a >= b).cast(pl.Float64), "lt": lambda: (a < b).cast(pl.Float64),
        "if_gt": lambda: pl.when(a > b).then(rest[0]).otherwise(rest[1]),
    }  # fmt: skip
    return forms[tree.head]()


def best_s(work: Callable[[], Any], times: int = 5) -> float:
    """Seconds of the fastest of some runs, after one that does not count."""
    work()
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)


def batch_line(title: str, program: Program, x: Floats) -> str:
    """Ours and Polars' over all rows, and the largest difference of a feature after the warm-up, in its deviations."""
    frame = pl.DataFrame(dict(zip(FEATURE_COLUMNS, np.asfortranarray(x).T, strict=True)))
    columns = [
        in_polars(parse(text)).alias(name) for name, text in zip(program.names, program.expressions, strict=True)
    ]
    theirs = frame.lazy().select(columns)
    ours_s, theirs_s = best_s(lambda: program.evaluate(frame)), best_s(lambda: theirs.collect())
    decisions = np.arange(4, len(x), 5)
    taken_s = best_s(lambda: program.evaluate(frame, take=decisions))
    cell_ns = 1e9 / (len(x) * program.nodes)
    apart = comparison(program, program.evaluate(frame), theirs.collect().to_numpy())
    return (
        f"{title}: {len(program.names)} features, {program.nodes} nodes, {len(x):,} bars\n"
        f"  interpreter {ours_s:.3f} s = {ours_s * cell_ns:.2f} ns per node and row; "
        f"features of 1 bar in 5 only {taken_s:.3f} s = {taken_s * cell_ns:.2f} ns\n"
        f"  Polars {pl.__version__} {theirs_s:.3f} s = {theirs_s * cell_ns:.2f} ns; ratio {theirs_s / ours_s:.1f}x\n"
        f"  {apart}"
    )


def comparison(program: Program, ours: Floats, theirs: Floats) -> str:
    """The largest difference after the warm-up, in standard deviations of the feature, residues apart."""
    ours, theirs = ours[program.warmup_bars :], theirs[program.warmup_bars :]
    apart = np.abs(ours - theirs) / np.maximum(np.nanstd(ours, axis=0), 1e-9)
    is_residue = (apart > 1e-6) & (ours == 0.0)
    worst = np.nanmax(np.where(is_residue, 0.0, apart))
    names = [program.names[k] for k in np.flatnonzero(is_residue.any(axis=0))]
    residue = f"; residues of up to {np.abs(theirs[is_residue]).max():.3g} for 0 in {', '.join(names)}" if names else ""
    return f"largest difference {worst:.1e} standard deviations{residue}"


def live_line(program: Program, x: Floats) -> str:
    live, taken = program.start(), np.empty(LIVE_BARS)
    live.run(x[:5000])
    for k in range(LIVE_BARS):
        row = x[5000 + k]
        began = time.perf_counter_ns()
        live.step(row)
        taken[k] = time.perf_counter_ns() - began
    p50, p99, p999 = np.percentile(taken, [50, 99, 99.9]) / 1e3
    return f"one live bar, {program.nodes} nodes: p50 {p50:.1f} us, p99 {p99:.1f} us, p99.9 {p999:.1f} us"


def cold_line() -> str:
    code = (
        "import time; began = time.perf_counter(); import numpy as np; from core.config import Features\n"
        "from research.catalogue import compile_chosen; imported = time.perf_counter()\n"
        "p = compile_chosen(Features().sets, {}, '200ms'); built = time.perf_counter()\n"
        "p.evaluate(np.ones((9, 26))); done = time.perf_counter()\n"
        "print(f'import {imported - began:.1f} s, catalogue to program {1e3 * (built - imported):.0f} ms, '\n"
        "      f'first evaluation {done - built:.1f} s')"
    )
    with tempfile.TemporaryDirectory() as cache:
        root = Path(__file__).resolve().parents[1]
        said = [
            subprocess.run(
                [sys.executable, "-c", code], cwd=root, env=os.environ | {"NUMBA_CACHE_DIR": cache},
                capture_output=True, text=True, check=True,
            ).stdout.strip()
            for _ in range(2)
        ]  # fmt: skip
    return f"empty cache: {said[0]}\nfilled cache: {said[1]}"


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else BARS
    machine = platform.processor() or platform.machine()
    print(f"{datetime.now(UTC):%Y-%m-%d} | {machine}, {os.cpu_count()} cores | one thread")
    x = made_up_bars(max(n, LIVE_BARS + 5000))
    catalogue, rolling = compile_chosen(Features().sets, {}, BAR), rolling_program()
    print(batch_line("catalogue", catalogue, x[:n]))
    print(batch_line("rolling", rolling, x[:n]))
    print(live_line(catalogue, x))
    print(live_line(rolling, x))
    print(cold_line())


if __name__ == "__main__":
    main()
