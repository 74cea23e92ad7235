"""The table writer: decoded events of all connections to the event tables on disk, while they come.

The loop that reads the sockets only sorts structs into lists and hands these over; packing, Parquet and merging are
done on threads of their own. Polars releases the interpreter lock while it works, so that one core can do both.
"""

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from operator import attrgetter
from pathlib import Path
from typing import Any, Final, TypeAlias

from core.errors import StageError
from core.plain_rows import PlainRows
from core.schema import TRADES, Table
from ingest.capture_log import unfailing
from ingest.compactor import Compactor
from ingest.events import BookUpdate, Event, Gap, Trade
from ingest.packing import TABLES, rows_of
from ingest.shards import Observe, ShardSettings, ShardWriter

_HAND_OVER_EVENTS: Final = 16_384
_LONG: Final = 1024  # events of one kind and symbol that are packed at once
_MOST_EVENTS: Final = 131_072  # structs in all lists together, some 40 MB
_LEVELS: Final = 4  # of a book take the memory of one event
_WAIT: Final = 0.75  # of durable_s: the longest that an event waits to be handed over
_SPREAD: Final = 0.618_034  # of that: streams that begin together, and are always busy, are not written together
_IDLE_S: Final = 0.25
_KINDS: Final = {table.name: kind for kind, table in TABLES.items()}


@dataclass
class _Stream:
    """Events of one kind, venue and symbol that are not handed over yet."""

    venue: str
    symbol: str
    kind: type
    table: Table
    events: list[Event] = field(default_factory=list)
    is_due: bool = False  # events that are to be written wait for the writer's thread
    is_loose: bool = False  # events were handed over to be packed alone
    since_s: float = inf  # the oldest that is not to be written yet came no sooner; inf: there is none


_Given: TypeAlias = list[Event] | PlainRows
_Job: TypeAlias = tuple[_Stream, _Given, bool] | threading.Event | None


class TableWriter:
    """Writes what it is given into the event tables under `root`, and merges the shards.

    With `durable_s`, rows are in a readable file within that time of `add`, if `tick` is called 20 times a second;
    without, shards are written by `flush_rows` alone (markets played faster than they were). At most `waiting_rows`
    wait in memory for a disk that refuses. `fsync` makes what is written outlive a power cut too, at some ms per file.
    `observe` gets the new rows of each write, on the writer's thread, `say` what the user must know.

    `add`, `tick`, `flush` and `close` belong to one thread and raise what the writer's thread died of, if it did.
    """

    def __init__(
        self,
        root: Path,
        flush_rows: int = 200_000,
        durable_s: float = inf,
        *,
        waiting_rows: int = 4_000_000,
        fsync: bool = False,
        say: Callable[[str], None] = print,
        observe: Observe | None = None,
        read_clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        lock, say = threading.Lock(), unfailing(say)
        settings = ShardSettings(flush_rows, waiting_rows, fsync, grows=durable_s < inf)
        self._compactor = Compactor(root, lock, lambda part: self._shards.tail_of(part), say)
        self._shards = ShardWriter(root, settings, lock, say, observe, self._compactor.consider, read_clock_s)
        self._read_clock_s = read_clock_s
        self._wait_s = _WAIT * durable_s
        self._streams: dict[tuple[str, type, str], _Stream] = {}
        self._append: dict[tuple[str, type, str], Callable[[Event], None]] = {}
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._given = 0  # events, by add
        self._taken = 0  # of them, by the writer's thread
        self._levels_given = 0  # the same, of the levels in updates of books
        self._levels_taken = 0
        self._here = 0  # of them, since lists were last handed over
        self._ticked_s = read_clock_s()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="table writer", daemon=True)
        self._compactor.start()
        self._thread.start()

    @property
    def rows(self) -> Counter[tuple[str, str]]:
        """Rows on disk by (venue, table)."""
        return self._shards.written

    @property
    def backlog(self) -> int:
        """Events and rows that are in no file yet."""
        return self._given - self._taken + self._shards.waiting

    @property
    def is_behind(self) -> bool:
        """True while events come faster than they are packed: who reads sockets should let them wait in the kernel.

        A disk that refuses is no reason: rows are packed and wait in memory then.
        """
        return self._load > _MOST_EVENTS // 2

    @property
    def _load(self) -> int:
        """What is not packed yet, in events of common size."""
        return self._given - self._taken + (self._levels_given - self._levels_taken) // _LEVELS

    @property
    def trouble(self) -> str:
        """Why the disk refuses rows, empty while it takes them."""
        return self._shards.trouble

    @property
    def dropped(self) -> int:
        """Rows dropped because no disk took them. Each stretch of them stands in `gaps`."""
        return self._shards.dropped

    def add(self, venue: str, events: Sequence[Event]) -> None:
        """Take events of one venue, in the order of their receipt."""
        append = self._append
        levels = 0
        for event in events:
            try:
                append[venue, type(event), event.symbol](event)
            except KeyError:
                self._rearm(self._stream(venue, type(event), event.symbol))(event)
            if type(event) is BookUpdate:
                levels += len(event.bids) + len(event.asks)
        self._given += len(events)
        self._levels_given += levels
        self._here += len(events) + levels // _LEVELS
        if self._here >= _HAND_OVER_EVENTS:
            self._hand_over_long()

    def add_rows(self, venue: str, symbol: str, rows: PlainRows) -> None:
        """Take rows of one table, behind the events of that stream that were given before."""
        stream = self._stream(venue, _KINDS[rows.table.name], symbol)
        self._hand_over(stream, write=False)
        self._put(stream, rows, write=False)
        self._given += rows.height
        self._here += rows.height
        if self._here >= _HAND_OVER_EVENTS:
            self._hand_over_long()

    def tick(self) -> None:
        """Hand over the streams whose events have waited long enough, those that waited longest first.

        A stream of few rows is so written no more often than it must be.
        """
        self._check()
        if self._wait_s == inf:
            return
        before_s, self._ticked_s = self._ticked_s, self._read_clock_s()
        due: list[_Stream] = []
        for stream in self._streams.values():
            if stream.since_s == inf and (stream.events or stream.is_loose):
                stream.since_s = before_s
            if stream.since_s <= self._ticked_s - self._wait_s and not stream.is_due:
                due.append(stream)  # a thread that is late writes more rows at a time instead of more often
        for stream in sorted(due, key=attrgetter("since_s")):
            self._hand_over(stream, write=True)

    def flush(self) -> None:
        """Return when all that was given is on disk, or the disk has refused it."""
        self._hand_over_all(write=True)
        self.settle()

    def settle(self) -> None:
        """Return when what was handed over so far is dealt with."""
        done = threading.Event()
        self._jobs.put(done)
        while not done.wait(_IDLE_S):
            self._check()
        self._check()

    def close(self, merge: bool = True) -> None:
        """Write everything, and make one file of each partition, unless there is no time to `merge`.

        Raises StageError where rows could not be written.
        """
        self._hand_over_all(write=True)
        self._jobs.put(None)
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        sealed = self._shards.seal_all()
        self._compactor.finish(sealed if merge else [])
        self._check()
        if self._shards.waiting:
            raise StageError(f"{self._shards.waiting:,} rows were received and are lost: {self.trouble}")

    def _stream(self, venue: str, kind: type, symbol: str) -> _Stream:
        """The stream of that name, begun where there is none."""
        stream = self._streams.get((venue, kind, symbol))
        if stream is None:
            stream = self._streams[venue, kind, symbol] = _Stream(venue, symbol, kind, TABLES[kind])
            stream.since_s = self._ticked_s - len(self._streams) * _SPREAD % 1.0 * self._wait_s
        return stream

    def _rearm(self, stream: _Stream) -> Callable[[Event], None]:
        """Where further events of a stream go."""
        append = partial(self._add_gap, stream) if stream.kind is Gap else stream.events.append
        self._append[stream.venue, stream.kind, stream.symbol] = append
        return append

    def _add_gap(self, stream: _Stream, gap: Gap) -> None:
        """That trades were fetched goes to disk behind them: killed in between, a capture must not hide a hole."""
        if gap.mended and gap.stream == TRADES.name:
            fetched = self._streams.get((stream.venue, Trade, stream.symbol))
            if fetched is not None:
                self._hand_over(fetched, write=True)
        stream.events.append(gap)

    def _hand_over_long(self) -> None:
        """What is worth packing goes to the writer's thread; if that cannot keep up, wait for it."""
        for stream in self._streams.values():
            if len(stream.events) >= _LONG:
                self._hand_over(stream, write=False)
        self._here = 0
        if self._load > _MOST_EVENTS:
            self._hand_over_all(write=False)
            while self._load > _MOST_EVENTS:
                self._check()
                time.sleep(0.001)

    def _hand_over_all(self, write: bool) -> None:
        for stream in tuple(self._streams.values()):
            self._hand_over(stream, write)

    def _hand_over(self, stream: _Stream, write: bool) -> None:
        if stream.events or (write and stream.is_loose):
            events, stream.events = stream.events, []
            self._rearm(stream)
            self._put(stream, events, write)

    def _put(self, stream: _Stream, given: _Given, write: bool) -> None:
        """Rows go to disk behind the gaps told before them: killed in between, a capture must not hide a hole."""
        gaps = self._streams.get((stream.venue, Gap, stream.symbol))
        if gaps is not None and gaps is not stream:
            self._hand_over(gaps, write=True)
        stream.is_due |= write
        stream.is_loose = not write
        stream.since_s = inf if write else stream.since_s
        self._jobs.put((stream, given, write))

    def _check(self) -> None:
        failure = self._failure or self._compactor.failure
        if failure is not None:
            raise failure

    def _work(self) -> None:
        """What the thread does until it is told to end, or until a bug ends it."""
        try:
            while (job := self._next_job()) is not None:
                if isinstance(job, threading.Event):
                    job.set()
                    continue
                stream, given, write = job
                rows = given if isinstance(given, PlainRows) else rows_of(stream.table, given)
                self._shards.take(stream.venue, stream.symbol, rows, write)
                stream.is_due &= not write
                self._taken += len(given)
                if stream.kind is BookUpdate and not isinstance(given, PlainRows):
                    self._levels_taken += _levels(given)
                self._shards.retry()
        except BaseException as error:
            self._failure = error

    def _next_job(self) -> _Job:
        while True:
            try:
                return self._jobs.get(timeout=_IDLE_S)
            except queue.Empty:
                self._shards.retry()


def _levels(updates: Sequence[Any]) -> int:
    return sum(len(each.bids) + len(each.asks) for each in updates)
