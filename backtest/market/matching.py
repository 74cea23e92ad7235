"""Price-time-priority limit order book: orders in FIFO queues per price level, in explicit arrays.

Prices are whole ticks (> 0), quantities whole lots. An order lives in a slot; levels live in a ring of `window` ticks
(cell = tick mod window), so finding a level is one index and the next best price a short scan. A price whose cell is
taken by another price, a multiple of the window away, is refused.

Every change of a level is listed in `changed` until a reader takes it (`forget_changes`): the level-2 feed. Fills of
the last `take` are in `fills`, in order of execution.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit

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
# Columns of `Ladder.levels`. A cell with quantity 0 is empty, whatever else it holds.
L_TICK: Final = 0
L_SIDE: Final = 1
L_QTY: Final = 2
L_HEAD: Final = 3
L_TAIL: Final = 4
_L_BID_MARK: Final = 5
_L_ASK_MARK: Final = 6
# Columns of `Ladder.orders`. Id 0 is a free slot; `_O_FREE` is not of the slot but the stack of free ones.
O_ID: Final = 0
O_TICK: Final = 1
O_SIDE: Final = 2
O_QTY: Final = 3
O_NEXT: Final = 4
O_PREV: Final = 5
_O_FREE: Final = 6

Ints = NDArray[np.int64]


class Ladder(NamedTuple):
    """The book, all int64: info (9,), levels (window, 7), orders (capacity, 7), fills (capacity, 3), changed (n, 2).

    A fill is (order id, tick, lots), a change (side, tick). Few arrays, since a kernel's call pays for each.
    """

    info: Ints
    levels: Ints
    orders: Ints
    fills: Ints
    changed: Ints


def empty_ladder(window: int = 1 << 13, capacity: int = 1 << 10) -> Ladder:
    """A book without orders. `window` is a power of two; `capacity` bounds the live orders.

    Raises ValueError for a window that is not a power of two.
    """
    if window < 2 or window & (window - 1):
        raise ValueError(f"window must be a power of two, was {window}: a tick's cell is found by masking")
    info, orders = np.zeros(_INFO_SIZE, np.int64), np.zeros((capacity, 7), np.int64)
    info[BEST_ASK], info[FREE], info[NEXT_ID] = NO_ASK, capacity, 1
    orders[:, _O_FREE] = np.arange(capacity - 1, -1, -1)
    levels, fills = np.zeros((window, 7), np.int64), np.zeros((capacity, 3), np.int64)
    return Ladder(info, levels, orders, fills, np.zeros((2 * window, 2), np.int64))


@njit(cache=True, nogil=True)
def level_qty(levels: Ints, side: int, tick: int) -> int:
    """Lots that rest at a price on a side; 0 where there are none."""
    level = levels[tick & (levels.shape[0] - 1)]
    return int(level[L_QTY]) if level[L_TICK] == tick and level[L_SIDE] == side else 0


@njit(cache=True, nogil=True)
def next_tick(book: Ladder, side: int, tick: int) -> int:
    """The nearest level of `side` behind `tick` (lower bid, higher ask), or NO_BID / NO_ASK."""
    nearest, levels = (NO_BID if side == BID else NO_ASK), book.levels
    if book.info[BID_LEVELS if side == BID else ASK_LEVELS] == 0:
        return nearest
    for step in range(1, levels.shape[0]):
        if level_qty(levels, side, tick - side * step) > 0:
            return tick - side * step
    for cell in range(levels.shape[0]):  # farther than the window: rare, and never missed
        far = levels[cell, L_TICK]
        if levels[cell, L_QTY] > 0 and levels[cell, L_SIDE] == side and (tick - far) * side > 0:
            nearest = max(nearest, far) if side == BID else min(nearest, far)
    return nearest


@njit(cache=True, nogil=True)
def limit(book: Ladder, side: int, tick: int, lots: int) -> int:
    """A limit order: match what crosses, rest the remainder. Returns its slot, DONE if nothing rests, or REFUSED.

    Refused, without a trace: no lots, a price outside the window, a full book.
    """
    if lots <= 0 or tick <= 0 or book.info[FREE] == 0:
        return REFUSED
    level = book.levels[tick & (book.levels.shape[0] - 1)]
    if level[L_QTY] > 0 and level[L_TICK] != tick:
        return REFUSED
    left = lots - take(book, side, tick, lots)
    return _rest(book, side, tick, left) if left > 0 else DONE


@njit(cache=True, nogil=True)
def cancel(book: Ladder, slot: int, order_id: int) -> int:
    """Take an order out. Returns the lots taken out, 0 if the slot no longer holds that order."""
    if slot < 0 or slot >= book.orders.shape[0] or order_id == 0 or book.orders[slot, O_ID] != order_id:
        return 0
    lots = book.orders[slot, O_QTY]
    _mark_change(book, book.orders[slot, O_SIDE], book.orders[slot, O_TICK])
    _remove(book, slot)
    return int(lots)


@njit(cache=True, nogil=True)
def take(book: Ladder, side: int, limit_tick: int, lots: int) -> int:
    """Match an incoming order of `side` against the other side up to `limit_tick`. Returns the lots filled.

    A market order is a `take` at an unreachable limit. The fills are `book.fills[: book.info[FILLS]]`.
    """
    info, orders = book.info, book.orders
    info[FILLS] = 0
    left = lots
    while left > 0:
        best = info[BEST_ASK] if side == BID else info[BEST_BID]
        if best in (NO_ASK, NO_BID) or (best - limit_tick) * side > 0:
            break
        level = book.levels[best & (book.levels.shape[0] - 1)]
        slot = level[L_HEAD]
        done = min(left, orders[slot, O_QTY])
        fill = book.fills[info[FILLS]]
        fill[0], fill[1], fill[2] = orders[slot, O_ID], best, done
        info[FILLS] += 1
        left -= done
        _mark_change(book, -side, best)
        if done == orders[slot, O_QTY]:
            _remove(book, slot)
        else:
            orders[slot, O_QTY] -= done
            level[L_QTY] -= done
    return lots - left


@njit(cache=True, nogil=True)
def forget_changes(book: Ladder) -> None:
    """Empty the list of changed levels, once a reader has them."""
    mask = book.levels.shape[0] - 1
    for row in range(book.info[CHANGES]):
        mark = _L_BID_MARK if book.changed[row, 0] == BID else _L_ASK_MARK
        book.levels[book.changed[row, 1] & mask, mark] = 0
    book.info[CHANGES] = 0


@njit(cache=True, nogil=True)
def _rest(book: Ladder, side: int, tick: int, lots: int) -> int:
    """Put an order that does not cross at the end of its level's queue. Returns its slot. Bounds: see `limit`."""
    info, orders = book.info, book.orders
    info[FREE] -= 1
    slot = orders[info[FREE], _O_FREE]
    order, level = orders[slot], book.levels[tick & (book.levels.shape[0] - 1)]
    order[O_ID], order[O_TICK], order[O_SIDE], order[O_QTY] = info[NEXT_ID], tick, side, lots
    order[O_NEXT], order[O_PREV] = -1, -1
    info[NEXT_ID] += 1
    if level[L_QTY] == 0:
        level[L_TICK], level[L_SIDE], level[L_HEAD] = tick, side, slot
        _count_level(info, side, tick)
    else:
        order[O_PREV] = level[L_TAIL]
        orders[level[L_TAIL], O_NEXT] = slot
    level[L_TAIL] = slot
    level[L_QTY] += lots
    _mark_change(book, side, tick)
    return int(slot)


@njit(cache=True, nogil=True)
def _count_level(info: Ints, side: int, tick: int) -> None:
    if side == BID:
        info[BID_LEVELS] += 1
        info[BEST_BID] = max(info[BEST_BID], tick)
    else:
        info[ASK_LEVELS] += 1
        info[BEST_ASK] = min(info[BEST_ASK], tick)


@njit(cache=True, nogil=True)
def _remove(book: Ladder, slot: int) -> None:
    """Unlink an order, close its level if it was the last, free its slot."""
    info, orders, order = book.info, book.orders, book.orders[slot]
    tick, side, before, after = order[O_TICK], order[O_SIDE], order[O_PREV], order[O_NEXT]
    level = book.levels[tick & (book.levels.shape[0] - 1)]
    if before >= 0:
        orders[before, O_NEXT] = after
    else:
        level[L_HEAD] = after
    if after >= 0:
        orders[after, O_PREV] = before
    else:
        level[L_TAIL] = before
    level[L_QTY] -= order[O_QTY]
    order[O_ID], order[O_QTY] = 0, 0
    orders[info[FREE], _O_FREE] = slot
    info[FREE] += 1
    if level[L_QTY] == 0:
        info[BID_LEVELS if side == BID else ASK_LEVELS] -= 1
        best = BEST_BID if side == BID else BEST_ASK
        if info[best] == tick:
            info[best] = next_tick(book, side, tick)


@njit(cache=True, nogil=True)
def _mark_change(book: Ladder, side: int, tick: int) -> None:
    """Count the change and list the level once. A reader empties the list before it is full; else changes are lost."""
    info, row = book.info, book.info[CHANGES]
    info[UPDATE_ID] += 1
    level, mark = book.levels[tick & (book.levels.shape[0] - 1)], _L_BID_MARK if side == BID else _L_ASK_MARK
    if level[mark] != tick and row < book.changed.shape[0]:
        level[mark] = tick
        book.changed[row, 0], book.changed[row, 1] = side, tick
        info[CHANGES] += 1
