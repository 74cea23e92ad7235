"""Receive times, and silence: what the local clocks tell about a feed."""

import time
from collections.abc import Sequence
from typing import Final

from core.units import NS_PER_MS

CLOCK_STEP_NS: Final = 50 * NS_PER_MS
"""A wall clock that is set by more is a gap (method.md section 1)."""


class ReceiveClock:
    """Receive times of a process: the wall clock, strictly increasing over all connections."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, int]] = []
        self._last_ns = 0
        self._offset_ns = time.time_ns() - time.monotonic_ns()

    def now_ns(self) -> int:
        """The next receive time. A wall clock that was set shows in `steps` as (receive time, step in ns)."""
        wall_ns = time.time_ns()
        step_ns = wall_ns - time.monotonic_ns() - self._offset_ns
        self._last_ns = max(wall_ns, self._last_ns + 1)
        if abs(step_ns) > CLOCK_STEP_NS:
            self._offset_ns += step_ns
            self.steps.append((self._last_ns, step_ns))
        return self._last_ns


class Silence:
    """Watches streams that should not be silent (exchange_protocols.md section G.1), on a monotonic clock it is given.

    Patience doubles each time that a stream was silent for too long: an illiquid symbol may be silent for 43 s, and
    must not cost a reconnect each time.
    """

    def __init__(self, streams: Sequence[tuple[str, str]], patience_s: float, now_s: float) -> None:
        self._heard_s = dict.fromkeys(streams, now_s)
        self._patience_s = dict.fromkeys(streams, patience_s)

    def heard(self, stream: tuple[str, str], now_s: float) -> None:
        if stream in self._heard_s:
            self._heard_s[stream] = now_s

    def overdue(self, now_s: float) -> tuple[tuple[str, str], float] | None:
        """(stream, its patience in s) of one that was silent for longer; all start afresh after the reconnect."""
        for stream, heard_s in self._heard_s.items():
            patience_s = self._patience_s[stream]
            if now_s - heard_s > patience_s:
                self._patience_s[stream] = 2 * patience_s
                self._heard_s = dict.fromkeys(self._heard_s, now_s)
                return stream, patience_s
        return None
