"""Raw captures: what a connection received, one JSON line per frame, `.jsonl` or `.jsonl.zst` (design section 9).

`{"recv_ns": 1700000000123456789, "url": "wss://…", "frame": "…as received…"}` in receive order; a REST answer is a line
with the URL of the call. A crash leaves a last line cut short, which is counted and not fatal; anything else that is
not such a line is an error with file and line.
"""

import io
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Annotated, Final

import msgspec
import zstandard

from core.errors import StageError

_FLUSH_BYTES: Final = 1 << 20  # a crash loses at most this much of the text
_READ_BYTES: Final = 1 << 16  # small: what lies before a damaged block is still read
_SUFFIXES: Final = (".jsonl", ".jsonl.zst")
_LATEST_NS: Final = 2**62  # in the year 2116: clocks of replays go on from what was received last, up to 2**63 - 1


class RawLine(msgspec.Struct, frozen=True, gc=False):
    """One received frame or REST answer."""

    recv_ns: Annotated[int, msgspec.Meta(ge=0, le=_LATEST_NS)]
    url: str
    frame: str

    @property
    def is_answer(self) -> bool:
        """Whether it is a REST answer."""
        return self.url.startswith("http")


class RawError(StageError):
    """A line that is no raw capture's: `where` is `FILE:LINE`."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where


def raw_files(folder: Path) -> list[Path]:
    """The raw captures in a folder (or the one file given), sorted by name. Raises StageError if there is none."""
    if folder.is_file():
        return [folder]
    found = sorted(path for path in folder.glob("*") if path.name.endswith(_SUFFIXES)) if folder.is_dir() else []
    if not found:
        state = "holds no *.jsonl or *.jsonl.zst" if folder.is_dir() else "does not exist"
        raise StageError(f"replay.path: {folder} {state}: give the folder of a raw capture")
    return found


class RawReader:
    """Iterates over the lines of one raw capture. `cut` is `FILE:LINE` once a last line cut short was met."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut: str | None = None

    def __iter__(self) -> Iterator[RawLine]:
        """Raises RawError at a broken line that is not the last, and at one that is no capture's."""
        decode = msgspec.json.Decoder(RawLine).decode
        broken: tuple[str, str] | None = None
        for number, text in enumerate(self._texts(), 1):
            if broken is not None:
                raise RawError(*broken)
            try:
                yield decode(text)
            except msgspec.ValidationError as error:
                raise RawError(self._where(number), f"not a line of a raw capture: {error}") from error
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if text.strip():
                    broken = self._where(number), f"broken line: {error}"
        self.cut = self.cut or (broken[0] if broken else None)

    def _texts(self) -> Iterator[bytes]:
        number = 0
        with _open(self.path) as file:
            try:
                for text in file:
                    number += 1
                    yield text
            except zstandard.ZstdError as error:
                raise RawError(self._where(number + 1), f"not readable as zstd: {error}") from error

    def _where(self, number: int) -> str:
        return f"{self.path.name}:{number}"


def connection_lines(reader: RawReader) -> Iterator[RawLine]:
    """The lines of a capture of one connection. Raises RawError also for frames of another, which would go to the wrong
    decoder."""
    endpoint = ""
    for number, line in enumerate(reader, 1):
        if not line.is_answer:
            own = line.url.split("?", 1)[0]
            endpoint = endpoint or own
            if own != endpoint:
                why = f"frames of {own} among those of {endpoint}: a raw capture is one connection"
                raise RawError(f"{reader.path.name}:{number}", why)
        yield line


class RawWriter:
    """Appends the frames of one connection to a new `.jsonl.zst`. Close it, or use it as a context."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._encoder = msgspec.json.Encoder()
        self._file = path.open("wb")
        self._stream = zstandard.ZstdCompressor(level=3).stream_writer(self._file)
        self._unflushed = 0

    def write(self, recv_ns: int, url: str, frame: str | bytes) -> None:
        text = frame if isinstance(frame, str) else frame.decode(errors="replace")
        line = self._encoder.encode(RawLine(recv_ns, url, text)) + b"\n"
        self._stream.write(line)
        self._unflushed += len(line)
        if self._unflushed >= _FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Put what was written on disk as whole zstd blocks, readable without the rest."""
        self._stream.flush(zstandard.FLUSH_BLOCK)
        self._file.flush()
        self._unflushed = 0

    def close(self) -> None:
        self._stream.close()  # type: ignore[no-untyped-call]
        self._file.close()

    def __enter__(self) -> "RawWriter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open(path: Path) -> IO[bytes]:
    if path.name.endswith(".zst"):
        stream = zstandard.ZstdDecompressor().stream_reader(path.open("rb"), read_across_frames=True, closefd=True)
        return io.BufferedReader(stream, _READ_BYTES)
    return path.open("rb", buffering=_READ_BYTES)
