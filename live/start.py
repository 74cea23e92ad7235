"""What a session of the runner begins from: which instruments, and the state of each.

The simulated market goes on where capture ended, so the runner does too: bars from the state that the bars stage saved,
features from as many of the last bars as the windows take to fill, which gives the bits of a run without a break, or
from the state that the features stage saved where they need one. Elsewhere nothing connects to what
was captured: it begins cold and decides nothing until all windows are full.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from core import schema, store
from core.config import DEFAULT_SYMBOLS, Config
from core.errors import StageError
from core.store import Partition
from live.journal import State
from live.manifest import Bundle
from live.runner import fresh_bars, join_state, started_panel
from research.bars.bar_pass import ClosedBars
from research.day_state import load_state
from research.programs.panel import Joined, Panel, closed_bars
from research.programs.panel_program import PanelProgram
from research.signal_table import signal_table


def start_states(cfg: Config, bundle: Bundle) -> dict[str, State]:
    """The state of each instrument (`venue:SYMBOL`) to follow, in the order of their names."""
    days = last_days(cfg, bundle)
    names = sorted(cfg.symbols or days or DEFAULT_SYMBOLS)
    names = [name for name in names if name.partition(":")[0] not in schema.INVERSE]
    require_compared(bundle, names)
    warm = days if cfg.source == "sim" else {}
    table = signal_table(cfg, bundle.program, bundle.manifest.signals_read)
    signals = {name: table.columns(name, bundle.program) for name in warm} if table.names else None
    panel = started_panel(bundle, {name: {} for name in names}, signals=signals)
    return {
        name: _warm_start(cfg.root, bundle, warm[name], panel) if name in warm else cold_start(bundle, name)
        for name in names
    }


def require_compared(bundle: Bundle, names: Sequence[str]) -> None:
    """Raises StageError where features compare the symbols of a run and these are others than in training."""
    trained = bundle.manifest.symbols
    if bundle.program.compares_symbols and set(names) != set(trained):
        raise StageError(
            f"{bundle.manifest.model_id} has features that compare the symbols of a run (cs_), which in training were "
            f"{', '.join(trained)}, and would now be {', '.join(names)}: give `symbols` as they were"
        )


def last_days(cfg: Config, bundle: Bundle) -> dict[str, Partition]:
    """The last day of each captured instrument that has bars, on any clock that the features read."""
    clocks = bundle.program.clocks
    parts = [part for clock in clocks for part in store.partitions(cfg.root, schema.BARS, cfg.symbols or (), clock)]
    by_date = sorted(parts, key=lambda part: part.date)
    return {part.instrument: part.of(schema.BARS, bundle.manifest.bars) for part in by_date}


def cold_start(bundle: Bundle, name: str) -> State:
    """The state of an instrument (`venue:SYMBOL`) that nothing is known of."""
    return join_state(fresh_bars(bundle, name), {})


def _warm_start(root: Path, bundle: Bundle, day: Partition, panel: Panel) -> State:
    """The state after a captured day; cold where the bars stage left none.

    Raises StageError where it left that of bars that the model cannot read.
    """
    bars = fresh_bars(bundle, day.instrument)
    states = [load_state(root, day.of(schema.BARS, clock.name)) for clock in bars.clocks]
    left = [state for state in states if state is not None]
    if len(left) < len(states):
        return cold_start(bundle, day.instrument)
    try:
        bars.restore(left)
    except ValueError as error:
        raise StageError(
            f"{day.instrument} {day.date}: {error}. {bundle.manifest.model_id} reads "
            f"{', '.join(bundle.program.clocks)} with {bars.levels} levels of the book: run `bars` with "
            f"bars={bundle.manifest.bars} and bars_levels={bars.levels} at least"
        ) from error
    _go_on(root, panel, day)
    return join_state(bars, panel.save(day.instrument))


def _go_on(root: Path, panel: Panel, day: Partition) -> None:
    """Bring the features of an instrument to the end of a captured day.

    Raises StageError where the features stage left no state of features that need one.
    """
    name = day.instrument
    if panel.program.is_chained:
        saved = load_state(root, day.of(schema.FEATURES, day.bars))
        try:
            panel.restore(name, saved or {})
        except (KeyError, ValueError) as error:
            raise StageError(
                f"{name} {day.date}: no state of the model's features ({error}): run `features`"
            ) from error
        return
    bars = _last_bars(root, day, panel.program)
    panel.evaluate(name, panel.rows(name, bars, Joined()), bars, np.arange(len(bars)))


def _last_bars(root: Path, day: Partition, program: PanelProgram) -> ClosedBars:
    """As many bars up to the end of a day as fill the windows, over as many days as that takes."""
    days = [part for part in store.partitions(root, schema.BARS, [day.instrument], day.bars) if part.date <= day.date]
    count, found = program.main.warmup_bars + 1, store.read(root, day)
    for earlier in reversed(days[:-1]):
        if found.height >= count:
            break
        found = pl.concat([store.read(root, earlier), found])
    return closed_bars(found.tail(count), program)
