"""The REST calls that a market-data client of the two venues makes, answered from the market at hand.

Binance USD-M: exchange_protocols.md A.5-A.7 (rest_binance.py); Bybit: C.4 (rest_bybit.py). Pure: a request target and a
time in, status and body out. Positioning ratios and everything before the market's start are SIMULATED by a formula
(positioning.py).
"""

from http import HTTPStatus

from backtest.market import rest_binance, rest_bybit
from backtest.market.exchange import Exchange
from backtest.market.query import Query, Refusal, Reply


def respond(exchange: Exchange, target: str, now_ns: int) -> Reply:
    """Status and body of a GET request at `now_ns`."""
    if target.startswith("/v5/"):
        return _bybit(exchange, Query(target, rest_bybit.WRONG_PARAMETER), now_ns)
    return _binance(exchange, Query(target, rest_binance.MISSING_PARAMETER), now_ns)


def _binance(exchange: Exchange, query: Query, now_ns: int) -> Reply:
    handler = rest_binance.ENDPOINTS.get(query.path)
    if handler is None:
        return HTTPStatus.NOT_FOUND, {"code": -5000, "msg": f"Path {query.path}, Method GET is invalid"}
    try:
        return HTTPStatus.OK, handler(exchange, query, now_ns)
    except Refusal as refusal:
        return HTTPStatus.BAD_REQUEST, {"code": refusal.code, "msg": refusal.message}


def _bybit(exchange: Exchange, query: Query, now_ns: int) -> Reply:
    """A refusal is HTTP 200 with a code of its own (C.4)."""
    handler = rest_bybit.ENDPOINTS.get(query.path)
    if handler is None:
        return HTTPStatus.NOT_FOUND, {"retCode": 404, "retMsg": f"{query.path} is not served"}
    try:
        return HTTPStatus.OK, rest_bybit.envelope(0, "OK", handler(exchange, query, now_ns), now_ns)
    except Refusal as refusal:
        return HTTPStatus.OK, rest_bybit.envelope(refusal.code, refusal.message, {}, now_ns)
