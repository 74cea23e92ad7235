"""Market events in the total order (recv_ns, kind, row order), the kinds as numbered here: what bars are made of.

Batch and live see the same array: `merge_events` makes it of a day's tables, `as_events` of what decoders give.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.kernels import njit
from core.schema import BOOK_DELTAS
from core.units import NS_PER_MINUTE
from ingest.events import BookUpdate, Event, Gap, Liquidation, Mark, Quote, Trade
from ingest.stored_books import BREAKS_NO_BOOK
from research.bars.order_book import CHANGE, LAST, SNAPSHOT
from research.bars.part import part

Ints: TypeAlias = NDArray[np.int64]
Events: TypeAlias = NDArray[np.void]

EVENT: Final = np.dtype(
    [("recv_ns", "i8"), ("kind", "i4"), ("side", "i4"), ("a", "f8"), ("b", "f8"), ("c", "f8"), ("d", "f8")],
    align=True,
)
"""One event in 48 bytes. GAP: side 0; 1 where the book's depth alone was missed. QUOTE: bid_price, bid_qty, ask_price,
ask_qty. TRADE: side +1 buy, -1 sell (taker); price, qty. LIQUIDATION: side +1 a long was closed, -1 a short; price,
qty. MARK: side the next funding in minutes since 1970 (venues fund on the minute), 0 where unknown; mark_price,
index_price, funding_rate, open_interest, NaN where unknown. DELTA, one level of a book's message: side +1 bid, -1 ask;
price, qty, update id, flags (order_book.py)."""
GAP, QUOTE, TRADE, LIQUIDATION, MARK, DELTA = range(6)
_KINDS: Final = 6
NEVER_NS: Final = 2**63 - 1

_Row: TypeAlias = tuple[int, int, int, float, float, float, float]


class Deltas(NamedTuple):
    """Rows of `book_deltas` as arrays (n,)."""

    recv_ns: Ints
    side: NDArray[np.int8]
    price: NDArray[np.float64]
    qty: NDArray[np.float64]
    update_id: Ints
    is_snapshot: NDArray[np.bool_]


def merge_events(
    quotes: pl.DataFrame,
    trades: pl.DataFrame,
    liquidations: pl.DataFrame,
    marks: pl.DataFrame,
    gaps: pl.DataFrame,
    deltas: pl.DataFrame | None = None,
) -> Events:
    """One array (n,) of dtype EVENT in the total order, from rows of the event tables, each sorted by recv_ns.

    A gap stands at its told_ns; those of the book's depth are left out unless `deltas` are given, whole messages, since
    without them bars hold the best prices only. Gaps may come in any order. Of the other tables only the columns that
    an EVENT holds are needed.
    """
    depth = _no_deltas() if deltas is None else deltas
    at_ns, of_depth = _gap_rows(gaps, deltas is not None)
    out = np.zeros(sum(frame.height for frame in (quotes, trades, liquidations, marks, depth)) + at_ns.size, EVENT)
    _merge(
        (at_ns, of_depth),
        _columns(quotes, "bid_price", "bid_qty", "ask_price", "ask_qty"),
        _columns(trades, "price", "qty"),
        _signs(trades, "taker_side"),
        _columns(liquidations, "price", "qty"),
        _signs(liquidations, "liquidated"),
        _columns(marks, "mark_price", "index_price", "funding_rate", "open_interest"),
        _read_only((marks["next_funding_ns"] // NS_PER_MINUTE).fill_null(0).cast(pl.Int32)),
        _delta_columns(depth),
        out,
    )
    return out


def as_events(decoded: Sequence[Event], with_depth: bool = False) -> Events:
    """Decoded events of one symbol as an array of dtype EVENT in the total order; of the depth only if asked."""
    rows = [row for event in decoded for row in _event_rows(event, with_depth)]
    events = np.array(rows, EVENT)
    return events[np.lexsort((events["kind"], events["recv_ns"]))] if len(rows) > 1 else events


def breaks_book(gap: Gap) -> bool:
    """Does the book need a new snapshot after this gap?"""
    return gap.stream == BOOK_DELTAS.name and not re.search(BREAKS_NO_BOOK, gap.reason)


def _event_rows(event: Event, with_depth: bool) -> Iterable[_Row]:
    match event:
        case Quote():
            yield event.recv_ns, QUOTE, 0, event.bid_price, event.bid_qty, event.ask_price, event.ask_qty
        case Trade():
            yield event.recv_ns, TRADE, 1 if event.taker_side == "buy" else -1, event.price, event.qty, 0.0, 0.0
        case Liquidation():
            side = 1 if event.liquidated == "long" else -1
            yield event.recv_ns, LIQUIDATION, side, event.price, event.qty, 0.0, 0.0
        case Mark():
            known = (event.mark_price, event.index_price, event.funding_rate, event.open_interest)
            a, b, c, d = (float("nan") if value is None else value for value in known)
            yield event.recv_ns, MARK, (event.next_funding_ns or 0) // NS_PER_MINUTE, a, b, c, d
        case Gap() if event.stream != BOOK_DELTAS.name:
            yield event.known_ns, GAP, 0, 0.0, 0.0, 0.0, 0.0
        case Gap() if with_depth and breaks_book(event):
            yield event.known_ns, GAP, 1, 0.0, 0.0, 0.0, 0.0
        case BookUpdate() if with_depth:
            yield from _delta_rows(event)


def _delta_rows(update: BookUpdate) -> Iterable[_Row]:
    levels = [*((1, level) for level in update.bids), *((-1, level) for level in update.asks)]
    flags = SNAPSHOT if update.is_snapshot else CHANGE
    for left, (side, (price, qty)) in zip(range(len(levels) - 1, -1, -1), levels, strict=True):
        yield update.recv_ns, DELTA, side, price, qty, float(update.update_id), float(flags if left else flags | LAST)


def _gap_rows(gaps: pl.DataFrame, with_depth: bool) -> tuple[Ints, Ints]:
    """Times at which gaps became known, and whether they are of the depth."""
    of_depth = pl.col("stream") == BOOK_DELTAS.name
    breaks = ~pl.col("reason").str.contains(BREAKS_NO_BOOK) if with_depth else pl.lit(False)
    found = gaps.filter(~of_depth | breaks).sort("told_ns")
    return _read_only(found["told_ns"]), _read_only(found.select(of_depth.cast(pl.Int64)).to_series())


def _no_deltas() -> pl.DataFrame:
    return pl.DataFrame(schema=BOOK_DELTAS.columns)


def _delta_columns(frame: pl.DataFrame) -> Deltas:
    names = ("recv_ns", "price", "qty", "update_id", "is_snapshot")
    recv_ns, price, qty, update_id, is_snapshot = (_read_only(frame[name]) for name in names)
    return Deltas(recv_ns, _signs(frame, "side"), price, qty, update_id, is_snapshot)


def _columns(frame: pl.DataFrame, *names: str) -> tuple[NDArray[Any], ...]:
    """recv_ns, then the named columns as float64 with NaN for null."""
    return (_read_only(frame["recv_ns"]), *(_read_only(frame[name].cast(pl.Float64)) for name in names))


def _signs(frame: pl.DataFrame, name: str) -> NDArray[np.int8]:
    """+1 for the first category (buy, long, bid), -1 for the second."""
    return _read_only(1 - 2 * frame[name].to_physical().cast(pl.Int8))


def _read_only(column: pl.Series) -> NDArray[Any]:
    """The column as a contiguous array that may not be written: without a copy where possible, one type for numba."""
    values = np.ascontiguousarray(column.to_numpy()).view()
    values.flags.writeable = False
    return values


@part
def kind_of(words: Ints, i: int) -> int:
    """The kind of event `i` of `words`, events as integers (n, 6)."""
    return int(words[i, 1] & 0xFFFFFFFF)


@part
def side_of(words: Ints, i: int) -> int:
    """Its side."""
    return int(words[i, 1] >> 32)


@njit(cache=True, nogil=True)
def _merge(
    gaps: tuple[Ints, Ints],
    quotes: tuple[NDArray[Any], ...],
    trades: tuple[NDArray[Any], ...],
    takers: NDArray[np.int8],
    liquidations: tuple[NDArray[Any], ...],
    liquidated: NDArray[np.int8],
    marks: tuple[NDArray[Any], ...],
    fundings: NDArray[np.int32],
    deltas: Deltas,
    out: Events,
) -> None:
    """Fill `out` (n,) by a six-way merge. At equal recv_ns the lower kind goes first."""
    at = np.zeros(_KINDS, np.int64)
    heads = np.empty(_KINDS, np.int64)
    heads[GAP] = _head(gaps[0], 0)
    heads[QUOTE] = _head(quotes[0], 0)
    heads[TRADE] = _head(trades[0], 0)
    heads[LIQUIDATION] = _head(liquidations[0], 0)
    heads[MARK] = _head(marks[0], 0)
    heads[DELTA] = _head(deltas.recv_ns, 0)
    for i in range(out.size):
        kind = 0
        for other in range(1, _KINDS):
            if heads[other] < heads[kind]:
                kind = other
        row, event = at[kind], out[i]
        event.recv_ns = heads[kind]
        event.kind = kind
        at[kind] = row + 1
        if kind == QUOTE:
            event.a, event.b, event.c, event.d = quotes[1][row], quotes[2][row], quotes[3][row], quotes[4][row]
            heads[QUOTE] = _head(quotes[0], row + 1)
        elif kind == TRADE:
            event.side, event.a, event.b = takers[row], trades[1][row], trades[2][row]
            heads[TRADE] = _head(trades[0], row + 1)
        elif kind == DELTA:
            event.side, event.a, event.b = deltas.side[row], deltas.price[row], deltas.qty[row]
            event.c, event.d = deltas.update_id[row], _flags(deltas, row)
            heads[DELTA] = _head(deltas.recv_ns, row + 1)
        elif kind == LIQUIDATION:
            event.side, event.a, event.b = liquidated[row], liquidations[1][row], liquidations[2][row]
            heads[LIQUIDATION] = _head(liquidations[0], row + 1)
        elif kind == MARK:
            event.side = fundings[row]
            event.a, event.b, event.c, event.d = marks[1][row], marks[2][row], marks[3][row], marks[4][row]
            heads[MARK] = _head(marks[0], row + 1)
        else:
            event.side = gaps[1][row]
            heads[GAP] = _head(gaps[0], row + 1)


@njit(cache=True, nogil=True, inline="always")
def _head(times: Ints, row: int) -> int:
    return times[row] if row < times.size else NEVER_NS


@njit(cache=True, nogil=True, inline="always")
def _flags(deltas: Deltas, row: int) -> int:
    """Flags of a row of book_deltas: neighbouring rows of one receive time, update id and kind are one message."""
    goes_on = (
        row + 1 < deltas.recv_ns.size
        and deltas.recv_ns[row + 1] == deltas.recv_ns[row]
        and deltas.update_id[row + 1] == deltas.update_id[row]
        and deltas.is_snapshot[row + 1] == deltas.is_snapshot[row]
    )
    return (SNAPSHOT if deltas.is_snapshot[row] else CHANGE) | (0 if goes_on else LAST)
