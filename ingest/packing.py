"""Event structs to rows of the event tables: plain rows, as a capture writes them, or a frame.

One list per column, made by an attribute access that the interpreter specialises, is the fastest way found from structs
to columns: 180 ns per quote, where `attrgetter` into NumPy took 320, and tuples turned by `zip` 420 (2026-11-21, Python
3.11, Polars 2.1). benchmarks/bench_writer.py measures it.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import polars as pl

from core.plain_rows import Cells, PlainRows, plain_rows
from core.schema import (
    BOOK_DELTAS,
    GAPS,
    KLINES,
    LIQUIDATIONS,
    MARK_PRICES,
    TOP_OF_BOOK,
    TRADES,
    Table,
)
from ingest.events import BookUpdate, Gap, Kline, Liquidation, Mark, Quote, Trade

TABLES: Final[dict[type, Table]] = {
    Quote: TOP_OF_BOOK,
    Trade: TRADES,
    BookUpdate: BOOK_DELTAS,
    Liquidation: LIQUIDATIONS,
    Mark: MARK_PRICES,
    Kline: KLINES,
    Gap: GAPS,
}
# Polars looks at a data type's class faster than at an instance, where the class says it all.
_DTYPES: Final = {
    table.name: [dtype if isinstance(dtype, pl.Enum) else type(dtype) for dtype in table.columns.values()]
    for table in TABLES.values()
}


def frame_of(table: Table, events: Sequence[Any]) -> pl.DataFrame:
    """Rows of one kind of events, in the table's order; a book update has one row per level, bids first."""
    _, cells = _COLUMNS[table.name](events)
    columns = zip(table.columns, cells, _DTYPES[table.name], strict=True)
    return in_order(table, pl.DataFrame([_series(name, values, dtype) for name, values, dtype in columns]))


def rows_of(table: Table, events: Sequence[Any]) -> PlainRows:
    """The same rows, as they came."""
    return plain_rows(table, *_COLUMNS[table.name](events))


def _series(name: str, values: Cells, dtype: Any) -> pl.Series:
    if isinstance(values, np.ndarray) and isinstance(dtype, pl.Enum):
        return pl.Series(name, dtype.categories, dtype=dtype).gather(values)
    return pl.Series(name, values, dtype=dtype)


def in_order(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """The rows sorted as the table asks; rows of one time stay in the order they came."""
    return frame if frame[table.order[0]].is_sorted() else frame.sort(table.order, maintain_order=True)


def _quotes(events: Sequence[Quote]) -> tuple[int, list[Cells]]:
    return len(events), [
        [event.exch_ns for event in events],
        [event.recv_ns for event in events],
        [event.update_id for event in events],
        [event.bid_price for event in events],
        [event.bid_qty for event in events],
        [event.ask_price for event in events],
        [event.ask_qty for event in events],
        _flags([event.exch_assumed for event in events]),
        _flags([event.recv_assumed for event in events]),
    ]


def _trades(events: Sequence[Trade]) -> tuple[int, list[Cells]]:
    return len(events), [
        [event.exch_ns for event in events],
        [event.recv_ns for event in events],
        [event.trade_id for event in events],
        [event.price for event in events],
        [event.qty for event in events],
        [event.taker_side for event in events],
        _flags([event.recv_assumed for event in events]),
    ]


def _book_updates(updates: Sequence[BookUpdate]) -> tuple[int, list[Cells]]:
    sides = [side for update in updates for side in (update.bids, update.asks)]
    levels_per_side = np.fromiter(map(len, sides), np.int64, len(sides))
    levels_per_update = levels_per_side[0::2] + levels_per_side[1::2]
    levels = np.fromiter(chain.from_iterable(chain.from_iterable(sides)), np.float64, 2 * int(levels_per_side.sum()))
    side_codes = np.repeat(np.tile(np.array([0, 1], np.uint32), len(updates)), levels_per_side)

    def per_level(values: list[int] | list[bool], dtype: type[np.generic] = np.int64) -> Cells:
        return np.repeat(np.array(values, dtype), levels_per_update)

    return side_codes.size, [
        per_level([update.exch_ns for update in updates]),
        per_level([update.recv_ns for update in updates]),
        per_level([update.update_id for update in updates]),
        side_codes,
        levels[0::2],
        levels[1::2],
        per_level([update.is_snapshot for update in updates], np.bool_),
        per_level([update.recv_assumed for update in updates], np.bool_),
    ]


def _liquidations(events: Sequence[Liquidation]) -> tuple[int, list[Cells]]:
    return _by_name(LIQUIDATIONS, events)


def _marks(events: Sequence[Mark]) -> tuple[int, list[Cells]]:
    return _by_name(MARK_PRICES, events)


def _klines(events: Sequence[Kline]) -> tuple[int, list[Cells]]:
    return _by_name(KLINES, events)


def _gaps(events: Sequence[Gap]) -> tuple[int, list[Cells]]:
    count, columns = _by_name(GAPS, events)
    return count, [*columns[:-1], [event.known_ns for event in events]]


def _by_name(table: Table, events: Sequence[Any]) -> tuple[int, list[Cells]]:
    """Of kinds that are too rare to be worth a function of their own."""
    return len(events), [[getattr(event, name) for event in events] for name in table.columns]


def _flags(values: list[bool]) -> Cells:
    """A column of flags that are hardly ever set: where none is, a constant costs a third of the list."""
    return values if True in values else np.zeros(len(values), np.bool_)


_COLUMNS: Final[dict[str, Callable[[Sequence[Any]], tuple[int, list[Cells]]]]] = {
    TOP_OF_BOOK.name: _quotes,
    TRADES.name: _trades,
    BOOK_DELTAS.name: _book_updates,
    LIQUIDATIONS.name: _liquidations,
    MARK_PRICES.name: _marks,
    KLINES.name: _klines,
    GAPS.name: _gaps,
}
