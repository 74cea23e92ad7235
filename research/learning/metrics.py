"""The metric rows of reports and the lines that print them (design section 9).

Averages and `hit` are per fill, `trade_rate` is orders per decision, `fill_rate` fills per order. For a taker every
order fills. Figures without a denominator are None, printed as an en dash.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from research.learning.inference import block_s, ratio_of_sums
from research.learning.selection import Orders

Row = dict[str, Any]


def summary(orders: Orders, n_decisions: int, held_s: float) -> Row:
    """One row of figures: hit, rates, average gross and net bps, n fills and the 95 % interval of net per fill."""
    gross, net = orders.gross_bps[orders.filled], orders.net_bps[orders.filled]
    interval = ratio_of_sums(orders.start_ns[orders.filled], net, block_s(held_s))
    return {
        "hit": _mean(gross > 0.0),
        "trade_rate": orders.row.size / n_decisions if n_decisions else None,
        "fill_rate": orders.n_fills / orders.row.size if orders.row.size else None,
        "avg_gross_bps": _mean(gross),
        "avg_net_bps": _mean(net),
        "net_bps_per_order": _mean(orders.net_bps),
        "n": orders.n_fills,
        "n_orders": int(orders.row.size),
        "ci95": None if interval is None else list(interval.ci95),
    }


def line(row: Mapping[str, Any]) -> str:
    """`[thr=0.70, edge≥0.00bps] hit=0.715 | trade_rate=0.046 | avg_gross_bps=0.46 | avg_net_bps=-9.54`, n and ci95.

    With a fill gate the bracket ends in `, fill≥$50`. A maker's line ends with the share of orders
    that fill and the net of an order, filled or not.
    """
    gate = row.get("fill_usd")
    head = f"thr={row['thr']:.2f}, edge≥{row['edge_bps']:.2f}bps" + ("" if gate is None else f", fill≥${gate:g}")
    interval = row["ci95"]
    parts = [
        f"[{head}] hit={_text(row['hit'], 3)}",
        f"trade_rate={_text(row['trade_rate'], 3)}",
        f"avg_gross_bps={_text(row['avg_gross_bps'], 2)}",
        f"avg_net_bps={_text(row['avg_net_bps'], 2)}",
        f"n={row['n']}",
        "ci95=–" if interval is None else f"ci95=[{interval[0]:.2f}, {interval[1]:.2f}]",
    ]
    if row.get("delta_bps") is not None:
        parts += [
            f"fill_rate={_text(row['fill_rate'], 3)}",
            f"net_bps_per_order={_text(row['net_bps_per_order'], 2)}",
        ]
    return " | ".join(parts)


def skill(scores: NDArray[np.float64], returns_bps: NDArray[np.float64]) -> Row:
    """How well scores predict: R² against predicting 0, correlation, share of right signs where both have one."""
    known = np.isfinite(scores) & np.isfinite(returns_bps)
    score, target = scores[known], returns_bps[known]
    power, varies = float(target @ target), bool(score.size and np.ptp(score) > 0.0 and np.ptp(target) > 0.0)
    signed = (score != 0.0) & (target != 0.0)
    return {
        "n": int(score.size),
        "r2": 1.0 - float(np.sum((target - score) ** 2)) / power if power > 0.0 else None,
        "correlation": float(np.corrcoef(score, target)[0, 1]) if varies else None,
        "sign_hit": _mean(np.sign(score[signed]) == np.sign(target[signed])),
    }


def calibration_rows(
    probability: NDArray[np.float64], returns_bps: NDArray[np.float64], bins: int = 10, at_least: int = 10
) -> list[dict[str, float]]:
    """Predicted P(up) against the observed share of rises; returns of 0 are left out.

    Bins of equal width, since what is traded lies far out where bins of equal counts have no border; those with fewer
    than `at_least` rows are not told.
    """
    moved = np.isfinite(probability) & np.isfinite(returns_bps) & (returns_bps != 0.0)
    chance, up = probability[moved], returns_bps[moved] > 0.0
    place = np.minimum((chance * bins).astype(np.int64), bins - 1)
    members = [np.flatnonzero(place == each) for each in range(bins)]
    return [
        {"predicted": float(chance[rows].mean()), "observed": float(up[rows].mean()), "n": int(rows.size)}
        for rows in members
        if rows.size >= at_least
    ]


def _mean(values: NDArray[Any]) -> float | None:
    return float(np.mean(values)) if values.size else None


def _text(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
