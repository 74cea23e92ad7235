"""What is planted in a market is what the indicators find there."""

import numpy as np
import pytest

from research.catalogue import CATALOGUE, DEFINITIONS, EVERY_COLUMN
from research.language import compile_features
from tests.research.made_up_bars import BAR, Floats, resting, rows_of

N = 6000


def found(values: Floats, *names: str) -> Floats:
    """Features (n, names) of each bar from the first on in which all windows are full."""
    program = compile_features(
        {name: CATALOGUE[name] for name in names}, EVERY_COLUMN, BAR, {**CATALOGUE, **DEFINITIONS}
    )
    return program.evaluate(*rows_of(values))[program.warmup_bars :]


def moving(steps: Floats, **columns: Floats) -> Floats:
    """A market whose log mid makes these steps, one a bar."""
    mid = 100.0 * np.exp(np.cumsum(steps))
    before = np.concatenate([mid[:1], mid[:-1]])
    prices = {"open_price": before, "close_price": mid, "bid_price": mid * 0.9999, "ask_price": mid * 1.0001}
    ends = {"high_price": np.maximum(before, mid), "low_price": np.minimum(before, mid)}
    return resting(steps.size, **(prices | ends | columns))


def test_roll_finds_the_spread_that_trades_bounce_over() -> None:
    rng = np.random.default_rng(1)
    steps, side = rng.normal(0, 2e-5, N), rng.choice([-1.0, 1.0], N)
    price = 100.0 * np.exp(np.cumsum(steps)) * (1 + 5e-4 * side)
    bought = {"buy_qty": (side > 0) * 2.0, "sell_qty": (side < 0) * 2.0}
    money = {"buy_usd": bought["buy_qty"] * price, "sell_usd": bought["sell_qty"] * price}
    assert found(moving(steps, **bought, **money), "roll_spread_bps_300s")[-1] == pytest.approx(10.0, rel=0.05)


def test_amihud_is_the_move_per_dollar_of_the_seconds_that_trade() -> None:
    """A trade of 500 USD each 4 s that moves the mid by 2 bps: 125 USD trade in a mean second, which move it by 0.5."""
    trades = np.arange(N) % 20 == 0
    y = found(moving(2e-4 * trades, buy_usd=500.0 * trades), "amihud_bps_300s")
    np.testing.assert_allclose(y[-1], 0.5, rtol=1e-6)


def test_makers_keep_what_the_price_does_not_take() -> None:
    """Trades 5 bps from the mid, after which the mid goes 2 bps their way: 6 bps are kept of 10, 4 are impact."""
    side = np.where(np.arange(N) % 100 < 50, 1.0, -1.0) * (np.arange(N) % 25 == 0)
    before = 100.0 * np.exp(np.cumsum(np.roll(2e-4 * side, 1)))
    price = before * (1 + 5e-4 * side)
    qty = {"buy_qty": (side > 0) * 2.0, "sell_qty": (side < 0) * 2.0}
    money = {"buy_usd": qty["buy_qty"] * price, "sell_usd": qty["sell_qty"] * price}
    paid = 2 * np.abs(price - before) * np.abs(side) * 2.0
    y = found(
        moving(np.roll(2e-4 * side, 1), **qty, **money, effective_usd=paid),
        "effective_spread_bps_60s", "realized_spread_bps_60s", "price_impact_bps_60s",
    )  # fmt: skip
    np.testing.assert_allclose(y[-1], [10.0, 6.0, 4.0], atol=0.1)


def test_the_slopes_find_the_impact() -> None:
    """A second's flow of one deviation moves the mid by 3 bps."""
    rng = np.random.default_rng(2)
    flow = rng.normal(0, 1000.0, N)
    steps = 3e-4 * flow / 1000.0 / np.sqrt(5) + rng.normal(0, 1e-5, N)
    columns = {"buy_usd": np.maximum(flow, 0), "sell_usd": np.maximum(-flow, 0), "ofi_qty": flow}
    y = found(moving(steps, **columns), "kyle_lambda_bps_300s", "ofi_impact_bps_300s", "ofi_fit_300s")[-1]
    np.testing.assert_allclose(y, [3.0, 3.0, 1.0], rtol=0.1)


def test_jumps_are_told_from_volatility() -> None:
    rng = np.random.default_rng(3)
    steps = rng.normal(0, 1e-4, N)
    names = ("realized_bps_300s", "bipower_bps_300s", "median_bps_300s", "jump_share_300s")
    calm = found(moving(steps), *names)[-1]
    steps[N - 700] += 0.01
    jumped = found(moving(steps), *names)[-1]
    truth = np.sqrt(1500)  # of 1 bp a bar over 300 s
    np.testing.assert_allclose(calm[:3], truth, rtol=0.15)
    assert calm[3] < 0.1
    assert jumped[0] == pytest.approx(np.hypot(truth, 100), rel=0.05)
    assert jumped[2] == pytest.approx(truth, rel=0.2)
    assert jumped[3] > 0.5


def test_candles_find_the_volatility_of_a_random_walk() -> None:
    """Of 1 bp a bar, 7.07 bps in 10 s; a range seen at 50 points is a tenth too narrow."""
    y = found(
        moving(np.random.default_rng(4).normal(0, 1e-4, 60_000)),
        "parkinson_bps_300s", "garman_klass_bps_300s", "rogers_satchell_bps_300s", "variance_ratio_300s",
    )  # fmt: skip
    np.testing.assert_allclose(y.mean(axis=0), [6.4, 6.2, 6.2, 1.0], rtol=0.06)


def test_a_spread_that_comes_back_says_how_fast() -> None:
    """An autoregression of 0.9 a bar leaves 0.9^5 after a second."""
    rng = np.random.default_rng(5)
    spread = np.empty(N)
    spread[0] = 0.02
    for k in range(1, N):
        spread[k] = 0.02 + 0.9 * (spread[k - 1] - 0.02) + rng.normal(0, 1e-3)
    values = resting(N, bid_price=100 - spread / 2, ask_price=100 + spread / 2)
    assert found(values, "spread_resilience_300s").mean() == pytest.approx(1 - 0.9**5, abs=0.06)


def test_the_branching_ratio_of_a_hawkes_process_is_found() -> None:
    """Each trade sets off 0.6 others within half a second or so: one window tells little, the mean of many all."""
    rng = np.random.default_rng(6)
    n = 60_000
    counts = np.zeros(n + 100)
    born = rng.uniform(0, n, rng.poisson(0.1 * n))
    while born.size:
        np.add.at(counts, born.astype(int), 1.0)
        children = rng.poisson(0.6, born.size)
        born = np.repeat(born, children) + rng.exponential(2.0, children.sum())
        born = born[born < n]
    y = found(resting(n, buy_count=counts[:n]), "branching_300s")
    assert y.mean() == pytest.approx(0.6, abs=0.08)


def test_sizes_of_two_kinds_are_bimodal_and_even_ones_are_on_the_border() -> None:
    """A uniform distribution has the coefficient 5/9, two spikes have 1."""
    rng = np.random.default_rng(7)
    even, two = rng.uniform(2, 12, N), rng.choice([3.0, 9.0], N)
    coefficients = [
        found(resting(N, liq_long_usd=np.exp(sizes)), "liq_size_bimodality_300s")[-1, 0] for sizes in (even, two)
    ]
    np.testing.assert_allclose(coefficients, [5 / 9, 1.0], atol=0.02)


def test_a_cascade_begins_ends_and_is_forgotten() -> None:
    forced = np.where((np.arange(N) >= 3000) & (np.arange(N) < 3050), 500.0, 0.0)
    values = resting(N, liq_long_usd=forced, buy_usd=1.0, sell_usd=1.0 + forced, liq_count=forced / 500.0)
    seen = found(values, "cascade_state")[:, 0]
    state = np.concatenate([np.full(N - seen.size, np.nan), seen])
    assert state[2999] == 0.0
    assert (state[3001:3090] == 2.0).all()
    assert state[3200] == 3.0
    assert state[3500] == 0.0
