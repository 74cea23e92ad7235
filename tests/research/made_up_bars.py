"""Made-up bars of 200 ms for tests of the catalogue: a market at rest, one that trades, and cuts of both."""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from core.store import day_start_ns
from core.units import NS_PER_S
from research.bars.columns import MAX_LEVELS, bar_columns
from research.catalogue import feature_rows

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
STEP_NS = NS_PER_S // 5
BAR = "time_200ms"
DEPTH = tuple(name for name in bar_columns(MAX_LEVELS) if re.fullmatch(r"(bid|ask)_(price|qty)_\d+", name))
TRADE_PRICES = ("trade_open_price", "trade_high_price", "trade_low_price", "trade_close_price")
UNKNOWN = ("mark_price", "index_price", "funding_rate", "open_interest", "funding_s")


def resting(n: int, **columns: float | Floats) -> Floats:
    """Bars (n, columns) with 20 levels of a standing book at 100 and nothing else, but for `columns`."""
    standing: dict[str, float | Floats] = {"bid_price": 99.99, "ask_price": 100.01, "bid_qty": 3.0, "ask_qty": 5.0}
    standing |= dict.fromkeys(("open_price", "high_price", "low_price", "close_price"), 100.0) | {"is_empty": 1.0}
    standing |= dict.fromkeys((*UNKNOWN, *TRADE_PRICES), np.nan)
    for k in range(1, MAX_LEVELS + 1):
        standing |= {f"bid_price_{k}": 100.0 - k / 100, f"ask_price_{k}": 100.0 + k / 100}
        standing |= {f"bid_qty_{k}": 3.0, f"ask_qty_{k}": 5.0}
    values = standing | columns
    return np.column_stack([np.broadcast_to(values.get(name, 0.0), n) for name in bar_columns(MAX_LEVELS)])


def without_depth(values: Floats) -> Floats:
    """The same bars where only the best prices were recorded."""
    known = values.copy()
    known[:, len(bar_columns(0)) :] = np.nan
    return known


def without(values: Floats, columns: Sequence[str], rows: slice) -> Floats:
    """The same bars where some columns are not known in some rows. Levels that are not known have no order flow."""
    known, names = values.copy(), bar_columns(MAX_LEVELS)
    known[rows, [names.index(name) for name in columns]] = np.nan
    if set(DEPTH) <= set(columns):
        known[rows, [k for k, name in enumerate(names) if name.startswith("ofi_qty_")]] = 0.0
    return known


def trading(n: int, seed: int, scale: float = 1.0) -> Floats:
    """A market that moves, trades, liquidates and pays funding, with jumps and quiet bars; prices times `scale`."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0.0, 1e-4, n) * (rng.random(n) < 0.6) + 2e-3 * rng.standard_t(3, n) * (rng.random(n) < 0.003)
    mid = 100.0 * np.exp(np.cumsum(steps)) * scale
    before = np.concatenate([mid[:1], mid[:-1]])
    tick = 1e-4 * mid * (1 + rng.integers(0, 3, n)) * rng.uniform(0.99, 1.01, n)
    side = rng.random((n, 2)) < 0.3
    qty, counts = rng.lognormal(0.0, 1.0, (n, 2)) * side, side * (1 + rng.poisson(1.0, (n, 2)))
    usd, largest = qty * mid[:, None] * (1 + 1e-4 * rng.normal(size=(n, 2))), 0.7 * qty.max(axis=1) * mid
    is_large = rng.random((n, 2)) < 0.2
    liquidated = rng.lognormal(3.0, 1.5, (n, 2)) * (rng.random((n, 2)) < 0.05) * scale
    values: dict[str, float | Floats] = {
        "bid_price": mid - tick, "ask_price": mid + tick,
        "bid_qty": rng.lognormal(0.3, 0.7, n), "ask_qty": rng.lognormal(0.3, 0.7, n),
        "open_price": before, "close_price": mid,
        "high_price": np.maximum(before, mid) * (1 + 1e-5 * rng.random(n)),
        "low_price": np.minimum(before, mid) * (1 - 1e-5 * rng.random(n)),
        "buy_qty": qty[:, 0], "sell_qty": qty[:, 1], "buy_usd": usd[:, 0], "sell_usd": usd[:, 1],
        "buy_count": counts[:, 0], "sell_count": counts[:, 1], "quote_count": rng.poisson(2.0, n).astype(float),
        "ofi_qty": rng.normal(size=n) * 3 + qty[:, 0] - qty[:, 1],
        "effective_usd": 2 * tick * qty.sum(axis=1) * rng.random(n),
        "square_usd": 0.6 * usd.sum(axis=1) ** 2, "max_trade_usd": largest,
        "large_buy_usd": usd[:, 0] * is_large[:, 0], "large_sell_usd": usd[:, 1] * is_large[:, 1],
        "large_count": (is_large & side).sum(axis=1).astype(float),
        "liq_long_usd": liquidated[:, 0], "liq_short_usd": liquidated[:, 1],
        "liq_count": (liquidated > 0).sum(axis=1).astype(float), "liq_max_usd": liquidated.max(axis=1),
        "liq_square_usd": (liquidated**2).sum(axis=1),
        "mark_price": mid * (1 + 1e-5 * rng.normal(size=n)), "index_price": mid * (1 + 1e-4 * rng.normal(size=n)),
        "funding_rate": 1e-4 + 1e-6 * np.cumsum(rng.normal(size=n) * (rng.random(n) < 0.01)),
        "open_interest": 1e4 + np.cumsum(rng.normal(size=n) * (rng.random(n) < 0.2)),
        "funding_s": 28_800.0 - np.arange(n) / 5, "is_empty": (~side.any(axis=1)).astype(float),
    }  # fmt: skip
    values |= {name: np.where(side.any(axis=1), values[name.removeprefix("trade_")], np.nan) for name in TRADE_PRICES}
    for k in range(1, MAX_LEVELS + 1):
        away = tick * (2 * k - 1)
        values |= {f"bid_price_{k}": mid - away, f"ask_price_{k}": mid + away}
        values |= {f"{book}_qty_{k}": rng.lognormal(0.3, 0.5, n) for book in ("bid", "ask")}
        values |= {f"ofi_qty_{k}": rng.normal(size=n) + values["ofi_qty"] / k}
    return resting(n, **values)


def rows_of(values: Floats) -> tuple[Floats, Ints]:
    """What a program of the whole catalogue reads: its rows, and their bar indices."""
    close_ns = day_start_ns("2026-01-05") + STEP_NS * np.arange(1, len(values) + 1)
    return feature_rows(values, close_ns), close_ns // STEP_NS - 1
