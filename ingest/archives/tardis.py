"""Tardis CSV files (exchange_protocols.md section E.4): one header for all venues, both clocks in microseconds.

`local_timestamp` is when Tardis' recorder received the message, a real receive time. Quantities are as the venue
counts them (contracts on COIN-M and inverse markets). Days are cut by the receive clock.
"""

import re
from collections.abc import Callable
from typing import Final

import polars as pl

from core.schema import (
    BOOK_DELTAS,
    LIQUIDATED,
    LIQUIDATIONS,
    MARK_PRICES,
    OPTION_TYPE,
    OPTIONS,
    TOP_OF_BOOK,
    TRADES,
    Table,
)
from ingest.archives.columns import chosen, rows_of, side_of_text, time_ns
from ingest.archives.csv_rows import Layout, csv_pieces
from ingest.archives.formats import ArchiveFile, Counts, Dataset, Piece, days_of
from ingest.archives.tardis_books import incremental, snapshots
from ingest.archives.tardis_rows import clocks, layout, own_rows, safe_symbol, top_piece

I64, F64, TEXT = pl.Int64(), pl.Float64(), pl.String()
VENUES: Final = {
    "binance": "binance",
    "binance-futures": "binance_um",
    "binance-delivery": "binance_cm",
    "bybit": "bybit",
    "bybit-spot": "bybit_spot",
}
"""Other venues keep Tardis' name, with `_` for `-`. Tardis' `bybit` is linear and inverse together."""
_INVERSE: Final = re.compile(r"\w+USD([FGHJKMNQUVXZ]\d\d)?")
NO_MARK: Final = "no mark price"
_ORDER: Final = layout({"id": TEXT, "side": TEXT, "price": F64, "amount": F64}, "side", "price", "amount")
_QUOTES: Final = layout({"ask_amount": F64, "ask_price": F64, "bid_price": F64, "bid_amount": F64})
_DERIVATIVES: Final = layout(
    {
        "funding_timestamp": I64, "funding_rate": F64, "predicted_funding_rate": None, "open_interest": F64,
        "last_price": None, "index_price": F64, "mark_price": F64,
    },
)  # fmt: skip
_OPTIONS: Final = layout(
    {
        "type": TEXT, "strike_price": F64, "expiration": I64, "open_interest": F64, "last_price": F64,
        "bid_price": F64, "bid_amount": F64, "bid_iv": F64, "ask_price": F64, "ask_amount": F64, "ask_iv": F64,
        "mark_price": F64, "mark_iv": F64, "underlying_index": TEXT, "underlying_price": F64,
        "delta": F64, "gamma": F64, "vega": F64, "theta": F64, "rho": F64,
    },
    "type", "strike_price", "expiration",
)  # fmt: skip


def _trades(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    own, symbol = own_rows(frame, file, counts)
    rows = rows_of(
        TRADES,
        own,
        counts,
        *clocks(),
        pl.col("id").fill_null("").alias("trade_id"),
        pl.col("price"),
        pl.col("amount").alias("qty"),
        side_of_text("side").alias("taker_side"),
        *symbol,
    )
    return [Piece(TRADES, rows)]


def _liquidations(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """`side` is the closing order's for every venue: sell closes a long."""
    own, symbol = own_rows(frame, file, counts)
    rows = rows_of(
        LIQUIDATIONS,
        own,
        counts,
        *clocks(),
        chosen("side", {"sell": "long", "buy": "short"}, LIQUIDATED).alias("liquidated"),
        pl.col("price"),
        pl.col("amount").alias("qty"),
        *symbol,
    )
    return [Piece(LIQUIDATIONS, rows)]


def _quotes(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    own, symbol = own_rows(frame, file, counts)
    return [top_piece(own, counts, symbol, ("bid_price", "bid_amount", "ask_price", "ask_amount"))]


def _derivative_ticker(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """Bybit counts open interest on both sides, the others on one."""
    own, symbol = own_rows(frame, file, counts)
    share = 0.5 if file.venue.startswith("bybit") else 1.0
    rows = rows_of(
        MARK_PRICES,
        counts.keep(own, pl.col("mark_price").is_not_null(), NO_MARK),
        counts,
        *clocks(),
        pl.col("mark_price"),
        pl.col("index_price"),
        pl.col("funding_rate"),
        time_ns("funding_timestamp").alias("next_funding_ns"),
        (pl.col("open_interest") * share).alias("open_interest"),
        *symbol,
    )
    return [Piece(MARK_PRICES, rows)]


def _options_chain(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """One partition per underlying asset, as a chain has thousands of instruments."""
    same = ("underlying_index", "underlying_price", "open_interest", "last_price", "delta", "gamma", "vega", "theta")
    rows = rows_of(
        OPTIONS,
        frame,
        counts,
        *clocks(),
        pl.col("symbol").alias("instrument"),
        chosen("type", {"call": "call", "put": "put"}, OPTION_TYPE).alias("option_type"),
        pl.col("strike_price"),
        time_ns("expiration").alias("expiry_ns"),
        pl.col("bid_price", "ask_price", "mark_price"),
        *(pl.col(f"{side}_amount").alias(f"{side}_qty") for side in ("bid", "ask")),
        *(pl.col(f"{side}_iv").alias(f"{side}_iv_pct") for side in ("bid", "ask", "mark")),
        pl.col(*same, "rho"),
        safe_symbol(pl.col("symbol")).str.extract(r"^([A-Z0-9]+)").alias("symbol"),
    )
    return [Piece(OPTIONS, rows)]


def _dataset(name: str, table: Table, columns: Layout, convert: Callable[..., list[Piece]], *unique: str) -> Dataset:
    keys = {table.name: unique} if unique else {}
    return Dataset(name, (table,), csv_pieces(columns, convert), keys, day_column="recv_ns")


_BOOK_TABLES: Final = (BOOK_DELTAS, TOP_OF_BOOK)
DATASETS: Final = (
    _dataset("trades", TRADES, _ORDER, _trades, "trade_id"),
    _dataset("book_ticker", TOP_OF_BOOK, _QUOTES, _quotes),
    _dataset("quotes", TOP_OF_BOOK, _QUOTES, _quotes),
    Dataset("incremental_book_L2", (BOOK_DELTAS,), incremental, day_column="recv_ns"),
    Dataset("book_snapshot_25", _BOOK_TABLES, snapshots(25), day_column="recv_ns"),
    Dataset("book_snapshot_5", _BOOK_TABLES, snapshots(5), day_column="recv_ns"),
    _dataset("liquidations", LIQUIDATIONS, _ORDER, _liquidations),
    _dataset("derivative_ticker", MARK_PRICES, _DERIVATIVES, _derivative_ticker),
    _dataset("options_chain", OPTIONS, _OPTIONS, _options_chain),
)
"""Of two that fill the same table the first is taken: book_ticker is the venue's own stream, quotes a rebuilt book."""
DEFAULT: Final = ("trades", "book_ticker", "derivative_ticker", "liquidations")
_KINDS: Final = "|".join(dataset.name for dataset in DATASETS)
_FLAT: Final = re.compile(
    rf"(?:tardis_)?(?P<exchange>[a-z][a-z0-9-]*)_(?P<dataset>{_KINDS})_"
    r"(?:(?P<first>\d{4}-\d\d-\d\d)_)?(?P<symbol>[\w.-]+?)(?:_(?P<last>\d{4}-\d\d-\d\d))?\.csv(?:\.gz)?"
)
_NESTED: Final = re.compile(
    rf"(?:.*/)?(?P<exchange>[a-z][a-z0-9-]*)/(?P<dataset>{_KINDS})/(?P<y>\d{{4}})/(?P<m>\d\d)/(?P<d>\d\d)/"
    r"(?P<symbol>[\w.-]+?)\.csv(?:\.gz)?"
)


def recognise(name: str, folders: tuple[str, ...]) -> tuple[str, str, str, str, tuple[str, ...]] | None:
    """(venue, symbol, data set, "", days) of a mirrored path or of a flat name; no days where a flat name has none."""
    try:
        if match := _NESTED.fullmatch("/".join((*folders, name))):
            days = days_of(f"{match['y']}-{match['m']}-{match['d']}")
        elif match := _FLAT.fullmatch(name):
            when = match["first"] or match["last"]
            days = days_of(when) if when else ()
        else:
            return None
    except ValueError:
        return None
    symbol = match["symbol"].upper()
    return venue_of(match["exchange"], symbol), symbol, match["dataset"], "", days


def venue_of(exchange: str, symbol: str) -> str:
    """Our name of a venue: Tardis' `bybit` is two."""
    venue = VENUES.get(exchange, exchange.replace("-", "_"))
    return "bybit_inverse" if venue == "bybit" and _INVERSE.fullmatch(symbol) else venue


def address(venue: str, symbol: str, dataset: str, day: str) -> str:
    """The path below the host of the file that holds a day."""
    exchange = {ours: theirs for theirs, ours in VENUES.items()}.get(venue, venue.replace("_", "-"))
    exchange = "bybit" if venue == "bybit_inverse" else exchange
    return f"v1/{exchange}/{dataset}/{day.replace('-', '/')}/{symbol}.csv.gz"
