"""Binance spot, USD-M and COIN-M public streams to events, without I/O (exchange_protocols.md sections A and B).

Combined streams (`/stream`) wrap each payload with its stream's name; raw ones (`/ws`) do not, and then partial depth,
which names no symbol on spot and looks like a change on futures, cannot be told apart: it needs the wrapper.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, TypeAlias
from urllib.parse import parse_qs, urlsplit

import msgspec

from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from ingest import binance_wire as wire
from ingest.binance_streams import BinanceStreams, Venue
from ingest.events import DecodeError, Event, Gap, TradeHole
from ingest.frame_gaps import frame_gap, stream_name
from ingest.open_holes import OpenHole
from ingest.wire import MALFORMED, admit_symbol, frame_bytes, frame_decoder

Route: TypeAlias = Callable[[bytes, int], list[Event]]
ENVELOPE: Final = b'{"stream":"'
_NAME_AT: Final = len(ENVELOPE)


class BinanceDecoder:
    """Decoder of a venue's connections, which may overlap. What it keeps count of: `ingest.venues.Decoder`.

    `keep_levels` keeps rebuilding books also where the connection has best prices of its own.
    """

    def __init__(self, venue: Venue, keep_levels: bool = False) -> None:
        self.venue = venue
        self.refused: list[str] = []
        self.streams = BinanceStreams(venue, keep_levels)
        self.ignored, self.repeated = self.streams.ignored, self.streams.repeated
        self.missed, self.books = self.streams.missed, self.streams.books
        self._routes: dict[bytes, Route] = {}
        self._bare_routes: dict[str, Route] = {}

    @property
    def refills(self) -> bool:
        """Whether the caller refills trades: then `missed` lists the holes too that were told as gaps."""
        return self.streams.refills

    @refills.setter
    def refills(self, refills: bool) -> None:
        self.streams.refills = refills

    def decode(self, frame: str | bytes, recv_ns: int) -> list[Event]:
        """The events of a frame; none for acks, repeats and streams that no table holds. Raises DecodeError."""
        if isinstance(frame, str):
            frame = frame_bytes(frame)
        try:
            if frame.startswith(ENVELOPE):
                ends_at = frame.find(b'"', _NAME_AT)
                if ends_at < 0:
                    raise DecodeError("cut short within its stream's name")
                stream = frame[_NAME_AT:ends_at]
                route = self._routes.get(stream) or self._route(stream)
            else:
                route = self._other_route(frame)
            return route(frame, recv_ns)
        except MALFORMED as error:
            raise DecodeError(str(error)) from error

    def decode_rest(self, url: str, body: str | bytes, recv_ns: int) -> list[Event]:
        """The events of a REST answer: a depth snapshot starts its symbol's book, aggTrades fill holes.

        Raises DecodeError.
        """
        parts = urlsplit(url)
        endpoint = parts.path.rsplit("/", 1)[-1]
        if endpoint not in ("depth", "aggTrades"):
            return self.streams.ignore(f"rest {endpoint[:40]}", b"", recv_ns)
        symbol = admit_symbol(parse_qs(parts.query).get("symbol", [""])[0])
        try:
            if endpoint == "depth":
                return self.streams.snapshot(symbol, wire.read_snapshot(frame_bytes(body)), recv_ns)
            return self.streams.refill(symbol, wire.read_trades(frame_bytes(body)))
        except MALFORMED as error:
            raise DecodeError(str(error)) from error

    def resume(self, symbol: str, last_id: int, exch_ns: int, recv_ns: int, holes: Sequence[OpenHole] = ()) -> None:
        """The last trade of an earlier process, and holes before it: what came since is one, if ids say so."""
        self.streams.resume(symbol, last_id, exch_ns, recv_ns, holes)

    def missing(self, hole: TradeHole) -> list[tuple[int, int]]:
        """The ids of a hole of `missed` that have come neither by the stream nor by REST, as runs (first, last)."""
        return self.streams.missing(hole)

    @property
    def wants_snapshot(self) -> list[str]:
        """Symbols whose depth changes have no snapshot to stand on."""
        return [symbol for symbol, book in self.books.items() if book.wants_snapshot]

    def stream_of(self, frame: bytes) -> tuple[str, str] | None:
        """(symbol, table) that a frame's stream names; None if it cannot be read."""
        name, _, rest = stream_name(frame, ENVELOPE).partition("@")
        kind = _kind(rest)
        return (name.upper(), _HANDLERS[kind].table) if kind in _HANDLERS else None

    def gap_of(self, frame: str | bytes, recv_ns: int, why: str) -> list[Gap]:
        """The gap that a frame which did not decode leaves in its stream; none if its stream cannot be read."""
        name, _, rest = stream_name(frame, ENVELOPE).partition("@")
        kind, symbol = _kind(rest), name.upper()
        if kind not in _HANDLERS:
            return []
        table = _HANDLERS[kind].table
        last_ns = self.streams.last_ns(symbol, table)
        return [frame_gap(symbol, table, last_ns, recv_ns, why, kind not in _PARTIAL)] if last_ns else []

    def interrupted(self, recv_ns: int) -> list[Event]:
        """The connection was lost at `recv_ns`: books start over. Trade ids go on, since they tell what was missed."""
        return [gap for book in self.books.values() for gap in book.interrupted(recv_ns)]

    def finish(self, recv_ns: int) -> list[Event]:
        """The connection has ended for good: the gaps that are still open."""
        return [gap for book in self.books.values() for gap in book.finish(recv_ns)]

    def _route(self, stream: bytes) -> Route:
        """The handler of a combined stream, by its name: `btcusdt@depth@100ms`, `!bookTicker`, `!markPrice@arr@1s`."""
        name = msgspec.json.decode(b'"' + stream + b'"', type=str)
        symbol, _, rest = name.partition("@")
        kind = _kind(symbol[1:] if symbol.startswith("!") else rest)
        route = self._handler("markPrices" if name.startswith("!markPrice") else kind, name, True)
        if kind in _HANDLERS:
            self._routes[stream] = route
        return route

    def _other_route(self, frame: bytes) -> Route:
        """Frames without the usual envelope: raw streams, acks, errors, an envelope written with spaces."""
        if frame.lstrip()[:1] == b"[":
            return self._handler("markPrices", "", False)
        head = wire.read_head(frame)
        if head.stream is not None:
            return self._route(msgspec.json.encode(head.stream)[1:-1])
        if head.error is not None or head.code is not None:
            self.refused.append(frame[:200].decode(errors="replace"))
            return partial(self.streams.ignore, "refused")
        kind = head.e or ("bookTicker" if head.u is not None else "ack" if head.id is not None else "unknown")
        if kind in _PARTIAL:
            kind = "unknown"
        route = self._bare_routes.get(kind) or self._handler(kind, "", False)
        if kind in _HANDLERS:
            self._bare_routes[kind] = route
        return route

    def _handler(self, kind: str, stream: str, wrapped: bool) -> Route:
        """The handler of a payload's kind: its `e`, or the second part of its stream's name."""
        if kind not in _HANDLERS:
            return partial(self.streams.ignore, kind[:40])
        handler = _SPOT_DEPTH if self.venue == "binance" and kind in _DEPTH else _HANDLERS[kind]
        method = getattr(self.streams, handler.method)
        decode = frame_decoder(handler.wire_type, wrapped)
        return partial(method, stream, decode) if handler.table == BOOK_DELTAS.name else partial(method, decode)


def _kind(rest: str) -> str:
    """`depth` of `depth@100ms`, `kline` of `kline_1m`."""
    return rest.partition("@")[0].partition("_")[0]


class _Handler(NamedTuple):
    wire_type: Any
    method: str
    table: str


_DEPTH: Final = ("depth", "depthUpdate")
_PARTIAL: Final = ("depth5", "depth10", "depth20")
_SPOT_DEPTH: Final = _Handler(wire.Depth, "spot_depth", BOOK_DELTAS.name)
_HANDLERS: Final[dict[str, _Handler]] = {
    "bookTicker": _Handler(wire.Ticker, "quote", TOP_OF_BOOK.name),
    "aggTrade": _Handler(wire.AggTrade, "agg_trade", TRADES.name),
    "trade": _Handler(wire.RawTrade, "raw_trade", TRADES.name),
    **dict.fromkeys(_DEPTH, _Handler(wire.FuturesDepth, "futures_depth", BOOK_DELTAS.name)),
    **dict.fromkeys(_PARTIAL, _Handler(wire.PartialDepth, "partial_depth", BOOK_DELTAS.name)),
    **dict.fromkeys(("markPrice", "markPriceUpdate"), _Handler(wire.MarkPrice, "mark", MARK_PRICES.name)),
    "markPrices": _Handler(list[wire.MarkPrice], "marks", MARK_PRICES.name),
    "forceOrder": _Handler(wire.ForceOrder, "forced", LIQUIDATIONS.name),
    "kline": _Handler(wire.Kline, "kline", KLINES.name),
}
