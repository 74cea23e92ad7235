"""Silence: whether a connection is dead, and which of its streams are, where silence is not normal.

On clocks that are given (exchange_protocols.md section G.1).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from core.units import NS_PER_S
from ingest.reception import KIND_OF
from ingest.transport import Interrupted, Socket

Stream = tuple[str, str]
"""(symbol, table)."""

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

    That another connection takes over changes nothing for a stream that was not told as lost, nor does a reconnect for
    one that never came: it is found however often that happens.
    """

    def __init__(self, patience_s: Mapping[Stream, float], heard_ns: Mapping[tuple[str, type], int]) -> None:
        self._first_s = patience_s
        self._patience_s = dict(patience_s)
        self._found_ns: dict[Stream, int] = {}
        """When the patience with a stream last changed."""
        self._silent_ns: dict[Stream, int] = {}
        """Since when what was found last had been silent."""
        self._heard_ns = heard_ns
        self._told_ns = dict.fromkeys(patience_s, 0)
        """Until when each stream was told as lost, or was not asked for: since then silence is a gap."""
        self._begun_ns = dict(self._told_ns)
        """From when on patience is had with each."""
        self._deaf_ns = 0
        self._last_ns = dict(self._told_ns)
        self._longest_ns = dict(self._told_ns)
        """The longest that each was silent and was not lost."""

    def restart(self, now_ns: int) -> None:
        """All streams were asked for anew, and what was missed before is told."""
        begun_ns = {stream: ns for stream, ns in self._begun_ns.items() if ns and not self._heard(stream)}
        self.told(self._told_ns, now_ns)
        self._begun_ns |= begun_ns

    def told(self, streams: Iterable[Stream], now_ns: int) -> None:
        """What was missed of some streams until now is told."""
        for stream in self._told_ns.keys() & streams:
            self._told_ns[stream] = self._begun_ns[stream] = now_ns

    def deaf(self, now_ns: int) -> None:
        """Nothing could be heard until now."""
        self._deaf_ns = now_ns

    def overdue(self, now_ns: int) -> list[Silent]:
        """The streams that are silent for too long. Each gets twice the patience from now on."""
        found, calm = [], list[Stream]()
        for stream, patience_s in self._patience_s.items():
            heard_ns = self._note(stream)
            if stream in self._found_ns and heard_ns - self._found_ns[stream] > _CALM_NS:
                calm.append(stream)
            if now_ns - max(heard_ns, self._begun_ns[stream], self._deaf_ns) > patience_s * NS_PER_S:
                found.append(Silent(*stream, self._since(stream), patience_s, never=not heard_ns))
        for stream in calm:
            self._patience_s[stream] = max(self._first_s[stream], self._patience_s[stream] / 2)
            self._found_ns[stream] = now_ns
        for silent in found:
            doubled_s = min(2 * silent.patience_s, max(silent.patience_s, _LONGEST_PATIENCE_S))
            self._patience_s[silent.symbol, silent.table] = doubled_s
            self._found_ns[silent.symbol, silent.table] = now_ns
            self._silent_ns[silent.symbol, silent.table] = silent.since_ns
        return found

    def lost_with(self, silent: Sequence[Silent], now_ns: int) -> dict[Stream, int]:
        """Since when each stream may have been lost that fell silent with these: patience differs, the cause need not.

        What was heard within half of the shortest patience is alive. Where anything is, what came after these had
        fallen silent, and was silent for as long before, is a quiet stream, whose silence is its own.
        """
        shortest_ns = int(min(stream.patience_s for stream in silent) * NS_PER_S / 2)
        fell_ns = max(stream.since_ns for stream in silent)
        since_ns = {stream: self._since(stream) for stream in self._patience_s}
        silences_ns = {stream: now_ns - max(last_ns, self._deaf_ns) for stream, last_ns in since_ns.items()}
        dead = {stream for stream, silence_ns in silences_ns.items() if silence_ns > shortest_ns}
        if len(dead) < len(since_ns):
            usual = {stream for stream in dead if silences_ns[stream] <= self._longest_ns[stream]}
            dead -= {stream for stream in usual if since_ns[stream] > fell_ns}
        return {stream: since_ns[stream] for stream in dead | {stream[:2] for stream in silent}}

    def mute(self, untried: bool = False) -> dict[Stream, int]:
        """The streams that were found and have not come since, and since when that is to be told. `untried`: and those
        that never came, for which it was not yet time.
        """
        found = {stream for stream, since_ns in self._silent_ns.items() if self._heard(stream) <= since_ns}
        never = {stream for stream in self._told_ns if not self._heard(stream)} if untried else set()
        return {stream: self._since(stream) for stream in found | never}

    def _since(self, stream: Stream) -> int:
        return max(self._heard(stream), self._told_ns[stream])

    def _heard(self, stream: Stream) -> int:
        return self._heard_ns.get((stream[0], KIND_OF[stream[1]]), 0)

    def _note(self, stream: Stream) -> int:
        """When a stream was last heard, and how long it was silent before that, at most, of itself."""
        heard_ns, last_ns = self._heard(stream), self._last_ns[stream]
        if heard_ns != last_ns:
            self._last_ns[stream] = heard_ns
            if last_ns > self._told_ns[stream]:
                self._longest_ns[stream] = max(self._longest_ns[stream], heard_ns - last_ns)
        return heard_ns


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
