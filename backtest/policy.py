"""What may be ordered: size and limits, the same rules for the backtest and the runner.

At most `max_position` positions or working orders per symbol and side at a time, since results are scored on tradeable
trades (method section 3), and an inventory per symbol that stays within `max_inventory_usd` even if every working order
fills.
"""

from typing import NamedTuple

import numpy as np

from core.config import Backtest
from core.kernels import njit

ALLOWED, SIDE_BUSY, INVENTORY_FULL, TOO_SMALL = 0, 1, 2, 3
_WHOLE = 1e-9  # of a lot: what floating point may take from a quantity that lies on the grid


class Limits(NamedTuple):
    """Per symbol. Dollars are notional at entry."""

    max_position: int
    order_usd: float
    max_inventory_usd: float


def limits_of(settings: Backtest) -> Limits:
    return Limits(settings.max_position, settings.order_usd, settings.max_inventory_usd)


@njit(cache=True, nogil=True)
def order_qty(price: float, order_usd: float, lot_qty: float, min_notional_usd: float) -> float:
    """The most whole lots that `order_usd` buys at `price`; 0 where that is below the venue's least notional."""
    qty = np.floor(order_usd / price / lot_qty + _WHOLE) * lot_qty
    return float(qty) if qty > 0.0 and qty * price >= min_notional_usd else 0.0


@njit(cache=True, nogil=True)
def refusal(
    side: int,
    busy: int,
    inventory_usd: float,
    working_usd: float,
    notional_usd: float,
    max_position: int,
    max_inventory_usd: float,
) -> int:
    """ALLOWED, or why an order of `notional_usd` on `side` (+1, -1) may not be sent.

    `busy` counts positions and working orders on that side, `inventory_usd` is signed, `working_usd` is the notional of
    the side's working orders. An order that cannot take the inventory past its limit is allowed, even above it.
    """
    if notional_usd <= 0.0:
        return TOO_SMALL
    if busy >= max_position:
        return SIDE_BUSY
    if side * inventory_usd + working_usd + notional_usd > max_inventory_usd:
        return INVENTORY_FULL
    return ALLOWED
