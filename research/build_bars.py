"""Stage `bars`: events to bars, symbol by symbol, day by day. What a bar is: research/bars/bar_pass.py.

    python research/build_bars.py --set bars=time_200ms

The run's clock and all others that its features or `bars_also` ask for are built in one pass over a day's events. A day
begins from the state that the day before it left, so midnight leaves no seam. All symbols of a day are closed up to one
instant, as they are live: midnight where the next day was captured too, of whichever symbol, and else the last event of
any of them. Bars that are open then stay open, in the state.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import store
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.run_record import Stage
from core.schema import BARS, BOOK_DELTAS, GAPS, INVERSE, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.store import Partition, hash_of
from core.units import NS_PER_DAY
from ingest.stored_books import holds_back
from research.bars.bar_pass import BarPass, ClosedBars
from research.bars.clocks import Clock, decision_step_ns, parse_clock
from research.bars.columns import bar_columns
from research.bars.day_events import TABLES, DayEvents
from research.bars.events import Events
from research.day_state import Arrays, load_state, save_state, state_hash, state_inputs
from research.needs import Needs, needed_bars

READS, WRITES = (TOP_OF_BOOK, TRADES, BOOK_DELTAS, LIQUIDATIONS, MARK_PRICES, GAPS), (BARS,)

VERSION: Final = 8  # of what a bar means: a change of the kernel raises it, and every partition is built again
_WORKERS: Final = 2  # symbols at a time: the kernels release the GIL


@dataclass(frozen=True)
class DayCount:
    """What a day came to: counts of events, bars, empty bars and bars with a gap, and the first and last close."""

    part: Partition
    events: int
    bars: int
    empty: int
    gaps: int
    first_ns: int
    last_ns: int


def run(cfg: Config, stage: Stage) -> None:
    """Events to bars."""
    needs = needed_bars(cfg)
    decision_step_ns(parse_clock(cfg.bars), cfg.decision)  # a grid that does not fit is refused before an hour's work
    store.require(cfg.root, TOP_OF_BOOK, cfg.symbols or ())
    days = _symbol_days(cfg, needs)
    key = hash_of(VERSION, needs, [DayEvents(cfg.root, day, needs.levels > 0).hash() for day in days])
    if stage.reuse(key, whole=all(_is_whole(cfg.root, part) for day in days for part in _parts(day, needs.clocks))):
        return
    symbols, ends_ns = (
        [list(group) for _, group in groupby(days, key=lambda day: day.instrument)],
        _ends_ns(cfg.root, days),
    )
    with ThreadPoolExecutor(_WORKERS) as pool:
        built = pool.map(partial(_build_symbol, cfg.root, needs, ends_ns), symbols)
        counts = list(stage.track(built, "bars", total=len(symbols)))
    _report(cfg, stage, needs, counts)


def _symbol_days(cfg: Config, needs: Needs) -> list[Partition]:
    """The partitions of bars on the run's clock that the captured events make, sorted by symbol and day."""
    captured = [part for table in TABLES for part in store.partitions(cfg.root, table, cfg.symbols or ())]
    return sorted({part.of(BARS, needs.clocks[0].name) for part in captured if part.exchange not in INVERSE})


def _ends_ns(root: Path, days: list[Partition]) -> dict[int, int]:
    """By the day's start the instant up to which the bars of every symbol are closed.

    Were it up to each symbol's own last event, bars would tell which symbols have a future.
    """
    ends_ns, captured_ns = {}, {day.starts_ns for day in days}
    for starts_ns in captured_ns:
        midnight_ns = starts_ns + NS_PER_DAY
        lasts_ns = (DayEvents(root, day).last_ns() for day in days if day.starts_ns == starts_ns)
        ends_ns[starts_ns] = midnight_ns if midnight_ns in captured_ns else max(lasts_ns)
    return ends_ns


def _parts(day: Partition, clocks: Sequence[Clock]) -> list[Partition]:
    """The same symbol-day of each clock."""
    return [day.of(BARS, clock.name) for clock in clocks]


def _build_symbol(root: Path, needs: Needs, ends_ns: Mapping[int, int], days: list[Partition]) -> list[DayCount]:
    """Build the days of one symbol that are missing or stale, in order, each from the state of the day before.

    What is stale of a day's clocks is built in one pass.
    """
    counts = []
    states: dict[Clock, Arrays] = {}
    for k, day in enumerate(days):
        before = states if k > 0 and _follows(days[k - 1], day) else {}
        end_ns = ends_ns[day.starts_ns]
        meaning = VERSION, needs.levels, DayEvents(root, day, needs.levels > 0).hash(), end_ns
        inputs = {clock: hash_of(*meaning, state_hash(before.get(clock))) for clock in needs.clocks}
        states = {clock: found for clock in needs.clocks if (found := _fresh(root, day, clock, inputs[clock]))}
        stale = {clock: inputs[clock] for clock in needs.clocks if clock not in states}
        if stale:
            states |= _build_day(root, day, stale, needs.levels, before, end_ns)
        counts += [DayCount(day.of(BARS, clock.name), *states[clock]["count"].tolist()) for clock in needs.clocks]
    return counts


def _fresh(root: Path, day: Partition, clock: Clock, inputs: str) -> Arrays | None:
    """The state after a day's bars of one clock, if both are there and made of these inputs."""
    part = day.of(BARS, clock.name)
    state = load_state(root, part)
    is_fresh = state is not None and state_inputs(state) == inputs
    return state if is_fresh and store.built_from(root, part) == _hash_in_bars(part, state or {}) else None


def _build_day(
    root: Path, day: Partition, inputs: dict[Clock, str], levels: int, before: dict[Clock, Arrays], end_ns: int
) -> dict[Clock, Arrays]:
    """Write a day's bars of some clocks up to `end_ns`, then the states (in that order: they say that it is done)."""
    bars = BarPass(list(inputs), levels, holds_back(day.exchange))
    if before:
        bars.restore([before[clock] for clock in inputs])
    made, events = [], 0
    for merged in DayEvents(root, day, levels > 0).slices():
        events += merged.size
        made.append(_push(bars, merged, day))
    made.append(bars.advance(end_ns))
    states = {}
    for (clock, hashed), saved, pieces in zip(inputs.items(), bars.save(), zip(*made, strict=True), strict=True):
        part, closed = day.of(BARS, clock.name), [each for each in pieces if len(each)]
        _write(root, part, closed, levels, hashed)
        states[clock] = saved | {"count": _count(closed, events)}
        save_state(root, part, states[clock], hashed)
    return states


def _push(bars: BarPass, events: Events, day: Partition) -> list[ClosedBars]:
    try:
        return bars.push(events)
    except ValueError as error:
        raise StageError(
            f"{day.instrument} {day.date}: {error}: the event tables are damaged, capture again"
        ) from error


def _write(root: Path, day: Partition, closed: Sequence[ClosedBars], levels: int, inputs: str) -> None:
    """Replace the day's bars; a day without any leaves no file. What is not known yet is null."""
    if not closed:
        for path in store.files(root, day):
            path.unlink()
        return
    times = {
        name: np.concatenate([getattr(bars, name) for bars in closed]) for name in ("open_ns", "close_ns", "bar_index")
    }
    values = [_column(closed, name, k) for k, name in enumerate(bar_columns(levels))]
    store.write(root, day, pl.DataFrame(times).with_columns(values), inputs)


def _column(closed: Sequence[ClosedBars], name: str, place: int) -> pl.Series:
    """One column of all pieces, at a time: a day of bars lies in memory twice, not four times."""
    return pl.Series(name, np.concatenate([bars.values[:, place] for bars in closed])).fill_nan(None)


def _count(closed: Sequence[ClosedBars], events: int) -> NDArray[np.int64]:
    """The counts of a `DayCount`, kept beside the state."""
    names, bars = bar_columns(0), sum(map(len, closed))
    empty, gaps = (
        sum(int(each.values[:, names.index(name)].sum()) for each in closed) for name in ("is_empty", "has_gap")
    )
    ends = [int(closed[0].close_ns[0]), int(closed[-1].close_ns[-1])] if closed else [0, 0]
    return np.array([events, bars, empty, gaps, *ends], np.int64)


def _is_whole(root: Path, day: Partition) -> bool:
    """Are the state after the day and its bars, if it had any, still there?"""
    state = load_state(root, day)
    return state is not None and store.built_from(root, day) == _hash_in_bars(day, state)


def _hash_in_bars(day: Partition, state: Arrays) -> str:
    """The inputs hash that the day's bars must carry: none where no bar closed."""
    return state_inputs(state) if DayCount(day, *state["count"].tolist()).bars else ""


def _follows(day: Partition, other: Partition) -> bool:
    """Is `other` the next calendar day?"""
    return day.starts_ns + NS_PER_DAY == other.starts_ns


def _report(cfg: Config, stage: Stage, needs: Needs, counts: list[list[DayCount]]) -> None:
    for part in store.partitions(cfg.root, TOP_OF_BOOK, cfg.symbols or ()):
        if part.exchange in INVERSE:
            stage.say(f"{part.instrument} {part.date}: inverse, quantities are contracts: no bars")
    for day in (day for days in counts for day in days if not day.bars):
        stage.say(
            f"{day.part.instrument} {day.part.date}: no bar closed with a best price in it: no bars of {day.part.bars}"
        )
    rows = {
        clock.name: [_row([day for day in days if day.part.bars == clock.name]) for days in counts]
        for clock in needs.clocks
    }
    for clock, of_symbols in rows.items():
        for row in of_symbols:
            stage.say(_line(clock, row))
    stage.rows_in = sum(row["events"] for row in rows[cfg.bars])
    stage.rows_out = sum(row["bars"] for of_symbols in rows.values() for row in of_symbols)
    also = {clock: of_symbols for clock, of_symbols in rows.items() if clock != cfg.bars}
    section = {"clock": cfg.bars, "levels": needs.levels, "rows": rows[cfg.bars], "also": also}
    stage.put("bars", section)


def _row(days: list[DayCount]) -> dict[str, Any]:
    """One symbol's row of the section `bars`."""
    full = [day for day in days if day.bars]
    return {
        "symbol": days[0].part.instrument,
        "days": len(full),
        "events": sum(day.events for day in days),
        "bars": sum(day.bars for day in days),
        "empty": sum(day.empty for day in days),
        "gaps": sum(day.gaps for day in days),
        "first_ns": full[0].first_ns if full else None,
        "last_ns": full[-1].last_ns if full else None,
    }


def _line(clock: str, row: dict[str, Any]) -> str:
    share = f"{100 * row['empty'] / row['bars']:.1f} % empty" if row["bars"] else "none empty"
    return f"{row['symbol']}: {row['bars']:,} bars of {clock} in {row['days']} d, {share}, {row['gaps']} with a gap"


if __name__ == "__main__":
    stage_main("bars", run)
