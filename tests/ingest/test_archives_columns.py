"""Times by their size, exactly; sides by their signs; and what is not sound is counted, not kept."""

from decimal import Decimal

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.schema import MARK_PRICES, TRADES
from ingest.archives.columns import EXACT, assumed, rows_of, side_of_maker_flag, side_of_text, text_time_ns, time_ns
from ingest.archives.formats import BROKEN, UNSOUND, Counts

FIRST_NS, LAST_NS = 946_684_800_000_000_000, 7_258_118_399_000_000_000


@given(st.integers(FIRST_NS, LAST_NS), st.sampled_from([1_000_000_000, 1_000_000, 1_000, 1]))
def test_a_time_is_told_by_its_size_whatever_its_unit(ns: int, unit_ns: int) -> None:
    whole = ns // unit_ns
    frame = pl.DataFrame({"time": [whole]})
    assert frame.select(time_ns("time")).item() == whole * unit_ns


@given(st.integers(FIRST_NS, LAST_NS))
def test_seconds_with_a_fraction_are_exact_to_the_nanosecond(ns: int) -> None:
    text = f"{ns // 10**9}.{ns % 10**9:09d}"
    frame = pl.DataFrame({"time": [Decimal(text)]}, schema={"time": EXACT})
    assert frame.select(time_ns("time")).item() == ns
    assert pl.DataFrame({"time": [text]}).select(text_time_ns("time")).item() == ns


@pytest.mark.parametrize("time", [0, -1, 1, 12_345, 8 * 10**18, 900_000_000, 2**63 - 1])
def test_what_is_no_time_of_this_century_is_null(time: int) -> None:
    assert pl.DataFrame({"time": [time]}).select(time_ns("time")).item() is None


def test_written_times_are_utc() -> None:
    frame = pl.DataFrame({"time": ["2024-03-29 00:00:05", " 1711670405000 ", "today", None]})
    assert frame.select(text_time_ns("time")).to_series().to_list() == [1_711_670_405 * 10**9] * 2 + [None] * 2


def test_a_buyer_who_made_the_price_means_that_the_taker_sold() -> None:
    frame = pl.DataFrame({"maker": ["true", "True", "FALSE", "false", "1", None]})
    sides = frame.select(side_of_maker_flag("maker")).to_series().to_list()
    assert sides == ["sell", "sell", "buy", "buy", None, None]


def test_sides_as_text_are_the_takers() -> None:
    frame = pl.DataFrame({"side": ["Buy", "sell", "SELL", "unknown", None]})
    assert frame.select(side_of_text("side")).to_series().to_list() == ["buy", "sell", "sell", None, None]


def trades_of(prices: list[float | None], qty: float = 1.0) -> tuple[pl.DataFrame, Counts]:
    counts = Counts()
    frame = pl.DataFrame({"t": [FIRST_NS] * len(prices), "price": prices}, schema={"t": pl.Int64, "price": pl.Float64})
    columns = (pl.lit("1").alias("trade_id"), pl.col("price"), pl.lit(qty).alias("qty"))
    side = pl.lit("buy").cast(TRADES.columns["taker_side"]).alias("taker_side")
    return rows_of(TRADES, frame, counts, *assumed(time_ns("t"), 7), *columns, side), counts


def test_rows_have_both_clocks_and_say_that_one_is_assumed() -> None:
    frame, counts = trades_of([5.0])
    assert frame.rows() == [(FIRST_NS, FIRST_NS + 7, "1", 5.0, 1.0, "buy", True)]
    assert not counts.dropped


def test_prices_that_are_none_are_counted_and_left_out() -> None:
    frame, counts = trades_of([5.0, 0.0, -1.0, float("inf"), float("nan"), 1e18, None])
    assert frame["price"].to_list() == [5.0]
    assert counts.dropped == {UNSOUND: 5, BROKEN: 1}
    assert len(counts.samples) == 4  # three of a kind are enough


def test_a_negative_quantity_is_unsound() -> None:
    assert trades_of([5.0], qty=-1.0)[1].dropped == {UNSOUND: 1}


def test_what_may_be_unknown_stays_null_and_funding_may_be_negative() -> None:
    counts = Counts()
    frame = pl.DataFrame({"t": [FIRST_NS]})
    unknown = [pl.lit(None, pl.Float64).alias(name) for name in ("index_price", "open_interest")]
    rows = rows_of(
        MARK_PRICES,
        frame,
        counts,
        *assumed(time_ns("t"), 0),
        pl.lit(5.0).alias("mark_price"),
        pl.lit(-0.001).alias("funding_rate"),
        pl.lit(None, pl.Int64).alias("next_funding_ns"),
        *unknown,
    )
    assert rows.rows() == [(FIRST_NS, FIRST_NS, 5.0, None, -0.001, None, None, True)]
