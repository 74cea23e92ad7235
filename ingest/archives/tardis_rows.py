"""What all files of Tardis have in common: the first four columns, the clocks, symbols, best prices."""

from collections.abc import Mapping
from typing import Final

import polars as pl

from core.schema import TOP_OF_BOOK
from ingest.archives.columns import rows_of, time_ns
from ingest.archives.csv_rows import Layout
from ingest.archives.formats import OTHER_SYMBOL, ArchiveFile, Counts, Piece

I64, F64, TEXT = pl.Int64(), pl.Float64(), pl.String()
GROUPS: Final = ("SPOT", "FUTURES", "PERPETUALS", "OPTIONS")
"""Names of files that hold all instruments of a kind."""
ONE_SIDED: Final = "one side of the book empty"
HEAD: Final[dict[str, pl.DataType | None]] = {
    "exchange": None,
    "symbol": TEXT,
    "timestamp": I64,
    "local_timestamp": I64,
}
TIMES: Final = ("timestamp", "local_timestamp")


def layout(columns: Mapping[str, pl.DataType | None], *needed: str) -> Layout:
    return Layout({**HEAD, **columns}, ("symbol", *TIMES, *needed))


def clocks() -> list[pl.Expr]:
    return [
        time_ns("timestamp").alias("exch_ns"),
        time_ns("local_timestamp").alias("recv_ns"),
        pl.lit(False).alias("recv_assumed"),
    ]


def own_rows(frame: pl.DataFrame, file: ArchiveFile, counts: Counts) -> tuple[pl.DataFrame, list[pl.Expr]]:
    """The rows of the file's own symbol; in a file of a whole group all rows, and the column that tells them apart."""
    if file.symbol in GROUPS:
        return frame, [safe_symbol(pl.col("symbol")).alias("symbol")]
    return counts.keep(frame, safe_symbol(pl.col("symbol")) == file.symbol, OTHER_SYMBOL), []


def safe_symbol(symbol: pl.Expr) -> pl.Expr:
    """Symbols as Tardis' own file names have them."""
    return symbol.str.replace_all(r"[/:]", "-").str.to_uppercase()


def top_piece(frame: pl.DataFrame, counts: Counts, symbol: list[pl.Expr], names: tuple[str, ...]) -> Piece:
    """Tardis has no update ids: 0 stands for none."""
    whole = counts.keep(frame, pl.all_horizontal(pl.col(names).is_not_null()), ONE_SIDED)
    columns = zip(("bid_price", "bid_qty", "ask_price", "ask_qty"), names, strict=True)
    rows = rows_of(
        TOP_OF_BOOK,
        whole,
        counts,
        *clocks(),
        pl.lit(0, pl.Int64).alias("update_id"),
        *(pl.col(name).alias(ours) for ours, name in columns),
        pl.lit(False).alias("exch_assumed"),
        *symbol,
    )
    return Piece(TOP_OF_BOOK, rows)
