"""Mutated frames through every decoder: each is events that make valid rows, or nothing, or a DecodeError.

    python benchmarks/fuzz_decoders.py [FRAMES_PER_DECODER] [--seed N] [--data DIR]

Seeds are one built-in message of each kind, and where DIR (default ../shared/market_data/raw) exists the first frames
of each stream that was recorded, and the wire samples. Up to three mutations each: bytes flipped, cut, doubled, put in;
numbers made extreme; values of another type; keys left out; nesting; text that is no text. A decoder lives for 500
frames, one in four of them unharmed, so that mutants meet state. The same seed gives the same frames.
"""

import argparse
import json
import platform
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import polars as pl

from core.schema import F64, check
from ingest.events import DecodeError, Event
from ingest.packing import TABLES, frame_of
from ingest.raw import RawReader
from ingest.venues import Decoder, decoder_for

ROOT: Final = Path(__file__).resolve().parents[1]
RECORDED: Final = ROOT.parent / "shared" / "market_data" / "raw"
LIFE: Final = 500  # frames that a decoder lives
_BEGAN_NS: Final = 1_723_161_256_000_000_000
_STEP_NS: Final = 3_000_000
_PER_STREAM: Final = 40  # recorded frames kept of each
_LONGEST: Final = 3_000  # longer frames mutate no differently, and slowly

URLS: Final = {
    "binance": "wss://stream.binance.com:9443/stream",
    "binance_um": "wss://fstream.binance.com/public/stream",
    "binance_cm": "wss://dstream.binance.com/stream",
    "bybit": "wss://stream.bybit.com/v5/public/linear",
    "bybit_spot": "wss://stream.bybit.com/v5/public/spot",
    "bybit_inverse": "wss://stream.bybit.com/v5/public/inverse",
}
_REST: Final = {
    "binance": "https://api.binance.com/api/v3/",
    "binance_um": "https://fapi.binance.com/fapi/v1/",
    "binance_cm": "https://dapi.binance.com/dapi/v1/",
}
_WIRE_SAMPLES: Final = {
    "binance": "binance",
    "binance_um": "binance-futures",
    "binance_cm": "binance-delivery",
    "bybit": "bybit",
    "bybit_spot": "bybit-spot",
}


@dataclass
class Outcome:
    """What became of the frames of one decoder."""

    frames: int = 0
    errors: int = 0
    silent: int = 0
    seconds: float = 0.0
    events: Counter[str] = field(default_factory=Counter)
    bad: list[str] = field(default_factory=list)
    """What must not be: another exception, or events that are no rows, with the frame."""


Seed = tuple[str, bytes]
"""(URL, frame or REST answer)."""


def built_in(venue: str) -> list[Seed]:
    """One message of each kind that the venue's decoder has a handler for."""
    made = _bybit_samples() if venue.startswith("bybit") else _binance_samples(venue)
    rest = _rest_samples(venue) if venue in _REST else []
    return [(URLS[venue], _text(message)) for message in made] + rest


def _text(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _binance_samples(venue: str) -> list[Any]:
    ms, futures = _BEGAN_NS // 1_000_000, venue != "binance"
    head = {"s": "BTCUSDT", "E": ms, "T": ms} | ({"st": 1 if venue == "binance_um" else 2} if futures else {})
    best = {"u": 400900217, "b": "25.35190000", "B": "31.21000000", "a": "25.36520000", "A": "40.66000000"}
    levels = {"b": [["0.0024", "10"], ["0.0023", "0"]], "a": [["0.0026", "100"]]}
    trade = {"p": "0.001", "q": "100", "nq": "100", "f": 100, "l": 105, "m": True}
    order = {"s": "BTCUSDT", "S": "SELL", "q": "0.014", "p": "9910", "ap": "9910", "X": "FILLED", "z": "0.014", "T": ms}
    candle = {"t": ms, "T": ms + 59_999, "s": "BTCUSDT", "i": "1m", "o": "1", "c": "2", "h": "3", "l": "1", "n": 100}
    candle |= {"v": "1000", "q": "1.0000", "V": "500", "Q": "0.500", "x": True, "B": "123456"}
    mark = {"p": "11794.15", "ap": "11794.15", "i": "11784.6", "P": "11784.2", "r": "0.00038167"}
    payloads = {
        "bookTicker": ({"e": "bookTicker"} if futures else {}) | head | best,
        "aggTrade": {"e": "aggTrade", "a": 5933014} | head | trade,
        "trade": {"e": "trade", "t": 12345, "X": "MARKET"} | head | trade,
        "depth@100ms": {"e": "depthUpdate", "U": 157, "u": 160, "pu": 149} | head | levels,
        "depth5@100ms": head | {"lastUpdateId": 160, "u": 160, "bids": levels["b"], "asks": levels["a"]},
        "markPrice@1s": {"e": "markPriceUpdate"} | head | mark,
        "forceOrder": {"e": "forceOrder", "E": ms, "o": order},
        "kline_1m": {"e": "kline"} | head | {"k": candle},
    }
    wrapped = [{"stream": f"btcusdt@{stream}", "data": payload} for stream, payload in payloads.items()]
    array = {"stream": "!markPrice@arr@1s", "data": [payloads["markPrice@1s"]] * 2}
    others = [{"result": None, "id": 1}, {"error": {"code": 2, "msg": "Invalid request"}, "id": 2}]
    bare = [payload for stream, payload in payloads.items() if stream != "depth5@100ms"]
    return [*wrapped, *bare, array, array["data"], *others]


def _rest_samples(venue: str) -> list[Seed]:
    ms = _BEGAN_NS // 1_000_000
    book = {"lastUpdateId": 158, "E": ms, "T": ms, "bids": [["0.0024", "10"]], "asks": [["0.0026", "100"]]}
    trades = [{"a": 5933015 + k, "p": "0.001", "q": "100", "f": 1, "l": 2, "T": ms, "m": True} for k in range(3)]
    return [
        (f"{_REST[venue]}depth?symbol=BTCUSDT&limit=1000", _text(book)),
        (f"{_REST[venue]}aggTrades?symbol=BTCUSDT&fromId=5933015", _text(trades)),
    ]


def _bybit_samples() -> list[Any]:
    ms = _BEGAN_NS // 1_000_000
    book = {"s": "BTCUSDT", "b": [["30247.20", "30.028"], ["30240.00", "0"]], "a": [["30248.70", "0.1"]], "u": 177}
    trade = {"T": ms, "s": "BTCUSDT", "S": "Buy", "v": "0.001", "p": "16578.50", "i": "20f43950-d8dd", "BT": False}
    ticker = {"symbol": "BTCUSDT", "markPrice": "66666.60", "indexPrice": "115418.19", "openInterest": "492373.72"}
    ticker |= {"singleOpenInterest": "246186.86", "fundingRate": "-0.005", "nextFundingTime": "1760342400000"}
    candle = {"start": ms, "end": ms + 59_999, "interval": "1", "open": "1", "close": "2", "high": "3", "low": "1"}
    candle |= {"volume": "2.081", "turnover": "34666.4005", "confirm": True, "timestamp": ms}
    topics = [
        ("orderbook.1.BTCUSDT", "snapshot", book),
        ("orderbook.50.BTCUSDT", "snapshot", book),
        ("orderbook.50.BTCUSDT", "delta", book | {"u": 178}),
        ("publicTrade.BTCUSDT", "snapshot", [trade, trade | {"i": "20f5", "BT": True}]),
        ("tickers.BTCUSDT", "snapshot", ticker),
        ("tickers.BTCUSDT", "delta", {"symbol": "BTCUSDT", "markPrice": "66667"}),
        ("allLiquidation.BTCUSDT", "snapshot", [{key: trade[key] for key in ("T", "s", "S", "v", "p")}]),
        ("kline.1.BTCUSDT", "snapshot", [candle]),
    ]
    acks = [{"success": True, "ret_msg": "", "op": "subscribe"}, {"success": False, "ret_msg": "error", "op": "x"}]
    return [*({"topic": name, "type": kind, "ts": ms, "data": data, "cts": ms} for name, kind, data in topics), *acks]


def recorded(venue: str, folder: Path) -> list[Seed]:
    """The first frames of each stream that was recorded of a venue, and its wire samples."""
    found: Counter[bytes] = Counter()
    seeds: list[Seed] = []
    for path in sorted(folder.glob("*/*.zst")):
        lines = iter(RawReader(path))
        first = next(lines)
        if decoder_for(first.url)[0] != venue:
            continue
        for line in (first, *(line for _, line in zip(range(4_000), lines, strict=False))):
            frame = line.frame.encode()
            stream = frame[:40]
            found[stream] += 1
            if found[stream] <= _PER_STREAM and len(frame) <= _LONGEST:
                seeds.append((line.url, frame))
    samples = folder / "wire_samples" / f"{_WIRE_SAMPLES.get(venue)}.jsonl"
    if samples.exists():
        seeds += [(URLS[venue], _text(json.loads(text)["message"])) for text in samples.read_text().splitlines()]
    return seeds


_NUMBER: Final = re.compile(rb'(?<=[:\[,"])-?\d[\d.]*(?=[,\]}"])')
_VALUE: Final = re.compile(rb'(?<=:)("[^"]*"|-?[\d.]+|true|false|null)')
_MEMBER: Final = re.compile(rb'"\w+":("[^"]*"|-?[\d.]+|true|false|null),?')
_EXTREMES: Final = (
    b"0", b"-0", b"-1", b"1e308", b"1e309", b"1e-320", b"9" * 19, b"9223372036854775807", b"9223372036854775808",
    b"18446744073709551616", b"9" * 400, b"0." + b"0" * 400 + b"1", b"NaN", b"inf", b"1e18", b"0x10", b"1_000", b"",
    b"99999999999999", b"9000000000000", b"9000000000001", b"100000000000000", b"9000000000000001",
)  # fmt: skip
_OTHERS: Final = (
    b"null", b"true", b"[]", b"{}", b'""', b'"x"', b"[[]]", b"1", b"1.5", b'[["1","2"]]', b'"../../etc"', b'{"s":{}}',
    b'"\\ud800"', b'"\\u0000"', '"币安人生USDT"'.encode(), b'"' + b"A" * 5_000 + b'"', b'"BTCUSDT\\n"',
)  # fmt: skip
_SPLINTERS: Final = (
    b'"', b"-", b"e9", b"null", b"[", b"]", b"{", b"}", b",", b":", b"\\", b"\xff", b"\x00", b"\xed\xa0\x80", b"9" * 30,
    b"[" * 3_000, b'{"a":' * 1_500, "\u202e".encode(), b"\\ud800", b"@", b".", b"!",
)  # fmt: skip


def _replaced(pattern: re.Pattern[bytes], by: tuple[bytes, ...]) -> Callable[[bytes, random.Random], bytes]:
    """A mutation: one of the places where `pattern` stands is another text."""

    def mutate(frame: bytes, rng: random.Random) -> bytes:
        places = [match.span() for match in pattern.finditer(frame)]
        if not places:
            return frame
        first, last = rng.choice(places)
        return frame[:first] + rng.choice(by) + frame[last:]

    return mutate


def _flip(frame: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(frame) or 1)
    return frame[:place] + bytes([rng.randrange(256)]) + frame[place + 1 :]


def _truncate(frame: bytes, rng: random.Random) -> bytes:
    return frame[: rng.randrange(len(frame) or 1)]


def _cut(frame: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(frame) or 1)
    return frame[:place] + frame[place + rng.randrange(1, 20) :]


def _double(frame: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(frame) or 1)
    return frame[:place] + frame[place : place + 40] + frame[place:]


def _splinter(frame: bytes, rng: random.Random) -> bytes:
    place = rng.randrange(len(frame) + 1)
    return frame[:place] + rng.choice(_SPLINTERS) + frame[place:]


MUTATIONS: Final = (
    _flip, _truncate, _cut, _double, _splinter,
    _replaced(_NUMBER, _EXTREMES), _replaced(_NUMBER, _EXTREMES), _replaced(_VALUE, _EXTREMES),
    _replaced(_VALUE, _OTHERS), _replaced(_MEMBER, (b"",)),
)  # fmt: skip


def mutants(seeds: list[Seed], frames: int, rng: random.Random) -> Iterator[Seed]:
    """So many frames; one in four is as it was."""
    for _ in range(frames):
        url, frame = rng.choice(seeds)
        for _ in range(rng.randrange(4)):
            frame = rng.choice(MUTATIONS)(frame, rng)
        yield url, frame


def fuzz(venue: str, frames: int, seed: int, folder: Path = RECORDED) -> Outcome:
    """Mutants through decoders of one venue."""
    rng, outcome, began_s = random.Random(f"{venue} {seed}"), Outcome(), time.perf_counter()
    seeds = built_in(venue) + recorded(venue, folder)
    decoder, events = decoder_for(URLS[venue])[1], list[Event]()
    for number, (url, frame) in enumerate(mutants(seeds, frames, rng)):
        recv_ns = _BEGAN_NS + number * _STEP_NS
        if number % LIFE == 0:
            events += decoder.finish(recv_ns)
            decoder = decoder_for(URLS[venue])[1]
            decoder.refills = bool(number // LIFE % 2)
        try:
            events += _decoded(decoder, url, frame, recv_ns, outcome)
        except Exception as error:  # what is looked for
            outcome.bad.append(f"{type(error).__name__}: {error}: {frame[:300]!r}")
        if len(events) > 20_000:
            _judge(events, outcome)
    _judge(events, outcome)
    outcome.frames, outcome.seconds = frames, time.perf_counter() - began_s
    return outcome


def _decoded(decoder: Decoder, url: str, frame: bytes, recv_ns: int, outcome: Outcome) -> list[Event]:
    """Events, or the gap of what was no frame."""
    try:
        events = decoder.decode(frame, recv_ns) if url.startswith("ws") else decoder.decode_rest(url, frame, recv_ns)
    except DecodeError as error:
        outcome.errors += 1
        return [*decoder.gap_of(frame, recv_ns, str(error))]
    outcome.silent += not events
    return events


def _judge(events: list[Event], outcome: Outcome) -> None:
    """Whether the events are valid rows of their tables, with finite numbers."""
    by_kind: dict[type, list[Event]] = {}
    for event in events:
        by_kind.setdefault(type(event), []).append(event)
    for kind, alike in by_kind.items():
        outcome.events[kind.__name__] += len(alike)
        try:
            frame = frame_of(TABLES[kind], alike)
            check(TABLES[kind], frame)
            endless = frame.select(pl.col(F64).fill_null(0.0).is_finite().not_().any())
            assert not any(endless.row(0)) if endless.width else True, "a number that is not finite"
        except Exception as error:  # what is looked for
            outcome.bad.append(f"{kind.__name__} rows: {type(error).__name__}: {error}")
    events.clear()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("frames", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--data", type=Path, default=RECORDED)
    options = parser.parse_args()
    print(
        f"{platform.machine()}, Python {platform.python_version()}, {datetime.now(UTC):%Y-%m-%d}, seed {options.seed}"
    )
    print(f"{'decoder':<14}{'frames':>10}{'DecodeError':>12}{'no event':>10}{'events':>10}{'wrong':>7}{'s':>7}")
    wrong: list[str] = []
    for venue in URLS:
        outcome = fuzz(venue, options.frames, options.seed, options.data)
        wrong += [f"{venue} {text}" for text in outcome.bad]
        print(
            f"{venue:<14}{outcome.frames:>10,}{outcome.errors:>12,}{outcome.silent:>10,}"
            f"{outcome.events.total():>10,}{len(outcome.bad):>7,}{outcome.seconds:>7.0f}"
        )
    for text in wrong[:20]:
        print(text)
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
