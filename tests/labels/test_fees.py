"""Instrument rules, funding, and the arithmetic of a round trip."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.schema import MARK_PRICES
from labels.fees import Costs, Rules, funding_bps, funding_of, infer_step, lies_on, round_trip, rules_of

price = st.floats(1.0, 1e5)
bps = st.floats(-5.0, 20.0)


def test_a_round_trip_computed_by_hand() -> None:
    """Bought at 999 with a mid of 1,000; closed at 1,004 with a mid of 1,005; 2 and 5 bps; 1 bp slipped; funding 3."""
    parts = round_trip(1, 1000.0, 999.0, False, 1004.0, 1006.0, 3.0, Costs(2.0, 5.0, 1.0))
    assert parts == pytest.approx(
        (50.0, 10.0, 10.0, 1.004, 2 * 0.999 + 5 * 1.004, 3.0, 50 + 10 - 10 - 1.004 - 7.018 - 3)
    )


@settings(deadline=None)  # the first example compiles
@given(st.sampled_from([1, -1]), price, price, price, st.floats(0.0, 10.0), bps, bps, bps, st.booleans())
def test_net_is_the_sum_of_its_parts_and_the_cash_that_changed_hands(
    side: int, mid: float, entry: float, bid: float, spread: float, maker: float, taker: float, slip: float, takes: bool
) -> None:
    """To 1e-9 of the terms: |bps| reach 1e9 for prices that have nothing to do with each other."""
    ask = bid + spread
    costs = Costs(maker, taker, slip)
    parts = round_trip(side, mid, entry, takes, bid, ask, 0.5, costs)
    total = parts.gross_bps + parts.entry_bps - parts.half_spread_bps - parts.slippage_bps - parts.fees_bps
    scale = max(1.0, *(abs(part) for part in parts))
    assert parts.net_bps == pytest.approx(total - parts.funding_bps, abs=1e-9 * scale)
    closed = bid if side > 0 else ask
    paid = ((taker if takes else maker) * entry + taker * closed + slip * (closed + (entry if takes else 0.0))) / 1e4
    cash = side * (closed - entry) - paid
    assert parts.net_bps == pytest.approx(cash / mid * 1e4 - 0.5, abs=1e-9 * scale)


def test_known_instruments_have_the_dated_tick() -> None:
    prices, sizes = np.array([60_000.0, 60_000.1]), np.array([0.001])
    assert rules_of("binance_um", "BTCUSDT", "2026-01-05", prices, sizes) == Rules(0.1, 0.001, 100.0)
    assert rules_of("binance_um", "BTCUSDT", "2021-08-01", np.array([40_000.01]), sizes).tick == 0.01


def test_prices_off_the_tables_tick_win_over_the_table() -> None:
    assert rules_of("binance_um", "BTCUSDT", "2026-01-05", np.array([60_000.05]), np.array([0.001])).tick == 0.01
    assert rules_of("binance_um", "XYZUSDT", "2026-01-05", np.array([0.0123, 0.0125]), np.array([3.0])).tick == 0.0001


@settings(deadline=None)  # the first example compiles
@given(st.integers(0, 7), st.sampled_from([1, 2, 5]), st.lists(st.integers(1, 10**6), min_size=1, max_size=60))
def test_an_inferred_step_holds_every_value_and_is_no_finer_than_it_was(
    decimals: int, multiple: int, units: list[int]
) -> None:
    values = np.round(np.array(units) * multiple * 10.0**-decimals, decimals)
    step = infer_step(values)
    assert lies_on(values, step)
    assert step >= 10.0**-decimals * 0.999


def test_a_coarse_step_needs_more_than_a_few_values() -> None:
    assert infer_step(np.array([100.5, 101.0])) == 0.1
    assert infer_step(np.arange(100.0, 120.0, 0.5)) == 0.5


def test_values_on_no_step_are_not_rounded() -> None:
    assert infer_step(np.array([np.pi])) == infer_step(np.array([])) == 1e-10


def marks(rows: list[tuple[int, float | None, int | None]]) -> pl.DataFrame:
    full = [(at, at, 1000.0, None, rate, following, None, False) for at, rate, following in rows]
    return pl.DataFrame(full, schema=MARK_PRICES.columns, orient="row")


def test_a_settlement_takes_the_last_rate_before_it_and_needs_proof_that_it_passed() -> None:
    rows = [(10, 1e-4, 100), (90, 2e-4, 100), (95, None, None), (101, 3e-4, 200), (150, 4e-4, 200)]
    found = funding_of(marks(rows))
    assert found.time_ns.tolist() == [100]
    assert found.rate.tolist() == [2e-4]


def test_no_marks_no_funding() -> None:
    assert funding_of(marks([])).time_ns.size == 0
    assert funding_of(marks([(10, None, None)])).time_ns.size == 0


@pytest.mark.parametrize(("from_ns", "to_ns", "pays"), [(50, 99, 0), (50, 100, 1), (99, 300, 1), (100, 300, 0)])
def test_funding_is_paid_over_an_interval_open_at_its_start(from_ns: int, to_ns: int, pays: int) -> None:
    funding = funding_of(marks([(10, 1e-4, 100), (101, 1e-4, 400)]))
    assert funding_bps(1, from_ns, to_ns, funding, 1000.0) == pytest.approx(pays * 1.0)
    assert funding_bps(-1, from_ns, to_ns, funding, 1000.0) == pytest.approx(-pays * 1.0)
