"""What a session of the runner begins from: which instruments, and the state of each.

The simulated market goes on where capture ended, so the runner does too: bars from the state that the bars stage saved,
features from as many of the last bars as the windows take to fill, which gives the bits of a run without a break, or
from the state that the features stage saved where they need one. Elsewhere nothing connects to what
was captured, and all windows would start anew at the gap between: it begins cold, decides nothing until all windows are
full, and says so.
"""

from collections.abc import Mapping, Sequence
from itertools import groupby, takewhile
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from core import schema, store
from core.config import DEFAULT_SYMBOLS, Config
from core.errors import StageError
from core.store import Partition
from core.units import NS_PER_S, counted
from live.journal import State
from live.manifest import Bundle
from live.runner import fresh_bars, join_state, started_bars, started_panel
from research.bars.clocks import parse_clock
from research.day_state import load_state
from research.fitting.fitted import chosen_features
from research.programs.panel import Joined, Panel, closed_bars
from research.programs.pointing import WIDEST
from research.programs.program import GAP_COLUMN
from research.signal_table import signal_table

_WHY_COLD: Final = {
    "sim": "the bars stage left no state to go on from",
    "replay": "recorded frames are followed from the first",
    "live": "nothing connects the venue's streams to what was captured",
}
_REMEDY: Final = "restore it and run `features`, or train and export again"
_NAMED: Final = 3  # of instruments or features, in a line


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
        name: _warm_start(cfg, bundle, warm[name], panel) if name in warm else cold_start(bundle, name)
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


def _warm_start(cfg: Config, bundle: Bundle, day: Partition, panel: Panel) -> State:
    """The state after a captured day; cold where the bars stage left none.

    Raises StageError where it left that of bars that the model cannot read.
    """
    bars = fresh_bars(bundle, day.instrument)
    states = [load_state(cfg.root, day.of(schema.BARS, clock.name)) for clock in bars.clocks]
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
    _go_on(cfg, bundle, panel, day)
    return join_state(bars, panel.save(day.instrument))


def _go_on(cfg: Config, bundle: Bundle, panel: Panel, day: Partition) -> None:
    """Bring the features of an instrument to the end of a captured day.

    Raises StageError where the features stage left no state of features that need one, be it because those of the
    configuration are others by now.
    """
    name = day.instrument
    if panel.program.is_chained:
        saved = load_state(cfg.root, day.of(schema.FEATURES, day.bars))
        try:
            panel.restore(name, saved or {})
        except (KeyError, ValueError) as error:
            _require_same_features(cfg, bundle)
            raise StageError(
                f"{name} {day.date}: no state of the model's features ({error}): run `features`"
            ) from error
        return
    bars = closed_bars(_last_bars(cfg.root, day, panel.program.main.warmup_bars + 1), panel.program)
    panel.evaluate(name, panel.rows(name, bars, Joined()), bars, np.arange(len(bars)))


def _require_same_features(cfg: Config, bundle: Bundle) -> None:
    """Raises StageError where the model was trained on features that the configuration has not, or has otherwise: no
    run of `features` helps then."""
    manifest, mine = bundle.manifest, chosen_features(cfg)
    if manifest.bars != cfg.bars:
        raise StageError(f"{manifest.model_id} was trained on bars of {manifest.bars}, yours are {cfg.bars}: {_REMEDY}")
    for name, text in manifest.features:
        if name not in mine:
            raise StageError(f"{manifest.model_id} was trained on {name} too, which is not in your features: {_REMEDY}")
        if mine[name] != text:
            its, yours = _around_difference(text, mine[name])
            why = f"{manifest.model_id} was trained on another text of {name}: {_REMEDY}"
            raise StageError(f"{why}\n  its    {its}\n  yours  {yours}")


def _around_difference(*texts: str) -> list[str]:
    """Texts that differ, long ones cut around the first place where they do."""
    same = sum(1 for _ in takewhile(lambda signs: len(set(signs)) == 1, zip(*texts, strict=False)))
    begin = max(same - WIDEST // 2, 0)
    return [
        ("… " if begin else "") + t[begin : begin + WIDEST] + (" …" if len(t) > begin + WIDEST else "") for t in texts
    ]


def _last_bars(root: Path, day: Partition, count: int) -> pl.DataFrame:
    """The last `count` bars up to the end of a day, over as many days as that takes; fewer where there are not more."""
    days = [part for part in store.partitions(root, schema.BARS, [day.instrument], day.bars) if part.date <= day.date]
    found = store.read(root, day)
    for earlier in reversed(days[:-1]):
        if found.height >= count:
            break
        found = pl.concat([store.read(root, earlier), found])
    return found.tail(count)


def start_lines(cfg: Config, bundle: Bundle, starts: Mapping[str, State]) -> list[str]:
    """What is told of instruments that begin with windows to fill: which, for how long they decide nothing, and how
    many features lack a past that those of the training had. Nothing where all goes on."""
    days, needed = last_days(cfg, bundle), bundle.program.warmup_bars
    left: dict[str, tuple[bool, int]] = {}
    for name, state in starts.items():
        is_cold = started_bars(bundle, name, state).seen_ns == 0
        left[name] = is_cold, (needed or 0) if is_cold else _bars_left(cfg.root, days[name], needed or 0)
    lines = []
    for (is_cold, bars), names in groupby(sorted(left, key=left.__getitem__), key=left.__getitem__):
        pauses = [_pause(cfg, bundle, bars)] if bars or (is_cold and needed is None) else []
        lacking = bundle.program.remembering if is_cold else []
        if lacking:
            pauses.append(
                f"{counted(len(lacking), 'feature')} without the past that never leaves them: {_some(lacking)}"
            )
        if pauses:
            how = f"a cold start, as {_WHY_COLD[cfg.source]}" if is_cold else "windows are not full yet"
            lines.append(f"{_some(list(names))}: {how}: {'; '.join(pauses)}")
    return lines


def _bars_left(root: Path, day: Partition, needed: int) -> int:
    """How many bars the windows still take to fill after a day, which they do anew after a gap or a missing bar."""
    bars = _last_bars(root, day, needed)
    has_gap, index = bars[GAP_COLUMN].to_numpy() != 0.0, bars["bar_index"].to_numpy()
    begins = np.where(has_gap, np.arange(len(index)) + 1, 0)
    begins[1:] = np.maximum(begins[1:], np.where(np.diff(index) != 1, np.arange(1, len(index)), 0))
    return needed - (len(index) - int(begins.max(initial=0)))


def _pause(cfg: Config, bundle: Bundle, bars: int) -> str:
    """How long nothing is decided, and of which feature that is."""
    program = bundle.program
    slowest = max(program.warmups, key=lambda name: _or_longest(program.warmups[name]))
    if program.warmup_bars is None:
        return f"no decision until all windows are full, last that of {slowest}, on bars that no time can be told of"
    wait_s = bars * parse_clock(program.bar).step_ns / NS_PER_S
    span = f" ({wait_s:,g} s)" if wait_s else ""
    never = cfg.source == "live" and wait_s >= cfg.live.duration_s
    more = f", which is all of live.duration_s={cfg.live.duration_s:g}: nothing will be decided" if never else ""
    return f"no decision for {bars:,} bars of {program.bar}{span}, until the windows of {slowest} are full{more}"


def _or_longest(bars: int | None) -> float:
    return float("inf") if bars is None else bars


def _some(names: Sequence[str]) -> str:
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")
