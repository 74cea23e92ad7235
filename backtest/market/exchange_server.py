"""The simulated exchange as a process: Binance USD-M and Bybit linear on one loopback port, WebSocket and REST.

Our own clients ask for the virtual clock and get a day in seconds; every other client sees the two venues' plain
protocols in real time. The market waits for its clients: it begins with the first one that listens, and never runs
ahead of the least of their clocks (backtest/market/pump.py).

    python -m backtest.market.exchange_server --stretch history      configuration as JSON on standard input
"""

import argparse
import itertools
import sys
from functools import partial
from http import HTTPStatus
from typing import Literal

from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from backtest.market.exchange import Exchange
from backtest.market.local_server import (
    Answer,
    Handler,
    converse,
    is_websocket,
    json_response,
    run_process,
    serve_until_stdin_closes,
)
from backtest.market.pump import VIRTUAL_CLOCK, Outlet, Pump
from backtest.market.rest import respond
from backtest.market.sessions import Session, answer, open_session
from backtest.market.simulate import market_chunks
from core.config import Config


async def serve_exchange(config: Config, stretch: Literal["history", "fresh"]) -> None:
    """Serve a stretch of the simulated market until the parent process is gone."""
    exchange = Exchange(market_chunks(config, stretch))
    pump = Pump(exchange, config.sim.speed)
    await serve_until_stdin_closes(pump, *service(exchange, pump))


def service(exchange: Exchange, pump: Pump) -> tuple[Handler, Answer]:
    """The WebSocket handler and the HTTP answers of an exchange."""
    numbers = itertools.count(1)

    def reply(connection: ServerConnection, request: Request) -> Response | None:
        if not is_websocket(request):
            status, body = respond(exchange, request.path, pump.now_ns)
            return json_response(body, status, {VIRTUAL_CLOCK: str(pump.now_ns)})
        if open_session(request.path, 0) is None:
            return json_response({"error": f"no venue listens at {request.path}"}, HTTPStatus.NOT_FOUND)
        return None

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        session = open_session(connection.request.path, next(numbers))
        outlet = Outlet(connection, session, pump.now_ns)
        outlet.listening = bool(session and session.topics)
        await converse(pump, outlet, hear)

    def hear(outlet: Outlet, message: str) -> None:
        session = outlet.session
        assert isinstance(session, Session)
        text, added = answer(session, message)
        outlet.say(text, pump.now_ns)
        for topic in added:
            if opening := exchange.opening(session, topic, pump.now_ns):
                outlet.say(opening, pump.now_ns)
        outlet.listening = bool(session.topics)

    return handler, reply


def main() -> int:
    parser = argparse.ArgumentParser(description="The simulated exchange; its configuration comes on standard input.")
    parser.add_argument("--stretch", choices=("history", "fresh"), default="history")
    return run_process(partial(serve_exchange, stretch=parser.parse_args().stretch))


if __name__ == "__main__":
    sys.exit(main())
