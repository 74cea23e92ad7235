"""What the events of the market add to the running totals, whichever clocks there are. The rules: bar_pass.py."""

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

import research.bars.state as at
from research.bars.events import LIQUIDATION, MARK, QUOTE, TRADE, kind_of, side_of
from research.bars.part import part
from research.bars.running_totals import MOST, add, added

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

_NEWEST: Final = 1.0 - 0.5**0.001  # weight of a trade in the mean notional: a half-life of 1,000 trades
_LARGE: Final = 10.0  # times the mean
_LEAST_TRADES: Final = 100  # before them none is large


class _Best(NamedTuple):
    """The last valid best price and what best prices have come to, in registers."""

    bid: float
    bid_qty: float
    ask: float
    ask_qty: float
    mid: float
    high: float
    low: float
    flow: float
    flow_rest: float
    quotes: int
    is_chained: bool


class _Left(NamedTuple):
    """The flow of trades that may come before a clock must be asked whether its bar is full."""

    qty: float
    usd: float
    trades: float


@part
def take_quotes_and_trades(
    words: Ints, terms: Floats, begin: int, due_ns: int, silence_ns: int, numbers: Ints, values: Floats
) -> tuple[int, bool]:
    """Take best prices and trades from `begin` on while nothing is due; what is not valid is as if it had not come.

    Returns (the next event, whether bars are to be asked if that before it has filled them). The book is kept in
    registers: an event that had to wait for what the one before it stored would take twice as long.
    """
    best, left = _best(numbers, values), _Left(values[at.QTY_LEFT], values[at.USD_LEFT], values[at.TRADES_LEFT])
    quiet_low, quiet_high, last_ns = values[at.QUIET_LOW], values[at.QUIET_HIGH], numbers[at.LAST_NS]
    i, asks = begin, False
    while i < words.shape[0] and not asks:
        recv_ns, kind = words[i, 0], kind_of(words, i)
        if not last_ns <= recv_ns < min(due_ns, last_ns + silence_ns) or (kind != QUOTE and kind != TRADE):
            break
        if kind == QUOTE:
            if _is_book(terms, i):
                best = _after_quote(best, terms, i)
                asks = best.mid <= quiet_low or best.mid >= quiet_high
        elif abs(terms[i, 2]) < MOST and abs(terms[i, 3]) < MOST:
            left = _after_trade(left, terms, i)
            _take_trade(side_of(words, i), terms[i, 2], terms[i, 3], best.mid, numbers, values)
            asks = left.qty <= 0.0 or left.usd <= 0.0 or left.trades <= 0.0
        last_ns = recv_ns
        i += 1
    _keep(best, left, last_ns, numbers, values)
    return i, asks


@part
def _best(numbers: Ints, values: Floats) -> _Best:
    return _Best(
        values[at.BID], values[at.BID_QTY], values[at.ASK], values[at.ASK_QTY],
        values[at.MID], values[at.NEW_HIGH], values[at.NEW_LOW],
        values[at.OFI], values[at.OFI + 1], numbers[at.QUOTES], numbers[at.CHAINED] == 1,
    )  # fmt: skip


@part
def _keep(best: _Best, left: _Left, last_ns: int, numbers: Ints, values: Floats) -> None:
    values[at.BID], values[at.BID_QTY], values[at.ASK], values[at.ASK_QTY] = best[:4]
    values[at.MID], values[at.NEW_HIGH], values[at.NEW_LOW] = best.mid, best.high, best.low
    values[at.OFI], values[at.OFI + 1] = best.flow, best.flow_rest
    numbers[at.QUOTES], numbers[at.CHAINED] = best.quotes, best.is_chained
    numbers[at.LAST_NS] = numbers[at.SEEN_NS] = last_ns
    values[at.QTY_LEFT], values[at.USD_LEFT], values[at.TRADES_LEFT] = left


@part
def _is_book(terms: Floats, i: int) -> bool:
    return bool(0.0 < terms[i, 2] < terms[i, 4] < MOST and 0.0 <= terms[i, 3] < MOST and 0.0 <= terms[i, 5] < MOST)


@part
def _after_quote(best: _Best, terms: Floats, i: int) -> _Best:
    bid, bid_qty, ask, ask_qty = terms[i, 2], terms[i, 3], terms[i, 4], terms[i, 5]
    bid_flow = bid_qty * (bid >= best.bid) - best.bid_qty * (bid <= best.bid)
    ask_flow = ask_qty * (ask <= best.ask) - best.ask_qty * (ask >= best.ask)
    flow, flow_rest = best.flow, best.flow_rest
    if best.is_chained:
        flow, flow_rest = added(flow, flow_rest, bid_flow - ask_flow)
    mid = 0.5 * (bid + ask)
    high, low = max(best.high, mid), min(best.low, mid)
    return _Best(bid, bid_qty, ask, ask_qty, mid, high, low, flow, flow_rest, best.quotes + 1, True)


@part
def _after_trade(left: _Left, terms: Floats, i: int) -> _Left:
    price, qty = terms[i, 2], terms[i, 3]
    return _Left(left.qty - abs(qty), left.usd - abs(price * qty), left.trades - 1.0)


@part
def _take_trade(side: int, price: float, qty: float, mid: float, numbers: Ints, values: Floats) -> None:
    taker, sign = (0, 1.0) if side > 0 else (1, -1.0)
    usd = price * qty
    add(values, at.BUY_QTY + 2 * taker, qty)
    add(values, at.BUY_USD + 2 * taker, usd)
    add(values, at.SQUARE, usd * usd)
    values[at.NEW_MAX_TRADE] = max(values[at.NEW_MAX_TRADE], usd)
    _take_price(price, values)
    if mid > 0.0:
        add(values, at.EFFECTIVE, 2.0 * sign * (price - mid) * qty)
    if _is_large(usd, numbers, values):
        add(values, at.LARGE_BUY + 2 * taker, usd)
        numbers[at.LARGE] += 1
    numbers[at.BUYS + taker] += 1


@part
def _take_price(price: float, values: Floats) -> None:
    """Without a branch, which would be guessed wrong with the first trade of every bar."""
    first = values[at.NEW_TRADE_OPEN]
    values[at.NEW_TRADE_OPEN] = price if np.isnan(first) else first
    values[at.NEW_TRADE_HIGH] = max(values[at.NEW_TRADE_HIGH], price)
    values[at.NEW_TRADE_LOW] = min(values[at.NEW_TRADE_LOW], price)
    values[at.LAST_TRADE] = price


@part
def _is_large(usd: float, numbers: Ints, values: Floats) -> bool:
    """Whether a trade is large beside those before it; then it joins their mean."""
    mean, before = values[at.MEAN_USD], numbers[at.BUYS] + numbers[at.SELLS]
    values[at.MEAN_USD] = mean + (usd - mean) * max(1.0 / (before + 1), _NEWEST)
    return bool(before >= _LEAST_TRADES and usd >= _LARGE * mean)


@part
def take_other(kind: int, side: int, terms: Floats, i: int, numbers: Ints, spans: Ints, rows: Floats) -> None:
    """A liquidation, a mark or a gap."""
    numbers[at.FORCED] += kind == LIQUIDATION
    for clock in range(spans.shape[0]):
        if kind == LIQUIDATION:
            _take_liquidation(side, terms[i, 2] * terms[i, 3], clock, rows)
        elif kind == MARK:
            _take_mark(side, terms, i, clock, rows)
        else:
            rows[clock, at.HAS_GAP] = 1.0
            numbers[at.CHAINED] = 0


@part
def _take_liquidation(side: int, usd: float, clock: int, rows: Floats) -> None:
    rows[clock, at.LIQ_LONG if side > 0 else at.LIQ_SHORT] += usd
    rows[clock, at.LIQ_SQUARE] += usd * usd
    rows[clock, at.LIQ_MAX] = max(rows[clock, at.LIQ_MAX], usd)


@part
def _take_mark(funding_min: int, terms: Floats, i: int, clock: int, rows: Floats) -> None:
    """What a mark does not tell stays as it was."""
    for what in range(4):
        if not np.isnan(terms[i, 2 + what]):
            rows[clock, at.MARK + what] = terms[i, 2 + what]
    if funding_min > 0:
        rows[clock, at.FUNDING_MIN] = funding_min
