"""Holes in numbered trades that an earlier process told and did not live to fill: for the next one to fetch.

Those of the day in which it left off, the newest first where there are many, and of each only what is not on disk: a
process may be killed between the trades that it fetched and the row that says so.
"""

import re
from bisect import bisect_left, bisect_right
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from core.gaps import unmended
from core.schema import GAPS, TRADES
from core.store import Partition, date_of_ns, read, read_between
from core.units import NS_PER_DAY, NS_PER_S
from ingest.events import Trade, TradeHole

Ids = tuple[int, int]
"""The first and the last of a run."""

_FOLLOWED: Final = re.compile(r"aggTrade (\d+) is followed by (\d+)$")
_LEFT: Final = re.compile(r"aggTrades (\d+-\d+(?:, \d+-\d+)*) missed: ")
"""What the reasons of trade_stream.py and refill.py say of ids; a list that was cut to its length says too little."""
_MOST: Final = 100  # of a symbol: each costs a look at the disk before anything is captured, and later a request
_LATE_NS: Final = 10 * NS_PER_S  # what comes out of order comes within this time of its successor (sequence.py)
MOST_TOLD: Final = 100
"""Characters of ids in a reason."""


class OpenHole(NamedTuple):
    """A hole, and the runs of its ids of which no trade is on disk, less those of the holes before it in a list."""

    hole: TradeHole
    left: list[Ids]


def open_holes(root: Path, venue: str, last: Trade) -> list[OpenHole]:
    """The open holes of a symbol before its last trade on disk, in order. Raises what a damaged shard raises.

    They may overlap: a process that was killed before the trade behind a hole was on disk is followed by one that tells
    a hole which reaches further. No id is in `left` twice, and none of its runs goes over a border of a hole.
    """
    gaps = read(root, Partition(GAPS.name, venue, last.symbol, date_of_ns(last.recv_ns)))
    rows = unmended(gaps).filter(pl.col("stream") == TRADES.name).select("from_ns", "to_ns", "reason")
    found: dict[Ids, TradeHole] = {}
    for from_ns, to_ns, reason in rows.iter_rows():
        ids = ids_of(reason)
        if ids and ids[1] < int(last.trade_id):
            found[ids] = TradeHole(last.symbol, *ids, from_ns, to_ns)
    newest = sorted(found.values(), key=lambda hole: hole.first_id)[-_MOST:]
    there = sorted({number for hole in newest for number in _ids_on_disk(root, venue, hole)})
    borders = sorted({border for hole in newest for border in (hole.first_id, hole.last_id + 1)})
    holes: list[OpenHole] = []
    told = set[Ids]()
    for hole in newest:
        left = [run for run in _left(hole, there, borders) if run not in told]
        told.update(left)
        holes.append(OpenHole(hole, left))
    return holes


def ids_of(reason: str) -> Ids | None:
    """The ids that a gap of trades speaks of; None where it does not tell all of them."""
    if followed := _FOLLOWED.search(reason):
        return int(followed[1]) + 1, int(followed[2]) - 1
    listed = _LEFT.match(reason)
    if listed is None or len(listed[1]) >= MOST_TOLD:
        return None
    runs = [run.split("-") for run in listed[1].split(", ")]
    return int(runs[0][0]), int(runs[-1][1])


def _ids_on_disk(root: Path, venue: str, hole: TradeHole) -> list[int]:
    """The ids of a hole that came after all, by REST or late, in order."""
    until_ns = hole.to_ns + _LATE_NS
    days = range(hole.from_ns // NS_PER_DAY, until_ns // NS_PER_DAY + 1)
    parts = [Partition(TRADES.name, venue, hole.symbol, date_of_ns(day * NS_PER_DAY)) for day in days]
    rows = pl.concat([read_between(root, part, ("recv_ns", "trade_id"), hole.from_ns, until_ns) for part in parts])
    ids = rows["trade_id"].cast(pl.Int64, strict=False).unique().sort()
    return ids.filter(ids.is_between(hole.first_id, hole.last_id)).to_list()


def _left(hole: TradeHole, there: list[int], borders: list[int]) -> list[Ids]:
    """The runs of a hole's ids between those that are there, cut before each border."""
    inside = there[bisect_left(there, hole.first_id) : bisect_right(there, hole.last_id)]
    gaps = [(before + 1, after) for before, after in pairwise([hole.first_id - 1, *inside, hole.last_id + 1])]
    runs: list[Ids] = []
    for first, end in gaps:
        cuts = borders[bisect_right(borders, first) : bisect_left(borders, end)]
        runs += [(begin, until - 1) for begin, until in pairwise([first, *cuts, end]) if until > begin]
    return runs
