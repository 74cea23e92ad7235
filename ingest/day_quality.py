"""The quality of one symbol-day: each stream read in slices of bounded size, the book rebuilt beside it."""

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl

from core.schema import BOOK_DELTAS, EVENTS, GAPS, QUALITY, TOP_OF_BOOK, TRADES, Table
from core.store import Partition, read_between
from core.store import rows as stored_rows
from core.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S
from ingest.book_agreement import BookCheck
from ingest.book_rebuild import COLUMNS, PRICES
from ingest.stored_books import gaps_between
from ingest.stream_quality import (
    ASCENDING,
    KEYS,
    SILENT_BY_NATURE,
    SLICE_ROWS,
    DelayHistogram,
    Floats,
    Interval,
    Ints,
    StreamTally,
    merged,
    seconds,
    silence_limit_s,
    slices_of,
    windows_of,
)

Figures: TypeAlias = dict[str, float | None]
FIGURES: Final = (
    "rows", "rate_hz", "span_s", "coverage_frac", "day_frac", "gap_count", "gap_s", "mended_count",
    "silence_count", "silence_s", "longest_silence_s", "silence_limit_s", "duplicate_count", "crossed_count",
    "compared_count", "agreement_frac", "skew_ms", "drift_ms_per_hour", "latency_p50_ms", "latency_p90_ms",
    "latency_p99_ms", "latency_p999_ms", "out_of_order_frac", "recv_assumed_frac",
)  # fmt: skip
"""The columns of `quality` after `stream`, all Float64; null where a figure does not apply or is not known."""
_SPAN_DAY_S: Final = NS_PER_DAY / NS_PER_S
_BURST_NS: Final = NS_PER_S // 10
_KEYS_AT_ONCE: Final = 2_000_000


class Calendar(NamedTuple):
    """When the rows of a stream came: rows per minute, the first and last receive time, the median interval in s."""

    minutes: Ints
    counts: Ints
    first_ns: int
    last_ns: int
    typical_s: float | None

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    def slices(self) -> list[list[Interval]]:
        """Windows for the clock skew, in groups that can be read at once."""
        return slices_of(windows_of(self.minutes, self.counts), self.minutes, self.counts)


def measure_day(root: Path, exchange: str, symbol: str, date: str, asked: frozenset[str] = frozenset()) -> pl.DataFrame:
    """Rows of the table `quality` for one symbol-day: one per stream that has rows or gaps, or was asked for."""
    day = Partition(GAPS.name, exchange, symbol, date)
    calendars = [calendar_of(root, day.of(table)) for table in EVENTS]
    begin_ns, end_ns = day.starts_ns, day.starts_ns + NS_PER_DAY
    gaps = gaps_between(root, day.instrument, begin_ns, end_ns)
    present = [each for each in calendars if each is not None]
    span = _span(present, gaps, (begin_ns, end_ns)) if present or gaps.height else (begin_ns, begin_ns)
    rows = []
    for table, calendar in zip(EVENTS, calendars, strict=True):
        missed = gaps.filter(pl.col("stream") == table.name)
        if calendar is not None or missed.height or table.name in asked:
            figures = _measure_stream(root, day.of(table), table, calendar, missed, span)
            rows.append({"stream": table.name, **figures})
    schema = {**QUALITY.columns, **dict.fromkeys(FIGURES, pl.Float64())}
    return pl.DataFrame(rows, schema=schema).sort("stream")


def calendar_of(root: Path, part: Partition) -> Calendar | None:
    """Rows per minute of a partition, read an hour at a time if they are many; None where it has none."""
    begin_ns, end_ns = part.starts_ns, part.starts_ns + NS_PER_DAY
    step_ns = NS_PER_HOUR if stored_rows(root, part) > SLICE_ROWS else NS_PER_DAY
    pieces, intervals = [], DelayHistogram()
    times_ns: list[int] = []
    for from_ns in range(begin_ns, end_ns, step_ns):
        recv_ns = read_between(root, part, ["recv_ns"], from_ns, from_ns + step_ns)["recv_ns"].to_numpy()
        if recv_ns.size:
            intervals.add(_intervals_ns(np.append(times_ns[-1:], recv_ns)))
            times_ns += [int(recv_ns[0]), int(recv_ns[-1])]
            pieces.append(np.unique(recv_ns // NS_PER_MINUTE, return_counts=True))
    if not pieces:
        return None
    minutes, counts = (np.concatenate([piece[place] for piece in pieces]) for place in (0, 1))
    typical_ns = intervals.quantile_ns(0.5)
    typical_s = None if typical_ns is None else typical_ns / NS_PER_S
    return Calendar(minutes * NS_PER_MINUTE, counts, times_ns[0], times_ns[-1], typical_s)


def _intervals_ns(recv_ns: Ints) -> Floats:
    """Between bursts: what comes within one tenth of a second counts once, or a burst would be the typical case."""
    starts = recv_ns[np.diff(recv_ns // _BURST_NS, prepend=-1) != 0]
    intervals_ns: Floats = np.diff(starts).astype(np.float64)
    return intervals_ns


def _span(calendars: Sequence[Calendar], gaps: pl.DataFrame, day: Interval) -> Interval:
    """From the first to the last that is known of a symbol on this day, gaps included."""
    begins = [each.first_ns for each in calendars] + gaps["from_ns"].to_list()
    ends = [each.last_ns for each in calendars] + gaps["to_ns"].to_list()
    return max(min(begins), day[0]), min(max(ends), day[1])


def _measure_stream(
    root: Path, part: Partition, table: Table, calendar: Calendar | None, missed: pl.DataFrame, span: Interval
) -> Figures:
    """All figures of one stream. `missed` are its gaps, `span` the captured time of its symbol."""
    span_s = seconds([span])
    rows = calendar.rows if calendar else 0
    limit_s = silence_limit_s(calendar.typical_s) if calendar else 0.0  # what never came was silent from the first
    tally = StreamTally(table.name, round(limit_s * NS_PER_S), span[0])
    book = BookCheck(root, part) if table is BOOK_DELTAS else None
    for windows in calendar.slices() if calendar else ():
        frame = read_between(root, part, _columns(table), windows[0][0], windows[-1][1])
        tally.add(frame, windows)
        if book:
            book.add(frame)
    tally.end(span[1])
    figures: Figures = dict.fromkeys(FIGURES)
    figures |= {"rows": float(rows), "rate_hz": rows / span_s if span_s else None, "span_s": span_s}
    figures |= _coverage(table, tally, missed, span) | tally.timing()
    figures["silence_limit_s"] = limit_s
    figures["recv_assumed_frac"] = tally.assumed / rows if rows else None
    figures["duplicate_count"] = float(_duplicates(root, part, table, calendar, tally)) if calendar else None
    if table is TOP_OF_BOOK:
        figures["crossed_count"] = float(tally.crossed)
    return figures | (book.figures() if book else {})


def _columns(table: Table) -> list[str]:
    """What a measurement reads of a table."""
    own = {TOP_OF_BOOK.name: ("exch_assumed", *PRICES), BOOK_DELTAS.name: COLUMNS}.get(table.name, ())
    ids = (ASCENDING[table.name],) if table.name in ASCENDING else ()
    return list(dict.fromkeys(("recv_ns", "exch_ns", "recv_assumed", *ids, *own)))


def _coverage(table: Table, tally: StreamTally, missed: pl.DataFrame, span: Interval) -> Figures:
    """Lost are gaps, unless their trades were fetched afterwards, and silences of streams that are never silent.

    A book's gap that ended in a snapshot is mended from there on; what happened in it stays unknown.
    """
    refilled = pl.col("mended") if table is TRADES else pl.lit(False)
    lost = missed.filter(~refilled).select("from_ns", "to_ns").rows()
    silent = [] if table.name in SILENT_BY_NATURE else tally.silences
    uncovered_s, span_s = seconds(merged([*lost, *silent], span)), seconds([span])
    return {
        "coverage_frac": 1.0 - uncovered_s / span_s if span_s else None,
        "day_frac": (span_s - uncovered_s) / _SPAN_DAY_S,
        "gap_count": float(missed.height),
        "gap_s": seconds(merged(missed.select("from_ns", "to_ns").rows(), span)),
        "mended_count": float(missed["mended"].sum()),
        "silence_count": float(len(tally.silences)),
        "silence_s": seconds(tally.silences),
        "longest_silence_s": tally.longest_ns / NS_PER_S,
    }


def _duplicates(root: Path, part: Partition, table: Table, calendar: Calendar, tally: StreamTally) -> int:
    """Rows whose key came before, exactly: of the keys one part at a time, by their hash, so that few are in memory."""
    if tally.ascending:
        return tally.doubled
    keys = KEYS[table.name]
    passes = math.ceil(calendar.rows / _KEYS_AT_ONCE)
    distinct = 0
    for turn in range(passes):
        seen = [
            frame.filter(frame.hash_rows() % passes == turn) if passes > 1 else frame
            for frame in _key_frames(root, part, keys, calendar)
        ]
        distinct += pl.concat(seen).n_unique()
    return calendar.rows - distinct


def _key_frames(root: Path, part: Partition, keys: Iterable[str], calendar: Calendar) -> Iterator[pl.DataFrame]:
    for windows in calendar.slices():
        yield read_between(root, part, ["recv_ns", *keys], windows[0][0], windows[-1][1]).select(keys)
