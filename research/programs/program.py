"""Programs and streams: what `compile_features` makes, and the state of one run of it.

A `Program` is immutable and may be shared by threads and symbols; a `Stream` is one symbol's run, a batch or a row at a
time, with the same bits.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from research.machine.interpreter import CLOCK_SIZE, GAP_ROW, IS_BLANK, LAST, NO_BAR, SCRATCH, TILE, walk
from research.machine.opcodes import SHORT

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]
Rows: TypeAlias = Floats | pl.DataFrame

GAP_COLUMN: Final = "has_gap"
STATE_VERSION: Final = 3
"""Of what the numbers of a saved state mean."""
_SHOWN: Final = 3  # names of features in a program's repr
_CHUNK: Final = 16 * TILE  # rows that are turned column by column at a time: bounds the copy of a batch's input


@dataclass(frozen=True, repr=False)
class Program:
    """Features compiled for some columns and one bar clock.

    `expressions` are the features' texts over the columns alone, in the order of `names`; `code` the instructions;
    `constants` the values of the registers after the scratch ones; `inputs` the columns that are read; `nodes` the
    distinct operators (columns and numbers are not counted); `warmup_bars` how many bars of a fresh or restarted
    stream give NaN in at least one feature. `memories` are the texts of the operators that keep state, `memory_spans`
    where the state of each begins and ends. `is_infinite` programs have an operator that remembers everything.
    """

    names: tuple[str, ...]
    expressions: tuple[str, ...]
    columns: tuple[str, ...]
    bar: str
    code: Ints
    constants: Floats
    inputs: Ints
    registers: int
    state_size: int
    nodes: int
    warmup_bars: int
    memories: tuple[str, ...]
    memory_spans: Ints
    is_infinite: bool

    def __repr__(self) -> str:
        more = f", … {len(self.names) - _SHOWN} more" if len(self.names) > _SHOWN else ""
        names, clock = ", ".join(self.names[:_SHOWN]), f" on {self.bar}" if self.bar else ""
        what = f"of {self.nodes} operators over {self.inputs.size} of {len(self.columns)} columns{clock}"
        return f"<Program {names}{more}: {what}, warm-up {self.warmup_bars:,} bars>"

    def evaluate(
        self,
        x: Rows,
        bar_index: Ints | None = None,
        take: Ints | None = None,
        tile: int = TILE,
        out: Floats | None = None,
    ) -> Floats:
        """Features (n, len(names)) of rows `x` (n, len(columns)), from a fresh start.

        `bar_index` (n,) is absolute; 0, 1, … if not given. `take` (m,), ascending row numbers, asks for some rows'
        features only: (m, len(names)). `tile` never changes a bit. The result lies feature by feature in memory; an
        earlier one of the same shape may be given as `out` to be overwritten, which spares the machine fresh memory.
        Raises ValueError for shapes that do not fit and for a frame that is lazy or lacks a column.
        """
        return self.start(tile).run(x, bar_index, take, out)

    def evaluate_many(
        self, rows: Sequence[Rows], bar_index: Sequence[Ints] | None = None, threads: int = 1
    ) -> list[Floats]:
        """`evaluate` of several symbols' rows, each from a fresh start, on threads: the kernels release the GIL."""
        index = bar_index if bar_index is not None else [None] * len(rows)
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.evaluate, rows, index))

    def start(self, tile: int = TILE) -> "Stream":
        """A fresh stream: no bar seen."""
        return Stream(self, tile)


class Stream:
    """The state of one run of a program: one symbol."""

    def __init__(self, program: Program, tile: int = TILE) -> None:
        if tile < 1:
            raise ValueError(f"tile must be at least 1 row, was {tile}")
        self.program = program
        self._state = np.full(program.state_size, np.nan)
        self._clock = np.zeros(CLOCK_SIZE, np.int64)
        self._clock[[LAST, IS_BLANK]] = NO_BAR, 1
        columns = program.columns
        self._clock[GAP_ROW] = columns.index(GAP_COLUMN) if GAP_COLUMN in columns else -1
        self._registers = np.zeros((program.registers, tile + SHORT))
        constants = slice(SCRATCH, SCRATCH + program.constants.size)
        self._registers[constants] = program.constants[:, None]
        self._row = np.zeros((len(columns), 1))
        self._index = np.zeros(1, np.int64)

    def run(
        self, x: Rows, bar_index: Ints | None = None, take: Ints | None = None, out: Floats | None = None
    ) -> Floats:
        """Like `Program.evaluate`, going on from the rows before. The bar index goes on too if not given."""
        columns, n = self._columns(x)
        index = self._next_index() + np.arange(n) if bar_index is None else _int_rows("bar_index", bar_index, n)
        rows = np.arange(n) if take is None else _ascending(take, n)
        features = _by_feature(out, (rows.size, len(self.program.names)))
        turned = np.empty((len(self.program.columns), min(n, _CHUNK)))
        taken = 0
        for begin in range(0, n, _CHUNK):
            end = min(begin + _CHUNK, n)
            for column, values in columns.items():
                turned[column, : end - begin] = values[begin:end]
            taken = self._walk(turned, index[begin:end], begin, rows, taken, features)
        return features.T

    def step(self, row: Floats, bar_index: int | None = None) -> Floats:
        """Features (len(names),) of one more row (len(columns),): the bits of `run` on the same rows.

        Raises ValueError for a row of another shape.
        """
        if np.shape(row) != (len(self._row),):
            raise ValueError(f"a row must have shape ({len(self._row)},), one per column, was {np.shape(row)}")
        self._row[:, 0] = row
        self._index[0] = self._next_index() if bar_index is None else bar_index
        out = np.empty((len(self.program.names), 1))
        self._walk(self._row, self._index, 0, _FIRST, 0, out)
        return out[:, 0]

    def save(self) -> dict[str, NDArray[Any]]:
        """All state as arrays that `np.savez` takes without pickling."""
        program = self.program
        return {
            "grid": np.array(_grid(program)),
            "memories": np.array(program.memories, np.str_),
            "memory_spans": program.memory_spans,
            "state": self._state.copy(),
            "clock": self._clock.copy(),
        }

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a `save` of this program, or of one that computes all that this one does.

        Raises ValueError if it was made by features that do not hold these.
        """
        program = self.program
        place = {text: k for k, text in enumerate(saved["memories"].tolist())}
        missing = [text for text in program.memories if text not in place]
        if str(saved["grid"]) != _grid(program) or missing:
            what = f", which lack {missing[0]}" if missing else ""
            raise ValueError(f"state was saved by other features{what}: start afresh and let the windows fill")
        for text, (begin, end) in zip(program.memories, program.memory_spans, strict=True):
            first, last = saved["memory_spans"][place[text]]
            self._state[begin:end] = saved["state"][first:last]
        self._clock[:GAP_ROW], self._clock[IS_BLANK] = saved["clock"][:GAP_ROW], saved["clock"][IS_BLANK]

    def _walk(self, x: Floats, index: Ints, first_row: int, take: Ints, taken: int, out: Floats) -> int:
        state = self._state, self._clock, self._registers
        done: int = walk(self.program.code, *state, x, index, first_row, take, taken, out)
        return done

    def _next_index(self) -> int:
        last = int(self._clock[LAST])
        return 0 if last == NO_BAR else last + 1

    def _columns(self, x: Rows) -> tuple[dict[int, Floats], int]:
        """The columns that are read, by their number, and how many rows there are."""
        names = self.program.columns
        if isinstance(x, pl.DataFrame):
            missing = [name for name in names if name not in x.columns]
            if missing:
                raise ValueError(f"the frame lacks the columns {missing}, which the program was compiled for")
            frame = x.select(pl.col([names[column] for column in self.program.inputs]).cast(pl.Float64))
            columns = (series.to_numpy() for series in frame.iter_columns())
            return dict(zip(self.program.inputs.tolist(), columns, strict=True)), x.height
        if isinstance(x, pl.LazyFrame):
            raise ValueError("rows must be in memory: give evaluate(frame.collect())")
        x = np.asarray(x, np.float64)
        if x.ndim != 2 or x.shape[1] != len(names):
            raise ValueError(f"rows must have shape (n, {len(names)}), one per column {names}, was {x.shape}")
        return {int(column): x[:, column] for column in self.program.inputs}, x.shape[0]


_FIRST: Final = np.zeros(1, np.int64)


def _grid(program: Program) -> str:
    """What must be equal for two programs' states to mean the same, besides the operators."""
    return f"{program.bar} {GAP_COLUMN in program.columns} {STATE_VERSION}"


def _by_feature(out: Floats | None, shape: tuple[int, int]) -> Floats:
    """Memory for a result, (features, rows)."""
    if out is None:
        return np.empty(shape[::-1])
    if out.shape != shape or out.dtype != np.float64 or not (out.flags.f_contiguous and out.flags.writeable):
        raise ValueError(f"out must be an earlier result of shape {shape}, was {out.shape} of {out.dtype}")
    return out.T


def _int_rows(name: str, values: Ints, n: int) -> Ints:
    if np.shape(values) != (n,):
        raise ValueError(f"{name} must have shape ({n},), one per row, was {np.shape(values)}")
    return np.require(values, np.int64, ["C", "W"])  # a read-only array would compile the kernel a second time


def _ascending(take: Ints, n: int) -> Ints:
    rows = np.array(take, np.int64)
    if rows.size and (rows[0] < 0 or rows[-1] >= n or (np.diff(rows) <= 0).any()):
        raise ValueError(f"take must hold ascending row numbers from 0 to {n - 1}")
    return rows
