"""Paper trading: what orders would have become, by the rules that labels and backtest use.

An order is settled by labelling its decision (`labels/grid.py`) over the events that the runner has taken: the arrival,
fill, cancel, exit and costs of training. It is settled when all that the venue published up to its end must have been
received; until then it holds its place in the limits, which are the backtest's.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from backtest.policy import ALLOWED, limits_of, order_qty, refusal
from core import schema
from core.cells import THROUGH, TOUCH
from core.config import Config
from core.store import date_of_ns
from core.units import NS_PER_MS, NS_PER_S
from ingest.events import Event, Mark, Quote, Trade
from labels.build_labels import costs_of, grid_terms
from labels.fees import Funding, Rules, funding_of, lies_on, rules_of
from labels.fills import limit_price
from labels.grid import Decisions, Grid, Terms, label
from labels.venue_clock import UNKNOWN, WINDOW_NS, SkewWindow
from labels.venue_events import Books, Quotes, Trades, quotes_of
from research.learning.candidates import Candidate

_MARGIN_NS: Final = 250 * NS_PER_MS  # beyond the least delay of the feed, for what was published before an order's end
_FOREVER: Final = np.iinfo(np.int64).max
_NO_FUNDING: Final = Funding(np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
_SIDES: Final = {1: 0, -1: 1}  # the first axis of labels
_RULES: Final = {TOUCH: 0, THROUGH: 1}
_STREAMS: Final = {Quote: 0, Trade: 1}
Ints = NDArray[np.int64]


class Fill(NamedTuple):
    """An order at its end. Times are of receipt; amounts are bps of the mid at the decision, 0 where unfilled."""

    instrument: int
    decision_ns: int
    side: int
    fill_ns: int
    """0: not filled."""
    end_ns: int
    limit: float
    """The limit of a maker; the touch that a taker met."""
    gross_bps: float
    net_bps: float


@dataclass
class _Order:
    decision_ns: int
    side: int
    skew_ns: int
    bid: float
    ask: float
    notional_usd: float
    due_ns: int


@dataclass
class _Tape:
    """The events of one instrument as far back as an open order reaches, and its orders."""

    venue: str
    symbol: str
    skew: SkewWindow = field(default_factory=lambda: SkewWindow(len(_STREAMS)))
    unheard: deque[Quote | Trade] = field(default_factory=deque)
    quotes: deque[Quote] = field(default_factory=deque)
    trades: deque[Trade] = field(default_factory=deque)
    marks: deque[Mark] = field(default_factory=deque)
    orders: list[_Order] = field(default_factory=list)
    ended: list[tuple[_Order, int]] = field(default_factory=list)
    """Settled orders with the receipt of their end: busy for decisions before it."""
    rules: Rules | None = None


class PaperAccount:
    """Orders of one policy on some instruments. Pure: the same events and orders give the same fills."""

    def __init__(self, cfg: Config, candidate: Candidate, names: Sequence[str]) -> None:
        self._cfg = cfg
        self._candidate = candidate
        pairs = (name.partition(":") for name in names)
        self._tapes = [_Tape(venue, symbol) for venue, _, symbol in pairs]
        self._limits = limits_of(cfg.backtest)
        self._done: list[Fill] = []
        labels = cfg.labels
        self._latency_ns = round((labels.entry_latency_ms + labels.exit_latency_ms) * NS_PER_MS)
        self._hold_ns = round(candidate.horizon_s * NS_PER_S)

    @property
    def open_orders(self) -> int:
        """Orders that are not settled yet."""
        return sum(len(tape.orders) for tape in self._tapes)

    def observe(self, instrument: int, events: Iterable[Event]) -> None:
        """Events of one instrument in order of receipt; must precede decisions at or after their receipt."""
        tape = self._tapes[instrument]
        for event in events:
            match event:
                case Quote():
                    tape.quotes.append(event)
                    tape.unheard.append(event)
                case Trade():
                    tape.trades.append(event)
                    tape.unheard.append(event)
                case Mark():
                    tape.marks.append(event)

    def place(self, instrument: int, decision_ns: int, side: int) -> bool:
        """Send an order at the decision, unless a limit or an unknown book forbids it."""
        tape = self._tapes[instrument]
        self._settle(instrument, decision_ns)
        quote, skew_ns = _last_sound(tape.quotes, decision_ns), _skew_at(tape, decision_ns)
        if quote is None or skew_ns == UNKNOWN:
            return False
        notional_usd = self._notional_usd(tape, quote, side, decision_ns)
        if not self._is_allowed(tape, side, decision_ns, notional_usd):
            return False
        due_ns = decision_ns + self._latency_ns + self._first_wait_ns() + _MARGIN_NS
        book = quote.bid_price, quote.ask_price
        tape.orders.append(_Order(decision_ns, side, skew_ns, *book, notional_usd, due_ns))
        return True

    def settle(self, now_ns: int) -> list[Fill]:
        """Orders that have come to their end by `now_ns`, in order of their decisions."""
        for instrument, tape in enumerate(self._tapes):
            _skew_at(tape, now_ns)
            self._settle(instrument, now_ns)
            if not tape.orders:
                _forget(tape, now_ns - WINDOW_NS)
        done, self._done = sorted(self._done, key=lambda fill: (fill.decision_ns, fill.instrument)), []
        return done

    def _notional_usd(self, tape: _Tape, quote: Quote, side: int, decision_ns: int) -> float:
        """What the policy orders at this price, in quote currency; 0 below the venue's least notional."""
        rules = _rules(tape, quote, decision_ns)
        own, opposite = (quote.bid_price, quote.ask_price) if side > 0 else (quote.ask_price, quote.bid_price)
        price = opposite
        if self._candidate.kind == "maker":
            price = limit_price(side, own, self._candidate.delta_bps or 0.0, rules.tick)
        qty = order_qty(price, self._limits.order_usd, rules.lot_qty, rules.min_notional_usd)
        return float(qty * price)

    def _is_allowed(self, tape: _Tape, side: int, decision_ns: int, notional_usd: float) -> bool:
        """The limits, with every open order of this side counted as filled and of the other as not: the worst case."""
        tape.ended = [(order, end_ns) for order, end_ns in tape.ended if end_ns > decision_ns]
        open_ = [order for order in [*tape.orders, *(order for order, _ in tape.ended)] if order.side == side]
        working_usd = sum(order.notional_usd for order in open_)
        limits = self._limits
        exposure = (len(open_), 0.0, float(working_usd), notional_usd)
        return bool(refusal(side, *exposure, limits.max_position, limits.max_inventory_usd) == ALLOWED)

    def _settle(self, instrument: int, now_ns: int) -> None:
        """Settle the orders that are due. A maker that turns out to be filled is due again at its exit."""
        tape = self._tapes[instrument]
        due = [order for order in tape.orders if order.due_ns <= now_ns]
        if not due:
            return
        quotes, trades = _quotes(tape), _trades(tape)
        covered_ns = now_ns - max(order.skew_ns for order in due) - _MARGIN_NS
        terms = self._terms(tape, covered_ns)
        funding = _funding(tape.marks, min(order.decision_ns for order in due), covered_ns)
        grid = label(_decisions(due), quotes, trades, funding, terms)
        for k, order in enumerate(due):
            fill = self._fill(instrument, order, k, grid, quotes, terms)
            if fill.end_ns:
                tape.orders.remove(order)
                tape.ended.append((order, fill.end_ns))
                self._done.append(fill)
            else:
                order.due_ns = max(order.due_ns + 1, fill.fill_ns + self._hold_ns + self._latency_ns + _MARGIN_NS)

    def _fill(self, instrument: int, order: _Order, k: int, grid: Grid, quotes: Quotes, terms: Terms) -> Fill:
        """Order k of a labelled batch; `end_ns` is 0 where its end has not come."""
        side = _SIDES[order.side]
        where = (instrument, order.decision_ns, order.side)
        if self._candidate.kind == "taker":
            arrival_ns = order.decision_ns - order.skew_ns + terms.entry_latency_ns
            met = int(np.searchsorted(quotes.exch_ns, arrival_ns, side="right")) - 1
            touch = float((quotes.ask if order.side > 0 else quotes.bid)[max(met, 0)])
            gross_bps, net_bps = order.side * float(grid.taker.ret_bps[0, k]), float(grid.taker.net_bps[side, 0, k])
            return Fill(*where, arrival_ns + order.skew_ns, int(grid.taker.end_ns[0, k]), touch, gross_bps, net_bps)
        rule, maker = _RULES[self._candidate.rule or THROUGH], grid.maker
        cell = (side, 0, rule, 0, k)
        fill_ns, limit = int(maker.fill_ns[side, 0, rule, k]), float(maker.limit[side, 0, k])
        amounts = float(maker.gross_bps[cell]), float(maker.net_bps[cell])
        return Fill(*where, fill_ns, int(maker.end_ns[cell]), limit, *amounts)

    def _terms(self, tape: _Tape, covered_ns: int) -> Terms:
        """The one cell of the policy; R is that of the whole grid, as in training."""
        assert tape.rules is not None  # an order was placed
        terms = grid_terms(self._cfg.labels, costs_of(self._cfg, tape.venue), tape.rules.tick, covered_ns)
        terms = terms._replace(settle_early=True)  # the outcome as soon as it is known; training waits for all alike
        hold, none = np.array([self._hold_ns], np.int64), np.zeros(0)
        if self._candidate.kind == "taker":
            return terms._replace(deltas_bps=none, gates_usd=none, taker_holds_ns=hold, maker_holds_ns=hold[:0])
        deltas = np.array([self._candidate.delta_bps or 0.0])
        return terms._replace(deltas_bps=deltas, gates_usd=none, taker_holds_ns=hold[:0], maker_holds_ns=hold)

    def _first_wait_ns(self) -> int:
        """From arrival to the first moment at which the order can be settled: a taker's exit, a maker's cancel."""
        if self._candidate.kind == "taker":
            return self._hold_ns
        return round(self._cfg.labels.rest_s * NS_PER_S)


def _rules(tape: _Tape, quote: Quote, at_ns: int) -> Rules:
    """Tick and lot: the table's, or inferred from what was seen; anew where a price contradicts them."""
    touch = np.array([quote.bid_price, quote.ask_price])
    if tape.rules is None or not lies_on(touch, tape.rules.tick):
        quotes, trades = _quotes(tape), _trades(tape)
        prices = np.unique(np.concatenate([quotes.bid, quotes.ask, trades.price]))
        quantities = np.unique(trades.qty) if trades.qty.size else np.array([quote.bid_qty, quote.ask_qty])
        tape.rules = rules_of(tape.venue, tape.symbol, date_of_ns(at_ns), prices, quantities)
    return tape.rules


def _decisions(orders: list[_Order]) -> Decisions:
    """The orders as decisions that no break in the record ends: what is placed is carried to its end."""
    n = len(orders)
    return Decisions(
        t_ns=_ints((order.decision_ns for order in orders), n),
        skew_ns=_ints((order.skew_ns for order in orders), n),
        bid=_floats((order.bid for order in orders), n),
        ask=_floats((order.ask for order in orders), n),
        clear_ns=np.full(n, _FOREVER, np.int64),
        clear_kind=np.zeros(n, np.int64),
    )


def _quotes(tape: _Tape) -> Quotes:
    n, quotes = len(tape.quotes), tape.quotes
    return quotes_of(
        Books(
            recv_ns=_ints((quote.recv_ns for quote in quotes), n),
            exch_ns=_ints((quote.exch_ns for quote in quotes), n),
            bid=_floats((quote.bid_price for quote in quotes), n),
            ask=_floats((quote.ask_price for quote in quotes), n),
            assumed=np.zeros(n, np.bool_),
        )
    )


def _trades(tape: _Tape) -> Trades:
    """Prints in the venue's order, as `labels.venue_events.trades_of` gives them."""
    n, trades = len(tape.trades), tape.trades
    exch_ns = _ints((trade.exch_ns for trade in trades), n)
    order = np.argsort(exch_ns, kind="stable")
    recv_ns = _ints((trade.recv_ns for trade in trades), n)[order]
    taker = np.array([1 if trade.taker_side == "buy" else -1 for trade in trades], np.int8)
    prices, quantities = _floats((trade.price for trade in trades), n), _floats((trade.qty for trade in trades), n)
    seen_ns = np.maximum.accumulate(recv_ns) if n else recv_ns
    return Trades(exch_ns[order], prices[order], quantities[order], taker[order], recv_ns, seen_ns)


def _funding(marks: Iterable[Mark], from_ns: int, to_ns: int) -> Funding:
    """Settlements within the orders' lives: mostly none, and then no frame is made."""
    seen = [mark for mark in marks if mark.next_funding_ns is not None]
    if not any(from_ns - WINDOW_NS < (mark.next_funding_ns or 0) <= to_ns for mark in seen):
        return _NO_FUNDING
    names = list(schema.MARK_PRICES.columns)
    rows = [[getattr(mark, name) for name in names] for mark in seen]
    return funding_of(pl.DataFrame(rows, schema=schema.MARK_PRICES.columns, orient="row"))


def _last_sound(quotes: deque[Quote], decision_ns: int) -> Quote | None:
    """The last quote with two sides that was received before the decision."""
    sound = (
        quote for quote in reversed(quotes) if quote.recv_ns < decision_ns and 0.0 < quote.bid_price < quote.ask_price
    )
    return next(sound, None)


def _skew_at(tape: _Tape, now_ns: int) -> int:
    """d at `now_ns`, from what was received before it. Times that the venue did not give say nothing."""
    while tape.unheard and tape.unheard[0].recv_ns < now_ns:
        event = tape.unheard.popleft()
        if not getattr(event, "exch_assumed", False):
            tape.skew.push(_STREAMS[type(event)], event.recv_ns, event.exch_ns)
    return tape.skew.at(now_ns)


def _forget(tape: _Tape, before_ns: int) -> None:
    """Drop what no order can reach any more; the last quote stays, however old."""
    while len(tape.quotes) > 1 and tape.quotes[1].recv_ns < before_ns:
        tape.quotes.popleft()
    while tape.trades and tape.trades[0].recv_ns < before_ns:
        tape.trades.popleft()
    while len(tape.marks) > 1 and tape.marks[1].recv_ns < before_ns:
        tape.marks.popleft()


def _ints(values: Iterable[int], n: int) -> Ints:
    return np.fromiter(values, np.int64, n)


def _floats(values: Iterable[float], n: int) -> NDArray[np.float64]:
    return np.fromiter(values, np.float64, n)
