"""The bar kernel against a slow twin, in any cut, and on recorded frames."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import schema
from core.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_MS, NS_PER_S
from ingest import packing
from ingest.events import BookUpdate, Event, Gap, Liquidation, Mark, Quote, Trade
from ingest.raw import RawReader
from ingest.venues import decoder_for
from research.bars.bar_pass import SILENCE_NS, Bars, ClosedBars, join_closed
from research.bars.clocks import Clock, parse_clock
from research.bars.columns import BAR_COLUMNS
from research.bars.events import EVENT, GAP, LIQUIDATION, MARK, QUOTE, TRADE, as_events, merge_events

DAY_NS = 20_000 * NS_PER_DAY
NAN = math.nan
CLOCKS = (
    "time_1s", "time_1m", "time_1h", "volume_3", "dollar_300", "tick_4", "renko_80", "range_150",
    "tick_imbalance_3", "volume_imbalance_3", "dollar_imbalance_4", "tick_run_3", "volume_run_4", "dollar_run_3",
)  # fmt: skip

TRADE_PRICES = [f"trade_{what}_price" for what in ("open", "high", "low", "close")]


def events_of(*rows: tuple[Any, ...]) -> np.ndarray:
    """Rows (recv_ns after DAY_NS, kind, side, values...) as events."""
    return np.array(
        [(DAY_NS + recv, kind, side, *values, *[0.0] * (4 - len(values))) for recv, kind, side, *values in rows], EVENT
    )


def quote(recv: int, bid: float, bid_qty: float, ask: float, ask_qty: float) -> tuple[Any, ...]:
    return recv, QUOTE, 0, bid, bid_qty, ask, ask_qty


def trade(recv: int, side: int, price: float, qty: float) -> tuple[Any, ...]:
    return recv, TRADE, side, price, qty


def frame_of(closed: ClosedBars) -> pl.DataFrame:
    times = {"open_ns": closed.open_ns - DAY_NS, "close_ns": closed.close_ns - DAY_NS, "bar_index": closed.bar_index}
    return pl.DataFrame(times | {name: closed.values[:, k] for k, name in enumerate(BAR_COLUMNS)})


def run(clock: str, events: np.ndarray, now_ns: int | None = None) -> ClosedBars:
    bars = Bars(parse_clock(clock))
    return join_closed([bars.push(events), bars.advance(now_ns or 0)])


def assert_same(left: ClosedBars, right: ClosedBars) -> None:
    for name in ("open_ns", "close_ns", "bar_index", "values"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)


# By hand.


def test_a_time_bar_by_hand() -> None:
    events = events_of(
        quote(0, 99.0, 5.0, 101.0, 4.0),
        quote(10, 99.0, 7.0, 101.0, 1.0),  # bid grows by 2, ask shrinks by 3: e = 7 - 5 - 1 + 4 = 5
        trade(20, 1, 101.0, 0.5),
        trade(20, -1, 99.0, 2.0),
        quote(30, 98.0, 3.0, 100.0, 6.0),  # bid falls: -7; ask falls: -6
        (40, LIQUIDATION, 1, 98.0, 2.0),
        (50, LIQUIDATION, -1, 100.0, 1.0),
        (60, MARK, 0, 99.5, NAN, 0.0001, NAN),
        quote(NS_PER_S, 98.0, 3.0, 100.0, 6.0),  # closes the bar, and belongs to the next
    )
    row = frame_of(run("time_1s", events)).row(0, named=True)
    assert (row["open_ns"], row["close_ns"], row["bar_index"]) == (0, NS_PER_S, DAY_NS // NS_PER_S)
    assert [row[name] for name in BAR_COLUMNS[:8]] == [98.0, 3.0, 100.0, 6.0, 100.0, 100.0, 99.0, 99.0]
    assert [row[name] for name in BAR_COLUMNS[8:14]] == [0.5, 2.0, 50.5, 198.0, 1.0, 1.0]
    assert (row["ofi_qty"], row["quote_count"]) == (5.0 - 13.0, 3.0)
    assert (row["liq_long_usd"], row["liq_short_usd"], row["liq_count"]) == (196.0, 100.0, 2.0)
    assert (row["mark_price"], row["funding_rate"], row["is_empty"], row["has_gap"]) == (99.5, 0.0001, 0.0, 0.0)
    assert math.isnan(row["index_price"])
    assert math.isnan(row["open_interest"])
    assert [row[name] for name in TRADE_PRICES] == [101.0, 101.0, 99.0, 99.0]


def test_prices_of_trades_are_of_those_in_the_bar_alone() -> None:
    events = events_of(
        trade(0, 1, 97.0, 1.0),  # before the first best price, but in its bar
        quote(1, 99.0, 5.0, 101.0, 4.0),
        trade(2, 1, 102.0, 1.0),
        trade(2, 1, NAN, 1.0),  # none
        trade(3, -1, 98.0, 1.0),
        quote(NS_PER_S, 99.0, 5.0, 101.0, 4.0),
        trade(2 * NS_PER_S, -1, 99.0, 1.0),
    )
    bars = frame_of(run("time_1s", events, DAY_NS + 3 * NS_PER_S)).select(TRADE_PRICES)
    assert bars.row(0) == (97.0, 102.0, 97.0, 98.0)
    assert all(map(math.isnan, bars.row(1)))
    assert bars.row(2) == (99.0,) * 4


def test_what_trades_paid_and_how_large_they_were_by_hand() -> None:
    usual = [trade(k, 1, 100.0, 0.5) for k in range(1, 101)]  # 50 each; the first hundred are never large
    events = events_of(
        trade(0, 1, 500.0, 100.0),  # no book: no spread is known
        quote(1, 99.0, 1.0, 101.0, 1.0),
        *usual,
        trade(NS_PER_S, -1, 99.0, 30.0),  # against a mean of 50,000 / 101 + 5,000 / 101 = 544.6: not ten times
        trade(NS_PER_S + 1, -1, 98.0, 100.0),  # ten times 563.2
        (NS_PER_S + 2, LIQUIDATION, 1, 50.0, 3.0),
        (NS_PER_S + 2, LIQUIDATION, -1, 50.0, 1.0),
        (NS_PER_S + 3, MARK, (DAY_NS + NS_PER_HOUR) // NS_PER_MINUTE, 1.0, 1.0, 1.0, 1.0),
    )
    first, second = frame_of(run("time_1s", events, DAY_NS + 2 * NS_PER_S)).rows(named=True)
    assert (first["effective_usd"], first["large_count"], first["max_trade_usd"]) == (0.0, 0.0, 50_000.0)
    assert second["effective_usd"] == 2 * 1.0 * 30.0 + 2 * 2.0 * 100.0
    assert second["square_usd"] == 2970.0**2 + 9800.0**2
    assert [second[f"large_{name}"] for name in ("buy_usd", "sell_usd", "count")] == [0.0, 9800.0, 1.0]
    assert (second["liq_square_usd"], second["liq_max_usd"]) == (150.0**2 + 50.0**2, 150.0)
    assert math.isnan(first["funding_s"])
    assert second["funding_s"] == 3598.0


def test_empty_bars_carry_the_book_and_are_marked() -> None:
    events = events_of(
        quote(0, 99.0, 5.0, 101.0, 4.0), (NS_PER_S, MARK, 0, 7.0, 8.0, 9.0, 1.0), trade(3 * NS_PER_S, 1, 101.0, 1.0)
    )
    frame = frame_of(run("time_1s", events, DAY_NS + 4 * NS_PER_S))
    assert frame["is_empty"].to_list() == [0.0, 1.0, 1.0, 0.0]
    assert frame["quote_count"].to_list() == [1.0, 0.0, 0.0, 0.0]
    for name in ("open_price", "high_price", "low_price", "close_price"):
        assert frame[name].to_list() == [100.0] * 4
    assert frame["bid_qty"].to_list() == [5.0] * 4
    assert frame["mark_price"].to_list()[1:] == [7.0] * 3


def test_bars_open_at_the_mid_of_the_close_before() -> None:
    events = events_of(quote(0, 99.0, 1.0, 101.0, 1.0), quote(NS_PER_S + 5, 109.0, 1.0, 111.0, 1.0))
    frame = frame_of(run("time_1s", events, DAY_NS + 2 * NS_PER_S))
    assert frame.row(1, named=True)["open_price"] == 100.0
    assert frame.row(1, named=True)["low_price"] == 100.0
    assert frame.row(1, named=True)["close_price"] == 110.0


def test_no_bar_closes_before_the_first_best_price() -> None:
    events = events_of(trade(0, 1, 100.0, 1.0), quote(2 * NS_PER_S + 5, 99.0, 1.0, 101.0, 1.0))
    for clock, opens_ns in (("time_1s", 2 * NS_PER_S), ("volume_1", 1)):
        frame = frame_of(
            run(clock, np.concatenate([events, events_of(trade(4 * NS_PER_S, 1, 1.0, 1.0))]), DAY_NS + NS_PER_HOUR)
        )
        assert frame["open_ns"][0] == opens_ns
        if clock == "volume_1":
            assert frame["bar_index"][0] == 20_000_000_000  # a bar that was dropped has no number
    assert len(run("time_1s", events[:1], DAY_NS + NS_PER_HOUR)) == 0


@pytest.mark.parametrize(
    "bad",
    [
        (101.0, 1.0, 101.0, 1.0),
        (102.0, 1.0, 101.0, 1.0),
        (0.0, 0.0, 101.0, 1.0),
        (99.0, 1.0, 0.0, 0.0),
        (99.0, 1.0, math.inf, 1.0),
        (NAN, 1.0, 101.0, 1.0),
        (99.0, NAN, 101.0, 1.0),
        (99.0, -1.0, 101.0, 1.0),
    ],
)
def test_crossed_locked_and_one_sided_quotes_are_as_if_never_sent(bad: tuple[float, ...]) -> None:
    good = [quote(1, 99.0, 1.0, 101.0, 1.0), quote(3, 100.0, 2.0, 101.0, 5.0)]
    with_bad = events_of(good[0], quote(2, *bad), good[1])
    now_ns = DAY_NS + NS_PER_S
    assert_same(run("time_1s", with_bad, now_ns), run("time_1s", events_of(*good), now_ns))


def test_a_gap_marks_its_bar_and_breaks_the_chain_of_ofi() -> None:
    events = events_of(
        quote(0, 99.0, 5.0, 101.0, 4.0),
        (NS_PER_S, GAP, 0),
        quote(NS_PER_S, 90.0, 9.0, 92.0, 9.0),
        quote(NS_PER_S + 1, 90.0, 10.0, 92.0, 9.0),
    )
    frame = frame_of(run("time_1s", events, DAY_NS + 3 * NS_PER_S))
    assert frame["has_gap"].to_list() == [0.0, 1.0, 0.0]
    assert frame["ofi_qty"].to_list() == [0.0, 1.0, 0.0]


def test_after_a_long_silence_bars_cease_and_begin_afresh_with_a_gap() -> None:
    quiet = SILENCE_NS + NS_PER_HOUR
    events = events_of(
        (0, MARK, 0, 7.0, 7.0, 7.0, 7.0), quote(0, 99.0, 5.0, 101.0, 4.0), quote(quiet, 9.0, 1.0, 11.0, 1.0)
    )
    frame = frame_of(run("time_1m", np.sort(events, order=["recv_ns", "kind"]), DAY_NS + quiet + NS_PER_MINUTE))
    assert frame["open_ns"].to_list() == [*range(0, SILENCE_NS, NS_PER_MINUTE), quiet]
    assert frame["has_gap"].to_list() == [0.0] * 10 + [1.0]
    assert frame.row(-1, named=True)["open_price"] == 10.0
    assert math.isnan(frame.row(-1, named=True)["mark_price"])


def test_the_trade_that_reaches_the_volume_closes_the_bar_whole() -> None:
    events = events_of(
        quote(0, 99.0, 5.0, 101.0, 4.0),
        trade(5, 1, 101.0, 2.0),
        trade(7, -1, 99.0, 9.0),  # 11 of 10: the excess is not carried
        trade(7, -1, 98.0, 0.5),  # of the same frame
        trade(8, 1, 101.0, 9.5),
        trade(9, 1, 101.0, 0.5),
    )
    frame = frame_of(run("volume_10", events, DAY_NS + 10))
    assert frame.select("open_ns", "close_ns").rows() == [(0, 8), (8, 10)]
    assert (frame["buy_qty"] + frame["sell_qty"]).to_list() == [11.5, 10.0]
    assert frame["bar_index"].to_list() == [20_000_000_000, 20_000_000_001]


def test_ten_tenths_make_a_volume_of_one() -> None:
    tenths = [trade(k, 1, 100.0, 0.1) for k in range(10)]
    frame = frame_of(run("volume_1", events_of(quote(0, 99.0, 5.0, 101.0, 4.0), *tenths), DAY_NS + 10))
    assert frame["close_ns"].to_list() == [10]


def test_midnight_closes_a_volume_bar_short() -> None:
    events = events_of(
        quote(0, 99.0, 5.0, 101.0, 4.0),
        trade(NS_PER_DAY - NS_PER_MINUTE, 1, 1.0, 1.0),
        (NS_PER_DAY - 1, MARK, 0, 1.0, 1.0, 1.0, 1.0),
        trade(NS_PER_DAY + 5, 1, 1.0, 10.0),
    )
    bars = Bars(parse_clock("volume_10"))
    bars.push(events[:1])
    later = events[1:]
    later["recv_ns"][0] = DAY_NS + 5  # the last event before midnight but the mark; the silence between must not end it
    step = np.arange(NS_PER_MINUTE, NS_PER_DAY - 1, NS_PER_MINUTE)
    alive = events_of(*[(int(k), MARK, 0, 1.0, 1.0, 1.0, 1.0) for k in step])
    closed = join_closed(
        [bars.push(later[:1]), bars.push(alive), bars.push(later[1:]), bars.advance(DAY_NS + 2 * NS_PER_DAY)]
    )
    assert frame_of(closed).select("open_ns", "close_ns").rows() == [(0, NS_PER_DAY), (NS_PER_DAY, NS_PER_DAY + 6)]


def test_the_first_volume_bar_of_a_day_opens_at_midnight() -> None:
    before = NS_PER_DAY - NS_PER_MINUTE
    events = events_of(
        quote(before, 99.0, 5.0, 101.0, 4.0),
        trade(before + 1, 1, 101.0, 3.0),  # closes the last bar of the day; nothing but a mark until midnight
        (before + 2, MARK, 0, 1.0, 1.0, 1.0, 1.0),
        trade(NS_PER_DAY + 7, 1, 101.0, 3.0),
    )
    frame = frame_of(run("volume_3", events, DAY_NS + NS_PER_DAY + 8))
    assert frame.select("open_ns", "close_ns").rows() == [(before, before + 2), (NS_PER_DAY, NS_PER_DAY + 8)]
    assert np.diff(frame["bar_index"]).tolist() == [1]


def test_volume_bars_count_on_after_a_silence() -> None:
    again = SILENCE_NS + NS_PER_MINUTE
    once = [quote(0, 99.0, 5.0, 101.0, 4.0), trade(1, 1, 101.0, 3.0)]
    twice = [(again + recv, *rest) for recv, *rest in once]
    frame = frame_of(run("volume_3", events_of(*once, *twice), DAY_NS + again + 2))
    assert np.diff(frame["bar_index"]).tolist() == [1]
    assert frame["has_gap"].to_list() == [0.0, 1.0]


def test_events_out_of_order_are_refused() -> None:
    bars = Bars(parse_clock("time_1s"))
    bars.push(events_of(quote(10, 99.0, 5.0, 101.0, 4.0)))
    with pytest.raises(ValueError, match="event 0 came at"):
        bars.push(events_of(quote(9, 99.0, 5.0, 101.0, 4.0)))
    bars.advance(DAY_NS + 20)
    with pytest.raises(ValueError, match="event 0 came at"):
        bars.push(events_of(quote(19, 99.0, 5.0, 101.0, 4.0)))
    with pytest.raises(ValueError, match="dtype"):
        bars.push(np.zeros(3))  # type: ignore[arg-type]


def test_state_of_another_clock_or_layout_is_refused() -> None:
    saved = Bars(parse_clock("time_1s")).save()
    with pytest.raises(ValueError, match="state is of bars time_1s"):
        Bars(parse_clock("time_2s")).restore(saved)
    for layout in ({"spans": np.zeros(3, np.int64)}, {"values": np.zeros(32)}):  # 32: without the prices of trades
        with pytest.raises(ValueError, match="another version"):
            Bars(parse_clock("time_1s")).restore({**saved, **layout})


# Against the twin.


class Span(NamedTuple):
    open_ns: int
    close_ns: int
    inside: list[Any]


def twin(events: np.ndarray, clock: Clock, now_ns: int) -> ClosedBars:
    """Bars from their definition: cut the stretches between silences into spans, then look at what lies in each."""
    silence_ns = max(SILENCE_NS, clock.step_ns)
    rule = RULES[clock.name.rpartition("_")[0]](clock.size) if not clock.is_time else None
    written: list[tuple[Span, int, list[float]]] = []
    index = 0
    sizes = typical_sizes(events)
    stretches = cut_at_silences(list(events), silence_ns)
    for number, stretch in enumerate(stretches):
        is_last = number == len(stretches) - 1
        dead_ns = int(stretch[-1]["recv_ns"]) + silence_ns
        end_ns = min(dead_ns, max(now_ns, int(stretch[-1]["recv_ns"]))) if is_last else dead_ns
        first_ns = int(stretch[0]["recv_ns"])
        index = max(index, first_ns // clock.step_ns if clock.is_time else first_ns // NS_PER_DAY * 1_000_000)
        memory: dict[str, Any] = {"book": None, "before": None, "marks": [NAN] * 4, "funding_min": 0, "gap": number > 0}
        memory["sizes"] = sizes
        spans = event_spans(stretch, rule, dead_ns, end_ns) if rule else time_spans(stretch, clock, end_ns)
        for span in spans:
            values = look(span, memory)
            if values is not None:
                written.append((span, span.open_ns // clock.step_ns if clock.is_time else index, values))
                index += 1
    times = np.array([(span.open_ns, span.close_ns, number) for span, number, _ in written], np.int64).reshape(-1, 3)
    rows = np.array([values for *_, values in written]).reshape(-1, len(BAR_COLUMNS))
    return ClosedBars(times[:, 0], times[:, 1], times[:, 2], rows)


def cut_at_silences(events: list[Any], silence_ns: int) -> list[list[Any]]:
    cuts = [k for k in range(1, len(events)) if events[k]["recv_ns"] - events[k - 1]["recv_ns"] >= silence_ns]
    return [events[a:b] for a, b in pairwise([0, *cuts, len(events)])] if events else []


def time_spans(stretch: list[Any], clock: Clock, end_ns: int) -> Iterator[Span]:
    open_ns = int(stretch[0]["recv_ns"]) // clock.step_ns * clock.step_ns
    while open_ns + clock.step_ns <= end_ns:
        close_ns = open_ns + clock.step_ns
        yield Span(open_ns, close_ns, [event for event in stretch if open_ns <= event["recv_ns"] < close_ns])
        open_ns = close_ns


def event_spans(stretch: list[Any], rule: "Rule", dead_ns: int, end_ns: int) -> Iterator[Span]:
    open_ns, inside, mid = int(stretch[0]["recv_ns"]), [], NAN
    for recv_ns, instant in groupby(stretch, key=lambda event: int(event["recv_ns"])):
        today_ns = recv_ns // NS_PER_DAY * NS_PER_DAY
        if today_ns > open_ns and any(map(acts, inside)):
            yield Span(open_ns, today_ns, inside)  # a stretch has no silence of a day: the midnight is the last one
            inside, mid = [], last_mid(inside, mid)
        open_ns = max(open_ns, today_ns)
        is_full = False
        for event in instant:
            inside.append(event)
            if event["kind"] in (TRADE, QUOTE) and not is_full:
                is_full = rule.is_full(Flow.of(inside), mids_of(inside, mid))
        if is_full and recv_ns < end_ns:
            yield Span(open_ns, recv_ns + 1, inside)
            open_ns, inside, mid = recv_ns + 1, [], last_mid(inside, mid)
    close_ns = min(dead_ns, (open_ns // NS_PER_DAY + 1) * NS_PER_DAY)
    if any(map(acts, inside)) and close_ns <= end_ns:
        yield Span(open_ns, close_ns, inside)


def mids_of(inside: list[Any], before: float) -> list[float]:
    """The values of the mid in a bar, that before it first; none while there is no book."""
    mids = [(event["a"] + event["c"]) / 2 for event in inside if is_valid(event)]
    return mids if math.isnan(before) else [before, *mids]


def last_mid(inside: list[Any], before: float) -> float:
    return [before, *mids_of(inside, NAN)][-1]


class Flow(NamedTuple):
    """What takers bought and sold in a bar: quantity, notional, count."""

    bought: tuple[float, float, float]
    sold: tuple[float, float, float]

    @classmethod
    def of(cls, inside: list[Any]) -> "Flow":
        sides = [[event for event in inside if event["kind"] == TRADE and event["side"] == side] for side in (1, -1)]
        return cls(
            *[(sum(e["b"] for e in each), sum(e["a"] * e["b"] for e in each), float(len(each))) for each in sides]
        )


class Rule(Protocol):
    def is_full(self, flow: Flow, mids: list[float]) -> bool: ...


class Amount:
    def __init__(self, of: int, size: float) -> None:
        self.of, self.size = of, size

    def is_full(self, flow: Flow, mids: list[float]) -> bool:
        return flow.bought[self.of] + flow.sold[self.of] >= self.size * NEARLY


class Range:
    def __init__(self, size: float) -> None:
        self.size = size

    def is_full(self, flow: Flow, mids: list[float]) -> bool:
        return bool(mids) and max(mids) - min(mids) >= self.size / 1e4 * mids[0] * NEARLY


class Renko:
    """Bricks by walking them one at a time."""

    def __init__(self, size: float) -> None:
        self.step, self.low, self.high = 1 + size / 1e4, 0.0, 0.0

    def is_full(self, flow: Flow, mids: list[float]) -> bool:
        if not mids:
            return False
        if not self.low:
            self.low = self.high = mids[-1]
            return False
        before = self.low, self.high
        while mids[-1] >= self.high * self.step * (1 - 1e-12):
            self.low, self.high = self.high, self.high * self.step
        while mids[-1] <= self.low / self.step * (1 + 1e-12):
            self.low, self.high = self.low / self.step, self.low
        return before != (self.low, self.high)


class Gathered:
    """Imbalance and run bars; `expected` holds trades per bar, and flows bought and sold per trade."""

    def __init__(self, of: int, signed: bool, size: float) -> None:
        self.of, self.signed, self.size = of, signed, size
        self.expected: list[float] = []

    def is_full(self, flow: Flow, mids: list[float]) -> bool:
        bought, sold, trades = flow.bought[self.of], flow.sold[self.of], flow.bought[2] + flow.sold[2]
        if not trades or (not self.expected and trades < self.size):
            return False
        now = [trades, bought / trades, sold / trades]
        if not self.expected:
            self.expected = now
            return True
        count, buys, sells = self.expected
        if self.signed:
            is_due = abs(bought - sold) >= NEARLY * max(count * abs(buys - sells), count**0.5 * (buys + sells))
        else:
            is_due = max(bought, sold) >= NEARLY * count * max(buys, sells)
        if is_due:
            keep = 0.5**0.1
            self.expected = [keep * old + (1 - keep) * new for old, new in zip(self.expected, now, strict=True)]
            self.expected[0] = min(max(self.expected[0], self.size / 4), self.size * 4)
        return is_due


NEARLY = 1 - 1e-9
RULES: dict[str, Callable[[float], Rule]] = {
    "volume": partial(Amount, 0),
    "dollar": partial(Amount, 1),
    "tick": partial(Amount, 2),
    "renko": Renko,
    "range": Range,
    "volume_imbalance": partial(Gathered, 0, True),
    "dollar_imbalance": partial(Gathered, 1, True),
    "tick_imbalance": partial(Gathered, 2, True),
    "volume_run": partial(Gathered, 0, False),
    "dollar_run": partial(Gathered, 1, False),
    "tick_run": partial(Gathered, 2, False),
}


def is_valid(event: Any) -> bool:
    return bool(event["kind"] == QUOTE and 0 < event["a"] < event["c"])


def acts(event: Any) -> bool:
    return event["kind"] in (TRADE, LIQUIDATION) or is_valid(event)


def look(span: Span, memory: dict[str, Any]) -> list[float] | None:
    """The values of a bar, None without a book. `memory` is what the bars before left."""
    book_before = memory["book"]
    ofi = effective = 0.0
    for event in span.inside:
        if event["kind"] == GAP:
            memory["before"], memory["gap"] = None, True
        elif event["kind"] == MARK:
            memory["marks"] = [
                old if math.isnan(new) else new for old, new in zip(memory["marks"], values_of(event), strict=True)
            ]
            memory["funding_min"] = int(event["side"]) or memory["funding_min"]
        elif event["kind"] == TRADE and memory["book"] is not None:
            mid = (memory["book"][0] + memory["book"][2]) / 2
            effective += 2 * event["side"] * (event["a"] - mid) * event["b"]
        elif is_valid(event):
            ofi += order_flow_imbalance(memory["before"], values_of(event))
            memory["before"] = memory["book"] = values_of(event)
    if memory["book"] is None:
        return None
    quoted = [values_of(event) for event in span.inside if is_valid(event)]
    mids = [(book[0] + book[2]) / 2 for book in ([book_before] if book_before else []) + quoted]
    gap, memory["gap"] = memory["gap"], False
    flow = [total(span, TRADE, side, what) for what in ("b", "ab", "n") for side in (1, -1)]
    liquidated = [total(span, LIQUIDATION, 1, "ab"), total(span, LIQUIDATION, -1, "ab")]
    n_liquidated = total(span, LIQUIDATION, 1, "n") + total(span, LIQUIDATION, -1, "n")
    funding_s = (memory["funding_min"] * NS_PER_MINUTE - span.close_ns) / NS_PER_S if memory["funding_min"] else NAN
    traded, forced = notionals(span, TRADE), notionals(span, LIQUIDATION)
    large = [event for event in span.inside if event["kind"] == TRADE and is_large(event, memory["sizes"])]
    large_usd = [sum(e["a"] * e["b"] for e in large if e["side"] == side) for side in (1, -1)]
    return [
        *memory["book"], mids[0], max(mids), min(mids), mids[-1], *flow, ofi, float(len(quoted)),
        *liquidated, n_liquidated, *memory["marks"],
        effective, sum(usd**2 for usd in traded), max(traded, default=0.0), *large_usd, float(len(large)),
        sum(usd**2 for usd in forced), max(forced, default=0.0), funding_s,
        float(not any(map(acts, span.inside))), float(gap), *prices_of_trades(span),
    ]  # fmt: skip


def prices_of_trades(span: Span) -> list[float]:
    prices = [float(event["a"]) for event in span.inside if event["kind"] == TRADE]
    return [prices[0], max(prices), min(prices), prices[-1]] if prices else [NAN] * 4


def notionals(span: Span, kind: int) -> list[float]:
    return [float(event["a"] * event["b"]) for event in span.inside if event["kind"] == kind]


def typical_sizes(events: np.ndarray) -> dict[int, float]:
    """By the address of a trade: the mean notional of those before it, infinite for the first hundred."""
    sizes, mean, count = {}, 0.0, 0
    for event in events:
        if event["kind"] == TRADE:
            sizes[address(event)] = mean if count >= 100 else math.inf
            count += 1
            mean += (event["a"] * event["b"] - mean) * max(1 / count, 1 - 0.5 ** (1 / 1000))
    return sizes


def address(event: Any) -> int:
    """Where in memory a row of an array lies: what tells equal rows apart."""
    return int(event.__array_interface__["data"][0])


def is_large(event: Any, sizes: dict[int, float]) -> bool:
    return bool(event["a"] * event["b"] >= 10 * sizes[address(event)])


def values_of(event: Any) -> list[float]:
    return [float(event[name]) for name in "abcd"]


def order_flow_imbalance(before: list[float] | None, now: list[float]) -> float:
    """Cont, Kukanov and Stoikov 2014, as the paper writes it."""
    if before is None:
        return 0.0
    (pb0, qb0, pa0, qa0), (pb, qb, pa, qa) = before, now
    return (pb >= pb0) * qb - (pb <= pb0) * qb0 - (pa <= pa0) * qa + (pa >= pa0) * qa0


def total(span: Span, kind: int, side: int, what: str) -> float:
    found = [event for event in span.inside if event["kind"] == kind and event["side"] == side]
    return float(sum({"b": event["b"], "ab": event["a"] * event["b"], "n": 1.0}[what] for event in found))


STEPS_NS = (
    0,
    0,
    0,
    1,
    200 * NS_PER_MS,
    NS_PER_S,
    31 * NS_PER_S,
    4 * NS_PER_MINUTE,
    SILENCE_NS,
    SILENCE_NS - 1,
    NS_PER_HOUR,
)
eighths = st.integers(1, 40).map(lambda n: n / 8)  # sums of these are exact, in any order
halves = st.integers(195, 205).map(lambda n: n / 2)
quotes = st.tuples(st.just(QUOTE), st.just(0), halves, eighths, halves, eighths)
trades = st.tuples(st.just(TRADE), st.sampled_from([1, -1]), halves, eighths, st.just(0.0), st.just(0.0))
forced = st.tuples(st.just(LIQUIDATION), st.sampled_from([1, -1]), halves, eighths, st.just(0.0), st.just(0.0))
marks = st.tuples(
    st.just(MARK), st.sampled_from([0, DAY_NS // NS_PER_MINUTE + 9]), *[st.one_of(st.just(NAN), halves)] * 4
)
gaps = st.just((GAP, 0, 0.0, 0.0, 0.0, 0.0))
one = st.one_of(quotes, quotes, quotes, trades, trades, forced, marks, gaps)


@st.composite
def streams(draw: st.DrawFn) -> np.ndarray:
    """Events in the total order, around a midnight, with instants that hold several."""
    rows = draw(st.lists(st.tuples(st.sampled_from(STEPS_NS), one), min_size=0, max_size=60))
    times = DAY_NS - draw(st.integers(0, 20)) * NS_PER_MINUTE + np.cumsum([step for step, _ in rows], dtype=np.int64)
    events = np.array([(int(recv), *row) for recv, (_, row) in zip(times, rows, strict=True)], EVENT)
    return events[np.lexsort((events["kind"], events["recv_ns"]))]


def end_of(events: np.ndarray, after_ns: int) -> int:
    return int(events["recv_ns"][-1]) + after_ns if events.size else DAY_NS


@settings(max_examples=300, deadline=None)
@given(streams(), st.sampled_from(CLOCKS), st.sampled_from([0, 1, NS_PER_S, NS_PER_HOUR, 3 * NS_PER_DAY]))
def test_the_kernel_equals_its_slow_twin(events: np.ndarray, clock: str, after_ns: int) -> None:
    now_ns = end_of(events, after_ns)
    assert_same(run(clock, events, now_ns), twin(events, parse_clock(clock), now_ns))


@settings(max_examples=60, deadline=None)
@given(streams(), st.sampled_from(CLOCKS), st.data())
def test_the_cut_of_the_stream_does_not_matter_to_the_bit(events: np.ndarray, clock: str, data: st.DataObject) -> None:
    """One push, one event at a time with a timer between, and any chunks with a save and restore at each cut."""
    whole = Bars(parse_clock(clock))
    expected = whole.push(events)
    single, pieces = Bars(parse_clock(clock)), []
    for k in range(events.size):
        pieces += [single.advance(int(events["recv_ns"][k])), single.push(events[k : k + 1])]
    assert_same(join_closed(pieces), expected)
    cuts = sorted(data.draw(st.lists(st.integers(0, events.size), max_size=4)))
    pieces, saved = [], Bars(parse_clock(clock)).save()
    for begin, end in pairwise([0, *cuts, events.size]):
        chunked = Bars(parse_clock(clock))
        chunked.restore(saved)
        pieces.append(chunked.push(events[begin:end]))
        saved = chunked.save()
    assert_same(join_closed(pieces), expected)
    for left in (single.save(), saved):
        assert all(left[name].tobytes() == array.tobytes() for name, array in whole.save().items())


@settings(max_examples=60, deadline=None)
@given(streams(), streams(), st.sampled_from(CLOCKS), st.integers(0, 60))
def test_no_bar_reads_the_future(events: np.ndarray, other: np.ndarray, clock: str, cut: int) -> None:
    """Whatever follows, bars that close at or before the first event cut off stay what they were."""
    past, future = events[:cut], events[cut:]
    if not future.size:
        return
    now_ns = int(future["recv_ns"][0])
    seen = past[past["recv_ns"] < now_ns]
    known = run(clock, seen, now_ns)
    changed = other.copy()
    if changed.size:
        changed["recv_ns"] += now_ns - changed["recv_ns"][0]
    for follows in (events[seen.size :], changed):
        closed = run(clock, np.concatenate([seen, follows]))
        early = closed.close_ns <= now_ns
        kept = ClosedBars(closed.open_ns[early], closed.close_ns[early], closed.bar_index[early], closed.values[early])
        if follows.size:
            assert_same(kept, known)


def test_more_bars_than_the_buffer_holds_come_out_whole() -> None:
    events = events_of(quote(0, 99.0, 5.0, 101.0, 4.0), quote(9 * NS_PER_MINUTE, 99.0, 5.0, 102.0, 4.0))
    closed = run("time_100ms", np.concatenate([events, events_of(trade(18 * NS_PER_MINUTE, 1, 1.0, 1.0))]))
    assert len(closed) == 18 * 600
    assert (np.diff(closed.bar_index) == 1).all()
    assert closed.values[:, BAR_COLUMNS.index("is_empty")].sum() == 18 * 600 - 2


# Merging.


@settings(max_examples=60, deadline=None)
@given(streams())
def test_merged_tables_are_the_sorted_events(events: np.ndarray) -> None:
    by_kind = {kind: events[events["kind"] == kind] for kind in range(5)}
    merged = merge_events(
        table(by_kind[QUOTE], "bid_price", "bid_qty", "ask_price", "ask_qty"),
        table(by_kind[TRADE], "price", "qty").with_columns(side_of(by_kind[TRADE], "taker_side", schema.TAKER_SIDE)),
        table(by_kind[LIQUIDATION], "price", "qty").with_columns(
            side_of(by_kind[LIQUIDATION], "liquidated", schema.LIQUIDATED)
        ),
        table(by_kind[MARK], "mark_price", "index_price", "funding_rate", "open_interest").with_columns(
            next_funding_ns=pl.Series([int(k) * NS_PER_MINUTE or None for k in by_kind[MARK]["side"]], dtype=pl.Int64)
        ),
        pl.DataFrame({"told_ns": by_kind[GAP]["recv_ns"][::-1]}).with_columns(stream=pl.lit("trades")),
    )
    assert merged.dtype == EVENT
    for name in EVENT.names or ():
        np.testing.assert_array_equal(merged[name], events[name], name)


def table(events: np.ndarray, *names: str) -> pl.DataFrame:
    values = {name: events[field] for name, field in zip(names, "abcd", strict=False)}
    return pl.DataFrame({"recv_ns": events["recv_ns"]} | values).fill_nan(None)


def side_of(events: np.ndarray, name: str, categories: pl.Enum) -> pl.Series:
    return pl.Series(name, [categories.categories[0 if side > 0 else 1] for side in events["side"]], categories)


def test_decoded_events_and_their_tables_are_the_same_events() -> None:
    decoded: list[Event] = [
        Quote("X", 1, 5, 1, 99.0, 1.0, 101.0, 2.0),
        Trade("X", 1, 5, "1", 101.0, 0.5, "buy"),
        Trade("X", 1, 5, "2", 99.0, 0.25, "sell"),
        BookUpdate("X", 1, 6, 2, [(99.0, 1.0)], []),
        Liquidation("X", 1, 7, "short", 100.0, 3.0),
        Liquidation("X", 1, 7, "long", 100.0, 4.0),
        Mark("X", 1, 8, 100.0, None, 0.0001, None, None),
        Gap("X", "trades", 2, 8, "lost", False),
        Gap("X", "book_deltas", 2, 9, "no snapshot", False),
    ]
    frames = {
        kind: [event for event in decoded if isinstance(event, kind)] for kind in (Quote, Trade, Liquidation, Mark, Gap)
    }
    tables = (schema.TOP_OF_BOOK, schema.TRADES, schema.LIQUIDATIONS, schema.MARK_PRICES, schema.GAPS)
    rows = [packing.frame_of(one, frames[kind]) for kind, one in zip(frames, tables, strict=True)]
    merged = merge_events(*rows)
    assert merged.tobytes() == as_events(decoded).tobytes()
    assert merged["kind"].tolist() == [QUOTE, TRADE, TRADE, LIQUIDATION, LIQUIDATION, GAP, MARK]
    assert merged["side"].tolist() == [0, 1, -1, -1, 1, 0, 0]


def test_nothing_merges_to_nothing() -> None:
    assert as_events([]).size == 0
    empty = [
        pl.DataFrame(schema=one.columns)
        for one in (schema.TOP_OF_BOOK, schema.TRADES, schema.LIQUIDATIONS, schema.MARK_PRICES, schema.GAPS)
    ]
    assert merge_events(*empty).size == 0


# Recorded frames.


def decoded_by_symbol(path: Path) -> dict[str, list[Event]]:
    """What our decoders make of one recorded connection."""
    lines = iter(RawReader(path))
    first = next(lines)
    _, decoder = decoder_for(first.url)
    by_symbol: dict[str, list[Event]] = defaultdict(list)
    for line in (first, *lines):
        is_frame = line.url.startswith("ws")
        given = (line.frame, line.recv_ns)
        for event in decoder.decode(*given) if is_frame else decoder.decode_rest(line.url, line.frame, line.recv_ns):
            by_symbol[event.symbol].append(event)
    return by_symbol


@pytest.mark.parametrize(
    ("capture", "clocks"),
    [
        ("bybit_20260809/linear", ("time_200ms", "volume_0.5")),
        ("binance_spot_nexousdt_20240723/spot_nexousdt", ("time_1m", "volume_500")),
    ],
)
def test_bars_of_recorded_frames_add_up_to_the_events_in_them(
    market_data: Path, capture: str, clocks: tuple[str, ...]
) -> None:
    for decoded in decoded_by_symbol(market_data / "raw" / f"{capture}.jsonl.zst").values():
        for clock in clocks:
            events = as_events(decoded)
            assert_adds_up(events, run(clock, events, int(events["recv_ns"][-1]) + 1))


def assert_adds_up(events: np.ndarray, closed: ClosedBars) -> None:
    inside = events[(events["recv_ns"] >= closed.open_ns[0]) & (events["recv_ns"] < closed.close_ns[-1])]
    sums = dict(zip(BAR_COLUMNS, closed.values.sum(axis=0).tolist(), strict=True))
    for side, name in ((1, "buy"), (-1, "sell")):
        mine = inside[(inside["kind"] == TRADE) & (inside["side"] == side)]
        assert sums[f"{name}_count"] == mine.size > 0
        assert sums[f"{name}_qty"] == pytest.approx(mine["b"].sum(), rel=1e-12)
        assert sums[f"{name}_usd"] == pytest.approx((mine["a"] * mine["b"]).sum(), rel=1e-12)
    quoted = inside[inside["kind"] == QUOTE]
    assert sums["quote_count"] == (quoted["a"] < quoted["c"]).sum() > 0
    assert (closed.close_ns[:-1] <= closed.open_ns[1:]).all()
    closes, opens = (closed.values[:, BAR_COLUMNS.index(name)] for name in ("close_price", "open_price"))
    assert (closes[:-1] == opens[1:])[closed.values[1:, BAR_COLUMNS.index("has_gap")] == 0.0].all()
    prices = inside["a"][inside["kind"] == TRADE]
    highest, lowest = (closed.values[:, BAR_COLUMNS.index(f"trade_{what}_price")] for what in ("high", "low"))
    assert (np.nanmax(highest), np.nanmin(lowest)) == (prices.max(), prices.min())
