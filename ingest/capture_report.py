"""What a capture says when it has ended: counts of frames, and the rows per exchange and table."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import polars as pl

from core.gaps import settled
from core.run_record import Stage
from core.schema import EVENTS, GAPS, Table
from core.store import Partition, files, partitions, read
from core.text_table import grouped_lines
from core.units import NS_PER_S, counted
from ingest.capture_log import Source, log_samples
from ingest.monitor import StreamStatus

_CUT_LINE: Final = "cut line "

TableFacts = dict[str, int]
"""rows, gaps and, where there are rows, first_ns and last_ns."""
Data = dict[str, dict[str, TableFacts]]
"""By exchange and table: the section `data` of report.json."""


def tell_counts(feeds: Sequence[Source], seconds: float, stage: Stage) -> None:
    """Counts of what came, and where samples of what did not decode are."""
    frames = sum(feed.counts.frames for feed in feeds)
    undecoded = sum(feed.counts.undecoded for feed in feeds)
    ignored: Counter[str] = Counter()
    for feed in feeds:
        ignored.update({f"{feed.venue} {why}": count for why, count in feed.decoder.ignored.items() if why != "ack"})
    cut = [feed.farewell.partition(_CUT_LINE)[2] for feed in feeds if _CUT_LINE in feed.farewell]
    cut = sorted({where for text in cut for where in text.replace(_CUT_LINE, "").split("; ")})
    counts = {"frames": frames, "undecoded": undecoded, "ignored": dict(sorted(ignored.items()))}
    reconnects = sum(feed.counts.reconnects for feed in feeds)
    stage.put("capture", counts | {"cut_lines": cut, "reconnects": reconnects})
    stage.rows_in = frames
    came = f"{counted(frames, 'frame')} on {counted(len(feeds), 'connection')}"
    stage.say(f"{came} in {seconds:.1f} s ({frames / seconds:,.0f} frames/s)", keep=False)
    if ignored:
        stage.say("no table holds: " + ", ".join(f"{why} {count:,}" for why, count in sorted(ignored.items())))
    for where in cut:
        stage.say(f"last line cut short, left out: {where}")
    log = log_samples(feeds)
    if undecoded:
        stage.say(f"{counted(undecoded, 'frame')} did not decode, samples in {log}")


def data_on_disk(root: Path) -> tuple[Data, list[str]]:
    """What the event tables hold, and of which symbols."""
    data: Data = {}
    symbols: set[str] = set()
    for table in EVENTS:
        for part in partitions(root, table):
            symbols.add(part.instrument)
            facts = data.setdefault(part.exchange, {}).setdefault(table.name, {"rows": 0, "gaps": 0})
            _extend(facts, *_extent(root, part, table))
    for part in partitions(root, GAPS):
        for stream, count in settled(read(root, part)).group_by("stream").len().rows():
            data.setdefault(part.exchange, {}).setdefault(stream, {"rows": 0, "gaps": 0})["gaps"] += count
    return data, sorted(symbols)


def data_of(streams: Sequence[StreamStatus]) -> tuple[Data, list[str]]:
    """What a live capture added, as its monitor saw it: months of tables are not read to say so."""
    data: Data = {}
    for each in streams:
        facts = data.setdefault(each.key.venue, {}).setdefault(each.key.table, {"rows": 0, "gaps": 0})
        facts["gaps"] += each.gaps
        _extend(facts, each.rows, each.first_ns, each.last_ns)
    return data, sorted({f"{each.key.venue}:{each.key.symbol}" for each in streams if each.rows})


def report(stage: Stage, data: Data, symbols: list[str]) -> None:
    """The sections `data` and `symbols`, and a small table of them, unless there is nothing."""
    stage.put("data", data)
    stage.put("symbols", symbols)
    stage.rows_out = sum(facts["rows"] for tables in data.values() for facts in tables.values())
    if any(facts["rows"] or facts["gaps"] for tables in data.values() for facts in tables.values()):
        for line in _lines(data, stage.width):
            stage.say(line)


def _extent(root: Path, part: Partition, table: Table) -> tuple[int, int, int]:
    """(rows, first, last receive time) of a partition."""
    times = pl.col(table.order[0])
    facts = pl.scan_parquet(files(root, part)).select(pl.len(), times.min().alias("first"), times.max().alias("last"))
    rows, first_ns, last_ns = facts.collect().row(0)
    return rows, first_ns, last_ns


def _extend(facts: TableFacts, rows: int, first_ns: int, last_ns: int) -> None:
    facts["rows"] += rows
    if rows:
        facts["first_ns"] = min(facts.get("first_ns", first_ns), first_ns)
        facts["last_ns"] = max(facts.get("last_ns", last_ns), last_ns)


def _lines(data: Data, width: int) -> list[str]:
    """The section `data` as an aligned table, by exchange."""
    groups = {
        exchange: [(name, f"{facts['rows']:,}", *_extent_text(facts), f"{facts['gaps']:,}") for name, facts in tables]
        for exchange, tables in ((exchange, tables.items()) for exchange, tables in sorted(data.items()))
    }
    return grouped_lines(("table", "rows", "first (UTC)", "last", "gaps"), groups, width)


def _extent_text(facts: TableFacts) -> tuple[str, str]:
    """The first time, and of the last what differs from it: in full both would not fit 80 signs."""
    if not facts["rows"]:
        return "–", "–"
    first, last = (datetime.fromtimestamp(facts[f"{end}_ns"] // NS_PER_S, UTC) for end in ("first", "last"))
    form = "%H:%M:%S" if last.date() == first.date() else "%m-%d %H:%M:%S"
    return f"{first:%Y-%m-%d %H:%M:%S}", last.strftime(form if last.year == first.year else "%Y-%m-%d %H:%M:%S")
