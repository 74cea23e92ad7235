"""Running totals: a difference is the sum of what came between, to the last digit or the next to it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from research.bars.bar_pass import BarPass, Bars
from research.bars.clocks import parse_clock
from research.bars.columns import BAR_COLUMNS
from research.bars.events import EVENT, QUOTE, TRADE
from research.bars.running_totals import add, since

terms = st.lists(st.floats(1e-8, 1e9).flatmap(lambda size: st.sampled_from([size, -size])), max_size=30)


@given(terms, terms)
def test_a_total_grows_by_the_sum_of_what_came(before: list[float], after: list[float]) -> None:
    total = np.zeros(2)
    for term in [4e14 / 3, *before]:  # a year of notional
        add(total, 0, term)
    old = total.copy()
    for term in after:
        add(total, 0, term)
    least = 4e14 * 2.0**-100 * (1 + len(after))  # what is lost of the total, not of the sum
    assert since(*total, *old) == pytest.approx(math.fsum(after), rel=2**-52, abs=least)


def made_events(qty: float) -> np.ndarray:
    """A second of trades, the one in its midst of this quantity, and an event after it."""
    trades = [(k, TRADE, 1 - 2 * (k % 2), 100.0 + 0.1 * k, 0.1 * k, 0.0, 0.0) for k in range(1, 40)]
    trades[20] = (21, TRADE, 1, 101.0, qty, 0.0, 0.0)
    quotes = [(0, QUOTE, 0, 99.9, 1.0, 100.0, 1.0), (2_000_000_000, QUOTE, 0, 99.9, 1.0, 100.0, 1.0)]
    return np.array([quotes[0], *trades, quotes[1]], EVENT)


@pytest.mark.parametrize("qty", [math.nan, math.inf, -math.inf, 1e200])
def test_a_trade_of_no_number_is_as_if_never_sent(qty: float) -> None:
    events = made_events(qty)
    for clock in ("time_1s", "volume_3", "dollar_run_4"):
        closed, expected = (Bars(parse_clock(clock)).push(given) for given in (events, np.delete(events, 21)))
        np.testing.assert_array_equal(closed.values, expected.values)
        assert len(closed) > 0


def test_sums_of_a_bar_are_those_of_exact_arithmetic() -> None:
    events = made_events(1 / 3)
    bars = dict(zip(BAR_COLUMNS, Bars(parse_clock("time_1s")).push(events).values[0].tolist(), strict=True))
    bought = events[(events["kind"] == TRADE) & (events["side"] == 1)]
    assert bars["buy_qty"] == math.fsum(bought["b"])
    assert bars["buy_usd"] == math.fsum(bought["a"] * bought["b"])


def test_bars_fill_alike_one_event_a_call_and_at_once() -> None:
    """What is not asked for meanwhile, because nothing can be full yet, is not missed."""
    rng = np.random.default_rng(3)
    events = np.zeros(6_000, EVENT)
    events["recv_ns"] = np.sort(rng.integers(0, 10**12, events.size)) + 86_400 * 10**9
    events["kind"] = np.where(rng.random(events.size) < 0.5, QUOTE, TRADE)
    events = events[np.lexsort((events["kind"], events["recv_ns"]))]
    mid, is_trade = 100.0 + np.cumsum(rng.normal(0.0, 0.02, events.size)), events["kind"] == TRADE
    events["side"] = np.where(is_trade, rng.choice([-1, 1], events.size), 0)
    events["a"], events["b"] = mid - 0.01, rng.exponential(1.0, events.size)
    events["c"], events["d"] = np.where(is_trade, 0.0, mid + 0.01), np.where(is_trade, 0.0, 1.0)
    names = ("volume_9", "dollar_500", "tick_7", "renko_10", "range_15", "volume_imbalance_20", "dollar_run_9")
    clocks = [parse_clock(name) for name in names]
    at_once, single = BarPass(clocks).push(events), BarPass(clocks)
    pieces = [single.push(events[k : k + 1]) for k in range(events.size)]
    for place, whole in enumerate(at_once):
        made = np.concatenate([each[place].values for each in pieces])
        assert made.tobytes() == whole.values.tobytes()
        assert len(whole) > 50
