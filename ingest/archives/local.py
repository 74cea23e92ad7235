"""Archive files in a folder, as they were downloaded: nested as at the provider, or all in one place.

Names tell provider, data set, symbol and day. What a flat name cannot tell, spot or futures, `symbols` does.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from core.errors import StageError
from core.store import date_of_ns
from core.units import NS_PER_DAY
from ingest.archives import binance_vision, bybit_dumps, recorded, tardis
from ingest.archives.choice import dataset_of
from ingest.archives.claims import refuse_another
from ingest.archives.formats import UNVERIFIED, ArchiveFile, Counts, Provider
from ingest.archives.tardis_rows import GROUPS

Recognise = Callable[[str, tuple[str, ...]], tuple[str, str, str, str, tuple[str, ...]] | None]
BY_NAME: Final[dict[Provider, Recognise]] = {
    "tardis": tardis.recognise,
    "binance": binance_vision.recognise,
    "bybit": bybit_dumps.recognise,
}
_SUFFIXES: Final = (".csv", ".gz", ".zip", ".data")
_DEEPEST: Final = 5
"""Folders above the given path that may belong to it: Tardis' exchange, data set, year, month and day."""
_BESIDE: Final = (".part", ".CHECKSUM", UNVERIFIED)


class Found(NamedTuple):
    """What lies in a folder."""

    files: list[ArchiveFile]
    others: list[ArchiveFile]
    """Archive files of symbols that are not wanted."""
    strangers: list[tuple[Path, str]]
    """Other files, relative to the folder, and why they are none."""


def find(path: Path, provider: str, symbols: Sequence[str]) -> Found:
    """The files below a folder or at a path, in order of names. Raises StageError if the path does not exist."""
    if not path.exists():
        raise StageError(f"backfill.path: {path} does not exist: give a folder of archive files, or one of them")
    root = path.parent if path.is_file() else path
    candidates = [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.is_file())
    result = Found([], [], [])
    for candidate in candidates:
        if candidate.suffix in _BESIDE:
            continue
        found = _recognise(candidate, root, provider, tuple(symbols))
        if isinstance(found, str):
            result.strangers.append((candidate.relative_to(root), found))
        elif not symbols or found.instrument in symbols:
            result.files.append(found)
        elif only := _of_group(found, symbols):
            result.files.append(replace(found, only=only))
        else:
            result.others.append(found)
    return result


def _of_group(file: ArchiveFile, symbols: Sequence[str]) -> tuple[str, ...]:
    """The wanted symbols that a file of many may hold."""
    if file.symbol not in (*GROUPS, recorded.ALL_SYMBOLS):
        return ()
    return tuple(name.partition(":")[2] for name in symbols if name.startswith(f"{file.venue}:"))


def _recognise(path: Path, root: Path, provider: str, symbols: tuple[str, ...]) -> ArchiveFile | str:
    """The file, or why it is none."""
    if path.suffix not in _SUFFIXES:
        return "no archive has files of this kind"
    try:
        if provider == "recorded":
            venue, symbol, dataset = recorded.recognise(path, symbols)
            return _dated(ArchiveFile(path, "recorded", dataset, venue, symbol, (), bounded=False))
        return _by_name(path, root, provider, symbols)
    except StageError as error:
        return str(error).removeprefix(f"{path}: ").removeprefix(f"{path} ")


def _by_name(path: Path, root: Path, provider: str, symbols: tuple[str, ...]) -> ArchiveFile | str:
    folders = (*root.absolute().parts[-_DEEPEST:], *path.relative_to(root).parts[:-1])
    for name, recognise in BY_NAME.items():
        found = recognise(path.name, folders) if provider in ("", name) else None
        if found is None:
            continue
        venue, symbol, dataset, interval, days = found
        venue = venue or _venue_of(name, symbol, symbols)
        if not venue:
            return f"its name does not say which market: name it in `symbols`, as in {_EXAMPLES[name]}:{symbol}"
        if name == "tardis":
            refuse_another(path, venue, "" if symbol in GROUPS else symbol)
        file = ArchiveFile(path, name, dataset, venue, symbol, days, interval, bounded=bool(days))
        return file if days else _dated(file)
    return _NO_ARCHIVE.format(provider or "Binance, Bybit or Tardis")


_NO_ARCHIVE: Final = "no file of {} is named so; a CSV of your own is read with --set backfill.provider=recorded"
_EXAMPLES: Final = {"binance": "binance_um", "bybit": "bybit", "tardis": "binance_um"}


def _venue_of(provider: str, symbol: str, symbols: Iterable[str]) -> str:
    """The venue that `symbols` names for a symbol, of those that the provider has; empty if none or several."""
    venues = {venue for venue, _, name in (each.partition(":") for each in symbols) if name == symbol}
    own = {venue for venue in venues if venue.startswith(provider)}
    return own.pop() if len(own) == 1 else ""


def _dated(file: ArchiveFile) -> ArchiveFile:
    """A file whose name has no date, under the days of its rows: all of it is read to know them."""
    dataset = dataset_of(file)
    days: set[int] = set()
    for pieces in dataset.pieces(file, 0, Counts()):
        for piece in pieces:
            if piece.table in dataset.tables:
                days.update((piece.rows[dataset.time_of(piece.table)] // NS_PER_DAY).unique().to_list())
    if not days:
        raise StageError("it holds no row")
    return replace(file, days=tuple(date_of_ns(day * NS_PER_DAY) for day in sorted(days)))
