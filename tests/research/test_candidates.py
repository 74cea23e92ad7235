"""The grid of candidates and the winner's file."""

from pathlib import Path

import pytest

from core.cells import MakerCell, TakerCell
from core.config import Labels, Train
from core.errors import StageError
from research.learning.candidates import (
    Candidate,
    Winner,
    candidate_cells,
    cost_rungs,
    held_s,
    policies,
    read_winner,
    winner_path,
    write_winner,
)
from research.learning.decision import Calibration


def test_makers_start_at_their_shortest_horizon_and_rest_on_through() -> None:
    cells = candidate_cells(Train(horizons_s=(1.0, 10.0)), Labels(deltas_bps=(0.0, 2.0)))
    assert cells == [TakerCell(1.0), TakerCell(10.0), MakerCell(0.0, 10.0, "through"), MakerCell(2.0, 10.0, "through")]


def test_a_maker_binds_a_position_for_rest_and_hold() -> None:
    assert held_s(TakerCell(60.0), Labels()) == 60.0
    assert held_s(MakerCell(0.0, 10.0), Labels()) == 20.0
    assert held_s(MakerCell(0.0, 60.0), Labels()) == 70.0  # the fill time is shared by all T, so R is too


def test_rungs_are_shares_of_the_round_trip() -> None:
    assert cost_rungs(10.0) == [6.0, 7.0, 8.0, 9.0, 10.0]
    assert cost_rungs(0.0) == []
    assert cost_rungs(-1.0) == []


def test_policies_are_the_grid_and_the_rungs_at_the_lowest_threshold() -> None:
    cell = MakerCell(2.0, 10.0)
    made = policies(Train(thresholds=(0.6, 0.5), edges_bps=(0.0, 6.0)), cell, "hgb", [6.0, 7.0])
    asked = [(policy.threshold, policy.edge_bps) for policy in made]
    assert asked == [(0.6, 0.0), (0.6, 6.0), (0.5, 0.0), (0.5, 6.0), (0.5, 7.0)]
    assert {policy.cell for policy in made} == {cell}
    assert {policy.model for policy in made} == {"hgb_10"}


def test_the_winner_is_read_as_written_and_its_absence_named(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="train"):
        read_winner(tmp_path)
    winner = Winner(
        candidate=Candidate("taker", "hgb", 10.0, 0.6, 5.0),
        calibration=Calibration(0.1, 0.25),
        features=[("spread", "(sub ask_price bid_price)")],
        bars="time_200ms",
        decision="1s",
        symbols=["bybit:BTCUSDT"],
        train_window=(1, 2),
        holdout_window=(3, 4),
        verdict="no edge",
        reasons=["hold-out mean is -1.00 bps net, needs to be above 0"],
        tradeable=False,
        metrics={"z": None},
        data_fingerprint="f",
    )
    write_winner(tmp_path, winner)
    assert read_winner(tmp_path) == winner
    winner_path(tmp_path).write_text("{}")
    with pytest.raises(StageError, match="cannot be read"):
        read_winner(tmp_path)
