"""Binance's messages as they stand on the wire (exchange_protocols.md A.4, A.5, B). Times are ms unless said otherwise.

`st` is 1 for USD-M and 2 for COIN-M: since 2026-06-30 all-market streams carry both (A.3); 0 where it is not sent.
"""

from typing import Literal

import msgspec

from ingest.wire import Epoch, EpochMs, Id, Levels, Price, Qty, Wire, message_decoder

MARKET = "MARKET"


class Ticker(Wire, frozen=True):
    """bookTicker. An empty side is written as price 0; spot gives no time."""

    s: str
    u: Id
    b: Qty
    B: Qty
    a: Qty
    A: Qty
    T: EpochMs = 0
    st: int = 0


class AggTrade(Wire, frozen=True):
    s: str
    a: Id
    p: Price
    q: Qty
    T: Epoch
    m: bool
    st: int = 0


class RestTrade(Wire, frozen=True):
    """A row of REST aggTrades: as streamed, without the symbol."""

    a: Id
    p: Price
    q: Qty
    T: Epoch
    m: bool


class RawTrade(Wire, frozen=True):
    """`X` is what made the trade on futures: what is not MARKET may carry price and quantity 0."""

    s: str
    t: Id
    p: Qty
    q: Qty
    T: Epoch
    m: bool
    X: str = MARKET
    st: int = 0


class Depth(Wire, frozen=True):
    """A spot change: it has only the time of sending."""

    s: str
    U: Id
    u: Id
    E: Epoch
    b: Levels
    a: Levels


class FuturesDepth(Wire, frozen=True):
    s: str
    U: Id
    u: Id
    pu: Id
    E: Epoch
    b: Levels
    a: Levels
    T: Epoch = 0
    st: int = 0


class Snapshot(Wire, frozen=True):
    """REST depth; `T` on futures alone."""

    lastUpdateId: Id
    bids: Levels
    asks: Levels
    T: Epoch = 0


class PartialDepth(Wire, frozen=True):
    """Futures write it like a change (`b`, `a`, `u`), spot like a REST snapshot, without symbol and time."""

    lastUpdateId: Id = 0
    bids: Levels = msgspec.field(default_factory=list)
    asks: Levels = msgspec.field(default_factory=list)
    s: str = ""
    u: Id = 0
    E: Epoch = 0
    T: Epoch = 0
    b: Levels = msgspec.field(default_factory=list)
    a: Levels = msgspec.field(default_factory=list)
    st: int = 0


class MarkPrice(Wire, frozen=True):
    """`r` is the running estimate for the settlement at `T`; delivery contracts leave index and rate out or empty."""

    s: str
    E: Epoch
    p: Price
    i: str | None = None
    r: str | None = None
    T: Epoch = 0
    st: int = 0


class Forced(Wire, frozen=True):
    """`S` is the forced order's side, `ap` its average price, `z` what was filled of `q`."""

    s: str
    S: Literal["BUY", "SELL"]
    p: Qty
    ap: Qty
    q: Qty
    z: Qty
    T: Epoch


class ForceOrder(Wire, frozen=True):
    o: Forced
    st: int = 0


class Candle(Wire, frozen=True):
    """`t` to `T` inclusive; `v` and `V` count contracts on COIN-M, `q` and `Q` its base asset; `x`: closed."""

    t: Epoch
    T: Epoch
    i: str
    o: Price
    c: Price
    h: Price
    l: Price  # noqa: E741
    v: Qty
    q: Qty
    V: Qty
    Q: Qty
    n: Id
    x: bool


class Kline(Wire, frozen=True):
    s: str
    E: Epoch
    k: Candle
    st: int = 0


class Head(Wire, frozen=True):
    """What tells frames apart whose place in a combined stream is not plain from their first bytes."""

    stream: str | None = None
    e: str | None = None
    u: int | None = None
    id: int | str | None = None
    error: object = None
    code: int | None = None


read_head = message_decoder(Head)
read_snapshot = message_decoder(Snapshot)
read_trades = message_decoder(list[RestTrade])
