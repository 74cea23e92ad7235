"""Programs and streams: what `compile_features` makes, and the state of one run of it.

A `Program` is immutable and may be shared by threads and symbols; a `Stream` is one symbol's run, a batch or a row at a
time, with the same bits.
"""

import operator
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.units import parse_duration_ns
from research.machine.interpreter import CLOCK_SIZE, GAP_ROW, IS_BLANK, LAST, NO_BAR, SCRATCH, TILE, walk
from research.machine.opcodes import SHORT
from research.programs.expression import Node, digests, excerpt, show
from research.programs.result_memory import uninitialised
from research.programs.rows import Rows, bar_index_of, floats, read_rows, whole_numbers

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

GAP_COLUMN: Final = "has_gap"
STATE_VERSION: Final = 4
"""Of what the numbers of a saved state mean."""
_SAVED: Final = ("grid", "memories", "memory_spans", "state", "clock")
_SHOWN: Final = 3  # names of features in a program's repr
_CHUNK: Final = 16 * TILE  # rows that are turned column by column at a time: bounds the copy of a batch's input


@dataclass(frozen=True, repr=False)
class Program:
    """Features compiled for some columns and one bar clock.

    `trees` are the features over the columns alone, in the order of `names`; `code` the instructions;
    `constants` the values of the registers after the scratch ones; `inputs` the columns that are read; `nodes` the
    distinct operators (columns and numbers are not counted); `warmup_bars` how many bars of a fresh or restarted
    stream give NaN in at least one feature. `memories` are the operators that keep state, `memory_spans` where that of
    each begins and ends. `is_infinite` programs have an operator that remembers everything.
    """

    names: tuple[str, ...]
    trees: tuple[Node, ...]
    columns: tuple[str, ...]
    bar: str
    code: Ints
    constants: Floats
    inputs: Ints
    registers: int
    state_size: int
    nodes: int
    warmup_bars: int
    memories: tuple[Node, ...]
    memory_spans: Ints
    is_infinite: bool

    @cached_property
    def expressions(self) -> tuple[str, ...]:
        """The features' texts over the columns alone, made when they are asked for: what definitions share stands in
        them as often as it is used."""
        return tuple(show(tree) for tree in self.trees)

    @cached_property
    def memory_names(self) -> list[str]:
        """What tells the operators that keep state, the same in every program that has them."""
        return digests(self.memories)

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

        `bar_index` (n,) is absolute; if not given it is the frame's column of that name, and without one 0, 1, … Once
        windows are full, a row has the same bits wherever a run began if it has its own index, by which blocks and hops
        are placed: evaluate(x)[k:] and evaluate(x[k:]) both count from 0, and so differ by rounding, and by more in
        operators that hop (operators.py).

        `take` (m,), ascending row numbers, asks for some rows' features only: (m, len(names)). `tile` never changes a
        bit. The result lies feature by feature in memory; an earlier one of the same shape may be given as `out` to be
        overwritten, which spares the machine fresh memory.

        Raises ValueError for shapes that do not fit, for what is no number (rows.py), and for a frame that is lazy or
        lacks a column; others are ignored, and their order does not matter.
        """
        return self.start(tile).run(x, bar_index, take, out)

    def evaluate_many(
        self, rows: Sequence[Rows], bar_index: Sequence[Ints] | None = None, threads: int = 1
    ) -> list[Floats]:
        """`evaluate` of several symbols' rows, each from a fresh start, on threads: the kernels release the GIL.

        Raises ValueError as `evaluate`, and unless there are as many indices as symbols.
        """
        index = bar_index if bar_index is not None else [None] * len(rows)
        if len(index) != len(rows):
            raise ValueError(f"bar_index must hold one array for each of {len(rows)} symbols, was {len(index)}")
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(self.evaluate, rows, index))

    def start(self, tile: int = TILE, bar_index: int = 0) -> "Stream":
        """A fresh stream: no bar seen. `bar_index` is the absolute one of the first bar, where it comes without.

        A stream that is given it, or each bar's own, has the bits of any other that saw the bars of its windows.
        """
        return Stream(self, tile, bar_index)


class Stream:
    """The state of one run of a program: one symbol."""

    def __init__(self, program: Program, tile: int = TILE, bar_index: int = 0) -> None:
        if tile < 1:
            raise ValueError(f"tile must be at least 1 row, was {tile}")
        self.program = program
        self._first_index = _whole(bar_index)
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
        """Like `Program.evaluate`, going on from the rows before. The bar index goes on too if there is none."""
        columns, n = read_rows(x, self.program.columns, self.program.inputs)
        own = bar_index_of(x) if bar_index is None else bar_index
        index = self._next_index() + np.arange(n) if own is None else _index_of(own, n)
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

        Raises ValueError for a row of another shape or of no numbers, and for an index that is not whole.
        """
        if type(row) is not np.ndarray or row.dtype != np.float64:
            row = floats(row, "a row")
        if row.shape != (len(self._row),):
            raise ValueError(f"a row must have shape ({len(self._row)},), one per column, was {row.shape}")
        self._row[:, 0] = row
        self._index[0] = self._next_index() if bar_index is None else _whole(bar_index)
        out = np.empty((len(self.program.names), 1))
        self._walk(self._row, self._index, 0, _FIRST, 0, out)
        return out[:, 0]

    def save(self) -> dict[str, NDArray[Any]]:
        """All state as arrays that `np.savez` takes without pickling."""
        program = self.program
        return {
            "grid": np.array(_grid(program)),
            "memories": np.array(program.memory_names, np.str_),
            "memory_spans": program.memory_spans.copy(),
            "state": self._state.copy(),
            "clock": self._clock.copy(),
        }

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a `save` of this program, or of one that computes all that this one does.

        Raises ValueError, and leaves the stream as it is, if it was made by features that do not hold these, or is
        damaged.
        """
        program = self.program
        spans = _saved_spans(saved)
        missing = [tree for name, tree in zip(program.memory_names, program.memories, strict=True) if name not in spans]
        if str(saved["grid"]) != _grid(program) or missing:
            what = f", which lack {excerpt(missing[0])}" if missing else ""
            raise ValueError(f"state was saved by other features{what}: start afresh and let the windows fill")
        state = np.full_like(self._state, np.nan)
        for name, (begin, end) in zip(program.memory_names, program.memory_spans, strict=True):
            first, last = spans[name]
            if last - first != end - begin:
                raise _damaged(f"{last - first} numbers stand where {end - begin} should")
            state[begin:end] = saved["state"][first:last]
        self._state[:] = state
        self._clock[:GAP_ROW], self._clock[IS_BLANK] = saved["clock"][:GAP_ROW], saved["clock"][IS_BLANK]

    def _walk(self, x: Floats, index: Ints, first_row: int, take: Ints, taken: int, out: Floats) -> int:
        state = self._state, self._clock, self._registers
        done: int = walk(self.program.code, *state, x, index, first_row, take, taken, out)
        return done

    def _next_index(self) -> int:
        last = int(self._clock[LAST])
        return self._first_index if last == NO_BAR else last + 1


_FIRST: Final = np.zeros(1, np.int64)


def _grid(program: Program) -> str:
    """What must be equal for two programs' states to mean the same, besides the operators."""
    return f"{clock_of(program.bar)} {GAP_COLUMN in program.columns} {STATE_VERSION}"


def clock_of(bar: str) -> str:
    """One name for each clock: `200ms` and `time_200ms` are the same."""
    try:
        return f"{parse_duration_ns(bar.removeprefix('time_'))}ns"
    except ValueError:
        return bar


def _saved_spans(saved: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, int]]:
    """Where the state of each operator begins and ends in what was saved. Raises ValueError where that is damaged."""
    lacking = [name for name in _SAVED if name not in saved]
    if lacking:
        raise _damaged(f"it lacks {', '.join(lacking)}")
    names, spans, size = saved["memories"].tolist(), saved["memory_spans"], saved["state"].size
    if spans.shape != (len(names), 2) or (spans < 0).any() or (spans > size).any():
        raise _damaged(f"{len(names)} operators have spans {spans.shape} in {size} numbers")
    if saved["clock"].shape != (CLOCK_SIZE,):
        raise _damaged(f"its clock holds {saved['clock'].shape}, not ({CLOCK_SIZE},)")
    return dict(zip(names, map(tuple, spans.tolist()), strict=True))


def _damaged(why: str) -> ValueError:
    return ValueError(f"this is no saved state, or it is damaged: {why}: start afresh and let the windows fill")


def _by_feature(out: Floats | None, shape: tuple[int, int]) -> Floats:
    """Memory for a result, (features, rows)."""
    if out is None:
        return uninitialised(shape[::-1])
    if out.shape != shape or out.dtype != np.float64 or not (out.flags.f_contiguous and out.flags.writeable):
        raise ValueError(f"out must be an earlier result of shape {shape}, was {out.shape} of {out.dtype}")
    return out.T


def _index_of(values: Any, n: int) -> Ints:
    if np.shape(values) != (n,):
        raise ValueError(f"bar_index must have shape ({n},), one per row, was {np.shape(values)}")
    return whole_numbers(values, "bar_index")


def _whole(bar_index: int) -> int:
    try:
        return operator.index(bar_index)
    except TypeError:
        raise ValueError(f"bar_index must be a whole number, was {bar_index!r}") from None


def _ascending(take: Ints, n: int) -> Ints:
    rows = whole_numbers(take, "take")
    if rows.size and (rows[0] < 0 or rows[-1] >= n or (np.diff(rows) <= 0).any()):
        raise ValueError(f"take must hold ascending row numbers from 0 to {n - 1}")
    return rows
