"""Serve raw captures again: every recorded frame, with its recorded receive time, to our own capture and to strangers.

`GET /replay/connections` lists the recordings, `ws://…/replay/<id>` plays one. All play on one clock, in the order of
`recv_ns` (ties: by id), so that a client which reads several gets them as they came. REST answers that were recorded
come in the stream as `<recv_ns> https://… <body>`, to clients on the virtual clock only. The files are streamed, plain
or `.zst`: memory does not grow with them.

With `--wall` the recordings are the venues that they were made of (backtest/market/playback.py): they begin with the
first client and go on whether anybody listens or not, and what the section `faults` asks for goes wrong.

    python -m backtest.market.replay_server --stretch history      configuration as JSON on standard input
"""

import argparse
import asyncio
import itertools
import sys
from http import HTTPStatus
from typing import Final

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from backtest.market.faults import FaultInjector, Ledger
from backtest.market.local_server import (
    Answer,
    Handler,
    converse,
    failing,
    is_websocket,
    json_response,
    run_process,
    serve_until_stdin_closes,
)
from backtest.market.playback import Player, RecordedAnswers, player_at
from backtest.market.pump import FeedError, Outlet, Pump, WallClock
from backtest.market.recording import Recording, open_recordings
from backtest.market.sessions import answer
from core.config import ROOT, Config

CONNECTIONS_PATH: Final = "/replay/connections"
PLAY_PATH: Final = "/replay/"
_NOT_HERE: Final = {"error": f"nothing is served here: see {CONNECTIONS_PATH}"}


class Replay:
    """The recordings as a feed: `outlet.session` is a Player."""

    def __init__(self, recordings: list[Recording]) -> None:
        self.recordings = recordings
        self.answers = RecordedAnswers()
        self.start_ns = min(recording.first_ns or 0 for recording in recordings)

    def edge(self, now_ns: int) -> int | None:
        """Up to where all recordings are read. A broken one ends the replay as soon as its good lines are sent."""
        for recording in self.recordings:
            recording.read_beyond(now_ns)
            if recording.failure and recording.first_ns is None:
                raise FeedError(recording.failure)
        bounding = [recording for recording in self.recordings if recording.failure or not recording.exhausted]
        ends = [recording.known_until_ns for recording in bounding or self.recordings]
        known = [end_ns for end_ns in ends if end_ns is not None]
        return min(known) if bounding else max(known, default=None)

    def next_ns(self, now_ns: int) -> int:
        """The first line that is still to come, over all recordings."""
        heads = (recording.first_ns for recording in self.recordings)
        return min((head_ns for head_ns in heads if head_ns is not None), default=now_ns)

    def frames(self, outlet: Outlet, from_ns: int, until_ns: int) -> tuple[NDArray[np.int64], list[str]]:
        """A client that comes late begins at the present: what was before has been forgotten.

        REST answers are among the lines for clients on the virtual clock, which plays one recording to each.
        """
        player = outlet.session
        assert isinstance(player, Player)
        found: list[tuple[int, int, str]] = []
        for number, recording in enumerate(self.recordings):
            if player.hears(recording.venue, number):
                lines = recording.before(until_ns)
                if outlet.virtual:
                    return np.array(lines.stamps, dtype=np.int64), lines.texts
                keep = player.heard(lines.texts)
                found += itertools.compress(zip(*lines, strict=True), keep)
        found.sort(key=lambda line: line[0])
        return np.array([line[1] for line in found], dtype=np.int64), [line[2] for line in found]

    def passed(self, until_ns: int) -> None:
        for recording in self.recordings:
            self.answers.keep(recording.before(until_ns).texts)
            recording.forget(until_ns)

    def farewell(self) -> str:
        """Where last lines were cut short."""
        return "; ".join(f"cut line {recording.cut}" for recording in self.recordings if recording.cut)


async def serve_replay(config: Config) -> None:
    """Serve `replay.path` until the parent process is gone. Raises StageError if there is nothing to serve."""
    replay = Replay(open_recordings(ROOT / config.replay.path))
    pump = Pump(replay, config.replay.speed)
    await serve_until_stdin_closes(pump, *service(replay, pump))


async def serve_at_wall_clock(config: Config) -> None:
    """Serve `replay.path` as venues, from the first client on, until the parent process is gone."""
    replay = Replay(open_recordings(ROOT / config.replay.path))
    injector = FaultInjector(config.faults, config.seed, Ledger(ROOT / config.faults.ledger))
    pump = Pump(replay, 1.0, WallClock(config.replay.speed or 1.0), injector.spoil)
    faults = asyncio.create_task(injector.run(pump))
    await serve_until_stdin_closes(pump, *service(replay, pump, injector))
    faults.cancel()


def service(replay: Replay, pump: Pump, injector: FaultInjector | None = None) -> tuple[Handler, Answer]:
    """The WebSocket handler and the HTTP answers of a replay; with an injector, those of venues."""
    numbers = itertools.count(1)

    async def reply(connection: ServerConnection, request: Request) -> Response | None:
        if is_websocket(request):
            known = player_of(replay, request.path, 0, as_venues=injector is not None)
            return None if known else json_response(_NOT_HERE, HTTPStatus.NOT_FOUND)
        if request.path == CONNECTIONS_PATH:
            return json_response(connections(replay))
        coming = itertools.chain.from_iterable(recording.held() for recording in replay.recordings)
        body = replay.answers.find(request.path, coming) if injector else None
        if injector is None or body is None:
            return json_response(_NOT_HERE, HTTPStatus.NOT_FOUND)
        fault = injector.rest(request.path)
        response = json_response(body.encode())
        return await failing(connection, response, fault) if fault else response

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        player = player_of(replay, connection.request.path, next(numbers), as_venues=injector is not None)
        assert player is not None
        outlet = Outlet(connection, player, pump.now_ns)
        outlet.listening = player.recording is not None or bool(player.session.topics)
        await converse(pump, outlet, hear)

    def hear(outlet: Outlet, text: str) -> None:
        player = outlet.session
        assert isinstance(player, Player)
        if player.recording is None:
            outlet.say(answer(player.session, text)[0], pump.now_ns)
            outlet.listening = bool(player.session.topics)

    return handler, reply


def player_of(replay: Replay, target: str, number: int, as_venues: bool) -> Player | None:
    """Who plays a request target: a recording by its id, or the venues' own paths. None for any other."""
    place = target.removeprefix(PLAY_PATH)
    if not target.startswith(PLAY_PATH):
        return player_at(target, number) if as_venues else None
    known = place.isascii() and place.isdecimal() and int(place) < len(replay.recordings)
    return Player("", recording=int(place)) if known else None


def connections(replay: Replay) -> list[dict[str, object]]:
    """What `GET /replay/connections` says."""
    return [
        {"id": number, "url": recording.url, "file": recording.name}
        for number, recording in enumerate(replay.recordings)
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Replays raw captures; its configuration comes on standard input.")
    parser.add_argument("--stretch", help="taken as by the simulated exchange, and of no meaning here")
    parser.add_argument("--wall", action="store_true", help="the recorded venues in the present, with faults")
    return run_process(serve_at_wall_clock if parser.parse_args().wall else serve_replay)


if __name__ == "__main__":
    sys.exit(main())
