"""The tables: names, columns, dtypes, keys. Checked at every write and read.

Times are UTC nanoseconds, prices are quote per base, quantities are base units. `exch_ns` is the venue's clock
(its matching engine's where given), `recv_ns` ours; neither bounds the other, since a local clock may run behind.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import polars as pl

I64, F64, TEXT, FLAG = pl.Int64(), pl.Float64(), pl.String(), pl.Boolean()
TAKER_SIDE: Final = pl.Enum(["buy", "sell"])
BOOK_SIDE: Final = pl.Enum(["bid", "ask"])
LIQUIDATED: Final = pl.Enum(["long", "short"])
OPTION_TYPE: Final = pl.Enum(["call", "put"])


@dataclass(frozen=True)
class Table:
    """One table: `columns` in order, `order` the columns that rows are sorted by, `key` those that must be unique.

    `extra` permits further columns of one dtype after the fixed ones (features, labels and scores are as wide as the
    configuration makes them). `nullable` names the fixed columns that may hold nulls. `later` are columns that files of
    earlier versions lack, each with the column that is read in its place there.
    """

    name: str
    about: str
    columns: dict[str, pl.DataType]
    order: tuple[str, ...]
    key: tuple[str, ...] = ()
    nullable: frozenset[str] = frozenset()
    later: Mapping[str, str] = field(default_factory=dict)
    extra: bool = False
    by_bars: bool = field(default=False)


TOP_OF_BOOK: Final = Table(
    "top_of_book",
    "Best bid and ask after each change. From the venue's own best-price stream, else from the rebuilt book.",
    {
        "exch_ns": I64, "recv_ns": I64, "update_id": I64,
        "bid_price": F64, "bid_qty": F64, "ask_price": F64, "ask_qty": F64,
        "exch_assumed": FLAG, "recv_assumed": FLAG,
    },
    order=("recv_ns",),
)  # fmt: skip
TRADES: Final = Table(
    "trades",
    "Public trades; taker_side is the aggressor. Binance aggTrade sums fills of one taker at one price. Quantities of "
    "binance_cm and bybit_inverse are contracts, as the venues count them; trade_id is empty where a source has none.",
    {
        "exch_ns": I64,
        "recv_ns": I64,
        "trade_id": TEXT,
        "price": F64,
        "qty": F64,
        "taker_side": TAKER_SIDE,
        "recv_assumed": FLAG,
    },
    order=("recv_ns",),
)
BOOK_DELTAS: Final = Table(
    "book_deltas",
    "Changed levels; qty is absolute and 0 means the level is gone. A snapshot row replaces the whole book.",
    {
        "exch_ns": I64, "recv_ns": I64, "update_id": I64,
        "side": BOOK_SIDE, "price": F64, "qty": F64, "is_snapshot": FLAG, "recv_assumed": FLAG,
    },
    order=("recv_ns",),
)  # fmt: skip
LIQUIDATIONS: Final = Table(
    "liquidations",
    "Forced closings. Binance publishes at most one per symbol and second (a sample); Bybit all, at bankruptcy price.",
    {"exch_ns": I64, "recv_ns": I64, "liquidated": LIQUIDATED, "price": F64, "qty": F64, "recv_assumed": FLAG},
    order=("recv_ns",),
)
MARK_PRICES: Final = Table(
    "mark_prices",
    "Mark, index, running funding estimate (fraction per interval) and one-sided open interest where streamed.",
    {
        "exch_ns": I64, "recv_ns": I64, "mark_price": F64, "index_price": F64,
        "funding_rate": F64, "next_funding_ns": I64, "open_interest": F64, "recv_assumed": FLAG,
    },
    order=("recv_ns",),
    nullable=frozenset({"index_price", "funding_rate", "next_funding_ns", "open_interest"}),
)  # fmt: skip
KLINES: Final = Table(
    "klines",
    "Candles of the venue itself, one row per closed candle [open_ns, close_ns). Never made from our own trades.",
    {
        "open_ns": I64, "close_ns": I64, "interval": TEXT, "exch_ns": I64, "recv_ns": I64,
        "open_price": F64, "high_price": F64, "low_price": F64, "close_price": F64,
        "qty": F64, "usd": F64, "trade_count": I64, "taker_buy_qty": F64, "taker_buy_usd": F64,
        "recv_assumed": FLAG,
    },
    order=("recv_ns",),
    nullable=frozenset({"trade_count", "taker_buy_qty", "taker_buy_usd"}),
)  # fmt: skip
SIGNALS: Final = Table(
    "signals",
    "Slow series: one row per name, time and resolution, once more where a venue revised it. Use by known_ns alone.",
    {"name": TEXT, "time_ns": I64, "value": F64, "resolution": TEXT, "known_ns": I64},
    order=("time_ns", "name", "resolution", "known_ns"),
    key=("time_ns", "name", "resolution", "known_ns"),
)
_OPTION_FIGURES: Final = (
    "bid_price", "ask_price", "bid_qty", "ask_qty", "bid_iv_pct", "ask_iv_pct", "mark_iv_pct", "mark_price",
    "underlying_index", "underlying_price", "open_interest", "last_price", "delta", "gamma", "vega", "theta", "rho",
)  # fmt: skip
OPTIONS: Final = Table(
    "options",
    "Option tickers, one row per change of one instrument; `symbol` of the partition is the underlying asset. Prices "
    "as the venue quotes them (Deribit's inverse options: in the asset), implied volatilities in per cent.",
    {
        "exch_ns": I64, "recv_ns": I64, "instrument": TEXT, "option_type": OPTION_TYPE, "strike_price": F64,
        "expiry_ns": I64, **{name: TEXT if name == "underlying_index" else F64 for name in _OPTION_FIGURES},
        "recv_assumed": FLAG,
    },
    order=("recv_ns",),
    nullable=frozenset(_OPTION_FIGURES),
)  # fmt: skip
QUALITY: Final = Table(
    "quality",
    "What a symbol-day of one captured stream is worth: coverage, gaps, duplicates, crossed books, skew, latency.",
    {"stream": TEXT},
    order=("stream",),
    key=("stream",),
    extra=True,
)
GAPS: Final = Table(
    "gaps",
    "What capture knows it missed: of which stream, from when to when (recv clock), why; once more when it is mended.",
    {"stream": TEXT, "from_ns": I64, "to_ns": I64, "reason": TEXT, "mended": FLAG, "told_ns": I64},
    order=("from_ns",),
    later={"told_ns": "to_ns"},
)
BARS: Final = Table(
    "bars",
    "One row per bar [open_ns, close_ns): last book, flow by aggressor, OFI, liquidations, mark.",
    {"open_ns": I64, "close_ns": I64, "bar_index": I64},
    order=("close_ns", "bar_index"),
    key=("bar_index",),
    extra=True,
    by_bars=True,
)
FEATURES: Final = Table(
    "features",
    "One row per decision that is warm: the catalogue's features over all bars closed at or before decision_ns.",
    {"decision_ns": I64},
    order=("decision_ns",),
    key=("decision_ns",),
    extra=True,
    by_bars=True,
)
LABELS: Final = Table(
    "labels",
    "One row per decision: what each cell of the (side, delta, T) grid would have earned.",
    {"decision_ns": I64},
    order=("decision_ns",),
    key=("decision_ns",),
    extra=True,
)
SCORES: Final = Table(
    "scores",
    "Out-of-sample scores per decision and horizon; fold -1 is the hold-out, 0 and up the walk-forward blocks.",
    {"decision_ns": I64, "fold": I64},
    order=("decision_ns",),
    key=("decision_ns",),
    extra=True,
)
FILLS: Final = Table(
    "fills",
    "One row per order of the backtest: what was asked, when and where it filled, how it was closed, what it earned.",
    {"decision_ns": I64},
    order=("decision_ns",),
    extra=True,
)

INVERSE: Final = frozenset({"binance_cm", "bybit_inverse"})
"""Venues whose quantities are contracts of quote currency: captured, and left out of what comes after."""

EVENTS: Final = (TOP_OF_BOOK, TRADES, BOOK_DELTAS, LIQUIDATIONS, MARK_PRICES, KLINES)
TABLES: Final = (*EVENTS, GAPS, SIGNALS, OPTIONS, QUALITY, BARS, FEATURES, LABELS, SCORES, FILLS)
MADE_BY: Final = {
    **{table.name: "capture" for table in (*EVENTS, GAPS)},
    "signals": "poll",
    "options": "backfill",
    "quality": "quality",
    "bars": "bars",
    "features": "features",
    "labels": "labels",
    "scores": "train",
    "fills": "backtest",
}
"""The stage that makes each table: what an error message tells the user to run."""


def check(table: Table, frame: pl.DataFrame) -> None:
    """Raise ValueError unless `frame` has the table's columns, dtypes, order and unique key, and no undue null."""
    names = list(table.columns)
    fixed, rest = frame.columns[: len(names)], frame.columns[len(names) :]
    if fixed != names or (rest and not table.extra):
        raise ValueError(
            f"{table.name}: columns must be {names}{' and more' if table.extra else ''}, were {frame.columns}"
        )
    for name, dtype in table.columns.items():
        if frame.schema[name] != dtype:
            raise ValueError(f"{table.name}.{name}: dtype must be {dtype}, was {frame.schema[name]}")
    undue = [name for name in names if name not in table.nullable and frame[name].null_count()]
    if undue:
        raise ValueError(f"{table.name}: nulls in {undue}, which must be known in every row")
    if not _is_sorted(frame, table.order):
        raise ValueError(f"{table.name}: rows must be sorted by {table.order}")
    if table.key and _has_equal_neighbours(frame, table.key):
        raise ValueError(f"{table.name}: {table.key} must be unique")


def _is_sorted(frame: pl.DataFrame, by: tuple[str, ...]) -> bool:
    first = frame[by[0]]
    if len(by) == 1:
        return first.is_sorted()
    return frame.select(pl.struct(by).is_sorted() if frame.height else pl.lit(True)).item() if frame.height else True


def _has_equal_neighbours(frame: pl.DataFrame, key: tuple[str, ...]) -> bool:
    """True where two rows share the key; rows are sorted, so equal keys are neighbours (is_unique is 100x slower)."""
    if frame.height < 2:
        return False
    same = [frame[name].head(-1).to_numpy() == frame[name].tail(-1).to_numpy() for name in key]
    together = same[0]
    for column in same[1:]:
        together = together & column
    return bool(together.any())
