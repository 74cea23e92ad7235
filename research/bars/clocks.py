"""Bar clocks: when a bar closes, and which closes are decisions.

`time_200ms` closes every 200 ms of UTC (100 ms to 1 d, a whole number of them in a day); all others close with what
happens: `volume_10` (base units), `dollar_1000000` (quote notional), `tick_500` (trades), `renko_5` and `range_10` (bps
of the mid), `tick_imbalance_200` and `tick_run_200` (trades in the first bar), and so with `volume_` and `dollar_` in
place of `tick_`. Decisions on time bars lie on a coarser grid of their own; on the others each bar is one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError
from core.units import NS_PER_DAY, NS_PER_MS, parse_duration_ns
from research.bars.event_clocks import KINDS, TIME

SHORTEST_NS: Final = 100 * NS_PER_MS


@dataclass(frozen=True)
class Clock:
    """`step_ns`: length of a time bar, 0 on the others. `kind`, `size`: how the others close (event_clocks.py)."""

    name: str
    step_ns: int
    kind: int = TIME
    size: float = 0.0

    @property
    def is_time(self) -> bool:
        return self.step_ns > 0


def parse_clock(name: str) -> Clock:
    """The clock of a name such as `time_200ms` or `volume_10`. Raises ConfigError for anything else."""
    kind, _, size = name.rpartition("_")
    try:
        if kind == "time":
            return Clock(name, _time_step_ns(size))
        if kind in KINDS:
            return Clock(name, 0, KINDS[kind], _size_of_bar(size))
    except ValueError as error:
        raise ConfigError(f"bars: {name!r}: {error} - at `$.bars`") from error
    kinds = ", ".join(f"{kind}_<size>" for kind in KINDS if kind != "time")
    raise ConfigError(f"bars: a clock is time_<duration> or one of {kinds}, was {name!r} - at `$.bars`")


def decision_step_ns(clock: Clock, decision: str) -> int:
    """The decision grid's step on time bars; 0 on the others, where each bar is a decision.

    Raises ConfigError where a decision would fall inside a bar.
    """
    step_ns = parse_duration_ns(decision)
    if not clock.is_time:
        return 0
    if step_ns % clock.step_ns:
        raise ConfigError(
            f"decision: {decision} must be a whole number of bars, which are {clock.name}: "
            f"a decision looks at closed bars - at `$.decision`"
        )
    return step_ns


def is_decision(close_ns: NDArray[np.int64], step_ns: int) -> NDArray[np.bool_]:
    """Which bars (n,) close at a decision; `step_ns` as `decision_step_ns` gives it."""
    return close_ns % step_ns == 0 if step_ns else np.ones(close_ns.shape, np.bool_)


def _time_step_ns(size: str) -> int:
    step_ns = parse_duration_ns(size)
    if not SHORTEST_NS <= step_ns <= NS_PER_DAY:
        raise ValueError("a time bar lasts from 100ms to 1d")
    if NS_PER_DAY % step_ns:
        raise ValueError("a day must hold a whole number of time bars, since partitions are days: try 200ms, 1s, 5m")
    return step_ns


def _size_of_bar(size: str) -> float:
    value = float(size)
    if not 0.0 < value < float("inf"):
        raise ValueError("a bar needs a finite size above 0")
    return value
