"""One depth stream of one symbol: its book, its gaps, and best prices where the connection has no stream for them.

A venue's own best-price stream is better than the rebuilt book: it has no 100 ms grid. Which streams a connection has
shows only as frames come, so best prices are taken from the book from five seconds after the depth stream began,
and only as long as no native best price has come.
"""

from typing import Final

from core.schema import BOOK_DELTAS, TOP_OF_BOOK
from core.units import NS_PER_S
from ingest.book import Book, Change, Rule
from ingest.events import Event, Gap, Level, Quote

GRACE_NS: Final = 5 * NS_PER_S
NO_SNAPSHOT: Final = "no book snapshot"


class BookStream:
    """Follows one depth stream. `native_quotes` is set by the decoder when it meets a best-price stream."""

    def __init__(self, symbol: str, rule: Rule, keep_levels: bool = False, holds_back: bool = True) -> None:
        self.symbol = symbol
        self.book = Book(rule, holds_back)
        self.native_quotes = False
        self._keep_levels = keep_levels
        self._began_ns: int | None = None
        self._last_ns = 0
        self._open: tuple[int, str] | None = None
        self._best: tuple[float, float, float, float] | None = None

    @property
    def wants_snapshot(self) -> bool:
        """True while changes come that no snapshot precedes."""
        return self._began_ns is not None and self.book.update_id is None

    def change(self, change: Change, exch_ns: int, recv_ns: int) -> list[Event]:
        """A depth message: a closed gap, a best price, or nothing to tell."""
        if self._began_ns is None:
            self._began_ns = recv_ns
        if self.native_quotes and not self._keep_levels:  # the sequence is all that is still asked of the book
            change = Change(change.first_id, change.last_id, change.prev_id, (), ())
        reason = self.book.apply(change)
        if reason is not None and self._open is None:
            self._open = self._last_ns, reason
        if self._open is None and self.book.update_id is not None:
            self._last_ns = recv_ns
        return [] if self.native_quotes else self._quote(exch_ns, recv_ns)

    def snapshot(self, update_id: int, bids: list[Level], asks: list[Level], exch_ns: int, recv_ns: int) -> list[Event]:
        """A snapshot of this stream, or by REST: ends an open gap unless what was held back does not follow it."""
        if self._began_ns is None:
            self._began_ns = recv_ns
        reason = self.book.snapshot(update_id, bids, asks)
        if reason is not None:
            return []  # older than what was held back: the next snapshot will do
        closed = self._close(recv_ns, mended=True)
        self._last_ns = recv_ns
        return closed + self._quote(exch_ns, recv_ns)

    def interrupted(self, recv_ns: int) -> list[Event]:
        """The connection was lost: start over with a new snapshot. Its gap is told by who holds the connection."""
        closed = self._close(recv_ns, mended=False)
        self.book.lose()
        self._began_ns = self._best = None
        return closed

    def finish(self, recv_ns: int) -> list[Event]:
        """The stream has ended: a gap that is still open, or the whole stream if it never had a snapshot."""
        if self._open is None and self.wants_snapshot and self._began_ns is not None:
            self._open = self._began_ns, NO_SNAPSHOT
        return self._close(recv_ns, mended=False)

    def _close(self, to_ns: int, mended: bool) -> list[Event]:
        if self._open is None:
            return []
        from_ns, reason = self._open
        self._open = None
        streams = [BOOK_DELTAS.name] if self.native_quotes else [BOOK_DELTAS.name, TOP_OF_BOOK.name]
        return [Gap(self.symbol, stream, from_ns, to_ns, reason, mended) for stream in streams]

    def _quote(self, exch_ns: int, recv_ns: int) -> list[Event]:
        if self.native_quotes or self._began_ns is None or recv_ns < self._began_ns + GRACE_NS:
            return []
        best = self.book.best()
        if best is None or best == self._best or self.book.update_id is None:
            return []
        self._best = best
        return [Quote(self.symbol, exch_ns, recv_ns, self.book.update_id, *best)]
