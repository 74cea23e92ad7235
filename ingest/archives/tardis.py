"""Tardis CSV files (exchange_protocols.md section E.4): one header for all venues, both clocks in microseconds.

`local_timestamp` is when Tardis' recorder received the message, a real receive time. Quantities are as the venue
counts them (contracts on COIN-M and inverse markets). Days are cut by the receive clock.
"""

import re
from collections.abc import Callable, Iterator
from typing import Final

import polars as pl

from core.schema import (
    BOOK_DELTAS,
    BOOK_SIDE,
    GAPS,
    LIQUIDATED,
    LIQUIDATIONS,
    MARK_PRICES,
    OPTION_TYPE,
    OPTIONS,
    TOP_OF_BOOK,
    TRADES,
    Table,
)
from core.units import NS_PER_US
from ingest.archives.columns import chosen, rows_of, side_of_text, time_ns
from ingest.archives.csv_rows import Layout, csv_pieces, read_rows
from ingest.archives.formats import OTHER_SYMBOL, ArchiveFile, Counts, Dataset, Piece, days_of

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
GROUPS: Final = ("SPOT", "FUTURES", "PERPETUALS", "OPTIONS")
"""Names of files that hold all instruments of a kind."""
BEFORE_SNAPSHOT: Final = "before the first snapshot"
ONE_SIDED: Final = "one side of the book empty"
NO_MARK: Final = "no mark price"
_HEAD: Final[dict[str, pl.DataType]] = {"exchange": TEXT, "symbol": TEXT, "timestamp": I64, "local_timestamp": I64}
_TIMES: Final = ("timestamp", "local_timestamp")


def _layout(columns: dict[str, pl.DataType], *needed: str) -> Layout:
    return Layout({**_HEAD, **columns}, ("symbol", *_TIMES, *needed))


_ORDER: Final = _layout({"id": TEXT, "side": TEXT, "price": F64, "amount": F64}, "side", "price", "amount")
_QUOTES: Final = _layout({"ask_amount": F64, "ask_price": F64, "bid_price": F64, "bid_amount": F64})
_L2: Final = _layout(
    {"is_snapshot": TEXT, "side": TEXT, "price": F64, "amount": F64}, "is_snapshot", "side", "price", "amount"
)
_DERIVATIVES: Final = _layout(
    {
        "funding_timestamp": I64, "funding_rate": F64, "predicted_funding_rate": F64, "open_interest": F64,
        "last_price": F64, "index_price": F64, "mark_price": F64,
    },
)  # fmt: skip
_OPTIONS: Final = _layout(
    {
        "type": TEXT, "strike_price": F64, "expiration": I64, "open_interest": F64, "last_price": F64,
        "bid_price": F64, "bid_amount": F64, "bid_iv": F64, "ask_price": F64, "ask_amount": F64, "ask_iv": F64,
        "mark_price": F64, "mark_iv": F64, "underlying_index": TEXT, "underlying_price": F64,
        "delta": F64, "gamma": F64, "vega": F64, "theta": F64, "rho": F64,
    },
    "type", "strike_price", "expiration",
)  # fmt: skip
_SIDES: Final = ("bid", "ask")


def _clocks() -> list[pl.Expr]:
    return [
        time_ns("timestamp").alias("exch_ns"),
        time_ns("local_timestamp").alias("recv_ns"),
        pl.lit(False).alias("recv_assumed"),
    ]


def _own(frame: pl.DataFrame, file: ArchiveFile, counts: Counts) -> tuple[pl.DataFrame, list[pl.Expr]]:
    """The rows of the file's own symbol; in a file of a whole group all rows, and the column that tells them apart."""
    if file.symbol in GROUPS:
        return frame, [_safe(pl.col("symbol")).alias("symbol")]
    return counts.keep(frame, _safe(pl.col("symbol")) == file.symbol, OTHER_SYMBOL), []


def _safe(symbol: pl.Expr) -> pl.Expr:
    """Symbols as Tardis' own file names have them."""
    return symbol.str.replace_all(r"[/:]", "-").str.to_uppercase()


def _trades(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    own, symbol = _own(frame, file, counts)
    rows = rows_of(
        TRADES,
        own,
        counts,
        *_clocks(),
        pl.col("id").fill_null("").alias("trade_id"),
        pl.col("price"),
        pl.col("amount").alias("qty"),
        side_of_text("side").alias("taker_side"),
        *symbol,
    )
    return [Piece(TRADES, rows)]


def _liquidations(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """`side` is the closing order's for every venue: sell closes a long."""
    own, symbol = _own(frame, file, counts)
    rows = rows_of(
        LIQUIDATIONS,
        own,
        counts,
        *_clocks(),
        chosen("side", {"sell": "long", "buy": "short"}, LIQUIDATED).alias("liquidated"),
        pl.col("price"),
        pl.col("amount").alias("qty"),
        *symbol,
    )
    return [Piece(LIQUIDATIONS, rows)]


def _quotes(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    own, symbol = _own(frame, file, counts)
    return [_top_piece(own, counts, symbol, ("bid_price", "bid_amount", "ask_price", "ask_amount"))]


def _top_piece(frame: pl.DataFrame, counts: Counts, symbol: list[pl.Expr], names: tuple[str, ...]) -> Piece:
    """Tardis has no update ids: 0 stands for none."""
    whole = counts.keep(frame, pl.all_horizontal(pl.col(names).is_not_null()), ONE_SIDED)
    columns = zip(("bid_price", "bid_qty", "ask_price", "ask_qty"), names, strict=True)
    rows = rows_of(
        TOP_OF_BOOK,
        whole,
        counts,
        *_clocks(),
        pl.lit(0, pl.Int64).alias("update_id"),
        *(pl.col(name).alias(ours) for ours, name in columns),
        pl.lit(False).alias("exch_assumed"),
        *symbol,
    )
    return Piece(TOP_OF_BOOK, rows)


def _derivative_ticker(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    """Bybit counts open interest on both sides, the others on one."""
    own, symbol = _own(frame, file, counts)
    share = 0.5 if file.venue.startswith("bybit") else 1.0
    rows = rows_of(
        MARK_PRICES,
        counts.keep(own, pl.col("mark_price").is_not_null(), NO_MARK),
        counts,
        *_clocks(),
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
        *_clocks(),
        pl.col("symbol").alias("instrument"),
        chosen("type", {"call": "call", "put": "put"}, OPTION_TYPE).alias("option_type"),
        pl.col("strike_price"),
        time_ns("expiration").alias("expiry_ns"),
        *(pl.col(f"{side}_{name}") for side in ("bid", "ask") for name in ("price",)),
        *(pl.col(f"{side}_amount").alias(f"{side}_qty") for side in _SIDES),
        *(pl.col(f"{side}_iv").alias(f"{side}_iv_pct") for side in ("bid", "ask", "mark")),
        pl.col("mark_price"),
        *(pl.col(name) for name in (*same, "rho")),
        _safe(pl.col("symbol")).str.extract(r"^([A-Z0-9]+)").alias("symbol"),
    )
    return [Piece(OPTIONS, rows)]


def _incremental(file: ArchiveFile, latency_ns: int, counts: Counts) -> Iterator[list[Piece]]:
    """Changes as they are; where `is_snapshot` turns true the book starts over, which is a mended gap.

    Only the message that begins a snapshot replaces the book: Tardis may send one in several, of which the later ones
    add levels. Rows of one local_timestamp are one message, and its time is its update id.
    """
    was_snapshot, last_ns, began_ns = False, 0, 0
    for frame in read_rows(file.path, _L2, counts):
        own, _ = _own(frame, file, counts)
        marked = own.with_columns(
            chosen("is_snapshot", {"true": "true", "false": "false"}, TEXT).eq("true").alias("is_snapshot"),
            time_ns("local_timestamp").alias("recv_ns"),
        )
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
        *_clocks(),
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
    return [Piece(GAPS, pl.DataFrame(rows, schema=GAPS.columns, orient="row"))] if rows else []


def _snapshots(depth: int) -> Callable[[ArchiveFile, int, Counts], Iterator[list[Piece]]]:
    """`book_snapshot_N`: each row is a whole book of N levels, and its first level the best prices."""
    levels = [
        f"{side}s[{level}].{what}" for level in range(depth) for side in ("ask", "bid") for what in ("price", "amount")
    ]
    layout = _layout(dict.fromkeys(levels, F64))

    def convert(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
        own, symbol = _own(frame, file, counts)
        best = "bids[0].price", "bids[0].amount", "asks[0].price", "asks[0].amount"
        changes = rows_of(
            BOOK_DELTAS,
            _long(own.with_row_index("row"), depth),
            counts,
            *_clocks(),
            (time_ns("local_timestamp") // NS_PER_US).alias("update_id"),
            pl.col("side"),
            pl.col("price"),
            pl.col("amount").alias("qty"),
            pl.lit(True).alias("is_snapshot"),
            *symbol,
        )
        return [Piece(BOOK_DELTAS, changes), _top_piece(own, counts, symbol, best)]

    return csv_pieces(layout, convert)


def _long(frame: pl.DataFrame, depth: int) -> pl.DataFrame:
    """One row per level that is there: per book the bids from the best outwards, then the asks."""
    sides = [
        frame.select(
            "row",
            *_HEAD,
            pl.lit(side).cast(BOOK_SIDE).alias("side"),
            *(
                pl.concat_list(f"{side}s[{level}].{what}" for level in range(depth)).alias(what)
                for what in ("price", "amount")
            ),
        ).explode("price", "amount")
        for side in _SIDES
    ]
    there = pl.col("price").is_not_null() & pl.col("amount").is_not_null()
    return pl.concat(sides).filter(there).sort("row", maintain_order=True)


def _dataset(name: str, table: Table, layout: Layout, convert: Callable[..., list[Piece]], *unique: str) -> Dataset:
    keys = {table.name: unique} if unique else {}
    return Dataset(name, (table,), csv_pieces(layout, convert), keys, day_column="recv_ns")


_BOOK_TABLES: Final = (BOOK_DELTAS, TOP_OF_BOOK)
DATASETS: Final = (
    _dataset("trades", TRADES, _ORDER, _trades, "trade_id"),
    _dataset("book_ticker", TOP_OF_BOOK, _QUOTES, _quotes),
    _dataset("quotes", TOP_OF_BOOK, _QUOTES, _quotes),
    Dataset("incremental_book_L2", (BOOK_DELTAS,), _incremental, day_column="recv_ns"),
    Dataset("book_snapshot_25", _BOOK_TABLES, _snapshots(25), day_column="recv_ns"),
    Dataset("book_snapshot_5", _BOOK_TABLES, _snapshots(5), day_column="recv_ns"),
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
