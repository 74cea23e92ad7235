"""Metric rows by hand, and the exact form of their lines."""

import numpy as np
import pytest

from research.learning import metrics
from research.learning.selection import Orders


def orders(net: list[float], gross: list[float], filled: list[bool]) -> Orders:
    n = len(net)
    start = np.arange(n, dtype=np.int64) * 700 * 10**9
    return Orders(
        np.arange(n), np.ones(n, np.int8), start, start, np.array(gross), np.array(net), np.array(filled, np.bool_)
    )


def test_averages_are_per_fill_and_rates_have_their_denominators() -> None:
    row = metrics.summary(orders([2.0, 0.0, -4.0], [3.0, 0.0, -3.0], [True, False, True]), 30, 10.0)
    assert (row["hit"], row["trade_rate"], row["fill_rate"]) == (0.5, 0.1, pytest.approx(2 / 3))
    assert (row["avg_gross_bps"], row["avg_net_bps"], row["n"]) == (0.0, -1.0, 2)
    assert row["net_bps_per_order"] == pytest.approx(-2 / 3)
    assert row["ci95"] is None


def test_no_orders_and_no_fills_are_unknown_and_not_nan() -> None:
    nothing = metrics.summary(orders([], [], []), 30, 10.0)
    assert [nothing[name] for name in ("hit", "trade_rate", "fill_rate", "avg_net_bps")] == [None, 0.0, None, None]
    unfilled = metrics.summary(orders([0.0], [0.0], [False]), 30, 10.0)
    assert (unfilled["hit"], unfilled["fill_rate"], unfilled["net_bps_per_order"]) == (None, 0.0, 0.0)


def test_lines_keep_the_form_that_people_read() -> None:
    row = {"thr": 0.7, "edge_bps": 0.0, "hit": 0.7149, "trade_rate": 0.0461, "avg_gross_bps": 0.456}
    row |= {"avg_net_bps": -9.544, "n": 812, "ci95": [-9.9, -9.2]}
    assert metrics.line(row) == (
        "[thr=0.70, edge≥0.00bps] hit=0.715 | trade_rate=0.046 | avg_gross_bps=0.46 | avg_net_bps=-9.54"
        " | n=812 | ci95=[-9.90, -9.20]"
    )
    assert metrics.line(row | {"fill_usd": 50.0}).startswith("[thr=0.70, edge≥0.00bps, fill≥$50] hit=")
    empty = row | {"hit": None, "avg_net_bps": None, "n": 0, "ci95": None}
    assert metrics.line(empty).endswith("hit=– | trade_rate=0.046 | avg_gross_bps=0.46 | avg_net_bps=– | n=0 | ci95=–")


def test_a_makers_line_tells_what_an_order_is_worth() -> None:
    row = metrics.summary(orders([2.0, 0.0, -4.0], [3.0, 0.0, -3.0], [True, False, True]), 30, 10.0)
    maker = row | {"thr": 0.5, "edge_bps": 1.0, "delta_bps": 5.0, "fill_usd": None}
    assert metrics.line(maker).endswith(" | ci95=– | fill_rate=0.667 | net_bps_per_order=-0.67")
    assert "per_order" not in metrics.line(row | {"thr": 0.5, "edge_bps": 1.0})


def test_skill_by_hand() -> None:
    found = metrics.skill(np.array([1.0, -1.0, np.nan, 2.0]), np.array([1.0, 1.0, 5.0, 2.0]))
    assert (found["n"], found["r2"], found["sign_hit"]) == (3, pytest.approx(1 - 4 / 6), pytest.approx(2 / 3))
    flat = metrics.skill(np.zeros(3), np.zeros(3))
    assert (flat["r2"], flat["correlation"], flat["sign_hit"]) == (None, None, None)


def test_calibration_bins_hold_equal_counts_and_leave_out_what_did_not_move() -> None:
    chance = np.array([0.1, 0.2, 0.8, 0.9, 0.5])
    rows = metrics.calibration_rows(chance, np.array([-1.0, -1.0, 1.0, 1.0, 0.0]), bins=2, at_least=2)
    assert [(row["n"], row["observed"]) for row in rows] == [(2, 0.0), (2, 1.0)]
    assert rows[0]["predicted"] == pytest.approx(0.15)
