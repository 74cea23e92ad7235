"""What stands between fits and files: costs, abstention, whose scores the grids show."""

import numpy as np

from core.config import Labels
from research.learning.candidates import Candidate
from research.learning.dataset import Outcomes
from research.learning.selection import Search
from research.learning.training import best_families, longest_chosen_s, round_trip_bps, traded


def test_a_round_trip_costs_what_both_sides_lose_together() -> None:
    # The return, +4 then -2, cancels; costs are 10.2, 10.4 and 11.
    net = np.array([[4.0 - 10.2, -2.0 - 10.4, -11.0], [-4.0 - 10.2, 2.0 - 10.4, -11.0]])
    outcomes = Outcomes(net, net, np.zeros((2, 3), np.int64), np.ones((2, 3), np.bool_))
    assert round_trip_bps(outcomes, np.array([0, 1, 2])) == 10.4
    assert round_trip_bps(outcomes, np.array([2])) == 11.0


def test_blocks_trade_only_what_has_paid_so_far() -> None:
    candidate = Candidate("taker", "hgb", 10.0, 0.6, 5.0)
    found = Search([candidate], np.array([[-1.0, 0.0, 0.5, 2.0]]), np.full((1, 4), 99), [0, 0, 0, None])
    assert [traded(found, block) for block in range(4)] == [False, False, True, False]


def test_intervals_suit_the_longest_of_the_chosen_policies() -> None:
    short, long = (Candidate("taker", "hgb", horizon_s, 0.6, 5.0) for horizon_s in (10.0, 600.0))
    t = np.array([[1.0, 1.0, 1.0], [1.0, -1.0, 1.0]])
    assert longest_chosen_s(Search([short, long], t, np.full((2, 3), 99), [1, 0, 0]), short, Labels()) == 600.0
    assert longest_chosen_s(Search([short, long], t, np.full((2, 3), 99), [0, 1, 0]), short, Labels()) == 10.0


def test_grids_show_the_family_that_predicts_best_at_each_horizon() -> None:
    rows = [{"oof": {"r2": value}} for value in (0.01, None, 0.03, -0.2)]
    keys = [("hgb", 10.0), ("hgb", 60.0), ("lightgbm", 10.0), ("lightgbm", 60.0)]
    assert best_families(rows, dict.fromkeys(keys)) == {10.0: "lightgbm", 60.0: "lightgbm"}
