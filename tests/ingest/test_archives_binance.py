"""Each data set of Binance's archive, as it is written there, by hand."""

from pathlib import Path

import pytest

from core.schema import check
from core.units import NS_PER_S
from ingest.archives.binance_vision import DATASETS, address, recognise
from ingest.archives.formats import BROKEN, Dataset, days_of
from tests.ingest.archive_files import DAY_MS, MS, archive_file, converted, plain

BY_NAME: dict[str, Dataset] = {dataset.name: dataset for dataset in DATASETS}
LATENCY_NS = 10 * MS
T_NS = DAY_MS * MS


def read(tmp_path: Path, dataset: str, text: str, instrument: str = "binance_um:BTCUSDT") -> list[tuple[object, ...]]:
    """The rows of a file's first table; they keep to the schema once sorted and their ids are text."""
    file = archive_file(plain(tmp_path / "a.csv", text), "binance", dataset, instrument)
    tables, counts = converted(BY_NAME[dataset], file, LATENCY_NS)
    assert not counts.dropped
    table = BY_NAME[dataset].tables[0]
    frame = tables[table.name].sort(table.order)
    check(table, frame.cast({"trade_id": str}) if "trade_id" in frame.columns else frame)
    return frame.rows()


def test_agg_trades_of_futures_with_a_header(tmp_path: Path) -> None:
    text = (
        "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker\n"
        f"2091,70000.1,0.5,10,12,{DAY_MS},true\n2092,70000.2,0.25,13,13,{DAY_MS + 1},false\n"
    )
    assert read(tmp_path, "aggTrades", text) == [
        (T_NS, T_NS + LATENCY_NS, 2091, 70000.1, 0.5, "sell", True),
        (T_NS + MS, T_NS + MS + LATENCY_NS, 2092, 70000.2, 0.25, "buy", True),
    ]


@pytest.mark.parametrize("unit", [1, 1000])
def test_agg_trades_of_spot_have_one_more_column_no_header_and_ms_or_us(tmp_path: Path, unit: int) -> None:
    text = f"2091,70000.1,0.5,10,12,{DAY_MS * unit},True,True\n2092,70000.2,0.25,13,13,{DAY_MS * unit},False,True\n"
    found = read(tmp_path, "aggTrades", text, "binance:BTCUSDT")
    assert [(row[0], row[2], row[5]) for row in found] == [(T_NS, 2091, "sell"), (T_NS, 2092, "buy")]


def test_trades_of_futures_and_of_coin_margined_ones(tmp_path: Path) -> None:
    for quote in ("quote_qty", "base_qty"):
        text = f"id,price,qty,{quote},time,is_buyer_maker\n7,70000.1,0.5,35000.05,{DAY_MS},false\n"
        assert read(tmp_path, "trades", text) == [(T_NS, T_NS + LATENCY_NS, 7, 70000.1, 0.5, "buy", True)]


def test_book_tickers_have_the_matching_engines_time(tmp_path: Path) -> None:
    text = (
        "update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,event_time\n"
        f"44,70000.1,1.5,70000.2,2.5,{DAY_MS},{DAY_MS + 3}\n"
    )
    assert read(tmp_path, "bookTicker", text) == [
        (T_NS, T_NS + LATENCY_NS, 44, 70000.1, 1.5, 70000.2, 2.5, False, True)
    ]


@pytest.mark.parametrize(("unit", "last"), [(1, 59_999), (1000, 59_999_999)])
def test_a_candle_ends_where_the_next_begins_and_is_known_when_it_has_closed(
    tmp_path: Path, unit: int, last: int
) -> None:
    open_time = DAY_MS * unit
    text = f"{open_time},1,4,0.5,2,100,{open_time + last},250,7,60,150,0\n"
    close_ns = T_NS + 60 * NS_PER_S
    assert read(tmp_path, "klines", text) == [
        (T_NS, close_ns, "1m", close_ns, close_ns + LATENCY_NS, 1.0, 4.0, 0.5, 2.0, 100.0, 250.0, 7, 60.0, 150.0, True)
    ]


METRICS = (
    "create_time,symbol,sum_open_interest,sum_open_interest_value,count_toptrader_long_short_ratio,"
    "sum_toptrader_long_short_ratio,count_long_short_ratio,sum_taker_long_short_vol_ratio\n"
    "2024-03-29 00:05:00,BTCUSDT,80000.5,5600000000,1.2,1.1,1.3,0.9\n"
)


def test_metrics_are_known_one_bar_late(tmp_path: Path) -> None:
    time_ns = T_NS + 300 * NS_PER_S
    known_ns = time_ns + 300 * NS_PER_S + LATENCY_NS
    found = {row[0]: row[1:] for row in read(tmp_path, "metrics", METRICS)}
    values = {
        "oi_btc": 80000.5, "oi_usd_btc": 5.6e9, "ls_ratio_top_btc": 1.2, "ls_position_ratio_btc": 1.1,
        "ls_ratio_global_btc": 1.3, "taker_ratio_btc": 0.9,
    }  # fmt: skip
    assert found == {name: (time_ns, value, "5m", known_ns) for name, value in values.items()}


def test_open_interest_of_coin_margined_contracts_is_in_the_asset(tmp_path: Path) -> None:
    text = METRICS.replace("BTCUSDT", "BTCUSD_PERP")
    found = {row[0]: row[2] for row in read(tmp_path, "metrics", text, "binance_cm:BTCUSD_PERP")}
    assert found["oi_btc"] == 5.6e9
    assert "oi_usd_btc" not in found


def test_a_ratio_that_is_missing_is_counted(tmp_path: Path) -> None:
    path = plain(tmp_path / "a.csv", METRICS.replace(",0.9", ","))
    file = archive_file(path, "binance", "metrics", "binance_um:BTCUSDT")
    tables, counts = converted(BY_NAME["metrics"], file)
    assert tables["signals"].height == 5
    assert counts.dropped == {BROKEN: 1}


def test_funding_is_known_when_it_was_settled(tmp_path: Path) -> None:
    text = f"calc_time,funding_interval_hours,last_funding_rate\n{DAY_MS + 3},8,-0.00012\n"
    time_ns = T_NS + 3 * MS
    assert read(tmp_path, "fundingRate", text) == [
        ("funding_rate_btc", time_ns, -0.00012, "settlement", time_ns + LATENCY_NS)
    ]


def test_book_depth_is_a_series_of_sums_and_no_book(tmp_path: Path) -> None:
    moment = "2024-03-29 00:00:00"
    text = f"timestamp,percentage,depth,notional\n{moment},-0.20,10,700000\n{moment},5.00,20,1400000\n"
    known_ns = T_NS + 30 * NS_PER_S + LATENCY_NS
    assert read(tmp_path, "bookDepth", text) == [
        ("depth_ask_5pct_btc", T_NS, 20.0, "30s", known_ns),
        ("depth_ask_5pct_usd_btc", T_NS, 1_400_000.0, "30s", known_ns),
        ("depth_bid_0.2pct_btc", T_NS, 10.0, "30s", known_ns),
        ("depth_bid_0.2pct_usd_btc", T_NS, 700_000.0, "30s", known_ns),
    ]


def test_a_forced_sale_closed_a_long_at_the_price_of_its_fill(tmp_path: Path) -> None:
    text = (
        "time,side,order_type,time_in_force,original_quantity,price,average_price,order_status,last_fill_quantity,"
        f"accumulated_fill_quantity\n{DAY_MS},SELL,LIMIT,IOC,0.5,69000,69100,FILLED,0.2,0.4\n"
        f"{DAY_MS},BUY,LIMIT,IOC,0.5,69000,0,NEW,0,0\n"
    )
    assert read(tmp_path, "liquidationSnapshot", text) == [
        (T_NS, T_NS + LATENCY_NS, "long", 69100.0, 0.4, True),
        (T_NS, T_NS + LATENCY_NS, "short", 69000.0, 0.5, True),
    ]


@pytest.mark.parametrize("venue", ["binance", "binance_um", "binance_cm"])
@pytest.mark.parametrize("dataset", [dataset.name for dataset in DATASETS])
def test_a_name_that_was_asked_for_is_recognised(venue: str, dataset: str) -> None:
    interval = "1m" if dataset == "klines" else ""
    *folders, name = address(venue, "BTCUSDT", dataset, interval, "2024-03-29").split("/")
    days = days_of("2024-03" if dataset == "fundingRate" else "2024-03-29")
    assert recognise(name, tuple(folders)) == (venue, "BTCUSDT", dataset, interval, days)


@pytest.mark.parametrize(
    "name",
    [
        "BTCUSDT-aggTrades-2024-13-01.zip",
        "BTCUSDT-aggTrades-2024-03-29.zip.CHECKSUM",
        "BTCUSDT2024-03-29.csv.gz",
        "a.zip",
    ],
)
def test_other_names_are_not(name: str) -> None:
    assert recognise(name, ("data", "futures", "um")) is None


def test_candles_of_mark_and_index_prices_are_no_candles_of_trades() -> None:
    folders = ("data", "futures", "um", "daily", "markPriceKlines", "BTCUSDT", "1m")
    assert recognise("BTCUSDT-1m-2024-03-29.zip", folders) is None


def test_a_flat_name_does_not_tell_the_market() -> None:
    found = recognise("BTCUSDT-1m-2024-03.zip", ("downloads",))
    assert found is not None
    assert found[:4] == ("", "BTCUSDT", "klines", "1m")
    assert (len(found[4]), found[4][-1]) == (31, "2024-03-31")
