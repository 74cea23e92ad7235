"""Stage `features`: bars to features at the decision times, day by day. What a feature is: language.py, catalogue.py.

    python research/build_features.py --set features.mine.my_signal="(sub imbalance (mean_25 imbalance))"

A day begins with the last bars of the day before, as many as the windows take to fill, which gives the bits of a run
without a break (rolling.py), and hangs on no other day's build. Only where an operator remembers everything
(recursive.py) does a day go on from the saved state of the day before: then a symbol's days are built in order.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import store
from core.cli import stage_main
from core.config import Config
from core.run_record import Stage
from core.schema import BARS, FEATURES
from core.store import Partition, hash_of
from core.units import NS_PER_DAY, NS_PER_S
from research.bar_columns import BAR_COLUMNS
from research.catalogue import compile_chosen, feature_rows
from research.clocks import decision_step_ns, is_decision, parse_clock
from research.day_state import Arrays, load_state, save_state, state_hash, state_inputs
from research.language import compile_features
from research.program import Ints, Program, Stream

READS, WRITES = (BARS,), (FEATURES,)

VERSION: Final = 2
"""Of what an operator means: a change of the kernels raises it, and every partition is built again."""
_WORKERS: Final = 2  # partitions at a time: the kernel releases the GIL


@dataclass(frozen=True)
class DayCount:
    """What became of a day's decisions: `filling` came while windows filled, `unknown` had a feature not finite later.

    `blame` counts the rows of `unknown` in which each feature was not finite.
    """

    part: Partition
    bars: int
    decisions: int
    filling: int
    unknown: int
    blame: tuple[int, ...]

    @property
    def kept(self) -> int:
        return self.decisions - self.filling - self.unknown


def run(cfg: Config, stage: Stage) -> None:
    """Bars to features."""
    program = compile_chosen(cfg.features.sets, cfg.features.mine, cfg.bars)
    step_ns = decision_step_ns(parse_clock(cfg.bars), cfg.decision)
    bars = store.require(cfg.root, BARS, cfg.symbols or (), cfg.bars)
    meaning = hash_of(VERSION, step_ns, program.bar, program.names, program.expressions)
    days = [day.of(FEATURES, cfg.bars) for day in bars]
    key = hash_of(meaning, store.fingerprint(cfg.root, bars))
    if stage.reuse(key, whole=all(store.built_from(cfg.root, day) for day in days)):
        return

    def build(chain: list[Partition]) -> list[DayCount]:
        return [_build_day(cfg.root, day, program, step_ns, meaning) for day in chain]

    chains = _chains(days) if program.is_infinite else [[day] for day in days]
    with ThreadPoolExecutor(_WORKERS) as pool:
        counts = list(stage.track(pool.map(build, chains), "features", total=len(chains)))
    _report(stage, program, [count for chain in counts for count in chain])


def _chains(days: list[Partition]) -> list[list[Partition]]:
    """The days of each symbol, in order."""
    return [list(chain) for _, chain in groupby(sorted(days), key=lambda day: day.instrument)]


def _build_day(root: Path, day: Partition, program: Program, step_ns: int, meaning: str) -> DayCount:
    """Write a day's features, then its counts (in this order: they say that the day is done), unless both are fresh."""
    yesterday = replace(day, date=store.date_of_ns(day.starts_ns - NS_PER_DAY))
    sources = [yesterday.of(BARS, day.bars), day.of(BARS, day.bars)]
    begin = _state_after(root, yesterday) if program.is_infinite else None
    inputs = hash_of(meaning, store.fingerprint(root, sources), state_hash(begin))
    state = load_state(root, day)
    if state is not None and state_inputs(state) == store.built_from(root, day) == inputs:
        return _count(day, state["count"])
    before, bars = (store.read(root, source) for source in sources)
    stream = program.start()
    features, count = _decisions(stream, begin, before.tail(program.warmup_bars), bars, step_ns)
    store.write(root, day, features, inputs)
    save_state(root, day, {"count": count} | (stream.save() if program.is_infinite else {}), inputs)
    return _count(day, count)


def _state_after(root: Path, day: Partition) -> Arrays | None:
    """The state that a day ended with, if that day is still there and was built so."""
    state = load_state(root, day)
    return state if state_inputs(state) and state_inputs(state) == store.built_from(root, day) else None


def _decisions(
    stream: Stream, begin: Arrays | None, before: pl.DataFrame, bars: pl.DataFrame, step_ns: int
) -> tuple[pl.DataFrame, Ints]:
    """The rows of a day (kept, 1 + features) and its counts: bars, decisions, filling, unknown, then the blame.

    The fresh stream begins from the state `begin`, or where there is none by running over the bars `before`.
    """
    both = pl.concat([before, bars]) if before.height else bars
    close_ns, index = both["close_ns"].to_numpy(), both["bar_index"].to_numpy()
    take = np.flatnonzero(is_decision(close_ns, step_ns) & (np.arange(close_ns.size) >= before.height))
    x, first = feature_rows(both.select(BAR_COLUMNS).to_numpy(), close_ns), 0
    if begin is not None:
        stream.restore(begin)
        first = before.height
    y = stream.run(x[first:], index[first:], take - first)
    program = stream.program
    is_finite = np.isfinite(y)
    is_warm = bars_since_restart(index, both["has_gap"].to_numpy() != 0)[take] >= program.warmup_bars
    is_kept = is_finite.all(axis=1)
    blame = (~is_finite[is_warm]).sum(axis=0)
    times = {"decision_ns": close_ns[take][is_kept]}
    columns = {name: np.ascontiguousarray(y[is_kept, k]) for k, name in enumerate(program.names)}
    count = [bars.height, take.size, np.sum(~is_warm & ~is_kept), np.sum(is_warm & ~is_kept), *blame]
    return pl.DataFrame(times | columns), np.array(count, np.int64)


def bars_since_restart(bar_index: Ints, has_gap: NDArray[np.bool_]) -> Ints:
    """For each bar (n,) how many came before it since the windows began anew; -1 for a bar with a gap."""
    at = np.arange(bar_index.size)
    begins = np.where(np.diff(bar_index, prepend=bar_index[:1] - 2) != 1, at, 0)
    begins[has_gap] = at[has_gap] + 1
    return at - np.maximum.accumulate(begins)


def day_count(root: Path, day: Partition) -> DayCount | None:
    """What became of the decisions of a day that is built; None where that is not known any more."""
    state = load_state(root, day)
    return _count(day, state["count"]) if state is not None else None


def _count(day: Partition, count: Ints) -> DayCount:
    bars, decisions, filling, unknown, *blame = count.tolist()
    return DayCount(day, bars, decisions, filling, unknown, tuple(blame))


def _report(stage: Stage, program: Program, counts: list[DayCount]) -> None:
    stage.say(
        f"{len(program.names)} features of {program.nodes} operators on {program.bar}; "
        f"windows fill in {program.warmup_bars:,} bars"
    )
    rows = [_row(program, list(days)) for _, days in groupby(counts, key=lambda count: count.part.instrument)]
    for row in rows:
        stage.say(_line(row) + _why_none(row, program))
        for name, blamed in row["blame"].items():
            stage.say(f"{row['symbol']}: {name} was not finite in {blamed:,} decisions, which were dropped")
    stage.rows_in, stage.rows_out = sum(count.bars for count in counts), sum(count.kept for count in counts)
    stage.put("features", {"count": len(program.names), "names": program.names, "rows": rows})


def _row(program: Program, days: list[DayCount]) -> dict[str, Any]:
    """One symbol's row of the section `features`."""
    blame = np.sum([day.blame for day in days], axis=0)
    return {
        "symbol": days[0].part.instrument,
        "decisions": sum(day.decisions for day in days),
        "kept": sum(day.kept for day in days),
        "filling": sum(day.filling for day in days),
        "unknown": sum(day.unknown for day in days),
        "blame": {name: int(n) for name, n in zip(program.names, blame, strict=True) if n},
    }


def _line(row: dict[str, Any]) -> str:
    line = f"{row['symbol']}: {row['kept']:,} of {row['decisions']:,} decisions have all features"
    return f"{line}; dropped: {row['filling']:,} while windows filled, {row['unknown']:,} not finite"


def _why_none(row: dict[str, Any], program: Program) -> str:
    """What to change where no decision has all features; empty where some have."""
    if row["kept"]:
        return ""
    if row["unknown"]:
        worst = sorted(row["blame"], key=lambda name: -row["blame"][name])
        more = f" and {len(worst) - 3} more" if len(worst) > 3 else ""
        return f": never all finite once windows were full, look at {', '.join(worst[:3])}{more}"
    if not row["filling"]:
        return ": no bar closes at a decision time, see `decision` and `bars`"
    name, bars = _longest(program)
    clock = parse_clock(program.bar)
    span = f" ({bars * clock.step_ns / NS_PER_S:g} s)" if clock.step_ns else ""
    return f": the stretch is shorter than the longest window, that of {name}, {bars:,} bars{span}: capture more"


def _longest(program: Program) -> tuple[str, int]:
    """The feature whose windows take longest to fill, and in how many bars."""
    filled = {
        name: compile_features({name: text}, program.columns, program.bar).warmup_bars
        for name, text in zip(program.names, program.expressions, strict=True)
    }
    longest = max(filled, key=lambda name: filled[name])
    return longest, filled[longest]


if __name__ == "__main__":
    stage_main("features", run)
