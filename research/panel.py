"""A panel: one run of a `PanelProgram` over all symbols, a day or a single bar at a time, with the same bits.

    joined = panel.join(bars_of)                      # all layers but the last, on all bars that have closed
    rows = panel.rows(name, bars, joined)             # what the features of one symbol are made of
    features = panel.evaluate(name, rows, bars, take)

What is handed over in one go are, of every clock and symbol, the bars that closed since the last time up to one
instant: none later, and none that is still missing. Where that instant lies changes no bit, since a join picks the last
bar closed at or before a row's close and keeps it for rows to come.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from research.bar_columns import bar_columns, deepest_level
from research.bars import ClosedBars
from research.catalogue import feature_rows
from research.cross_section import across
from research.interpreter import TILE
from research.panel_program import FEATURES, JoinedColumn, Layer, PanelProgram
from research.program import Floats, Ints, Stream

Arrays = dict[str, NDArray[Any]]
BarsOf = Callable[[str, str], ClosedBars | None]
"""The bars of an instrument (`venue:SYMBOL`) on a clock that closed since the last time; None where none did."""
Each = Callable[[Callable[[str], Any], Iterable[str]], Iterable[Any]]
"""`map`, or that of a pool of threads."""

BAR_TIMES: Final = ("open_ns", "close_ns", "bar_index")
_NEVER: Final = np.iinfo(np.int64).min // 2
_NAMES, _LAST, _LAST_NS = "names", "last_values", "last_ns"


@dataclass
class _Run:
    """A layer on one instrument's bars: its stream, and the last bar's close and results, for rows to come."""

    stream: Stream
    last_values: Floats
    last_ns: int = _NEVER


@dataclass(frozen=True)
class Series:
    """Results (1 + n, outputs) of a layer at the closes (1 + n,) of an instrument's bars; the first are the last ones
    from before, at _NEVER where there were none."""

    close_ns: Ints
    values: Floats


@dataclass
class Joined:
    """What the layers but the last made of the bars that closed: by layer and instrument. Cross-sections as asked."""

    layers: list[dict[str, Series]] = field(default_factory=list)
    crossed: dict[tuple[JoinedColumn, str], Floats] = field(default_factory=dict)


class Panel:
    """The state of one run of a program on `instruments` (`venue:SYMBOL`).

    Raises ValueError where a feature asks for a symbol that is not among them.
    """

    def __init__(self, program: PanelProgram, instruments: Sequence[str], tile: int = TILE) -> None:
        self.program = program
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
        return _rows(self.program.layers[-1], name, bars, joined)

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
        close_ns, values = np.array([run.last_ns]), run.last_values[None]
        if bars is not None and len(bars):
            rows = _rows(layer, name, bars, joined)
            made = _evaluate(run.stream, rows, bars, np.arange(len(bars)))
            close_ns, values = np.concatenate([close_ns, bars.close_ns]), np.concatenate([values, made])
            run.last_ns, run.last_values = int(close_ns[-1]), values[-1].copy()
        return Series(close_ns, values)

    def _compare(self, columns: Iterable[JoinedColumn], joined: Joined) -> None:
        """Compare the symbols in the results of a layer."""
        for column in columns:
            results = [joined.layers[column.layer][name] for name in self.instruments]
            closes, values = (
                [each.close_ns[1:] for each in results],
                [each.values[1:, column.output] for each in results],
            )
            compared = across(column.join.form, closes, values)
            joined.crossed |= {(column, name): each for name, each in zip(self.instruments, compared, strict=True)}


def bars_read(program: PanelProgram) -> tuple[str, ...]:
    """The columns of the bars that a program takes, with no more book levels than it reads."""
    return bar_columns(deepest_level(program.expressions))


def closed_bars(frame: pl.DataFrame, program: PanelProgram) -> ClosedBars:
    """Bars of the table `bars` as a panel takes them."""
    open_ns, close_ns, bar_index = (frame[name].to_numpy() for name in BAR_TIMES)
    return ClosedBars(open_ns, close_ns, bar_index, frame.select(bars_read(program)).to_numpy())


def latest(close_ns: Ints, series: Series, output: int, step_ns: int) -> Floats:
    """The values (n,) of the last bars of a series closed at or before `close_ns` (n,), ascending.

    On time bars of `step_ns` a value that is older than its next bar should be is not known; 0 on other clocks.
    """
    at = np.searchsorted(series.close_ns, close_ns, side="right") - 1
    values: Floats = series.values[at, output]
    return np.where(close_ns - series.close_ns[at] < step_ns, values, np.nan) if step_ns else values


def _rows(layer: Layer, name: str, bars: ClosedBars, joined: Joined) -> Floats:
    own = feature_rows(bars.values, bars.close_ns)
    if not layer.joined:
        return own
    rows = np.empty((own.shape[0], own.shape[1] + len(layer.joined)), order="F")
    rows[:, : own.shape[1]] = own
    for k, column in enumerate(layer.joined, own.shape[1]):
        rows[:, k] = _joined_column(column, name, bars, joined)
    return rows


def _joined_column(column: JoinedColumn, name: str, bars: ClosedBars, joined: Joined) -> Floats:
    if column.join.is_cross_section:
        return joined.crossed[column, name]
    series = joined.layers[column.layer][column.join.target(name)]
    return latest(bars.close_ns, series, column.output, column.step_ns)


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
        run.last_ns = int(mine[_LAST_NS])
