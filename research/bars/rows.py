"""The compiled pass: events in, rows of bars out, for any number of clocks at once. What a bar is: bar_pass.py.

An event is interpreted once, and what it adds goes to running totals that all clocks share (running_totals.py): a bar's
sum is what a total grew by. So an event costs the same whatever the number of clocks, but for those that ask after it
whether their bar is full, and each clock's rows are, to the bit, those that it gives alone.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

import research.bars.state as at
from core.kernels import njit
from research.bars.closing import due_ns, turn_bars
from research.bars.events import DELTA, GAP, QUOTE, TRADE, kind_of, side_of
from research.bars.fullness import note_full, note_unasked
from research.bars.market import take_other, take_quotes_and_trades
from research.bars.order_book import lose_book, take_delta
from research.bars.part import part

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

DONE, FULL, NO_ROOM, OUT_OF_ORDER = range(4)
"""Why a pass ended: all was taken; a clock's room is full; the book needs room; the event is older than one before."""


@njit(cache=True, nogil=True, _nrt=False)
def take_events(
    words: Ints, begin: int, until_ns: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats,
    ladders: Floats, tops: Floats, held: Floats, depth: Ints, slots: Ints, times_out: Ints, rows_out: Floats,
) -> tuple[int, int, int]:  # fmt: skip
    """Take events from `begin`, then close bars up to `until_ns`. Returns (next event, why it ended, bars written).

    `words` (n, 6) are the events as integers: EVENT as it lies in memory, since arrays of records are slow to hand
    over. After FULL, call again with that event and new room; after NO_ROOM, give the book room and do the same. All
    that must outlive a call is in the arrays of `Market`, `Tracks` and `Book`.
    """
    terms = words.view(np.float64)
    _empty(slots)
    i, ended, is_stale = begin, DONE, True
    while ended == DONE:
        is_event = i < words.shape[0]  # after the last comes the time that is reached
        recv_ns, is_of_depth = (words[i, 0], _is_of_depth(words, i)) if is_event else (until_ns, False)
        if is_event and recv_ns < numbers[at.SEEN_NS]:
            ended = OUT_OF_ORDER
            break
        if recv_ns >= due_ns(numbers, spans):
            opens = is_event, is_of_depth
            if not turn_bars(recv_ns, opens, numbers, values, spans, rows, tops, depth, slots, times_out, rows_out):
                ended = FULL
                break
            is_stale = True
        numbers[at.SEEN_NS] = max(numbers[at.SEEN_NS], recv_ns)
        if not is_event:
            break
        if is_of_depth:
            i, has_room = _take_depth(words, terms, i, due_ns(numbers, spans), numbers, ladders, tops, held, depth)
            ended = DONE if has_room else NO_ROOM
        else:
            i, is_stale = _take_market(words, terms, i, is_stale, numbers, values, spans, rows)
    return i, ended, _written(slots)


@part
def _take_depth(
    words: Ints, terms: Floats, begin: int, before_ns: int, numbers: Ints,
    ladders: Floats, tops: Floats, held: Floats, depth: Ints,
) -> tuple[int, bool]:  # fmt: skip
    """Take an event of the book's depth and those that follow it before anything is due.

    Returns (the next event, whether the book had room).
    """
    i = begin
    while i == begin or (
        i < words.shape[0] and numbers[at.SEEN_NS] <= words[i, 0] < before_ns and _is_of_depth(words, i)
    ):
        price, qty, update_id, flags = terms[i, 2], terms[i, 3], int(terms[i, 4]), int(terms[i, 5])
        if kind_of(words, i) == GAP:
            lose_book(depth)
        elif not take_delta(side_of(words, i), price, qty, update_id, flags, ladders, tops, held, depth):
            return i, False
        numbers[at.SEEN_NS] = words[i, 0]
        i += 1
    return i, True


@part
def _take_market(
    words: Ints, terms: Floats, i: int, is_stale: bool, numbers: Ints, values: Floats, spans: Ints, rows: Floats
) -> tuple[int, bool]:  # fmt: skip
    """Take an event that is not of the depth, and best prices and trades that follow one while nothing is due.

    Returns (the next event, whether it must be found out again until when no clock needs to be asked).
    """
    kind = kind_of(words, i)
    numbers[at.LAST_NS] = words[i, 0]
    if kind != QUOTE and kind != TRADE:
        take_other(kind, side_of(words, i), terms, i, numbers, spans, rows)
        return i + 1, is_stale
    if is_stale:
        note_unasked(numbers, values, spans, rows)
    due_ns, silence_ns = at.least(at.DUE_NS, spans), at.least(at.SILENCE_NS, spans)
    i, asks = take_quotes_and_trades(words, terms, i, due_ns, silence_ns, numbers, values)
    if asks:
        note_full(words[i - 1, 0], kind_of(words, i - 1) == TRADE, numbers, values, spans, rows)
    return i, asks


@part
def _is_of_depth(words: Ints, i: int) -> bool:
    kind = kind_of(words, i)
    return bool(kind == DELTA or (kind == GAP and side_of(words, i) == 1))


@part
def _empty(slots: Ints) -> None:
    for clock in range(slots.shape[0]):
        slots[clock, at.NEXT] = slots[clock, at.FIRST]


@part
def _written(slots: Ints) -> int:
    """How many bars of all clocks."""
    written = 0
    for clock in range(slots.shape[0]):
        written += slots[clock, at.NEXT] - slots[clock, at.FIRST]
    return written
