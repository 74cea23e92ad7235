"""Bars: merged market events in, one row per bar out. One compiled state machine serves a day of events and a live one.

Order. Events stand in the total order (recv_ns, kind, row order), the kinds as in events.py; batch and live see the
same one. Bars see the receive clock only.

Time bars are half-open [open_ns, close_ns), aligned to the UTC epoch; bar_index = open_ns // step. A bar without a
valid quote, a trade or a liquidation carries the book forward and is marked `is_empty`.

Bars of the other clocks (volume, dollar, tick, renko, range, imbalance and run bars, event_clocks.py) close at the end
of the receipt instant in which they are full: trades are not split, the excess is not carried into the next bar, and
what came in one frame (equal recv_ns) stays together, because nobody can decide inside a frame. close_ns is that
instant + 1 ns, so that the interval is half-open as well. They are anchored at 00:00 UTC: midnight closes the bar
short, which its close_ns % 1 d == 0 tells; a bar without an event is not written. bar_index counts on from 1,000,000 x
(days since 1970) at the first start.

Book. A quote is valid if 0 < bid < ask and both sizes are not negative, all below 1e75. Crossed, locked and one-sided
quotes are ignored: the last valid one stands. The mid is a step function of time: open_price is its value as the bar
opens (the first one known in the first bar), so open equals the close before. Bars that close before
the first valid quote are dropped, with what they hold.

Flow. buy and sell are the taker's; usd is quote notional. A trade is ignored if its price or quantity is not a number
below 1e75. Sums of trades and quotes are what running totals of twice a float's precision grew by in the bar, rounded
at the end (running_totals.py). trade_open_price, trade_high_price, trade_low_price and trade_close_price are the first,
highest, lowest and last price traded in the bar, NaN without a trade. ofi_qty sums the order flow imbalance of the best
level over the bar's quotes (Cont, Kukanov, Stoikov, "The Price Impact of Order Book Events", Journal of Financial
Econometrics 12(1), 2014, section 2):
  e = 1{bid >= bid'} bid_qty - 1{bid <= bid'} bid_qty' - 1{ask <= ask'} ask_qty + 1{ask >= ask'} ask_qty'
where ' is the quote before.

Size. square_usd and max_trade_usd are the sum of squares and the largest of the trades' notionals, liq_square_usd and
liq_max_usd of the liquidations'. effective_usd sums 2 side (price - mid) qty over trades, the mid being that before the
trade: over the bar's traded usd it is the effective spread; trades before the first quote add nothing. A trade is large
(large_buy_usd, large_sell_usd, large_count) if its notional is at least ten times the mean of those before it, weighted
exponentially with a half-life of 1,000 trades. After a fresh start the mean is that of all trades so far until 1,443
have come, and the first hundred are never large; neither midnight nor a gap nor a silence ends it.

Marks hold the last known value, NaN until there is one. funding_s is the time from the bar's close to the next funding
as the last mark that names it has it, negative where that has passed.

Depth. With `levels` > 0, which events must then bring deltas, bars hold as many levels of the L2 book as of their close
and each one's order flow imbalance: order_book.py. The depth alone neither opens a bar nor ends a silence, and marks no
gap: all other columns are, to the bit, those of bars without levels.

Gaps. A GAP event stands at the end of the gap, when it becomes known, and before what came with it; it marks its bar
`has_gap`, and the next quote adds no OFI, since the quote before is not its neighbour. After SILENCE_NS (or one time
bar, if longer) without any event bars cease; the next event starts afresh, without a best price or mark, and the first
bar then `has_gap`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from core.units import NS_PER_MINUTE
from research.bars import state as bar_state
from research.bars.clocks import Clock
from research.bars.columns import MAX_LEVELS, bar_columns
from research.bars.events import EVENT, Events
from research.bars.order_book import make_book, restored_book, save_book, with_room
from research.bars.rows import DONE, FULL, NO_ROOM, take_events
from research.bars.state import Out, make_market, make_out, make_tracks

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
State: TypeAlias = dict[str, NDArray[Any]]

SILENCE_NS: Final = 10 * NS_PER_MINUTE  # the longest true silence recorded of an illiquid spot pair is 43 s
_ROOM: Final = 100_000  # bars of a clock that is not of time for which there is room at a time
_MOST_ROOM: Final = 1_000_000  # and of one of time. What is not filled takes no memory; what is too little, a copy
_LITTLE: Final = 64  # events for which the same room serves again and again, as they come live
_LITTLE_ROOM: Final = 4
_WORDS: Final = EVENT.itemsize // 8


@dataclass(frozen=True)
class ClosedBars:
    """Bars in order of closing: times and indices (n,), `values` (n, columns) in the order of `bar_columns`."""

    open_ns: Ints
    close_ns: Ints
    bar_index: Ints
    values: Floats

    def __len__(self) -> int:
        return self.open_ns.size


class BarPass:
    """Bars of one symbol on several clocks, in one pass over its events.

    Feed events in order, in any cut: each clock's bars are, to the bit, those that it gives alone.
    """

    def __init__(self, clocks: Sequence[Clock], levels: int = 0, holds_back: bool = False) -> None:
        """`levels` of the book in each bar; `holds_back`: its snapshots come beside the stream (order_book.py)."""
        if not clocks or not 0 <= levels <= MAX_LEVELS:
            raise ValueError(f"bars have a clock and 0 to {MAX_LEVELS} levels, were {len(clocks)} and {levels}")
        self.clocks, self.levels = tuple(clocks), levels
        kinds, steps_ns = (
            np.array([getattr(clock, name) for clock in clocks], np.int64) for name in ("kind", "step_ns")
        )
        sizes = np.array([clock.size for clock in clocks])
        self._market = make_market()
        self._tracks = make_tracks(kinds, steps_ns, np.maximum(steps_ns, SILENCE_NS), sizes, levels)
        self._book = make_book(levels, holds_back)
        self._width = len(bar_columns(levels))
        self._little_out = make_out([_LITTLE_ROOM] * len(clocks), self._width)
        self._none = [join_closed([], self._width) for _ in clocks]

    @property
    def seen_ns(self) -> int:
        """The time that events and `advance` have reached, 0 at first: no event may be older."""
        return bar_state.seen_ns(self._market)

    def push(self, events: Events) -> list[ClosedBars]:
        """Take events (n,) of dtype EVENT; return the bars that they close, per clock.

        A bar is closed by the first event at or after its close_ns, or by `advance`. Raises ValueError for events out
        of order, or older than an `advance`, and for deltas where no levels are built.
        """
        if events.dtype != EVENT:
            raise ValueError(f"events must have dtype {EVENT}, was {events.dtype}: make them with merge_events")
        return self._run(events, int(events["recv_ns"][-1]) if events.size else 0)

    def advance(self, now_ns: int) -> list[ClosedBars]:
        """Close bars up to now: the caller vouches that no event with recv_ns < now_ns will follow."""
        return self._run(_NO_EVENTS, now_ns)

    def save(self) -> list[State]:
        """All state, per clock, as arrays that `np.savez` takes without pickling: each is what that clock alone has."""
        bar_state.note_extremes(self._market.values, self._tracks.rows)
        shared = {**bar_state.save_market(self._market), **save_book(self._book)}
        return [
            {"clock": np.array(clock.name), **bar_state.save_track(self._tracks, place), **shared}
            for place, clock in enumerate(self.clocks)
        ]

    def restore(self, saved: Sequence[Mapping[str, NDArray[Any]]]) -> None:
        """Go on from the states of `save`, in the order of the clocks, made in one pass or in several.

        A state may have more book levels than are built here. Raises ValueError if it was made on another clock, by
        another layout of state or with fewer levels, or if the states are not of the same events.
        """
        for clock, state in zip(self.clocks, saved, strict=True):
            if str(state["clock"]) != clock.name:
                raise ValueError(f"state is of bars {state['clock']}, wanted {clock.name}: rebuild the bars")
        for state, mine in zip(saved, self.save(), strict=True):
            if any(name not in state or state[name].shape[:1] != mine[name].shape[:1] for name in bar_state.FIXED):
                raise ValueError("state was saved by another version of the bars: rebuild the bars")
        shared = ((state[name], saved[0][name]) for state in saved[1:] for name in bar_state.SHARED)
        if not all(np.array_equal(*pair, equal_nan=True) for pair in shared):
            raise ValueError("states of the clocks are not of the same events: rebuild the bars")
        self._book = restored_book(self._book, saved[0])
        for place, state in enumerate(saved):
            bar_state.restore_track(self._tracks, place, state)
        bar_state.restore_market(self._market, self._tracks, saved[0])

    def _run(self, events: Events, until_ns: int) -> list[ClosedBars]:
        words = np.ascontiguousarray(events).view(np.int64).reshape(-1, _WORDS)
        out = self._little_out if events.size <= _LITTLE else self._make_out(events, until_ns)
        pieces: list[list[ClosedBars]] = []
        done, ended = 0, FULL
        while ended != DONE:
            done, ended, written = take_events(words, done, until_ns, *self._market, *self._tracks, *self._book, *out)
            if written:
                pieces.append(_closed(out, keep=out is not self._little_out))
            if ended == NO_ROOM and self.levels:
                self._book = with_room(self._book)
            elif ended not in (DONE, FULL):
                raise ValueError(self._why(events, done, ended))
            if ended != DONE and (written or ended == FULL):
                out = self._make_out(events[done:], until_ns)
        if not pieces:
            return list(self._none)
        return pieces[0] if len(pieces) == 1 else [join_closed(each) for each in zip(*pieces, strict=True)]

    def _make_out(self, events: Events, until_ns: int) -> Out:
        return make_out(self._rooms(events, until_ns), self._width)

    def _rooms(self, events: Events, until_ns: int) -> list[int]:
        """For how many bars of each clock there is to be room until `until_ns`."""
        from_ns = self.seen_ns or (int(events["recv_ns"][0]) if events.size else until_ns)
        past_ns = max(0, until_ns - from_ns)
        return [
            min(past_ns // clock.step_ns + 2, _MOST_ROOM) if clock.is_time else min(events.size + 2, _ROOM)
            for clock in self.clocks
        ]

    def _why(self, events: Events, at: int, ended: int) -> str:
        if ended == NO_ROOM:
            return f"event {at} is of the book's depth: make bars with levels to take it"
        return f"event {at} came at {events['recv_ns'][at]}, after {self.seen_ns}"


class Bars:
    """Bars of one symbol on one clock: a `BarPass` of one. Feed events in order, in any cut."""

    def __init__(self, clock: Clock, levels: int = 0, holds_back: bool = False) -> None:
        self.clock = clock
        self._pass = BarPass([clock], levels, holds_back)

    def push(self, events: Events) -> ClosedBars:
        """Take events (n,) of dtype EVENT; return the bars that they close."""
        return self._pass.push(events)[0]

    def advance(self, now_ns: int) -> ClosedBars:
        """Close bars up to now: the caller vouches that no event with recv_ns < now_ns will follow."""
        return self._pass.advance(now_ns)[0]

    def save(self) -> State:
        """All state as arrays that `np.savez` takes without pickling."""
        return self._pass.save()[0]

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a `save`; raises ValueError as `BarPass.restore`."""
        self._pass.restore([saved])


def join_closed(pieces: Sequence[ClosedBars], width: int | None = None) -> ClosedBars:
    """Pieces in order as one. Of no pieces bars of `width` columns, of none but BAR_COLUMNS if not given."""
    if len(pieces) == 1:
        return pieces[0]
    if not pieces:
        none = np.zeros(0, np.int64)
        return ClosedBars(none, none, none, np.zeros((0, len(bar_columns(0)) if width is None else width)))
    return ClosedBars(
        np.concatenate([piece.open_ns for piece in pieces]),
        np.concatenate([piece.close_ns for piece in pieces]),
        np.concatenate([piece.bar_index for piece in pieces]),
        np.concatenate([piece.values for piece in pieces]),
    )


def _closed(out: Out, keep: bool) -> list[ClosedBars]:
    """The bars in `out`, per clock: a part of it, or a copy if it is to be filled again."""
    found = []
    for first, end, _ in out.slots.tolist():
        times, values = out.times[first:end], out.values[first:end]
        if not keep:
            times, values = times.copy(), values.copy()
        found.append(ClosedBars(times[:, 0], times[:, 1], times[:, 2], values))
    return found


_NO_EVENTS: Final = np.zeros(0, EVENT)
