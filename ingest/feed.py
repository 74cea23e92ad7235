"""A connection that is kept up: frames in, decoded events out. Capture and the runner read through the same one."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from websockets.exceptions import ConnectionClosed

from core.errors import StageError
from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.units import NS_PER_MS
from ingest.events import BookUpdate, DecodeError, Event, Gap, Kline, Liquidation, Mark, Quote, Trade
from ingest.raw import RawWriter
from ingest.receive_clock import ReceiveClock, Silence
from ingest.rest import fetch
from ingest.transport import (
    NEVER_NS,
    VIRTUAL_CLOCK,
    EndOfStream,
    Interrupted,
    PushSocket,
    clock_message,
    closing,
    open_socket,
    persistently,
    send_requests,
)
from ingest.venues import Plan, decoder_for

TABLE_OF: Final[dict[type, str]] = {
    Quote: TOP_OF_BOOK.name,
    Trade: TRADES.name,
    BookUpdate: BOOK_DELTAS.name,
    Liquidation: LIQUIDATIONS.name,
    Mark: MARK_PRICES.name,
    Kline: KLINES.name,
}
_PING_S: Final = 20.0  # Bybit's own ping, in JSON (exchange_protocols.md C.2)
_TICK_S: Final = 0.25
_RESYNC_S: Final = (1.0, 60.0)  # between two snapshots of one symbol: first, and at most
_BOOK_PATIENCE_S: Final = 5.0  # until a book that only a new subscription can mend costs one
_SETTLED_S: Final = 30.0  # a session shorter than this is followed by a longer wait

_NOTHING: Final[list[Event]] = []
_REST: Final = b"h"  # a recorded REST answer begins with its URL, a frame with a bracket
_MAX_SAMPLES: Final = 20  # undecodable frames kept per connection

Sink = Callable[["Feed", int, list[Event]], None]
"""Takes what a feed received up to a time; no events where only time went on."""


class Sample(NamedTuple):
    """A frame that did not decode, for the log."""

    recv_ns: int
    url: str
    why: str
    frame: str


@dataclass
class Counts:
    """What a feed has seen."""

    frames: int = 0
    undecoded: int = 0
    reconnects: int = 0
    samples: list[Sample] = field(default_factory=list)


@dataclass(frozen=True)
class FeedOptions:
    """What all feeds of a run share. `virtual` offers the virtual clock, which only our own servers accept."""

    clock: ReceiveClock
    virtual: bool
    connect_timeout_s: float = 10.0
    silence_s: float = 10.0
    only: frozenset[str] | None = None
    """`venue:SYMBOL`s to let through; None for all."""
    say: Callable[[str], None] = print


class Feed:
    """One connection with its decoder. `open`, `release`, then `run` until the stream ends or the task is cancelled.

    `recorded_url` is the venue's URL where the connection replays another one.
    """

    def __init__(self, plan: Plan, options: FeedOptions, recorded_url: str = "") -> None:
        self.plan = plan
        self.url = recorded_url or plan.url
        self.venue, self.decoder = decoder_for(self.url)
        self._decode = self.decoder.decode
        self.counts = Counts()
        self.farewell = ""
        self.now_ns = 0
        self._options = options
        self._only = options.only
        self._raw: RawWriter | None = None
        self._socket: PushSocket | None = None
        self._is_virtual = options.virtual
        self._early: list[tuple[int, list[Event]]] = []
        self._released = False
        self._steps_seen = len(options.clock.steps)
        lively = [stream for stream in plan.feeds if stream[1] in (TOP_OF_BOOK.name, TRADES.name)]
        self._silence = Silence(lively, options.silence_s, time.monotonic())
        self._heard_s = time.monotonic()
        self._resync_s: dict[str, tuple[float, float]] = {}

    @property
    def is_virtual(self) -> bool:
        """Whether the server stamps the frames."""
        return self._is_virtual

    def wall_ns(self) -> int:
        """The present on the receive clock that all feeds of a run share."""
        return self._options.clock.now_ns()

    def keep_raw(self, raw: RawWriter) -> None:
        """Write every frame as received from here on; `close` closes it."""
        self._raw = raw

    async def open(self) -> None:
        """Connect and subscribe; on the virtual clock also fetch the snapshots, since the market waits for us."""
        await persistently(self._attempt, self.url, forever=False, say=self._options.say)
        if self._is_virtual:
            for symbol, _ in self.plan.depth_urls:
                await self._snapshot(symbol, self._hold)

    async def release(self) -> None:
        """Let the market go on, as far as this client is concerned. Only the virtual clock waits for it."""
        self._released = True
        if self._is_virtual and self._socket is not None:
            await self._socket.send(clock_message(NEVER_NS))

    async def run(self, sink: Sink) -> None:
        """Read to the end of the stream; on a venue there is none, and a lost connection is made again.

        Raises StageError where the data or the server are broken. Gaps that stay open are told before it returns.
        """
        try:
            while True:
                began_s = time.monotonic()
                try:
                    await self._session(sink)
                except EndOfStream as end:
                    self.farewell = str(end)
                    return
                except Interrupted as interruption:
                    await self._reopen(str(interruption), began_s, sink)
        finally:
            sink(self, self.now_ns, self.decoder.finish(self.now_ns))

    async def close(self) -> None:
        if self._socket is not None:
            await self._socket.close()
        if self._raw is not None:
            self._raw.close()

    async def _attempt(self) -> None:
        """Connect and subscribe once."""
        options = self._options
        socket = self._socket = await open_socket(self.plan.url, options.connect_timeout_s, options.virtual)
        self._is_virtual = socket.subprotocol == VIRTUAL_CLOCK
        self._heard_s = time.monotonic()
        self.decoder.refused.clear()
        try:
            await send_requests(socket, self.plan.requests, 0.0 if options.virtual else self.plan.requests_per_s)
            async with asyncio.timeout(options.connect_timeout_s):
                await self._until_acknowledged(socket, len(self.plan.requests))
        except BaseException:
            await socket.close()
            raise

    async def _until_acknowledged(self, socket: PushSocket, requests: int) -> None:
        """Read until the venue has answered all requests; market frames in between are kept for `run`."""
        ignored, before = self.decoder.ignored, self.decoder.ignored["ack"]
        receive = self._receive_stamped if self._is_virtual else self._receive_now
        while ignored["ack"] - before < requests:
            self._hold(self, *receive(await socket.recv(decode=False)))
            if self.decoder.refused:
                raise StageError(f"{self.plan.url} refused a subscription: {self.decoder.refused[0]}: check `symbols`")

    def _hold(self, feed: "Feed", recv_ns: int, events: list[Event]) -> None:
        """The sink while there is none yet."""
        self._early.append((recv_ns, events))

    async def _session(self, sink: Sink) -> None:
        """Read until the connection ends, with what keeps it alive beside it. Ends by an exception."""
        for recv_ns, events in self._early:
            sink(self, recv_ns, events)
        self._early.clear()
        work: list[Awaitable[None]] = [self._read(sink)]
        if self.plan.requests:
            work.append(self._mend(sink))
            if not self._is_virtual:
                work += [self._watch(), self._ping()]
        tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def _read(self, sink: Sink) -> None:
        """Take messages as the socket parses them, those that were queued before first. Ends by an exception."""
        socket = self._socket
        assert socket is not None
        receive = self._receive_stamped if self._is_virtual else self._receive_now
        failed: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def take(message: bytes) -> None:
            if not failed.done():
                try:
                    recv_ns, events = receive(message)
                    sink(self, recv_ns, events)
                except Exception as error:  # we are called by the socket's parser: whoever runs this feed gets it
                    failed.set_exception(error)

        newer: list[bytes] = []
        socket.hand_over(newer.append)
        for message in (*await socket.queued(), *newer):
            take(message)
        socket.hand_over(take)
        closed: asyncio.Future[Any] = asyncio.ensure_future(socket.recv(decode=False))
        ends = [failed, closed]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            next(end for end in ends if end.done()).result()
        except ConnectionClosed as error:
            raise closing(error, self._is_virtual) from error
        finally:
            socket.hand_over(lambda message: None)
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)

    def _receive_stamped(self, message: bytes) -> tuple[int, list[Event]]:
        """(receive time, events) of a frame with its time, or of a watermark."""
        stamp, _, frame = message.partition(b" ")
        try:
            self.now_ns = recv_ns = int(stamp)
        except ValueError as error:
            raise StageError(f"{self.plan.url} broke the virtual clock's protocol: {message[:80]!r}") from error
        return recv_ns, self._take(frame, recv_ns) if frame else _NOTHING

    def _receive_now(self, message: bytes) -> tuple[int, list[Event]]:
        """A venue's frame: it is stamped now, and tells that its streams are alive."""
        clock = self._options.clock
        recv_ns, self._heard_s = clock.now_ns(), time.monotonic()
        events = self._take(message, recv_ns)
        for event in events:
            self._silence.heard((event.symbol, TABLE_OF.get(type(event), "")), self._heard_s)
        if len(clock.steps) != self._steps_seen:
            self._steps_seen, (at_ns, step_ns) = len(clock.steps), clock.steps[-1]
            events = [*self._gaps(self.now_ns or at_ns, at_ns, f"clock set by {step_ns / NS_PER_MS:+.0f} ms"), *events]
        self.now_ns = recv_ns
        return recv_ns, events

    def _take(self, frame: bytes, recv_ns: int) -> list[Event]:
        """Decode one frame or recorded REST answer (`https://… body`). What does not decode is counted and sampled."""
        self.counts.frames += 1
        url, body = self.url, frame
        try:
            if frame[:1] != _REST:
                events = self._decode(frame, recv_ns)
            else:
                head, _, body = frame.partition(b" ")
                url = head.decode()
                events = self.decoder.decode_rest(url, body, recv_ns)
        except (DecodeError, UnicodeDecodeError) as error:
            self._sample(recv_ns, url, str(error), body)
            events = []
        if self._raw is not None:
            self._raw.write(recv_ns, url, body)
        if self._only is not None:
            events = [event for event in events if f"{self.venue}:{event.symbol}" in self._only]
        return events

    def _sample(self, recv_ns: int, url: str, why: str, frame: bytes) -> None:
        self.counts.undecoded += 1
        if len(self.counts.samples) < _MAX_SAMPLES:
            self.counts.samples.append(Sample(recv_ns, url, why, frame[:2000].decode(errors="replace")))

    def _gaps(self, from_ns: int, to_ns: int, reason: str) -> list[Event]:
        """A gap in all that this connection feeds."""
        return [Gap(symbol, table, from_ns, to_ns, reason, False) for symbol, table in self.plan.feeds]

    async def _reopen(self, why: str, began_s: float, sink: Sink) -> None:
        """Make the connection again, as often as a venue permits, and tell what was missed."""
        options = self._options
        if not self.plan.requests:
            raise StageError(f"{self.plan.url} hung up: {why}: the replay is incomplete, run it again")
        options.say(f"{self.venue} {self.plan.url}: {why}; connecting again")
        lost_ns = self.now_ns
        sink(self, lost_ns, self.decoder.interrupted(lost_ns))
        if self._socket is not None:
            await self._socket.close()
        settled = time.monotonic() - began_s > _SETTLED_S
        await asyncio.sleep(random.uniform(0.05, 0.5) if settled or options.virtual else random.uniform(1.0, 3.0))
        self.counts.reconnects += 1
        await persistently(self._attempt, self.url, forever=not options.virtual, say=options.say)
        if self._released:
            await self.release()
        self._early.insert(0, (self.now_ns, self._gaps(lost_ns, self.now_ns, f"connection lost: {why}")))

    async def _mend(self, sink: Sink) -> None:
        """Give books that have no snapshot one: by REST, or by a new subscription where only that brings it."""
        urls = dict(self.plan.depth_urls)
        waiting_since_s = time.monotonic()
        while True:
            await asyncio.sleep(_TICK_S)
            wanting = self.decoder.wants_snapshot
            if not wanting:
                waiting_since_s = time.monotonic()
            elif not urls and time.monotonic() - waiting_since_s > _BOOK_PATIENCE_S:
                raise Interrupted(f"the book of {wanting[0]} does not follow on")
            for symbol in wanting:
                if symbol in urls and self._resync_is_due(symbol):
                    await self._snapshot(symbol, sink)

    def _resync_is_due(self, symbol: str) -> bool:
        """True at most once per pause, which doubles up to a minute: a snapshot costs 20 of 2,400 weights."""
        now_s = time.monotonic()
        due_s, pause_s = self._resync_s.get(symbol, (0.0, _RESYNC_S[0]))
        if now_s < due_s:
            return False
        self._resync_s[symbol] = now_s + pause_s, min(2 * pause_s, _RESYNC_S[1])
        return True

    async def _snapshot(self, symbol: str, sink: Sink) -> None:
        """Fetch a depth snapshot. Without one there is no book, and `gaps` says so; everything else goes on."""
        url = dict(self.plan.depth_urls)[symbol]
        try:
            body = await fetch(url, self._options.connect_timeout_s)
        except StageError as error:
            self._options.say(f"no snapshot for the book of {self.venue}:{symbol}: {error}")
            return
        recv_ns = self.now_ns if self._is_virtual else self._options.clock.now_ns()
        self.now_ns = recv_ns
        sink(self, recv_ns, self._take(url.encode() + b" " + body, recv_ns))

    async def _watch(self) -> None:
        """Ends the session when the connection, or a stream of it that should not be, is silent."""
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = time.monotonic()
            if now_s - self._heard_s > self._options.silence_s:
                raise Interrupted(f"silent for {self._options.silence_s:g} s")
            if overdue := self._silence.overdue(now_s):
                (symbol, table), patience_s = overdue
                raise Interrupted(f"{table} of {symbol} silent for {patience_s:g} s")

    async def _ping(self) -> None:
        """The venue's own ping, if it wants one."""
        assert self._socket is not None
        while True:
            await asyncio.sleep(_PING_S)
            if self.plan.ping:
                try:
                    await self._socket.send(self.plan.ping)
                except ConnectionClosed as error:
                    raise closing(error, self._is_virtual) from error
