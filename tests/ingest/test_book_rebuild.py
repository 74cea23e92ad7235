"""Books from stored rows: against an obvious twin, through gaps, and however the rows are cut."""

import math

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from core.schema import BOOK_DELTAS
from ingest.book_rebuild import COLUMNS, PRICES, Rebuilder, best_frame
from ingest.events import BookUpdate, Level
from ingest.packing import frame_of

S = 1_000_000_000


def update(
    at_s: float, number: int, bids: list[Level], asks: list[Level], whole: bool = False, exch_s: float | None = None
) -> BookUpdate:
    exch_ns = round((at_s if exch_s is None else exch_s) * S)
    return BookUpdate("BTCUSDT", exch_ns, round(at_s * S), number, bids, asks, whole)


def rows_of(updates: list[BookUpdate]) -> pl.DataFrame:
    return frame_of(BOOK_DELTAS, updates).select(COLUMNS)


def rebuilt(
    updates: list[BookUpdate], gaps: list[tuple[int, int]] | None = None, holds_back: bool = True, cuts: int = 1
) -> pl.DataFrame:
    """The best prices after each message, the messages being pushed in `cuts` slices."""
    book, frames = Rebuilder(gaps or [], holds_back), []
    for piece in np.array_split(np.arange(len(updates)), cuts):
        if piece.size:
            applied = book.follow(rows_of([updates[place] for place in piece]))
            frames.append(best_frame(applied, book.best_after(applied)))
    return pl.concat(frames)


def bests(frame: pl.DataFrame) -> list[tuple[float | None, ...]]:
    return frame.select(PRICES).rows()


def test_a_change_sets_adds_and_removes_levels() -> None:
    frame = rebuilt(
        [
            update(1, 10, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0)], whole=True),
            update(2, 11, [(99.0, 0.0)], [(100.5, 4.0)]),
            update(3, 12, [(98.5, 5.0), (97.0, 0.0)], [(100.5, 6.0)]),
            update(4, 13, [(98.5, 0.0), (98.0, 0.0)], []),
        ]
    )
    assert bests(frame) == [
        (99.0, 1.0, 101.0, 3.0),
        (98.0, 2.0, 100.5, 4.0),
        (98.5, 5.0, 100.5, 6.0),
        (None, None, None, None),
    ]


def test_nothing_is_known_before_a_snapshot() -> None:
    frame = rebuilt([update(1, 10, [(99.0, 1.0)], [(101.0, 3.0)]), update(2, 9, [(98.0, 1.0)], [(102.0, 1.0)], True)])
    assert bests(frame)[0] == (None,) * 4


def test_changes_that_came_before_their_rest_snapshot_are_applied_behind_it() -> None:
    updates = [
        update(1, 8, [(99.0, 1.0)], []),  # the snapshot holds it
        update(2, 12, [(99.5, 2.0)], []),  # belongs behind the snapshot
        update(3, 10, [(99.0, 9.0)], [(101.0, 3.0)], whole=True),
        update(4, 9, [(99.9, 1.0)], []),  # the snapshot holds it
        update(5, 13, [(99.5, 0.0)], []),
    ]
    known = [(99.5, 2.0, 101.0, 3.0), (None,) * 4, (99.0, 9.0, 101.0, 3.0)]
    assert bests(rebuilt(updates))[2:] == known
    assert bests(rebuilt(updates, cuts=5))[2:] == known


def test_where_snapshots_come_in_the_stream_nothing_is_applied_again() -> None:
    updates = [update(1, 900, [(99.5, 2.0)], []), update(2, 1, [(99.0, 1.0)], [(101.0, 1.0)], whole=True)]
    assert bests(rebuilt(updates, holds_back=False))[1] == (99.0, 1.0, 101.0, 1.0)


def test_after_a_gap_the_book_is_unknown_until_a_snapshot_at_its_end() -> None:
    book = [(99.0, 1.0)], [(101.0, 1.0)]
    updates = [update(1, 1, *book, True), update(2, 2, *book), update(3, 9, *book), update(4, 12, *book, True)]
    updates += [update(5, 14, *book, True), update(6, 15, *book)]
    known = [row[0] is not None for row in bests(rebuilt(updates, gaps=[(2 * S, 5 * S)]))]
    assert known == [True, True, False, False, True, True]


levels = st.lists(
    st.tuples(st.integers(90, 99), st.integers(0, 3)).map(lambda level: (float(level[0]), float(level[1]))), max_size=4
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[BookUpdate], list[tuple[int, int]]]:
    """Changes with rising ids, snapshots among them that are some changes late, as REST brings them, and gaps."""
    updates = []
    for at_s in range(1, draw(st.integers(2, 25))):
        bids = draw(levels)
        asks = [(price + 10.0, qty) for price, qty in draw(levels)]
        if draw(st.integers(0, 5)) == 0:
            whole = [(90.0, 1.0)], [(110.0, 1.0)]
            updates.append(update(at_s, max(0, 10 * at_s - draw(st.integers(0, 35))), *whole, whole=True))
        elif bids or asks:
            updates.append(update(at_s, 10 * at_s, bids, asks))
    ends = draw(st.lists(st.tuples(st.integers(0, 25), st.integers(0, 5)), max_size=2))
    return updates, [(start * S, (start + length) * S) for start, length in ends]


def twin(updates: list[BookUpdate], gaps: list[tuple[int, int]]) -> list[tuple[float | None, ...]]:
    """Dictionaries of levels, rebuilt from the snapshot for each message anew."""
    found = []
    for last in range(len(updates)):
        now_ns = updates[last].recv_ns
        needed_ns = max([to_ns for from_ns, to_ns in gaps if from_ns < now_ns], default=-1)
        missed_ns = max([from_ns for from_ns, _ in gaps if from_ns < now_ns], default=-1)
        bases = [place for place, each in enumerate(updates[: last + 1]) if each.is_snapshot and usable(each, gaps)]
        bases = [place for place in bases if updates[place].recv_ns >= needed_ns and updates[place].recv_ns > missed_ns]
        found.append(best_of(updates, bases[-1], last) if bases else (None,) * 4)
    return found


def usable(snapshot: BookUpdate, gaps: list[tuple[int, int]]) -> bool:
    return all(snapshot.recv_ns >= to_ns for from_ns, to_ns in gaps if from_ns < snapshot.recv_ns)


def best_of(updates: list[BookUpdate], base: int, last: int) -> tuple[float | None, ...]:
    snapshot = updates[base]
    if last != base and updates[last].update_id <= snapshot.update_id:
        return (None,) * 4
    held = []
    for change in reversed(updates[:base]):
        if change.is_snapshot or change.update_id <= snapshot.update_id:
            break
        held.insert(0, change)
    later = [each for each in updates[base + 1 : last + 1] if not each.is_snapshot]
    bids, asks = dict(snapshot.bids), dict(snapshot.asks)
    for change in [*held, *(each for each in later if each.update_id > snapshot.update_id)]:
        bids.update(change.bids)
        asks.update(change.asks)
    bid, ask = (
        max([p for p, q in bids.items() if q], default=None),
        min([p for p, q in asks.items() if q], default=None),
    )
    return (None,) * 4 if bid is None or ask is None else (bid, bids[bid], ask, asks[ask])


@settings(max_examples=200, deadline=None)
@given(stream=streams(), cuts=st.integers(1, 4))
def test_the_rebuilt_book_is_that_of_an_obvious_twin(
    stream: tuple[list[BookUpdate], list[tuple[int, int]]], cuts: int
) -> None:
    updates, gaps = stream
    if updates:
        assert bests(rebuilt(updates, gaps, cuts=cuts)) == twin(updates, gaps)


def test_many_levels_find_room() -> None:
    bids = [(float(price), 1.0) for price in range(1, 5_000)]
    frame = rebuilt([update(1, 1, bids, [(6_000.0, 1.0)], True), update(2, 2, [(price, 0.0) for price, _ in bids], [])])
    assert bests(frame) == [(4_999.0, 1.0, 6_000.0, 1.0), (None,) * 4]
    assert not math.isnan(Rebuilder([], True).ladders.keys.sum())
