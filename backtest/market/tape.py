"""The tape: what one instrument published over a chunk of market time, as arrays.

`simulate.Market` makes tapes; the exchange server formats frames from them, the direct transport writes tables from
them. One row is one frame (`depth` rows carry several levels). Conventions:

- Times are int64 ns. `exch_ns` is the matching engine's, a multiple of 1 ms (what the wire carries). `recv_ns` is
  unique over the whole market and rises along every array, so that a merge of all frames by `recv_ns` has no ties;
  within one tape it gives the order in which frames left the venue (a trade before the quote that it caused).
- Prices are whole ticks and quantities whole lots, held as `round(ticks * tick, decimals)`: the double nearest to the
  decimal on the wire, so that `float(text)` of a frame gives the tape's value to the bit. Format a price with
  `instrument.price_decimals` digits and a quantity with `instrument.qty_decimals`.
- A tape holds the frames with `from_ns <= recv_ns < to_ns`. Tapes of consecutive chunks join without overlap.
"""

from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.void]
"""A structured array of one of the dtypes below."""

_CLOCKS: Final = [("exch_ns", "i8"), ("recv_ns", "i8")]
QUOTE: Final = np.dtype(
    [*_CLOCKS, ("update_id", "i8"), ("bid_price", "f8"), ("bid_qty", "f8"), ("ask_price", "f8"), ("ask_qty", "f8")]
)
TRADE: Final = np.dtype([*_CLOCKS, ("trade_id", "i8"), ("price", "f8"), ("qty", "f8"), ("taker_side", "i8")])
"""`taker_side`: 1 buy, -1 sell. One row per taker order and price, as Binance's aggTrade."""
DEPTH: Final = np.dtype(
    [
        *_CLOCKS,
        ("first_update_id", "i8"),
        ("update_id", "i8"),
        ("prev_update_id", "i8"),
        ("level_start", "i8"),
        ("level_stop", "i8"),
    ]
)
"""A change of the book: rows `level_start:level_stop` of `levels`; absolute quantities at the time of the frame."""
LEVEL: Final = np.dtype([("side", "i8"), ("price", "f8"), ("qty", "f8")])
"""`side`: 1 bid, -1 ask. In a change, `qty` 0 says that the level is gone. Bids first, each side best first."""
LIQUIDATION: Final = np.dtype([*_CLOCKS, ("liquidated", "i8"), ("price", "f8"), ("qty", "f8")])
"""`liquidated`: 1 a long was closed (by selling), -1 a short. Binance: the largest of each second; Bybit: all."""
MARK: Final = np.dtype(
    [
        *_CLOCKS,
        ("mark_price", "f8"),
        ("index_price", "f8"),
        ("funding_rate", "f8"),
        ("next_funding_ns", "i8"),
        ("open_interest", "f8"),
    ]
)
"""`open_interest` counts one side, in base units (Bybit's wire says twice that, and `singleOpenInterest`)."""


class Instrument(NamedTuple):
    """One symbol on one venue, with what `exchangeInfo` says of it."""

    venue: str
    symbol: str
    tick: float
    lot: float
    price_decimals: int
    qty_decimals: int
    start_price: float

    @property
    def name(self) -> str:
        """`venue:SYMBOL`, as in the configuration."""
        return f"{self.venue}:{self.symbol}"


class Book(NamedTuple):
    """The whole book at the start of the tape: what a REST snapshot or a first `orderbook.50` frame says.

    `exch_ns` and `recv_ns` are those of the snapshot; no frame of the tape comes before it. At most 50 levels a side.
    """

    exch_ns: int
    recv_ns: int
    update_id: int
    levels: Rows


class Tape(NamedTuple):
    """The frames of one instrument with `from_ns <= recv_ns < to_ns`, and the book before the first of them."""

    instrument: Instrument
    from_ns: int
    to_ns: int
    book_at_start: Book
    quotes: Rows
    trades: Rows
    depth: Rows
    levels: Rows
    liquidations: Rows
    marks: Rows

    @property
    def frames(self) -> int:
        """How many frames the tape holds."""
        rows = (self.quotes, self.trades, self.depth, self.liquidations, self.marks)
        return sum(int(table.size) for table in rows)
