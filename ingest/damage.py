"""Gaps of frames that did not decode: told at once, and then in one piece for as long as a stream stays broken.

The first bad frame of a stream is a gap of its own. Those that follow within a second of each other are held and told
together, at the latest after a second: a storm leaves a row of each stream in a second, and a crash no more untold.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from core.units import NS_PER_S
from ingest.events import Event, Gap

_ADJACENT_NS: Final = NS_PER_S
_LONGEST_NS: Final = NS_PER_S


@dataclass
class _Stretch:
    """What is broken in one stream since `from_ns`, when the last gap of it was told."""

    from_ns: int
    last_ns: int
    reason: str
    frames: int = 0


class Damage:
    """The broken stretches of a connection's streams, by (symbol, table)."""

    def __init__(self) -> None:
        self.stretches: dict[tuple[str, str], _Stretch] = {}

    def note(self, gaps: Sequence[Gap]) -> list[Event]:
        """Take the gaps that one bad frame left; those to be told now."""
        told: list[Event] = []
        for gap in gaps:
            stretch = self.stretches.get((gap.symbol, gap.stream))
            if stretch is None:
                self.stretches[gap.symbol, gap.stream] = _Stretch(gap.to_ns, gap.to_ns, gap.reason)
                told.append(gap)
            else:
                stretch.last_ns = gap.to_ns
                stretch.frames += 1
        return told

    def settle(self, now_ns: int, finished: bool = False) -> list[Event]:
        """The stretches that are over at `now_ns`, or too long to be held."""
        told: list[Event] = []
        for stream, stretch in list(self.stretches.items()):
            is_over = finished or now_ns - stretch.last_ns > _ADJACENT_NS
            if stretch.frames and (is_over or now_ns - stretch.from_ns > _LONGEST_NS):
                reason = f"{stretch.frames} more: {stretch.reason}"
                told.append(Gap(*stream, stretch.from_ns, now_ns, reason, False))
                stretch.from_ns, stretch.frames = now_ns, 0
            if is_over:
                del self.stretches[stream]
        return told
