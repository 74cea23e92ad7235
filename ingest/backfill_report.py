"""What a backfill says when it has ended: what became of the rows, what is absent, and what the tables now hold."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Final

from core.gaps import settled
from core.run_record import Stage
from core.schema import EVENTS, GAPS, OPTIONS, SIGNALS, TOP_OF_BOOK, TRADES
from core.store import partitions, read
from core.units import counted
from ingest.archives.choice import LeftOut
from ingest.archives.formats import ArchiveFile
from ingest.archives.manifest import Entry
from ingest.capture_report import Data, report

FEW: Final = 5
"""Of what is alike, so many are named and the rest counted."""
_MOST_REASONS: Final = 10
_SUMMED: Final = (*EVENTS, SIGNALS, OPTIONS)


@dataclass
class Result:
    """One run: what was imported, what was there before, what no archive has, and what failed."""

    imported: list[Entry] = field(default_factory=list)
    kept: int = 0
    absent: list[ArchiveFile] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def tell_left_out(left_out: Sequence[LeftOut], stage: Stage) -> None:
    for (label, why), same in groupby(left_out, key=lambda each: (each.file.label, each.why)):
        stage.say(f"left out {label}, {counted(len(list(same)), 'file')}: {why}")


def tell_strangers(strangers: Sequence[tuple[Path, str]], stage: Stage) -> None:
    """Files that no archive has, by why."""
    names: dict[str, list[str]] = {}
    for path, why in strangers:
        names.setdefault(why, []).append(str(path))
    for why in list(names)[:_MOST_REASONS]:
        stage.say(f"left out {some(names[why], 'files')}: {why}")
    if rest := list(names.values())[_MOST_REASONS:]:
        stage.say(f"left out {sum(map(len, rest)):,} more files, for other reasons")


def tell_others(others: Sequence[ArchiveFile], stage: Stage) -> None:
    """Archive files of what was not asked for."""
    if others:
        what = some(sorted({file.instrument for file in others}), "symbols")
        stage.say(f"left out {counted(len(others), 'file')} of {what}: not in `symbols`")


def report_backfill(root: Path, result: Result, entries: Iterable[Entry], stage: Stage) -> None:
    """Lines, and the sections `backfill`, `data` and `symbols`. `entries` are all that was ever imported."""
    groups = _by_label(result.imported)
    for label, group in groups.items():
        stage.say(_line(label, group))
    for sample in [sample for entry in result.imported for sample in entry.samples][:FEW]:
        stage.say(f"  for example {sample}")
    if result.kept:
        before = "was imported before and is" if result.kept == 1 else "were imported before and are"
        stage.say(f"{counted(result.kept, 'file')} {before} unchanged", keep=False)
    for label, absent in groupby(result.absent, key=lambda file: file.label):
        stage.say(f"{label}: the archive has no file of {some([file.days[0] for file in absent])}")
    _tell_unverified(result.imported, stage)
    _tell_unpriced(root, result.imported, stage)
    if data := _data(root, entries):
        report(stage, data, sorted({part.instrument for table in _SUMMED for part in partitions(root, table)}))
    stage.put("backfill", _section(result, groups))
    stage.rows_in = sum(entry.rows_read for entry in result.imported)
    stage.rows_out = sum(_total(result.imported, "written").values())


def _data(root: Path, entries: Iterable[Entry]) -> Data:
    """The section `data` from the manifest: years of tables are not read to say what they hold."""
    data: Data = {}
    for entry in entries:
        for table in (table.name for table in _SUMMED if entry.written.get(table.name)):
            facts = data.setdefault(entry.venue, {}).setdefault(table, {"rows": 0, "gaps": 0})
            first_ns, last_ns = entry.spans_ns[table]
            facts["rows"] += entry.written[table]
            facts["first_ns"] = min(facts.get("first_ns", first_ns), first_ns)
            facts["last_ns"] = max(facts.get("last_ns", last_ns), last_ns)
    for part in partitions(root, GAPS):
        for stream, count in settled(read(root, part)).group_by("stream").len().rows():
            data.setdefault(part.exchange, {}).setdefault(stream, {"rows": 0, "gaps": 0})["gaps"] += count
    return data


def _by_label(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        interval = f" {entry.interval}" if entry.interval else ""
        groups.setdefault(f"{entry.venue}:{entry.symbol} {entry.dataset}{interval}", []).append(entry)
    return dict(sorted(groups.items()))


def _line(label: str, entries: Sequence[Entry]) -> str:
    written, dropped = _total(entries, "written"), _total(entries, "dropped")
    to = ", ".join(f"{rows:,} to {table}" for table, rows in sorted(written.items())) or "none kept"
    out = ", ".join(f"{why} {rows:,}" for why, rows in sorted(dropped.items()))
    read = sum(entry.rows_read for entry in entries)
    return f"{label}: {counted(len(entries), 'file')}, {counted(read, 'row')}, {to}{f'; dropped: {out}' if out else ''}"


def _total(entries: Sequence[Entry], name: str) -> Counter[str]:
    total: Counter[str] = Counter()
    for entry in entries:
        total.update(getattr(entry, name))
    return total


def some(names: Sequence[str], what: str = "days") -> str:
    """The first few names, and how many more."""
    more = f" and {len(names) - FEW:,} more {what}" if len(names) > FEW else ""
    return ", ".join(names[:FEW]) + more


def _tell_unverified(imported: Sequence[Entry], stage: Stage) -> None:
    for label, entries in _by_label([entry for entry in imported if entry.unverified]).items():
        stage.say(
            f"{label}: UNVERIFIED {some([entry.file for entry in entries], 'files')}: the archive has no sha256 "
            f"beside them, so nothing but their own format tells that they are whole"
        )


def _tell_unpriced(root: Path, imported: Iterable[Entry], stage: Stage) -> None:
    """Bars need best prices: say on which days there are none."""
    priced = {(part.instrument, part.date) for part in partitions(root, TOP_OF_BOOK)}
    new = {(f"{entry.venue}:{entry.symbol}", day) for entry in imported for day in entry.tables.get("trades", ())}
    traded = {(part.instrument, part.date) for part in partitions(root, TRADES)} & new
    for instrument, pairs in groupby(sorted(traded - priced), key=lambda pair: pair[0]):
        stage.say(
            f"{instrument}: trades without best prices on {some([day for _, day in pairs])}: no bars can be made "
            f"there. Best prices are in Binance's bookTicker (USD-M, up to 2024-03-30), in Bybit's order books, in "
            f"Tardis' book_ticker and quotes"
        )


def _section(result: Result, groups: dict[str, list[Entry]]) -> dict[str, object]:
    """The section `backfill` of the report."""
    rows = [
        {
            "what": label,
            "files": len(group),
            "read": sum(entry.rows_read for entry in group),
            "written": _total(group, "written"),
            "dropped": _total(group, "dropped"),
        }
        for label, group in groups.items()
    ]
    absent = [file.key for file in result.absent]
    return {
        "files": len(result.imported),
        "kept": result.kept,
        "absent": absent,
        "unverified": [entry.key for entry in result.imported if entry.unverified],
        "failed": result.failed,
        "rows": rows,
    }
