"""The L2 order book of one depth stream: levels, and the venue's rule for which change may follow which.

Binance USD-M and COIN-M link each change to the one before by `pu`; spot by `U == u + 1`; Bybit by `u + 1`
(exchange_protocols.md A.4, B, C.3). A book that starts from a REST snapshot holds changes back until it has one.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeAlias

from ingest.events import Level

_MOST_HELD: Final = 1_000
"""Changes held back for a snapshot: 100 s of a 100 ms stream, and a snapshot is no older than its request."""


class Change(NamedTuple):
    """One depth message: it takes the book from `prev_id` (where the venue gives it) or `first_id` to `last_id`."""

    first_id: int
    last_id: int
    prev_id: int
    bids: list[Level]
    asks: list[Level]


Rule: TypeAlias = Callable[[int, Change], bool]
"""Whether a change that ends beyond a book's update id misses nothing in between.

Quantities are absolute, so a change may begin before the book: copies of one stream, cut elsewhere, follow each other.
"""


def futures_rule(book_id: int, change: Change) -> bool:
    """Binance USD-M and COIN-M: a change names the end of the one before it as `pu`.

    The venue words the first after a snapshot as `U <= lastUpdateId <= u`. Ids are shared by all symbols, so a change
    may begin after the book and miss nothing: what must not lie beyond the book is the end of the change before.
    """
    return change.prev_id <= book_id


def spot_rule(book_id: int, change: Change) -> bool:
    """Binance spot: `U == u + 1`; the first after a snapshot spans it."""
    return change.first_id <= book_id + 1


def bybit_rule(book_id: int, change: Change) -> bool:
    """Bybit: each delta's `u` is one more than that of the message before, the snapshot's included."""
    return change.last_id == book_id + 1


class Ladder:
    """One side of a book: quantity by price, with the prices kept in ascending order."""

    __slots__ = ("prices", "qty_at")

    def __init__(self) -> None:
        self.qty_at: dict[float, float] = {}
        self.prices: list[float] = []

    def reset(self, levels: Sequence[Level]) -> None:
        self.qty_at = {price: qty for price, qty in levels if qty}
        self.prices = sorted(self.qty_at)

    def put(self, levels: Sequence[Level]) -> None:
        """Set absolute quantities; 0 removes a level, and removing an unknown one is normal."""
        qty_at, prices = self.qty_at, self.prices
        for price, qty in levels:
            if qty:
                if price not in qty_at:
                    insort(prices, price)
                qty_at[price] = qty
            elif qty_at.pop(price, None) is not None:
                del prices[bisect_left(prices, price)]


class Book:
    """Levels of one depth stream. `update_id` is None until a snapshot has come, and again after a break."""

    def __init__(self, rule: Rule, holds_back: bool = True) -> None:
        """`holds_back`: snapshots come beside the stream, by REST, so changes before one may belong after it."""
        self.bids, self.asks = Ladder(), Ladder()
        self.update_id: int | None = None
        self._rule = rule
        self._most_held = _MOST_HELD if holds_back else 0
        self._held: deque[Change] = deque(maxlen=self._most_held)

    def snapshot(self, update_id: int, bids: Sequence[Level], asks: Sequence[Level]) -> str | None:
        """Replace the book, then apply what was held back for it. Returns why it cannot go on, or None."""
        self.bids.reset(bids)
        self.asks.reset(asks)
        self.update_id = update_id
        held, self._held = self._held, deque(maxlen=self._most_held)
        while held:
            reason = self.apply(held.popleft())
            if reason is not None:
                self._held.extend(held)
                return reason
        return None

    def apply(self, change: Change) -> str | None:
        """Apply a change, or hold it back if there is no snapshot yet. Returns why it does not follow, or None.

        A change that ends at or before the book changes nothing. After a break the book is gone until the next
        snapshot, for which the change that broke it is held back.
        """
        if self.update_id is None:
            self._held.append(change)
            return None
        if change.last_id <= self.update_id:
            return None
        if not self._rule(self.update_id, change):
            reason = f"update {change.first_id}-{change.last_id} does not follow {self.update_id}"
            self.lose()
            self._held.append(change)
            return reason
        self.bids.put(change.bids)
        self.asks.put(change.asks)
        self.update_id = change.last_id
        return None

    def lose(self) -> None:
        """Forget everything: the stream was interrupted."""
        self.update_id = None
        self._held.clear()

    def best(self) -> tuple[float, float, float, float] | None:
        """(bid price, bid qty, ask price, ask qty), or None while there is no book or one side of it is empty."""
        if self.update_id is None or not self.bids.prices or not self.asks.prices:
            return None
        bid, ask = self.bids.prices[-1], self.asks.prices[0]
        return bid, self.bids.qty_at[bid], ask, self.asks.qty_at[ask]
