"""What is odd about a value that was polled: out of its range, a jump, stale. Pure; odd values are stored all the same.

A jump is a change from one value to the next that is more than `jump_mads` robust standard deviations away from the
usual change: 1.4826 times the median absolute deviation, which a few bad values do not move (Hampel, 1974).
"""

from collections import deque
from collections.abc import Iterable
from itertools import pairwise
from statistics import fmean, median
from typing import Final, Literal

import msgspec

from core.polling import Series
from core.units import NS_PER_S

Kind = Literal[
    "range", "jump", "stale", "fresh", "unreadable", "refused", "unreachable", "circuit_open", "circuit_closed"
]
_KEPT: Final = 288  # a day of five-minute values
_LEAST: Final = 30  # changes that a spread can be judged by
_SIGMAS_PER_MAD: Final = 1.4826
_SIGMAS_PER_MEAN: Final = 1.2533  # of the mean deviation, where more than half of the changes are equal
_UNUSUAL: Final = 1e-9  # relative: what rounding makes of equal values is no change


class SignalEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of `logs/signal_events-DATE.jsonl`."""

    at_ns: int
    kind: Kind
    target: str
    """Collector and symbol, or the provider whose circuit it is."""
    series: str = ""
    time_ns: int | None = None
    value: float | None = None
    detail: str = ""


class Recent:
    """The newest values of one series, in order of what they are of."""

    def __init__(self, values: Iterable[tuple[int, float]] = ()) -> None:
        self._values: deque[tuple[int, float]] = deque(values, maxlen=_KEPT)

    @property
    def newest(self) -> tuple[int, float] | None:
        """(time_ns, value), None where nothing is stored."""
        return self._values[-1] if self._values else None

    def add(self, time_ns: int, value: float) -> None:
        """Keep a value that is newer than all; others are revisions and change no newest."""
        if self.newest is None or time_ns > self.newest[0]:
            self._values.append((time_ns, value))

    def jump(self, value: float, jump_mads: float) -> str:
        """What makes a value that comes next a jump; empty where it is none, or where too little is known to say."""
        changes = [after - before for (_, before), (_, after) in pairwise(self._values)]
        if len(changes) < _LEAST:
            return ""
        usual = median(changes)
        away = [abs(change - usual) for change in changes]
        spread = _SIGMAS_PER_MAD * median(away) or _SIGMAS_PER_MEAN * fmean(away)
        change = value - self._values[-1][1]
        if not spread or abs(change - usual) <= max(jump_mads * spread, _UNUSUAL * abs(value)):
            return ""
        return f"changed by {change:.6g}, usually {usual:.3g} ± {spread:.3g}"


def out_of_range(series: Series, value: float) -> str:
    """How a value breaks the declared range; empty where it does not."""
    if series.above is not None and value <= series.above:
        return f"should be above {series.above:g}"
    if series.below is not None and value >= series.below:
        return f"should be below {series.below:g}"
    return ""


def is_stale(newest_ns: int, now_ns: int, interval_ns: int, slack_ns: int, intervals: float) -> bool:
    """Whether a series that gives a value each `interval_ns`, published up to `slack_ns` late, has missed some."""
    return now_ns - newest_ns > intervals * interval_ns + slack_ns


def age_text(age_ns: int) -> str:
    """An age as people read it: 45 s, 12 min, 5.0 h, 3.1 d."""
    seconds = age_ns / NS_PER_S
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7_200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h" if seconds < 172_800 else f"{seconds / 86_400:.1f} d"
