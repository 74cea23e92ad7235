"""Series made from others: funding velocity, totals over venues, hourly liquidations of our own capture. Pure.

A derived value is known when the last of what it is made of is, so that it can be made again from the stored rows and
comes out the same.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.schema import SIGNALS
from core.units import NS_PER_HOUR, NS_PER_MINUTE
from ingest.signals import SETTLEMENT

Ints = NDArray[np.int64]
TOTAL_RESOLUTION: Final = "5m"
_TOTAL_STEP_NS: Final = 5 * NS_PER_MINUTE
HOURLY: Final = "1h"


def velocity(asset: str, rates: pl.DataFrame) -> pl.DataFrame:
    """`funding_velocity_{asset}`: change of the settled rate per hour between one settlement and the next.

    `rates` are rows of one `funding_rate_{asset}`. Fraction per interval, per hour: where a venue changes its interval,
    rates before and after are not of one kind, and the value between them says so by its size only.
    """
    settled = _latest(rates)
    hours = (pl.col("time_ns") - pl.col("time_ns").shift(1)) / NS_PER_HOUR
    rows = settled.select(
        pl.lit(f"funding_velocity_{asset}").alias("name"),
        "time_ns",
        ((pl.col("value") - pl.col("value").shift(1)) / hours).alias("value"),
        pl.lit(SETTLEMENT).alias("resolution"),
        pl.max_horizontal("known_ns", pl.col("known_ns").shift(1)).alias("known_ns"),
    )
    return rows.slice(1).cast(pl.Schema(SIGNALS.columns))


def total(name: str, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """The sum of one series over instruments at each five-minute mark, where all of them have a value.

    Each contributes its newest value of the ten minutes up to the mark; where one has none there is no total, as a sum
    over fewer venues would look like a fall. It is known once each has a value at or after the mark: until then a later
    one might belong to the mark.
    """
    latest = [_latest(part) for part in parts]
    if not latest or any(part.is_empty() for part in latest):
        return pl.DataFrame(schema=SIGNALS.columns)
    first = max(int(part["time_ns"][0]) for part in latest)
    last = min(int(part["time_ns"][-1]) for part in latest)
    marks = np.arange(-(-first // _TOTAL_STEP_NS), last // _TOTAL_STEP_NS + 1, dtype=np.int64) * _TOTAL_STEP_NS
    value, known, whole = np.zeros(marks.size), np.zeros(marks.size, np.int64), np.ones(marks.size, bool)
    for part, first_known_ns in zip(latest, map(_first_known_ns, parts), strict=True):
        times = part["time_ns"].to_numpy()
        place = np.searchsorted(times, marks, side="right") - 1
        whole &= (place >= 0) & (marks - times[place] < 2 * _TOTAL_STEP_NS)
        value += part["value"].to_numpy()[place]
        known = np.maximum(known, part["known_ns"].to_numpy()[place])
        known = np.maximum(known, first_known_ns[np.searchsorted(times, marks)])
    columns = {"name": name, "time_ns": marks, "value": value, "resolution": TOTAL_RESOLUTION}
    # Known no earlier than its mark, though a sample shortly before the mark is.
    rows = pl.DataFrame(columns | {"known_ns": np.maximum(known, marks)}, schema=SIGNALS.columns)
    return rows.filter(pl.Series(whole))


def has_notional(exchange: str) -> bool:
    """Whether it is known what a liquidation was worth: how large COIN-M's contracts are differs by symbol."""
    return exchange != "binance_cm"


def notional(exchange: str) -> pl.Expr:
    """What a liquidation was worth in quote. Bybit's inverse contracts are of one dollar each."""
    return pl.col("qty") if exchange == "bybit_inverse" else pl.col("price") * pl.col("qty")


def hourly_liquidations(
    asset: str, usd: pl.Expr, liquidations: pl.DataFrame, minutes: Ints, lag_ns: int, closed_ns: int
) -> pl.DataFrame:
    """`liq_long`, `liq_short`, `liq_ratio` and `liq_coverage` of each hour that we captured, stamped with its end.

    Sums are of `usd` over what was received in the hour, by our clock: nothing arrives for it later.
    `minutes` are the minutes (since the epoch) in which the feed is known to have worked. Hours without any have no
    rows, hours up to `closed_ns` are told. The ratio has no value where nothing was liquidated.
    """
    covered = pl.DataFrame({"end_ns": (np.unique(minutes) // 60 + 1) * NS_PER_HOUR}, schema={"end_ns": pl.Int64})
    hours = covered.group_by("end_ns").len().select("end_ns", coverage=pl.col("len") / 60)
    sums = liquidations.group_by(end_ns=(pl.col("recv_ns") // NS_PER_HOUR + 1) * NS_PER_HOUR).agg(
        *(usd.filter(pl.col("liquidated") == side).sum().alias(side) for side in ("long", "short"))
    )
    table = hours.join(sums, on="end_ns", how="left").with_columns(
        pl.col("long", "short").fill_null(0.0), known_ns=pl.col("end_ns") + lag_ns
    )
    return hourly_rows("", asset, table.filter(pl.col("known_ns") <= closed_ns))


def hourly_rows(infix: str, asset: str, hours: pl.DataFrame) -> pl.DataFrame:
    """Signal rows of hours with `end_ns, known_ns, long, short, coverage`."""
    both = pl.col("long") + pl.col("short")
    wide = hours.select(
        "end_ns",
        "known_ns",
        pl.col("long").alias(f"liq_long{infix}_{asset}_1h"),
        pl.col("short").alias(f"liq_short{infix}_{asset}_1h"),
        pl.when(both > 0).then(pl.col("long") / both).alias(f"liq_ratio{infix}_{asset}_1h"),
        pl.col("coverage").alias(f"liq_coverage{infix}_{asset}_1h"),
    )
    long = wide.unpivot(index=("end_ns", "known_ns"), variable_name="name", value_name="value").drop_nulls("value")
    rows = long.select(
        "name",
        pl.col("end_ns").alias("time_ns"),
        "value",
        pl.lit(HOURLY).alias("resolution"),
        "known_ns",
    )
    return rows.cast(pl.Schema(SIGNALS.columns)).sort(SIGNALS.order)


def liquidations_over_venues(asset: str, venues: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """`liq_*_total_{asset}_1h`: sums over instruments, in hours that all of them cover, with the least coverage.

    A total mixes Binance's sample with Bybit's whole, and fill prices with bankruptcy prices: it is a lower bound.
    """
    wide = [_widened(asset, _latest(rows)) for rows in venues.values()]
    if not wide:
        return pl.DataFrame(schema=SIGNALS.columns)
    everywhere = (
        pl.concat(wide)
        .group_by("end_ns")
        .agg(pl.col("known_ns").max(), pl.col("long", "short").sum(), pl.col("coverage").min(), pl.len())
    )
    return hourly_rows("_total", asset, everywhere.filter(pl.col("len") == len(wide)))


def _widened(asset: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Hourly rows of one instrument as `end_ns, known_ns, long, short, coverage`, where it has all three."""
    names = {f"liq_{part}_{asset}_1h": part for part in ("long", "short", "coverage")}
    values = (pl.col("value").filter(pl.col("name") == name).first().alias(part) for name, part in names.items())
    hours = rows.filter(pl.col("name").is_in(list(names))).group_by(end_ns="time_ns")
    return hours.agg(pl.col("known_ns").max(), *values).drop_nulls(list(names.values()))


def unstored(rows: pl.DataFrame, stored: pl.DataFrame, now_ns: int, new_from_ns: int = 0) -> pl.DataFrame:
    """Derived rows that say what is not `stored` yet: those that change a value become known no earlier than `now_ns`,
    the time they were derived at, new ones no earlier than `new_from_ns`.

    Those that repeat a value are left out: what they are made of was known before the stored row was derived, and they
    would make it known before it was.
    """
    before = _latest(stored).select("name", "time_ns", "resolution", stored_value="value")
    joined = rows.join(before, on=("name", "time_ns", "resolution"), how="left")
    earliest_ns = pl.when(pl.col("stored_value").is_null()).then(new_from_ns).otherwise(now_ns)
    news = joined.filter(pl.col("stored_value").ne_missing(pl.col("value")))
    return news.with_columns(pl.max_horizontal("known_ns", earliest_ns)).drop("stored_value").sort(SIGNALS.order)


def _first_known_ns(rows: pl.DataFrame) -> Ints:
    """When each of the values of `_latest` had one at all, in whatever version."""
    first = rows.sort(SIGNALS.order).unique(("time_ns", "name", "resolution"), keep="first", maintain_order=True)
    return first["known_ns"].to_numpy()


def _latest(rows: pl.DataFrame) -> pl.DataFrame:
    """The latest version of each value, in order of time."""
    return rows.sort(SIGNALS.order).unique(("time_ns", "name", "resolution"), keep="last", maintain_order=True)
