"""Bybit v5 public topics to events, without I/O (exchange_protocols.md section C). Linear; spot and inverse alike.

`orderbook.1` gives best prices, deeper books give changes. `tickers` sends only what changed, so the decoder keeps the
rest; open interest counts both sides there and is halved unless the one-sided figure comes with it.
"""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Literal, TypeAlias

from ingest.book import Change, Ladder, bybit_rule
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
    Wire,
    epoch_ns,
    frame_bytes,
    frame_decoder,
    optional_number,
)

Venue: TypeAlias = Literal["bybit", "bybit_spot", "bybit_inverse"]
Route: TypeAlias = Callable[[bytes, int], list[Event]]
_ENVELOPE: Final = b'{"topic":"'


class _BookData(Wire, frozen=True):
    s: str
    b: Levels
    a: Levels
    u: Id


class _OrderBook(Wire, frozen=True):
    type: Literal["snapshot", "delta"]
    ts: Epoch
    data: _BookData
    cts: Epoch = 0  # matching-engine time; missing before 2023-06


class _TradeData(Wire, frozen=True):
    s: str
    T: Epoch
    S: Literal["Buy", "Sell"]
    v: Qty
    p: Price
    i: str
    BT: bool = False


class _PublicTrade(Wire, frozen=True):
    data: list[_TradeData]


class _TickerData(Wire, frozen=True):
    symbol: str
    markPrice: str | None = None
    indexPrice: str | None = None
    fundingRate: str | None = None
    nextFundingTime: str | None = None
    openInterest: str | None = None
    singleOpenInterest: str | None = None


class _Tickers(Wire, frozen=True):
    type: Literal["snapshot", "delta"]
    ts: Epoch
    data: _TickerData


class _LiquidationData(Wire, frozen=True):
    s: str
    T: Epoch
    S: Literal["Buy", "Sell"]
    v: Qty
    p: Price


class _AllLiquidation(Wire, frozen=True):
    data: list[_LiquidationData]


class _Head(Wire, frozen=True):
    topic: str | None = None
    op: str | None = None
    success: bool | None = None


_head = frame_decoder(_Head)


class BybitDecoder:
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
        self._routes: dict[bytes, Route] = {}
        self._depth_of: dict[str, str] = {}
        self._tops: dict[str, _BookData] = {}
        self._tickers: dict[str, _TickerData] = {}

    def decode(self, frame: str | bytes, recv_ns: int) -> list[Event]:
        """The events of a frame; none for acks and for topics that no table holds. Raises DecodeError."""
        if isinstance(frame, str):
            frame = frame_bytes(frame)
        if frame.startswith(_ENVELOPE):
            topic = frame[len(_ENVELOPE) : frame.find(b'"', len(_ENVELOPE))]
            route = self._routes.get(topic) or self._route(topic)
            return route(frame, recv_ns)
        return self._decode_other(frame, recv_ns)

    def decode_rest(self, url: str, body: str | bytes, recv_ns: int) -> list[Event]:
        """Nothing: Bybit's books start from the stream's own snapshots. What came is counted."""
        self.ignored[f"rest {url.partition('?')[0].rsplit('/', 1)[-1][:40]}"] += 1
        return []

    @property
    def wants_snapshot(self) -> list[str]:
        """Symbols whose topic must be subscribed to again: a delta did not follow, and only that brings a snapshot."""
        return [symbol for symbol, book in self.books.items() if book.wants_snapshot]

    def gap_of(self, frame: str | bytes, recv_ns: int, why: str) -> list[Gap]:
        """The gap that a frame which did not decode leaves in its stream; none if not even its stream can be read."""
        return []

    def interrupted(self, recv_ns: int) -> list[Event]:
        """The connection was lost at `recv_ns`: books and tickers start over with the topics' snapshots."""
        self._tops.clear()
        self._tickers.clear()
        return [gap for book in self.books.values() for gap in book.interrupted(recv_ns)]

    def finish(self, recv_ns: int) -> list[Event]:
        """The connection has ended for good: the gaps that are still open."""
        return [gap for book in self.books.values() for gap in book.finish(recv_ns)]

    def _decode_other(self, frame: bytes, recv_ns: int) -> list[Event]:
        """Frames that do not begin with their topic: acks, pongs, refusals, keys in another order."""
        head = _head(frame)
        if head.topic is not None:
            return self._route(head.topic.encode())(frame, recv_ns)
        if head.success is False:
            self.refused.append(frame[:200].decode(errors="replace"))
            return self._ignore("refused", frame, recv_ns)
        return self._ignore("ack" if head.op is not None else "unknown", frame, recv_ns)

    def _route(self, topic: bytes) -> Route:
        """The handler of a topic: `orderbook.50.BTCUSDT`, `publicTrade.BTCUSDT`, ..."""
        name = topic.decode(errors="replace")
        kind, _, rest = name.partition(".")
        route = self._handler(kind, rest.partition(".")[0], name)
        if kind in _KINDS:
            self._routes[topic] = route
        return route

    def _handler(self, kind: str, depth: str, topic: str) -> Route:
        match kind:
            case "orderbook" if depth == "1":
                return partial(self._top, frame_decoder(_OrderBook))
            case "orderbook" if depth.isdigit():
                return partial(self._book, frame_decoder(_OrderBook), topic)
            case "publicTrade":
                return partial(self._trades, frame_decoder(_PublicTrade))
            case "tickers" if self.venue != "bybit_spot":  # spot has neither mark price nor funding
                return partial(self._ticker, frame_decoder(_Tickers))
            case "allLiquidation":
                return partial(self._liquidations, frame_decoder(_AllLiquidation))
        return partial(self._ignore, topic.rpartition(".")[0][:40] or kind[:40])

    def _ignore(self, why: str, frame: bytes, recv_ns: int) -> list[Event]:
        self.ignored[why] += 1
        return []

    def _top(self, decode: Callable[[bytes], _OrderBook], frame: bytes, recv_ns: int) -> list[Event]:
        """Depth 1. Today only snapshots, the same one again after 3 s without a change; deltas until 2023."""
        w = decode(frame)
        top, before = w.data, self._tops.get(w.data.s)
        if w.type == "delta":
            if before is None or top.u != before.u + 1:
                self._tops.pop(top.s, None)
                return self._ignore("orderbook.1 delta that does not follow", frame, recv_ns)
            top = _moved(before, top)
        elif before is None:
            self._admit_top(top.s)
        elif top.u == before.u:
            return self._ignore("repeated orderbook.1", frame, recv_ns)
        self._tops[top.s] = top
        if not (top.b and top.a):
            return self._ignore("one-sided orderbook.1", frame, recv_ns)
        return [Quote(top.s, epoch_ns(w.cts or w.ts), recv_ns, top.u, *top.b[0], *top.a[0])]

    def _admit_top(self, symbol: str) -> None:
        self._symbols.admit(symbol)
        if symbol in self.books:
            self.books[symbol].native_quotes = True

    def _book(self, decode: Callable[[bytes], _OrderBook], topic: str, frame: bytes, recv_ns: int) -> list[Event]:
        """A snapshot may come at any time and replaces the book; so does `u` = 1, sent after a restart of theirs."""
        w = decode(frame)
        symbol, exch_ns = self._symbols.admit(w.data.s), epoch_ns(w.cts or w.ts)
        if self._depth_of.setdefault(symbol, topic) != topic:
            return self._ignore(f"second book {topic.rpartition('.')[0]}"[:60], frame, recv_ns)
        book = self.books.get(symbol)
        if book is None:
            book = self.books[symbol] = BookStream(symbol, bybit_rule, self._keep_levels, holds_back=False)
            book.native_quotes = symbol in self._tops
        whole = w.type == "snapshot" or w.data.u == 1
        if whole:
            rest = book.snapshot(w.data.u, w.data.b, w.data.a, exch_ns, recv_ns)
        else:
            rest = book.change(Change(w.data.u, w.data.u, 0, w.data.b, w.data.a), exch_ns, recv_ns)
        return [BookUpdate(symbol, exch_ns, recv_ns, w.data.u, w.data.b, w.data.a, whole), *rest]

    def _trades(self, decode: Callable[[bytes], _PublicTrade], frame: bytes, recv_ns: int) -> list[Event]:
        """Block trades are agreed off the book: they are counted, not told."""
        events: list[Event] = []
        for w in decode(frame).data:
            if w.BT:
                self.ignored["block trade"] += 1
                continue
            taker_side: TakerSide = "buy" if w.S == "Buy" else "sell"
            events.append(Trade(self._symbols.admit(w.s), epoch_ns(w.T), recv_ns, w.i, w.p, w.v, taker_side))
        return events

    def _ticker(self, decode: Callable[[bytes], _Tickers], frame: bytes, recv_ns: int) -> list[Event]:
        """Mark, index, funding and open interest as they stand after this message, which may change none of them."""
        w = decode(frame)
        symbol = self._symbols.admit(w.data.symbol)
        before = self._tickers.get(symbol)
        if w.type == "delta" and before is None:
            return self._ignore("tickers delta before a snapshot", frame, recv_ns)
        now = w.data if before is None or w.type == "snapshot" else _updated(before, w.data)
        mark = _mark(symbol, epoch_ns(w.ts), recv_ns, now)
        self._tickers[symbol] = now
        return [mark] if mark else self._ignore("tickers without mark price", frame, recv_ns)

    def _liquidations(self, decode: Callable[[bytes], _AllLiquidation], frame: bytes, recv_ns: int) -> list[Event]:
        """`S` is the side of the position, unlike Binance's: Buy is a long liquidated. The price is bankruptcy's."""
        events: list[Event] = []
        for w in decode(frame).data:
            liquidated: Liquidated = "long" if w.S == "Buy" else "short"
            events.append(Liquidation(self._symbols.admit(w.s), epoch_ns(w.T), recv_ns, liquidated, w.p, w.v))
        return events


def _moved(top: _BookData, change: _BookData) -> _BookData:
    """Depth 1 after a delta: at most one level per side stays."""
    sides = []
    for levels, changed in ((top.b, change.b), (top.a, change.a)):
        ladder = Ladder()
        ladder.reset(levels)
        ladder.put(changed)
        sides.append([(price, ladder.qty_at[price]) for price in ladder.prices])
    return _BookData(change.s, sides[0][::-1], sides[1], change.u)


_KINDS: Final = ("orderbook", "publicTrade", "tickers", "allLiquidation")
_TICKER_FIELDS: Final = _TickerData.__struct_fields__


def _updated(before: _TickerData, change: _TickerData) -> _TickerData:
    """A field that a delta leaves out is unchanged."""
    values: list[Any] = []
    for name in _TICKER_FIELDS:
        value = getattr(change, name)
        values.append(getattr(before, name) if value is None else value)
    return _TickerData(*values)


def _mark(symbol: str, exch_ns: int, recv_ns: int, ticker: _TickerData) -> Mark | None:
    price = optional_number(ticker.markPrice)
    if price is None:
        return None
    if price <= 0:
        raise DecodeError(f"mark price must be positive, was {price}")
    both, single = optional_number(ticker.openInterest), optional_number(ticker.singleOpenInterest)
    one_sided = single if single is not None else None if both is None else both / 2
    funding_time = ticker.nextFundingTime or "0"
    if not (funding_time.isascii() and funding_time.isdigit() and len(funding_time) <= _EPOCH_DIGITS):
        raise DecodeError(f"expected a time, was {funding_time[:40]!r}")
    next_ns = epoch_ns(int(funding_time)) or None
    index, rate = optional_number(ticker.indexPrice), optional_number(ticker.fundingRate)
    return Mark(symbol, exch_ns, recv_ns, price, index, rate, next_ns, one_sided)


_EPOCH_DIGITS: Final = 13
