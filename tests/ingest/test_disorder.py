"""Frames that a server drops, doubles, reorders or sends on two connections: no row twice, no hole without a gap."""

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.binance import BinanceDecoder
from ingest.book import Ladder
from ingest.bybit import BybitDecoder
from ingest.events import BookUpdate, Event, Gap, Kline, Liquidation, Mark, Quote, Trade, TradeHole
from ingest.venues import Decoder

MS, S = 1_000_000, 1_000_000_000
DEPTH_URL = "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000"
TRADES_URL = "https://fapi.binance.com/fapi/v1/aggTrades?symbol=BTCUSDT&fromId={}&limit=1000"


def wrapped(stream: str, **data: Any) -> str:
    return json.dumps({"stream": f"btcusdt@{stream}", "data": {"s": "BTCUSDT"} | data}, separators=(",", ":"))


def topic(name: str, data: Any, ts: int, kind: str = "snapshot") -> str:
    return json.dumps({"topic": name, "type": kind, "ts": ts, "data": data, "cts": ts}, separators=(",", ":"))


def agg(number: int, ms: int | None = None) -> str:
    return wrapped("aggTrade", a=number, p="1", q="1", T=number if ms is None else ms, m=True)


def ticker(number: int, ms: int | None = None) -> str:
    return wrapped("bookTicker", u=number, b="1", B="1", a="2", A="1", T=number if ms is None else ms)


def top(number: int, ts: int | None = None) -> str:
    data = {"s": "BTCUSDT", "b": [["1", "1"]], "a": [["2", "1"]], "u": number}
    return topic("orderbook.1.BTCUSDT", data, number if ts is None else ts)


def change(first: int, last: int, prev: int, bids: Any = (), ms: int | None = None) -> str:
    time = last if ms is None else ms
    return wrapped("depth@100ms", U=first, u=last, pu=prev, E=time, T=time, b=bids, a=[])


def delta(number: int, bids: Any = (), kind: str = "delta", ts: int | None = None) -> str:
    data = {"s": "BTCUSDT", "b": bids, "a": [], "u": number}
    return topic("orderbook.50.BTCUSDT", data, number if ts is None else ts, kind)


def play(decoder: Decoder, frames: list[str], step_ns: int = MS) -> list[Event]:
    return [event for k, frame in enumerate(frames) for event in decoder.decode(frame, (1_000 + k) * step_ns)]


@st.composite
def disorder(draw: st.DrawFn) -> list[int]:
    """Numbers from 1 on as a bad server sends them: some lost, some doubled, some a few places late."""
    count = draw(st.integers(3, 30))
    sent = [number for number in range(1, count + 1) if number in (1, count) or draw(st.integers(0, 5))]
    sent = [number for number in sent for _ in range(draw(st.sampled_from([1, 1, 1, 2])))]
    order = sorted(range(len(sent)), key=lambda place: place + draw(st.sampled_from([0, 0, 0, 2.5, 4.5])))
    return [sent[place] for place in order]


@given(disorder())
def test_each_trade_is_one_row_or_inside_a_gap(numbers: list[int]) -> None:
    decoder = BinanceDecoder("binance_um")
    events = play(decoder, [agg(number) for number in numbers])
    rows = [int(event.trade_id) for event in events if isinstance(event, Trade)]
    assert len(rows) == len(set(rows))
    assert set(rows) == {number for number in numbers if number >= numbers[0]}
    holes = [number for number in range(numbers[0], max(numbers)) if number not in numbers]
    gaps = [gap for gap in events if isinstance(gap, Gap)]
    told = {n for gap in gaps for n in range(int(gap.reason.split()[1]) + 1, int(gap.reason.split()[-1]))}
    assert set(holes) <= told
    assert len(rows) + sum(decoder.repeated.values()) == len(numbers)


@given(disorder())
def test_a_refill_brings_what_is_missing_and_doubles_nothing(numbers: list[int]) -> None:
    decoder = BinanceDecoder("binance_um")
    decoder.refills = True
    events = play(decoder, [agg(number) for number in numbers])
    holes = [(event.from_ns, event.to_ns) for event in events if isinstance(event, Gap)]
    assert holes == [(hole.from_ns, hole.to_ns) for hole in decoder.missed]  # told at once
    body = [{"a": n, "p": "1", "q": "1", "T": n, "m": True} for n in range(max(numbers) + 5)]
    for hole in decoder.missed:
        assert hole.from_ns < hole.to_ns
        page = json.dumps([row for row in body if row["a"] >= hole.first_id])
        refilled = decoder.decode_rest(TRADES_URL.format(hole.first_id), page, 9 * S)
        for trade in refilled:
            assert isinstance(trade, Trade)
            assert trade.recv_assumed
        events += refilled
    rows = [int(event.trade_id) for event in events if isinstance(event, Trade)]
    assert sorted(rows) == list(range(numbers[0], max(numbers) + 1))


def test_a_hole_says_which_ids_and_when_and_the_refill_lies_in_it() -> None:
    decoder = BinanceDecoder("binance_um")
    decoder.refills = True
    decoder.decode(agg(1, 1_000), 1_040 * MS)
    decoder.decode(agg(2, 1_001), 1_041 * MS)
    told, _ = decoder.decode(agg(6, 1_100), 1_140 * MS)
    assert told == Gap("BTCUSDT", "trades", 1_041 * MS, 1_140 * MS, "aggTrade 2 is followed by 6", False)
    assert decoder.missed == [TradeHole("BTCUSDT", 3, 5, 1_041 * MS, 1_140 * MS)]
    rows = [
        {"a": n, "p": "1", "q": "2", "T": ms, "m": False} for n, ms in ((3, 1_050), (4, 900), (5, 1_109), (6, 1_110))
    ]
    trades = decoder.decode_rest(TRADES_URL.format(3), json.dumps(rows), 5 * S)
    assert [(trade.trade_id, trade.recv_ns // MS) for trade in trades if isinstance(trade, Trade)] == [
        ("3", 1_090),  # 40 ms after the venue's time, as those before it
        ("4", 1_041),
        ("5", 1_140),
    ]
    assert decoder.decode(agg(4, 900), 6 * S) == []


def test_a_jump_beyond_reason_is_a_gap_and_not_a_refill_and_the_stream_lives_on() -> None:
    decoder = BinanceDecoder("binance_um")
    decoder.refills = True
    decoder.decode(agg(1, 1_000), 1_000 * MS)
    gap, _ = decoder.decode(agg(10**15, 1_001), 1_001 * MS)
    assert isinstance(gap, Gap)
    assert decoder.missed == []
    later = [decoder.decode(agg(number, 1_001 + 400 * number), (1_001 + 400 * number) * MS) for number in range(2, 10)]
    assert [event.trade_id for events in later for event in events if isinstance(event, Trade)] == [*"23456789"]


@pytest.mark.parametrize(("decoder", "frame"), [(BinanceDecoder("binance_um"), ticker), (BybitDecoder("bybit"), top)])
@given(numbers=disorder())
def test_best_prices_never_go_back(decoder: Decoder, frame: Callable[[int], str], numbers: list[int]) -> None:
    fresh = type(decoder)(decoder.venue)  # type: ignore[call-arg,attr-defined]
    events = play(fresh, [frame(number) for number in numbers])
    ids = [event.update_id for event in events if isinstance(event, Quote)]
    assert ids == [n for k, n in enumerate(numbers) if n > max(numbers[:k], default=0)]
    assert len(ids) + sum(fresh.repeated.values()) == len(numbers)


def test_a_venue_that_counts_anew_is_followed_and_told() -> None:
    um, bybit, spot = BinanceDecoder("binance_um"), BybitDecoder("bybit"), BinanceDecoder("binance")
    um.decode(ticker(900, 5_000), S)
    gap, quote = um.decode(ticker(3, 60_000), 56 * S)
    assert isinstance(gap, Gap)
    assert isinstance(quote, Quote)
    assert (gap.stream, gap.from_ns, gap.to_ns) == ("top_of_book", S, 56 * S)
    bybit.decode(top(900, 5_000), S)
    assert [type(event) for event in bybit.decode(top(1, 60_000), 56 * S)] == [Gap, Quote]
    timeless = json.loads(ticker(900))
    del timeless["data"]["T"]
    spot.decode(json.dumps(timeless), S)
    timeless["data"]["u"] = 3
    assert spot.decode(json.dumps(timeless), 9 * S) == []  # spot gives no time: it may still be late
    assert [type(event) for event in spot.decode(json.dumps(timeless), 12 * S)] == [Gap, Quote]
    um.decode(agg(900, 5_000), 57 * S)
    assert [type(event) for event in um.decode(agg(3, 60_000), 58 * S)] == [Gap, Trade]
    assert len(um.decode(agg(4, 60_001), 59 * S)) == 1


FIRST = 10  # Bybit's update 1 is a snapshot whatever it is called
LEVELS = st.lists(st.tuples(st.integers(1, 9).map(str), st.integers(0, 3).map(str)), max_size=4)


@given(disorder(), st.data())
def test_a_book_is_right_or_asks_for_a_snapshot(numbers: list[int], data: st.DataObject) -> None:
    """Whatever comes in whatever order: at its update id the book is what the changes up to there make."""
    changes = [data.draw(LEVELS) for _ in range(max(numbers) + 1)]
    um, bybit = BinanceDecoder("binance_um", keep_levels=True), BybitDecoder("bybit", keep_levels=True)
    um.decode_rest(DEPTH_URL, '{"lastUpdateId":0,"bids":[],"asks":[]}', 1)
    bybit.decode(delta(FIRST, kind="snapshot"), 1)
    for k, number in enumerate(numbers):
        frames = change(number, number, number - 1, changes[number]), delta(FIRST + number, changes[number])
        for decoder, frame, first in zip((um, bybit), frames, (0, FIRST), strict=True):
            updates = [event for event in decoder.decode(frame, 1_000 + k) if isinstance(event, BookUpdate)]
            book = decoder.books["BTCUSDT"].book
            slow = Ladder()
            for levels in changes[1 : (book.update_id or 0) - first + 1]:
                slow.put([(float(price), float(qty)) for price, qty in levels])
            assert book.update_id is None or book.bids.qty_at == slow.qty_at
            assert (decoder.wants_snapshot == ["BTCUSDT"]) is (book.update_id is None)
            assert len(updates) == (number > max(numbers[:k], default=0))
    broken = any(b > a + 1 for a, b in pairwise(sorted(set(numbers)))) or [*dict.fromkeys(numbers)] != sorted(
        set(numbers)
    )
    assert bool(um.finish(9_000)) is bool(bybit.finish(9_000)) is broken


@given(st.lists(st.booleans(), min_size=1, max_size=40), st.integers(0, 3))
def test_two_connections_that_overlap_lose_nothing_and_double_nothing(turns: list[bool], lag: int) -> None:
    """Both carry the same streams; depth is cut elsewhere on the second: into steps of 2 ids where the first has 1."""
    um, bybit = BinanceDecoder("binance_um"), BybitDecoder("bybit")
    um.decode_rest(DEPTH_URL, '{"lastUpdateId":0,"bids":[],"asks":[]}', 1)
    bybit.decode(delta(0, kind="snapshot"), 1)
    sent, events, deltas, now_ns = [0, -lag], list[Event](), list[Event](), 1_000
    for turn in [*turns, *[False, True] * (max(lag, 1) + len(turns))]:
        now_ns += 1
        n = sent[turn] = sent[turn] + 1
        if n < 1:
            continue
        frames = [ticker(n), agg(n)]
        frames += [change(2 * n - 1, 2 * n, 2 * n - 2)] if turn else [change(2 * n - 1, 2 * n - 1, 2 * n - 2)]
        if not turn:
            frames += [change(2 * n, 2 * n, 2 * n - 1)]
        for frame in frames:
            events += um.decode(frame, now_ns)
        deltas += bybit.decode(delta(n), now_ns)
    assert not um.wants_snapshot + bybit.wants_snapshot
    every = list(range(1, max(sent) + 1))
    assert [int(event.trade_id) for event in events if isinstance(event, Trade)] == every
    assert [event.update_id for event in events if isinstance(event, Quote)] == every
    assert [event.update_id for event in deltas if isinstance(event, BookUpdate)] == every
    ids = [event.update_id for event in events if isinstance(event, BookUpdate)]
    assert ids == sorted(set(ids))
    assert ids[-1] == 2 * max(sent)
    assert not [event for event in [*events, *deltas] if isinstance(event, Gap)]


def test_bybit_trades_liquidations_tickers_and_candles_come_once() -> None:
    trade = {"T": 3, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2", "i": "20f4"}
    forced = {"T": 3, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "2"}
    candle = {"start": 0, "end": 59_999, "interval": "1", "open": "1", "close": "2", "high": "3", "low": "1"}
    candle |= {"volume": "5", "turnover": "6", "confirm": True}
    frames = [
        topic("publicTrade.BTCUSDT", [trade, trade | {"i": "20f5"}], 5),
        topic("allLiquidation.BTCUSDT", [forced, forced], 5),  # two positions of one size
        topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "markPrice": "1"}, 5),
        topic("tickers.BTCUSDT", {"symbol": "BTCUSDT", "markPrice": "2"}, 6, "delta"),
        topic("kline.1.BTCUSDT", [candle], 60_000),
        topic("kline.1.BTCUSDT", [candle | {"start": 60_000, "end": 119_999, "confirm": False}], 61_000),
    ]
    decoder = BybitDecoder("bybit")
    events = play(decoder, frames)
    assert [type(event) for event in events] == [Trade, Trade, Liquidation, Liquidation, Mark, Mark, Kline]
    assert play(decoder, frames) == []
    assert decoder.repeated == {"publicTrade": 2, "allLiquidation": 2, "tickers": 2, "kline": 1}
    assert decoder.ignored == {"open candle": 2}


def test_binance_marks_liquidations_and_candles_come_once() -> None:
    order = {"s": "BTCUSDT", "S": "SELL", "q": "1", "p": "9", "ap": "9", "z": "1", "T": 3}
    candle = {"t": 0, "T": 59_999, "i": "1m", "o": "1", "c": "2", "h": "3", "l": "1", "v": "5", "n": 7, "x": True}
    candle |= {"q": "6", "V": "2", "Q": "3"}
    frames = [
        wrapped("markPrice@1s", E=5, p="1"),
        wrapped("forceOrder", o=order),
        wrapped("kline_1m", E=60_000, k=candle),
        wrapped("kline_1m", E=60_000, k=candle | {"x": False}),
    ]
    decoder = BinanceDecoder("binance_um")
    assert [type(event) for event in play(decoder, frames)] == [Mark, Liquidation, Kline]
    assert play(decoder, frames) == []
    assert decoder.repeated == {"markPrice": 1, "forceOrder": 1, "kline": 1}


@pytest.mark.parametrize(
    ("venue", "expected"),
    [("binance_um", (5.0, 6.0, 2.0, 3.0)), ("binance_cm", (6.0, 500.0, 3.0, 200.0))],
)
def test_a_candle_is_half_open_and_counts_base_and_quote(venue: Any, expected: tuple[float, ...]) -> None:
    """COIN-M writes contracts, of 100 USD for BTC, in the place of the base quantity and that in the place of quote."""
    candle = {"t": 0, "T": 59_999, "i": "1m", "o": "1", "c": "2", "h": "3", "l": "0.5", "v": "5", "n": 7, "x": True}
    candle |= {"q": "6", "V": "2", "Q": "3"}
    frame = wrapped("kline_1m", E=60_000, k=candle).replace("BTCUSDT", "BTCUSD_PERP")
    (row,) = BinanceDecoder(venue).decode(frame, 9)
    assert isinstance(row, Kline)
    assert (row.open_ns, row.close_ns, row.interval, row.trade_count) == (0, 60 * S, "1m", 7)
    assert (row.open_price, row.high_price, row.low_price, row.close_price) == (1.0, 3.0, 0.5, 2.0)
    assert (row.qty, row.usd, row.taker_buy_qty, row.taker_buy_usd) == expected


def test_a_rest_snapshot_from_before_the_stream_is_not_used_and_another_is_wanted() -> None:
    decoder = BinanceDecoder("binance_um")
    decoder.decode(change(20, 21, 19), 100)
    assert decoder.decode_rest(DEPTH_URL, '{"lastUpdateId":10,"bids":[],"asks":[]}', 200) == []
    assert decoder.wants_snapshot == ["BTCUSDT"]
    assert len(decoder.decode_rest(DEPTH_URL, '{"lastUpdateId":20,"bids":[],"asks":[]}', 300)) == 1
    assert decoder.wants_snapshot == []
    assert decoder.decode_rest(DEPTH_URL, '{"lastUpdateId":15,"bids":[],"asks":[]}', 400) == []  # the book is beyond
    assert decoder.wants_snapshot == []
    assert decoder.ignored == {"depth snapshot older than the stream": 2}


def test_a_bybit_book_starts_anew_at_one_and_a_late_snapshot_does_not_move_it() -> None:
    decoder = BybitDecoder("bybit", keep_levels=True)
    decoder.decode(delta(500, [["5", "1"]], "snapshot", ts=100), 100)
    decoder.decode(delta(501, [["5", "2"]], ts=101), 101)
    assert decoder.decode(delta(500, [["5", "1"]], "snapshot", ts=100), 102) == []
    assert decoder.books["BTCUSDT"].book.bids.qty_at == {5.0: 2.0}
    update, gap = decoder.decode(delta(1, [["4", "1"]], "snapshot", ts=900), 900)
    assert isinstance(update, BookUpdate)
    assert gap == Gap("BTCUSDT", "book_deltas", 101, 900, "a snapshot with update id 1 after 501", True)
    assert decoder.books["BTCUSDT"].book.bids.qty_at == {4.0: 1.0}
    decoder.decode(delta(1, [["3", "1"]], "snapshot", ts=950), 950)  # and once more
    assert decoder.books["BTCUSDT"].book.bids.qty_at == {3.0: 1.0}


def test_deltas_of_a_restarted_venue_without_their_snapshot_break_the_book() -> None:
    decoder = BybitDecoder("bybit")
    decoder.decode(delta(500, kind="snapshot", ts=100), S)
    gaps = [event for u in (2, 3) for event in decoder.decode(delta(u, ts=5_000 + u), 6 * S) if isinstance(event, Gap)]
    assert decoder.wants_snapshot == ["BTCUSDT"]
    reason = "update ids fell from 500 to 2"
    assert gaps[0] == Gap("BTCUSDT", "book_deltas", S, 6 * S, reason, False)
    assert decoder.finish(7 * S)[0] == Gap("BTCUSDT", "book_deltas", 6 * S, 7 * S, reason, False)


@pytest.mark.parametrize(
    ("decoder", "good", "cut", "stream", "mended"),
    [
        (BinanceDecoder("binance_um"), ticker(1), 60, "top_of_book", False),
        (BinanceDecoder("binance_um"), agg(1), 60, "trades", True),
        (BinanceDecoder("binance_um"), change(1, 2, 0), 60, "book_deltas", True),
        (BybitDecoder("bybit"), top(1), 60, "top_of_book", False),
        (BybitDecoder("bybit"), delta(1, kind="snapshot"), 60, "book_deltas", True),
    ],
)
def test_a_frame_that_does_not_decode_is_a_gap_of_its_own_stream(decoder, good, cut, stream, mended) -> None:
    decoder.decode(good, 100)
    told = Gap("BTCUSDT", stream, 100, 900, "frame did not decode: cut", mended)
    assert decoder.gap_of(good[:cut], 900, "cut") == decoder.gap_of(good[:cut].encode(), 900, "cut") == [told]
    assert decoder.gap_of(good[:14], 900, "cut") == []
    assert decoder.gap_of(good[:cut].replace("BTC", "BXC").replace("btc", "bxc"), 900, "cut") == []
    assert decoder.gap_of(b"\xff\xfe", 900, "cut") == []


def test_a_broken_liquidation_is_a_second_of_doubt_and_not_the_hours_since_the_last_one() -> None:
    decoder = BinanceDecoder("binance_um")
    decoder.decode(agg(1), S)
    (gap,) = decoder.gap_of('{"stream":"btcusdt@forceOrder","data":{', 7_200 * S, "cut")
    assert (gap.stream, gap.from_ns, gap.to_ns) == ("liquidations", 7_199 * S, 7_200 * S)


def test_tickers_are_not_known_after_a_delta_was_lost_until_the_next_snapshot() -> None:
    decoder = BybitDecoder("bybit")

    def tickers(kind: str, ts: int, **fields: str) -> bytes:
        data = ",".join(f'"{name}":"{value}"' for name, value in {"symbol": "BTCUSDT", **fields}.items())
        return f'{{"topic":"tickers.BTCUSDT","type":"{kind}","ts":{ts},"data":{{{data}}}}}'.encode()

    assert decoder.decode(tickers("snapshot", 1_000, markPrice="100", fundingRate="0.0001"), S)
    lost = tickers("delta", 1_100, fundingRate="-0.005")[:-9]
    assert [gap.stream for gap in decoder.gap_of(lost, 2 * S, "cut")] == ["mark_prices"]
    assert decoder.decode(tickers("delta", 1_200, markPrice="101"), 3 * S) == []
    (mark,) = decoder.decode(tickers("snapshot", 1_300, markPrice="101", fundingRate="-0.005"), 4 * S)
    assert (mark.mark_price, mark.funding_rate) == (101.0, -0.005)
