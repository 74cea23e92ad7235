"""The decoders against what the venues really sent: every frame a row, and the rebuilt book against the venue's own."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.schema import check
from ingest.binance import BinanceDecoder
from ingest.events import BookUpdate, DecodeError, Event, Gap, Kline, Liquidation, Mark, Quote, Trade
from ingest.packing import TABLES, frame_of
from ingest.raw import RawLine, RawReader
from ingest.venues import decoder_for

RAW = Path(__file__).resolve().parents[3] / "shared" / "market_data" / "raw"
FILES = sorted(path.relative_to(RAW).as_posix() for path in RAW.glob("*/*.zst"))
KIND_OF = {"bookTicker": Quote, "trade": Trade, "aggTrade": Trade, "depth": BookUpdate}
KIND_OF |= {"orderbook": BookUpdate, "publicTrade": Trade, "tickers": Mark}


@cache
def lines(name: str) -> list[RawLine]:
    return list(RawReader(RAW / name))


def url_of(name: str) -> str:
    return next(line.url for line in lines(name) if line.url.startswith("ws"))


def frames_of(name: str, decoder: Any) -> Iterator[tuple[RawLine, list[Event]]]:
    """Each recorded line and the events it gives."""
    for line in lines(name):
        decode = decoder.decode if line.url.startswith("ws") else partial(decoder.decode_rest, line.url)
        yield line, decode(line.frame, line.recv_ns)


def sent(name: str) -> Counter[type]:
    """How many events of each kind the frames hold, counted with the standard library alone."""
    found: Counter[type] = Counter()
    for line in lines(name):
        body = json.loads(line.frame)
        if line.url.startswith("http"):
            found[BookUpdate] += "/depth?" in line.url
            continue
        candles = body.get("data", {})
        if body.get("topic", "").startswith("kline") or "@kline" in body.get("stream", ""):
            found[Kline] += sum(k["confirm"] for k in candles) if isinstance(candles, list) else candles["k"]["x"]
        stream = body.get("stream", "").partition("@")[2].partition("@")[0] or body.get("topic", "").partition(".")[0]
        if stream in KIND_OF:
            found[KIND_OF[stream]] += len(body["data"]) if stream == "publicTrade" else 1
    return found


@pytest.mark.parametrize("name", FILES)
def test_every_recorded_frame_is_an_event_and_every_event_a_valid_row(market_data: Path, name: str) -> None:
    """On Binance the rebuilt book equals bookTicker at equal update ids as well: 5,193 of 5,193 on binance_20240808
    (spot 2,128, USD-M 1,180, COIN-M 1,885), 12,198 of 12,198 on NEXO.
    """
    decoder = decoder_for(url_of(name))[1]
    if isinstance(decoder, BinanceDecoder):
        decoder = BinanceDecoder(decoder.venue, keep_levels=True)
    kinds: dict[type, list[Event]] = defaultdict(list)
    native: dict[tuple[str, int], tuple[float, ...]] = {}
    rebuilt: dict[tuple[str, int], tuple[float, ...]] = {}
    for line, events in frames_of(name, decoder):
        for event in events:
            kinds[type(event)].append(event)
            if isinstance(event, Quote) and "@bookTicker" in line.frame:
                native[event.symbol, event.update_id] = _prices(event)
            elif isinstance(event, BookUpdate):
                book = decoder.books[event.symbol].book
                if book.update_id is not None and (best := book.best()):
                    rebuilt[event.symbol, book.update_id] = best
    seen, wanted = Counter({kind: len(events) for kind, events in kinds.items()}), sent(name)
    if name.startswith(("bybit", "binance_altcoins_2021/spot")):  # without bookTicker: best prices from the book
        wanted[Quote] = seen[Quote]
    assert seen == +wanted
    assert decoder.finish(lines(name)[-1].recv_ns) == []
    for kind, events in kinds.items():
        rows = frame_of(TABLES[kind], events)
        check(TABLES[kind], rows)
        assert rows.height == seen[kind] or kind is BookUpdate
    common = native.keys() & rebuilt.keys()
    assert len(common) >= (500 if "2024" in name else 20) or "bybit" in name
    assert [key for key in common if native[key] != rebuilt[key]] == []


def _prices(quote: Quote) -> tuple[float, float, float, float]:
    return quote.bid_price, quote.bid_qty, quote.ask_price, quote.ask_qty


def test_bybits_books_have_no_gap_and_give_the_best_prices(market_data: Path) -> None:
    decoder = decoder_for("wss://stream.bybit.com/v5/public/linear")[1]
    events = [event for _, events in frames_of("bybit_20260809/linear.jsonl.zst", decoder) for event in events]
    assert [event for event in events if isinstance(event, Gap)] == []
    quotes = [event for event in events if isinstance(event, Quote)]
    assert {quote.symbol for quote in quotes} == {"BTCUSDT", "ETHUSDT", "SOLUSDT", "DOGEUSDT"}
    assert all(quote.bid_price < quote.ask_price for quote in quotes)


@pytest.mark.parametrize("name", [name for name in FILES if "2024" in name])
def test_without_its_snapshot_a_recording_builds_no_book_and_says_so(market_data: Path, name: str) -> None:
    decoder = decoder_for(url_of(name))[1]
    for line in lines(name)[:5_000]:
        if line.url.startswith("ws"):
            decoder.decode(line.frame, line.recv_ns)
    gaps = decoder.finish(lines(name)[5_000].recv_ns)
    assert [(gap.stream, gap.reason, gap.mended) for gap in gaps if isinstance(gap, Gap)] == [
        ("book_deltas", "no book snapshot", False)
    ]


SAMPLES = ["binance", "binance-futures", "binance-delivery", "bybit", "bybit-spot"]
URLS = {
    "binance": "wss://stream.binance.com:9443/stream",
    "binance-futures": "wss://fstream.binance.com/stream",
    "binance-delivery": "wss://dstream.binance.com/stream",
    "bybit": "wss://stream.bybit.com/v5/public/linear",
    "bybit-spot": "wss://stream.bybit.com/v5/public/spot",
}


@pytest.mark.parametrize("name", SAMPLES)
def test_one_native_message_of_each_kind_decodes(market_data: Path, name: str) -> None:
    """Messages of 2019 to 2026: what a table holds becomes an event, what none holds is counted."""
    kinds: Counter[str] = Counter()
    for text in (RAW / "wire_samples" / f"{name}.jsonl").read_text().splitlines():
        message = json.loads(text)["message"]
        decoder = decoder_for(URLS[name])[1]
        events = decoder.decode(json.dumps(message, separators=(",", ":")), 1)
        assert events or decoder.ignored
        kinds.update(type(event).__name__ for event in events)
    assert kinds == {
        "binance": {"Trade": 1, "BookUpdate": 3},
        "binance-futures": {"BookUpdate": 3, "Mark": 2, "Trade": 1},
        "binance-delivery": {"Mark": 1, "BookUpdate": 1, "Liquidation": 1, "Quote": 1},
        "bybit": {"Trade": 1, "BookUpdate": 1, "Liquidation": 1},
        "bybit-spot": {"Trade": 4, "Quote": 1, "BookUpdate": 1},
    }.get(name)


def test_the_recorded_liquidation_of_a_bybit_short_is_one(market_data: Path) -> None:
    texts = (RAW / "wire_samples" / "bybit.jsonl").read_text().splitlines()
    message = next(json.loads(text)["message"] for text in texts if "allLiquidation" in text)
    (event,) = decoder_for(URLS["bybit"])[1].decode(json.dumps(message), 1)
    assert isinstance(event, Liquidation)
    assert event.liquidated == "short"  # S is Sell: the position was short


SPLINTERS = [b'"', b"-", b"e9", b"null", b"[", b"}", b"\xff", b"9" * 30]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_mutated_frame_raises_nothing_but_a_decode_error(market_data: Path, data: st.DataObject) -> None:
    """Bytes replaced, cut, doubled: a frame still decodes into valid rows, is ignored, or is a DecodeError."""
    name = data.draw(st.sampled_from(FILES))
    line = lines(name)[data.draw(st.integers(0, min(2_500, len(lines(name)) - 1)))]
    frame = bytearray(line.frame[:4_000], "utf-8")
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(frame)))
        match data.draw(st.sampled_from(["cut", "put", "replace", "double"])):
            case "cut":
                del frame[place : place + data.draw(st.integers(1, 20))]
            case "put":
                frame[place:place] = data.draw(
                    st.sampled_from([b'"', b"-", b"e9", b"null", b"[", b"}", b"\xff", b"9" * 30])
                )
            case "replace":
                frame[place : place + 1] = data.draw(st.binary(min_size=1, max_size=3))
            case "double":
                frame[place:place] = frame[place : place + 40]
    decoder = decoder_for(url_of(name))[1]
    try:
        if line.url.startswith("http"):
            events = decoder.decode_rest(line.url, bytes(frame), line.recv_ns)
        else:
            events = decoder.decode(bytes(frame), line.recv_ns)
    except DecodeError:
        return
    for event in events:
        check(TABLES[type(event)], frame_of(TABLES[type(event)], [event]))


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_unknown_keys_change_nothing(market_data: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(FILES))
    streamed = [line for line in lines(name)[:2_500] if line.url.startswith("ws")]
    line = data.draw(st.sampled_from(streamed))
    body = json.loads(line.frame)
    key = data.draw(st.text(st.characters(codec="utf-8"), min_size=5, max_size=8))
    value = data.draw(st.sampled_from([None, 1, "x", [1], {"y": 2}]))
    richer = body | {key: value}
    if isinstance(richer.get("data"), dict):
        richer["data"] = richer["data"] | {key: value}
    ours, theirs = decoder_for(url_of(name))[1], decoder_for(url_of(name))[1]
    assert ours.decode(json.dumps(richer), 9) == theirs.decode(line.frame, 9)
