"""Stage `features`: bars to features at the decision times, day by day. What a feature is: language.py, catalogue.py.

    python research/build_features.py --set features.mine.my_signal="(sub imbalance (mean_25 imbalance))"

A day begins with the last bars of the days before, as many as the windows take to fill, which gives the bits of a run
without a break (rolling.py), and hangs on no other day's build. Only where an operator remembers everything
(recursive.py), or where features join bars of other clocks or symbols (joins.py), does a day go on from the state that
the symbol's last day before it left: then days are built in order, and those of all symbols together where symbols are
joined, from the last states also of those that have no bars on that day.

Slow series (signal_table.py) are read whole, symbol by symbol, and no state is kept of them: a day is built again where
what its bars could see of them has changed, and only there.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import groupby
from typing import Final

import numpy as np
import polars as pl

from core import store
from core.cli import stage_main
from core.config import Config
from core.errors import ConfigError, StageError
from core.run_record import Stage
from core.schema import BARS, FEATURES, SIGNALS, TOP_OF_BOOK
from core.store import Partition, hash_of
from core.units import NS_PER_DAY
from research.bars.bar_pass import ClosedBars
from research.bars.clocks import decision_step_ns, is_decision, parse_clock
from research.bars.columns import deepest_level
from research.catalogue import compile_texts
from research.day_state import Arrays, load_state, save_state, state_hash, state_inputs
from research.feature_settings import inputs_of, settings_hash
from research.fitting.fitted import chosen_features, require_fitted
from research.programs.panel import BAR_TIMES, Each, Joined, Panel, bars_read, closed_bars
from research.programs.panel_program import PanelProgram
from research.programs.program import GAP_COLUMN
from research.programs.signal_columns import SignalColumns
from research.quality.feature_counts import (
    COUNT,
    DayCount,
    Filling,
    bars_filled,
    buckets_full,
    count_of,
    counted,
    report,
)
from research.signal_table import SignalTable, missing_lines, signal_table

READS, WRITES = (BARS, SIGNALS), (FEATURES,)

_WORKERS: Final = 2  # partitions at a time: the kernel releases the GIL
_FILLING, _SETTINGS = "filling", "settings"


@dataclass(frozen=True)
class _Plan:
    """What every day is built with. `days` are those of each instrument of the run that have bars on any clock, in
    order; `settings` is a hash of theirs.

    Decisions up to `until_ns` are left out: numbers in the features were fitted there. `signals` are those of an
    instrument.
    """

    root: Path
    program: PanelProgram
    days: Mapping[str, list[Partition]]
    step_ns: int
    until_ns: int
    settings: str
    signals: Callable[[str], SignalColumns]

    def sources(self, day: Partition) -> list[Partition]:
        """The bars that a symbol-day of features is made of, besides those that the state before it has seen."""
        parts = [day.of(BARS, clock) for clock in self.program.clocks]
        return parts if self.program.is_chained else [*self.filling(day), *parts]

    def filling(self, day: Partition) -> list[Partition]:
        """The days of bars before a day that it takes to fill the windows."""
        found: list[Partition] = []
        bars = self.program.main.warmup_bars
        for before in reversed(self.before(day, day.instrument)):
            if bars <= 0:
                break
            found.insert(0, before.of(BARS, day.bars))
            bars -= store.rows(self.root, found[0])
        return found

    def before(self, day: Partition, instrument: str) -> list[Partition]:
        """The days of an instrument before a day."""
        return [before for before in self.days[instrument] if before.date < day.date]

    def panel(self, days: list[Partition]) -> Panel:
        """A fresh panel of the symbols of some days, and of all others where features join symbols."""
        names = list(self.days) if self.program.crosses_symbols else [days[0].instrument]
        return Panel(self.program, names, signals={name: self.signals(name) for name in names})

    def seen(self, day: Partition) -> str:
        """A hash of what the bars that a symbol-day is made of can see of slow series; empty where it reads none."""
        if not self.program.signals:
            return ""
        filling = [] if self.program.is_chained else self.filling(day)
        closes = [store.read(self.root, part, ["close_ns"])["close_ns"] for part in filling]
        first = pl.concat(closes).tail(self.program.main.warmup_bars)[:1].to_list() if closes else []
        from_ns = first[0] - 1 if first else day.starts_ns
        return self.signals(day.instrument).digest(from_ns, day.starts_ns + NS_PER_DAY)


def run(cfg: Config, stage: Stage) -> None:
    """Bars to features."""
    program, until_ns = compile_texts(chosen_features(cfg), cfg.bars), require_fitted(cfg).until_ns
    step_ns = decision_step_ns(parse_clock(cfg.bars), cfg.decision)
    bars = [_require_bars(cfg, clock) for clock in program.clocks]
    _require_levels(cfg.root, deepest_level(program.expressions), [part for parts in bars for part in parts])
    days = sorted({day.of(FEATURES, cfg.bars) for parts in bars for day in parts})
    by_name = {name: list(mine) for name, mine in groupby(days, key=lambda day: day.instrument)}
    _require_symbols(program, list(by_name), cfg)
    settings = settings_hash(cfg, program)
    table = signal_table(cfg, program)
    held = [[part for name in by_name for part in table.parts(name)]] if program.signals else []
    key = hash_of(settings, [store.fingerprint(cfg.root, parts) for parts in (*bars, *held)])
    if stage.reuse(key, whole=all(_state_of(cfg.root, day) is not None for day in days)):
        return
    plan = _Plan(cfg.root, program, by_name, step_ns, until_ns, settings, _signals(table, program, by_name))
    chains = _chains(program, days)
    with ThreadPoolExecutor(_WORKERS) as pool:
        if len(chains) == 1:  # the symbols of a day are joined: what can be spread is within the day
            counts = [_build_days(plan, together, pool.map) for together in stage.track(chains[0], "features")]
        else:
            built = pool.map(lambda chain: [count for days in chain for count in _build_days(plan, days)], chains)
            counts = list(stage.track(built, "features", total=len(chains)))
    if program.signals:
        for line in missing_lines(table.names, {name: plan.signals(name).names for name in by_name}):
            stage.say(line)
    report(stage, program, [count for some in counts for count in some], cfg.root)


def _signals(table: SignalTable, program: PanelProgram, names: Collection[str]) -> Callable[[str], SignalColumns]:
    """The slow series of an instrument. No more are kept than are built at a time: a year of one is some MB."""

    @lru_cache(maxsize=len(names) if program.crosses_symbols else 2 * _WORKERS)
    def columns(name: str) -> SignalColumns:
        return replace(table).columns(name, program)

    return columns


def _require_bars(cfg: Config, clock: str) -> list[Partition]:
    """The bars of a clock. Raises StageError where there are none, as the bars stage left none or has not run."""
    found = store.partitions(cfg.root, BARS, cfg.symbols or (), clock)
    captured = store.partitions(cfg.root, TOP_OF_BOOK, cfg.symbols or ())
    if not found and any(load_state(cfg.root, day.of(BARS, clock)) is not None for day in captured):
        raise StageError(
            f"no bar of {clock} closed in what was captured, which is shorter than one: capture more, or choose "
            "features and `bars` that do without"
        )
    return store.require(cfg.root, BARS, cfg.symbols or (), clock)


def _require_symbols(program: PanelProgram, instruments: Sequence[str], cfg: Config) -> None:
    named = cfg.symbols or {part.instrument for part in store.partitions(cfg.root, TOP_OF_BOOK)}
    try:
        program.asked(instruments, set(named) - set(instruments), cfg.features.mine)
    except ValueError as error:
        name = str(error).removeprefix("feature ").partition(":")[0]
        place = f"$.features.mine.{name}" if name in cfg.features.mine else "$.features"
        raise ConfigError(f"features: {error}\n  - at `{place}`") from None


def _require_levels(root: Path, levels: int, bars: Sequence[Partition]) -> None:
    """Raises StageError where bars hold fewer levels of the book than the features read."""
    for part in bars if levels else ():
        held = deepest_level(store.scan(store.files(root, part)[0]).collect_schema().names())
        if held < levels:
            raise StageError(
                f"{part.instrument} {part.date}: bars of {part.bars} hold {held} levels of the book, the features read "
                f"{levels}: run `python run_pipeline.py bars`"
            )


def _chains(program: PanelProgram, days: list[Partition]) -> list[list[list[Partition]]]:
    """Symbol-days that are built together, in lists in which each goes on from the one before."""
    if program.crosses_symbols:
        return [[list(days) for _, days in groupby(sorted(days, key=lambda day: day.date), key=lambda day: day.date)]]
    if program.is_chained:
        return [[[day] for day in chain] for _, chain in groupby(sorted(days), key=lambda day: day.instrument)]
    return [[[day]] for day in days]


def _build_days(plan: _Plan, days: list[Partition], each: Each = map) -> list[DayCount]:
    """Write the features of one day of some symbols, unless all of them are fresh."""
    panel = plan.panel(days)
    begins = {name: _begin(plan, days[0], name) for name in panel.instruments}
    sources = store.fingerprint(plan.root, [part for day in days for part in plan.sources(day)])
    seen = [plan.seen(day) for day in days] if plan.program.signals else []
    states = [state_hash(begins[name]) for name in panel.instruments]
    inputs = inputs_of(plan.settings, rows=hash_of(panel.instruments, sources, states, *seen))
    fresh = [_count_of_fresh(plan.root, day, inputs) for day in days]
    if None not in fresh:
        return [count for count in fresh if count is not None]
    for name, state in begins.items():
        if state is not None:
            panel.restore(name, state)
    by_name = {day.instrument: day for day in days}
    joined = panel.join(lambda name, clock: _bars(plan, by_name[name], clock) if name in by_name else None, each)
    write = partial(_write_day, plan, panel, joined, inputs)
    return list(each(lambda name: write(by_name[name], begins[name]), by_name))


def _write_day(
    plan: _Plan, panel: Panel, joined: Joined, inputs: str, day: Partition, begin: Arrays | None
) -> DayCount:
    """Write a symbol-day's features at its decisions, then its counts and state, which say that it is done.

    A day that has bars on joined clocks alone leaves the state only.
    """
    program, bars = plan.program, _bars(plan, day, plan.program.bar)
    is_todays = bars.close_ns > day.starts_ns
    decided = is_decision(bars.close_ns, plan.step_ns) & is_todays
    take = np.flatnonzero(decided & (bars.close_ns > plan.until_ns))
    rows = panel.rows(day.instrument, bars, joined)
    values = panel.evaluate(day.instrument, rows, bars, take)
    has_gap, before = rows[:, program.columns.index(GAP_COLUMN)] != 0.0, Filling(*(begin or {}).get(_FILLING, ()))
    joined_to = len(program.columns) + len(program.layers[-1].joined)
    filled, filling = bars_filled(bars.bar_index, has_gap, rows[:, len(program.columns) : joined_to], before)
    fitted = int(decided.sum()) - take.size
    is_warm = (filled[take] >= program.main.warmup_bars) & buckets_full(program, values, take - filled[take])
    count = counted(int(is_todays.sum()), fitted, values, is_warm)
    is_kept = np.isfinite(values).all(axis=1)
    columns = {name: np.ascontiguousarray(values[is_kept, k]) for k, name in enumerate(program.names)}
    if is_todays.any():
        store.write(plan.root, day, pl.DataFrame({"decision_ns": bars.close_ns[take][is_kept]} | columns), inputs)
    state = {COUNT: count, _SETTINGS: np.array(plan.settings)}
    if program.is_chained:
        state |= panel.save(day.instrument) | {_FILLING: np.array(filling)}
    save_state(plan.root, day, state, inputs)
    return count_of(day, count)


def _bars(plan: _Plan, day: Partition, clock: str) -> ClosedBars:
    """The bars of a day; where it does not go on from a state, after those of days before that fill the windows."""
    names = bars_read(plan.program)
    frame = _frame(plan.root, day.of(BARS, clock), names)
    filling = [] if plan.program.is_chained else plan.filling(day)
    if filling:
        before = pl.concat([_frame(plan.root, each, names) for each in filling])
        frame = pl.concat([before.tail(plan.program.main.warmup_bars), frame])
    return closed_bars(frame, plan.program)


def _frame(root: Path, part: Partition, names: Sequence[str]) -> pl.DataFrame:
    """Times and some columns of a day of bars; no rows where there are none."""
    if store.files(root, part):
        return store.read(root, part, [*BAR_TIMES, *names])
    return pl.DataFrame(schema=dict.fromkeys(BAR_TIMES, pl.Int64) | dict.fromkeys(names, pl.Float64))


def _begin(plan: _Plan, day: Partition, instrument: str) -> Arrays | None:
    """The state that the instrument's last day before a day ended with, if it is there and built by these features."""
    before = plan.before(day, instrument)[-1:] if plan.program.is_chained else []
    state = _state_of(plan.root, before[0]) if before else None
    return state if state is not None and str(state.get(_SETTINGS)) == plan.settings else None


def _state_of(root: Path, day: Partition) -> Arrays | None:
    """The state after a day, if its features, where it has any bars, were written with it."""
    state = load_state(root, day)
    if state is None or COUNT not in state:
        return None
    written = state_inputs(state) if count_of(day, state[COUNT]).bars else ""
    return state if store.built_from(root, day) == written else None


def _count_of_fresh(root: Path, day: Partition, inputs: str) -> DayCount | None:
    """The counts of a day that was built from these inputs; None where it must be built."""
    state = _state_of(root, day)
    return count_of(day, state[COUNT]) if state is not None and state_inputs(state) == inputs else None


if __name__ == "__main__":
    stage_main("features", run)
