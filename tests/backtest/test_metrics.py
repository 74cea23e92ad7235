"""Figures of a backtest by hand, and without orders."""

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.engine import RECORD
from backtest.metrics import CURVE_POINTS, equity_curve, holdout_section, lines, max_drawdown
from backtest.run_backtest import order_rows
from core.units import NS_PER_HOUR, NS_PER_MINUTE

pnl = st.lists(st.floats(-100, 100), max_size=50).map(np.array)


def records(rows: list[dict[str, Any]]) -> pl.DataFrame:
    made = np.zeros(len(rows), RECORD)
    for k, row in enumerate(rows):
        for name, value in row.items():
            made[k][name] = value
    return order_rows(made, "binance_um:BTCUSDT")


def closed(minute: int, net_bps: float, net_usd: float) -> dict[str, Any]:
    at = minute * NS_PER_MINUTE + NS_PER_HOUR
    return {"decision_ns": at, "side": 1, "fill_ns": at, "fill_recv_ns": at, "exit_ns": at, "end_ns": at} | {
        "gross_bps": net_bps + 7.0, "fees_bps": 7.0, "net_bps": net_bps, "net_usd": net_usd, "gross_usd": net_usd + 0.7
    }  # fmt: skip


def test_the_section_by_hand() -> None:
    """Two closed, one unfilled, one rejected, one refused: four orders, two fills."""
    orders = records([
        closed(0, 4.0, 0.4), {"decision_ns": NS_PER_HOUR, "outcome": 1}, {"decision_ns": NS_PER_HOUR, "outcome": 2},
        {"decision_ns": NS_PER_HOUR, "outcome": 4}, closed(30, -10.0, -1.0),
    ])  # fmt: skip
    section = holdout_section(orders, 20.0)
    assert (section["n_orders"], section["n_fills"], section["n_rejected"]) == (4, 2, 1)
    assert section["fill_rate"] == 0.5
    assert section["net_bps_per_fill"] == -3.0
    assert section["net_bps_per_order"] == -1.5
    assert section["gross_bps"] == 4.0
    assert section["hit"] == 0.5
    assert section["total_usd"] == pytest.approx(-0.6)
    assert section["max_drawdown_usd"] == pytest.approx(1.0)
    assert section["not_sent"] == {"side busy": 1}
    curve = {"hours": [0.0, 0.5], "net_usd": [0.4, -0.6], "gross_usd": [1.1, 0.8], "drawdown_usd": [0.0, -1.0]}
    assert section["equity"] == curve
    assert section["ci95"] is None  # two blocks
    assert section["by_symbol"]["binance_um:BTCUSDT"]["n_orders"] == 4
    assert any("4 orders" in line for line in lines(section, ["binance_um:BTCUSDT"]))


@pytest.mark.parametrize(("slippage_bps", "said"), [(0.0, "slippage=assumed 0.00 -"), (0.25, "slippage=0.25 -")])
def test_the_line_says_what_a_hit_is_and_that_no_slippage_is_an_assumption(slippage_bps: float, said: str) -> None:
    orders = records([closed(0, 4.0, 0.4) | {"slippage_bps": slippage_bps}])
    per_fill = lines(holdout_section(orders, 20.0), [])[1]
    assert "hit (gross > 0)=1.000" in per_fill
    assert said in per_fill


def test_without_orders_every_mean_is_null() -> None:
    section = holdout_section(records([]), 20.0)
    assert section["n_orders"] == 0
    assert section["net_bps_per_order"] is None
    assert section["equity"] == {"hours": [], "net_usd": [], "gross_usd": [], "drawdown_usd": []}
    assert lines(section, []) == ["hold-out: no order was sent"]


@given(pnl)
def test_the_drawdown_is_the_worst_fall_between_any_two_moments(steps: np.ndarray) -> None:
    equity = [0.0, *np.cumsum(steps)]
    falls = [equity[i] - equity[j] for i in range(len(equity)) for j in range(i, len(equity))]
    assert max_drawdown(steps) == pytest.approx(max(falls))


def test_a_long_curve_is_thinned_and_keeps_its_end_and_its_deepest_fall() -> None:
    orders = records([closed(minute, 1.0, 0.1) for minute in range(3 * CURVE_POINTS)])
    curve = equity_curve(orders, NS_PER_HOUR)
    assert set(curve["drawdown_usd"]) == {0.0}
    falls = np.where(np.arange(3 * CURVE_POINTS) == 100, -5.0, 0.1)
    fallen = equity_curve(orders.with_columns(net_usd=falls), NS_PER_HOUR)["drawdown_usd"]
    assert len(fallen) == CURVE_POINTS
    assert -min(fallen) == pytest.approx(max_drawdown(falls))
    assert len(curve["hours"]) == CURVE_POINTS
    assert curve["net_usd"][-1] == pytest.approx(0.3 * CURVE_POINTS)
