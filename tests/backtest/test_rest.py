"""REST answers of the simulated venues, to the key (exchange_protocols.md A.5, A.6, C.4)."""

import functools
import json
from typing import Any

import msgspec
import numpy as np
import pytest

from backtest.market.exchange import Exchange
from backtest.market.rest import respond
from backtest.market.simulate import Market
from backtest.market.tape import TRADE, Rows
from core.config import Sim
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_MS, NS_PER_S

MINUTES = 4
FUTURES = (
    "openInterestHist", "globalLongShortAccountRatio", "topLongShortAccountRatio", "topLongShortPositionRatio",
    "takerlongshortRatio", "basis",
)  # fmt: skip


@functools.cache
def market() -> tuple[Exchange, int, Rows]:
    """An exchange in its last chunk of some, the present in it, and all Binance trades until then."""
    made = Market(Sim(start="2026-01-05T07:57:30Z"), ("binance_um:BTCUSDT", "bybit:BTCUSDT"), 3)
    chunks = [made.chunk(1.0) for _ in range(MINUTES)]
    exchange = Exchange(iter(chunks))
    end_ns = exchange.start_ns
    for _ in chunks:
        end_ns = exchange.edge(end_ns) or 0
    now_ns = end_ns - 15 * NS_PER_S
    trades = np.concatenate([chunk[0].trades for chunk in chunks])
    return exchange, now_ns, trades[trades["recv_ns"] < now_ns]


def get(target: str) -> Any:
    status, body = respond(market()[0], target, market()[1])
    assert status == 200, body
    return json.loads(msgspec.json.encode(body))


def result(target: str) -> Any:
    answer = get(target)
    assert (answer["retCode"], answer["retMsg"], answer["retExtInfo"]) == (0, "OK", {})
    return answer["result"]


def refusal(target: str) -> int:
    status, body = respond(market()[0], target, market()[1])
    assert isinstance(body, dict)
    assert status == (200 if target.startswith("/v5") else 400)
    return int(body.get("retCode", body.get("code")))


def test_trades_are_found_by_id_and_by_time_over_all_chunks() -> None:
    trades = market()[2]
    by_id = get(f"/fapi/v1/aggTrades?symbol=BTCUSDT&fromId={trades['trade_id'][7]}&limit=1000")
    assert [row["a"] for row in by_id] == trades["trade_id"][7:].tolist()
    assert [float(row["p"]) for row in by_id] == trades["price"][7:].tolist()
    from_ns, to_ns = trades["exch_ns"][5], trades["exch_ns"][40]
    span = f"startTime={from_ns // NS_PER_MS}&endTime={to_ns // NS_PER_MS}"
    wanted = trades[(trades["exch_ns"] >= from_ns) & (trades["exch_ns"] <= to_ns)]["trade_id"].tolist()
    assert [row["a"] for row in get(f"/fapi/v1/aggTrades?symbol=BTCUSDT&{span}&limit=1000")] == wanted
    assert [row["a"] for row in get(f"/fapi/v1/aggTrades?symbol=BTCUSDT&{span}&limit=3")] == wanted[:3]
    assert [row["a"] for row in get("/fapi/v1/aggTrades?symbol=BTCUSDT&limit=3")] == trades["trade_id"][-3:].tolist()


def test_recent_trades_of_bybit_are_newest_first() -> None:
    rows = result("/v5/market/recent-trade?category=linear&symbol=BTCUSDT&limit=5")["list"]
    assert set(rows[0]) == {"execId", "symbol", "price", "size", "side", "time", "isBlockTrade", "isRPITrade", "seq"}
    assert [int(row["time"]) for row in rows] == sorted((int(row["time"]) for row in rows), reverse=True)


def test_candles_are_those_of_the_trades() -> None:
    trades, now_ns = market()[2], market()[1]
    rows = get("/fapi/v1/klines?symbol=BTCUSDT&interval=1m")
    assert [row[0] for row in rows] == sorted({int(at // NS_PER_MINUTE) * 60_000 for at in trades["exch_ns"]})
    last = trades[trades["exch_ns"] >= rows[-1][0] * NS_PER_MS]
    assert (float(rows[-1][4]), rows[-1][8]) == (last["price"][-1], last.size)
    assert rows[-1][6] > now_ns // NS_PER_MS
    newest = result("/v5/market/kline?category=linear&symbol=BTCUSDT&interval=1&limit=2")["list"]
    assert [int(row[0]) for row in newest] == [row[0] for row in rows[:-3:-1]]


@pytest.mark.parametrize("name", FUTURES)
def test_positioning_series_end_now_and_go_back_thirty_days(name: str) -> None:
    now_ns = market()[1]
    asked = f"/futures/data/{name}?symbol=BTCUSDT&pair=BTCUSDT&contractType=PERPETUAL&period=5m"
    latest = [row["timestamp"] for row in get(f"{asked}&limit=500")]
    assert len(latest) == 500
    assert set(np.diff(latest)) == {5 * 60_000}
    assert 0 <= now_ns // NS_PER_MS - latest[-1] < 5 * 60_000
    first_ms = (now_ns - 30 * NS_PER_DAY) // NS_PER_MS + 1
    span = f"&startTime={first_ms}&endTime={first_ms + 3_600_000}&limit=500"
    assert len(get(asked + span)) == 12
    assert refusal(f"{asked}&startTime={first_ms - 86_400_000}") == -1130
    assert ("symbol" in get(asked)[0]) == (name not in ("takerlongshortRatio", "basis"))


def test_two_polls_agree_on_what_both_have() -> None:
    exchange, now_ns, _ = market()
    target = "/futures/data/openInterestHist?symbol=BTCUSDT&period=5m&limit=50"
    earlier, later = (respond(exchange, target, at_ns)[1] for at_ns in (now_ns - 40 * NS_PER_S, now_ns))
    assert earlier == later


def test_funding_is_realised_each_eight_hours_and_running_in_between() -> None:
    now_ns = market()[1]
    rows = get("/fapi/v1/fundingRate?symbol=BTCUSDT&limit=1000")
    assert set(np.diff([row["fundingTime"] for row in rows])) == {8 * 3_600_000}
    assert rows[-1]["fundingTime"] == now_ns // (8 * 3600 * NS_PER_S) * 8 * 3_600_000
    since = get(f"/fapi/v1/fundingRate?symbol=BTCUSDT&startTime={rows[3]['fundingTime']}&limit=2")
    assert since == rows[3:5]
    newest = result("/v5/market/funding/history?category=linear&symbol=BTCUSDT&limit=2")["list"]
    assert [int(row["fundingRateTimestamp"]) for row in newest] == [row["fundingTime"] for row in rows[:-3:-1]]
    assert get("/fapi/v1/fundingInfo") == []
    index = get("/fapi/v1/premiumIndex?symbol=BTCUSDT")
    assert index["nextFundingTime"] == rows[-1]["fundingTime"] + 8 * 3_600_000
    assert get("/fapi/v1/premiumIndex") == [index]


def test_open_interest_counts_one_side_at_binance_and_both_at_bybit() -> None:
    exchange, now_ns, _ = market()
    held = {venue: exchange.record(venue, "BTCUSDT") for venue in ("binance_um", "bybit")}
    one, both = (record.last_mark(now_ns)["open_interest"][0] for record in held.values() if record)
    assert float(get("/fapi/v1/openInterest?symbol=BTCUSDT")["openInterest"]) == one
    ticker = result("/v5/market/tickers?category=linear&symbol=BTCUSDT")["list"][0]
    assert float(ticker["openInterest"]) == pytest.approx(2 * both)
    assert float(ticker["singleOpenInterest"]) == both
    assert float(ticker["bid1Price"]) < float(ticker["ask1Price"])


def test_bybit_pages_older_by_cursor() -> None:
    asked = "/v5/market/open-interest?category=linear&symbol=BTCUSDT&intervalTime=5min&limit=200"
    first = result(asked)
    second = result(f"{asked}&cursor={first['nextPageCursor']}")
    times = [int(row["timestamp"]) for page in (first, second) for row in page["list"]]
    assert set(np.diff(times)) == {-5 * 60_000}
    ratios = result("/v5/market/account-ratio?category=linear&symbol=BTCUSDT&period=1d&limit=500")
    assert (len(ratios["list"]), ratios["nextPageCursor"]) == (30, "")
    assert {"symbol", "buyRatio", "sellRatio", "timestamp"} == set(ratios["list"][0])


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("/fapi/v1/depth", -1102),
        ("/fapi/v1/openInterest?symbol=NOPE", -1121),
        ("/fapi/v1/klines?symbol=BTCUSDT&interval=7m", -1120),
        ("/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=x", -1102),
        ("/fapi/v1/aggTrades?symbol=BTCUSDT&startTime=1&endTime=9999999", -1127),
        ("/futures/data/basis?pair=BTCUSDT&period=1m", -1130),
        ("/v5/market/tickers?category=spot&symbol=BTCUSDT", 10001),
        ("/v5/market/kline?category=linear&symbol=BTCUSDT&interval=2", 10001),
        ("/v5/market/account-ratio?category=linear&symbol=BTCUSDT", 10001),
        ("/v5/market/open-interest?category=linear&symbol=BTCUSDT&intervalTime=5min&cursor=x", 10001),
        ("/v5/market/funding/history?category=linear&symbol=BTCUSDT&startTime=5", 10001),
    ],
)
def test_what_makes_no_sense_is_refused_in_the_venues_way(target: str, code: int) -> None:
    assert refusal(target) == code


def test_the_memory_of_trades_is_bounded() -> None:
    exchange, _, _ = market()
    record = exchange.record("binance_um", "BTCUSDT")
    assert record is not None
    tape = record.tape._replace(trades=np.zeros(60_000, TRADE))
    for _ in range(5):
        record.turn(tape)
    assert record.trades_since(0, 0).size <= 160_000
