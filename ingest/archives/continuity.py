"""Holes between files: a day that an archive lacks shows as a jump of ids from one file to the next."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

from core.schema import GAPS
from core.store import Partition, append, split_by_date
from ingest.archives.manifest import NO_FILE, OF_NO_FILE, Entry
from ingest.archives.spool import Hole, hole, hole_rows


def write_holes_between(root: Path, entries: Iterable[Entry]) -> None:
    """Write the gaps between neighbouring files, and remove those that a file has since filled."""
    with_ids = sorted((entry for entry in entries if entry.first_id is not None), key=_instrument)
    for (venue, symbol), group in groupby(with_ids, _instrument):
        holes = list(_holes(sorted(group, key=lambda entry: entry.first_ns)))
        kept = set(_write(root, venue, symbol, holes))
        folder = root / GAPS.name / f"exchange={venue}" / f"symbol={symbol}"
        for path in set(folder.glob(f"date=*/*{OF_NO_FILE}")) - kept:
            path.unlink()


def _instrument(entry: Entry) -> tuple[str, str]:
    return entry.venue, entry.symbol


def _holes(entries: list[Entry]) -> Iterator[Hole]:
    """Jumps from the highest id so far to the next file's first: a month's file may reach beyond those of its days."""
    reach = entries[0]
    for entry in entries[1:]:
        assert reach.last_id is not None
        assert entry.first_id is not None
        assert entry.last_id is not None
        if entry.first_id > reach.last_id + 1:
            yield hole(reach.last_id, entry.first_id, reach.last_ns, entry.first_ns)
        if entry.last_id > reach.last_id:
            reach = entry


def _write(root: Path, venue: str, symbol: str, rows: list[Hole]) -> Iterator[Path]:
    for date, day in split_by_date(hole_rows(rows), "from_ns"):
        part = Partition(GAPS.name, venue, symbol, date)
        yield append(root, part, day, day["from_ns"][0], NO_FILE)
