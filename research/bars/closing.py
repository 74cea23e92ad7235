"""The part of the pass over events that ends and begins bars. The rules: bar_pass.py."""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

import research.bars.state as at
from core.kernels import njit
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S
from research.bars.columns import BAR_COLUMNS
from research.bars.order_book import FLOW, write_level
from research.bars.running_totals import since

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
    at.note_extremes(values, rows)
    for clock in range(spans.shape[0]):
        if until_ns < spans[clock, at.DUE_NS] and until_ns < numbers[at.LAST_NS] + spans[clock, at.SILENCE_NS]:
            continue
        did = _close_bars(until_ns, clock, numbers, values, spans, rows, tops, depth, slots, times_out, rows_out)
        has_room = has_room and did
    return has_room


@njit(cache=True, nogil=True, inline="always")
def _close_bars(
    until_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats, depth: Ints,
    slots: Ints, times_out: Ints, rows_out: Floats,
) -> bool:  # fmt: skip
    step_ns = spans[clock, at.STEP_NS]
    dead_ns = numbers[at.LAST_NS] + spans[clock, at.SILENCE_NS]
    while spans[clock, at.STARTED] == 1:
        close_ns = spans[clock, at.DUE_NS]
        if step_ns == 0:
            close_ns = min(close_ns, dead_ns)  # what a silence leaves of a volume bar is written too
        if close_ns > min(until_ns, dead_ns) or (step_ns == 0 and _is_empty(clock, numbers, spans)):
            break
        if spans[clock, at.HAS_BOOK] == 1:
            if slots[clock, at.NEXT] == slots[clock, at.END]:
                return False
            _write_bar(
                close_ns, clock, slots[clock, at.NEXT], numbers, values, spans, rows, tops, depth, times_out, rows_out
            )
            slots[clock, at.NEXT] += 1
            rows[clock, at.HAS_GAP] = 0.0
            spans[clock, at.BAR_INDEX] += 1
        elif step_ns > 0:
            spans[clock, at.BAR_INDEX] += 1
        _open_bar(close_ns, clock, numbers, values, spans, rows, tops)
    return True


@njit(cache=True, nogil=True, inline="always")
def _is_empty(clock: int, numbers: Ints, spans: Ints) -> bool:
    """Whether the open bar has no valid quote, no trade and no liquidation."""
    happened = 0
    for count in range(at.LARGE):
        happened += numbers[count] - spans[clock, at.OLD_COUNTS + count]
    return happened == 0


@njit(cache=True, nogil=True, inline="always")
def _write_bar(
    close_ns: int, clock: int, to: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats,
    depth: Ints, times_out: Ints, rows_out: Floats,
) -> None:  # fmt: skip
    """Write the open bar's columns in the order of BAR_COLUMNS, then those of the levels."""
    times_out[to, 0], times_out[to, 1] = spans[clock, at.OPEN_NS], close_ns
    times_out[to, 2] = spans[clock, at.BAR_INDEX]
    for column in range(4):
        rows_out[to, column] = values[at.BID + column]
        rows_out[to, 8 + column] = summed(at.BUY_QTY + 2 * column, clock, values, rows)
        rows_out[to, 19 + column] = rows[clock, at.MARK + column]
    for column in range(3):
        rows_out[to, 4 + column] = rows[clock, at.OPEN + column]
    rows_out[to, 7] = values[at.MID]
    rows_out[to, 12] = counted(at.BUYS, clock, numbers, spans)
    rows_out[to, 13] = counted(at.SELLS, clock, numbers, spans)
    rows_out[to, 14] = summed(at.OFI, clock, values, rows)
    rows_out[to, 15] = counted(at.QUOTES, clock, numbers, spans)
    rows_out[to, 16], rows_out[to, 17] = rows[clock, at.LIQ_LONG], rows[clock, at.LIQ_SHORT]
    rows_out[to, 18] = counted(at.FORCED, clock, numbers, spans)
    rows_out[to, 23] = summed(at.EFFECTIVE, clock, values, rows)
    rows_out[to, 24] = summed(at.SQUARE, clock, values, rows)
    rows_out[to, 25] = rows[clock, at.MAX_TRADE]
    rows_out[to, 26] = summed(at.LARGE_BUY, clock, values, rows)
    rows_out[to, 27] = summed(at.LARGE_SELL, clock, values, rows)
    rows_out[to, 28] = counted(at.LARGE, clock, numbers, spans)
    rows_out[to, 29], rows_out[to, 30] = rows[clock, at.LIQ_SQUARE], rows[clock, at.LIQ_MAX]
    funding_ns = int(rows[clock, at.FUNDING_MIN]) * NS_PER_MINUTE
    rows_out[to, 31] = (funding_ns - close_ns) / NS_PER_S if funding_ns > 0 else np.nan
    rows_out[to, 32] = 1.0 if _is_empty(clock, numbers, spans) else 0.0
    rows_out[to, 33] = rows[clock, at.HAS_GAP]
    for level in range(tops.shape[1]):
        write_level(level, tops, depth, rows_out, to, _WIDTH + 5 * level)
        old = at.N_ROWS + 2 * level
        flow = since(tops[FLOW, level], tops[FLOW + 1, level], rows[clock, old], rows[clock, old + 1])
        rows_out[to, _WIDTH + 5 * level + 4] = flow


@njit(cache=True, nogil=True, inline="always")
def counted(what: int, clock: int, numbers: Ints, spans: Ints) -> float:
    """How many of a kind came in the open bar."""
    return float(numbers[what] - spans[clock, at.OLD_COUNTS + what])


@njit(cache=True, nogil=True, inline="always")
def summed(what: int, clock: int, values: Floats, rows: Floats) -> float:
    """How much of a total came in the open bar."""
    old = at.OLD_TOTALS - at.TOTALS + what
    return float(since(values[what], values[what + 1], rows[clock, old], rows[clock, old + 1]))


@njit(cache=True, nogil=True, inline="always")
def _open_bar(open_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats) -> None:
    """Begin the next bar: book and marks stand, flow is nothing yet."""
    step_ns = spans[clock, at.STEP_NS]
    spans[clock, at.OPEN_NS] = open_ns
    spans[clock, at.DUE_NS] = open_ns + step_ns if step_ns > 0 else (open_ns // NS_PER_DAY + 1) * NS_PER_DAY
    mid = values[at.MID] if spans[clock, at.HAS_BOOK] == 1 else 0.0
    rows[clock, at.OPEN] = rows[clock, at.HIGH] = rows[clock, at.LOW] = mid
    for column in range(at.MAX_TRADE, at.MARK):
        rows[clock, column] = 0.0
    for count in range(at.N_COUNTS):
        spans[clock, at.OLD_COUNTS + count] = numbers[count]
    for total in range(at.N_TOTALS):
        rows[clock, at.OLD_TOTALS + total] = values[at.TOTALS + total]
    for level in range(tops.shape[1]):
        for part in range(2):
            rows[clock, at.N_ROWS + 2 * level + part] = tops[FLOW + part, level]


@njit(cache=True, nogil=True)
def reopen_bars(
    recv_ns: int, is_of_depth: bool, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats
) -> None:
    """What an event does first where all bars due before it are closed.

    A clock begins at all, or afresh after a silence: not with the depth alone, which no bar depends on. A bar that is
    not of time and in which nothing happened yet opens at midnight instead.
    """
    for clock in range(spans.shape[0]):
        is_dead = spans[clock, at.STARTED] == 0 or recv_ns >= numbers[at.LAST_NS] + spans[clock, at.SILENCE_NS]
        if is_dead and not is_of_depth:
            _start(recv_ns, clock, numbers, values, spans, rows, tops)
        elif not is_dead and recv_ns >= spans[clock, at.DUE_NS]:
            _open_bar(recv_ns - recv_ns % NS_PER_DAY, clock, numbers, values, spans, rows, tops)


@njit(cache=True, nogil=True)
def _start(recv_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats) -> None:
    """A clock knows nothing: no book, no mark, no quote that the next one follows."""
    step_ns = spans[clock, at.STEP_NS]
    for column in range(at.MARK, at.FUNDING_MIN):
        rows[clock, column] = np.nan
    rows[clock, at.FUNDING_MIN] = 0.0
    rows[clock, at.HAS_GAP] = float(spans[clock, at.STARTED])
    first = recv_ns // step_ns if step_ns > 0 else recv_ns // NS_PER_DAY * _BARS_PER_DAY
    spans[clock, at.BAR_INDEX] = max(spans[clock, at.BAR_INDEX], first)
    spans[clock, at.STARTED] = 1
    spans[clock, at.HAS_BOOK] = 0
    numbers[at.SETTLED] = 0
    _open_bar(first * step_ns if step_ns > 0 else recv_ns, clock, numbers, values, spans, rows, tops)
