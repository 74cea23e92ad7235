"""What a capture is doing: rows, rates, latencies, gaps and silence per stream; frames and reconnects per connection.

Fed with the rows of each write (`observe`, on the writer's thread) and once a second with the time (`tick`), so that
nothing is counted per event. What it tells of is therefore on disk. Latency is receive time less the
venue's; `excess` is what is above the least of that venue in the last one to two minutes, so that a clock that is off
drops out of it, and so does the shortest way from the venue.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from core.plain_parquet import frame_of_rows
from core.plain_rows import PlainRows
from core.schema import GAPS, Table
from core.units import NS_PER_MS, NS_PER_S
from ingest.capture_log import CaptureLog
from ingest.feed import Feed
from ingest.latency import Ints, LatencyCounts, least_ns, quantiles_ns

_RATE_OVER_S: Final = 10
_WINDOW_S: Final = 60.0
_MOST_LOGGED: Final = 20  # gaps of one write that the log names; the table `gaps` has all
_MOST_OPEN: Final = 1_000  # of a stream: no more holes wait to be refilled
QUANTILES: Final = (0.5, 0.99)
_NEWS: Final = {"reconnects": "reconnect", "rotations": "rotation", "refilled": "refill", "pauses": "pause"}


class StreamKey(NamedTuple):
    """One captured stream; in a summary over several, what they differ in is empty."""

    venue: str
    table: str = ""
    symbol: str = ""


def each_stream(key: StreamKey) -> StreamKey:
    return key


def by_table(key: StreamKey) -> StreamKey:
    return StreamKey(key.venue, key.table)


def by_venue(key: StreamKey) -> StreamKey:
    return StreamKey(key.venue)


@dataclass
class _Stream:
    """What was seen of one stream. `latencies` holds the running minute and the one before it."""

    must_come: bool = False  # for its silence is not normal
    rows: int = 0
    gaps: int = 0
    first_ns: int = 0
    last_ns: int = 0
    open: deque[list[int]] = field(default_factory=lambda: deque(maxlen=_MOST_OPEN))
    """from_ns and to_ns of gaps that may yet be mended."""
    latencies: deque[LatencyCounts] = field(default_factory=lambda: deque([LatencyCounts()], maxlen=2))


class StreamStatus(NamedTuple):
    """A line of the status. Latencies in ms at `QUANTILES`, raw and above the venue's least; None: no venue time."""

    key: StreamKey
    streams: int
    rows: int
    rows_per_s: float
    latency_ms: list[float] | None
    excess_ms: list[float] | None
    gaps: int
    first_ns: int
    last_ns: int
    """Receive times of the first and the last row; 0: there was none yet."""
    age_s: float | None
    """Since the last row was received."""
    mute: int
    """How many of the streams should have sent a row and never did."""
    asked_s: float
    """Since they were asked for."""

    def facts(self) -> dict[str, Any]:
        """For the log: what is known."""
        facts: dict[str, Any] = {"rows": self.rows, "rows_per_s": round(self.rows_per_s, 2), "gaps": self.gaps}
        facts["age_s"] = None if self.age_s is None else round(self.age_s, 2)
        if self.mute:
            facts["mute"] = self.mute
        for name, values in (("latency_ms", self.latency_ms), ("excess_ms", self.excess_ms)):
            facts[name] = values and [round(value, 3) for value in values]
        return self.key._asdict() | facts


class ConnectionStatus(NamedTuple):
    """One connection, since the capture began."""

    venue: str
    url: str
    frames: int
    frames_per_s: float
    undecoded: int
    reconnects: int
    rotations: int
    refilled: int
    """Trades that the stream left out, fetched by REST."""
    pauses: int
    """How often reading was stopped because writing was behind."""


class Monitor:
    """Statistics of a capture's streams and connections. `observe` may be called on another thread than the rest."""

    def __init__(self, log: CaptureLog, read_clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._log = log
        self._read_clock_ns = read_clock_ns
        self._lock = threading.Lock()
        self._streams: dict[StreamKey, _Stream] = {}
        self._feeds: Sequence[Feed] = ()
        self._asked_ns = read_clock_ns()
        self._past: deque[tuple[float, Counter[StreamKey | int]]] = deque(maxlen=_RATE_OVER_S + 1)
        self._window_ends_s: float | None = None
        self._before: list[ConnectionStatus] = []

    def watch(self, feeds: Sequence[Feed]) -> None:
        """The connections, and every stream that they are to bring: one that never comes shows, too."""
        self._feeds, self._asked_ns = feeds, self._read_clock_ns()
        with self._lock:
            for feed in feeds:
                for symbol, table in feed.plan.feeds:
                    stream = self._stream(StreamKey(feed.venue, table, symbol))
                    stream.must_come = (symbol, table) in feed.plan.silence_s

    def observe(self, venue: str, table: Table, symbol: str, rows: PlainRows) -> None:
        """Rows that were just written, in order of the table's time."""
        if table is GAPS:
            self._missed(venue, symbol, frame_of_rows(rows))
            return
        latencies_ns = _latencies_ns(rows)
        with self._lock:
            stream = self._stream(StreamKey(venue, table.name, symbol))
            stream.rows += rows.height
            stream.first_ns = stream.first_ns or rows.first_ns
            stream.last_ns = max(stream.last_ns, rows.last_ns)
            stream.latencies[-1].add(latencies_ns)

    def _stream(self, key: StreamKey) -> _Stream:
        stream = self._streams.get(key)
        if stream is None:
            stream = self._streams[key] = _Stream()
        return stream

    def _missed(self, venue: str, symbol: str, gaps: pl.DataFrame) -> None:
        with self._lock:
            for name, *span, mended in gaps.select("stream", "from_ns", "to_ns", "mended").iter_rows():
                stream = self._stream(StreamKey(venue, name, symbol))
                stream.gaps += not (mended and span in stream.open)  # else it is counted
                if not mended:
                    stream.open.append(span)
        for gap in gaps.head(_MOST_LOGGED).iter_rows(named=True):
            self._log.write("gap", venue=venue, symbol=symbol, **gap)
        if gaps.height > _MOST_LOGGED:
            self._log.write("gaps", venue=venue, symbol=symbol, more=gaps.height - _MOST_LOGGED)

    def tick(self, now_s: float) -> None:
        """Once a second, on a monotonic clock: rates are over the last ten calls, latencies over one to two minutes."""
        counts: Counter[StreamKey | int] = Counter(
            {place: feed.counts.frames for place, feed in enumerate(self._feeds)}
        )
        if self._window_ends_s is None:
            self._window_ends_s = now_s + _WINDOW_S
        ended = now_s >= self._window_ends_s
        with self._lock:
            for key, stream in self._streams.items():
                counts[key] = stream.rows
                if ended:
                    stream.latencies.append(LatencyCounts())
        if ended:
            self._window_ends_s = now_s + _WINDOW_S
        self._past.append((now_s, counts))
        self._log_news()

    def _log_news(self) -> None:
        """What happened to the connections since the last tick."""
        before, self._before = self._before, self.connections()
        for old, new in zip(before, self._before, strict=False):
            for name, event in _NEWS.items():
                if more := getattr(new, name) - getattr(old, name):
                    self._log.write(event, venue=new.venue, url=new.url, count=more)

    def count(self, grouping: Callable[[StreamKey], StreamKey] = each_stream) -> int:
        """How many lines `streams` would give."""
        with self._lock:
            return len({grouping(key) for key in self._streams})

    def streams(self, grouping: Callable[[StreamKey], StreamKey] = each_stream) -> list[StreamStatus]:
        """The streams, or groups of them, in order of their names."""
        with self._lock:
            groups: dict[StreamKey, list[tuple[StreamKey, _Stream]]] = {}
            floors_ns = self._floors_ns()
            for key, stream in self._streams.items():
                groups.setdefault(grouping(key), []).append((key, stream))
            return [self._status(key, groups[key], floors_ns.get(key.venue)) for key in sorted(groups)]

    def connections(self) -> list[ConnectionStatus]:
        return [
            ConnectionStatus(
                feed.venue,
                feed.url,
                feed.counts.frames,
                self._per_s([place]),
                feed.counts.undecoded,
                feed.counts.reconnects,
                feed.counts.rotations,
                feed.counts.refilled,
                feed.counts.paused,
            )
            for place, feed in enumerate(self._feeds)
        ]

    def _floors_ns(self) -> dict[str, int]:
        """The least latency of each venue."""
        by_name: dict[str, list[LatencyCounts]] = {}
        for key, stream in self._streams.items():
            by_name.setdefault(key.venue, []).extend(stream.latencies)
        found = {venue: least_ns(counts) for venue, counts in by_name.items()}
        return {venue: floor_ns for venue, floor_ns in found.items() if floor_ns is not None}

    def _status(self, key: StreamKey, members: list[tuple[StreamKey, _Stream]], floor_ns: int | None) -> StreamStatus:
        streams = [stream for _, stream in members]
        found_ns = quantiles_ns((counts for stream in streams for counts in stream.latencies), QUANTILES)
        last_ns, now_ns = max(stream.last_ns for stream in streams), self._read_clock_ns()
        return StreamStatus(
            key=key,
            streams=len(streams),
            rows=sum(stream.rows for stream in streams),
            rows_per_s=self._per_s([member for member, _ in members]),
            latency_ms=None if found_ns is None else [ns / NS_PER_MS for ns in found_ns],
            excess_ms=None
            if found_ns is None or floor_ns is None
            else [max(ns - floor_ns, 0.0) / NS_PER_MS for ns in found_ns],
            gaps=sum(stream.gaps for stream in streams),
            first_ns=min((stream.first_ns for stream in streams if stream.rows), default=0),
            last_ns=last_ns,
            age_s=max(now_ns - last_ns, 0) / NS_PER_S if last_ns else None,
            mute=sum(stream.must_come and not stream.rows for stream in streams),
            asked_s=max(now_ns - self._asked_ns, 0) / NS_PER_S,
        )

    def _per_s(self, keys: Iterable[StreamKey | int]) -> float:
        """Growth per second over the ticks at hand."""
        if len(self._past) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._past[0], self._past[-1]
        return sum(last[key] - first[key] for key in keys) / max(last_s - first_s, 1e-9)


def _latencies_ns(rows: PlainRows) -> Ints:
    """Receive time less the venue's, of the rows that have both for certain. Most writes have no other."""
    latencies_ns: Ints = rows.ints("recv_ns") - rows.ints("exch_ns")
    assumed = [rows.flags(name) for name in ("recv_assumed", "exch_assumed") if rows.any(name)]
    return latencies_ns[~np.logical_or.reduce(assumed)] if assumed else latencies_ns
