"""What to subscribe to: the connections that feed a set of symbols, within each venue's limits.

Limits: exchange_protocols.md A.2, B and C.2. Binance permits 1,024 streams on a connection, Bybit 21,000 characters of
topics; fewer symbols than that share one (`capture.symbols_per_connection`), and they are dealt out like cards, since
symbols are usually named from the most to the least traded.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias
from urllib.parse import quote

import msgspec

from core.config import Capture, Hosts, Interval
from core.errors import ConfigError
from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from ingest.bybit_streams import INTERVAL_CODES
from ingest.venues import COIN_M_PATH, Plan, is_local

Stream: TypeAlias = tuple[str, str]
"""(the venue's name for it, the table it feeds)."""

_FUTURES_SPEEDS: Final = {"100ms": "@100ms", "250ms": "", "500ms": "@500ms", "1000ms": "@500ms"}
_SPOT_SPEEDS: Final = {"100ms": "@100ms", "250ms": "@100ms", "500ms": "", "1000ms": ""}
"""The suffix of depth streams for each `capture.depth`: spot has 100 and 1,000 ms, futures 100, 250 and 500."""
_BEST: Final = ("bookTicker", TOP_OF_BOOK.name)
_TRADES: Final = ("aggTrade", TRADES.name)
_DERIVATIVE: Final = (("markPrice@1s", MARK_PRICES.name), ("forceOrder", LIQUIDATIONS.name))
_FUTURES_PER_S: Final = 5.0  # requests: half of what is allowed, since pongs count too
_SPOT_PER_S: Final = 2.0
_MOST_STREAMS: Final = 1_024
_STREAMS_PER_REQUEST: Final = 100
_LIFETIME_S: Final = 23.5 * 3_600  # Binance cuts a connection at 24 h

_BYBIT_PER_S: Final = 10.0  # no figure is published
_MOST_TOPIC_SIGNS: Final = 21_000  # of the JSON text of all topics of a connection
_SPOT_TOPICS_PER_REQUEST: Final = 10
_TOPICS_PER_REQUEST: Final = 100  # no limit is documented; very large requests, beyond 500, close the connection

_PATIENCE: Final = {
    TOP_OF_BOOK.name: 1.0,
    MARK_PRICES.name: 1.0,  # sent each second, or at each change of one of six figures
    BOOK_DELTAS.name: 3.0,
    TRADES.name: 6.0,  # an illiquid symbol is without a trade for a minute, and its connection feeds others too
}
"""Multiples of `capture.silence_s` after which a stream counts as broken. Liquidations and candles may be silent."""


def plans(symbols: Sequence[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    """The connections that feed `venue:SYMBOL`s. Raises ConfigError for what a venue does not have."""
    by_venue: dict[str, list[str]] = {}
    for name in symbols:
        venue, _, symbol = name.partition(":")
        by_venue.setdefault(venue, []).append(symbol)
    return [plan for venue, names in by_venue.items() for plan in _venue_plans(venue, names, capture, hosts)]


def _venue_plans(venue: str, symbols: list[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    match venue:
        case "binance_um":
            return _usd_m(symbols, capture, hosts)
        case "binance_cm":
            return _coin_m(symbols, capture, hosts)
        case "binance":
            return _spot(symbols, capture, hosts)
        case "bybit" | "bybit_spot" | "bybit_inverse":
            return _bybit(venue.partition("_")[2] or "linear", symbols, capture, hosts)
    raise ConfigError(f"symbols: no capture for venue {venue!r} - at `$.symbols`")


def _usd_m(symbols: list[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    """Two kinds of connection: since April 2026 a stream that is asked for on the wrong path stays silent (A.1)."""
    rest = f"{hosts.binance_um_rest}/fapi/v1"
    public = [_BEST, *_depth(_FUTURES_SPEEDS, capture)]
    market = [_TRADES, *_DERIVATIVE, *_candles("binance_um", _futures_interval, capture)]
    return [
        *_binance(f"{hosts.binance_um_ws}/public/stream", rest, _FUTURES_PER_S, symbols, public, capture),
        *_binance(f"{hosts.binance_um_ws}/market/stream", rest, _FUTURES_PER_S, symbols, market, capture),
    ]


def _coin_m(symbols: list[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    """One kind of connection: that its host was split as USD-M's was is not known."""
    path = f"{COIN_M_PATH}/stream" if is_local(hosts.binance_cm_ws) else "/stream"
    candles = _candles("binance_cm", _futures_interval, capture)
    streams = [_BEST, _TRADES, *_DERIVATIVE, *_depth(_FUTURES_SPEEDS, capture), *candles]
    rest = f"{hosts.binance_cm_rest}/dapi/v1"
    return _binance(f"{hosts.binance_cm_ws}{path}", rest, _FUTURES_PER_S, symbols, streams, capture)


def _spot(symbols: list[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    streams = [_BEST, _TRADES, *_depth(_SPOT_SPEEDS, capture), *_candles("binance", _spot_interval, capture)]
    return _binance(
        f"{hosts.binance_ws}/stream", f"{hosts.binance_rest}/api/v3", _SPOT_PER_S, symbols, streams, capture
    )


def _depth(speeds: Mapping[str, str], capture: Capture) -> list[Stream]:
    if capture.depth == "off":
        return []
    return [(f"depth{capture.partial_depth or ''}{speeds[capture.depth]}", BOOK_DELTAS.name)]


def _futures_interval(interval: Interval) -> str | None:
    return None if interval == "1s" else f"kline_{interval}"


def _spot_interval(interval: Interval) -> str | None:
    return f"kline_{interval}"


def _bybit_interval(interval: Interval) -> str | None:
    code = INTERVAL_CODES.get(interval)
    return code and f"kline.{code}"


def _candles(venue: str, stream_of: Callable[[Interval], str | None], capture: Capture) -> list[Stream]:
    """The streams of `capture.klines`. Raises ConfigError for a length that the venue does not have."""
    streams = []
    for interval in capture.klines:
        stream = stream_of(interval)
        if stream is None:
            raise ConfigError(f"capture.klines: {venue} has no candles of {interval} - at `$.capture.klines`")
        streams.append((stream, KLINES.name))
    return streams


def _binance(
    url: str, rest: str, requests_per_s: float, symbols: list[str], streams: list[Stream], capture: Capture
) -> list[Plan]:
    at_once = min(capture.symbols_per_connection, _MOST_STREAMS // len(streams))
    tables = {table for _, table in streams}
    has_changes = BOOK_DELTAS.name in tables and not capture.partial_depth
    made = []
    for group in _dealt(symbols, -(-len(symbols) // at_once)):
        names = [f"{symbol.lower()}@{stream}" for symbol in group for stream, _ in streams]
        requests = [
            msgspec.json.encode({"method": "SUBSCRIBE", "params": part, "id": number}).decode()
            for number, part in enumerate(_parts(names, _STREAMS_PER_REQUEST), 1)
        ]
        refill = f"{rest}/aggTrades?symbol={{symbol}}&fromId={{from_id}}&limit=1000"
        snapshots = [(symbol, f"{rest}/depth?symbol={quote(symbol)}&limit=1000") for symbol in group]
        plan = Plan(
            url=url,
            requests=tuple(requests),
            feeds=_feeds(group, streams),
            requests_per_s=requests_per_s,
            depth_urls=tuple(snapshots) if has_changes else (),
            trades_url=refill if _TRADES in streams else "",
            lifetime_s=_LIFETIME_S,
            silence_s=_silence_s(group, tables, capture),
        )
        made.append(plan)
    return made


def _bybit(category: str, symbols: list[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    streams: list[Stream] = [("orderbook.1", TOP_OF_BOOK.name), ("publicTrade", TRADES.name)]
    if capture.depth != "off":
        streams.append((f"orderbook.{capture.bybit_depth}", BOOK_DELTAS.name))
    if category != "spot":
        streams += [("tickers", MARK_PRICES.name), ("allLiquidation", LIQUIDATIONS.name)]
    streams += _candles("bybit", _bybit_interval, capture)
    per_request = _SPOT_TOPICS_PER_REQUEST if category == "spot" else _TOPICS_PER_REQUEST
    made = []
    for group in _bybit_groups(symbols, streams, capture.symbols_per_connection):
        requests = [
            msgspec.json.encode({"op": "subscribe", "req_id": str(number), "args": part}).decode()
            for number, part in enumerate(_parts(_topics(group, streams), per_request), 1)
        ]
        plan = Plan(
            url=f"{hosts.bybit_ws}/v5/public/{category}",
            requests=tuple(requests),
            feeds=_feeds(group, streams),
            requests_per_s=_BYBIT_PER_S,
            ping='{"req_id":"ping","op":"ping"}',
            silence_s=_silence_s(group, {table for _, table in streams}, capture),
        )
        made.append(plan)
    return made


def _bybit_groups(symbols: list[str], streams: list[Stream], at_once: int) -> list[list[str]]:
    """As few as permitted: a connection too many is dealt out until no group's topics are too long a text."""
    groups = _dealt(symbols, -(-len(symbols) // at_once))
    while any(len(msgspec.json.encode(_topics(group, streams))) > _MOST_TOPIC_SIGNS for group in groups):
        groups = _dealt(symbols, len(groups) + 1)
    return groups


def _topics(symbols: list[str], streams: list[Stream]) -> list[str]:
    return [f"{stream}.{symbol}" for symbol in symbols for stream, _ in streams]


def _dealt(symbols: list[str], count: int) -> list[list[str]]:
    return [symbols[first::count] for first in range(count)]


def _parts(names: list[str], size: int) -> list[list[str]]:
    return [names[first : first + size] for first in range(0, len(names), size)]


def _feeds(symbols: list[str], streams: list[Stream]) -> tuple[tuple[str, str], ...]:
    """Each (symbol, table) once: candles of several lengths are one table."""
    return tuple(dict.fromkeys((symbol, table) for symbol in symbols for _, table in streams))


def _silence_s(symbols: list[str], tables: set[str], capture: Capture) -> dict[tuple[str, str], float]:
    return {
        (symbol, table): factor * capture.silence_s
        for symbol in symbols
        for table, factor in _PATIENCE.items()
        if table in tables
    }
