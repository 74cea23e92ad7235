"""Limit prices, and scans against steps: one definition of a fill, whether over arrays or event by event."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels.fills import (
    FILLED,
    GATE,
    ORDER,
    REJECTED,
    RESTING,
    SENT,
    THROUGH,
    TOUCH,
    arrive,
    first_gated,
    first_passing,
    first_reaching,
    limit_price,
    step_quote,
    step_trade,
)


@pytest.mark.parametrize(
    ("side", "touch", "delta_bps", "tick", "limit"),
    [
        (1, 60_000.1, 0.0, 0.1, 60_000.1),
        (-1, 60_000.1, 0.0, 0.1, 60_000.1),
        (1, 60_000.0, 2.0, 0.1, 59_988.0),
        (1, 60_000.1, 2.0, 0.1, 59_988.0),  # 59,988.09998: down
        (-1, 60_000.1, 2.0, 0.1, 60_012.2),  # 60,012.10002: up
        (1, 0.07, 5.0, 0.01, 0.06),
        (-1, 0.07, 5.0, 0.01, 0.08),
    ],
)
def test_a_limit_is_rounded_away_from_the_market(
    side: int, touch: float, delta_bps: float, tick: float, limit: float
) -> None:
    assert limit_price(side, touch, delta_bps, tick) == pytest.approx(limit, rel=1e-12)


@settings(deadline=None)  # the first example compiles
@given(st.sampled_from([1, -1]), st.integers(1, 10**7), st.floats(0, 50), st.sampled_from([0.1, 0.01, 1e-5, 0.5]))
def test_a_limit_is_never_nearer_than_delta_nor_a_tick_farther(
    side: int, units: int, delta_bps: float, tick: float
) -> None:
    touch = units * tick
    offset = side * (touch - limit_price(side, touch, delta_bps, tick))
    asked = touch * delta_bps / 1e4
    assert asked - 2e-6 * tick - 1e-12 * touch <= offset < asked + tick * (1 + 1e-5)


def order(side: int, rule: int, limit: float, gate_usd: float = 0.0) -> np.ndarray:
    one = np.zeros(1, ORDER)
    one["side"], one["rule"], one["limit"], one["slack"], one["gate_usd"] = side, rule, limit, 0.25, gate_usd
    one["arrival_ns"], one["cancel_ns"], one["state"] = 10, 100, SENT
    return one


@pytest.mark.parametrize(("ask", "state"), [(1000.5, RESTING), (1000.0, REJECTED), (999.5, REJECTED)])
def test_post_only_is_rejected_where_it_would_cross(ask: float, state: int) -> None:
    one = order(1, TOUCH, 1000.0)
    arrive(one, 0, ask - 1.0, ask)
    assert one["state"][0] == state


prints = st.lists(
    st.tuples(st.integers(0, 110), st.integers(1_996, 2_004), st.floats(0.1, 2.0), st.sampled_from([1, -1])),
    max_size=30,
)


@settings(deadline=None)  # the first example compiles
@given(prints, st.sampled_from([1, -1]), st.sampled_from([TOUCH, THROUGH, GATE]), st.sampled_from([0.0, 1500.0]))
def test_steps_fill_where_scans_do(
    rows: list[tuple[int, int, float, int]], side: int, rule: int, gate_usd: float
) -> None:
    rows = sorted(rows)
    at, units, sizes, takers = (np.array(column) for column in zip(*rows, strict=True)) if rows else [np.zeros(0)] * 4
    values, sizes, takers = units * 0.5, sizes.astype(np.float64), takers.astype(np.int8)
    start, stop = int(np.searchsorted(at, 10, "right")), int(np.searchsorted(at, 100, "left"))
    if rule == GATE:
        hit = first_gated(values, sizes, takers, start, stop, side, 1000.0, 0.25, gate_usd)
    else:
        hit = (first_reaching, first_passing)[rule](values, start, stop, side, 1000.0, 0.25)
    one = order(side, rule, 1000.0, gate_usd)
    arrive(one, 0, 1000.0 - 9.0, 1000.0 + 9.0)
    filled = [i for i in range(len(rows)) if step_trade(one, 0, at[i], at[i] + 5, values[i], sizes[i], takers[i])]
    assert filled == ([hit] if hit < stop else [])
    assert (one["state"][0] == FILLED) == bool(filled)
    if filled:
        assert one["fill_ns"][0] == at[hit]
        assert one["fill_recv_ns"][0] == at[hit] + 5


@settings(deadline=None)  # the first example compiles
@given(st.lists(st.tuples(st.integers(0, 110), st.integers(1_996, 2_004)), max_size=20), st.sampled_from([1, -1]))
def test_a_quote_fills_under_through_where_the_opposite_best_reaches_the_limit(
    rows: list[tuple[int, int]], side: int
) -> None:
    rows = sorted(rows)
    one, touch = order(side, THROUGH, 1000.0), order(side, TOUCH, 1000.0)
    for each in (one, touch):
        arrive(each, 0, 1000.0 - 9.0, 1000.0 + 9.0)
    expected = [i for i, (at, units) in enumerate(rows) if 10 < at < 100 and side * (1000.0 - units * 0.5) >= 0][:1]
    hits = []
    for i, (at, units) in enumerate(rows):
        bid, ask = (units * 0.5 - 1.0, units * 0.5) if side > 0 else (units * 0.5, units * 0.5 + 1.0)
        assert not step_quote(touch, 0, at, at, bid, ask)
        if step_quote(one, 0, at, at, bid, ask):
            hits.append(i)
    assert hits == expected
