"""The matching engine against a slow, obvious twin, and what must always hold."""

from collections import deque
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.market.matching import (
    ASK,
    ASK_LEVELS,
    BEST_ASK,
    BEST_BID,
    BID,
    BID_LEVELS,
    CHANGES,
    DONE,
    FILLS,
    FREE,
    L_QTY,
    L_SIDE,
    L_TICK,
    NO_ASK,
    NO_BID,
    O_ID,
    O_QTY,
    REFUSED,
    Ladder,
    cancel,
    empty_ladder,
    forget_changes,
    level_qty,
    limit,
    take,
)

WINDOW, CAPACITY = 16, 12


class Twin:
    """Price-time priority in plain Python: a queue of [id, lots] per (side, tick)."""

    def __init__(self) -> None:
        self.queues: dict[tuple[int, int], deque[list[int]]] = {}
        self.next_id = 1

    def best(self, side: int) -> int | None:
        ticks = [tick for (of, tick), queue in self.queues.items() if of == side and queue]
        return (max(ticks) if side == BID else min(ticks)) if ticks else None

    def live(self) -> int:
        return sum(len(queue) for queue in self.queues.values())

    def take(self, side: int, limit_tick: int, lots: int) -> list[tuple[int, int, int]]:
        fills = []
        while lots > 0 and (best := self.best(-side)) is not None and (best - limit_tick) * side <= 0:
            order = self.queues[-side, best][0]
            done = min(lots, order[1])
            fills.append((order[0], best, done))
            order[1] -= done
            lots -= done
            if order[1] == 0:
                self.queues[-side, best].popleft()
        return fills

    def limit(self, side: int, tick: int, lots: int) -> tuple[int | None, list[tuple[int, int, int]]]:
        """(id of what rests or None, fills); (-1, []) where refused."""
        shares_cell = any(queue and at != tick and (at - tick) % WINDOW == 0 for (_, at), queue in self.queues.items())
        if lots <= 0 or tick <= 0 or self.live() == CAPACITY or shares_cell:
            return -1, []
        fills = self.take(side, tick, lots)
        left = lots - sum(done for _, _, done in fills)
        if left == 0:
            return None, fills
        self.queues.setdefault((side, tick), deque()).append([self.next_id, left])
        self.next_id += 1
        return self.next_id - 1, fills

    def cancel(self, order_id: int) -> int:
        for queue in self.queues.values():
            for order in queue:
                if order[0] == order_id:
                    queue.remove(order)
                    return order[1]
        return 0

    def levels(self) -> dict[tuple[int, int], int]:
        return {at: sum(lots for _, lots in queue) for at, queue in self.queues.items() if queue}


def levels_of(book: Ladder) -> dict[tuple[int, int], int]:
    held = book.levels[book.levels[:, L_QTY] > 0]
    return {(int(row[L_SIDE]), int(row[L_TICK])): int(row[L_QTY]) for row in held}


def fills_of(book: Ladder) -> list[tuple[int, ...]]:
    return [tuple(fill) for fill in book.fills[: book.info[FILLS]].tolist()]


actions = st.one_of(
    st.tuples(st.just("limit"), st.sampled_from([BID, ASK]), st.integers(0, 40), st.integers(0, 9)),
    st.tuples(st.just("take"), st.sampled_from([BID, ASK]), st.integers(1, 40), st.integers(1, 30)),
    st.tuples(st.just("cancel"), st.just(0), st.integers(0, 40), st.just(0)),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(actions, max_size=60))
def test_the_engine_fills_and_rests_what_the_twin_does(stream: list[tuple[str, int, int, int]]) -> None:
    book, twin = empty_ladder(WINDOW, CAPACITY), Twin()
    slots: dict[int, int] = {}
    for what, side, number, lots in stream:
        if what == "limit":
            slot = limit(book, side, number, lots)
            rests, fills = twin.limit(side, number, lots)
            assert (slot == REFUSED) == (rests == -1)
            assert (slot == DONE) == (rests is None)
            if slot >= 0:
                assert book.orders[slot, O_ID] == rests
                slots[int(book.orders[slot, O_ID])] = slot
            if slot != REFUSED:
                assert fills_of(book) == fills
        elif what == "take":
            fills = twin.take(side, number, lots)
            assert take(book, side, number, lots) == sum(done for _, _, done in fills)
            assert fills_of(book) == fills
        else:
            assert cancel(book, slots.get(number, 0), number) == twin.cancel(number)
        check(book, twin)


def check(book: Ladder, twin: Twin) -> None:
    """Same book, never crossed, counts and best prices consistent, every lot accounted for."""
    held = twin.levels()
    assert levels_of(book) == held
    bids, asks = [at for of, at in held if of == BID], [at for of, at in held if of == ASK]
    assert book.info[BEST_BID] == max(bids, default=NO_BID)
    assert book.info[BEST_ASK] == min(asks, default=NO_ASK)
    assert book.info[BEST_BID] < book.info[BEST_ASK]
    assert (book.info[BID_LEVELS], book.info[ASK_LEVELS]) == (len(bids), len(asks))
    assert book.info[FREE] == CAPACITY - twin.live()
    assert int(book.orders[:, O_QTY].sum()) == sum(held.values())


@settings(max_examples=100, deadline=None)
@given(st.lists(actions, max_size=40), st.integers(0, 40))
def test_a_reader_of_the_changes_has_the_book(stream: list[tuple[str, int, int, int]], cut: int) -> None:
    book = empty_ladder(64, 64)
    seen: dict[tuple[int, int], int] = {}
    for number, (what, side, tick, lots) in enumerate(stream):
        if what == "limit":
            limit(book, side, tick, lots)
        elif what == "take":
            take(book, side, tick, lots)
        if number == cut or number == len(stream) - 1:
            seen |= {
                (int(of), int(at)): level_qty(book.levels, int(of), int(at))
                for of, at in book.changed[: book.info[CHANGES]]
            }
            forget_changes(book)
    assert {at: lots for at, lots in seen.items() if lots} == levels_of(book)


def test_an_earlier_order_at_a_better_price_is_filled_first() -> None:
    book = empty_ladder()
    first, second, better = (limit(book, ASK, tick, 5) for tick in (101, 101, 100))
    assert take(book, BID, 101, 12) == 12
    names = [int(book.orders[slot, O_ID]) for slot in (better, first)]
    assert names == [0, 0]  # both gone
    assert fills_of(book) == [(3, 100, 5), (1, 101, 5), (2, 101, 2)]
    assert book.orders[second, O_QTY] == 3


def test_a_marketable_limit_rests_what_is_left() -> None:
    book = empty_ladder()
    limit(book, ASK, 100, 4)
    slot = limit(book, BID, 100, 10)
    assert fills_of(book) == [(1, 100, 4)]
    assert level_qty(book.levels, BID, 100) == 6
    assert book.info[BEST_ASK] == NO_ASK
    assert cancel(book, slot, int(book.orders[slot, O_ID])) == 6
    assert cancel(book, slot, 2) == 0  # gone already


def test_levels_farther_apart_than_the_window_are_found() -> None:
    book: Any = empty_ladder(WINDOW, CAPACITY)
    limit(book, BID, 40, 1)
    limit(book, BID, 5, 2)
    assert take(book, ASK, 1, 1) == 1
    assert book.info[BEST_BID] == 5


def test_a_window_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two, was 100"):
        empty_ladder(window=100)
    assert np.all(empty_ladder().info[[BID_LEVELS, ASK_LEVELS]] == 0)
