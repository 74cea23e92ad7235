"""What live captures have asked the venues for: `<data>/asked.jsonl`, a line per start that asks for others.

Tables alone cannot tell a stream that was never wanted from one that never sent a row.
"""

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import msgspec

from core.store import day_start_ns
from core.units import NS_PER_DAY
from ingest.feed import Feed

Asked: TypeAlias = Mapping[str, frozenset[str]]
"""Tables by `venue:SYMBOL`."""


class Start(msgspec.Struct, frozen=True):
    """One start of a capture."""

    began_ns: int
    streams: dict[str, list[str]]
    """Tables by `venue:SYMBOL`."""


def note_asked(root: Path, began_ns: int, feeds: Sequence[Feed]) -> None:
    """Add the line of a capture that begins, unless the last one asked for the same: a service that fails, and is
    started again and again, leaves one.
    """
    streams: defaultdict[str, set[str]] = defaultdict(set)
    for feed in feeds:
        for symbol, table in feed.plan.feeds:
            streams[f"{feed.venue}:{symbol}"].add(table)
    start = Start(began_ns, {name: sorted(tables) for name, tables in sorted(streams.items())})
    if [before.streams for before in read_starts(root)[-1:]] == [start.streams]:
        return
    with _path(root).open("a+b", buffering=0) as file:
        file.seek(max(file.seek(0, os.SEEK_END) - 1, 0))
        is_cut = file.read(1) not in (b"", b"\n")
        file.write(b"\n" * is_cut + msgspec.json.encode(start) + b"\n")


def read_starts(root: Path) -> list[Start]:
    """The starts in their order. A line that a crash cut short, or that is none, is left out."""
    try:
        lines = _path(root).read_bytes().split(b"\n")
    except FileNotFoundError:
        return []
    starts = []
    for line in lines:
        with suppress(msgspec.DecodeError, UnicodeDecodeError):
            starts.append(msgspec.json.decode(line, type=Start))
    return starts


def asked_on(starts: Sequence[Start], date: str) -> Asked:
    """What was asked for on a UTC day: by the captures that began on it, and the one that may have run since before."""
    begin_ns = day_start_ns(date)
    before = [start for start in starts if start.began_ns < begin_ns][-1:]
    within = [start for start in starts if begin_ns <= start.began_ns < begin_ns + NS_PER_DAY]
    streams: defaultdict[str, set[str]] = defaultdict(set)
    for start in (*before, *within):
        for instrument, tables in start.streams.items():
            streams[instrument].update(tables)
    return {instrument: frozenset(tables) for instrument, tables in streams.items()}


def _path(root: Path) -> Path:
    return root / "asked.jsonl"
