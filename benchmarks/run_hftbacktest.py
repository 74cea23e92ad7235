"""Market making in hftbacktest on exported events, with what it saw on the way. Runs in an environment of its own.

    .venv-hftbacktest/bin/python benchmarks/run_hftbacktest.py TICK LOT FILE.npz...

Quotes one lot at both touches every 100 ms, joins the queue, holds at most ten lots (power-law queue model, 10 ms each
way). Prints one JSON object: the fills, and for each second the best prices and the number of trades seen so far.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from hftbacktest import BUY, GTX, LIMIT, BacktestAsset, HashMapMarketDepthBacktest
from hftbacktest.data.validation import validate_event_order
from numba import njit

STEP_NS = 100_000_000
LATENCY_NS = 10_000_000
SAMPLE_STEPS = 10
MOST_LOTS = 10


@njit  # type: ignore[untyped-decorator]
def make_market(backtest: Any, began_ns: int, tick: float, lot: float, seen: Any) -> int:
    """Quote until the data end; `seen` (samples, 6) gets time, bid, bid qty, ask, ask qty, trades. Returns samples."""
    step, samples, trades = 0, 0, 0
    while backtest.elapse(STEP_NS) == 0:
        trades += len(backtest.last_trades(0))
        backtest.clear_last_trades(0)
        backtest.clear_inactive_orders(0)
        step += 1
        if step % SAMPLE_STEPS == 0:
            look(backtest, began_ns, trades, seen[samples])
            samples += 1
        depth = backtest.depth(0)
        if depth.best_bid_qty > 0 and depth.best_ask_qty > 0:
            quote(backtest, depth.best_bid_tick, depth.best_ask_tick, tick, lot)
    look(backtest, began_ns, trades + len(backtest.last_trades(0)), seen[samples])
    return samples + 1


@njit  # type: ignore[untyped-decorator]
def look(backtest: Any, began_ns: int, trades: int, row: Any) -> None:
    """Note the book as it stands. Times are from the start: as floats, epoch nanoseconds are 256 ns apart."""
    depth = backtest.depth(0)
    row[0], row[5] = backtest.current_timestamp - began_ns, trades
    row[1], row[2] = depth.best_bid_tick, depth.best_bid_qty
    row[3], row[4] = depth.best_ask_tick, depth.best_ask_qty


@njit  # type: ignore[untyped-decorator]
def quote(backtest: Any, bid_tick: int, ask_tick: int, tick: float, lot: float) -> None:
    """Take away what is no longer at the touch, and quote where nothing is."""
    has_bid, has_ask = False, False
    orders = backtest.orders(0).values()
    while orders.has_next():
        order = orders.get()
        is_bid = order.side == BUY
        if order.cancellable and order.price_tick != (bid_tick if is_bid else ask_tick):
            backtest.cancel(0, order.order_id, False)
        else:
            has_bid, has_ask = has_bid or is_bid, has_ask or not is_bid
    position = backtest.position(0)
    if not has_bid and position < MOST_LOTS * lot:
        backtest.submit_buy_order(0, 2 * bid_tick, bid_tick * tick, lot, GTX, LIMIT, False)
    if not has_ask and position > -MOST_LOTS * lot:
        backtest.submit_sell_order(0, 2 * ask_tick + 1, ask_tick * tick, lot, GTX, LIMIT, False)


def main() -> None:
    tick, lot, files = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    arrays = [np.load(file)["data"] for file in files]
    for array in arrays:
        validate_event_order(array)
    asset = (
        BacktestAsset()
        .data(files)
        .linear_asset(1.0)
        .constant_order_latency(LATENCY_NS, LATENCY_NS)
        .power_prob_queue_model(3.0)
        .no_partial_fill_exchange()
        .trading_value_fee_model(0.0002, 0.0005)
        .tick_size(tick)
        .lot_size(lot)
        .last_trades_capacity(100_000)
    )
    backtest = HashMapMarketDepthBacktest([asset])
    began_ns = int(arrays[0]["local_ts"].min())
    span_ns = int(arrays[-1]["local_ts"].max()) - began_ns
    seen = np.zeros((span_ns // (STEP_NS * SAMPLE_STEPS) + 2, 6))
    samples = make_market(backtest, began_ns, tick, lot, seen)
    state = backtest.state_values(0)
    result = {
        "events": sum(array.size for array in arrays),
        "fills": int(state.num_trades),
        "position": float(state.position),
        "balance": float(state.balance),
        "fee": float(state.fee),
        "began_ns": began_ns,
        "seen": seen[:samples].tolist(),
    }
    backtest.close()
    print(json.dumps(result | {"files": [Path(file).name for file in files]}))


if __name__ == "__main__":
    main()
