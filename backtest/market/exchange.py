"""The simulated venues as a feed: which frames of the market's tapes each client has asked for.

A chunk of the market is held at a time. A stream's frames are formatted when the first client needs them in a chunk and
kept until its end, so that clients of one stream share them.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backtest.market import wire
from backtest.market.pump import Outlet
from backtest.market.sessions import BYBIT, Kind, Session, Topic
from backtest.market.tape import MARK, Book, Rows, Tape
from core.units import NS_PER_S

Frames = tuple[NDArray[np.int64], list[str]]
_NOTHING: Final[Frames] = (np.empty(0, np.int64), [])


class Exchange:
    """A feed over a market's chunks; `outlet.session` is a Session."""

    def __init__(self, chunks: Iterator[list[Tape]]) -> None:
        self._chunks = chunks
        self._tapes: dict[tuple[str, str], Tape] = {}
        self._marks_before: dict[tuple[str, str], Rows] = {}
        self._formatted: dict[tuple[str, str, bool], Frames] = {}
        self._end_ns = 0
        if not self._next_chunk():
            raise ValueError("a market must have at least one chunk")
        self.start_ns = next(iter(self._tapes.values())).from_ns

    def edge(self, now_ns: int) -> int | None:
        """The end of the chunk at hand, or of the next."""
        return self._end_ns if now_ns < self._end_ns or self._next_chunk() else None

    def next_ns(self, now_ns: int) -> int:
        return now_ns

    def frames(self, outlet: Outlet, from_ns: int, until_ns: int) -> Frames:
        """The frames of all topics of the client, merged in the order of their receive times, which are unique."""
        session = outlet.session
        assert isinstance(session, Session)
        found = [self._cut(session, topic, from_ns, until_ns) for topic in session.heard]
        if len(found) < 2:
            return found[0] if found else _NOTHING
        stamps = np.concatenate([part[0] for part in found])
        texts = [text for part in found for text in part[1]]
        order = np.argsort(stamps)
        return stamps[order], [texts[place] for place in order.tolist()]

    def passed(self, until_ns: int) -> None:
        """Chunks are replaced as a whole."""

    def farewell(self) -> str:
        return ""

    def tape(self, venue: str, symbol: str) -> Tape | None:
        """The chunk at hand of an instrument, None if it is not traded here."""
        return self._tapes.get((venue, symbol))

    def tapes(self, venue: str) -> list[Tape]:
        return [tape for (of, _), tape in self._tapes.items() if of == venue]

    def book(self, tape: Tape, now_ns: int) -> Book:
        """The book as a snapshot taken now shows it."""
        return wire.book_at(tape, now_ns)

    def opening(self, session: Session, topic: Topic, now_ns: int) -> str | None:
        """What a new Bybit subscription begins with: the topic's state as a snapshot, if there is one yet."""
        tape = self.tape(session.venue, topic.symbol)
        if tape is None or session.venue != BYBIT:
            return None
        if topic.kind == "depth":
            return wire.bybit_snapshot(tape.instrument, _book_before_next(tape, now_ns), topic.levels)
        if topic.kind == "marks":
            past = np.concatenate(
                (self._marks_before[tape.instrument.venue, topic.symbol], _before(tape.marks, now_ns))
            )
            return wire.bybit_ticker_snapshot(tape.instrument, past[-1:]) if past.size else None
        if topic.kind == "quotes" and (past := _before(tape.quotes, now_ns)).size:
            return wire.bybit_quotes(tape._replace(quotes=past[-1:]))[0]
        return None

    def _next_chunk(self) -> bool:
        for key, tape in self._tapes.items():
            if tape.marks.size:
                self._marks_before[key] = tape.marks[-1:]
        tapes = next(self._chunks, None)
        if not tapes:
            return False
        self._tapes = {(tape.instrument.venue, tape.instrument.symbol): tape for tape in tapes}
        for key in self._tapes:
            self._marks_before.setdefault(key, np.empty(0, MARK))
        self._formatted.clear()
        self._end_ns = tapes[0].to_ns
        return True

    def _cut(self, session: Session, topic: Topic, from_ns: int, until_ns: int) -> Frames:
        key = (session.venue, topic.name, session.combined)
        if key not in self._formatted:
            self._formatted[key] = self._format(session, topic)
        stamps, texts = self._formatted[key]
        first, last = np.searchsorted(stamps, (from_ns, until_ns)).tolist()
        return stamps[first:last], texts[first:last]

    def _format(self, session: Session, topic: Topic) -> Frames:
        tape = self.tape(session.venue, topic.symbol)
        if tape is None:
            return _NOTHING
        if session.venue == BYBIT:
            return rows_of(tape, topic.kind)["recv_ns"], self._format_bybit(tape, topic)
        tape = _thinned(tape, topic)
        texts = _format_binance(tape, topic)
        return rows_of(tape, topic.kind)["recv_ns"], wire.wrapped(topic.name, texts) if session.combined else texts

    def _format_bybit(self, tape: Tape, topic: Topic) -> list[str]:
        match topic.kind:
            case "quotes":
                return wire.bybit_quotes(tape)
            case "trades":
                return wire.bybit_trades(tape)
            case "marks":
                return wire.bybit_marks(tape, self._marks_before[tape.instrument.venue, tape.instrument.symbol])
            case "liquidations":
                return wire.bybit_liquidations(tape)
        return wire.bybit_depth(tape, topic.levels)


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


def _thinned(tape: Tape, topic: Topic) -> Tape:
    """A slower stream than the market's own: markPrice without @1s comes every third second."""
    if topic.every == 1:
        return tape
    return tape._replace(marks=tape.marks[tape.marks["exch_ns"] // NS_PER_S % topic.every == 0])


def _book_before_next(tape: Tape, now_ns: int) -> Book:
    """The book now, under the id that the next change follows on."""
    book, coming = wire.book_at(tape, now_ns), np.searchsorted(tape.depth["recv_ns"], now_ns)
    return book._replace(update_id=int(tape.depth["prev_update_id"][coming])) if coming < tape.depth.size else book


def _before(rows: Rows, now_ns: int) -> Rows:
    return rows[: np.searchsorted(rows["recv_ns"], now_ns)]
