"""Which venue a URL belongs to, its decoder, and what to subscribe to: the table of facts that makes up a venue."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

import msgspec

from core.config import Capture, Hosts
from core.errors import ConfigError
from core.schema import BOOK_DELTAS, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from ingest.binance import BinanceDecoder
from ingest.bybit import BybitDecoder
from ingest.events import Event, Gap, TradeHole


class Decoder(Protocol):
    """Frames of a venue's connection to events, without I/O. Connections that overlap may share a decoder.

    `ignored` counts what no table holds, `repeated` the duplicates that were dropped, both by kind of stream;
    `refused` keeps the venue's refusals. With `refills` set, holes in the trade ids go to `missed`, for the caller to
    refill by `decode_rest` and to tell as a Gap; without, the decoder tells the Gap.
    """

    ignored: Counter[str]
    repeated: Counter[str]
    refused: list[str]
    missed: list[TradeHole]
    refills: bool

    @property
    def wants_snapshot(self) -> list[str]: ...

    def decode(self, frame: str | bytes, recv_ns: int) -> list[Event]: ...

    def decode_rest(self, url: str, body: str | bytes, recv_ns: int) -> list[Event]: ...

    def gap_of(self, frame: str | bytes, recv_ns: int, why: str) -> list[Gap]: ...

    def interrupted(self, recv_ns: int) -> list[Event]: ...

    def finish(self, recv_ns: int) -> list[Event]: ...


def venue_of(url: str) -> str:
    """The venue's name. Paths decide where they can, so that a local server can be all venues at one address.

    Raises ValueError for a URL of none of them.
    """
    parts = urlsplit(url)
    host, path = parts.hostname or "", parts.path
    by_path = {"/fapi": "binance_um", "/dapi": "binance_cm", "/api/v3": "binance"}
    for prefix, venue in by_path.items():
        if path.startswith(prefix):
            return venue
    if path.startswith("/v5/"):
        return _bybit_venue(path, parts.query)
    if "dstream" in host:
        return "binance_cm"
    if "fstream" in host or path.startswith(("/public", "/market")):
        return "binance_um"
    if path.startswith(("/stream", "/ws")) and ("binance" in host or is_local(url)):
        return "binance"
    raise ValueError(f"no decoder for {url[:200]!r}: known are Binance spot, USD-M, COIN-M and Bybit v5 public")


def decoder_for(url: str) -> tuple[str, Decoder]:
    """(venue, a new decoder) for a connection. Raises ValueError for a venue that is not known."""
    venue = venue_of(url)
    match venue:
        case "binance" | "binance_um" | "binance_cm":
            return venue, BinanceDecoder(venue)
        case "bybit" | "bybit_spot" | "bybit_inverse":
            return venue, BybitDecoder(venue)
    raise ValueError(f"no decoder for venue {venue}")


def is_local(url: str) -> bool:
    """Whether a URL is on loopback, where no venue is: the simulated exchange's."""
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def _bybit_venue(path: str, query: str) -> str:
    category = path.rsplit("/", 1)[-1] if path.startswith("/v5/public/") else ""
    for name, venue in (("spot", "bybit_spot"), ("inverse", "bybit_inverse")):
        if category == name or f"category={name}" in query:
            return venue
    if category not in ("", "linear"):
        raise ValueError(f"no decoder for Bybit's {category!r}: known are linear, spot and inverse")
    return "bybit"


@dataclass(frozen=True)
class Plan:
    """One connection to make: where, what to ask for, and which (symbol, table) it will feed."""

    url: str
    requests: tuple[str, ...]
    feeds: tuple[tuple[str, str], ...]
    requests_per_s: float
    ping: str = ""
    """The venue's own ping, a text message; empty where WebSocket pings do."""
    ping_s: float = 20.0
    depth_urls: tuple[tuple[str, str], ...] = ()
    """(symbol, REST URL) of the depth snapshots that the books start from. Their weights: rate_limit.weight_of."""
    trades_url: str = ""
    """Template with {symbol} and {from_id} of the REST call that refills trades; empty where there is none."""
    lifetime_s: float | None = None
    """The venue cuts a connection at 24 h: take a new one, less some jitter, before this. None: no cut is known."""
    silence_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """How long a (symbol, table) may be silent before the stream counts as broken; absent: silence is normal."""


def plans(symbols: Sequence[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    """The connections that feed `venue:SYMBOL`s. Raises ConfigError for a venue that cannot be captured."""
    by_venue: dict[str, list[str]] = {}
    for name in symbols:
        venue, _, symbol = name.partition(":")
        by_venue.setdefault(venue, []).append(symbol)
    return [plan for venue, names in by_venue.items() for plan in _venue_plans(venue, names, capture, hosts)]


def _venue_plans(venue: str, symbols: list[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    match venue:
        case "binance_um":
            return _usd_m(symbols, capture, hosts)
        case "binance":
            return [_spot(symbols, capture, hosts)]
        case "bybit" | "bybit_spot" | "bybit_inverse":
            return [_bybit(venue.partition("_")[2] or "linear", symbols, capture, hosts)]
    raise ConfigError(f"symbols: no capture for venue {venue!r} - at `$.symbols`")


def _usd_m(symbols: list[str], capture: Capture, hosts: Hosts) -> list[Plan]:
    """Two connections: since April 2026 a stream asked for on the wrong path is acknowledged and silent (A.1)."""
    depth = "" if capture.depth == "off" else f"depth@{capture.depth}"
    public = _plan_binance(
        f"{hosts.binance_um_ws}/public/stream",
        symbols,
        [("bookTicker", TOP_OF_BOOK.name), (depth, BOOK_DELTAS.name)],
        f"{hosts.binance_um_rest}/fapi/v1/depth?symbol={{}}&limit=1000",
        _FUTURES_REQUESTS_PER_S,
    )
    market = _plan_binance(
        f"{hosts.binance_um_ws}/market/stream",
        symbols,
        [("aggTrade", TRADES.name), ("markPrice@1s", MARK_PRICES.name), ("forceOrder", LIQUIDATIONS.name)],
        "",
        _FUTURES_REQUESTS_PER_S,
    )
    return [public, market]


def _spot(symbols: list[str], capture: Capture, hosts: Hosts) -> Plan:
    """Spot has a depth stream each second or each 100 ms, no 500 ms."""
    depth = {"off": "", "100ms": "depth@100ms", "500ms": "depth"}[capture.depth]
    return _plan_binance(
        f"{hosts.binance_ws}/stream",
        symbols,
        [("bookTicker", TOP_OF_BOOK.name), ("aggTrade", TRADES.name), (depth, BOOK_DELTAS.name)],
        f"{hosts.binance_rest}/api/v3/depth?symbol={{}}&limit=1000",
        _SPOT_REQUESTS_PER_S,
    )


_FUTURES_REQUESTS_PER_S = 5.0  # half of what is allowed: pongs count too
_SPOT_REQUESTS_PER_S = 2.0
_BYBIT_REQUESTS_PER_S = 10.0  # no figure is published
_STREAMS_PER_REQUEST = 100
_TOPICS_PER_REQUEST = 10  # spot's limit; linear has none


def _plan_binance(
    url: str, symbols: list[str], streams: list[tuple[str, str]], depth_url: str, requests_per_s: float
) -> Plan:
    wanted = [(stream, table) for stream, table in streams if stream]
    names = [f"{symbol.lower()}@{stream}" for symbol in symbols for stream, _ in wanted]
    requests = [
        {"method": "SUBSCRIBE", "params": names[first : first + _STREAMS_PER_REQUEST], "id": 1 + index}
        for index, first in enumerate(range(0, len(names), _STREAMS_PER_REQUEST))
    ]
    has_depth = any(table == BOOK_DELTAS.name for _, table in wanted)
    return Plan(
        url=url,
        requests=tuple(msgspec.json.encode(request).decode() for request in requests),
        feeds=tuple((symbol, table) for symbol in symbols for _, table in wanted),
        requests_per_s=requests_per_s,
        depth_urls=tuple((symbol, depth_url.format(symbol)) for symbol in symbols) if has_depth else (),
    )


def _bybit(category: str, symbols: list[str], capture: Capture, hosts: Hosts) -> Plan:
    topics = [("orderbook.1", TOP_OF_BOOK.name), ("publicTrade", TRADES.name)]
    if capture.depth != "off":
        topics.append((f"orderbook.{capture.bybit_depth}", BOOK_DELTAS.name))
    if category != "spot":
        topics += [("tickers", MARK_PRICES.name), ("allLiquidation", LIQUIDATIONS.name)]
    names = [f"{topic}.{symbol}" for symbol in symbols for topic, _ in topics]
    requests = [
        {"op": "subscribe", "req_id": str(1 + index), "args": names[first : first + _TOPICS_PER_REQUEST]}
        for index, first in enumerate(range(0, len(names), _TOPICS_PER_REQUEST))
    ]
    return Plan(
        url=f"{hosts.bybit_ws}/v5/public/{category}",
        requests=tuple(msgspec.json.encode(request).decode() for request in requests),
        feeds=tuple((symbol, table) for symbol in symbols for _, table in topics),
        requests_per_s=_BYBIT_REQUESTS_PER_S,
        ping='{"req_id":"ping","op":"ping"}',
    )
