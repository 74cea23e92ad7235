"""The grid against hand-computed orders and against the obvious reading of the method, cell by cell."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labels.build_labels import sound_decisions
from labels.fees import Costs
from labels.grid import END_OF_DATA, MERGED, REJECTED, RESTED, Grid, Terms, label
from labels.venue_events import VenueDay
from tests.labels.toy_market import MS, TICK, Obvious, Quote, Settlement, Trade, day_of, ns, terms_for

FREE = Costs(0.0, 0.0, 0.0)
BUY, SELL = 0, 1
TOUCHED, PASSED, ANY_GATE, GATE_1500 = 0, 1, 2, 3


def label_at(day: VenueDay, *times_ms: float, **changes: object) -> Grid:
    decisions, _ = sound_decisions(np.array([ns(t) for t in times_ms]), day)
    return label(decisions, day.quotes, day.trades, day.funding, terms_for(day, **changes))


def steady(until_ms: int = 12_000, skew_ms: int = 5, bid: float = 1000.0, ask: float = 1001.0) -> list[Quote]:
    """A quote every 100 ms, all the same."""
    return [Quote(t, t + skew_ms, bid, ask) for t in range(0, until_ms, 100)]


def sell_print(exch_ms: int, price: float, qty: float = 1.0, skew_ms: int = 5) -> Trade:
    return Trade(exch_ms, exch_ms + skew_ms, price, qty, -1)


def test_a_print_at_the_limit_fills_under_touch_and_not_under_through() -> None:
    grid = label_at(day_of(steady(), [sell_print(1_500, 1000.0)]), 1_000)
    assert grid.maker.fill_ns[BUY, 0, TOUCHED, 0] == ns(1_505)
    assert grid.maker.fill_ns[BUY, 0, PASSED, 0] == 0
    assert grid.maker.fill_ns[SELL, 0, TOUCHED, 0] == 0


def test_a_print_beyond_the_limit_fills_under_both() -> None:
    grid = label_at(day_of(steady(), [sell_print(1_500, 999.5)]), 1_000)
    assert grid.maker.fill_ns[BUY, 0, TOUCHED, 0] == grid.maker.fill_ns[BUY, 0, PASSED, 0] == ns(1_505)


def test_the_opposite_best_at_the_limit_fills_under_through_alone() -> None:
    quotes = [row if row.exch_ms < 1_500 else Quote(row.exch_ms, row.recv_ms, 999.0, 1000.0) for row in steady()]
    grid = label_at(day_of(quotes, []), 1_000)
    assert grid.maker.fill_ns[BUY, 0, TOUCHED, 0] == 0
    assert grid.maker.fill_ns[BUY, 0, PASSED, 0] == ns(1_505)


def test_the_gate_opens_when_the_opposite_aggressor_has_traded_its_notional() -> None:
    trades = [sell_print(1_100, 1000.0, 1.0), Trade(1_200, 1_205, 1000.0, 9.0, 1), sell_print(1_300, 999.5, 0.6)]
    grid = label_at(day_of(steady(), trades), 1_000)
    assert grid.maker.fill_ns[BUY, 0, ANY_GATE, 0] == ns(1_105)
    assert grid.maker.fill_ns[BUY, 0, GATE_1500, 0] == ns(1_305)  # 1,000 + 599.7; the buyer's print does not count


def test_a_gate_order_rests_for_its_own_window() -> None:
    late = day_of(steady(), [sell_print(1_000 - 5 + 20 + 900 + 20, 1000.0)])
    grid = label_at(late, 1_000)
    assert grid.maker.fill_ns[BUY, 0, ANY_GATE, 0] == 0  # on the instant of the cancel: too late
    assert grid.maker.fill_ns[BUY, 0, TOUCHED, 0] == ns(1_940)


@pytest.mark.parametrize(("exch_ms", "fills"), [(1_015, False), (1_016, True), (3_034, True), (3_035, False)])
def test_an_order_fills_after_its_arrival_and_before_its_cancel(exch_ms: int, fills: bool) -> None:
    """Sent at 1,000 by our clock, 995 by the venue's; live from 1,015 until 1,015 + 2,000 + 20."""
    grid = label_at(day_of(steady(), [sell_print(exch_ms, 1000.0)]), 1_000)
    assert (grid.maker.fill_ns[BUY, 0, TOUCHED, 0] > 0) == fills


def test_an_order_that_would_cross_on_arrival_is_rejected_and_never_fills() -> None:
    quotes = [row if row.exch_ms < 1_010 else Quote(row.exch_ms, row.recv_ms, 998.0, 999.5) for row in steady()]
    quotes.append(Quote(1_012, 1_017, 998.0, 999.5))
    grid = label_at(day_of(quotes, [sell_print(1_500, 990.0)]), 1_000)
    assert grid.maker.status[BUY, 0, 0] == REJECTED  # 1,000 against an ask of 999.5
    assert grid.maker.status[BUY, 1, 0] == REJECTED  # 999.5
    assert grid.maker.status[BUY, 3, 0] == RESTED  # 994
    assert not grid.maker.fill_ns[BUY, :2].any()
    assert (grid.maker.net_bps[BUY, 0] == 0.0).all()
    assert grid.maker.fill_ns[BUY, 3, PASSED, 0] == ns(1_505)


def test_cells_that_round_to_one_price_are_one_order() -> None:
    """3 and 5 bps below 1,000 are 999.7 and 999.5, both 999.5 at a tick of 0.5."""
    grid = label_at(day_of(steady(), [sell_print(1_500, 999.0)]), 1_000)
    assert list(grid.maker.limit[BUY, :, 0]) == [1000.0, 999.5, 999.5, 994.0]
    assert list(grid.maker.limit[SELL, :, 0]) == [1001.0, 1001.5, 1002.0, 1007.5]
    assert list(grid.maker.status[BUY, :, 0]) == [RESTED, RESTED, MERGED, RESTED]
    np.testing.assert_array_equal(grid.maker.net_bps[BUY, 1], grid.maker.net_bps[BUY, 2])
    np.testing.assert_array_equal(grid.maker.end_ns[BUY, 1], grid.maker.end_ns[BUY, 2])


def test_a_round_trip_is_held_exactly_t_and_closed_one_latency_later_at_the_touch() -> None:
    """Filled at 1,500 at 1,000; T = 2,000 and 35 ms later the bid is 1,003, the ask 1,005."""
    quotes = [row for row in steady() if row.exch_ms < 3_500]
    quotes += [Quote(3_535, 3_540, 1003.0, 1005.0), Quote(3_536, 3_541, 900.0, 901.0)]
    quotes += [Quote(t, t + 5, 900.0, 901.0) for t in range(3_600, 12_000, 100)]
    grid = label_at(day_of(quotes, [sell_print(1_500, 999.5)]), 1_000, costs=Costs(2.0, 5.0, 0.0))
    mid = 1000.5
    assert grid.maker.gross_bps[BUY, 0, PASSED, 0, 0] == pytest.approx((1004.0 - mid) / mid * 1e4, rel=1e-6)
    net = (1003.0 - 1000.0 - 2e-4 * 1000.0 - 5e-4 * 1003.0) / mid * 1e4
    assert grid.maker.net_bps[BUY, 0, PASSED, 0, 0] == pytest.approx(net, rel=1e-6)
    assert grid.maker.end_ns[BUY, 0, PASSED, 0, 0] == ns(3_540)


def test_a_taker_pays_both_spreads_and_both_fees() -> None:
    grid = label_at(day_of(steady(), []), 1_000, costs=Costs(2.0, 5.0, 0.0))
    expected = (1000.0 - 1001.0 - 5e-4 * 2001.0) / 1000.5 * 1e4
    assert grid.taker.ret_bps[0, 0] == 0.0
    assert grid.taker.direction[0, 0] == 0
    np.testing.assert_allclose(grid.taker.net_bps[:, :, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("skew_ms", [-1_300, 5, 127])
def test_a_clock_that_runs_behind_the_venue_changes_no_fill(skew_ms: int) -> None:
    """Recorded captures receive before the venue sends: d cancels the skew."""
    trades = [sell_print(1_500, 999.5, skew_ms=skew_ms)]
    grid = label_at(day_of(steady(skew_ms=skew_ms), trades), 995 + skew_ms)
    assert grid.maker.fill_ns[BUY, 0, PASSED, 0] == ns(1_500 + skew_ms)
    assert grid.maker.end_ns[BUY, 0, PASSED, 0, 0] == ns(3_535 + skew_ms)


def test_funding_is_paid_by_the_long_whose_interval_crosses_it() -> None:
    day = day_of(steady(), [sell_print(1_500, 999.5)], [Settlement(3_000, 1e-4, 1000.0)])
    paid = label_at(day, 1_000, costs=FREE)
    before = label_at(day_of(steady(), [sell_print(1_500, 999.5)]), 1_000, costs=FREE)
    fee = 1e-4 * 1000.0 / 1000.5 * 1e4
    for hold in range(2):
        assert before.maker.net_bps[BUY, 0, PASSED, hold, 0] - paid.maker.net_bps[
            BUY, 0, PASSED, hold, 0
        ] == pytest.approx(fee, rel=1e-5)
    assert paid.taker.net_bps[:, 0, 0] == pytest.approx(before.taker.net_bps[:, 0, 0])  # closed at 1,750
    assert paid.taker.net_bps[SELL, 1, 0] - before.taker.net_bps[SELL, 1, 0] == pytest.approx(fee, rel=1e-5)


@pytest.mark.parametrize(
    ("gap", "labelled"),
    [
        (("trades", 5_000, 5_200, False), False),
        (("trades", 5_000, 5_200, True), True),  # mended
        (("mark_prices", 5_000, 5_200, False), True),  # no fill depends on it
        (("top_of_book", 9_000, 9_100, False), True),  # after the longest possible exit
    ],
)
def test_cells_whose_life_could_meet_a_gap_are_not_labelled(gap: tuple[str, int, int, bool], labelled: bool) -> None:
    grid = label_at(day_of(steady(), [], gaps=[gap]), 1_000)
    assert (grid.maker.end_ns[BUY, 0, PASSED, :, 0] > 0).tolist() == [labelled, labelled]
    assert grid.taker.end_ns[0, 0] > 0  # closed at 1,750
    assert grid.drops[1, 0, 0] == (0 if labelled else (3 + 4) * 4)  # distinct prices of both sides, four rules


def test_the_end_of_the_data_drops_filled_and_unfilled_orders_alike() -> None:
    """Covered until 6,000: an order of 1,000 filled at its last moment would be closed after it."""
    day = day_of(steady(until_ms=6_001), [sell_print(1_100, 999.5)])
    grid = label_at(day, 1_000)
    assert not grid.maker.end_ns[:, :, :, 1].any()
    assert np.isnan(grid.maker.net_bps[:, :, :, 1]).all()
    assert grid.drops[1, 1, END_OF_DATA] > 0
    early = label_at(day, 1_000, settle_early=True)
    assert early.maker.end_ns[BUY, 0, PASSED, 1, 0] == ns(1_100 + 4_100 + 35 + 5)


def test_a_market_that_never_trades_or_moves_is_labelled_without_nan() -> None:
    grid = label_at(day_of(steady(), []), 1_000, 2_000)
    assert np.isfinite(grid.maker.net_bps).all()
    assert np.isfinite(grid.taker.net_bps).all()
    assert not grid.maker.fill_ns.any()


def test_in_a_martingale_nothing_follows_from_a_fill() -> None:
    """mean(m_exit - m_fill) = 0 within 3 se: a label that looked ahead, or at the wrong book, would drift."""
    rng = np.random.default_rng(11)
    n = 60_000
    bid = 20_000 + np.cumsum(rng.choice([-1, 0, 1], n))
    quotes = [Quote(50 * k, 50 * k + 5, b * TICK, (b + 1) * TICK) for k, b in enumerate(bid)]
    trades = [sell_print(50 * k, bid[k] * TICK) for k in np.flatnonzero(rng.random(n) < 0.2)]
    day = day_of(quotes, trades)
    decisions, _ = sound_decisions(np.arange(ns(1_000), day.covered_ns, 7_000 * MS), day)
    grid = label(decisions, day.quotes, day.trades, day.funding, terms_for(day, deltas_bps=np.array([0.0, 0.5, 1.0])))
    mid = 0.5 * (decisions.bid + decisions.ask)
    for rule in (TOUCHED, PASSED):
        for delta in range(3):
            filled = grid.maker.end_ns[BUY, delta, rule, 1] * (grid.maker.fill_ns[BUY, delta, rule] > 0) > 0
            at = np.searchsorted(day.quotes.exch_ns, grid.maker.fill_ns[BUY, delta, rule][filled] - 5 * MS, "right") - 1
            mid_at_fill = 0.5 * (day.quotes.bid[at] + day.quotes.ask[at])
            moved = grid.maker.gross_bps[BUY, delta, rule, 1][filled] - (mid_at_fill / mid[filled] - 1.0) * 1e4
            assert filled.sum() > 50
            assert abs(moved.mean()) < 3.0 * moved.std() / np.sqrt(filled.sum())


def test_no_decision_gives_an_empty_grid() -> None:
    assert label_at(day_of([], [])).maker.net_bps.shape[-1] == 0


prices = st.integers(1_990, 2_010).map(lambda ticks: ticks * TICK)
spreads = st.integers(1, 3).map(lambda ticks: ticks * TICK)
times = st.integers(0, 12_000)
delays = st.integers(0, 40)


@st.composite
def markets(draw: st.DrawFn) -> tuple[list[Quote], list[Trade], list[Settlement]]:
    """Up to 40 quotes and 40 prints over 12 s at irregular and equal times, with late receipts under a skewed clock."""
    skew = draw(st.sampled_from([-1_300, 3]))
    rows = draw(st.lists(st.tuples(times, delays, prices, spreads), min_size=3, max_size=40))
    quotes = [Quote(0, skew, 1000.0, 1000.5), Quote(12_001, 12_001 + skew, 1000.0, 1000.5)]
    quotes += [Quote(at, at + skew + late, bid, bid + spread) for at, late, bid, spread in rows]
    prints = draw(st.lists(st.tuples(times, delays, prices, st.sampled_from([0.3, 1.0, 1.6])), max_size=40))
    sides = draw(st.lists(st.sampled_from([1, -1]), min_size=len(prints), max_size=len(prints)))
    trades = [
        Trade(at, at + skew + late, price, qty, side)
        for (at, late, price, qty), side in zip(prints, sides, strict=True)
    ]
    settlements = draw(st.lists(st.integers(1, 11_000), max_size=2, unique=True))
    return quotes, trades, [Settlement(at, 1e-4, 1000.0) for at in sorted(settlements)]


@settings(max_examples=80, deadline=None)
@given(markets(), st.lists(st.integers(50, 9_000), min_size=1, max_size=4, unique=True))
def test_every_cell_is_what_the_obvious_reading_says(
    market: tuple[list[Quote], list[Trade], list[Settlement]], decided_ms: list[int]
) -> None:
    quotes, trades, settlements = market
    day = day_of(quotes, trades, settlements)
    skew_ms = quotes[0].recv_ms
    decisions, _ = sound_decisions(np.array(sorted(ns(t + skew_ms) for t in decided_ms)), day)
    terms = terms_for(day)
    grid = label(decisions, day.quotes, day.trades, day.funding, terms)
    for i, t_ns in enumerate(decisions.t_ns):
        known = [row for row in sorted(quotes, key=lambda row: row.recv_ms) if ns(row.recv_ms) < t_ns]
        obvious = Obvious(quotes, trades, settlements, terms, int(decisions.skew_ns[i]))
        assert_equal_cells(grid, obvious, known[-1], i, int(t_ns), terms)


def assert_equal_cells(grid: Grid, obvious: Obvious, decision: Quote, i: int, t_ns: int, terms: Terms) -> None:
    for s, side in enumerate((1, -1)):
        for h in range(terms.taker_holds_ns.size):
            expected = obvious.taker(decision, t_ns, side, h)
            found = side * grid.taker.ret_bps[h, i], grid.taker.net_bps[s, h, i], grid.taker.end_ns[h, i]
            assert_outcome(expected, *found)
        for d in range(terms.deltas_bps.size):
            for r in range(2 + terms.gates_usd.size):
                for h in range(terms.maker_holds_ns.size):
                    at = (s, d, r, h, i)
                    expected = obvious.maker(decision, t_ns, side, d, r, h)
                    assert_outcome(expected, grid.maker.gross_bps[at], grid.maker.net_bps[at], grid.maker.end_ns[at])
                    assert expected is None or grid.maker.fill_ns[s, d, r, i] == expected.fill_recv_ns


def assert_outcome(expected: object, gross: float, net: float, end_ns: int) -> None:
    if expected is None:
        assert math.isnan(net)
        assert end_ns == 0
        return
    assert gross == pytest.approx(expected.gross_bps, rel=1e-6, abs=1e-6)  # type: ignore[attr-defined]
    assert net == pytest.approx(expected.net_bps, rel=1e-6, abs=1e-5)  # type: ignore[attr-defined]
    assert end_ns == expected.end_ns  # type: ignore[attr-defined]


@settings(max_examples=40, deadline=None)
@given(markets(), st.integers(50, 6_000))
def test_what_is_received_after_the_end_of_a_label_does_not_change_it(
    market: tuple[list[Quote], list[Trade], list[Settlement]], decided_ms: int
) -> None:
    """For each cell: drop or rewrite every event received later than its `end_ns`, and label again."""
    quotes, trades, settlements = market
    day = day_of(quotes, trades, settlements)
    t_ns = np.array([ns(decided_ms + quotes[0].recv_ms)])
    decisions, _ = sound_decisions(t_ns, day)
    terms = terms_for(day)
    whole = label(decisions, day.quotes, day.trades, day.funding, terms)
    for end_ns in np.unique(whole.maker.end_ns[whole.maker.end_ns > 0]):
        past = day_of(
            [row if ns(row.recv_ms) <= end_ns else Quote(row.exch_ms, row.recv_ms, 500.0, 501.0) for row in quotes],
            [row for row in trades if ns(row.recv_ms) <= end_ns],
            settlements,
        )
        again = label(decisions, past.quotes, past.trades, day.funding, terms)
        mine = whole.maker.end_ns == end_ns
        np.testing.assert_array_equal(whole.maker.net_bps[mine], again.maker.net_bps[mine])
        np.testing.assert_array_equal(whole.maker.end_ns[mine], again.maker.end_ns[mine])
