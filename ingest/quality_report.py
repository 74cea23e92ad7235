"""The table `quality` as text: a line per kind of stream over all symbols and days, then the worst streams."""

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import polars as pl

from core.text_table import blocks, table_lines
from core.units import counted
from ingest.clock_skew import skew_lines
from ingest.stream_quality import SILENT_BY_NATURE

_WORST: Final = 15
"""Streams that are listed one by one: more than a screen of lines is not read."""
LEAST_COMPARED: Final = 30
"""Best prices that must have been compared to speak of agreement: of a few, one that is off would be a share."""


class Column(NamedTuple):
    """How a figure is printed."""

    head: str
    name: str
    form: Callable[[float], str]

    def text(self, row: Mapping[str, Any]) -> str:
        value = row.get(self.name)
        return "–" if value is None else self.form(value)


def share(value: float) -> str:
    """In per cent, never rounded up to what it is not: 99.99 % of 1,000,000 rows are 100 too few."""
    return f"{math.floor(value * 10_000) / 100:.2f}%" if value < 1.0 else "100%"


COLUMNS: Final = (
    Column("rows", "rows", "{:,.0f}".format),
    Column("per s", "rate_hz", "{:,.1f}".format),
    Column("covered", "coverage_frac", share),
    Column("of day", "day_frac", "{:.2%}".format),
    Column("gaps", "gap_count", "{:,.0f}".format),
    Column("mended", "mended_count", "{:,.0f}".format),
    Column("gap s", "gap_s", "{:,.1f}".format),
    Column("silent", "silence_count", "{:,.0f}".format),
    Column("longest s", "longest_silence_s", "{:,.1f}".format),
    Column("doubled", "duplicate_count", "{:,.0f}".format),
    Column("crossed", "crossed_count", "{:,.0f}".format),
    Column("compared", "compared_count", "{:,.0f}".format),
    Column("agree", "agreement_frac", share),
    Column("skew ms", "skew_ms", "{:,.1f}".format),
    Column("ms/h", "drift_ms_per_hour", "{:,.2f}".format),
    Column("p50 ms", "latency_p50_ms", "{:,.2f}".format),
    Column("p90", "latency_p90_ms", "{:,.1f}".format),
    Column("p99 ms", "latency_p99_ms", "{:,.1f}".format),
    Column("p99.9", "latency_p999_ms", "{:,.1f}".format),
    Column("late", "out_of_order_frac", "{:.2%}".format),
    Column("assumed", "recv_assumed_frac", "{:.1%}".format),
)
_SUMS: Final = ("rows", "gap_count", "mended_count", "gap_s", "silence_count", "duplicate_count", "crossed_count")
_WORST_OF: Final = {"longest_silence_s": "max", "coverage_frac": "min", "latency_p999_ms": "max"}
_ALWAYS: Final = ("rows", "coverage_frac")
_LEAST_WANTED: Final = (
    "of day", "ms/h", "late", "assumed", "p90", "skew ms", "per s", "compared", "mended", "p99.9", "p50 ms", "agree",
    "crossed", "doubled", "longest s", "silent", "gap s", "rows", "p99 ms", "gaps",
)  # fmt: skip
"""Of the figures of one stream, what goes first where the screen is too narrow."""
_NOTES: Final = f"""\
Over streams: counts are sums, covered is the least, longest and p99.9 the most, all else a median.

covered: of the captured span, not in gaps (refilled trades count) nor in silences beyond 10 s and 30 median intervals;
of day: of the UTC day. skew: low percentile of receive - exchange time, ms/h its drift; p50 to p99.9: latency above it.
agree: the rebuilt book against the venue's own best prices, from {LEAST_COMPARED} compared on. doubled, crossed: rows;
late: with an earlier exchange time than one before; assumed: receive times that are not ours. – is unknown or does not
apply."""


def report(measured: pl.DataFrame, width: int = 80) -> str:
    """All streams in sums and medians, then the worst one by one, in lines of `width`.

    `measured` has `quality`'s columns, symbol (`venue:SYMBOL`) and date.
    """
    named = measured.with_columns(exchange=pl.col("symbol").str.split(":").list.first(), agreement_frac=_agreement())
    symbols, days = named["symbol"].n_unique(), named["date"].n_unique()
    lines = [f"{counted(symbols, 'symbol')}, {counted(days, 'day')}, {counted(named.height, 'stream')}"]
    telling = [column for column in COLUMNS if column.name in _ALWAYS or (named[column.name] != 0.0).any()]
    lines += _together(named, telling, width)
    worst = worst_first(named)
    lines += _one_by_one(worst.head(_WORST), telling, width, several_days=days > 1)
    if worst.height > _WORST:
        lines.append(f"and {worst.height - _WORST:,} more, none worse: all stand in the table `quality`")
    notes = [*skew_lines(_skews(named), "mostly"), *_NOTES.split("\n\n")]
    return "\n".join([*lines, "", *(line for note in notes for line in textwrap.wrap(note, width))])


def _together(named: pl.DataFrame, telling: Sequence[Column], width: int) -> list[str]:
    """A line per kind of stream, of the figures that are not 0 or unknown in all of them."""
    rows = [
        (f"{row['exchange']} {row['stream']} ({row['symbols']})", *(column.text(row) for column in telling))
        for row in _by_stream(named)
    ]
    heads = ("stream (symbols)", *(column.head for column in telling))
    lines = [line for block in blocks(heads, rows, width) for line in (*block, "")]
    nothing = [column.head for column in COLUMNS if column not in telling]
    return [*lines, *textwrap.wrap(f"0 or unknown everywhere: {', '.join(nothing)}", width), ""] if nothing else lines


def _one_by_one(worst: pl.DataFrame, telling: Sequence[Column], width: int, several_days: bool) -> list[str]:
    rows = [
        (row["date"], row["symbol"], row["stream"], *(column.text(row) for column in telling))
        for row in worst.to_dicts()
    ]
    heads = ("date", "symbol", "stream", *(column.head for column in telling))
    least_wanted = [head for head in _LEAST_WANTED if head in heads]
    return [
        "worst first",
        *table_lines(heads, rows, width, 3, least_wanted if several_days else ["date", *least_wanted]),
    ]


def _agreement() -> pl.Expr:
    """The agreement of books that were compared often enough to tell."""
    return pl.when(pl.col("compared_count") >= LEAST_COMPARED).then("agreement_frac")


def _skews(named: pl.DataFrame) -> dict[str, float]:
    """The median skew of each exchange's streams."""
    known = named.filter(pl.col("skew_ms").is_not_null())
    return dict(known.group_by("exchange").agg(pl.col("skew_ms").median()).rows())


def worst_first(measured: pl.DataFrame) -> pl.DataFrame:
    """Streams by what was lost, those that never came first, then by what is wrong, then by how late they came."""
    wrong = pl.sum_horizontal("duplicate_count", "crossed_count") / pl.col("rows").clip(1)
    return measured.sort(
        (pl.col("rows") > 0) | pl.col("stream").is_in(SILENT_BY_NATURE),
        pl.col("coverage_frac").fill_null(0.0).round(6),
        _agreement().fill_null(1.0),
        -wrong,
        -pl.col("latency_p99_ms").fill_null(0.0),
        "symbol",
        "date",
        "stream",
    )


def _by_stream(named: pl.DataFrame) -> list[dict[str, Any]]:
    """Per exchange and stream, the figures of all its symbols and days."""
    figures = []
    for column in COLUMNS:
        value = pl.col(column.name)
        how = "sum" if column.name in _SUMS else _WORST_OF.get(column.name, "median")
        figures.append(getattr(value, how)())
    compared, agreed = pl.col("compared_count"), pl.col("compared_count") * pl.col("agreement_frac")
    told = pl.col("agreement_frac").is_not_null()
    share_of_all = agreed.filter(told).sum() / compared.filter(told).sum()
    together = [compared.sum().alias("compared_count"), share_of_all.alias("agreement_frac")]
    kept = [figure for figure in figures if figure.meta.output_name() not in ("compared_count", "agreement_frac")]
    grouped = named.group_by("exchange", "stream").agg(*kept, *together, pl.col("symbol").n_unique().alias("symbols"))
    return grouped.sort("exchange", "stream").with_columns(pl.col("agreement_frac").fill_nan(None)).to_dicts()
