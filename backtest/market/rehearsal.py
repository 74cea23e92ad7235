"""A venue in the present inside this process, for rehearsing what may go wrong: it runs in a thread of its own, does
what it is told at once, and remembers all that it published.

with rehearsed(config) as venue:
    ...  # capture from venue.hosts
    venue.do(venue.reset_one)
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from backtest.market.exchange import Exchange
from backtest.market.exchange_server import at_wall_clock, latency_ns, service, wall_chunks
from backtest.market.faults import FaultInjector, Ledger
from backtest.market.local_server import running
from backtest.market.pump import Outlet, Pump
from backtest.market.tape import Tape
from core.config import Config, Hosts
from core.servers import local_hosts

T = TypeVar("T")


@dataclass
class Rehearsal:
    """A running venue. Its injector and its pump belong to its thread: use them through `do`."""

    hosts: Hosts
    pump: Pump
    injector: FaultInjector
    tapes: list[list[Tape]]
    """All chunks so far, the one at hand included."""
    _loop: asyncio.AbstractEventLoop
    _random: np.random.Generator

    @property
    def ledger(self) -> Ledger:
        return self.injector.ledger

    def do(self, act: Callable[[], T]) -> T:
        """Call something in the venue's thread and return what it returns."""

        async def call() -> T:
            return act()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def connections(self) -> list[Outlet]:
        """The connections of clients that have subscribed and are not under a fault."""
        return [outlet for outlet in self.pump.outlets if outlet.listening and outlet.is_open and not outlet.stopped]

    def hit_one(self, act: Callable[[Outlet], None]) -> bool:
        """Do something to one connection, if there is one. For the venue's thread."""
        able = self.connections()
        if able:
            act(able[int(self._random.integers(len(able)))])
        return bool(able)


@contextmanager
def rehearsed(config: Config) -> Iterator[Rehearsal]:
    """A venue with the configured faults, for as long as the context is open."""
    ready: threading.Event = threading.Event()
    started: list[Rehearsal] = []
    failed: list[BaseException] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        stop = asyncio.Event()
        tapes: list[list[Tape]] = []
        exchange = Exchange(_kept(wall_chunks(config), tapes), latency_ns(config))
        pump, injector = at_wall_clock(exchange, config, Ledger())
        async with running(pump, *service(exchange, pump, injector)) as (address, _):
            random = np.random.default_rng(config.seed)
            started.append(Rehearsal(local_hosts(address), pump, injector, tapes, loop, random))
            stops.append(lambda: loop.call_soon_threadsafe(stop.set))
            timed = asyncio.create_task(injector.run(pump))
            ready.set()
            await stop.wait()
            timed.cancel()

    def run() -> None:
        try:
            asyncio.run(serve())
        except BaseException as error:
            failed.append(error)
        finally:
            ready.set()

    stops: list[Callable[[], object]] = []
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    ready.wait()
    try:
        if failed:
            raise failed[0]
        yield started[0]
    finally:
        for stop in stops:
            stop()
        thread.join(10)


def _kept(chunks: Iterator[list[Tape]], kept: list[list[Tape]]) -> Iterator[list[Tape]]:
    for tapes in chunks:
        kept.append(tapes)
        yield tapes
