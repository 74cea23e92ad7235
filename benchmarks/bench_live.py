"""How long the runner takes from a frame to a decision, and its parts: decode, bars, features, score.

    python benchmarks/bench_live.py

Single-row inference is measured on an ensemble of the default size (120 trees of up to 31 leaves, 76 features); the
runner on the same ensemble over the whole catalogue, fed with made-up quotes and prints at 12 a second and instrument.
"""

import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import onnxruntime

from core.config import Config, Features
from core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from ingest.events import Event, Quote, Trade
from ingest.feeds import Step
from ingest.merge import Tagged
from ingest.venues import decoder_for
from live import export_model, journal
from live.journal import Journal
from live.manifest import Bundle, ExportParity, load_bundle, write_bundle
from live.onnx_export import features_metadata, to_onnx
from live.parity import compare
from live.runner import Runner, header
from live.session import by_instrument, slices
from live.start import cold_start
from research.catalogue import choose
from research.learning.candidates import Candidate, Winner
from research.learning.decision import Calibration
from research.learning.trees import TreeEnsemble
from research.programs.program import GAP_COLUMN

TREES, DEPTH = 120, 5
MINUTES, PER_S = 10, 12
NAMES = ("binance_um:BTCUSDT", "binance_um:ETHUSDT", "bybit:BTCUSDT", "bybit:ETHUSDT")
BEGIN_NS = 1_767_600_000 * NS_PER_S
BARS = "time_200ms"
FRAME = (
    '{"stream":"btcusdt@bookTicker","data":{"e":"bookTicker","u":400900217,"s":"BTCUSDT","b":"50000.10",'
    '"B":"31.21","a":"50000.20","A":"40.66","T":1767600000000,"E":1767600000001}}'
)


def forest(n_features: int) -> TreeEnsemble:
    """Full trees of random splits, in heap order."""
    random, inner, size = np.random.default_rng(7), 2**DEPTH - 1, 2 ** (DEPTH + 1) - 1
    index = np.tile(np.arange(size), TREES)
    start = np.repeat(np.arange(TREES) * size, size)
    split = index < inner
    return TreeEnsemble(
        feature=np.where(split, random.integers(0, n_features, index.size), -1).astype(np.int32),
        threshold=np.where(split, random.normal(size=index.size), 0.0).astype(np.float32),
        missing_left=np.zeros(index.size, np.bool_),
        left=(start + np.where(split, 2 * index + 1, index)).astype(np.int32),
        right=(start + np.where(split, 2 * index + 2, index)).astype(np.int32),
        value=random.normal(size=index.size),
        cover=np.ones(index.size),
        roots=(np.arange(TREES) * size).astype(np.int32),
        base=0.0,
        n_features=n_features,
    )


def bundle_in(folder: Path) -> Bundle:
    """The whole catalogue under a made-up model, as export writes it."""
    features = list(choose(Features().sets, {}, BARS).items())
    winner = Winner(
        candidate=Candidate("taker", "hgb", 10.0, 0.5, 0.0),
        calibration=Calibration(0.0, 1.0),
        features=features,
        bars=BARS,
        decision="1s",
        symbols=list(NAMES),
        train_window=(0, 0),
        holdout_window=(0, 0),
        verdict="no edge",
        reasons=[],
        tradeable=False,
        metrics={},
        data_fingerprint="",
    )
    model = to_onnx(forest(len(features)), features_metadata(features))
    write_bundle(folder, export_model.describe(Config(), winner, model, ExportParity(0, 0.0, 1e-6)), model)
    return load_bundle(folder)


def made_up_stream() -> list[Tagged]:
    """Quotes and prints of all instruments in order of receipt."""
    random = np.random.default_rng(3)
    count = MINUTES * 60 * PER_S * len(NAMES)
    times = BEGIN_NS + np.sort(random.choice(MINUTES * 60 * NS_PER_S // 1000, count, replace=False)) * 1000
    mids = 50_000.0 + 0.1 * np.cumsum(random.integers(-3, 4, count))
    found = []
    for recv_ns, mid, pick in zip(times.tolist(), mids.tolist(), random.random(count).tolist(), strict=True):
        venue, _, symbol = NAMES[int(pick * len(NAMES))].partition(":")
        exch_ns, bid = recv_ns - 5 * NS_PER_MS, round(mid, 1)
        event: Event = Quote(symbol, exch_ns, recv_ns, 0, bid, 1.0 + pick, round(bid + 0.1, 1), 2.0 - pick)
        if pick * 1000 % 1 < 0.25:
            event = Trade(symbol, exch_ns, recv_ns, "0", bid, 0.1 + pick, "sell" if pick < 0.5 else "buy")
        found.append(Tagged(venue, event))
    return found


def timed_us(work: Callable[[], object], times: int = 5_000) -> str:
    """p50 and p99 of single calls, warm."""
    for _ in range(200):
        work()
    took = np.empty(times)
    for k in range(times):
        began = time.perf_counter_ns()
        work()
        took[k] = time.perf_counter_ns() - began
    p50, p99 = np.percentile(took, [50, 99]) / NS_PER_US
    return f"p50 {p50:7.1f} us   p99 {p99:7.1f} us"


def bench_runner(bundle: Bundle, folder: Path) -> None:
    """Decisions over the stream in shadow, journal and all; then its parity."""
    starts = {name: cold_start(bundle, name) for name in NAMES}
    log = Journal.create(folder, header(bundle, "shadow", starts), starts)
    runner = Runner(bundle, starts, log, None, time.perf_counter_ns)
    stream = made_up_stream()
    began = time.perf_counter()
    for part in slices(Step(BEGIN_NS + MINUTES * 60 * NS_PER_S, stream), runner.bar_ns):
        in_hand_ns = time.perf_counter_ns()
        runner.feed(by_instrument(part.events, runner.instruments), part.now_ns, in_hand_ns)
        log.flush()
    seconds = time.perf_counter() - began
    log.close()
    p50, p99 = np.percentile(runner.latencies_ns, [50, 99]) / NS_PER_US
    parity = compare(journal.read(folder), bundle)
    print(f"events to decision, {len(NAMES)} instruments at once   p50 {p50:7.1f} us   p99 {p99:7.1f} us")
    rate = f"{len(stream) / seconds:,.0f} events/s"
    print(f"{MINUTES} min of {len(NAMES)} instruments in {seconds:.2f} s, journal on: {rate}")
    print(f"parity over {parity.bars_compared:,} bars: {'holds' if parity.holds else 'DOES NOT HOLD'}")


def main() -> None:
    machine = f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    print(f"{datetime.now(UTC):%Y-%m-%d} | {machine} | Python {sys.version.split()[0]}")
    print(f"onnxruntime {onnxruntime.__version__} | numpy {np.__version__} | {TREES} trees of depth {DEPTH}")
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundle_in(Path(folder, "bundle"))
        row, stream = np.random.default_rng(1).normal(size=bundle.scorer.n_features), bundle.program.main.start(tile=1)
        bar = np.random.default_rng(2).uniform(0.5, 1.5, len(bundle.program.main.columns))
        bar[[bundle.program.main.columns.index(name) for name in ("is_empty", GAP_COLUMN)]] = 0.0
        _, decoder = decoder_for("wss://fstream.binance.com/public/stream")
        ensemble, row32 = forest(bundle.scorer.n_features), row[None].astype(np.float32)
        print(f"decode one bookTicker frame                {timed_us(lambda: decoder.decode(FRAME, BEGIN_NS))}")
        print(
            f"one bar through {len(bundle.program.names)} features                {timed_us(lambda: stream.step(bar))}"
        )
        print(f"one row through onnxruntime                {timed_us(lambda: bundle.scorer.score(row))}")
        print(f"one row through the compiled ensemble      {timed_us(lambda: ensemble.predict(row32))}")
        bench_runner(bundle, Path(folder, "journal"))


if __name__ == "__main__":
    main()
