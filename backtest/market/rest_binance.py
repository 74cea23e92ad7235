"""Binance USD-M by REST: /fapi/v1 and /futures/data (exchange_protocols.md A.5-A.7)."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from backtest.market import wire, wire_candles
from backtest.market.candles import INTERVAL_NS, candles_until
from backtest.market.exchange import Exchange
from backtest.market.positioning import FUNDING_NS, PAST_NS, Ratio, grid, long_share, marks_at, taken
from backtest.market.query import Query, Refusal
from backtest.market.record import Record
from backtest.market.sessions import BINANCE
from backtest.market.tape import Instrument
from core.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_MS

Handler = Callable[[Exchange, Query, int], object]
MISSING_PARAMETER: Final = -1102
_NO_END_MS: Final = 4_133_404_800_000  # deliveryDate of a contract that does not expire (A.7)
_PERIOD_NS: Final = {name: ns for name, ns in INTERVAL_NS.items() if ns >= 5 * NS_PER_MINUTE}
_INTEREST_RATE: Final = "0.00010000"


def _time(exchange: Exchange, query: Query, now_ns: int) -> object:
    return {"serverTime": now_ns // NS_PER_MS}


def _listed(exchange: Exchange, symbol: str) -> Record:
    record = exchange.record(BINANCE, symbol)
    if record is None:
        raise Refusal(-1121, "Invalid symbol.")
    return record


def _asked(exchange: Exchange, query: Query) -> list[Record]:
    """The one asked for, or all."""
    symbol = query.text("symbol")
    return [_listed(exchange, symbol)] if symbol else exchange.records(BINANCE)


def _depth(exchange: Exchange, query: Query, now_ns: int) -> object:
    record = _listed(exchange, query.required("symbol"))
    text = wire.binance_snapshot(record.tape.instrument, exchange.book(record, now_ns), query.limit(500, 1000))
    return msgspec.Raw(text.encode())


def _agg_trades(exchange: Exchange, query: Query, now_ns: int) -> object:
    """From `fromId` on, or from `startTime`, oldest first; else the latest. Not what is no longer remembered."""
    record, limit = _listed(exchange, query.required("symbol")), query.limit(500, 1000)
    span, from_id = query.span(), query.integer("fromId")
    if query.text("startTime") and query.text("endTime") and span.to_ns - span.from_ns > NS_PER_HOUR:
        raise Refusal(-1127, "More than 1 hours between startTime and endTime.")
    if from_id is not None:
        rows = record.trades_from(from_id, now_ns)[:limit]
    else:
        rows = record.trades_since(span.from_ns, now_ns)
        rows = rows[span.holds(rows["exch_ns"])]
        rows = rows[:limit] if query.text("startTime") else rows[-limit:]
    return msgspec.Raw(wire.binance_rest_trades(record.tape.instrument, rows).encode())


def _klines(exchange: Exchange, query: Query, now_ns: int) -> object:
    """Candles of the trades that are still remembered; the last one may be open."""
    record, interval = _listed(exchange, query.required("symbol")), INTERVAL_NS.get(query.required("interval"))
    if interval is None:
        raise Refusal(-1120, "Invalid interval.")
    rows = candles_until(record.trades_since(0, now_ns), now_ns, interval)
    rows, limit = rows[query.span().holds(rows["open_ns"])], query.limit(500, 1500)
    rows = rows[:limit] if query.text("startTime") else rows[-limit:]
    return msgspec.Raw(wire_candles.binance_rest_klines(record.tape.instrument, rows).encode())


def _premium_index(exchange: Exchange, query: Query, now_ns: int) -> object:
    rows = [_premium(record, now_ns) for record in _asked(exchange, query)]
    return rows[0] if query.text("symbol") else rows


def _premium(record: Record, now_ns: int) -> dict[str, Any]:
    """`lastFundingRate` is, despite its name, the running value for the next settlement (A.5)."""
    [mark] = marks_at(record, np.array([now_ns]), now_ns)
    return {
        "symbol": record.tape.instrument.symbol,
        "markPrice": f"{mark['mark_price']:.8f}",
        "indexPrice": f"{mark['index_price']:.8f}",
        "estimatedSettlePrice": f"{mark['index_price']:.8f}",
        "lastFundingRate": f"{mark['funding_rate']:.8f}",
        "interestRate": _INTEREST_RATE,
        "nextFundingTime": (now_ns // FUNDING_NS + 1) * FUNDING_NS // NS_PER_MS,
        "time": now_ns // NS_PER_MS,
    }


def _funding_rate(exchange: Exchange, query: Query, now_ns: int) -> object:
    """Realised fundings, oldest first; more than the limit: the oldest from `startTime`, without times the latest."""
    rows = [row for record in _asked(exchange, query) for row in _fundings(record, query, now_ns)]
    rows.sort(key=lambda row: row["fundingTime"])
    has_times = query.text("startTime") or query.text("endTime")
    limit = query.limit(100, 1000)
    return rows[:limit] if has_times else rows[-limit:]


def _fundings(record: Record, query: Query, now_ns: int) -> list[dict[str, Any]]:
    times = grid(record, FUNDING_NS, now_ns)
    times = times[query.span().holds(times)]
    return [
        {
            "symbol": record.tape.instrument.symbol,
            "fundingRate": f"{mark['funding_rate']:.8f}",
            "fundingTime": time // NS_PER_MS,
            "markPrice": f"{mark['mark_price']:.8f}",
            "rateType": "Regular",
        }
        for time, mark in zip(times.tolist(), marks_at(record, times, now_ns), strict=True)
    ]


def _funding_info(exchange: Exchange, query: Query, now_ns: int) -> object:
    """Only symbols whose cap, floor or interval was adjusted: none is, so all settle every 8 h."""
    return []


def _open_interest(exchange: Exchange, query: Query, now_ns: int) -> object:
    record = _listed(exchange, query.required("symbol"))
    held, of = marks_at(record, np.array([now_ns]), now_ns)["open_interest"][0], record.tape.instrument
    return {"openInterest": f"{held:.{of.qty_decimals}f}", "symbol": of.symbol, "time": now_ns // NS_PER_MS}


class Asked(NamedTuple):
    """What rows of a /futures/data series are to be made of."""

    record: Record
    times_ns: NDArray[np.int64]
    period_ns: int
    now_ns: int


def _positions(name: str, rows: Callable[[Asked], list[dict[str, Any]]]) -> Handler:
    """A /futures/data series: one row per period that is over, the latest of the last 30 days, oldest first (A.6)."""

    def handler(exchange: Exchange, query: Query, now_ns: int) -> object:
        record, period_ns = _listed(exchange, query.required(name)), _PERIOD_NS.get(query.required("period"))
        if period_ns is None:
            raise Refusal(-1130, "Data sent for parameter 'period' is not valid.")
        span, times = query.span(), grid(record, period_ns, now_ns)
        if query.text("startTime") and span.from_ns < now_ns - PAST_NS:
            raise Refusal(-1130, "parameter 'startTime' is invalid.")
        times = times[span.holds(times) & (times > now_ns - PAST_NS)][-query.limit(30, 500) :]
        found = rows(Asked(record, times, period_ns, now_ns))
        return [row | {"timestamp": time // NS_PER_MS} for row, time in zip(found, times.tolist(), strict=True)]

    return handler


def _interest_rows(asked: Asked) -> list[dict[str, Any]]:
    of = asked.record.tape.instrument
    return [
        {
            "symbol": of.symbol,
            "sumOpenInterest": f"{mark['open_interest']:.{of.qty_decimals}f}",
            "sumOpenInterestValue": f"{mark['open_interest'] * mark['mark_price']:.8f}",
            "CMCCirculatingSupply": "0",
        }
        for mark in marks_at(asked.record, asked.times_ns, asked.now_ns)
    ]


def _ratio_rows(asked: Asked, ratio: Ratio) -> list[dict[str, Any]]:
    of = asked.record.tape.instrument
    return [
        {
            "symbol": of.symbol,
            "longShortRatio": f"{share / (1 - share):.4f}",
            "longAccount": f"{share:.4f}",
            "shortAccount": f"{1 - share:.4f}",
        }
        for share in long_share(of, ratio, asked.times_ns).tolist()
    ]


def _taker_rows(asked: Asked) -> list[dict[str, Any]]:
    """The one series whose rows do not name the symbol."""
    digits = asked.record.tape.instrument.qty_decimals
    bought, sold = taken(asked.record, asked.times_ns, asked.period_ns, asked.now_ns)
    return [
        {
            "buySellRatio": f"{buys / sells:.4f}" if sells else "0.0000",
            "buyVol": f"{buys:.{digits}f}",
            "sellVol": f"{sells:.{digits}f}",
        }
        for buys, sells in zip(bought.tolist(), sold.tolist(), strict=True)
    ]


def _basis_rows(asked: Asked) -> list[dict[str, Any]]:
    return [
        {
            "indexPrice": f"{mark['index_price']:.8f}",
            "contractType": "PERPETUAL",
            "basisRate": f"{mark['mark_price'] / mark['index_price'] - 1:.4f}",
            "futuresPrice": f"{mark['mark_price']:.8f}",
            "annualizedBasisRate": "",
            "basis": f"{mark['mark_price'] - mark['index_price']:.8f}",
            "pair": asked.record.tape.instrument.symbol,
        }
        for mark in marks_at(asked.record, asked.times_ns, asked.now_ns)
    ]


def _exchange_info(exchange: Exchange, query: Query, now_ns: int) -> object:
    return {
        "timezone": "UTC",
        "serverTime": now_ns // NS_PER_MS,
        "futuresType": "U_MARGINED",
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400},
            {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
        ],
        "exchangeFilters": [],
        "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
        "symbols": [_symbol(record.tape.instrument) for record in exchange.records(BINANCE)],
    }


def _symbol(instrument: Instrument) -> dict[str, Any]:
    """`quantityPrecision` and `pricePrecision` are there as at the venue, which says not to use them."""
    price, lot = (
        f"{instrument.tick:.{instrument.price_decimals}f}",
        f"{instrument.lot:.{instrument.qty_decimals}f}",
    )
    return {
        "symbol": instrument.symbol,
        "pair": instrument.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": _NO_END_MS,
        "onboardDate": 1_569_398_400_000,
        "status": "TRADING",
        "baseAsset": instrument.symbol.removesuffix("USDT"),
        "quoteAsset": "USDT",
        "marginAsset": "USDT",
        "pricePrecision": instrument.price_decimals,
        "quantityPrecision": instrument.qty_decimals,
        "baseAssetPrecision": 8,
        "quotePrecision": 8,
        "underlyingType": "COIN",
        "triggerProtect": "0.0500",
        "liquidationFee": "0.012500",
        "marketTakeBound": "0.05",
        "filters": [
            {"filterType": "PRICE_FILTER", "minPrice": price, "maxPrice": "4529764", "tickSize": price},
            {"filterType": "LOT_SIZE", "minQty": lot, "maxQty": "1000", "stepSize": lot},
            {"filterType": "MARKET_LOT_SIZE", "minQty": lot, "maxQty": "120", "stepSize": lot},
            {"filterType": "MAX_NUM_ORDERS", "limit": 200},
            {"filterType": "MIN_NOTIONAL", "notional": "5.0"},
            {"filterType": "PERCENT_PRICE", "multiplierUp": "1.05", "multiplierDown": "0.95", "multiplierDecimal": "4"},
        ],
        "orderTypes": ["LIMIT", "MARKET"],
        "timeInForce": ["GTC", "IOC", "FOK", "GTX", "GTD"],
    }


ENDPOINTS: Final[Mapping[str, Handler]] = {
    "/fapi/v1/ping": lambda exchange, query, now_ns: {},
    "/fapi/v1/time": _time,
    "/fapi/v1/exchangeInfo": _exchange_info,
    "/fapi/v1/depth": _depth,
    "/fapi/v1/aggTrades": _agg_trades,
    "/fapi/v1/klines": _klines,
    "/fapi/v1/premiumIndex": _premium_index,
    "/fapi/v1/fundingRate": _funding_rate,
    "/fapi/v1/fundingInfo": _funding_info,
    "/fapi/v1/openInterest": _open_interest,
    "/futures/data/openInterestHist": _positions("symbol", _interest_rows),
    "/futures/data/globalLongShortAccountRatio": _positions("symbol", partial(_ratio_rows, ratio="global_accounts")),
    "/futures/data/topLongShortAccountRatio": _positions("symbol", partial(_ratio_rows, ratio="top_accounts")),
    "/futures/data/topLongShortPositionRatio": _positions("symbol", partial(_ratio_rows, ratio="top_positions")),
    "/futures/data/takerlongshortRatio": _positions("symbol", _taker_rows),
    "/futures/data/basis": _positions("pair", _basis_rows),
}
