"""Capture under load: the stage itself on one core, a venue on loopback on the other. What it wrote is checked.

    python benchmarks/bench_capture.py [throughput [SECONDS] | mix [FRAMES] | soak [MINUTES] | symbols [SECONDS]
                                        | compaction [SECONDS]]

throughput: best prices as fast as they are read, from socket to readable Parquet.
mix: all kinds of frames on the virtual clock, as a simulated market is captured.
soak: 5,000 best prices a second; the delays of the first and of the last minute, and memory at each.
symbols: 200 symbols, 10,000 frames a second in all, of every kind; files are watched as they grow. Not for less than
    two minutes: the weights of a venue let 120 books a minute begin.
compaction: as soak, with shards so short that they are merged all the time.
Without a mode: all, the soak for three minutes.
"""

import platform
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from capture_mix import capture_mix
from captured_load import MEASURED, Outcome, run
from venue_server import Load

LIQUID = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
MANY = tuple(f"S{number:03d}USDT" for number in range(200))
SOAK_RATE = 5_000.0
MANY_RATE = 10_000.0
NO_DEPTH = "capture.depth=off"


def throughput(seconds: float = 60.0) -> Iterator[str]:
    outcome = run(Load(LIQUID, seconds), [NO_DEPTH])
    yield f"{outcome.ledger.frames / outcome.seconds:,.0f} frames/s from socket to Parquet, sustained"
    yield from told(outcome)


def mix(frames: float = 2_000_000) -> Iterator[str]:
    yield from capture_mix(int(frames)).split("\n")


def soak(minutes: float = 30.0) -> Iterator[str]:
    yield from _delays(run(Load(LIQUID, 60.0 * minutes, SOAK_RATE), [NO_DEPTH], MEASURED, watch_files=True))


def compaction(seconds: float = 120.0) -> Iterator[str]:
    short = "capture.flush_rows=2000"
    yield from _delays(run(Load(LIQUID, seconds, SOAK_RATE), [NO_DEPTH, short], MEASURED, watch_files=True))


def symbols(seconds: float = 120.0) -> Iterator[str]:
    outcome = run(Load(MANY, seconds, MANY_RATE, mix=True), [], watch_files=True)
    yield f"{len(MANY)} symbols, {outcome.ledger.frames / seconds:,.0f} frames/s, {outcome.files:,} files at the end"
    yield from told(outcome)


def _delays(outcome: Outcome) -> Iterator[str]:
    minutes = outcome.measured["minutes"]
    for name, minute in {"first minute": minutes[0], "last minute": minutes[max(0, len(minutes) - 2)]}.items():
        yield f"{name}: receive to row {_quantiles(minute['receive_to_row'])}"
        yield f"{name}: sent to row    {_quantiles(minute['sent_to_row'])}"
    yield from told(outcome)


def _quantiles(delays_us: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:,.0f} us" for name, value in delays_us.items())


def told(outcome: Outcome) -> Iterator[str]:
    """What every run tells: counts against the server's, CPU, memory, and how soon rows were in files."""
    share = outcome.cpu_s / outcome.seconds
    yield f"{outcome.ledger.frames:,} frames sent, {outcome.rows:,} rows expected, {outcome.seconds:.1f} s"
    per_cpu_s = outcome.ledger.frames / outcome.cpu_s
    yield f"CPU {outcome.cpu_s:.1f} s ({share:.0%} of a core), {per_cpu_s:,.0f} frames per CPU second"
    yield f"peak RSS {outcome.peak_rss_mb:.0f} MB; at each minute {' '.join(f'{mb:.0f}' for mb in outcome.rss_mb)}"
    for table, lags in (outcome.durable or {}).items():
        yield f"from receipt to a readable file, {table}: " + ", ".join(
            f"{k} {v:.2f} s" for k, v in lags._asdict().items()
        )
    yield "lost 0, doubled 0, gaps 0" if not outcome.faults else "FAULTS: " + "; ".join(outcome.faults[:5])


MODES: dict[str, Callable[..., Iterator[str]]] = {
    "throughput": throughput,
    "mix": mix,
    "soak": soak,
    "symbols": symbols,
    "compaction": compaction,
}


def main() -> None:
    name, *amount = sys.argv[1:] or [""]
    if name and name not in MODES:
        raise SystemExit(f"{name!r} is no mode: {', '.join(MODES)}")
    print(f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {_cpu_model()}")
    failed = False
    for mode in [name] if name else MODES:
        print(f"# {mode}", flush=True)
        argument = [float(amount[0])] if amount else [3.0] if mode == "soak" and not name else []
        for line in MODES[mode](*argument):
            failed = failed or line.startswith("FAULTS")
            print(line, flush=True)
    raise SystemExit(failed)


def _cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
