"""Candles as the venues write them: stream payloads and REST rows (exchange_protocols.md A.4, A.5, C.3, C.4)."""

import numpy as np
from numpy.typing import NDArray

from backtest.market.tape import Instrument, Rows
from backtest.market.wire import GATEWAY_MS, filled, formats
from core.units import NS_PER_MS

_PRICES = ("open", "close", "high", "low")


def binance_klines(instrument: Instrument, rows: Rows, interval: str) -> list[str]:
    """`<s>@kline_<interval>`: `x` says that the candle is closed, `f` and `L` are -1 while it has no trade."""
    price, qty = formats(instrument)
    template = (
        f'{{"e":"kline","E":%d,"s":"{instrument.symbol}","k":{{"t":%d,"T":%d,"s":"{instrument.symbol}",'
        f'"i":"{interval}","f":%d,"L":%d,"o":"{price}","c":"{price}","h":"{price}","l":"{price}","v":"{qty}","n":%d,'
        f'"x":%s,"q":"%.8f","V":"{qty}","Q":"%.8f","B":"0"}},"st":1}}'
    )
    opened, closes, sent = _times_ms(rows)
    closed = ["true" if is_closed else "false" for is_closed in rows["closed"].tolist()]
    prices = (rows[name] for name in _PRICES)
    first, last = rows["first_id"], rows["last_id"]
    return filled(
        template, sent, opened, closes, first, last, *prices, rows["qty"], rows["count"], closed, rows["usd"],
        rows["buy_qty"], rows["buy_usd"],
    )  # fmt: skip


def bybit_klines(instrument: Instrument, rows: Rows, topic: str) -> list[str]:
    """`kline.<interval>.<s>`: `confirm` says that the candle is closed; there is no count and no taker's share."""
    price, qty = formats(instrument)
    template = (
        f'{{"topic":"{topic}","data":[{{"start":%d,"end":%d,"interval":"{topic.split(".")[1]}","open":"{price}",'
        f'"close":"{price}","high":"{price}","low":"{price}","volume":"{qty}","turnover":"%.4f","confirm":%s,'
        f'"timestamp":%d}}],"ts":%d,"type":"snapshot"}}'
    )
    opened, closes, sent = _times_ms(rows)
    closed = ["true" if is_closed else "false" for is_closed in rows["closed"].tolist()]
    prices = (rows[name] for name in _PRICES)
    return filled(template, opened, closes, *prices, rows["qty"], rows["usd"], closed, sent - GATEWAY_MS, sent)


def binance_rest_klines(instrument: Instrument, rows: Rows) -> str:
    """The body of `GET /fapi/v1/klines`: rows of 12, as in the archives."""
    price, qty = formats(instrument)
    template = f'[%d,"{price}","{price}","{price}","{price}","{qty}",%d,"%.8f",%d,"{qty}","%.8f","0"]'
    opened, closes, _ = _times_ms(rows)
    prices = (rows[name] for name in ("open", "high", "low", "close"))
    texts = filled(
        template, opened, *prices, rows["qty"], closes, rows["usd"], rows["count"], rows["buy_qty"], rows["buy_usd"]
    )
    return f"[{','.join(texts)}]"


def bybit_rest_klines(instrument: Instrument, rows: Rows) -> str:
    """The `list` of `GET /v5/market/kline`, newest first, all texts; `rows` are oldest first."""
    price, qty = formats(instrument)
    template = f'["%d","{price}","{price}","{price}","{price}","{qty}","%.4f"]'
    newest = rows[::-1]
    prices = (newest[name] for name in ("open", "high", "low", "close"))
    return f"[{','.join(filled(template, newest['open_ns'] // NS_PER_MS, *prices, newest['qty'], newest['usd']))}]"


def _times_ms(rows: Rows) -> tuple[NDArray[np.int64], ...]:
    """Open, last millisecond, and when the frame was sent."""
    opened, closes, made = (rows[name] // NS_PER_MS for name in ("open_ns", "close_ns", "exch_ns"))
    return opened, closes - 1, made + GATEWAY_MS
