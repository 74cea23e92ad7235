"""What was imported, file by file, so that a second run skips it and a crash neither loses nor doubles a row.

A file's shards are written aside, then named in its entry, then moved into the tables: an entry that says `moving`
tells the next run what to finish. `<data>/backfill/imported/<provider>/<venue>/<symbol>/<data set>/<day>.json`.
"""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from core.errors import StageError
from core.schema import SIGNALS
from core.store import Partition, files, write_atomic

FORMAT_VERSION: Final = 1
"""Raised when rows are made differently from the same file, so that they are made again."""
FOLDER: Final = "backfill"
NO_FILE: Final = 0
"""The number in the names of shards that belong to no one file; files are counted from 1."""
OF_NO_FILE: Final = f"-{NO_FILE:06d}.parquet"


class Entry(msgspec.Struct, frozen=True):
    """One imported file: which bytes, what became of its rows, and where they lie."""

    key: str
    number: int
    """Of the file among all imported ones: part of its shards' names."""
    file: str
    sha256: str
    size: int
    mtime_ns: int
    provider: str
    dataset: str
    venue: str
    symbol: str
    interval: str
    only: list[str]
    latency_ms: float
    tables: dict[str, list[str]]
    """The days that it fills, by table."""
    rows_read: int
    written: dict[str, int]
    spans_ns: dict[str, tuple[int, int]]
    """First and last time of the rows written, by table."""
    dropped: dict[str, int]
    samples: list[str]
    first_id: int | None = None
    last_id: int | None = None
    first_ns: int = 0
    last_ns: int = 0
    shards: list[str] = []
    outdated: list[str] = []
    """Shards of an earlier import of the same file, to be removed."""
    unverified: bool = False
    """Whether it was downloaded without the sha256 that the archive should have beside it."""
    state: Literal["moving", "done"] = "moving"
    version: int = FORMAT_VERSION


class Manifest:
    """The entries of one data directory."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folder = root / FOLDER / "imported"
        self.entries = {entry.key: entry for entry in map(_read, sorted(self._folder.rglob("*.json")))}

    def has_lost(self, entry: Entry) -> bool:
        """Whether rows of an entry were deleted: a shard, or all the days of its signals."""
        if any(not self._has_strangers(name) for name in self._missing(entry)):
            return True
        if not entry.written.get(SIGNALS.name):
            return False
        parts = [Partition(SIGNALS.name, entry.venue, entry.symbol, day) for day in entry.tables[SIGNALS.name]]
        return not any(files(self._root, part) for part in parts)

    def merged(self, entry: Entry) -> list[str]:
        """Shards of an entry that are gone and whose partition has files of no entry: compaction made those of them."""
        return [name for name in self._missing(entry) if self._has_strangers(name)]

    def _missing(self, entry: Entry) -> list[str]:
        return [name for name in entry.shards if not (self._root / name).exists()]

    def _has_strangers(self, name: str) -> bool:
        known = {shard for entry in self.entries.values() for shard in entry.shards}
        found = (self._root / name).parent.glob("*.parquet")
        own = (path for path in found if not path.name.endswith(OF_NO_FILE))
        return any(str(path.relative_to(self._root)) not in known for path in own)

    def staging(self, key: str) -> Path:
        """Where the shards of a file are written before they are moved into the tables."""
        return self._root / FOLDER / "staging" / key.replace("/", "~")

    def reserve(self, keys: Sequence[str]) -> dict[str, int]:
        """The numbers of some files, new ones for those that were never imported."""
        known = {key: self.entries[key].number for key in keys if key in self.entries}
        following = 1 + max((entry.number for entry in self.entries.values()), default=0)
        fresh = [key for key in keys if key not in known]
        return known | {key: following + at for at, key in enumerate(fresh)}

    def recover(self) -> None:
        """Finish what a crash interrupted, and clear away what was never named in an entry."""
        for entry in list(self.entries.values()):
            if entry.state == "moving":
                self.commit(entry)
        shutil.rmtree(self._root / FOLDER / "staging", ignore_errors=True)

    def commit(self, entry: Entry) -> Entry:
        """Move an entry's shards into the tables. May be repeated after a crash at any point."""
        self._write(entry)
        staging = self.staging(entry.key)
        for name in set(entry.outdated) - set(entry.shards):
            (self._root / name).unlink(missing_ok=True)
        for name in entry.shards:
            if (staging / name).exists():
                (self._root / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staging / name, self._root / name)
        done = msgspec.structs.replace(entry, state="done", outdated=[])
        self._write(done)
        shutil.rmtree(staging, ignore_errors=True)
        return done

    def _write(self, entry: Entry) -> None:
        write_atomic(self._folder / f"{entry.key}.json", msgspec.json.encode(entry))
        self.entries[entry.key] = entry


def _read(path: Path) -> Entry:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Entry)
    except msgspec.DecodeError as error:
        raise StageError(
            f"{path} is damaged ({error}): import into another --data-dir, its file's rows may be there twice otherwise"
        ) from error
