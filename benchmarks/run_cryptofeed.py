"""cryptofeed's own message handlers on recorded frames. Runs in an environment of its own.

    .venv-cryptofeed/bin/python benchmarks/run_cryptofeed.py FRAMES.json PASSES

FRAMES.json: a list of {venue, symbol, base, quote, snapshot, streams: {name: [frame, ...]}}. Each stream goes through a
fresh feed of the venue's class, whose REST snapshot is `snapshot`: once with callbacks that only count, and once with
its own backend's, which make a dictionary of each object, as its writers get them. Prints one JSON object: for each
venue and stream and way [CPU seconds of the best pass, objects that were called back].
"""

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cryptofeed.backends.backend import BackendBookCallback, BackendCallback
from cryptofeed.defines import L2_BOOK, PERPETUAL, SPOT, TICKER, TRADES
from cryptofeed.exchanges import Binance, BinanceDelivery, BinanceFutures
from cryptofeed.symbols import Symbol, Symbols

CLASSES = {
    "binance": (Binance, SPOT),
    "binance_um": (BinanceFutures, PERPETUAL),
    "binance_cm": (BinanceDelivery, PERPETUAL),
}


class Count:
    """A callback that only counts."""

    calls = 0

    async def __call__(self, thing: Any, receipt_timestamp: float) -> None:
        self.calls += 1


class Rows(BackendCallback):  # type: ignore[misc]
    """Its backends' own way to rows, as far as the writer's queue."""

    numeric_type = float
    none_to = None
    calls = 0

    async def write(self, data: dict[str, Any]) -> None:
        self.calls += 1


class BookRows(BackendBookCallback):  # type: ignore[misc]
    """The same for books: changes, with no snapshot in between."""

    numeric_type = float
    none_to = None
    snapshots_only = False
    snapshot_interval = 10**9
    calls = 0

    def __init__(self) -> None:
        self.snapshot_count: defaultdict[str, int] = defaultdict(int)

    async def write(self, data: dict[str, Any]) -> None:
        self.calls += 1


class Snapshots:
    """In the place of its HTTP connection."""

    def __init__(self, body: str) -> None:
        self.body = body

    async def read(self, url: str) -> str:
        return self.body


def make_feed(venue: str, market: dict[str, Any], way: Callable[[str], Any]) -> tuple[Any, dict[str, Any]]:
    """A feed of one symbol that was never connected, and its callbacks."""
    kind, instrument = CLASSES[venue]
    symbol = Symbol(market["base"], market["quote"], type=instrument)
    info = {"tick_size": {symbol.normalized: "0.01"}, "instrument_type": {symbol.normalized: instrument}}
    Symbols.set(kind.id, {symbol.normalized: market["symbol"]}, info)
    callbacks = {channel: way(channel) for channel in (TICKER, TRADES, L2_BOOK)}
    feed = kind(symbols=[symbol.normalized], channels=[*callbacks], callbacks=callbacks)
    feed.http_conn = Snapshots(market["snapshot"])
    return feed, callbacks


async def best_pass(market: dict[str, Any], frames: list[str], way: Callable[[str], Any], passes: int) -> list[float]:
    """[CPU seconds, calls] of the fastest of some passes over one stream."""
    best_s, calls = float("inf"), 0
    for _ in range(passes):
        feed, callbacks = make_feed(market["venue"], market, way)
        handle = feed.message_handler
        began_s = time.process_time()
        for frame in frames:
            await handle(frame, None, 1.0)
        best_s = min(best_s, time.process_time() - began_s)
        calls = sum(callback.calls for callback in callbacks.values())
    return [best_s, calls]


async def main() -> None:
    markets, passes = json.loads(Path(sys.argv[1]).read_text()), int(sys.argv[2])
    ways: dict[str, Callable[[str], Any]] = {
        "objects": lambda channel: Count(),
        "rows": lambda channel: BookRows() if channel == L2_BOOK else Rows(),
    }
    found = {
        f"{market['name']} {stream}": {name: await best_pass(market, frames, way, passes) for name, way in ways.items()}
        for market in markets
        for stream, frames in market["streams"].items()
    }
    print(json.dumps({"version": version("cryptofeed"), "found": found}))


if __name__ == "__main__":
    asyncio.run(main())
