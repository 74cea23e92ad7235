"""What a decoder gives: one frozen struct per event, in the units and signs of `core/schema.py`.

Fields stand in the order of the table's columns, after the symbol. `recv_assumed`: the receive time is not ours
but made from the venue's, as for what an archive or a refill brought. Sides are enumerations' texts, already
normalised: the venues disagree on what `side` of a liquidation means (exchange_protocols.md section 0.1). The structs
hold no cycles, so the collector need not track them (`gc=False` halves the cost of making one).
"""

from typing import Final, Literal, NamedTuple, TypeAlias

import msgspec

TakerSide: TypeAlias = Literal["buy", "sell"]
Liquidated: TypeAlias = Literal["long", "short"]
Level: TypeAlias = tuple[float, float]
"""(price, qty); in a change, qty is absolute and 0 means the level is gone."""


class Quote(msgspec.Struct, frozen=True, gc=False):
    """Best bid and ask after a change: a row of `top_of_book`. `exch_assumed`: the venue gives no time, it is ours."""

    symbol: str
    exch_ns: int
    recv_ns: int
    update_id: int
    bid_price: float
    bid_qty: float
    ask_price: float
    ask_qty: float
    exch_assumed: bool = False
    recv_assumed: bool = False


class Trade(msgspec.Struct, frozen=True, gc=False):
    """A public trade; `taker_side` is the aggressor's."""

    symbol: str
    exch_ns: int
    recv_ns: int
    trade_id: str
    price: float
    qty: float
    taker_side: TakerSide
    recv_assumed: bool = False


class BookUpdate(msgspec.Struct, frozen=True, gc=False):
    """The changed levels of one frame; a snapshot replaces the whole book. One row of `book_deltas` per level."""

    symbol: str
    exch_ns: int
    recv_ns: int
    update_id: int
    bids: list[Level]
    asks: list[Level]
    is_snapshot: bool = False
    recv_assumed: bool = False


class Liquidation(msgspec.Struct, frozen=True, gc=False):
    """A forced closing: `liquidated` is the position that was closed, not the side of the closing order."""

    symbol: str
    exch_ns: int
    recv_ns: int
    liquidated: Liquidated
    price: float
    qty: float
    recv_assumed: bool = False


class Mark(msgspec.Struct, frozen=True, gc=False):
    """Mark price and what comes with it; None is what the venue has not said yet. Open interest counts one side."""

    symbol: str
    exch_ns: int
    recv_ns: int
    mark_price: float
    index_price: float | None
    funding_rate: float | None
    next_funding_ns: int | None
    open_interest: float | None
    recv_assumed: bool = False


class Kline(msgspec.Struct, frozen=True, gc=False):
    """A closed candle of the venue: [open_ns, close_ns). `qty` is base, `usd` quote; None is what the venue omits."""

    symbol: str
    open_ns: int
    close_ns: int
    interval: str
    exch_ns: int
    recv_ns: int
    open_price: float
    high_price: float
    low_price: float
    close_price: float
    qty: float
    usd: float
    trade_count: int | None
    taker_buy_qty: float | None
    taker_buy_usd: float | None
    recv_assumed: bool = False


class Gap(msgspec.Struct, frozen=True, gc=False):
    """What is known to be missing of a stream (a table's name), on the receive clock.

    `mended`: nothing that comes after `to_ns` depends on what was missed (a book that starts again from a snapshot).
    `told_ns`: when it was first told, where that was after `to_ns`; else 0.
    """

    symbol: str
    stream: str
    from_ns: int
    to_ns: int
    reason: str
    mended: bool
    told_ns: int = 0

    @property
    def known_ns(self) -> int:
        """When it became known: what acts at once had not noticed it before."""
        return max(self.to_ns, self.told_ns)


def told_at(gap: Gap, now_ns: int) -> Gap:
    """A gap that is told for the first time: where it ended before, it says so."""
    return msgspec.structs.replace(gap, told_ns=now_ns) if not gap.told_ns and gap.to_ns < now_ns else gap


NOT_RUNNING: Final = "capture was not running"
"""How the reason of a gap begins that lies between two processes."""


class TradeHole(NamedTuple):
    """Trade ids [first_id, last_id] that a stream left out between two receipts: what a refill has to bring."""

    symbol: str
    first_id: int
    last_id: int
    from_ns: int
    to_ns: int


class DecodeError(ValueError):
    """A frame that is not what its stream promises. The caller counts and samples it; it is never fatal."""


Event: TypeAlias = Quote | Trade | BookUpdate | Liquidation | Mark | Kline | Gap
