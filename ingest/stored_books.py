"""Stored book changes in bounded slices, and a book brought to any time of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from core.gaps import settled
from core.schema import BOOK_DELTAS, GAPS
from core.store import Partition, partitions, read, read_between
from core.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE
from ingest.book_rebuild import COLUMNS, Rebuilder

BREAKS_NO_BOOK: Final = r"clock set|frame did not decode"
"""Reasons of gaps that need no new book: the clock was set; a frame was lost, of whichever stream. Where a book missed
that one, its next change does not follow on, which leaves a gap of its own."""


def gaps_between(root: Path, instrument: str, from_ns: int, to_ns: int) -> pl.DataFrame:
    """The gaps of `venue:SYMBOL` that touch [from_ns, to_ns), of whatever day they began in, each as it ended."""
    found = [read(root, part) for part in partitions(root, GAPS, [instrument]) if part.starts_ns < to_ns]
    frame = pl.concat([pl.DataFrame(schema=GAPS.columns), *found])
    return settled(frame.filter((pl.col("to_ns") > from_ns) & (pl.col("from_ns") < to_ns))).sort("from_ns")


def holds_back(exchange: str) -> bool:
    """Whether the venue's book snapshots come by REST, beside the stream."""
    return exchange.startswith("binance")


def rebuilder_at(root: Path, part: Partition, at_ns: int) -> Rebuilder:
    """The book of a `book_deltas` partition's symbol after all that was received before `at_ns`.

    It starts from the last snapshot before, of an earlier day if need be; it is unknown where there is none.
    """
    end_ns = part.starts_ns + NS_PER_DAY
    gaps = gaps_between(root, part.instrument, 0, end_ns).filter(
        (pl.col("stream") == BOOK_DELTAS.name) & ~pl.col("reason").str.contains(BREAKS_NO_BOOK)
    )
    book = Rebuilder(gaps.select("from_ns", "to_ns").rows(), holds_back(part.exchange))
    earlier = [each for each in partitions(root, BOOK_DELTAS, [part.instrument]) if each.starts_ns < at_ns]
    start_ns = _last_snapshot_ns(root, earlier, at_ns)
    if start_ns is not None:
        for each in earlier:
            for rows in slices(root, each, max(start_ns - _HELD_NS, each.starts_ns), at_ns):
                book.best_after(book.follow(rows))
    return book


def slices(root: Path, part: Partition, from_ns: int, to_ns: int, step_ns: int = NS_PER_HOUR) -> Iterator[pl.DataFrame]:
    """The rows of a day's book changes with from_ns <= recv_ns < to_ns, whole messages, some time at a time."""
    to_ns = min(to_ns, part.starts_ns + NS_PER_DAY)
    while from_ns < to_ns:
        until_ns = min(from_ns + step_ns, to_ns)
        rows = read_between(root, part, COLUMNS, from_ns, until_ns)
        if rows.height:
            yield rows
        from_ns = until_ns


_HELD_NS: Final = NS_PER_MINUTE  # what may have been held back for the snapshot


def _last_snapshot_ns(root: Path, parts: list[Partition], before_ns: int) -> int | None:
    """Receive time of the last snapshot before `before_ns`, searched backwards an hour at a time."""
    for part in reversed(parts):
        end_ns = min(before_ns, part.starts_ns + NS_PER_DAY)
        for from_ns in range(end_ns - NS_PER_HOUR, part.starts_ns - NS_PER_HOUR, -NS_PER_HOUR):
            seen = read_between(root, part, ["recv_ns", "is_snapshot"], from_ns, from_ns + NS_PER_HOUR)
            times = seen.filter("is_snapshot")["recv_ns"]
            if times.len():
                return int(times[-1])
    return None
