"""Small markets for the tests of labels and backtest, and the obvious reading of method section 2 in plain Python."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from core.gaps import told_at_their_ends
from core.schema import MARK_PRICES, TRADES
from core.units import BPS, NS_PER_MS, NS_PER_S
from labels.fees import Costs
from labels.grid import Terms
from labels.venue_events import VenueDay, venue_day

TICK = 0.5
START = 1_700_000_000 * NS_PER_S
STALE_NS = 60 * NS_PER_S
MS = NS_PER_MS


@dataclass(frozen=True)
class Quote:
    exch_ms: int
    recv_ms: int
    bid: float
    ask: float


@dataclass(frozen=True)
class Trade:
    exch_ms: int
    recv_ms: int
    price: float
    qty: float
    taker: int


@dataclass(frozen=True)
class Settlement:
    at_ms: int
    rate: float
    mark: float


def ns(ms: float) -> int:
    return START + round(ms * MS)


def day_of(
    quotes: list[Quote],
    trades: list[Trade],
    settlements: list[Settlement] | None = None,
    gaps: list[tuple[str, int, int, bool]] | None = None,
    stale_ns: int = STALE_NS,
) -> VenueDay:
    """The `VenueDay` of toy rows, given in any order."""
    quotes, trades = sorted(quotes, key=lambda row: row.recv_ms), sorted(trades, key=lambda row: row.recv_ms)
    quote_rows = pl.DataFrame(
        {
            "exch_ns": _ints(ns(row.exch_ms) for row in quotes),
            "recv_ns": _ints(ns(row.recv_ms) for row in quotes),
            "bid_price": _floats(row.bid for row in quotes),
            "ask_price": _floats(row.ask for row in quotes),
        }
    ).with_columns(exch_assumed=pl.lit(False))
    trade_rows = pl.DataFrame(
        {
            "exch_ns": _ints(ns(row.exch_ms) for row in trades),
            "recv_ns": _ints(ns(row.recv_ms) for row in trades),
            "price": _floats(row.price for row in trades),
            "qty": _floats(row.qty for row in trades),
            "taker_side": pl.Series(
                ["buy" if row.taker > 0 else "sell" for row in trades], dtype=TRADES.columns["taker_side"]
            ),
        }
    )
    gap_rows = told_at_their_ends(
        [(stream, ns(from_ms), ns(to_ms), "", mended) for stream, from_ms, to_ms, mended in gaps or []]
    )
    return venue_day(quote_rows, trade_rows, _marks(settlements or []), gap_rows, stale_ns)


def terms_for(day: VenueDay, **changes: object) -> Terms:
    """Small, distinct terms: no two of the durations are equal, so that mixing them up shows."""
    terms = Terms(
        deltas_bps=np.array([0.0, 3.0, 5.0, 60.0]),
        gates_usd=np.array([0.0, 1500.0]),
        taker_holds_ns=np.array([700 * MS, 2_000 * MS]),
        maker_holds_ns=np.array([2_000 * MS, 4_100 * MS]),
        rest_ns=2_000 * MS,
        gate_rest_ns=900 * MS,
        entry_latency_ns=20 * MS,
        exit_latency_ns=35 * MS,
        dead_band_bps=0.0,
        tick=TICK,
        costs=Costs(2.0, 5.0, 0.25),
        covered_ns=day.covered_ns,
    )
    return terms._replace(**changes)


@dataclass(frozen=True)
class Outcome:
    """What the obvious reading says of one cell; None where it says nothing (not labelled)."""

    fill_recv_ns: int
    gross_bps: float
    net_bps: float
    end_ns: int


class Obvious:
    """Method section 2, one cell at a time, by filtering lists. Prices are compared as whole ticks."""

    def __init__(
        self, quotes: list[Quote], trades: list[Trade], settlements: list[Settlement], terms: Terms, skew_ns: int
    ) -> None:
        self.quotes = sorted(sorted(quotes, key=lambda row: row.recv_ms), key=lambda row: row.exch_ms)
        self.trades = sorted(sorted(trades, key=lambda row: row.recv_ms), key=lambda row: row.exch_ms)
        self.settlements, self.terms, self.skew_ns = settlements, terms, skew_ns

    def limit(self, side: int, touch: float, delta_bps: float) -> float:
        raw = touch * (1 - side * delta_bps / BPS) / TICK
        whole = int(np.floor(round(raw, 6))) if side > 0 else int(np.ceil(round(raw, 6)))
        return whole * TICK

    def book_at(self, t_ns: int) -> Quote | None:
        known = [row for row in self.quotes if ns(row.exch_ms) <= t_ns]
        return known[-1] if known else None

    def known_by(self, t_ns: int) -> int:
        rows = [*self.quotes, *self.trades]
        return max([t_ns + self.skew_ns, *(ns(row.recv_ms) for row in rows if ns(row.exch_ms) <= t_ns)])

    def fill(self, side: int, limit: float, rule: int, arrival_ns: int, rest_ns: int) -> tuple[int, int] | None:
        """(venue time, receipt) of the first event that fills, prints before quotes of the same time."""
        cancel_ns = arrival_ns + rest_ns + self.terms.entry_latency_ns
        alive = [row for row in self.trades if arrival_ns < ns(row.exch_ms) < cancel_ns]
        past = [row for row in self.quotes if arrival_ns < ns(row.exch_ms) < cancel_ns]
        if rule == 0:
            hits = [(row.exch_ms, 0, row.recv_ms) for row in alive if side * (limit - row.price) >= 0]
        elif rule == 1:
            hits = [(row.exch_ms, 0, row.recv_ms) for row in alive if side * (limit - row.price) > 0]
            hits += [
                (row.exch_ms, 1, row.recv_ms)
                for row in past
                if side * (limit - (row.ask if side > 0 else row.bid)) >= 0
            ]
            hits = sorted(hits, key=lambda hit: hit[:2])
        else:
            eaten, hits = 0.0, []
            for row in alive:
                if row.taker == -side and side * (limit - row.price) >= 0:
                    eaten += row.price * row.qty
                    if eaten >= self.terms.gates_usd[rule - 2]:
                        hits.append((row.exch_ms, 0, row.recv_ms))
        return (ns(hits[0][0]), ns(hits[0][2])) if hits else None

    def net(
        self, side: int, mid: float, entry: float, is_taker: bool, from_ns: int, exit_ns: int
    ) -> tuple[float, float]:
        book = self.book_at(exit_ns)
        assert book is not None
        price, costs = (book.bid if side > 0 else book.ask), self.terms.costs
        gross = side * ((book.bid + book.ask) / 2 - mid)
        fees = (costs.taker_bps if is_taker else costs.maker_bps) * entry / BPS + costs.taker_bps * price / BPS
        slipped = costs.slippage_bps / BPS * (price + (entry if is_taker else 0))
        funding = sum(side * row.rate * row.mark for row in self.settlements if from_ns < ns(row.at_ms) <= exit_ns)
        pnl = side * (price - entry) - fees - slipped - funding
        return gross / mid * BPS, pnl / mid * BPS

    def maker(self, decision: Quote, t_ns: int, side: int, delta: int, rule: int, hold: int) -> Outcome | None:
        terms = self.terms
        mid, touch = (decision.bid + decision.ask) / 2, decision.bid if side > 0 else decision.ask
        limit = self.limit(side, touch, terms.deltas_bps[delta])
        arrival_ns = t_ns - self.skew_ns + terms.entry_latency_ns
        hold_ns, rest_ns = int(terms.maker_holds_ns[hold]), terms.rest_ns if rule < 2 else terms.gate_rest_ns
        latest = arrival_ns + max(terms.rest_ns, terms.gate_rest_ns) + terms.entry_latency_ns + hold_ns
        if latest + terms.exit_latency_ns > terms.covered_ns:
            return None
        met = self.book_at(arrival_ns)
        assert met is not None
        if side * (limit - (met.ask if side > 0 else met.bid)) >= 0:
            return Outcome(0, 0.0, 0.0, self.known_by(arrival_ns))
        filled = self.fill(side, limit, rule, arrival_ns, rest_ns)
        if filled is None:
            return Outcome(0, 0.0, 0.0, self.known_by(arrival_ns + rest_ns + terms.entry_latency_ns))
        exit_ns = filled[0] + hold_ns + terms.exit_latency_ns
        gross, net = self.net(side, mid, limit, False, filled[0], exit_ns)
        return Outcome(filled[1], gross, net, self.known_by(exit_ns))

    def taker(self, decision: Quote, t_ns: int, side: int, hold: int) -> Outcome | None:
        mid = (decision.bid + decision.ask) / 2
        arrival_ns = t_ns - self.skew_ns + self.terms.entry_latency_ns
        exit_ns = arrival_ns + int(self.terms.taker_holds_ns[hold]) + self.terms.exit_latency_ns
        if exit_ns > self.terms.covered_ns:
            return None
        met = self.book_at(arrival_ns)
        assert met is not None
        gross, net = self.net(side, mid, met.ask if side > 0 else met.bid, True, arrival_ns, exit_ns)
        return Outcome(arrival_ns + self.skew_ns, gross, net, self.known_by(exit_ns))


def _marks(settlements: list[Settlement]) -> pl.DataFrame:
    """A row just before each settlement, and one after it that names the next."""
    rows = [
        (ns(row.at_ms + shift), ns(row.at_ms + shift), row.mark, None, row.rate, ns(row.at_ms + after), None, False)
        for row in settlements
        for shift, after in ((-1, 0), (0, 10**9))
    ]
    return pl.DataFrame(rows, schema=MARK_PRICES.columns, orient="row").sort("recv_ns")


def _ints(values: object) -> pl.Series:
    return pl.Series(list(values), dtype=pl.Int64)  # type: ignore[call-overload]


def _floats(values: object) -> pl.Series:
    return pl.Series(list(values), dtype=pl.Float64)  # type: ignore[call-overload]
