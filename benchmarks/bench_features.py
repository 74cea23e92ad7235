"""Features: ns per node and row, and one live bar, with the same features in Polars and pandas in the same run.

    python benchmarks/bench_features.py [BARS]

Programs over 200 ms bars of a made-up market: the default sets, the whole catalogue, and 100 rolling features (sum,
mean, std, zscore, min, max over windows of 5 to 1500 bars). Polars runs the same trees as one lazy query, which shares
common parts too; pandas the rolling ones. One thread each, CPU seconds, the best of some runs, warm; results are
compared. `into given memory` is an evaluation whose result overwrites an earlier one; Polars and pandas cannot.

A live bar includes the call from Python: percentiles of a single run, and of the least that each bar took in eight,
beside a busy loop that is timed in the same way. The cold start is that of a process of its own
with an empty cache: import and compile. Drift: 10^8 steps of a rolling sum against exact arithmetic.
"""

import math
import os
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
import pandas as pd
import polars as pl

from benchmarks.frame_features import BAR, comparison, in_pandas, in_polars
from core.config import Features
from research.catalogue import compile_chosen
from research.language import compile_features
from research.language_docs import example
from research.programs.expression import parse
from research.programs.merged import evaluate_programs
from research.programs.operators import OPERATORS
from research.programs.program import Floats, Program

BARS: Final = 1_000_000
LIVE_BARS: Final = 20_000
LIVE_RUNS: Final = 8
CONTROL_TURNS: Final = 1_000  # of a loop that does nothing: some 15 us
WARM_BARS: Final = 6_000
WINDOWS: Final = (5, 7, 10, 15, 25, 37, 50, 75, 100, 150, 200, 300, 400, 500, 750, 1000, 1500)
ROLLING: Final = ("sum", "mean", "std", "zscore", "min", "max")


def made_up_bars(program: Program, n: int) -> pl.DataFrame:
    """Columns of a program, n rows: a random walk on a tick of 0.1, trades in 30 % of the bars, no gaps."""
    rng = np.random.default_rng(7)
    mid = np.round(50_000.0 + np.cumsum(rng.normal(0.0, 0.3, n)), 1)
    seconds = np.arange(1, n + 1) / 5
    made: dict[str, Any] = {
        "is_empty": np.zeros(n), "has_gap": np.zeros(n), "second_of_day": seconds % 86_400, "day": seconds // 86_400,
        "funding_rate": np.full(n, 1e-4), "ofi_qty": rng.normal(size=n),
        "high_price": mid + 0.1, "low_price": mid - 0.1,
        "open_interest": 1e5 + np.cumsum(rng.normal(size=n)), "funding_s": 28_800 - seconds % 28_800,
    }  # fmt: skip
    for name in program.columns:
        kind, _, level = name.partition("_price") if "_price" in name else name.partition("_qty")
        side = {"bid": -1.0, "ask": 1.0}.get(kind, 0.0)
        if "_price" in name:
            made.setdefault(name, mid + side * (0.05 + 0.1 * (int(level[1:]) - 1 if level else 0)))
        elif side:
            made.setdefault(name, rng.exponential(1.0, n))
        else:
            made.setdefault(name, rng.lognormal(0.0, 1.0, n) * (rng.random(n) < 0.3))
    return pl.DataFrame({name: made[name] for name in program.columns})


def rolling_program() -> Program:
    calls = [(name, w) for w in WINDOWS for name in ROLLING][:100]
    return compile_features({f"{name}_{w}": f"({name}_{w} close_price)" for name, w in calls}, ["close_price"], BAR)


def best_s(work: Callable[[], Any], times: int = 5, clock: Callable[[], float] = time.process_time) -> float:
    """CPU seconds of the fastest of some runs, after one that does not count."""
    work()
    taken = []
    for _ in range(times):
        began = clock()
        work()
        taken.append(clock() - began)
    return min(taken)


def batch_lines(title: str, program: Program, frame: pl.DataFrame) -> list[str]:
    """Ours: a result in fresh memory, in given memory, and of one bar in five."""
    n, every_fifth = frame.height, np.arange(4, frame.height, 5)
    kept = program.evaluate(frame)
    runs = {
        "fresh memory": best_s(lambda: program.evaluate(frame)),
        "into given memory": best_s(lambda: program.evaluate(frame, out=kept)),
        "of 1 bar in 5": best_s(lambda: program.evaluate(frame, take=every_fifth)),
    }
    said = ", ".join(f"{what} {s:.3f} s = {s * 1e9 / n / program.nodes:.2f} ns" for what, s in runs.items())
    return [
        f"{title}: {len(program.names)} features, {program.nodes} nodes, {n:,} bars",
        f"  interpreter, per node and row: {said}",
    ]


def polars_lines(program: Program, frame: pl.DataFrame) -> list[str]:
    trees = zip(program.names, program.expressions, strict=True)
    query = frame.lazy().select([in_polars(parse(text)).alias(name) for name, text in trees])
    apart = comparison(program.names, program.warmup_bars, program.evaluate(frame), query.collect().to_numpy())
    return [_ratio(f"Polars {pl.__version__}", program, frame, query.collect), f"    {apart}"]


def pandas_lines(program: Program, frame: pl.DataFrame) -> list[str]:
    table = pd.DataFrame({name: frame[name].to_numpy() for name in frame.columns})
    trees = [parse(text) for text in program.expressions]
    theirs = in_pandas(table, trees).to_numpy()
    apart = comparison(program.names, program.warmup_bars, program.evaluate(frame), theirs)
    return [_ratio(f"pandas {pd.__version__}", program, frame, lambda: in_pandas(table, trees)), f"    {apart}"]


def _ratio(name: str, program: Program, frame: pl.DataFrame, work: Callable[[], Any]) -> str:
    """Theirs against ours, both in fresh memory, one after the other."""
    ours_s, theirs_s = best_s(lambda: program.evaluate(frame), 3), best_s(work, 3)
    per_cell = theirs_s * 1e9 / frame.height / program.nodes
    return f"  {name}: {theirs_s:.3f} s = {per_cell:.2f} ns; ours {ours_s:.3f} s: {theirs_s / ours_s:.1f}x"


def live_lines(title: str, program: Program) -> list[str]:
    """The code does the same at a bar in every run, so what a bar takes in the quickest of some is the code's own, and
    the rest of a single run is the scheduler's. So is the whole spread of the control, a busy loop after each bar."""
    x = made_up_bars(program, WARM_BARS + LIVE_BARS).to_numpy()
    runs = [_live_run_us(program, x) for _ in range(LIVE_RUNS)]
    steps, control = (np.array(each) for each in zip(*runs, strict=True))
    taken = {"a single run": (steps[0], control[0]), f"least of {LIVE_RUNS}": (steps.min(axis=0), control.min(axis=0))}
    return [
        f"one live bar, {title}, {program.nodes} nodes, load {os.getloadavg()[0]:.1f}",
        *(f"  {what}: {_spread(mine)}; control {_spread(idle)}" for what, (mine, idle) in taken.items()),
    ]


def _live_run_us(program: Program, x: Floats) -> tuple[Floats, Floats]:
    """What each bar takes, and each busy loop after it."""
    live, clock = program.start(), time.perf_counter_ns
    steps, control = np.empty(LIVE_BARS), np.empty(LIVE_BARS)
    live.run(x[:WARM_BARS])
    for k in range(LIVE_BARS):
        row, began = x[WARM_BARS + k], clock()
        live.step(row)
        ended = clock()
        for _ in range(CONTROL_TURNS):
            pass
        steps[k], control[k] = ended - began, clock() - ended
    return steps / 1e3, control / 1e3


def _spread(taken_us: Floats) -> str:
    p50, p90, p99, worst = np.percentile(taken_us, [50, 90, 99, 100])
    return f"p50 {p50:.1f}, p90 {p90:.1f}, p99 {p99:.1f}, worst {worst:.0f} us"


def operator_lines() -> list[str]:
    """ns per row of each operator on a walk and noise, over the cost of loading its operands."""
    rng = np.random.default_rng(1)
    walk = 100.0 + np.cumsum(rng.normal(size=200_000))
    x = np.asfortranarray(np.column_stack([walk, *rng.lognormal(size=(3, walk.size))]))
    columns, last = ["x0", "x1", "x2", "x3"], np.array([len(x) - 1])

    def cost_ns(features: dict[str, str]) -> float:
        stream = compile_features(features, columns).start()
        return best_s(lambda: stream.run(x, take=last)) / len(x) * 1e9

    loads = [cost_ns({name: name for name in columns[:arity]}) for arity in range(1, 5)]
    lines = [f"{'ns per row, window in bars':32}{'20':>9}{'100':>9}{'300':>9}{'1500':>9}"]
    for operator in OPERATORS.values():
        cells = []
        for w in (20, 100, 300, 1500) if operator.window else (1,):
            is_asked = operator.least <= w <= operator.most and not (operator.hops and w > 300)
            text = example(operator, w if operator.window else 0)
            cells.append(f"{cost_ns({'f': text}) - loads[operator.arity - 1]:9.2f}" if is_asked else " " * 8 + "-")
        lines.append(f"  {operator.form:30}{''.join(cells)}")
    return lines


def threads_line(program: Program, frame: pl.DataFrame) -> str:
    """Four symbols of one program on one and on two threads. Where the load leaves no second core free, wall time says
    nothing of the threads; CPU time that grows with them says that they hinder each other."""
    rows = [frame.slice(k * (frame.height // 4), frame.height // 4) for k in range(4)]
    cpu, wall = (
        [best_s(lambda t=t: program.evaluate_many(rows, None, t), 5, clock) for t in (1, 2)]  # type: ignore[misc]
        for clock in (time.process_time, time.perf_counter)
    )
    return (
        f"four symbols, load {os.getloadavg()[0]:.1f}: 1 thread {wall[0]:.3f} s wall, {cpu[0]:.3f} s CPU; "
        f"2 threads {wall[1]:.3f} s wall, {cpu[1]:.3f} s CPU: {wall[0] / wall[1]:.2f}x"
    )


def merged_line(frame: pl.DataFrame) -> str:
    """A generation of candidates that have parts in common, together and one by one."""
    texts = [f"(sub (zscore_{a} close_price) (mean_{b} (delta_1 close_price)))" for a in WINDOWS for b in WINDOWS][:200]
    programs = [compile_features({"f": text}, frame.columns) for text in texts]
    take = np.arange(4, frame.height, 5)
    alone = best_s(lambda: [program.evaluate(frame, take=take) for program in programs], 1)
    together = best_s(lambda: evaluate_programs(programs, frame, take=take), 1)
    return f"{len(programs)} programs over {frame.height:,} bars: one by one {alone:.2f} s, together {together:.2f} s"


def drift_line() -> str:
    """10^8 steps of rolling sums of noise with a shock now and then, at some rows against exact sums."""
    steps, chunk, windows, spent_s = 100_000_000, 1_000_000, (1500, 50), 0.0
    stream = compile_features({f"sum_{w}": f"(sum_{w} a)" for w in windows}, ["a"]).start()
    rng, take, longest = np.random.default_rng(3), np.array([1499, 333_333, chunk - 1]), max(windows)
    before, running, worst = np.zeros(longest), 0.0, np.zeros(len(windows) + 1)
    for _ in range(steps // chunk):
        x = rng.normal(size=chunk)
        x[rng.integers(chunk)] = 1e12
        began = time.process_time()
        y = stream.run(x[:, None], take=take)
        spent_s += time.process_time() - began
        values = np.concatenate([before, x])
        added = running + np.cumsum(x - values[:chunk])  # the newest in, the oldest out
        running, before = added[-1], x[-longest:]
        for row, got in zip(take + longest + 1, y, strict=True):
            errors = [_ulps(sum_, values[row - w : row]) for sum_, w in zip(got, windows, strict=True)]
            worst = np.maximum(worst, [*errors, _ulps(added[row - longest - 1], values[row - longest : row])])
    said = ", ".join(f"sum_{w} {error:.1f}" for w, error in zip(windows, worst, strict=False))
    return (
        f"after {steps:,} steps, error in ulps of the sum of |x|: {said}; of adding the newest and taking away the "
        f"oldest {worst[-1]:.2g} ({spent_s:.1f} s of CPU for both)"
    )


def _ulps(got: float, values: Floats) -> float:
    return abs(got - math.fsum(values)) / np.spacing(math.fsum(np.abs(values)))


def cold_line() -> str:
    code = (
        "import time; began = time.perf_counter(); import numpy as np; from research.catalogue import compile_chosen\n"
        "imported = time.perf_counter()\n"
        "p = compile_chosen(('all',), {}, '200ms'); built = time.perf_counter()\n"
        "p.evaluate(np.ones((9, len(p.columns)))); done = time.perf_counter()\n"
        "print(f'import {imported - began:.1f} s, catalogue to program {1e3 * (built - imported):.0f} ms, '\n"
        "      f'first evaluation {done - built:.1f} s wall, {time.process_time():.1f} s CPU in all')"
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


def machine() -> str:
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":")[1].strip() for line in text.splitlines() if line.startswith("model name")]
    return f"{names[0] if names else 'unknown processor'}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else BARS
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC | {machine()} | one thread, CPU seconds, best of several")
    default, whole = compile_chosen(Features().sets, {}, BAR), compile_chosen(("all",), {}, BAR)
    rolling = rolling_program()
    frame = made_up_bars(default, n)
    for make in (
        operator_lines,
        lambda: batch_lines("rolling", rolling, frame),
        lambda: polars_lines(rolling, frame),
        lambda: pandas_lines(rolling, frame),
        lambda: batch_lines("default sets", default, frame),
        lambda: polars_lines(default, frame),
        lambda: [threads_line(default, frame), merged_line(frame.head(100_000))],
        lambda: batch_lines("whole catalogue", whole, made_up_bars(whole, n // 10)),
        lambda: live_lines("rolling", rolling),
        lambda: live_lines("default sets", default),
        lambda: live_lines("whole catalogue", whole),
        lambda: [drift_line()],
        lambda: [cold_line()],
    ):
        print("\n".join(make()), flush=True)


if __name__ == "__main__":
    main()
