"""Raw capture files, read in batches as a replay needs them (ingest/raw.py says what a line is)."""

import bisect
import itertools
from pathlib import Path
from typing import Final, NamedTuple

from core.errors import StageError
from ingest.raw import RawError, RawLine, RawReader, connection_lines, raw_files
from ingest.venues import venue_of

BATCH_LINES: Final = 2_000  # of each recording held in memory


class Lines(NamedTuple):
    """Held lines: what orders them, their recorded receive times, and their texts (a REST answer: URL and body)."""

    order_ns: list[int]
    stamps: list[int]
    texts: list[str]


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
        self._lines = connection_lines(self._reader)
        self._taken = 0
        self._order_ns: list[int] = []
        self._stamps: list[int] = []
        self._texts: list[str] = []
        self._latest_ns = 0
        self._fill()

    @property
    def venue(self) -> str:
        """The venue that it is of, empty if its URL tells none."""
        try:
            return venue_of(self.url)
        except ValueError:
            return ""

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

    def before(self, until_ns: int) -> Lines:
        """The held lines before `until_ns`."""
        end = bisect.bisect_left(self._order_ns, until_ns)
        return Lines(self._order_ns[:end], self._stamps[:end], self._texts[:end])

    def held(self) -> list[str]:
        """The texts of all lines that are held, to come as they are."""
        return self._texts

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
        if not line.is_answer:
            self.url = self.url or line.url
        self._taken += 1
        self._latest_ns = max(self._latest_ns, line.recv_ns)
        self._order_ns.append(self._latest_ns)
        self._stamps.append(line.recv_ns)
        self._texts.append(f"{line.url} {line.frame}" if line.is_answer else line.frame)


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
