"""Does the runner compute what research computes? Two figures, from the runner's own journal (method section 7).

Against itself: the batch computation (a day at once: one push of all events, tiles of many rows, scores of many rows)
over the events that the runner took, from the state it started from. Features must be equal to the bit and decisions
identical; anything else is a defect of the program.

Against a capture: the bars of an independent capture of the same stretch. They differ where two connections saw
different frames, or the same ones at different times; how much is a property of the feed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.journal import CLOCK, Records
from live.journal import Recording, State
from live.manifest import Bundle
from live.runner import started_bars, started_panel
from live.slow_series import journaled
from research.bars.bar_pass import ClosedBars, join_closed
from research.bars.clocks import decision_step_ns, is_decision, parse_clock
from research.bars.events import EVENT
from research.learning.decision import decide
from research.programs.panel import Joined, Panel

_EVENT_FIELDS: Final = tuple(EVENT.names or ())
Floats = NDArray[np.float64]
CapturedBars = dict[str, tuple[NDArray[np.int64], Floats]]
"""Per instrument bar_index (n,) and values (n, columns) of an independent capture."""


class Parity(msgspec.Struct, frozen=True):
    """The runner against the batch. Differences are largest absolute ones; `equal` is to the bit."""

    bars_compared: int
    decisions_compared: int
    bars_equal: bool
    features_equal: bool
    decisions_equal: bool
    max_abs_bar_diff: float
    max_abs_feature_diff: float
    max_abs_score_diff: float
    start_sha256: dict[str, str]

    @property
    def holds(self) -> bool:
        return self.bars_equal and self.features_equal and self.decisions_equal


class CaptureParity(msgspec.Struct, frozen=True):
    """The runner's bars against those of an independent capture. `p99_rel_diff`: of each bar's worst column."""

    bars_compared: int
    missing: int
    share_equal: float | None
    p99_rel_diff: float | None


@dataclass(frozen=True)
class Batch:
    """What the batch makes of one instrument's events: bars and the warm decision rows."""

    bar_index: NDArray[np.int64]
    bars: Floats
    decision_ns: NDArray[np.int64]
    features: Floats
    scores: Floats
    sides: NDArray[np.int8]


def compare(session: Recording, bundle: Bundle) -> Parity:
    """The runner's journal against the batch over its own events."""
    batches = recompute(session, bundle, session.start)
    pairs = [(_mine(session, number), batches[name]) for number, name in enumerate(session.header.instruments)]
    bars = [(mine["bars"]["values"], batch.bars) for mine, batch in pairs]
    features = [(mine["features"]["values"], batch.features) for mine, batch in pairs]
    scores = [(mine["decisions"]["score"], batch.scores) for mine, batch in pairs]
    sides = [(mine["decisions"]["side"], batch.sides) for mine, batch in pairs]
    same_times = all(_same_times(mine, batch) for mine, batch in pairs)
    return Parity(
        bars_compared=sum(batch.bar_index.size for _, batch in pairs),
        decisions_compared=sum(batch.scores.size for _, batch in pairs),
        bars_equal=same_times and all(_equal_bits(*pair) for pair in bars),
        features_equal=same_times and all(_equal_bits(*pair) for pair in features),
        decisions_equal=same_times and all(np.array_equal(*pair) for pair in sides),
        max_abs_bar_diff=max((_worst(*pair) for pair in bars), default=0.0),
        max_abs_feature_diff=max((_worst(*pair) for pair in features), default=0.0),
        max_abs_score_diff=max((_worst(*pair) for pair in scores), default=0.0),
        start_sha256=session.header.start_sha256,
    )


def against_capture(session: Recording, captured: CapturedBars) -> CaptureParity:
    """The runner's bars against captured ones."""
    equal, worst, missing = [], [], 0
    for number, name in enumerate(session.header.instruments):
        mine = session.bars[session.bars["instrument"] == number]
        index, values = captured.get(name, (np.zeros(0, np.int64), np.zeros((0, len(session.header.bar_columns)))))
        _, at_mine, at_theirs = np.intersect1d(mine["bar_index"], index, assume_unique=True, return_indices=True)
        missing += mine.size - at_mine.size
        left, right = mine["values"][at_mine], values[at_theirs]
        equal.append(((left == right) | (np.isnan(left) & np.isnan(right))).all(axis=1))
        worst.append(_relative(left, right).max(axis=1, initial=0.0))
    together, rows = np.concatenate(worst), np.concatenate(equal)
    return CaptureParity(
        bars_compared=rows.size,
        missing=missing,
        share_equal=float(rows.mean()) if rows.size else None,
        p99_rel_diff=float(np.percentile(together, 99)) if rows.size else None,
    )


def recompute(session: Recording, bundle: Bundle, start: Mapping[str, State]) -> dict[str, Batch]:
    """The batch computation over the events of all instruments, each from its start state."""
    closed = {
        (name, clock): made
        for number, name in enumerate(session.header.instruments)
        for clock, made in _all_bars(session.events[session.events["instrument"] == number], bundle, name, start[name])
    }
    panel = started_panel(bundle, start, signals=journaled(session, bundle.program))
    joined = panel.join(lambda name, clock: closed[name, clock])
    return {name: _batch(bundle, panel, joined, name, closed[name, bundle.manifest.bars]) for name in start}


def _all_bars(mine: Records, bundle: Bundle, name: str, start: State) -> Iterator[tuple[str, ClosedBars]]:
    """The bars of one instrument's events on each clock."""
    bars = started_bars(bundle, name, start)
    pushed = bars.push(_as_events(mine[mine["kind"] != CLOCK]))
    ended = bars.advance(int(mine["recv_ns"].max(initial=0)))
    for clock, *pieces in zip(bars.clocks, pushed, ended, strict=True):
        yield clock.name, join_closed(pieces)


def _batch(bundle: Bundle, panel: Panel, joined: Joined, name: str, bars: ClosedBars) -> Batch:
    features = panel.evaluate(name, panel.rows(name, bars, joined), bars, np.arange(len(bars)))
    step_ns = decision_step_ns(parse_clock(bundle.manifest.bars), bundle.manifest.decision)
    warm = is_decision(bars.close_ns, step_ns) & np.isfinite(features).all(axis=1)
    scores, rule = bundle.scorer.score_rows(features[warm]), bundle.manifest.candidate
    sides = decide(scores, bundle.manifest.calibration, rule.threshold, rule.edge_bps)
    return Batch(bars.bar_index, bars.values, bars.close_ns[warm], features[warm], scores, sides)


def _mine(session: Recording, number: int) -> dict[str, Records]:
    """What the runner wrote of one instrument."""
    streams = {"bars": session.bars, "features": session.features, "decisions": session.decisions}
    return {stream: records[records["instrument"] == number] for stream, records in streams.items()}


def _as_events(records: Records) -> Any:
    events = np.zeros(records.size, EVENT)
    for name in _EVENT_FIELDS:
        events[name] = records[name]
    return events


def _same_times(mine: dict[str, Records], batch: Batch) -> bool:
    return (
        np.array_equal(mine["bars"]["bar_index"], batch.bar_index)
        and np.array_equal(mine["features"]["decision_ns"], batch.decision_ns)
        and np.array_equal(mine["decisions"]["decision_ns"], batch.decision_ns)
    )


def _equal_bits(left: Floats, right: Floats) -> bool:
    """Equal to the bit, but that any NaN equals any NaN."""
    if left.shape != right.shape:
        return False
    same = np.ascontiguousarray(left).view(np.int64) == np.ascontiguousarray(right).view(np.int64)
    return bool((same | (np.isnan(left) & np.isnan(right))).all())


def _worst(left: Floats, right: Floats) -> float:
    """The largest absolute difference over the rows that both have; infinite where only one side is NaN."""
    rows = min(left.shape[0], right.shape[0])
    a, b = left[:rows], right[:rows]
    difference = np.where(np.isnan(a) & np.isnan(b), 0.0, np.abs(a - b))
    return float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0))


def _relative(left: Floats, right: Floats) -> Floats:
    """|left - right| / max(|left|, |right|), 0 where equal, 1 where one side is unknown."""
    scale = np.maximum(np.abs(left), np.abs(right))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.abs(left - right) / scale
    same = (left == right) | (np.isnan(left) & np.isnan(right))
    return np.where(same, 0.0, np.where(np.isnan(share), 1.0, share))
