"""Files that rows are added to: any Parquet reader gives back the rows, as it does of those that Polars writes."""

from io import BytesIO

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.plain_parquet import PlainParquet
from core.plain_rows import plain_rows_of
from core.schema import EVENTS, GAPS, MARK_PRICES, SIGNALS, TRADES, Table

TABLES = (*EVENTS, GAPS, SIGNALS)
INT64 = st.integers(-(2**63), 2**63 - 1)


def values_of(dtype: pl.DataType) -> st.SearchStrategy[object]:
    if isinstance(dtype, pl.Enum):
        return st.sampled_from(list(dtype.categories))
    if dtype == pl.String:
        return st.text(max_size=20)
    if dtype == pl.Boolean:
        return st.booleans()
    return INT64 if dtype == pl.Int64 else st.floats(allow_nan=False)


def rows_of(table: Table) -> st.SearchStrategy[pl.DataFrame]:
    columns = [
        values_of(dtype) | st.none() if name in table.nullable else values_of(dtype)
        for name, dtype in table.columns.items()
    ]
    rows = st.lists(st.tuples(*columns), min_size=1, max_size=70)
    return rows.map(lambda rows: pl.DataFrame(rows, schema=table.columns, orient="row"))


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(TABLES).flatmap(lambda table: st.tuples(st.just(table), st.lists(rows_of(table), min_size=1))))
def test_rows_read_back_as_they_were_added(given: tuple[Table, list[pl.DataFrame]]) -> None:
    table, frames = given
    file = PlainParquet(table)
    for count, frame in enumerate(frames, 1):
        file.add(plain_rows_of(table, frame))
        read = pl.read_parquet(BytesIO(file.content()))
        assert read.schema == frame.schema
        assert read.equals(pl.concat(frames[:count]))
    assert file.rows == sum(frame.height for frame in frames)


def test_files_of_both_kinds_are_read_together() -> None:
    rows = pl.DataFrame([(1, 2, "7", 3.0, 4.0, "sell", False)], schema=TRADES.columns, orient="row")
    file = PlainParquet(TRADES)
    file.add(plain_rows_of(TRADES, rows))
    by_polars = BytesIO()
    rows.write_parquet(by_polars)
    by_polars.seek(0)
    assert pl.scan_parquet([BytesIO(file.content()), by_polars]).collect().equals(pl.concat([rows, rows]))


def test_a_part_of_many_rows_is_found() -> None:
    cells = [(k, k, str(k), float(k), 1.0, "buy", k % 3 == 0) for k in range(100_000)]
    rows = pl.DataFrame(cells, schema=TRADES.columns, orient="row")
    file = PlainParquet(TRADES)
    file.add(plain_rows_of(TRADES, rows))
    late = (
        pl.scan_parquet(BytesIO(file.content())).filter(pl.col("recv_ns") >= 99_990).select("trade_id", "recv_assumed")
    )
    assert late.collect().equals(rows.tail(10).select("trade_id", "recv_assumed"))


def test_a_null_that_must_not_be_is_refused() -> None:
    row = (1, None, 3.0, None, None, None, None, False)
    with pytest.raises(ValueError, match="recv_ns"):
        plain_rows_of(MARK_PRICES, pl.DataFrame([row], schema=MARK_PRICES.columns, orient="row"))


@settings(deadline=None, max_examples=30)
@given(st.sampled_from(TABLES).flatmap(lambda table: st.tuples(st.just(table), rows_of(table), rows_of(table))))
def test_what_was_added_can_be_taken_back(given: tuple[Table, pl.DataFrame, pl.DataFrame]) -> None:
    table, first, second = given
    file = PlainParquet(table)
    file.add(plain_rows_of(table, first))
    content, mark = file.content(), file.mark()
    file.add(plain_rows_of(table, second))
    file.cut(mark)
    assert file.content() == content
    file.add(plain_rows_of(table, second))
    assert file.frame().equals(pl.concat([first, second]))
