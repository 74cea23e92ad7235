"""The simulated venues as a feed: which frames of the market's tapes each client has asked for.

A chunk of the market is held at a time, and of the past what a client may ask for (record.py). A stream's frames are
formatted when the first client needs them in a chunk and kept until its end, so that clients of one stream share them.

The market publishes its books each 500 ms: depth streams of every speed give these steps, since nothing is published
between them.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backtest.market import wire, wire_candles
from backtest.market.candles import INTERVAL_NS, candle_updates
from backtest.market.pump import Outlet
from backtest.market.record import Record
from backtest.market.sessions import BYBIT, Kind, Session, Topic
from backtest.market.tape import Book, Rows, Tape
from core.units import NS_PER_MS, NS_PER_S

Frames = tuple[NDArray[np.int64], list[str]]
_NOTHING: Final[Frames] = (np.empty(0, np.int64), [])
_BINANCE_CANDLES_NS: Final = 250 * NS_PER_MS  # exchange_protocols.md A.4
_BYBIT_CANDLES_NS: Final = NS_PER_S  # C.3 says 1 to 60 s
_REPEAT_NS: Final = 3 * NS_PER_S  # Bybit's best prices that do not change are sent again (C.3)
_FOREVER_NS: Final = 2**63 - 1
_BOOKS: Final = ("quotes", "depth")  # what a venue that is down does not publish, to new subscribers neither
_CANDLE_LAG_NS: Final = 5 * NS_PER_MS  # of a candle behind the slowest trade: it must hold all of them


class Exchange:
    """A feed over a market's chunks; `outlet.session` is a Session. `latency_ns` is the market's feed latency."""

    def __init__(self, chunks: Iterator[list[Tape]], latency_ns: int = 5 * NS_PER_MS) -> None:
        self._chunks = chunks
        self._latency_ns = latency_ns
        self._records: dict[tuple[str, str], Record] = {}
        self._formatted: dict[tuple[str, str, bool], Frames] = {}
        self._down_until_ns: dict[str, int] = {}
        self._end_ns = 0
        if not self._next_chunk():
            raise ValueError("a market must have at least one chunk")
        self.start_ns = next(iter(self._records.values())).start_ns

    def edge(self, now_ns: int) -> int | None:
        """The end of the chunk at hand, or of the next."""
        return self._end_ns if now_ns < self._end_ns or self._next_chunk() else None

    def next_ns(self, now_ns: int) -> int:
        return now_ns

    def frames(self, outlet: Outlet, from_ns: int, until_ns: int) -> Frames:
        """The frames of all topics of the client, merged in the order of their receive times."""
        session = outlet.session
        assert isinstance(session, Session)
        found = [self._cut(session, topic, from_ns, until_ns) for topic in session.heard]
        if len(found) < 2:
            return found[0] if found else _NOTHING
        stamps = np.concatenate([part[0] for part in found])
        texts = [text for part in found for text in part[1]]
        order = np.argsort(stamps, kind="stable")
        return stamps[order], [texts[place] for place in order.tolist()]

    def passed(self, until_ns: int) -> None:
        """Chunks are replaced as a whole."""

    def farewell(self) -> str:
        return ""

    def record(self, venue: str, symbol: str) -> Record | None:
        """What is known of an instrument, None if it is not traded here."""
        return self._records.get((venue, symbol))

    def records(self, venue: str) -> list[Record]:
        return [record for (of, _), record in self._records.items() if of == venue]

    def book(self, record: Record, now_ns: int) -> Book:
        """The book as a snapshot taken now shows it; one from before this chunk is that of a chunk's start."""
        old = now_ns < record.tape.from_ns
        book = record.book_before(now_ns) if old else wire.book_at(record.tape, now_ns)
        return book._replace(update_id=book.update_id - record.depth_shift)

    def go_down(self, venue: str) -> None:
        """The venue publishes no books until it is restarted."""
        self._down_until_ns[venue] = _FOREVER_NS

    def restart(self, venue: str, now_ns: int) -> None:
        """The venue numbers its books anew, from 1. Who listens is to be told by `opening`."""
        self._down_until_ns[venue] = now_ns
        for record in self.records(venue):
            record.restart(_book_before_next(record.tape, now_ns).update_id, now_ns)
        self._formatted.clear()

    def opening(self, session: Session, topic: Topic, now_ns: int) -> str | None:
        """What a new Bybit subscription begins with: the topic's state as a snapshot, if there is one yet."""
        record = self.record(session.venue, topic.symbol)
        if record is None or session.venue != BYBIT:
            return None
        if topic.kind in _BOOKS and now_ns < self._down_until_ns.get(session.venue, 0):
            return None
        tape = record.tape
        if topic.kind == "depth":
            book = _book_before_next(tape, now_ns)
            sent_ns = max(book.exch_ns, now_ns - self._latency_ns)
            book = book._replace(exch_ns=sent_ns, update_id=book.update_id - record.depth_shift)
            return wire.bybit_snapshot(tape.instrument, book, topic.levels)
        if topic.kind == "marks" and (mark := record.last_mark(now_ns)).size:
            return wire.bybit_ticker_snapshot(tape.instrument, mark, now_ns)
        if topic.kind == "quotes" and (quote := record.last_quote(now_ns)).size:
            quote["update_id"] -= record.quote_shift
            if quote["update_id"][0] == 1:  # after a restart: the best prices as they stand now
                quote["exch_ns"] = now_ns - self._latency_ns
            return wire.bybit_quotes(tape._replace(quotes=quote))[0]
        return None

    def _next_chunk(self) -> bool:
        tapes = next(self._chunks, None)
        if not tapes:
            return False
        for tape in tapes:
            key = tape.instrument.venue, tape.instrument.symbol
            if key in self._records:
                self._records[key].turn(tape)
            else:
                self._records[key] = Record(tape)
        self._formatted.clear()
        self._end_ns = tapes[0].to_ns
        return True

    def _cut(self, session: Session, topic: Topic, from_ns: int, until_ns: int) -> Frames:
        key = (session.venue, topic.name, session.combined)
        if key not in self._formatted:
            self._formatted[key] = self._format(session, topic)
        stamps, texts = self._formatted[key]
        if topic.kind in _BOOKS:
            from_ns = max(from_ns, min(until_ns, self._down_until_ns.get(session.venue, 0)))
        first, last = np.searchsorted(stamps, (from_ns, until_ns)).tolist()
        return stamps[first:last], texts[first:last]

    def _format(self, session: Session, topic: Topic) -> Frames:
        record = self.record(session.venue, topic.symbol)
        if record is None:
            return _NOTHING
        tape = record.tape
        if topic.kind == "klines":
            candles = self._candles(record, topic)
            stamps, texts = candles["recv_ns"], _candle_texts(tape, topic, candles)
        elif session.venue == BYBIT:
            tape = _with_repeats(record) if topic.kind == "quotes" else record.numbered
            stamps, texts = rows_of(tape, topic.kind)["recv_ns"], _format_bybit(record, tape, topic)
        else:
            tape = _thinned(tape, topic)
            stamps, texts = rows_of(tape, topic.kind)["recv_ns"], _format_binance(tape, topic)
        return stamps, wire.wrapped(topic.name, texts) if session.combined and session.venue != BYBIT else texts

    def _candles(self, record: Record, topic: Topic) -> Rows:
        """The states of a topic's candles that are sent in this chunk: when all their trades were."""
        tape, interval_ns = record.tape, INTERVAL_NS[topic.interval]
        every_ns = _BYBIT_CANDLES_NS if tape.instrument.venue == BYBIT else _BINANCE_CANDLES_NS
        since_ns = (tape.from_ns // interval_ns - 1) * interval_ns
        earlier = record.trade[record.trade["exch_ns"] < since_ns]
        trades = np.concatenate((earlier, record.trades_since(since_ns, tape.to_ns)))
        delay_ns = self._latency_ns + _CANDLE_LAG_NS
        return candle_updates(trades, tape.from_ns, tape.to_ns, every_ns, interval_ns, delay_ns)


def rows_of(tape: Tape, kind: Kind) -> Rows:
    """The rows that a topic's frames are made of, one row a frame."""
    match kind:
        case "quotes":
            return tape.quotes
        case "trades":
            return tape.trades
        case "marks":
            return tape.marks
        case "liquidations":
            return tape.liquidations
    return tape.depth


def _format_binance(tape: Tape, topic: Topic) -> list[str]:
    match topic.kind:
        case "quotes":
            return wire.binance_quotes(tape)
        case "trades":
            return wire.binance_trades(tape)
        case "marks":
            return wire.binance_marks(tape)
        case "liquidations":
            return wire.binance_liquidations(tape)
        case "partial":
            return wire.binance_partial(tape, topic.levels)
    return wire.binance_depth(tape)


def _format_bybit(record: Record, tape: Tape, topic: Topic) -> list[str]:
    match topic.kind:
        case "quotes":
            return wire.bybit_quotes(tape)
        case "trades":
            return wire.bybit_trades(tape)
        case "marks":
            return wire.bybit_marks(tape, record.mark)
        case "liquidations":
            return wire.bybit_liquidations(tape)
    return wire.bybit_depth(tape, topic.levels)


def _candle_texts(tape: Tape, topic: Topic, candles: Rows) -> list[str]:
    if tape.instrument.venue == BYBIT:
        return wire_candles.bybit_klines(tape.instrument, candles, topic.name)
    return wire_candles.binance_klines(tape.instrument, candles, topic.interval)


def _thinned(tape: Tape, topic: Topic) -> Tape:
    """A slower stream than the market's own: markPrice without @1s comes every third second."""
    if topic.every == 1:
        return tape
    return tape._replace(marks=tape.marks[tape.marks["exch_ns"] // NS_PER_S % topic.every == 0])


def _with_repeats(record: Record) -> Tape:
    """Best prices that stand for 3 s are sent again, under their own update id, as often as they stand so long."""
    tape, before = record.numbered, record.quote.copy()
    before["update_id"] -= record.quote_shift
    rows = np.concatenate((before, tape.quotes))
    if not rows.size:
        return tape
    stands_ns = np.diff(rows["recv_ns"], append=tape.to_ns)
    times = np.maximum((stands_ns - 1) // _REPEAT_NS, 0)
    repeated = np.repeat(rows, times + 1)
    nth = np.arange(repeated.size) - np.repeat(np.cumsum(times + 1) - times - 1, times + 1)
    repeated["recv_ns"] += nth * _REPEAT_NS
    return tape._replace(quotes=repeated[repeated["recv_ns"] >= tape.from_ns])


def _book_before_next(tape: Tape, now_ns: int) -> Book:
    """The book now, under the id that the next change follows on."""
    book, coming = wire.book_at(tape, now_ns), np.searchsorted(tape.depth["recv_ns"], now_ns)
    return book._replace(update_id=int(tape.depth["prev_update_id"][coming])) if coming < tape.depth.size else book
