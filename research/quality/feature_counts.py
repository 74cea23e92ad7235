"""What became of the decisions of a day: kept, dropped while windows filled, or dropped for a value that is not finite.

Bars count from the last restart (a gap, a bar left out), and not before every joined column has had a value once: what
stands on hourly bars cannot be known in the first hour, and no feature is to blame for that. Buckets of volume are full
when enough was traded, however many bars that takes: until a feature of theirs is known once, windows are filling.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import store, units
from core.errors import StageError
from core.run_record import Stage
from core.schema import BARS
from core.store import Partition
from core.units import NS_PER_S
from research.bars.clocks import parse_clock
from research.catalogue import compile_texts
from research.day_state import load_state
from research.programs.expression import parse, parts
from research.programs.panel_program import PanelProgram
from research.programs.program import GAP_COLUMN, Floats, Ints

COUNT: Final = "count"

Bools: TypeAlias = NDArray[np.bool_]


@dataclass(frozen=True)
class DayCount:
    """What became of a day's decisions: `filling` came while windows filled, `unknown` had a feature not finite later.

    `fitted` are not among them: they lie where numbers in the features were fitted, and are left out altogether.
    `blame` counts the rows of `unknown` in which each feature was not finite.
    """

    part: Partition
    bars: int
    fitted: int
    decisions: int
    filling: int
    unknown: int
    blame: tuple[int, ...]

    @property
    def kept(self) -> int:
        return self.decisions - self.filling - self.unknown


def day_count(root: Path, day: Partition) -> DayCount | None:
    """What became of the decisions of a day that is built; None where that is not known any more."""
    state = load_state(root, day)
    return count_of(day, state[COUNT]) if state is not None else None


def count_of(day: Partition, count: Ints) -> DayCount:
    """From the array that `counted` made, which is kept in the day's state as COUNT."""
    bars, fitted, decisions, filling, unknown, *blame = count.tolist()
    return DayCount(day, bars, fitted, decisions, filling, unknown, tuple(blame))


def counted(bars: int, fitted: int, values: Floats, is_warm: Bools) -> Ints:
    """Bars, fitted, decisions, filling, unknown, then the blame, of the features (m, features) at a day's decisions.

    `is_warm` (m,) where windows and buckets are full.
    """
    is_finite = np.isfinite(values)
    is_kept = is_finite.all(axis=1)
    blame = (~is_finite[is_warm]).sum(axis=0)
    lost = [np.sum(~is_warm & ~is_kept), np.sum(is_warm & ~is_kept)]
    return np.array([bars, fitted, values.shape[0], *lost, *blame], np.int64)


class Filling(NamedTuple):
    """Where the windows stood at the last bar: its index, the bars since the restart, and whether all was joined."""

    bar_index: int = -2
    bars: int = -1
    is_joined: int = 0


def buckets_full(program: PanelProgram, values: Floats, begins: Ints) -> Bools:
    """For each decision (m,) whether all features that fill by volume were finite once since the windows began to fill.

    `values` (m, features); `begins` (m,) tells the decisions of one stretch from those of the next, ascending.
    """
    is_finite = np.isfinite(values[:, _fill_by_volume(program)])
    latest = np.maximum.accumulate(np.where(is_finite, np.arange(len(values))[:, None], -1), axis=0)
    is_full: Bools = np.logical_and.reduce(latest >= np.searchsorted(begins, begins)[:, None], axis=1)
    return is_full


def _fill_by_volume(program: PanelProgram) -> list[int]:
    """The places of features with an operator that does. One inside a join is a column that was not joined yet."""
    calls = [[part for part in parts(parse(text), into_joins=False) if part.is_call] for text in program.expressions]
    return [
        place for place, each in enumerate(calls) if any(not call.join and call.operator.by_volume for call in each)
    ]


def bars_filled(bar_index: Ints, has_gap: Bools, joined: Floats, last: Filling) -> tuple[Ints, Filling]:
    """For each bar (n,) how many came before it since the windows began to fill; -1 where they have not begun.

    `joined` (n, columns) are the joined columns, `last` is where the bars before ended; also where these end.
    """
    has_joined = np.logical_or.accumulate(np.isfinite(joined).all(axis=1)) | bool(last.is_joined)
    at = np.arange(bar_index.size) + last.bars + 1
    begins = np.where(np.diff(bar_index, prepend=last.bar_index) != 1, at, 0)
    is_blank = has_gap | ~has_joined
    begins[is_blank] = at[is_blank] + 1
    filled = at - np.maximum.accumulate(begins)
    if not filled.size:
        return filled, last
    return filled, Filling(int(bar_index[-1]), int(filled[-1]), int(has_joined[-1]))


class Stretches(NamedTuple):
    """How often the windows of a symbol began to fill anew, and the most bars that came one after another."""

    restarts: int
    longest: int


def stretches(root: Path, days: Sequence[Partition]) -> Stretches:
    """Of the bars of some days, ascending. A bar with a gap belongs to none, one left out parts two."""
    frames = [store.read(root, day, ["bar_index", GAP_COLUMN]) for day in days if store.files(root, day)]
    if not frames:
        return Stretches(0, 0)
    bar_index, has_gap = (pl.concat(frames)[name].to_numpy() for name in ("bar_index", GAP_COLUMN))
    filled, _ = bars_filled(bar_index, has_gap != 0.0, np.empty((bar_index.size, 0)), Filling())
    is_blank = filled < 0
    gaps = np.sum(np.diff(is_blank, prepend=False) & is_blank)
    jumps = np.sum((np.diff(filled) != 1) & ~is_blank[1:])
    return Stretches(int(gaps + jumps), int(filled.max(initial=-1)) + 1)


def report(stage: Stage, program: PanelProgram, counts: Sequence[DayCount], root: Path) -> None:
    """The section `features` and its lines. Raises StageError where no symbol-day keeps a decision, tables written."""
    fills = [f"{bars:,} bars of {clock}" for clock, bars in _warmup_bars(program).items()]
    stage.say(
        f"{len(program.names)} features of {program.nodes} operators on {program.bar}; windows fill in "
        f"{' and '.join(fills)}"
    )
    by_symbol = sorted(counts, key=lambda count: (count.part.instrument, count.part.date))
    symbols = [list(days) for _, days in groupby(by_symbol, key=lambda count: count.part.instrument)]
    rows = [_row(program, days) for days in symbols]
    whys = [_why_none(row, program, days, root) for row, days in zip(rows, symbols, strict=True)]
    for row, why in zip(rows, whys, strict=True):
        stage.say(_line(row) + why)
        for name, blamed in row["blame"].items():
            stage.say(f"{row['symbol']}: {name} was not finite in {blamed:,} decisions, which were dropped")
    stage.rows_in, stage.rows_out = sum(count.bars for count in counts), sum(count.kept for count in counts)
    stage.put("features", {"count": len(program.names), "names": program.names, "rows": rows})
    if not stage.rows_out:
        longest = max(range(len(rows)), key=lambda at: rows[at]["decisions"])
        raise StageError(f"no decision of {', '.join(row['symbol'] for row in rows)} has all features{whys[longest]}")


def _warmup_bars(program: PanelProgram) -> dict[str, int]:
    """The longest warm-up on each clock, that of the features first."""
    return {
        clock: max(layer.program.warmup_bars for layer in program.layers if layer.clock == clock)
        for clock in program.clocks
    }


def _row(program: PanelProgram, days: list[DayCount]) -> dict[str, Any]:
    """One symbol's row of the section `features`."""
    blame = np.sum([day.blame for day in days], axis=0)
    return {
        "symbol": days[0].part.instrument,
        "fitted": sum(day.fitted for day in days),
        "decisions": sum(day.decisions for day in days),
        "kept": sum(day.kept for day in days),
        "filling": sum(day.filling for day in days),
        "unknown": sum(day.unknown for day in days),
        "blame": {name: int(n) for name, n in zip(program.names, blame, strict=True) if n},
    }


def _line(row: dict[str, Any]) -> str:
    line = f"{row['symbol']}: {row['kept']:,} of {row['decisions']:,} decisions have all features"
    line += f"; dropped: {row['filling']:,} while windows filled, {row['unknown']:,} not finite"
    return line + (f"; {row['fitted']:,} more lie where numbers were fitted" if row["fitted"] else "")


def _why_none(row: dict[str, Any], program: PanelProgram, days: Sequence[DayCount], root: Path) -> str:
    """What to change where no decision of a symbol's days has all features; empty where some have."""
    if row["kept"]:
        return ""
    if row["unknown"]:
        worst = sorted(row["blame"], key=lambda name: -row["blame"][name])
        more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
        return f": never all finite once windows were full, look at {', '.join(worst[:3])}{more}"
    if not row["filling"]:
        if row["fitted"]:
            return ": numbers were fitted on all of it, run `fit` with an earlier features.fit_until"
        return ": no bar closes at a decision time, see `decision` and `bars`"
    found = stretches(root, [day.part.of(BARS, program.bar) for day in days])
    return _why_filling(program, sum(day.bars for day in days), found)


def _why_filling(program: PanelProgram, bars: int, found: Stretches) -> str:
    """The same where windows filled all the time, in so many bars that lie in such stretches."""
    windows = _windows(program)
    parted = [] if windows.unfilled(bars, program.bar) else windows.unfilled(found.longest, program.bar)
    if found.restarts and parted:
        times, span = units.counted(found.restarts, "time"), _span(found.longest, program.bar)
        return (
            f": windows fill anew after a gap in the bars, here {times}, and the longest stretch without one, {span}, "
            f"is no longer than the longest window, that of {_longest(parted).told}: choose shorter ones, or capture "
            "without such gaps"
        )
    longest = windows.blocking(bars, program.bar)
    poured = [program.names[place] for place in _fill_by_volume(program)]
    if poured and longest.clock == program.bar and longest.bars < bars:
        between = " between gaps" if found.restarts else ""
        buckets = f"the buckets of {', '.join(poured)}"
        return f": too little was traded{between} to fill {buckets}: capture more, or choose smaller ones"
    remedy = "capture more" if longest.span_ns else "capture more, or choose smaller bars"
    return f": the stretch is shorter than the longest window, that of {longest.told}: {remedy}"


def _span(bars: int, clock: str) -> str:
    """`25 bars (5 s)`, or `25 bars of volume_10` on a clock that no time can be counted in."""
    span_ns = bars * parse_clock(clock).step_ns
    return f"{units.counted(bars, 'bar')}{f' ({span_ns / NS_PER_S:g} s)' if span_ns else f' of {clock}'}"


class _Filled(NamedTuple):
    """What must fill: a feature's own windows, or those inside a join; on which clock, after how many bars."""

    name: str
    clock: str
    bars: int

    @property
    def span_ns(self) -> int:
        """How long that takes; 0 on a clock that no time can be counted in."""
        return self.bars * parse_clock(self.clock).step_ns

    @property
    def told(self) -> str:
        return f"{self.name}, {_span(self.bars, self.clock)}"


class _Windows(NamedTuple):
    """The longest of each feature on the features' own clock, and of each layer that is joined to them."""

    own: list[_Filled]
    joined: list[_Filled]

    def unfilled(self, bars: int, clock: str) -> list[_Filled]:
        """Those that so many bars of the features' own clock in a row cannot have filled.

        How many bars of another clock that is, is known only where both clocks are of time.
        """
        had_ns = bars * parse_clock(clock).step_ns
        short = [each for each in self.own if each.bars >= bars]
        return short + [each for each in self.joined if had_ns and each.span_ns > had_ns]

    def blocking(self, bars: int, clock: str) -> _Filled:
        """The longest; what cannot have filled comes before what may have, and that before what has."""
        had_ns = bars * parse_clock(clock).step_ns
        unknown = [each for each in self.joined if not had_ns or not each.span_ns]
        return _longest(self.unfilled(bars, clock) or unknown or self.own + self.joined)


def _longest(windows: Sequence[_Filled]) -> _Filled:
    return max(windows, key=lambda each: each.span_ns or each.bars)


def _windows(program: PanelProgram) -> _Windows:
    own = [
        _Filled(name, program.bar, compile_texts({name: text}, program.bar).main.warmup_bars)
        for name, text in zip(program.names, program.expressions, strict=True)
    ]
    joined = [
        _Filled(f"{name} on {layer.clock}", layer.clock, layer.program.warmup_bars + 1)
        for layer in program.layers[:-1]
        for name in layer.program.names[:1]
    ]
    return _Windows(own, joined)
