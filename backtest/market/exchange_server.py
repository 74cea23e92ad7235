"""The simulated exchange as a process: Binance USD-M and Bybit linear on one loopback port, WebSocket and REST.

Our own clients ask for the virtual clock and get a day in seconds; every other client sees the two venues' plain
protocols in real time. The market waits for its clients: it begins with the first one that listens, and never runs
ahead of the least of their clocks (backtest/market/pump.py).

With `--wall` it is a venue in the present: the market began when the server did and goes on whether anybody listens
or not, the venues' limits hold, and what the configuration's section `faults` asks for goes wrong.

    python -m backtest.market.exchange_server --stretch history      configuration as JSON on standard input
    python -m backtest.market.exchange_server --wall --port 9800 --config local.toml      on its own, until Ctrl-C
"""

import argparse
import asyncio
import itertools
import os
import stat
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from typing import Final, Literal

import msgspec
from websockets.asyncio.server import ServerConnection
from websockets.frames import CloseCode
from websockets.http11 import Request, Response

from backtest.market.exchange import Exchange
from backtest.market.faults import FaultInjector, Ledger
from backtest.market.limits import Limits
from backtest.market.local_server import (
    Answer,
    Handler,
    converse,
    failing,
    is_websocket,
    json_response,
    run_process,
    serve_until_stdin_closes,
    serve_until_told,
)
from backtest.market.pump import VIRTUAL_CLOCK, Outlet, Pump, WallClock
from backtest.market.query import Query
from backtest.market.rest import respond
from backtest.market.sessions import BYBIT, MOST_STREAMS, Session, answer, hangs_up, open_session
from backtest.market.simulate import Market, market_chunks
from backtest.market.tape import Tape
from core.cli import guarded
from core.config import DEFAULT_SYMBOLS, ROOT, Config, load
from core.units import NS_PER_MS

_OUTAGE_S: Final = 1.5  # of the books, when the venue restarts
_PORTS: Final = range(65_536)
_WALL_CHUNK_MINUTES: Final = 1 / 60  # a second: made and formatted in the pauses between two steps


async def serve_exchange(config: Config, stretch: Literal["history", "fresh"]) -> None:
    """Serve a stretch of the simulated market until the parent process is gone."""
    exchange = Exchange(market_chunks(config, stretch), latency_ns(config))
    pump = Pump(exchange, config.sim.speed)
    await serve_until_stdin_closes(pump, *service(exchange, pump))


async def serve_at_wall_clock(config: Config, port: int | None = None) -> None:
    """Serve a market that began just now until the parent process is gone; with a port (0: any), until Ctrl-C."""
    exchange = Exchange(wall_chunks(config), latency_ns(config))
    ledger = Ledger(ROOT / config.faults.ledger)
    ledger.write("begin", from_ns=exchange.start_ns, seed=config.seed)
    pump, injector = at_wall_clock(exchange, config, ledger)
    faults = asyncio.create_task(injector.run(pump))
    parts = service(exchange, pump, injector)
    await (serve_until_stdin_closes(pump, *parts) if port is None else serve_until_told(pump, *parts, port))
    faults.cancel()


def wall_chunks(config: Config) -> Iterator[list[Tape]]:
    """A market that began at the last whole second, without end."""
    began = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    sim = msgspec.structs.replace(config.sim, start=began)
    market = Market(sim, config.symbols or DEFAULT_SYMBOLS, config.seed)
    while True:
        yield market.chunk(_WALL_CHUNK_MINUTES)


def at_wall_clock(exchange: Exchange, config: Config, ledger: Ledger) -> tuple[Pump, FaultInjector]:
    """The pump of a market that began at the present, and who spoils what it sends."""

    def restart() -> None:
        exchange.go_down(BYBIT)
        asyncio.get_running_loop().call_later(_OUTAGE_S, come_back)

    def come_back() -> None:
        exchange.restart(BYBIT, pump.now_ns)
        for outlet in pump.outlets:
            _open_topics(exchange, outlet, pump.now_ns)

    injector = FaultInjector(config.faults, config.seed, ledger, restart)
    clock = WallClock(anchor_ns=exchange.start_ns, wall_ns=exchange.start_ns)
    pump = Pump(exchange, 1.0, clock, injector.spoil)
    return pump, injector


def service(exchange: Exchange, pump: Pump, injector: FaultInjector | None = None) -> tuple[Handler, Answer]:
    """The WebSocket handler and the HTTP answers of an exchange; with an injector, those of a venue in the present."""
    numbers = itertools.count(1)
    limits = Limits()

    async def reply(connection: ServerConnection, request: Request) -> Response | None:
        if is_websocket(request):
            if open_session(request.path, 0) is None:
                return json_response({"error": f"no venue listens at {request.path}"}, HTTPStatus.NOT_FOUND)
            return None
        if injector is None:
            status, body = respond(exchange, request.path, pump.now_ns)
            return json_response(body, status, {VIRTUAL_CLOCK: str(pump.now_ns)})
        verdict = limits.admit(Query(request.path, 0), time.monotonic())
        if verdict.status is not HTTPStatus.OK:
            return json_response(verdict.body, verdict.status, verdict.headers)
        age_ns = injector.book_age_ns(request.path)
        status, body = respond(exchange, request.path, pump.present_ns - age_ns)
        response = json_response(body, status, verdict.headers)
        fault = injector.rest(request.path)
        return await failing(connection, response, fault) if fault else response

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        session = open_session(connection.request.path, next(numbers))
        if session and len(session.topics) > MOST_STREAMS:
            await connection.close(CloseCode.POLICY_VIOLATION, f"at most {MOST_STREAMS} streams per connection")
            return
        outlet = Outlet(connection, session, pump.now_ns)
        outlet.listening = bool(session and session.topics)
        await converse(pump, outlet, hear)

    def hear(outlet: Outlet, message: str) -> None:
        session = outlet.session
        assert isinstance(session, Session)
        if injector and (why := hangs_up(session, time.monotonic())):
            injector.hang_up(outlet, CloseCode.POLICY_VIOLATION, why)
            return
        text, added = answer(session, message)
        outlet.say(text, pump.now_ns)
        for topic in added:
            if opening := exchange.opening(session, topic, pump.now_ns):
                outlet.say(opening, pump.now_ns)
        outlet.listening = bool(session.topics)

    return handler, reply


def _open_topics(exchange: Exchange, outlet: Outlet, now_ns: int) -> None:
    """Tell a client the state of what it hears, where the venue does so."""
    session = outlet.session
    assert isinstance(session, Session)
    for topic in session.heard:
        opening = exchange.opening(session, topic, now_ns) if topic.kind in ("depth", "quotes") else None
        if opening:
            outlet.say(opening, now_ns)


def latency_ns(config: Config) -> int:
    """From the venue to its clients."""
    return int(config.sim.feed_latency_ms * NS_PER_MS)


def main() -> int:
    parser = argparse.ArgumentParser(description="The simulated exchange; its configuration comes on standard input.")
    parser.add_argument("--stretch", choices=("history", "fresh"), default="history")
    parser.add_argument("--wall", action="store_true", help="a venue in the present, with the configured faults")
    parser.add_argument("--port", type=int, help="with --wall: serve on this port of 127.0.0.1, until Ctrl-C")
    parser.add_argument("--config", help="with --wall: the configuration from a TOML file, pipeline.toml without")
    given = parser.parse_args()
    if not given.wall:
        if given.port is not None or given.config is not None:
            parser.error("--port and --config are for a venue in the present: add --wall")
        return run_process(partial(serve_exchange, stretch=given.stretch))
    if given.port is None and given.config is None and _stdin_is_a_pipe():
        return run_process(serve_at_wall_clock)
    port = given.port or 0
    if port not in _PORTS:
        parser.error(f"--port: from 0 (any that is free) to 65535, was {port}")
    return guarded(lambda: asyncio.run(serve_at_wall_clock(load(given.config), port)))


def _stdin_is_a_pipe() -> bool:
    """Whether a configuration may come from there: our parent's is a pipe, a terminal or /dev/null has none."""
    return stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode)


if __name__ == "__main__":
    sys.exit(main())
