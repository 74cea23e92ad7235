"""The part of the pass over events that ends and begins bars. The rules: bar_pass.py."""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

import research.bars.state as at
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S
from research.bars.columns import BAR_COLUMNS
from research.bars.order_book import FLOW, write_level
from research.bars.part import part
from research.bars.running_totals import since

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]

_BARS_PER_DAY: Final = 1_000_000  # numbers volume bars: more than any day holds, so that fresh starts never collide
_WIDTH: Final = len(BAR_COLUMNS)


def _columns(sources: dict[str, int]) -> Ints:
    """(n, 2): the place of a column in a bar, and that of what it is made of."""
    return np.array([(BAR_COLUMNS.index(name), place) for name, place in sources.items()], np.int64)


_LAST: Final = _columns(
    {
        "bid_price": at.BID,
        "bid_qty": at.BID_QTY,
        "ask_price": at.ASK,
        "ask_qty": at.ASK_QTY,
        "close_price": at.MID,
    }
)
_SUMMED: Final = _columns(
    {
        "buy_qty": at.BUY_QTY,
        "sell_qty": at.SELL_QTY,
        "buy_usd": at.BUY_USD,
        "sell_usd": at.SELL_USD,
        "ofi_qty": at.OFI,
        "effective_usd": at.EFFECTIVE,
        "square_usd": at.SQUARE,
        "large_buy_usd": at.LARGE_BUY,
        "large_sell_usd": at.LARGE_SELL,
    }
)
_COUNTED: Final = _columns(
    {
        "buy_count": at.BUYS,
        "sell_count": at.SELLS,
        "quote_count": at.QUOTES,
        "liq_count": at.FORCED,
        "large_count": at.LARGE,
    }
)
_OF_BAR: Final = _columns(
    {
        "open_price": at.OPEN,
        "high_price": at.HIGH,
        "low_price": at.LOW,
        "max_trade_usd": at.MAX_TRADE,
        "liq_long_usd": at.LIQ_LONG,
        "liq_short_usd": at.LIQ_SHORT,
        "liq_square_usd": at.LIQ_SQUARE,
        "liq_max_usd": at.LIQ_MAX,
        "mark_price": at.MARK,
        "index_price": at.INDEX,
        "funding_rate": at.FUNDING,
        "open_interest": at.INTEREST,
        "has_gap": at.HAS_GAP,
    }
)
_FUNDING_S, _IS_EMPTY = BAR_COLUMNS.index("funding_s"), BAR_COLUMNS.index("is_empty")
_TRADE_OPEN: Final = BAR_COLUMNS.index("trade_open_price")  # high, low and close follow it


@part
def due_ns(numbers: Ints, spans: Ints) -> int:
    """When something is to be done before an event is taken: a bar is due, or a silence ends all bars of a clock."""
    return int(min(at.least(at.DUE_NS, spans), numbers[at.LAST_NS] + at.least(at.SILENCE_NS, spans)))


@part
def turn_bars(
    now_ns: int, opens: tuple[bool, bool], numbers: Ints, values: Floats, spans: Ints, rows: Floats,
    tops: Floats, depth: Ints, slots: Ints, times_out: Ints, rows_out: Floats,
) -> bool:  # fmt: skip
    """End the bars that are due at `now_ns` and, if it is an event's time, begin what that event begins.

    `opens`: whether it is an event, whether one of the depth. False where there is no room for more bars.
    """
    if not _close_bars_due(now_ns, numbers, values, spans, rows, tops, depth, slots, times_out, rows_out):
        return False
    is_event, is_of_depth = opens
    if is_event and now_ns >= due_ns(numbers, spans):
        _reopen_bars(now_ns, is_of_depth, numbers, values, spans, rows, tops)
    return True


@part
def _close_bars_due(
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


@part
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


@part
def _is_empty(clock: int, numbers: Ints, spans: Ints) -> bool:
    """Whether the open bar has no valid quote, no trade and no liquidation."""
    happened = 0
    for count in range(at.LARGE):
        happened += numbers[count] - spans[clock, at.OLD_COUNTS + count]
    return happened == 0


@part
def _write_bar(
    close_ns: int, clock: int, to: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats,
    depth: Ints, times_out: Ints, rows_out: Floats,
) -> None:  # fmt: skip
    """Write the open bar's times and columns, then those of the levels."""
    times_out[to, 0], times_out[to, 1], times_out[to, 2] = (
        spans[clock, at.OPEN_NS],
        close_ns,
        spans[clock, at.BAR_INDEX],
    )
    for k in range(_LAST.shape[0]):
        rows_out[to, _LAST[k, 0]] = values[_LAST[k, 1]]
    for k in range(_SUMMED.shape[0]):
        rows_out[to, _SUMMED[k, 0]] = summed(_SUMMED[k, 1], clock, values, rows)
    for k in range(_COUNTED.shape[0]):
        rows_out[to, _COUNTED[k, 0]] = counted(_COUNTED[k, 1], clock, numbers, spans)
    for k in range(_OF_BAR.shape[0]):
        rows_out[to, _OF_BAR[k, 0]] = rows[clock, _OF_BAR[k, 1]]
    _write_prices(clock, to, values, rows, rows_out)
    rows_out[to, _FUNDING_S] = _funding_s(rows[clock, at.FUNDING_MIN], close_ns)
    rows_out[to, _IS_EMPTY] = 1.0 if _is_empty(clock, numbers, spans) else 0.0
    _write_levels(clock, to, rows, tops, depth, rows_out)


@part
def _write_prices(clock: int, to: int, values: Floats, rows: Floats, rows_out: Floats) -> None:
    """Write those of the trades: as the bar has one, the last of all is its own."""
    first = rows[clock, at.TRADE_OPEN]
    rows_out[to, _TRADE_OPEN] = first
    rows_out[to, _TRADE_OPEN + 1] = np.nan if np.isnan(first) else rows[clock, at.TRADE_HIGH]
    rows_out[to, _TRADE_OPEN + 2] = np.nan if np.isnan(first) else rows[clock, at.TRADE_LOW]
    rows_out[to, _TRADE_OPEN + 3] = np.nan if np.isnan(first) else values[at.LAST_TRADE]


@part
def _funding_s(funding_min: float, close_ns: int) -> float:
    """From a bar's close to the next funding."""
    funding_ns = int(funding_min) * NS_PER_MINUTE
    return (funding_ns - close_ns) / NS_PER_S if funding_ns > 0 else np.nan


@part
def _write_levels(clock: int, to: int, rows: Floats, tops: Floats, depth: Ints, rows_out: Floats) -> None:
    for level in range(tops.shape[1]):
        column, old = _WIDTH + 5 * level, at.N_ROWS + 2 * level
        write_level(level, tops, depth, rows_out, to, column)
        rows_out[to, column + 4] = since(
            tops[FLOW, level], tops[FLOW + 1, level], rows[clock, old], rows[clock, old + 1]
        )


@part
def counted(what: int, clock: int, numbers: Ints, spans: Ints) -> float:
    """How many of a kind came in the open bar."""
    return float(numbers[what] - spans[clock, at.OLD_COUNTS + what])


@part
def summed(what: int, clock: int, values: Floats, rows: Floats) -> float:
    """How much of a total came in the open bar."""
    old = at.OLD_TOTALS - at.TOTALS + what
    return float(since(values[what], values[what + 1], rows[clock, old], rows[clock, old + 1]))


@part
def _open_bar(open_ns: int, clock: int, numbers: Ints, values: Floats, spans: Ints, rows: Floats, tops: Floats) -> None:
    """Begin the next bar: book and marks stand, flow is nothing yet."""
    step_ns = spans[clock, at.STEP_NS]
    spans[clock, at.OPEN_NS] = open_ns
    spans[clock, at.DUE_NS] = open_ns + step_ns if step_ns > 0 else (open_ns // NS_PER_DAY + 1) * NS_PER_DAY
    mid = values[at.MID] if spans[clock, at.HAS_BOOK] == 1 else 0.0
    rows[clock, at.OPEN] = rows[clock, at.HIGH] = rows[clock, at.LOW] = mid
    rows[clock, at.TRADE_OPEN], rows[clock, at.TRADE_HIGH], rows[clock, at.TRADE_LOW] = np.nan, -np.inf, np.inf
    for column in range(at.MAX_TRADE, at.MARK):
        rows[clock, column] = 0.0
    for count in range(at.N_COUNTS):
        spans[clock, at.OLD_COUNTS + count] = numbers[count]
    for total in range(at.N_TOTALS):
        rows[clock, at.OLD_TOTALS + total] = values[at.TOTALS + total]
    for level in range(tops.shape[1]):
        for half in range(2):
            rows[clock, at.N_ROWS + 2 * level + half] = tops[FLOW + half, level]


@part
def _reopen_bars(
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


@part
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
