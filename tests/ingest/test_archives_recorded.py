"""Recorded files in archive formats, imported and compared with an independent reading of the same files."""

import csv
import gzip
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

from core.errors import StageError
from core.schema import BOOK_DELTAS, KLINES, LIQUIDATIONS, TOP_OF_BOOK, TRADES, Table
from core.store import partitions
from tests.ingest.backfill_runs import backfilled, rows

LATENCY_NS = 10_000_000
Read = Callable[..., list[dict[str, str]]]


@pytest.fixture
def read_csv(market_data: Path) -> Read:
    """Rows of a file below `tables`, by the standard library alone."""

    def read(name: str, columns: list[str] | None = None) -> list[dict[str, str]]:
        path = market_data / "tables" / name
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
            return list(csv.DictReader(stream, columns))

    return read


def imported(market_data: Path, root: Path, name: str, *pairs: str) -> dict[str, dict[str, int]]:
    """What became of the rows of one file."""
    sections, _ = backfilled(root, f"backfill.path={market_data / 'tables' / name}", *pairs)
    (facts,) = sections["backfill"]["rows"]
    return {"read": {"rows": facts["read"]}, "written": facts["written"], "dropped": facts["dropped"]}


def ns(seconds: str) -> int:
    return int(Decimal(seconds) * 10**9)


def test_the_inverse_dump_of_bybit_newest_first(market_data: Path, read_csv: Read, tmp_path: Path) -> None:
    name = "bybit_trades/BTCUSD2019-10-01.csv.gz"
    facts = imported(market_data, tmp_path, name)
    assert facts == {"read": {"rows": 93_598}, "written": {"trades": 93_598}, "dropped": {}}
    found = rows(tmp_path, TRADES, "bybit_inverse:BTCUSD")
    oldest_first = read_csv(name)[::-1]
    expected = sorted(oldest_first, key=lambda row: ns(row["timestamp"]))
    assert found["trade_id"].to_list() == [row["trdMatchID"] for row in expected]
    assert found["exch_ns"].to_list() == [ns(row["timestamp"]) for row in expected]
    assert found["price"].to_list() == [float(row["price"]) for row in expected]
    assert found["qty"].to_list() == [float(row["size"]) for row in expected]
    assert found["taker_side"].to_list() == [row["side"].lower() for row in expected]
    assert (found["recv_ns"] - found["exch_ns"]).unique().to_list() == [LATENCY_NS]
    assert found["recv_assumed"].all()


def test_trades_of_tardis(market_data: Path, read_csv: Read, tmp_path: Path) -> None:
    name = "tardis_csv/tardis_binance-futures_trades_BTCUSDT_2020-02-22.csv"
    assert imported(market_data, tmp_path, name)["written"] == {"trades": 9_999}
    found = rows(tmp_path, TRADES, "binance_um:BTCUSDT")
    expected = read_csv(name)
    assert found.rows() == [
        (
            1000 * int(row["timestamp"]),
            1000 * int(row["local_timestamp"]),
            row["id"],
            float(row["price"]),
            float(row["amount"]),
            row["side"],
            False,
        )
        for row in expected
    ]


def test_quotes_of_tardis(market_data: Path, read_csv: Read, tmp_path: Path) -> None:
    name = "tardis_csv/tardis_binance-futures_quotes_BTCUSDT_2020-02-22.csv"
    assert imported(market_data, tmp_path, name)["written"] == {"top_of_book": 9_999}
    found = rows(tmp_path, TOP_OF_BOOK, "binance_um:BTCUSDT")
    names = ("bid_price", "bid_amount", "ask_price", "ask_amount")
    ours = found.select("recv_ns", "bid_price", "bid_qty", "ask_price", "ask_qty").rows()
    assert ours == [
        (1000 * int(row["local_timestamp"]), *(float(row[column]) for column in names)) for row in read_csv(name)
    ]
    assert (found["bid_price"] < found["ask_price"]).all()


@pytest.mark.parametrize("depth", [5, 25])
def test_book_snapshots_of_tardis(market_data: Path, read_csv: Read, tmp_path: Path, depth: int) -> None:
    name = f"tardis_csv/tardis_binance-futures_book_snapshot_{depth}_BTCUSDT.csv"
    expected = read_csv(name)
    facts = imported(market_data, tmp_path, name)
    assert facts["written"] == {"book_deltas": 10 * 2 * depth, "top_of_book": 10}
    found = rows(tmp_path, BOOK_DELTAS, "binance_um:BTCUSDT")
    for row in expected:
        book = found.filter(pl.col("recv_ns") == 1000 * int(row["local_timestamp"]))
        for side in ("bid", "ask"):
            levels = [(float(row[f"{side}s[{k}].price"]), float(row[f"{side}s[{k}].amount"])) for k in range(depth)]
            assert book.filter(pl.col("side") == side).select("price", "qty").rows() == levels


def test_changes_of_tardis(market_data: Path, read_csv: Read, tmp_path: Path) -> None:
    name = "tardis_csv/tardis_deribit_incremental_book_L2_BTC-PERPETUAL.csv"
    assert imported(market_data, tmp_path, name)["written"] == {"book_deltas": 15}
    found = rows(tmp_path, BOOK_DELTAS, "deribit:BTC-PERPETUAL")
    expected = [(row["side"], float(row["price"]), float(row["amount"])) for row in read_csv(name)]
    assert found.select("side", "price", "qty").rows() == expected
    assert found["is_snapshot"].all()
    assert found["update_id"].n_unique() == 1


def test_a_day_of_candles(market_data: Path, read_csv: Read, tmp_path: Path) -> None:
    name = "ohlcv_binance_perp/BTCUSDT-1m-2024-03-30.csv"
    facts = imported(market_data, tmp_path, name, "symbols=binance_um:BTCUSDT")
    assert facts["written"] == {"klines": 1_440}
    found = rows(tmp_path, KLINES, "binance_um:BTCUSDT")
    names = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
    ours = ("open_price", "high_price", "low_price", "close_price", "qty", "usd", "taker_buy_qty", "taker_buy_usd")
    assert found.select("open_ns", "trade_count", *ours).rows() == [
        (1_000_000 * int(row["open_time"]), int(row["count"]), *(float(row[column]) for column in names))
        for row in read_csv(name)
    ]
    assert (found["close_ns"] - found["open_ns"]).unique().to_list() == [60 * 10**9]
    assert found["open_ns"].diff().drop_nulls().unique().to_list() == [60 * 10**9]
    assert partitions(tmp_path, KLINES)[-1].date == "2024-03-31"  # the last candle is known after midnight


FORCED = ["symbol", "side", "type", "tif", "qty", "price", "average", "status", "last", "filled", "ms", "usd"]


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("2024-08_binance_forceorder_big.csv", 385),
        ("2025-12_binance_forceorder_all.csv", 2_045),
        ("neoparth_binance_forceorder.csv", 700),
        ("neoparth_binance_forceorder_big.csv", 702),
    ],
)
def test_logs_of_forced_orders_without_header_ragged_and_with_none(
    market_data: Path, read_csv: Read, tmp_path: Path, name: str, count: int
) -> None:
    facts = imported(market_data, tmp_path, f"liquidations/{name}", "backfill.provider=recorded")
    expected: Counter[tuple[object, ...]] = Counter()
    for row in read_csv(f"liquidations/{name}", FORCED):
        average = 0.0 if row["average"] == "None" else float(row["average"])
        side = "long" if row["side"] == "SELL" else "short"
        price, qty = average or float(row["price"]), float(row["filled"]) or float(row["qty"])
        expected[f"{row['symbol']}USDT", 1_000_000 * int(row["ms"]), side, price, qty] += 1
    found: Counter[tuple[object, ...]] = Counter()
    for part in partitions(tmp_path, LIQUIDATIONS):
        assert part.exchange == "binance_um"
    for symbol in {part.symbol for part in partitions(tmp_path, LIQUIDATIONS)}:
        frame = rows(tmp_path, LIQUIDATIONS, f"binance_um:{symbol}")
        found.update((symbol, *row) for row in frame.select("exch_ns", "liquidated", "price", "qty").rows())
    assert facts["read"] == {"rows": count}
    assert found == Counter(dict.fromkeys(expected, 1))
    assert facts["dropped"].get("duplicate", 0) == count - len(expected)


OWN = "backfill.provider=recorded"


@pytest.mark.parametrize(
    ("name", "instrument", "columns", "per_s"),
    [
        ("BTCUSDT_trade.csv", "binance:BTCUSDT", ("Time", "ID", "Price", "Quantity", "Market Maker"), 10**6),
        ("ETHUSDT_trade.csv", "binance:ETHUSDT", ("Time", "ID", "Price", "Quantity", "Market Maker"), 10**6),
        ("binance_btcusdt_trades.csv", "binance:BTCUSDT", ("timestamp", "", "price", "amount", "side"), 1),
        ("bybit_BTCUSDT_trades.csv", "bybit:BTCUSDT", ("timestamp", "", "price", "amount", "side"), 1),
    ],
)
def test_trades_that_were_recorded_at_two_venues(
    market_data: Path, read_csv: Read, tmp_path: Path, name: str, instrument: str, columns: tuple[str, ...], per_s: int
) -> None:
    time, number, price, qty, side = columns
    sides = {"True": "sell", "False": "buy", "buy": "buy", "sell": "sell"}
    name = f"binance_bybit_same_period/{name}"
    facts = imported(market_data, tmp_path, name, OWN, f"symbols={instrument}")
    expected = [
        (
            int(Decimal(row[time]) * 10**9 / per_s),
            row.get(number, ""),
            float(row[price]),
            float(row[qty]),
            sides[row[side]],
        )
        for row in read_csv(name)
    ]
    found = rows(tmp_path, TRADES, instrument)
    ours = found.select("exch_ns", "trade_id", "price", "qty", "taker_side").rows()
    assert ours == sorted(expected, key=lambda row: row[0])
    assert facts["written"] == {"trades": len(expected)}


def test_trades_of_another_venue_with_the_api_of_binance(market_data: Path, read_csv: Read, tmp_path: Path) -> None:
    name = "aster_perp/trades_BTCUSDT.csv.gz"
    fees = ("fees.aster.maker_bps=1", "fees.aster.taker_bps=4")
    facts = imported(market_data, tmp_path, name, OWN, "symbols=aster:BTCUSDT", *fees)
    assert facts["written"] == {"trades": 62_032}
    found = rows(tmp_path, TRADES, "aster:BTCUSDT").select("exch_ns", "trade_id", "price", "qty", "taker_side")
    expected = sorted(read_csv(name), key=lambda row: int(row["unix_timestamp_ms"]))
    assert found.rows() == [
        (1_000_000 * int(row["unix_timestamp_ms"]), row["id"], float(row["price"]), float(row["quantity"]), row["side"])
        for row in expected
    ]


@pytest.mark.parametrize(
    "name",
    [
        "liquidations/2024-08_binance_aggtrades_large_only.csv",  # large trades alone are not a stream of trades
        "aster_perp/prices_BTCUSDT.csv.gz",  # best prices without quantities
        "ohlcv_binance_daily/BTCUSDT.csv",
    ],
)
def test_what_is_in_no_archives_format_is_refused(market_data: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(StageError, match=r"no archive file|could not be imported"):
        imported(market_data, tmp_path, name, OWN, "symbols=binance:BTCUSDT")
    assert not any(partitions(tmp_path, table) for table in ALL_TABLES)


ALL_TABLES: tuple[Table, ...] = (TRADES, TOP_OF_BOOK, BOOK_DELTAS, KLINES, LIQUIDATIONS)
