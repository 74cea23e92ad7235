"""The compiled pass: events in, rows of bars out, for any number of clocks at once. What a bar is: bars.py.

An event is interpreted once: its mid, its notional, its order flow, the book it leaves. Then each clock's open row
takes it. What all rows share (the best prices, the levels of the book, the counts) is kept once and copied as a bar
closes. Each clock's rows are, to the bit, those that it gives alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S
from research.bar_columns import BAR_COLUMNS
from research.bar_events import DELTA, GAP, LIQUIDATION, MARK, NEVER_NS, QUOTE, TRADE, Events
from research.event_clocks import MEMORY_SIZE, SIZE, TIME, asks_trades, is_full
from research.order_book import lose_book, take_delta, write_level

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

# Of `Market.numbers`: counts since the beginning, times, whether every clock has a book that the next quote follows.
_QUOTES, _BUYS, _SELLS, _FORCED, _LAST_NS, _SEEN_NS, _SETTLED, N_NUMBERS = range(8)
# Of `Market.values`: the last valid quote and its mid, and the mean notional of a trade.
_BID, _BID_QTY, _ASK, _ASK_QTY, _MID, _MEAN_USD, N_VALUES = range(7)
# Of `Tracks.spans`, per clock: what it is, then where its open bar stands; the counts are those as the bar opened.
_KIND, _STEP_NS, _SILENCE_NS, _OPEN_NS, _DUE_NS, _BAR_INDEX, _STARTED, _HAS_BOOK, _CHAINED = range(9)
_OLD_QUOTES, _OLD_BUYS, _OLD_SELLS, _OLD_FORCED, N_SPANS = range(9, 14)
# Of `Tracks.rows`, per clock: prices, sums of the bar, what is known of marks; then the flow of each level.
_OPEN, _HIGH, _LOW, _BUY_QTY, _SELL_QTY, _BUY_USD, _SELL_USD, _OFI, _EFFECTIVE, _SQUARE, _MAX_TRADE = range(11)
_LARGE_BUY, _LARGE_SELL, _LARGE_COUNT, _LIQ_LONG, _LIQ_SHORT, _LIQ_SQUARE, _LIQ_MAX = range(11, 18)
_MARK, _INDEX, _FUNDING, _INTEREST, _FUNDING_MIN, _HAS_GAP, N_ROWS = range(18, 25)

DONE, FULL, NO_ROOM, OUT_OF_ORDER = range(4)
"""Why a pass ended: all was taken; a clock's room is full; the book needs room; the event is older than one before."""

_BARS_PER_DAY: Final = 1_000_000  # numbers volume bars: more than any day holds, so that fresh starts never collide
_NEWEST: Final = 1.0 - 0.5**0.001  # weight of a trade in the mean notional: a half-life of 1,000 trades
_LARGE: Final = 10.0  # times the mean
_LEAST_TRADES: Final = 100  # before them none is large
_WIDTH: Final = len(BAR_COLUMNS)
_NOTHING: Final = -1


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
    spans[_KIND], spans[_STEP_NS], spans[_SILENCE_NS] = kinds, steps_ns, silences_ns
    memory = np.zeros((kinds.size, MEMORY_SIZE))
    memory[:, SIZE] = sizes
    return Tracks(spans, np.zeros((N_ROWS + levels, kinds.size)), memory)


SHARED: Final = ("numbers", "values", "book_levels", "book_tops", "book_held", "book_numbers")
"""Arrays of a clock's state that are the same for all clocks."""
FIXED: Final = ("spans", "memory", "numbers", "values", "book_numbers", "book_tops")
"""Arrays whose length tells one layout of state from another."""


def save_market(market: Market) -> dict[str, NDArray[Any]]:
    numbers = market.numbers.copy()
    numbers[_SETTLED] = 0  # depends on the clocks: restoring finds it out
    return {"numbers": numbers, "values": market.values.copy()}


def restore_market(market: Market, tracks: Tracks, saved: Mapping[str, NDArray[Any]]) -> None:
    market.numbers[:], market.values[:] = saved["numbers"], saved["values"]
    market.numbers[_SETTLED] = tracks.spans[[_HAS_BOOK, _CHAINED]].all()


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
    return int(market.numbers[_SEEN_NS])


@njit(cache=True, nogil=True)
def take_events(
    events: Events,
    begin: int,
    until_ns: int,
    numbers: Ints,
    values: Floats,
    spans: Ints,
    rows: Floats,
    memory: Floats,
    ladders: Floats,
    tops: Floats,
    held: Floats,
    depth: Ints,
    slots: Ints,
    times_out: Ints,
    rows_out: Floats,
) -> tuple[int, int]:
    """Take events from `begin`, then close bars up to `until_ns`. Returns (next event, why it ended).

    After FULL, call again with that event and new room; after NO_ROOM, give the book room and do the same. All that
    must outlive a call is in the arrays of `Market`, `Tracks` and `Book`.
    """
    due_ns, silence_ns = _first_due(spans), _shortest_silence(spans)
    fills_by_trade, fills_by_quote = _is_any_filled(True, spans), _is_any_filled(False, spans)
    for i in range(begin, events.size + 1):  # after the last event comes the time that is reached
        recv_ns = events[i].recv_ns if i < events.size else until_ns
        kind = events[i].kind if i < events.size else _NOTHING
        if kind != _NOTHING and recv_ns < numbers[_SEEN_NS]:
            return i, OUT_OF_ORDER
        is_of_depth = kind == DELTA or (kind == GAP and events[i].side == 1)
        if recv_ns >= due_ns or recv_ns >= numbers[_LAST_NS] + silence_ns:
            if not _close_all(recv_ns, numbers, values, spans, rows, tops, depth, slots, times_out, rows_out):
                return i, FULL
            if kind != _NOTHING:
                _reopen_all(recv_ns, is_of_depth, numbers, values, spans, rows)
            due_ns = _first_due(spans)
        numbers[_SEEN_NS] = max(numbers[_SEEN_NS], recv_ns)
        if kind == _NOTHING:
            break
        event, asked = events[i], False
        if is_of_depth:
            if not _take_depth(event, rows, ladders, tops, held, depth):
                return i, NO_ROOM
            continue
        numbers[_LAST_NS] = recv_ns
        if kind == QUOTE:
            _take_quote(event.a, event.b, event.c, event.d, numbers, values, spans, rows)
            asked = fills_by_quote
        elif kind == TRADE:
            _take_trade(event.side, event.a, event.b, numbers, values, spans, rows)
            asked = fills_by_trade
        else:
            _take_other(event, numbers, spans, rows)
        if asked and _note_full(recv_ns, kind == TRADE, numbers, values, spans, rows, memory):
            due_ns = min(due_ns, recv_ns + 1)
    return events.size, DONE


@njit(cache=True, nogil=True)
def _is_any_filled(by_trade: bool, spans: Ints) -> bool:
    """Whether trades, or else best prices, fill bars of some clock."""
    for clock in range(spans.shape[1]):
        if spans[_KIND, clock] != TIME and asks_trades(spans[_KIND, clock]) == by_trade:
            return True
    return False


@njit(cache=True, nogil=True, inline="always")
def _first_due(spans: Ints) -> int:
    found = NEVER_NS
    for clock in range(spans.shape[1]):
        found = min(found, spans[_DUE_NS, clock])
    return found


@njit(cache=True, nogil=True, inline="always")
def _shortest_silence(spans: Ints) -> int:
    found = NEVER_NS
    for clock in range(spans.shape[1]):
        found = min(found, spans[_SILENCE_NS, clock])
    return found


@njit(cache=True, nogil=True, inline="always")
def _close_all(
    until_ns: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats, depth: Ints,
    slots: Ints, times_out: Ints, rows_out: Floats,
) -> bool:  # fmt: skip
    """Write the bars of every clock that are due up to `until_ns`; False where there is no room for more."""
    has_room = True
    for clock in range(spans.shape[1]):
        did = _close_bars(until_ns, clock, numbers, values, spans, rows, tops, depth, slots, times_out, rows_out)
        has_room = has_room and did
    return has_room


@njit(cache=True, nogil=True, inline="always")
def _close_bars(
    until_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats, depth: Ints,
    slots: Ints, times_out: Ints, rows_out: Floats,
) -> bool:  # fmt: skip
    step_ns = spans[_STEP_NS, clock]
    dead_ns = numbers[_LAST_NS] + spans[_SILENCE_NS, clock]
    while spans[_STARTED, clock] == 1:
        close_ns = spans[_DUE_NS, clock]
        if step_ns == 0:
            close_ns = min(close_ns, dead_ns)  # what a silence leaves of a volume bar is written too
        if close_ns > min(until_ns, dead_ns) or (step_ns == 0 and _is_empty(clock, numbers, spans)):
            break
        if spans[_HAS_BOOK, clock] == 1:
            if slots[0, clock] == slots[1, clock]:
                return False
            _write_bar(close_ns, clock, slots[0, clock], numbers, values, spans, rows, tops, depth, times_out, rows_out)
            slots[0, clock] += 1
            rows[_HAS_GAP, clock] = 0.0
            spans[_BAR_INDEX, clock] += 1
        elif step_ns > 0:
            spans[_BAR_INDEX, clock] += 1
        _open_bar(close_ns, clock, numbers, values, spans, rows)
    return True


@njit(cache=True, nogil=True, inline="always")
def _is_empty(clock: int, numbers: Ints, spans: Ints) -> bool:
    """Whether the open bar has no valid quote, no trade and no liquidation."""
    happened = 0
    for count in range(4):
        happened += numbers[_QUOTES + count] - spans[_OLD_QUOTES + count, clock]
    return happened == 0


@njit(cache=True, nogil=True, inline="always")
def _write_bar(
    close_ns: int, clock: int, at: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats,
    depth: Ints, times_out: Ints, rows_out: Floats,
) -> None:  # fmt: skip
    """Write the open bar's columns in the order of BAR_COLUMNS, then those of the levels."""
    times_out[at, 0], times_out[at, 1] = spans[_OPEN_NS, clock], close_ns
    times_out[at, 2] = spans[_BAR_INDEX, clock]
    for column in range(4):
        rows_out[at, column] = values[_BID + column]
        rows_out[at, 8 + column] = rows[_BUY_QTY + column, clock]
        rows_out[at, 19 + column] = rows[_MARK + column, clock]
    for column in range(3):
        rows_out[at, 4 + column] = rows[_OPEN + column, clock]
    rows_out[at, 7] = values[_MID]
    rows_out[at, 12] = _counted(_BUYS, clock, numbers, spans)
    rows_out[at, 13] = _counted(_SELLS, clock, numbers, spans)
    rows_out[at, 14] = rows[_OFI, clock]
    rows_out[at, 15] = _counted(_QUOTES, clock, numbers, spans)
    rows_out[at, 16], rows_out[at, 17] = rows[_LIQ_LONG, clock], rows[_LIQ_SHORT, clock]
    rows_out[at, 18] = _counted(_FORCED, clock, numbers, spans)
    for column in range(6):
        rows_out[at, 23 + column] = rows[_EFFECTIVE + column, clock]
    rows_out[at, 29], rows_out[at, 30] = rows[_LIQ_SQUARE, clock], rows[_LIQ_MAX, clock]
    funding_ns = int(rows[_FUNDING_MIN, clock]) * NS_PER_MINUTE
    rows_out[at, 31] = (funding_ns - close_ns) / NS_PER_S if funding_ns > 0 else np.nan
    rows_out[at, 32] = 1.0 if _is_empty(clock, numbers, spans) else 0.0
    rows_out[at, 33] = rows[_HAS_GAP, clock]
    for level in range(tops.shape[1]):
        write_level(level, tops, depth, rows_out, at, _WIDTH + 5 * level)
        rows_out[at, _WIDTH + 5 * level + 4] = rows[N_ROWS + level, clock]


@njit(cache=True, nogil=True, inline="always")
def _counted(what: int, clock: int, numbers: Ints, spans: Ints) -> float:
    return float(numbers[what] - spans[_OLD_QUOTES + what, clock])


@njit(cache=True, nogil=True)
def _open_bar(open_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """Begin the next bar: book and marks stand, flow is nothing yet."""
    step_ns = spans[_STEP_NS, clock]
    spans[_OPEN_NS, clock] = open_ns
    spans[_DUE_NS, clock] = open_ns + step_ns if step_ns > 0 else (open_ns // NS_PER_DAY + 1) * NS_PER_DAY
    mid = values[_MID] if spans[_HAS_BOOK, clock] == 1 else 0.0
    rows[_OPEN, clock] = rows[_HIGH, clock] = rows[_LOW, clock] = mid
    for column in range(_BUY_QTY, _MARK):
        rows[column, clock] = 0.0
    for column in range(N_ROWS, rows.shape[0]):
        rows[column, clock] = 0.0
    for count in range(4):
        spans[_OLD_QUOTES + count, clock] = numbers[_QUOTES + count]


@njit(cache=True, nogil=True)
def _reopen_all(recv_ns: int, is_of_depth: bool, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """What an event does first where all bars due before it are closed.

    A clock begins at all, or afresh after a silence: not with the depth alone, which no bar depends on. A bar that is
    not of time and in which nothing happened yet opens at midnight instead.
    """
    for clock in range(spans.shape[1]):
        is_dead = spans[_STARTED, clock] == 0 or recv_ns >= numbers[_LAST_NS] + spans[_SILENCE_NS, clock]
        if is_dead and not is_of_depth:
            _start(recv_ns, clock, numbers, values, spans, rows)
        elif not is_dead and recv_ns >= spans[_DUE_NS, clock]:
            _open_bar(recv_ns - recv_ns % NS_PER_DAY, clock, numbers, values, spans, rows)


@njit(cache=True, nogil=True)
def _start(recv_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """A clock knows nothing: no book, no mark, no quote that the next one follows."""
    step_ns = spans[_STEP_NS, clock]
    for column in range(_MARK, _FUNDING_MIN):
        rows[column, clock] = np.nan
    rows[_FUNDING_MIN, clock] = 0.0
    rows[_HAS_GAP, clock] = float(spans[_STARTED, clock])
    first = recv_ns // step_ns if step_ns > 0 else recv_ns // NS_PER_DAY * _BARS_PER_DAY
    spans[_BAR_INDEX, clock] = max(spans[_BAR_INDEX, clock], first)
    spans[_STARTED, clock] = 1
    spans[_HAS_BOOK, clock] = spans[_CHAINED, clock] = 0
    numbers[_SETTLED] = 0
    _open_bar(first * step_ns if step_ns > 0 else recv_ns, clock, numbers, values, spans, rows)


@njit(cache=True, nogil=True, inline="always")
def _take_quote(
    bid: float, bid_qty: float, ask: float, ask_qty: float, numbers: Ints, values: Floats, spans: Ints, rows: Floats
) -> None:
    """Add a best price to the open bars; one that is not valid is as if it had not come."""
    if not (0.0 < bid < ask < np.inf and 0.0 <= bid_qty < np.inf and 0.0 <= ask_qty < np.inf):
        return
    clocks = spans.shape[1]
    mid = 0.5 * (bid + ask)
    bid_flow = bid_qty * (bid >= values[_BID]) - values[_BID_QTY] * (bid <= values[_BID])
    ask_flow = ask_qty * (ask <= values[_ASK]) - values[_ASK_QTY] * (ask >= values[_ASK])
    flow = bid_flow - ask_flow
    if numbers[_SETTLED] == 0:
        _settle(mid, flow, numbers, spans, rows)
    else:
        for clock in range(clocks):
            rows[_OFI, clock] += flow
    for clock in range(clocks):
        rows[_HIGH, clock] = max(rows[_HIGH, clock], mid)
    for clock in range(clocks):
        rows[_LOW, clock] = min(rows[_LOW, clock], mid)
    values[_BID], values[_BID_QTY], values[_ASK], values[_ASK_QTY], values[_MID] = bid, bid_qty, ask, ask_qty, mid
    numbers[_QUOTES] += 1


@njit(cache=True, nogil=True)
def _settle(mid: float, flow: float, numbers: Ints, spans: Ints, rows: Floats) -> None:
    """A quote after a start or a gap: where it is the first, bars get a book; where it follows none, no flow."""
    for clock in range(spans.shape[1]):
        if spans[_HAS_BOOK, clock] == 0:
            rows[_OPEN, clock] = rows[_HIGH, clock] = rows[_LOW, clock] = mid
        if spans[_CHAINED, clock] == 1:
            rows[_OFI, clock] += flow
        spans[_HAS_BOOK, clock] = spans[_CHAINED, clock] = 1
    numbers[_SETTLED] = 1


@njit(cache=True, nogil=True, inline="always")
def _take_trade(side: int, price: float, qty: float, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    clocks = spans.shape[1]
    taker, sign = (0, 1.0) if side > 0 else (1, -1.0)
    usd = price * qty
    square = usd * usd
    for clock in range(clocks):
        rows[_BUY_QTY + taker, clock] += qty
    for clock in range(clocks):
        rows[_BUY_USD + taker, clock] += usd
    for clock in range(clocks):
        rows[_SQUARE, clock] += square
    for clock in range(clocks):
        rows[_MAX_TRADE, clock] = max(rows[_MAX_TRADE, clock], usd)
    effective = 2.0 * sign * (price - values[_MID]) * qty
    if numbers[_SETTLED] == 1:
        for clock in range(clocks):
            rows[_EFFECTIVE, clock] += effective
    else:
        for clock in range(clocks):
            rows[_EFFECTIVE, clock] += effective if spans[_HAS_BOOK, clock] == 1 else 0.0
    if _is_large(usd, numbers, values):
        for clock in range(clocks):
            rows[_LARGE_BUY + taker, clock] += usd
            rows[_LARGE_COUNT, clock] += 1.0
    numbers[_BUYS + taker] += 1


@njit(cache=True, nogil=True, inline="always")
def _is_large(usd: float, numbers: Ints, values: Floats) -> bool:
    """Whether a trade is large beside those before it; then it joins their mean."""
    mean, before = values[_MEAN_USD], numbers[_BUYS] + numbers[_SELLS]
    values[_MEAN_USD] = mean + (usd - mean) * max(1.0 / (before + 1), _NEWEST)
    return bool(before >= _LEAST_TRADES and usd >= _LARGE * mean)


@njit(cache=True, nogil=True)
def _take_other(event: Any, numbers: Ints, spans: Ints, rows: Floats) -> None:
    """A liquidation, a mark or a gap."""
    usd = event.a * event.b
    numbers[_FORCED] += event.kind == LIQUIDATION
    for clock in range(spans.shape[1]):
        if event.kind == LIQUIDATION:
            rows[_LIQ_LONG if event.side > 0 else _LIQ_SHORT, clock] += usd
            rows[_LIQ_SQUARE, clock] += usd * usd
            rows[_LIQ_MAX, clock] = max(rows[_LIQ_MAX, clock], usd)
        elif event.kind == MARK:
            rows[_MARK, clock] = rows[_MARK, clock] if np.isnan(event.a) else event.a
            rows[_INDEX, clock] = rows[_INDEX, clock] if np.isnan(event.b) else event.b
            rows[_FUNDING, clock] = rows[_FUNDING, clock] if np.isnan(event.c) else event.c
            rows[_INTEREST, clock] = rows[_INTEREST, clock] if np.isnan(event.d) else event.d
            rows[_FUNDING_MIN, clock] = event.side if event.side > 0 else rows[_FUNDING_MIN, clock]
        else:
            rows[_HAS_GAP, clock] = 1.0
            spans[_CHAINED, clock] = 0
            numbers[_SETTLED] = 0


@njit(cache=True, nogil=True, inline="always")
def _take_depth(event: Any, rows: Floats, ladders: Floats, tops: Floats, held: Floats, depth: Ints) -> bool:
    """A delta or a gap of the depth; False where the book lacks room."""
    if event.kind == GAP:
        lose_book(depth)
        return True
    return bool(
        take_delta(
            event.side, event.a, event.b, int(event.c), int(event.d), ladders, tops, held, depth, rows, N_ROWS
        )
    )


@njit(cache=True, nogil=True, inline="always")
def _note_full(
    recv_ns: int, is_trade: bool, numbers: Ints, values: Floats, spans: Ints, rows: Floats, memory: Floats
) -> bool:
    """Let bars close at the end of this instant that a trade, or else a quote, has filled; whether there is one."""
    found = False
    for clock in range(spans.shape[1]):
        kind = spans[_KIND, clock]
        if kind == TIME or asks_trades(kind) != is_trade or spans[_DUE_NS, clock] == recv_ns + 1:
            continue
        buy = rows[_BUY_QTY, clock], rows[_BUY_USD, clock], _counted(_BUYS, clock, numbers, spans)
        sell = rows[_SELL_QTY, clock], rows[_SELL_USD, clock], _counted(_SELLS, clock, numbers, spans)
        mid = values[_MID] if spans[_HAS_BOOK, clock] == 1 else 0.0
        mids = rows[_OPEN, clock], rows[_HIGH, clock], rows[_LOW, clock], mid
        if is_full(kind, buy, sell, mids, memory, clock):
            spans[_DUE_NS, clock] = recv_ns + 1
            found = True
    return found
