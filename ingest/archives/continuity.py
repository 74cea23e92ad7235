"""Holes between files: a day that an archive lacks shows as a jump of ids from one file to the next.

So does what is in neither of two days that different clocks have cut.
"""

from collections.abc import Container, Iterable, Iterator
from itertools import groupby
from pathlib import Path

from core.gaps import UNDECIDED
from core.schema import GAPS, TRADES
from core.store import Partition, append, date_of_ns, split_by_date
from ingest.archives.formats import days_between
from ingest.archives.manifest import NO_FILE, OF_NO_FILE, Entry
from ingest.archives.seams import clocks_by_day, seam_hole, seams_of
from ingest.archives.spool import Hole, hole, hole_rows


def write_holes_between(root: Path, entries: Iterable[Entry]) -> list[str]:
    """Write the gaps between neighbouring files, and remove those that a file has since filled.

    Returns a line for each midnight where it cannot be told whether trades were lost.
    """
    unsure = []
    with_trades = sorted((entry for entry in entries if TRADES.name in entry.tables), key=_instrument)
    for (venue, symbol), group in groupby(with_trades, _instrument):
        same = list(group)
        clocks = clocks_by_day(same)
        found = [seam_hole(root, venue, symbol, seam) for seam in seams_of(clocks)]
        at_seams = [each for each in found if each is not None]
        unsure += [_line(venue, symbol, each) for each in at_seams if each[3] == UNDECIDED]
        with_ids = (entry for entry in same if entry.first_id is not None)
        holes = [*_holes(sorted(with_ids, key=lambda entry: entry.first_ns), clocks), *at_seams]
        kept = set(_write(root, venue, symbol, holes))
        folder = root / GAPS.name / f"exchange={venue}" / f"symbol={symbol}"
        for path in set(folder.glob(f"date=*/*{OF_NO_FILE}")) - kept:
            path.unlink()
    return unsure


def _line(venue: str, symbol: str, hole: Hole) -> str:
    return f"{venue}:{symbol}: {UNDECIDED}: a gap is written at the midnight that begins {date_of_ns(hole[2])}"


def _instrument(entry: Entry) -> tuple[str, str]:
    return entry.venue, entry.symbol


def _holes(entries: list[Entry], filled: Container[str]) -> Iterator[Hole]:
    """Jumps from the highest id so far to the next file's first: a month's file may reach beyond those of its days.

    None where files without such ids have `filled` all days between: where they meet is looked at by itself.
    """
    reach = entries[0] if entries else None
    for entry in entries[1:]:
        assert reach is not None
        assert reach.last_id is not None
        assert entry.first_id is not None
        assert entry.last_id is not None
        if entry.first_id > reach.last_id + 1 and not _is_bridged(reach, entry, filled):
            yield hole(reach.last_id, entry.first_id, reach.last_ns, entry.first_ns)
        if entry.last_id > reach.last_id:
            reach = entry


def _is_bridged(before: Entry, after: Entry, filled: Container[str]) -> bool:
    between = days_between(before.tables[TRADES.name][-1], after.tables[TRADES.name][0])[1:-1]
    return bool(between) and all(day in filled for day in between)


def _write(root: Path, venue: str, symbol: str, rows: list[Hole]) -> Iterator[Path]:
    for date, day in split_by_date(hole_rows(rows), "from_ns"):
        part = Partition(GAPS.name, venue, symbol, date)
        yield append(root, part, day, day["from_ns"][0], NO_FILE)
