"""The REST calls that a market-data client of the two venues makes, answered from the market at hand.

Binance USD-M: exchange_protocols.md A.5, A.7; Bybit: C.4. Pure: a request target and a time in, status and body out.
"""

from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec
import numpy as np

from backtest.market import wire
from backtest.market.exchange import Exchange
from backtest.market.sessions import BINANCE, BYBIT
from backtest.market.tape import Instrument, Tape
from core.units import NS_PER_MS, NS_PER_S

Answer = tuple[HTTPStatus, object]
_NO_END_MS: Final = 4_133_404_800_000  # deliveryDate of a contract that does not expire (A.7)
_BYBIT_HIGHEST: Final = 1_000


def respond(exchange: Exchange, target: str, now_ns: int) -> Answer:
    """Status and body (JSON-encodable, or raw JSON) of a GET request at `now_ns`."""
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query))
    if parts.path.startswith("/v5/"):
        return _bybit(exchange, parts.path, query, now_ns)
    return _binance(exchange, parts.path, query, now_ns)


def _binance(exchange: Exchange, path: str, query: dict[str, str], now_ns: int) -> Answer:
    match path:
        case "/fapi/v1/ping":
            return HTTPStatus.OK, {}
        case "/fapi/v1/time":
            return HTTPStatus.OK, {"serverTime": now_ns // NS_PER_MS}
        case "/fapi/v1/exchangeInfo":
            return HTTPStatus.OK, _exchange_info(exchange, now_ns)
        case "/fapi/v1/depth" | "/fapi/v1/aggTrades":
            tape = exchange.tape(BINANCE, query.get("symbol", ""))
            if tape is None:
                return HTTPStatus.BAD_REQUEST, {"code": -1121, "msg": "Invalid symbol."}
            if path.endswith("depth"):
                text = wire.binance_snapshot(tape.instrument, exchange.book(tape, now_ns), _limit(query, 500, 1000))
                return HTTPStatus.OK, msgspec.Raw(text.encode())
            return HTTPStatus.OK, _agg_trades(tape, query, now_ns)
    return HTTPStatus.NOT_FOUND, {"code": -5000, "msg": f"Path {path}, Method GET is invalid"}


def _bybit(exchange: Exchange, path: str, query: dict[str, str], now_ns: int) -> Answer:
    match path:
        case "/v5/market/time":
            result: object = {"timeSecond": str(now_ns // NS_PER_S), "timeNano": str(now_ns)}
        case "/v5/market/instruments-info":
            listed = [tape.instrument for tape in exchange.tapes(BYBIT)]
            wanted = query.get("symbol")
            rows = [_bybit_instrument(one) for one in listed if wanted in (None, one.symbol)]
            result = {"category": "linear", "list": rows, "nextPageCursor": ""}
        case "/v5/market/orderbook":
            tape = exchange.tape(BYBIT, query.get("symbol", ""))
            if tape is None:
                return HTTPStatus.OK, _envelope(10001, "params error: Symbol Invalid", {}, now_ns)
            text = wire.bybit_rest_book(tape.instrument, exchange.book(tape, now_ns), _limit(query, 25, _BYBIT_HIGHEST))
            result = msgspec.Raw(text.encode())
        case _:
            return HTTPStatus.NOT_FOUND, {"retCode": 404, "retMsg": f"{path} is not served"}
    return HTTPStatus.OK, _envelope(0, "OK", result, now_ns)


def _envelope(code: int, message: str, result: object, now_ns: int) -> dict[str, Any]:
    return {"retCode": code, "retMsg": message, "result": result, "retExtInfo": {}, "time": now_ns // NS_PER_MS}


def _limit(query: dict[str, str], default: int, highest: int) -> int:
    text = query.get("limit", "")
    return min(int(text), highest) if text.isdecimal() and int(text) else default


def _agg_trades(tape: Tape, query: dict[str, str], now_ns: int) -> msgspec.Raw:
    """Trades of the chunk at hand, from `fromId` on or the latest: what a client needs to mend a short gap."""
    trades = tape.trades[: np.searchsorted(tape.trades["recv_ns"], now_ns)]
    limit = _limit(query, 500, 1000)
    if query.get("fromId", "").isdecimal():
        first = int(np.searchsorted(trades["trade_id"], int(query["fromId"])))
        trades = trades[first : first + limit]
    return msgspec.Raw(wire.binance_rest_trades(tape.instrument, trades[-limit:]).encode())


def _exchange_info(exchange: Exchange, now_ns: int) -> dict[str, Any]:
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
        "symbols": [_binance_symbol(tape.instrument) for tape in exchange.tapes(BINANCE)],
    }


def _binance_symbol(instrument: Instrument) -> dict[str, Any]:
    """`quantityPrecision` and `pricePrecision` are there as at the venue, which says not to use them."""
    base = instrument.symbol.removesuffix("USDT")
    price, lot = _decimal(instrument.tick, instrument.price_decimals), _decimal(instrument.lot, instrument.qty_decimals)
    return {
        "symbol": instrument.symbol,
        "pair": instrument.symbol,
        "contractType": "PERPETUAL",
        "deliveryDate": _NO_END_MS,
        "onboardDate": 1_569_398_400_000,
        "status": "TRADING",
        "baseAsset": base,
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


def _bybit_instrument(instrument: Instrument) -> dict[str, Any]:
    """`fundingInterval` is in minutes here, in hours on the stream."""
    price, lot = _decimal(instrument.tick, instrument.price_decimals), _decimal(instrument.lot, instrument.qty_decimals)
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


def _decimal(value: float, decimals: int) -> str:
    return f"{value:.{decimals}f}"
