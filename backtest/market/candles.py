"""Candles of the simulated venues, made from their trades: states that a stream sends, and those that REST gives."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from backtest.market.tape import Rows
from core.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE

CANDLE: Final = np.dtype(
    [
        ("open_ns", "i8"), ("close_ns", "i8"), ("exch_ns", "i8"), ("recv_ns", "i8"),
        ("open", "f8"), ("high", "f8"), ("low", "f8"), ("close", "f8"), ("qty", "f8"), ("usd", "f8"),
        ("count", "i8"), ("buy_qty", "f8"), ("buy_usd", "f8"), ("first_id", "i8"), ("last_id", "i8"), ("closed", "?"),
    ]
)  # fmt: skip
"""A candle [open_ns, close_ns) as it stood at `exch_ns` (exclusive); `recv_ns` is when that is received."""
INTERVAL_NS: Final = {
    "1m": NS_PER_MINUTE,
    "3m": 3 * NS_PER_MINUTE,
    "5m": 5 * NS_PER_MINUTE,
    "15m": 15 * NS_PER_MINUTE,
    "30m": 30 * NS_PER_MINUTE,
    "1h": NS_PER_HOUR,
    "2h": 2 * NS_PER_HOUR,
    "4h": 4 * NS_PER_HOUR,
    "6h": 6 * NS_PER_HOUR,
    "12h": 12 * NS_PER_HOUR,
    "1d": NS_PER_DAY,
}

Ints = NDArray[np.int64]


def candles_at(trades: Rows, times_ns: Ints, interval_ns: int, delay_ns: int = 0) -> Rows:
    """The candle that each time ends or falls into, as it stood then.

    `trades` hold all of the candles, in order of `exch_ns`. A candle without trades is flat at the last price before
    it; where no trade came before, there is none.
    """
    opens = (times_ns - 1) // interval_ns * interval_ns
    first, stop = np.searchsorted(trades["exch_ns"], opens), np.searchsorted(trades["exch_ns"], times_ns)
    known = stop > 0
    times_ns, opens, first, stop = times_ns[known], opens[known], first[known], stop[known]
    rows = np.zeros(times_ns.size, CANDLE)
    rows["open_ns"], rows["close_ns"], rows["exch_ns"] = opens, opens + interval_ns, times_ns
    rows["recv_ns"], rows["closed"] = times_ns + delay_ns, times_ns == opens + interval_ns
    rows["count"] = stop - first
    _fill_prices(rows, trades, first, stop)
    return rows


def candles_until(trades: Rows, now_ns: int, interval_ns: int) -> Rows:
    """All candles that the trades reach back to, the last one as it stands now."""
    if not trades.size:
        return np.zeros(0, CANDLE)
    first = trades["exch_ns"][0] // interval_ns + 1
    ends = np.arange(first, now_ns // interval_ns + 1, dtype=np.int64) * interval_ns
    return candles_at(trades, ends if now_ns % interval_ns == 0 else np.append(ends, now_ns), interval_ns)


def candle_updates(trades: Rows, from_ns: int, to_ns: int, every_ns: int, interval_ns: int, delay_ns: int) -> Rows:
    """The states that a stream sends: at multiples of `every_ns` before which a trade came, and at each candle's end.

    They are received `delay_ns` later, in [from_ns, to_ns).
    """
    times = np.arange(-((delay_ns - from_ns) // every_ns), -((delay_ns - to_ns) // every_ns), dtype=np.int64) * every_ns
    came = np.searchsorted(trades["exch_ns"], times) > np.searchsorted(trades["exch_ns"], times - every_ns)
    return candles_at(trades, times[came | (times % interval_ns == 0)], interval_ns, delay_ns)


def _fill_prices(rows: Rows, trades: Rows, first: Ints, stop: Ints) -> None:
    """Prices and sums over trades[first:stop] of each row; a row without trades repeats the price before it."""
    if not rows.size:
        return
    price, bought = trades["price"], trades["taker_side"] > 0
    usd = price * trades["qty"]
    for name in ("open", "high", "low", "close"):
        rows[name] = price[stop - 1]
    rows["first_id"] = rows["last_id"] = -1
    some = stop > first
    first, stop = first[some], stop[some]
    rows["open"][some] = price[first]
    rows["first_id"][some], rows["last_id"][some] = trades["trade_id"][first], trades["trade_id"][stop - 1]
    for name, operation, values in (
        ("high", np.maximum, price),
        ("low", np.minimum, price),
        ("qty", np.add, trades["qty"]),
        ("usd", np.add, usd),
        ("buy_qty", np.add, trades["qty"] * bought),
        ("buy_usd", np.add, usd * bought),
    ):
        rows[name][some] = _reduced(operation, values, first, stop)


def _reduced(operation: np.ufunc, values: Rows, first: Ints, stop: Ints) -> Rows:
    """The operation over values[first:stop] of each pair; no stretch may be empty."""
    padded = np.append(values, 0.0)  # reduceat takes no index at the end
    reduced: Rows = operation.reduceat(padded, np.column_stack((first, stop)).ravel())[::2]
    return reduced
