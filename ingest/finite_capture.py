"""A capture that has an end: the simulated exchange or a recording, read on the virtual clock as fast as it goes."""

import asyncio
import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from core.config import DEFAULT_SYMBOLS, Config
from core.errors import StageError
from core.run_record import Stage
from core.servers import hosts
from core.units import NS_PER_HOUR, NS_PER_S
from ingest.events import Event
from ingest.feed import Feed
from ingest.feeds import make_feeds, opened
from ingest.rows import TableWriter

_LAST_FRAMES_S: Final = 60.0  # for the other connections to deliver what came before a broken line
_TICK_S: Final = 0.05


async def capture_to_the_end(config: Config, stage: Stage, begin: Callable[[Sequence[Feed]], None]) -> None:
    """Read all feeds to their end. `begin` is called when they are known and before anything is written.

    SIGTERM ends it as Ctrl-C does: half a market is not what was asked for. Tables are whole whichever way it ends.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    with hosts(config) as where:
        symbols = config.symbols or (() if config.source == "replay" else DEFAULT_SYMBOLS)
        say = partial(stage.say, keep=False)
        writer: TableWriter | None = None
        feeds = await make_feeds(
            config, where, symbols, say=say, behind=lambda: writer is not None and writer.is_behind
        )
        begin(feeds)  # only now: what cannot be served must not cost the tables that are there
        writer = TableWriter(config.root, config.capture.flush_rows, say=say)
        try:
            await _read(config, stage, feeds, writer)
        finally:
            writer.close()


async def _read(config: Config, stage: Stage, feeds: Sequence[Feed], writer: TableWriter) -> None:
    def sink(feed: Feed, recv_ns: int, events: list[Event]) -> None:
        if events:
            writer.add(feed.venue, events)

    async with opened(feeds):
        tasks = [asyncio.create_task(feed.run(sink)) for feed in feeds]
        tending = asyncio.create_task(_tend(config, stage, feeds, writer))
        try:
            await _all_of(tasks)
        finally:
            for each in (tending, *tasks):
                each.cancel()
            await asyncio.gather(tending, *tasks, return_exceptions=True)


async def _all_of(tasks: Sequence[asyncio.Task[None]]) -> None:
    """Wait for all. When the data of one are broken the others get some time to read what came before."""
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    if pending and all(isinstance(task.exception(), StageError | None) for task in done):
        await asyncio.wait(pending, timeout=_LAST_FRAMES_S)
    for task in done:
        task.result()


async def _tend(config: Config, stage: Stage, feeds: Sequence[Feed], writer: TableWriter) -> None:
    """Rows that are due go to disk, and the progress bar moves with the feeds' own time."""
    total_s = config.sim.hours * NS_PER_HOUR / NS_PER_S if config.source == "sim" else None
    with stage.progress("capture", total_s) as done:
        first_ns = 0
        while True:
            await asyncio.sleep(_TICK_S)
            writer.tick()
            now_ns = min(feed.now_ns for feed in feeds)
            first_ns = first_ns or now_ns
            done((now_ns - first_ns) / NS_PER_S)
