"""The engine that polls: when each target is due, how far back it is asked, and what becomes of its answers.

Each target is a task of its own, so that a provider that is slow, stopped or filling 30 days of history does not hold
up another. Points wait in memory until `flush` merges them into the signals table; how far each target is stored is
noted in `poll.json` after that, so that a crash asks for a little again and skips nothing.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from core.config import Poll
from core.errors import StageError
from core.store import write_atomic
from core.units import NS_PER_DAY, NS_PER_S
from ingest.collectors import Answer, Point, Target
from ingest.providers import NOT_ANSWERED, CircuitOpen, Get, Providers, is_passing, pool_name
from ingest.signal_checks import Kind, Recent, SignalEvent, is_stale, out_of_range
from ingest.signals import SETTLEMENT, merge_signals, read_newest, signal_rows
from ingest.underived import note

Row = tuple[str, int, float, str, int]
OVERLAP: Final = 12  # intervals asked for again each time: venues revise the newest values
_FILLS_AT_ONCE: Final = 2  # histories: one after the other is as fast, and a crash loses less
_AGAIN_S: Final = 60.0  # after a failure, where the next slot is further away
_RECENT_DAYS: Final = 12  # 36 settlements of 8 h: enough to know a jump
_MOST_WAITING: Final = 1_000_000  # rows, about 150 MB: while a disk is full, nothing more is asked then
_FIRST_NS: Final = 1_230_940_800 * NS_PER_S  # 2009-01-03: a time before Bitcoin is one in the wrong unit


class Progress(msgspec.Struct, frozen=True):
    """How far a target is stored: the last slot of its clock that was served, and the time up to which it is whole."""

    slot: int = -1
    through_ns: int = 0


@dataclass
class Tally:
    """What came of one target in this run."""

    points: int = 0
    errors: int = 0
    last_error: str = ""
    is_asked: bool = False
    faults: Counter[str] = field(default_factory=Counter)
    """Rows, or values of rows, that could not be read, by what was wrong."""


@dataclass
class Batch:
    """Rows that wait to be stored, by (exchange, symbol, is assumed), and what is served when they are."""

    rows: defaultdict[tuple[str, str, bool], list[Row]] = field(default_factory=lambda: defaultdict(list))
    progress: dict[str, Progress] = field(default_factory=dict)


class Poller:
    """Polls targets into the signals under `root`. `tell` gets the events, `now_ns` is the venues' clock."""

    def __init__(
        self,
        root: Path,
        settings: Poll,
        targets: Sequence[Target],
        rest: Get,
        tell: Callable[[SignalEvent], None],
        now_ns: Callable[[], int],
    ) -> None:
        self.targets = targets
        self.tallies = {target.key: Tally() for target in targets}
        self.news: Counter[tuple[str, str, str]] = Counter()
        """New rows by (exchange, symbol, series)."""
        self.recent: defaultdict[tuple[str, str, str], Recent] = defaultdict(Recent)
        """The newest values by the same."""
        self.providers = Providers(rest, targets, lambda kind, who, why: self._say(kind, who, detail=why))
        self._root, self._settings, self._tell, self._now_ns = root, settings, tell, now_ns
        self._stored = _read_progress(root)
        self._progress = dict(self._stored)
        self._pending = Batch()
        self._fills: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_FILLS_AT_ONCE))
        self._stale: set[tuple[str, str]] = set()
        self._remember()

    async def collect_due(self) -> None:
        """Serve every target whose slot has come since it was last served."""
        await asyncio.gather(*(self.collect(target) for target in self.targets if self.is_due(target)))

    async def keep_collecting(self) -> None:
        """Serve every target at each of its slots, until cancelled."""
        await asyncio.gather(*(self._keep(target) for target in self.targets))

    def is_due(self, target: Target) -> bool:
        """Whether the slot that it is now was not served. One that lies ahead was served by a clock that was wrong."""
        return slot_of(target, self._now_ns()) != self._served(target).slot

    async def collect(self, target: Target) -> bool:
        """Ask for what a target has that is not stored, and keep it for `flush`. False where it could not be had."""
        slot, served = slot_of(target, self._now_ns()), self._served(target)
        self.tallies[target.key].is_asked = True
        try:
            self._check_room()
            newest_ns = await self._gather(target, served)
        except NOT_ANSWERED as error:
            self._failed(target, error)
            return False
        finally:
            self._watch_age(target)
        self._progress[target.key] = Progress(slot, max(newest_ns, served.through_ns))
        self._pending.progress[target.key] = self._progress[target.key]
        return True

    async def flush(self) -> None:
        """Store what waits, on a thread; it goes on waiting if that fails (a full disk, say)."""
        batch, self._pending = self._pending, Batch()
        try:
            await asyncio.to_thread(self._store, batch)
        except (OSError, StageError):
            for key, rows in self._pending.rows.items():
                batch.rows[key] += rows
            batch.progress |= self._pending.progress
            self._pending = batch
            raise

    def flush_last(self) -> None:
        """Store what waits, when nothing is asked any more."""
        batch, self._pending = self._pending, Batch()
        self._store(batch)

    def _store(self, batch: Batch) -> None:
        """Merge rows into the table, observed ones before assumed ones, then note the progress."""
        merges = {key: signal_rows(rows) for key, rows in sorted(batch.rows.items()) if rows}
        for (exchange, symbol, _), rows in merges.items():
            note(self._root, {(exchange, symbol): int(rows["time_ns"].to_numpy().min())})
        for (exchange, symbol, is_assumed), rows in merges.items():
            news = merge_signals(self._root, exchange, symbol, rows, is_assumed)
            self.news.update((exchange, symbol, name) for name in news["name"])
        if batch.progress:
            self._stored |= batch.progress
            write_atomic(_progress_path(self._root), msgspec.json.encode(self._stored))

    async def _keep(self, target: Target) -> None:
        while True:
            has_worked = not self.is_due(target) or await self.collect(target)
            now_ns = self._now_ns()
            wait_s = (slot_start_ns(target, slot_of(target, now_ns) + 1) - now_ns) / NS_PER_S
            again_s = max(_AGAIN_S, self.providers.breakers[target.collector.provider].wait_s)
            await asyncio.sleep(wait_s if has_worked else min(wait_s, again_s))

    def _check_room(self) -> None:
        waiting = sum(len(rows) for rows in self._pending.rows.values())
        if waiting > _MOST_WAITING:
            raise StageError(f"{waiting:,} rows wait to be stored: nothing more is asked until the disk takes them")

    async def _gather(self, target: Target, served: Progress) -> int:
        """Ask for all that is new; the newest time that came, 0 if nothing did."""
        past, now_ns = target.collector.history, self._now_ns()
        if past is None:
            return self._take(target, await self.providers.ask(target, target.url()))
        kept_ns = now_ns - int(past.days * NS_PER_DAY)
        if served.through_ns:
            through_ns = min(served.through_ns, now_ns)  # a venue's stamp may lie ahead
            floor_ns = max(kept_ns, through_ns - OVERLAP * target.interval_ns)
            return await self._take_history(target, floor_ns, is_fill=False)
        async with self._fills[pool_name(target)]:
            floor_ns = max(kept_ns, now_ns - int(self._settings.history_days * NS_PER_DAY))
            return await self._take_history(target, floor_ns, is_fill=True)

    async def _take_history(self, target: Target, floor_ns: int, is_fill: bool) -> int:
        newest_ns = 0
        async for answer in self.providers.history(target, floor_ns, self._now_ns()):
            newest_ns = max(newest_ns, self._take(target, answer, is_fill))
        return newest_ns

    def _take(self, target: Target, answer: Answer, is_fill: bool = False) -> int:
        """Keep the points of an answer and look for odd ones; the newest time."""
        recv_ns, tally = self._now_ns(), self.tallies[target.key]
        ahead_ns = NS_PER_DAY if target.resolution == SETTLEMENT else target.interval_ns
        points = [one for one in answer.points if _FIRST_NS < one.time_ns <= recv_ns + ahead_ns]
        tally.points += len(points)
        tally.faults.update(answer.faults)
        if wrong := len(answer.points) - len(points):
            tally.faults[f"time before 2009 or ahead of now, in {target.collector.time_unit}"] += wrong
        if answer.faults or wrong:
            self._say("unreadable", target.key, detail=", ".join(tally.faults))
        self._check(target, sorted(points, key=lambda one: one.time_ns), is_fill)
        lag_ns = int(self._settings.assumed_lag_s * NS_PER_S)
        for name, time_ns, value in points:
            # What was not asked for when it was new is taken to have been known as soon as a poll would have had it.
            known_ns = min(recv_ns, time_ns + target.span_ns + lag_ns) if is_fill else recv_ns
            kept = self._pending.rows[target.exchange, target.symbol, known_ns < recv_ns]
            kept.append((name, time_ns, value, target.resolution, known_ns))
        return max((one.time_ns for one in points), default=0)

    def _check(self, target: Target, points: Sequence[Point], is_fill: bool) -> None:
        """Tell odd values among those that are newer than all before: the first of each kind, and how many."""
        odd: dict[tuple[Kind, str], list[tuple[Point, str]]] = {}
        series = target.series
        for point in points:
            recent = self.recent[target.exchange, target.symbol, point.name]
            is_new = recent.newest is None or point.time_ns > recent.newest[0]
            if is_new or is_fill:
                if why := out_of_range(series[point.name], point.value):
                    odd.setdefault(("range", point.name), []).append((point, why))
                if not is_fill and (why := recent.jump(point.value, self._settings.jump_mads)):
                    odd.setdefault(("jump", point.name), []).append((point, why))
            recent.add(point.time_ns, point.value)
        for (kind, name), found in odd.items():
            point, why = found[0]
            why += f", and {len(found) - 1} more" if len(found) > 1 else ""
            self._say(kind, target.key, name, point.time_ns, point.value, why)

    def _failed(self, target: Target, error: Exception) -> None:
        tally = self.tallies[target.key]
        tally.errors += 1
        tally.last_error = str(error)
        if not isinstance(error, CircuitOpen):
            self._say("unreachable" if is_passing(error) else "refused", target.key, detail=str(error))

    def _watch_age(self, target: Target) -> None:
        """Tell once when a series has gone stale, and once when it goes on."""
        now_ns, slack_ns = self._now_ns(), target.every_ns + target.offset_ns
        for name in target.series:
            newest = self.recent[target.exchange, target.symbol, name].newest
            if newest is None:
                continue
            stale = is_stale(newest[0], now_ns, target.interval_ns, slack_ns, self._settings.stale_intervals)
            if stale != ((target.key, name) in self._stale):
                self._say("stale" if stale else "fresh", target.key, name, *newest)
            (self._stale.add if stale else self._stale.discard)((target.key, name))

    def _served(self, target: Target) -> Progress:
        return self._progress.get(target.key, Progress())

    def _remember(self) -> None:
        """The newest stored values of each series, so that a poll from cron knows a jump."""
        from_ns = self._now_ns() - _RECENT_DAYS * NS_PER_DAY
        for exchange, symbol in sorted({(target.exchange, target.symbol) for target in self.targets}):
            rows = read_newest(self._root, exchange, symbol, from_ns)
            for name, time_ns, value in rows.select("name", "time_ns", "value").iter_rows():
                self.recent[exchange, symbol, name].add(time_ns, value)

    def _say(
        self,
        kind: Kind,
        target: str,
        series: str = "",
        time_ns: int | None = None,
        value: float | None = None,
        detail: str = "",
    ) -> None:
        self._tell(SignalEvent(self._now_ns(), kind, target, series, time_ns, value, detail))


def slot_of(target: Target, now_ns: int) -> int:
    """The number of the clock mark that a target was last due at: `every` from midnight UTC on, plus `offset`."""
    return (now_ns - target.offset_ns) // target.every_ns


def slot_start_ns(target: Target, slot: int) -> int:
    return slot * target.every_ns + target.offset_ns


def _progress_path(root: Path) -> Path:
    return root / "poll.json"


def _read_progress(root: Path) -> dict[str, Progress]:
    """Raises StageError for a file that is not ours."""
    path = _progress_path(root)
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Progress])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise StageError(f"{path} is damaged ({error}): delete it, the history is then asked for again") from error
