"""Bybit's public dumps: trades of public.bybit.com and order books of quote-saver.bycsi.com (section E.2).

Trade files give seconds with a fraction, older ones newest first. Inverse quantities are contracts of 1 USD, as in
Bybit's own streams. Order-book files are the WebSocket's messages line by line, read by the decoder that live capture
uses; best prices come from the rebuilt book, from five seconds after its start.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, get_args

import polars as pl

from core.schema import BOOK_DELTAS, GAPS, TOP_OF_BOOK, TRADES
from ingest.archives.columns import EXACT, assumed, rows_of, side_of_text, time_ns
from ingest.archives.csv_rows import Layout, csv_pieces, whole_lines
from ingest.archives.formats import BROKEN, OTHER_SYMBOL, ArchiveFile, Counts, Dataset, Piece, days_of
from ingest.bybit import BybitDecoder
from ingest.bybit_streams import Venue
from ingest.events import DecodeError, Event
from ingest.packing import TABLES, frame_of
from ingest.wire import epoch_ns

F64, TEXT = pl.Float64(), pl.String()
VENUES: Final = {"linear": "bybit", "spot": "bybit_spot", "inverse": "bybit_inverse"}
_CATEGORIES: Final = {venue: category for category, venue in VENUES.items()}
_LAST_OB500: Final = "2025-08-20"
_BATCH_EVENTS: Final = 50_000
_TIME: Final = re.compile(rb'"(cts|ts)":\s*(\d{10,16})')

_TRADING: Final = Layout(
    {
        "timestamp": EXACT, "symbol": TEXT, "side": TEXT, "size": F64, "price": F64, "tickDirection": None,
        "trdMatchID": TEXT, "grossValue": None, "homeNotional": None, "foreignNotional": None,
    },
    ("timestamp", "symbol", "side", "size", "price"),
)  # fmt: skip
_SPOT: Final = Layout(
    {"id": TEXT, "timestamp": EXACT, "price": F64, "volume": F64, "side": TEXT},
    ("timestamp", "price", "volume", "side"),
)


def _trading(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    own = counts.keep(frame, pl.col("symbol") == file.symbol, OTHER_SYMBOL)
    return [_trade_piece(own, "trdMatchID", "size", latency_ns, counts)]


def _spot(frame: pl.DataFrame, file: ArchiveFile, latency_ns: int, counts: Counts) -> list[Piece]:
    return [_trade_piece(frame, "id", "volume", latency_ns, counts)]


def _trade_piece(frame: pl.DataFrame, number: str, qty: str, latency_ns: int, counts: Counts) -> Piece:
    rows = rows_of(
        TRADES,
        frame,
        counts,
        *assumed(time_ns("timestamp"), latency_ns),
        pl.col(number).fill_null("").alias("trade_id"),
        pl.col("price"),
        pl.col(qty).alias("qty"),
        side_of_text("side").alias("taker_side"),
    )
    return Piece(TRADES, rows)


def _book(file: ArchiveFile, latency_ns: int, counts: Counts) -> Iterator[list[Piece]]:
    """Messages through the decoder, each as if received one latency after its own time."""
    assert file.venue in get_args(Venue)
    decoder = BybitDecoder(file.venue)  # type: ignore[arg-type]
    events: list[Event] = []
    last_ns = 0
    for line in _messages(file.path):
        counts.read += 1
        try:
            recv_ns = max(last_ns, _time_ns(line) + latency_ns)
            events += decoder.decode(line, recv_ns)
        except DecodeError as error:
            counts.drop(BROKEN, 1, [f"{error} in {line[:120].decode(errors='replace')}"])
        else:
            last_ns = recv_ns
        if len(events) >= _BATCH_EVENTS:
            yield _event_pieces(events, file.symbol, counts)
            events = []
    yield _event_pieces(events + decoder.finish(last_ns), file.symbol, counts)
    for why, messages in (decoder.ignored + decoder.repeated).items():
        counts.drop(why, messages, [])


def _messages(path: Path) -> Iterator[bytes]:
    for text in whole_lines(path):
        yield from (line for line in text.splitlines() if line.strip())


def _time_ns(message: bytes) -> int:
    """The matching engine's time where a message has it (since 2023-06), else the sender's. Raises DecodeError."""
    times = dict(_TIME.findall(message))
    return epoch_ns(int(times.get(b"cts") or times.get(b"ts") or 0))


def _event_pieces(events: list[Event], symbol: str, counts: Counts) -> list[Piece]:
    kinds: dict[type, list[Event]] = {}
    for event in events:
        if event.symbol == symbol:
            kinds.setdefault(type(event), []).append(event)
        else:
            counts.drop(OTHER_SYMBOL, 1, [event.symbol])
    pieces = []
    for kind, same in kinds.items():
        frame = frame_of(TABLES[kind], same)
        if TABLES[kind] is not GAPS:
            frame = frame.with_columns(pl.lit(True).alias("recv_assumed"))
        pieces.append(Piece(TABLES[kind], frame))
    return pieces


DATASETS: Final = (
    Dataset("trading", (TRADES,), csv_pieces(_TRADING, _trading), {"trades": ("trade_id",)}),
    Dataset("spot", (TRADES,), csv_pieces(_SPOT, _spot), {"trades": ("trade_id",)}),
    Dataset("orderbook", (BOOK_DELTAS, TOP_OF_BOOK), _book),
)
DEFAULT: Final = {
    "bybit": ("trading", "orderbook"),
    "bybit_inverse": ("trading", "orderbook"),
    "bybit_spot": ("spot", "orderbook"),
}
_DAY: Final = r"\d{4}-\d\d-\d\d"
_CATEGORY: Final = re.compile(r"(?:^|/)orderbook/(linear|spot|inverse)(?:/|$)")
_BOOK_NAME: Final = re.compile(rf"(?P<when>{_DAY})_(?P<symbol>[\w-]+)_ob\d+\.data(?:\.zip|\.gz)?")
_SPOT_NAME: Final = re.compile(rf"(?P<symbol>[\w-]+?)(?:_(?P<day>{_DAY})|-(?P<month>\d{{4}}-\d\d))\.csv(?:\.gz)?")
_TRADING_NAME: Final = re.compile(rf"(?P<symbol>[\w-]+?)(?P<when>{_DAY})\.csv(?:\.gz)?")
_INVERSE: Final = re.compile(r"\w+USD([FGHJKMNQUVXZ]\d\d)?")


def recognise(name: str, folders: tuple[str, ...]) -> tuple[str, str, str, str, tuple[str, ...]] | None:
    """(venue or "", symbol, data set, "", days) of a file name in its folders, or None if it is not ours."""
    category = _CATEGORY.search("/".join(folders))
    try:
        if match := _BOOK_NAME.fullmatch(name):
            venue = VENUES[category[1]] if category else _derivatives(match["symbol"], or_spot=True)
            return venue, match["symbol"], "orderbook", "", days_of(match["when"])
        if match := _SPOT_NAME.fullmatch(name):
            return VENUES["spot"], match["symbol"], "spot", "", days_of(match["day"] or match["month"])
        if match := _TRADING_NAME.fullmatch(name):
            return _derivatives(match["symbol"]), match["symbol"], "trading", "", days_of(match["when"])
    except ValueError:
        return None
    return None


def _derivatives(symbol: str, or_spot: bool = False) -> str:
    """Inverse contracts are quoted in USD, linear ones in USDT or USDC; `or_spot`: a linear name may be spot's too."""
    if _INVERSE.fullmatch(symbol):
        return VENUES["inverse"]
    return "" if or_spot else VENUES["linear"]


def address(venue: str, symbol: str, dataset: str, day: str) -> tuple[Literal["bybit", "bybit_books"], str]:
    """(which host, the path below it) of the file that holds a day."""
    if dataset == "trading":
        return "bybit", f"trading/{symbol}/{symbol}{day}.csv.gz"
    if dataset == "spot":
        return "bybit", f"spot/{symbol}/{symbol}_{day}.csv.gz"
    depth = 500 if day <= _LAST_OB500 else 200
    return "bybit_books", f"orderbook/{_CATEGORIES[venue]}/{symbol}/{day}_{symbol}_ob{depth}.data.zip"
