"""Paper fills are the labels of the same decisions, and a closed order frees its side."""

from typing import Any

import numpy as np
import polars as pl
import pytest

from core import schema
from core.config import Config, Labels
from core.units import NS_PER_MS, NS_PER_S
from ingest.events import Event, Quote, Trade
from labels.build_labels import costs_of, grid_terms, sound_decisions
from labels.grid import label
from labels.venue_events import venue_day
from live.paper import PaperAccount
from research.learning.candidates import Candidate
from tests.live.synthetic import BEGIN_NS, MAKER, TAKER, market

NAME = "binance_um:BTCUSDT"
CFG = Config(labels=Labels(horizons_s=(1.0, 10.0)))


def frame(events: list[Event], kind: type, table: schema.Table) -> pl.DataFrame:
    rows = [[getattr(event, name) for name in table.columns] for event in events if isinstance(event, kind)]
    return pl.DataFrame(rows, schema=table.columns, orient="row")


def labelled(events: list[Event], times_ns: list[int], candidate: Candidate) -> dict[int, dict[int, tuple[Any, ...]]]:
    """What the labels say of each decision and side: (fill_ns, end_ns, gross, net)."""
    quotes, trades = frame(events, Quote, schema.TOP_OF_BOOK), frame(events, Trade, schema.TRADES)
    marks = pl.DataFrame(schema=schema.MARK_PRICES.columns)
    day = venue_day(quotes, trades, marks, pl.DataFrame(schema=schema.GAPS.columns), 60 * NS_PER_S)
    decisions, _ = sound_decisions(np.array(times_ns), day)
    terms = grid_terms(CFG.labels, costs_of(CFG, "binance_um"), 0.1, day.covered_ns)
    grid = label(decisions, day.quotes, day.trades, day.funding, terms)
    found: dict[int, dict[int, tuple[Any, ...]]] = {}
    for k, t_ns in enumerate(decisions.t_ns.tolist()):
        for s, side in enumerate((1, -1)):
            if candidate.kind == "taker":
                taker = grid.taker
                outcome = (None, taker.end_ns[1, k], side * taker.ret_bps[1, k], taker.net_bps[s, 1, k])
            else:
                maker, cell = grid.maker, (s, 0, 1, 0, k)
                outcome = (maker.fill_ns[s, 0, 1, k], maker.end_ns[cell], maker.gross_bps[cell], maker.net_bps[cell])
            found.setdefault(t_ns, {})[side] = outcome
    return found


def traded(events: list[Event], times_ns: list[int], candidate: Candidate) -> tuple[PaperAccount, list[Any]]:
    """Places orders of both sides at each time, as events come in slices of 100 ms."""
    account, fills, waiting = PaperAccount(CFG, candidate, [NAME]), [], list(events)
    for now_ns in range(BEGIN_NS, events[-1].recv_ns + 60 * NS_PER_S, NS_PER_S // 10):  # type: ignore[union-attr]
        ready = [event for event in waiting if event.recv_ns < now_ns]  # type: ignore[union-attr]
        waiting = waiting[len(ready) :]
        account.observe(0, ready)
        if now_ns in times_ns:
            for side in (1, -1):
                account.place(0, now_ns, side)
        fills += account.settle(now_ns)
    return account, fills


@pytest.mark.parametrize("candidate", [TAKER, MAKER], ids=["taker", "maker"])
def test_a_paper_fill_is_the_label_of_its_decision(candidate: Candidate) -> None:
    events = [event for event in market(120) if isinstance(event, Quote | Trade)]
    times_ns = [BEGIN_NS + k * NS_PER_S for k in range(5, 100)]
    expected = labelled(events, times_ns, candidate)
    _, fills = traded(events, times_ns, candidate)
    assert len(fills) > 8
    assert {fill.side for fill in fills} == {1, -1}
    for fill in fills:
        fill_ns, end_ns, gross_bps, net_bps = expected[fill.decision_ns][fill.side]
        assert fill_ns is None or fill.fill_ns == fill_ns
        assert (fill.end_ns, fill.gross_bps, fill.net_bps) == (end_ns, gross_bps, net_bps)


def test_every_order_is_settled_and_none_twice() -> None:
    events = [event for event in market(60) if isinstance(event, Quote | Trade)]
    account, fills = traded(events, [BEGIN_NS + k * NS_PER_S for k in range(5, 40)], TAKER)
    assert account.open_orders == 0
    keys = [(fill.decision_ns, fill.side) for fill in fills]
    assert len(set(keys)) == len(keys)


def test_an_order_is_settled_at_its_end_and_not_before_though_the_market_be_silent() -> None:
    t_ns = BEGIN_NS + NS_PER_S
    account = PaperAccount(CFG, TAKER, [NAME])
    account.observe(0, [quote(t_ns - 1, 99.9, 100.1)])
    assert account.place(0, t_ns, 1)
    assert account.settle(t_ns + 10 * NS_PER_S) == []
    (fill,) = account.settle(t_ns + 11 * NS_PER_S)
    assert fill.gross_bps == 0.0
    assert account.open_orders == 0


def quote(at_ns: int, bid: float, ask: float) -> Quote:
    return Quote("BTCUSDT", at_ns - 5 * NS_PER_MS, at_ns, 1, bid, 1.0, ask, 1.0)


def test_a_taker_by_hand() -> None:
    """Bought at the ask of 100.2 that stands at arrival, sold at the bid of 101.0 ten seconds later."""
    t_ns = BEGIN_NS + NS_PER_S
    account = PaperAccount(CFG, TAKER, [NAME])
    account.observe(0, [quote(t_ns - 100 * NS_PER_MS, 99.9, 100.1)])
    assert account.place(0, t_ns, 1)
    assert not account.place(0, t_ns, 1)  # one order per side
    late = t_ns + 12 * NS_PER_S
    moves = [(10 * NS_PER_MS, 100.0, 100.2), (9 * NS_PER_S, 101.0, 101.2), (11 * NS_PER_S, 90.0, 90.2)]
    account.observe(0, [quote(t_ns + after_ns, bid, ask) for after_ns, bid, ask in moves])
    (fill,) = account.settle(late)
    fees_bps = 5.0 * (100.2 + 101.0) / 100.0
    assert fill.limit == 100.2
    assert fill.gross_bps == pytest.approx(110.0, rel=1e-6)
    assert fill.net_bps == pytest.approx((101.0 - 100.2) / 100.0 * 1e4 - fees_bps, rel=1e-6)


def test_without_a_book_nothing_is_ordered() -> None:
    account = PaperAccount(CFG, TAKER, [NAME])
    assert not account.place(0, BEGIN_NS, 1)
    account.observe(0, [quote(BEGIN_NS + 1, 100.2, 100.0)])
    assert not account.place(0, BEGIN_NS + NS_PER_S, 1)


def test_an_order_below_the_venues_least_notional_is_not_sent() -> None:
    settings = Config(labels=CFG.labels)
    small = settings.backtest.__class__(order_usd=1.0, max_inventory_usd=2.0)
    account = PaperAccount(Config(labels=CFG.labels, backtest=small), TAKER, [NAME])
    account.observe(0, [quote(BEGIN_NS, 99.9, 100.1)])
    assert not account.place(0, BEGIN_NS + NS_PER_S, 1)
