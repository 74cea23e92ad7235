"""What the messages of each Binance stream become, one symbol after the other: rows, gaps, or a count of repeats.

The streams of one venue share a state here, whichever connection they come on. Handlers take a decoder of their
payload, the frame and its receipt.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias

from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, TOP_OF_BOOK, TRADES
from core.units import NS_PER_MS
from ingest import binance_wire as wire
from ingest.book import Change, Rule, futures_rule, spot_rule
from ingest.book_stream import BookStream
from ingest.events import BookUpdate, DecodeError, Event, Gap, Kline, Liquidation, Mark, Quote, Trade, TradeHole
from ingest.open_holes import OpenHole
from ingest.sequence import Progress, Seen, is_news
from ingest.trade_stream import TradeStream
from ingest.wire import Symbols, VenueClock, Wrapped, epoch_ns, optional_number

Venue: TypeAlias = Literal["binance", "binance_um", "binance_cm"]
_RULES: Final[dict[str, Rule]] = {"binance": spot_rule, "binance_um": futures_rule, "binance_cm": futures_rule}
_UNIVERSE: Final = {"binance": 0, "binance_um": 1, "binance_cm": 2}
AGG_TRADE: Final = "aggTrade"
_RAW_TRADE: Final = "trade"
_CONTRACTS_USD: Final = (("BTCUSD", 100.0), ("", 10.0))
"""What a COIN-M contract is worth, by the beginning of its name."""


class BinanceStreams:
    """Counts and state are public: `BinanceDecoder` hands them on. See `ingest.venues.Decoder` for what they are."""

    def __init__(self, venue: Venue, keep_levels: bool) -> None:
        self.ignored: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.missed: list[TradeHole] = []
        self.refills = False
        self.books: dict[str, BookStream] = {}
        self._venue = venue
        self._keep_levels = keep_levels
        self._symbols = Symbols()
        self._clock = VenueClock()
        self._quotes: dict[str, Progress] = {}
        self._trades: dict[str, TradeStream] = {}
        self._marks: dict[str, Progress] = {}
        self._candles: dict[tuple[str, str], Progress] = {}
        self._forced = Seen()

    def last_ns(self, symbol: str, table: str) -> int:
        """Receipt of the last good message of a stream; 0 if none came. The seldom ones only show that they came."""
        if table == BOOK_DELTAS.name:
            return self.books[symbol].last_ns if symbol in self.books else 0
        if table == TRADES.name:
            return self._trades[symbol].last_ns if symbol in self._trades else 0
        if table in (LIQUIDATIONS.name, KLINES.name):
            return int(self._symbols.is_known(symbol))
        progress = (self._quotes if table == TOP_OF_BOOK.name else self._marks).get(symbol)
        return progress.recv_ns if progress else 0

    def stand(self, table: str, symbol: str, stream: str) -> tuple[int, int, int, int] | None:
        """(last id, exch_ns, recv_ns, the book's id) of a stream whose messages only have to follow on; None if not."""
        if table == TOP_OF_BOOK.name:
            last = self._quotes.get(symbol)
            return (last.last_id, last.exch_ns, last.recv_ns, 0) if last else None
        if table == TRADES.name:
            trades = self._trades.get(symbol)
            is_fed = trades is not None and trades.stream == AGG_TRADE and trades.next_id >= 0
            return (trades.next_id - 1, 0, trades.last_ns, 0) if trades and is_fed else None
        book = self.books.get(symbol)
        return book.stand() if book and book.stream == stream else None

    def follow(self, table: str, symbol: str, last_id: int, exch_ns: int, recv_ns: int) -> None:
        """Move a stream on to a message that followed on, and that someone else made a row of."""
        if table == TOP_OF_BOOK.name:
            self._quotes[symbol].move(last_id, exch_ns, recv_ns)
        elif table == TRADES.name:
            self._trades[symbol].follow(last_id, exch_ns, recv_ns)
            self._clock.heard(exch_ns, recv_ns)
        else:
            self.books[symbol].follow(last_id, exch_ns, recv_ns)
            if self._venue == "binance":
                self._clock.heard(exch_ns, recv_ns)

    @property
    def delay_ns(self) -> int:
        """What receipt is later than the venue's time (VenueClock)."""
        return self._clock.delay_ns

    def quote(self, decode: Callable[[bytes], Wrapped[wire.Ticker]], frame: bytes, recv_ns: int) -> list[Event]:
        """bookTicker, the stream of which most frames are: no call that can be spared."""
        w = decode(frame).data
        symbol, update_id = w.s, w.u
        if w.st and self._is_foreign(w.st):
            return []
        exch_ns, told = w.T * NS_PER_MS, None
        last = self._quotes.get(symbol)
        if last is None:
            last = self._first_quote(symbol, recv_ns)
        elif update_id <= last.last_id:
            if last.is_repeat(update_id, exch_ns, recv_ns):
                return self._repeat("bookTicker")
            reason = f"update ids fell from {last.last_id} to {update_id}"
            told = Gap(symbol, TOP_OF_BOOK.name, last.recv_ns, recv_ns, reason, False)
        last.last_id, last.exch_ns, last.recv_ns = update_id, exch_ns, recv_ns
        if not (w.b and w.a):
            return self.ignore("one-sided bookTicker", frame, recv_ns)
        if exch_ns:
            quote = Quote(symbol, exch_ns, recv_ns, update_id, w.b, w.B, w.a, w.A)
        else:
            quote = Quote(symbol, self._clock.at(recv_ns), recv_ns, update_id, w.b, w.B, w.a, w.A, True)
        return [quote] if told is None else [told, quote]

    def agg_trade(self, decode: Callable[[bytes], Wrapped[wire.AggTrade]], frame: bytes, recv_ns: int) -> list[Event]:
        w = decode(frame).data
        if w.st and self._is_foreign(w.st):
            return []
        exch_ns, number, stream = epoch_ns(w.T), w.a, self._trades.get(w.s)
        trade = Trade(w.s, exch_ns, recv_ns, str(number), w.p, w.q, "sell" if w.m else "buy")
        if stream is not None and number == stream.next_id and stream.stream == AGG_TRADE:
            stream.follow(number, exch_ns, recv_ns)
            self._clock.heard(exch_ns, recv_ns)
            return [trade]
        told = self._take_trade(AGG_TRADE, w.s, number, exch_ns, recv_ns)
        return [] if told is None else [*told, trade]

    def raw_trade(self, decode: Callable[[bytes], Wrapped[wire.RawTrade]], frame: bytes, recv_ns: int) -> list[Event]:
        """Insurance fund and ADL trades never stood in the book: they are counted, and their ids too."""
        w = decode(frame).data
        if w.st and self._is_foreign(w.st):
            return []
        if w.X == wire.MARKET and not w.p:
            raise DecodeError("trade without a price")
        exch_ns = epoch_ns(w.T)
        told = self._take_trade(_RAW_TRADE, w.s, w.t, exch_ns, recv_ns)
        if told is None:
            return []
        if w.X != wire.MARKET:
            self.ignored[f"trade {w.X[:20]}"] += 1
            return [*told]
        return [*told, Trade(w.s, exch_ns, recv_ns, str(w.t), w.p, w.q, "sell" if w.m else "buy")]

    def spot_depth(
        self, stream: str, decode: Callable[[bytes], Wrapped[wire.Depth]], frame: bytes, recv_ns: int
    ) -> list[Event]:
        w = decode(frame).data
        return self._changed(stream, w.s, Change(w.U, w.u, 0, w.b, w.a), epoch_ns(w.E), recv_ns)

    def futures_depth(
        self, stream: str, decode: Callable[[bytes], Wrapped[wire.FuturesDepth]], frame: bytes, recv_ns: int
    ) -> list[Event]:
        w = decode(frame).data
        if w.st and self._is_foreign(w.st):
            return []
        return self._changed(stream, w.s, Change(w.U, w.u, w.pu, w.b, w.a), epoch_ns(w.T or w.E), recv_ns)

    def partial_depth(
        self, stream: str, decode: Callable[[bytes], Wrapped[wire.PartialDepth]], frame: bytes, recv_ns: int
    ) -> list[Event]:
        """The best levels in full each time. Spot names neither symbol nor time: they are the stream's and ours."""
        w = decode(frame).data
        update_id, time = w.u or w.lastUpdateId, w.T or w.E
        if not update_id:
            raise DecodeError("partial depth without an update id")
        if w.st and self._is_foreign(w.st):
            return []
        book = self._book(w.s or stream.partition("@")[0].upper(), stream)
        if book is None:
            return []
        bids, asks = w.b or w.bids, w.a or w.asks
        exch_ns = epoch_ns(time) if time else self._clock.at(recv_ns)
        told = book.stream_snapshot(update_id, bids, asks, exch_ns, recv_ns, bool(time))
        if told is None:
            return self._repeat("partial depth")
        return [BookUpdate(book.symbol, exch_ns, recv_ns, update_id, bids, asks, True), *told]

    def mark(self, decode: Callable[[bytes], Wrapped[wire.MarkPrice]], frame: bytes, recv_ns: int) -> list[Event]:
        return self._marked(decode(frame).data, recv_ns)

    def marks(
        self, decode: Callable[[bytes], Wrapped[list[wire.MarkPrice]]], frame: bytes, recv_ns: int
    ) -> list[Event]:
        return [event for w in decode(frame).data for event in self._marked(w, recv_ns)]

    def forced(self, decode: Callable[[bytes], Wrapped[wire.ForceOrder]], frame: bytes, recv_ns: int) -> list[Event]:
        """`S` is the forced order's side: a SELL closes a long. Average price and filled quantity, where given."""
        order = decode(frame).data
        if order.st and self._is_foreign(order.st):
            return []
        w = order.o
        price, qty = w.ap or w.p, w.z or w.q
        if not price:
            raise DecodeError("forced order without a price")
        symbol, exch_ns = self._symbols.admit(w.s), epoch_ns(w.T)
        if not self._forced.is_new(w):
            return self._repeat("forceOrder")
        return [Liquidation(symbol, exch_ns, recv_ns, "long" if w.S == "SELL" else "short", price, qty)]

    def kline(self, decode: Callable[[bytes], Wrapped[wire.Kline]], frame: bytes, recv_ns: int) -> list[Event]:
        """Closed candles alone. COIN-M counts contracts in `v` and its base asset in `q`."""
        message = decode(frame).data
        if message.st and self._is_foreign(message.st):
            return []
        w, symbol, sent_ns = message.k, self._symbols.admit(message.s), epoch_ns(message.E)
        if not w.x:
            return self.ignore("open candle", frame, recv_ns)
        if not is_news(self._candles, (symbol, w.i), w.t, sent_ns, recv_ns):
            return self._repeat("kline")
        qty, usd, taker_qty, taker_usd = w.v, w.q, w.V, w.Q
        if self._venue == "binance_cm":
            contract_usd = next(usd for name, usd in _CONTRACTS_USD if symbol.startswith(name))
            qty, usd, taker_qty, taker_usd = w.q, w.v * contract_usd, w.Q, w.V * contract_usd
        return [
            Kline(
                symbol, epoch_ns(w.t), epoch_ns(w.T + 1), w.i, sent_ns, recv_ns,
                w.o, w.h, w.l, w.c, qty, usd, w.n, taker_qty, taker_usd,
            )
        ]  # fmt: skip

    def snapshot(self, symbol: str, w: wire.Snapshot, recv_ns: int) -> list[Event]:
        """A REST answer: the depth snapshot that a symbol's book starts from."""
        exch_ns = epoch_ns(w.T) if w.T else self._clock.at(recv_ns)
        book = self._book(symbol)
        told = book.rest_snapshot(w.lastUpdateId, w.bids, w.asks, exch_ns, recv_ns) if book else None
        if told is None:
            return self.ignore("depth snapshot older than the stream", b"", recv_ns)
        return [BookUpdate(symbol, exch_ns, recv_ns, w.lastUpdateId, w.bids, w.asks, True), *told]

    def refill(self, symbol: str, rows: list[wire.RestTrade]) -> list[Event]:
        """A REST answer: trades that the stream left out. They would have come between the hole's two receipts."""
        stream, events = self._trades.get(symbol), list[Event]()
        if stream is None or stream.stream != AGG_TRADE:
            self.ignored["rest aggTrades without their stream"] += 1
            return []
        for w in rows:
            span = stream.fill(w.a)
            if span is None:
                (self.ignored if stream.is_beyond(w.a) else self.repeated)["rest aggTrades"] += 1
                continue
            exch_ns, (from_ns, to_ns) = epoch_ns(w.T), span
            recv_ns = min(max(exch_ns + self._clock.delay_ns, from_ns), to_ns)
            events.append(Trade(symbol, exch_ns, recv_ns, str(w.a), w.p, w.q, "sell" if w.m else "buy", True))
        return events

    def resume(self, symbol: str, last_id: int, exch_ns: int, recv_ns: int, holes: Sequence[OpenHole]) -> None:
        """Go on from a trade of an earlier process, and fill what it left open."""
        self._trades[self._symbols.admit(symbol)] = stream = TradeStream(symbol, AGG_TRADE)
        stream.resume(last_id, exch_ns, recv_ns, holes)
        self.missed += [each.hole for each in holes]

    def missing(self, hole: TradeHole) -> list[tuple[int, int]]:
        """The ids of a hole that have come neither by the stream nor by REST: (first, last) of each run of them."""
        return self._trades[hole.symbol].missing(hole)

    def ignore(self, why: str, frame: bytes, recv_ns: int) -> list[Event]:
        """A handler of what no table holds."""
        self.ignored[why] += 1
        return []

    def _repeat(self, stream: str) -> list[Event]:
        self.repeated[stream] += 1
        return []

    def _is_foreign(self, universe: int) -> bool:
        """True, and counted, for a row of the other futures universe on an all-market stream."""
        if universe == _UNIVERSE[self._venue]:
            return False
        self.ignored["other universe"] += 1
        return True

    def _first_quote(self, symbol: str, recv_ns: int) -> Progress:
        """From here on best prices need not come from the book."""
        progress = self._quotes[self._symbols.admit(symbol)] = Progress(0, 0, recv_ns)
        if symbol in self.books:
            self.books[symbol].native_quotes = True
        return progress

    def _take_trade(self, kind: str, symbol: str, number: int, exch_ns: int, recv_ns: int) -> list[Gap] | None:
        """What precedes a trade; None, and counted, if it is a repeat or comes by a second kind of stream."""
        stream = self._trades.get(symbol)
        if stream is None:
            stream = self._trades[self._symbols.admit(symbol)] = TradeStream(symbol, kind)
        elif stream.stream != kind:
            self.ignored[f"second stream {kind}"] += 1
            return None
        told = stream.take(number, exch_ns, recv_ns, self.missed if self.refills and kind == AGG_TRADE else None)
        if told is None:
            self.repeated[kind] += 1
        else:
            self._clock.heard(exch_ns, recv_ns)
        return told

    def _book(self, symbol: str, stream: str = "") -> BookStream | None:
        """The book of a symbol; None, and counted, if another stream feeds it: its rows would be there twice."""
        book = self.books.get(symbol)
        if book is None:
            book = BookStream(self._symbols.admit(symbol), _RULES[self._venue], self._keep_levels)
            book.native_quotes = symbol in self._quotes
            self.books[symbol] = book
        if stream and not book.stream:
            book.stream = stream
        if stream in ("", book.stream):
            return book
        self.ignored[f"second stream {stream.partition('@')[2] or stream}"[:60]] += 1
        return None

    def _changed(self, stream: str, symbol: str, change: Change, exch_ns: int, recv_ns: int) -> list[Event]:
        book = self._book(symbol, stream or "depth")
        if book is None:
            return []
        told = book.change(change, exch_ns, recv_ns)
        if told is None:
            return self._repeat("depth")
        if self._venue == "binance":
            self._clock.heard(exch_ns, recv_ns)
        return [BookUpdate(symbol, exch_ns, recv_ns, change.last_id, change.bids, change.asks), *told]

    def _marked(self, w: wire.MarkPrice, recv_ns: int) -> list[Event]:
        """Mark prices have no engine time: `E` is when they were sent. Delivery contracts leave index and rate out."""
        if w.st and self._is_foreign(w.st):
            return []
        index, rate = optional_number(w.i), optional_number(w.r)
        next_ns, exch_ns = epoch_ns(w.T) if w.T else None, epoch_ns(w.E)
        if not is_news(self._marks, self._symbols.admit(w.s), w.E, exch_ns, recv_ns):
            return self._repeat("markPrice")
        return [Mark(w.s, exch_ns, recv_ns, w.p, index, rate, next_ns, None)]
