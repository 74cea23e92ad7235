"""Structs to columns: one row per event or per level, nulls where a venue said nothing, in order of time."""

import polars as pl
import pytest

from core.plain_parquet import frame_of_rows
from core.schema import BOOK_DELTAS, EVENTS, GAPS, KLINES, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES, Table, check
from ingest.events import BookUpdate, Event, Gap, Kline, Liquidation, Mark, Quote, Trade
from ingest.packing import TABLES, frame_of, rows_of


def quote(recv_ns: int) -> Quote:
    return Quote("BTCUSDT", recv_ns - 5, recv_ns, recv_ns, 1.0, 2.0, 3.0, 4.0)


def test_a_book_update_becomes_one_row_per_level_bids_first() -> None:
    updates = [
        BookUpdate("X", 1, 2, 3, [(9.0, 1.0), (8.0, 0.0)], [(10.0, 5.0)]),
        BookUpdate("X", 4, 5, 6, [], []),
        BookUpdate("X", 7, 8, 9, [], [(11.0, 6.0)], True),
    ]
    frame = frame_of(BOOK_DELTAS, updates)
    check(BOOK_DELTAS, frame)
    assert frame.rows() == [
        (1, 2, 3, "bid", 9.0, 1.0, False, False),
        (1, 2, 3, "bid", 8.0, 0.0, False, False),
        (1, 2, 3, "ask", 10.0, 5.0, False, False),
        (7, 8, 9, "ask", 11.0, 6.0, True, False),
    ]
    assert frame_of_rows(rows_of(BOOK_DELTAS, updates)).equals(frame)


def test_what_a_venue_did_not_say_is_null() -> None:
    marks = [Mark("X", 1, 2, 3.0, None, None, None, None), Mark("X", 2, 3, 3.0, 4.0, 0.1, 5, 6.0)]
    frame = frame_of(MARK_PRICES, marks)
    check(MARK_PRICES, frame)
    assert frame.rows() == [(1, 2, 3.0, None, None, None, None, False), (2, 3, 3.0, 4.0, 0.1, 5, 6.0, False)]


def test_rows_received_out_of_order_are_put_in_order() -> None:
    assert frame_of(TOP_OF_BOOK, [quote(7), quote(5), quote(6)])["recv_ns"].to_list() == [5, 6, 7]


ONE_OF_EACH: list[tuple[Event, Table]] = [
    (Quote("X", 1, 2, 3, 4.0, 5.0, 6.0, 7.0, True, True), TOP_OF_BOOK),
    (Trade("X", 1, 2, "3", 4.0, 5.0, "sell", True), TRADES),
    (Liquidation("X", 1, 2, "short", 3.0, 4.0, True), LIQUIDATIONS),
    (Mark("X", 1, 2, 3.0, 4.0, 5.0, 6, 7.0, True), MARK_PRICES),
    (Kline("X", 1, 2, "1m", 3, 4, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11, 12.0, 13.0, True), KLINES),
    (Gap("X", "trades", 1, 2, "lost", True, 3), GAPS),
]


@pytest.mark.parametrize(("event", "table"), ONE_OF_EACH)
def test_the_fields_after_the_symbol_are_the_row(event: Event, table: Table) -> None:
    assert TABLES[type(event)] is table
    frame = frame_of(table, [event, event])
    check(table, frame)
    fields = tuple(getattr(event, name) for name in event.__struct_fields__[1:])
    assert frame.rows() == [fields, fields]
    assert frame_of_rows(rows_of(table, [event, event])).equals(frame)


def test_a_flag_that_one_event_carries_stands_in_its_row_alone() -> None:
    marked = Quote("X", 1, 2, 3, 4.0, 5.0, 6.0, 7.0, recv_assumed=True)
    frame = frame_of(TOP_OF_BOOK, [quote(1), marked, quote(3)])
    assert frame["recv_assumed"].to_list() == [False, True, False]
    assert frame["exch_assumed"].to_list() == [False] * 3


def test_each_event_table_has_its_kind_of_event() -> None:
    assert {table.name for table in TABLES.values()} == {table.name for table in (*EVENTS, GAPS)}


def test_updates_without_levels_are_no_rows() -> None:
    frame = frame_of(BOOK_DELTAS, [BookUpdate("X", 1, 2, 3, [], [])])
    assert frame.schema == pl.Schema(BOOK_DELTAS.columns)
    assert not frame.height


def test_what_cannot_be_is_not_packed() -> None:
    with pytest.raises(ValueError, match="mark_price"):
        rows_of(MARK_PRICES, [Mark("X", 1, 2, None, None, None, None, None)])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="taker_side"):
        rows_of(TRADES, [Trade("X", 1, 2, "3", 4.0, 5.0, "hold")])  # type: ignore[arg-type]
