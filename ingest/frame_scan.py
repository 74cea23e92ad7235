"""A run of Binance frames to columns, compiled: bookTicker, aggTrade and depth, where all is as it always is.

Anything else (another key order is fine; an escape, a repeated id, a hole, a number of more digits than a float holds
exactly) is left to the ordinary decoder, and so is the rest of that stream in the run: `scan` decides nothing, it only
does quickly what has one answer.
"""

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from ingest.frame_text import (
    COMMA,
    END,
    ENVELOPE,
    HEAD,
    MOST,
    QUOTE_SIGN,
    T_SIGN,
    TEXTS,
    Bytes,
    Floats,
    Ints,
    behind,
    decimal,
    hash_name,
    integer,
    key_code,
    literal,
    side_levels,
    skip,
)

QUOTE, TRADE, DEPTH = 0, 1, 2
KINDS: Final = 3
LAST_ID, EXCH_NS, RECV_NS, BOOK_ID = 0, 1, 2, 3
STATE_SIZE: Final = 4
_ENVELOPE_SIZE, _HEAD_SIZE = 11, 10
_LAST_MS: Final = 9_000_000_000_000  # the bounds of ingest.wire.epoch_ns
_FIRST_US: Final = 100_000_000_000_000
_LAST_US: Final = 9_000_000_000_000_000
_LEVEL_SIGNS: Final = 9  # of the shortest level, ["1","0"]

# Fields of a payload: whole numbers (places in `numbers`), decimals (10 and up, places in `prices`), and the others.
_ID, _FIRST, _PREV, _TIME, _SENT, _UNIVERSE, _MAKER = range(7)
_PRICE, _QTY, _ASK, _ASK_QTY = range(10, 14)
_BIDS, _ASKS, _SYMBOL, _OTHER = 20, 21, 22, 23


def _mask(*fields: int) -> int:
    return sum(1 << field for field in fields)


_QUOTE_NEEDS: Final = _mask(_SYMBOL, _ID, _PRICE, _QTY, _ASK, _ASK_QTY)
_TRADE_NEEDS: Final = _mask(_SYMBOL, _ID, _PRICE, _QTY, _TIME, _MAKER)
_DEPTH_NEEDS: Final = _mask(_SYMBOL, _ID, _FIRST, _SENT, _BIDS, _ASKS)
_NEEDED: Final = np.array(
    [[_QUOTE_NEEDS, _TRADE_NEEDS, _DEPTH_NEEDS], [_QUOTE_NEEDS, _TRADE_NEEDS, _DEPTH_NEEDS | _mask(_PREV)]]
)
"""Spot's and the futures', by kind."""
_FIELDS: Final = np.full((KINDS, 1 << 14), _OTHER)
for _kind, _names in (
    (QUOTE, {"s": _SYMBOL, "u": _ID, "b": _PRICE, "B": _QTY, "a": _ASK, "A": _ASK_QTY, "T": _TIME, "st": _UNIVERSE}),
    (TRADE, {"s": _SYMBOL, "a": _ID, "p": _PRICE, "q": _QTY, "T": _TIME, "m": _MAKER, "st": _UNIVERSE}),
    (DEPTH, {"s": _SYMBOL, "u": _ID, "U": _FIRST, "pu": _PREV, "E": _SENT, "T": _TIME, "st": _UNIVERSE}),
    (DEPTH, {"b": _BIDS, "a": _ASKS}),
):
    for _name, _field in _names.items():
        _FIELDS[_kind, ord(_name[0]) + 128 * (ord(_name[1]) if len(_name) > 1 else 0)] = _field
"""The field of each key of one or two letters, by kind."""


class Streams(NamedTuple):
    """The streams that may be scanned, found by `slots[hash % size]` (index or -1, linear probing).

    `symbols` (n, 42) holds the symbol as a payload has it, in quotation marks; `state` (n, STATE_SIZE) is where each
    stream stands, `usable` if it may be scanned, `moved` whether it was; `rules` (2): whether futures, the universe.
    """

    slots: Ints
    hashes: NDArray[np.uint64]
    kinds: Ints
    symbols: Bytes
    symbol_sizes: Ints
    state: Ints
    usable: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    rules: Ints


class Found(NamedTuple):
    """Columns of quotes, trades and levels: stream, exch_ns, recv_ns, id (4, n), and numbers (4, n), (2, n), (2, n).

    `sells` and `asks` are 1 where the taker sold and where the level is an ask. `left` are the frames that were not
    scanned; `counts` (4) is how much there is of each of the four.
    """

    quotes: Ints
    quote_prices: Floats
    trades: Ints
    trade_prices: Floats
    sells: NDArray[np.uint32]
    levels: Ints
    level_prices: Floats
    asks: NDArray[np.uint32]
    left: Ints
    counts: Ints


def room_for(frames: int, signs: int) -> Found:
    """Arrays that a run of so many frames and bytes cannot overflow."""
    levels = signs // _LEVEL_SIGNS + 1
    return Found(
        quotes=np.empty((4, frames), np.int64),
        quote_prices=np.empty((4, frames)),
        trades=np.empty((4, frames), np.int64),
        trade_prices=np.empty((2, frames)),
        sells=np.empty(frames, np.uint32),
        levels=np.empty((4, levels), np.int64),
        level_prices=np.empty((2, levels)),
        asks=np.empty(levels, np.uint32),
        left=np.empty(frames, np.int64),
        counts=np.zeros(KINDS + 1, np.int64),
    )


@njit(cache=True, nogil=True)
def _stream_at(value: Any, slots: Ints, hashes: Any) -> int:
    slot = np.int64(value & np.uint64(slots.size - 1))
    while slots[slot] >= 0:
        if hashes[slots[slot]] == value:
            return int(slots[slot])
        slot = (slot + 1) & (slots.size - 1)
    return -1


@njit(cache=True, nogil=True)
def _epoch_ns(time: int) -> int:
    if time <= _LAST_MS:
        return time * 1_000_000
    return time * 1_000 if _FIRST_US <= time <= _LAST_US else -1


@njit(cache=True, nogil=True)
def scan(data: Bytes, starts: Ints, recv_ns: Ints, streams: Streams, found: Found) -> None:
    """Scan the frames data[starts[k] : starts[k + 1]], received at recv_ns[k], into `found`; moves `streams.state`.

    A stream of which a frame is left is left from there on.
    """
    slots, hashes, kinds, state = streams.slots, streams.hashes, streams.kinds, streams.state
    symbols, symbol_sizes = streams.symbols, streams.symbol_sizes
    is_futures, universe = streams.rules[0] == 1, streams.rules[1]
    moved, left, counts, level_prices = streams.moved, found.left, found.counts, found.level_prices
    blocked = ~streams.usable
    numbers, prices, sides = np.zeros(7, np.int64), np.zeros(4), np.zeros(2, np.int64)
    for k in range(recv_ns.size):
        first, end = starts[k], starts[k + 1]
        name = behind(data, first, end, TEXTS, ENVELOPE, _ENVELOPE_SIZE)
        value, place = hash_name(data, name if name >= 0 else end, end)
        stream = _stream_at(value, slots, hashes) if name >= 0 else -1
        if stream >= 0 and not blocked[stream]:
            kind = kinds[stream]
            numbers[:] = 0
            met = _payload(
                data, place, end, kind, symbols, stream, symbol_sizes[stream],
                numbers, prices, sides, level_prices, counts[DEPTH],
            )  # fmt: skip
            needed = _NEEDED[int(is_futures), kind]
            if met & needed == needed and numbers[_UNIVERSE] in (0, universe):
                exch_ns = _follows(kind, is_futures, numbers, prices, state, stream)
                if exch_ns >= 0:
                    state[stream, RECV_NS], moved[stream] = recv_ns[k], True
                    _note(kind, stream, exch_ns, recv_ns[k], numbers, prices, sides, found)
                    continue
            blocked[stream] = True
        left[counts[KINDS]] = k
        counts[KINDS] += 1


@njit(cache=True, nogil=True)
def _payload(
    data: Bytes, place: int, end: int, kind: int, symbols: Bytes, stream: int, symbol_size: int,
    numbers: Ints, prices: Floats, sides: Ints, level_prices: Floats, count: int,
) -> int:  # fmt: skip
    """The fields that were met (a bit each) from the end of the stream's name on; 0 if all is not as always.

    Levels are written from `count` on.
    """
    place, met = behind(data, place, end, TEXTS, HEAD, _HEAD_SIZE), 0
    while 0 <= place < end and data[place] == QUOTE_SIGN:
        key, place = key_code(data, place, end)
        field = _FIELDS[kind, key]
        if place < 0 or (field != _OTHER and met >> field & 1):
            return 0
        if field <= _UNIVERSE:
            numbers[field], place = integer(data, place, end)
        elif field == _MAKER:
            numbers[field], place = place < end and data[place] == T_SIGN, literal(data, place, end)
        elif field <= _ASK_QTY:
            prices[field - _PRICE], place = decimal(data, place, end)
        elif field == _SYMBOL:
            place = behind(data, place, end, symbols, stream, symbol_size)
        elif field == _BIDS or (field == _ASKS and met >> _BIDS & 1):  # in this order they are told
            before = count
            count, place = side_levels(data, place, end, level_prices, count)
            sides[field - _BIDS] = count - before
        else:
            place = skip(data, place, end) if field == _OTHER else -1
        met |= 1 << field
        if place < 0 or place >= end:
            return 0
        if data[place] == END:
            return met if place + 2 == end and data[place + 1] == END else 0
        if data[place] != COMMA:
            return 0
        place += 1
    return 0


@njit(cache=True, nogil=True)
def _follows(kind: int, is_futures: bool, numbers: Ints, prices: Floats, state: Ints, stream: int) -> int:
    """The time of a message that follows on in its stream, which moves on to it; -1 for any other."""
    time, number = numbers[_TIME], numbers[_ID]
    if kind == QUOTE:
        good = number > state[stream, LAST_ID] and 0.0 < prices[0] < MOST and 0.0 < prices[2] < MOST
        good = good and prices[1] < MOST and prices[3] < MOST and time <= _LAST_MS
    elif kind == TRADE:
        good = number == state[stream, LAST_ID] + 1 and 0.0 < prices[0] < MOST and prices[1] < MOST
    else:
        before = number if number <= state[stream, BOOK_ID] else numbers[_PREV] if is_futures else numbers[_FIRST] - 1
        good = before <= state[stream, BOOK_ID] and state[stream, LAST_ID] < number
        if time == 0 or not is_futures:
            time = numbers[_SENT]
    exch_ns = _epoch_ns(time)
    if not good or exch_ns < 0:
        return -1
    state[stream, LAST_ID], state[stream, EXCH_NS] = number, exch_ns
    state[stream, BOOK_ID] = max(state[stream, BOOK_ID], number)
    return int(exch_ns)


@njit(cache=True, nogil=True)
def _note(
    kind: int, stream: int, exch_ns: int, recv_ns: int, numbers: Ints, prices: Floats, sides: Ints, found: Found
) -> None:
    """Write the rows of a message."""
    first, rows = found.counts[kind], 1
    if kind == QUOTE:
        columns = found.quotes
        found.quote_prices[:, first] = prices
    elif kind == TRADE:
        columns = found.trades
        found.trade_prices[0, first], found.trade_prices[1, first] = prices[0], prices[1]
        found.sells[first] = numbers[_MAKER]
    else:
        columns, rows = found.levels, sides[0] + sides[1]
        for row in range(first, first + rows):
            found.asks[row] = row >= first + sides[0]
    for row in range(first, first + rows):
        columns[0, row], columns[1, row], columns[2, row] = stream, exch_ns, recv_ns
        columns[3, row] = numbers[_ID]
    found.counts[kind] += rows
