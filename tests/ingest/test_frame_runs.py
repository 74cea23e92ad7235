"""Runs of frames to columns: the same rows as frame by frame, from recordings, disorder and mutants alike."""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from benchmarks.fuzz_decoders import MUTATIONS, built_in
from core.plain_parquet import frame_of_rows
from core.plain_rows import PlainRows
from core.schema import check
from ingest.binance import BinanceDecoder
from ingest.binance_streams import Venue
from ingest.events import DecodeError, Event
from ingest.frame_runs import FrameRuns
from ingest.frame_text import decimal
from ingest.packing import TABLES, frame_of
from ingest.raw import RawReader
from ingest.venues import venue_of

RAW = Path(__file__).resolve().parents[3] / "shared" / "market_data" / "raw"
FILES = sorted(path.relative_to(RAW).as_posix() for path in RAW.glob("binance*/*.zst"))
KINDS = ("bookTicker", "aggTrade", "depth")
Frames = Sequence[tuple[bytes, int]]
Tables = dict[tuple[str, str], pl.DataFrame]


def gathered(parts: dict[tuple[str, str], list[pl.DataFrame]]) -> Tables:
    return {key: pl.concat(frames).sort("recv_ns", maintain_order=True) for key, frames in parts.items()}


def told(parts: dict[tuple[str, str], list[pl.DataFrame]], events: list[Event]) -> None:
    """Add the rows of events."""
    by_kind: dict[tuple[type, str], list[Event]] = defaultdict(list)
    for event in events:
        by_kind[type(event), event.symbol].append(event)
    for (kind, symbol), alike in by_kind.items():
        if TABLES[kind].name != "gaps":
            parts[TABLES[kind].name, symbol].append(frame_of(TABLES[kind], alike))


def one_by_one(decoder: BinanceDecoder, frames: Frames) -> tuple[Tables, int]:
    """The tables, and how many frames did not decode."""
    events, broken = list[Event](), 0
    for frame, recv_ns in frames:
        try:
            events += decoder.decode(frame, recv_ns)
        except DecodeError:
            broken += 1
    parts: dict[tuple[str, str], list[pl.DataFrame]] = defaultdict(list)
    told(parts, events)
    return gathered(parts), broken


def by_runs(decoder: BinanceDecoder, frames: Frames, sizes: Callable[[], int]) -> tuple[Tables, int, int]:
    """The same, with the number of events that were made on the way."""
    runs, broken, events, first = FrameRuns(decoder), 0, 0, 0
    parts: dict[tuple[str, str], list[pl.DataFrame]] = defaultdict(list)

    def take_rows(symbol: str, rows: PlainRows) -> None:
        frame = frame_of_rows(rows)
        check(rows.table, frame)
        parts[rows.table.name, symbol].append(frame)

    def take_one(place: int) -> bool:
        nonlocal broken, events
        try:
            made = decoder.decode(*frames[first + place])
        except DecodeError:
            broken += 1
            return False
        told(parts, made)
        events += len(made)
        return True

    while first < len(frames):
        size = sizes()
        runs.decode(*zip(*frames[first : first + size], strict=True), take_rows, take_one)
        first += size
    return gathered(parts), broken, events


def assert_same(ours: Tables, theirs: Tables) -> None:
    assert ours.keys() == theirs.keys()
    for key, frame in ours.items():
        other = theirs[key]
        if "exch_assumed" in frame.columns:  # the clock moves on between runs, not within
            frame = frame.with_columns(pl.col("exch_ns") * ~pl.col("exch_assumed"))
            other = other.with_columns(pl.col("exch_ns") * ~pl.col("exch_assumed"))
        assert_frame_equal(frame, other, check_exact=True)


@pytest.mark.parametrize("name", FILES)
def test_a_recording_gives_the_same_rows_by_runs(market_data: Path, name: str) -> None:
    lines = list(RawReader(RAW / name))[:30_000]
    venue: Any = venue_of(next(line.url for line in lines if line.url.startswith("ws")))
    frames = [(line.frame.encode(), line.recv_ns) for line in lines if line.url.startswith("ws")]
    frames = [(frame.replace(b"@trade", b"@aggTrade").replace(b'"t":', b'"a":', 1), ns) for frame, ns in frames]
    rest = [line for line in lines if "/depth?" in line.url]
    decoders = BinanceDecoder(venue), BinanceDecoder(venue)
    for decoder in decoders:
        decoder.decode(*next(frame for frame in frames if b"bookTicker" in frame[0][:60]))
        for line in rest:
            decoder.decode_rest(line.url, line.frame, line.recv_ns)
    rng = random.Random(1)
    slow, slow_broken = one_by_one(decoders[0], frames)
    fast, fast_broken, events = by_runs(decoders[1], frames, lambda: rng.choice([1, 7, 400, 3_000]))
    assert_same(fast, slow)
    assert (fast_broken, decoders[1].repeated, decoders[1].ignored) == (
        slow_broken,
        decoders[0].repeated,
        decoders[0].ignored,
    )
    if "2024" in name:
        assert events < len(frames) / 20  # nearly all was scanned


def frame_at(kind: str, number: int) -> bytes:
    ms = 1_723_161_256_000 + number
    if kind == "bookTicker":
        text = f'"e":"bookTicker","u":{number},"s":"BTCUSDT","b":"1.5","B":"2","a":"1.6","A":"0.0","T":{ms},"E":{ms}'
    elif kind == "aggTrade":
        text = f'"e":"aggTrade","E":{ms},"s":"BTCUSDT","a":{number},"p":"0.10","q":"7.00","f":1,"l":2,"T":{ms},"m":true'
    else:
        levels = '"b":[["1.5","0"],["1.4","3"]],"a":[]'
        text = f'"e":"depthUpdate","E":{ms},"T":{ms},"s":"BTCUSDT","U":{number},"u":{number},"pu":{number - 1},{levels}'
    return f'{{"stream":"btcusdt@{kind}","data":{{{text}}}}}'.encode()


@pytest.mark.parametrize("venue", get_args(Venue))
@pytest.mark.parametrize("seed", range(3))
def test_mutants_give_the_same_rows_by_runs(venue: Any, seed: int) -> None:
    """Streams that go on, one frame in four of them mutated behind its name, among others that are never scanned."""
    rng = random.Random(f"{venue} {seed}")
    slow_kinds = (b"@mark", b"@force", b"@kline", b'{"result', b'{"error')
    others = [frame for _, frame in built_in(venue) if any(kind in frame[:40] for kind in slow_kinds)]
    sent: list[tuple[bytes, int]] = []
    for number in range(1, 4_000):
        frame = frame_at(rng.choice(KINDS), number) if rng.random() < 0.95 else rng.choice(others)
        name, data, rest = frame.partition(b'"data"')
        for _ in range(max(0, rng.randrange(-7, 3))):
            rest = rng.choice(MUTATIONS)(rest, rng)
        frame = name + data + rest
        sent.append((frame, 1_723_161_256_000_000_000 + 3_000_000 * number))
    decoders = BinanceDecoder(venue), BinanceDecoder(venue)
    for decoder in decoders:
        decoder.decode(frame_at("bookTicker", 0), 1)
        decoder.decode_rest("https://x/api/v3/depth?symbol=BTCUSDT", '{"lastUpdateId":3,"bids":[],"asks":[]}', 2)
    slow, slow_broken = one_by_one(decoders[0], sent)
    fast, fast_broken, _ = by_runs(decoders[1], sent, lambda: rng.choice([1, 50, 700]))
    assert fast_broken == slow_broken > 100
    assert_same(fast, slow)
    assert decoders[0].repeated == decoders[1].repeated
    assert decoders[0].ignored == decoders[1].ignored


@given(st.lists(st.tuples(st.sampled_from(KINDS), st.integers(1, 30)), max_size=60))
def test_disorder_gives_the_same_rows_by_runs(sent: list[tuple[str, int]]) -> None:
    frames = [(frame_at(kind, number), 10**18 + k) for k, (kind, number) in enumerate(sent)]
    decoders = BinanceDecoder("binance_um"), BinanceDecoder("binance_um")
    for decoder in decoders:
        decoder.refills = True
        decoder.decode(frame_at("bookTicker", 0), 1)
        decoder.decode_rest("https://x/fapi/v1/depth?symbol=BTCUSDT", '{"lastUpdateId":3,"bids":[],"asks":[]}', 2)
    slow, _ = one_by_one(decoders[0], frames)
    fast, _, _ = by_runs(decoders[1], frames, lambda: 20)
    assert_same(fast, slow)
    assert decoders[0].repeated == decoders[1].repeated
    assert decoders[0].missed == decoders[1].missed
    assert decoders[0].wants_snapshot == decoders[1].wants_snapshot
    assert decoders[0].finish(10**18 + 99) == decoders[1].finish(10**18 + 99)


@given(st.from_regex(rb"[0-9]{1,12}(\.[0-9]{1,12})?", fullmatch=True) | st.binary(max_size=6))
def test_a_scanned_decimal_is_the_float_that_python_reads(text: bytes) -> None:
    data = np.frombuffer(b'"' + text + b'",', np.uint8)
    value, behind = decimal(data, 0, data.size)
    if behind >= 0:
        assert value == float(text)
        assert behind == len(text) + 2
    digits = text.replace(b".", b"").strip(b"0")
    if text.replace(b".", b"", 1).isdigit() and len(digits) <= 15 and text[:1] not in b"0." and text[-1:] != b".":
        assert behind >= 0
