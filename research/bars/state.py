"""The state of the pass over events (rows.py): where its numbers stand, how it begins, is saved and goes on.

Kernels read the places as `at.OFI`, and so on.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from research.bars.event_clocks import MEMORY_SIZE, SIZE
from research.bars.part import part

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

# Of `Market.numbers`: counts since the beginning; times; whether the next quote follows one, whether bars have a book.
QUOTES, BUYS, SELLS, FORCED, LARGE, LAST_NS, SEEN_NS, CHAINED, SETTLED, N_NUMBERS = range(10)
N_COUNTS: Final = LARGE + 1
# Of `Market.values`: the last valid quote and its mid; the mean notional of a trade; extremes that no clock's row has
# yet, and the first price traded of those; the last price traded; then the running totals, two places each.
BID, BID_QTY, ASK, ASK_QTY, MID, MEAN_USD, NEW_HIGH, NEW_LOW, NEW_MAX_TRADE = range(9)
NEW_TRADE_OPEN, NEW_TRADE_HIGH, NEW_TRADE_LOW, LAST_TRADE = range(9, 13)
BUY_QTY, SELL_QTY, BUY_USD, SELL_USD, OFI, EFFECTIVE, SQUARE, LARGE_BUY, LARGE_SELL, UNASKED = range(13, 32, 2)
TOTALS, N_TOTALS = BUY_QTY, UNASKED - BUY_QTY
# Until when no clock needs to be asked whether its bar is full: flows to come, as `flow_of` numbers them, and mids.
QTY_LEFT, USD_LEFT, TRADES_LEFT, QUIET_LOW, QUIET_HIGH, N_VALUES = range(UNASKED, UNASKED + 6)
# Of `Tracks.spans`, per clock: what it is, then where its open bar stands; the counts are those as the bar opened.
KIND, STEP_NS, SILENCE_NS, OPEN_NS, DUE_NS, BAR_INDEX, STARTED, HAS_BOOK, OLD_COUNTS = range(9)
N_SPANS: Final = OLD_COUNTS + N_COUNTS
# Of `Tracks.rows`, per clock: what its kind remembers (event_clocks.py); prices and sums of the bar; what is known of
# marks; the totals as the bar opened, and behind them those of each level's flow.
OPEN, HIGH, LOW, TRADE_OPEN, TRADE_HIGH, TRADE_LOW = range(MEMORY_SIZE, MEMORY_SIZE + 6)
MAX_TRADE, LIQ_LONG, LIQ_SHORT, LIQ_SQUARE, LIQ_MAX = range(TRADE_LOW + 1, TRADE_LOW + 6)
MARK, INDEX, FUNDING, INTEREST, FUNDING_MIN, HAS_GAP, OLD_TOTALS = range(LIQ_MAX + 1, LIQ_MAX + 8)
N_ROWS: Final = OLD_TOTALS + N_TOTALS

# Of `Out.slots`, per clock.
FIRST, NEXT, END = range(3)


class Market(NamedTuple):
    """What the events say, whoever asks: `numbers` (9,), `values` (36,)."""

    numbers: Ints
    values: Floats


class Tracks(NamedTuple):
    """The open bars: `spans` (clocks, 13), `rows` (clocks, 41 + 2 levels)."""

    spans: Ints
    rows: Floats


class Out(NamedTuple):
    """Closed bars, clock by clock: `times` (room, 3) and `values` (room, columns).

    `slots` (clocks, 3): the first row of a clock, the one that its next bar goes to, and the end of its room.
    """

    slots: Ints
    times: Ints
    values: Floats


def make_out(rooms: Sequence[int], width: int) -> Out:
    """Room for so many bars of each clock, of `width` columns."""
    ends = np.cumsum(rooms, dtype=np.int64)
    slots = np.stack([ends - rooms, ends - rooms, ends], axis=1)
    return Out(slots, np.empty((ends[-1], 3), np.int64), np.empty((ends[-1], width)))


def make_market() -> Market:
    """Nothing has been seen."""
    market = Market(np.zeros(N_NUMBERS, np.int64), np.zeros(N_VALUES))
    market.values[[NEW_HIGH, NEW_TRADE_HIGH]], market.values[[NEW_LOW, NEW_TRADE_LOW]] = -np.inf, np.inf
    market.values[NEW_TRADE_OPEN] = np.nan
    return market


def make_tracks(kinds: Ints, steps_ns: Ints, silences_ns: Ints, sizes: Floats, levels: int) -> Tracks:
    """Tracks of some clocks that have not begun; all arguments but the last (clocks,)."""
    spans, rows = np.zeros((kinds.size, N_SPANS), np.int64), np.zeros((kinds.size, N_ROWS + 2 * levels))
    spans[:, KIND], spans[:, STEP_NS], spans[:, SILENCE_NS] = kinds, steps_ns, silences_ns
    rows[:, SIZE] = sizes
    return Tracks(spans, rows)


@part
def least(what: int, spans: Ints) -> int:
    """The least of a number over the clocks."""
    found = spans[0, what]
    for clock in range(1, spans.shape[0]):
        found = min(found, spans[clock, what])
    return int(found)


@part
def note_extremes(values: Floats, rows: Floats) -> None:
    """Give all clocks' open bars the extremes since the last time, and the first price traded if they have none."""
    for clock in range(rows.shape[0]):
        rows[clock, HIGH] = max(rows[clock, HIGH], values[NEW_HIGH])
        rows[clock, LOW] = min(rows[clock, LOW], values[NEW_LOW])
        rows[clock, MAX_TRADE] = max(rows[clock, MAX_TRADE], values[NEW_MAX_TRADE])
        first = rows[clock, TRADE_OPEN]
        rows[clock, TRADE_OPEN] = values[NEW_TRADE_OPEN] if np.isnan(first) else first
        rows[clock, TRADE_HIGH] = max(rows[clock, TRADE_HIGH], values[NEW_TRADE_HIGH])
        rows[clock, TRADE_LOW] = min(rows[clock, TRADE_LOW], values[NEW_TRADE_LOW])
    values[NEW_HIGH], values[NEW_LOW], values[NEW_MAX_TRADE] = -np.inf, np.inf, 0.0
    values[NEW_TRADE_OPEN], values[NEW_TRADE_HIGH], values[NEW_TRADE_LOW] = np.nan, -np.inf, np.inf


SHARED: Final = ("numbers", "values", "book_levels", "book_tops", "book_held", "book_numbers")
"""Arrays of a clock's state that are the same for all clocks."""
FIXED: Final = ("spans", "numbers", "values", "book_numbers", "book_tops")
"""Arrays whose length tells one layout of state from another."""


def save_market(market: Market) -> dict[str, NDArray[Any]]:
    numbers = market.numbers.copy()
    numbers[SETTLED] = 0  # what depends on the clocks is found out again
    values = market.values.copy()
    values[UNASKED:] = 0.0
    return {"numbers": numbers, "values": values}


def restore_market(market: Market, tracks: Tracks, saved: Mapping[str, NDArray[Any]]) -> None:
    market.numbers[:], market.values[:] = saved["numbers"], saved["values"]
    market.numbers[SETTLED] = tracks.spans[:, HAS_BOOK].all()


def save_track(tracks: Tracks, clock: int) -> dict[str, NDArray[Any]]:
    """One clock's open bar, after `note_extremes`."""
    return {"spans": tracks.spans[clock].copy(), "rows": tracks.rows[clock].copy()}


def restore_track(tracks: Tracks, clock: int, saved: Mapping[str, NDArray[Any]]) -> None:
    """Raises ValueError where the arrays do not fit; rows may hold more levels."""
    tracks.spans[clock] = saved["spans"]
    tracks.rows[clock] = saved["rows"][: tracks.rows.shape[1]]


def seen_ns(market: Market) -> int:
    """The time up to which events were taken."""
    return int(market.numbers[SEEN_NS])
