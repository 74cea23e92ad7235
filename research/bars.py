"""Bars: merged market events in, one row per bar out. One compiled state machine serves a day of events and a live one.

Order. Events stand in the total order (recv_ns, kind, row order), the kinds as numbered below; batch and live see the
same one. Bars see the receive clock only.

Time bars are half-open [open_ns, close_ns), aligned to the UTC epoch; bar_index = open_ns // step. A bar without a
valid quote, a trade or a liquidation carries the book forward and is marked `is_empty`.

Bars of the other clocks (volume, dollar, tick, renko, range, imbalance and run bars, event_clocks.py) close at the end
of the receipt instant in which they are full: trades are not split, the excess is not carried into the next bar, and
what came in one frame (equal recv_ns) stays together, because nobody can decide inside a frame. close_ns is that
instant + 1 ns, so that the interval is half-open as well. They are anchored at 00:00 UTC: midnight closes the bar
short, which its close_ns % 1 d == 0 tells; a bar without an event is not written. bar_index counts on from 1,000,000 x
(days since 1970) at the first start.

Book. A quote is valid if 0 < bid < ask and both sizes are finite and not negative. Crossed, locked and one-sided quotes
are ignored: the last valid one stands. The mid is a step function of time: open_price is its value as the bar opens
(the first one known in the first bar), so open equals the close before. Bars that close before the first valid quote
are dropped, with what they hold.

Flow. buy and sell are the taker's; usd is quote notional. ofi_qty sums the order flow imbalance of the best level over
the bar's quotes (Cont, Kukanov, Stoikov, "The Price Impact of Order Book Events", Journal of Financial Econometrics
12(1), 2014, section 2):
  e = 1{bid >= bid'} bid_qty - 1{bid <= bid'} bid_qty' - 1{ask <= ask'} ask_qty + 1{ask >= ask'} ask_qty'
where ' is the quote before. Mark columns hold the last known value, NaN until there is one.

Gaps. A GAP event stands at the end of the gap, when it becomes known, and before what came with it; it marks its bar
`has_gap`, and the next quote adds no OFI, since the quote before is not its neighbour. After SILENCE_NS (or one time
bar, if longer) without any event bars cease; the next event starts afresh, without a book or mark, and the first bar
then `has_gap`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.kernels import njit
from core.schema import BOOK_DELTAS
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S
from ingest.events import Event, Gap, Liquidation, Mark, Quote, Trade
from research.bar_columns import BAR_COLUMNS
from research.clocks import Clock
from research.event_clocks import MEMORY_SIZE, TIME, is_full

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Events: TypeAlias = NDArray[np.void]

EVENT: Final = np.dtype(
    [("recv_ns", "i8"), ("kind", "i4"), ("side", "i4"), ("a", "f8"), ("b", "f8"), ("c", "f8"), ("d", "f8")],
    align=True,
)
"""One event in 48 bytes. GAP: nothing more. QUOTE: bid_price, bid_qty, ask_price, ask_qty. TRADE: side +1 buy, -1 sell
(taker); price, qty. LIQUIDATION: side +1 a long was closed, -1 a short; price, qty. MARK: side the next funding in
minutes since 1970 (all venues fund on the minute), 0 where unknown; mark_price, index_price, funding_rate,
open_interest, NaN where unknown."""
GAP, QUOTE, TRADE, LIQUIDATION, MARK = range(5)

_BID, _BID_QTY, _ASK, _ASK_QTY, _OPEN, _HIGH, _LOW, _CLOSE = range(8)
_BUY_QTY, _SELL_QTY, _BUY_USD, _SELL_USD, _BUY_COUNT, _SELL_COUNT = range(8, 14)
_OFI, _QUOTES, _LIQ_LONG, _, _LIQ_COUNT = range(14, 19)
_MARK, _INDEX, _FUNDING, _INTEREST = range(19, 23)
_EFFECTIVE, _SQUARE, _MAX_TRADE, _LARGE_BUY, _, _LARGE_COUNT = range(23, 29)
_LIQ_SQUARE, _LIQ_MAX, _FUNDING_S, _IS_EMPTY, _HAS_GAP = range(29, 34)

# The state besides the row being filled: times and flags of the open bar.
(
    _OPEN_NS,
    _DUE_NS,
    _BAR_INDEX,
    _LAST_NS,
    _SEEN_NS,
    _STARTED,
    _HAS_BOOK,
    _CHAINED,
    _FUNDING_MIN,
    _TRADES_SEEN,
    _N_STATE,
) = range(11)

SILENCE_NS: Final = 10 * NS_PER_MINUTE  # the longest true silence recorded of an illiquid spot pair is 43 s
NEVER_NS: Final = 2**63 - 1
_BARS_PER_DAY: Final = 1_000_000  # numbers volume bars: more than any day holds, so that fresh starts never collide
_ROOM: Final = 4096  # rows of the output buffer; a day is copied out in pieces
_OUT_OF_ORDER: Final = -1
_NEWEST: Final = 1.0 - 0.5**0.001  # weight of the last trade in the mean notional: a half-life of 1,000 trades
_LARGE: Final = 10.0  # times that mean
_LEAST_TRADES: Final = 100  # before them none is large
_MOST_COUNTED: Final = 1_000_000


@dataclass(frozen=True)
class ClosedBars:
    """Bars in order of closing: times and indices (n,), `values` (n, columns) in the order of BAR_COLUMNS."""

    open_ns: Ints
    close_ns: Ints
    bar_index: Ints
    values: Floats

    def __len__(self) -> int:
        return self.open_ns.size


class Bars:
    """Bars of one symbol. Feed events in order, in any cut: the bars are the same to the bit."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._silence_ns = max(SILENCE_NS, clock.step_ns)
        self._state = np.zeros(_N_STATE, np.int64)
        self._row = np.zeros(len(BAR_COLUMNS))
        self._memory = np.zeros(MEMORY_SIZE + 1)
        self._times_out = np.empty((_ROOM, 3), np.int64)
        self._rows_out = np.empty((_ROOM, len(BAR_COLUMNS)))

    def push(self, events: Events) -> ClosedBars:
        """Take events (n,) of dtype EVENT; return the bars that they close.

        A bar is closed by the first event at or after its close_ns, or by `advance`. Raises ValueError for events out
        of order, or older than an `advance`.
        """
        if events.dtype != EVENT:
            raise ValueError(f"events must have dtype {EVENT}, was {events.dtype}: make them with merge_events")
        return self._run(events, int(events["recv_ns"][-1]) if events.size else 0)

    def advance(self, now_ns: int) -> ClosedBars:
        """Close bars up to now: the caller vouches that no event with recv_ns < now_ns will follow."""
        return self._run(_NO_EVENTS, now_ns)

    def save(self) -> dict[str, NDArray[Any]]:
        """All state as arrays that `np.savez` takes without pickling."""
        arrays = {"state": self._state, "row": self._row, "memory": self._memory}
        return {"clock": np.array(self.clock.name), **{name: array.copy() for name, array in arrays.items()}}

    def restore(self, saved: Mapping[str, NDArray[Any]]) -> None:
        """Go on from a `save`. Raises ValueError if it was made on another clock or by another layout of state."""
        if str(saved["clock"]) != self.clock.name:
            raise ValueError(f"state is of bars {saved['clock']}, wanted {self.clock.name}: rebuild the bars")
        arrays = {"state": self._state, "row": self._row, "memory": self._memory}
        if any(name not in saved or saved[name].shape != array.shape for name, array in arrays.items()):
            raise ValueError("state was saved by another version of the bars: rebuild the bars")
        for name, array in arrays.items():
            array[:] = saved[name]

    def _run(self, events: Events, until_ns: int) -> ClosedBars:
        done = 0
        pieces: list[ClosedBars] = []
        while True:
            done, made = _run(
                events, done, until_ns, self.clock.step_ns, self.clock.kind, self.clock.size, self._silence_ns,
                self._state, self._row, self._memory, self._times_out, self._rows_out,
            )  # fmt: skip
            if made == _OUT_OF_ORDER:
                raise ValueError(f"event {done} came at {events['recv_ns'][done]}, after {self._state[_SEEN_NS]}")
            if made:
                times = self._times_out[:made].copy()
                pieces.append(ClosedBars(times[:, 0], times[:, 1], times[:, 2], self._rows_out[:made].copy()))
            if made < _ROOM:
                return join_closed(pieces)


def merge_events(
    quotes: pl.DataFrame,
    trades: pl.DataFrame,
    liquidations: pl.DataFrame,
    marks: pl.DataFrame,
    gaps: pl.DataFrame,
) -> Events:
    """One array (n,) of dtype EVENT in the total order, from rows of the event tables, each sorted by recv_ns.

    A gap stands at its to_ns; those of the book's depth are left out, since bars hold the best prices only. Gaps may
    come in any order. Of the other tables only the columns that an EVENT holds are needed.
    """
    gaps = gaps.filter(pl.col("stream") != BOOK_DELTAS.name)
    out = np.zeros(sum(frame.height for frame in (quotes, trades, liquidations, marks, gaps)), EVENT)
    _merge(
        _read_only(gaps["to_ns"].sort()),
        _columns(quotes, "bid_price", "bid_qty", "ask_price", "ask_qty"),
        _columns(trades, "price", "qty"),
        _signs(trades, "taker_side"),
        _columns(liquidations, "price", "qty"),
        _signs(liquidations, "liquidated"),
        _columns(marks, "mark_price", "index_price", "funding_rate", "open_interest"),
        _read_only((marks["next_funding_ns"] // NS_PER_MINUTE).fill_null(0).cast(pl.Int32)),
        out,
    )
    return out


def as_events(decoded: Sequence[Event]) -> Events:
    """Decoded events of one symbol as an array of dtype EVENT in the total order; the book's depth is left out."""
    rows = [row for row in map(_event_row, decoded) if row is not None]
    events = np.array(rows, EVENT)
    return events[np.lexsort((events["kind"], events["recv_ns"]))] if len(rows) > 1 else events


def _event_row(event: Event) -> tuple[int, int, int, float, float, float, float] | None:
    match event:
        case Quote():
            return event.recv_ns, QUOTE, 0, event.bid_price, event.bid_qty, event.ask_price, event.ask_qty
        case Trade():
            return event.recv_ns, TRADE, 1 if event.taker_side == "buy" else -1, event.price, event.qty, 0.0, 0.0
        case Liquidation():
            return event.recv_ns, LIQUIDATION, 1 if event.liquidated == "long" else -1, event.price, event.qty, 0.0, 0.0
        case Mark():
            known = (event.mark_price, event.index_price, event.funding_rate, event.open_interest)
            a, b, c, d = (float("nan") if value is None else value for value in known)
            return event.recv_ns, MARK, (event.next_funding_ns or 0) // NS_PER_MINUTE, a, b, c, d
        case Gap() if event.stream != BOOK_DELTAS.name:
            return event.to_ns, GAP, 0, 0.0, 0.0, 0.0, 0.0
    return None


def _columns(frame: pl.DataFrame, *names: str) -> tuple[NDArray[Any], ...]:
    """recv_ns, then the named columns as float64 with NaN for null."""
    return (_read_only(frame["recv_ns"]), *(_read_only(frame[name].cast(pl.Float64)) for name in names))


def _signs(frame: pl.DataFrame, name: str) -> NDArray[np.int8]:
    """+1 for the first category (buy, long), -1 for the second."""
    return _read_only(1 - 2 * frame[name].to_physical().cast(pl.Int8))


def _read_only(column: pl.Series) -> NDArray[Any]:
    """The column as a contiguous array that may not be written: without a copy where possible, one type for numba."""
    values = np.ascontiguousarray(column.to_numpy()).view()
    values.flags.writeable = False
    return values


def join_closed(pieces: Sequence[ClosedBars]) -> ClosedBars:
    """Pieces in order as one."""
    if len(pieces) < 2:
        return pieces[0] if pieces else _NONE_CLOSED
    return ClosedBars(
        np.concatenate([piece.open_ns for piece in pieces]),
        np.concatenate([piece.close_ns for piece in pieces]),
        np.concatenate([piece.bar_index for piece in pieces]),
        np.concatenate([piece.values for piece in pieces]),
    )


_NO_EVENTS: Final = np.zeros(0, EVENT)
_NO_TIMES: Final = np.zeros(0, np.int64)
_NONE_CLOSED: Final = ClosedBars(_NO_TIMES, _NO_TIMES, _NO_TIMES, np.zeros((0, len(BAR_COLUMNS))))


@njit(cache=True, nogil=True)
def _run(
    events: Events,
    begin: int,
    until_ns: int,
    step_ns: int,
    kind: int,
    size: float,
    silence_ns: int,
    state: Ints,
    row: Floats,
    memory: Floats,
    times_out: Ints,
    rows_out: Floats,
) -> tuple[int, int]:
    """Take events from `begin`, then close bars up to `until_ns`. Returns (next event, bars written).

    Stops when the buffers (room, 3) and (room, 34) are full: empty them and call again. -1 bars: that event is out of
    order. All that must outlive a call is in `state` (10,), `row` (34,) and `memory` (6,).
    """
    made = 0
    for i in range(begin, events.size):
        event = events[i]
        if event.recv_ns < state[_SEEN_NS]:
            return i, _OUT_OF_ORDER
        if event.recv_ns >= state[_DUE_NS] or event.recv_ns >= state[_LAST_NS] + silence_ns:
            made = _close_bars(event.recv_ns, step_ns, silence_ns, state, row, times_out, rows_out, made)
            if made == times_out.shape[0]:
                return i, made
            _resume(event.recv_ns, step_ns, silence_ns, state, row)
        state[_LAST_NS] = event.recv_ns
        state[_SEEN_NS] = event.recv_ns
        _take(event, state, row, memory)
        if kind != TIME and state[_DUE_NS] != event.recv_ns + 1 and event.kind in (QUOTE, TRADE):
            bought = row[_BUY_QTY], row[_BUY_USD], row[_BUY_COUNT]
            sold = row[_SELL_QTY], row[_SELL_USD], row[_SELL_COUNT]
            if is_full(kind, size, bought, sold, (row[_OPEN], row[_HIGH], row[_LOW], row[_CLOSE]), memory):
                state[_DUE_NS] = event.recv_ns + 1
    made = _close_bars(until_ns, step_ns, silence_ns, state, row, times_out, rows_out, made)
    state[_SEEN_NS] = max(state[_SEEN_NS], until_ns)
    return events.size, made


@njit(cache=True, nogil=True)
def _close_bars(
    until_ns: int,
    step_ns: int,
    silence_ns: int,
    state: Ints,
    row: Floats,
    times_out: Ints,
    rows_out: Floats,
    made: int,
) -> int:
    """Write the bars that are due up to `until_ns` behind the `made` there are, while there is room."""
    dead_ns = state[_LAST_NS] + silence_ns
    while state[_STARTED] == 1 and made < times_out.shape[0]:
        close_ns = state[_DUE_NS]
        if step_ns == 0:
            close_ns = min(close_ns, dead_ns)  # what a silence leaves of a volume bar is written too
        if close_ns > min(until_ns, dead_ns) or (step_ns == 0 and row[_IS_EMPTY] == 1.0):
            break
        if state[_HAS_BOOK] == 1:
            _write_bar(close_ns, state, row, times_out, rows_out, made)
            made += 1
        if step_ns > 0 or state[_HAS_BOOK] == 1:
            state[_BAR_INDEX] += 1
        _open_bar(close_ns, step_ns, state, row)
    return made


@njit(cache=True, nogil=True)
def _write_bar(close_ns: int, state: Ints, row: Floats, times_out: Ints, rows_out: Floats, at: int) -> None:
    times_out[at, 0] = state[_OPEN_NS]
    times_out[at, 1] = close_ns
    times_out[at, 2] = state[_BAR_INDEX]
    row[_FUNDING_S] = (
        np.nan if state[_FUNDING_MIN] == 0 else (state[_FUNDING_MIN] * NS_PER_MINUTE - close_ns) / NS_PER_S
    )
    for column in range(row.size):  # a slice would compile the code that reports unequal shapes: 2 s more
        rows_out[at, column] = row[column]
    row[_HAS_GAP] = 0.0


@njit(cache=True, nogil=True)
def _open_bar(open_ns: int, step_ns: int, state: Ints, row: Floats) -> None:
    """Begin the next bar: book and marks stand, flow is nothing yet."""
    state[_OPEN_NS] = open_ns
    state[_DUE_NS] = open_ns + step_ns if step_ns > 0 else (open_ns // NS_PER_DAY + 1) * NS_PER_DAY
    for column in range(_OPEN, _CLOSE):
        row[column] = row[_CLOSE]
    for column in range(_BUY_QTY, _LIQ_COUNT + 1):
        row[column] = 0.0
    for column in range(_EFFECTIVE, _LIQ_MAX + 1):
        row[column] = 0.0
    row[_IS_EMPTY] = 1.0


@njit(cache=True, nogil=True)
def _resume(recv_ns: int, step_ns: int, silence_ns: int, state: Ints, row: Floats) -> None:
    """What an event does first where all bars due before it are closed: begin at all, or afresh after a silence."""
    if state[_STARTED] == 0 or recv_ns >= state[_LAST_NS] + silence_ns:
        for column in range(row.size):
            row[column] = np.nan if _MARK <= column <= _INTEREST else 0.0
        row[_HAS_GAP] = float(state[_STARTED])
        first = recv_ns // step_ns if step_ns > 0 else recv_ns // NS_PER_DAY * _BARS_PER_DAY
        state[_BAR_INDEX] = max(state[_BAR_INDEX], first)
        state[_STARTED] = 1
        state[_HAS_BOOK] = 0
        state[_CHAINED] = 0
        state[_FUNDING_MIN] = 0
        _open_bar(first * step_ns if step_ns > 0 else recv_ns, step_ns, state, row)
    elif step_ns == 0:
        midnight_ns = recv_ns - recv_ns % NS_PER_DAY
        _open_bar(max(state[_OPEN_NS], midnight_ns), step_ns, state, row)


@njit(cache=True, nogil=True, inline="always")
def _take(event: Any, state: Ints, row: Floats, memory: Floats) -> None:
    """Add one event to the open bar."""
    kind = event.kind
    if kind == QUOTE:
        _take_quote(event.a, event.b, event.c, event.d, state, row)
    elif kind == TRADE:
        taker, usd = 0 if event.side > 0 else 1, event.a * event.b
        row[_BUY_QTY + taker] += event.b
        row[_BUY_USD + taker] += usd
        row[_BUY_COUNT + taker] += 1.0
        if state[_HAS_BOOK] == 1:
            row[_EFFECTIVE] += 2.0 * (event.a - row[_CLOSE]) * event.b * (1.0 if taker == 0 else -1.0)
        row[_SQUARE] += usd * usd
        row[_MAX_TRADE] = max(row[_MAX_TRADE], usd)
        if _is_large(usd, state, memory):
            row[_LARGE_BUY + taker] += usd
            row[_LARGE_COUNT] += 1.0
        row[_IS_EMPTY] = 0.0
    elif kind == LIQUIDATION:
        usd = event.a * event.b
        row[_LIQ_LONG + (0 if event.side > 0 else 1)] += usd
        row[_LIQ_COUNT] += 1.0
        row[_LIQ_SQUARE] += usd * usd
        row[_LIQ_MAX] = max(row[_LIQ_MAX], usd)
        row[_IS_EMPTY] = 0.0
    elif kind == MARK:
        row[_MARK] = row[_MARK] if np.isnan(event.a) else event.a
        row[_INDEX] = row[_INDEX] if np.isnan(event.b) else event.b
        row[_FUNDING] = row[_FUNDING] if np.isnan(event.c) else event.c
        row[_INTEREST] = row[_INTEREST] if np.isnan(event.d) else event.d
        state[_FUNDING_MIN] = event.side if event.side > 0 else state[_FUNDING_MIN]
    elif kind == GAP:
        row[_HAS_GAP] = 1.0
        state[_CHAINED] = 0


@njit(cache=True, nogil=True)
def _is_large(usd: float, state: Ints, memory: Floats) -> bool:
    """Whether a trade is large beside those before it; then it joins their mean."""
    mean, before = memory[MEMORY_SIZE], state[_TRADES_SEEN]
    memory[MEMORY_SIZE] = mean + (usd - mean) * max(1.0 / (before + 1), _NEWEST)
    state[_TRADES_SEEN] = min(before + 1, _MOST_COUNTED)
    return bool(before >= _LEAST_TRADES and usd >= _LARGE * mean)


@njit(cache=True, nogil=True, inline="always")
def _take_quote(bid: float, bid_qty: float, ask: float, ask_qty: float, state: Ints, row: Floats) -> None:
    if not (0.0 < bid < ask < np.inf and 0.0 <= bid_qty < np.inf and 0.0 <= ask_qty < np.inf):
        return
    mid = 0.5 * (bid + ask)
    if state[_HAS_BOOK] == 0:
        row[_OPEN] = row[_HIGH] = row[_LOW] = mid
        state[_HAS_BOOK] = 1
    if state[_CHAINED] == 1:
        bid_flow = bid_qty * (bid >= row[_BID]) - row[_BID_QTY] * (bid <= row[_BID])
        ask_flow = ask_qty * (ask <= row[_ASK]) - row[_ASK_QTY] * (ask >= row[_ASK])
        row[_OFI] += bid_flow - ask_flow
    state[_CHAINED] = 1
    row[_BID], row[_BID_QTY], row[_ASK], row[_ASK_QTY] = bid, bid_qty, ask, ask_qty
    row[_HIGH] = max(row[_HIGH], mid)
    row[_LOW] = min(row[_LOW], mid)
    row[_CLOSE] = mid
    row[_QUOTES] += 1.0
    row[_IS_EMPTY] = 0.0


@njit(cache=True, nogil=True)
def _merge(
    gaps: Ints,
    quotes: tuple[NDArray[Any], ...],
    trades: tuple[NDArray[Any], ...],
    takers: NDArray[np.int8],
    liquidations: tuple[NDArray[Any], ...],
    liquidated: NDArray[np.int8],
    marks: tuple[NDArray[Any], ...],
    fundings: NDArray[np.int32],
    out: Events,
) -> None:
    """Fill `out` (n,) by a five-way merge. At equal recv_ns the lower kind goes first."""
    at = np.zeros(5, np.int64)
    heads = np.empty(5, np.int64)
    heads[GAP] = _head(gaps, 0)
    heads[QUOTE] = _head(quotes[0], 0)
    heads[TRADE] = _head(trades[0], 0)
    heads[LIQUIDATION] = _head(liquidations[0], 0)
    heads[MARK] = _head(marks[0], 0)
    for i in range(out.size):
        kind = 0
        for other in range(1, 5):
            if heads[other] < heads[kind]:
                kind = other
        row, event = at[kind], out[i]
        event.recv_ns = heads[kind]
        event.kind = kind
        at[kind] = row + 1
        if kind == QUOTE:
            event.a, event.b, event.c, event.d = quotes[1][row], quotes[2][row], quotes[3][row], quotes[4][row]
            heads[QUOTE] = _head(quotes[0], row + 1)
        elif kind == TRADE:
            event.side, event.a, event.b = takers[row], trades[1][row], trades[2][row]
            heads[TRADE] = _head(trades[0], row + 1)
        elif kind == LIQUIDATION:
            event.side, event.a, event.b = liquidated[row], liquidations[1][row], liquidations[2][row]
            heads[LIQUIDATION] = _head(liquidations[0], row + 1)
        elif kind == MARK:
            event.side = fundings[row]
            event.a, event.b, event.c, event.d = marks[1][row], marks[2][row], marks[3][row], marks[4][row]
            heads[MARK] = _head(marks[0], row + 1)
        else:
            heads[GAP] = _head(gaps, row + 1)


@njit(cache=True, nogil=True, inline="always")
def _head(times: Ints, row: int) -> int:
    return times[row] if row < times.size else NEVER_NS
