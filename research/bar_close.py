"""The part of the pass over events that ends and begins bars. The rules: bars.py."""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

import research.bar_state as at
from core.kernels import njit
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S
from research.bar_columns import BAR_COLUMNS
from research.order_book import write_level

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

_BARS_PER_DAY: Final = 1_000_000  # numbers volume bars: more than any day holds, so that fresh starts never collide
_WIDTH: Final = len(BAR_COLUMNS)


@njit(cache=True, nogil=True, inline="always")
def close_bars_due(
    until_ns: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats, depth: Ints,
    slots: Ints, times_out: Ints, rows_out: Floats,
) -> bool:  # fmt: skip
    """Write the bars of every clock that are due up to `until_ns`; False where there is no room for more."""
    has_room = True
    for clock in range(spans.shape[1]):
        if until_ns < spans[at.DUE_NS, clock] and until_ns < numbers[at.LAST_NS] + spans[at.SILENCE_NS, clock]:
            continue
        did = _close_bars(until_ns, clock, numbers, values, spans, rows, tops, depth, slots, times_out, rows_out)
        has_room = has_room and did
    return has_room


@njit(cache=True, nogil=True, inline="always")
def _close_bars(
    until_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats, depth: Ints,
    slots: Ints, times_out: Ints, rows_out: Floats,
) -> bool:  # fmt: skip
    step_ns = spans[at.STEP_NS, clock]
    dead_ns = numbers[at.LAST_NS] + spans[at.SILENCE_NS, clock]
    while spans[at.STARTED, clock] == 1:
        close_ns = spans[at.DUE_NS, clock]
        if step_ns == 0:
            close_ns = min(close_ns, dead_ns)  # what a silence leaves of a volume bar is written too
        if close_ns > min(until_ns, dead_ns) or (step_ns == 0 and _is_empty(clock, numbers, spans)):
            break
        if spans[at.HAS_BOOK, clock] == 1:
            if slots[0, clock] == slots[1, clock]:
                return False
            _write_bar(close_ns, clock, slots[0, clock], numbers, values, spans, rows, tops, depth, times_out, rows_out)
            slots[0, clock] += 1
            rows[at.HAS_GAP, clock] = 0.0
            spans[at.BAR_INDEX, clock] += 1
        elif step_ns > 0:
            spans[at.BAR_INDEX, clock] += 1
        _open_bar(close_ns, clock, numbers, values, spans, rows)
    return True


@njit(cache=True, nogil=True, inline="always")
def _is_empty(clock: int, numbers: Ints, spans: Ints) -> bool:
    """Whether the open bar has no valid quote, no trade and no liquidation."""
    happened = 0
    for count in range(4):
        happened += numbers[at.QUOTES + count] - spans[at.OLD_QUOTES + count, clock]
    return happened == 0


@njit(cache=True, nogil=True, inline="always")
def _write_bar(
    close_ns: int, clock: int, to: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats,
    depth: Ints, times_out: Ints, rows_out: Floats,
) -> None:  # fmt: skip
    """Write the open bar's columns in the order of BAR_COLUMNS, then those of the levels."""
    times_out[to, 0], times_out[to, 1] = spans[at.OPEN_NS, clock], close_ns
    times_out[to, 2] = spans[at.BAR_INDEX, clock]
    for column in range(4):
        rows_out[to, column] = values[at.BID + column]
        rows_out[to, 8 + column] = rows[at.BUY_QTY + column, clock]
        rows_out[to, 19 + column] = rows[at.MARK + column, clock]
    for column in range(3):
        rows_out[to, 4 + column] = rows[at.OPEN + column, clock]
    rows_out[to, 7] = values[at.MID]
    rows_out[to, 12] = counted(at.BUYS, clock, numbers, spans)
    rows_out[to, 13] = counted(at.SELLS, clock, numbers, spans)
    rows_out[to, 14] = rows[at.OFI, clock]
    rows_out[to, 15] = counted(at.QUOTES, clock, numbers, spans)
    rows_out[to, 16], rows_out[to, 17] = rows[at.LIQ_LONG, clock], rows[at.LIQ_SHORT, clock]
    rows_out[to, 18] = counted(at.FORCED, clock, numbers, spans)
    for column in range(6):
        rows_out[to, 23 + column] = rows[at.EFFECTIVE + column, clock]
    rows_out[to, 29], rows_out[to, 30] = rows[at.LIQ_SQUARE, clock], rows[at.LIQ_MAX, clock]
    funding_ns = int(rows[at.FUNDING_MIN, clock]) * NS_PER_MINUTE
    rows_out[to, 31] = (funding_ns - close_ns) / NS_PER_S if funding_ns > 0 else np.nan
    rows_out[to, 32] = 1.0 if _is_empty(clock, numbers, spans) else 0.0
    rows_out[to, 33] = rows[at.HAS_GAP, clock]
    for level in range(tops.shape[1]):
        write_level(level, tops, depth, rows_out, to, _WIDTH + 5 * level)
        rows_out[to, _WIDTH + 5 * level + 4] = rows[at.N_ROWS + level, clock]


@njit(cache=True, nogil=True, inline="always")
def counted(what: int, clock: int, numbers: Ints, spans: Ints) -> float:
    """How many of a kind came in the open bar."""
    return float(numbers[what] - spans[at.OLD_QUOTES + what, clock])


@njit(cache=True, nogil=True)
def _open_bar(open_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """Begin the next bar: book and marks stand, flow is nothing yet."""
    step_ns = spans[at.STEP_NS, clock]
    spans[at.OPEN_NS, clock] = open_ns
    spans[at.DUE_NS, clock] = open_ns + step_ns if step_ns > 0 else (open_ns // NS_PER_DAY + 1) * NS_PER_DAY
    mid = values[at.MID] if spans[at.HAS_BOOK, clock] == 1 else 0.0
    rows[at.OPEN, clock] = rows[at.HIGH, clock] = rows[at.LOW, clock] = mid
    for column in range(at.BUY_QTY, at.MARK):
        rows[column, clock] = 0.0
    for column in range(at.N_ROWS, rows.shape[0]):
        rows[column, clock] = 0.0
    for count in range(4):
        spans[at.OLD_QUOTES + count, clock] = numbers[at.QUOTES + count]


@njit(cache=True, nogil=True)
def reopen_bars(recv_ns: int, is_of_depth: bool, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """What an event does first where all bars due before it are closed.

    A clock begins at all, or afresh after a silence: not with the depth alone, which no bar depends on. A bar that is
    not of time and in which nothing happened yet opens at midnight instead.
    """
    for clock in range(spans.shape[1]):
        is_dead = spans[at.STARTED, clock] == 0 or recv_ns >= numbers[at.LAST_NS] + spans[at.SILENCE_NS, clock]
        if is_dead and not is_of_depth:
            _start(recv_ns, clock, numbers, values, spans, rows)
        elif not is_dead and recv_ns >= spans[at.DUE_NS, clock]:
            _open_bar(recv_ns - recv_ns % NS_PER_DAY, clock, numbers, values, spans, rows)


@njit(cache=True, nogil=True)
def _start(recv_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats) -> None:
    """A clock knows nothing: no book, no mark, no quote that the next one follows."""
    step_ns = spans[at.STEP_NS, clock]
    for column in range(at.MARK, at.FUNDING_MIN):
        rows[column, clock] = np.nan
    rows[at.FUNDING_MIN, clock] = 0.0
    rows[at.HAS_GAP, clock] = float(spans[at.STARTED, clock])
    first = recv_ns // step_ns if step_ns > 0 else recv_ns // NS_PER_DAY * _BARS_PER_DAY
    spans[at.BAR_INDEX, clock] = max(spans[at.BAR_INDEX, clock], first)
    spans[at.STARTED, clock] = 1
    spans[at.HAS_BOOK, clock] = spans[at.CHAINED, clock] = 0
    numbers[at.SETTLED] = 0
    _open_bar(first * step_ns if step_ns > 0 else recv_ns, clock, numbers, values, spans, rows)
