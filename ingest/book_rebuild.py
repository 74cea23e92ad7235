"""Books again from the rows of `book_deltas`, a slice of a day at a time, compiled.

Rows stand in order of receipt, which is not the order in which they make a book: a REST snapshot arrives after changes
that belong behind it, and before changes that it already holds (exchange_protocols.md A.4). `Rebuilder` puts the
messages into the order of their application; `gaps` tells it from when to when the book is not known.
"""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.kernels import njit
from core.units import NS_PER_S

Ints: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

COLUMNS: Final = ("exch_ns", "recv_ns", "update_id", "side", "price", "qty", "is_snapshot")
"""Of `book_deltas`, what a rebuild reads."""
_HELD_NS: Final = 30 * NS_PER_S  # a REST snapshot is no older than its request, which capture gives 10 s
_KNOWN, _UNTIL_NS, _GAP, _SNAPSHOT_ID, _STATE_SIZE = 0, 1, 2, 3, 4
_NEVER: Final = np.iinfo(np.int64).min


class Messages(NamedTuple):
    """Rows of `book_deltas` by message: message m is rows[starts[m] : starts[m + 1]]; all else has one value each."""

    starts: Ints
    exch_ns: Ints
    recv_ns: Ints
    update_id: Ints
    is_snapshot: Flags
    is_bid: Flags
    price: Floats
    qty: Floats


class Applied(NamedTuple):
    """What a slice does to the book. Step k applies message `message[k]` at the receipt of message `at[k]`.

    `known[m]`: after message m the book is known. Messages before `first` are older ones, kept for snapshots to come.
    """

    messages: Messages
    first: int
    message: Ints
    at: Ints
    known: Flags


@dataclass
class Ladders:
    """Both sides of a book as sorted arrays, the best last: row 0 bids by price, row 1 asks by negated price."""

    keys: Floats = field(default_factory=lambda: np.zeros((2, 1024)))
    qtys: Floats = field(default_factory=lambda: np.zeros((2, 1024)))
    counts: Ints = field(default_factory=lambda: np.zeros(2, np.int64))

    def make_room(self, rows: int) -> None:
        """Room for `rows` further levels per side."""
        needed = int(self.counts.max()) + rows
        if needed > self.keys.shape[1]:
            more = ((0, 0), (0, needed - self.keys.shape[1]))
            self.keys, self.qtys = np.pad(self.keys, more), np.pad(self.qtys, more)

    def side(self, is_bid: bool) -> tuple[Floats, Floats]:
        """(prices, quantities) of a side, from the best."""
        row = 0 if is_bid else 1
        count = int(self.counts[row])
        prices = self.keys[row, :count][::-1] if is_bid else -self.keys[row, :count][::-1]
        return prices, self.qtys[row, :count][::-1]


class Rebuilder:
    """Follows one symbol's book through slices of rows, in order of receipt.

    `gaps` are (from_ns, to_ns) in which changes were missed: the book is unknown from the first message after `from_ns`
    to the first snapshot at or after `to_ns`. `holds_back`: snapshots come beside the stream, by REST (Binance).
    """

    def __init__(self, gaps: list[tuple[int, int]], holds_back: bool) -> None:
        ordered = np.array(sorted(gaps), np.int64).reshape(-1, 2)
        self.ladders = Ladders()
        self._gap_from, self._gap_to = ordered[:, 0].copy(), ordered[:, 1].copy()
        self._holds_back = holds_back
        self._state = np.zeros(_STATE_SIZE, np.int64)
        self._state[_UNTIL_NS] = _NEVER
        self._tail: pl.DataFrame | None = None

    @property
    def is_known(self) -> bool:
        """Whether the book stands on a snapshot and nothing was missed since."""
        return bool(self._state[_KNOWN])

    def follow(self, rows: pl.DataFrame) -> Applied:
        """The order of application of the next rows (columns COLUMNS), whole messages."""
        older = 0 if self._tail is None else self._tail.height
        frame = rows if self._tail is None else pl.concat([self._tail, rows])
        messages = messages_of(frame)
        first = int(np.searchsorted(messages.starts, older))
        applied = self._sequence(messages, first)
        if self._holds_back and frame.height:
            kept = int(np.searchsorted(messages.recv_ns, messages.recv_ns[-1] - _HELD_NS))
            self._tail = frame.slice(int(messages.starts[kept]))
        return applied

    def best_after(self, applied: Applied) -> Floats:
        """Apply a slice; the best (bid price, bid qty, ask price, ask qty) after each message.

        NaN where the book is not known, and after changes that the book was already beyond.
        """
        messages = applied.messages
        best = np.full((messages.recv_ns.size, 4), np.nan)
        self.ladders.make_room(messages.price.size)
        _apply(
            applied.message,
            applied.at,
            messages.starts,
            messages.is_snapshot,
            messages.is_bid,
            messages.price,
            messages.qty,
            self.ladders.keys,
            self.ladders.qtys,
            self.ladders.counts,
            best,
        )
        best[~applied.known] = np.nan
        return best

    def _sequence(self, messages: Messages, first: int) -> Applied:
        room = messages.recv_ns.size + 1
        before = self._state.copy()
        while True:
            known = np.zeros(messages.recv_ns.size, np.bool_)
            message, at = np.zeros(room, np.int64), np.zeros(room, np.int64)
            steps = _order(
                first,
                messages.recv_ns,
                messages.update_id,
                messages.is_snapshot,
                self._gap_from,
                self._gap_to,
                self._holds_back,
                self._state,
                message,
                at,
                known,
            )
            if steps <= room:
                return Applied(messages, first, message[:steps], at[:steps], known)
            room, self._state = steps, before.copy()


def messages_of(frame: pl.DataFrame) -> Messages:
    """Neighbouring rows of one receive time, update id and kind are one message."""
    recv_ns, update_id = frame["recv_ns"].to_numpy(), frame["update_id"].to_numpy()
    is_snapshot = frame["is_snapshot"].to_numpy()
    begins = np.ones(frame.height, np.bool_)
    for column in (recv_ns, update_id, is_snapshot):
        begins[1:] &= column[1:] == column[:-1]
    begins[1:] = ~begins[1:]
    starts = np.flatnonzero(begins)
    return Messages(
        starts=np.append(starts, frame.height),
        exch_ns=frame["exch_ns"].to_numpy()[starts],
        recv_ns=recv_ns[starts],
        update_id=update_id[starts],
        is_snapshot=is_snapshot[starts],
        is_bid=(frame["side"] == "bid").to_numpy(),
        price=frame["price"].to_numpy(),
        qty=frame["qty"].to_numpy(),
    )


@njit(cache=True, nogil=True)
def _order(
    first: int,
    recv_ns: Ints,
    update_id: Ints,
    is_snapshot: Flags,
    gap_from: Ints,
    gap_to: Ints,
    holds_back: bool,
    state: Ints,
    message: Ints,
    at: Ints,
    known: Flags,
) -> int:
    """Fill `message` and `at` with the steps that the messages from `first` on cause, and `known` (all (messages,)).

    Returns the number of steps, of which only those are written for which there is room. `state` is (4,).
    """
    steps = 0
    for i in range(first, recv_ns.size):
        while state[_GAP] < gap_from.size and gap_from[state[_GAP]] < recv_ns[i]:
            state[_UNTIL_NS] = max(state[_UNTIL_NS], gap_to[state[_GAP]])
            state[_KNOWN] = 0
            state[_GAP] += 1
        if is_snapshot[i] and recv_ns[i] >= state[_UNTIL_NS]:
            state[_KNOWN], state[_SNAPSHOT_ID] = 1, update_id[i]
            held = i
            while holds_back and held > 0 and not is_snapshot[held - 1] and update_id[held - 1] > update_id[i]:
                held -= 1
            steps = _note(i, i, message, at, steps)
            for k in range(held, i):
                steps = _note(k, i, message, at, steps)
        elif state[_KNOWN] == 1 and not is_snapshot[i] and not (holds_back and update_id[i] <= state[_SNAPSHOT_ID]):
            steps = _note(i, i, message, at, steps)
        known[i] = state[_KNOWN] == 1
    return steps


@njit(cache=True, nogil=True, inline="always")
def _note(which: int, when: int, message: Ints, at: Ints, steps: int) -> int:
    if steps < message.size:
        message[steps], at[steps] = which, when
    return steps + 1


@njit(cache=True, nogil=True)
def _apply(
    message: Ints,
    at: Ints,
    starts: Ints,
    is_snapshot: Flags,
    is_bid: Flags,
    price: Floats,
    qty: Floats,
    keys: Floats,
    qtys: Floats,
    counts: Ints,
    best: Floats,
) -> None:
    """Apply steps to a book of (2, room) ladders; `best` (messages, 4) gets the best prices at each step's time."""
    for step in range(message.size):
        m = message[step]
        if is_snapshot[m]:
            counts[:] = 0
        for row in range(starts[m], starts[m + 1]):
            side = 0 if is_bid[row] else 1
            key = price[row] if is_bid[row] else -price[row]
            counts[side] = _put(keys[side], qtys[side], counts[side], key, qty[row])
        if counts[0] > 0 and counts[1] > 0:
            best[at[step], 0], best[at[step], 1] = keys[0, counts[0] - 1], qtys[0, counts[0] - 1]
            best[at[step], 2], best[at[step], 3] = -keys[1, counts[1] - 1], qtys[1, counts[1] - 1]
        else:
            best[at[step], :] = np.nan


@njit(cache=True, nogil=True)
def _put(keys: Floats, qtys: Floats, count: int, key: float, qty: float) -> int:
    """Set a level's absolute quantity, 0 removes it. Returns the number of levels. Keys ascend."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    is_there = low < count and keys[low] == key
    if qty > 0.0 and not is_there:
        for place in range(count, low, -1):
            keys[place], qtys[place] = keys[place - 1], qtys[place - 1]
        count += 1
    elif qty <= 0.0 and is_there:
        for place in range(low, count - 1):
            keys[place], qtys[place] = keys[place + 1], qtys[place + 1]
        return count - 1
    if qty > 0.0:
        keys[low], qtys[low] = key, qty
    return count


PRICES: Final = ("bid_price", "bid_qty", "ask_price", "ask_qty")


def best_frame(applied: Applied, best: Floats) -> pl.DataFrame:
    """The best prices after each new message of a slice, null where they are not known."""
    new, messages = slice(applied.first, None), applied.messages
    columns: dict[str, Any] = {name: getattr(messages, name)[new] for name in ("recv_ns", "exch_ns", "update_id")}
    prices = {name: best[new, place].copy() for place, name in enumerate(PRICES)}
    return pl.DataFrame(columns | prices).with_columns(pl.col(PRICES).fill_nan(None))
