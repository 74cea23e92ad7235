"""Which clocks need to be asked whether their bar is full, and the asking. The rules of each clock: event_clocks.py.

After an asking it is known how much flow, or which mids, no clock needs to be asked about: most events ask none.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

import research.bars.state as at
from research.bars.closing import counted, summed
from research.bars.event_clocks import (
    TIME,
    flow_of,
    flow_until_full,
    is_filled_by_trades,
    is_full_of_mids,
    is_full_of_trades,
    quiet_mids,
)
from research.bars.part import part

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


@part
def note_unasked(numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """Find out until when no clock needs to be asked; an answer that is too early costs time, no more."""
    for flow in range(3):
        values[at.QTY_LEFT + flow] = np.inf
    values[at.QUIET_LOW], values[at.QUIET_HIGH] = -np.inf, np.inf
    if numbers[at.SETTLED] == 0:
        values[at.QUIET_HIGH] = 0.0
    for clock in range(spans.shape[0]):
        kind = spans[clock, at.KIND]
        if kind == TIME:
            continue
        if is_filled_by_trades(kind):
            bought, sold, trades = _gathered(kind, clock, numbers, values, spans, rows)
            flow, left = flow_until_full(kind, bought, sold, trades, rows, clock)
            values[at.QTY_LEFT + flow] = min(values[at.QTY_LEFT + flow], left)
        else:
            high, low = max(rows[clock, at.HIGH], values[at.NEW_HIGH]), min(rows[clock, at.LOW], values[at.NEW_LOW])
            low, high = quiet_mids(kind, high, low, rows, clock)
            values[at.QUIET_LOW], values[at.QUIET_HIGH] = (
                max(values[at.QUIET_LOW], low),
                min(values[at.QUIET_HIGH], high),
            )


@part
def note_full(recv_ns: int, is_trade: bool, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """Let bars close at the end of this instant that a trade, or else a quote, has filled."""
    if not is_trade and numbers[at.SETTLED] == 0:
        _settle(numbers, values, spans, rows)
    for clock in range(spans.shape[0]):
        kind = spans[clock, at.KIND]
        if kind == TIME or is_filled_by_trades(kind) != is_trade or spans[clock, at.DUE_NS] == recv_ns + 1:
            continue
        if is_trade:
            bought, sold, trades = _gathered(kind, clock, numbers, values, spans, rows)
            is_full = is_full_of_trades(kind, bought, sold, trades, rows, clock)
        else:
            first, high, low = rows[clock, at.OPEN], rows[clock, at.HIGH], rows[clock, at.LOW]
            high, low = max(high, values[at.NEW_HIGH]), min(low, values[at.NEW_LOW])
            is_full = is_full_of_mids(kind, first, high, low, values[at.MID], rows, clock)
        if is_full:
            spans[clock, at.DUE_NS] = recv_ns + 1


@part
def _gathered(
    kind: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats
) -> tuple[float, float, float]:
    """What a clock counts that was bought and sold in its open bar, and the trades."""
    buys, sells = counted(at.BUYS, clock, numbers, spans), counted(at.SELLS, clock, numbers, spans)
    flow = flow_of(kind)
    if flow == 2:
        return buys, sells, buys + sells
    to = 4 * flow  # quantities of both sides stand before notionals
    bought, sold = summed(at.BUY_QTY + to, clock, values, rows), summed(at.SELL_QTY + to, clock, values, rows)
    return bought, sold, buys + sells


@part
def _settle(numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """A quote after a start or a gap. A bar gets a book with its first quote: what needs one counts from there on."""
    numbers[at.SETTLED] = 1
    to_old = at.OLD_TOTALS - at.TOTALS
    for clock in range(spans.shape[0]):
        if spans[clock, at.HAS_BOOK] == 1:
            continue
        spans[clock, at.HAS_BOOK] = 1
        rows[clock, at.OPEN] = rows[clock, at.HIGH] = rows[clock, at.LOW] = values[at.MID]
        for place in range(at.OFI, at.EFFECTIVE + 2):
            rows[clock, to_old + place] = values[place]
