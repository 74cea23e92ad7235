"""Holes between files: a day that an archive lacks shows as a jump of ids from one file to the next."""

from collections.abc import Iterable, Iterator
from itertools import groupby, pairwise
from pathlib import Path

from core.schema import GAPS
from core.store import Partition, append, split_by_date
from ingest.archives.manifest import Entry
from ingest.archives.spool import hole, hole_rows

_NUMBER = 0
"""Of shards that belong to no one file; the files' own begin at 1."""


def write_holes_between(root: Path, entries: Iterable[Entry]) -> None:
    """Write the gaps between neighbouring files, and remove those that a file has since filled."""
    with_ids = [entry for entry in entries if entry.first_id is not None]
    kept = {path for group in _by_instrument(with_ids) for path in _write_instrument(root, group)}
    for entry in with_ids:
        folder = root / GAPS.name / f"exchange={entry.venue}" / f"symbol={entry.symbol}"
        for path in folder.glob(f"date=*/*-{_NUMBER:06d}.parquet"):
            if path not in kept:
                path.unlink()


def _by_instrument(entries: list[Entry]) -> Iterator[list[Entry]]:
    def instrument(entry: Entry) -> tuple[str, str]:
        return entry.venue, entry.symbol

    for _, group in groupby(sorted(entries, key=instrument), instrument):
        yield sorted(group, key=lambda entry: entry.first_ns)


def _write_instrument(root: Path, entries: list[Entry]) -> Iterator[Path]:
    rows = [
        hole(before.last_id, after.first_id, before.last_ns, after.first_ns)
        for before, after in pairwise(entries)
        if before.last_id is not None and after.first_id is not None and after.first_id > before.last_id + 1
    ]
    for date, day in split_by_date(hole_rows(rows), "from_ns"):
        part = Partition(GAPS.name, entries[0].venue, entries[0].symbol, date)
        yield append(root, part, day, int(day["from_ns"][0]), _NUMBER)
