"""Small shards of a partition to one sorted file, while others write to the partition and read from it.

The merged file is written into a staging folder outside of the tables, the shards that are not merged are hard-linked
beside it, and the folder is exchanged with the partition's in one step of the file system (renameat2 with
RENAME_EXCHANGE: Linux 3.15, ext4, xfs, btrfs, tmpfs). Whatever kills the process, the partition holds either the shards
or their merge; what stays behind lies in `<data>/.staging`, which the next writer empties. A merge has a new name, so
that a reader who listed the shards finds one missing, never rows twice (store.files).
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.io.plugins import register_io_source

from core.atomic import CANNOT, exchange, sync
from core.errors import StageError
from core.schema import Table
from core.store import (
    DIGEST,
    INPUTS,
    LASTING,
    Partition,
    digest_of,
    file_digest,
    files,
    is_sealed,
    os_error_of,
    rows_of,
    scan,
    sum_of_digests,
    table_of,
)

SMALL_BYTES: Final = 2**20
"""A shard below this is merged with its neighbours while capture goes on: some 80,000 quotes."""
WORTH_MERGING: Final = 16
_WINDOW_ROWS: Final = 500_000  # sorted at a time: some 40 MB
_MARK_ROWS: Final = 32_768  # how finely the cuts between windows are chosen
_GENERATION: Final = re.compile(r"(.+)-m(\d+)")


class CannotExchangeError(OSError):
    """The file system cannot exchange two folders, or cannot hard-link: shards stay as they are."""


@dataclass(frozen=True)
class Staged:
    """A merge that waits to be put in the place of the shards it was made of."""

    part: Partition
    sources: tuple[Path, ...]
    merged: Path


def staging_of(root: Path) -> Path:
    return root / ".staging"


def clear_staging(root: Path) -> None:
    """Delete what a killed process left. To be called by the one process that may write the event tables."""
    shutil.rmtree(staging_of(root), ignore_errors=True)


def compact_partition(root: Path, part: Partition, lock: AbstractContextManager[Any] | None = None) -> bool:
    """Make one sorted file of a partition's shards; False where it is one already.

    `lock` is held while the folders are exchanged: nobody else may write to the partition then. Raises
    CannotExchangeError, or OSError where the disk refuses; the shards are as they were then.
    """
    paths = files(root, part)
    if len(paths) == 0 or (len(paths) == 1 and is_sealed(paths[0], table_of(part))):
        return False
    put_in_place(root, merge(root, part, paths), lock)
    return True


def small_neighbours(paths: Sequence[Path]) -> list[Path]:
    """The longest run of small shards, if they are enough to be merged; empty otherwise."""
    best: list[Path] = []
    run: list[Path] = []
    for path in paths:
        run = [*run, path] if path.stat().st_size < SMALL_BYTES else []
        best = max(best, run, key=len)
    return best if len(best) >= WORTH_MERGING else []


def merge(root: Path, part: Partition, sources: Sequence[Path]) -> Staged:
    """Write the rows of some shards, neighbours in the order of names, as one sorted file into a staging folder.

    Rows of one time keep the order of the shards. Memory is bounded by a window of rows, not by their number. The file
    is on the disk for good before the shards can go, or a power cut could take both. Raises StageError for a shard that
    cannot be read, OSError where the disk refuses.
    """
    staging_of(root).mkdir(parents=True, exist_ok=True)
    merged = Path(mkdtemp(dir=staging_of(root))) / _merged_name(sources[0])
    merged.parent.chmod(0o755)
    read: list[str] = []  # digests of what goes through
    try:
        table = table_of(part)
        digest = sum_of_digests(file_digest(path, table) for path in sources)
        _write(merged, partial(_windows, table, sources, read), scan(sources[0], table).collect_schema(), digest)
        if sum_of_digests(read) != digest:
            raise OSError(errno.EIO, "the merge does not hold the rows of its shards", str(merged))
        sync(merged)
    except BaseException as error:
        shutil.rmtree(merged.parent, ignore_errors=True)
        if isinstance(error, pl.exceptions.PolarsError):
            damaged = StageError(f"the shards of {part.path} cannot be merged ({error}): delete the damaged one")
            raise os_error_of(error, merged) or damaged from error
        raise
    return Staged(part, tuple(sources), merged)


def _write(path: Path, windows: Callable[[], Iterator[pl.DataFrame]], schema: pl.Schema, digest: str) -> None:
    """Few rows at once, many as a stream: setting that up takes 10 ms."""
    about = {DIGEST: digest, INPUTS: ""}
    if rows_of(digest) <= _WINDOW_ROWS:
        pl.concat(list(windows())).write_parquet(path, **LASTING, metadata=about)
        return
    rows = register_io_source(lambda *_: windows(), schema=schema, is_pure=True)
    rows.sink_parquet(path, **LASTING, metadata=about, maintain_order=True)


def put_in_place(root: Path, staged: Staged, lock: AbstractContextManager[Any] | None = None) -> None:
    """Exchange the shards for their merge, in one step. Raises CannotExchangeError."""
    folder, staging = root / staged.part.path, staged.merged.parent
    gone = {path.name for path in staged.sources}
    try:
        with lock or nullcontext():
            for path in folder.glob("*.parquet"):
                if path.name not in gone:
                    os.link(path, staging / path.name)
            exchange(staging, folder)
    except OSError as error:
        if error.errno in CANNOT:
            raise CannotExchangeError(error.errno, error.strerror, str(folder)) from None
        raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)  # the new folder where it failed, the old one where it did not


def _merged_name(first: Path) -> str:
    """A name that sorts where the first shard's does and was never used: its own with a generation."""
    known = _GENERATION.fullmatch(first.stem)
    stem, generation = (known[1], int(known[2])) if known else (first.stem, 0)
    return f"{stem}-m{generation + 1}.parquet"


@dataclass(frozen=True)
class _Marks:
    """Where the rows of a sorted file lie: every `_MARK_ROWS`-th time, the rows from each to the next, and the last."""

    path: Path
    times: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    last: int


def _windows(table: Table, sources: Sequence[Path], read: list[str]) -> Iterator[pl.DataFrame]:
    """The rows of all sources in order, one stretch of time after the other; `read` gets the digest of each."""
    time = pl.col(table.order[0])
    marks = [each for each in (_marks(path, table.order[0]) for path in sources) if each.times.size]
    for from_ns, to_ns in pairwise(_cuts(marks)) if marks else [(0, 0)]:
        inside = time.is_between(from_ns, to_ns, closed="left")
        near = [each.path for each in marks if each.times[0] < to_ns and each.last >= from_ns] or sources[:1]
        rows = pl.concat([scan(path, table).filter(inside) for path in near]).collect()
        rows = rows.sort(table.order, maintain_order=True)
        read.append(digest_of(rows))
        yield rows


def _marks(path: Path, time: str) -> _Marks:
    times = scan(path).select(time).collect()[time].to_numpy()
    at = np.arange(0, times.size, _MARK_ROWS)
    return _Marks(path, times[at], np.diff(at, append=times.size), int(times[-1]) if times.size else 0)


def _cuts(marks: Sequence[_Marks]) -> list[int]:
    """Times between which there are about `_WINDOW_ROWS` rows each, from before the first row to behind the last."""
    times = np.concatenate([each.times for each in marks])
    order = times.argsort(kind="stable")
    before = np.concatenate([each.rows for each in marks])[order].cumsum()
    starts = times[order][1:][np.diff(before // _WINDOW_ROWS) > 0]
    return [*np.unique([times.min(), *starts]).tolist(), max(each.last for each in marks) + 1]
