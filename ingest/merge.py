"""Several connections as one stream of events in the order (recv_ns, kind, arrival), as bars and the runner need it.

An event may be passed on once every connection has told, by a frame or a watermark, that it is beyond that time.
"""

from collections import deque
from typing import Final, NamedTuple

from core.errors import StageError
from ingest.events import BookUpdate, Event, Gap, Kline, Liquidation, Mark, Quote, Trade
from ingest.transport import NEVER_NS

RANK: Final[dict[type, int]] = {Gap: 0, Quote: 1, Trade: 2, Liquidation: 3, Mark: 4, BookUpdate: 5, Kline: 6}
"""The order of events received at one nanosecond: that of the kinds in research/bars/bar_pass.py."""
_MOST_HELD: Final = 5_000_000  # events; servers keep connections within 100 virtual ms of each other


class Tagged(NamedTuple):
    """An event and the venue that it came from."""

    venue: str
    event: Event


class _Arrival(NamedTuple):
    recv_ns: int
    rank: int
    connection: int
    number: int
    tagged: Tagged


class Merger:
    """Holds events of some connections back until they can be passed on in order."""

    def __init__(self, connections: int) -> None:
        self._held: list[deque[_Arrival]] = [deque() for _ in range(connections)]
        self._reached_ns = [0] * connections
        self._passed_ns = 0
        self._number = 0

    def push(self, connection: int, venue: str, recv_ns: int, events: list[Event]) -> None:
        """What a connection received up to `recv_ns`; no events where it only told the time.

        Receive times that step back, as recorded clocks do, are taken as received at the latest time told before.
        """
        reached_ns = self._reached_ns[connection] = max(self._reached_ns[connection], recv_ns)
        held = self._held[connection]
        for event in events:
            self._number += 1
            held.append(_Arrival(reached_ns, RANK[type(event)], connection, self._number, Tagged(venue, event)))
        if len(held) > _MOST_HELD:
            raise StageError(f"connection {connection} is {_MOST_HELD} events ahead of the others: one of them hangs")

    def close(self, connection: int) -> None:
        """The connection has ended: nothing has to wait for it any more."""
        self._reached_ns[connection] = NEVER_NS

    def advance(self, now_ns: int) -> None:
        """All connections have reached `now_ns`, as told by a clock that they share."""
        self._reached_ns = [max(reached_ns, now_ns) for reached_ns in self._reached_ns]

    @property
    def now_ns(self) -> int:
        """Time that all connections have reached: what was received before it is complete."""
        return min(self._reached_ns)

    def pop(self) -> list[Tagged]:
        """The events received before `now_ns`, in order. Those at `now_ns` may still get company."""
        now_ns = self.now_ns
        ready: list[_Arrival] = []
        for held in self._held:
            while held and held[0].recv_ns < now_ns:
                ready.append(held.popleft())
        ready.sort()
        return [arrival.tagged for arrival in ready]
