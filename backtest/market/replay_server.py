"""Serve raw captures again: every recorded frame, with its recorded receive time, to our own capture and to strangers.

`GET /replay/connections` lists the recordings, `ws://…/replay/<id>` plays one. All play on one clock, in the order of
`recv_ns` (ties: by id), so that a client which reads several gets them as they came. REST answers that were recorded
come in the stream as `<recv_ns> https://… <body>`, to clients on the virtual clock only. The files are streamed, plain
or `.zst`: memory does not grow with them.

    python -m backtest.market.replay_server --stretch history      configuration as JSON on standard input
"""

import bisect
import itertools
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.server import ServerConnection
from websockets.http11 import Request, Response

from backtest.market.local_server import (
    Answer,
    Handler,
    converse,
    is_websocket,
    json_response,
    run_process,
    serve_until_stdin_closes,
)
from backtest.market.pump import FeedError, Outlet, Pump
from core.config import ROOT, Config
from core.errors import StageError
from ingest.raw import RawError, RawLine, RawReader, raw_files

BATCH_LINES: Final = 2_000  # of each recording held in memory
CONNECTIONS_PATH: Final = "/replay/connections"
PLAY_PATH: Final = "/replay/"


class Recording:
    """One raw capture file, read in batches as the replay needs them.

    Lines are ordered by the running maximum of their receive times, which step back where a clock was set: the order
    of the lines is kept, and so are the recorded times.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self.url = ""
        self.failure = ""
        self.exhausted = False
        self._reader = RawReader(path)
        self._lines = iter(self._reader)
        self._taken = 0
        self._order_ns: list[int] = []
        self._stamps: list[int] = []
        self._texts: list[str] = []
        self._latest_ns = 0
        self._fill()

    @property
    def cut(self) -> str:
        """Where the last line was cut short, as FILE:LINE, empty if it was not."""
        return self._reader.cut or ""

    @property
    def first_ns(self) -> int | None:
        """The order time of the first line still held."""
        return self._order_ns[0] if self._order_ns else None

    @property
    def known_until_ns(self) -> int | None:
        """All lines before this time are held; None if nothing is."""
        if not self._order_ns:
            return None
        return self._order_ns[-1] + 1 if self.exhausted else self._order_ns[-1]

    def read_beyond(self, now_ns: int) -> None:
        """Read until a line after `now_ns` is held, or to the end."""
        while not self.exhausted and (not self._order_ns or self._order_ns[-1] <= now_ns):
            self._fill()

    def before(self, until_ns: int, with_rest: bool) -> tuple[list[int], list[str]]:
        """Receive times and texts of the held lines before `until_ns`; REST answers among them only if asked for."""
        end = bisect.bisect_left(self._order_ns, until_ns)
        stamps, texts = self._stamps[:end], self._texts[:end]
        if with_rest or not any(text.startswith("http") for text in texts):
            return stamps, texts
        kept = [place for place, text in enumerate(texts) if not text.startswith("http")]
        return [stamps[place] for place in kept], [texts[place] for place in kept]

    def forget(self, until_ns: int) -> None:
        end = bisect.bisect_left(self._order_ns, until_ns)
        del self._order_ns[:end], self._stamps[:end], self._texts[:end]

    def _fill(self) -> None:
        """Read the next batch. A fault ends the recording; it is told when all that came before was sent."""
        before = self._taken
        try:
            for line in itertools.islice(self._lines, BATCH_LINES):
                self._take(line)
        except (RawError, OSError) as error:
            self.failure = str(error)
        self.exhausted = bool(self.failure) or self._taken - before < BATCH_LINES

    def _take(self, line: RawLine) -> None:
        is_rest = line.url.startswith("http")
        if not is_rest:
            self._check_url(line.url)
        self._taken += 1
        self._latest_ns = max(self._latest_ns, line.recv_ns)
        self._order_ns.append(self._latest_ns)
        self._stamps.append(line.recv_ns)
        self._texts.append(f"{line.url} {line.frame}" if is_rest else line.frame)

    def _check_url(self, url: str) -> None:
        """A file is one connection: frames of another would go to the wrong decoder."""
        self.url = self.url or url
        if _endpoint(url) != _endpoint(self.url):
            why = f"frames of {_endpoint(url)} among those of {_endpoint(self.url)}: a raw capture is one connection"
            raise RawError(f"{self.name}:{self._taken + 1}", why)


def _endpoint(url: str) -> str:
    return url.split("?", 1)[0]


def open_recordings(folder: Path) -> list[Recording]:
    """The recordings of a folder that hold at least one line, in the order of their names.

    Raises StageError where there is nothing to replay or a file is not a raw capture from its first line on.
    """
    recordings = [Recording(path) for path in raw_files(folder)]
    for recording in recordings:
        if recording.failure and recording.first_ns is None:
            raise StageError(f"replay.path: {recording.failure}")
    held = [recording for recording in recordings if recording.first_ns is not None]
    if not held:
        raise StageError(f"replay.path: no frame in {folder}: its {len(recordings)} files are empty")
    return held


class Replay:
    """The recordings as a feed: `outlet.session` is the Recording that the client plays."""

    def __init__(self, recordings: list[Recording]) -> None:
        self.recordings = recordings
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
        """A client that comes late begins at the present: what was before has been forgotten."""
        recording = outlet.session
        assert isinstance(recording, Recording)
        stamps, texts = recording.before(until_ns, with_rest=outlet.virtual)
        return np.array(stamps, dtype=np.int64), texts

    def passed(self, until_ns: int) -> None:
        for recording in self.recordings:
            recording.forget(until_ns)

    def farewell(self) -> str:
        """Where last lines were cut short."""
        return "; ".join(f"cut line {recording.cut}" for recording in self.recordings if recording.cut)


async def serve_replay(config: Config) -> None:
    """Serve `replay.path` until the parent process is gone. Raises StageError if there is nothing to serve."""
    replay = Replay(open_recordings(ROOT / config.replay.path))
    pump = Pump(replay, config.replay.speed)
    await serve_until_stdin_closes(pump, *service(replay, pump))


def service(replay: Replay, pump: Pump) -> tuple[Handler, Answer]:
    """The WebSocket handler and the HTTP answers of a replay."""

    def answer(connection: ServerConnection, request: Request) -> Response | None:
        if request.path == CONNECTIONS_PATH:
            return json_response(connections(replay))
        if is_websocket(request) and recording_of(replay, request.path):
            return None
        return json_response({"error": f"{request.path}: see {CONNECTIONS_PATH}"}, HTTPStatus.NOT_FOUND)

    async def handler(connection: ServerConnection) -> None:
        assert connection.request is not None
        outlet = Outlet(connection, recording_of(replay, connection.request.path), pump.now_ns)
        outlet.listening = True
        await converse(pump, outlet, hear=lambda outlet, text: None)

    return handler, answer


def connections(replay: Replay) -> list[dict[str, object]]:
    """What `GET /replay/connections` says."""
    return [
        {"id": number, "url": recording.url, "file": recording.name}
        for number, recording in enumerate(replay.recordings)
    ]


def recording_of(replay: Replay, path: str) -> Recording | None:
    """The recording that a path plays, None if there is no such one."""
    number = path.removeprefix(PLAY_PATH)
    known = path.startswith(PLAY_PATH) and number.isdecimal() and int(number) < len(replay.recordings)
    return replay.recordings[int(number)] if known else None


if __name__ == "__main__":
    sys.exit(run_process(serve_replay))
