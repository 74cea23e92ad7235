"""A panel: one run of a `PanelProgram` over all symbols, a day or a single bar at a time, with the same bits.

    joined = panel.join(bars_of)                      # all layers but the last, on all bars that have closed
    rows = panel.rows(name, bars, joined)             # what the features of one symbol are made of
    features = panel.evaluate(name, rows, bars, take)

What is handed over in one go are, of every clock and symbol, the bars that closed since the last time up to one
instant: none later, and none that is still missing. Where that instant lies changes no bit, since a join picks the last
bar closed at or before a row's close and keeps it for rows to come.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from research.bars.bar_pass import ClosedBars
from research.bars.columns import bar_columns, deepest_level
from research.catalogue import feature_rows
from research.machine.interpreter import TILE
from research.programs.cross_section import across, are_equal
from research.programs.panel_program import FEATURES, JoinedColumn, Layer, PanelProgram
from research.programs.program import Floats, Ints, Stream
from research.programs.signal_columns import SignalColumns

Arrays = dict[str, NDArray[Any]]
BarsOf = Callable[[str, str], ClosedBars | None]
"""The bars of an instrument (`venue:SYMBOL`) on a clock that closed since the last time; None where none did."""
Each = Callable[[Callable[[str], Any], Iterable[str]], Iterable[Any]]
"""`map`, or that of a pool of threads."""

BAR_TIMES: Final = ("open_ns", "close_ns", "bar_index")
_FEW: Final = 16
_NO_CLOSES: Final = np.zeros(0, np.int64)
_NEVER: Final = np.iinfo(np.int64).min // 2
_NAMES, _LAST, _LAST_NS = "names", "last_values", "last_ns"


@dataclass
class _Run:
    """A layer on one instrument's bars: its stream, and the last bar's close and results, for rows to come.

    `idle` is what stands for these while no bar closes, as is so at most instants on slow clocks.
    """

    stream: Stream
    last_values: Floats
    last_ns: int = _NEVER
    idle: "Series | None" = None


class Series(NamedTuple):
    """Results (n, outputs) of a layer at the closes (n,) of an instrument's new bars, and those of the bar before, at
    _NEVER where there was none."""

    close_ns: Ints
    values: Floats
    before_ns: int
    before: Floats

    def latest(self, close_ns: Ints, output: int, step_ns: int) -> Floats:
        """The values (n,) at the last bars closed at or before `close_ns` (n,), ascending.

        On time bars of `step_ns` a value that is older than its next bar should be is not known; 0 on other clocks.
        """
        if step_ns and are_equal(close_ns, self.close_ns):
            return self.values[:, output]
        at = np.searchsorted(self.close_ns, close_ns, side="right")  # 0: the bar before
        values = np.concatenate([self.before[output : output + 1], self.values[:, output]])[at]
        closes = np.concatenate([[self.before_ns], self.close_ns])[at]
        return np.where(close_ns - closes < step_ns, values, np.nan) if step_ns else values

    def latest_one(self, close_ns: int, output: int, step_ns: int) -> float:
        """`latest` for a single row: 1 us against 5."""
        at_ns, row = self.before_ns, self.before
        for place, closed_ns in enumerate(self.close_ns.tolist()):
            if closed_ns <= close_ns:
                at_ns, row = closed_ns, self.values[place]
        return math.nan if step_ns and close_ns - at_ns >= step_ns else float(row[output])


@dataclass
class Joined:
    """What the layers but the last made of the bars that closed: by layer and instrument, cross-sections as asked.

    `few` are rows of a few bars (a live one), made once for all layers; rows of a day would be too many to keep.
    """

    layers: list[dict[str, Series]] = field(default_factory=list)
    crossed: dict[tuple[JoinedColumn, str], Floats] = field(default_factory=dict)
    few: dict[tuple[str, str], Floats] = field(default_factory=dict)


class Panel:
    """The state of one run of a program on `instruments` (`venue:SYMBOL`).

    `signals` are the slow series of each, whole or as far as they are known by now; they may be put in anew. A series
    of an instrument that has none is never known.

    Raises ValueError where a feature asks for a symbol that is not among them, or reads slow series and there are no
    `signals`: an empty mapping is that none is known.
    """

    def __init__(
        self,
        program: PanelProgram,
        instruments: Sequence[str],
        tile: int = TILE,
        signals: Mapping[str, SignalColumns] | None = None,
    ) -> None:
        if signals is None and program.signals:
            read = ", ".join(layer.name for layer in program.signals)
            raise ValueError(
                f"the features read slow series ({read}), and no signals were given: read them from the table as "
                "research.signal_table.signal_table(cfg, program).columns(name, program) of each instrument, or give {}"
            )
        self.program = program
        none = SignalColumns(program.signals, {})
        self.signals = {name: (signals or {}).get(name, none) for name in instruments}
        self.instruments = tuple(sorted(instruments))
        self._asked = program.asked(self.instruments)
        self._runs = [
            {name: _started(layer, tile) for name in names}
            for layer, names in zip(program.layers, self._asked, strict=True)
        ]
        columns = {column for layer in program.layers for column in layer.joined if column.join.is_cross_section}
        self._crossings = [[column for column in columns if column.layer == k] for k in range(len(program.layers))]

    def join(self, bars_of: BarsOf, each: Each = map) -> Joined:
        """Run all layers but the last. `each` may spread the instruments of a layer over threads."""
        joined = Joined()
        for number, (layer, names) in enumerate(zip(self.program.layers[:-1], self._asked[:-1], strict=True)):

            def series(name: str, number: int = number, layer: Layer = layer) -> Series:
                return self._series(number, layer, name, bars_of(name, layer.clock), joined)

            joined.layers.append(dict(zip(names, each(series, names), strict=True)))
            self._compare(self._crossings[number], joined)
        return joined

    def rows(self, name: str, bars: ClosedBars, joined: Joined) -> Floats:
        """Rows (n, columns) of the features of one instrument for its bars: what they read, joined columns last."""
        return _rows(self.program.layers[-1], name, bars, joined, self.signals[name])

    def evaluate(self, name: str, rows: Floats, bars: ClosedBars, take: Ints) -> Floats:
        """Features (m, features) of the rows `take` (m,), going on from the bars before."""
        return _evaluate(self._runs[-1][name].stream, rows, bars, take)

    def run(self, bars_of: BarsOf) -> dict[str, Floats]:
        """Features (n, features) at all bars that closed since the last time, of every instrument that had any."""
        joined, found = self.join(bars_of), {}
        for name in self.instruments:
            bars = bars_of(name, self.program.bar)
            if bars is not None:
                found[name] = self.evaluate(name, self.rows(name, bars, joined), bars, np.arange(len(bars)))
        return found

    def save(self, name: str) -> Arrays:
        """All state that hangs on one instrument's bars, as arrays that `np.savez` takes without pickling."""
        saved: Arrays = {}
        for layer, runs in zip(self.program.layers, self._runs, strict=True):
            if name in runs:
                run, prefix = runs[name], f"{layer.key}|"
                saved |= {prefix + key: array for key, array in run.stream.save().items()}
                saved |= {prefix + _LAST: run.last_values.copy(), prefix + _LAST_NS: np.array(run.last_ns)}
                saved[prefix + _NAMES] = np.array(layer.program.names, np.str_)
        return saved

    def restore(self, name: str, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a `save` of this program, or of one that computes all that this one does.

        Raises ValueError if it was made by features that do not hold these.
        """
        for layer, runs in zip(self.program.layers, self._runs, strict=True):
            if name in runs:
                _restore(layer, runs[name], saved)

    def _series(self, number: int, layer: Layer, name: str, bars: ClosedBars | None, joined: Joined) -> Series:
        run = self._runs[number][name]
        if bars is None or not len(bars):
            if run.idle is None:
                run.idle = Series(_NO_CLOSES, run.last_values[None][:0], run.last_ns, run.last_values)
            return run.idle
        before_ns, before = run.last_ns, run.last_values
        rows = _rows(layer, name, bars, joined, self.signals[name])
        values = _evaluate(run.stream, rows, bars, np.arange(len(bars)))
        run.last_ns, run.last_values, run.idle = int(bars.close_ns[-1]), values[-1].copy(), None
        return Series(bars.close_ns, values, before_ns, before)

    def _compare(self, columns: Iterable[JoinedColumn], joined: Joined) -> None:
        """Compare the symbols in the results of a layer."""
        for column in columns:
            results = [joined.layers[column.layer][name] for name in self.instruments]
            closes, values = [each.close_ns for each in results], [each.values[:, column.output] for each in results]
            compared = across(column.join.form, closes, values)
            joined.crossed |= {(column, name): each for name, each in zip(self.instruments, compared, strict=True)}


def bars_read(program: PanelProgram) -> tuple[str, ...]:
    """The columns of the bars that a program takes, with no more book levels than it reads."""
    return bar_columns(deepest_level(program.expressions))


def closed_bars(frame: pl.DataFrame, program: PanelProgram) -> ClosedBars:
    """Bars of the table `bars` as a panel takes them."""
    open_ns, close_ns, bar_index = (frame[name].to_numpy() for name in BAR_TIMES)
    return ClosedBars(open_ns, close_ns, bar_index, frame.select(bars_read(program)).to_numpy())


def _rows(layer: Layer, name: str, bars: ClosedBars, joined: Joined, signals: SignalColumns) -> Floats:
    own, width = _own_rows(layer, name, bars, joined), len(layer.signals)
    for k, column in enumerate(layer.joined, own.shape[1] - width - len(layer.joined)):
        own[:, k] = _joined_column(column, name, bars, joined)
    if width:
        known = signals.row(int(bars.close_ns[0])) if len(bars) == 1 else signals.rows(bars.close_ns)
        own[:, -width:] = known[..., list(layer.signals)]
    return own


def _joined_column(column: JoinedColumn, name: str, bars: ClosedBars, joined: Joined) -> Floats | float:
    if column.join.is_cross_section:
        return joined.crossed[column, name]
    series = joined.layers[column.layer][column.join.target(name)]
    if len(bars) == 1:
        return series.latest_one(int(bars.close_ns[0]), column.output, column.step_ns)
    return series.latest(bars.close_ns, column.output, column.step_ns)


def _own_rows(layer: Layer, name: str, bars: ClosedBars, joined: Joined) -> Floats:
    """Rows of a layer's program, its joined columns yet to be filled."""
    width = len(layer.joined) + len(layer.signals)
    if len(bars) > _FEW:
        return feature_rows(bars.values, bars.close_ns, width, layer.program.inputs.tolist())
    place = name, layer.clock
    if place not in joined.few:
        joined.few[place] = feature_rows(bars.values, bars.close_ns)
    few = joined.few[place]
    if not width:
        return few
    rows = np.empty((len(bars), few.shape[1] + width))
    rows[:, :-width] = few
    return rows


def _evaluate(stream: Stream, rows: Floats, bars: ClosedBars, take: Ints) -> Floats:
    """One bar takes the short way: 5 us against 20."""
    if len(bars) != 1:
        return stream.run(rows, bars.bar_index, take)
    return stream.step(rows[0], int(bars.bar_index[0]))[None][: take.size]


def _started(layer: Layer, tile: int) -> _Run:
    return _Run(layer.program.start(tile), np.full(len(layer.program.names), np.nan))


def _restore(layer: Layer, run: _Run, saved: Mapping[str, NDArray[Any]]) -> None:
    prefix = f"{layer.key}|"
    mine = {key.removeprefix(prefix): array for key, array in saved.items() if key.startswith(prefix)}
    if not mine:
        raise ValueError("state was saved by other features: start afresh and let the windows fill")
    run.stream.restore(mine)
    place = {text: k for k, text in enumerate(mine[_NAMES].tolist())}
    missing = [text for text in layer.program.names if text not in place]
    if layer.key != FEATURES:  # whose results no row to come is joined with
        if missing:
            raise ValueError(f"state was saved by other features, which lack {missing[0]}: start afresh")
        run.last_values = mine[_LAST][[place[text] for text in layer.program.names]]
        run.last_ns, run.idle = int(mine[_LAST_NS]), None
