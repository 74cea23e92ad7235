"""Tardis' files, as they are written, by hand."""

from pathlib import Path

import polars as pl
import pytest

from core.schema import BOOK_DELTAS, OPTIONS, check
from core.units import NS_PER_US
from ingest.archives.formats import BROKEN, OTHER_SYMBOL, Counts, Dataset, days_of
from ingest.archives.tardis import DATASETS, NO_MARK, address, recognise, venue_of
from ingest.archives.tardis_books import BEFORE_SNAPSHOT
from ingest.archives.tardis_rows import ONE_SIDED
from tests.ingest.archive_files import archive_file, converted, gzipped

BY_NAME: dict[str, Dataset] = {dataset.name: dataset for dataset in DATASETS}
T_US = 1_582_329_600_000_000
DAYS = ("2020-02-22",)
HEAD = "exchange,symbol,timestamp,local_timestamp"


def read(
    tmp_path: Path, dataset: str, header: str, lines: list[str], instrument: str = "binance_um:BTCUSDT"
) -> tuple[dict[str, pl.DataFrame], Counts]:
    """Lines are given without exchange and symbol, with times in us after the start."""
    full = [f"binance-futures,BTCUSDT,{line}" if line[0].isdigit() else line for line in lines]
    path = gzipped(tmp_path / "a.csv.gz", "\n".join([f"{HEAD},{header}", *full]) + "\n")
    return converted(BY_NAME[dataset], archive_file(path, "tardis", dataset, instrument), latency_ns=999)


def at(exch_us: int, recv_us: int) -> str:
    return f"{T_US + exch_us},{T_US + recv_us}"


def ns(us: int) -> int:
    return (T_US + us) * NS_PER_US


def test_trades_have_a_receive_time_that_was_measured(tmp_path: Path) -> None:
    lines = [f"{at(0, 5)},77,buy,9682,0.132", f"{at(1, 6)},,sell,9682.5,1", f"{at(2, 7)},79,unknown,9682.5,1"]
    tables, counts = read(tmp_path, "trades", "id,side,price,amount", lines)
    assert tables["trades"].rows() == [
        (ns(0), ns(5), "77", 9682.0, 0.132, "buy", False),
        (ns(1), ns(6), "", 9682.5, 1.0, "sell", False),
    ]
    assert counts.dropped == {BROKEN: 1}


@pytest.mark.parametrize("dataset", ["quotes", "book_ticker"])
def test_quotes_stand_with_the_ask_first(tmp_path: Path, dataset: str) -> None:
    lines = [f"{at(0, 5)},0.84,9682,9681.92,0.67", f"{at(0, 6)},,,9681.92,0.67"]
    tables, counts = read(tmp_path, dataset, "ask_amount,ask_price,bid_price,bid_amount", lines)
    assert tables["top_of_book"].rows() == [(ns(0), ns(5), 0, 9681.92, 0.67, 9682.0, 0.84, False, False)]
    assert counts.dropped == {ONE_SIDED: 1}


def test_a_forced_sale_closed_a_long(tmp_path: Path) -> None:
    lines = [f"{at(0, 5)},1,sell,9682,0.132", f"{at(0, 5)},2,buy,9683,0.1"]
    tables, _ = read(tmp_path, "liquidations", "id,side,price,amount", lines)
    assert tables["liquidations"]["liquidated"].to_list() == ["long", "short"]


@pytest.mark.parametrize(("venue", "open_interest"), [("binance_um", 5000.0), ("bybit", 2500.0)])
def test_derivative_tickers_keep_what_is_unknown_null_and_count_one_side(
    tmp_path: Path, venue: str, open_interest: float
) -> None:
    header = "funding_timestamp,funding_rate,predicted_funding_rate,open_interest,last_price,index_price,mark_price"
    lines = [f"{at(0, 5)},{T_US + 99},0.0001,,5000,9000,9001,9002", f"{at(0, 6)},,,,,,,9003", f"{at(0, 7)},,,,,9000,,"]
    tables, counts = read(tmp_path, "derivative_ticker", header, lines, f"{venue}:BTCUSDT")
    assert tables["mark_prices"].rows() == [
        (ns(0), ns(5), 9002.0, 9001.0, 0.0001, ns(99), open_interest, False),
        (ns(0), ns(6), 9003.0, None, None, None, None, False),
    ]
    assert counts.dropped == {NO_MARK: 1}


def test_a_book_begins_with_its_snapshot_and_starts_over_with_the_next(tmp_path: Path) -> None:
    lines = [
        f"{at(0, 1)},false,bid,100,1",  # before any snapshot
        f"{at(0, 1)},maybe,bid,100,1",
        f"{T_US},12345,true,bid,100,1",
        f"{at(0, 2)},true,bid,100,1",
        f"{at(0, 2)},true,ask,101,2",
        f"{at(0, 3)},true,ask,102,3",  # the same snapshot, in a second message: it adds
        f"{at(0, 4)},false,bid,100,0",
        f"{at(0, 4)},false,bid,99,5",
        f"{at(0, 9)},true,bid,98,1",  # connected again
        f"{at(0, 10)},false,ask,101,1",
    ]
    tables, counts = read(tmp_path, "incremental_book_L2", "is_snapshot,side,price,amount", lines)
    deltas = tables["book_deltas"]
    check(BOOK_DELTAS, deltas)
    assert deltas.select("recv_ns", "update_id", "side", "price", "qty", "is_snapshot").rows() == [
        (ns(2), T_US + 2, "bid", 100.0, 1.0, True),
        (ns(2), T_US + 2, "ask", 101.0, 2.0, True),
        (ns(3), T_US + 3, "ask", 102.0, 3.0, False),
        (ns(4), T_US + 4, "bid", 100.0, 0.0, False),
        (ns(4), T_US + 4, "bid", 99.0, 5.0, False),
        (ns(9), T_US + 9, "bid", 98.0, 1.0, True),
        (ns(10), T_US + 10, "ask", 101.0, 1.0, False),
    ]
    gaps = tables["gaps"].select("stream", "from_ns", "to_ns", "mended").rows()
    assert gaps == [("book_deltas", ns(4), ns(9), True)]
    assert counts.dropped == {BEFORE_SNAPSHOT: 1, BROKEN: 2}


def test_a_book_reads_the_same_however_the_file_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for message in range(60):
        flag = str(message % 20 < 3 and message > 0).lower()
        lines += [
            f"{at(message, message + 5)},{flag},{side},{100 + level},{message}"
            for level, side in enumerate(("bid", "ask"))
        ]
    whole, _ = read(tmp_path, "incremental_book_L2", "is_snapshot,side,price,amount", lines)
    monkeypatch.setattr("ingest.archives.csv_rows.PIECE_BYTES", 130)
    cut, _ = read(tmp_path, "incremental_book_L2", "is_snapshot,side,price,amount", lines)
    for table in ("book_deltas", "gaps"):
        assert cut[table].rows() == whole[table].rows()


def test_a_snapshot_row_is_a_whole_book_and_its_first_level_the_best_prices(tmp_path: Path) -> None:
    header = ",".join(
        f"{side}s[{level}].{what}" for level in range(5) for side in ("ask", "bid") for what in ("price", "amount")
    )
    books = ["101,1,100,2,102,3,99,4,103,5,98,6,104,7,,,105,9,,", "101,1,100,2" + "," * 16]
    lines = [f"{at(0, 5)},{books[0]}", f"{at(0, 6)},{books[1]}"]
    tables, counts = read(tmp_path, "book_snapshot_5", header, lines)
    deltas = tables["book_deltas"]
    check(BOOK_DELTAS, deltas)
    first = deltas.filter(pl.col("recv_ns") == ns(5)).select("side", "price", "qty").rows()
    assert first == [
        ("bid", 100.0, 2.0), ("bid", 99.0, 4.0), ("bid", 98.0, 6.0),
        ("ask", 101.0, 1.0), ("ask", 102.0, 3.0), ("ask", 103.0, 5.0), ("ask", 104.0, 7.0), ("ask", 105.0, 9.0),
    ]  # fmt: skip
    assert deltas.height == 10
    assert deltas["is_snapshot"].all()
    assert tables["top_of_book"].select("recv_ns", "bid_price", "bid_qty", "ask_price", "ask_qty").rows() == [
        (ns(5), 100.0, 2.0, 101.0, 1.0),
        (ns(6), 100.0, 2.0, 101.0, 1.0),
    ]
    assert not counts.dropped


OPTION_HEADER = (
    "type,strike_price,expiration,open_interest,last_price,bid_price,bid_amount,bid_iv,ask_price,ask_amount,ask_iv,"
    "mark_price,mark_iv,underlying_index,underlying_price,delta,gamma,vega,theta,rho"
)


def test_an_option_chain_lies_under_its_underlying_asset(tmp_path: Path) -> None:
    book = "139.3,0.0485,0.042,15.5,77.1,,,,0.0401,76.87,SYN.BTC-22MAY20,9352.58,-0.43,0.0003,5.4,-26,-0.99"
    lines = [
        f"deribit,BTC-22MAY20-9250-P,{at(0, 5)},put,9250,{T_US + 10**12},{book}",
        f"deribit,ETH-22MAY20-200-C,{at(0, 6)},call,200,{T_US + 10**12},,,,,,,,,,,,,,,,,",
    ]
    tables, counts = read(tmp_path, "options_chain", OPTION_HEADER, lines, "deribit:OPTIONS")
    frame = tables["options"]
    check(OPTIONS, frame.drop("symbol"))
    assert frame["symbol"].to_list() == ["BTC", "ETH"]
    put = frame.row(0, named=True)
    assert (put["instrument"], put["option_type"], put["strike_price"]) == ("BTC-22MAY20-9250-P", "put", 9250.0)
    assert (put["expiry_ns"], put["bid_qty"], put["ask_price"]) == (ns(10**12), 15.5, None)
    assert (put["bid_iv_pct"], put["mark_iv_pct"], put["ask_iv_pct"]) == (77.1, 76.87, None)
    assert (put["delta"], put["underlying_index"], put["recv_assumed"]) == (-0.43, "SYN.BTC-22MAY20", False)
    assert not counts.dropped


def test_rows_of_another_symbol_are_counted_in_a_file_of_one_and_kept_in_a_file_of_many(tmp_path: Path) -> None:
    lines = [f"{at(0, 5)},1,buy,9682,0.1", f"binance-futures,ETHUSDT,{at(0, 6)},2,buy,200,1"]
    tables, counts = read(tmp_path, "trades", "id,side,price,amount", lines)
    assert (tables["trades"].height, counts.dropped) == (1, {OTHER_SYMBOL: 1})
    tables, counts = read(tmp_path, "trades", "id,side,price,amount", lines, "binance_um:PERPETUALS")
    assert tables["trades"]["symbol"].to_list() == ["BTCUSDT", "ETHUSDT"]


@pytest.mark.parametrize("dataset", [dataset.name for dataset in DATASETS])
@pytest.mark.parametrize("instrument", ["binance_um:BTCUSDT", "bybit_inverse:BTCUSD", "okex_swap:BTC-USDT-SWAP"])
def test_a_name_that_was_asked_for_is_recognised(dataset: str, instrument: str) -> None:
    venue, _, symbol = instrument.partition(":")
    *folders, name = address(venue, symbol, dataset, "2020-02-22").split("/")
    assert recognise(name, tuple(folders)) == (venue, symbol, dataset, "", days_of("2020-02-22"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("binance-futures_trades_2020-02-22_BTCUSDT.csv.gz", ("binance_um", "BTCUSDT", "trades", "", DAYS)),
        (
            "tardis_binance-futures_quotes_BTCUSDT_2020-02-22.csv",
            ("binance_um", "BTCUSDT", "quotes", "", ("2020-02-22",)),
        ),
        ("deribit_incremental_book_L2_BTC-PERPETUAL.csv", ("deribit", "BTC-PERPETUAL", "incremental_book_L2", "", ())),
        (
            "deribit_options_chain_2020-03-01_OPTIONS.csv.gz",
            ("deribit", "OPTIONS", "options_chain", "", ("2020-03-01",)),
        ),
    ],
)
def test_flat_names_as_clients_write_them_are_recognised(name: str, expected: tuple[object, ...]) -> None:
    assert recognise(name, ("downloads",)) == expected


def test_bybit_is_two_venues() -> None:
    assert [venue_of("bybit", symbol) for symbol in ("BTCUSDT", "BTCUSD", "BTCUSDH24")] == [
        "bybit",
        "bybit_inverse",
        "bybit_inverse",
    ]
