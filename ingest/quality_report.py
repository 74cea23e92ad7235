"""The table `quality` as text: a line per kind of stream over all symbols and days, then the worst streams."""

from typing import Final, NamedTuple

import polars as pl

from core.units import counted

_WORST: Final = 40
"""Streams that are listed one by one: more than a screen of lines is not read."""


class Column(NamedTuple):
    """How a figure is printed."""

    head: str
    name: str
    form: str
    width: int

    def text(self, value: float | None) -> str:
        return f" {'–' if value is None else self.form.format(value):>{self.width}}"


COLUMNS: Final = (
    Column("rows", "rows", "{:,.0f}", 11),
    Column("per s", "rate_hz", "{:,.1f}", 8),
    Column("covered", "coverage_frac", "{:.4%}", 9),
    Column("of day", "day_frac", "{:.2%}", 7),
    Column("gaps", "gap_count", "{:,.0f}", 6),
    Column("mended", "mended_count", "{:,.0f}", 6),
    Column("gap s", "gap_s", "{:,.1f}", 8),
    Column("silent", "silence_count", "{:,.0f}", 6),
    Column("longest s", "longest_silence_s", "{:,.1f}", 9),
    Column("doubled", "duplicate_count", "{:,.0f}", 7),
    Column("crossed", "crossed_count", "{:,.0f}", 7),
    Column("compared", "compared_count", "{:,.0f}", 8),
    Column("agree", "agreement_frac", "{:.3%}", 8),
    Column("skew ms", "skew_ms", "{:,.1f}", 8),
    Column("ms/h", "drift_ms_per_hour", "{:,.2f}", 6),
    Column("p50 ms", "latency_p50_ms", "{:,.2f}", 6),
    Column("p90", "latency_p90_ms", "{:,.1f}", 6),
    Column("p99", "latency_p99_ms", "{:,.1f}", 7),
    Column("p99.9", "latency_p999_ms", "{:,.1f}", 7),
    Column("late", "out_of_order_frac", "{:.2%}", 6),
    Column("assumed", "recv_assumed_frac", "{:.1%}", 7),
)
_SUMS: Final = ("rows", "gap_count", "mended_count", "gap_s", "silence_count", "duplicate_count", "crossed_count")
_WORST_OF: Final = {"longest_silence_s": "max", "coverage_frac": "min", "latency_p999_ms": "max"}
_NOTES: Final = """\
Over streams: counts are sums, covered is the least, longest and p99.9 the most, all else a median.
covered: of the captured span, not in gaps (refilled trades count) nor in silences beyond 10 s and 30 median intervals;
of day: of the UTC day. skew: low percentile of receive - exchange time, ms/h its drift; p50 to p99.9: latency above it.
agree: the rebuilt book against the venue's own best prices. doubled, crossed: rows; late: with an earlier exchange time
than one before; assumed: receive times that are not ours. – is unknown or does not apply."""


def report(measured: pl.DataFrame) -> str:
    """All streams in sums and medians, then the worst one by one. `measured` has `quality`'s columns, symbol, date."""
    named = measured.with_columns(exchange=pl.col("symbol").str.split(":").list.first())
    symbols, days = named["symbol"].n_unique(), named["date"].n_unique()
    lines = [f"{counted(symbols, 'symbol')}, {counted(days, 'day')}, {counted(named.height, 'stream')}"]
    together = {f"{row['exchange']} {row['stream']} ({row['symbols']})": row for row in _by_stream(named)}
    lines += _table("stream (symbols)", together)
    worst = worst_first(measured)
    single = {f"{row['date']} {row['symbol']} {row['stream']}": row for row in worst.head(_WORST).to_dicts()}
    lines += ["", *_table("worst first", single)]
    if worst.height > _WORST:
        lines.append(f"and {worst.height - _WORST:,} more, none worse: all stand in table `quality`")
    return "\n".join([*lines, "", _NOTES])


def worst_first(measured: pl.DataFrame) -> pl.DataFrame:
    """Streams by what was lost, then by what is wrong, then by how late they came."""
    wrong = pl.sum_horizontal("duplicate_count", "crossed_count") / pl.col("rows").clip(1)
    return measured.sort(
        pl.col("coverage_frac").fill_null(0.0).round(6),
        pl.col("agreement_frac").fill_null(1.0),
        -wrong,
        -pl.col("latency_p99_ms").fill_null(0.0),
        "symbol",
        "date",
        "stream",
    )


def _by_stream(named: pl.DataFrame) -> list[dict[str, float | str | None]]:
    figures = []
    for column in COLUMNS:
        value = pl.col(column.name)
        how = "sum" if column.name in _SUMS else _WORST_OF.get(column.name, "median")
        figures.append(getattr(value, how)())
    compared, agreed = pl.col("compared_count"), pl.col("compared_count") * pl.col("agreement_frac")
    together = [compared.sum().alias("compared_count"), (agreed.sum() / compared.sum()).alias("agreement_frac")]
    kept = [figure for figure in figures if figure.meta.output_name() not in ("compared_count", "agreement_frac")]
    grouped = named.group_by("exchange", "stream").agg(*kept, *together, pl.col("symbol").n_unique().alias("symbols"))
    return grouped.sort("exchange", "stream").with_columns(pl.col("agreement_frac").fill_nan(None)).to_dicts()


def _table(title: str, rows: dict[str, dict[str, float | str | None]]) -> list[str]:
    """A line of headings, then one per row under its name."""
    width = max(map(len, [title, *rows]))
    lines = [f"{title:<{width}}" + "".join(f" {column.head:>{column.width}}" for column in COLUMNS)]
    for name, row in rows.items():
        figures = {key: value for key, value in row.items() if not isinstance(value, str)}
        lines.append(f"{name:<{width}}" + "".join(column.text(figures.get(column.name)) for column in COLUMNS))
    return lines
