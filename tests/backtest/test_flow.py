"""The order flow: odds that are fair by construction, planted drift on its schedule, positions that add up."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.market import flow as fl
from backtest.market.rng import exponential, normal, seeded, uniform
from backtest.market.simulate import flow_of
from core.config import Sim

START_NS = 1_767_592_800 * fl.NS


def events(flow: fl.Flow, seconds: int, seed: int = 1, buffer: int = 100_000, step_s: int | None = None) -> Any:
    """(ints, floats, state) of a stretch, in calls of `step_s` with buffers of `buffer` rows."""
    state = fl.new_state(flow, 60_000.0, START_NS, seeded(seed))
    parts = []
    for until in range(step_s or seconds, seconds + 1, step_s or seconds):
        while True:
            ints, floats = np.zeros((buffer, fl.E_INTS), np.int64), np.zeros((buffer, fl.E_FLOATS))
            count = fl.advance(flow, state, START_NS + until * fl.NS, ints, floats)
            parts.append((ints[:count], floats[:count]))
            if count < buffer:
                break
    return *(np.concatenate([part[which] for part in parts]) for which in (0, 1)), state


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 500), st.sampled_from([1, 7, 60, 300]))
def test_events_do_not_depend_on_the_lengths_of_calls_and_buffers(buffer: int, step_s: int) -> None:
    flow = flow_of(Sim())
    ints, floats, _ = events(flow, 300 // step_s * step_s)
    cut_ints, cut_floats, _ = events(flow, 300 // step_s * step_s, buffer=buffer, step_s=step_s)
    assert np.array_equal(ints, cut_ints)
    assert np.array_equal(floats, cut_floats)


def test_another_seed_is_another_market() -> None:
    flow = flow_of(Sim())
    assert not np.array_equal(events(flow, 60)[1], events(flow, 60, seed=2)[1])


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.01, 5.0), st.floats(-0.85, 0.85))
def test_the_odds_make_every_move_fair_whatever_positions_it_crosses(seed: int, impact: float, rho: float) -> None:
    """P(up) = down / (up + down): the expected move is 0, with lopsided positions and predictable flow."""
    flow = flow_of(Sim())
    state = fl.new_state(flow, 60_000.0, START_NS, seeded(seed))
    rng = np.random.default_rng(seed)
    state.longs[:] = rng.exponential(3.0, fl.POSITION_BINS)
    state.shorts[:] = rng.exponential(0.3, fl.POSITION_BINS)
    up = fl._cascade(flow, state, impact * (1.0 - rho), 1)
    down = fl._cascade(flow, state, impact * (1.0 + rho), -1)
    assert up >= impact * (1.0 - rho)
    assert down >= impact * (1.0 + rho)
    assert max(up, down) <= 2.0 * impact + flow.cascade_limit_bps
    chance = down / (up + down)
    assert chance * up - (1.0 - chance) * down == pytest.approx(0.0, abs=1e-12)


def test_a_cascade_is_what_its_slow_twin_makes_it() -> None:
    flow = flow_of(Sim())._replace(cascade_bps=50.0)
    state = fl.new_state(flow, 60_000.0, START_NS, seeded(1))
    state.level[fl.OPEN_INTEREST] = 1000.0
    state.shorts[:] = 10.0  # each bin crossed adds 50 * 10 / 1000 = 0.5 bps
    start = 1e4 * math.log(60_000.0)
    for move in (0.1, 0.9, 2.3, 7.7):
        total, crossed = move, -1
        while crossed != (crossed := math.floor(start + total) - math.floor(start)):
            total = move + min(0.5 * crossed, flow.cascade_limit_bps)
        assert fl._cascade(flow, state, move, 1) == pytest.approx(total)


def test_the_price_moves_by_the_moves_and_only_by_them() -> None:
    _, floats, state = events(flow_of(Sim(edge=0.0)), 3600)
    assert state.level[fl.PRICE] == floats[-1, fl.E_PRICE]
    assert np.all(floats[:, fl.E_PRICE] > 0)
    assert np.all(floats[:, fl.E_GROSS_BPS] == 0.0)


def test_a_null_is_a_martingale_also_given_expected_signs() -> None:
    """Moves, and moves times what was expected of them, are 0 on average within 4 standard errors."""
    ints, floats, _ = events(flow_of(Sim(edge=0.0)), 6 * 3600, buffer=300_000)
    moves = np.diff(floats[:, fl.E_PRICE]) / floats[:-1, fl.E_PRICE] * 1e4
    rho, previous = floats[1:, fl.E_RHO], np.concatenate(([0.0], moves[:-1]))
    for weights in (np.ones(moves.size), rho, np.sign(rho), previous, (ints[1:, fl.E_KIND] == fl.CLUSTER) * rho):
        product = moves * weights
        assert abs(product.mean()) < 4.0 * product.std() / math.sqrt(product.size)


def test_expected_signs_do_tell_the_signs() -> None:
    ints, floats, _ = events(flow_of(Sim(edge=0.0)), 6 * 3600, buffer=300_000)
    trades = ints[:, fl.E_KIND] == fl.TRADE
    side, rho = ints[trades, fl.E_SIDE], floats[trades, fl.E_RHO]
    slope = (side * rho).mean() / (rho * rho).mean()
    assert slope == pytest.approx(1.0, abs=0.1)


def test_planted_bursts_drift_on_schedule() -> None:
    """With no other moves, the mean path after a burst is side * gross * (1 - exp(-t / tau))."""
    flow = flow_of(Sim(edge=14.0, burst_per_hour=200.0))._replace(
        trade_impact_bps=0.0, news_bps=0.0, cascade_bps=0.0, event_rate=3.0
    )
    ints, floats, _ = events(flow, 24 * 3600, buffer=700_000)
    burst = np.flatnonzero(ints[:, fl.E_KIND] == fl.BURST)[:-3]
    log_price = np.log(floats[:, fl.E_PRICE]) * 1e4
    for wait_s in (0.2, 1.0, 3.0, 10.0):
        later = np.searchsorted(ints[:, fl.E_NS], ints[burst, fl.E_NS] + int(wait_s * 1e9), side="right") - 1
        moved = ints[burst, fl.E_SIDE] * (log_price[later] - log_price[burst])
        expected = np.abs(floats[burst, fl.E_GROSS_BPS]) * (1.0 - math.exp(-wait_s / flow.drift_decay_s))
        gap = moved - expected
        assert abs(gap.mean()) < 3.5 * gap.std() / math.sqrt(gap.size)
        assert gap.std() / math.sqrt(gap.size) < 0.05 * expected.mean()


def test_longs_shorts_and_open_interest_stay_equal() -> None:
    _, floats, state = events(flow_of(Sim()), 4 * 3600)
    assert np.count_nonzero(floats[:, fl.E_LIQUIDATED]) > 100
    assert state.longs.sum() == pytest.approx(state.level[fl.OPEN_INTEREST], rel=1e-9)
    assert state.shorts.sum() == pytest.approx(state.level[fl.OPEN_INTEREST], rel=1e-9)
    assert state.longs.min() >= 0.0


def test_random_numbers_have_their_moments() -> None:
    state = seeded(5)
    draws = {draw: np.array([draw(state) for _ in range(50_000)]) for draw in (uniform, exponential, normal)}
    assert draws[uniform].mean() == pytest.approx(0.5, abs=0.006)
    assert 0.0 <= draws[uniform].min() <= draws[uniform].max() < 1.0
    assert draws[exponential].mean() == pytest.approx(1.0, abs=0.02)
    assert draws[normal].std() == pytest.approx(1.0, abs=0.015)
    assert abs(draws[normal].mean()) < 0.02


def test_splitmix_is_splitmix() -> None:
    """The first outputs of the published generator from seed 1234567 (Vigna's splitmix64.c), as uniforms."""
    state = np.array([1234567], np.uint64)
    published = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    assert [uniform(state) for _ in published] == [(word >> 11) * 2.0**-53 for word in published]
