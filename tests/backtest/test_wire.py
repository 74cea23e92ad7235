"""Frames decode back to the very rows that they were made from, by the decoders that capture uses."""

import json
from functools import partial
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtest.market import wire
from backtest.market.tape import Rows, Tape
from ingest.binance import BinanceDecoder
from ingest.book import Ladder
from ingest.bybit import BybitDecoder
from ingest.events import BookUpdate, Liquidation, Mark, Quote, Trade
from ingest.wire import epoch_ns

property_of_tapes = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def decoded(decoder: Any, rows: Rows, texts: list[str]) -> list[Any]:
    """All events of one kind of frames: exactly one each."""
    events = [decoder.decode(text, recv_ns) for text, recv_ns in zip(texts, rows["recv_ns"].tolist(), strict=True)]
    assert [len(found) for found in events] == [1] * len(rows)
    assert not decoder.ignored
    return [found[0] for found in events]


def assert_quotes(rows: Rows, events: list[Quote]) -> None:
    got = [(e.exch_ns, e.recv_ns, e.update_id, e.bid_price, e.bid_qty, e.ask_price, e.ask_qty) for e in events]
    assert got == rows.tolist()


def assert_trades(rows: Rows, events: list[Trade], identity: Any) -> None:
    got = [(e.exch_ns, e.recv_ns, e.trade_id, e.price, e.qty, e.taker_side) for e in events]
    sides = {1: "buy", -1: "sell"}
    assert got == [(*row[:2], identity(row[2]), *row[3:5], sides[row[5]]) for row in rows.tolist()]


def assert_depth(tape: Tape, rows: Rows, events: list[BookUpdate]) -> None:
    for row, event in zip(rows, events, strict=True):
        levels = tape.levels[row["level_start"] : row["level_stop"]].tolist()
        assert [tuple(level) for level in event.bids] == [level[1:] for level in levels if level[0] == 1]
        assert [tuple(level) for level in event.asks] == [level[1:] for level in levels if level[0] == -1]
        assert (event.exch_ns, event.recv_ns, event.update_id) == (row["exch_ns"], row["recv_ns"], row["update_id"])
        assert not event.is_snapshot


def assert_liquidations(rows: Rows, events: list[Liquidation]) -> None:
    got = [(e.exch_ns, e.recv_ns, {"long": 1, "short": -1}[e.liquidated], e.price, e.qty) for e in events]
    assert got == rows.tolist()


def assert_marks(rows: Rows, events: list[Mark]) -> None:
    got = [
        (e.exch_ns, e.recv_ns, e.mark_price, e.index_price, e.funding_rate, e.next_funding_ns, e.open_interest)
        for e in events
    ]
    assert got == [tuple(None if value != value else value for value in row) for row in rows.tolist()]


@property_of_tapes
@given(seed=st.integers(0, 2**32), combined=st.booleans())
def test_binance_frames_decode_to_the_tapes_rows(make_chunks: Any, seed: int, combined: bool) -> None:
    for tape in (chunk[0] for chunk in make_chunks(2, 30, seed)):
        for stream, write, rows, check in (
            ("btcusdt@bookTicker", wire.binance_quotes, tape.quotes, assert_quotes),
            ("btcusdt@aggTrade", wire.binance_trades, tape.trades, partial(assert_trades, identity=str)),
            ("btcusdt@depth@500ms", wire.binance_depth, tape.depth, partial(assert_depth, tape)),
            ("btcusdt@markPrice@1s", wire.binance_marks, tape.marks, assert_marks),
            ("btcusdt@forceOrder", wire.binance_liquidations, tape.liquidations, assert_liquidations),
        ):
            texts = wire.wrapped(stream, write(tape)) if combined else write(tape)
            check(rows, decoded(BinanceDecoder("binance_um"), rows, texts))


@property_of_tapes
@given(seed=st.integers(0, 2**32))
def test_bybit_frames_decode_to_the_tapes_rows(make_chunks: Any, seed: int) -> None:
    decoder, marks_before = BybitDecoder("bybit"), None
    for tape in (chunk[1] for chunk in make_chunks(2, 30, seed)):
        assert_quotes(tape.quotes, decoded(decoder, tape.quotes, wire.bybit_quotes(tape)))
        trades = decoded(decoder, tape.trades, wire.bybit_trades(tape))
        assert_trades(tape.trades, trades, wire.bybit_trade_id)
        assert_depth(tape, tape.depth, decoded(decoder, tape.depth, wire.bybit_depth(tape, 50)))
        assert_liquidations(tape.liquidations, decoded(decoder, tape.liquidations, wire.bybit_liquidations(tape)))
        texts = wire.bybit_marks(tape, tape.marks[:0] if marks_before is None else marks_before)
        assert_marks(tape.marks, decoded(decoder, tape.marks, texts))
        marks_before = tape.marks[-1:]


def test_binance_payloads_have_the_keys_that_the_venue_documents(make_chunks: Any) -> None:
    tape = make_chunks(1)[0][0]
    quote, trade = json.loads(wire.binance_quotes(tape)[0]), json.loads(wire.binance_trades(tape)[0])
    assert list(quote) == ["e", "u", "E", "T", "s", "b", "B", "a", "A", "st", "ps"]
    assert list(trade) == ["e", "E", "s", "a", "p", "q", "nq", "f", "l", "T", "m", "st"]
    assert list(json.loads(wire.binance_depth(tape)[0])) == ["e", "E", "T", "s", "U", "u", "pu", "b", "a", "st", "ps"]
    assert list(json.loads(wire.binance_marks(tape)[0])) == ["e", "E", "s", "p", "ap", "i", "P", "r", "T", "st"]
    assert "".join(json.loads(wire.binance_liquidations(tape)[0])["o"]) == "sSofqpapXlzT"
    assert all(isinstance(quote[key], str) for key in "bBaA")
    assert quote["E"] > quote["T"]
    assert trade["st"] == 1


def test_bybit_frames_have_the_keys_that_the_venue_documents(make_chunks: Any) -> None:
    tape = make_chunks(1)[0][1]
    book = json.loads(wire.bybit_depth(tape, 50)[0])
    assert list(book) == ["topic", "type", "ts", "data", "cts"]
    assert (book["topic"], book["type"]) == ("orderbook.50.ETHUSDT", "delta")
    assert list(book["data"]) == ["s", "b", "a", "u", "seq"]
    trade = json.loads(wire.bybit_trades(tape)[0])["data"][0]
    assert list(trade) == ["T", "s", "S", "v", "p", "L", "i", "BT", "RPI", "seq"]
    assert len(trade["i"]) == 36
    assert list(json.loads(wire.bybit_liquidations(tape)[0])["data"][0]) == ["T", "s", "S", "v", "p"]


def test_bybit_counts_open_interest_on_both_sides_and_deltas_hold_what_changed(make_chunks: Any) -> None:
    tape = make_chunks(1, 100)[0][1]
    first, *rest = [json.loads(text)["data"] for text in wire.bybit_marks(tape, tape.marks[:0])]
    assert float(first["openInterest"]) == 2 * float(first["singleOpenInterest"]) == 2 * tape.marks["open_interest"][0]
    assert all("nextFundingTime" not in delta for delta in rest)
    assert any("openInterest" not in delta for delta in rest)


def test_bybit_writes_a_level_that_is_gone_as_0(make_chunks: Any) -> None:
    tape = make_chunks(1, 100)[0][1]
    sizes = [
        level[1] for text in wire.bybit_depth(tape, 50) for side in "ba" for level in json.loads(text)["data"][side]
    ]
    assert "0" in sizes
    assert "0.00" not in sizes


def test_a_snapshot_and_the_changes_after_it_rebuild_the_book(make_chunks: Any) -> None:
    before, after = (chunk[0] for chunk in make_chunks(2, 200))
    now_ns = before.from_ns + (before.to_ns - before.from_ns) // 2
    body = json.loads(wire.binance_snapshot(before.instrument, wire.book_at(before, now_ns), 1000))
    bids, asks = Ladder(), Ladder()
    bids.reset([(float(price), float(qty)) for price, qty in body["bids"]])
    asks.reset([(float(price), float(qty)) for price, qty in body["asks"]])
    for text in wire.binance_depth(before):
        change = json.loads(text)
        if change["u"] > body["lastUpdateId"]:
            bids.put([(float(price), float(qty)) for price, qty in change["b"]])
            asks.put([(float(price), float(qty)) for price, qty in change["a"]])
    expected = after.book_at_start.levels
    assert 0 < int(np.searchsorted(before.depth["recv_ns"], now_ns)) < before.depth.size
    assert bids.qty_at == {price: qty for side, price, qty in expected.tolist() if side == 1}
    assert asks.qty_at == {price: qty for side, price, qty in expected.tolist() if side == -1}


def test_partial_depth_is_the_top_of_the_rebuilt_book(make_chunks: Any) -> None:
    tape = make_chunks(1, 100)[0][0]
    for text, row in zip(wire.binance_partial(tape, 5), tape.depth, strict=True):
        frame, book = json.loads(text), wire.book_at(tape, int(row["recv_ns"]) + 1)
        prices = book.levels["price"]
        is_bid = book.levels["side"] > 0
        assert [float(price) for price, _ in frame["b"]] == sorted(prices[is_bid], reverse=True)[:5]
        assert [float(price) for price, _ in frame["a"]] == sorted(prices[~is_bid])[:5]
        assert frame["u"] == row["update_id"]


def test_tick_direction_follows_the_last_change() -> None:
    prices = np.array([5.0, 6.0, 6.0, 4.0, 4.0, 7.0])
    expected = ["ZeroPlusTick", "PlusTick", "ZeroPlusTick", "MinusTick", "ZeroMinusTick", "PlusTick"]
    assert wire._tick_directions(prices) == expected
    assert epoch_ns(1) == 1_000_000
