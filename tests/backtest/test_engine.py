"""The event-by-event engine against the label grid, which is written another way, and its limits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.engine import OUTCOMES, Plan, trade
from backtest.policy import ALLOWED, INVENTORY_FULL, SIDE_BUSY, TOO_SMALL, Limits, order_qty, refusal
from labels.build_labels import sound_decisions
from labels.fees import Costs
from labels.fills import GATE, THROUGH, TOUCH
from labels.grid import Decisions, Terms, label
from labels.venue_events import VenueDay
from tests.labels.toy_market import MS, Quote, Trade, day_of, ns, terms_for

CLOSED, UNFILLED, TURNED_AWAY, OPEN, SIDE_TAKEN, FULL, SMALL = range(7)
ROOMY = Limits(1_000, 1_000.0, 1e9)


def random_day(seed: int, seconds: int = 120) -> VenueDay:
    """A jumpy market under a skewed clock: some orders are rejected, some fill by print, some by quote."""
    rng = np.random.default_rng(seed)
    n = seconds * 8
    at = np.sort(rng.integers(0, seconds * 1_000, n))
    bid = 2_000 + np.cumsum(rng.choice([-2, -1, 0, 0, 0, 1, 2], n))
    late = rng.integers(0, 30, n)
    quotes = [
        Quote(int(t), int(t - 1_300 + d), b * 0.5, b * 0.5 + 0.5 * w)
        for t, d, b, w in zip(at, late, bid, rng.integers(1, 3, n), strict=True)
    ]
    picked = rng.choice(n, n // 3, replace=False)
    trades = [
        Trade(
            int(at[k]),
            int(at[k] - 1_300 + late[k]),
            (bid[k] + rng.integers(-1, 2)) * 0.5,
            1.0,
            int(rng.choice([1, -1])),
        )
        for k in picked
    ]
    return day_of(quotes, trades)


def plan_for(terms: Terms, limits: Limits, **changes: object) -> Plan:
    plan = Plan(
        is_taker=False,
        rule=THROUGH,
        delta_bps=3.0,
        gate_usd=0.0,
        hold_ns=2_000 * MS,
        rest_ns=terms.rest_ns,
        entry_latency_ns=terms.entry_latency_ns,
        exit_latency_ns=terms.exit_latency_ns,
        tick=terms.tick,
        lot_qty=0.001,
        min_notional_usd=5.0,
        costs=terms.costs,
        limits=limits,
        covered_ns=terms.covered_ns,
    )
    return plan._replace(**changes)


def decisions_of(day: VenueDay, step_ms: int) -> Decisions:
    seconds = int(day.books.recv_ns[-1] - day.books.recv_ns[0]) // (step_ms * MS)
    times = day.books.recv_ns[0] + 1 + np.arange(seconds) * step_ms * MS
    return sound_decisions(times, day)[0]


POLICIES = [
    ({"is_taker": True}, None),
    ({"rule": TOUCH}, 0),
    ({"rule": THROUGH}, 1),
    ({"rule": GATE, "gate_usd": 0.0, "rest_ns": 900 * MS}, 2),
    ({"rule": GATE, "gate_usd": 1_500.0, "rest_ns": 900 * MS}, 3),
]


@pytest.mark.parametrize(("changes", "rule"), POLICIES)
@pytest.mark.parametrize("seed", range(6))
def test_every_order_earns_what_its_label_says(seed: int, changes: dict[str, object], rule: int | None) -> None:
    """Without limits every decision is an order; nets agree to float32's rounding, outcomes exactly."""
    day = random_day(seed)
    terms = terms_for(day)._replace(settle_early=True)
    decisions = decisions_of(day, 250)
    sides = np.random.default_rng(seed).choice(np.array([-1, 1], np.int8), decisions.t_ns.size)
    grid = label(decisions, day.quotes, day.trades, day.funding, terms)
    records = trade(decisions, sides, day.quotes, day.trades, day.funding, plan_for(terms, ROOMY, **changes))
    assert records.size == sides.size
    row, s = np.arange(sides.size), (sides < 0).astype(np.int64)
    if rule is None:
        net, end, fill = grid.taker.net_bps[s, 1, row], grid.taker.end_ns[1, row], np.ones(sides.size)
    else:
        net, end = grid.maker.net_bps[s, 1, rule, 0, row], grid.maker.end_ns[s, 1, rule, 0, row]
        fill = grid.maker.fill_ns[s, 1, rule, row]
        turned = records["outcome"] == TURNED_AWAY
        np.testing.assert_array_equal(turned[end > 0], (grid.maker.status[s, 1, row] == 1)[end > 0])
        np.testing.assert_array_equal(records["fill_recv_ns"][end > 0], fill[end > 0])
    np.testing.assert_array_equal((records["outcome"] == CLOSED)[end > 0], (fill > 0)[end > 0])
    np.testing.assert_allclose(records["net_bps"][end > 0], net[end > 0], rtol=2e-7, atol=1e-5)
    assert (end > 0).mean() > 0.8
    if rule is not None:
        assert {CLOSED, UNFILLED} <= set(records["outcome"].tolist())


def test_the_random_market_rejects_some_orders() -> None:
    """Else the agreement above would not test rejection."""
    day = random_day(0)
    decisions = decisions_of(day, 250)
    sides = np.ones(decisions.t_ns.size, np.int8)
    plan = plan_for(terms_for(day), ROOMY, delta_bps=0.0)
    records = trade(decisions, sides, day.quotes, day.trades, day.funding, plan)
    assert TURNED_AWAY in records["outcome"]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.integers(1, 3), st.sampled_from([900.0, 1_500.0, 2_500.0, 10_000.0]), st.booleans())
def test_positions_per_side_and_inventory_stay_within_their_limits(
    seed: int, max_position: int, max_inventory_usd: float, is_taker: bool
) -> None:
    day = random_day(seed, seconds=40)
    decisions = decisions_of(day, 250)
    sides = np.random.default_rng(seed).choice(np.array([-1, 0, 1], np.int8), decisions.t_ns.size)
    limits = Limits(max_position, 1_000.0, max_inventory_usd)
    plan = plan_for(terms_for(day), limits, is_taker=is_taker, rule=TOUCH, delta_bps=0.0)
    records = trade(decisions, sides, day.quotes, day.trades, day.funding, plan)
    assert records.size == np.count_nonzero(sides)
    sent = records[records["outcome"] <= OPEN]
    for one in sent:
        life = (sent["arrival_ns"] <= one["arrival_ns"]) & (
            (sent["end_ns"] == 0) | (sent["end_ns"] > one["decision_ns"])
        )
        alive = sent[life & (sent["decision_ns"] <= one["decision_ns"])]
        assert np.count_nonzero(alive["side"] == one["side"]) <= max_position
        held = alive[(alive["fill_ns"] > 0) & (alive["fill_recv_ns"] <= one["decision_ns"])]
        worst = (held["side"] * held["qty"] * 1_000.0).sum() * one["side"]
        working = alive[(alive["side"] == one["side"]) & ~np.isin(alive["decision_ns"], held["decision_ns"])]
        assert worst + working["qty"].sum() * 1_000.0 <= max_inventory_usd * 1.06  # prices move a few per cent
    if max_inventory_usd < 1_000.0:
        assert not sent.size
        assert set(records["outcome"].tolist()) <= {FULL}


def test_what_yesterday_left_open_counts_against_the_limits() -> None:
    day = random_day(1)
    decisions = decisions_of(day, 250)
    sides = np.ones(decisions.t_ns.size, np.int8)
    plan = plan_for(terms_for(day), Limits(1, 1_000.0, 2_000.0), is_taker=True)
    first = trade(decisions, sides, day.quotes, day.trades, day.funding, plan)
    assert first["outcome"][0] == CLOSED
    before = first[:1].copy()
    before["end_ns"] = decisions.t_ns[7]
    then = trade(decisions, sides, day.quotes, day.trades, day.funding, plan, before)
    assert (then["outcome"][:7] == SIDE_TAKEN).all()
    assert then["outcome"][7] == CLOSED


def test_a_position_that_the_data_do_not_see_closed_is_open_and_earns_nothing() -> None:
    day = day_of([Quote(t, t + 5, 1000.0, 1001.0) for t in range(0, 2_001, 100)], [])
    decisions = sound_decisions(np.array([ns(1_000)]), day)[0]
    plan = plan_for(terms_for(day), ROOMY, is_taker=True)
    records = trade(decisions, np.ones(1, np.int8), day.quotes, day.trades, day.funding, plan)
    assert OUTCOMES[records["outcome"][0]] == "open at the end"
    assert records["net_usd"][0] == 0.0


def test_dollars_follow_from_bps_and_quantity() -> None:
    """Ask 1,001: 0.999 buy 1,000 dollars' worth; out at 1,000 without fees: -0.999 dollars."""
    day = day_of([Quote(t, t + 5, 1000.0, 1001.0) for t in range(0, 9_001, 100)], [])
    decisions = sound_decisions(np.array([ns(1_000)]), day)[0]
    plan = plan_for(terms_for(day), ROOMY, is_taker=True, costs=Costs(0.0, 0.0, 0.0))
    record = trade(decisions, np.ones(1, np.int8), day.quotes, day.trades, day.funding, plan)[0]
    assert record["qty"] == pytest.approx(0.999)
    assert record["net_usd"] == pytest.approx(-0.999)
    assert record["gross_usd"] == 0.0


@pytest.mark.parametrize(
    ("side", "busy", "inventory", "working", "notional", "answer"),
    [
        (1, 0, 0.0, 0.0, 1_000.0, ALLOWED),
        (1, 1, 0.0, 0.0, 1_000.0, SIDE_BUSY),
        (1, 0, 1_500.0, 0.0, 1_000.0, INVENTORY_FULL),
        (-1, 0, 1_500.0, 0.0, 1_000.0, ALLOWED),
        (1, 0, 0.0, 1_500.0, 1_000.0, INVENTORY_FULL),
        (1, 0, 0.0, 0.0, 0.0, TOO_SMALL),
    ],
)
def test_an_order_is_refused_for_the_first_limit_it_breaks(
    side: int, busy: int, inventory: float, working: float, notional: float, answer: int
) -> None:
    assert refusal(side, busy, inventory, working, notional, 1, 2_000.0) == answer


def test_quantities_are_whole_lots_above_the_least_notional() -> None:
    assert order_qty(60_000.0, 1_000.0, 0.001, 100.0) == pytest.approx(0.016)
    assert order_qty(60_000.0, 50.0, 0.001, 5.0) == 0.0  # less than a lot
    assert order_qty(60_000.0, 70.0, 0.001, 100.0) == 0.0  # a lot, below the least notional
