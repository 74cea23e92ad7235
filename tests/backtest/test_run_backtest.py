"""The backtest stage: what it asks for before it trades, and what it does not let pass."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from backtest.engine import RECORD
from backtest.run_backtest import _compare, has_fills, order_rows, require_agreement, require_scores
from core import store
from core.errors import StageError
from core.schema import FILLS, LABELS, SCORES
from core.store import Partition
from core.units import NS_PER_S
from research.learning.candidates import Candidate, Winner
from research.learning.decision import Calibration

T0 = 1_767_592_800 * NS_PER_S
TAKER = Candidate("taker", "hgb", 10.0, 0.5, 0.0)
DAYS = [Partition(SCORES.name, "binance_um", "BTCUSDT", f"2026-01-0{day}") for day in (5, 6)]


def winner_of(*symbols: str) -> Winner:
    return Winner(
        candidate=TAKER,
        calibration=Calibration(0.0, 1.0),
        features=[("x", "close_price")],
        bars="time_200ms",
        decision="1s",
        symbols=list(symbols),
        train_window=(T0, T0),
        holdout_window=(T0, T0 + 100 * NS_PER_S),
        verdict="no edge",
        reasons=["made up"],
        tradeable=False,
        metrics={},
        data_fingerprint="",
    )


def orders_of(nets_bps: list[float]) -> pl.DataFrame:
    records = np.zeros(len(nets_bps), RECORD)
    records["decision_ns"], records["side"] = T0 + NS_PER_S * np.arange(len(nets_bps)), 1
    records["net_bps"] = nets_bps
    return order_rows(records, "binance_um:BTCUSDT")


def write_scores(root: Path, part: Partition) -> None:
    store.write(root, part, pl.DataFrame({"decision_ns": [T0], "fold": [-1]}, schema=SCORES.columns))


def write_labels(root: Path, nets_bps: list[float], hold: str = "10") -> None:
    frame = pl.DataFrame({"decision_ns": T0 + NS_PER_S * np.arange(len(nets_bps))})
    nets = pl.Series(nets_bps, dtype=pl.Float32)
    frame = frame.with_columns(nets.alias(f"tk_{hold}_buy_net_bps"), nets.alias(f"tk_{hold}_sell_net_bps"))
    store.write(root, DAYS[0].of(LABELS), frame)


def test_every_symbol_of_the_winner_needs_scores(tmp_path: Path) -> None:
    write_scores(tmp_path, DAYS[0])
    require_scores(tmp_path, winner_of("binance_um:BTCUSDT"))
    with pytest.raises(StageError, match=r"nothing for bybit:ETHUSDT, of the 2 symbols.*run_pipeline\.py train"):
        require_scores(tmp_path, winner_of("binance_um:BTCUSDT", "bybit:ETHUSDT"))


def test_fills_are_whole_only_with_every_day_of_scores_from_the_same_run(tmp_path: Path) -> None:
    store.write(tmp_path, DAYS[0].of(FILLS), orders_of([1.0]), "key")
    assert has_fills(tmp_path, DAYS[:1], "key")
    assert not has_fills(tmp_path, DAYS, "key")
    store.write(tmp_path, DAYS[1].of(FILLS), orders_of([1.0]), "a run that then failed")
    assert not has_fills(tmp_path, DAYS, "key")


@pytest.mark.parametrize("worst", [0.01, float("nan")])
def test_nets_that_are_not_the_labels_stop_the_stage(worst: float) -> None:
    require_agreement({"max_abs_net_diff_bps": 9e-7})
    with pytest.raises(StageError, match=r"different settings .* run `python run_pipeline\.py labels train backtest`"):
        require_agreement({"max_abs_net_diff_bps": worst})


def test_the_largest_difference_is_over_orders_that_labels_hold(tmp_path: Path) -> None:
    write_labels(tmp_path, [4.0, -3.0])
    assert _compare(tmp_path, TAKER, DAYS[0], orders_of([4.0, -3.5, 99.0])) == (2, 0.5)


def test_labels_of_another_horizon_are_named(tmp_path: Path) -> None:
    write_labels(tmp_path, [4.0], hold="60")
    with pytest.raises(StageError, match="no column tk_10_buy_net_bps: labels, scores and backtest"):
        _compare(tmp_path, TAKER, DAYS[0], orders_of([4.0]))
