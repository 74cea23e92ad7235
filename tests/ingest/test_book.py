"""The L2 book: levels against a dictionary, and which change may follow which."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.book import Book, Change, Ladder, bybit_rule, futures_rule, spot_rule
from ingest.book_stream import GRACE_NS, NO_SNAPSHOT, BookStream
from ingest.events import Gap, Quote

LEVELS = st.lists(st.tuples(st.integers(1, 30).map(float), st.integers(0, 3).map(float)), max_size=12)


def change(first: int, last: int, prev: int = 0, bids=(), asks=()) -> Change:
    return Change(first, last, prev, bids, asks)


@given(LEVELS, st.lists(LEVELS, max_size=6))
def test_a_ladder_holds_what_a_dictionary_would(start: list, changes: list) -> None:
    ladder, slow = Ladder(), {price: qty for price, qty in start if qty}
    ladder.reset(start)
    # A snapshot does not name a price twice; where a test does, the last one that is not 0 counts.
    for levels in changes:
        ladder.put(levels)
        for price, qty in levels:
            slow[price] = qty
            if not qty:
                del slow[price]
    assert ladder.qty_at == slow
    assert ladder.prices == sorted(slow)


def test_the_best_prices_are_the_highest_bid_and_the_lowest_ask() -> None:
    book = Book(spot_rule)
    book.snapshot(10, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0), (102.0, 4.0)])
    assert book.best() == (99.0, 1.0, 101.0, 3.0)
    assert book.apply(change(11, 12, bids=[(99.0, 0.0)], asks=[(100.5, 7.0)])) is None
    assert book.best() == (98.0, 2.0, 100.5, 7.0)


def test_a_book_without_one_side_has_no_best_prices() -> None:
    book = Book(spot_rule)
    book.snapshot(1, [(99.0, 1.0)], [])
    assert book.best() is None


@pytest.mark.parametrize(
    ("rule", "candidate", "follows"),
    [
        (spot_rule, change(9, 12), True),
        (spot_rule, change(11, 12), True),
        (spot_rule, change(12, 14), False),
        (futures_rule, change(8, 12, prev=7), True),
        (futures_rule, change(50, 60, prev=10), True),
        (futures_rule, change(15, 16, prev=11), False),
        (bybit_rule, change(11, 11), True),
        (bybit_rule, change(12, 12), False),
    ],
)
def test_each_venue_says_which_change_follows_a_book_at_10(rule, candidate: Change, follows: bool) -> None:
    assert rule(10, candidate) is follows
    book = Book(rule)
    book.snapshot(10, [], [])
    assert (book.apply(candidate) is None) is follows


def test_a_change_that_ends_at_or_before_the_book_leaves_it_as_it_is() -> None:
    book = Book(futures_rule)
    book.snapshot(10, [(1.0, 1.0)], [])
    assert book.apply(change(5, 10, prev=4, bids=[(1.0, 7.0)])) is None
    assert (book.update_id, book.bids.qty_at) == (10, {1.0: 1.0})


def test_changes_before_the_snapshot_are_applied_after_it() -> None:
    book = Book(spot_rule)
    for first in (9, 10, 11, 12):
        book.apply(change(first, first, bids=[(float(first), 1.0)]))
    assert book.update_id is None
    assert book.snapshot(10, [(1.0, 1.0)], [(99.0, 1.0)]) is None
    assert book.update_id == 12
    assert book.bids.prices == [1.0, 11.0, 12.0]


def test_a_snapshot_older_than_what_was_held_back_is_refused_and_the_next_one_heals() -> None:
    book = Book(spot_rule)
    book.apply(change(20, 21, bids=[(5.0, 1.0)]))
    assert book.snapshot(10, [(1.0, 1.0)], []) is not None
    assert book.update_id is None
    assert book.snapshot(20, [(1.0, 1.0)], []) is None
    assert book.update_id == 21


@given(st.lists(st.integers(1, 3), min_size=3, max_size=30), st.data())
def test_a_lost_change_is_always_noticed_and_an_unbroken_stream_never_complained_about(steps: list, data) -> None:
    whole, holed = Book(spot_rule), Book(spot_rule)
    changes, last = [], 100
    for step in steps:
        changes.append(change(last + 1, last + step))
        last += step
    lost = data.draw(st.integers(0, len(changes) - 2))
    for book in (whole, holed):
        book.snapshot(100, [], [])
    assert [whole.apply(c) for c in changes] == [None] * len(changes)
    told = [holed.apply(c) for k, c in enumerate(changes) if k != lost]
    assert [reason is not None for reason in told].index(True) == lost


def test_what_a_break_missed_is_told_at_once_and_the_wait_for_the_snapshot_when_it_ends() -> None:
    stream = BookStream("BTCUSDT", spot_rule)
    stream.rest_snapshot(10, [(1.0, 1.0)], [(2.0, 1.0)], 0, 100)
    assert stream.change(change(11, 11), 0, 200) == []
    tables, reason = ("book_deltas", "top_of_book"), "update 13-13 does not follow 11"
    missed = stream.change(change(13, 13), 0, 300)
    assert missed == [Gap("BTCUSDT", table, 200, 300, reason, False) for table in tables]
    assert stream.change(change(15, 15), 0, 350) == []
    assert stream.wants_snapshot
    told = stream.rest_snapshot(15, [(1.0, 1.0)], [(2.0, 1.0)], 0, 400)
    assert told == [Gap("BTCUSDT", table, 300, 400, reason, True) for table in tables]
    assert not stream.wants_snapshot
    assert stream.finish(500) == []


def test_a_change_that_is_missing_before_the_first_snapshot_is_told_though_the_book_can_do_without() -> None:
    stream = BookStream("BTCUSDT", spot_rule)
    stream.native_quotes = True
    assert [stream.change(change(number, number), 0, 10 * number) for number in (11, 12)] == [[], []]
    reason = "update 14-14 does not follow 12"
    assert stream.change(change(14, 14), 0, 140) == [Gap("BTCUSDT", "book_deltas", 120, 140, reason, False)]
    assert stream.change(change(13, 13), 0, 150) is None  # late
    assert stream.rest_snapshot(13, [(1.0, 1.0)], [(2.0, 1.0)], 0, 160) == []
    assert stream.change(change(15, 15), 0, 170) == []
    stream.interrupted(180)  # what was missed until now is told by who holds the connection
    assert stream.change(change(19, 19), 0, 190) == []


def test_a_stream_without_a_snapshot_says_so_at_its_end() -> None:
    stream = BookStream("BTCUSDT", spot_rule)
    stream.native_quotes = True
    stream.change(change(11, 11), 0, 200)
    assert stream.finish(900) == [Gap("BTCUSDT", "book_deltas", 200, 900, NO_SNAPSHOT, False)]


def test_best_prices_come_from_the_book_only_where_no_native_stream_shows_up() -> None:
    def follow(native: bool) -> list:
        stream = BookStream("BTCUSDT", spot_rule)
        stream.native_quotes = native
        stream.rest_snapshot(10, [(1.0, 1.0)], [(2.0, 1.0)], 0, 0)
        told = stream.change(change(11, 11, bids=[(1.5, 1.0)]), 5, 100)  # within the grace
        told += stream.change(change(12, 12, bids=[(1.6, 1.0)]), 6, GRACE_NS)
        told += stream.change(change(13, 13, bids=[(1.0, 9.0)]), 7, GRACE_NS + 1)  # the best does not change
        return told

    assert follow(native=True) == []
    assert follow(native=False) == [Quote("BTCUSDT", 6, GRACE_NS, 12, 1.6, 1.0, 2.0, 1.0)]
