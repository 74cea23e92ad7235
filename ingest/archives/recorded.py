"""CSV files that people have recorded themselves, known by their columns: trades, and logs of forced orders.

They are read with `backfill.provider=recorded` alone. Whose they are say their columns `exchange` and `symbol`, their
names, and `symbols` (ingest/archives/claims.py). Times may be s, ms or us; a row has the taker's side or Binance's
maker flag.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import polars as pl

from core.errors import StageError
from core.schema import LIQUIDATIONS, TRADES
from ingest.archives.binance_vision import liquidation_rows
from ingest.archives.claims import first_row, owner, plain, spellings
from ingest.archives.columns import EXACT, assumed, rows_of, side_of_maker_flag, side_of_text, time_ns
from ingest.archives.csv_rows import Layout, csv_pieces, first_lines, read_rows
from ingest.archives.formats import OTHER_SYMBOL, ArchiveFile, Counts, Dataset, Piece

F64, TEXT = pl.Float64(), pl.String()
ALL_SYMBOLS: Final = "ALL"
"""The symbol of a file that holds all of a venue: each row names its own."""
_TRADES: Final = Layout(
    {
        "time": EXACT, "exchange": TEXT, "symbol": TEXT, "id": TEXT, "price": F64, "qty": F64, "side": TEXT,
        "is_buyer_maker": TEXT,
    },
    ("time", "price", "qty"),
    {
        "timestamp": "time",
        "unix_timestamp": "time",
        "unix_timestamp_ms": "time",
        "trade_id": "id",
        "quantity": "qty",
        "amount": "qty",
        "size": "qty",
        "volume": "qty",
        "market maker": "is_buyer_maker",
    },
)  # fmt: skip
_FORCED_ORDERS: Final = Layout(
    {
        "asset": TEXT, "side": TEXT, "order_type": None, "time_in_force": None, "original_quantity": F64, "price": F64,
        "average_price": F64, "order_status": None, "last_fill_quantity": None, "accumulated_fill_quantity": F64,
        "time": pl.Int64(), "usd": None,
    },
    ("asset", "side", "original_quantity", "price", "time"),
)  # fmt: skip


def _trades(file: ArchiveFile, latency_ns: int, counts: Counts) -> Iterator[list[Piece]]:
    for frame in read_rows(file.path, _TRADES, counts):
        rows = rows_of(
            TRADES,
            counts.keep(frame, _is_of(file), OTHER_SYMBOL),
            counts,
            *assumed(time_ns("time"), latency_ns),
            pl.col("id").fill_null("").alias("trade_id"),
            pl.col("price"),
            pl.col("qty"),
            pl.coalesce(side_of_text("side"), side_of_maker_flag("is_buyer_maker")).alias("taker_side"),
        )
        yield [Piece(TRADES, rows)]


def _is_of(file: ArchiveFile) -> pl.Expr:
    """Rows of the file's own symbol and venue, as far as they name one."""
    exchange, symbol = pl.col("exchange"), pl.col("symbol").str.replace_all(r"[-_/:\s]", "").str.to_uppercase()
    is_here = exchange.is_null() | exchange.str.to_lowercase().is_in(spellings(file.venue))
    return is_here & (symbol.is_null() | (symbol == plain(file.symbol)))


def _forced_orders(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """Symbols are written without the USDT that all of them are quoted in."""
    symbol = (pl.col("asset").str.to_uppercase() + "USDT").alias("symbol")
    return [Piece(LIQUIDATIONS, liquidation_rows(frame, latency_ns, counts, symbol))]


_WHOLE_ROW: Final = ("symbol", "exch_ns", "liquidated", "price", "qty")
DATASETS: Final = (
    Dataset("trades", (TRADES,), _trades, {"trades": ("trade_id",)}),
    Dataset("forceOrder", (LIQUIDATIONS,), csv_pieces(_FORCED_ORDERS, _forced_orders), {"liquidations": _WHOLE_ROW}),
)


_SPOT: Final = frozenset({"binance", "bybit_spot"})
"""Venues that liquidate nobody: a log of forced orders is of another."""


def recognise(path: Path, symbols: tuple[str, ...]) -> tuple[str, str, str]:
    """(venue, symbol, data set) of a file by its first line. Raises StageError with what it would take."""
    head = first_lines(path, 1)[0].split(",")
    if len(head) >= len(_FORCED_ORDERS.columns) and head[1].strip() in ("BUY", "SELL"):
        venues = sorted({name.partition(":")[0] for name in symbols} - _SPOT or {"binance_um"})
        if len(venues) == 1:
            return venues[0], ALL_SYMBOLS, "forceOrder"
        raise StageError(f"it logs forced orders of one venue, `symbols` names {', '.join(venues)}")
    missing = set(_TRADES.needed) - {_TRADES.name_of(heading) for heading in head}
    if missing:
        raise StageError(f"no column for {', '.join(sorted(missing))} in {','.join(head)[:120]!r}")
    venue, _, symbol = owner(path, first_row(path), symbols).partition(":")
    return venue, symbol, "trades"
