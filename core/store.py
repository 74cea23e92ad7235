"""Hive-partitioned Parquet on disk: `<data>/<table>/exchange=E/symbol=S/date=D[/bars=B]/*.parquet`.

Every write goes to a `.part` file that is then renamed, so a reader sees a whole table or none. Capture adds shards
named by their first receive time, which are merged while readers read (core/compaction.py); every other stage replaces
its partition. The footer of each file holds a digest of its rows and a hash of what it was built from, which is how the
stages tell what is stale.
"""

import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, TypeVar

import polars as pl

from core.atomic import put_file
from core.errors import StageError
from core.schema import MADE_BY, TABLES, Table, check
from core.units import NS_PER_DAY, NS_PER_S

DIGEST: Final = "rows_digest"
INPUTS: Final = "inputs_hash"
_HASHES: Final = 2**64
ENCODING: Final[dict[str, Any]] = {"compression": "zstd", "compression_level": 1}
"""Of what is written often. Settings by measurement on recorded data: benchmarks/bench_encodings.py."""
LASTING: Final[dict[str, Any]] = {"compression": "zstd", "compression_level": 3}
"""Of what is written once and kept: 10 to 20 % smaller than level 1, read as fast, written 10 to 30 % slower."""
_GROWING_BYTES: Final = 16 * 2**20  # a shard that still grows is smaller than this
_ATTEMPTS: Final = 20  # at reading a partition whose shards are being merged: each merge can spoil one attempt
_OS_ERROR: Final = re.compile(r"\(os error (\d+)\)")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, order=True)
class Partition:
    """One symbol-day of one table. `bars` is the bar clock (`time_200ms`), empty for tables that have none."""

    table: str
    exchange: str
    symbol: str
    date: str
    bars: str = ""

    @property
    def path(self) -> Path:
        """Folder relative to the data directory."""
        folder = Path(self.table, f"exchange={self.exchange}", f"symbol={self.symbol}", f"date={self.date}")
        return folder / f"bars={self.bars}" if self.bars else folder

    @property
    def instrument(self) -> str:
        """`venue:SYMBOL`, as symbols are written in the configuration."""
        return f"{self.exchange}:{self.symbol}"

    @property
    def starts_ns(self) -> int:
        return day_start_ns(self.date)

    def of(self, table: Table, bars: str = "") -> "Partition":
        """The same symbol-day of another table."""
        return replace(self, table=table.name, bars=bars if table.by_bars else "")


def day_start_ns(date: str) -> int:
    """Midnight UTC of `YYYY-MM-DD` in nanoseconds."""
    return int(datetime.strptime(date, "%Y-%m-%d").replace(tzinfo=UTC).timestamp()) * NS_PER_S


def date_of_ns(ns: int) -> str:
    """UTC day of a time in nanoseconds, as `YYYY-MM-DD`."""
    return _date(ns // NS_PER_DAY)


@lru_cache(maxsize=1024)
def _date(day: int) -> str:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d")


def partitions(root: Path, table: Table, symbols: Sequence[str] = (), bars: str = "") -> list[Partition]:
    """Partitions of `table` that hold at least one file, sorted; of `symbols` (`venue:SYMBOL`) only, if given."""
    depth = "exchange=*/symbol=*/date=*" + ("/bars=*" if table.by_bars else "")
    found = []
    for folder in sorted((root / table.name).glob(depth)):
        values = dict(part.split("=", 1) for part in folder.relative_to(root / table.name).parts)
        part = Partition(table.name, **values)
        if (
            (not symbols or part.instrument in symbols)
            and part.bars == (bars if table.by_bars else "")
            and files(root, part)
        ):
            found.append(part)
    return found


def require(root: Path, table: Table, symbols: Sequence[str] = (), bars: str = "") -> list[Partition]:
    """`partitions`, or a StageError that names the table and the stage that makes it."""
    found = partitions(root, table, symbols, bars)
    if not found:
        which = f" for {', '.join(symbols)}" if symbols else ""
        clock = f" with bars={bars}" if bars and table.by_bars else ""
        raise StageError(
            f"table `{table.name}`{clock} holds nothing{which} under {root}: "
            f"run `python run_pipeline.py {MADE_BY[table.name]}` first"
        )
    return found


def files(root: Path, part: Partition) -> list[Path]:
    """The Parquet files of a partition in the order of their names, which is order of time.

    A merge of shards exchanges the whole folder: what was listed meanwhile is listed again, so that the names are those
    of one moment. Who opens them may still find one gone, and must then list them anew, as the readers below do.
    """
    folder = root / part.path
    while True:
        before = _inode(folder)
        found = sorted(folder.glob("*.parquet"))
        if _inode(folder) == before:
            return found


def read(root: Path, part: Partition, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """The rows of a partition, checked against the schema (whole reads only); empty where it does not exist."""
    table = table_of(part)
    frame = _of_one_moment(root, part, lambda paths: _read_files(table, paths, columns))
    if columns is None and frame.height:
        _checked(table, frame, part)
    return frame


def read_between(root: Path, part: Partition, columns: Sequence[str], from_ns: int, to_ns: int) -> pl.DataFrame:
    """Some columns, the table's time among them, of the rows with from_ns <= time < to_ns; empty where none are.

    The time is what the table is sorted by. Row groups outside are not read: a day can be walked in bounded memory.
    """
    table = table_of(part)
    inside = pl.col(table.order[0]).is_between(from_ns, to_ns, closed="left")

    def rows_of(paths: list[Path]) -> pl.DataFrame:
        if not paths:
            return pl.DataFrame(schema={name: table.columns[name] for name in columns})
        frame = pl.concat([scan(path, table).filter(inside).select(columns) for path in paths]).collect()
        return frame.sort(table.order[0], maintain_order=True) if len(paths) > 1 else frame

    return _of_one_moment(root, part, rows_of)


def scan(path: Path, table: Table | None = None) -> pl.LazyFrame:
    """The rows of one file, with the columns that `table` got after it was written. Polars opens a path more than once:
    a file that may be replaced in between by one of the same name, the shard that capture is still writing, is read
    through one descriptor instead."""
    source = path.read_bytes() if path.stat().st_size < _GROWING_BYTES else path
    frame = pl.scan_parquet(source, hive_partitioning=False)
    lacking = _lacking(table, frame.collect_schema()) if table and table.later else {}
    return frame.with_columns(pl.col(stand_in).alias(name) for name, stand_in in lacking.items()) if lacking else frame


def _lacking(table: Table, names: Collection[str]) -> dict[str, str]:
    """The columns that a file of an earlier version is without, and what is read in their place."""
    return {name: stand_in for name, stand_in in table.later.items() if name not in names}


def write(root: Path, part: Partition, frame: pl.DataFrame, inputs: str = "") -> Path:
    """Replace a partition by `frame`, atomically. `inputs` is the hash of what it was built from."""
    _checked(table_of(part), frame, part)
    target = root / part.path / "data.parquet"
    _write_file(target, frame, inputs)
    for path in files(root, part):
        if path != target:
            path.unlink()
    return target


def append(root: Path, part: Partition, frame: pl.DataFrame, first_ns: int, number: int) -> Path:
    """Add a shard to an event partition. `number` orders shards that begin at the same time."""
    _checked(table_of(part), frame, part)
    target = root / part.path / shard_name(first_ns, number)
    _write_file(target, frame, "")
    return target


def shard_name(first_ns: int, number: int) -> str:
    """The file name of a shard: names sort by the time of the first row, then in the order of writing."""
    return f"{first_ns:020d}-{number:06d}.parquet"


def built_from(root: Path, part: Partition) -> str:
    """The inputs hash of a partition as written, empty where it does not exist."""
    paths = files(root, part)
    return footer(paths[0]).get(INPUTS, "") if paths else ""


def fingerprint(root: Path, parts: Iterable[Partition]) -> str:
    """A hash of the rows of some partitions: equal rows, equal fingerprint, however they are cut into files."""
    return hash_of([(part, _partition_digest(root, part)) for part in parts])


def _partition_digest(root: Path, part: Partition) -> str:
    table = table_of(part)
    return _of_one_moment(root, part, lambda paths: sum_of_digests(file_digest(path, table) for path in paths))


def rows(root: Path, part: Partition) -> int:
    """The number of rows in a partition, from the footers."""
    return _of_one_moment(root, part, lambda paths: sum(map(_file_rows, paths)))


def _file_rows(path: Path) -> int:
    digest = footer(path).get(DIGEST)
    return rows_of(digest) if digest else int(scan(path).select(pl.len()).collect().item())


def hash_of(*values: object) -> str:
    """A short hash of anything whose repr is stable: configuration leaves, fingerprints, program text."""
    return hashlib.blake2b(repr(values).encode(), digest_size=16).hexdigest()


def write_atomic(path: Path, content: bytes) -> None:
    """Write a small file, so that it is whole or absent."""
    put_file(path, lambda draft: draft.write_bytes(content))


def split_by_date(frame: pl.DataFrame, time_column: str) -> Iterator[tuple[str, pl.DataFrame]]:
    """(UTC date, rows) for each day that a sorted frame touches."""
    if not frame.height:
        return
    times = frame[time_column]
    if times[0] // NS_PER_DAY == times[-1] // NS_PER_DAY:
        yield date_of_ns(times[0]), frame
        return
    days = times.to_numpy() // NS_PER_DAY
    start = 0
    while start < days.size:
        stop = int(days.searchsorted(days[start], side="right"))
        yield date_of_ns(int(days[start]) * NS_PER_DAY), frame.slice(start, stop - start)
        start = stop


def table_of(part: Partition) -> Table:
    """The table that a partition belongs to."""
    return next(table for table in TABLES if table.name == part.table)


def _inode(folder: Path) -> int:
    """What tells a folder from one that was put in its place; 0 where there is none."""
    try:
        return os.stat(folder).st_ino
    except (FileNotFoundError, NotADirectoryError):
        return 0


def _of_one_moment(root: Path, part: Partition, answer: Callable[[list[Path]], _Answer]) -> _Answer:
    """`answer` of the files of a partition; from a new listing where some were merged away while it was made.

    Merged shards get new names: where every listed file could be opened, no row is missing and none is there twice.
    """
    for _ in range(_ATTEMPTS):
        try:
            return answer(files(root, part))
        except FileNotFoundError:
            continue
        except (pl.exceptions.PolarsError, OSError) as error:
            raise StageError(
                f"{root / part.path} cannot be read as Parquet ({error}): delete it and run its stage again"
            ) from error
    raise StageError(f"{root / part.path} kept changing while it was read: try again when less is written to it")


def _read_files(table: Table, paths: Sequence[Path], columns: Sequence[str] | None) -> pl.DataFrame:
    if not paths:
        return pl.DataFrame(schema=table.columns)
    frame = pl.concat([_read_file(table, path, columns) for path in paths])
    return frame.sort(table.order, maintain_order=True) if len(paths) > 1 else frame


def _read_file(table: Table, path: Path, columns: Sequence[str] | None) -> pl.DataFrame:
    try:
        frame = scan(path, table)
        return frame.collect() if columns is None else frame.select(columns).collect()
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, OSError) as error:
        raise StageError(f"{path} cannot be read as Parquet ({error}): delete it and run its stage again") from error


def _checked(table: Table, frame: pl.DataFrame, part: Partition) -> None:
    try:
        check(table, frame)
    except ValueError as error:
        raise StageError(f"partition {part.path} breaks its schema: {error}") from error


def _write_file(target: Path, frame: pl.DataFrame, inputs: str) -> None:
    write_file(target, frame, {DIGEST: digest_of(frame), INPUTS: inputs})


def write_file(target: Path, frame: pl.DataFrame, metadata: Mapping[str, str], fsync: bool = False) -> None:
    """Write a Parquet file, atomically. Raises OSError, with its number, where the disk refuses."""
    try:
        put_file(target, lambda draft: frame.write_parquet(draft, **ENCODING, metadata=dict(metadata)), fsync)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise os_error_of(error, target) or error from None


def os_error_of(error: BaseException, path: Path) -> OSError | None:
    """Polars tells of a full disk in a ComputeError, whose text holds the number."""
    number = _OS_ERROR.search(str(error)) if isinstance(error, pl.exceptions.PolarsError | OSError) else None
    return OSError(int(number[1]), os.strerror(int(number[1])), str(path)) if number else None


def digest_of(frame: pl.DataFrame) -> str:
    """Rows, the sum of their hashes and a hash of the columns: sums of shards add up to the sum of the whole."""
    total = int(frame.hash_rows(seed=0).sum()) if frame.height else 0
    return f"{frame.height}-{total % _HASHES:016x}-{hash_of(frame.columns)}"


def rows_of(digest: str) -> int:
    """The number of rows that a digest is of."""
    return int(digest.split("-")[0])


def file_digest(path: Path, table: Table) -> str:
    """The digest of a file's rows, from its footer; of a shard that was never sealed, or that lacks columns which the
    table got since, from the rows."""
    return (footer(path)[DIGEST] if is_sealed(path, table) else "") or digest_of(_read_file(table, path, None))


def is_sealed(path: Path, table: Table) -> bool:
    """Whether a file was sealed, with all columns that its table has now."""
    is_older = bool(table.later) and bool(_lacking(table, pl.read_parquet_schema(path)))
    return DIGEST in footer(path) and not is_older


def sum_of_digests(digests: Iterable[str]) -> str:
    """The digest of the rows of some files together."""
    each = [digest.split("-") for digest in digests]
    n_rows, total = sum(int(one[0]) for one in each), sum(int(one[1], 16) for one in each)
    return f"{n_rows}-{total % _HASHES:016x}-{'+'.join(sorted({one[2] for one in each}))}"


def footer(path: Path) -> dict[str, str]:
    """What stands in a file's footer beside the schema: its digest, and what it was built from."""
    return pl.read_parquet_metadata(path)
