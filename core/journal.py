"""The format of a paper session's journal, and reading it: append-only files of fixed-width records.

One folder is one session. `header.json` says what the records mean, `start/*.npz` holds the state that the runner began
from, and each stream is one file of records, little-endian int64 fields first, float64 fields after them:

  signals    versions of slow series, with when each could be used here; those of the table's past at the start
  events     what was fed in, in the order fed, with the clock advances that closed bars (kind CLOCK)
  bars       every closed bar                      features   the row of every warm decision
  decisions  score, side, what became of it        fills      paper orders at their end

A kill leaves whole records and at most one cut one at a file's end, which reading drops and counts. Who writes it:
`live/journal.py`.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import StageError

FORMAT: Final = 1
CLOCK: Final = -1
"""Kind of a journal event that is no market event: the clock reached `recv_ns` and closed bars."""

_SIGNAL: Final = (("seq", "instrument", "series", "usable_ns", "time_ns", "until_ns"), ("value",))
_EVENT: Final = (("seq", "instrument", "kind", "side", "recv_ns", "exch_ns"), ("a", "b", "c", "d"))
_BAR: Final = ("seq", "instrument", "open_ns", "close_ns", "bar_index")
_FEATURE: Final = ("seq", "instrument", "decision_ns")
_DECISION: Final = (("seq", "instrument", "decision_ns", "side", "outcome", "latency_ns"), ("score",))
_FILL: Final = (
    ("seq", "instrument", "decision_ns", "side", "fill_ns", "end_ns"),
    ("limit", "gross_bps", "net_bps"),
)
STREAMS: Final = ("signals", "events", "bars", "features", "decisions", "fills")
"""The files in the order in which they are flushed: causes before effects."""

Records = NDArray[Any]


class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the records of a session mean. `start_sha256` is the digest of each instrument's start state; `signals` are
    the slow series, by number."""

    model_id: str
    mode: str
    instruments: tuple[str, ...]
    bars: str
    bar_columns: tuple[str, ...]
    features: tuple[tuple[str, str], ...]
    start_sha256: dict[str, str]
    signals: tuple[str, ...] = ()
    format: int = FORMAT


def record_dtypes(header: Header) -> dict[str, np.dtype[Any]]:
    """The record of each stream: int64 fields, then float64 fields; bars and features hold one row of `values`."""
    return {
        "signals": _dtype(*_SIGNAL),
        "events": _dtype(*_EVENT),
        "bars": _dtype(_BAR, width=len(header.bar_columns)),
        "features": _dtype(_FEATURE, width=len(header.features)),
        "decisions": _dtype(*_DECISION),
        "fills": _dtype(*_FILL),
    }


def sessions(root: Path) -> list[Path]:
    """The folders of the sessions in a data directory, that written to last at the end."""
    begun = {header.parent for header in (root / "live").glob("*/*/header.json")}
    return sorted(begun, key=lambda folder: (_last_written_ns(folder), folder))


def read_header(folder: Path) -> Header:
    """Raises StageError for what is not a session, is damaged, or is of another version."""
    path = folder / "header.json"
    try:
        header = msgspec.json.decode(path.read_bytes(), type=Header)
    except FileNotFoundError as error:
        raise StageError(f"{folder} holds no session: {path.name} is missing") from error
    except msgspec.DecodeError as error:
        raise StageError(f"{path} is damaged: {error}") from error
    if header.format != FORMAT:
        raise StageError(f"{path} has format {header.format}, this version reads {FORMAT}")
    return header


def stream_path(folder: Path, stream: str) -> Path:
    """The file of a stream."""
    return folder / f"{stream}.rec"


def read_stream(path: Path, dtype: np.dtype[Any]) -> tuple[Records, int]:
    """The whole records of one file and the bytes after them. Raises StageError unless they are numbered 0, 1, 2, …"""
    content = path.read_bytes() if path.exists() else b""
    whole = len(content) // dtype.itemsize
    records = np.frombuffer(content, dtype, count=whole)
    out_of_turn = np.flatnonzero(records["seq"] != np.arange(whole))
    if out_of_turn.size:
        first = int(out_of_turn[0])
        raise StageError(f"{path}: record {first} has number {records['seq'][first]}: the file is damaged")
    return records, len(content) - whole * dtype.itemsize


def mapped_stream(path: Path, dtype: np.dtype[Any]) -> Records:
    """The whole records of one file, from the disk as they are asked for; a session of weeks need not be read whole."""
    size = path.stat().st_size if path.exists() else 0
    whole = size // dtype.itemsize
    return np.memmap(path, dtype, "r", shape=(whole,)) if whole else np.zeros(0, dtype)


def _last_written_ns(folder: Path) -> int:
    return max(path.stat().st_mtime_ns for path in [folder, *folder.iterdir()])


def _dtype(integers: Sequence[str], floats: Sequence[str] = (), width: int | None = None) -> np.dtype[Any]:
    fields: list[Any] = [(name, "<i8") for name in integers] + [(name, "<f8") for name in floats]
    return np.dtype(fields if width is None else [*fields, ("values", "<f8", (width,))])
