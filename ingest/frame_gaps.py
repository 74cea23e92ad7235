"""The gap of a frame that did not decode, as far as the name of its stream can be read.

Where ids or update ids are in sequence, the next message shows exactly what was lost and tells a gap of its own, mended
or not: the one told here, that a frame was lost at all, is closed with it. All else has no second witness.
"""

from typing import Final

from core.gaps import UNDECODED
from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, TRADES
from core.units import NS_PER_S
from ingest.events import Gap

_SELDOM: Final = (LIQUIDATIONS.name, KLINES.name)
_PUSH_NS: Final = NS_PER_S
"""Streams that are silent for hours push what happened within a second: the rest of the silence was not lost."""
_MOST_WHY: Final = 120


def stream_name(frame: str | bytes, envelope: bytes) -> str:
    """The name that follows `envelope` at a frame's start; empty if it cannot be read to its end."""
    head = frame[:200].encode(errors="replace") if isinstance(frame, str) else frame[:200]
    if not head.startswith(envelope):
        return ""
    name, quote, _ = head[len(envelope) :].partition(b'"')
    return name.decode(errors="replace") if quote else ""


def frame_gap(symbol: str, table: str, last_ns: int, recv_ns: int, why: str, in_sequence: bool) -> Gap:
    """From the last good message of the stream to the receipt of the one that was not."""
    from_ns = max(last_ns, recv_ns - _PUSH_NS) if table in _SELDOM else last_ns
    mended = in_sequence and table in (TRADES.name, BOOK_DELTAS.name)
    return Gap(symbol, table, min(from_ns, recv_ns), recv_ns, f"{UNDECODED}: {why[:_MOST_WHY]}", mended)
