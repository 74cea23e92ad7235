"""When a resting post-only order fills: the touch, through and gate rules, as scans and one event at a time.

One definition for labels (scans), for the backtest and the runner's paper fills (steps): both are made of the same
comparisons, and the tests hold them equal. Everything is on the venue's clock and in the venue's order; where a print
and a quote carry the same time, the print comes first, since the quote is its result.

An order lives over (arrival_ns, cancel_ns): the book at arrival decides whether it is rejected, later events whether it
fills. Comparisons allow `slack` = half a tick, so that prices that differ in their last bit are the same price.
Queue position is not modelled: under `touch` the order is ahead of all, under `through` behind all.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from core.units import BPS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOUCH, THROUGH, GATE = 0, 1, 2
"""Rules: a print at or through the price; a print beyond it or the opposite best at or past it; an opposite aggressor's
notional of `gate_usd` at or through the price."""
RESTING, FILLED, REJECTED, CANCELLED, SENT = 0, 1, 2, 3, 4
_WHOLE: Final = 1e-6  # of a tick: what floating point may add to a price that lies on the grid

ORDER: Final = np.dtype(
    [
        ("side", np.int64),
        ("rule", np.int64),
        ("limit", np.float64),
        ("slack", np.float64),
        ("gate_usd", np.float64),
        ("eaten_usd", np.float64),
        ("arrival_ns", np.int64),
        ("cancel_ns", np.int64),
        ("state", np.int64),
        ("fill_ns", np.int64),
        ("fill_recv_ns", np.int64),
    ],
    align=True,
)
"""A working order as the step functions keep it: side +1 buy or -1 sell, prices in quote, times on the venue's clock
except `fill_recv_ns`, the receipt of the event that filled it."""


@njit(cache=True, nogil=True)
def limit_price(side: int, touch: float, delta_bps: float, tick: float) -> float:
    """`delta_bps` behind the own touch, rounded away from the market to the tick."""
    units = touch * (1.0 - side * delta_bps / BPS) / tick
    whole = np.floor(units + _WHOLE) if side > 0 else np.ceil(units - _WHOLE)
    return float(whole * tick)


@njit(cache=True, nogil=True)
def reaches(side: int, limit: float, price: float, slack: float) -> bool:
    """True for a price at or through the limit. With the opposite best for `price`: the order would cross."""
    return side * (limit - price) >= -slack


@njit(cache=True, nogil=True)
def passes(side: int, limit: float, price: float, slack: float) -> bool:
    """True for a price beyond the limit."""
    return side * (limit - price) > slack


@njit(cache=True, nogil=True)
def first_reaching(prices: Floats, start: int, stop: int, side: int, limit: float, slack: float) -> int:
    """First index in [start, stop) whose price is at or through the limit; `stop` if none."""
    for i in range(start, stop):
        if reaches(side, limit, prices[i], slack):
            return i
    return stop


@njit(cache=True, nogil=True)
def first_passing(prices: Floats, start: int, stop: int, side: int, limit: float, slack: float) -> int:
    """First index in [start, stop) whose price is beyond the limit; `stop` if none."""
    for i in range(start, stop):
        if passes(side, limit, prices[i], slack):
            return i
    return stop


@njit(cache=True, nogil=True)
def first_gated(
    prices: Floats,
    quantities: Floats,
    takers: NDArray[np.int8],
    start: int,
    stop: int,
    side: int,
    limit: float,
    slack: float,
    gate_usd: float,
) -> int:
    """First index in [start, stop) at which the opposite aggressor's notional at or through the limit reaches the gate.

    A gate of 0 opens at the first such print. `stop` if the gate stays shut.
    """
    eaten = 0.0
    for i in range(start, stop):
        if takers[i] == -side and reaches(side, limit, prices[i], slack):
            eaten += prices[i] * quantities[i]
            if eaten >= gate_usd:
                return i
    return stop


@njit(cache=True, nogil=True)
def arrive(orders: NDArray[np.void], k: int, bid: float, ask: float) -> None:
    """Put order k on the book, or reject it where it would cross the book that it meets."""
    order = orders[k]
    opposite = ask if order.side > 0 else bid
    crosses = reaches(order.side, order.limit, opposite, order.slack)
    order.state = REJECTED if crosses else RESTING


@njit(cache=True, nogil=True)
def step_trade(
    orders: NDArray[np.void], k: int, exch_ns: int, recv_ns: int, price: float, qty: float, taker: int
) -> bool:
    """Show a print to resting order k; True if it fills it. Only events inside (arrival, cancel) can."""
    order = orders[k]
    if order.state != RESTING or exch_ns <= order.arrival_ns or exch_ns >= order.cancel_ns:
        return False
    if not reaches(order.side, order.limit, price, order.slack):
        return False
    if order.rule == THROUGH and not passes(order.side, order.limit, price, order.slack):
        return False
    if order.rule == GATE:
        if taker != -order.side:
            return False
        order.eaten_usd += price * qty
        if order.eaten_usd < order.gate_usd:
            return False
    _fill(orders, k, exch_ns, recv_ns)
    return True


@njit(cache=True, nogil=True)
def step_quote(orders: NDArray[np.void], k: int, exch_ns: int, recv_ns: int, bid: float, ask: float) -> bool:
    """Show a quote to resting order k; True if it fills it (`through` only)."""
    order = orders[k]
    if order.state != RESTING or exch_ns <= order.arrival_ns or exch_ns >= order.cancel_ns:
        return False
    opposite = ask if order.side > 0 else bid
    if order.rule != THROUGH or not reaches(order.side, order.limit, opposite, order.slack):
        return False
    _fill(orders, k, exch_ns, recv_ns)
    return True


@njit(cache=True, nogil=True)
def _fill(orders: NDArray[np.void], k: int, exch_ns: int, recv_ns: int) -> None:
    orders[k].state = FILLED
    orders[k].fill_ns = exch_ns
    orders[k].fill_recv_ns = recv_ns
