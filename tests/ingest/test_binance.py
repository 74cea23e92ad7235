"""Binance frames to events: the payloads of exchange_protocols.md sections A.4 and B, by hand."""

import json
from typing import Any

import pytest

from ingest.binance import BinanceDecoder
from ingest.events import BookUpdate, DecodeError, Gap, Liquidation, Mark, Quote, Trade

MS = 1_000_000


def wrapped(stream: str, **data: Any) -> str:
    return json.dumps({"stream": stream, "data": data}, separators=(",", ":"))


def depth(first: int, last: int, prev: int = 0, bids: Any = (), asks: Any = (), ms: int = 1_000) -> str:
    data = {"e": "depthUpdate", "E": ms, "T": ms, "s": "BTCUSDT", "U": first, "u": last, "pu": prev}
    return wrapped("btcusdt@depth@100ms", **data, b=bids, a=asks)


def agg(number: int, **more: Any) -> str:
    data = {"e": "aggTrade", "E": 5, "s": "BTCUSDT", "a": number, "p": "0.5", "q": "100", "f": 1, "l": 2, "T": 4}
    return wrapped("btcusdt@aggTrade", **(data | {"m": True} | more))


def test_book_ticker_of_usd_m_has_the_engine_time() -> None:
    frame = wrapped(
        "bnbusdt@bookTicker",
        e="bookTicker",
        u=7,
        E=3,
        T=2,
        s="BNBUSDT",
        b="25.35",
        B="31.21",
        a="25.36",
        A="40.6",
        st=1,
    )
    assert BinanceDecoder("binance_um").decode(frame, 9) == [Quote("BNBUSDT", 2 * MS, 9, 7, 25.35, 31.21, 25.36, 40.6)]


def test_a_raw_frame_and_one_written_with_spaces_say_the_same_as_a_wrapped_one() -> None:
    data = {"u": 7, "T": 2, "s": "BNBUSDT", "b": "25.35", "B": "31.21", "a": "25.36", "A": "40.6", "e": "bookTicker"}
    frames = (
        json.dumps(data),
        json.dumps({"stream": "bnbusdt@bookTicker", "data": data}),
        wrapped("bnbusdt@bookTicker", **data).encode(),
    )
    raw, *others = (BinanceDecoder("binance_um").decode(frame, 9) for frame in frames)
    assert raw == others[0] == others[1]
    assert len(raw) == 1


def test_buyer_is_maker_means_that_the_taker_sold() -> None:
    decoder = BinanceDecoder("binance_um")
    assert decoder.decode(agg(10), 9) == [Trade("BTCUSDT", 4 * MS, 9, "10", 0.5, 100.0, "sell")]
    assert decoder.decode(agg(11, m=False), 9) == [Trade("BTCUSDT", 4 * MS, 9, "11", 0.5, 100.0, "buy")]


def test_a_hole_in_the_trade_ids_is_a_gap_and_a_repeat_is_none() -> None:
    decoder = BinanceDecoder("binance_um")
    decoder.decode(agg(10), 100)
    gap, trade = decoder.decode(agg(13), 200)
    assert gap == Gap("BTCUSDT", "trades", 100, 200, "aggTrade 10 is followed by 13", False)
    assert isinstance(trade, Trade)
    assert decoder.decode(agg(13), 300) == decoder.decode(agg(10), 300) == []
    assert decoder.repeated == {"aggTrade": 2}


def test_trades_that_never_stood_in_the_book_are_counted_and_left_out() -> None:
    data = {"e": "trade", "E": 3, "T": 2, "s": "BTCUSDT", "p": "27785.00", "q": "0.014", "m": True}
    decoder = BinanceDecoder("binance_um")
    assert len(decoder.decode(wrapped("btcusdt@trade", **data, t=1, X="MARKET"), 9)) == 1
    assert decoder.decode(wrapped("btcusdt@trade", **(data | {"p": "0", "q": "0"}), t=2, X="NA"), 9) == []
    assert len(decoder.decode(wrapped("btcusdt@trade", **data, t=3, X="MARKET"), 9)) == 1  # and no gap
    assert decoder.ignored == {"trade NA": 1}


def test_trades_beside_aggregate_trades_do_not_count_twice() -> None:
    decoder = BinanceDecoder("binance")
    decoder.decode(agg(10), 9)
    data = {"e": "trade", "E": 3, "T": 2, "s": "BTCUSDT", "p": "1", "q": "1", "m": True, "t": 77}
    assert decoder.decode(wrapped("btcusdt@trade", **data), 9) == []
    assert decoder.ignored == {"second stream trade": 1}


def test_usd_m_depth_follows_by_pu_from_the_snapshot_on() -> None:
    decoder = BinanceDecoder("binance_um")
    first = decoder.decode(depth(90, 100, 80, bids=[["1.5", "2"]]), 10)
    assert first == [BookUpdate("BTCUSDT", 1_000 * MS, 10, 100, [(1.5, 2.0)], [])]
    assert decoder.wants_snapshot == ["BTCUSDT"]
    body = '{"lastUpdateId":98,"E":1,"T":2,"bids":[["1.4","1"]],"asks":[["1.6","1"]]}'
    snapshot = decoder.decode_rest("https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000", body, 20)
    assert snapshot == [BookUpdate("BTCUSDT", 2 * MS, 20, 98, [(1.4, 1.0)], [(1.6, 1.0)], True)]
    assert decoder.wants_snapshot == []
    decoder.decode(depth(300, 310, 100), 30)
    assert decoder.wants_snapshot == []
    _, missed, same_for_quotes = decoder.decode(depth(320, 330, 315), 40)
    reason = "update 320-330 does not follow 310"
    assert missed == Gap("BTCUSDT", "book_deltas", 30, 40, reason, False)
    assert same_for_quotes.stream == "top_of_book"
    assert decoder.wants_snapshot == ["BTCUSDT"]
    assert decoder.finish(50)[0] == Gap("BTCUSDT", "book_deltas", 40, 50, reason, False)


def test_partial_depth_replaces_the_book_and_needs_the_stream_name_for_its_symbol() -> None:
    decoder = BinanceDecoder("binance")
    frame = wrapped("btcusdt@depth5@100ms", lastUpdateId=160, bids=[["0.0024", "10"]], asks=[["0.0026", "100"]])
    assert decoder.decode(frame, 9) == [BookUpdate("BTCUSDT", 9, 9, 160, [(0.0024, 10.0)], [(0.0026, 100.0)], True)]
    assert decoder.decode('{"lastUpdateId":161,"bids":[],"asks":[]}', 9) == []
    assert decoder.ignored == {"unknown": 1}


def test_mark_price_leaves_unknown_what_delivery_contracts_do_not_have() -> None:
    decoder = BinanceDecoder("binance_um")
    frame = wrapped(
        "btcusdt@markPrice@1s", e="markPriceUpdate", E=5, s="BTCUSDT", p="11794.15", i="11784.6", P="1", r="0.0003", T=6
    )
    assert decoder.decode(frame, 9) == [Mark("BTCUSDT", 5 * MS, 9, 11794.15, 11784.6, 0.0003, 6 * MS, None)]
    bare = wrapped("btcusd_200925@markPrice@1s", e="markPriceUpdate", E=5, s="BTCUSD_200925", p="9501.1", P="9429.3")
    assert BinanceDecoder("binance_cm").decode(bare, 9) == [
        Mark("BTCUSD_200925", 5 * MS, 9, 9501.1, None, None, None, None)
    ]


def test_all_market_streams_are_filtered_to_the_own_universe() -> None:
    rows = [{"e": "markPriceUpdate", "E": 5, "s": name, "p": "1", "st": st} for name, st in (("A", 1), ("B", 2))]
    frame = json.dumps({"stream": "!markPrice@arr@1s", "data": rows}, separators=(",", ":"))
    decoder = BinanceDecoder("binance_um")
    assert [event.symbol for event in decoder.decode(frame, 9)] == ["A"]
    assert [event.symbol for event in BinanceDecoder("binance_um").decode(json.dumps(rows), 9)] == ["A"]
    assert [event.symbol for event in BinanceDecoder("binance_cm").decode(frame, 9)] == ["B"]
    assert decoder.ignored == {"other universe": 1}


@pytest.mark.parametrize(("side", "liquidated"), [("SELL", "long"), ("BUY", "short")])
@pytest.mark.parametrize("stream", ["btcusdt@forceOrder", "!forceOrder@arr"])
def test_a_forced_sell_liquidates_a_long_at_the_average_price(stream: str, side: str, liquidated: str) -> None:
    order = {
        "s": "BTCUSDT",
        "S": side,
        "q": "0.9",
        "p": "9910",
        "ap": "9900",
        "X": "FILLED",
        "l": "0.1",
        "z": "0.4",
        "T": 3,
    }
    frame = wrapped(stream, e="forceOrder", E=5, o=order)
    assert BinanceDecoder("binance_um").decode(frame, 9) == [Liquidation("BTCUSDT", 3 * MS, 9, liquidated, 9900.0, 0.4)]


def test_spot_best_prices_get_the_time_that_other_streams_imply() -> None:
    decoder = BinanceDecoder("binance")
    quote = wrapped("btcusdt@bookTicker", u=1, s="BTCUSDT", b="1", B="1", a="2", A="1")
    late_ns = 40 * MS
    for ms in range(1_000, 2_000, 10):  # each trade arrives 40 ms after the venue's time, one in ten 5 ms later
        decoder.decode(agg(ms, T=ms), ms * MS + late_ns + (5 * MS if ms % 100 == 0 else 0))
    (event,) = decoder.decode(quote, 3_000 * MS)
    assert isinstance(event, Quote)
    assert (event.exch_ns, event.exch_assumed) == (3_000 * MS - late_ns, True)


def test_microseconds_are_told_from_milliseconds() -> None:
    (event,) = BinanceDecoder("binance").decode(agg(1, T=1_672_515_782_136_000), 9)
    assert event.exch_ns == 1_672_515_782_136 * MS


def test_acks_refusals_and_streams_of_no_table_give_no_events_and_are_counted() -> None:
    decoder = BinanceDecoder("binance_um")
    frames = [
        '{"result":null,"id":1}',
        wrapped("btcusdt@miniTicker", e="24hrMiniTicker", s="BTCUSDT"),
        '{"error":{"code":2,"msg":"no"},"id":1}',
    ]
    assert [decoder.decode(frame, 9) for frame in frames] == [[], [], []]
    assert decoder.ignored == {"ack": 1, "miniTicker": 1, "refused": 1}
    assert len(decoder.refused) == 1


def test_an_empty_side_gives_no_quote() -> None:
    decoder = BinanceDecoder("binance_um")
    assert decoder.decode(wrapped("x@bookTicker", u=1, T=1, s="X", b="0.0", B="0", a="2", A="1"), 9) == []
    assert decoder.ignored == {"one-sided bookTicker": 1}


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "{",
        "5",
        "nonsense",
        '{"stream":"btcusdt@aggTrade","data":null}',
        agg(1, p="nan"),
        agg(1, p="-1"),
        agg(1, p="0"),
        agg(1, q="inf"),
        agg(1, s="../../etc"),
        agg(1, T=10**18),
        agg(2**63),
        "\ud800",
    ],
)
def test_what_is_no_frame_of_its_stream_is_a_decode_error(frame: str) -> None:
    with pytest.raises(DecodeError):
        BinanceDecoder("binance_um").decode(frame, 9)


def test_a_frame_cut_short_anywhere_is_a_decode_error() -> None:
    frame = '{"stream":"xusdt@aggTrade","data":{"e":"aggTrade","E":2,"s":"XUSDT","a":1,"p":"2","q":"3","T":1,"m":true}}'
    for length in range(1, len(frame)):
        with pytest.raises(DecodeError):
            BinanceDecoder("binance_um").decode(frame[:length], 10)
