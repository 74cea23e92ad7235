"""Event arrays: what becomes of each row, and the two orders."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.schema import BOOK_DELTAS, TOP_OF_BOOK
from ingest.book_rebuild import COLUMNS, Rebuilder
from ingest.event_array import (
    BUY,
    CLEAR,
    DEPTH,
    EVENT,
    FOR_EXCHANGE,
    FOR_LOCAL,
    SELL,
    SNAPSHOT,
    TRADE,
    Events,
    book_events,
    ordered,
    standing_book,
    top_events,
    trade_events,
    write_npz,
)
from ingest.events import BookUpdate, Quote
from ingest.packing import frame_of


def plain(events: Events) -> list[tuple[int, int, int, float, float]]:
    return [(int(k), int(e), int(loc), float(p), float(q)) for k, e, loc, p, q in zip(*events, strict=True)]


def test_trades_carry_the_aggressors_side_and_both_clocks() -> None:
    frame = pl.DataFrame({"exch_ns": [1, 2], "recv_ns": [5, 6], "price": [9.0, 8.0], "qty": [0.5, 0.25]})
    events = trade_events(frame.with_columns(taker_side=pl.Series(["buy", "sell"])))
    assert plain(events) == [(TRADE | BUY, 1, 5, 9.0, 0.5), (TRADE | SELL, 2, 6, 8.0, 0.25)]


def test_a_snapshot_clears_the_book_and_what_was_held_back_follows_it() -> None:
    updates = [
        BookUpdate("X", 11, 20, 8, [(98.0, 1.0)], []),  # held by the snapshot
        BookUpdate("X", 14, 21, 12, [(99.5, 2.0)], [(101.0, 0.0)]),  # received before it, belongs behind it
        BookUpdate("X", 13, 22, 10, [(99.0, 1.0)], [(101.0, 3.0)], True),
        BookUpdate("X", 23, 25, 15, [(99.0, 4.0), (99.5, 0.0)], []),
    ]
    events = book_events(Rebuilder([], holds_back=True).follow(frame_of(BOOK_DELTAS, updates).select(COLUMNS)))
    assert plain(events) == [
        (CLEAR, 13, 22, 0.0, 0.0),
        (SNAPSHOT | BUY, 13, 22, 99.0, 1.0),
        (SNAPSHOT | SELL, 13, 22, 101.0, 3.0),
        (DEPTH | SELL, 14, 22, 101.0, 0.0),
        (DEPTH | BUY, 14, 22, 99.5, 2.0),
        (DEPTH | BUY, 23, 25, 99.5, 0.0),
        (DEPTH | BUY, 23, 25, 99.0, 4.0),
    ]


def test_a_standing_book_is_a_snapshot_of_all_its_levels() -> None:
    book = Rebuilder([], holds_back=True)
    update = BookUpdate("X", 1, 2, 1, [(98.0, 2.0), (99.0, 1.0)], [(101.0, 3.0)], True)
    book.best_after(book.follow(frame_of(BOOK_DELTAS, [update]).select(COLUMNS)))
    assert plain(standing_book(book.ladders, 7, 9)) == [
        (SNAPSHOT | BUY, 7, 9, 99.0, 1.0),
        (SNAPSHOT | BUY, 7, 9, 98.0, 2.0),
        (SNAPSHOT | SELL, 7, 9, 101.0, 3.0),
    ]


def test_best_prices_are_a_book_of_one_level_that_starts_anew_after_a_gap() -> None:
    quotes = [
        Quote("X", 1, 2, 1, 99.0, 1.0, 101.0, 1.0),
        Quote("X", 3, 4, 2, 99.0, 5.0, 101.0, 1.0),
        Quote("X", 5, 6, 3, 100.0, 1.0, 101.0, 1.0),
        Quote("X", 7, 8, 4, 90.0, 1.0, 91.0, 1.0),
    ]
    events = top_events(frame_of(TOP_OF_BOOK, quotes), np.array([7]))
    assert plain(events) == [
        (CLEAR, 1, 2, 0.0, 0.0),
        (SNAPSHOT | BUY, 1, 2, 99.0, 1.0),
        (SNAPSHOT | SELL, 1, 2, 101.0, 1.0),
        (DEPTH | BUY, 3, 4, 99.0, 5.0),
        (DEPTH | BUY, 5, 6, 99.0, 0.0),
        (DEPTH | BUY, 5, 6, 100.0, 1.0),
        (CLEAR, 7, 8, 0.0, 0.0),
        (SNAPSHOT | BUY, 7, 8, 90.0, 1.0),
        (SNAPSHOT | SELL, 7, 8, 91.0, 1.0),
    ]


def test_no_best_prices_are_no_events() -> None:
    assert plain(top_events(frame_of(TOP_OF_BOOK, [])[:0], np.zeros(0, np.int64))) == []


clocks = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=40)


def events_at(times: list[tuple[int, int]]) -> Events:
    exch, local = np.array(times, np.int64).reshape(-1, 2).T
    return Events(np.full(exch.size, TRADE), exch, local, np.arange(exch.size) * 1.0, np.ones(exch.size))


@settings(deadline=None)  # the first call compiles
@given(clocks)
def test_each_side_sees_every_event_once_and_in_the_order_of_its_own_clock(times: list[tuple[int, int]]) -> None:
    events = events_at(times)
    which, flags = ordered(events)
    for flag, clock in ((FOR_EXCHANGE, events.exch_ns), (FOR_LOCAL, events.local_ns)):
        seen = which[(flags & flag) != 0]
        assert sorted(seen.tolist()) == list(range(len(times)))
        assert seen.tolist() == np.argsort(clock, kind="stable").tolist()


@settings(deadline=None)  # the first call compiles
@given(clocks)
def test_where_both_clocks_agree_no_event_is_doubled(times: list[tuple[int, int]]) -> None:
    both = sorted(times)
    agreed = list(zip(sorted(exch for exch, _ in both), sorted(local for _, local in both), strict=True))
    which, flags = ordered(events_at(agreed))
    assert which.tolist() == list(range(len(times)))
    assert (flags == FOR_EXCHANGE | FOR_LOCAL).all()


def test_the_file_is_what_numpy_reads_and_local_times_are_shifted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.event_array._CHUNK", 2)
    assert write_npz(tmp_path / "a.npz", events_at([(5, 1), (6, 2), (4, 3)]), shift_ns=4) == 4
    with np.load(tmp_path / "a.npz") as saved:
        data = saved["data"]
    assert data.dtype == EVENT
    assert data["local_ts"][(data["ev"] & FOR_LOCAL) != 0].tolist() == [5, 6, 7]
    assert data["exch_ts"][(data["ev"] & FOR_EXCHANGE) != 0].tolist() == [4, 5, 6]
    assert list(tmp_path.iterdir()) == [tmp_path / "a.npz"]
