"""The set `cross` on two symbols of which one follows the other: known beta and lag, itself, the future, clocks."""

import numpy as np
import pytest
from numpy.typing import NDArray

from core.store import day_start_ns
from research.bars.bar_pass import ClosedBars
from research.bars.columns import bar_columns
from research.catalogue import ALL, CATALOGUE, choose, compile_texts
from research.programs.panel import Panel
from research.sets.cross import SETS
from tests.research.made_up_bars import BAR, STEP_NS, trading

Floats = NDArray[np.float64]
LEADER, FOLLOWER = NAMES = ("binance_um:BTCUSDT", "binance_um:ETHUSDT")
COLUMNS = bar_columns(0)
PROGRAM = compile_texts(choose(("cross",), {}, BAR), BAR)
N, BETA, LATE = 8000, 1.5, slice(3000, None)


def moved(returns: Floats, seed: int) -> Floats:
    """Bars (n, columns) of a trading market whose mid makes these returns."""
    values, mid = trading(returns.size, seed)[:, : len(COLUMNS)], 100.0 * np.exp(returns.cumsum())
    for name in ("open_price", "high_price", "low_price", "close_price"):
        values[:, COLUMNS.index(name)] = mid
    return values


def two_symbols(lag: int = 0) -> dict[str, Floats]:
    """A leader, and one that makes 1.5 of its returns some bars later beside half as much noise of its own."""
    own, noise = np.random.default_rng(1).normal(0.0, 1e-4, (2, N))
    return {LEADER: moved(own, 2), FOLLOWER: moved(BETA * np.roll(own, lag) + 0.5 * noise, 3)}


def features_of(values: dict[str, Floats]) -> dict[str, dict[str, Floats]]:
    """By symbol, then by feature."""

    def bars(name: str, clock: str) -> ClosedBars:
        close_ns = day_start_ns("2026-01-05") + STEP_NS * np.arange(1, len(values[name]) + 1)
        return ClosedBars(close_ns - STEP_NS, close_ns, close_ns // STEP_NS - 1, values[name])

    made = Panel(PROGRAM, NAMES).run(bars)
    return {name: dict(zip(PROGRAM.names, y.T, strict=True)) for name, y in made.items()}


def test_beta_and_correlation_are_those_that_were_made() -> None:
    values = two_symbols()
    y = features_of(values)[FOLLOWER]
    wanted = BETA / np.hypot(BETA, 0.5)
    np.testing.assert_allclose(y["leader_beta_300s"][LATE].mean(), BETA, rtol=0.05)
    np.testing.assert_allclose(y["leader_corr_300s"][LATE].mean(), wanted, rtol=0.02)
    np.testing.assert_allclose(y["leader_corr_60s"][LATE].mean(), wanted, rtol=0.02)
    assert abs(y["leader_lag_300s"][LATE].mean()) < 0.1
    leads, follows = (np.log(values[name][:, COLUMNS.index("close_price")]) for name in NAMES)
    x, z = leads[-1500:] - leads[-1505:-5], follows[-1500:] - follows[-1505:-5]
    beta = np.cov(z, x, ddof=0)[0, 1] / x.var()
    residual_bps = 1e4 * (follows[-1] - follows[-51] - beta * (leads[-1] - leads[-51]))
    np.testing.assert_allclose(y["leader_beta_300s"][-1], beta, rtol=1e-7)
    np.testing.assert_allclose(y["leader_residual_bps_10s"][-1], residual_bps, rtol=1e-6)
    np.testing.assert_allclose(y["leader_return_bps_1s"][-1], 1e4 * x[-1], rtol=1e-6)


def test_who_goes_first_shows_where_nothing_moves_together() -> None:
    """A second later: the follower's seconds overlap none of the leader's, so that their own beta is 0."""
    y = features_of(two_symbols(lag=5))[FOLLOWER]
    assert y["leader_lag_300s"][LATE].mean() > 0.8
    assert abs(y["leader_beta_300s"][LATE].mean()) < 0.3


def test_the_leader_goes_with_itself() -> None:
    y = features_of(two_symbols())[LEADER]
    for name, wanted in {"leader_corr_300s": 1, "leader_beta_300s": 1, "leader_lag_300s": 0,
                         "leader_residual_bps_10s": 0, "leader_volatility_ratio_300s": 1}.items():  # fmt: skip
        np.testing.assert_allclose(y[name][2000:], wanted, atol=1e-7, err_msg=name)


def test_every_feature_is_known_once_its_windows_are_full_and_moves() -> None:
    y = features_of(two_symbols())[FOLLOWER]
    for name, values in y.items():
        assert np.isfinite(values[PROGRAM.main.warmup_bars :]).all(), name
        assert np.ptp(values[2000:]) > 0.0, name


def test_nothing_of_either_symbols_future_is_seen() -> None:
    values, cut = two_symbols(), 5000
    other = {name: np.concatenate([x[:cut], trading(N - cut, 9)[:, : len(COLUMNS)]]) for name, x in values.items()}
    whole, seen = features_of(values), features_of(other)
    for name in NAMES:
        for feature in PROGRAM.names:
            np.testing.assert_array_equal(seen[name][feature][:cut], whole[name][feature][:cut], err_msg=feature)


@pytest.mark.parametrize("bar", ["time_1s", "time_1m", "volume_10"])
def test_all_leaves_the_set_out_and_it_may_be_named_on_any_clock(bar: str) -> None:
    assert len(choose(("cross",), {}, bar)) == len(SETS["cross"])
    assert not set(choose((ALL,), {}, bar)) & set(choose(("cross",), {}, bar))
    assert not set(SETS["cross"]) & set(CATALOGUE)
