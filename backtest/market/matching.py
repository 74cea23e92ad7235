"""Price-time-priority limit order book: orders in FIFO queues per price level, in explicit arrays.

Prices are whole ticks (> 0), quantities whole lots. An order lives in a slot; levels live in a ring of `window` ticks
(cell = tick mod window), so finding a level is one index and the next best price a short scan. A price whose cell is
taken by another price, a multiple of the window away, is refused.

Every change of a level is listed in `changed` until a reader takes it (`forget_changes`): the level-2 feed. Fills of
the last `take` are in `fills`: rows (order id, tick, lots), in order of execution.
"""

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

BID: Final = 1
ASK: Final = -1
NO_BID: Final = 0
NO_ASK: Final = 2**62
REFUSED: Final = -1
DONE: Final = -2

# Fields of `Ladder.info`.
BEST_BID: Final = 0
BEST_ASK: Final = 1
BID_LEVELS: Final = 2
ASK_LEVELS: Final = 3
FREE: Final = 4
NEXT_ID: Final = 5
UPDATE_ID: Final = 6
FILLS: Final = 7
CHANGES: Final = 8
_INFO_SIZE: Final = 9

Ints = NDArray[np.int64]


class Ladder(NamedTuple):
    """The book. Levels have shape (window,), orders (capacity,), `fills` (capacity, 3), `changed` (n, 2)."""

    info: Ints
    level_tick: Ints
    level_side: Ints
    level_qty: Ints
    level_head: Ints
    level_tail: Ints
    bid_mark: Ints
    ask_mark: Ints
    order_id: Ints
    order_tick: Ints
    order_side: Ints
    order_qty: Ints
    order_next: Ints
    order_prev: Ints
    free: Ints
    fills: Ints
    changed: Ints


def empty_ladder(window: int = 1 << 13, capacity: int = 1 << 10) -> Ladder:
    """A book without orders. `window` is a power of two; `capacity` bounds the live orders.

    Raises ValueError for a window that is not a power of two.
    """
    if window < 2 or window & (window - 1):
        raise ValueError(f"window must be a power of two, was {window}: a tick's cell is found by masking")
    info = np.zeros(_INFO_SIZE, np.int64)
    info[BEST_ASK] = NO_ASK
    info[FREE] = capacity
    info[NEXT_ID] = 1
    levels = [np.zeros(window, np.int64) for _ in range(7)]
    orders = [np.zeros(capacity, np.int64) for _ in range(6)]
    free = np.arange(capacity - 1, -1, -1, dtype=np.int64)
    return Ladder(info, *levels, *orders, free, np.zeros((capacity, 3), np.int64), np.zeros((2 * window, 2), np.int64))


@njit(cache=True, nogil=True)
def level_qty(book: Ladder, side: int, tick: int) -> int:
    """Lots that rest at a price on a side; 0 where there are none."""
    cell = tick & (book.level_tick.size - 1)
    held = book.level_qty[cell] > 0 and book.level_tick[cell] == tick and book.level_side[cell] == side
    return int(book.level_qty[cell]) if held else 0


@njit(cache=True, nogil=True)
def next_tick(book: Ladder, side: int, tick: int) -> int:
    """The nearest level of `side` behind `tick` (lower bid, higher ask), or NO_BID / NO_ASK."""
    nearest = NO_BID if side == BID else NO_ASK
    if book.info[BID_LEVELS if side == BID else ASK_LEVELS] == 0:
        return nearest
    for step in range(1, book.level_tick.size):
        if level_qty(book, side, tick - side * step) > 0:
            return tick - side * step
    for cell in range(book.level_tick.size):  # farther than the window: rare, and never missed
        far = book.level_tick[cell]
        if book.level_qty[cell] > 0 and book.level_side[cell] == side and (tick - far) * side > 0:
            nearest = max(nearest, far) if side == BID else min(nearest, far)
    return nearest


@njit(cache=True, nogil=True)
def limit(book: Ladder, side: int, tick: int, lots: int) -> int:
    """A limit order: match what crosses, rest the remainder. Returns its slot, DONE if nothing rests, or REFUSED.

    Refused, without a trace: no lots, a price outside the window, a full book.
    """
    if lots <= 0 or tick <= 0 or book.info[FREE] == 0:
        return REFUSED
    cell = tick & (book.level_tick.size - 1)
    if book.level_qty[cell] > 0 and book.level_tick[cell] != tick:
        return REFUSED
    left = lots - take(book, side, tick, lots)
    return rest(book, side, tick, left) if left > 0 else DONE


@njit(cache=True, nogil=True)
def rest(book: Ladder, side: int, tick: int, lots: int) -> int:
    """Put an order that does not cross at the end of its level's queue. Returns its slot. Bounds: see `limit`."""
    info = book.info
    info[FREE] -= 1
    slot = book.free[info[FREE]]
    book.order_id[slot] = info[NEXT_ID]
    info[NEXT_ID] += 1
    book.order_tick[slot], book.order_side[slot], book.order_qty[slot] = tick, side, lots
    book.order_next[slot] = -1
    cell = tick & (book.level_tick.size - 1)
    if book.level_qty[cell] == 0:
        _open_level(book, side, tick, cell, slot)
    else:
        tail = book.level_tail[cell]
        book.order_next[tail], book.order_prev[slot] = slot, tail
    book.level_tail[cell] = slot
    book.level_qty[cell] += lots
    _mark_change(book, side, tick)
    return int(slot)


@njit(cache=True, nogil=True)
def cancel(book: Ladder, slot: int, order_id: int) -> int:
    """Take an order out. Returns the lots taken out, 0 if the slot no longer holds that order."""
    if slot < 0 or slot >= book.order_id.size or book.order_id[slot] != order_id or order_id == 0:
        return 0
    lots = book.order_qty[slot]
    _mark_change(book, book.order_side[slot], book.order_tick[slot])
    _remove(book, slot)
    return int(lots)


@njit(cache=True, nogil=True)
def take(book: Ladder, side: int, limit_tick: int, lots: int) -> int:
    """Match an incoming order of `side` against the other side up to `limit_tick`. Returns the lots filled.

    A market order is a `take` at an unreachable limit. The fills are `book.fills[: book.info[FILLS]]`.
    """
    info = book.info
    info[FILLS] = 0
    left = lots
    while left > 0:
        best = info[BEST_ASK] if side == BID else info[BEST_BID]
        if best in (NO_ASK, NO_BID) or (best - limit_tick) * side > 0:
            break
        slot = book.level_head[best & (book.level_tick.size - 1)]
        done = min(left, book.order_qty[slot])
        row = info[FILLS]
        book.fills[row, 0], book.fills[row, 1], book.fills[row, 2] = book.order_id[slot], best, done
        info[FILLS] += 1
        left -= done
        _mark_change(book, -side, best)
        if done == book.order_qty[slot]:
            _remove(book, slot)
        else:
            book.order_qty[slot] -= done
            book.level_qty[best & (book.level_tick.size - 1)] -= done
    return lots - left


@njit(cache=True, nogil=True)
def forget_changes(book: Ladder) -> None:
    """Empty the list of changed levels, once a reader has them."""
    for row in range(book.info[CHANGES]):
        marks = book.bid_mark if book.changed[row, 0] == BID else book.ask_mark
        marks[book.changed[row, 1] & (marks.size - 1)] = 0
    book.info[CHANGES] = 0


@njit(cache=True, nogil=True)
def _open_level(book: Ladder, side: int, tick: int, cell: int, slot: int) -> None:
    info = book.info
    book.level_tick[cell], book.level_side[cell], book.level_head[cell] = tick, side, slot
    book.order_prev[slot] = -1
    if side == BID:
        info[BID_LEVELS] += 1
        info[BEST_BID] = max(info[BEST_BID], tick)
    else:
        info[ASK_LEVELS] += 1
        info[BEST_ASK] = min(info[BEST_ASK], tick)


@njit(cache=True, nogil=True)
def _remove(book: Ladder, slot: int) -> None:
    """Unlink an order, close its level if it was the last, free its slot."""
    info, tick, side = book.info, book.order_tick[slot], book.order_side[slot]
    cell = tick & (book.level_tick.size - 1)
    before, after = book.order_prev[slot], book.order_next[slot]
    if before >= 0:
        book.order_next[before] = after
    else:
        book.level_head[cell] = after
    if after >= 0:
        book.order_prev[after] = before
    else:
        book.level_tail[cell] = before
    book.level_qty[cell] -= book.order_qty[slot]
    book.order_qty[slot] = 0
    book.order_id[slot] = 0
    book.free[info[FREE]] = slot
    info[FREE] += 1
    if book.level_qty[cell] == 0:
        info[BID_LEVELS if side == BID else ASK_LEVELS] -= 1
        best = BEST_BID if side == BID else BEST_ASK
        if info[best] == tick:
            info[best] = next_tick(book, side, tick)


@njit(cache=True, nogil=True)
def _mark_change(book: Ladder, side: int, tick: int) -> None:
    """Count the change and list the level once. A reader empties the list before it is full; else changes are lost."""
    info = book.info
    info[UPDATE_ID] += 1
    marks = book.bid_mark if side == BID else book.ask_mark
    cell = tick & (marks.size - 1)
    row = info[CHANGES]
    if marks[cell] != tick and row < book.changed.shape[0]:
        marks[cell] = tick
        book.changed[row, 0], book.changed[row, 1] = side, tick
        info[CHANGES] += 1
