"""The oracle on labels made by hand: its decision, its sides, its denominator, its standard error."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from backtest.market import truth
from backtest.market.simulate import Burst
from backtest.oracle import decision_ns, line_of, measure
from core import store
from core.config import Config, load
from core.schema import LABELS
from core.units import NS_PER_S

T0 = 1_767_592_800 * NS_PER_S


def labels(config: Config, venue: str, ret_bps: dict[int, float], cost_bps: float = 11.0) -> None:
    """A day of labels: 0 return except at the given seconds."""
    seconds = np.arange(3600)
    returns = np.array([ret_bps.get(second, 0.0) for second in seconds.tolist()])
    frame = pl.DataFrame(
        {
            "decision_ns": T0 + seconds * NS_PER_S,
            "tk_10_ret_bps": returns,
            "tk_10_buy_net_bps": returns - cost_bps,
            "tk_10_sell_net_bps": -returns - cost_bps,
        }
    )
    store.write(config.root, store.Partition(LABELS.name, venue, "BTCUSDT", "2026-01-05"), frame)


def bursts(config: Config, seconds_sides: list[tuple[float, int]], drift_bps: float) -> None:
    truth.write_market(config)
    rows = [Burst("BTCUSDT", T0 + round(second * NS_PER_S), side, drift_bps) for second, side in seconds_sides]
    truth.write_bursts(config, rows)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(pairs=["sim.edge=14"], options={"data_dir": str(tmp_path)})


def test_it_decides_at_the_first_second_after_the_burst_is_receivable() -> None:
    start = np.array([T0, T0 + NS_PER_S // 2, T0 + NS_PER_S - 5_000_000, T0 + NS_PER_S - 4_999_999])
    assert ((decision_ns(start, "binance_um", 5.0) - T0) // NS_PER_S).tolist() == [1, 1, 1, 2]
    assert ((decision_ns(start, "bybit", 5.0) - T0) // NS_PER_S).tolist() == [1, 1, 2, 2]  # 5 ms later


def test_it_earns_the_move_on_its_side_and_counts_a_burst_once(config: Config) -> None:
    when = [(10.0 * number + 0.3, 1 if number % 2 else -1) for number in range(1, 41)]
    earned = {10 * number + 1: (12.0 + number % 5) * side for number, (_, side) in enumerate(when, 1)}
    bursts(config, [*when, (3_599.9, 1)], drift_bps=20.0)  # the last one's decision has no label
    labels(config, "binance_um", earned)
    labels(config, "bybit", earned)
    found = measure(config)
    assert found is not None
    assert (found["n"], found["bursts"]) == (40, 41)
    assert found["gross_bps"] == pytest.approx(14.0)
    assert found["net_bps"] == pytest.approx(3.0)
    assert found["cost_bps"] == pytest.approx(11.0)
    assert found["expected_gross_bps"] == pytest.approx(20.0 * truth.reference_share(10.0))
    moves = np.array([12.0 + number % 5 for number in range(1, 41)])
    assert found["se_bps"] == pytest.approx(moves.std(ddof=1) / math.sqrt(40))
    assert found["within_2_se"] is False
    assert "NOT within 2 se" in line_of(found)


def test_too_few_bursts_give_no_standard_error_and_none_give_nothing(config: Config) -> None:
    bursts(config, [(20.3, 1)], drift_bps=17.0)
    labels(config, "bybit", {21: 14.0})
    found = measure(config)
    assert found is not None
    assert (found["n"], found["se_bps"], found["within_2_se"]) == (1, None, None)
    assert "too few" in line_of(found)
    bursts(config, [], drift_bps=17.0)
    empty = measure(config)
    assert empty is not None
    assert (empty["n"], empty["gross_bps"], empty["bursts"]) == (0, None, 0)
    assert "none of 0 bursts" in line_of(empty)


def test_without_a_truth_there_is_nothing_to_measure(config: Config) -> None:
    assert measure(config) is None
