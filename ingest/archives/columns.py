"""Columns of archives as columns of our tables: times by their size, sides by their signs, and what is sound."""

from typing import Any, Final

import polars as pl

from core.schema import TAKER_SIDE, Table
from core.units import NS_PER_MS, NS_PER_S, NS_PER_US
from ingest.archives.formats import BROKEN, UNSOUND, Counts

EXACT: Final = pl.Decimal(28, 9)
"""Dtype of times with a fraction: a float64 of seconds is good to 0.2 us only."""
_FIRST_S: Final = 946_684_800  # 2000-01-01
_LAST_S: Final = 7_258_118_400  # 2200-01-01: int64 nanoseconds end in 2262
_SCALES: Final = ((1, NS_PER_S), (1_000, NS_PER_MS), (1_000_000, NS_PER_US), (1_000_000_000, 1))
_MOST: Final = 1e18  # beyond any price or quantity
_PRICES: Final = {"price", "bid_price", "ask_price", "mark_price", "open_price", "high_price", "low_price"}


def time_ns(column: str) -> pl.Expr:
    """Nanoseconds of a Unix time in s, ms, us or ns, told apart by their size; null for what lies outside 2000-2199."""
    return _by_size(pl.col(column))


def text_time_ns(column: str) -> pl.Expr:
    """Nanoseconds of `YYYY-MM-DD HH:MM:SS` in UTC, or of a Unix time as text."""
    text = pl.col(column).str.strip_chars()
    written = text.str.to_datetime("%Y-%m-%d %H:%M:%S", time_unit="ns", strict=False).dt.epoch("ns")
    return pl.coalesce(written, _by_size(text.cast(EXACT, strict=False)))


def _by_size(time: pl.Expr) -> pl.Expr:
    ns = pl.lit(None, pl.Int64)
    for per_s, scale_ns in _SCALES:
        fits = (time >= _FIRST_S * per_s) & (time < _LAST_S * per_s)
        ns = pl.when(fits).then((time * scale_ns).cast(pl.Int64, strict=False)).otherwise(ns)
    return ns


def chosen(column: str, meanings: dict[str, str], dtype: pl.DataType) -> pl.Expr:
    """A text in lower case, in capitals or with one, by what it means; null where it means nothing."""
    meant = pl.lit(None, dtype)
    for text, meaning in meanings.items():
        is_it = pl.col(column).is_in([text, text.capitalize(), text.upper()])
        meant = pl.when(is_it).then(pl.lit(meaning, dtype)).otherwise(meant)
    return meant


def side_of_maker_flag(column: str) -> pl.Expr:
    """`is_buyer_maker` true: the taker sold (exchange_protocols.md section 0.1)."""
    return chosen(column, {"true": "sell", "false": "buy"}, TAKER_SIDE)


def side_of_text(column: str) -> pl.Expr:
    """`Buy` and `sell` in any case are the taker's, in Bybit's files and in Tardis'."""
    return chosen(column, {"buy": "buy", "sell": "sell"}, TAKER_SIDE)


def assumed(exch_ns: pl.Expr, latency_ns: int) -> list[pl.Expr]:
    """Both clocks of rows that were not received by us: the venue's, and that plus the configured latency."""
    return [exch_ns.alias("exch_ns"), (exch_ns + latency_ns).alias("recv_ns"), pl.lit(True).alias("recv_assumed")]


def rows_of(table: Table, frame: pl.DataFrame, counts: Counts, *columns: pl.Expr) -> pl.DataFrame:
    """The table's rows of a batch, in its column order; what is null or unsound is counted and left out.

    A column `symbol` among `columns` stays, after the table's own.
    """
    made = frame.select(columns)
    names = [*table.columns, *(["symbol"] if "symbol" in made.columns else [])]
    needed = [name for name in names if name not in table.nullable]
    rows = counts.keep(made.select(names), pl.all_horizontal(pl.col(needed).is_not_null()), BROKEN)
    return counts.keep(rows, _is_sound(table), UNSOUND)


def _is_sound(table: Table) -> pl.Expr:
    """Prices positive and finite, quantities finite and not negative, so that no later stage meets a surprise."""
    tests: list[Any] = [pl.lit(True)]
    for name, dtype in table.columns.items():
        if dtype != pl.Float64 or table.name in _UNBOUND:
            continue
        value = pl.col(name)
        least = value > 0 if name in _PRICES else value >= 0 if name not in _SIGNED else pl.lit(True)
        tests.append((least & (value.abs() < _MOST)).fill_null(name in table.nullable))
    return pl.all_horizontal(tests)


_SIGNED: Final = {"funding_rate", "value", "delta", "gamma", "vega", "theta", "rho", "index_price"}
_UNBOUND: Final = {"options"}
