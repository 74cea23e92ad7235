"""Bybit v5 linear by REST: /v5/market (exchange_protocols.md C.4). Lists are newest first, times of rows are texts."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from backtest.market import wire, wire_candles
from backtest.market.candles import INTERVAL_NS, candles_until
from backtest.market.exchange import Exchange
from backtest.market.positioning import FUNDING_NS, grid, long_share, marks_at
from backtest.market.query import Query, Refusal
from backtest.market.record import Record
from backtest.market.sessions import BYBIT, BYBIT_INTERVALS
from backtest.market.tape import Instrument
from core.units import NS_PER_MS, NS_PER_S

Handler = Callable[[Exchange, Query, int], object]
WRONG_PARAMETER: Final = 10001
_PERIOD_NS: Final = {
    (f"{name}in" if name.endswith("m") else name): INTERVAL_NS[name] for name in ("5m", "15m", "30m", "1h", "4h", "1d")
}
"""Resolutions by Bybit's names: 5min, 15min, 30min, 1h, 4h, 1d."""


def envelope(code: int, message: str, result: object, now_ns: int) -> dict[str, Any]:
    """What every answer comes in. HTTP 200 can carry an error."""
    return {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ns // NS_PER_MS}


def _listed(exchange: Exchange, query: Query) -> Record:
    record = exchange.record(BYBIT, query.required("symbol"))
    if query.required("category") != "linear":
        raise Refusal(WRONG_PARAMETER, "params error: Category is invalid")
    if record is None:
        raise Refusal(WRONG_PARAMETER, "params error: Symbol Invalid")
    return record


def _asked(exchange: Exchange, query: Query) -> list[Record]:
    """The one asked for, or all."""
    return [_listed(exchange, query)] if query.text("symbol") else exchange.records(BYBIT)


def _time(exchange: Exchange, query: Query, now_ns: int) -> object:
    return {"timeSecond": str(now_ns // NS_PER_S), "timeNano": str(now_ns)}


def _instruments(exchange: Exchange, query: Query, now_ns: int) -> object:
    rows = [_instrument(record.tape.instrument) for record in _asked(exchange, query)]
    limit, first = query.limit(500, 1000), int(query.text("cursor") or 0)
    more = str(first + limit) if first + limit < len(rows) else ""
    return {"category": "linear", "list": rows[first : first + limit], "nextPageCursor": more}


def _orderbook(exchange: Exchange, query: Query, now_ns: int) -> object:
    record = _listed(exchange, query)
    text = wire.bybit_rest_book(record.tape.instrument, exchange.book(record, now_ns), query.limit(25, 1000))
    return msgspec.Raw(text.encode())


def _recent_trades(exchange: Exchange, query: Query, now_ns: int) -> object:
    record, limit = _listed(exchange, query), query.limit(500, 1000)
    rows = record.trades_since(0, now_ns)[-limit:]
    return msgspec.Raw(wire.bybit_rest_trades(record.tape.instrument, rows).encode())


def _kline(exchange: Exchange, query: Query, now_ns: int) -> object:
    """Candles of the trades that are still remembered; the newest may be open."""
    record, interval = _listed(exchange, query), BYBIT_INTERVALS.get(query.required("interval"))
    if interval is None:
        raise Refusal(WRONG_PARAMETER, "params error: Invalid interval")
    rows, of = candles_until(record.trades_since(0, now_ns), now_ns, INTERVAL_NS[interval]), record.tape.instrument
    rows = rows[query.span("start", "end").holds(rows["open_ns"])][-query.limit(200, 1000) :]
    texts = msgspec.Raw(wire_candles.bybit_rest_klines(of, rows).encode())
    return {"category": "linear", "symbol": of.symbol, "list": texts}


def _open_interest(exchange: Exchange, query: Query, now_ns: int) -> object:
    """`openInterest` counts both sides (C.3)."""
    record = _listed(exchange, query)
    of, digits = record.tape.instrument, record.tape.instrument.qty_decimals
    times, cursor = _page(record, query, "intervalTime", now_ns, (50, 200))
    marks = marks_at(record, times, now_ns)
    rows = [
        {
            "openInterest": f"{2 * held:.{digits}f}",
            "singleOpenInterest": f"{held:.{digits}f}",
            "timestamp": str(time // NS_PER_MS),
        }
        for time, held in zip(times.tolist(), marks["open_interest"].tolist(), strict=True)
    ]
    return {"category": "linear", "symbol": of.symbol, "list": rows, "nextPageCursor": cursor}


def _account_ratio(exchange: Exchange, query: Query, now_ns: int) -> object:
    record = _listed(exchange, query)
    times, cursor = _page(record, query, "period", now_ns, (50, 500))
    shares = long_share(record.tape.instrument, "global_accounts", times)
    rows = [
        {
            "symbol": record.tape.instrument.symbol,
            "buyRatio": f"{share:.4f}",
            "sellRatio": f"{1 - share:.4f}",
            "timestamp": str(time // NS_PER_MS),
        }
        for time, share in zip(times.tolist(), shares.tolist(), strict=True)
    ]
    return {"list": rows, "nextPageCursor": cursor}


def _page(
    record: Record, query: Query, name: str, now_ns: int, limits: tuple[int, int]
) -> tuple[NDArray[np.int64], str]:
    """The times of a page, newest first, and the cursor of the next older one, empty at the end."""
    period = _PERIOD_NS.get(query.required(name))
    if period is None:
        raise Refusal(WRONG_PARAMETER, f"params error: {name} is invalid")
    times = grid(record, period, now_ns)
    times = times[query.span().holds(times)][::-1]
    if cursor := query.text("cursor"):
        if not cursor.isdecimal():
            raise Refusal(WRONG_PARAMETER, "params error: cursor is invalid")
        times = times[times < int(cursor)]
    limit = query.limit(*limits)
    return times[:limit], str(times[limit - 1]) if times.size > limit else ""


def _funding_history(exchange: Exchange, query: Query, now_ns: int) -> object:
    """`startTime` alone is an error (C.4)."""
    if query.text("startTime") and not query.text("endTime"):
        raise Refusal(WRONG_PARAMETER, "params error: endTime is required with startTime")
    record = _listed(exchange, query)
    times = grid(record, FUNDING_NS, now_ns)
    times = times[query.span().holds(times)][::-1][: query.limit(200, 200)]
    rates = marks_at(record, times, now_ns)["funding_rate"].tolist()
    rows = [
        {
            "symbol": record.tape.instrument.symbol,
            "fundingRate": f"{rate:.8f}",
            "fundingRateTimestamp": str(time // NS_PER_MS),
        }
        for time, rate in zip(times.tolist(), rates, strict=True)
    ]
    return {"category": "linear", "list": rows}


def _tickers(exchange: Exchange, query: Query, now_ns: int) -> object:
    return {"category": "linear", "list": [_ticker(record, now_ns) for record in _asked(exchange, query)]}


def _ticker(record: Record, now_ns: int) -> dict[str, str]:
    mark, of = marks_at(record, np.array([now_ns]), now_ns), record.tape.instrument
    fields = {"symbol": of.symbol} | wire.ticker_fields(of, mark)[0]
    fields["openInterestValue"] = f"{2 * mark['open_interest'][0] * mark['mark_price'][0]:.2f}"
    for trade in record.last_trade(now_ns):
        fields["lastPrice"] = f"{trade['price']:.{of.price_decimals}f}"
    for quote in record.last_quote(now_ns):
        for side in ("bid", "ask"):
            fields[f"{side}1Price"] = f"{quote[f'{side}_price']:.{of.price_decimals}f}"
            fields[f"{side}1Size"] = f"{quote[f'{side}_qty']:.{of.qty_decimals}f}"
    return fields


def _instrument(instrument: Instrument) -> dict[str, Any]:
    """`fundingInterval` is in minutes here, in hours on the stream."""
    price, lot = (
        f"{instrument.tick:.{instrument.price_decimals}f}",
        f"{instrument.lot:.{instrument.qty_decimals}f}",
    )
    return {
        "symbol": instrument.symbol,
        "contractType": "LinearPerpetual",
        "status": "Trading",
        "baseCoin": instrument.symbol.removesuffix("USDT"),
        "quoteCoin": "USDT",
        "settleCoin": "USDT",
        "symbolType": "",
        "launchTime": "1584230400000",
        "deliveryTime": "0",
        "deliveryFeeRate": "",
        "priceScale": str(instrument.price_decimals),
        "leverageFilter": {"minLeverage": "1", "maxLeverage": "100.00", "leverageStep": "0.01"},
        "priceFilter": {"minPrice": price, "maxPrice": "1999999.80", "tickSize": price},
        "lotSizeFilter": {
            "maxOrderQty": "1190.000",
            "minOrderQty": lot,
            "qtyStep": lot,
            "postOnlyMaxOrderQty": "1190.000",
            "maxMktOrderQty": "500.000",
            "minNotionalValue": "5",
        },
        "unifiedMarginTrade": True,
        "fundingInterval": 480,
        "upperFundingRate": "0.005",
        "lowerFundingRate": "-0.005",
        "isPreListing": False,
    }


ENDPOINTS: Final[Mapping[str, Handler]] = {
    "/v5/market/time": _time,
    "/v5/market/instruments-info": _instruments,
    "/v5/market/orderbook": _orderbook,
    "/v5/market/recent-trade": _recent_trades,
    "/v5/market/open-interest": _open_interest,
    "/v5/market/funding/history": _funding_history,
    "/v5/market/account-ratio": _account_ratio,
    "/v5/market/tickers": _tickers,
    "/v5/market/kline": _kline,
}
