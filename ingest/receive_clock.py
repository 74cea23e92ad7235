"""The receive clock: what `recv_ns` means when the wall clock is set.

`recv_ns` is the monotonic clock plus an offset that follows the wall clock: forward at once, backward slowly. So it is
UTC as this machine knows it, except after the wall clock was set back: then it runs ahead of UTC by what is left of the
step, and at 15/16 of real speed until they agree (32 s after a step of -2 s). Within that stretch the order of arrival
is right, durations are 6 % short, and `recv_ns - exch_ns` holds the remainder of the step. Never does time stand still
or go back; a jump forward leaves a stretch in which nothing is received. Either way the step is written to `gaps`.
"""

import time
from collections import deque
from typing import Final, NamedTuple

from core.units import NS_PER_MS

CLOCK_STEP_NS: Final = 50 * NS_PER_MS
"""A wall clock that is set by more is a gap (method.md section 1)."""
_SLEW_SHIFT: Final = 4  # a 16th: fast enough that 2 s are over in half a minute, too slow to bend a bar
SLEW: Final = 2**_SLEW_SHIFT
"""How much longer than a step back it takes until the wall clock has met it."""
_MOST_STEPS: Final = 64


class ClockStep(NamedTuple):
    """The wall clock was set by `step_ns`, noticed at `recv_ns`."""

    recv_ns: int
    step_ns: int


class ReceiveClock:
    """Receive times of a process: strictly increasing over all connections."""

    def __init__(self) -> None:
        self.step_count = 0
        self._steps: deque[ClockStep] = deque(maxlen=_MOST_STEPS)
        self._last_ns = 0
        self._asked_ns = time.monotonic_ns()
        self._offset_ns = self._wall_offset_ns = time.time_ns() - self._asked_ns

    def now_ns(self) -> int:
        """The next receive time. A wall clock that was set counts in `step_count`."""
        # In this order: whatever delays us between the two readings, the sum below is the time of the second.
        wall_ns = time.time_ns()
        monotonic_ns = time.monotonic_ns()
        wall_offset_ns = wall_ns - monotonic_ns
        ahead_ns = self._offset_ns - wall_offset_ns
        if ahead_ns > 0:
            ahead_ns -= min(ahead_ns, (monotonic_ns - self._asked_ns) >> _SLEW_SHIFT)
        else:
            ahead_ns = 0
        self._asked_ns = monotonic_ns
        self._offset_ns = wall_offset_ns + ahead_ns
        recv_ns = wall_ns + ahead_ns
        if recv_ns <= self._last_ns:
            recv_ns = self._last_ns + 1
        self._last_ns = recv_ns
        if not -CLOCK_STEP_NS <= wall_offset_ns - self._wall_offset_ns <= CLOCK_STEP_NS:
            self._note_step(recv_ns)
        return recv_ns

    def go_on_from(self, last_ns: int) -> int:
        """Be later than `last_ns`, the last receive time of a process before this one. By how many nanoseconds the wall
        clock is behind that: 0, or it was set back since, which is a step as any other.
        """
        behind_ns = last_ns + 1 - self.now_ns()
        if behind_ns <= 0:
            return 0
        self._last_ns = last_ns
        self._offset_ns += behind_ns
        self._steps.append(ClockStep(last_ns + 1, -behind_ns))
        self.step_count += 1
        return behind_ns

    def steps_since(self, count: int) -> list[ClockStep]:
        """The steps after the first `count`, oldest first."""
        fresh = min(self.step_count - count, len(self._steps))
        return list(self._steps)[-fresh:] if fresh else []

    def _note_step(self, recv_ns: int) -> None:
        """Note a step if a second look confirms it: a process that was held up between the readings sees one too."""
        wall_offset_ns = time.time_ns() - time.monotonic_ns()
        step_ns = wall_offset_ns - self._wall_offset_ns
        if abs(step_ns) > CLOCK_STEP_NS:
            self._steps.append(ClockStep(recv_ns, step_ns))
            self.step_count += 1
            self._wall_offset_ns = wall_offset_ns
