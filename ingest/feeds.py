"""The feeds of a run: made from the configuration, opened together, read apart or merged into one stream.

feeds = await make_feeds(config, hosts, symbols)
async with opened(feeds):
    async for step in merged(feeds):
        ...  # step.events: [(venue, event)], all that was received before step.now_ns
"""

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Final, NamedTuple

import msgspec

from core.config import Config, Hosts
from core.errors import StageError
from ingest.events import Event
from ingest.feed import Feed
from ingest.feed_options import FeedOptions
from ingest.merge import Merger, Tagged
from ingest.plans import plans
from ingest.receive_clock import ReceiveClock
from ingest.rest import RestClient, fetch
from ingest.transport import NEVER_NS
from ingest.venues import Plan, decoder_for

_COLLECT_EVERY: Final = 50_000  # new containers
_SWITCH_S: Final = 0.0005


async def make_feeds(
    config: Config,
    hosts: Hosts,
    symbols: Sequence[str],
    say: Callable[[str], None] = print,
    refill: bool = True,
    behind: Callable[[], bool] | None = None,
    clock: ReceiveClock | None = None,
) -> list[Feed]:
    """The feeds of a run, not yet open: what the replay server holds, or the subscriptions for `symbols`.

    `symbols` (`venue:SYMBOL`) may be empty in replay: whatever the frames hold. `refill` and `behind` as in
    FeedOptions: whether missed trades are fetched late, and whether writing is behind. `clock` is the one they share.
    """
    capture = config.capture
    is_replay = config.source == "replay"
    options = FeedOptions(
        clock=clock or ReceiveClock(),
        virtual=config.source != "live",
        connect_timeout_s=capture.connect_timeout_s,
        silence_s=capture.silence_s,
        only=frozenset(symbols) if is_replay and symbols else None,
        say=say,
        rest=RestClient(say=say),
        refill=refill,
        behind=behind,
        rotate_after_s=capture.rotate_after_s or None,
        overlap_s=capture.overlap_s,
    )
    if is_replay:
        wanted = await replay_plans(hosts)
    else:
        wanted = [(plan, plan.url) for plan in plans(symbols, capture, hosts)]
    return [Feed(plan, options, url) for plan, url in wanted]


class _Recording(msgspec.Struct, frozen=True):
    id: int
    url: str
    file: str


async def replay_plans(hosts: Hosts) -> list[tuple[Plan, str]]:
    """(connection, recorded URL) for each recording of the replay server. Raises StageError for an unknown venue."""
    listed = await fetch(f"{hosts.binance_rest}/replay/connections")
    found = []
    for recording in msgspec.json.decode(listed, type=list[_Recording]):
        try:
            decoder_for(recording.url)
        except ValueError as error:
            raise StageError(f"{recording.file}: {error}") from error
        plan = Plan(f"{hosts.binance_ws}/replay/{recording.id}", requests=(), feeds=(), requests_per_s=0.0)
        found.append((plan, recording.url))
    return found


@asynccontextmanager
async def opened(feeds: Sequence[Feed]) -> AsyncIterator[None]:
    """All feeds open and released together, since a virtual market starts when every client is ready."""
    try:
        await asyncio.gather(*(feed.open() for feed in feeds))
        await asyncio.gather(*(feed.release() for feed in feeds))
        yield
    finally:
        await asyncio.gather(*(feed.close() for feed in feeds))


@contextmanager
def tuned_interpreter(collect_every: int = _COLLECT_EVERY) -> Iterator[None]:
    """While frames flow: fewer runs of the garbage collector, as they make no cycles, and looking for some costs 10 %;
    none looks at what was there before. And threads get the interpreter sooner: a write of eight system calls beside a
    busy loop would wait 5 ms for each.
    """
    thresholds, interval_s = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(collect_every, *thresholds[1:])
    sys.setswitchinterval(_SWITCH_S)
    try:
        yield
    finally:
        sys.setswitchinterval(interval_s)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


class Step(NamedTuple):
    """What all connections together received before `now_ns`, in order, since the step before."""

    now_ns: int
    events: list[Tagged]


async def merged(feeds: Sequence[Feed], tick_s: float = 0.02) -> AsyncIterator[Step]:
    """Steps of open feeds, in the order (recv_ns, kind, arrival). Time goes on also where nothing is received.

    On the virtual clock a step ends at the least time that every connection has reached; with a venue at the present,
    every `tick_s`. The last step of a stream that ends has `now_ns` = the latest time of any connection + 1.
    """
    merger, changed = Merger(len(feeds)), asyncio.Event()
    number_of = {id(feed): number for number, feed in enumerate(feeds)}

    def sink(feed: Feed, recv_ns: int, events: list[Event]) -> None:
        merger.push(number_of[id(feed)], feed.venue, recv_ns, events)
        changed.set()

    async def run(feed: Feed) -> None:
        try:
            await feed.run(sink)
        finally:
            merger.close(number_of[id(feed)])
            changed.set()

    tasks = [asyncio.create_task(run(feed)) for feed in feeds]
    try:
        while not all(task.done() for task in tasks):
            await _wait(changed, None if all(feed.is_virtual for feed in feeds) else tick_s)
            for task in tasks:
                if task.done():
                    task.result()
            if not all(feed.is_virtual for feed in feeds):
                merger.advance(feeds[0].wall_ns())
            if merger.now_ns < NEVER_NS:
                yield Step(merger.now_ns, merger.pop())
        yield Step(max((feed.now_ns for feed in feeds), default=0) + 1, merger.pop())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _wait(changed: asyncio.Event, timeout_s: float | None) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await changed.wait()
    except TimeoutError:
        return
    finally:
        changed.clear()
