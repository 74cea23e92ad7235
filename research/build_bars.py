"""Stage `bars`: events to bars, symbol by symbol, day by day. What a bar is: research/bars.py.

    python research/build_bars.py --set bars=time_200ms

A day begins from the state that the day before it left, so midnight leaves no seam. A day is closed up to midnight only
where the next day was captured too: otherwise the bar that is open at the last event stays open, in the state.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import store
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.gaps import settled
from core.run_record import Stage
from core.schema import BARS, GAPS, INVERSE, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.store import Partition, hash_of
from core.units import NS_PER_DAY
from research.bar_columns import BAR_COLUMNS
from research.bars import Bars, ClosedBars, Events, join_closed, merge_events
from research.clocks import Clock, decision_step_ns, parse_clock
from research.day_state import Arrays, load_state, save_state, state_hash, state_inputs

READS, WRITES = (TOP_OF_BOOK, TRADES, LIQUIDATIONS, MARK_PRICES, GAPS), (BARS,)

VERSION: Final = 4  # of what a bar means: a change of the kernel raises it, and every partition is built again
_WORKERS: Final = 2  # symbols at a time: the kernels release the GIL
_SLICE_ROWS: Final = 500_000  # events merged at a time: 24 MB, which the allocator keeps instead of faulting in anew
_COLUMNS: Final = (
    (TOP_OF_BOOK, ("recv_ns", "bid_price", "bid_qty", "ask_price", "ask_qty")),
    (TRADES, ("recv_ns", "price", "qty", "taker_side", "recv_assumed")),
    (LIQUIDATIONS, ("recv_ns", "liquidated", "price", "qty")),
    (MARK_PRICES, ("recv_ns", "mark_price", "index_price", "funding_rate", "next_funding_ns", "open_interest")),
)


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
    clock = parse_clock(cfg.bars)
    decision_step_ns(clock, cfg.decision)  # a grid that does not fit the bars is refused before an hour's work
    store.require(cfg.root, TOP_OF_BOOK, cfg.symbols or ())
    days = _symbol_days(cfg, clock)
    key = hash_of(VERSION, cfg.bars, [_events_hash(cfg.root, day) for day in days])
    if stage.reuse(key, whole=all(_is_whole(cfg.root, day) for day in days)):
        return
    symbols = [list(group) for _, group in groupby(days, key=lambda day: day.instrument)]
    with ThreadPoolExecutor(_WORKERS) as pool:
        built = pool.map(partial(_build_symbol, cfg.root, clock), symbols)
        counts = list(stage.track(built, "bars", total=len(symbols)))
    _report(cfg, stage, counts)


def _symbol_days(cfg: Config, clock: Clock) -> list[Partition]:
    """The partitions of bars that the captured events make, sorted by symbol and day."""
    tables = [table for table, _ in _COLUMNS]
    captured = [part for table in tables for part in store.partitions(cfg.root, table, cfg.symbols or ())]
    return sorted({part.of(BARS, clock.name) for part in captured if part.exchange not in INVERSE})


def _build_symbol(root: Path, clock: Clock, days: list[Partition]) -> list[DayCount]:
    """Build the days of one symbol that are missing or stale, in order, each from the state of the day before."""
    counts = []
    state: Arrays | None = None
    for k, day in enumerate(days):
        before = state if k > 0 and _follows(days[k - 1], day) else None
        goes_on = k + 1 < len(days) and _follows(day, days[k + 1])
        inputs = hash_of(VERSION, _events_hash(root, day), goes_on, state_hash(before))
        state = load_state(root, day)
        if state is None or not _is_fresh(root, day, state, inputs):
            state = _build_day(root, clock, day, before, goes_on, inputs)
        counts.append(DayCount(day, *state["count"].tolist()))
    return counts


def _build_day(root: Path, clock: Clock, day: Partition, before: Arrays | None, goes_on: bool, inputs: str) -> Arrays:
    """Write the bars of a day, then the state at its end (in that order: the state says that the day is done)."""
    bars = Bars(clock)
    if before is not None:
        bars.restore(before)
    pieces, events = [], 0
    for merged in _merged(root, day):
        events += merged.size
        pieces.append(_push(bars, merged, day))
    if goes_on:
        pieces.append(bars.advance(day.starts_ns + NS_PER_DAY))
    closed = join_closed(pieces)
    _write(root, day, closed, inputs)
    state = bars.save() | {"count": _count(closed, events)}
    save_state(root, day, state, inputs)
    return state


def _merged(root: Path, day: Partition) -> Iterator[Events]:
    """The day's events in order, in slices of time. Raises StageError if the tables hold rows of another day."""
    parts = [(day.of(table), columns) for table, columns in _COLUMNS]
    gaps = _gaps(root, day)
    left = sum(store.rows(root, part) for part, _ in parts)
    slices = 1 + left // _SLICE_ROWS
    bounds_ns = [day.starts_ns + NS_PER_DAY * k // slices for k in range(slices + 1)]
    for from_ns, to_ns in pairwise(bounds_ns):
        quotes, trades, liquidations, marks = (
            store.read_between(root, part, columns, from_ns, to_ns) for part, columns in parts
        )
        left -= sum(frame.height for frame in (quotes, trades, liquidations, marks))
        ended = gaps.filter(pl.col("to_ns").is_between(from_ns, to_ns, closed="left"))
        yield merge_events(quotes, _as_it_came(trades, gaps), liquidations, marks, ended)
    if left:
        raise StageError(f"{day.instrument} {day.date}: {left} events are of another day: capture again")


def _push(bars: Bars, events: Events, day: Partition) -> ClosedBars:
    try:
        return bars.push(events)
    except ValueError as error:
        raise StageError(
            f"{day.instrument} {day.date}: {error}: the event tables are damaged, capture again"
        ) from error


def _gaps(root: Path, day: Partition) -> pl.DataFrame:
    """The gaps that touch this day, whichever day they began and were written on. A hole that was mended is one too:
    who acts at once has it, and does not wait for the refill."""
    parts = store.partitions(root, GAPS, [day.instrument])
    found = pl.concat([pl.DataFrame(schema=GAPS.columns), *(store.read(root, part) for part in parts)])
    end_ns = day.starts_ns + NS_PER_DAY
    return settled(found.filter((pl.col("to_ns") >= day.starts_ns) & (pl.col("from_ns") < end_ns)))


def _as_it_came(trades: pl.DataFrame, gaps: pl.DataFrame) -> pl.DataFrame:
    """Trades of shape (rows,) by receipt, without those that were fetched after the fact to fill a hole: a bar in the
    hole closed without them when it was lived.
    """
    holes = gaps.filter(pl.col("mended") & (pl.col("stream") == TRADES.name))
    if not (holes.height and trades["recv_assumed"].any()):
        return trades
    ns, depth = trades["recv_ns"].to_numpy(), np.zeros(trades.height + 1, np.int64)
    np.add.at(depth, np.searchsorted(ns, holes["from_ns"].to_numpy(), "left"), 1)
    np.add.at(depth, np.searchsorted(ns, holes["to_ns"].to_numpy(), "right"), -1)
    return trades.filter(~(pl.col("recv_assumed") & pl.Series(depth.cumsum()[:-1] > 0)))


def _write(root: Path, day: Partition, closed: ClosedBars, inputs: str) -> None:
    """Replace the day's bars; a day without any leaves no file. What is not known yet is null."""
    if not len(closed):
        for path in store.files(root, day):
            path.unlink()
        return
    times = {"open_ns": closed.open_ns, "close_ns": closed.close_ns, "bar_index": closed.bar_index}
    values = {name: np.ascontiguousarray(closed.values[:, k]) for k, name in enumerate(BAR_COLUMNS)}
    frame = pl.DataFrame({**times, **values}).with_columns(pl.col(BAR_COLUMNS).fill_nan(None))
    store.write(root, day, frame, inputs)


def _count(closed: ClosedBars, events: int) -> NDArray[np.int64]:
    """The counts of a `DayCount`, kept beside the state."""
    empty, gaps = (int(closed.values[:, BAR_COLUMNS.index(name)].sum()) for name in ("is_empty", "has_gap"))
    ends = closed.close_ns[[0, -1]].tolist() if len(closed) else [0, 0]
    return np.array([events, len(closed), empty, gaps, *ends], np.int64)


def _is_whole(root: Path, day: Partition) -> bool:
    """Are the state after the day and its bars, if it had any, still there?"""
    state = load_state(root, day)
    return state is not None and store.built_from(root, day) == _hash_in_bars(day, state)


def _is_fresh(root: Path, day: Partition, state: Arrays, inputs: str) -> bool:
    return state_inputs(state) == inputs and store.built_from(root, day) == _hash_in_bars(day, state)


def _hash_in_bars(day: Partition, state: Arrays) -> str:
    """The inputs hash that the day's bars must carry: none where no bar closed."""
    return state_inputs(state) if DayCount(day, *state["count"].tolist()).bars else ""


def _events_hash(root: Path, day: Partition) -> str:
    parts = [day.of(table) for table, _ in _COLUMNS]
    return hash_of(store.fingerprint(root, parts), _gaps(root, day).rows())


def _follows(day: Partition, other: Partition) -> bool:
    """Is `other` the next calendar day?"""
    return day.starts_ns + NS_PER_DAY == other.starts_ns


def _report(cfg: Config, stage: Stage, counts: list[list[DayCount]]) -> None:
    for part in store.partitions(cfg.root, TOP_OF_BOOK, cfg.symbols or ()):
        if part.exchange in INVERSE:
            stage.say(f"{part.instrument} {part.date}: inverse, quantities are contracts: no bars")
    for day in (day for days in counts for day in days if not day.bars):
        stage.say(f"{day.part.instrument} {day.part.date}: no bar closed with a best price in it: no bars")
    rows = [_row(days) for days in counts]
    for row in rows:
        stage.say(_line(cfg.bars, row))
    stage.rows_in = sum(day.events for days in counts for day in days)
    stage.rows_out = sum(row["bars"] for row in rows)
    stage.put("bars", {"clock": cfg.bars, "rows": rows})


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
