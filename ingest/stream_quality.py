"""What one stream of one symbol-day is worth, from its rows in order of receipt, a slice at a time in bounded memory.

A day is cut into windows of whole minutes with enough rows to tell the clock skew from, and windows into slices of a
bounded number of rows. All figures are sums over rows and windows, so they do not depend on how the day is sliced.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_MS, NS_PER_S

Interval: TypeAlias = tuple[int, int]
"""(from, to) in UTC nanoseconds, receive clock."""
Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

SLICE_ROWS: Final = 400_000
WINDOW_ROWS: Final = 256  # the first percentile of fewer is little more than their least
SKEW_QUANTILE: Final = 0.01  # least delay that is no outlier (method.md section 1)
SILENCE_S: Final = 10.0  # no silence is shorter
SILENCE_INTERVALS: Final = 30.0  # nor shorter than so many typical intervals of the stream itself
LONGEST_SILENCE_S: Final = 600.0  # and all that are longer are, unless the stream itself is as slow
_SLOW_INTERVALS: Final = 3.0
QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_LEAST_DRIFT_WINDOWS, _MOST_DRIFT_WINDOWS = 5, 300
_LEAST_DRIFT_NS: Final = 10 * NS_PER_MINUTE

KEYS: Final[dict[str, tuple[str, ...]]] = {
    TOP_OF_BOOK.name: ("update_id", "bid_price", "bid_qty", "ask_price", "ask_qty"),
    TRADES.name: ("trade_id",),
    BOOK_DELTAS.name: ("update_id", "exch_ns", "is_snapshot", "side", "price"),
    LIQUIDATIONS.name: ("exch_ns", "liquidated", "price", "qty"),
    MARK_PRICES.name: ("exch_ns", "mark_price", "index_price", "funding_rate", "open_interest"),
    KLINES.name: ("interval", "open_ns"),
}
"""What must not come twice. Ids alone would not do for books: they begin anew when a venue restarts."""
ASCENDING: Final = {
    TOP_OF_BOOK.name: "update_id",
    TRADES.name: "trade_id",
    BOOK_DELTAS.name: "update_id",
    MARK_PRICES.name: "exch_ns",
}
"""A column that, where it only ever rises, proves that no key of one message came again in another."""
SILENT_BY_NATURE: Final = frozenset({LIQUIDATIONS.name, KLINES.name})


class DelayHistogram:
    """Counts of positive times in bins of 0.5 %, from 1 us to 28 h: quantiles of any number of rows in 40 KB."""

    _LEAST_NS: Final = 1e3
    _STEP: Final = 0.005
    _BINS: Final = 5_100

    def __init__(self) -> None:
        self.counts = np.zeros(self._BINS, np.int64)

    def add(self, delays_ns: Floats) -> None:
        """Count delays in ns; those under 1 us count as 1 us."""
        logs = np.log(np.maximum(delays_ns, self._LEAST_NS) / self._LEAST_NS) / self._STEP
        self.counts += np.bincount(np.minimum(logs.astype(np.int64), self._BINS - 1), minlength=self._BINS)

    def quantile_ns(self, share: float) -> float | None:
        """The delay that `share` of the rows do not exceed, to 0.25 %; None without rows."""
        total = int(self.counts.sum())
        if not total:
            return None
        place = int(np.searchsorted(np.cumsum(self.counts), max(1, math.ceil(share * total))))
        return float(self._LEAST_NS * math.exp((place + 0.5) * self._STEP)) if place else self._LEAST_NS


def windows_of(minutes: Ints, counts: Ints) -> list[Interval]:
    """Spans of whole minutes that hold at least WINDOW_ROWS rows each (the last what is left), from rows per minute."""
    found: list[Interval] = []
    start, rows = None, 0
    for minute, count in zip(minutes.tolist(), counts.tolist(), strict=True):
        start = minute if start is None else start
        rows += count
        if rows >= WINDOW_ROWS:
            found.append((start, minute + NS_PER_MINUTE))
            start, rows = None, 0
    if start is not None:
        end_ns = int(minutes[-1]) + NS_PER_MINUTE
        found = [*found[:-1], (found[-1][0], end_ns)] if found else [(start, end_ns)]
    return found


def slices_of(windows: Sequence[Interval], minutes: Ints, counts: Ints) -> list[list[Interval]]:
    """Neighbouring windows together, as long as they hold no more than SLICE_ROWS rows."""
    groups: list[list[Interval]] = []
    rows_before = np.concatenate([[0], np.cumsum(counts)])
    held = SLICE_ROWS
    for from_ns, to_ns in windows:
        first, last = np.searchsorted(minutes, [from_ns, to_ns])
        rows = int(rows_before[last] - rows_before[first])
        if held + rows > SLICE_ROWS:
            groups.append([])
            held = 0
        groups[-1].append((from_ns, to_ns))
        held += rows
    return groups


def merged(intervals: Iterable[Interval], within: Interval) -> list[Interval]:
    """Intervals cut to `within` and joined where they overlap, in order."""
    cut = sorted((max(a, within[0]), min(b, within[1])) for a, b in intervals)
    found: list[Interval] = []
    for from_ns, to_ns in cut:
        if to_ns <= from_ns:
            continue
        if found and from_ns <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], to_ns)
        else:
            found.append((from_ns, to_ns))
    return found


def seconds(intervals: Iterable[Interval]) -> float:
    """Their length together, in seconds."""
    return sum(to_ns - from_ns for from_ns, to_ns in intervals) / NS_PER_S


def drift_ms_per_hour(times_ns: Sequence[int], skews_ns: Sequence[float]) -> float | None:
    """The Theil-Sen slope of the skew (median over all pairs): a step of the clock or some bad windows do not move it.

    None for less than ten minutes. Sen, "Estimates of the regression coefficient based on Kendall's tau", 1968.
    """
    if len(times_ns) < _LEAST_DRIFT_WINDOWS or times_ns[-1] - times_ns[0] < _LEAST_DRIFT_NS:
        return None
    chosen = np.unique(np.linspace(0, len(times_ns) - 1, _MOST_DRIFT_WINDOWS).astype(np.int64))
    hours = (np.asarray(times_ns)[chosen] - times_ns[0]) / NS_PER_HOUR
    skews_ms = np.asarray(skews_ns, np.float64)[chosen] / NS_PER_MS
    early, late = np.triu_indices(chosen.size, 1)
    return float(np.median((skews_ms[late] - skews_ms[early]) / (hours[late] - hours[early])))


def silence_limit_s(typical_s: float | None) -> float:
    """How long a stream may be silent, from the median interval between its rows; None: no two rows tell one.

    Not from the mean: that of a stream which died early is as long as its silence.
    """
    if typical_s is None:
        return LONGEST_SILENCE_S
    longest_s = max(LONGEST_SILENCE_S, _SLOW_INTERVALS * typical_s)
    return min(max(SILENCE_S, SILENCE_INTERVALS * typical_s), longest_s)


@dataclass
class StreamTally:
    """Figures of one stream over the slices of a day. `silence_ns` is how long it may be silent."""

    table: str
    silence_ns: int
    began_ns: int
    rows: int = 0
    last_ns: int = 0
    assumed: int = 0
    crossed: int = 0
    late: int = 0
    timed: int = 0
    ascending: bool = True
    doubled: int = 0
    """Within messages. All that were doubled, where `ascending`."""
    silences: list[Interval] = field(default_factory=list)
    longest_ns: int = 0
    skew_times_ns: list[int] = field(default_factory=list)
    skews_ns: list[float] = field(default_factory=list)
    delays: DelayHistogram = field(default_factory=DelayHistogram)
    _latest_exch_ns: int = np.iinfo(np.int64).min
    _last_ids: dict[bool, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.last_ns = self.began_ns
        self.ascending = self.table in ASCENDING

    def add(self, frame: pl.DataFrame, windows: Sequence[Interval]) -> None:
        """The rows of some whole windows, in order of receipt."""
        if not frame.height:
            return
        self.rows += frame.height
        self.assumed += int(frame["recv_assumed"].sum())
        if self.table == TOP_OF_BOOK.name:
            self.crossed += int((frame["bid_price"] >= frame["ask_price"]).sum())
        self._note_silences(frame["recv_ns"].to_numpy())
        self._note_ids(frame)
        self._note_delays(frame, windows)

    def end(self, end_ns: int) -> None:
        """The capture of the symbol ended at `end_ns`: how long the stream had been silent by then."""
        self._note_silences(np.array([end_ns]))

    def _note_silences(self, recv_ns: Ints) -> None:
        before = np.concatenate([[self.last_ns], recv_ns[:-1]])
        silent_ns = recv_ns - before
        self.longest_ns = max(self.longest_ns, int(silent_ns.max()))
        for place in np.flatnonzero(silent_ns > self.silence_ns).tolist():
            self.silences.append((int(before[place]), int(recv_ns[place])))
        self.last_ns = max(self.last_ns, int(recv_ns[-1]))

    def _note_ids(self, frame: pl.DataFrame) -> None:
        """Whether ids still rise: those of book snapshots among themselves, as they come beside the changes."""
        if not self.ascending:
            return
        if self.table != BOOK_DELTAS.name:
            self._note_rising(frame, False)
            return
        for whole in (False, True):
            self._note_rising(frame.filter(first_of_message() & (pl.col("is_snapshot") == whole)), whole)
        self.doubled += frame.height - frame.select(KEYS[self.table]).n_unique()

    def _note_rising(self, frame: pl.DataFrame, whole: bool) -> None:
        ids = frame[ASCENDING[self.table]].cast(pl.Int64, strict=False)
        if not frame.height:
            return
        values, last = ids.to_numpy(), self._last_ids.get(whole, -1)
        if ids.null_count() or values[0] <= last or not (np.diff(values) > 0).all():
            self.ascending = False
        else:
            self._last_ids[whole] = int(values[-1])

    def _note_delays(self, frame: pl.DataFrame, windows: Sequence[Interval]) -> None:
        """Skew per window, delays above it; of messages, not of their levels, and only where both times were told."""
        told = told_times(frame)
        recv_ns, exch_ns = told["recv_ns"].to_numpy(), told["exch_ns"].to_numpy()
        if not recv_ns.size:
            return
        latest = np.maximum.accumulate(np.concatenate([[self._latest_exch_ns], exch_ns]))
        self.late += int((exch_ns < latest[:-1]).sum())
        self.timed += recv_ns.size
        self._latest_exch_ns = int(latest[-1])
        edges = np.searchsorted(recv_ns, np.array([start for start, _ in windows] + [windows[-1][1]]))
        for (from_ns, to_ns), first, last in zip(windows, edges[:-1], edges[1:], strict=True):
            if first < last:
                delays_ns = recv_ns[first:last] - exch_ns[first:last]
                rank = int((delays_ns.size - 1) * SKEW_QUANTILE)
                skew_ns = float(np.partition(delays_ns, rank)[rank])
                self.skew_times_ns.append((from_ns + to_ns) // 2)
                self.skews_ns.append(skew_ns)
                self.delays.add(delays_ns - skew_ns)

    def timing(self) -> dict[str, float | None]:
        """Skew, drift, latency above the skew and share out of order, None where no row told both times."""
        skew_ms = float(np.median(self.skews_ns)) / NS_PER_MS if self.skews_ns else None
        quantiles = {f"latency_{name}_ms": _ms(self.delays.quantile_ns(share)) for name, share in QUANTILES.items()}
        return {
            "skew_ms": skew_ms,
            "drift_ms_per_hour": drift_ms_per_hour(self.skew_times_ns, self.skews_ns),
            **quantiles,
            "out_of_order_frac": self.late / self.timed if self.timed else None,
        }


def told_times(frame: pl.DataFrame) -> pl.DataFrame:
    """recv_ns and exch_ns of the messages whose two times were both told, not made from one another."""
    told = ~pl.col("recv_assumed")
    if "exch_assumed" in frame.columns:
        told &= ~pl.col("exch_assumed")
    if "is_snapshot" in frame.columns:
        told &= first_of_message()
    return frame.filter(told).select("recv_ns", "exch_ns")


def first_of_message() -> pl.Expr:
    """True at the first row of each message of `book_deltas`, which has a row per level."""
    names = ("recv_ns", "update_id", "is_snapshot")
    return pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift(1)) for name in names)


def _ms(ns: float | None) -> float | None:
    return None if ns is None else ns / NS_PER_MS
