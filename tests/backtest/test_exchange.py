"""Books that clients build from a snapshot taken at any time, on the simulated market."""

import functools

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from backtest.market import wire
from backtest.market.exchange import Exchange
from backtest.market.sessions import bybit_topic, open_session
from backtest.market.simulate import Market
from backtest.market.tape import Tape
from core.config import Sim
from core.units import NS_PER_MS, NS_PER_S
from ingest.binance import BinanceDecoder
from ingest.bybit import BybitDecoder

SECONDS = 20


@functools.cache
def chunks() -> list[list[Tape]]:
    market = Market(Sim(), ("binance_um:BTCUSDT", "bybit:BTCUSDT"), 3)
    return [market.chunk(SECONDS / 60) for _ in range(3)]


def later(tapes: list[Tape], now_ns: int) -> list[Tape]:
    """The tapes with only those changes that are received from `now_ns` on."""
    return [tape._replace(depth=tape.depth[tape.depth["recv_ns"] >= now_ns]) for tape in tapes]


def levels_of(decoder: BinanceDecoder | BybitDecoder) -> dict[tuple[int, float], float]:
    book = decoder.books["BTCUSDT"].book
    sides = {1: book.bids, -1: book.asks}
    return {(side, price): qty for side, ladder in sides.items() for price, qty in ladder.qty_at.items()}


def levels_at_the_end(tape: Tape) -> dict[tuple[int, float], float]:
    return {(side, price): qty for side, price, qty in wire.book_at(tape, tape.to_ns).levels.tolist()}


moments = st.tuples(st.sampled_from([0, 1]), st.integers(0, SECONDS * NS_PER_S - 1))


@settings(max_examples=25, deadline=None)
@given(moments)
@example((1, 0))
@example((1, 3 * NS_PER_MS))
def test_a_binance_book_follows_on_from_a_snapshot_taken_at_any_time(moment: tuple[int, int]) -> None:
    tapes = [chunk[0] for chunk in chunks()]
    at, now_ns = tapes[moment[0]], tapes[moment[0]].from_ns + moment[1]
    decoder = BinanceDecoder("binance_um", keep_levels=True)
    body = wire.binance_snapshot(at.instrument, wire.book_at(at, now_ns), 1000)
    decoder.decode_rest("https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT", body, now_ns)
    for tape in later(tapes, now_ns):
        for text in wire.binance_depth(tape):
            decoder.decode(text, now_ns)
    assert not decoder.finish(now_ns)
    assert levels_of(decoder) == levels_at_the_end(tapes[-1])


@settings(max_examples=25, deadline=None)
@given(moments)
@example((1, 0))
@example((1, 3 * NS_PER_MS))
def test_a_bybit_book_follows_on_from_a_subscription_at_any_time(moment: tuple[int, int]) -> None:
    exchange = Exchange(iter(chunks()))
    for _ in range(moment[0]):
        assert exchange.edge(exchange.records("bybit")[0].tape.to_ns) is not None
    now_ns = exchange.records("bybit")[0].tape.from_ns + moment[1]
    session, topic = open_session("/v5/public/linear", 1), bybit_topic("orderbook.50.BTCUSDT")
    assert session is not None
    assert topic is not None
    opening = exchange.opening(session, topic, now_ns)
    assert opening is not None
    decoder = BybitDecoder("bybit", keep_levels=True)
    decoder.decode(opening, now_ns)
    tapes = [chunk[1] for chunk in chunks()]
    for tape in later(tapes, now_ns):
        for text in wire.bybit_depth(tape, 50):
            decoder.decode(text, now_ns)
    assert not decoder.finish(now_ns)
    assert levels_of(decoder) == levels_at_the_end(tapes[-1])


@pytest.mark.parametrize("venue", [0, 1])
def test_the_tapes_values_are_the_doubles_nearest_to_their_decimals(venue: int) -> None:
    for tape in (chunk[venue] for chunk in chunks()):
        price, qty = f"%.{tape.instrument.price_decimals}f", f"%.{tape.instrument.qty_decimals}f"
        assert [float(price % value) for value in tape.quotes["bid_price"].tolist()] == tape.quotes[
            "bid_price"
        ].tolist()
        assert [float(qty % value) for value in tape.levels["qty"].tolist()] == tape.levels["qty"].tolist()
        assert not np.any(tape.quotes["exch_ns"] % NS_PER_MS)
