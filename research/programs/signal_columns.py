"""Slow series as columns of bars: what was known of each at a bar's close, and what an expression made of it.

    columns = SignalColumns(program.signals, {"oi": values})
    columns.rows(close_ns)                          # (n, outputs) at the closes of many bars
    columns.row(close_ns)                           # (outputs,) at that of one: the same bits

The operand of a signal runs over the series alone, one row per value in the order in which values could be read. A
value of an earlier time that comes later is passed over; one that revises the newest takes its place, so that a window
holds each time once, in the version known by then. A result holds from when its value could be read until it is stale,
and NaN stands before and after. Pure, and kept whole: a value is 32 bytes, so a year of one at 5 minutes is 3.4 MB.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

import numpy as np

from core.store import hash_of
from research.programs.panel_program import SignalLayer
from research.programs.program import Floats, Ints, Program

_NS_PER_S: Final = 1e9
_NEVER_NS: Final = np.iinfo(np.int64).max


class SignalValues(NamedTuple):
    """The versions (n,) of one series as they came: when each could be read, ascending, what it is of, until when it
    may be used, and its value."""

    usable_ns: Ints
    time_ns: Ints
    until_ns: Ints
    value: Floats


_NO_TIMES: Final = np.zeros(0, np.int64)
NO_VALUES: Final = SignalValues(_NO_TIMES, _NO_TIMES, _NO_TIMES, np.zeros(0))


class _Held(NamedTuple):
    """Results (m, outputs) of one layer, each from when to until when, both included, it is the newest."""

    from_ns: Ints
    until_ns: Ints
    results: Floats

    def at(self, close_ns: Ints) -> Floats:
        """What was known at some times (n,): (n, outputs)."""
        found = np.full((close_ns.size, self.results.shape[1]), math.nan)
        if self.from_ns.size:
            place = np.searchsorted(self.from_ns, close_ns, side="right") - 1
            is_known = (place >= 0) & (close_ns <= self.until_ns[place])
            found[is_known] = self.results[place[is_known]]
        return found

    def changes_ns(self, close_ns: int) -> int:
        """The first time after `close_ns` at which another result, or none, is known."""
        place = int(np.searchsorted(self.from_ns, close_ns, side="right"))
        until_ns = [int(self.until_ns[place - 1]) + 1] if place else []
        later_ns = [*until_ns, *self.from_ns[place : place + 1].tolist()]
        return min((each for each in later_ns if each > close_ns), default=_NEVER_NS)


class SignalColumns:
    """The outputs of the signal layers of a program for one instrument. A series without values is never known."""

    def __init__(self, layers: Sequence[SignalLayer], values: Mapping[str, SignalValues]) -> None:
        self._held = [_held(layer.program, values.get(layer.name, NO_VALUES)) for layer in layers]
        self._last = (0, 0, np.zeros(0))
        """From when until before when the last row that was asked for holds, and it."""
        self.names = [layer.name for layer, held in zip(layers, self._held, strict=True) if held.from_ns.size]
        """The series that have values."""

    def rows(self, close_ns: Ints) -> Floats:
        """What was known at the closes (n,), ascending, of bars: (n, outputs), column by column in memory.

        Looked up where something changes, some hundred times a day, and repeated in between.
        """
        places = [
            np.searchsorted(close_ns, times) for held in self._held for times in (held.from_ns, held.until_ns + 1)
        ]
        begins = np.unique(np.concatenate([[0], *places]))
        begins = begins[begins < close_ns.size]
        known = np.concatenate([held.at(close_ns[begins]) for held in self._held], axis=1)
        lengths = np.diff(begins, append=close_ns.size)
        columns: Floats = np.repeat(np.ascontiguousarray(known.T), lengths, axis=1)
        return columns.T

    def row(self, close_ns: int) -> Floats:
        """The same of one bar: (outputs,). Most bars take the row of the one before, 0.2 us."""
        from_ns, to_ns, row = self._last
        if not from_ns <= close_ns < to_ns:
            row = np.concatenate([held.at(np.array([close_ns]))[0] for held in self._held])
            self._last = close_ns, min(held.changes_ns(close_ns) for held in self._held), row
        return row

    def digest(self, from_ns: int, to_ns: int) -> str:
        """A hash of all that bars with from_ns < close <= to_ns can see."""
        seen = []
        for held in self._held:
            first = max(int(np.searchsorted(held.from_ns, from_ns, side="right")) - 1, 0)
            stop = int(np.searchsorted(held.from_ns, to_ns, side="right"))
            while first < stop and held.until_ns[first] <= from_ns:
                first += 1
            some = slice(first, stop)
            times = np.maximum(held.from_ns[some], from_ns), np.minimum(held.until_ns[some], to_ns)
            seen += [array.tobytes() for array in (*times, held.results[some])]
        return hash_of(seen)


def _held(program: Program, values: SignalValues) -> _Held:
    newest = values.time_ns >= np.maximum.accumulate(values.time_ns)
    usable_ns, time_ns, until_ns, value = values
    mine = SignalValues(usable_ns[newest], time_ns[newest], until_ns[newest], value[newest])
    return _Held(mine.usable_ns, mine.until_ns, _results(program, mine))


def _results(program: Program, values: SignalValues) -> Floats:
    """Results (n, outputs) of versions (n,) in the order of their times; each version of a value goes on from what came
    before the first of them."""
    rows = np.column_stack([values.value, values.time_ns / _NS_PER_S])
    is_last = np.append(np.diff(values.time_ns) != 0, True)[: len(rows)]
    stream, results, begin = program.start(), np.empty((len(rows), len(program.names))), 0
    for k in np.flatnonzero(~is_last).tolist():
        results[begin:k] = stream.run(rows[begin:k])
        before = stream.save()
        results[k] = stream.step(rows[k])
        stream.restore(before)
        begin = k + 1
    results[begin:] = stream.run(rows[begin:])
    return results
