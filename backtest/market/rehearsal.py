"""A venue in the present inside this process, for rehearsing what may go wrong: it runs in a thread of its own, does
what it is told at once, and remembers all that it published.

with rehearsed(config) as venue:
    ...  # capture from venue.hosts
    venue.do(lambda: venue.hit_one(venue.injector.reset))
"""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from backtest.market.exchange import Exchange
from backtest.market.exchange_server import at_wall_clock, latency_ns, service, wall_chunks
from backtest.market.faults import FaultInjector, Ledger
from backtest.market.local_server import running
from backtest.market.pump import Outlet, Pump
from backtest.market.sessions import BINANCE, Session
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

    def hit_one(self, act: Callable[[Outlet], None], with_books: bool = False) -> None:
        """Do something to one connection, if there is one. For the venue's thread.

        `with_books`: to one whose loss makes REST snapshots necessary.
        """
        able = [outlet for outlet in self.connections() if not with_books or _needs_snapshots(outlet)]
        if able:
            act(able[int(self._random.integers(len(able)))])

    def acting(
        self, act: Callable[[], None] | None, every_s: float, first_s: float = 1.0
    ) -> AbstractContextManager[None]:
        """Do something in the venue's thread again and again while the context is open."""
        if act is None:
            return nullcontext()

        def work(over: threading.Event) -> None:
            wait_s = first_s
            while not over.wait(wait_s):
                self.do(act)
                wait_s = every_s

        return beside(work)


@contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Do something in a thread of its own while the context is open: it gets an event that is set when that ends. What
    it raises is raised at the end of the context.
    """
    over = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work, over)
        try:
            yield
        finally:
            over.set()
        working.result()


def _needs_snapshots(outlet: Outlet) -> bool:
    session = outlet.session
    return isinstance(session, Session) and session.venue == BINANCE and session.category == "public"


@contextmanager
def rehearsed(config: Config) -> Iterator[Rehearsal]:
    """A venue with the configured faults, for as long as the context is open."""
    started: Future[tuple[Rehearsal, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(config, started)), daemon=True)
    thread.start()
    venue, stop = started.result()
    try:
        yield venue
    finally:
        venue.do(stop.set)
        thread.join(10)


async def _serve(config: Config, started: "Future[tuple[Rehearsal, asyncio.Event]]") -> None:
    """The life of a venue's thread: from what it hands over to who started it, to the event that ends it."""
    stop = asyncio.Event()
    tapes: list[list[Tape]] = []
    try:
        exchange = Exchange(_kept(wall_chunks(config), tapes), latency_ns(config))
        pump, injector = at_wall_clock(exchange, config, Ledger())
        async with running(pump, *service(exchange, pump, injector)) as (address, _):
            timed = asyncio.create_task(injector.run(pump))
            loop, random = asyncio.get_running_loop(), np.random.default_rng(config.seed)
            started.set_result((Rehearsal(local_hosts(address), pump, injector, tapes, loop, random), stop))
            await stop.wait()
            timed.cancel()
    except BaseException as error:
        if started.done():
            raise
        started.set_exception(error)


def _kept(chunks: Iterator[list[Tape]], kept: list[list[Tape]]) -> Iterator[list[Tape]]:
    for tapes in chunks:
        kept.append(tapes)
        yield tapes
