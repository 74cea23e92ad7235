"""What a venue knows of an instrument: the tape at hand, and of the past what its clients may ask for. Bounded."""

from collections import deque
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from backtest.market.tape import MARK, QUOTE, TRADE, Book, Rows, Tape
from core.units import NS_PER_MINUTE

TRADES_KEPT: Final = 100_000
"""Half a day of a liquid simulated symbol, 5 MB. The real venue gives a day or two (exchange_protocols.md A.5)."""
GRID_NS: Final = 5 * NS_PER_MINUTE
"""The finest resolution of the venues' slow series."""
_SAMPLES_KEPT: Final = 30 * 24 * 12  # of mark prices, one each five minutes: the 30 days of /futures/data
_BOOKS_KEPT: Final = 60


class Record:
    """One instrument's tape at hand and its past; `turn` takes the next tape."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape
        self.start_ns = tape.from_ns
        self.mark, self.quote, self.trade = np.empty(0, MARK), np.empty(0, QUOTE), np.empty(0, TRADE)
        """The last row of each kind before the tape at hand, of shape (1,); (0,) if there was none."""
        self.depth_shift = self.quote_shift = 0
        """What a restart of the venue took off its update ids."""
        self._samples: deque[Rows] = deque(maxlen=_SAMPLES_KEPT)
        self._books: deque[Book] = deque(maxlen=_BOOKS_KEPT)
        self._trades: deque[Rows] = deque()
        self._trade_count = 0

    def turn(self, following: Tape) -> None:
        """The tape at hand is over."""
        tape, self.tape = self.tape, following
        self._samples.extend(_sampled(np.concatenate((self.mark, tape.marks)), tape.from_ns, tape.to_ns))
        self.mark = tape.marks[-1:] if tape.marks.size else self.mark
        self.quote = tape.quotes[-1:] if tape.quotes.size else self.quote
        self.trade = tape.trades[-1:] if tape.trades.size else self.trade
        self._books.append(tape.book_at_start)
        self._trades.append(tape.trades)
        self._trade_count += tape.trades.size
        while self._trade_count - self._trades[0].size > TRADES_KEPT:
            self._trade_count -= self._trades.popleft().size

    def restart(self, depth_id: int, now_ns: int) -> None:
        """Number anew: the book as it stands, `depth_id` on the tape, and the best prices have id 1."""
        self.depth_shift = depth_id - 1
        for quote in self.last_quote(now_ns):
            self.quote_shift = int(quote["update_id"]) - 1

    @property
    def numbered(self) -> Tape:
        """The tape at hand with the ids that the venue gives since it was last restarted."""
        tape = self.tape
        if not (self.depth_shift or self.quote_shift):
            return tape
        depth, quotes = tape.depth.copy(), tape.quotes.copy()
        depth["update_id"] -= self.depth_shift
        quotes["update_id"] -= self.quote_shift
        return tape._replace(depth=depth, quotes=quotes)

    def trades_since(self, exch_ns: int, now_ns: int) -> Rows:
        """Trades of the engine's time `exch_ns` and later that were received before `now_ns`, oldest first."""
        return self._trades_from("exch_ns", exch_ns, now_ns)

    def trades_from(self, trade_id: int, now_ns: int) -> Rows:
        """Trades of this id and higher that were received before `now_ns`, oldest first."""
        return self._trades_from("trade_id", trade_id, now_ns)

    def marks_until(self, now_ns: int) -> Rows:
        """Mark prices received before `now_ns`: the last before each multiple of GRID_NS, then all of this tape."""
        return np.concatenate((*self._samples, self.mark, _before(self.tape.marks, now_ns)))

    def last_mark(self, now_ns: int) -> Rows:
        """The last row of the stream, of shape (1,), or (0,) if there is none yet. So the other two."""
        return np.concatenate((self.mark, _before(self.tape.marks, now_ns)))[-1:]

    def last_quote(self, now_ns: int) -> Rows:
        """As on the tape, not renumbered."""
        return np.concatenate((self.quote, _before(self.tape.quotes, now_ns)))[-1:]

    def last_trade(self, now_ns: int) -> Rows:
        return np.concatenate((self.trade, _before(self.tape.trades, now_ns)))[-1:]

    def book_before(self, now_ns: int) -> Book:
        """The latest remembered book that was whole before `now_ns`, or the oldest."""
        books = [*self._books, self.tape.book_at_start]
        return next((book for book in reversed(books) if book.recv_ns <= now_ns), books[0])

    def _trades_from(self, column: str, least: int, now_ns: int) -> Rows:
        parts = _since(self._trades, lambda part: bool(part[column][0] < least))
        found = np.concatenate([*parts, _before(self.tape.trades, now_ns)])
        return found[np.searchsorted(found[column], least) :]


def _since(parts: deque[Rows], is_older: Callable[[Rows], bool]) -> list[Rows]:
    """The last parts, from the latest one that begins early enough."""
    found: list[Rows] = []
    for part in reversed(parts):
        found.append(part)
        if part.size and is_older(part):
            break
    return found[::-1]


def _before(rows: Rows, now_ns: int) -> Rows:
    return rows[: np.searchsorted(rows["recv_ns"], now_ns)]


def _sampled(marks: Rows, from_ns: int, to_ns: int) -> list[Rows]:
    """For each multiple of GRID_NS in (from_ns, to_ns] the last mark before it, if there is one."""
    grid: NDArray[np.int64] = np.arange(from_ns // GRID_NS + 1, to_ns // GRID_NS + 1) * GRID_NS
    last = np.searchsorted(marks["recv_ns"], grid)
    return [marks[stop - 1 : stop] for stop in last.tolist() if stop]
