"""Bybit v5's messages as they stand on the wire (exchange_protocols.md C.3). All times are milliseconds."""

from typing import Annotated, Literal

from msgspec import Meta

from ingest.wire import Epoch, EpochMs, Id, Levels, Price, Qty, Wire, message_decoder

TradeId = Annotated[str, Meta(min_length=1, max_length=64)]


class BookData(Wire, frozen=True):
    s: str
    b: Levels
    a: Levels
    u: Id


class OrderBook(Wire, frozen=True):
    """`cts` is the matching engine's time, `ts` that of sending; before 2023-06 there is only `ts`."""

    type: Literal["snapshot", "delta"]
    ts: Epoch
    data: BookData
    cts: Epoch = 0


class TradeData(Wire, frozen=True):
    """`BT`: a block trade, agreed off the book."""

    s: str
    T: Epoch
    S: Literal["Buy", "Sell"]
    v: Qty
    p: Price
    i: TradeId
    BT: bool = False


class PublicTrade(Wire, frozen=True):
    data: list[TradeData]


class TickerData(Wire, frozen=True):
    """A delta holds only what changed. `openInterest` counts both sides."""

    symbol: str
    markPrice: str | None = None
    indexPrice: str | None = None
    fundingRate: str | None = None
    nextFundingTime: str | None = None
    openInterest: str | None = None
    singleOpenInterest: str | None = None


class Tickers(Wire, frozen=True):
    type: Literal["snapshot", "delta"]
    ts: Epoch
    data: TickerData


class LiquidationData(Wire, frozen=True):
    """`S` is the side of the position, `p` its bankruptcy price."""

    s: str
    T: Epoch
    S: Literal["Buy", "Sell"]
    v: Qty
    p: Price


class AllLiquidation(Wire, frozen=True):
    data: list[LiquidationData]


class Candle(Wire, frozen=True):
    """`start` to `end` inclusive; `volume` counts USD on inverse, `turnover` its base coin; `confirm`: closed."""

    start: EpochMs
    end: EpochMs
    interval: str
    open: Price
    close: Price
    high: Price
    low: Price
    volume: Qty
    turnover: Qty
    confirm: bool


class Kline(Wire, frozen=True):
    ts: Epoch
    data: list[Candle]


class Head(Wire, frozen=True):
    topic: str | None = None
    op: str | None = None
    success: bool | None = None


read_head = message_decoder(Head)
