"""Gaps as they ended: a second row that says mended closes the first."""

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.gaps import Row, settled, told_at_their_ends, unmended

ROWS = st.lists(
    st.tuples(
        st.sampled_from(["trades", "book_deltas"]), st.integers(0, 2), st.integers(3, 4), st.just(""), st.booleans()
    )
)


def frame(*rows: Row) -> pl.DataFrame:
    return told_at_their_ends(rows).drop("told_ns")


def test_a_mended_row_closes_the_one_of_the_same_stream_and_times_alone() -> None:
    told: Row = ("trades", 1, 9, "aggTrade 4 is followed by 8", False)
    others: list[Row] = [("trades", 1, 10, "", False), ("trades", 2, 9, "", False), ("top_of_book", 1, 9, "", False)]
    mended: Row = ("trades", 1, 9, "refilled", True)
    assert settled(frame(told, *others, mended)).rows() == [*others, mended]
    assert unmended(frame(told, *others, mended)).rows() == others
    assert unmended(frame(told, *others)).rows() == [told, *others]
    assert unmended(frame()).is_empty()


def test_a_hole_that_was_told_again_further_after_a_restart_is_mended_with_it() -> None:
    """Killed when the first was on disk and the trade behind it was not."""
    before: Row = ("trades", 1, 5, "aggTrade 4 is followed by 8", False)
    again: Row = ("trades", 1, 9, "capture was not running: aggTrade 4 is followed by 12", False)
    rest: Row = ("trades", 3, 9, "aggTrades 10-11 missed: the venue gives no trade 10", False)
    others: list[Row] = [("trades", 1, 4, "7 rows dropped: No space left", False), ("trades", 1, 1, "", False)]
    mended: Row = ("trades", 1, 9, "refilled", True)
    assert unmended(frame(before, again, rest, *others, mended)).rows() == [rest, *others]
    assert settled(frame(before, again, rest, *others, mended)).rows() == [rest, *others, mended]


@pytest.mark.parametrize("first", [0, 1])
def test_that_a_frame_was_lost_closes_no_hole_of_the_same_times(first: int) -> None:
    lost: Row = ("trades", 1, 9, "frame did not decode: cut short", True)
    hole: Row = ("trades", 1, 9, "aggTrade 4 is followed by 8", False)
    told = [lost, hole][:: 1 - 2 * first]
    assert unmended(frame(*told)).rows() == [hole]
    assert settled(frame(*told)).rows() == told
    assert unmended(frame(*told, ("trades", 1, 9, "refilled", True))).is_empty()


@given(ROWS)
def test_what_stays_open_is_what_no_row_closes_in_whatever_order_they_were_read(rows: list[Row]) -> None:
    mended = [row for row in rows if row[4]]

    def is_closed(row: Row) -> bool:
        reaches = (each for each in mended if each[:2] == row[:2] and each[2] > row[2])
        return row[:3] in {each[:3] for each in mended} or (row[0] == "trades" and any(reaches))

    still = [row for row in rows if not is_closed(row)]
    assert unmended(frame(*rows)).rows() == still
    assert sorted(unmended(frame(*reversed(rows))).rows()) == sorted(still)
    assert unmended(settled(frame(*rows))).rows() == still
    assert settled(frame(*rows)).rows() == [row for row in rows if row[4] or not is_closed(row)]
