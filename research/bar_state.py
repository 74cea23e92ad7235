"""The state of the pass over events (bar_rows.py): where its numbers stand, how it begins, is saved and goes on.

Kernels read the places as `at.OFI`, and so on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from research.event_clocks import MEMORY_SIZE, SIZE

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

# Of `Market.numbers`: counts since the beginning, times, whether every clock has a book that the next quote follows.
QUOTES, BUYS, SELLS, FORCED, LAST_NS, SEEN_NS, SETTLED, N_NUMBERS = range(8)
# Of `Market.values`: the last valid quote and its mid, and the mean notional of a trade.
BID, BID_QTY, ASK, ASK_QTY, MID, MEAN_USD, N_VALUES = range(7)
# Of `Tracks.spans`, per clock: what it is, then where its open bar stands; the counts are those as the bar opened.
KIND, STEP_NS, SILENCE_NS, OPEN_NS, DUE_NS, BAR_INDEX, STARTED, HAS_BOOK, CHAINED = range(9)
OLD_QUOTES, OLD_BUYS, OLD_SELLS, OLD_FORCED, N_SPANS = range(9, 14)
# Of `Tracks.rows`, per clock: prices, sums of the bar, what is known of marks; then the flow of each level.
OPEN, HIGH, LOW, BUY_QTY, SELL_QTY, BUY_USD, SELL_USD, OFI, EFFECTIVE, SQUARE, MAX_TRADE = range(11)
LARGE_BUY, LARGE_SELL, LARGE_COUNT, LIQ_LONG, LIQ_SHORT, LIQ_SQUARE, LIQ_MAX = range(11, 18)
MARK, INDEX, FUNDING, INTEREST, FUNDING_MIN, HAS_GAP, N_ROWS = range(18, 25)


class Market(NamedTuple):
    """What the events say, whoever asks: `numbers` (7,), `values` (6,)."""

    numbers: Ints
    values: Floats


class Tracks(NamedTuple):
    """The open bars: `spans` (14, clocks), `rows` (25 + levels, clocks), `memory` (clocks, 6) of event_clocks.py."""

    spans: Ints
    rows: Floats
    memory: Floats


class Out(NamedTuple):
    """Closed bars, clock by clock: `times` (room, 3) and `values` (room, columns).

    `slots` (2, clocks): the row that a clock's next bar goes to, and the end of its room.
    """

    slots: Ints
    times: Ints
    values: Floats


def make_out(rooms: Sequence[int], width: int) -> Out:
    """Room for so many bars of each clock, of `width` columns."""
    ends = np.cumsum(rooms, dtype=np.int64)
    return Out(np.stack([ends - rooms, ends]), np.empty((ends[-1], 3), np.int64), np.empty((ends[-1], width)))


def make_tracks(kinds: Ints, steps_ns: Ints, silences_ns: Ints, sizes: Floats, levels: int) -> Tracks:
    """Tracks of some clocks that have not begun; all arguments but the last (clocks,)."""
    spans = np.zeros((N_SPANS, kinds.size), np.int64)
    spans[KIND], spans[STEP_NS], spans[SILENCE_NS] = kinds, steps_ns, silences_ns
    memory = np.zeros((kinds.size, MEMORY_SIZE))
    memory[:, SIZE] = sizes
    return Tracks(spans, np.zeros((N_ROWS + levels, kinds.size)), memory)


SHARED: Final = ("numbers", "values", "book_levels", "book_tops", "book_held", "book_numbers")
"""Arrays of a clock's state that are the same for all clocks."""
FIXED: Final = ("spans", "memory", "numbers", "values", "book_numbers", "book_tops")
"""Arrays whose length tells one layout of state from another."""


def save_market(market: Market) -> dict[str, NDArray[Any]]:
    numbers = market.numbers.copy()
    numbers[SETTLED] = 0  # depends on the clocks: restoring finds it out
    return {"numbers": numbers, "values": market.values.copy()}


def restore_market(market: Market, tracks: Tracks, saved: Mapping[str, NDArray[Any]]) -> None:
    market.numbers[:], market.values[:] = saved["numbers"], saved["values"]
    market.numbers[SETTLED] = tracks.spans[[HAS_BOOK, CHAINED]].all()


def save_track(tracks: Tracks, clock: int) -> dict[str, NDArray[Any]]:
    """One clock's open bar."""
    return {name: getattr(tracks, name)[..., clock].copy() for name in ("spans", "rows")} | {
        "memory": tracks.memory[clock].copy()
    }


def restore_track(tracks: Tracks, clock: int, saved: Mapping[str, NDArray[Any]]) -> None:
    """Raises ValueError where the arrays do not fit; rows may hold more levels."""
    tracks.spans[:, clock] = saved["spans"]
    tracks.rows[:, clock] = saved["rows"][: tracks.rows.shape[0]]
    tracks.memory[clock] = saved["memory"]


def seen_ns(market: Market) -> int:
    """The time up to which events were taken."""
    return int(market.numbers[SEEN_NS])
