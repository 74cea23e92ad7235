"""Figures of a backtest from the rows of the `fills` table: per order, per fill, in dollars, and the equity curve.

Denominators are those of method section 3: orders that were sent and came to an end; one that did not fill earns 0.
Equity is realised: it moves when a position is closed.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.units import NS_PER_HOUR
from research.learning.inference import block_s, ratio_of_sums

CLOSED: Final = "closed"
ENDED: Final = (CLOSED, "unfilled", "rejected")
CURVE_POINTS: Final = 400
Floats = NDArray[np.float64]


def holdout_section(orders: pl.DataFrame, held_s: float) -> dict[str, Any]:
    """The `holdout` section: `orders` are rows of all symbols with columns `symbol`, sorted by decision.

    `held_s` is R + T, from which the interval's calendar blocks follow.
    """
    sent = orders.filter(pl.col("outcome").is_in(ENDED))
    interval = ratio_of_sums(sent["decision_ns"].to_numpy(), sent["net_bps"].to_numpy(), block_s(held_s))
    closed = sent.filter(outcome=CLOSED).sort("end_ns")
    return figures(sent) | {
        "ci95": None if interval is None else list(interval.ci95),
        "total_usd": float(closed["net_usd"].sum()),
        "max_drawdown_usd": max_drawdown(closed["net_usd"].to_numpy()),
        "equity": equity_curve(closed, int(orders["decision_ns"][0]) if orders.height else 0),
        "by_symbol": {name: figures(sent.filter(symbol=name)) for name in orders["symbol"].unique().sort()},
        "not_sent": counts(orders.filter(~pl.col("outcome").is_in(ENDED))),
    }


def figures(sent: pl.DataFrame) -> dict[str, Any]:
    """Counts and mean bps of ended orders; null where there is nothing to divide by."""
    closed = sent.filter(outcome=CLOSED)
    return {
        "n_orders": sent.height,
        "n_fills": closed.height,
        "n_rejected": sent.filter(outcome="rejected").height,
        "fill_rate": closed.height / sent.height if sent.height else None,
        "hit": closed.select((pl.col("gross_bps") > 0).mean()).item(),
        "gross_bps": closed["gross_bps"].mean(),
        "entry_bps": closed["entry_bps"].mean(),
        "half_spread_bps": closed["half_spread_bps"].mean(),
        "slippage_bps": closed["slippage_bps"].mean(),
        "fee_bps": closed["fees_bps"].mean(),
        "funding_bps": closed["funding_bps"].mean(),
        "net_bps_per_fill": closed["net_bps"].mean(),
        "net_bps_per_order": sent["net_bps"].mean(),
        "net_usd": float(closed["net_usd"].sum()),
    }


def max_drawdown(pnl_usd: Floats) -> float:
    """The deepest fall of the running sum below its peak so far, at least 0; the start counts as a peak."""
    return float(-drawdowns(pnl_usd).min(initial=0.0))


def drawdowns(pnl_usd: Floats) -> Floats:
    """How far the running sum (n,) is below its peak so far, at most 0; the start counts as a peak."""
    equity = np.cumsum(pnl_usd)
    return np.asarray(equity - np.maximum.accumulate(np.maximum(equity, 0.0)))


def equity_curve(closed: pl.DataFrame, from_ns: int) -> dict[str, list[float]]:
    """Hours since `from_ns` and running net and gross dollars at closes, thinned to CURVE_POINTS with the last kept.

    `drawdown_usd` is the deepest since the point before, so that the deepest of all is among them.
    """
    hours = (closed["end_ns"].to_numpy() - from_ns) / NS_PER_HOUR
    net, gross = np.cumsum(closed["net_usd"].to_numpy()), np.cumsum(closed["gross_usd"].to_numpy())
    kept = np.unique(np.linspace(0, hours.size - 1, min(hours.size, CURVE_POINTS)).astype(np.int64))
    fallen, begins = drawdowns(closed["net_usd"].to_numpy()), np.concatenate([[0], kept[:-1] + 1])
    deepest = np.minimum.reduceat(fallen, begins[: kept.size]) if kept.size else fallen
    return {
        "hours": [round(float(value), 4) for value in hours[kept]],
        "net_usd": [round(float(value), 4) for value in net[kept]],
        "gross_usd": [round(float(value), 4) for value in gross[kept]],
        "drawdown_usd": [round(float(value), 4) for value in deepest],
    }


def counts(rows: pl.DataFrame) -> dict[str, int]:
    """Rows by outcome."""
    grouped = rows.group_by("outcome").len().sort("outcome")
    return dict(zip(grouped["outcome"].to_list(), grouped["len"].to_list(), strict=True))


def lines(section: dict[str, Any], instruments: Sequence[str]) -> list[str]:
    """What the stage prints of the section, each line with its denominators."""
    if not section["n_orders"]:
        return ["hold-out: no order was sent"]
    head = (
        f"hold-out: {section['n_orders']:,} orders | fill_rate={section['fill_rate']:.3f} | "
        f"net_bps_per_order={section['net_bps_per_order']:.2f} | ci95={_interval(section['ci95'])}"
    )
    money = (
        f"hold-out: total ${section['total_usd']:,.2f} | max drawdown ${section['max_drawdown_usd']:,.2f} | "
        f"{section['n_fills']:,} fills"
    )
    return [head, *_fill_lines("hold-out", section), money, *(_symbol_line(section, name) for name in instruments)]


def _fill_lines(name: str, row: dict[str, Any]) -> list[str]:
    if not row["n_fills"]:
        return []
    slippage = f"{row['slippage_bps']:.2f}" if row["slippage_bps"] else "assumed 0.00"  # 0 only where the setting is
    text = (
        f"{name}, per fill: hit (gross > 0)={row['hit']:.3f} | gross={row['gross_bps']:.2f} + "
        f"entry={row['entry_bps']:.2f} - half_spread={row['half_spread_bps']:.2f} - slippage={slippage} - "
        f"fees={row['fee_bps']:.2f} - funding={row['funding_bps']:.2f} = net {row['net_bps_per_fill']:.2f} bps"
    )
    return [text]


def _symbol_line(section: dict[str, Any], name: str) -> str:
    row = section["by_symbol"].get(name)
    if not row or not row["n_orders"]:
        return f"  {name}: no order"
    return (
        f"  {name}: {row['n_orders']:,} orders, {row['n_fills']:,} fills, "
        f"net_bps_per_order={row['net_bps_per_order']:.2f}, ${row['net_usd']:,.2f}"
    )


def _interval(bounds: list[float] | None) -> str:
    return "–" if bounds is None else f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"
