"""A connection that is kept up: frames in, decoded events out. Capture and the runner read through the same one.

On a venue it is watched, kept alive, made again when it breaks, and replaced with an overlap before the venue cuts it;
books and trades that it left out are fetched by REST. On the virtual clock of our own servers there is no wall time,
and a connection that breaks is made again.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Final

from core.errors import StageError
from ingest.events import Event, Trade
from ingest.feed_options import FeedOptions
from ingest.open_holes import OpenHole
from ingest.raw import RawWriter
from ingest.reception import Reception
from ingest.refill import Refill
from ingest.resync import Resync
from ingest.rotation import Overlap, Wish
from ingest.subscription import Subscription, first_of
from ingest.transport import (
    NEVER_NS,
    EndOfStream,
    Interrupted,
    Socket,
    Take,
    clock_message,
    open_socket,
    persistently,
)
from ingest.venues import Plan
from ingest.vigil import Vigil

_TICK_S: Final = 0.1
_WAIT_S = 0.05, 0.5  # before a reconnect, at random
_MOST_DOUBLINGS: Final = 6  # of that, while connections bring nothing: up to half a minute
_ROTATION_RETRY_S: Final = 30.0
_REFUSED_RETRY_S: Final = 2.0, 300.0  # after a reconnect that the venue refuses: at first, and at most
_ROTATION_JITTER: Final = 0.03  # connections that were opened together are not replaced together

Sink = Callable[["Feed", int, list[Event]], None]
"""Takes what a feed received up to a time; no events where only time went on."""


class Feed:
    """One connection with its decoder. `open`, `release`, then `run` until the stream ends or the task is cancelled.

    `recorded_url` is the venue's URL where the connection replays another one.
    """

    def __init__(self, plan: Plan, options: FeedOptions, recorded_url: str = "") -> None:
        self.plan = plan
        self.url = recorded_url or plan.url
        self.farewell = ""
        self._options = options
        self._reception = Reception(plan, self.url, options.clock, options.only, options.virtual)
        self.venue, self.decoder = self._reception.venue, self._reception.decoder
        self.counts = self._reception.counts
        rest = self._reception, options.rest, options.connect_timeout_s, options.say
        self._resync, self._refill = Resync(*rest), Refill(*rest)
        self._vigil = Vigil(self._reception, options.silence_s, self._wish)
        self._socket: Socket | None = None
        self._spare: Socket | None = None
        self._released = False
        self._paused = False
        self._opened_s = 0.0
        self._before_ns = self._began_ns = 0  # while a connection is opened: the last message before it; its begin
        self._fruitless = 0
        self._wished = Wish()
        self._ending = asyncio.Event()
        self._is_running = False

    @property
    def is_virtual(self) -> bool:
        """Whether the server stamps the frames."""
        return self._reception.is_virtual

    @property
    def up(self) -> Socket:
        """The connection in use, in a session."""
        assert self._socket is not None
        return self._socket

    @property
    def is_spared(self) -> bool:
        """Whether another connection is about to take over."""
        return self._spare is not None

    @property
    def refills(self) -> bool:
        """Whether trades that a stream left out are fetched, on a venue."""
        return bool(self.plan.trades_url) and self._options.refill

    @property
    def now_ns(self) -> int:
        """When the last message came."""
        return self._reception.now_ns

    def wall_ns(self) -> int:
        """The present on the receive clock that all feeds of a run share."""
        return self._options.clock.now_ns()

    def keep_raw(self, raw: RawWriter) -> None:
        """Write every frame as received from here on; `close` closes it."""
        self._reception.raw = raw

    def resume(self, last: Trade, holes: Sequence[OpenHole] = ()) -> None:
        """Before `open`: the last trade of a symbol that an earlier process wrote, if this feed `refills`, and the
        holes before it that are to be filled."""
        self._reception.resume(last, holes)

    async def open(self) -> None:
        """Connect and subscribe; on the virtual clock also fetch the snapshots, since the market waits for us."""
        self._socket = await self._connect(False, self._vigil.asked_anew)
        self._before_ns = 0
        if self.is_virtual:
            for symbol, _ in self.plan.depth_urls:
                await self._resync.snapshot(symbol)

    async def release(self) -> None:
        """Let the market go on, as far as this client is concerned. Only the virtual clock waits for it."""
        self._released = True
        if self.is_virtual and self._socket is not None:
            self._socket.send(clock_message(NEVER_NS))

    async def run(self, sink: Sink) -> None:
        """Read to the end of the stream; on a venue there is none, and a lost connection is made again, until `end`.

        Raises StageError where the data or the server are broken. Gaps that stay open are told before it returns.
        """
        self._reception.release_to(partial(sink, self))
        self._is_running = True
        try:
            await first_of(self._keep_up(), self._refill.run(), self._until_ending())
            await self._drop_sockets()  # or what comes meanwhile would have holes of its own
            await self._refill.drain()
        finally:
            self._is_running = False
            self._vigil.finish()
            self._refill.finish()
            self._reception.finish()

    def end(self) -> bool:
        """Have `run` read no more, fetch what is missing for a short time, and return. False: it does not run."""
        self._ending.set()
        return self._is_running

    async def close(self) -> None:
        """End the connection. REST connections are shared: close feeds together."""
        await self._drop_sockets()
        await self._options.rest.close()
        if self._reception.raw is not None:
            self._reception.raw.close()

    async def _until_ending(self) -> None:
        await self._ending.wait()

    async def _keep_up(self) -> None:
        while True:
            try:
                await self._session()
            except EndOfStream as end:
                self.farewell = str(end)
                return
            except Interrupted as interruption:
                await self._reopen(str(interruption))

    async def _session(self) -> None:
        """What there is to do while a connection is up. Ends by an exception."""
        works = [self._until_lost()]
        if self._options.behind is not None:
            works.append(self._throttle(self._options.behind))
        if self.plan.requests:
            works.append(self._resync.run(self._resubscribe))
            if not self.is_virtual:
                works += [self._vigil.run(self), self._ping(), self._rotations()]
        await first_of(*works)

    async def _until_lost(self) -> None:
        """Raises why the connection ended, unless another takes over."""
        while True:
            socket = self.up
            await asyncio.wait([socket.ended])
            if socket is self._socket and self._spare is None:
                raise socket.ended.result()
            await asyncio.sleep(_TICK_S)

    async def _connect(self, forever: bool, acknowledged: Callable[[], None]) -> Socket:
        """A connection on which the venue has acknowledged all requests; when it has, it calls `acknowledged`."""
        return await persistently(partial(self._attempt, acknowledged), self.url, forever, self._options.say)

    async def _attempt(self, acknowledged: Callable[[], None]) -> Socket:
        """Connect and subscribe once."""
        options, plan = self._options, self.plan

        def asked() -> None:
            self._opened_s, self._began_ns = time.monotonic(), self.now_ns
            acknowledged()

        def listen(is_virtual: bool) -> Take:
            self._before_ns = self.now_ns
            return subscription.counting(self._listen(is_virtual))

        await options.rest.limiter.acquire(plan.url)
        do_without = options.say if self._released and not options.virtual else None
        subscription = Subscription(plan, self.decoder, asked, do_without)
        socket = await open_socket(plan.url, options.connect_timeout_s, options.virtual, listen)
        try:
            await subscription.complete(socket, options.connect_timeout_s)
        except BaseException:
            await socket.close()
            raise
        return socket

    def _listen(self, is_virtual: bool) -> Take:
        """Who takes the messages of a new connection."""
        self._reception.is_virtual = is_virtual
        self.decoder.refills = self.refills and not is_virtual
        return self._reception.take_stamped if is_virtual else self._reception.take_now

    async def _reopen(self, why: str) -> None:
        """Make the connection again, as often as a venue permits, and tell what was missed."""
        options, reception, lost_ns = self._options, self._reception, self._before_ns or self.now_ns
        if not self.plan.requests:
            raise StageError(f"{self.plan.url} hung up: {why}: the replay is incomplete, run it again")
        options.say(f"{self.venue} {self.plan.url}: {why}; connecting again")
        reception.tell(self.decoder.interrupted(lost_ns))
        await self._drop_sockets()
        self._fruitless = 0 if lost_ns > self._began_ns else self._fruitless + 1
        await asyncio.sleep(random.uniform(*_WAIT_S) * 2 ** min(self._fruitless, _MOST_DOUBLINGS))
        self.counts.reconnects += 1
        lost = self._vigil.lost_with_all(lost_ns, self._wished.take()[1])

        def told() -> None:
            reception.lost(lost, f"connection lost: {why}")
            self._vigil.asked_anew()

        self._socket = await self._restore(told)
        self._before_ns = 0
        if self._released:
            await self.release()

    async def _restore(self, acknowledged: Callable[[], None]) -> Socket:
        """A connection in place of a lost one. What a venue refuses now, say a symbol that it took off its list, it may
        grant later, and is no reason to end what runs beside it."""
        pause_s, most_s = _REFUSED_RETRY_S
        while True:
            try:
                return await self._connect(not self._options.virtual, acknowledged)
            except StageError as error:
                if self._options.virtual:
                    raise
                self._options.say(f"{error}; asked again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, most_s)

    async def _drop_sockets(self) -> None:
        sockets, self._socket, self._spare = (self._socket, self._spare), None, None
        await asyncio.gather(*(socket.close() for socket in sockets if socket is not None))

    async def _ping(self) -> None:
        """The venue's own ping, where it wants one."""
        while True:
            await asyncio.sleep(self.plan.ping_s)
            if self.plan.ping:
                self.up.send(self.plan.ping)

    async def _throttle(self, behind: Callable[[], bool]) -> None:
        """Leave frames to the kernel, and so to the sender, while what was received waits to be written."""
        while True:
            paused = behind()
            if paused or self._paused:
                self._vigil.deafen()
                self.counts.paused += paused and not self._paused
                self._paused = paused
                for socket in (self._socket, self._spare):
                    if socket is not None:
                        socket.pause(paused)
            await asyncio.sleep(_TICK_S)

    def _resubscribe(self, why: str) -> None:
        """New subscriptions are wanted: on a connection that takes over, or in virtual time, on one made again."""
        if self.is_virtual:
            raise Interrupted(why)
        self._wish(why)

    def _wish(self, why: str, since_ns: Mapping[tuple[str, str], int] | None = None) -> None:
        """Ask for another connection, because of streams that were lost since some time, if any."""
        self._options.say(f"{self.venue} {self.plan.url}: {why}; another connection takes over")
        self._wished.make(why, since_ns or {})

    async def _rotations(self) -> None:
        """Let another connection take over before the venue cuts this one, and whenever that is asked for."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._life_left_s()):
                    await self._wished.wait()
            await self._rotate()

    def _life_left_s(self) -> float | None:
        life_s = self._options.rotate_after_s or self.plan.lifetime_s
        if life_s is None:
            return None
        return max(0.0, self._opened_s + life_s * random.uniform(1.0 - _ROTATION_JITTER, 1.0) - time.monotonic())

    async def _rotate(self) -> None:
        """Open a second connection; close the first when that carries what it does, and keep it if that fails."""
        old, (why, since_ns) = self.up, self._wished.take()
        try:
            new = self._spare = await self._connect(True, lambda: self._vigil.taken_over(since_ns, why))
        except asyncio.CancelledError:
            self._wished.make(why, since_ns)  # for the connection that is made again
            raise
        except StageError as error:
            self._options.say(f"{error}; the connection that is up is kept")
            self._before_ns = 0
            await asyncio.sleep(_ROTATION_RETRY_S)
            return
        overlap = Overlap(old, new)
        await overlap.until_taken_over(self._options.overlap_s)
        before_ns, self._before_ns, self._spare = self._before_ns, 0, None
        if new.ended.done():
            self._options.say(f"{self.venue} {self.plan.url}: {new.ended.result()}; the older connection is kept")
            await asyncio.sleep(random.uniform(1.0, 3.0))
            return
        if overlap.old_was_dead:
            lost = dict.fromkeys(self.plan.feeds, before_ns)
            self._reception.lost(lost, "the connection carried nothing any more", self._began_ns)
        self._socket = new
        self.counts.rotations += 1
        await old.close()
