"""Whose a file is: a file of another symbol or venue never passes for what was asked for."""

from pathlib import Path

import pytest

from core.errors import ConfigError, StageError
from core.schema import OPTIONS, SIGNALS, TRADES
from core.store import partitions
from ingest.archives.claims import owner, plain, spellings
from tests.ingest.archive_files import plain as plain_file
from tests.ingest.backfill_runs import backfilled, from_folder, rows

OWN = "backfill.provider=recorded"
BTC, ETH = "binance_um:BTCUSDT", "binance_um:ETHUSDT"
AT_S = 1_711_670_400
BARE = f"time,price,qty,side\n{AT_S},60000,1,buy\n{AT_S + 1},60000,2,sell\n"


def told(exchange: str, symbol: str, count: int = 2) -> str:
    rest = "".join(f"{AT_S + at},{exchange},{symbol},60000,1,buy\n" for at in range(count))
    return f"timestamp,exchange,symbol,price,amount,side\n{rest}"


@pytest.mark.parametrize(
    ("name", "row", "symbols", "whose"),
    [
        ("mine.csv", {}, [BTC], BTC),
        ("trades_BTCUSDT.csv.gz", {}, [BTC, ETH], BTC),
        ("binance_eth_usdt-2024.csv", {}, [BTC, ETH], ETH),
        ("bybit_BTCUSDT.csv", {}, [BTC, "bybit:BTCUSDT"], "bybit:BTCUSDT"),
        ("BTCUSDT.csv", {}, ["aster:BTCUSDT"], "aster:BTCUSDT"),
        ("ETHUSDT.csv", {"symbol": "btc-usdt"}, [BTC], BTC),  # what rows say counts for more than a name
        ("x.csv", {"exchange": "binance-futures", "symbol": "BTCUSDT"}, [BTC], BTC),
        ("x.csv", {"exchange": "BINANCE_UM", "symbol": "BTC/USDT"}, [BTC], BTC),
        ("x.csv", {"exchange": "bybit", "symbol": "BTCUSD"}, ["bybit_inverse:BTCUSD"], "bybit_inverse:BTCUSD"),
        ("x.csv", {"exchange": "binance", "symbol": "btcusdt"}, [BTC], "binance:BTCUSDT"),
        ("x.csv", {"exchange": "bybit", "symbol": "ETHUSDT"}, [], "bybit:ETHUSDT"),
        ("BTCUSDT/2024-03-29.csv", {}, [BTC, ETH], BTC),
        ("binance_bybit/BTCUSDT.csv", {}, ["bybit:BTCUSDT", "okx:BTCUSDT"], "bybit:BTCUSDT"),
    ],
)
def test_columns_then_the_name_then_symbols_say_whose_a_file_is(
    name: str, row: dict[str, str], symbols: list[str], whose: str
) -> None:
    assert owner(Path(name), row, symbols) == whose


@pytest.mark.parametrize(
    ("name", "row", "symbols", "why"),
    [
        ("mine.csv", {}, [], "does not say whose"),
        ("mine.csv", {}, [BTC, ETH], "does not say whose"),
        ("ETHUSDT_trade.csv", {}, [BTC], "its name says ETHUSDT, but `symbols` binance_um:BTCUSDT"),
        ("bybit_trades.csv", {}, [BTC], "its name says BYBIT, but"),
        ("aster_perp/trades.csv", {}, [BTC], "its name says ASTER, but"),
        ("mine.csv", {"symbol": "ETHUSDT"}, [BTC], "its column `symbol` says ETHUSDT, but"),
        ("mine.csv", {"exchange": "binance"}, [BTC], "its column `exchange` says binance, but"),
    ],
)
def test_what_speaks_against_symbols_is_refused(name: str, row: dict[str, str], symbols: list[str], why: str) -> None:
    with pytest.raises(StageError, match=why):
        owner(Path(name), row, symbols)


def test_spellings_are_of_one_venue_each() -> None:
    assert spellings("binance_um") == ["binance-futures", "binance-um", "binance_futures", "binance_um"]
    assert not set(spellings("binance")) & set(spellings("binance_um"))
    assert plain("btc/usdt") == plain("BTC-USDT") == "BTCUSDT"


def test_a_file_of_another_symbol_is_left_out_with_its_reason(tmp_path: Path) -> None:
    plain_file(tmp_path / "in" / "BTCUSDT_trade.csv", BARE)
    plain_file(tmp_path / "in" / "ETHUSDT_trade.csv", BARE)
    plain_file(tmp_path / "in" / "other.csv", told("bybit", "BTCUSDT"))
    plain_file(tmp_path / "in" / "broken.csv", "time,price\n1,2\n")
    said = from_folder(tmp_path / "data", tmp_path / "in", OWN, f"symbols={BTC}")
    assert rows(tmp_path / "data", TRADES, BTC).height == 2
    assert {part.instrument for part in partitions(tmp_path / "data", TRADES)} == {BTC}
    assert f"left out ETHUSDT_trade.csv: its name says ETHUSDT, but `symbols` {BTC}" in said
    assert "left out 1 file of bybit:BTCUSDT: not in `symbols`" in said
    assert "left out broken.csv: no column for qty in 'time,price'" in said


def test_a_file_that_names_itself_is_imported_under_its_name(tmp_path: Path) -> None:
    plain_file(tmp_path / "in" / "a.csv", told("binance-futures", "BTCUSDT") + f"{AT_S + 5},okx,BTCUSDT,1,1,buy\n")
    said = from_folder(tmp_path / "data", tmp_path / "in", OWN)
    assert rows(tmp_path / "data", TRADES, BTC).height == 2
    assert "dropped: of another symbol 1" in said
    assert "exchange okx, symbol BTCUSDT, price 1.0" in said


def test_a_file_of_tardis_whose_rows_are_another_venues_or_symbols_is_refused(tmp_path: Path) -> None:
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    row = f"bybit,BTCUSDT,{AT_S}000000,{AT_S}000100,1,buy,60000,1\n"
    plain_file(tmp_path / "in" / "binance-futures_trades_2024-03-29_BTCUSDT.csv", head + row)
    plain_file(
        tmp_path / "in" / "binance-futures_trades_2024-03-30_ETHUSDT.csv",
        head + row.replace("bybit", "binance-futures"),
    )
    plain_file(tmp_path / "in" / "bybit_trades_2024-03-29_BTCUSDT.csv", head + row)
    said = from_folder(tmp_path / "data", tmp_path / "in")
    assert {part.instrument for part in partitions(tmp_path / "data", TRADES)} == {"bybit:BTCUSDT"}
    assert "its name says binance_um, its column `exchange` bybit" in said
    assert "its name says ETHUSDT, its column `symbol` BTCUSDT" in said


def test_metrics_of_another_symbol_are_none_of_the_files_own(tmp_path: Path) -> None:
    path = tmp_path / "data/futures/um" / "BTCUSDT-metrics-2024-03-29.csv"
    plain_file(path, "2024-03-29 00:05:00,ETHUSDT,1,2,3,4,5,6\n")
    with pytest.raises(StageError, match=r"none of its 1 rows is what its name promises: of another symbol"):
        from_folder(tmp_path / "tables", path)
    assert not partitions(tmp_path / "tables", SIGNALS)


def test_signals_stand_in_the_summary(tmp_path: Path) -> None:
    path = tmp_path / "data/futures/um" / "BTCUSDT-metrics-2024-03-29.csv"
    plain_file(path, "2024-03-29 00:05:00,BTCUSDT,1,2,3,4,5,6\n")
    sections, said = backfilled(tmp_path / "tables", f"backfill.path={path}")
    assert sections["data"]["binance_um"]["signals"]["rows"] == 6
    assert sections["symbols"] == [BTC]
    assert any(line.split()[:2] == ["signals", "6"] for line in said.splitlines())
    assert OPTIONS.name not in sections["data"]["binance_um"]


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        (['backfill.datasets=["trade"]'], "was 'trade': did you mean `trades`"),
        (['backfill.datasets=["klines_1m"]', "backfill.provider=tardis"], "tardis has trades, book_ticker"),
    ],
)
def test_a_data_set_that_no_archive_has_is_told_with_what_is_near(tmp_path: Path, pairs: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        from_folder(tmp_path / "data", tmp_path, *pairs)


def test_a_folder_of_something_else_says_what_it_holds(tmp_path: Path) -> None:
    plain_file(tmp_path / "in/futures/um" / "BTCUSDT-aggTrades-2024-03-29.csv", f"1,6e4,1,1,1,{AT_S}000,true\n")
    with pytest.raises(StageError, match=f"no archive file of {ETH}, but of {BTC} aggTrades"):
        from_folder(tmp_path / "data", tmp_path / "in", f"symbols={ETH}")
