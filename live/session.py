"""A session: sockets to runner, and to the witness of what an independent capture sees.

The runner reads through the feeds that capture reads through. In simulation a second set of connections to the same
server is the witness: its events become bars by one batch push, to compare with the runner's.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, Final

import numpy as np

from core.config import Config, Hosts
from core.errors import StageError
from core.units import NS_PER_S
from ingest.events import Event
from ingest.feed import Feed
from ingest.feeds import Step, make_feeds, merged, opened
from ingest.merge import Tagged
from live.journal import Journal, State
from live.manifest import Bundle
from live.parity import CapturedBars
from live.runner import Runner, levels_of, received_ns, started_bars
from live.slow_series import News
from research.bars.events import Events, as_events
from research.signal_table import SignalTable

REREAD_S: Final = 10.0
"""How often the runner looks for new slow series; `signals.delay_s` must cover it."""
_HEADROOM_NS: Final = 5 * NS_PER_S  # for reading and computing: what is late is used when that is over
COLLECT_EVERY: Final = 700
"""New containers until the collector looks at them, as Python has it: ten thousands would take 10 ms at a time."""
Say = Callable[[str], None]
Stamps = dict[str, Any]
"""By instrument, what changes where its slow series are written."""


class Witness:
    """Events of an independent capture, kept as arrays until the end."""

    def __init__(self, bundle: Bundle, names: Iterable[str]) -> None:
        self._bundle = bundle
        self._pieces: dict[str, list[Events]] = {name: [] for name in names}
        self.now_ns = 0

    def take(self, step: Step) -> None:
        for name, events in by_instrument(step.events, self._pieces).items():
            self._pieces[name].append(as_events(events, levels_of(self._bundle) > 0))
        self.now_ns = step.now_ns

    def bars(self, starts: Mapping[str, State]) -> CapturedBars:
        """Per instrument bar_index (n,) and values (n, columns) on the model's clock: one push of all events."""
        found: CapturedBars = {}
        for name, pieces in self._pieces.items():
            bars = started_bars(self._bundle, name, starts[name])
            mine = [clock.name for clock in bars.clocks].index(self._bundle.manifest.bars)
            pushed = (bars.push(_in_order(pieces, bars.seen_ns)) if pieces else bars.advance(0))[mine]
            tail = bars.advance(self.now_ns)[mine]
            index = np.concatenate([pushed.bar_index, tail.bar_index])
            found[name] = index, np.concatenate([pushed.values, tail.values])
        return found


def _in_order(pieces: Sequence[Events], from_ns: int) -> Events:
    """Events by receipt as tables hold them, whenever they were told; none before `from_ns`."""
    events = np.concatenate(pieces)
    events = events[np.argsort(events["recv_ns"], kind="stable")]
    np.maximum(events["recv_ns"], from_ns, out=events["recv_ns"])
    return events


def by_instrument(events: Iterable[Tagged], names: Mapping[str, Any]) -> dict[str, list[Event]]:
    """Events of the named instruments (`venue:SYMBOL`), each in order."""
    found: dict[str, list[Event]] = {}
    for venue, event in events:
        name = f"{venue}:{event.symbol}"
        if name in names:
            found.setdefault(name, []).append(event)
    return found


async def follow(
    cfg: Config,
    where: Hosts,
    runner: Runner,
    journal: Journal,
    witness: Witness | None,
    names: Sequence[str],
    slow: SignalTable,
) -> None:
    """Run to the end of the stream, or for `live.duration_s` on a venue, where slow series are read again."""
    mine = await make_feeds(cfg, where, names, refill=False)
    theirs = await make_feeds(cfg, where, names, refill=False) if witness is not None else []
    duration_s = cfg.live.duration_s if cfg.source == "live" else None
    async with opened([*mine, *theirs]):
        watching = asyncio.create_task(_watch(theirs, witness))
        reading = asyncio.create_task(keep_learning(slow, runner if cfg.source == "live" else None, REREAD_S))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(duration_s):
                    await _run(mine, runner, journal)
                    await watching
            if reading.done():
                reading.result()
        finally:
            watching.cancel()
            reading.cancel()
            await asyncio.gather(watching, reading, return_exceptions=True)


async def keep_learning(slow: SignalTable, runner: Runner | None, every_s: float, say: Say = print) -> None:
    """Hand the runner what is new in the table of slow series, until cancelled: looked for, read and computed on a
    thread, and read only of the instruments whose files changed.

    What cannot be read is told once, and tried again: the runner goes on with what it knows, until that is stale.
    """
    names, trouble = list(runner.instruments) if runner is not None and slow.names else [], ""
    seen: Stamps = {}
    while names and runner is not None:
        try:
            stamps = await asyncio.to_thread(_stamps, slow, names)
            changed = [name for name in names if stamps[name] != seen.get(name)]
            while changed and not runner.take_news(await asyncio.to_thread(_news, slow, runner, changed)):
                await asyncio.sleep(0)
            seen, trouble = stamps, ""
        except (OSError, StageError) as error:
            if not trouble:
                say(f"cannot read signals: {error}; going on with those that are known")
            trouble = str(error)
        await asyncio.sleep(every_s)


def slices(step: Step, bar_ns: int, from_ns: int = 0) -> Iterator[Step]:
    """A step cut where bars may close: at multiples of `bar_ns`, or after each receipt on volume bars (`bar_ns` 0).

    A market that is played fast hands over seconds at once; the runner takes them up as it would have in their time.
    Slices end in order and after `from_ns`, which is reached: an event older than that (a gap is told when it is
    found, which may be long after its end) is in the slice in which it was told.
    """
    events, first = step.events, 0
    while first < len(events):
        until_ns = from_ns = close_after(max(received_ns(events[first].event), from_ns), bar_ns)
        if until_ns > step.now_ns:
            break
        stop = first
        while stop < len(events) and received_ns(events[stop].event) < until_ns:
            stop += 1
        yield Step(until_ns, events[first:stop])
        first = stop
    yield Step(step.now_ns, events[first:])


def close_after(at_ns: int, bar_ns: int) -> int:
    """The first time after a receipt at which a bar may close."""
    return at_ns - at_ns % bar_ns + bar_ns if bar_ns else at_ns + 1


async def _steps(feeds: Sequence[Feed]) -> AsyncGenerator[Step, None]:
    """`merged`, as a generator that can be closed: a session that is cut short stops reading at once."""
    async for step in merged(feeds):
        yield step


async def _run(feeds: Sequence[Feed], runner: Runner, journal: Journal) -> None:
    async with aclosing(_steps(feeds)) as steps:
        async for step in steps:
            for part in slices(step, runner.bar_ns, runner.now_ns):
                in_hand_ns = time.perf_counter_ns()
                runner.feed(by_instrument(part.events, runner.instruments), part.now_ns, in_hand_ns)
            journal.flush()


def _stamps(slow: SignalTable, names: Sequence[str]) -> Stamps:
    return {name: slow.stamps([name]) for name in names}


def _news(slow: SignalTable, runner: Runner, names: Sequence[str]) -> list[News]:
    return runner.slow_news({name: slow.versions(name) for name in names}, runner.now_ns + _HEADROOM_NS)


async def _watch(feeds: Sequence[Feed], witness: Witness | None) -> None:
    if witness is not None:
        async with aclosing(_steps(feeds)) as steps:
            async for step in steps:
                witness.take(step)
