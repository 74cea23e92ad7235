"""What the messages of each Bybit topic become: rows, gaps, or a count of repeats.

The topics of one venue share a state here, whichever connection they come on. Handlers take their topic's name, a
decoder of the message, the frame and its receipt.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Literal, TypeAlias

from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.units import NS_PER_MS
from ingest import bybit_wire as wire
from ingest.book import Change, Ladder, bybit_rule
from ingest.book_stream import BookStream
from ingest.events import BookUpdate, DecodeError, Event, Gap, Kline, Liquidation, Mark, Quote, Trade
from ingest.sequence import Progress, Seen, is_news
from ingest.wire import Symbols, epoch_ns, optional_number

Venue: TypeAlias = Literal["bybit", "bybit_spot", "bybit_inverse"]
_INTERVALS: Final = {
    "1": "1m",
    "3": "3m",
    "5": "5m",
    "15": "15m",
    "30": "30m",
    "60": "1h",
    "120": "2h",
    "240": "4h",
    "360": "6h",
    "720": "12h",
    "D": "1d",
    "W": "1w",
    "M": "1M",
}
INTERVAL_CODES: Final = {interval: code for code, interval in _INTERVALS.items()}
"""Bybit's name of each length that a candle may have."""
_TICKER_FIELDS: Final = wire.TickerData.__struct_fields__
_EPOCH_DIGITS: Final = 13
_RESTARTED: Final = 1
_NO_TOP: Final = "no snapshot of the best prices"


class BybitStreams:
    """Counts and state are public: `BybitDecoder` hands them on. See `ingest.venues.Decoder` for what they are."""

    def __init__(self, venue: Venue, keep_levels: bool) -> None:
        self.ignored: Counter[str] = Counter()
        self.repeated: Counter[str] = Counter()
        self.books: dict[str, BookStream] = {}
        self._venue = venue
        self._keep_levels = keep_levels
        self._symbols = Symbols()
        self._tops: dict[str, wire.BookData] = {}
        self._cut_ns: dict[str, int] = {}
        """Since when best prices wait for a snapshot, because a delta did not follow."""
        self._tickers: dict[str, wire.TickerData] = {}
        self._progress: dict[tuple[str, str], Progress] = {}
        self._candles: dict[str, Progress] = {}
        self._trades, self._forced = Seen(), Seen()

    def last_ns(self, symbol: str, table: str) -> int:
        """Receipt of the last good message of a stream; 0 if none came. The seldom ones only show that they came."""
        if table == BOOK_DELTAS.name:
            return self.books[symbol].last_ns if symbol in self.books else 0
        if table in (LIQUIDATIONS.name, KLINES.name):
            return int(self._symbols.is_known(symbol))
        progress = self._progress.get((symbol, table))
        return progress.recv_ns if progress else 0

    def spoilt(self, symbol: str, table: str) -> None:
        """A frame of a stream was lost. Tickers send what changed: without it they are not known until a snapshot, and
        the silence that follows brings a new subscription.
        """
        if table == MARK_PRICES.name:
            self._tickers.pop(symbol, None)

    def interrupted(self, recv_ns: int) -> list[Event]:
        """The connection was lost: books and tickers start over with the topics' snapshots."""
        self._tops.clear()
        self._tickers.clear()
        return [gap for book in self.books.values() for gap in book.interrupted(recv_ns)]

    def top(self, topic: str, decode: Callable[[bytes], wire.OrderBook], frame: bytes, recv_ns: int) -> list[Event]:
        """Depth 1. Today only snapshots, the same one again after 3 s without a change; deltas until 2023."""
        w = decode(frame)
        top, exch_ns = w.data, epoch_ns(w.cts or w.ts)
        before = self._tops.get(top.s)
        if w.type == "delta" and (before is None or top.u > before.u + 1):
            self._tops.pop(top.s, None)
            return self._cut_off(top, recv_ns)
        last = self._progress.get((top.s, TOP_OF_BOOK.name)) or self._first_top(top.s)
        told: list[Event] = []
        if top.u <= last.last_id:
            # A restart of theirs counts from 1, also soon after another; what is only sent again has its time.
            is_anew = top.u == _RESTARTED and w.cts and exch_ns > last.exch_ns
            if not is_anew and last.is_repeat(top.u, exch_ns, recv_ns):
                if before is None and top.u == last.last_id:  # a new subscription begins with what was told before
                    self._tops[top.s] = top
                return self._repeat("orderbook.1")
            if is_anew or top.u < last.last_id:
                reason = f"update ids begin anew: {top.u} after {last.last_id}"
                told = [Gap(top.s, TOP_OF_BOOK.name, last.recv_ns, recv_ns, reason, False)]
        if (cut_ns := self._cut_ns.pop(top.s, None)) is not None:
            told.append(Gap(top.s, TOP_OF_BOOK.name, cut_ns, recv_ns, _NO_TOP, False))
        last.move(top.u, exch_ns, recv_ns)
        if before is not None and w.type == "delta":
            top = _moved(before, top)
        self._tops[top.s] = top
        if not (top.b and top.a):
            return [*told, *self.ignore("one-sided orderbook.1", frame, recv_ns)]
        return [*told, Quote(top.s, exch_ns, recv_ns, top.u, *top.b[0], *top.a[0])]

    def _cut_off(self, top: wire.BookData, recv_ns: int) -> list[Event]:
        """A delta of depth 1 that does not follow: what was missed is told at once, and the wait for a snapshot when
        that comes.
        """
        self.ignored["orderbook.1 delta that does not follow"] += 1
        last = self._progress.get((top.s, TOP_OF_BOOK.name))
        if last is None or top.s in self._cut_ns:
            return []
        self._cut_ns[top.s] = recv_ns
        reason = f"update {top.u} does not follow {last.last_id}"
        return [Gap(top.s, TOP_OF_BOOK.name, last.recv_ns, recv_ns, reason, False)]

    def finish(self, recv_ns: int) -> list[Event]:
        """The gaps that are still open when the connection has ended for good."""
        cut = [Gap(symbol, TOP_OF_BOOK.name, ns, recv_ns, _NO_TOP, False) for symbol, ns in self._cut_ns.items()]
        return [*cut, *(gap for book in self.books.values() for gap in book.finish(recv_ns))]

    def book(self, topic: str, decode: Callable[[bytes], wire.OrderBook], frame: bytes, recv_ns: int) -> list[Event]:
        """A snapshot may come at any time and replaces the book; so does `u` = 1, sent after a restart of theirs."""
        w = decode(frame)
        exch_ns = epoch_ns(w.cts or w.ts)
        book = self.books.get(w.data.s) or self._first_book(w.data.s, topic)
        if book.stream != topic:
            return self.ignore(f"second book {topic.rpartition('.')[0]}"[:60], frame, recv_ns)
        update_id, bids, asks = w.data.u, w.data.b, w.data.a
        whole = w.type == "snapshot" or update_id == 1
        if whole:
            skipped = _skipped(book, update_id, recv_ns)
            told = book.stream_snapshot(update_id, bids, asks, exch_ns, recv_ns)
            told = None if told is None else [*skipped, *told]
        else:
            told = book.change(Change(update_id, update_id, 0, bids, asks), exch_ns, recv_ns)
        if told is None:
            return self._repeat("orderbook")
        return [BookUpdate(book.symbol, exch_ns, recv_ns, update_id, bids, asks, whole), *told]

    def trades(
        self, topic: str, decode: Callable[[bytes], wire.PublicTrade], frame: bytes, recv_ns: int
    ) -> list[Event]:
        """Block trades are agreed off the book: they are counted, not told."""
        events: list[Event] = []
        for w in decode(frame).data:
            exch_ns, symbol = epoch_ns(w.T), self._symbols.admit(w.s)
            if w.BT:
                self.ignored["block trade"] += 1
            elif self._trades.is_new((symbol, w.i)):
                events.append(Trade(symbol, exch_ns, recv_ns, w.i, w.p, w.v, "buy" if w.S == "Buy" else "sell"))
            else:
                self.repeated["publicTrade"] += 1
        for event in events[:1]:
            self._heard(event.symbol, TRADES.name, recv_ns)
        return events

    def ticker(self, topic: str, decode: Callable[[bytes], wire.Tickers], frame: bytes, recv_ns: int) -> list[Event]:
        """Mark, index, funding and open interest as they stand after this message, which may change none of them."""
        w = decode(frame)
        symbol, exch_ns = self._symbols.admit(w.data.symbol), epoch_ns(w.ts)
        before = self._tickers.get(symbol)
        if w.type == "delta" and before is None:
            return self.ignore("tickers delta before a snapshot", frame, recv_ns)
        now = w.data if before is None or w.type == "snapshot" else _updated(before, w.data)
        mark = _mark(symbol, exch_ns, recv_ns, now)
        last = self._progress.get((symbol, MARK_PRICES.name))
        if last is not None and last.is_repeat(w.ts, exch_ns, recv_ns) and (w.ts < last.last_id or now == before):
            return self._repeat("tickers")  # two messages of one millisecond may differ
        self._progress[symbol, MARK_PRICES.name] = Progress(w.ts, exch_ns, recv_ns)
        self._tickers[symbol] = now
        return [mark] if mark else self.ignore("tickers without mark price", frame, recv_ns)

    def liquidations(
        self, topic: str, decode: Callable[[bytes], wire.AllLiquidation], frame: bytes, recv_ns: int
    ) -> list[Event]:
        """`S` is the side of the position, unlike Binance's: Buy is a long liquidated. The price is bankruptcy's.

        They have no id. Two alike in one message are two; the same message again is a repeat.
        """
        events, alike = list[Event](), Counter[wire.LiquidationData]()
        for w in decode(frame).data:
            exch_ns, symbol = epoch_ns(w.T), self._symbols.admit(w.s)
            alike[w] += 1
            if self._forced.is_new((w, alike[w])):
                events.append(Liquidation(symbol, exch_ns, recv_ns, "long" if w.S == "Buy" else "short", w.p, w.v))
            else:
                self.repeated["allLiquidation"] += 1
        return events

    def kline(self, topic: str, decode: Callable[[bytes], wire.Kline], frame: bytes, recv_ns: int) -> list[Event]:
        """Closed candles alone. Inverse contracts are worth 1 USD: there `volume` is quote and `turnover` base."""
        message = decode(frame)
        symbol, sent_ns = self._symbols.admit(topic.rpartition(".")[2]), epoch_ns(message.ts)
        events: list[Event] = []
        for w in message.data:
            interval = _INTERVALS.get(w.interval)
            if interval is None:
                raise DecodeError(f"expected the length of a candle, was {w.interval[:20]!r}")
            if not w.confirm:
                self.ignored["open candle"] += 1
            elif not is_news(self._candles, topic, w.start, sent_ns, recv_ns):
                self.repeated["kline"] += 1
            else:
                qty, usd = (w.turnover, w.volume) if self._venue == "bybit_inverse" else (w.volume, w.turnover)
                times = w.start * NS_PER_MS, (w.end + 1) * NS_PER_MS, interval, sent_ns, recv_ns
                events.append(Kline(symbol, *times, w.open, w.high, w.low, w.close, qty, usd, None, None, None))
        return events

    def ignore(self, why: str, frame: bytes, recv_ns: int) -> list[Event]:
        """A handler of what no table holds."""
        self.ignored[why] += 1
        return []

    def _repeat(self, topic: str) -> list[Event]:
        self.repeated[topic] += 1
        return []

    def _heard(self, symbol: str, table: str, recv_ns: int) -> None:
        self._progress.setdefault((symbol, table), Progress(0, 0, recv_ns)).recv_ns = recv_ns

    def _first_top(self, symbol: str) -> Progress:
        """From here on best prices need not come from the book."""
        self._symbols.admit(symbol)
        if symbol in self.books:
            self.books[symbol].native_quotes = True
        progress = self._progress[symbol, TOP_OF_BOOK.name] = Progress(-1, 0, 0)
        return progress

    def _first_book(self, symbol: str, topic: str) -> BookStream:
        book = BookStream(self._symbols.admit(symbol), bybit_rule, self._keep_levels, holds_back=False)
        book.native_quotes, book.stream = (symbol, TOP_OF_BOOK.name) in self._progress, topic
        self.books[symbol] = book
        return book


def _skipped(book: BookStream, update_id: int, recv_ns: int) -> list[Event]:
    """The gap, mended at once, that a snapshot leaves which does not follow on the book that stands."""
    stood_at = book.book.update_id
    if stood_at is None or update_id == stood_at + 1:
        return []
    reason = f"a snapshot with update id {update_id} after {stood_at}"
    return [Gap(book.symbol, BOOK_DELTAS.name, book.last_ns, recv_ns, reason, True)]


def _moved(top: wire.BookData, change: wire.BookData) -> wire.BookData:
    """Depth 1 after a delta: at most one level per side stays."""
    sides = []
    for levels, changed in ((top.b, change.b), (top.a, change.a)):
        ladder = Ladder()
        ladder.reset(levels)
        ladder.put(changed)
        sides.append([(price, ladder.qty_at[price]) for price in ladder.prices])
    return wire.BookData(change.s, sides[0][::-1], sides[1], change.u)


def _updated(before: wire.TickerData, change: wire.TickerData) -> wire.TickerData:
    """A field that a delta leaves out is unchanged."""
    values: list[Any] = []
    for name in _TICKER_FIELDS:
        value = getattr(change, name)
        values.append(getattr(before, name) if value is None else value)
    return wire.TickerData(*values)


def _mark(symbol: str, exch_ns: int, recv_ns: int, ticker: wire.TickerData) -> Mark | None:
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
