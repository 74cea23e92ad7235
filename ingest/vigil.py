"""What clocks tell of a connection that is up: that it is dead, which streams are silent, since when they are lost."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from ingest.reception import Reception
from ingest.transport import Interrupted, Socket
from ingest.watchdog import Pulse, Silence, Silent, Stream

_TICK_S: Final = 0.1
_LONGEST_TICK_S: Final = 0.2  # what counts of a tick towards silence: a process that was held up heard nothing in it
_MOST_NAMED: Final = 3  # silent streams in one line
_SHUTDOWN: Final = "serverShutdown"  # Binance spot announces its cut since 2026-05-08 (exchange_protocols.md B)


class Sockets(Protocol):
    """The connection in use, and whether another one is about to take over from it."""

    @property
    def up(self) -> Socket: ...

    @property
    def is_spared(self) -> bool: ...


class Vigil:
    """Watches one feed. `wish` is told why another connection is to take over, and since when which streams were lost.

    `silence_s`: without any frame, and without an answer to a ping, for so long a connection counts as dead.
    """

    def __init__(
        self, reception: Reception, silence_s: float, wish: Callable[[str, Mapping[Stream, int]], None]
    ) -> None:
        self._reception = reception
        self._plan = reception.plan
        self._silence_s = silence_s
        self._wish = wish
        self._silence = Silence(reception.plan.silence_s, reception.heard_ns)
        self._is_deaf = False

    def deafen(self) -> None:
        """Nothing is read at present, by our own choice."""
        self._is_deaf = True

    def asked_anew(self) -> None:
        """All streams were just subscribed to, and what was lost before is told."""
        self._silence.restart(self._reception.now_ns)

    def lost_with_all(self, lost_ns: int, wished_ns: Mapping[Stream, int]) -> dict[Stream, int]:
        """Since when each stream is lost if the connection was at `lost_ns`: of those that were mute it was before."""
        mute_ns = self._silence.mute(untried=True)
        return {
            stream: min(lost_ns, wished_ns.get(stream, lost_ns), mute_ns.get(stream, lost_ns))
            for stream in self._plan.feeds
        }

    def taken_over(self, since_ns: Mapping[Stream, int], why: str) -> None:
        """Another connection carries all streams now: what was lost of some since some time is told."""
        self._reception.lost(since_ns, why, until_heard=True)
        self._silence.told(since_ns, self._reception.now_ns)

    def finish(self) -> None:
        """Nothing is read any more: tell what was silent to the end."""
        now_ns = self._reception.present_ns()
        self._reception.lost(self._silence.mute(), "silent until the capture ended", now_ns)

    async def run(self, sockets: Sockets) -> None:
        """Watch while there is a connection. Raises Interrupted when it is dead and none is about to take over."""
        reception, decoder = self._reception, self._reception.decoder
        pulse, shutdowns, steps = None, decoder.ignored[_SHUTDOWN], reception.clock.step_count
        awake_s, before_s = 0.0, time.monotonic()
        while True:
            now_s, now_ns = time.monotonic(), reception.present_ns()
            awake_s, before_s = awake_s + min(now_s - before_s, _LONGEST_TICK_S), now_s
            if pulse is None or pulse.socket is not sockets.up:
                pulse = Pulse(sockets.up, self._silence_s, awake_s)
            if self._is_deaf or reception.clock.step_count != steps:
                self._is_deaf, steps = False, reception.clock.step_count
                pulse.skip(awake_s)
                self._silence.deaf(now_ns)
            try:
                pulse.feel(awake_s)
            except Interrupted:
                if not sockets.is_spared:
                    raise
            if decoder.ignored[_SHUTDOWN] != shutdowns:
                shutdowns = decoder.ignored[_SHUTDOWN]
                self._wish("the venue announced that it will hang up", {})
            if silent := self._silence.overdue(now_ns):
                self._wish("; ".join(map(str, silent[:_MOST_NAMED])), self._lost_with(silent, now_ns))
            reception.settle()
            await asyncio.sleep(_TICK_S)

    def _lost_with(self, silent: Sequence[Silent], now_ns: int) -> dict[Stream, int]:
        """Since when each stream may be lost. If no stream is heard that should be, so are those that may be silent."""
        since_ns = self._silence.lost_with(silent, now_ns)
        if len(since_ns) < len(self._plan.silence_s):
            return since_ns
        return dict.fromkeys(self._plan.feeds, self._reception.now_ns) | since_ns
