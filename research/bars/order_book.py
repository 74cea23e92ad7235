"""The L2 book of one symbol from the messages of `book_deltas` in order of receipt, for bars: compiled, batch and live.

A message is all deltas of one receipt instant, update id and kind. It counts as a whole: the book, its best levels and
their flow are looked at after the last delta of each. The rules are those of ingest/book.py and book_rebuild.py, which
a test compares on recorded data:

unknown     The book is unknown before the first snapshot, and from a gap of the depth stream (told when it becomes
            known, at its end) to the next snapshot. An unknown book has no levels: NaN.
change      Quantities are absolute, 0 removes a level, removing an unknown one is normal.
snapshot    It replaces the book. Where snapshots come beside the stream (`holds_back`: Binance, by REST), changes that
            came while the book was unknown are held back for it: of those with a later update id the ones since the
            last snapshot are applied with it, and changes that it already holds are not applied after it. If more came
            than are held (HELD), the book stays unknown.
crossed     While the best bid is at or above the best ask, or a side is empty, the levels last known stand.

Level k counts the prices that are there, from the best, 1. Its flow, `ofi_qty_k`, is the order flow imbalance of Cont,
Kukanov and Stoikov (bar_pass.py) of the k-th level in place of the best, per message, summed: Cont, Cucuringu, Zhang,
"Cross-impact of order flow imbalance in equity markets", Quantitative Finance 23(10), 2023, section 2. A level that is
not there has no quantity at a price behind all others. The first book after an unknown one has none before to compare
with and adds nothing; a snapshot of a known book is a message like the others.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from research.bars.part import part
from research.bars.running_totals import MOST, added

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

CHANGE, SNAPSHOT, LAST = 0, 1, 2
"""Flags of a delta in its event: of a snapshot; the last of its message."""
HELD: Final = 65_536  # deltas held back for a snapshot: 20 s of the busiest stream, and a request has 10 s
_ROOM: Final = 4096  # levels of a side, to begin with

# Of `numbers`: of the book; of the message being taken; per side the slots in use, the levels in them, the slot of the
# last delta, and whether the levels seen may have changed since.
_KNOWN, _SEEN, _HOLDS_BACK, _SNAPSHOT_ID, _HELD, _MESSAGE = range(6)
_SLOTS, _LEVELS, _NEAR, _TOUCHED, _N_NUMBERS = 6, 8, 10, 12, 14
_NEAR_TOUCH: Final = 64  # slots from the best: in these few stay empty, which every look at the levels walks over
_BETWEEN, _CHANGING, _REPLACING, _PASSING = range(4)  # what becomes of the message
_SIDE, _PRICE, _QTY, _ID = range(4)
FLOW: Final = 4  # the row of `tops` with the totals of flow, its low part behind it


class Book(NamedTuple):
    """The state: bids are side 0, asks side 1 with negated prices, so that the best key is the largest of both.

    `ladders` (4, room): keys and quantities of the bids, then of the asks, keys ascending, the best last. A level that
    goes, unless it is near the best, leaves its slot with a quantity of 0: the same price often comes back, or a
    neighbour needs the place, so that little moves. The last slot in use holds a level. `tops` (6, levels): the same of
    the levels last seen, the best first, -inf and 0 where there is none; then the running total of each level's flow,
    its high and low part. `held` (n, 4) rings through side, price, qty and id of deltas. `numbers` (14,).
    """

    ladders: Floats
    tops: Floats
    held: Floats
    numbers: Ints


def make_book(levels: int, holds_back: bool) -> Book:
    """A book that is not known yet. Without levels it takes no memory, and must be given no deltas."""
    numbers = np.zeros(_N_NUMBERS, np.int64)
    numbers[_HOLDS_BACK] = holds_back
    tops = np.zeros((FLOW + 2, levels))
    tops[:FLOW:2] = -np.inf
    held = np.zeros((HELD if levels and holds_back else 0, 4))
    return Book(np.zeros((4, _ROOM if levels else 0)), tops, held, numbers)


def with_room(book: Book, levels: int = 0) -> Book:
    """The same book with more room, or with room for so many levels a side: slots that hold no level are given up."""
    room, sides = book.ladders.shape[1], _sides(book)
    most = max(side.shape[1] for side in sides)
    if 2 * most >= room or most == book.numbers[_SLOTS : _SLOTS + 2].max():
        room = max(levels + 1, 2 * room)
    return _filled(book._replace(ladders=np.zeros((4, room))), sides)


def _sides(book: Book) -> list[Floats]:
    """Keys and quantities of the bids and of the asks, (2, levels) each."""
    slots = [book.ladders[2 * which : 2 * which + 2, : book.numbers[_SLOTS + which]] for which in (0, 1)]
    return [side[:, side[1] > 0.0] for side in slots]


def _filled(book: Book, sides: Sequence[Floats]) -> Book:
    """The book with these levels alone in its slots."""
    for which, side in enumerate(sides):
        book.ladders[2 * which : 2 * which + 2, : side.shape[1]] = side
        book.numbers[[_SLOTS + which, _LEVELS + which]] = side.shape[1]
    book.numbers[_TOUCHED : _TOUCHED + 2] = 1
    return book


def save_book(book: Book) -> dict[str, NDArray[Any]]:
    """The state as arrays, without what is not used of them: equal for equal books."""
    sides = _sides(book)
    of_sides = [0, 0, 0, 0, *(side.shape[1] for side in sides)]
    return {
        "book_levels": np.concatenate(sides, axis=1),
        "book_tops": book.tops.copy(),
        "book_held": book.held[: book.numbers[_HELD]].copy(),
        "book_numbers": np.array([*book.numbers[:_SLOTS], *of_sides], np.int64),
    }


def restored_book(book: Book, saved: Mapping[str, NDArray[Any]]) -> Book:
    """The book with the state of a `save_book`, which may have more levels. Raises ValueError where it has fewer."""
    sides, tops, levels = saved["book_levels"], saved["book_tops"], book.tops.shape[1]
    if tops.shape[1] < levels:
        raise ValueError(f"state has {tops.shape[1]} book levels, wanted {levels}: rebuild the bars")
    if not levels:
        return book
    if sides.shape[1] >= book.ladders.shape[1]:
        book = with_room(book, sides.shape[1])
    book.numbers[:_SLOTS], book.tops[:] = saved["book_numbers"][:_SLOTS], tops[:, :levels]
    book.held[: len(saved["book_held"])] = saved["book_held"]
    return _filled(book, np.split(sides, saved["book_numbers"][-2:-1], axis=1))


@part
def lose_book(numbers: Ints) -> None:
    """Something was missed: nothing is known until the next snapshot."""
    numbers[_KNOWN] = numbers[_SEEN] = 0


@part
def take_delta(
    side: int, price: float, qty: float, update_id: int, flags: int,
    ladders: Floats, tops: Floats, held: Floats, numbers: Ints,
) -> bool:  # fmt: skip
    """Take one delta; with the last of a message bring `tops` up to the book.

    False where the book lacks room: nothing was taken, ask again `with_room`.
    """
    is_last = flags & LAST != 0
    more = 0
    if is_last and (numbers[_MESSAGE] == _REPLACING or flags & SNAPSHOT):
        more = _later_than(update_id, held, numbers)
    if max(numbers[_SLOTS], numbers[_SLOTS + 1]) + more >= ladders.shape[1]:
        return False
    if numbers[_MESSAGE] == _BETWEEN:
        _begin_message(update_id, flags, numbers)
    if numbers[_MESSAGE] == _PASSING:
        if numbers[_KNOWN] == 0:
            _hold(side, price, qty, update_id, held, numbers)
    else:
        _put(side, price, qty, ladders, tops, numbers)
    if is_last:
        if numbers[_MESSAGE] == _REPLACING:
            _apply_held(more, ladders, tops, held, numbers)
        if numbers[_MESSAGE] != _PASSING and numbers[_KNOWN] == 1:
            _see_levels(ladders, tops, numbers)
        numbers[_MESSAGE] = _BETWEEN
    return True


@part
def _begin_message(update_id: int, flags: int, numbers: Ints) -> None:
    if flags & SNAPSHOT:
        numbers[_MESSAGE], numbers[_SNAPSHOT_ID] = _REPLACING, update_id
        for which in range(2):
            numbers[_SLOTS + which] = numbers[_LEVELS + which] = 0
            numbers[_TOUCHED + which] = 1
    else:
        is_news = numbers[_HOLDS_BACK] == 0 or update_id > numbers[_SNAPSHOT_ID]
        numbers[_MESSAGE] = _CHANGING if numbers[_KNOWN] == 1 and is_news else _PASSING


@part
def _hold(side: int, price: float, qty: float, update_id: int, held: Floats, numbers: Ints) -> None:
    """Keep a delta for a snapshot to come; the oldest goes."""
    if held.shape[0] == 0:
        return
    at = numbers[_HELD] % held.shape[0]
    held[at, _SIDE], held[at, _PRICE], held[at, _QTY], held[at, _ID] = side, price, qty, update_id
    numbers[_HELD] += 1


@part
def _later_than(update_id: int, held: Floats, numbers: Ints) -> int:
    """How many of the newest deltas held are later than the snapshot `update_id`."""
    count, room = numbers[_HELD], held.shape[0]
    found = 0
    while found < min(count, room) and held[(count - 1 - found) % room, _ID] > update_id:
        found += 1
    return found


@part
def _apply_held(newest: int, ladders: Floats, tops: Floats, held: Floats, numbers: Ints) -> None:
    """End a snapshot with the `newest` deltas held: the book is known, unless some that belong to them were lost."""
    count, room = numbers[_HELD], held.shape[0]
    for back in range(newest, 0, -1):
        row = (count - back) % room
        _put(int(held[row, _SIDE]), held[row, _PRICE], held[row, _QTY], ladders, tops, numbers)
    numbers[_KNOWN] = 0 if newest == room and count > room else 1
    numbers[_HELD] = 0


@part
def _put(side: int, price: float, qty: float, ladders: Floats, tops: Floats, numbers: Ints) -> None:
    """Set a level's absolute quantity, 0 removes it; note whether the levels that bars hold may change by it."""
    which = 0 if side > 0 else 1
    key, keys, qtys = price if side > 0 else -price, 2 * which, 2 * which + 1
    count = numbers[_SLOTS + which]
    at = _place(ladders, keys, count, key, numbers[_NEAR + which])
    numbers[_NEAR + which] = at
    if at < count and ladders[keys, at] == key:
        numbers[_LEVELS + which] += int(qty > 0.0) - int(ladders[qtys, at] > 0.0)
        ladders[qtys, at] = qty if qty > 0.0 else 0.0
        if ladders[qtys, at] == 0.0 and count - at <= _NEAR_TOUCH:
            count = _close_slot(at, count, keys, ladders)
    elif qty > 0.0:
        numbers[_LEVELS + which] += 1
        count = _insert(key, qty, at, count, keys, ladders)
    else:
        return
    numbers[_SLOTS + which] = count
    if key >= tops[keys, tops.shape[1] - 1]:
        numbers[_TOUCHED + which] = 1


@part
def _place(ladders: Floats, keys: int, count: int, key: float, near: int) -> int:
    """The first of `count` ascending keys that is not below `key`: by doubling steps from `near`, then by halves.

    The changes of a message are often sorted, so that each is near the one before it.
    """
    low, high, step = 0, min(near, count), 1
    if near < count and ladders[keys, near] < key:
        low = near + 1
        while low + step <= count and ladders[keys, low + step - 1] < key:
            low += step
            step *= 2
        high = min(low + step - 1, count)
    else:
        while high - step >= 0 and ladders[keys, high - step] >= key:
            high -= step
            step *= 2
        low = max(high - step + 1, 0)
    while low < high:
        middle = (low + high) // 2
        if ladders[keys, middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@part
def _close_slot(at: int, count: int, keys: int, ladders: Floats) -> int:
    """Move what stands behind an empty slot into it; then the last slot in use must hold a level. Returns the slots."""
    for slot in range(at, count - 1):
        ladders[keys, slot] = ladders[keys, slot + 1]
        ladders[keys + 1, slot] = ladders[keys + 1, slot + 1]
    count -= 1
    while count > 0 and ladders[keys + 1, count - 1] == 0.0:
        count -= 1
    return count


@part
def _insert(key: float, qty: float, at: int, count: int, keys: int, ladders: Floats) -> int:
    """Put a level before slot `at`: into an empty one, or what stands there moves up to the next empty one or the end.

    Returns how many slots are in use.
    """
    qtys = keys + 1
    if at > 0 and ladders[qtys, at - 1] == 0.0:
        ladders[keys, at - 1], ladders[qtys, at - 1] = key, qty
        return count
    for slot in range(at, count):
        key_there, qty_there = ladders[keys, slot], ladders[qtys, slot]
        ladders[keys, slot], ladders[qtys, slot] = key, qty
        if qty_there == 0.0:
            return count
        key, qty = key_there, qty_there
    ladders[keys, count], ladders[qtys, count] = key, qty
    return count + 1


@part
def _see_levels(ladders: Floats, tops: Floats, numbers: Ints) -> None:
    """Bring the levels up to the book where it may have changed, unless it is crossed or lacks a side."""
    bids, asks = numbers[_SLOTS], numbers[_SLOTS + 1]
    if bids == 0 or asks == 0 or ladders[0, bids - 1] >= -ladders[2, asks - 1]:
        return
    for which in range(2):
        if numbers[_TOUCHED + which] == 0:
            continue
        numbers[_TOUCHED + which] = 0
        sign, keys, qtys, slot = 1.0 - 2.0 * which, 2 * which, 2 * which + 1, numbers[_SLOTS + which] - 1
        for level in range(tops.shape[1]):
            key, qty = -np.inf, 0.0
            if level < numbers[_LEVELS + which]:
                while ladders[qtys, slot] == 0.0:
                    slot -= 1
                key, qty = ladders[keys, slot], ladders[qtys, slot]
                slot -= 1
            key_before, qty_before = tops[keys, level], tops[qtys, level]
            tops[keys, level], tops[qtys, level] = key, qty
            flow = sign * (qty * (key >= key_before) - qty_before * (key <= key_before))
            if numbers[_SEEN] == 1 and abs(flow) < MOST:
                tops[FLOW, level], tops[FLOW + 1, level] = added(tops[FLOW, level], tops[FLOW + 1, level], flow)
    numbers[_SEEN] = 1


@part
def write_level(level: int, tops: Floats, numbers: Ints, rows: Floats, row: int, column: int) -> None:
    """Write bid price, bid qty, ask price, ask qty of a level to a row of `rows` from `column` on."""
    for which in range(2):
        key, qty = tops[2 * which, level], tops[2 * which + 1, level]
        is_known = numbers[_SEEN] == 1 and key > -np.inf
        rows[row, column + 2 * which] = (key if which == 0 else -key) if is_known else np.nan
        rows[row, column + 2 * which + 1] = qty if is_known else np.nan
