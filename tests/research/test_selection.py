"""Orders one at a time per symbol and side, and choices that know only their past."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.units import NS_PER_S
from research.learning.candidates import Candidate
from research.learning.dataset import Outcomes
from research.learning.inference import ratio_of_sums
from research.learning.selection import choose, known_t, patched, place


def outcomes(end_ns: np.ndarray, net: np.ndarray | None = None) -> Outcomes:
    """Both sides end at `end_ns` (n,) and earn `net`, all filled."""
    pays = np.zeros(end_ns.size) if net is None else net
    return Outcomes(
        np.stack([pays, -pays]),
        np.stack([pays, -pays]),
        np.stack([end_ns, end_ns]),
        np.ones((2, end_ns.size), np.bool_),
    )


def test_a_side_waits_for_its_own_position_and_for_no_other() -> None:
    start = np.array([0, 1, 1, 2, 5, 6])
    symbol = np.array([0, 0, 1, 0, 0, 0])
    decided = np.array([1, 1, 1, -1, 1, -1], np.int8)
    orders = place(start, symbol, decided, outcomes(start + 5))
    # Row 1 finds symbol 0 long; row 2 is another symbol; row 3 sells; row 4 starts as the first ends; row 5 is short.
    assert list(orders.row) == [0, 2, 3, 4]
    assert list(orders.side) == [1, 1, -1, 1]


@st.composite
def decisions(draw: st.DrawFn):
    n = draw(st.integers(0, 40))
    integers = lambda low, high: np.array(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)), np.int64)  # noqa: E731
    start = np.cumsum(integers(0, 4))
    return (
        start,
        integers(0, 2),
        integers(-1, 1).astype(np.int8),
        np.stack([start + integers(0, 15), start + integers(0, 15)]),
    )


@given(decisions())
def test_orders_equal_a_slow_walk(rows) -> None:
    start, symbol, decided, end = rows
    pays = np.zeros((2, start.size))
    orders = place(start, symbol, decided, Outcomes(pays, pays, end, pays == 0.0))
    free: dict[tuple[int, int], int] = {}
    expected = []
    for row, side in enumerate(decided):
        key = int(symbol[row]), int(side)
        if side and start[row] >= free.get(key, -1):
            free[key] = int(end[0 if side > 0 else 1, row])
            expected.append(row)
    assert list(orders.row) == expected


def test_sell_orders_earn_the_sell_outcome() -> None:
    start = np.array([0, 10])
    orders = place(start, np.zeros(2, np.int64), np.array([1, -1], np.int8), outcomes(start + 1, np.array([3.0, 4.0])))
    assert list(orders.net_bps) == [3.0, -4.0]


def test_an_order_counts_once_its_end_is_past() -> None:
    start = np.array([0, 10, 20], np.int64) * NS_PER_S
    orders = place(start, np.zeros(3, np.int64), np.ones(3, np.int8), outcomes(start + 10 * NS_PER_S))
    opens = np.array([10, 20, 21, 100], np.int64) * NS_PER_S  # the ends are 10, 20 and 30: at the opening is not past
    assert list(known_t(orders, opens, 60.0)[1]) == [0, 1, 2, 3]


@given(st.integers(0, 2**32 - 1))
def test_the_t_of_choices_is_that_of_the_inference_on_what_was_known(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = np.sort(rng.integers(0, 7_200, 80)) * NS_PER_S
    orders = place(
        start, rng.integers(0, 3, 80), np.ones(80, np.int8), outcomes(start + 40 * NS_PER_S, rng.normal(1.0, 2.0, 80))
    )
    opens = np.array([900, 3_600, 9_000], np.int64) * NS_PER_S
    t, fills = known_t(orders, opens, 60.0)
    for block, at in enumerate(opens):
        known = orders.end_ns < at
        # Both count calendar blocks, here from the first order on: shift time so that they agree.
        slow = ratio_of_sums(orders.start_ns[known], orders.net_bps[known], 60.0, min_blocks=2)
        assert fills[block] == np.count_nonzero(known)
        assert t[block] == pytest.approx(slow.t) if slow else math.isnan(t[block])


def test_the_best_t_needs_fills_and_ties_go_to_the_first() -> None:
    t = np.array([9.0, -2.0, -1.0, -1.0, np.nan])
    assert choose(t, np.array([[5], [50], [50], [50], [50]]), 30) == 2
    assert choose(t, np.array([[5], [5], [5], [5], [50]]), 30) is None


def test_a_policy_that_trades_no_more_is_not_chosen() -> None:
    assert choose(np.array([9.0, 1.0]), np.array([[80, 94], [40, 60]]), 30) == 1
    assert choose(np.array([9.0, 1.0]), np.array([[80, 95], [40, 60]]), 30) == 0


def test_patched_rows_follow_their_own_block() -> None:
    start = np.arange(4) * 10
    first = (np.array([0, 1]), np.array([1, 1, 1, 1], np.int8), outcomes(start + 1, np.full(4, 1.0)))
    second = (np.array([3]), np.array([-1, -1, -1, -1], np.int8), outcomes(start + 2, np.full(4, 5.0)))
    decided, pays = patched(4, [first, second])
    assert list(decided) == [1, 1, 0, -1]
    orders = place(start, np.zeros(4, np.int64), decided, pays)
    assert list(orders.net_bps) == [1.0, 1.0, -5.0]
    assert list(orders.end_ns) == [1, 11, 32]


def test_candidates_name_their_cell() -> None:
    maker = Candidate("maker", "hgb", 10.0, 0.6, 1.0, delta_bps=2.0, rule="through")
    assert maker.cell.net_bps(-1) == "mk_sell_2bps_through_10_net_bps"
    assert Candidate("taker", "hgb", 60.0, 0.6, 1.0).cell.ret_bps == "tk_60_ret_bps"
