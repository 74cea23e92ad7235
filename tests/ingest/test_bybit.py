"""Bybit topics to events: the payloads of exchange_protocols.md section C.3, by hand."""

import json
from typing import Any

import pytest

from ingest.bybit import BybitDecoder
from ingest.events import BookUpdate, DecodeError, Gap, Liquidation, Mark, Quote, Trade

MS = 1_000_000


def topic(name: str, data: Any, kind: str = "snapshot", **more: Any) -> str:
    return json.dumps({"topic": name, "type": kind, "ts": 5, "data": data} | more, separators=(",", ":"))


def book(update_id: int, bids: Any = (), asks: Any = (), kind: str = "delta", depth: int = 50) -> str:
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": update_id, "seq": 1}
    return topic(f"orderbook.{depth}.BTCUSDT", data, kind, cts=4)


def test_a_book_starts_from_its_snapshot_and_follows_one_by_one() -> None:
    decoder = BybitDecoder("bybit")
    first = decoder.decode(book(10, [["1.5", "2"]], [["1.6", "3"]], "snapshot"), 100)
    assert first == [BookUpdate("BTCUSDT", 4 * MS, 100, 10, [(1.5, 2.0)], [(1.6, 3.0)], True)]
    assert decoder.decode(book(11, [["1.5", "0"]]), 200) == [BookUpdate("BTCUSDT", 4 * MS, 200, 11, [(1.5, 0.0)], [])]
    reason = "update 13-13 does not follow 11"
    assert decoder.decode(book(13), 300)[1] == Gap("BTCUSDT", "book_deltas", 200, 300, reason, False)
    assert decoder.wants_snapshot == ["BTCUSDT"]
    update, *gaps = decoder.decode(book(1, [["1", "1"]], [["2", "1"]]), 400)  # u = 1: they restarted
    assert isinstance(update, BookUpdate)
    assert update.is_snapshot
    assert gaps[0] == Gap("BTCUSDT", "book_deltas", 300, 400, reason, True)
    assert decoder.wants_snapshot == []


def test_depth_one_gives_best_prices_and_its_repeats_none() -> None:
    decoder = BybitDecoder("bybit")
    frame = book(7, [["1.5", "2"]], [["1.6", "3"]], "snapshot", depth=1)
    assert decoder.decode(frame, 9) == [Quote("BTCUSDT", 4 * MS, 9, 7, 1.5, 2.0, 1.6, 3.0)]
    assert decoder.decode(frame, 10) == []
    assert decoder.repeated == {"orderbook.1": 1}
    (quote,) = decoder.decode(book(8, [["1.5", "0"], ["1.4", "9"]], [], "delta", depth=1), 11)  # until 2023
    assert quote == Quote("BTCUSDT", 4 * MS, 11, 8, 1.4, 9.0, 1.6, 3.0)
    assert [type(event) for event in decoder.decode(book(10, [["1.4", "8"]], [], "delta", depth=1), 12)] == [Gap]
    assert decoder.decode(book(11, [["1.4", "8"]], [], "delta", depth=1), 13) == []


def test_a_delta_of_depth_one_that_does_not_follow_is_a_gap_until_the_next_snapshot() -> None:
    """As in the dumps of until 2023."""

    def best(number: int, kind: str) -> str:
        data = {"s": "XUSDT", "b": [["9", str(number)]], "a": [["10", "1"]], "u": number, "seq": 1}
        return topic("orderbook.1.XUSDT", data, kind=kind, cts=number)

    decoder = BybitDecoder("bybit")
    frames = [(1, "snapshot"), (2, "delta"), (4, "delta"), (5, "delta"), (7, "snapshot"), (8, "delta"), (11, "delta")]
    events = [event for number, kind in frames for event in decoder.decode(best(number, kind), 10 * number)]
    assert [event.update_id for event in events if isinstance(event, Quote)] == [1, 2, 7, 8]
    assert [event for event in events if isinstance(event, Gap)] == [
        Gap("XUSDT", "top_of_book", 20, 40, "update 4 does not follow 2", False),
        Gap("XUSDT", "top_of_book", 40, 70, "no snapshot of the best prices", False),
        Gap("XUSDT", "top_of_book", 80, 110, "update 11 does not follow 8", False),
    ]
    assert decoder.finish(120) == [Gap("XUSDT", "top_of_book", 110, 120, "no snapshot of the best prices", False)]
    assert decoder.ignored["orderbook.1 delta that does not follow"] == 3


def test_best_prices_that_are_counted_from_1_again_are_a_gap_and_what_is_sent_again_is_none() -> None:
    def best(number: int, cts: int) -> str:
        return topic(
            "orderbook.1.XUSDT", {"s": "XUSDT", "b": [["9", "1"]], "a": [["10", "1"]], "u": number, "seq": 1}, cts=cts
        )

    decoder = BybitDecoder("bybit")
    sent = [(1, 10), (1, 10), (1, 300), (2, 310), (1, 320), (1, 320), (2, 330), (1, 320)]  # the last one is late
    events = [decoder.decode(best(*each), place) for place, each in enumerate(sent)]
    assert [[type(event) for event in told] for told in events] == [
        [Quote], [], [Gap, Quote], [Quote], [Gap, Quote], [], [Quote], []
    ]  # fmt: skip
    gap = events[2][0]
    assert isinstance(gap, Gap)
    assert (gap.from_ns, gap.to_ns, gap.reason) == (0, 2, "update ids begin anew: 1 after 1")


def test_a_second_book_depth_is_left_out() -> None:
    decoder = BybitDecoder("bybit")
    decoder.decode(book(10, [["1", "1"]], [["2", "1"]], "snapshot"), 9)
    assert decoder.decode(book(10, [["1", "1"]], [["2", "1"]], "snapshot", depth=200), 9) == []
    assert decoder.ignored == {"second book orderbook.200": 1}


def test_trades_carry_the_takers_side_and_block_trades_are_left_out() -> None:
    row = {"T": 3, "s": "BTCUSDT", "S": "Buy", "v": "0.001", "p": "16578.50", "i": "20f4", "BT": False, "RPI": True}
    decoder = BybitDecoder("bybit")
    rows = [row, row | {"S": "Sell", "i": "20f5"}, row | {"BT": True}]
    assert decoder.decode(topic("publicTrade.BTCUSDT", rows), 9) == [
        Trade("BTCUSDT", 3 * MS, 9, "20f4", 16578.5, 0.001, "buy"),
        Trade("BTCUSDT", 3 * MS, 9, "20f5", 16578.5, 0.001, "sell"),
    ]
    assert decoder.ignored == {"block trade": 1}


def test_ticker_deltas_keep_what_they_leave_out_and_open_interest_is_halved() -> None:
    decoder = BybitDecoder("bybit")
    assert decoder.decode(topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "markPrice": "1"}, "delta"), 8) == []
    whole = {
        "symbol": "BTCUSDT",
        "markPrice": "66666.60",
        "indexPrice": "66660",
        "openInterest": "300",
        "fundingRate": "-0.005",
    }
    frame = topic("tickers.BTCUSDT", whole | {"nextFundingTime": "1760342400000"})
    next_ns = 1760342400000 * MS
    assert decoder.decode(frame, 9) == [Mark("BTCUSDT", 5 * MS, 9, 66666.6, 66660.0, -0.005, next_ns, 150.0)]
    delta = topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "markPrice": "66667"}, "delta")
    assert decoder.decode(delta, 10) == [Mark("BTCUSDT", 5 * MS, 10, 66667.0, 66660.0, -0.005, next_ns, 150.0)]
    single = topic(
        "tickers.BTCUSDT", {"symbol": "BTCUSDT", "openInterest": "400", "singleOpenInterest": "201"}, "delta"
    )
    (mark,) = decoder.decode(single, 11)
    assert isinstance(mark, Mark)
    assert mark.open_interest == 201.0


def test_after_an_interruption_a_ticker_delta_has_nothing_to_stand_on() -> None:
    decoder = BybitDecoder("bybit")
    decoder.decode(topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "markPrice": "1"}), 9)
    decoder.interrupted(10)
    assert decoder.decode(topic("tickers.BTCUSDT", {"symbol": "BTCUSDT"}, "delta"), 11) == []


@pytest.mark.parametrize(("side", "liquidated"), [("Buy", "long"), ("Sell", "short")])
def test_the_side_of_a_liquidation_is_the_positions(side: str, liquidated: str) -> None:
    rows = [{"T": 3, "s": "ROSEUSDT", "S": side, "v": "20000", "p": "0.04499"}]
    events = BybitDecoder("bybit").decode(topic("allLiquidation.ROSEUSDT", rows), 9)
    assert events == [Liquidation("ROSEUSDT", 3 * MS, 9, liquidated, 0.04499, 20000.0)]


def test_keys_may_come_in_any_order() -> None:
    rows = [{"T": 3, "s": "ROSEUSDT", "S": "Buy", "v": "20000", "p": "0.04499"}]
    frame = json.dumps({"data": rows, "ts": 5, "topic": "allLiquidation.ROSEUSDT", "type": "snapshot"})
    assert len(BybitDecoder("bybit").decode(frame, 9)) == 1


def test_acks_pongs_refusals_and_topics_of_no_table_give_no_events_and_are_counted() -> None:
    decoder = BybitDecoder("bybit_spot")
    frames = [
        '{"success":true,"ret_msg":"","op":"subscribe"}',
        '{"success":true,"ret_msg":"pong","op":"ping"}',
        '{"success":false,"ret_msg":"error:already subscribed","op":"subscribe"}',
        topic("lt.BTC3LUSDT", []),
        topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "lastPrice": "1"}),
    ]
    assert [decoder.decode(frame, 9) for frame in frames] == [[]] * 5
    assert decoder.ignored == {"ack": 2, "refused": 1, "lt": 1, "tickers": 1}
    assert len(decoder.refused) == 1


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "[]",
        book(1, [["nan", "1"]], kind="snapshot"),
        book(1, [["1"]], kind="snapshot"),
        book(1, kind="other"),
        topic("publicTrade.BTCUSDT", [{"T": 3, "s": "a/b", "S": "Buy", "v": "1", "p": "1", "i": "x"}]),
        topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "markPrice": "inf"}),
        topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "markPrice": "1", "nextFundingTime": "never"}),
    ],
)
def test_what_is_no_frame_of_its_topic_is_a_decode_error(frame: str) -> None:
    with pytest.raises(DecodeError):
        BybitDecoder("bybit").decode(frame, 9)


def test_best_prices_that_a_new_subscription_repeats_are_no_row_again() -> None:
    decoder = BybitDecoder("bybit")
    same, later = (
        topic("orderbook.1.XUSDT", {"s": "XUSDT", "b": [["9", "1"]], "a": [["10", "1"]], "u": number, "seq": 1}, cts=1)
        for number in (7, 8)
    )
    assert len(decoder.decode(same, 10)) == 1
    decoder.interrupted(20)
    assert decoder.decode(same, 30) == []
    assert len(decoder.decode(later, 40)) == 1
    assert decoder.repeated == {"orderbook.1": 1}


def test_a_frame_cut_short_anywhere_is_a_decode_error() -> None:
    frame = topic("publicTrade.XUSDT", [{"s": "XUSDT", "T": 1, "S": "Buy", "v": "1", "p": "2", "i": "a"}])
    for length in range(1, len(frame)):
        with pytest.raises(DecodeError):
            BybitDecoder("bybit").decode(frame[:length], 10)


@pytest.mark.parametrize(("number", "told"), [(8, 0), (9, 1), (1, 1)])
def test_a_snapshot_that_skips_updates_is_a_gap_that_is_mended(number: int, told: int) -> None:
    decoder = BybitDecoder("bybit")
    decoder.decode(book(7, [["9", "1"]], [["10", "1"]], "snapshot"), 10)
    later = topic(
        "orderbook.50.BTCUSDT", {"s": "BTCUSDT", "b": [], "a": [["10", "2"]], "u": number, "seq": 1}, cts=9_000
    )
    gaps = [event for event in decoder.decode(later, 20) if isinstance(event, Gap)]
    assert [(gap.stream, gap.from_ns, gap.to_ns, gap.mended) for gap in gaps] == [("book_deltas", 10, 20, True)] * told
