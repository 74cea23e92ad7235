"""A venue on loopback, in real time: it acknowledges, then sends a trade every 10 ms, ids rising over connections."""

import asyncio
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from core.config import Hosts
from core.servers import local_hosts

LIVE_URL = "wss://fstream.binance.com/market/stream"


def trade(number: int, now_ms: int | None = None) -> str:
    """An aggTrade frame of the combined stream, at `number` ms unless told otherwise."""
    at_ms = number if now_ms is None else now_ms
    data = {"e": "aggTrade", "E": at_ms, "s": "BTCUSDT", "a": number, "p": "1.5", "q": "1", "T": at_ms, "m": True}
    return json.dumps({"stream": "btcusdt@aggTrade", "data": data}, separators=(",", ":"))


@contextmanager
def local_venue() -> Iterator[Hosts]:
    """Serve Binance USD-M's `/market` streams for as long as the context is open; `/public` is acknowledged only."""
    numbers, ready, stop = itertools.count(1), threading.Event(), threading.Event()
    found: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        await socket.recv()
        await socket.send('{"result":null,"id":1}')
        try:
            while socket.request.path.startswith("/market"):
                await socket.send(trade(next(numbers)))
                await asyncio.sleep(0.01)
            await socket.wait_closed()
        except ConnectionClosed:
            return

    async def work() -> None:
        async with serve(handler, "127.0.0.1", 0) as running:
            found.append(f"127.0.0.1:{running.sockets[0].getsockname()[1]}")
            ready.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(work()))
    thread.start()
    ready.wait()
    try:
        yield local_hosts(found[0])
    finally:
        stop.set()
        thread.join()
