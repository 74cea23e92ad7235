"""Candles from trades, against a slow twin, and as the decoders read them."""

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from backtest.market import wire_candles
from backtest.market.candles import candle_updates, candles_at, candles_until
from backtest.market.tape import TRADE, Instrument, Rows

MINUTE = 60
BTC = Instrument("binance_um", "BTCUSDT", 0.1, 0.001, 1, 3, 60_000.0)


def trades_of(times: list[int], seed: int = 1) -> Rows:
    """Trades at these times, in units of one nanosecond that the tests call a second."""
    rng = np.random.default_rng(seed)
    rows = np.zeros(len(times), TRADE)
    rows["exch_ns"] = sorted(times)
    rows["trade_id"] = 100 + np.arange(len(times))
    rows["price"], rows["qty"] = rng.integers(100, 200, len(times)), rng.integers(1, 9, len(times))
    rows["taker_side"] = rng.choice([-1, 1], len(times))
    return rows


times = st.lists(st.integers(0, 10 * MINUTE), min_size=1, max_size=40)


@given(times, st.integers(1, 10 * MINUTE))
def test_a_candle_is_made_of_its_own_trades(at: list[int], now: int) -> None:
    trades = trades_of(at)
    opened = (now - 1) // MINUTE * MINUTE
    own = [row for row in trades if opened <= row["exch_ns"] < now]
    before = [row for row in trades if row["exch_ns"] < opened]
    found = candles_at(trades, np.array([now]), MINUTE)
    assert found.size == bool(own or before)
    for candle in found:
        prices = [row["price"] for row in own] or [before[-1]["price"]]
        assert (candle["open_ns"], candle["close_ns"]) == (opened, opened + MINUTE)
        assert [candle[name] for name in ("open", "high", "low", "close")] == [
            prices[0], max(prices), min(prices), prices[-1]
        ]  # fmt: skip
        assert candle["qty"] == sum(row["qty"] for row in own)
        assert candle["usd"] == sum(row["qty"] * row["price"] for row in own)
        assert candle["buy_qty"] == sum(row["qty"] for row in own if row["taker_side"] > 0)
        assert (candle["count"], candle["closed"]) == (len(own), now % MINUTE == 0)


@given(times, st.lists(st.integers(1, 10 * MINUTE), max_size=6))
def test_updates_do_not_depend_on_how_time_is_cut(at: list[int], cuts: list[int]) -> None:
    trades = trades_of(at)
    edges = [0, *sorted(set(cuts)), 11 * MINUTE]
    whole = candle_updates(trades, edges[0], edges[-1], 7, MINUTE, 3)
    parts = [candle_updates(trades, edges[i], edges[i + 1], 7, MINUTE, 3) for i in range(len(edges) - 1)]
    assert np.array_equal(np.concatenate(parts), whole)


@given(times)
def test_every_candle_is_closed_once_and_holds_every_trade(at: list[int]) -> None:
    trades = trades_of(at)
    updates = candle_updates(trades, 0, 12 * MINUTE, 6, MINUTE, 3)
    closed = updates[updates["closed"]]
    assert (np.diff(closed["open_ns"]) == MINUTE).all()
    assert closed["count"].sum() == trades.size
    assert (closed["recv_ns"] == closed["close_ns"] + 3).all()


def test_the_last_candle_may_be_open() -> None:
    found = candles_until(trades_of([10, 70, 130]), 140, MINUTE)
    assert found["closed"].tolist() == [True, True, False]
    assert candles_until(trades_of([10]), 60, MINUTE)["closed"].tolist() == [True]
    assert not candles_until(trades_of([]), 60, MINUTE).size


def test_a_quiet_candle_repeats_the_price_and_names_no_trade() -> None:
    rows = candles_at(trades_of([10]), np.array([120]), MINUTE)
    frame = json.loads(wire_candles.binance_klines(BTC, rows, "1m")[0])
    assert (frame["k"]["f"], frame["k"]["L"], frame["k"]["n"], frame["k"]["x"]) == (-1, -1, 0, True)
    assert frame["k"]["o"] == frame["k"]["c"] == f"{rows['close'][0]:.1f}"
    closed = json.loads(wire_candles.bybit_klines(BTC, rows, "kline.1.BTCUSDT")[0])
    assert (closed["topic"], closed["data"][0]["interval"], closed["data"][0]["confirm"]) == (
        "kline.1.BTCUSDT", "1", True
    )  # fmt: skip
