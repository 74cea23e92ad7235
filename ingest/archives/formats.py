"""What all archives have in common: a file, a data set, a piece of a table, a count of what became of the rows."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Literal, TypeAlias

import polars as pl

from core.schema import SIGNALS, Table

Provider: TypeAlias = Literal["binance", "bybit", "tardis", "recorded"]
BROKEN: Final = "does not parse"
UNSOUND: Final = "not a price, quantity or time"
DUPLICATE: Final = "duplicate"
OTHER_SYMBOL: Final = "of another symbol"
OTHER_DAY: Final = "of a day not asked for or filled by another file"
UNVERIFIED: Final = ".unverified"
TOLD_BEFORE: Final = "in the day beside it already"
_SAMPLES_EACH: Final = 3
_SAMPLE_SIGNS: Final = 200


@dataclass(frozen=True)
class ArchiveFile:
    """One file, known by its name: where it is or will be, and what it holds."""

    path: Path
    provider: Provider
    dataset: str
    venue: str
    symbol: str
    days: tuple[str, ...]
    """UTC days that the name promises; for a file without a date, those of its rows."""
    interval: str = ""
    url: str = ""
    bounded: bool = True
    """False where the name has no date: it is known by its name instead."""
    only: tuple[str, ...] = ()
    """Of a file that holds several symbols: those that are wanted, all if empty."""

    @property
    def instrument(self) -> str:
        return f"{self.venue}:{self.symbol}"

    @property
    def key(self) -> str:
        """What tells a file from all others, wherever it lies: also the path of its entry in the manifest."""
        name = f"{self.dataset}-{self.interval}" if self.interval else self.dataset
        when = self.days[0] if len(self.days) == 1 else f"{self.days[0]}_{self.days[-1]}"
        return f"{self.provider}/{self.venue}/{self.symbol}/{name}/{when if self.bounded else self.path.name}"

    @property
    def label(self) -> str:
        return f"{self.instrument} {self.dataset}{f' {self.interval}' if self.interval else ''}"


def unverified_mark(path: Path) -> Path:
    """An empty file beside a download whose sha256 the archive did not publish: it is told of each import."""
    return path.with_name(f"{path.name}{UNVERIFIED}")


@dataclass(frozen=True)
class Piece:
    """Rows of one table. A column `symbol` after the table's own tells them apart where a file holds several.

    `trade_id` may still be a number: sorting and comparing texts costs ten times as much.
    """

    table: Table
    rows: pl.DataFrame


@dataclass
class Counts:
    """What became of a file's rows. `read` counts lines but headers and blank ones."""

    read: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)

    def drop(self, why: str, count: int, samples: list[str]) -> None:
        """Count rows that are left out and keep a few of them to look at."""
        if not count:
            return
        known = sum(sample.startswith(f"{why}: ") for sample in self.samples)
        self.samples += [f"{why}: {text[:_SAMPLE_SIGNS]}" for text in samples[: max(0, _SAMPLES_EACH - known)]]
        self.dropped[why] += count

    def keep(self, frame: pl.DataFrame, condition: pl.Expr, why: str) -> pl.DataFrame:
        """The rows that meet a condition; the others are counted. Null is not met."""
        holds = frame.select(condition.fill_null(False)).to_series()
        kept = int(holds.sum())
        if kept == frame.height:
            return frame
        left_out = frame.filter(~holds)
        self.drop(why, left_out.height, [_told(row) for row in left_out.head(_SAMPLES_EACH).iter_rows(named=True)])
        return frame.filter(holds)


def _told(row: dict[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items() if value is not None)


Pieces: TypeAlias = Callable[[ArchiveFile, int, Counts], Iterator[list[Piece]]]
"""(file, latency in ns, counts) -> the file's rows, batch by batch."""


@dataclass(frozen=True)
class Dataset:
    """One kind of file. `unique` names, per table, the columns that no two rows of a file may share."""

    name: str
    tables: tuple[Table, ...]
    pieces: Pieces
    unique: dict[str, tuple[str, ...]] = field(default_factory=dict)
    has_contiguous_ids: bool = False
    day_column: Literal["exch_ns", "recv_ns"] = "exch_ns"
    """The clock by which the provider cuts its days."""

    def time_of(self, table: Table) -> str:
        """The column that tells a row's day."""
        return "time_ns" if table is SIGNALS else self.day_column


def days_between(first: str, last: str) -> tuple[str, ...]:
    """Calendar days from `first` to `last`, both included, as `YYYY-MM-DD`."""
    start, stop = date.fromisoformat(first), date.fromisoformat(last)
    return tuple(str(start + timedelta(days=k)) for k in range((stop - start).days + 1))


def days_of(text: str) -> tuple[str, ...]:
    """The days that `YYYY-MM-DD` or `YYYY-MM` names. Raises ValueError for what is no date."""
    if len(text) > len("2024-03"):
        return (str(date.fromisoformat(text)),)
    start = date.fromisoformat(f"{text}-01")
    end = (start + timedelta(days=31)).replace(day=1) - timedelta(days=1)
    return days_between(str(start), str(end))
