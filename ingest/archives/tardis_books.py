"""Books in Tardis' files: changes as they came, and snapshots of some levels."""

from collections.abc import Callable, Iterator
from typing import Final

import polars as pl

from core.gaps import told_at_their_ends
from core.schema import BOOK_DELTAS, BOOK_SIDE, GAPS
from core.units import NS_PER_US
from ingest.archives.columns import chosen, rows_of, time_ns
from ingest.archives.csv_rows import csv_pieces, read_rows
from ingest.archives.formats import BROKEN, ArchiveFile, Counts, Piece
from ingest.archives.tardis_rows import clocks, layout, own_rows, top_piece

F64, TEXT = pl.Float64(), pl.String()
BEFORE_SNAPSHOT: Final = "before the first snapshot"
SIDES: Final = ("bid", "ask")
_L2: Final = layout(
    {"is_snapshot": TEXT, "side": TEXT, "price": F64, "amount": F64}, "is_snapshot", "side", "price", "amount"
)


def incremental(file: ArchiveFile, latency_ns: int, counts: Counts) -> Iterator[list[Piece]]:
    """Changes as they are; where `is_snapshot` turns true the book starts over, which is a mended gap.

    Only the message that begins a snapshot replaces the book: Tardis may send one in several, of which the later ones
    add levels. Rows of one local_timestamp are one message, and its time is its update id.
    """
    was_snapshot, last_ns, began_ns = False, 0, 0
    for frame in read_rows(file.path, _L2, counts):
        own, _ = own_rows(frame, file, counts)
        marked = own.with_columns(
            chosen("is_snapshot", {"true": "true", "false": "false"}, TEXT).eq("true").alias("is_snapshot"),
            time_ns("local_timestamp").alias("recv_ns"),
        )
        marked = counts.keep(marked, pl.col("recv_ns").is_not_null() & pl.col("is_snapshot").is_not_null(), BROKEN)
        if not last_ns:
            started = pl.col("is_snapshot").cast(pl.Int8).cum_max() == 1
            marked = counts.keep(marked, started, BEFORE_SNAPSHOT)
        if not marked.height:
            continue
        before = pl.col("is_snapshot").shift(1, fill_value=was_snapshot)
        starts = marked.filter(pl.col("is_snapshot") & ~before)["recv_ns"].to_list()
        begins = pl.col("recv_ns").is_in([*starts, began_ns])
        yield [
            Piece(BOOK_DELTAS, _changes(marked, begins, counts)),
            *_restarts(file, marked, starts if last_ns else starts[1:], last_ns),
        ]
        was_snapshot, last_ns = marked["is_snapshot"][-1], marked["recv_ns"][-1]
        began_ns = starts[-1] if starts else began_ns


def _changes(marked: pl.DataFrame, begins: pl.Expr, counts: Counts) -> pl.DataFrame:
    return rows_of(
        BOOK_DELTAS,
        marked,
        counts,
        *clocks(),
        (pl.col("recv_ns") // NS_PER_US).alias("update_id"),
        chosen("side", {"bid": "bid", "ask": "ask"}, BOOK_SIDE).alias("side"),
        pl.col("price"),
        pl.col("amount").alias("qty"),
        (pl.col("is_snapshot") & begins).alias("is_snapshot"),
    )


def _restarts(file: ArchiveFile, marked: pl.DataFrame, starts: list[int], last_ns: int) -> list[Piece]:
    """A gap from the last message before each new snapshot to that snapshot."""
    times = marked["recv_ns"]
    rows = []
    for start_ns in starts:
        at = int(times.search_sorted(start_ns))
        from_ns = times[at - 1] if at else last_ns
        rows.append((BOOK_DELTAS.name, from_ns, start_ns, "Tardis' recorder connected again", True))
    return [Piece(GAPS, told_at_their_ends(rows))] if rows else []


def snapshots(depth: int) -> Callable[[ArchiveFile, int, Counts], Iterator[list[Piece]]]:
    """`book_snapshot_N`: each row is a whole book of N levels, and its first level the best prices."""
    levels = [
        f"{side}s[{level}].{what}" for level in range(depth) for side in ("ask", "bid") for what in ("price", "amount")
    ]
    columns = layout(dict.fromkeys(levels, F64))

    def convert(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
        own, symbol = own_rows(frame, file, counts)
        best = "bids[0].price", "bids[0].amount", "asks[0].price", "asks[0].amount"
        changes = rows_of(
            BOOK_DELTAS,
            _long(own.with_row_index("row"), depth),
            counts,
            *clocks(),
            (time_ns("local_timestamp") // NS_PER_US).alias("update_id"),
            pl.col("side"),
            pl.col("price"),
            pl.col("amount").alias("qty"),
            pl.lit(True).alias("is_snapshot"),
            *symbol,
        )
        return [Piece(BOOK_DELTAS, changes), top_piece(own, counts, symbol, best)]

    return csv_pieces(columns, convert)


def _long(frame: pl.DataFrame, depth: int) -> pl.DataFrame:
    """One row per level that is there: per book the bids from the best outwards, then the asks."""
    sides = [
        frame.select(
            "row",
            "symbol",
            "timestamp",
            "local_timestamp",
            pl.lit(side).cast(BOOK_SIDE).alias("side"),
            *(
                pl.concat_list(f"{side}s[{level}].{what}" for level in range(depth)).alias(what)
                for what in ("price", "amount")
            ),
        ).explode("price", "amount")
        for side in SIDES
    ]
    there = pl.col("price").is_not_null() & pl.col("amount").is_not_null()
    return pl.concat(sides).filter(there).sort("row", maintain_order=True)
