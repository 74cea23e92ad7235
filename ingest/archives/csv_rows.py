"""CSV in archives, however it is packed: streamed, typed, with a header or none, and every broken row accounted for.

A file is read in pieces of whole lines, so that memory does not grow with it. Polars reads a field that is no number
as null; rows with a null where a value is needed are looked up again as text, counted and sampled.
"""

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import polars as pl

from core.errors import StageError
from ingest.archives.formats import BROKEN, ArchiveFile, Counts, Piece, Pieces

PIECE_BYTES: Final = 32 << 20
"""Read at a time: enough for two cores, and 100 MB of memory with the frame that it becomes."""
_LONGEST_LINE: Final = 1 << 20
_BOM: Final = b"\xef\xbb\xbf"
_NULLS: Final = ["", "None", "null", "NULL", "nan", "NaN", "NA"]


@dataclass(frozen=True)
class Layout:
    """The columns of a CSV in the order in which they stand where there is no header; None: not read.

    `needed` must hold a value in each row; `also` gives other spellings of names in headers.
    """

    columns: Mapping[str, pl.DataType | None]
    needed: tuple[str, ...]
    also: dict[str, str] = field(default_factory=dict)

    @property
    def read(self) -> dict[str, pl.DataType]:
        return {name: dtype for name, dtype in self.columns.items() if dtype is not None}

    def name_of(self, heading: str) -> str:
        """The column that a heading means, or the heading itself."""
        plain = heading.strip().strip('"').lower()
        return self.also.get(plain) or {name.lower(): name for name in self.columns}.get(plain, plain)


def csv_pieces(layout: Layout, convert: Callable[[pl.DataFrame, ArchiveFile, int, Counts], list[Piece]]) -> Pieces:
    """A data set whose files are CSV of one layout and whose batches are converted each on its own."""

    def pieces(file: ArchiveFile, latency_ns: int, counts: Counts) -> Iterator[list[Piece]]:
        for frame in read_rows(file.path, layout, counts):
            yield convert(frame, file, latency_ns, counts)

    return pieces


def read_rows(path: Path, layout: Layout, counts: Counts) -> Iterator[pl.DataFrame]:
    """The rows of a file that have all they need, batch by batch, in the file's order; broken ones are counted.

    Raises StageError where the file is damaged, or its header lacks what is needed.
    """
    names: list[str] | None = None
    for text in whole_lines(path, PIECE_BYTES):
        if names is None:
            text = text.removeprefix(_BOM)
            names, text = _names(path, layout, text)
        frame = _sound_rows(text, names, layout, counts)
        if frame.height:
            yield frame


def whole_lines(path: Path, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """The content of a plain, .gz or .zip file in pieces that end with a line. Raises StageError as `unpacked`."""
    rest = b""
    with unpacked(path) as stream:
        while piece := stream.read(piece_bytes):
            end = piece.rfind(b"\n") + 1
            if end:
                yield rest + piece[:end]
            rest = piece[end:] if end else rest + piece
    if rest:
        yield rest


@contextmanager
def unpacked(path: Path) -> Iterator[IO[bytes]]:
    """A stream of the file's content; of a zip, that of its one member. Raises StageError where it is damaged."""
    try:
        with _opened(path) as stream:
            yield stream
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise StageError(f"{path} cannot be unpacked ({error}): delete it and get it again") from error


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if not name.endswith("/")]
            if len(members) != 1:
                raise zipfile.BadZipFile(f"one file expected inside, found {len(members)}")
            with archive.open(members[0]) as stream:
                yield stream
    elif path.suffix == ".gz":
        with gzip.open(path) as stream:
            yield stream  # type: ignore[misc]
    else:
        with path.open("rb") as stream:
            yield stream


def first_lines(path: Path, count: int = 2) -> list[str]:
    """The first lines of a file as text, to tell what is in it."""
    with unpacked(path) as stream:
        return [stream.readline(_LONGEST_LINE).decode(errors="replace").rstrip("\r\n") for _ in range(count)]


def _names(path: Path, layout: Layout, text: bytes) -> tuple[list[str], bytes]:
    """The file's columns in order, and the text without its header."""
    end = text.find(b"\n") + 1 or len(text)
    fields = text[:end].decode(errors="replace").rstrip("\r\n").split(",")
    named = [layout.name_of(field) for field in fields]
    if not set(named) & set(layout.columns):
        unnamed = [f"extra {place}" for place in range(len(fields) - len(layout.columns))]
        return [*layout.columns, *unnamed], text
    missing = [name for name in layout.needed if name not in named]
    if missing:
        raise StageError(f"{path}: its header lacks {', '.join(missing)}: {', '.join(fields)[:300]}")
    seen: set[str] = set()
    unique = [name if not (name in seen or seen.add(name)) else f"{name} {at}" for at, name in enumerate(named)]  # type: ignore[func-returns-value]
    return unique, text[end:]


def _sound_rows(text: bytes, names: list[str], layout: Layout, counts: Counts) -> pl.DataFrame:
    if not text.strip():
        return pl.DataFrame(schema=layout.read)
    read = pl.read_csv(
        text,
        has_header=False,
        schema={name: layout.columns.get(name) or pl.String() for name in names},
        columns=[place for place, name in enumerate(names) if name in layout.read],
        null_values=_NULLS,
        truncate_ragged_lines=True,
        ignore_errors=True,
        missing_columns="insert",
        extra_columns="ignore",
        quote_char=None,  # no archive quotes, and a stray quote would swallow the lines that follow
        encoding="utf8-lossy",
    )
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in layout.read.items() if name not in names]
    frame = read.with_columns(missing).select(*layout.read)
    counts.read += frame.height
    broken = frame.select(pl.any_horizontal(pl.col(layout.needed).is_null())).to_series()
    if not broken.any():
        return frame
    _count_broken(text, broken, counts)
    return frame.filter(~broken)


def _count_broken(text: bytes, broken: pl.Series, counts: Counts) -> None:
    """Broken rows as they stand in the file. A blank line is a row to Polars; to us it is none."""
    lines = text.removesuffix(b"\n").split(b"\n")
    rows = [lines[at] for at in broken.arg_true().to_list()]
    real = [row.strip().decode(errors="replace") for row in rows if row.strip()]
    counts.read -= len(rows) - len(real)
    counts.drop(BROKEN, len(real), real)
