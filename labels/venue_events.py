"""The events of one symbol-day as fills need them: arrays in the venue's order, and where the record is broken.

Features see events in order of receipt; fills happen in the venue's own order (method section 1).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import store
from core.gaps import unmended
from core.schema import GAPS, MARK_PRICES, TOP_OF_BOOK, TRADES, Table
from core.store import Partition
from core.units import NS_PER_DAY, NS_PER_MINUTE
from labels.fees import Funding, funding_of
from labels.venue_clock import WINDOW_NS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BREAKS: Final = ("gap", "crossed book", "stale book")
"""Why the record cannot be trusted over a stretch; a break's kind is its place here."""
_DELAY_SLACK_NS: Final = NS_PER_MINUTE
"""Events belong to the day of their receipt; by the venue's clock they may be this much away."""
_FOREVER: Final = np.iinfo(np.int64).max
_QUOTE_COLUMNS: Final = ("exch_ns", "recv_ns", "bid_price", "ask_price", "exch_assumed")
_TRADE_COLUMNS: Final = ("exch_ns", "recv_ns", "price", "qty", "taker_side")


class Quotes(NamedTuple):
    """Best prices, (n,) each, sorted by the venue's clock."""

    exch_ns: Ints
    bid: Floats
    ask: Floats
    recv_ns: Ints
    seen_ns: Ints
    """Receipt by which this quote and all before it were known."""


class Trades(NamedTuple):
    """Prints, (n,) each, sorted by the venue's clock."""

    exch_ns: Ints
    price: Floats
    qty: Floats
    taker: NDArray[np.int8]
    """+1 where the buyer was the aggressor, -1 the seller."""
    recv_ns: Ints
    seen_ns: Ints


class Breaks(NamedTuple):
    """Stretches of one kind on the receipt clock, sorted by their start; (m,) each.

    A decision at t sees receipts before t, so it lies in a stretch iff from_ns < t <= to_ns.
    """

    from_ns: Ints
    to_ns: Ints
    """Running maximum, so that the stretch with the last start at or before t tells whether t lies in any."""


@dataclass(frozen=True)
class Books:
    """Best prices in order of receipt: what a decision at t can know."""

    recv_ns: Ints
    exch_ns: Ints
    bid: Floats
    ask: Floats
    assumed: NDArray[np.bool_]


@dataclass(frozen=True)
class VenueDay:
    """One symbol-day with as much of its neighbours as decisions within it reach."""

    books: Books
    quotes: Quotes
    trades: Trades
    funding: Funding
    breaks: tuple[Breaks, ...]
    """One per kind of BREAKS."""
    clocks: tuple[tuple[Ints, Ints], ...]
    """(recv_ns, exch_ns) of each stream whose venue time is the venue's own."""
    covered_ns: int
    """The venue's clock at the last event: what would happen later cannot be labelled."""


def neighbours(root: Path, part: Partition, table: Table) -> list[Partition]:
    """The partition of `table` on the same day, with those of the days before and after, as far as they exist."""
    days = [store.date_of_ns(part.starts_ns + shift * NS_PER_DAY) for shift in (-1, 0, 1)]
    there = [Partition(table.name, part.exchange, part.symbol, day) for day in days]
    return [each for each in there if store.files(root, each)]


def load(root: Path, part: Partition, reach_ns: int, stale_ns: int) -> VenueDay:
    """The events that decisions within a symbol-day touch: a minute (or `stale_ns`) before it to `reach_ns` after."""
    since = part.starts_ns - max(WINDOW_NS, stale_ns)
    until = part.starts_ns + NS_PER_DAY + reach_ns + _DELAY_SLACK_NS
    quotes = _between(root, part, TOP_OF_BOOK, since, until, _QUOTE_COLUMNS)
    trades = _between(root, part, TRADES, since, until, _TRADE_COLUMNS)
    marks = _between(root, part, MARK_PRICES, since, until)
    gaps = pl.concat(
        [store.read(root, each) for each in neighbours(root, part, GAPS)] or [pl.DataFrame(schema=GAPS.columns)]
    )
    return venue_day(quotes, trades, marks, gaps, stale_ns)


def venue_day(
    quotes: pl.DataFrame, trades: pl.DataFrame, marks: pl.DataFrame, gaps: pl.DataFrame, stale_ns: int
) -> VenueDay:
    """`VenueDay` of event rows in order of receipt."""
    books = Books(*(_array(quotes[name]) for name in ("recv_ns", "exch_ns", "bid_price", "ask_price", "exch_assumed")))
    prints = (_array(trades["recv_ns"]), _array(trades["exch_ns"]))
    in_order, printed = quotes_of(books), trades_of(trades)
    ends = [stream.exch_ns[-1] for stream in (in_order, printed) if stream.exch_ns.size]
    return VenueDay(
        books=books,
        quotes=in_order,
        trades=printed,
        funding=funding_of(marks),
        breaks=(_gaps(gaps), _crossed(books), _stale(books, stale_ns)),
        clocks=_clocks(books, prints),
        covered_ns=int(max(ends, default=0)),
    )


def quotes_of(books: Books) -> Quotes:
    """The venue's order: by its clock, then as received."""
    order = _venue_order(books.exch_ns)
    recv_ns = books.recv_ns[order]
    return Quotes(books.exch_ns[order], books.bid[order], books.ask[order], recv_ns, _running_max(recv_ns))


def trades_of(trades: pl.DataFrame) -> Trades:
    """`trades` rows in the venue's order."""
    exch_ns = trades["exch_ns"].to_numpy()
    order = _venue_order(exch_ns)
    taker = np.where(trades["taker_side"].to_physical().to_numpy() == 0, 1, -1).astype(np.int8)
    recv_ns = trades["recv_ns"].to_numpy()[order]
    prices, quantities = trades["price"].to_numpy()[order], trades["qty"].to_numpy()[order]
    return Trades(exch_ns[order], prices, quantities, taker[order], recv_ns, _running_max(recv_ns))


def within(breaks: Breaks, times_ns: Ints) -> NDArray[np.bool_]:
    """Which of the times lie in a break."""
    last = np.searchsorted(breaks.from_ns, times_ns, side="left") - 1
    inside = np.zeros(times_ns.size, np.bool_)
    some = last >= 0
    inside[some] = breaks.to_ns[last[some]] >= times_ns[some]
    return inside


def next_start(breaks: Breaks, times_ns: Ints) -> Ints:
    """The first break that starts at or after each time; int64's largest where none does."""
    starts = np.append(breaks.from_ns, _FOREVER)
    return starts[np.searchsorted(breaks.from_ns, times_ns, side="left")]


def _between(
    root: Path, part: Partition, table: Table, since: int, until: int, columns: Sequence[str] | None = None
) -> pl.DataFrame:
    inside = pl.col("recv_ns").is_between(since, until)
    frames = [store.read(root, each, columns).filter(inside) for each in neighbours(root, part, table)]
    empty = pl.DataFrame(schema={name: table.columns[name] for name in columns or table.columns})
    return pl.concat([empty, *(frame.select(empty.columns) for frame in frames)])


def _array(column: pl.Series) -> NDArray[Any]:
    """Writable, as all others are: numba would compile a kernel again for read-only arrays."""
    return column.to_numpy(writable=True)


def _venue_order(exch_ns: Ints) -> Ints:
    return np.argsort(exch_ns, kind="stable")


def _running_max(values: Ints) -> Ints:
    return np.maximum.accumulate(values) if values.size else values


def _clocks(books: Books, prints: tuple[Ints, Ints]) -> tuple[tuple[Ints, Ints], ...]:
    """Quotes whose venue time was assumed from other streams say nothing new, unless there is nothing else."""
    own = ~books.assumed
    quotes = (books.recv_ns[own], books.exch_ns[own])
    if not own.any() and not prints[0].size:
        return ((books.recv_ns, books.exch_ns),)
    return (quotes, prints)


def _gaps(gaps: pl.DataFrame) -> Breaks:
    missed = unmended(gaps).filter(pl.col("stream").is_in([TOP_OF_BOOK.name, TRADES.name])).sort("from_ns")
    return _breaks(missed["from_ns"].to_numpy(), missed["to_ns"].to_numpy())


def _crossed(books: Books) -> Breaks:
    """From each quote without two sides in order to the next receipt."""
    broken = ~((books.bid > 0) & (books.ask > books.bid))
    until = np.append(books.recv_ns[1:], _FOREVER)[: books.recv_ns.size]
    return _breaks(books.recv_ns[broken], until[broken])


def _stale(books: Books, stale_ns: int) -> Breaks:
    """From `stale_ns` after a quote to the next one; what follows the last quote is the end of the data."""
    silent = np.flatnonzero(np.diff(books.recv_ns) > stale_ns)
    return _breaks(books.recv_ns[silent] + stale_ns, books.recv_ns[silent + 1])


def _breaks(from_ns: Ints, to_ns: Ints) -> Breaks:
    return Breaks(from_ns, _running_max(to_ns))
