"""Recorded frames decoded, beside cryptofeed's own handlers on the same frames in the same run.

    python -m venv .venv-cryptofeed && .venv-cryptofeed/bin/pip install -r benchmarks/requirements-cryptofeed.txt
    python benchmarks/bench_decode.py [FOLDER] [--passes N]

FOLDER holds recordings (default ../shared/market_data/raw/binance_20240808). Each stream of each one is decoded on
its own, by a fresh decoder that was given the recorded REST snapshot; CPU time of the fastest pass. Recorded `@trade`
frames are renamed to `aggTrade` for both, since that is what both capture and cryptofeed ask for and has the same keys.

Ours: events (structs, frame by frame); rows (events, and those packed into the rows that capture writes, by batches of
16,384); runs (frames to the same rows by FrameRuns, 8,192 at a time, as recordings of futures are read); books (events,
with every book rebuilt, which capture itself needs only where a venue sends no best prices).
cryptofeed: objects (its handlers with callbacks that only count, its book kept up to date as always); rows (with its
own BackendCallback, which makes the dictionaries that its writers take, no writer behind it).
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from core.plain_rows import PlainRows
from ingest.binance import BinanceDecoder
from ingest.events import Event
from ingest.frame_runs import FrameRuns
from ingest.packing import TABLES, rows_of
from ingest.raw import RawReader
from ingest.recordings import BY_RUNS
from ingest.venues import venue_of

ROOT: Final = Path(__file__).resolve().parents[1]
RECORDED: Final = ROOT.parent / "shared" / "market_data" / "raw" / "binance_20240808"
CRYPTOFEED: Final = ROOT / ".venv-cryptofeed" / "bin" / "python"
BATCH: Final = 16_384
RUN: Final = 8_192
_QUOTES: Final = ("USDT", "USD_PERP")


class Stream(NamedTuple):
    """Frames and when each was received."""

    frames: list[bytes]
    recv_ns: list[int]


class Market:
    """One recording: its streams, and its first depth snapshot."""

    def __init__(self, path: Path) -> None:
        self.name = path.name.partition(".")[0]
        self.streams: dict[str, Stream] = defaultdict(lambda: Stream([], []))
        self.snapshot, self.snapshot_url, url = "", "", ""
        for line in RawReader(path):
            if line.url.startswith("ws"):
                url = line.url
                stream = line.frame[11 : line.frame.index('"', 11)].partition("@")[2].replace("trade", "aggTrade")
                self.streams[stream].frames.append(_as_aggregate(line.frame).encode())
                self.streams[stream].recv_ns.append(line.recv_ns)
            elif "/depth?" in line.url and not self.snapshot:
                self.snapshot_url, self.snapshot = line.url, line.frame
        self.venue = venue_of(url)
        self.first_quote = self.streams["bookTicker"].frames[0]
        self.symbol = json.loads(self.first_quote)["data"]["s"]

    def for_cryptofeed(self) -> dict[str, Any]:
        quote = next(quote for quote in _QUOTES if self.symbol.endswith(quote))
        return {
            "name": self.name,
            "venue": self.venue,
            "symbol": self.symbol,
            "base": self.symbol.removesuffix(quote),
            "quote": quote.partition("_")[0],
            "snapshot": self.snapshot,
            "streams": {name: [frame.decode() for frame in stream.frames] for name, stream in self.streams.items()},
        }


def _as_aggregate(frame: str) -> str:
    return frame.replace("@trade", "@aggTrade", 1).replace('"e":"trade"', '"e":"aggTrade"').replace('"t":', '"a":', 1)


Way = Callable[[BinanceDecoder, Stream], int]


def to_events(decoder: BinanceDecoder, stream: Stream) -> int:
    decode, count = decoder.decode, 0
    for frame, recv_ns in zip(*stream, strict=True):
        count += len(decode(frame, recv_ns))
    return count


def to_rows(decoder: BinanceDecoder, stream: Stream) -> int:
    """As the writer does: a list per kind of event, made into a frame when it is long."""
    decode, rows = decoder.decode, 0
    waiting: dict[type, list[Event]] = defaultdict(list)
    for frame, recv_ns in zip(*stream, strict=True):
        for event in decode(frame, recv_ns):
            alike = waiting[type(event)]
            alike.append(event)
            if len(alike) >= BATCH:
                rows += rows_of(TABLES[type(event)], alike).height
                alike.clear()
    return rows + sum(rows_of(TABLES[kind], alike).height for kind, alike in waiting.items() if alike)


def by_runs(decoder: BinanceDecoder, stream: Stream) -> int:
    """Frames to rows as recordings are read."""
    runs, count = FrameRuns(decoder), 0
    frames, recv_ns = stream

    def take_rows(symbol: str, rows: PlainRows) -> None:
        nonlocal count
        count += rows.height

    def take_one(place: int) -> bool:
        nonlocal count
        for event in decoder.decode(frames[first + place], recv_ns[first + place]):
            count += rows_of(TABLES[type(event)], [event]).height
        return True

    for first in range(0, len(frames), RUN):
        runs.decode(frames[first : first + RUN], recv_ns[first : first + RUN], take_rows, take_one)
    return count


WAYS: Final[dict[str, tuple[Way, bool]]] = {
    "events": (to_events, False),
    "rows": (to_rows, False),
    "runs": (by_runs, False),
    "books": (to_events, True),
}


def best_pass(market: Market, stream: str, way: Way, keep_levels: bool, passes: int) -> float:
    """CPU seconds of the fastest of some passes over one stream."""
    best_s = float("inf")
    for _ in range(passes):
        decoder = BinanceDecoder(market.venue, keep_levels)  # type: ignore[arg-type]
        if stream.startswith("depth"):  # that the connection has best prices of its own
            began_ns = market.streams[stream].recv_ns[0]
            decoder.decode(market.first_quote, began_ns)
            decoder.decode_rest(market.snapshot_url, market.snapshot, began_ns)
        began_s = time.process_time()
        way(decoder, market.streams[stream])
        best_s = min(best_s, time.process_time() - began_s)
    return best_s


def ours(markets: list[Market], passes: int) -> dict[str, dict[str, float]]:
    return {
        f"{market.name} {stream}": {
            name: best_pass(market, stream, way, keep_levels, passes)
            for name, (way, keep_levels) in WAYS.items()
            if name != "runs" or market.venue in BY_RUNS
        }
        for market in markets
        for stream in market.streams
    }


def cryptofeeds(markets: list[Market], passes: int) -> tuple[str, dict[str, dict[str, list[float]]]]:
    """(its version, the same of cryptofeed, which runs in its own environment)."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.json"
        path.write_text(json.dumps([market.for_cryptofeed() for market in markets]))
        script = ROOT / "benchmarks" / "run_cryptofeed.py"
        command = [str(CRYPTOFEED), str(script), str(path), str(passes)]
        answer = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return answer["version"], answer["found"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=RECORDED)
    parser.add_argument("--passes", type=int, default=5)
    options = parser.parse_args()
    markets = [Market(path) for path in sorted(options.folder.glob("*.zst"))]
    we = ours(markets, options.passes)
    version, they = cryptofeeds(markets, options.passes) if CRYPTOFEED.exists() else ("is not installed", {})
    python = platform.python_version()
    print(f"{_processor()}, Python {python}, {datetime.now(UTC):%Y-%m-%d}, cryptofeed {version}; CPU us per frame")
    print(_table(markets, we, they))


def _table(markets: list[Market], we: dict[str, dict[str, float]], they: dict[str, dict[str, list[float]]]) -> str:
    counts = {
        f"{market.name} {name}": len(stream.frames) for market in markets for name, stream in market.streams.items()
    }
    titles = f"{'stream':<34}{'frames':>9}{'events':>9}{'rows':>9}{'runs':>9}{'books':>9}{'cf obj':>9}{'cf rows':>9}"
    lines = [titles + f"{'obj/events':>11}{'rows/rows':>11}{'rows/runs':>11}"]
    sums: dict[str, dict[str, float]] = {"futures": defaultdict(float), "all": defaultdict(float)}
    for key, frames in counts.items():
        cells = {**we[key], **{f"cf {way}": seconds for way, (seconds, _) in they.get(key, {}).items()}}
        for name, seconds in cells.items():
            sums["all"][name] += seconds
            sums["futures"][name] += seconds if "runs" in cells else 0.0
        for way, (_, calls) in they.get(key, {}).items():
            assert calls >= frames - 100, f"cryptofeed called back {calls} times for {frames} frames of {key} ({way})"
        lines.append(_line(key, frames, cells))
    del sums["all"]["runs"]
    lines.append(_line("futures", sum(frames for key, frames in counts.items() if "runs" in we[key]), sums["futures"]))
    lines.append(_line("all", sum(counts.values()), sums["all"]))
    return "\n".join(lines)


def _line(name: str, frames: int, seconds: dict[str, float]) -> str:
    us = {way: f"{1e6 * value / frames:.2f}" for way, value in seconds.items()}
    cells = "".join(f"{us.get(way, '-'):>9}" for way in ("events", "rows", "runs", "books", "cf objects", "cf rows"))
    ratios = ""
    if "cf rows" in seconds:
        pairs = ("cf objects", "events"), ("cf rows", "rows"), ("cf rows", "runs")
        ratios = "".join(f"{f'{seconds[they] / seconds[we]:.1f}x' if we in seconds else '-':>11}" for they, we in pairs)
    return f"{name:<34}{frames:>9,}{cells}{ratios}"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    main()
