"""One venue's book for one symbol: the flow's events through the matching engine, and what the venue publishes of them.

An event is handled at one instant of the engine: its market order (and forced orders) match first, then market makers
cancel and renew their quotes around the new efficient price, so that the mid is that price to half a tick whenever
anything is published. Orders never execute beyond `_SLIPPAGE_BPS` from the touch, forced ones never beyond the price
that the cascade ends at.

Makers keep two orders at each touch and one at every multiple of `grid_ticks` behind it, `GRID_LEVELS` deep. With flow
expected to buy (rho > 0) they show more on the bid: the imbalance tells the next trade's sign, and no price.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtest.market import flow as fl
from backtest.market.matching import (
    ASK,
    BEST_ASK,
    BEST_BID,
    BID,
    CHANGES,
    FILLS,
    L_HEAD,
    L_TAIL,
    O_ID,
    UPDATE_ID,
    Ladder,
    cancel,
    forget_changes,
    level_qty,
    limit,
    take,
)
from backtest.market.rng import exponential, normal, uniform
from core.kernels import njit

GRID_LEVELS: Final = 24
MS: Final = 1_000_000
SECOND: Final = 1_000_000_000
FUNDING_NS: Final = 8 * 3600 * SECOND
DEPTH_NS: Final = 500 * MS

# Fields of `VenueState.ints`.
BID_FRONT: Final = 0
ASK_FRONT: Final = 1
BID_FAR: Final = 2
ASK_FAR: Final = 3
TRADE_ID: Final = 4
DEPTH_DUE: Final = 5
MARK_DUE: Final = 6
FLUSH_DUE: Final = 7
DEPTH_ID: Final = 8
SENT_US: Final = 9
QUOTED: Final = 10  # four: bid tick, bid lots, ask tick, ask lots
HELD: Final = 14  # four, the largest liquidation of the second: ms, side, tick, lots (0: none)
VENUE_INTS: Final = 18
# Fields of `VenueState.floats`: of the last event, and the smoothed premium.
LAST_PRICE: Final = 0
LAST_PREMIUM: Final = 1
LAST_OPEN_INTEREST: Final = 2
BASIS: Final = 3
VENUE_FLOATS: Final = 4
# Columns of the frames, all int64: prices in ticks, quantities in lots.
QUOTE_COLUMNS, TRADE_COLUMNS, DEPTH_COLUMNS, LEVEL_COLUMNS, LIQUIDATION_COLUMNS, MARK_COLUMNS = 7, 6, 7, 3, 5, 7
FUNDING_UNITS: Final = 1e8
_ROOM: Final = 128  # rows that one event, with what falls due before it, can need at most
_SLIPPAGE_BPS: Final = 0.5
_SIDES: Final = (BID, ASK)
_FIRST_HALF_SPREAD_BPS: Final = 0.1

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


class Venue(NamedTuple):
    """The constants of a symbol on a venue. `stream` < 1000 marks its receive times; `_ticks` and `_lots` are sizes."""

    tick: float
    lot: float
    grid_ticks: int
    front_lots: float
    grid_lots: float
    trade_lots: float
    trade_chance: float
    share: float
    lag_ns: int
    feed_latency_ns: int
    stream: int
    depth_offset_ns: int
    samples_liquidations: bool
    pays_funding: bool
    numbers_depth: bool
    """Depth frames have ids of their own that rise by one (Bybit); else those of the book's changes (Binance)."""


class VenueState(NamedTuple):
    """All that a venue remembers besides its book."""

    ints: Ints
    floats: Floats
    random: NDArray[np.uint64]


class Frames(NamedTuple):
    """Buffers for what is published, each (n, columns), and how many rows of each are written: `counts` (6,)."""

    counts: Ints
    quotes: Ints
    trades: Ints
    depth: Ints
    levels: Ints
    liquidations: Ints
    marks: Ints


def new_frames(rows: int) -> Frames:
    """Empty buffers: for `rows` quotes and what usually comes with them."""
    columns = (QUOTE_COLUMNS, TRADE_COLUMNS, DEPTH_COLUMNS, LEVEL_COLUMNS, LIQUIDATION_COLUMNS, MARK_COLUMNS)
    sizes = (rows, rows, rows, 8 * rows, rows, rows)
    buffers = [np.empty((size + 8 * _ROOM, width), np.int64) for size, width in zip(sizes, columns, strict=True)]
    return Frames(np.zeros(6, np.int64), *buffers)


def new_venue_state(
    venue: Venue, price: float, open_interest: float, start_ns: int, seed: NDArray[np.uint64]
) -> VenueState:
    """A venue before its first event; `open_book` puts the first quotes."""
    ints, floats = np.zeros(VENUE_INTS, np.int64), np.zeros(VENUE_FLOATS)
    ints[DEPTH_DUE] = start_ns + venue.depth_offset_ns
    ints[MARK_DUE] = start_ns + 2 * venue.depth_offset_ns
    ints[FLUSH_DUE] = start_ns + SECOND
    floats[LAST_PRICE], floats[LAST_OPEN_INTEREST] = price, open_interest
    return VenueState(ints, floats, seed)


@njit(cache=True, nogil=True)
def open_book(venue: Venue, state: VenueState, book: Ladder, now_ns: int, out: Frames) -> None:
    """Makers come to an empty book at the market's start; the first quote is published."""
    _requote(venue, state, book, state.floats[LAST_PRICE], _FIRST_HALF_SPREAD_BPS, 0.0)
    forget_changes(book)
    state.ints[DEPTH_ID] = book.info[UPDATE_ID]
    _send_quote(venue, state, book, now_ns, out)


@njit(cache=True, nogil=True)
def publish(
    venue: Venue, state: VenueState, book: Ladder, ints: Ints, floats: Floats, until_ns: int, out: Frames
) -> int:
    """Play the events (`flow.advance`) that reach the venue before `until_ns` and write the frames they cause, and
    those due by schedule before `until_ns`. Returns how many events were played: if the buffers are then full
    (`is_full`), empty them and go on with the rest; else the rest comes after `until_ns`.
    """
    played = 0
    while played < ints.shape[0] and ints[played, fl.E_NS] + venue.lag_ns < until_ns:
        now_ns = ints[played, fl.E_NS] + venue.lag_ns
        _send_due(venue, state, book, now_ns, out)
        if is_full(out):
            return played
        _play(venue, state, book, now_ns, ints[played], floats[played], out)
        played += 1
    _send_due(venue, state, book, until_ns, out)
    return played


@njit(cache=True, nogil=True)
def is_full(out: Frames) -> bool:
    """Whether the buffers have no room for one more event."""
    return bool(
        out.quotes.shape[0] - out.counts[0] < _ROOM
        or out.trades.shape[0] - out.counts[1] < _ROOM
        or out.depth.shape[0] - out.counts[2] < _ROOM
        or out.levels.shape[0] - out.counts[3] < 8 * _ROOM
        or out.liquidations.shape[0] - out.counts[4] < _ROOM
        or out.marks.shape[0] - out.counts[5] < _ROOM
    )


@njit(cache=True, nogil=True)
def _play(venue: Venue, state: VenueState, book: Ladder, now_ns: int, ints: Ints, floats: Floats, out: Frames) -> None:
    """One event: orders match, makers renew their quotes, the best prices are published."""
    kind, side, price = ints[fl.E_KIND], ints[fl.E_SIDE], floats[fl.E_PRICE]
    if kind not in (fl.NEWS, fl.SIZE):
        _trade(venue, state, book, now_ns, side, 2.0 if kind >= fl.CLUSTER else 1.0, floats[fl.E_SIZE], out)
    if floats[fl.E_LIQUIDATED] != 0.0:
        _force(venue, state, book, now_ns, price, floats[fl.E_LIQUIDATED], out)
    _requote(venue, state, book, price, floats[fl.E_HALF_SPREAD_BPS], floats[fl.E_RHO])
    if kind == fl.SIZE:
        _resize(venue, state, book, side)
    _send_quote(venue, state, book, now_ns, out)
    state.floats[LAST_PRICE], state.floats[LAST_PREMIUM] = price, floats[fl.E_PREMIUM_BPS]
    state.floats[LAST_OPEN_INTEREST] = floats[fl.E_OPEN_INTEREST]


@njit(cache=True, nogil=True)
def _trade(
    venue: Venue, state: VenueState, book: Ladder, now_ns: int, side: int, scale: float, size: float, out: Frames
) -> None:
    """A taker's order, if this venue gets one: log-normal size, no farther than `_SLIPPAGE_BPS` beyond the touch."""
    if uniform(state.random) >= venue.trade_chance:
        return
    lots = venue.trade_lots * scale * math.exp(1.2 * size + 0.4 * normal(state.random))
    touch = book.info[BEST_ASK] if side == BID else book.info[BEST_BID]
    reach = int(1e-4 * _SLIPPAGE_BPS * touch)
    take(book, side, touch + side * reach, max(1, int(lots + 0.5)))
    _send_trades(venue, state, book, now_ns, side, out)


@njit(cache=True, nogil=True)
def _force(
    venue: Venue, state: VenueState, book: Ladder, now_ns: int, price: float, liquidated: float, out: Frames
) -> None:
    """The forced order of the positions that the move crossed; what the book cannot take goes to the insurance fund."""
    longs = 1 if liquidated > 0.0 else -1
    lots = int(abs(liquidated) * venue.share / venue.lot)
    if lots == 0:
        return
    tick = int(price / venue.tick + 0.5)
    if take(book, -longs, tick, lots) > 0:
        _send_trades(venue, state, book, now_ns, -longs, out)
    held = state.ints[HELD : HELD + 4]
    if venue.samples_liquidations:
        if lots > held[3]:
            held[0], held[1], held[2], held[3] = now_ns // MS * MS, longs, tick, lots
    else:
        _send_liquidation(venue, state, now_ns, now_ns // MS * MS, longs, tick, lots, out)


@njit(cache=True, nogil=True)
def _requote(venue: Venue, state: VenueState, book: Ladder, price: float, half_spread_bps: float, rho: float) -> None:
    """Makers move to the price: cancel what is stale on both sides before either is renewed."""
    bid = max(1, math.floor(price * (1.0 - 1e-4 * half_spread_bps) / venue.tick))
    ask = max(bid + 1, math.ceil(price * (1.0 + 1e-4 * half_spread_bps) / venue.tick))
    for side in _SIDES:  # a loop, so that the kernels below are compiled once and not once per constant
        _withdraw(venue, state, book, side, bid if side == BID else ask)
    for side in _SIDES:
        _renew(venue, state, book, side, bid if side == BID else ask, 1.0 + 0.3 * side * rho)


@njit(cache=True, nogil=True)
def _withdraw(venue: Venue, state: VenueState, book: Ladder, side: int, front: int) -> None:
    """Cancel the levels before the new front, the old front, and the far end that the grid leaves behind."""
    best = BEST_BID if side == BID else BEST_ASK
    while (book.info[best] - front) * side > 0 and level_qty(book.levels, side, book.info[best]) > 0:
        _clear(book, side, book.info[best])
    old = state.ints[BID_FRONT if side == BID else ASK_FRONT]
    if old != front:
        _clear(book, side, old)
    far = BID_FAR if side == BID else ASK_FAR
    end = _grid_start(venue, side, front) - side * (GRID_LEVELS - 1) * venue.grid_ticks
    tick = state.ints[far]
    while tick != 0 and (end - tick) * side > 0:
        _clear(book, side, tick)
        tick += side * venue.grid_ticks
    state.ints[far] = end


@njit(cache=True, nogil=True)
def _renew(venue: Venue, state: VenueState, book: Ladder, side: int, front: int, lean: float) -> None:
    """Orders at the front where it is new or eaten, and at every grid price behind it that has none."""
    if level_qty(book.levels, side, front) == 0:
        for _ in range(2):
            lots = 0.5 * venue.front_lots * lean * math.exp(0.25 * normal(state.random))
            limit(book, side, front, max(1, int(lots + 0.5)))
    state.ints[BID_FRONT if side == BID else ASK_FRONT] = front
    start = _grid_start(venue, side, front)
    for step in range(GRID_LEVELS):
        tick = start - side * step * venue.grid_ticks
        if tick > 0 and level_qty(book.levels, side, tick) == 0:
            lots = venue.grid_lots * (1.0 + 0.15 * step) * math.exp(0.5 * normal(state.random))
            limit(book, side, tick, max(1, int(lots + 0.5)))


@njit(cache=True, nogil=True)
def _grid_start(venue: Venue, side: int, front: int) -> int:
    """The first grid price behind the front."""
    down = (front - 1) // venue.grid_ticks * venue.grid_ticks
    return int(down if side == BID else (front // venue.grid_ticks + 1) * venue.grid_ticks)


@njit(cache=True, nogil=True)
def _resize(venue: Venue, state: VenueState, book: Ladder, side: int) -> None:
    """Somebody joins the queue at a touch, or the last in it leaves."""
    front = state.ints[BID_FRONT if side == BID else ASK_FRONT]
    level = book.levels[front & (book.levels.shape[0] - 1)]
    tail = level[L_TAIL]
    if uniform(state.random) < 0.5 and level[L_HEAD] != tail:
        cancel(book, tail, book.orders[tail, O_ID])
    else:
        lots = 0.5 * venue.front_lots * math.exp(0.35 * normal(state.random))
        limit(book, side, front, max(1, int(lots + 0.5)))


@njit(cache=True, nogil=True)
def _clear(book: Ladder, side: int, tick: int) -> None:
    """Cancel every order of a level."""
    while level_qty(book.levels, side, tick) > 0:
        slot = book.levels[tick & (book.levels.shape[0] - 1), L_HEAD]
        cancel(book, slot, book.orders[slot, O_ID])


@njit(cache=True, nogil=True)
def _send(venue: Venue, state: VenueState, now_ns: int) -> int:
    """The receive time of the next frame: latency and a little jitter, in order, unique in the market by `stream`."""
    jitter_ns = min(exponential(state.random) * 0.2 * MS, 2.0 * MS)
    us = (now_ns + venue.feed_latency_ns + int(jitter_ns)) // 1000
    state.ints[SENT_US] = max(state.ints[SENT_US] + 1, us)
    return int(state.ints[SENT_US]) * 1000 + venue.stream


@njit(cache=True, nogil=True)
def _send_quote(venue: Venue, state: VenueState, book: Ladder, now_ns: int, out: Frames) -> None:
    """The best prices and quantities, if they are not those published last."""
    info, quoted = book.info, state.ints[QUOTED : QUOTED + 4]
    bid, ask = info[BEST_BID], info[BEST_ASK]
    bid_lots, ask_lots = level_qty(book.levels, BID, bid), level_qty(book.levels, ASK, ask)
    if quoted[0] == bid and quoted[1] == bid_lots and quoted[2] == ask and quoted[3] == ask_lots:
        return
    quoted[0], quoted[1], quoted[2], quoted[3] = bid, bid_lots, ask, ask_lots
    row = out.quotes[out.counts[0]]
    row[0], row[1], row[2] = now_ns // MS * MS, _send(venue, state, now_ns), info[UPDATE_ID]
    row[3], row[4], row[5], row[6] = bid, bid_lots, ask, ask_lots
    out.counts[0] += 1


@njit(cache=True, nogil=True)
def _send_trades(venue: Venue, state: VenueState, book: Ladder, now_ns: int, side: int, out: Frames) -> None:
    """The fills of the last `take`, summed over each price."""
    last_tick = 0
    for fill in range(book.info[FILLS]):
        tick, lots = book.fills[fill, 1], book.fills[fill, 2]
        if tick == last_tick:
            out.trades[out.counts[1] - 1, 4] += lots
            continue
        last_tick = tick
        state.ints[TRADE_ID] += 1
        row = out.trades[out.counts[1]]
        row[0], row[1], row[2] = now_ns // MS * MS, _send(venue, state, now_ns), state.ints[TRADE_ID]
        row[3], row[4], row[5] = tick, lots, side
        out.counts[1] += 1


@njit(cache=True, nogil=True)
def _send_liquidation(
    venue: Venue, state: VenueState, now_ns: int, exch_ns: int, longs: int, tick: int, lots: int, out: Frames
) -> None:
    row = out.liquidations[out.counts[4]]
    row[0], row[1], row[2], row[3], row[4] = exch_ns, _send(venue, state, now_ns), longs, tick, lots
    out.counts[4] += 1


@njit(cache=True, nogil=True)
def _send_due(venue: Venue, state: VenueState, book: Ladder, now_ns: int, out: Frames) -> None:
    """What the schedule has up to `now_ns` (exclusive), in order of time: liquidations held, marks, depth."""
    ints = state.ints
    while not is_full(out):
        due = min(ints[FLUSH_DUE], ints[MARK_DUE], ints[DEPTH_DUE])
        if due >= now_ns:
            return
        if due == ints[FLUSH_DUE]:
            if ints[HELD + 3] > 0:
                _send_liquidation(venue, state, due, ints[HELD], ints[HELD + 1], ints[HELD + 2], ints[HELD + 3], out)
            ints[HELD + 3] = 0
            ints[FLUSH_DUE] += SECOND
        elif due == ints[MARK_DUE]:
            _send_mark(venue, state, due, out)
            ints[MARK_DUE] += SECOND
        else:
            if book.info[CHANGES] > 0:
                _send_depth(venue, state, book, due, out)
            ints[DEPTH_DUE] += DEPTH_NS


@njit(cache=True, nogil=True)
def _send_mark(venue: Venue, state: VenueState, now_ns: int, out: Frames) -> None:
    """Index = the price less its premium; mark = index and the premium smoothed; funding from the smoothed premium."""
    floats = state.floats
    floats[BASIS] += (floats[LAST_PREMIUM] - floats[BASIS]) / 60.0
    index = floats[LAST_PRICE] * (1.0 - 1e-4 * floats[LAST_PREMIUM])
    mark = index * (1.0 + 1e-4 * floats[BASIS])
    funding = min(max(floats[BASIS] + 0.5, -5.0), 5.0) * 1e-4 if venue.pays_funding else 0.0
    row = out.marks[out.counts[5]]
    row[0], row[1] = now_ns // MS * MS, _send(venue, state, now_ns)
    row[2], row[3] = int(mark / venue.tick + 0.5), int(index / venue.tick + 0.5)
    row[4], row[5] = round(funding * FUNDING_UNITS), (now_ns // FUNDING_NS + 1) * FUNDING_NS
    row[6] = int(floats[LAST_OPEN_INTEREST] * venue.share / venue.lot)
    out.counts[5] += 1


@njit(cache=True, nogil=True)
def _send_depth(venue: Venue, state: VenueState, book: Ladder, now_ns: int, out: Frames) -> None:
    """The levels changed since the last such frame with their quantities now; bids first, each side best first."""
    ints, first = state.ints, out.counts[3]
    count = min(book.info[CHANGES], out.levels.shape[0] - first)
    _sort_changes(book.changed, count)
    for row in range(count):
        side, tick = book.changed[row, 0], book.changed[row, 1]
        level = out.levels[first + row]
        level[0], level[1], level[2] = side, tick, level_qty(book.levels, side, tick)
    out.counts[3] += count
    frame = out.depth[out.counts[2]]
    frame[0], frame[1] = now_ns // MS * MS, _send(venue, state, now_ns)
    last_id = ints[DEPTH_ID] + 1 if venue.numbers_depth else book.info[UPDATE_ID]
    frame[2], frame[3], frame[4] = ints[DEPTH_ID] + 1, last_id, ints[DEPTH_ID]
    frame[5], frame[6] = first, first + count
    ints[DEPTH_ID] = last_id
    out.counts[2] += 1
    forget_changes(book)


@njit(cache=True, nogil=True)
def _sort_changes(changed: Ints, count: int) -> None:
    """Bids first, each side best first, in place. By insertion: some dozen rows, and quick to compile."""
    for row in range(1, count):
        side, tick = changed[row, 0], changed[row, 1]
        place = row
        while place > 0 and -changed[place - 1, 0] * changed[place - 1, 1] > -side * tick:
            changed[place, 0], changed[place, 1] = changed[place - 1, 0], changed[place - 1, 1]
            place -= 1
        changed[place, 0], changed[place, 1] = side, tick
