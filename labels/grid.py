"""What every cell of the (side, delta, rule, T) grid would have earned at every decision (method section 2).

One kernel walks the decisions. Per decision and side it scans the resting window once: a limit farther from the market
cannot be reached before a nearer one, so the scan for the next offset starts where the last one ended. The fill is
shared by all holding times. Arithmetic is float64 and additive to 1e-9 (`fees.round_trip`); gross and net are stored as
float32, whose 1e-7 relative error is far below a tick.
"""

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from labels.fees import Costs, Funding, funding_bps, round_trip
from labels.fills import first_gated, first_passing, first_reaching, limit_price, reaches
from labels.venue_events import BREAKS, Quotes, Trades

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]

RESTED, REJECTED, MERGED = 0, 1, 2
"""What became of an order: it rested (and filled or not), it would have crossed at arrival, or it had the price of the
cell before it and is the same order."""
END_OF_DATA = len(BREAKS)
"""The last reason in `drops`, after the kinds of BREAKS."""
_FIRST_HOLD: Final = 3
"""Cursor slots: 0 arrival, 1 cancel, 2 cancel of a gate order, then one per hold."""


class Decisions(NamedTuple):
    """Sound decisions, (n,) each: what is known at receipt time t_ns, and until when the record is unbroken."""

    t_ns: Ints
    skew_ns: Ints
    bid: Floats
    ask: Floats
    clear_ns: Ints
    """First start of a break at or after t, on the receipt clock."""
    clear_kind: Ints
    """Its kind, an index into BREAKS."""


class Terms(NamedTuple):
    """The grid and its conditions. Offsets ascend; gates ascend."""

    deltas_bps: Floats
    gates_usd: Floats
    taker_holds_ns: Ints
    maker_holds_ns: Ints
    rest_ns: int
    gate_rest_ns: int
    entry_latency_ns: int
    """Decision to matching engine, of an order and of its cancel."""
    exit_latency_ns: int
    dead_band_bps: float
    tick: float
    costs: Costs
    covered_ns: int
    settle_early: bool = False
    """False: a maker's cells are labelled only where one filled at the last moment could be, so that the end of the
    data drops filled and unfilled orders alike. True: each as soon as its own end is covered (paper trading)."""


class TakerLabels(NamedTuple):
    """(H, n), and (2, H, n) for `net_bps` (buy, sell). NaN and end 0: not labelled."""

    ret_bps: Floats32
    direction: NDArray[np.int8]
    net_bps: Floats32
    end_ns: Ints


class MakerLabels(NamedTuple):
    """Axes: side (buy, sell), delta D, rule K (touch, through, gates), hold H, decision n."""

    limit: Floats
    """(2, D, n)"""
    status: NDArray[np.int8]
    """(2, D, n): RESTED, REJECTED or MERGED."""
    fill_ns: Ints
    """(2, D, K, n): receipt of the fill, 0 where unfilled."""
    gross_bps: Floats32
    """(2, D, K, H, n): 0 where unfilled, NaN where not labelled."""
    net_bps: Floats32
    end_ns: Ints
    """(2, D, K, H, n): 0 where not labelled."""


class Grid(NamedTuple):
    """All labels of some decisions."""

    taker: TakerLabels
    maker: MakerLabels
    drops: Ints
    """(2, max(H), reasons): decision x cells not labelled, of takers and of distinct maker cells."""


def label(decisions: Decisions, quotes: Quotes, trades: Trades, funding: Funding, terms: Terms) -> Grid:
    """Every cell at every decision."""
    grid = _allocate(decisions.t_ns.size, terms)
    _label_all(decisions, quotes, trades, funding, terms, grid.taker, grid.maker, grid.drops)
    return grid


def cells_per_decision(terms: Terms) -> int:
    """Labels per decision: taker holds x sides, and maker sides x offsets x rules x holds."""
    rules = 2 + terms.gates_usd.size
    return 2 * terms.taker_holds_ns.size + 2 * terms.deltas_bps.size * rules * terms.maker_holds_ns.size


def _allocate(n: int, terms: Terms) -> Grid:
    takes, holds = terms.taker_holds_ns.size, terms.maker_holds_ns.size
    deltas, rules = terms.deltas_bps.size, 2 + terms.gates_usd.size
    taker = TakerLabels(_unknown(takes, n), np.zeros((takes, n), np.int8), _unknown(2, takes, n), _zeros(takes, n))
    maker = MakerLabels(
        limit=np.zeros((2, deltas, n)),
        status=np.zeros((2, deltas, n), np.int8),
        fill_ns=_zeros(2, deltas, rules, n),
        gross_bps=_unknown(2, deltas, rules, holds, n),
        net_bps=_unknown(2, deltas, rules, holds, n),
        end_ns=_zeros(2, deltas, rules, holds, n),
    )
    return Grid(taker, maker, _zeros(2, max(takes, holds), END_OF_DATA + 1))


def _zeros(*shape: int) -> Ints:
    return np.zeros(shape, np.int64)


def _unknown(*shape: int) -> Floats32:
    return np.full(shape, np.nan, np.float32)


@njit(cache=True, nogil=True)
def _label_all(
    decisions: Decisions,
    quotes: Quotes,
    trades: Trades,
    funding: Funding,
    terms: Terms,
    taker: TakerLabels,
    maker: MakerLabels,
    drops: Ints,
) -> None:
    fills = np.empty((terms.deltas_bps.size, 2 + terms.gates_usd.size, 2), np.int64)
    cursors = np.zeros((2, _FIRST_HOLD + max(terms.taker_holds_ns.size, terms.maker_holds_ns.size)), np.int64)
    idle = np.empty((3, 2), np.int64)
    ruled_out = np.empty(terms.maker_holds_ns.size, np.int64)
    for i in range(decisions.t_ns.size):
        arrival_ns = decisions.t_ns[i] - decisions.skew_ns[i] + terms.entry_latency_ns
        _label_takers(i, arrival_ns, decisions, quotes, trades, funding, terms, cursors, taker, drops)
        waits = (0, terms.rest_ns + terms.entry_latency_ns, terms.gate_rest_ns + terms.entry_latency_ns)
        for k in range(3):
            idle[k, 0], idle[k, 1], _ = _known_at(
                i, arrival_ns + waits[k], k, decisions, quotes, trades, terms, cursors
            )
        _rule_out(i, arrival_ns, decisions, terms, ruled_out)
        for s in range(2):
            _find_fills(i, s, arrival_ns, decisions, quotes, trades, terms, cursors, fills, maker)
            _label_makers(
                i, s, idle, ruled_out, decisions, quotes, trades, funding, terms, fills, cursors, maker, drops
            )


@njit(cache=True, nogil=True)
def _label_takers(
    i: int,
    arrival_ns: int,
    decisions: Decisions,
    quotes: Quotes,
    trades: Trades,
    funding: Funding,
    terms: Terms,
    cursors: Ints,
    out: TakerLabels,
    drops: Ints,
) -> None:
    mid = 0.5 * (decisions.bid[i] + decisions.ask[i])
    met = _last_at(quotes.exch_ns, arrival_ns, cursors[0, 0])
    for h in range(terms.taker_holds_ns.size):
        exit_ns = arrival_ns + terms.taker_holds_ns[h] + terms.exit_latency_ns
        end_ns, why, left = _known_at(i, exit_ns, _FIRST_HOLD + h, decisions, quotes, trades, terms, cursors)
        if why >= 0 or met < 0:
            drops[0, h, END_OF_DATA if met < 0 else why] += 2
            continue
        for s in range(2):
            side = 1 - 2 * s
            paid = funding_bps(side, arrival_ns, exit_ns, funding, mid)
            entry = quotes.ask[met] if side > 0 else quotes.bid[met]
            parts = round_trip(side, mid, entry, True, quotes.bid[left], quotes.ask[left], paid, terms.costs)
            out.net_bps[s, h, i] = parts.net_bps
            if side > 0:
                out.ret_bps[h, i] = parts.gross_bps
                out.direction[h, i] = _sign(parts.gross_bps, terms.dead_band_bps)
        out.end_ns[h, i] = end_ns


@njit(cache=True, nogil=True)
def _find_fills(
    i: int,
    s: int,
    arrival_ns: int,
    decisions: Decisions,
    quotes: Quotes,
    trades: Trades,
    terms: Terms,
    cursors: Ints,
    fills: Ints,
    out: MakerLabels,
) -> None:
    """`fills[d, r]` = (venue time, receipt) of the fill under each rule, (0, 0) where unfilled; limits and statuses."""
    side, slack = 1 - 2 * s, 0.5 * terms.tick
    opposites = quotes.ask if side > 0 else quotes.bid
    touch = decisions.bid[i] if side > 0 else decisions.ask[i]
    met = _last_at(quotes.exch_ns, arrival_ns, cursors[0, 0])
    opposite = opposites[met] if met >= 0 else (decisions.ask[i] if side > 0 else decisions.bid[i])
    cancel_ns = arrival_ns + terms.rest_ns + terms.entry_latency_ns
    gate_ns = arrival_ns + terms.gate_rest_ns + terms.entry_latency_ns
    quote, quote_stop = met + 1, _first_from(quotes.exch_ns, cancel_ns, cursors[0, 1])
    trade = _last_at(trades.exch_ns, arrival_ns, cursors[1, 0]) + 1
    trade_stop = _first_from(trades.exch_ns, cancel_ns, cursors[1, 1])
    gate_stop = _first_from(trades.exch_ns, gate_ns, cursors[1, 2])
    for d in range(terms.deltas_bps.size):
        for r in range(fills.shape[1]):
            _set(fills, d, r, 0, 0)
        limit = limit_price(side, touch, terms.deltas_bps[d], terms.tick)
        out.limit[s, d, i] = limit
        if d > 0 and abs(limit - out.limit[s, d - 1, i]) < slack:
            out.status[s, d, i] = MERGED
            for r in range(fills.shape[1]):
                _set(fills, d, r, fills[d - 1, r, 0], fills[d - 1, r, 1])
            continue
        if reaches(side, limit, opposite, slack):
            out.status[s, d, i] = REJECTED
            continue
        quote = first_reaching(opposites, quote, quote_stop, side, limit, slack)
        trade = first_reaching(trades.price, trade, max(trade_stop, gate_stop), side, limit, slack)
        if trade < trade_stop:
            _set(fills, d, 0, trades.exch_ns[trade], trades.recv_ns[trade])
        beyond = first_passing(trades.price, trade, trade_stop, side, limit, slack)
        if beyond < trade_stop and not (quote < quote_stop and quotes.exch_ns[quote] < trades.exch_ns[beyond]):
            _set(fills, d, 1, trades.exch_ns[beyond], trades.recv_ns[beyond])
        elif quote < quote_stop:
            _set(fills, d, 1, quotes.exch_ns[quote], quotes.recv_ns[quote])
        for g in range(terms.gates_usd.size):
            gate = terms.gates_usd[g]
            hit = first_gated(trades.price, trades.qty, trades.taker, trade, gate_stop, side, limit, slack, gate)
            if hit < gate_stop:
                _set(fills, d, 2 + g, trades.exch_ns[hit], trades.recv_ns[hit])


@njit(cache=True, nogil=True)
def _set(fills: Ints, d: int, r: int, fill_ns: int, recv_ns: int) -> None:
    """Element by element: numba takes 10 s to compile the checks of a slice assignment."""
    fills[d, r, 0] = fill_ns
    fills[d, r, 1] = recv_ns


@njit(cache=True, nogil=True)
def _label_makers(
    i: int,
    s: int,
    idle: Ints,
    ruled_out: Ints,
    decisions: Decisions,
    quotes: Quotes,
    trades: Trades,
    funding: Funding,
    terms: Terms,
    fills: Ints,
    cursors: Ints,
    out: MakerLabels,
    drops: Ints,
) -> None:
    """`idle[k]` = (end, reason) of an order that never fills: rejected (0), cancelled after R (1), a gate's (2)."""
    for d in range(terms.deltas_bps.size):
        merged = out.status[s, d, i] == MERGED
        for r in range(fills.shape[1]):
            fill_ns = fills[d, r, 0]
            out.fill_ns[s, d, r, i] = fills[d, r, 1]
            same_fill = r > 0 and fill_ns > 0 and fill_ns == fills[d, r - 1, 0]
            k = 0 if out.status[s, d, i] == REJECTED else (1 if r < 2 else 2)
            for h in range(terms.maker_holds_ns.size):
                if merged:
                    _copy(out, s, d - 1, r, d, r, h, i)
                    continue
                why = ruled_out[h]
                if why >= 0:
                    pass
                elif fill_ns == 0:
                    why = idle[k, 1]
                    if why < 0:
                        out.end_ns[s, d, r, h, i] = idle[k, 0]
                        out.gross_bps[s, d, r, h, i] = 0.0
                        out.net_bps[s, d, r, h, i] = 0.0
                elif same_fill and out.end_ns[s, d, r - 1, h, i] > 0:
                    _copy(out, s, d, r - 1, d, r, h, i)
                else:
                    why = _hold(i, s, d, r, h, fill_ns, decisions, quotes, trades, funding, terms, cursors, out)
                if why >= 0:
                    drops[1, h, why] += 1


@njit(cache=True, nogil=True)
def _rule_out(i: int, arrival_ns: int, decisions: Decisions, terms: Terms, ruled_out: Ints) -> None:
    """Per hold: the reason for which an order filled at the last moment could not be labelled, else -1.

    It rules out every cell of the hold, filled or not: else only orders that never filled would be left near the end of
    the data and before a break.
    """
    last_fill_ns = arrival_ns + max(terms.rest_ns, terms.gate_rest_ns) + terms.entry_latency_ns
    for h in range(terms.maker_holds_ns.size):
        exit_ns = last_fill_ns + terms.maker_holds_ns[h] + terms.exit_latency_ns
        ruled_out[h] = -1
        if terms.settle_early:
            continue
        if exit_ns > terms.covered_ns:
            ruled_out[h] = END_OF_DATA
        elif exit_ns + decisions.skew_ns[i] >= decisions.clear_ns[i]:
            ruled_out[h] = decisions.clear_kind[i]


@njit(cache=True, nogil=True)
def _copy(out: MakerLabels, s: int, from_d: int, from_r: int, d: int, r: int, h: int, i: int) -> None:
    out.gross_bps[s, d, r, h, i] = out.gross_bps[s, from_d, from_r, h, i]
    out.net_bps[s, d, r, h, i] = out.net_bps[s, from_d, from_r, h, i]
    out.end_ns[s, d, r, h, i] = out.end_ns[s, from_d, from_r, h, i]


@njit(cache=True, nogil=True)
def _hold(
    i: int,
    s: int,
    d: int,
    r: int,
    h: int,
    fill_ns: int,
    decisions: Decisions,
    quotes: Quotes,
    trades: Trades,
    funding: Funding,
    terms: Terms,
    cursors: Ints,
    out: MakerLabels,
) -> int:
    """Label a filled cell, closed T and one latency after its fill. -1, or the reason for which it cannot be."""
    side = 1 - 2 * s
    exit_ns = fill_ns + terms.maker_holds_ns[h] + terms.exit_latency_ns
    end_ns, why, left = _known_at(i, exit_ns, _FIRST_HOLD + h, decisions, quotes, trades, terms, cursors)
    if why >= 0:
        return int(why)
    mid = 0.5 * (decisions.bid[i] + decisions.ask[i])
    paid = funding_bps(side, fill_ns, exit_ns, funding, mid)
    limit = out.limit[s, d, i]
    parts = round_trip(side, mid, limit, False, quotes.bid[left], quotes.ask[left], paid, terms.costs)
    out.gross_bps[s, d, r, h, i] = parts.gross_bps
    out.net_bps[s, d, r, h, i] = parts.net_bps
    out.end_ns[s, d, r, h, i] = end_ns
    return -1


@njit(cache=True, nogil=True)
def _known_at(
    i: int, last_ns: int, slot: int, decisions: Decisions, quotes: Quotes, trades: Trades, terms: Terms, cursors: Ints
) -> tuple[int, int, int]:
    """(receipt by which all up to venue time `last_ns` is known, -1, the quote then); (0, reason, -1) if it never is.

    `cursors[:, slot]` remembers where the last call for the slot ended: times advance little between decisions.
    """
    if last_ns > terms.covered_ns:
        return 0, END_OF_DATA, -1
    quote = _last_at(quotes.exch_ns, last_ns, cursors[0, slot])
    trade = _last_at(trades.exch_ns, last_ns, cursors[1, slot])
    cursors[0, slot], cursors[1, slot] = max(quote, 0), max(trade, 0)
    if quote < 0:
        return 0, END_OF_DATA, -1
    end_ns = max(last_ns + decisions.skew_ns[i], quotes.seen_ns[quote])
    if trade >= 0:
        end_ns = max(end_ns, trades.seen_ns[trade])
    if end_ns >= decisions.clear_ns[i]:
        return 0, decisions.clear_kind[i], -1
    return end_ns, -1, quote


@njit(cache=True, nogil=True)
def _last_at(times_ns: Ints, t_ns: int, near: int) -> int:
    """Index of the last time at or before t; -1 if none. `near` is where to look first."""
    return int(_first_from(times_ns, t_ns + 1, near)) - 1


@njit(cache=True, nogil=True)
def _first_from(times_ns: Ints, t_ns: int, near: int) -> int:
    """Index of the first time at or after t; the size if none.

    Steps double away from `near` until they bracket the answer, then halve: O(log distance), and in cache.
    """
    n = times_ns.size
    low, high, step = near, near, 1
    while low > 0 and times_ns[low - 1] >= t_ns:
        high = low
        low = max(low - step, 0)
        step *= 2
    step = 1
    while high < n and times_ns[high] < t_ns:
        low = high + 1
        high = min(high + step, n)
        step *= 2
    while low < high:
        middle = (low + high) // 2
        if times_ns[middle] < t_ns:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def _sign(value: float, dead_band: float) -> int:
    if abs(value) <= dead_band:
        return 0
    return 1 if value > 0 else -1
