"""Binance's public archive, data.binance.vision: spot, USD-M and COIN-M (exchange_protocols.md section E.1).

Times are ms, in spot files us from 2025 on; older files have no header; spot files have one more column. Quantities
of COIN-M are contracts, as everywhere at Binance.
"""

import re
from typing import Final

import polars as pl

from core.schema import KLINES, LIQUIDATED, LIQUIDATIONS, SIGNALS, TOP_OF_BOOK, TRADES
from core.units import NS_PER_S, parse_duration_ns
from ingest.archives.columns import assumed, chosen, rows_of, side_of_maker_flag, text_time_ns, time_ns
from ingest.archives.csv_rows import Layout, csv_pieces
from ingest.archives.formats import OTHER_SYMBOL, ArchiveFile, Counts, Dataset, Piece, days_of
from ingest.signals import SETTLEMENT, asset_of

I64, F64, TEXT = pl.Int64(), pl.Float64(), pl.String()
VENUES: Final = {"spot": "binance", "um": "binance_um", "cm": "binance_cm"}
_METRICS_STEP: Final = "5m"
_DEPTH_STEP: Final = "30s"
_NO_CANDLES_OF_TRADES: Final = ("markPriceKlines", "indexPriceKlines", "premiumIndexKlines")

_AGG_TRADES: Final = Layout(
    {
        "agg_trade_id": I64, "price": F64, "quantity": F64, "first_trade_id": None, "last_trade_id": None,
        "transact_time": I64, "is_buyer_maker": TEXT,
    },
    ("agg_trade_id", "price", "quantity", "transact_time", "is_buyer_maker"),
)  # fmt: skip
_TRADES: Final = Layout(
    {"id": I64, "price": F64, "qty": F64, "quote_qty": None, "time": I64, "is_buyer_maker": TEXT},
    ("id", "price", "qty", "time", "is_buyer_maker"),
)
_BOOK_TICKER: Final = Layout(
    {
        "update_id": I64, "best_bid_price": F64, "best_bid_qty": F64, "best_ask_price": F64, "best_ask_qty": F64,
        "transaction_time": I64, "event_time": None,
    },
    ("update_id", "best_bid_price", "best_bid_qty", "best_ask_price", "best_ask_qty", "transaction_time"),
)  # fmt: skip
_KLINES: Final = Layout(
    {
        "open_time": I64, "open": F64, "high": F64, "low": F64, "close": F64, "volume": F64, "close_time": I64,
        "quote_volume": F64, "count": I64, "taker_buy_volume": F64, "taker_buy_quote_volume": F64, "ignore": None,
    },
    ("open_time", "open", "high", "low", "close", "volume", "close_time", "quote_volume"),
    {"quote_asset_volume": "quote_volume", "trades": "count", "taker_buy_base": "taker_buy_volume",
     "taker_buy_quote": "taker_buy_quote_volume"},
)  # fmt: skip
_METRICS: Final = Layout(
    {
        "create_time": TEXT, "symbol": TEXT, "sum_open_interest": F64, "sum_open_interest_value": F64,
        "count_toptrader_long_short_ratio": F64, "sum_toptrader_long_short_ratio": F64,
        "count_long_short_ratio": F64, "sum_taker_long_short_vol_ratio": F64,
    },
    ("create_time",),
)  # fmt: skip
_METRIC_NAMES: Final = {
    "sum_open_interest": "oi",
    "sum_open_interest_value": "oi_usd",
    "count_toptrader_long_short_ratio": "ls_ratio_top",
    "sum_toptrader_long_short_ratio": "ls_position_ratio",
    "count_long_short_ratio": "ls_ratio_global",
    "sum_taker_long_short_vol_ratio": "taker_ratio",
}
_COIN_M_METRIC_NAMES: Final = {
    "sum_open_interest_value": "oi",
    **{name: short for name, short in _METRIC_NAMES.items() if not name.startswith("sum_open")},
}
"""Of COIN-M `sum_open_interest` counts contracts and its value is in the asset."""
_FUNDING: Final = Layout(
    {"calc_time": I64, "funding_interval_hours": None, "last_funding_rate": F64}, ("calc_time", "last_funding_rate")
)
_BOOK_DEPTH: Final = Layout(
    {"timestamp": TEXT, "percentage": F64, "depth": F64, "notional": F64}, ("timestamp", "percentage")
)
_LIQUIDATIONS: Final = Layout(
    {
        "time": I64, "side": TEXT, "order_type": None, "time_in_force": None, "original_quantity": F64, "price": F64,
        "average_price": F64, "order_status": None, "last_fill_quantity": None, "accumulated_fill_quantity": F64,
    },
    ("time", "side", "original_quantity", "price"),
)  # fmt: skip


def _agg_trades(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    names = "agg_trade_id", "price", "quantity", "transact_time"
    return [_trade_piece(frame, names, latency_ns, counts)]


def _trades(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    return [_trade_piece(frame, ("id", "price", "qty", "time"), latency_ns, counts)]


def _trade_piece(frame: pl.DataFrame, names: tuple[str, str, str, str], latency_ns: int, counts: Counts) -> Piece:
    number, price, qty, time = names
    rows = rows_of(
        TRADES,
        frame,
        counts,
        *assumed(time_ns(time), latency_ns),
        pl.col(number).alias("trade_id"),
        pl.col(price).alias("price"),
        pl.col(qty).alias("qty"),
        side_of_maker_flag("is_buyer_maker").alias("taker_side"),
    )
    return Piece(TRADES, rows)


def _book_ticker(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    rows = rows_of(
        TOP_OF_BOOK,
        frame,
        counts,
        *assumed(time_ns("transaction_time"), latency_ns),
        pl.col("update_id"),
        *(pl.col(f"best_{name}").alias(name) for name in ("bid_price", "bid_qty", "ask_price", "ask_qty")),
        pl.lit(False).alias("exch_assumed"),
    )
    return [Piece(TOP_OF_BOOK, rows)]


def _klines(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """`close_time` is the last ms (or us) inside; a candle is known when it has closed."""
    per_s = pl.when(pl.col("close_time") < _FIRST_US).then(1_000).otherwise(1_000_000)
    close_ns = time_ns("close_time") + NS_PER_S // per_s
    rows = rows_of(
        KLINES,
        frame,
        counts,
        time_ns("open_time").alias("open_ns"),
        close_ns.alias("close_ns"),
        pl.lit(file.interval).alias("interval"),
        *assumed(close_ns, latency_ns),
        *(pl.col(name).alias(f"{name}_price") for name in ("open", "high", "low", "close")),
        pl.col("volume").alias("qty"),
        pl.col("quote_volume").alias("usd"),
        pl.col("count").alias("trade_count"),
        pl.col("taker_buy_volume").alias("taker_buy_qty"),
        pl.col("taker_buy_quote_volume").alias("taker_buy_usd"),
    )
    return [Piece(KLINES, rows)]


_FIRST_US: Final = 100_000_000_000_000  # 1973 in us, 5138 in ms


def _metrics(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """Known one bar late: whether `create_time` opens or closes the five minutes is undocumented."""
    shorts = _COIN_M_METRIC_NAMES if file.venue == "binance_cm" else _METRIC_NAMES
    names = {name: f"{short}_{asset_of(file.symbol)}" for name, short in shorts.items()}
    named = pl.col("symbol").is_null() | (pl.col("symbol") == file.symbol)
    own = counts.keep(frame, named, OTHER_SYMBOL)
    wide = own.select("create_time", *(pl.col(name).alias(series) for name, series in names.items()))
    long = wide.unpivot(index="create_time", on=list(names.values()), variable_name="name")
    return [_signal_piece(long, text_time_ns("create_time"), _METRICS_STEP, latency_ns, counts)]


def _book_depth(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """Depth within some per cent of the mid, which is no order book: negative per cent are bids."""
    asset = asset_of(file.symbol)
    side = pl.when(pl.col("percentage") < 0).then(pl.lit("bid")).otherwise(pl.lit("ask"))
    reach = pl.col("percentage").abs().cast(pl.String).str.strip_suffix(".0")
    long = pl.concat(
        frame.select(
            "timestamp",
            pl.format(f"depth_{{}}_{{}}pct{unit}_{asset}", side, reach).alias("name"),
            pl.col(column).alias("value"),
        )
        for column, unit in (("depth", ""), ("notional", "_usd"))
    )
    return [_signal_piece(long, text_time_ns("timestamp"), _DEPTH_STEP, latency_ns, counts)]


def _signal_piece(long: pl.DataFrame, time: pl.Expr, step: str, latency_ns: int, counts: Counts) -> Piece:
    """(name, value) rows as signals that are known one step after their time."""
    rows = rows_of(
        SIGNALS,
        long,
        counts,
        pl.col("name"),
        time.alias("time_ns"),
        pl.col("value"),
        pl.lit(step).alias("resolution"),
        (time + parse_duration_ns(step) + latency_ns).alias("known_ns"),
    )
    return Piece(SIGNALS, rows)


def _funding(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """The rate that was settled at `calc_time`, a fraction per interval."""
    rows = rows_of(
        SIGNALS,
        frame,
        counts,
        pl.lit(f"funding_rate_{asset_of(file.symbol)}").alias("name"),
        time_ns("calc_time").alias("time_ns"),
        pl.col("last_funding_rate").alias("value"),
        pl.lit(SETTLEMENT).alias("resolution"),
        (time_ns("calc_time") + latency_ns).alias("known_ns"),
    )
    return [Piece(SIGNALS, rows)]


def liquidation_rows(frame: pl.DataFrame, latency_ns: int, counts: Counts, *more: pl.Expr) -> pl.DataFrame:
    """Forced orders: SELL closes a long. Price and quantity are those of the fill where there was one."""
    return rows_of(
        LIQUIDATIONS,
        frame,
        counts,
        *assumed(time_ns("time"), latency_ns),
        chosen("side", {"sell": "long", "buy": "short"}, LIQUIDATED).alias("liquidated"),
        _if_positive("average_price", "price"),
        _if_positive("accumulated_fill_quantity", "original_quantity").alias("qty"),
        *more,
    )


def _if_positive(column: str, other: str) -> pl.Expr:
    return pl.when(pl.col(column) > 0).then(pl.col(column)).otherwise(pl.col(other)).alias(other)


def _liquidations(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    return [Piece(LIQUIDATIONS, liquidation_rows(frame, latency_ns, counts))]


_WHOLE_ROW: Final = ("exch_ns", "liquidated", "price", "qty")
DATASETS: Final = (
    Dataset("aggTrades", (TRADES,), csv_pieces(_AGG_TRADES, _agg_trades), {"trades": ("trade_id",)}, True),
    Dataset("trades", (TRADES,), csv_pieces(_TRADES, _trades), {"trades": ("trade_id",)}),
    Dataset("bookTicker", (TOP_OF_BOOK,), csv_pieces(_BOOK_TICKER, _book_ticker), {"top_of_book": ("update_id",)}),
    Dataset("klines", (KLINES,), csv_pieces(_KLINES, _klines), {"klines": ("open_ns",)}),
    Dataset("metrics", (SIGNALS,), csv_pieces(_METRICS, _metrics), {"signals": ("time_ns", "name")}),
    Dataset("fundingRate", (SIGNALS,), csv_pieces(_FUNDING, _funding), {"signals": ("time_ns", "name")}),
    Dataset("bookDepth", (SIGNALS,), csv_pieces(_BOOK_DEPTH, _book_depth), {"signals": ("time_ns", "name")}),
    Dataset("liquidationSnapshot", (LIQUIDATIONS,), csv_pieces(_LIQUIDATIONS, _liquidations),
            {"liquidations": _WHOLE_ROW}),
)  # fmt: skip
"""Of two that fill the same table the first is taken: aggTrades is what live capture has."""
DEFAULT: Final = {
    "binance": ("aggTrades",),
    "binance_um": ("aggTrades", "bookTicker", "metrics", "fundingRate"),
    "binance_cm": ("aggTrades", "bookTicker", "metrics", "fundingRate"),
}
_MONTHLY_ONLY: Final = ("fundingRate",)
_MARKET: Final = re.compile(r"(?:^|/)(?:(spot)/(?:daily|monthly)|futures/(um|cm))(?:/|$)")
_INTERVAL: Final = r"\d+(?:s|m|h|d|w|mo)"
_NAME: Final = re.compile(
    r"(?P<symbol>\w+)-(?P<dataset>aggTrades|trades|bookTicker|metrics|fundingRate|bookDepth|liquidationSnapshot"
    rf"|{_INTERVAL})-(?P<when>\d{{4}}-\d\d(?:-\d\d)?)\.(?:zip|csv|csv\.gz)"
)


def recognise(name: str, folders: tuple[str, ...]) -> tuple[str, str, str, str, tuple[str, ...]] | None:
    """(venue or "", symbol, data set, interval, days) of a file name in its folders, or None if it is not ours.

    The same names serve spot and futures: only the folders of a mirrored archive tell the venue.
    """
    match = _NAME.fullmatch(name)
    if match is None or set(folders) & set(_NO_CANDLES_OF_TRADES):
        return None
    market = _MARKET.search("/".join(folders))
    dataset, interval = match["dataset"], ""
    if re.fullmatch(_INTERVAL, dataset):
        dataset, interval = "klines", dataset
    try:
        venue = VENUES[market[1] or market[2]] if market else ""
        return venue, match["symbol"], dataset, interval, days_of(match["when"])
    except ValueError:
        return None


def address(venue: str, symbol: str, dataset: str, interval: str, day: str) -> str:
    """The path below the host of the file that holds a day: daily where there are daily ones."""
    market = {"binance": "spot", "binance_um": "futures/um", "binance_cm": "futures/cm"}[venue]
    monthly = dataset in _MONTHLY_ONLY
    when = day[: len("2024-03")] if monthly else day
    folder = f"{dataset}/{symbol}/{interval}" if interval else f"{dataset}/{symbol}"
    name = f"{symbol}-{interval or dataset}-{when}.zip"
    return f"data/{market}/{'monthly' if monthly else 'daily'}/{folder}/{name}"
