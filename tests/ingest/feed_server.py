"""Small venues on loopback for tests of the feeds: one that plays a scene to each visit, one that sends to all."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from core.config import Capture, Hosts
from core.servers import local_hosts
from ingest.events import Event
from ingest.feed import Feed
from ingest.feed_options import FeedOptions
from ingest.feeds import opened
from ingest.plans import plans
from ingest.receive_clock import ReceiveClock
from ingest.transport import VIRTUAL_CLOCK
from ingest.venues import Plan

Play = Callable[[ServerConnection, int], Awaitable[None]]
SNAPSHOT = b'{"lastUpdateId":100,"E":1,"T":2,"bids":[["1.0","1"]],"asks":[["2.0","1"]]}'
ACK = '{"result":null,"id":1}'


def quote(update_id: int, symbol: str = "BTCUSDT") -> str:
    data = f'{{"e":"bookTicker","u":{update_id},"E":1,"T":1,"s":"{symbol}","b":"1.5","B":"1","a":"1.6","A":"1"}}'
    return f'{{"stream":"{symbol.lower()}@bookTicker","data":{data}}}'


def trade(number: int) -> str:
    data = f'{{"e":"aggTrade","E":1,"s":"BTCUSDT","a":{number},"p":"1.5","q":"1","T":1,"m":true}}'
    return f'{{"stream":"btcusdt@aggTrade","data":{data}}}'


def depth(first: int, last: int, prev: int) -> str:
    data = f'{{"e":"depthUpdate","E":1,"T":1,"s":"BTCUSDT","U":{first},"u":{last},"pu":{prev},"b":[],"a":[]}}'
    return f'{{"stream":"btcusdt@depth@500ms","data":{data}}}'


def rest_trades(first: int, last: int) -> bytes:
    """A page of aggregate trades as the venue's REST gives it."""
    rows = [{"a": n, "p": "1.5", "q": "1", "f": n, "l": n, "T": 1, "m": True} for n in range(first, last + 1)]
    return json.dumps(rows).encode()


@asynccontextmanager
async def server(play: Play, virtual: bool = True, *rest: bytes, status: int = 200) -> AsyncIterator[Hosts]:
    """A venue that acknowledges subscriptions, waits for the clock if virtual, then plays (socket, visit).

    `rest` are its answers to plain HTTP, the last of which stays.
    """
    visits, bodies = 0, list(rest or [SNAPSHOT])

    async def handler(socket: ServerConnection) -> None:
        nonlocal visits
        visits += 1
        visit = visits
        async for message in socket:
            request = json.loads(message)
            if "clock" not in request:
                ack = ACK if "method" in request else '{"success":true,"op":"subscribe"}'
                await socket.send(f"1000 {ack}" if virtual else ack)
            if "clock" in request or not virtual:
                await play(socket, visit)

    async with serve(
        handler,
        "127.0.0.1",
        0,
        process_request=lambda _, request: http_answer(request, status, bodies),
        select_subprotocol=lambda _, offered: VIRTUAL_CLOCK if virtual and VIRTUAL_CLOCK in offered else None,  # type: ignore[arg-type, return-value]
    ) as running:
        yield local_hosts(f"127.0.0.1:{running.sockets[0].getsockname()[1]}")


def http_answer(request: Request, status: int, bodies: list[bytes]) -> Response | None:
    """The next answer to a plain HTTP request; None lets a WebSocket handshake go on."""
    if request.headers.get("Upgrade"):
        return None
    body = bodies.pop(0) if len(bodies) > 1 else bodies[0]
    fields = Headers({"Content-Length": str(len(body)), "Connection": "close"})
    return Response(status, HTTPStatus(status).phrase, fields, body)


@dataclass
class Venue:
    """A venue in real time that sends what is pushed to everyone who has subscribed. Its faults are switched on it."""

    hosts: Hosts = field(default_factory=Hosts)
    sockets: list[ServerConnection] = field(default_factory=list)
    visits: int = 0
    asked: list[str] = field(default_factory=list)
    """REST calls."""
    rest: Callable[[str], tuple[int, bytes]] = lambda path: (200, SNAPSHOT)
    acks: Callable[[int, str], str | None] = lambda visit, request: ACK
    """What a request of a visit is answered with, None for nothing."""
    refuse_visits: tuple[int, ...] = ()
    """Visits that are answered with HTTP 503."""

    async def push(self, *frames: str) -> None:
        for socket in list(self.sockets):
            with suppress(ConnectionClosed):
                for frame in frames:
                    await socket.send(frame)

    async def handler(self, socket: ServerConnection) -> None:
        visit = self.visits
        try:
            async for message in socket:
                asked = json.loads(message)
                if ("method" in asked or asked.get("op") == "subscribe") and (answer := self.acks(visit, str(message))):
                    await socket.send(answer)
                    self.sockets.append(socket)
        except ConnectionClosed:
            return
        finally:
            if socket in self.sockets:
                self.sockets.remove(socket)

    def answer(self, _: ServerConnection, request: Request) -> Response | None:
        if not request.headers.get("Upgrade"):
            self.asked.append(request.path)
            status, body = self.rest(request.path)
            return http_answer(request, status, [body])
        self.visits += 1
        if self.visits in self.refuse_visits:
            return Response(503, "Service Unavailable", Headers({"Content-Length": "0"}), b"")
        return None


@asynccontextmanager
async def venue(**knobs: Any) -> AsyncIterator[Venue]:
    found = Venue(**knobs)
    async with serve(found.handler, "127.0.0.1", 0, process_request=found.answer) as running:
        found.hosts = local_hosts(f"127.0.0.1:{running.sockets[0].getsockname()[1]}")
        yield found


def public_feed(
    hosts: Hosts,
    virtual: bool = True,
    capture: Capture | None = None,
    patience_s: float | None = None,
    **options: Any,
) -> Feed:
    """The USD-M /public connection for BTCUSDT; `patience_s` is that with its best prices."""
    plan = plans(["binance_um:BTCUSDT"], capture or Capture(depth="off"), hosts)[0]
    silence_s = {("BTCUSDT", "top_of_book"): patience_s} if patience_s else {}
    return feed_of(replace(plan, silence_s=silence_s), virtual, **options)


def market_feed(hosts: Hosts, **options: Any) -> Feed:
    """The USD-M /market connection for BTCUSDT, in real time, with trades only."""
    plan = next(plan for plan in plans(["binance_um:BTCUSDT"], Capture(depth="off"), hosts) if "market" in plan.url)
    url = f"{hosts.binance_um_rest}/fapi/v1/aggTrades?symbol={{symbol}}&fromId={{from_id}}&limit=1000"
    plan = replace(plan, trades_url=url, silence_s={}, lifetime_s=None)
    return feed_of(plan, **options)


def feed_of(plan: Plan, virtual: bool = False, **options: Any) -> Feed:
    defaults: dict[str, Any] = {"connect_timeout_s": 2.0, "say": lambda text: None}
    return Feed(plan, FeedOptions(ReceiveClock(), virtual, **(defaults | options)))


async def read(feed: Feed, until: int | None = None) -> list[Event]:
    """All events of a feed, or the first `until` of them."""
    async with reading(feed) as events:
        await events.reached(until)
    return events


class Events(list[Event]):
    """What a running feed delivered so far."""

    def __init__(self) -> None:
        super().__init__()
        self.running: asyncio.Task[None] | None = None

    def of(self, kind: type) -> list[Any]:
        return [event for event in self if isinstance(event, kind)]

    async def reached(self, count: int | None, kind: type = object, within_s: float = 60.0) -> None:
        """Return when so many events of a kind came, or the feed has ended."""
        assert self.running is not None
        async with asyncio.timeout(within_s):
            while not self.running.done() and (count is None or len(self.of(kind)) < count):
                await asyncio.sleep(0.005)
        if self.running.done():
            self.running.result()


@asynccontextmanager
async def reading(feed: Feed) -> AsyncIterator[Events]:
    """A feed that is open and read while the context lasts; what it delivered is complete after it."""
    events = Events()
    async with opened([feed]):
        events.running = asyncio.create_task(feed.run(lambda _, recv_ns, received: events.extend(received)))
        try:
            yield events
        finally:
            events.running.cancel()
            await asyncio.gather(events.running, return_exceptions=True)


@asynccontextmanager
async def subscribed(found: Venue, feed: Feed) -> AsyncIterator[Events]:
    """The same of a feed of this venue, once it has been taken on."""
    async with reading(feed) as events:
        while not found.sockets:
            await asyncio.sleep(0.01)
        yield events


@contextmanager
def pushing(work: Awaitable[None]) -> Iterator[None]:
    """Something that goes on beside the test."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
