"""The compiled pass: events in, rows of bars out, for any number of clocks at once. What a bar is: bar_pass.py.

An event is interpreted once, and what it adds goes to running totals that all clocks share (running_totals.py): a bar's
sum is what a total grew by. So an event costs the same whatever the number of clocks, but for those that ask after it
whether their bar is full, and each clock's rows are, to the bit, those that it gives alone.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

import research.bars.state as at
from core.kernels import njit
from research.bars.closing import close_bars_due, counted, reopen_bars, summed
from research.bars.event_clocks import (
    TIME,
    flow_of,
    flow_until_full,
    is_filled_by_trades,
    is_full_of_mids,
    is_full_of_trades,
    quiet_mids,
)
from research.bars.events import DELTA, GAP, LIQUIDATION, MARK, NEVER_NS, QUOTE, TRADE
from research.bars.order_book import lose_book, take_delta
from research.bars.running_totals import MOST, add, added

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

DONE, FULL, NO_ROOM, OUT_OF_ORDER = range(4)
"""Why a pass ended: all was taken; a clock's room is full; the book needs room; the event is older than one before."""

_NEWEST: Final = 1.0 - 0.5**0.001  # weight of a trade in the mean notional: a half-life of 1,000 trades
_LARGE: Final = 10.0  # times the mean
_LEAST_TRADES: Final = 100  # before them none is large
_NOTHING: Final = -1
_LOW_HALF: Final = 0xFFFFFFFF


@njit(cache=True, nogil=True)
def take_events(
    words: Ints,
    begin: int,
    until_ns: int,
    numbers: Ints,
    values: Floats,
    spans: Ints,
    rows: Floats,
    ladders: Floats,
    tops: Floats,
    held: Floats,
    depth: Ints,
    slots: Ints,
    times_out: Ints,
    rows_out: Floats,
) -> tuple[int, int, int]:
    """Take events from `begin`, then close bars up to `until_ns`. Returns (next event, why it ended, bars written).

    `words` (n, 6) are the events as integers: EVENT as it lies in memory, since arrays of records are slow to hand
    over. After FULL, call again with that event and new room; after NO_ROOM, give the book room and do the same. All
    that must outlive a call is in the arrays of `Market`, `Tracks` and `Book`.
    """
    terms = words.view(np.float64)
    slots[:, at.NEXT] = slots[:, at.FIRST]
    due_ns, silence_ns = _first_due(spans), _shortest_silence(spans)
    any_asks, is_stale = _is_any_asked(spans), True
    i, ended = begin, DONE
    while True:
        is_event = i < words.shape[0]  # after the last comes the time that is reached
        recv_ns, kind, side = until_ns, _NOTHING, 0
        if is_event:
            recv_ns, kind, side = words[i, 0], words[i, 1] & _LOW_HALF, words[i, 1] >> 32
            if recv_ns < numbers[at.SEEN_NS]:
                ended = OUT_OF_ORDER
                break
        is_of_depth = kind == DELTA or (kind == GAP and side == 1)
        if recv_ns >= due_ns or recv_ns >= numbers[at.LAST_NS] + silence_ns:
            if not close_bars_due(recv_ns, numbers, values, spans, rows, tops, depth, slots, times_out, rows_out):
                ended = FULL
                break
            due_ns = _first_due(spans)
            if is_event and (recv_ns >= due_ns or recv_ns >= numbers[at.LAST_NS] + silence_ns):
                reopen_bars(recv_ns, is_of_depth, numbers, values, spans, rows, tops)
                due_ns, is_stale = _first_due(spans), True
            is_stale = is_stale or any_asks
        numbers[at.SEEN_NS] = max(numbers[at.SEEN_NS], recv_ns)
        if not is_event:
            break
        if is_of_depth:
            if kind == GAP:
                lose_book(depth)
            elif not take_delta(
                side, terms[i, 2], terms[i, 3], int(terms[i, 4]), int(terms[i, 5]), ladders, tops, held, depth
            ):
                ended = NO_ROOM
                break
            i += 1
            continue
        numbers[at.LAST_NS] = recv_ns
        if kind != QUOTE and kind != TRADE:
            _take_other(kind, side, terms[i], numbers, spans, rows)
            i += 1
            continue
        if is_stale:
            _note_unasked(numbers, values, spans, rows)
        i, is_stale = _take_quotes_and_trades(words, terms, i, due_ns, silence_ns, numbers, values)
        if is_stale:
            _answer(words[i - 1, 0], words[i - 1, 1] & _LOW_HALF == TRADE, numbers, values, spans, rows)
            due_ns = _first_due(spans)
    written = 0
    for clock in range(slots.shape[0]):
        written += slots[clock, at.NEXT] - slots[clock, at.FIRST]
    return i, ended, written


@njit(cache=True, nogil=True)
def _is_any_asked(spans: Ints) -> bool:
    """Whether bars of some clock are not of time."""
    found = 0
    for clock in range(spans.shape[0]):
        found += spans[clock, at.KIND] != TIME
    return found > 0


@njit(cache=True, nogil=True, inline="always")
def _first_due(spans: Ints) -> int:
    found = NEVER_NS
    for clock in range(spans.shape[0]):
        found = min(found, spans[clock, at.DUE_NS])
    return found


@njit(cache=True, nogil=True, inline="always")
def _shortest_silence(spans: Ints) -> int:
    found = NEVER_NS
    for clock in range(spans.shape[0]):
        found = min(found, spans[clock, at.SILENCE_NS])
    return found


@njit(cache=True, nogil=True, inline="always")
def _take_quotes_and_trades(
    words: Ints, terms: Floats, begin: int, due_ns: int, silence_ns: int, numbers: Ints, values: Floats
) -> tuple[int, bool]:  # fmt: skip
    """Take best prices and trades from `begin` on while nothing is due; what is not valid is as if it had not come.

    Returns (the next event, whether bars are to be asked if that before it has filled them). The book is kept in
    registers: an event that had to wait for what the one before it stored would take twice as long.
    """
    bid, bid_qty, ask, ask_qty = values[at.BID], values[at.BID_QTY], values[at.ASK], values[at.ASK_QTY]
    mid, high, low = values[at.MID], values[at.NEW_HIGH], values[at.NEW_LOW]
    flow, flow_rest = values[at.OFI], values[at.OFI + 1]
    quotes, is_chained = numbers[at.QUOTES], numbers[at.CHAINED] == 1
    last_ns = numbers[at.LAST_NS]
    qty_left, usd_left, trades_left = values[at.QTY_LEFT], values[at.USD_LEFT], values[at.TRADES_LEFT]
    quiet_low, quiet_high = values[at.QUIET_LOW], values[at.QUIET_HIGH]
    i, asks = begin, False
    while i < words.shape[0] and not asks:
        recv_ns, kind = words[i, 0], words[i, 1] & _LOW_HALF
        if recv_ns >= due_ns or recv_ns >= last_ns + silence_ns or recv_ns < last_ns:
            break
        if kind == QUOTE:
            new_bid, new_bid_qty, new_ask, new_ask_qty = terms[i, 2], terms[i, 3], terms[i, 4], terms[i, 5]
            if 0.0 < new_bid < new_ask < MOST and 0.0 <= new_bid_qty < MOST and 0.0 <= new_ask_qty < MOST:
                bid_flow = new_bid_qty * (new_bid >= bid) - bid_qty * (new_bid <= bid)
                ask_flow = new_ask_qty * (new_ask <= ask) - ask_qty * (new_ask >= ask)
                if is_chained:
                    flow, flow_rest = added(flow, flow_rest, bid_flow - ask_flow)
                bid, bid_qty, ask, ask_qty = new_bid, new_bid_qty, new_ask, new_ask_qty
                mid = 0.5 * (bid + ask)
                high, low = max(high, mid), min(low, mid)
                quotes += 1
                is_chained = True
                asks = mid <= quiet_low or mid >= quiet_high
        elif kind == TRADE:
            price, qty = terms[i, 2], terms[i, 3]
            if abs(price) < MOST and abs(qty) < MOST:
                _take_trade(words[i, 1] >> 32, price, qty, mid, numbers, values)
                qty_left -= abs(qty)
                usd_left -= abs(price * qty)
                trades_left -= 1.0
                asks = qty_left <= 0.0 or usd_left <= 0.0 or trades_left <= 0.0
        else:
            break
        last_ns = recv_ns
        i += 1
    values[at.BID], values[at.BID_QTY], values[at.ASK], values[at.ASK_QTY] = bid, bid_qty, ask, ask_qty
    values[at.MID], values[at.NEW_HIGH], values[at.NEW_LOW] = mid, high, low
    values[at.OFI], values[at.OFI + 1] = flow, flow_rest
    numbers[at.QUOTES], numbers[at.CHAINED] = quotes, is_chained
    numbers[at.LAST_NS] = numbers[at.SEEN_NS] = last_ns
    values[at.QTY_LEFT], values[at.USD_LEFT], values[at.TRADES_LEFT] = qty_left, usd_left, trades_left
    return i, asks


@njit(cache=True, nogil=True)
def _settle(numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """A quote after a start or a gap. A bar gets a book with its first quote: what needs one counts from there on."""
    numbers[at.SETTLED] = 1
    to_old = at.OLD_TOTALS - at.TOTALS
    for clock in range(spans.shape[0]):
        if spans[clock, at.HAS_BOOK] == 1:
            continue
        spans[clock, at.HAS_BOOK] = 1
        rows[clock, at.OPEN] = rows[clock, at.HIGH] = rows[clock, at.LOW] = values[at.MID]
        for place in range(at.OFI, at.EFFECTIVE + 2):
            rows[clock, to_old + place] = values[place]


@njit(cache=True, nogil=True, inline="always")
def _take_trade(side: int, price: float, qty: float, mid: float, numbers: Ints, values: Floats) -> None:
    taker, sign = (0, 1.0) if side > 0 else (1, -1.0)
    usd = price * qty
    add(values, at.BUY_QTY + 2 * taker, qty)
    add(values, at.BUY_USD + 2 * taker, usd)
    add(values, at.SQUARE, usd * usd)
    values[at.NEW_MAX_TRADE] = max(values[at.NEW_MAX_TRADE], usd)
    if mid > 0.0:
        add(values, at.EFFECTIVE, 2.0 * sign * (price - mid) * qty)
    if _is_large(usd, numbers, values):
        add(values, at.LARGE_BUY + 2 * taker, usd)
        numbers[at.LARGE] += 1
    numbers[at.BUYS + taker] += 1


@njit(cache=True, nogil=True, inline="always")
def _is_large(usd: float, numbers: Ints, values: Floats) -> bool:
    """Whether a trade is large beside those before it; then it joins their mean."""
    mean, before = values[at.MEAN_USD], numbers[at.BUYS] + numbers[at.SELLS]
    values[at.MEAN_USD] = mean + (usd - mean) * max(1.0 / (before + 1), _NEWEST)
    return bool(before >= _LEAST_TRADES and usd >= _LARGE * mean)


@njit(cache=True, nogil=True)
def _take_other(kind: int, side: int, terms: Floats, numbers: Ints, spans: Ints, rows: Floats) -> None:
    """A liquidation, a mark or a gap."""
    a, b, c, d = terms[2], terms[3], terms[4], terms[5]
    usd = a * b
    numbers[at.FORCED] += kind == LIQUIDATION
    for clock in range(spans.shape[0]):
        if kind == LIQUIDATION:
            rows[clock, at.LIQ_LONG if side > 0 else at.LIQ_SHORT] += usd
            rows[clock, at.LIQ_SQUARE] += usd * usd
            rows[clock, at.LIQ_MAX] = max(rows[clock, at.LIQ_MAX], usd)
        elif kind == MARK:
            rows[clock, at.MARK] = rows[clock, at.MARK] if np.isnan(a) else a
            rows[clock, at.INDEX] = rows[clock, at.INDEX] if np.isnan(b) else b
            rows[clock, at.FUNDING] = rows[clock, at.FUNDING] if np.isnan(c) else c
            rows[clock, at.INTEREST] = rows[clock, at.INTEREST] if np.isnan(d) else d
            rows[clock, at.FUNDING_MIN] = side if side > 0 else rows[clock, at.FUNDING_MIN]
        else:
            rows[clock, at.HAS_GAP] = 1.0
            numbers[at.CHAINED] = 0


@njit(cache=True, nogil=True, inline="always")
def _answer(recv_ns: int, is_trade: bool, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """Let bars close at the end of this instant that a trade, or else a quote, has filled."""
    if not is_trade and numbers[at.SETTLED] == 0:
        _settle(numbers, values, spans, rows)
    for clock in range(spans.shape[0]):
        kind = spans[clock, at.KIND]
        if kind == TIME or is_filled_by_trades(kind) != is_trade or spans[clock, at.DUE_NS] == recv_ns + 1:
            continue
        if is_trade:
            bought, sold, trades = _gathered(kind, clock, numbers, values, spans, rows)
            is_full = is_full_of_trades(kind, bought, sold, trades, rows, clock)
        else:
            first, high, low = rows[clock, at.OPEN], rows[clock, at.HIGH], rows[clock, at.LOW]
            high, low = max(high, values[at.NEW_HIGH]), min(low, values[at.NEW_LOW])
            is_full = is_full_of_mids(kind, first, high, low, values[at.MID], rows, clock)
        if is_full:
            spans[clock, at.DUE_NS] = recv_ns + 1


@njit(cache=True, nogil=True, inline="always")
def _gathered(
    kind: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats
) -> tuple[float, float, float]:
    """What a clock counts that was bought and sold in its open bar, and the trades."""
    buys, sells = counted(at.BUYS, clock, numbers, spans), counted(at.SELLS, clock, numbers, spans)
    flow = flow_of(kind)
    if flow == 2:
        return buys, sells, buys + sells
    to = 4 * flow  # quantities of both sides stand before notionals
    bought, sold = summed(at.BUY_QTY + to, clock, values, rows), summed(at.SELL_QTY + to, clock, values, rows)
    return bought, sold, buys + sells


@njit(cache=True, nogil=True, inline="always")
def _note_unasked(numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """Find out until when no clock needs to be asked; an answer that is too early costs time, no more."""
    for flow in range(3):
        values[at.QTY_LEFT + flow] = np.inf
    values[at.QUIET_LOW], values[at.QUIET_HIGH] = -np.inf, np.inf
    if numbers[at.SETTLED] == 0:
        values[at.QUIET_HIGH] = 0.0
    for clock in range(spans.shape[0]):
        kind = spans[clock, at.KIND]
        if kind == TIME:
            continue
        if is_filled_by_trades(kind):
            bought, sold, trades = _gathered(kind, clock, numbers, values, spans, rows)
            flow, left = flow_until_full(kind, bought, sold, trades, rows, clock)
            values[at.QTY_LEFT + flow] = min(values[at.QTY_LEFT + flow], left)
        else:
            high, low = max(rows[clock, at.HIGH], values[at.NEW_HIGH]), min(rows[clock, at.LOW], values[at.NEW_LOW])
            low, high = quiet_mids(kind, high, low, rows, clock)
            values[at.QUIET_LOW], values[at.QUIET_HIGH] = (
                max(values[at.QUIET_LOW], low),
                min(values[at.QUIET_HIGH], high),
            )
