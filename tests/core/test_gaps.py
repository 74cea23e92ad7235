"""Gaps as they ended: a second row that says mended closes the first."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from core.gaps import settled, unmended
from core.schema import GAPS

Row = tuple[str, int, int, str, bool]
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["trades", "book_deltas"]), st.integers(0, 2), st.integers(3, 4), st.just(""), st.booleans()
    )
)


def frame(*rows: Row) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=GAPS.columns, orient="row")


def test_a_mended_row_closes_the_one_of_the_same_stream_and_times_alone() -> None:
    told: Row = ("trades", 1, 9, "aggTrade 4 is followed by 8", False)
    others: list[Row] = [("trades", 1, 8, "", False), ("trades", 2, 9, "", False), ("top_of_book", 1, 9, "", False)]
    mended: Row = ("trades", 1, 9, "refilled", True)
    assert settled(frame(told, *others, mended)).rows() == [*others, mended]
    assert unmended(frame(told, *others, mended)).rows() == others
    assert unmended(frame(told, *others)).rows() == [told, *others]
    assert unmended(frame()).is_empty()


@given(ROWS)
def test_what_stays_open_is_what_no_row_closes_in_whatever_order_they_were_read(rows: list[Row]) -> None:
    closed = {row[:3] for row in rows if row[4]}
    still = [row for row in rows if row[:3] not in closed]
    assert unmended(frame(*rows)).rows() == still
    assert sorted(unmended(frame(*reversed(rows))).rows()) == sorted(still)
    assert unmended(settled(frame(*rows))).rows() == still
    assert {row[:3] for row in settled(frame(*rows)).rows()} == {row[:3] for row in rows}
