"""The levels of the book in bars: by hand, against an obvious twin, in any cut, and on recorded frames."""

import math
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import schema
from core.schema import BOOK_DELTAS
from core.units import NS_PER_DAY, NS_PER_S
from ingest.book_rebuild import COLUMNS, Rebuilder
from ingest.events import BookUpdate, Event, Gap, Level, Quote
from ingest.packing import frame_of
from ingest.raw import RawReader
from ingest.stored_books import holds_back
from ingest.venues import decoder_for, venue_of
from research.bars import order_book
from research.bars.bar_pass import BarPass, Bars, ClosedBars, join_closed
from research.bars.clocks import parse_clock
from research.bars.columns import BAR_COLUMNS, bar_columns
from research.bars.events import DELTA, EVENT, GAP, TRADE, as_events, merge_events

DAY_NS = 20_000 * NS_PER_DAY
LEVELS = 3
WIDTH = len(BAR_COLUMNS)
CLOCKS = tuple(map(parse_clock, ("time_1s", "time_1m", "volume_3", "tick_imbalance_3")))
SIDES = (("bid", 1), ("ask", -1))


def update(at_s: float, number: int, bids: list[Level], asks: list[Level], whole: bool = False) -> BookUpdate:
    at_ns = DAY_NS + round(at_s * NS_PER_S)
    return BookUpdate("X", at_ns, at_ns, number, bids, asks, whole)


def quote(at_s: float) -> Quote:
    at_ns = DAY_NS + round(at_s * NS_PER_S)
    return Quote("X", at_ns, at_ns, 1, 99.0, 1.0, 101.0, 1.0)


def lost(from_s: float, to_s: float, reason: str = "update 3 does not follow 1") -> Gap:
    return Gap("X", BOOK_DELTAS.name, DAY_NS + round(from_s * NS_PER_S), DAY_NS + round(to_s * NS_PER_S), reason, True)


def closed(decoded: list[Event], until_s: float, levels: int = LEVELS, rest: bool = True) -> list[dict[str, float]]:
    bars = Bars(parse_clock("time_1s"), levels, rest)
    made = join_closed([bars.push(as_events(decoded, True)), bars.advance(DAY_NS + round(until_s * NS_PER_S))])
    return [dict(zip(bar_columns(levels), row, strict=True)) for row in made.values.tolist()]


def of_levels(row: dict[str, float], name: str) -> list[float]:
    return [row[f"{name}_{k}"] for k in range(1, LEVELS + 1)]


# By hand.


def test_levels_and_their_flow_by_hand() -> None:
    first, second = closed(
        [
            quote(0.0),
            update(0.1, 1, [(99.0, 5.0), (98.0, 3.0)], [(101.0, 4.0), (102.0, 2.0), (103.0, 1.0), (104.0, 1.0)], True),
            update(0.2, 2, [(99.0, 7.0)], [(101.0, 0.0)]),
            update(1.5, 3, [(98.5, 1.0), (97.0, 9.0)], []),
        ],
        2.0,
    )
    assert of_levels(first, "bid_price")[:2] == [99.0, 98.0]
    assert math.isnan(first["bid_price_3"])
    assert math.isnan(first["bid_qty_3"])
    assert of_levels(first, "ask_price") == [102.0, 103.0, 104.0]
    assert of_levels(first, "ask_qty") == [2.0, 1.0, 1.0]
    # bid 1 grows by 2; each ask level is now a higher price, so all that stood there is gone: 4, 2 and 1 are added
    assert of_levels(first, "ofi_qty") == [2.0 + 4.0, 2.0, 1.0]
    # level 2 rises to 98.5 with 1; level 3, which was not there, is 98 with 3
    assert of_levels(second, "ofi_qty") == [0.0, 1.0, 3.0]
    assert of_levels(second, "bid_price") == [99.0, 98.5, 98.0]


def test_a_book_is_unknown_before_a_snapshot_and_from_a_gap_to_the_next_one() -> None:
    book = [(99.0, 1.0)], [(101.0, 1.0)]
    events = [quote(k) for k in range(6)]
    events += [update(0.5, 1, *book), update(1.5, 1, *book, True), lost(1.6, 2.5), update(2.5, 5, [(99.0, 8.0)], [])]
    events += [update(3.5, 4, [(99.0, 3.0)], [(101.0, 2.0)], True)]
    rows = closed(events, 6.0)
    assert [row["bid_qty_1"] for row in rows[1:2] + rows[3:]] == [1.0, 8.0, 8.0, 8.0]  # 5 belongs behind snapshot 4
    assert [math.isnan(rows[k]["bid_price_1"]) for k in (0, 2)] == [True, True]
    assert all(row["ofi_qty_1"] == 0.0 and row["has_gap"] == 0.0 for row in rows)


def test_a_gap_that_needs_no_new_book_changes_nothing() -> None:
    rows = closed(
        [quote(0), update(0.1, 1, [(99.0, 1.0)], [(101.0, 1.0)], True), lost(0.2, 0.3, "clock set back")], 1.0
    )
    assert rows[0]["bid_price_1"] == 99.0


def test_while_a_book_is_crossed_or_lacks_a_side_the_levels_last_known_stand() -> None:
    rows = closed(
        [
            quote(0),
            update(0.1, 1, [(99.0, 5.0)], [(101.0, 4.0)], True),
            update(1.1, 2, [(101.0, 2.0)], []),
            update(2.1, 3, [], [(101.0, 0.0)]),
            update(3.1, 4, [], [(102.0, 6.0)]),
        ],
        4.0,
    )
    assert [(row["bid_price_1"], row["ask_price_1"]) for row in rows] == [(99.0, 101.0)] * 3 + [(101.0, 102.0)]
    assert [row["ofi_qty_1"] for row in rows] == [0.0, 0.0, 0.0, 2.0 + 4.0]


def test_a_snapshot_of_a_known_book_is_a_message_like_others() -> None:
    rows = closed([quote(0), *[update(k + 0.5, k, [(99.0, 1.0 + k)], [(101.0, 2.0)], True) for k in range(3)]], 3.0)
    assert [row["ofi_qty_1"] for row in rows] == [0.0, 1.0, 1.0]


def test_more_held_back_than_there_is_room_for_leaves_the_book_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_book, "HELD", 4)
    changes = [update(0.1 + 0.1 * k, 10 + k, [(90.0 + k, 1.0)], []) for k in range(5)]
    for first, is_known in ((0, False), (1, True)):
        rows = closed([quote(0), *changes[first:], update(0.9, 5, [(80.0, 1.0)], [(101.0, 1.0)], True)], 1.0)
        assert math.isnan(rows[0]["bid_price_1"]) is not is_known
    assert rows[0]["bid_price_1"] == 94.0


def test_a_book_of_many_levels_finds_room() -> None:
    bids = [(float(price), 1.0) for price in range(1, 9_000)]
    rows = closed([quote(0), update(0.5, 1, bids, [(10_000.0, 1.0)], True), update(1.5, 2, bids[-1:], [])], 2.0)
    assert of_levels(rows[1], "bid_price") == [8_999.0, 8_998.0, 8_997.0]
    gone = [(price, 0.0) for price, _ in bids[5:]]
    assert (
        closed([quote(0), update(0.5, 1, bids, [(10_000.0, 1.0)], True), update(0.6, 2, gone, [])], 1.0)[0][
            "bid_price_1"
        ]
        == 5.0
    )


def test_deltas_without_levels_to_build_are_refused() -> None:
    with pytest.raises(ValueError, match="make bars with levels"):
        closed([quote(0), update(0.5, 1, [(99.0, 1.0)], [], True)], 1.0, levels=0)
    with pytest.raises(ValueError, match="0 to 20 levels"):
        Bars(CLOCKS[0], 21)


def test_a_state_with_more_levels_goes_on_with_fewer_and_not_the_other_way() -> None:
    snapshot = update(0.5, 1, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 1.0)], True)
    saved = Bars(CLOCKS[0], 3)
    saved.push(as_events([quote(0), snapshot], True))
    for levels in (0, 1):
        fewer = Bars(CLOCKS[0], levels)
        fewer.restore(saved.save())
        row = dict(zip(bar_columns(levels), fewer.advance(DAY_NS + NS_PER_S).values[0].tolist(), strict=True))
        assert row["bid_price"] == row.get("bid_price_1", 99.0) == 99.0
    with pytest.raises(ValueError, match="state has 3 book levels, wanted 4"):
        Bars(CLOCKS[0], 4).restore(saved.save())


# Against the twin.


halves = st.integers(0, 6)
sizes = st.integers(0, 6).map(lambda n: n / 2)  # sums of these are exact
some_levels = st.lists(st.tuples(halves, sizes), max_size=5)


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Quotes and messages of a book that may cross; ids rise, snapshots may be some changes late; gaps; all at times
    at which several may come."""
    at_s, found = 0.0, [quote(0.0)]
    told: set[tuple[float, int, str]] = set()  # messages of one time, id and kind are one
    for number in range(draw(st.integers(1, 40))):
        at_s += draw(st.sampled_from([0.0, 0.25, 0.5, 1.5, 20.0]))
        kind = draw(st.sampled_from(["change", "change", "change", "change", "snapshot", "gap", "quote"]))
        bids = [(95.0 + price, qty) for price, qty in draw(some_levels)]
        asks = [(100.0 + price, qty) for price, qty in draw(some_levels)]
        late = draw(st.integers(0, 30)) if kind == "snapshot" else 0
        if kind == "gap":
            found.append(lost(max(0.0, at_s - 0.25), at_s, draw(st.sampled_from(["lost", "clock set back"]))))
        elif kind == "quote":
            found.append(quote(at_s))
        elif (bids or asks) and (message := (at_s, max(1, 10 * (number + 1) - late), kind)) not in told:
            told.add(message)
            found.append(update(*message[:2], bids, asks, kind == "snapshot"))
    return found


class TwinBook:
    """Dictionaries, sorted for each look at them."""

    def __init__(self, rest: bool) -> None:
        self.rest, self.is_known = rest, False
        self.sides: dict[int, dict[float, float]] = {1: {}, -1: {}}
        self.held: list[BookUpdate] = []
        self.snapshot_id = 0

    def take(self, message: BookUpdate) -> bool:
        """Whether the book is another one and known now."""
        if message.is_snapshot:
            self.sides, self.snapshot_id, self.is_known = {1: {}, -1: {}}, message.update_id, True
            self._put(message)
            for change in self._newest():
                self._put(change)
            self.held = []
            return True
        if self.is_known and not (self.rest and message.update_id <= self.snapshot_id):
            self._put(message)
            return True
        if not self.is_known and self.rest:
            self.held.append(message)
        return False

    def _newest(self) -> list[BookUpdate]:
        found: list[BookUpdate] = []
        for change in reversed(self.held):
            if change.update_id <= self.snapshot_id:
                break
            found.insert(0, change)
        return found

    def _put(self, message: BookUpdate) -> None:
        for side, levels in ((1, message.bids), (-1, message.asks)):
            self.sides[side].update(levels)

    def levels(self) -> dict[int, list[tuple[float, float]]] | None:
        """Keys (price times side) and quantities of LEVELS levels; None while crossed or without a side."""
        found = {}
        for side, qty_at in self.sides.items():
            there = sorted(((side * price, qty) for price, qty in qty_at.items() if qty), reverse=True)
            found[side] = [*there, *[(-math.inf, 0.0)] * LEVELS][:LEVELS]
        best_bid, best_ask = found[1][0][0], -found[-1][0][0]
        return found if -math.inf < best_bid < best_ask < math.inf else None


def twin_rows(decoded: list[Event], until_s: int, rest: bool) -> list[list[float]]:
    """LEVEL_COLUMNS of each second up to `until_s`."""
    book, seen, rows = TwinBook(rest), None, []
    for second in range(until_s):
        flow = [0.0] * LEVELS
        for event in sorted(decoded, key=lambda event: (when(event), isinstance(event, BookUpdate))):
            if when(event) // NS_PER_S != DAY_NS // NS_PER_S + second:
                continue
            if isinstance(event, Gap) and event.reason == "lost":
                book.is_known, seen = False, None
            if isinstance(event, BookUpdate) and book.take(event) and (now := book.levels()):
                if seen is not None:
                    for k, side in ((k, side) for side in now for k in range(LEVELS)):
                        flow[k] += side * level_flow(seen[side][k], now[side][k])
                seen = now
        rows.append(columns_of(seen, flow))
    return rows


def when(event: Event) -> int:
    return event.to_ns if isinstance(event, Gap) else event.recv_ns


def level_flow(before: tuple[float, float], now: tuple[float, float]) -> float:
    """Of one side: what came at a price that is as good, less what went."""
    return (now[1] if now[0] >= before[0] else 0.0) - (before[1] if now[0] <= before[0] else 0.0)


def columns_of(seen: dict[int, list[tuple[float, float]]] | None, flow: list[float]) -> list[float]:
    row: list[float] = []
    for k in range(LEVELS):
        for side in (1, -1):
            key, qty = seen[side][k] if seen else (-math.inf, 0.0)
            row += [side * key, qty] if key > -math.inf else [math.nan, math.nan]
        row.append(flow[k])
    return row


@settings(max_examples=100, deadline=None)
@given(streams(), st.booleans(), st.sampled_from([2, 4096]))
def test_the_levels_are_those_of_an_obvious_twin(decoded: list[Event], rest: bool, room: int) -> None:
    """However often room is made, and slots of levels that are gone are given up for it."""
    until_s = 1 + (max(map(when, decoded)) - DAY_NS) // NS_PER_S
    with patch.object(order_book, "_ROOM", room):
        rows = closed(decoded, until_s, rest=rest)
    mine = [list(row.values())[WIDTH:] for row in rows]
    np.testing.assert_array_equal(mine, twin_rows(decoded, until_s, rest))


@st.composite
def markets(draw: st.DrawFn) -> np.ndarray:
    """The same with trades, as events."""
    events = as_events(draw(streams()), True)
    traded = draw(st.lists(st.tuples(st.integers(0, 60), st.sampled_from([1, -1]), st.integers(1, 8)), max_size=20))
    rows = [(DAY_NS + at * NS_PER_S, TRADE, side, 100.0, qty / 8, 0.0, 0.0) for at, side, qty in traded]
    events = np.concatenate([events, np.array(rows, EVENT)])
    return events[np.lexsort((events["kind"], events["recv_ns"]))]


@settings(max_examples=40, deadline=None)
@given(markets(), st.booleans(), st.data())
def test_several_clocks_in_one_pass_in_any_cut_are_each_alone(
    events: np.ndarray, rest: bool, data: st.DataObject
) -> None:
    now_ns = int(events["recv_ns"][-1]) + NS_PER_S
    alone = []
    for clock in CLOCKS:
        bars = Bars(clock, LEVELS, rest)
        alone.append((join_closed([bars.push(events), bars.advance(now_ns)]), bars.save()))
    cuts = sorted(data.draw(st.lists(st.integers(0, events.size), max_size=4)))
    together, pieces = BarPass(CLOCKS, LEVELS, rest), []
    for begin, end in pairwise([0, *cuts, events.size]):
        pieces.append(together.push(events[begin:end]))
        saved, together = together.save(), BarPass(CLOCKS, LEVELS, rest)
        together.restore(saved)
    pieces.append(together.advance(now_ns))
    for (whole, state), *made, saved in zip(alone, *pieces, together.save(), strict=True):
        assert_same(join_closed(made), whole)
        assert all(saved[name].tobytes() == array.tobytes() for name, array in state.items())


@settings(max_examples=40, deadline=None)
@given(markets())
def test_all_other_columns_are_those_of_bars_without_levels(events: np.ndarray) -> None:
    now_ns = int(events["recv_ns"][-1]) + NS_PER_S
    plain = events[(events["kind"] != DELTA) & ~((events["kind"] == GAP) & (events["side"] == 1))]
    with_levels, without = BarPass(CLOCKS, LEVELS, True), BarPass(CLOCKS)
    for mine, other in zip(run(with_levels, events, now_ns), run(without, plain, now_ns), strict=True):
        assert_same(ClosedBars(mine.open_ns, mine.close_ns, mine.bar_index, mine.values[:, :WIDTH]), other)


@settings(max_examples=40, deadline=None)
@given(markets(), markets(), st.integers(0, 40))
def test_no_level_reads_the_future(events: np.ndarray, other: np.ndarray, cut: int) -> None:
    past, future = events[:cut], events[cut:]
    if not future.size:
        return
    now_ns = int(future["recv_ns"][0])
    seen = past[past["recv_ns"] < now_ns]
    known = run(BarPass(CLOCKS, LEVELS, True), seen, now_ns)
    other["recv_ns"] += now_ns - other["recv_ns"][0]
    changed = run(BarPass(CLOCKS, LEVELS, True), np.concatenate([seen, other]), 0)
    for mine, perturbed in zip(known, changed, strict=True):
        early = perturbed.close_ns <= now_ns
        np.testing.assert_array_equal(perturbed.values[early], mine.values)


def run(bars: BarPass, events: np.ndarray, now_ns: int) -> list[ClosedBars]:
    return [join_closed(pieces) for pieces in zip(bars.push(events), bars.advance(now_ns), strict=True)]


def assert_same(left: ClosedBars, right: ClosedBars) -> None:
    for name in ("open_ns", "close_ns", "bar_index", "values"):
        np.testing.assert_array_equal(getattr(left, name), getattr(right, name), name)


def test_states_of_other_events_do_not_go_on_together() -> None:
    one, other = Bars(CLOCKS[0]), Bars(CLOCKS[1])
    one.push(as_events([quote(0)]))
    with pytest.raises(ValueError, match="not of the same events"):
        BarPass(CLOCKS[:2]).restore([one.save(), other.save()])


@settings(max_examples=40, deadline=None)
@given(streams())
def test_stored_and_decoded_messages_are_the_same_events(decoded: list[Event]) -> None:
    in_order = sorted(decoded, key=when)
    updates = [event for event in in_order if isinstance(event, BookUpdate)]
    quotes = [event for event in in_order if isinstance(event, Quote)]
    gaps = [event for event in in_order if isinstance(event, Gap)]
    none = [frame_of(table, []) for table in (schema.TRADES, schema.LIQUIDATIONS, schema.MARK_PRICES)]
    frames = [frame_of(schema.TOP_OF_BOOK, quotes), *none]
    merged = merge_events(*frames, frame_of(schema.GAPS, gaps), frame_of(BOOK_DELTAS, updates))
    assert merged.tobytes() == as_events(in_order, True).tobytes()


# Recorded frames.

RECORDED = ("binance_20240808/usdm_btcusdt", "binance_20240808/spot_ethusdt", "bybit_20260809/linear")
MESSAGES = 400


def decoded_books(path: Path) -> Iterator[tuple[str, list[Event]]]:
    """(venue, book messages, gaps and best prices) of each symbol of one recorded connection."""
    lines = list(RawReader(path))
    url = next(line.url for line in lines if line.url.startswith("ws"))
    _, decoder = decoder_for(url)
    by_symbol: dict[str, list[Event]] = defaultdict(list)
    for line in lines:
        is_frame = line.url.startswith("ws")
        given = (line.frame, line.recv_ns)
        for event in decoder.decode(*given) if is_frame else decoder.decode_rest(line.url, line.frame, line.recv_ns):
            if isinstance(event, BookUpdate | Quote | Gap):
                by_symbol[event.symbol].append(event)
    for events in by_symbol.values():
        yield venue_of(url), sorted(events, key=when)


def followed(updates: list[BookUpdate], rest: bool, levels: int) -> Iterator[np.ndarray]:
    """The levels (levels, 4) after each message: bid price, bid qty, ask price, ask qty, NaN while unknown."""
    book = order_book.make_book(levels, rest)
    for message in updates:
        for delta in as_events([message], True):
            taken = int(delta["side"]), delta["a"], delta["b"], int(delta["c"]), int(delta["d"])
            while not order_book.take_delta(*taken, *book):
                book = order_book.with_room(book)
        seen = np.zeros((1, 4 * levels))
        for level in range(levels):
            order_book.write_level(level, book.tops, book.numbers, seen, 0, 4 * level)
        yield seen.reshape(levels, 4)


@pytest.mark.parametrize("capture", RECORDED)
def test_recorded_books_are_those_that_ingest_rebuilds(market_data: Path, capture: str) -> None:
    compared = 0
    for venue, events in decoded_books(market_data / "raw" / f"{capture}.jsonl.zst"):
        rest, updates = holds_back(venue), [event for event in events if isinstance(event, BookUpdate)][:MESSAGES]
        theirs = Rebuilder([], rest)
        for message, mine in zip(updates, followed(updates, rest, 20), strict=True):
            theirs.best_after(theirs.follow(frame_of(BOOK_DELTAS, [message]).select(COLUMNS)))
            sides = [np.array(theirs.ladders.side(is_bid))[:, :20].T for is_bid in (True, False)]
            if theirs.is_known and min(map(len, sides)) == 20 and sides[0][0, 0] < sides[1][0, 0]:
                np.testing.assert_array_equal(mine, np.concatenate(sides, axis=1))
                compared += 1
    assert compared > 50


@pytest.mark.parametrize("capture", RECORDED[:2])
def test_the_best_level_is_the_venues_own_best_price_at_equal_update_ids(market_data: Path, capture: str) -> None:
    compared = agreed = 0
    for venue, events in decoded_books(market_data / "raw" / f"{capture}.jsonl.zst"):
        updates = [event for event in events if isinstance(event, BookUpdate)][:MESSAGES]
        best = {
            each.update_id: row[0] for each, row in zip(updates, followed(updates, holds_back(venue), 1), strict=True)
        }
        for event in events:
            if isinstance(event, Quote) and np.isfinite(best.get(event.update_id, np.array([np.nan]))).all():
                told = [event.bid_price, event.bid_qty, event.ask_price, event.ask_qty]
                compared, agreed = compared + 1, agreed + int(best[event.update_id].tolist() == told)
    assert agreed == compared > 20
