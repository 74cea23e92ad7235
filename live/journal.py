"""The runner's journal, whole to the last record after kill -9; what is in it: core/journal.py.

Records go to the operating system in the order event, bar, feature, decision, fill at every `flush`, which the runner
calls before anything it decided can leave. A process that is killed therefore leaves whole records and at most one cut
one at a file's end, which reading drops and counts; an effect is never there without its cause. (A power cut is another
matter: nothing here calls fsync, since a paper session can be run again.)
"""

import hashlib
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.errors import StageError
from core.journal import STREAMS, Header, Records, read_header, read_stream, record_dtypes, stream_path
from core.store import write_atomic

Row = NDArray[np.float64]
Ints = NDArray[np.int64]
State = dict[str, NDArray[Any]]


class Recording(msgspec.Struct, frozen=True):
    """A session read back: structured arrays per stream, and the bytes of cut records that were dropped."""

    header: Header
    start: dict[str, State]
    signals: Records
    events: Records
    bars: Records
    features: Records
    decisions: Records
    fills: Records
    cut_bytes: int


def state_sha256(state: Mapping[str, NDArray[Any]]) -> str:
    """A digest of named arrays: names, dtypes, shapes and bytes, in the order of names."""
    digest = hashlib.sha256()
    for name in sorted(state):
        array = np.ascontiguousarray(state[name])
        digest.update(f"{name}|{array.dtype.str}|{array.shape}|".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


class Journal:
    """Appends records to the files of one session. Single writer."""

    def __init__(self, folder: Path, header: Header) -> None:
        """Continue the session in `folder`, cutting what a kill left of a last record.

        Use `create` for a new one.
        """
        self.folder = folder
        self._dtypes = record_dtypes(header)
        self._drafts = {name: bytearray() for name in STREAMS}
        self._files = {name: _open_whole(stream_path(folder, name), self._dtypes[name].itemsize) for name in STREAMS}
        self._seq = {name: os.fstat(file).st_size // self._dtypes[name].itemsize for name, file in self._files.items()}
        self._pack = {name: _packer(self._dtypes[name]) for name in STREAMS}

    @classmethod
    def create(cls, folder: Path, header: Header, start: Mapping[str, State]) -> "Journal":
        """Begin a session in an empty folder: the start states are on disk before the first event.

        Raises StageError if the folder holds a session already, ValueError if a state is not the one in the header.
        """
        if (folder / "header.json").exists():
            raise StageError(f"{folder} holds a session already: give the new one a folder of its own")
        for name, state in start.items():
            if header.start_sha256.get(name) != state_sha256(state):
                raise ValueError(f"the header's digest of {name}'s start state is not that of the state given")
            _save_state(_state_path(folder, name), state)
        write_atomic(folder / "header.json", msgspec.json.encode(header))
        return cls(folder, header)

    @classmethod
    def resume(cls, folder: Path) -> "Journal":
        """Continue after a kill."""
        return cls(folder, read_header(folder))

    def signal(self, instrument: int, series: int, usable_ns: int, time_ns: int, until_ns: int, value: float) -> None:
        self._add("signals", (instrument, series, usable_ns, time_ns, until_ns), (value,))

    def event(self, instrument: int, kind: int, side: int, recv_ns: int, exch_ns: int, values: Sequence[float]) -> None:
        self._add("events", (instrument, kind, side, recv_ns, exch_ns), values)

    def bars(self, instrument: int, open_ns: Ints, close_ns: Ints, bar_index: Ints, values: Row) -> None:
        """Closed bars: times and indices (n,), values (n, columns)."""
        for at in zip(open_ns.tolist(), close_ns.tolist(), bar_index.tolist(), values, strict=True):
            self._add_row("bars", (instrument, *at[:3]), at[3])

    def feature(self, instrument: int, decision_ns: int, values: Row) -> None:
        self._add_row("features", (instrument, decision_ns), values)

    def decision(
        self, instrument: int, decision_ns: int, side: int, outcome: int, latency_ns: int, score: float
    ) -> None:
        self._add("decisions", (instrument, decision_ns, side, outcome, latency_ns), (score,))

    def fill(
        self,
        instrument: int,
        decision_ns: int,
        side: int,
        fill_ns: int,
        end_ns: int,
        limit: float,
        gross_bps: float,
        net_bps: float,
    ) -> None:
        self._add("fills", (instrument, decision_ns, side, fill_ns, end_ns), (limit, gross_bps, net_bps))

    def flush(self) -> None:
        """Hand every record added so far to the operating system, causes before effects."""
        for name in STREAMS:
            if self._drafts[name]:
                _write_all(self._files[name], self._drafts[name])
                self._drafts[name].clear()

    def close(self) -> None:
        self.flush()
        for file in self._files.values():
            os.close(file)

    def _add(self, name: str, integers: Sequence[int], floats: Sequence[float]) -> None:
        self._drafts[name] += self._pack[name](self._next(name), *integers, *floats)

    def _add_row(self, name: str, integers: Sequence[int], row: Row) -> None:
        self._drafts[name] += self._pack[name](self._next(name), *integers)
        self._drafts[name] += row.tobytes()

    def _next(self, name: str) -> int:
        seq = self._seq[name]
        self._seq[name] = seq + 1
        return seq


def read(folder: Path) -> Recording:
    """Read a session back, whole or killed. Raises StageError for what is not a session, or one that is damaged."""
    header = read_header(folder)
    start = {name: _load_state(_state_path(folder, name)) for name in header.start_sha256}
    for name, state in start.items():
        if state_sha256(state) != header.start_sha256[name]:
            raise StageError(
                f"{_state_path(folder, name)} is not the state that the session began from: digests differ"
            )
    streams, cut = {}, 0
    for name, dtype in record_dtypes(header).items():
        streams[name], cut_here = read_stream(stream_path(folder, name), dtype)
        cut += cut_here
    return Recording(header=header, start=start, cut_bytes=cut, **streams)


def _packer(dtype: np.dtype[Any]) -> Any:
    """`struct.pack` of the scalar fields: 0.3 us a record, where a NumPy record costs ten times that."""
    names = [name for name in dtype.names or () if name != "values"]
    return struct.Struct("<" + "".join("q" if dtype[name].kind == "i" else "d" for name in names)).pack


def _open_whole(path: Path, itemsize: int) -> int:
    """A descriptor that appends to `path`, after cutting a record that was not written to its end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    size = os.fstat(file).st_size
    if size % itemsize:
        os.ftruncate(file, size - size % itemsize)
    return file


def _write_all(file: int, draft: bytearray) -> None:
    """`os.write` may write less than asked (a full disk, a signal): go on from there, or raise."""
    view = memoryview(bytes(draft))
    while view:
        view = view[os.write(file, view) :]


def _state_path(folder: Path, instrument: str) -> Path:
    return folder / "start" / f"{instrument.replace(':', '_')}.npz"


def _save_state(path: Path, state: State) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        np.savez(file, allow_pickle=False, **state)


def _load_state(path: Path) -> State:
    with np.load(path, allow_pickle=False) as saved:
        return {name: saved[name] for name in saved.files}
