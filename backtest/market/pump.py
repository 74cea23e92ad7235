"""Market data out to WebSocket clients, in step with their clocks.

What both local servers share. A `Feed` holds what is to be said in a stretch of virtual time; the `Pump` asks how far
the clients' clocks and the wanted speed allow it to go, writes that stretch to every client, waits until the
slowest has room again, and goes on. Nothing is sent ahead of the least clock, and no more than a stretch is held.

A pump with a `WallClock` is a venue in the present instead: the feed goes on whether anybody listens or not, and who
does not read fast enough is cut off, as there.

Clients that negotiated the subprotocol `x-virtual-clock` (method.md section 1) get each frame as `<recv_ns> <frame>`,
watermarks as `<recv_ns> ` (nothing earlier will follow), and send `{"clock": ns}`. All others get plain frames in real
time: a connection of a stranger cannot know that days pass in seconds.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import ServerConnection
from websockets.protocol import State
from websockets.typing import Subprotocol

from core.units import NS_PER_MINUTE, NS_PER_MS, NS_PER_S

VIRTUAL_CLOCK: Final = Subprotocol("x-virtual-clock")
WATERMARK_NS: Final = 100 * NS_PER_MS
"""No connection is silent for longer in virtual time, except an only one at full speed: it has nothing to wait for."""
PACED_STEP_S: Final = 0.02  # of wall time: how finely a paced stream is cut, well under a depth interval
LATE_S: Final = 1.0  # a paced stream that is later than this (or has just begun) does not try to catch up
WRITE_BUFFER_BYTES: Final = 8 << 20, 4 << 20
"""Per connection: the pump waits when a client has left more than the first unread, until it is less than the second.
What is left keeps the client busy while the next chunk of the market is made."""
SILENCE_NS: Final = 10 * NS_PER_S  # a longer silence of the whole feed is crossed in one step, unless it is paced
LONGEST_STEP_NS: Final = NS_PER_MINUTE  # past the next frame: bounds what a step holds
END_OF_STREAM: Final = "end of stream"
_CLOSE_REASON_BYTES: Final = 123  # RFC 6455 section 5.5: 125 bytes of payload, two for the code


class FeedError(Exception):
    """The feed cannot go on; the message is what clients are told on closing (code 1011)."""


class Feed(Protocol):
    """What there is to send, in virtual receive times. It knows what each outlet asked for."""

    start_ns: int

    def edge(self, now_ns: int) -> int | None:
        """How far one step from `now_ns` can go, None at the end. Raises FeedError if the feed is broken."""

    def next_ns(self, now_ns: int) -> int:
        """The time of the next frame at or after `now_ns` if the feed can tell, else `now_ns`."""

    def frames(self, outlet: "Outlet", from_ns: int, until_ns: int) -> tuple[NDArray[np.int64], list[str]]:
        """Receive times and frames in [from_ns, until_ns) for one outlet, in order."""

    def passed(self, until_ns: int) -> None:
        """Every outlet has had its frames before `until_ns`: they can be forgotten."""

    def farewell(self) -> str:
        """What to add to the reason of an ordinary end, empty if nothing."""


class Outlet:
    """One client's connection. `session` is what the server's protocol keeps about it."""

    def __init__(self, connection: ServerConnection, session: object, start_ns: int) -> None:
        self.connection = connection
        self.session = session
        self.virtual = connection.subprotocol == VIRTUAL_CLOCK
        self.listening = False  # a plain client that asked for something: it sets the pace
        self.stopped = False  # nothing is written: a fault that was asked for
        self.clock_ns: int | None = None
        self._told_ns = start_ns

    @property
    def is_open(self) -> bool:
        return self.connection.state is State.OPEN

    def say(self, text: str, now_ns: int) -> None:
        """Send one message now: an acknowledgement, or a snapshot that a subscription begins with."""
        self._put([f"{now_ns} {text}" if self.virtual else text])

    def write(self, stamps: NDArray[np.int64], texts: list[str], until_ns: int, watermarks: bool) -> None:
        """Send the frames of a step that ends at `until_ns`; on a virtual connection with watermarks between them."""
        if self.virtual:
            texts = stamped(stamps, texts, self._told_ns, until_ns, watermarks)
            self._told_ns = until_ns
        if texts:
            self._put(texts)

    def _put(self, texts: Sequence[str]) -> None:
        # Whole messages straight to the transport: the library's send() takes 20 us each, its close and pong frames go
        # through the same transport as whole writes, so nothing can fall between the bytes of a message.
        if self.is_open and not self.stopped:
            self.connection.transport.write(packed(texts))

    def shed(self) -> None:
        """Cut off a client that has left too much unread."""
        if self.connection.transport.get_write_buffer_size() > WRITE_BUFFER_BYTES[0]:
            self.connection.transport.abort()

    async def drain(self) -> None:
        """Wait until the client has read enough. A connection that is lost meanwhile is no longer our concern."""
        try:
            await self.connection.drain()
        except OSError:
            return

    async def close(self, code: int, reason: str) -> None:
        await self.connection.close(code, fit_reason(reason))


def fit_reason(reason: str) -> str:
    """A close reason, cut to what a close frame holds."""
    return reason.encode()[:_CLOSE_REASON_BYTES].decode(errors="ignore")


class _Headers(dict[int, str]):
    """Header of an unmasked, final text frame by payload length (RFC 6455 section 5.2), as latin-1 text."""

    def __missing__(self, length: int) -> str:
        size = 1 if length < 126 else 2 if length < 1 << 16 else 8
        prefix = b"\x81" if size == 1 else b"\x81\x7e" if size == 2 else b"\x81\x7f"
        header = (prefix + length.to_bytes(size, "big")).decode("latin-1")
        self[length] = header
        return header


_HEADERS: Final = _Headers()


def packed(texts: Sequence[str]) -> bytes:
    """WebSocket text messages ready for the wire, one per text.

    Built as one latin-1 string, since an f-string and a join are the fastest loop that Python has: 0.2 us a message.
    """
    if not "".join(texts).isascii():
        texts = [text.encode().decode("latin-1") for text in texts]
    headers = _HEADERS
    return "".join([f"{headers[len(text)]}{text}" for text in texts]).encode("latin-1")


def stamped(
    stamps: NDArray[np.int64], texts: list[str], told_ns: int, until_ns: int, watermarks: bool = True
) -> list[str]:
    """Frames with their times before them, the last one a watermark at `until_ns`.

    With `watermarks` the client is told the time at least every WATERMARK_NS after `told_ns`, when it last was. Frames
    keep their order even where the recorded receive times step back.
    """
    prefixed = [f"{stamp} {text}" for stamp, text in zip(stamps.tolist(), texts, strict=True)]
    edges = np.concatenate(([told_ns], stamps, [until_ns]))
    if watermarks:
        edges = np.maximum.accumulate(edges)
        missing = np.maximum((np.diff(edges) - 1) // WATERMARK_NS, 0)
        gap = np.repeat(np.arange(missing.size), missing)
        nth = np.arange(gap.size) - np.repeat(np.cumsum(missing) - missing, missing) + 1
        for place, mark in zip(gap[::-1].tolist(), (edges[gap] + nth * WATERMARK_NS)[::-1].tolist(), strict=True):
            prefixed.insert(place, f"{mark} ")
    prefixed.append(f"{until_ns} ")
    return prefixed


class WallClock:
    """The present, in a feed's time, which was `anchor_ns` at `wall_ns`; else both are set by the first reader."""

    def __init__(self, speed: float = 1.0, anchor_ns: int | None = None, wall_ns: int | None = None) -> None:
        self.anchor_ns, self.wall_ns = anchor_ns, wall_ns
        self._speed = speed

    def limit_ns(self, now_ns: int, is_read: bool) -> int:
        """Where the feed should be; `now_ns`, where it is, as long as it has not begun."""
        if self.anchor_ns is None or self.wall_ns is None:
            if not is_read:
                return now_ns
            self.anchor_ns, self.wall_ns = now_ns, time.time_ns()
        return self.anchor_ns + int((time.time_ns() - self.wall_ns) * self._speed)


Spoil = Callable[[Outlet, list[str]], list[str]]
"""What becomes of the frames of a step on their way to one client (backtest/market/faults.py)."""


class Pump:
    """Drives a feed into its outlets. `speed` is times real time, 0 for as fast as the clients' clocks allow.

    `wall` makes it a venue in the present, which may `spoil` what it sends.
    """

    def __init__(self, feed: Feed, speed: float, wall: WallClock | None = None, spoil: Spoil | None = None) -> None:
        self.now_ns = feed.start_ns
        self.outlets: list[Outlet] = []
        self.wall = wall
        self._feed = feed
        self._speed = speed
        self._spoil = spoil
        self._ended: tuple[int, str] | None = None
        self._changed = asyncio.Event()
        self._deadline_s = 0.0

    @property
    def present_ns(self) -> int:
        """The feed's time: what was sent last, or the wall clock's."""
        return self._limit_ns() if self.wall is not None else self.now_ns

    async def add(self, outlet: Outlet) -> None:
        """Take on a client; after the end of the feed it is told so at once."""
        if self._ended:
            await outlet.close(*self._ended)
            return
        self.outlets.append(outlet)
        self._changed.set()

    def remove(self, outlet: Outlet) -> None:
        if outlet in self.outlets:
            self.outlets.remove(outlet)
        self._changed.set()

    def wake(self) -> None:
        """Something that may let the market go on has changed: a clock, a subscription."""
        self._changed.set()

    async def run(self) -> None:
        """Deliver the feed to its end, then close every connection."""
        try:
            while (edge_ns := self._feed.edge(self.now_ns)) is not None:
                await self._step(edge_ns)
            extra = self._feed.farewell()
            self._ended = 1000, f"{END_OF_STREAM}; {extra}" if extra else END_OF_STREAM
        except FeedError as error:
            self._ended = 1011, str(error)
        await asyncio.gather(*(outlet.close(*self._ended) for outlet in self.outlets))

    async def _step(self, edge_ns: int) -> None:
        """Go on to `edge_ns`, or to wherever clocks and pace end the step."""
        until_ns = await self._permitted(edge_ns)
        head_ns = self._feed.next_ns(self.now_ns)
        quiet = not self._pace() and head_ns > self.now_ns + SILENCE_NS
        until_ns = min(until_ns, head_ns if quiet else head_ns + LONGEST_STEP_NS)
        outlets = list(self.outlets)
        merged = self._pace() > 0 or sum(outlet.virtual for outlet in outlets) > 1
        for outlet in outlets:
            stamps, texts = self._feed.frames(outlet, self.now_ns, until_ns)
            if self._spoil is not None:
                texts = self._spoil(outlet, texts)
            outlet.write(stamps, texts, until_ns, watermarks=merged and not quiet)
        self._feed.passed(until_ns)
        self.now_ns = until_ns
        if self.wall is None:
            # All are written to before any is waited for: a client that merges its connections can always go on.
            await asyncio.gather(*(outlet.drain() for outlet in outlets))
        for outlet in outlets if self.wall else ():
            outlet.shed()
        await asyncio.sleep(0)

    async def _permitted(self, edge_ns: int) -> int:
        """The end of the next step, after `now_ns`; waits until there is one."""
        while True:
            pace = self._pace()
            if self.wall is not None and self._limit_ns() > self.now_ns:
                await self._until_next_tick()
            elif pace and self._limit_ns() > self.now_ns:
                await self._until_next_tick()
                edge_ns = min(edge_ns, self.now_ns + max(1, int(PACED_STEP_S * pace * NS_PER_S)))
            if (limit_ns := self._limit_ns()) > self.now_ns:
                return min(edge_ns, limit_ns)
            self._changed.clear()
            await self._changed.wait()

    def _limit_ns(self) -> int:
        """The least clock of all virtual clients; `now_ns` while nobody listens or one has not said its clock yet."""
        if self.wall is not None:
            return max(self.now_ns, self.wall.limit_ns(self.now_ns, any(outlet.listening for outlet in self.outlets)))
        clocks = [outlet.clock_ns or 0 for outlet in self.outlets if outlet.virtual]
        if clocks:
            return max(min(clocks), self.now_ns)
        return np.iinfo(np.int64).max if any(outlet.listening for outlet in self.outlets) else self.now_ns

    def _pace(self) -> float:
        """Times real time, 0 for unpaced: plain clients that listen are not overrun."""
        plain = self.wall is not None or any(outlet.listening and not outlet.virtual for outlet in self.outlets)
        return self._speed or (1.0 if plain else 0.0)

    async def _until_next_tick(self) -> None:
        """Sleep to the next paced step. Steps are counted from the last one, so delays do not add up."""
        time_s = asyncio.get_running_loop().time()
        self._deadline_s += PACED_STEP_S
        if self._deadline_s < time_s - LATE_S:
            self._deadline_s = time_s
        await asyncio.sleep(max(0.0, self._deadline_s - time_s))


class _Clock(msgspec.Struct):
    clock: int


def clock_of(message: str) -> int | None:
    """The clock that a client states, or None if the message is anything else."""
    if not message.startswith('{"clock"'):
        return None
    try:
        return msgspec.json.decode(message, type=_Clock).clock
    except msgspec.DecodeError:
        return None
