"""Slow series: how they are named, stored with their revisions, and read as they were known at a time.

A row is (name, time_ns, value, resolution, known_ns): `time_ns` is what the value is of, `known_ns` when it could be
used. A source that changes a value adds a row with a later `known_ns`; one that repeats it adds none. Nothing may read
a row before its `known_ns`: `as_of` and `as_of_each` keep to that.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import filelock
import polars as pl

from core.errors import StageError
from core.schema import SIGNALS, Table
from core.store import Partition, date_of_ns, read, split_by_date, write
from core.units import parse_duration_ns

SETTLEMENT: Final = "settlement"
"""The resolution of realised funding: one value per settlement, however far apart a venue sets them."""
ALL: Final = "all"
"""The exchange of totals over venues; its symbol is the asset in upper case, or `ALL` for totals over assets."""
_QUOTED: Final = re.compile(r"(.+?)(?:USDT|USDC|FDUSD|BUSD|USD(?:[HMUZ]\d\d)?|PERP)?(?:[-_].*)?")
_VERSION: Final = ("time_ns", "name", "resolution")
_LOCK_S: Final = 60.0


def asset_of(symbol: str) -> str:
    """The base asset as names have it: `btc` of BTCUSDT, BTCUSD, BTCPERP, BTCUSDH27, BTC-27MAR26 and BTCUSDT_260327."""
    match = _QUOTED.fullmatch(symbol)
    return (match[1] if match else symbol).lower()


def signal_rows(rows: list[tuple[str, int, float, str, int]]) -> pl.DataFrame:
    """A frame of the signals table from (name, time_ns, value, resolution, known_ns) tuples."""
    return pl.DataFrame(rows, schema=SIGNALS.columns, orient="row")


def without_repeats(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows in the table's order; of the versions of one value, only the first and those that changed it."""
    ordered = frame.sort(SIGNALS.order, maintain_order=True).unique(SIGNALS.key, keep="last", maintain_order=True)
    starts = pl.any_horizontal(pl.col(column).ne_missing(pl.col(column).shift(1)) for column in _VERSION)
    return ordered.filter(starts | pl.col("value").ne_missing(pl.col("value").shift(1)))


def merge_signals(root: Path, exchange: str, symbol: str, rows: pl.DataFrame, assumed: bool = False) -> pl.DataFrame:
    """Add rows to the partitions of one instrument; those of them that were news. Days are rewritten atomically.

    Rows whose `known_ns` is assumed (an archive, a history that is filled) add only values that the table lacks: beside
    an observed one they would make its revision known before it was.

    Two writers (a poll and a backfill) wait for each other.
    """
    news = [pl.DataFrame(schema=SIGNALS.columns)]
    root.mkdir(parents=True, exist_ok=True)
    with writing(root):
        for date, day in split_by_date(rows.sort("time_ns"), "time_ns"):
            part = Partition(SIGNALS.name, exchange, symbol, date)
            stored = read(root, part)
            fresh = day.join(stored, on=_VERSION, how="anti", maintain_order="left") if assumed else day
            merged = without_repeats(pl.concat([stored, fresh]))
            added = merged.join(stored, on=SIGNALS.key, how="anti", maintain_order="left")
            if added.height:
                write(root, part, merged)
                news.append(added)
    return pl.concat(news)


@contextmanager
def writing(root: Path) -> Iterator[None]:
    """Nobody else changes the table meanwhile, or one writer would undo the other's rows. Waits for a minute.

    Raises StageError if another writer is not done by then.
    """
    try:
        ours = filelock.FileLock(root / "signals.lock", timeout=_LOCK_S).acquire()
    except filelock.Timeout:
        why = f"another poll or backfill has been writing signals in {root} for {_LOCK_S:g} s"
        raise StageError(f"{why}: wait for it to end and run this again; what is stored stays") from None
    with ours:
        yield


def days_of(root: Path, table: Table, instrument: str, first: str = "", last: str = "9999") -> list[Partition]:
    """The partitions of one `venue:SYMBOL`, by date, without a look at those of others: there may be thousands."""
    exchange, _, symbol = instrument.partition(":")
    folder = (root / Partition(table.name, exchange, symbol, "x").path).parent
    dates = sorted(path.name.removeprefix("date=") for path in folder.glob("date=*"))
    return [Partition(table.name, exchange, symbol, date) for date in dates if first <= date <= last]


def read_signal(
    root: Path, name: str, instrument: str, resolution: str = "", from_ns: int = 0, to_ns: int = 2**63 - 1
) -> pl.DataFrame:
    """All versions of one series of `venue:SYMBOL` with from_ns <= time_ns < to_ns, in the table's order.

    An empty `resolution` takes whatever there is; a series that two sources keep has more than one.
    """
    wanted = (pl.col("name") == name) & pl.col("time_ns").is_between(from_ns, to_ns, closed="left")
    if resolution:
        wanted &= pl.col("resolution") == resolution
    days = days_of(root, SIGNALS, instrument, date_of_ns(from_ns), date_of_ns(to_ns - 1))
    frames = [read(root, part).filter(wanted) for part in days]
    return pl.concat(frames) if frames else pl.DataFrame(schema=SIGNALS.columns)


def read_newest(root: Path, exchange: str, symbol: str, from_ns: int) -> pl.DataFrame:
    """The latest version of every value of an instrument with time_ns >= from_ns, in order of time."""
    days = days_of(root, SIGNALS, f"{exchange}:{symbol}", date_of_ns(from_ns))
    rows = pl.concat([pl.DataFrame(schema=SIGNALS.columns), *(read(root, part) for part in days)])
    latest = rows.sort(SIGNALS.order).unique(_VERSION, keep="last", maintain_order=True)
    return latest.filter(pl.col("time_ns") >= from_ns)


def usable_ns(frame: pl.DataFrame) -> pl.Series:
    """When each row may be read: when known, but no more than its resolution ahead of its time.

    A venue's stamp that lies further ahead would hide the values until then. Settlements may be announced.
    """
    spans_ns = {each: parse_duration_ns(each) for each in frame["resolution"].unique() if each != SETTLEMENT}
    span_ns = pl.col("resolution").replace_strict(spans_ns, default=None, return_dtype=pl.Int64)
    return frame.select(pl.max_horizontal("known_ns", pl.col("time_ns") - span_ns))["known_ns"]


def as_of(frame: pl.DataFrame, at_ns: int) -> pl.DataFrame:
    """The series as it stood at `at_ns`: rows known by then, the latest version of each value."""
    known = frame.filter(usable_ns(frame) <= at_ns).sort(SIGNALS.order)
    return known.unique(_VERSION, keep="last", maintain_order=True)


def as_of_each(frame: pl.DataFrame, at_ns: pl.Series, max_age_ns: int | None = None) -> pl.Series:
    """The newest value known at each of the sorted times `at_ns`, null where none is; of one series.

    `max_age_ns` bounds the age of what the value is of, not of when it became known: a value that a source repeats late
    is as old as its `time_ns`.
    """
    newest = (
        frame.with_columns(usable_ns=usable_ns(frame))
        .sort("usable_ns", "time_ns", "known_ns")
        .filter(pl.col("time_ns") >= pl.col("time_ns").cum_max())
        .select("usable_ns", "time_ns", "value")
    )
    found = at_ns.rename("at_ns").to_frame().join_asof(newest, left_on="at_ns", right_on="usable_ns")
    if max_age_ns is None:
        return found["value"]
    fresh = pl.col("at_ns") - pl.col("time_ns") <= max_age_ns
    return found.select(pl.when(fresh).then("value").alias("value"))["value"]
