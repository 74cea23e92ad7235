"""The compiled pass: events in, rows of bars out, for any number of clocks at once. What a bar is: bars.py.

An event is interpreted once: its mid, its notional, its order flow, the book it leaves. Then each clock's open row
takes it. What all rows share (the best prices, the levels of the book, the counts) is kept once and copied as a bar
closes. Each clock's rows are, to the bit, those that it gives alone.
"""

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

import research.bar_state as at
from core.kernels import njit
from research.bar_close import close_bars_due, counted, reopen_bars
from research.bar_events import DELTA, GAP, LIQUIDATION, MARK, NEVER_NS, QUOTE, TRADE, Events
from research.event_clocks import TIME, flow_of, is_filled_by_trades, is_full_of_mids, is_full_of_trades
from research.order_book import lose_book, take_delta

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

DONE, FULL, NO_ROOM, OUT_OF_ORDER = range(4)
"""Why a pass ended: all was taken; a clock's room is full; the book needs room; the event is older than one before."""

_NEWEST: Final = 1.0 - 0.5**0.001  # weight of a trade in the mean notional: a half-life of 1,000 trades
_LARGE: Final = 10.0  # times the mean
_LEAST_TRADES: Final = 100  # before them none is large
_NOTHING: Final = -1


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
        if kind != _NOTHING and recv_ns < numbers[at.SEEN_NS]:
            return i, OUT_OF_ORDER
        is_of_depth = kind == DELTA or (kind == GAP and events[i].side == 1)
        if recv_ns >= due_ns or recv_ns >= numbers[at.LAST_NS] + silence_ns:
            if not close_bars_due(recv_ns, numbers, values, spans, rows, tops, depth, slots, times_out, rows_out):
                return i, FULL
            due_ns = _first_due(spans)
            if kind != _NOTHING and (recv_ns >= due_ns or recv_ns >= numbers[at.LAST_NS] + silence_ns):
                reopen_bars(recv_ns, is_of_depth, numbers, values, spans, rows)
                due_ns = _first_due(spans)
        numbers[at.SEEN_NS] = max(numbers[at.SEEN_NS], recv_ns)
        if kind == _NOTHING:
            break
        event, asked = events[i], False
        if is_of_depth:
            if not _take_depth(event, rows, ladders, tops, held, depth):
                return i, NO_ROOM
            continue
        numbers[at.LAST_NS] = recv_ns
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
        if spans[at.KIND, clock] != TIME and is_filled_by_trades(spans[at.KIND, clock]) == by_trade:
            return True
    return False


@njit(cache=True, nogil=True, inline="always")
def _first_due(spans: Ints) -> int:
    found = NEVER_NS
    for clock in range(spans.shape[1]):
        found = min(found, spans[at.DUE_NS, clock])
    return found


@njit(cache=True, nogil=True, inline="always")
def _shortest_silence(spans: Ints) -> int:
    found = NEVER_NS
    for clock in range(spans.shape[1]):
        found = min(found, spans[at.SILENCE_NS, clock])
    return found


@njit(cache=True, nogil=True, inline="always")
def _take_quote(
    bid: float, bid_qty: float, ask: float, ask_qty: float, numbers: Ints, values: Floats, spans: Ints, rows: Floats
) -> None:
    """Add a best price to the open bars; one that is not valid is as if it had not come."""
    if not (0.0 < bid < ask < np.inf and 0.0 <= bid_qty < np.inf and 0.0 <= ask_qty < np.inf):
        return
    clocks = spans.shape[1]
    mid = 0.5 * (bid + ask)
    bid_flow = bid_qty * (bid >= values[at.BID]) - values[at.BID_QTY] * (bid <= values[at.BID])
    ask_flow = ask_qty * (ask <= values[at.ASK]) - values[at.ASK_QTY] * (ask >= values[at.ASK])
    flow = bid_flow - ask_flow
    if numbers[at.SETTLED] == 0:
        _settle(mid, flow, numbers, spans, rows)
    else:
        for clock in range(clocks):
            rows[at.OFI, clock] += flow
    for clock in range(clocks):
        rows[at.HIGH, clock] = max(rows[at.HIGH, clock], mid)
    for clock in range(clocks):
        rows[at.LOW, clock] = min(rows[at.LOW, clock], mid)
    values[at.BID], values[at.BID_QTY], values[at.ASK], values[at.ASK_QTY], values[at.MID] = (
        bid,
        bid_qty,
        ask,
        ask_qty,
        mid,
    )
    numbers[at.QUOTES] += 1


@njit(cache=True, nogil=True)
def _settle(mid: float, flow: float, numbers: Ints, spans: Ints, rows: Floats) -> None:
    """A quote after a start or a gap: where it is the first, bars get a book; where it follows none, no flow."""
    for clock in range(spans.shape[1]):
        if spans[at.HAS_BOOK, clock] == 0:
            rows[at.OPEN, clock] = rows[at.HIGH, clock] = rows[at.LOW, clock] = mid
        if spans[at.CHAINED, clock] == 1:
            rows[at.OFI, clock] += flow
        spans[at.HAS_BOOK, clock] = spans[at.CHAINED, clock] = 1
    numbers[at.SETTLED] = 1


@njit(cache=True, nogil=True, inline="always")
def _take_trade(side: int, price: float, qty: float, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    clocks = spans.shape[1]
    taker, sign = (0, 1.0) if side > 0 else (1, -1.0)
    usd = price * qty
    square = usd * usd
    for clock in range(clocks):
        rows[at.BUY_QTY + taker, clock] += qty
    for clock in range(clocks):
        rows[at.BUY_USD + taker, clock] += usd
    for clock in range(clocks):
        rows[at.SQUARE, clock] += square
    for clock in range(clocks):
        rows[at.MAX_TRADE, clock] = max(rows[at.MAX_TRADE, clock], usd)
    effective = 2.0 * sign * (price - values[at.MID]) * qty
    if numbers[at.SETTLED] == 1:
        for clock in range(clocks):
            rows[at.EFFECTIVE, clock] += effective
    else:
        for clock in range(clocks):
            rows[at.EFFECTIVE, clock] += effective if spans[at.HAS_BOOK, clock] == 1 else 0.0
    if _is_large(usd, numbers, values):
        for clock in range(clocks):
            rows[at.LARGE_BUY + taker, clock] += usd
            rows[at.LARGE_COUNT, clock] += 1.0
    numbers[at.BUYS + taker] += 1


@njit(cache=True, nogil=True, inline="always")
def _is_large(usd: float, numbers: Ints, values: Floats) -> bool:
    """Whether a trade is large beside those before it; then it joins their mean."""
    mean, before = values[at.MEAN_USD], numbers[at.BUYS] + numbers[at.SELLS]
    values[at.MEAN_USD] = mean + (usd - mean) * max(1.0 / (before + 1), _NEWEST)
    return bool(before >= _LEAST_TRADES and usd >= _LARGE * mean)


@njit(cache=True, nogil=True)
def _take_other(event: Any, numbers: Ints, spans: Ints, rows: Floats) -> None:
    """A liquidation, a mark or a gap."""
    usd = event.a * event.b
    numbers[at.FORCED] += event.kind == LIQUIDATION
    for clock in range(spans.shape[1]):
        if event.kind == LIQUIDATION:
            rows[at.LIQ_LONG if event.side > 0 else at.LIQ_SHORT, clock] += usd
            rows[at.LIQ_SQUARE, clock] += usd * usd
            rows[at.LIQ_MAX, clock] = max(rows[at.LIQ_MAX, clock], usd)
        elif event.kind == MARK:
            rows[at.MARK, clock] = rows[at.MARK, clock] if np.isnan(event.a) else event.a
            rows[at.INDEX, clock] = rows[at.INDEX, clock] if np.isnan(event.b) else event.b
            rows[at.FUNDING, clock] = rows[at.FUNDING, clock] if np.isnan(event.c) else event.c
            rows[at.INTEREST, clock] = rows[at.INTEREST, clock] if np.isnan(event.d) else event.d
            rows[at.FUNDING_MIN, clock] = event.side if event.side > 0 else rows[at.FUNDING_MIN, clock]
        else:
            rows[at.HAS_GAP, clock] = 1.0
            spans[at.CHAINED, clock] = 0
            numbers[at.SETTLED] = 0


@njit(cache=True, nogil=True, inline="always")
def _take_depth(event: Any, rows: Floats, ladders: Floats, tops: Floats, held: Floats, depth: Ints) -> bool:
    """A delta or a gap of the depth; False where the book lacks room."""
    if event.kind == GAP:
        lose_book(depth)
        return True
    return bool(
        take_delta(
            event.side, event.a, event.b, int(event.c), int(event.d), ladders, tops, held, depth, rows, at.N_ROWS
        )
    )


@njit(cache=True, nogil=True, inline="always")
def _note_full(
    recv_ns: int, is_trade: bool, numbers: Ints, values: Floats, spans: Ints, rows: Floats, memory: Floats
) -> bool:
    """Let bars close at the end of this instant that a trade, or else a quote, has filled; whether there is one."""
    found = False
    for clock in range(spans.shape[1]):
        kind = spans[at.KIND, clock]
        if kind == TIME or is_filled_by_trades(kind) != is_trade or spans[at.DUE_NS, clock] == recv_ns + 1:
            continue
        if is_trade:
            buys, sells = counted(at.BUYS, clock, numbers, spans), counted(at.SELLS, clock, numbers, spans)
            flow, bought, sold = flow_of(kind), buys, sells
            if flow < 2:  # quantities of both sides stand before notionals
                bought, sold = rows[at.BUY_QTY + 2 * flow, clock], rows[at.SELL_QTY + 2 * flow, clock]
            is_full = is_full_of_trades(kind, bought, sold, buys + sells, memory, clock)
        else:
            last = values[at.MID] if spans[at.HAS_BOOK, clock] == 1 else 0.0
            mids = rows[at.OPEN, clock], rows[at.HIGH, clock], rows[at.LOW, clock]
            is_full = is_full_of_mids(kind, mids[0], mids[1], mids[2], last, memory, clock)
        if is_full:
            spans[at.DUE_NS, clock] = recv_ns + 1
            found = True
    return found
