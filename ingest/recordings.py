"""Raw captures to event tables without a server in between: the same decoders and bookkeeping, as fast as files can be
read. Where there are so many frames that compiling pays, those of Binance's futures are decoded by runs
(ingest/frame_runs.py); spot's quotes have no time of the venue, and what is assumed depends on each frame before.

The tables are those that a capture from the replay server makes of the same files; tests compare them.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Final

from core.config import ROOT, Config
from core.errors import StageError
from core.plain_rows import PlainRows
from core.run_record import Stage
from ingest.binance import BinanceDecoder
from ingest.events import Event
from ingest.frame_runs import FrameRuns
from ingest.raw import RawError, RawLine, RawReader, RawWriter, connection_lines, raw_files
from ingest.receive_clock import ReceiveClock
from ingest.reception import Reception
from ingest.rows import TableWriter
from ingest.venues import Plan

_RUN: Final = 8_192  # frames at a time
BY_RUNS: Final = ("binance_um", "binance_cm")
WORTH_COMPILING_BYTES: Final = 64 * 2**20
"""Of recordings, as they are on disk: some 1.3 million frames. The kernels of runs take 10 to 30 s to compile, once
after an update, and 2 s to load."""


class RecordedFeed:
    """A raw capture of one connection, as what it says is counted and told (ingest/capture_report.py)."""

    def __init__(self, path: Path, only: frozenset[str] | None) -> None:
        self.name = path.name
        self.failure = ""
        self._reader = RawReader(path)
        self._lines = self._good_lines()
        self._first = _up_to_a_frame(self._lines)
        if self.failure and not self._first:
            raise StageError(f"replay.path: {self.failure}")
        self.url = self._first[-1].url if self._first else ""
        try:
            self._reception = Reception(Plan(self.url, (), (), 0.0), self.url, ReceiveClock(), only, is_virtual=True)
        except ValueError as error:
            raise StageError(f"{self.name}: {error}") from error
        self.venue, self.decoder, self.counts = self._reception.venue, self._reception.decoder, self._reception.counts

    @property
    def now_ns(self) -> int:
        return self._reception.now_ns

    @property
    def farewell(self) -> str:
        """Where the last line was cut short, if it was."""
        return f"cut line {self._reader.cut}" if self._reader.cut else ""

    def keep_raw(self, raw: RawWriter) -> None:
        """Write every frame once more."""
        self._reception.raw = raw

    def play(self, writer: TableWriter, by_runs: bool, advanced: Callable[[], None]) -> None:
        """Write what the recording holds. `failure` tells of a line that ended it before its end."""
        reception = self._reception

        def take(recv_ns: int, events: list[Event]) -> None:
            if events:
                writer.add(self.venue, events)

        def take_rows(symbol: str, rows: PlainRows) -> None:
            writer.add_rows(self.venue, symbol, rows)

        runs = None
        if by_runs and self.venue in BY_RUNS and isinstance(self.decoder, BinanceDecoder):
            runs = FrameRuns(self.decoder)
        reception.release_to(take)
        for frames, recv_ns, answer in _batches(chain(self._first, self._lines)):
            if runs is not None:
                reception.take_run(frames, recv_ns, runs.decode, take_rows)
            else:
                for frame, frame_ns in zip(frames, recv_ns, strict=True):
                    reception.take_at(frame, frame_ns)
            if answer is not None:
                reception.take_answer(answer.url, answer.frame.encode(), answer.recv_ns)
            advanced()
        reception.finish()
        if reception.raw is not None:
            reception.raw.close()

    def _good_lines(self) -> Iterator[RawLine]:
        """The lines up to a fault, which is told when all that came before is written."""
        try:
            yield from connection_lines(self._reader)
        except (RawError, OSError) as error:
            self.failure = str(error)


def capture_recordings(config: Config, stage: Stage, begin: Callable[[Sequence[RecordedFeed]], None]) -> None:
    """Write what the recordings at `replay.path` hold. `begin` is called when they are known and before anything is
    written. Raises StageError for what is no recording, or is broken; what came before that is written.
    """
    folder = ROOT / config.replay.path
    paths = [path for path in raw_files(folder) if not _is_empty(path)]
    if not paths:
        raise StageError(f"replay.path: no frame in {folder}: its {len(raw_files(folder))} files are empty")
    feeds = [RecordedFeed(path, frozenset(config.symbols or ()) or None) for path in paths]
    begin(feeds)
    by_runs = sum(path.stat().st_size for path in paths) >= WORTH_COMPILING_BYTES
    writer = TableWriter(config.root, config.capture.flush_rows, say=lambda text: stage.say(text, keep=False))
    try:
        with stage.progress("capture", float(len(feeds))) as done:
            for number, feed in enumerate(feeds):
                feed.play(writer, by_runs, writer.tick)
                done(number + 1.0)
    finally:
        writer.close()
    for feed in feeds:
        if feed.failure:
            raise StageError(feed.failure)


def _up_to_a_frame(lines: Iterator[RawLine]) -> list[RawLine]:
    taken = []
    for line in lines:
        taken.append(line)
        if not line.is_answer:
            break
    return taken


def _is_empty(path: Path) -> bool:
    try:
        return next(iter(RawReader(path)), None) is None
    except (RawError, OSError):
        return False


def _batches(lines: Iterable[RawLine]) -> Iterator[tuple[list[bytes], list[int], RawLine | None]]:
    """Frames with their receipts, and the REST answer that came behind them, if that is what ended the batch."""
    frames: list[bytes] = []
    recv_ns: list[int] = []
    for line in lines:
        if line.is_answer:
            yield frames, recv_ns, line
            frames, recv_ns = [], []
            continue
        frames.append(line.frame.encode())
        recv_ns.append(line.recv_ns)
        if len(frames) == _RUN:
            yield frames, recv_ns, None
            frames, recv_ns = [], []
    yield frames, recv_ns, None
