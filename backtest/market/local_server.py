"""What the simulated exchange and the replay server share as processes: start, listen on loopback, answer, end.

A server reads its configuration as one line of JSON from standard input, prints `listening on 127.0.0.1:PORT`, and ends
when standard input closes: it lives no longer than the run that started it (core/servers.py). One that a user started
(`serve_until_told`) has a configuration file and a port instead, and ends on Ctrl-C.
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Final

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from backtest.market.pump import VIRTUAL_CLOCK, WRITE_BUFFER_BYTES, Outlet, Pump, clock_of
from core.cli import guarded
from core.config import Config, RestFault
from core.errors import ConfigError

LOOPBACK: Final = "127.0.0.1"
PING_S, PONG_S = 180, 600  # as Binance USD-M (exchange_protocols A.2); a client may be busy for long in virtual time
_LOOK_S: Final = 0.05
CLOSE_S: Final = 60  # a client may have much to read before it reaches the close frame

Handler = Callable[[ServerConnection], Awaitable[None]]
Answer = Callable[[ServerConnection, Request], Awaitable[Response | None] | Response | None]
Hear = Callable[[Outlet, str], None]
"""What a client's message does, clocks excepted."""


def config_from_stdin() -> Config:
    """The configuration that the parent process wrote as one line. Raises ConfigError if it is none."""
    line = sys.stdin.readline()
    try:
        return msgspec.json.decode(line, type=Config)
    except msgspec.MsgspecError as error:
        got = f"{line[:80]!r} ({error})" if line else "nothing"
        raise ConfigError(f"standard input: expected the configuration as one line of JSON, got {got}") from error


def run_process(serving: Callable[[Config], Coroutine[Any, Any, None]]) -> int:
    """The main of a server process: its exit code, with one clear message where it cannot start."""
    # Ctrl-C reaches the whole process group; whether we go on is the parent's business: it closes our standard input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return guarded(lambda: asyncio.run(serving(config_from_stdin())))


def _end_with_stdin() -> None:
    """End this process, whatever it is at, when the parent is gone or done: there is nothing to put in order.

    A thread reads, since standard input need not be a pipe.
    """

    def watch() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


async def converse(pump: Pump, outlet: Outlet, hear: Hear) -> None:
    """Serve one connection until it closes: clocks to the pump, everything else to `hear`."""
    await pump.add(outlet)
    try:
        async for message in outlet.connection:
            text = message if isinstance(message, str) else message.decode(errors="replace")
            clock_ns = clock_of(text) if outlet.virtual else None
            if clock_ns is None:
                hear(outlet, text)
            else:
                outlet.clock_ns = clock_ns
            pump.wake()
    except ConnectionClosed:
        return
    finally:
        pump.remove(outlet)


@asynccontextmanager
async def running(
    pump: Pump, handler: Handler, answer: Answer, port: int = 0
) -> AsyncIterator[tuple[str, "asyncio.Task[None]"]]:
    """A server on loopback while the context is open: its address, and the task that drives the pump.

    `port` 0: any that is free.

    `answer` responds to plain HTTP and refuses WebSocket paths, or gives None. Compression is off: it costs 30 us a
    frame.
    """
    server = await serve(
        handler,
        LOOPBACK,
        port,
        process_request=answer,
        select_subprotocol=lambda _, offered: VIRTUAL_CLOCK if VIRTUAL_CLOCK in offered and not pump.wall else None,
        compression=None,
        ping_interval=PING_S,
        ping_timeout=PONG_S,
        close_timeout=CLOSE_S,
        write_limit=WRITE_BUFFER_BYTES,
    )
    pumping = asyncio.create_task(pump.run())
    try:
        host, bound = next(iter(server.sockets)).getsockname()[:2]
        yield f"{host}:{bound}", pumping
    finally:
        pumping.cancel()
        for outlet in list(pump.outlets):
            outlet.connection.transport.abort()
        server.close()
        await server.wait_closed()


async def serve_until_stdin_closes(pump: Pump, handler: Handler, answer: Answer) -> None:
    """The life of a server process. Whatever goes wrong in the pump ends it."""
    async with running(pump, handler, answer) as (address, pumping):
        print(f"listening on {address}", flush=True)
        _end_with_stdin()
        await pumping
        await asyncio.Event().wait()  # for who comes late


async def serve_until_told(pump: Pump, handler: Handler, answer: Answer, port: int) -> None:
    """The life of a server that a user started: to Ctrl-C or SIGTERM. Whatever goes wrong in the pump ends it."""
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with running(pump, handler, answer, port) as (address, pumping):
        print(f"listening on {address}, until Ctrl-C", flush=True)
        waiting = asyncio.create_task(told.wait())
        await asyncio.wait((pumping, waiting), return_when=asyncio.FIRST_COMPLETED)
        if pumping.done():
            pumping.result()
        await waiting


def json_response(
    body: object, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """A JSON answer to a plain HTTP request; the connection closes after it."""
    content = body if isinstance(body, bytes) else msgspec.json.encode(body)
    fields: dict[str, Any] = {
        "Content-Type": "application/json",
        "Content-Length": str(len(content)),
        "Connection": "close",
        **(headers or {}),
    }
    return Response(status.value, status.phrase, Headers(fields), content)


_SAID: Final[dict[int, object]] = {
    HTTPStatus.FORBIDDEN: {"retCode": 10024, "retMsg": "The request was blocked by the firewall or your region."},
    HTTPStatus.IM_A_TEAPOT: {"code": -1003, "msg": "Way too many requests; IP banned."},
    HTTPStatus.TOO_MANY_REQUESTS: {"code": -1003, "msg": "Too many requests; please slow down."},
    HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS: {"code": 0, "msg": "Service unavailable from a restricted location."},
    HTTPStatus.INTERNAL_SERVER_ERROR: {"code": -1001, "msg": "Internal error; unable to process your request."},
    HTTPStatus.SERVICE_UNAVAILABLE: "Service Unavailable.",
}


async def failing(connection: ServerConnection, response: Response, fault: RestFault) -> Response:
    """A venue's answer that fails: a status with its words, none before the client goes, or a broken body."""
    while fault == "timeout" and not connection.transport.is_closing():
        await asyncio.sleep(_LOOK_S)
    if fault == "garbled":
        return json_response(response.body[: len(response.body) // 2])
    if fault == "cut":
        return Response(response.status_code, response.reason_phrase, response.headers, response.body[:-1])
    if isinstance(fault, int):
        waits = {"Retry-After": "1"} if fault in (HTTPStatus.IM_A_TEAPOT, HTTPStatus.TOO_MANY_REQUESTS) else {}
        return json_response(_SAID[fault], HTTPStatus(fault), waits)
    return response


def is_websocket(request: Request) -> bool:
    return "websocket" in request.headers.get("Upgrade", "").lower()
