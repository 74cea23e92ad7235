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
from ingest.sequence import Progress

GRACE_NS: Final = 5 * NS_PER_S
NO_SNAPSHOT: Final = "no book snapshot"
_NONE: Final[list[Level]] = []
_RESTARTED: Final = 1  # Bybit's `u` after a service restart, which may come twice


class BookStream:
    """Follows one depth stream. `native_quotes` is set by the decoder when it meets a best-price stream.

    `change`, `rest_snapshot` and `stream_snapshot` return what a message has to tell beside itself, or None for a
    message that is not to become rows: a repeat, one that comes late, a snapshot from before the stream.
    """

    def __init__(self, symbol: str, rule: Rule, keep_levels: bool = False, holds_back: bool = True) -> None:
        self.symbol = symbol
        self.stream = ""
        self.book = Book(rule, holds_back)
        self._rule = rule
        self.native_quotes = False
        self.last_ns = 0
        """Receipt of the last message that the book could follow, or of the first if it has none."""
        self._keep_levels = keep_levels
        self._progress: Progress | None = None
        self._began_ns: int | None = None
        self._open: tuple[int, str] | None = None
        self._best: tuple[float, float, float, float] | None = None

    @property
    def wants_snapshot(self) -> bool:
        """True while changes come that no snapshot precedes."""
        return self._began_ns is not None and self.book.update_id is None

    def change(self, change: Change, exch_ns: int, recv_ns: int) -> list[Event] | None:
        """A depth message: a gap, a best price, or nothing to tell."""
        told: list[Event] = []
        progress = self._progress
        if progress is None:
            progress = self._progress = Progress(change.last_id, exch_ns, recv_ns)
        elif change.last_id <= progress.last_id:
            if progress.is_repeat(change.last_id, exch_ns, recv_ns):
                return None
            told = self._break(f"update ids fell from {progress.last_id} to {change.last_id}", recv_ns)
            self.book.lose()
        elif self._open is None and self.wants_snapshot and not self._rule(progress.last_id, change):
            why = f"update {change.first_id}-{change.last_id} does not follow {progress.last_id}"
            told = self._gaps(progress.recv_ns, recv_ns, why, mended=False)  # the snapshot may hold what was missed
        progress.move(change.last_id, exch_ns, recv_ns)
        self._begin(recv_ns)
        if self.native_quotes and not self._keep_levels:  # the sequence is all that is still asked of the book
            change = Change(change.first_id, change.last_id, change.prev_id, _NONE, _NONE)
        reason = self.book.apply(change)
        if reason is not None:
            told += self._break(reason, recv_ns)
        if self._open is None and self.book.update_id is not None:
            self.last_ns = recv_ns
        return told if self.native_quotes else [*told, *self._quote(exch_ns, recv_ns)]

    def stand(self) -> tuple[int, int, int, int] | None:
        """(last id, exch_ns, recv_ns, the book's id) where only the sequence is followed, and is whole; else None."""
        progress, book_id = self._progress, self.book.update_id
        if progress is None or book_id is None or not self.native_quotes or self._keep_levels:
            return None
        return progress.last_id, progress.exch_ns, progress.recv_ns, book_id

    def follow(self, last_id: int, exch_ns: int, recv_ns: int) -> None:
        """Move on to a change that followed on, or that the book's snapshot held already."""
        assert self._progress is not None
        self._progress.move(last_id, exch_ns, recv_ns)
        self.book.update_id, self.last_ns = max(self.book.update_id or 0, last_id), recv_ns

    def rest_snapshot(
        self, update_id: int, bids: list[Level], asks: list[Level], exch_ns: int, recv_ns: int
    ) -> list[Event] | None:
        """A snapshot from beside the stream: of no use to a book that is beyond it, or if what was held back is.

        The second is the venue's cache being behind: the book keeps asking for another. Changes that a snapshot already
        holds may still come: they are told, and leave the book as it is.
        """
        if self.book.update_id is not None and update_id < self.book.update_id:
            return None
        self._begin(recv_ns)
        if self.book.snapshot(update_id, bids, asks) is not None:
            return None
        return self._stand(exch_ns, recv_ns)

    def stream_snapshot(
        self, update_id: int, bids: list[Level], asks: list[Level], exch_ns: int, recv_ns: int, is_timed: bool = True
    ) -> list[Event] | None:
        """A snapshot in the stream itself. One with a lower id is late, unless it is later: after a venue's restart.

        `is_timed`: `exch_ns` is the venue's own, and can tell.
        """
        progress, told_ns = self._progress, exch_ns if is_timed else 0
        if progress is None:
            progress = self._progress = Progress(update_id, told_ns, recv_ns)
        elif self._is_known(progress, update_id, told_ns, recv_ns):
            return None
        progress.move(update_id, told_ns, recv_ns)
        self._begin(recv_ns)
        self.book.snapshot(update_id, bids, asks)
        return self._stand(exch_ns, recv_ns)

    def interrupted(self, recv_ns: int) -> list[Event]:
        """The connection was lost: start over with a new snapshot. Its gap is told by who holds the connection."""
        closed = self._close(recv_ns, mended=False)
        self.book.lose()
        self._began_ns = self._best = None
        return closed

    def finish(self, recv_ns: int) -> list[Event]:
        """The stream has ended: a gap that is still open, or the whole stream if it never had a snapshot."""
        if self.wants_snapshot and self._began_ns is not None and self._open is None:
            self._open = self._began_ns, NO_SNAPSHOT
        return self._close(recv_ns, mended=False)

    def _begin(self, recv_ns: int) -> None:
        if self._began_ns is None:
            self._began_ns = self.last_ns = recv_ns

    def _is_known(self, progress: Progress, update_id: int, exch_ns: int, recv_ns: int) -> bool:
        """A book that was lost takes any snapshot that is not older than the stream; one that stands, only news."""
        stands_at = self.book.update_id
        if stands_at is None:
            return progress.is_ahead(exch_ns, recv_ns)
        if update_id > stands_at or update_id == stands_at != _RESTARTED:
            return update_id == stands_at
        return progress.is_ahead(exch_ns - 1, recv_ns)

    def _stand(self, exch_ns: int, recv_ns: int) -> list[Event]:
        """The book stands on a snapshot: an open gap is closed."""
        closed = self._close(recv_ns, mended=True)
        self.last_ns = recv_ns
        return closed + self._quote(exch_ns, recv_ns)

    def _break(self, reason: str, recv_ns: int) -> list[Event]:
        """A gap opens, unless one is open. What was missed is told at once: a capture that is killed before a snapshot
        comes must not leave a book that runs on across a hole. The wait for the snapshot is a gap of its own.
        """
        if self._open is not None:
            return []
        self._open = self.last_ns, reason
        missed = self._close(recv_ns, mended=False)
        self._open = recv_ns, reason
        return missed

    def _close(self, to_ns: int, mended: bool) -> list[Event]:
        if self._open is None:
            return []
        from_ns, reason = self._open
        self._open = None
        return self._gaps(from_ns, to_ns, reason, mended)

    def _gaps(self, from_ns: int, to_ns: int, reason: str, mended: bool) -> list[Event]:
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
