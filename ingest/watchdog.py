"""Silence: whether a connection is dead, and which of its streams are, where silence is not normal.

On clocks that are given (exchange_protocols.md section G.1).
"""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from core.units import NS_PER_S
from ingest.reception import KIND_OF
from ingest.transport import Interrupted, Socket

_LONGEST_PATIENCE_S: Final = 3_600.0
_CALM_NS: Final = 3_600 * NS_PER_S


class Silent(NamedTuple):
    """A stream that has been silent for longer than its patience, since `since_ns`. `never`: it never came."""

    symbol: str
    table: str
    since_ns: int
    patience_s: float
    never: bool

    def __str__(self) -> str:
        silent = f"{self.table} of {self.symbol} silent for {self.patience_s:g} s"
        if not self.never:
            return silent
        return f"{silent} though acknowledged: asked for on the wrong path or category, or a symbol that is not traded"


class Silence:
    """Watches streams by when they were last heard, (symbol, kind of event) -> receive time.

    Patience doubles each time that a stream was silent for too long: an illiquid symbol may be silent for 43 s, and
    must not cost a connection each time. A stream that then comes for an hour gets half of it, down to what it had.
    """

    def __init__(self, patience_s: Mapping[tuple[str, str], float], heard_ns: Mapping[tuple[str, type], int]) -> None:
        self._first_s = patience_s
        self._patience_s = dict(patience_s)
        self._found_ns: dict[tuple[str, str], int] = {}
        """When the patience with a stream last changed."""
        self._heard_ns = heard_ns
        self._asked_ns = 0

    def restart(self, now_ns: int) -> None:
        """All streams were asked for anew, or could not be heard until now."""
        self._asked_ns = now_ns

    def overdue(self, now_ns: int) -> list[Silent]:
        """The streams that are silent for too long. Each gets twice the patience from now on."""
        found, calm = [], list[tuple[str, str]]()
        for (symbol, table), patience_s in self._patience_s.items():
            heard_ns = self._heard_ns.get((symbol, KIND_OF[table]), 0)
            if (symbol, table) in self._found_ns and heard_ns - self._found_ns[symbol, table] > _CALM_NS:
                calm.append((symbol, table))
            if now_ns - max(heard_ns, self._asked_ns) > patience_s * NS_PER_S:
                since_ns = max(heard_ns, self._asked_ns)
                found.append(Silent(symbol, table, since_ns, patience_s, never=not heard_ns))
        for stream in calm:
            self._patience_s[stream] = max(self._first_s[stream], self._patience_s[stream] / 2)
            self._found_ns[stream] = now_ns
        for silent in found:
            doubled_s = min(2 * silent.patience_s, max(silent.patience_s, _LONGEST_PATIENCE_S))
            self._patience_s[silent.symbol, silent.table] = doubled_s
            self._found_ns[silent.symbol, silent.table] = now_ns
        return found

    def lost_with(self, silent: Sequence[Silent], now_ns: int) -> dict[tuple[str, str], int]:
        """Since when each stream may have been lost that fell silent with these: patience differs, the cause need not.

        What was heard within half of the shortest patience is alive.
        """
        alive_ns = now_ns - int(min(stream.patience_s for stream in silent) * NS_PER_S / 2)
        since_ns = {}
        for symbol, table in self._patience_s:
            heard_ns = max(self._heard_ns.get((symbol, KIND_OF[table]), 0), self._asked_ns)
            if heard_ns < alive_ns:
                since_ns[symbol, table] = heard_ns
        return since_ns


class Pulse:
    """Tells a connection that is quiet from one that is half open: a peer that is there answers a ping."""

    def __init__(self, socket: Socket, patience_s: float, now_s: float) -> None:
        self.socket = socket
        self._patience_s = patience_s
        self._arrivals = socket.arrivals
        self._heard_s = now_s
        self._asked = False

    def skip(self, now_s: float) -> None:
        """Nothing could be heard until now."""
        self._heard_s, self._asked = now_s, False

    def feel(self, now_s: float) -> None:
        """To be called several times per patience. Raises Interrupted when nothing came for so long, no pong either."""
        if self.socket.arrivals != self._arrivals:
            self._arrivals = self.socket.arrivals
            self.skip(now_s)
        idle_s = now_s - self._heard_s
        if idle_s > self._patience_s:
            raise Interrupted(f"no frame and no pong for {self._patience_s:g} s")
        if idle_s > self._patience_s / 2 and not self._asked:
            self.socket.ping()
            self._asked = True
