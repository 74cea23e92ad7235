"""Bybit's dumps, as they are written, by hand; order books against the decoder that live capture uses."""

import json
from pathlib import Path

import polars as pl
import pytest

from core.schema import BOOK_DELTAS, TOP_OF_BOOK, check
from ingest.archives.bybit_dumps import DATASETS, address, recognise
from ingest.archives.formats import BROKEN, OTHER_SYMBOL, days_of
from tests.ingest.archive_files import archive_file, converted, gzipped, zipped

TRADING, SPOT, BOOK = DATASETS
MS = 1_000_000
START_MS = 1_755_734_400_000


def test_seconds_with_a_fraction_are_read_exactly(tmp_path: Path) -> None:
    text = (
        "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional,RPI\n"
        "1755734400.1234,BTCUSDT,Buy,0.5,113000.1,PlusTick,abc,1,0.5,56500.05,0\n"
        "1755734400,BTCUSDT,Sell,0.25,113000.0,MinusTick,def,1,0.25,28250,1\n"
        "1755734400,ETHUSDT,Sell,0.25,113000.0,MinusTick,ghi,1,0.25,28250,1\n"
    )
    path = gzipped(tmp_path / "BTCUSDT2025-08-21.csv.gz", text)
    tables, counts = converted(TRADING, archive_file(path, "bybit", "trading", "bybit:BTCUSDT"), 7)
    ns = START_MS * MS
    assert tables["trades"].rows() == [
        (ns + 123_400_000, ns + 123_400_007, "abc", 113000.1, 0.5, "buy", True),
        (ns, ns + 7, "def", 113000.0, 0.25, "sell", True),
    ]
    assert counts.dropped == {OTHER_SYMBOL: 1}


@pytest.mark.parametrize("header", ["id,timestamp,price,volume,side\n", "id,timestamp,price,volume,side,rpi\n", ""])
def test_spot_trades_are_in_ms_and_in_lower_case(tmp_path: Path, header: str) -> None:
    extra = ",0" if header.endswith("rpi\n") else ""
    text = f"{header}1,{START_MS},113000.1,0.5,buy{extra}\n2,{START_MS + 1},113000.0,0.25,sell{extra}\n"
    path = gzipped(tmp_path / "BTCUSDT_2025-08-21.csv.gz", text)
    tables, _ = converted(SPOT, archive_file(path, "bybit", "spot", "bybit_spot:BTCUSDT"))
    assert tables["trades"].select("exch_ns", "trade_id", "taker_side").rows() == [
        (START_MS * MS, "1", "buy"),
        ((START_MS + 1) * MS, "2", "sell"),
    ]


def message(kind: str, number: int, ms: int, bids: list[list[str]], asks: list[list[str]]) -> str:
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": number, "seq": number}
    body = {"topic": "orderbook.200.BTCUSDT", "ts": ms + 2, "type": kind, "data": data, "cts": ms}
    return json.dumps(body, separators=(",", ":"))


BOOK_LINES = [
    message("snapshot", 1, START_MS, [["100.0", "1"], ["99.9", "2"]], [["100.1", "3"]]),
    message("delta", 2, START_MS + 100, [["99.9", "0"]], []),
    '{"topic":"orderbook.200.BTCUSDT","ts":17557344',
    message("delta", 3, START_MS + 6_000, [["100.05", "4"]], []),
    message("delta", 5, START_MS + 6_100, [["100.06", "4"]], []),
    message("snapshot", 9, START_MS + 7_000, [["100.0", "1"]], [["100.1", "3"]]),
]


def test_order_books_come_through_the_decoder_of_live_capture(tmp_path: Path) -> None:
    path = zipped(tmp_path / "2025-08-21_BTCUSDT_ob200.data.zip", "\n".join(BOOK_LINES) + "\n")
    tables, counts = converted(BOOK, archive_file(path, "bybit", "orderbook", "bybit:BTCUSDT"), 5 * MS)
    deltas = tables["book_deltas"]
    check(BOOK_DELTAS, deltas)
    assert deltas.select("exch_ns", "recv_ns", "update_id", "side", "price", "qty", "is_snapshot").rows() == [
        (START_MS * MS, (START_MS + 5) * MS, 1, "bid", 100.0, 1.0, True),
        (START_MS * MS, (START_MS + 5) * MS, 1, "bid", 99.9, 2.0, True),
        (START_MS * MS, (START_MS + 5) * MS, 1, "ask", 100.1, 3.0, True),
        ((START_MS + 100) * MS, (START_MS + 105) * MS, 2, "bid", 99.9, 0.0, False),
        ((START_MS + 6_000) * MS, (START_MS + 6_005) * MS, 3, "bid", 100.05, 4.0, False),
        ((START_MS + 6_100) * MS, (START_MS + 6_105) * MS, 5, "bid", 100.06, 4.0, False),
        ((START_MS + 7_000) * MS, (START_MS + 7_005) * MS, 9, "bid", 100.0, 1.0, True),
        ((START_MS + 7_000) * MS, (START_MS + 7_005) * MS, 9, "ask", 100.1, 3.0, True),
    ]
    assert deltas["recv_assumed"].all()
    assert counts.read == len(BOOK_LINES)
    assert counts.dropped == {BROKEN: 1}


def test_best_prices_are_those_of_the_rebuilt_book(tmp_path: Path) -> None:
    path = zipped(tmp_path / "2025-08-21_BTCUSDT_ob200.data.zip", "\n".join(BOOK_LINES))
    tables, _ = converted(BOOK, archive_file(path, "bybit", "orderbook", "bybit:BTCUSDT"))
    tops = tables["top_of_book"]
    check(TOP_OF_BOOK, tops)
    assert tops.select("update_id", "bid_price", "bid_qty", "ask_price", "ask_qty").rows() == [
        (3, 100.05, 4.0, 100.1, 3.0),
        (9, 100.0, 1.0, 100.1, 3.0),
    ]


def test_an_update_that_does_not_follow_is_a_gap(tmp_path: Path) -> None:
    path = zipped(tmp_path / "2025-08-21_BTCUSDT_ob200.data.zip", "\n".join(BOOK_LINES))
    tables, _ = converted(BOOK, archive_file(path, "bybit", "orderbook", "bybit:BTCUSDT"))
    gaps = tables["gaps"].filter(pl.col("stream") == "book_deltas")
    assert gaps.select("from_ns", "to_ns", "mended").rows() == [
        ((START_MS + 6_000) * MS, (START_MS + 6_100) * MS, False),
        ((START_MS + 6_100) * MS, (START_MS + 7_000) * MS, True),
    ]


@pytest.mark.parametrize(
    ("venue", "symbol", "dataset", "day"),
    [
        ("bybit", "BTCUSDT", "trading", "2025-08-21"),
        ("bybit", "BTCPERP", "trading", "2025-08-21"),
        ("bybit", "BTC-27DEC24", "trading", "2024-08-21"),
        ("bybit_inverse", "BTCUSD", "trading", "2019-10-01"),
        ("bybit_inverse", "BTCUSDH24", "trading", "2024-01-01"),
        ("bybit_spot", "BTCUSDT", "spot", "2025-08-21"),
        ("bybit", "BTCUSDT", "orderbook", "2025-08-20"),
        ("bybit_spot", "BTCUSDT", "orderbook", "2025-08-21"),
        ("bybit_inverse", "BTCUSD", "orderbook", "2025-08-21"),
    ],
)
def test_a_name_that_was_asked_for_is_recognised(venue: str, symbol: str, dataset: str, day: str) -> None:
    host, path = address(venue, symbol, dataset, day)
    *folders, name = path.split("/")
    assert recognise(name, tuple(folders)) == (venue, symbol, dataset, "", days_of(day))
    assert host == ("bybit_books" if dataset == "orderbook" else "bybit")


def test_books_were_cut_from_500_to_200_levels_on_a_day() -> None:
    assert address("bybit", "BTCUSDT", "orderbook", "2025-08-20")[1].endswith("2025-08-20_BTCUSDT_ob500.data.zip")
    assert address("bybit", "BTCUSDT", "orderbook", "2025-08-21")[1].endswith("2025-08-21_BTCUSDT_ob200.data.zip")


def test_a_flat_book_may_be_spots_or_a_perpetuals() -> None:
    found = recognise("2025-08-21_BTCUSDT_ob200.data.zip", ("downloads",))
    assert found is not None
    assert found[0] == ""
