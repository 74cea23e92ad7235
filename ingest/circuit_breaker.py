"""A circuit breaker: after some failures in a row a provider is left alone for a while, then asked once to see.

Closed: calls pass. Open: none passes until `cool_s` have gone by. Half-open: one call passes as a probe; its success
closes the circuit, its failure opens it again for twice as long, up to `longest_s`. Nygard, Release It! (2007), ch. 5.
"""

import time
from collections.abc import Callable
from typing import Final, Literal

State = Literal["closed", "open", "half-open"]
_FAILURES: Final = 5
_COOL_S: Final = 60.0
_LONGEST_S: Final = 900.0


class CircuitBreaker:
    """One provider's. Ask `allows` before a call, and tell `succeeded` or `failed` after each that was allowed."""

    def __init__(
        self,
        failures: int = _FAILURES,
        cool_s: float = _COOL_S,
        longest_s: float = _LONGEST_S,
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._threshold, self._first_s, self._longest_s = failures, cool_s, longest_s
        self._now_s = now_s
        self._failures = 0
        self._cool_s = cool_s
        self._opened_s: float | None = None
        self._probing = False
        self.openings = 0
        """How often it opened."""

    @property
    def state(self) -> State:
        if self._opened_s is None:
            return "closed"
        return "half-open" if self._now_s() >= self._opened_s + self._cool_s else "open"

    @property
    def wait_s(self) -> float:
        """How long until a probe may pass; 0 where calls pass."""
        return 0.0 if self._opened_s is None else max(0.0, self._opened_s + self._cool_s - self._now_s())

    def allows(self) -> bool:
        """Whether a call may be made now. Half-open, True is said once: to the probe."""
        state = self.state
        if state == "half-open" and not self._probing:
            self._probing = True
            return True
        return state == "closed"

    def succeeded(self) -> None:
        self._failures, self._probing = 0, False
        self._opened_s, self._cool_s = None, self._first_s

    def failed(self) -> None:
        """Count a failure. One of a call that was under way when the circuit opened changes nothing."""
        self._failures += 1
        if self._opened_s is None and self._failures >= self._threshold:
            self._open()
        elif self._probing:
            self._cool_s = min(2 * self._cool_s, self._longest_s)
            self._open()

    def abandoned(self) -> None:
        """The call that was allowed was not made after all: another may probe."""
        self._probing = False

    def _open(self) -> None:
        self._opened_s, self._probing = self._now_s(), False
        self.openings += 1
