"""The tick backtest: one symbol's hold-out, event by event on the venue's clock, orders and positions under limits.

Quotes and prints are walked one at a time in the venue's order. Working orders see each through the step functions of
labels/fills.py, which the label grid's scans must agree with; exits and arrivals are timers that fire between events.
What the policy knows when it decides is what it had received: a side is free again once the notice of the close, the
cancel or the rejection is in.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from backtest.policy import ALLOWED, Limits, order_qty, refusal
from core.kernels import njit
from labels.fees import Costs, Funding, funding_bps, round_trip
from labels.fills import (
    CANCELLED,
    FILLED,
    ORDER,
    REJECTED,
    RESTING,
    SENT,
    arrive,
    limit_price,
    step_quote,
    step_trade,
)
from labels.grid import Decisions
from labels.venue_events import Quotes, Trades

Ints = NDArray[np.int64]
Records = NDArray[np.void]

OUTCOMES: Final = ("closed", "unfilled", "rejected", "open at the end", "side busy", "inventory full", "too small")
"""`outcome` of a record: its place here. The last three were never sent."""
CLOSED, UNFILLED, TURNED_AWAY, OPEN, _REFUSED = 0, 1, 2, 3, 3
_FREE: Final = -1

RECORD: Final = np.dtype(
    [
        ("decision_ns", np.int64),
        ("side", np.int64),
        ("outcome", np.int64),
        ("price", np.float64),
        ("qty", np.float64),
        ("arrival_ns", np.int64),
        ("fill_ns", np.int64),
        ("fill_recv_ns", np.int64),
        ("exit_ns", np.int64),
        ("end_ns", np.int64),
        ("exit_price", np.float64),
        ("gross_bps", np.float64),
        ("entry_bps", np.float64),
        ("half_spread_bps", np.float64),
        ("slippage_bps", np.float64),
        ("fees_bps", np.float64),
        ("funding_bps", np.float64),
        ("net_bps", np.float64),
        ("net_usd", np.float64),
        ("gross_usd", np.float64),
    ],
    align=True,
)
"""One decision with a side. Arrival, fill and exit are on the venue's clock, `fill_recv_ns` and `end_ns` on ours."""

_SLOT: Final = np.dtype(
    [
        ("record", np.int64),
        ("free_ns", np.int64),
        ("exit_ns", np.int64),
        ("skew_ns", np.int64),
        ("mid", np.float64),
        ("notional_usd", np.float64),
    ],
    align=True,
)
"""A place for one order and its position: its record (or _FREE), the receipt from which it is free, its exit's time."""


class Plan(NamedTuple):
    """The one cell that is traded and the instrument's conditions. Times in ns, `rule` as in labels/fills.py."""

    is_taker: bool
    rule: int
    delta_bps: float
    gate_usd: float
    hold_ns: int
    rest_ns: int
    entry_latency_ns: int
    exit_latency_ns: int
    tick: float
    lot_qty: float
    min_notional_usd: float
    costs: Costs
    limits: Limits
    covered_ns: int


def trade(
    decisions: Decisions,
    sides: NDArray[np.int8],
    quotes: Quotes,
    trades: Trades,
    funding: Funding,
    plan: Plan,
    before: Records | None = None,
) -> Records:
    """Records (m,) of RECORD: one per decision whose side is not 0, in order of decision.

    `before` are the records of the day before: what they still hold at the first decision counts against the limits.
    """
    records = np.zeros(np.count_nonzero(sides), RECORD)
    orders = np.zeros(2 * plan.limits.max_position, ORDER)
    slots = np.zeros(orders.size, _SLOT)
    slots["record"] = _FREE
    if before is not None and decisions.t_ns.size:
        held = before[(before["outcome"] < OPEN) & (before["end_ns"] > decisions.t_ns[0])][: slots.size]
        slots["free_ns"][: held.size] = held["end_ns"]
        slots["notional_usd"][: held.size] = held["qty"] * held["price"]
        orders["side"][: held.size] = held["side"]
        orders["state"][: held.size] = np.where(held["fill_ns"] > 0, FILLED, CANCELLED)
    _walk(decisions, sides, quotes, trades, funding, plan, records, orders, slots)
    return records


@njit(cache=True, nogil=True)
def _walk(
    decisions: Decisions,
    sides: NDArray[np.int8],
    quotes: Quotes,
    trades: Trades,
    funding: Funding,
    plan: Plan,
    records: Records,
    orders: Records,
    slots: Records,
) -> None:
    quote, print_, asked, made = 0, 0, 0, 0
    while quote < quotes.exch_ns.size or print_ < trades.exch_ns.size:
        is_print = print_ < trades.exch_ns.size and (
            quote >= quotes.exch_ns.size or trades.exch_ns[print_] <= quotes.exch_ns[quote]
        )
        now_ns = trades.exch_ns[print_] if is_print else quotes.exch_ns[quote]
        while asked < sides.size and decisions.t_ns[asked] - decisions.skew_ns[asked] < now_ns:
            sent_ns = decisions.t_ns[asked] - decisions.skew_ns[asked]
            _fire(sent_ns + 1, quote - 1, quotes, funding, plan, records, orders, slots)
            if sides[asked] != 0:
                _ask(asked, made, decisions, sides[asked], plan, records, orders, slots)
                made += 1
            asked += 1
        _fire(now_ns, quote - 1, quotes, funding, plan, records, orders, slots)
        for k in range(orders.size):
            if orders[k].state != RESTING or slots[k].record == _FREE:
                continue
            if is_print:
                price, qty, taker = trades.price[print_], trades.qty[print_], trades.taker[print_]
                hit = step_trade(orders, k, now_ns, trades.recv_ns[print_], price, qty, taker)
            else:
                hit = step_quote(orders, k, now_ns, quotes.recv_ns[quote], quotes.bid[quote], quotes.ask[quote])
            if hit:
                _enter(k, plan, records, orders, slots)
        if is_print:
            print_ += 1
        else:
            quote += 1
    _fire(plan.covered_ns + 1, quotes.exch_ns.size - 1, quotes, funding, plan, records, orders, slots)
    _leave_open(records, slots)


@njit(cache=True, nogil=True)
def _ask(
    i: int,
    m: int,
    decisions: Decisions,
    side: int,
    plan: Plan,
    records: Records,
    orders: Records,
    slots: Records,
) -> None:
    """Decision i becomes record m and, if the limits allow it, an order in a free slot."""
    t_ns, bid, ask = decisions.t_ns[i], decisions.bid[i], decisions.ask[i]
    if plan.is_taker:
        price = ask if side > 0 else bid
    else:
        price = limit_price(side, bid if side > 0 else ask, plan.delta_bps, plan.tick)
    records[m].decision_ns, records[m].side, records[m].price = t_ns, side, price
    qty = order_qty(price, plan.limits.order_usd, plan.lot_qty, plan.min_notional_usd)
    busy, slot, inventory_usd, working_usd = _exposure(t_ns, side, orders, slots)
    why = refusal(
        side,
        busy,
        inventory_usd,
        working_usd,
        qty * price,
        plan.limits.max_position,
        plan.limits.max_inventory_usd,
    )
    if why != ALLOWED:
        records[m].outcome = _REFUSED + why
        return
    arrival_ns = t_ns - decisions.skew_ns[i] + plan.entry_latency_ns
    records[m].qty, records[m].arrival_ns = qty, arrival_ns
    slots[slot].record, slots[slot].skew_ns = m, decisions.skew_ns[i]
    slots[slot].mid, slots[slot].notional_usd = 0.5 * (bid + ask), qty * price
    orders[slot].side, orders[slot].rule, orders[slot].limit = side, plan.rule, price
    orders[slot].slack, orders[slot].gate_usd, orders[slot].eaten_usd = 0.5 * plan.tick, plan.gate_usd, 0.0
    orders[slot].arrival_ns = arrival_ns
    orders[slot].cancel_ns = arrival_ns + plan.rest_ns + plan.entry_latency_ns
    orders[slot].state = SENT


@njit(cache=True, nogil=True)
def _exposure(t_ns: int, side: int, orders: Records, slots: Records) -> tuple[int, int, float, float]:
    """(slots busy on the side, a free slot or -1, signed inventory, the side's working notional) as known at t."""
    busy, free, inventory_usd, working_usd = 0, -1, 0.0, 0.0
    for k in range(slots.size):
        if slots[k].record == _FREE and slots[k].free_ns <= t_ns:
            free = k
            continue
        if orders[k].side == side:
            busy += 1
        if orders[k].state == FILLED and orders[k].fill_recv_ns <= t_ns:
            inventory_usd += orders[k].side * slots[k].notional_usd
        elif orders[k].side == side:
            working_usd += slots[k].notional_usd
    return busy, free, inventory_usd, working_usd


@njit(cache=True, nogil=True)
def _fire(
    now_ns: int,
    last_quote: int,
    quotes: Quotes,
    funding: Funding,
    plan: Plan,
    records: Records,
    orders: Records,
    slots: Records,
) -> None:
    """Arrivals and exits before `now_ns` meet the last quote; cancels are effective at `now_ns` or before."""
    for k in range(slots.size):
        if slots[k].record == _FREE:
            continue
        if orders[k].state == SENT and orders[k].arrival_ns < now_ns and last_quote >= 0:
            _meet(k, last_quote, quotes, plan, records, orders, slots)
        if orders[k].state == RESTING and orders[k].cancel_ns <= now_ns:
            orders[k].state = CANCELLED
            _end(k, UNFILLED, orders[k].cancel_ns, records, slots)
        if orders[k].state == FILLED and slots[k].exit_ns < now_ns and slots[k].record != _FREE:
            _exit(k, last_quote, quotes, funding, plan, records, orders, slots)


@njit(cache=True, nogil=True)
def _meet(
    k: int, last_quote: int, quotes: Quotes, plan: Plan, records: Records, orders: Records, slots: Records
) -> None:
    """An order reaches the venue: a taker fills at the opposite touch, a maker rests or is rejected."""
    bid, ask = quotes.bid[last_quote], quotes.ask[last_quote]
    if not plan.is_taker:
        arrive(orders, k, bid, ask)
        if orders[k].state == REJECTED:
            _end(k, TURNED_AWAY, orders[k].arrival_ns, records, slots)
        return
    records[slots[k].record].price = ask if orders[k].side > 0 else bid
    orders[k].state, orders[k].fill_ns = FILLED, orders[k].arrival_ns
    orders[k].fill_recv_ns = orders[k].arrival_ns + slots[k].skew_ns
    _enter(k, plan, records, orders, slots)


@njit(cache=True, nogil=True)
def _enter(k: int, plan: Plan, records: Records, orders: Records, slots: Records) -> None:
    m = slots[k].record
    records[m].fill_ns, records[m].fill_recv_ns = orders[k].fill_ns, orders[k].fill_recv_ns
    slots[k].exit_ns = orders[k].fill_ns + plan.hold_ns + plan.exit_latency_ns


@njit(cache=True, nogil=True)
def _exit(
    k: int,
    last_quote: int,
    quotes: Quotes,
    funding: Funding,
    plan: Plan,
    records: Records,
    orders: Records,
    slots: Records,
) -> None:
    """Close the position of slot k at the touch of the last quote."""
    m, side, mid = slots[k].record, orders[k].side, slots[k].mid
    bid, ask = quotes.bid[last_quote], quotes.ask[last_quote]
    paid = funding_bps(side, orders[k].fill_ns, slots[k].exit_ns, funding, mid)
    parts = round_trip(side, mid, records[m].price, plan.is_taker, bid, ask, paid, plan.costs)
    records[m].exit_ns, records[m].exit_price = slots[k].exit_ns, bid if side > 0 else ask
    records[m].gross_bps, records[m].entry_bps = parts.gross_bps, parts.entry_bps
    records[m].half_spread_bps, records[m].slippage_bps = parts.half_spread_bps, parts.slippage_bps
    records[m].fees_bps, records[m].funding_bps = parts.fees_bps, parts.funding_bps
    records[m].net_bps = parts.net_bps
    unit_usd = records[m].qty * mid / 1e4
    records[m].net_usd, records[m].gross_usd = parts.net_bps * unit_usd, parts.gross_bps * unit_usd
    _end(k, CLOSED, slots[k].exit_ns, records, slots)


@njit(cache=True, nogil=True)
def _end(k: int, outcome: int, exch_ns: int, records: Records, slots: Records) -> None:
    """Write the outcome and free the slot once the notice of it is in."""
    m = slots[k].record
    records[m].outcome = outcome
    records[m].end_ns = exch_ns + slots[k].skew_ns
    slots[k].record, slots[k].free_ns = _FREE, records[m].end_ns


@njit(cache=True, nogil=True)
def _leave_open(records: Records, slots: Records) -> None:
    for k in range(slots.size):
        if slots[k].record != _FREE:
            records[slots[k].record].outcome = OPEN
            slots[k].record = _FREE
