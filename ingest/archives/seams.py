"""Midnights where days meet that are cut by different clocks: Tardis' by receipt, the venues' own by the trade's time.

A trade of the last instants of a day is then in both days' files or in neither. In both: the file imported later leaves
it out, known by its id. In neither: a jump of the ids tells it; where ids do not go on from one file to the other,
nothing can, and a gap says so.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from core.gaps import UNDECIDED
from core.schema import TRADES
from core.store import Partition, date_of_ns, day_start_ns, files, read_between, scan
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_MS, NS_PER_S
from ingest.archives.choice import DATASETS
from ingest.archives.manifest import Entry
from ingest.archives.spool import Hole, hole

_NEAR_NS: Final = NS_PER_MINUTE  # no trade is told later than this
_SEARCHED_NS: Final = 10 * NS_PER_MINUTE
_UNSURE_NS: Final = NS_PER_S
_MOST_LOST: Final = 100_000  # ids further apart are not of one sequence
_COLUMNS: Final = ("recv_ns", "trade_id", "recv_assumed")


class Seam(NamedTuple):
    """One such midnight, and whether the receive times of the day before it are assumed."""

    midnight_ns: int
    assumed_before: bool


def clocks_by_day(entries: Iterable[Entry]) -> dict[str, str]:
    """The column by which each day of trades was cut, of entries of one instrument."""
    return {day: _clock(entry) for entry in entries for day in entry.tables.get(TRADES.name, ())}


def seams_of(clocks: Mapping[str, str]) -> Iterator[Seam]:
    """Where the clock changes from one day to the next."""
    for day, clock in sorted(clocks.items()):
        midnight_ns = day_start_ns(day) + NS_PER_DAY
        if clocks.get(date_of_ns(midnight_ns), clock) != clock:
            yield Seam(midnight_ns, clock == "exch_ns")


def told_before(
    root: Path, venue: str, symbol: str, seams: Iterable[Seam], rows: pl.DataFrame, own: Collection[str]
) -> pl.Series:
    """Which of a file's trades the tables have from the day beyond a seam. `own` are the shards it wrote before."""
    key = [pl.col("trade_id"), (pl.col("exch_ns") // NS_PER_MS).alias("ms")]
    stored = [
        scan(path).filter(_is_near("recv_ns", midnight_ns)).select(key).collect()
        for midnight_ns, _ in seams
        if not rows.filter(_is_near("exch_ns", midnight_ns)).is_empty()
        for path in _files_around(root, venue, symbol, midnight_ns)
        if str(path.relative_to(root)) not in own
    ]
    if not stored:
        return pl.repeat(False, rows.height, dtype=pl.Boolean, eager=True)
    known = pl.concat(stored).filter(pl.col("trade_id") != "").unique().with_columns(told=True)
    found = rows.select(key).join(known, on=["trade_id", "ms"], how="left", maintain_order="left")
    return found["told"].fill_null(False)


def seam_hole(root: Path, venue: str, symbol: str, seam: Seam) -> Hole | None:
    """The gap at a seam, None where the ids go on."""
    midnight_ns = seam.midnight_ns
    before, after = _either_side(root, venue, symbol, seam)
    if before.height and after.height and not (before["id"].null_count() or after["id"].null_count()):
        last, first = before.sort("id").row(-1, named=True), after.sort("id").row(0, named=True)
        if 0 < first["id"] - last["id"] <= _MOST_LOST:
            found = hole(last["id"], first["id"], last["recv_ns"], first["recv_ns"])
            return found if first["id"] - last["id"] > 1 else None
    return TRADES.name, midnight_ns - _UNSURE_NS, midnight_ns + _UNSURE_NS, UNDECIDED, False


def _either_side(root: Path, venue: str, symbol: str, seam: Seam) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Trades around a seam that are from the file before it and from the one after it; ids as numbers."""
    from_ns, to_ns = seam.midnight_ns - _SEARCHED_NS, seam.midnight_ns + _SEARCHED_NS
    days = (Partition(TRADES.name, venue, symbol, date_of_ns(at_ns)) for at_ns in (from_ns, to_ns))
    rows = pl.concat([read_between(root, day, _COLUMNS, from_ns, to_ns) for day in days])
    numbered = rows.with_columns(id=pl.col("trade_id").cast(pl.Int64, strict=False))
    is_before = pl.col("recv_assumed") == seam.assumed_before
    return numbered.filter(is_before), numbered.filter(~is_before)


def _clock(entry: Entry) -> str:
    return next(dataset.day_column for dataset in DATASETS[entry.provider] if dataset.name == entry.dataset)


def _is_near(column: str, midnight_ns: int) -> pl.Expr:
    return pl.col(column).is_between(midnight_ns - _NEAR_NS, midnight_ns + _NEAR_NS)


def _files_around(root: Path, venue: str, symbol: str, midnight_ns: int) -> Iterator[Path]:
    for date in (date_of_ns(midnight_ns - 1), date_of_ns(midnight_ns)):
        yield from files(root, Partition(TRADES.name, venue, symbol, date))
