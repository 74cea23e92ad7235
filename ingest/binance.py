"""Binance spot, USD-M and COIN-M public streams to events, without I/O (exchange_protocols.md sections A and B).

Combined streams (`/stream`) wrap each payload with its stream's name; raw ones (`/ws`) do not, and then partial depth,
which names no symbol on spot and looks like a change on futures, cannot be told apart: it needs the wrapper.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import parse_qs, urlsplit

import msgspec

from core.schema import BOOK_DELTAS, TRADES
from ingest.book import Change, Rule, futures_rule, spot_rule
from ingest.book_stream import BookStream
from ingest.events import (
    BookUpdate,
    DecodeError,
    Event,
    Gap,
    Liquidated,
    Liquidation,
    Mark,
    Quote,
    TakerSide,
    Trade,
    TradeHole,
)
from ingest.wire import (
    Epoch,
    Id,
    Levels,
    Price,
    Qty,
    Symbols,
    VenueClock,
    Wire,
    epoch_ns,
    frame_bytes,
    frame_decoder,
    optional_number,
)

Venue: TypeAlias = Literal["binance", "binance_um", "binance_cm"]
Route: TypeAlias = Callable[[bytes, int], list[Event]]
_RULES: Final[dict[str, Rule]] = {"binance": spot_rule, "binance_um": futures_rule, "binance_cm": futures_rule}
_UNIVERSE: Final = {"binance": 0, "binance_um": 1, "binance_cm": 2}
"""`st` of each venue: since 2026-06-30 all-market streams carry USD-M and COIN-M together (A.3)."""
_ENVELOPE: Final = b'{"stream":"'
_MARKET: Final = "MARKET"
_OVERLAP: Final = 10_000
"""A trade id this little below the last is a repeat after a reconnect; further below, the venue started anew."""


class _Ticker(Wire, frozen=True):
    s: str
    u: Id
    b: Qty  # an empty side is written as price 0
    B: Qty
    a: Qty
    A: Qty
    T: Epoch = 0  # spot gives no time
    st: int = 0


class _AggTrade(Wire, frozen=True):
    s: str
    a: Id
    p: Price
    q: Qty
    T: Epoch
    m: bool
    st: int = 0


class _Trade(Wire, frozen=True):
    s: str
    t: Id
    p: Qty  # X other than MARKET may carry price and quantity 0
    q: Qty
    T: Epoch
    m: bool
    X: str = _MARKET
    st: int = 0


class _Depth(Wire, frozen=True):
    s: str
    U: Id
    u: Id
    E: Epoch
    b: Levels
    a: Levels
    T: Epoch = 0  # spot gives only E
    pu: Id = 0
    st: int = 0


class _Snapshot(Wire, frozen=True):
    lastUpdateId: Id
    bids: Levels
    asks: Levels
    T: Epoch = 0


class _PartialDepth(Wire, frozen=True):
    """Futures write it like a change (`b`, `a`, `u`), spot like a REST snapshot, without symbol and time."""

    lastUpdateId: Id = 0
    bids: Levels = msgspec.field(default_factory=list)
    asks: Levels = msgspec.field(default_factory=list)
    s: str = ""
    u: Id = 0
    E: Epoch = 0
    T: Epoch = 0
    b: Levels = msgspec.field(default_factory=list)
    a: Levels = msgspec.field(default_factory=list)
    st: int = 0


class _MarkPrice(Wire, frozen=True):
    s: str
    E: Epoch
    p: Price
    i: str | None = None
    r: str | None = None
    T: Epoch = 0
    st: int = 0


class _Forced(Wire, frozen=True):
    s: str
    S: Literal["BUY", "SELL"]
    p: Qty
    ap: Qty
    q: Qty
    z: Qty
    T: Epoch


class _ForceOrder(Wire, frozen=True):
    o: _Forced
    st: int = 0


class _Head(Wire, frozen=True):
    """What tells frames apart whose place in a combined stream is not plain from their first bytes."""

    stream: str | None = None
    e: str | None = None
    u: int | None = None
    id: int | str | None = None
    error: object = None
    code: int | None = None


_head = frame_decoder(_Head)
_snapshot = frame_decoder(_Snapshot)


class BinanceDecoder:
    """Decoder of one connection. What no table holds is counted in `ignored`; refused requests are kept in `refused`.

    `keep_levels` keeps rebuilding books also where the connection has best prices of its own.
    """

    def __init__(self, venue: Venue, keep_levels: bool = False) -> None:
        self.venue = venue
        self.ignored: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.refused: list[str] = []
        self.missed: list[TradeHole] = []
        self.refills = False
        self.books: dict[str, BookStream] = {}
        self._keep_levels = keep_levels
        self._symbols = Symbols()
        self._clock = VenueClock()
        self._routes: dict[bytes, Route] = {}
        self._bare_routes: dict[str, Route] = {}
        self._stream_of: dict[tuple[str, str], str] = {}
        self._last_trade: dict[str, tuple[int, int]] = {}
        self._native: set[str] = set()

    def decode(self, frame: str | bytes, recv_ns: int) -> list[Event]:
        """The events of a frame; none for acks and for streams that no table holds. Raises DecodeError."""
        if isinstance(frame, str):
            frame = frame_bytes(frame)
        if frame.startswith(_ENVELOPE):
            stream = frame[len(_ENVELOPE) : frame.find(b'"', len(_ENVELOPE))]
            route = self._routes.get(stream) or self._route(stream)
            return route(frame, recv_ns)
        return self._decode_other(frame, recv_ns)

    def decode_rest(self, url: str, body: str | bytes, recv_ns: int) -> list[Event]:
        """The events of a REST answer: a depth snapshot starts its symbol's book. Raises DecodeError."""
        parts = urlsplit(url)
        endpoint = parts.path.rsplit("/", 1)[-1]
        if endpoint != "depth":
            self.ignored[f"rest {endpoint[:40]}"] += 1
            return []
        symbol = self._symbols.admit(parse_qs(parts.query).get("symbol", [""])[0])
        wire = _snapshot(frame_bytes(body))
        exch_ns = epoch_ns(wire.T) if wire.T else self._clock.at(recv_ns)
        rest = self._book(symbol).snapshot(wire.lastUpdateId, wire.bids, wire.asks, exch_ns, recv_ns)
        return [BookUpdate(symbol, exch_ns, recv_ns, wire.lastUpdateId, wire.bids, wire.asks, True), *rest]

    @property
    def wants_snapshot(self) -> list[str]:
        """Symbols whose depth changes have no snapshot to stand on."""
        return [symbol for symbol, book in self.books.items() if book.wants_snapshot]

    def gap_of(self, frame: str | bytes, recv_ns: int, why: str) -> list[Gap]:
        """The gap that a frame which did not decode leaves in its stream; none if not even its stream can be read."""
        return []

    def interrupted(self, recv_ns: int) -> list[Event]:
        """The connection was lost at `recv_ns`: books start over. Trade ids go on, since they tell what was missed."""
        return [gap for book in self.books.values() for gap in book.interrupted(recv_ns)]

    def finish(self, recv_ns: int) -> list[Event]:
        """The connection has ended for good: the gaps that are still open."""
        return [gap for book in self.books.values() for gap in book.finish(recv_ns)]

    def _decode_other(self, frame: bytes, recv_ns: int) -> list[Event]:
        """Frames without the usual envelope: raw streams, acks, errors, an envelope written with spaces."""
        if frame.lstrip()[:1] == b"[":
            return self._marks(frame_decoder(list[_MarkPrice]), frame, recv_ns)
        head = _head(frame)
        if head.stream is not None:
            return self._route(head.stream.encode())(frame, recv_ns)
        if head.error is not None or head.code is not None:
            self.refused.append(frame[:200].decode(errors="replace"))
            return self._ignore("refused", frame, recv_ns)
        kind = head.e or ("bookTicker" if head.u is not None else "ack" if head.id is not None else "unknown")
        route = self._bare_routes.get(kind) or self._handler(kind, "", False)
        if kind in _WIRE_TYPES:
            self._bare_routes[kind] = route
        return route(frame, recv_ns)

    def _route(self, stream: bytes) -> Route:
        """The handler of a combined stream, by its name: `btcusdt@depth@100ms`, `!bookTicker`, `!markPrice@arr@1s`."""
        name = stream.decode(errors="replace")
        symbol, _, rest = name.partition("@")
        kind = symbol[1:] if symbol.startswith("!") else rest.partition("@")[0]
        if name.startswith("!markPrice"):
            route: Route = partial(self._marks, frame_decoder(list[_MarkPrice], wrapped=True))
        else:
            route = self._handler(kind, name, True)
        if kind in _WIRE_TYPES or kind in _PARTIAL:
            self._routes[stream] = route
        return route

    def _handler(self, kind: str, stream: str, wrapped: bool) -> Route:
        """The handler of a payload's kind: its `e`, or the second part of its stream's name."""
        if kind in _PARTIAL and wrapped:
            return partial(self._partial_depth, frame_decoder(_PartialDepth, wrapped), stream)
        if kind not in _WIRE_TYPES:
            return partial(self._ignore, kind[:40])
        wire_type, method = _WIRE_TYPES[kind]
        return partial(getattr(self, method), frame_decoder(wire_type, wrapped), stream)

    def _ignore(self, why: str, frame: bytes, recv_ns: int) -> list[Event]:
        self.ignored[why] += 1
        return []

    def _is_foreign(self, universe: int) -> bool:
        """True, and counted, for a row of the other futures universe on an all-market stream."""
        if not universe or universe == _UNIVERSE[self.venue]:
            return False
        self.ignored["other universe"] += 1
        return True

    def _is_second(self, symbol: str, table: str, stream: str) -> bool:
        """True, and counted, if this table of the symbol is already fed by another stream: rows must not double."""
        if self._stream_of.setdefault((symbol, table), stream) == stream:
            return False
        self.ignored[f"second stream {stream.partition('@')[2] or stream}"[:60]] += 1
        return True

    def _book(self, symbol: str) -> BookStream:
        book = self.books.get(symbol)
        if book is None:
            book = self.books[symbol] = BookStream(symbol, _RULES[self.venue], self._keep_levels)
            book.native_quotes = symbol in self._native
        return book

    def _exch_ns(self, time: int, recv_ns: int) -> int:
        """The venue's time in nanoseconds; spot's best prices, which have none, are set by these (VenueClock)."""
        exch_ns = epoch_ns(time)
        if self.venue == "binance":
            self._clock.heard(exch_ns, recv_ns)
        return exch_ns

    def _quote(self, decode: Callable[[bytes], _Ticker], stream: str, frame: bytes, recv_ns: int) -> list[Event]:
        w = decode(frame)
        if w.st and self._is_foreign(w.st):
            return []
        if w.s not in self._native:
            self._admit_native(w.s)
        if not (w.b and w.a):
            return self._ignore("one-sided bookTicker", frame, recv_ns)
        if w.T:
            return [Quote(w.s, epoch_ns(w.T), recv_ns, w.u, w.b, w.B, w.a, w.A)]
        return [Quote(w.s, self._clock.at(recv_ns), recv_ns, w.u, w.b, w.B, w.a, w.A, True)]

    def _admit_native(self, symbol: str) -> None:
        self._native.add(self._symbols.admit(symbol))
        if symbol in self.books:
            self.books[symbol].native_quotes = True

    def _agg_trade(self, decode: Callable[[bytes], _AggTrade], stream: str, frame: bytes, recv_ns: int) -> list[Event]:
        w = decode(frame)
        if w.st and self._is_foreign(w.st):
            return []
        return self._traded(w.s, w.a, w.p, w.q, w.T, w.m, "aggTrade", recv_ns)

    def _raw_trade(self, decode: Callable[[bytes], _Trade], stream: str, frame: bytes, recv_ns: int) -> list[Event]:
        """`X` is what made the trade on futures: insurance fund and ADL trades never stood in the book."""
        w = decode(frame)
        if w.st and self._is_foreign(w.st):
            return []
        if w.X == _MARKET and not w.p:
            raise DecodeError("trade without a price")
        events = self._traded(w.s, w.t, w.p, w.q, w.T, w.m, "trade", recv_ns)
        if w.X == _MARKET:
            return events
        self.ignored[f"trade {w.X[:20]}"] += 1
        return [event for event in events if isinstance(event, Gap)]

    def _traded(
        self, symbol: str, number: int, price: float, qty: float, time: int, buyer_made: bool, stream: str, recv_ns: int
    ) -> list[Event]:
        """A trade, after the gap that its number shows: trade ids of a symbol have no holes."""
        self._symbols.admit(symbol)
        if self._is_second(symbol, TRADES.name, stream):
            return []
        last, last_ns = self._last_trade.get(symbol, (number - 1, recv_ns))
        if last - _OVERLAP < number <= last:
            self.ignored["repeated trade"] += 1
            return []
        self._last_trade[symbol] = number, recv_ns
        taker_side: TakerSide = "sell" if buyer_made else "buy"
        trade = Trade(symbol, self._exch_ns(time, recv_ns), recv_ns, str(number), price, qty, taker_side)
        if number == last + 1:
            return [trade]
        return [Gap(symbol, TRADES.name, last_ns, recv_ns, f"{stream} {last} is followed by {number}", False), trade]

    def _depth(self, decode: Callable[[bytes], _Depth], stream: str, frame: bytes, recv_ns: int) -> list[Event]:
        w = decode(frame)
        symbol = self._symbols.admit(w.s)
        if (w.st and self._is_foreign(w.st)) or self._is_second(symbol, BOOK_DELTAS.name, stream):
            return []
        exch_ns = self._exch_ns(w.T or w.E, recv_ns)
        rest = self._book(symbol).change(Change(w.U, w.u, w.pu, w.b, w.a), exch_ns, recv_ns)
        return [BookUpdate(symbol, exch_ns, recv_ns, w.u, w.b, w.a), *rest]

    def _partial_depth(
        self, decode: Callable[[bytes], _PartialDepth], stream: str, frame: bytes, recv_ns: int
    ) -> list[Event]:
        w = decode(frame)
        update_id = w.u or w.lastUpdateId
        if not update_id:
            raise DecodeError("partial depth without an update id")
        symbol = self._symbols.admit(w.s or stream.partition("@")[0].upper())
        if (w.st and self._is_foreign(w.st)) or self._is_second(symbol, BOOK_DELTAS.name, stream):
            return []
        bids, asks = w.b or w.bids, w.a or w.asks
        exch_ns = epoch_ns(w.T or w.E) if w.T or w.E else self._clock.at(recv_ns)
        rest = self._book(symbol).snapshot(update_id, bids, asks, exch_ns, recv_ns)
        return [BookUpdate(symbol, exch_ns, recv_ns, update_id, bids, asks, True), *rest]

    def _mark(self, decode: Callable[[bytes], _MarkPrice], stream: str, frame: bytes, recv_ns: int) -> list[Event]:
        return self._marked(decode(frame), recv_ns)

    def _marks(self, decode: Callable[[bytes], list[_MarkPrice]], frame: bytes, recv_ns: int) -> list[Event]:
        return [event for w in decode(frame) for event in self._marked(w, recv_ns)]

    def _marked(self, w: _MarkPrice, recv_ns: int) -> list[Event]:
        """Mark prices have no engine time: `E` is when they were sent. Delivery contracts leave index and rate out."""
        if w.st and self._is_foreign(w.st):
            return []
        index, rate = optional_number(w.i), optional_number(w.r)
        next_ns = epoch_ns(w.T) if w.T else None
        return [Mark(self._symbols.admit(w.s), epoch_ns(w.E), recv_ns, w.p, index, rate, next_ns, None)]

    def _forced(self, decode: Callable[[bytes], _ForceOrder], stream: str, frame: bytes, recv_ns: int) -> list[Event]:
        """`S` is the forced order's side: a SELL closes a long. Average price and filled quantity, where given."""
        order = decode(frame)
        if order.st and self._is_foreign(order.st):
            return []
        w = order.o
        liquidated: Liquidated = "long" if w.S == "SELL" else "short"
        price, qty = w.ap or w.p, w.z or w.q
        if not price:
            raise DecodeError("forced order without a price")
        return [Liquidation(self._symbols.admit(w.s), epoch_ns(w.T), recv_ns, liquidated, price, qty)]


_WIRE_TYPES: Final[dict[str, tuple[Any, str]]] = {
    "bookTicker": (_Ticker, "_quote"),
    "aggTrade": (_AggTrade, "_agg_trade"),
    "trade": (_Trade, "_raw_trade"),
    "depth": (_Depth, "_depth"),
    "depthUpdate": (_Depth, "_depth"),
    "markPrice": (_MarkPrice, "_mark"),
    "markPriceUpdate": (_MarkPrice, "_mark"),
    "forceOrder": (_ForceOrder, "_forced"),
}
_PARTIAL: Final = ("depth5", "depth10", "depth20")
