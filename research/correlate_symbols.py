"""Stage `correlate`: how the symbols of a run move together, over all of it and from day to day.

    python run_pipeline.py correlate

Correlation and beta of mid returns over steps from one bar to five minutes that do not overlap, on bars of time. What
features make of other symbols, bar by bar, is written in the language: `(corr_300s bar_return_bps (of_BTCUSDT …))`.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import operator
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import groupby
from typing import Any, Final

import numpy as np

from core import store
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.run_record import Stage
from core.schema import BARS, Table
from core.store import Partition
from core.text_table import blocks
from core.units import NS_PER_S
from research.bars.clocks import Clock, parse_clock
from research.language import compile_features
from research.programs.cross_section import aligned
from research.programs.program import Floats, Ints, Stream
from research.quality.correlation import CoMoments, co_moments

READS: tuple[Table, ...] = (BARS,)
WRITES: tuple[Table, ...] = ()
_STEPS_NS: Final = tuple(seconds * NS_PER_S for seconds in (10, 60, 300))
_COLUMNS: Final = ("close_price", "has_gap")
_CHANCE: Final = 1.96  # deviations of independent returns' correlation, which is 1 / sqrt(n): 95 %
_NO_BARS: Final = np.zeros(0, np.int64)


def run(cfg: Config, stage: Stage) -> None:
    """Print the matrices. Raises StageError for bars that do not close at common instants."""
    clock = parse_clock(cfg.bars)
    if not clock.is_time:
        why = f"bars of {cfg.bars} close at instants of their own"
        raise StageError(f"{why}: symbols are compared on bars of time, as with --set bars=time_1s")
    parts = store.require(cfg.root, BARS, cfg.symbols or (), cfg.bars)
    names = sorted({part.instrument for part in parts})
    longer_ns = [step_ns for step_ns in _STEPS_NS if step_ns > clock.step_ns and step_ns % clock.step_ns == 0]
    steps_ns = [clock.step_ns, *longer_ns]
    days = list(stage.track(_days(cfg.root, clock, steps_ns, names, parts), "days"))
    stage.rows_in = sum(store.rows(cfg.root, part) for part in parts)
    found = [_Matrix(step_ns, [day[k] for day in days]) for k, step_ns in enumerate(steps_ns)]
    for matrix in found:
        for line in matrix.lines(names, stage.width):
            stage.say(line)
    stage.put("correlations", {"symbols": names, "steps": [matrix.row() for matrix in found]})


@dataclass(frozen=True)
class _Matrix:
    """The moments of returns over one step, day by day."""

    step_ns: int
    days: list[CoMoments]

    @property
    def whole(self) -> CoMoments:
        return reduce(operator.add, self.days)

    def row(self) -> dict[str, Any]:
        """For report.json."""
        whole, daily = self.whole, [day.correlation.tolist() for day in self.days]
        both = {"correlation": whole.correlation.tolist(), "beta": whole.beta.tolist()}
        return {"step_s": self.step_ns / NS_PER_S, "instants": whole.n.tolist(), **both, "by_day": daily}

    def lines(self, names: Sequence[str], width: int) -> list[str]:
        """A matrix for the screen, its columns numbered."""
        whole = self.whole.correlation
        heads = ["", *(str(k + 1) for k in range(len(names)))]
        rows = [[f"{k + 1} {name}", *map(_signed, whole[k])] for k, name in enumerate(names)]
        n = self.whole.n.max()
        title = f"correlation of returns over {self.step_ns / NS_PER_S:g} s, {n:,.0f} instants"
        title += f": within {_CHANCE / np.sqrt(n):.2g} of 0 is chance" if n else ""
        return [title, *(line for block in blocks(heads, rows, width) for line in block), *self._moved(names)]

    def _moved(self, names: Sequence[str]) -> list[str]:
        """The pair whose correlation differed most from day to day."""
        if len(self.days) < 2 or len(names) < 2:
            return []
        daily = np.array([day.correlation for day in self.days])
        lowest, highest = (np.nan_to_num(pick(daily, axis=0), nan=0.0) for pick in (np.fmin.reduce, np.fmax.reduce))
        i, j = divmod(int(np.argmax(highest - lowest)), len(names))
        return [f"from day to day: {names[i]} with {names[j]} from {_signed(lowest[i, j])} to {_signed(highest[i, j])}"]


def _signed(value: float) -> str:
    """Two digits, and no minus before what rounds to 0."""
    return f"{round(value, 2) + 0.0:.2f}"


def _days(
    root: Path, clock: Clock, steps_ns: Sequence[int], names: Sequence[str], parts: Sequence[Partition]
) -> Iterator[list[CoMoments]]:
    """For each day the moments of the returns over each step. One symbol's bars are in memory at a time."""
    features = {str(ns): f"(mul 1e4 (delta_{ns // clock.step_ns} (log close_price)))" for ns in steps_ns}
    program = compile_features(features, _COLUMNS, clock.name)
    streams = {name: program.start() for name in names}
    for _, day in groupby(sorted(parts, key=lambda part: part.date), key=lambda part: part.date):
        found = {part.instrument: _returns(root, part, streams[part.instrument]) for part in day}
        nothing = _NO_BARS, np.zeros((0, len(steps_ns)))
        moves = [found.get(name, nothing) for name in names]
        yield [co_moments(_common(moves, k, step_ns)) for k, step_ns in enumerate(steps_ns)]


def _returns(root: Path, part: Partition, stream: Stream) -> tuple[Ints, Floats]:
    """Closes (n,) and returns (n, steps) in bps of a symbol-day, going on from the day before."""
    frame = store.read(root, part, ["close_ns", "bar_index", *_COLUMNS])
    return frame["close_ns"].to_numpy(), stream.run(frame, frame["bar_index"].to_numpy())


def _common(moves: Sequence[tuple[Ints, Floats]], k: int, step_ns: int) -> Floats:
    """Returns (instants, symbols) over a step, at every end of one: none overlaps another."""
    ends = [close_ns % step_ns == 0 for close_ns, _ in moves]
    closes = [close_ns[end] for (close_ns, _), end in zip(moves, ends, strict=True)]
    return aligned(closes, [values[end, k] for (_, values), end in zip(moves, ends, strict=True)])[1]


if __name__ == "__main__":
    stage_main("correlate", run)
