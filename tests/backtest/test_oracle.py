"""The oracle on labels made by hand: its decision, its sides, its denominator, its standard error."""

import io
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from backtest.market import truth
from backtest.market.simulate import Burst
from backtest.oracle import decision_ns, lines_of, measure, run_oracle
from core import store
from core.config import Config, load
from core.run_record import RunRecord
from core.schema import LABELS
from core.units import NS_PER_S

T0 = 1_767_592_800 * NS_PER_S
ALL = (0, 2 * T0)
PIPELINE = {"net_bps_per_order": -1.25, "n_orders": 7}


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
    found = measure(config, ALL)
    assert found is not None
    oracle = found["oracle"]
    assert (oracle["n"], found["bursts"]) == (40, 41)
    assert oracle["gross_bps"] == pytest.approx(14.0)
    assert oracle["net_bps"] == pytest.approx(3.0)
    assert found["cost_bps"] == pytest.approx(11.0)
    assert found["gross_bps"] == pytest.approx(20.0 * truth.reference_share(10.0))
    assert found["net_bps"] == pytest.approx(found["gross_bps"] - 11.0)
    moves = np.array([12.0 + number % 5 for number in range(1, 41)])
    assert oracle["se_bps"] == pytest.approx(moves.std(ddof=1) / math.sqrt(40))
    assert oracle["within_2_se"] is False
    found["holdout"] |= {"pipeline_net_bps": None, "pipeline_n": 0}
    assert "gross 14.00 ± 0.45 (2 se) bps" in lines_of(found)[0]
    assert "beyond 2 se: 1 run in 20 is" in lines_of(found)[0]


def test_in_the_hold_out_it_stands_beside_the_pipeline(config: Config) -> None:
    bursts(config, [(10.3, 1), (20.3, -1), (30.3, 1), (40.3, 1)], drift_bps=17.0)
    for venue in ("binance_um", "bybit"):
        labels(config, venue, {11: 10.0, 21: -12.0, 31: 15.0, 41: 19.0})
    out = io.StringIO()
    record = RunRecord(config, Console(file=out, width=300))
    with record.stage("backtest") as stage:
        run_oracle(config, stage, (T0 + 21 * NS_PER_S, T0 + 31 * NS_PER_S), PIPELINE)
    late = {"oracle_net_bps": pytest.approx(2.5), "oracle_n": 2, "pipeline_net_bps": -1.25, "pipeline_n": 7}
    assert record.sections["truth"]["holdout"] == late
    line = "oracle in the hold-out: net 2.50 bps over 2 bursts; pipeline: net -1.25 bps over 7 orders"
    assert line in out.getvalue()


def test_too_few_bursts_give_no_standard_error_and_none_give_nothing(config: Config) -> None:
    bursts(config, [(20.3, 1)], drift_bps=17.0)
    labels(config, "bybit", {21: 14.0})
    found = measure(config, ALL)
    assert found is not None
    assert [found["oracle"][name] for name in ("n", "se_bps", "within_2_se")] == [1, None, None]
    found["holdout"] |= {"pipeline_net_bps": None, "pipeline_n": 0}
    assert "too few" in lines_of(found)[0]
    assert "±" not in lines_of(found)[0]
    bursts(config, [], drift_bps=17.0)
    empty = measure(config, ALL)
    assert empty is not None
    assert (empty["oracle"]["n"], empty["gross_bps"], empty["bursts"]) == (0, None, 0)
    assert "none of 0 bursts" in lines_of(empty)[0]


def test_without_a_truth_there_is_nothing_to_measure(config: Config) -> None:
    assert measure(config, ALL) is None
