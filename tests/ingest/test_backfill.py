"""The backfill stage as a user runs it, from folders."""

import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from core.config import ROOT, load
from core.errors import ConfigError, StageError
from core.origin import Origin, read_origin, write_origin
from core.schema import GAPS, KLINES, LIQUIDATIONS, SIGNALS, TOP_OF_BOOK, TRADES
from core.store import partitions
from tests.ingest.archive_files import DAY_MS, agg_day, agg_trades, book_day, plain, zipped
from tests.ingest.backfill_runs import backfilled, everything, from_folder, rows

BTC = "binance_um:BTCUSDT"
DAY = 86_400_000


def test_a_mirrored_folder_needs_no_words(tmp_path: Path) -> None:
    for day in (0, 1):
        agg_day(tmp_path / "archive", day, range(100 * day + 1, 100 * day + 101))
        book_day(tmp_path / "archive", day)
    sections, said = backfilled(tmp_path / "data", f"backfill.path={tmp_path / 'archive'}")
    assert rows(tmp_path / "data", TRADES, BTC)["trade_id"].to_list() == [str(number) for number in range(1, 201)]
    assert rows(tmp_path / "data", TOP_OF_BOOK, BTC).height == 100
    assert rows(tmp_path / "data", GAPS, BTC).height == 0
    assert f"{BTC} aggTrades: 2 files, 200 rows, 200 to trades" in said
    assert "SIMULATED" not in said
    assert sections["symbols"] == [BTC]
    assert sections["data"]["binance_um"]["trades"]["rows"] == 200
    origin = read_origin(load(options={"data_dir": str(tmp_path / "data")}))
    assert origin == Origin("archive", complete=True)


def test_a_second_run_skips_what_is_there_and_takes_what_is_new(tmp_path: Path) -> None:
    folder, root = tmp_path / "archive", tmp_path / "data"
    agg_day(folder, 0, range(1, 51))
    from_folder(root, folder)
    before = everything(root)
    assert "1 file was imported before" in from_folder(root, folder)
    assert everything(root) == before
    agg_day(folder, 1, range(51, 101))
    assert "aggTrades: 1 file" in from_folder(root, folder)
    assert rows(root, TRADES, BTC).height == 100


def test_a_file_that_was_published_again_replaces_its_rows(tmp_path: Path) -> None:
    folder, root = tmp_path / "archive", tmp_path / "data"
    for day in (0, 1):
        agg_day(folder, day, range(50 * day + 1, 50 * day + 51))
    from_folder(root, folder)
    agg_day(folder, 0, range(1, 51, 2))
    from_folder(root, folder)
    assert rows(root, TRADES, BTC).height == 75
    assert rows(root, GAPS, BTC).height == 25  # 24 in the file, one before the next


def test_another_latency_makes_the_rows_again(tmp_path: Path) -> None:
    folder, root = tmp_path / "archive", tmp_path / "data"
    agg_day(folder, 0, range(1, 51))
    from_folder(root, folder)
    from_folder(root, folder, "backfill.latency_ms=250")
    frame = rows(root, TRADES, BTC)
    assert frame.height == 50
    assert (frame["recv_ns"] - frame["exch_ns"]).unique().to_list() == [250_000_000]


@pytest.mark.parametrize("latency_ms", [60_000, 0])
def test_another_latency_moves_when_signals_were_known(tmp_path: Path, latency_ms: int) -> None:
    folder, root = tmp_path / "data/futures/um", tmp_path / "tables"
    zipped(folder / "BTCUSDT-fundingRate-2024-03.zip", f"{DAY_MS},8,0.0001\n{DAY_MS + 28_800_000},8,0.0002\n")
    for latency in (10, latency_ms):
        from_folder(root, folder, f"backfill.latency_ms={latency}")
    frame = rows(root, SIGNALS, BTC)
    assert ((frame["known_ns"] - frame["time_ns"]) // 1_000_000).to_list() == [latency_ms] * 2


def test_signals_of_a_file_that_was_published_again_are_replaced(tmp_path: Path) -> None:
    folder, root = tmp_path / "data/futures/um", tmp_path / "tables"
    for rate in (0.0001, 0.0003):
        zipped(folder / "BTCUSDT-fundingRate-2024-03.zip", f"{DAY_MS},8,{rate}\n")
        from_folder(root, folder)
    assert rows(root, SIGNALS, BTC)["value"].to_list() == [0.0003]


def test_a_missing_day_is_a_gap_until_it_is_there(tmp_path: Path) -> None:
    folder, root = tmp_path / "archive", tmp_path / "data"
    agg_day(folder, 0, range(1, 51))
    agg_day(folder, 2, range(101, 151))
    from_folder(root, folder)
    (gap,) = rows(root, GAPS, BTC).rows(named=True)
    assert gap["reason"] == "aggTrade ids 51 to 100 are not in the archive"
    assert not gap["mended"]
    agg_day(folder, 1, range(51, 101))
    from_folder(root, folder)
    assert not rows(root, GAPS, BTC).height


def test_a_month_may_be_taken_for_a_few_days(tmp_path: Path) -> None:
    text = agg_trades(range(1, 101), DAY_MS - 28 * DAY, 31 * DAY // 100)
    path = zipped(tmp_path / "archive" / "BTCUSDT-aggTrades-2024-03.zip", text)
    said = from_folder(tmp_path / "data", path, "backfill.from=2024-03-10", "backfill.to=2024-03-11", f"symbols={BTC}")
    assert "of a day not asked for" in said
    assert {part.date for part in partitions(tmp_path / "data", TRADES)} == {"2024-03-10", "2024-03-11"}
    assert not rows(tmp_path / "data", GAPS, BTC).height


def test_more_days_of_a_month_join_those_that_were_imported(tmp_path: Path) -> None:
    text = agg_trades(range(1, 311), DAY_MS - 28 * DAY, DAY // 10)
    path = zipped(tmp_path / "archive" / "BTCUSDT-aggTrades-2024-03.zip", text)
    for first, last in (("01", "05"), ("06", "08")):
        days = (f"backfill.from=2024-03-{first}", f"backfill.to=2024-03-{last}")
        from_folder(tmp_path / "data", path, *days, f"symbols={BTC}")
    assert rows(tmp_path / "data", TRADES, BTC)["trade_id"].to_list() == [str(number) for number in range(1, 81)]


def test_files_without_a_date_that_overlap_share_their_days(tmp_path: Path) -> None:
    folder, hour = tmp_path / "archive", 3_600
    for name, hours in (("one.csv", range(72)), ("two.csv", range(24, 96))):
        lines = (f"{DAY_MS // 1000 + each * hour},{each},60000,1,buy\n" for each in hours)
        plain(folder / name, "timestamp,id,price,qty,side\n" + "".join(lines))
    pairs = ("backfill.provider=recorded", f"symbols={BTC}")
    said = from_folder(tmp_path / "data", folder, *pairs)
    assert rows(tmp_path / "data", TRADES, BTC)["trade_id"].to_list() == [str(number) for number in range(96)]
    assert "filled by another file 48" in said
    assert "2 files were imported before" in from_folder(tmp_path / "data", folder, *pairs)
    day = ("backfill.from=2024-03-30", "backfill.to=2024-03-30")
    from_folder(tmp_path / "one day", folder, *pairs, *day)
    assert rows(tmp_path / "one day", TRADES, BTC)["trade_id"].to_list() == [str(number) for number in range(24, 48)]


def test_a_month_beside_one_of_its_days_makes_no_hole(tmp_path: Path) -> None:
    folder = tmp_path / "data/futures/um"
    text = agg_trades(range(1, 311), DAY_MS - 28 * DAY, DAY // 10)
    zipped(folder / "BTCUSDT-aggTrades-2024-03.zip", text)
    zipped(folder / "BTCUSDT-aggTrades-2024-03-29.zip", agg_trades(range(281, 291), DAY_MS, DAY // 10))
    zipped(folder / "BTCUSDT-aggTrades-2024-04-01.zip", agg_trades(range(311, 321), DAY_MS + 3 * DAY, DAY // 10))
    from_folder(tmp_path / "tables", folder)
    assert rows(tmp_path / "tables", TRADES, BTC)["trade_id"].to_list() == [str(number) for number in range(1, 321)]
    assert not rows(tmp_path / "tables", GAPS, BTC).height


def test_a_flat_name_of_an_unknown_market_asks_for_it(tmp_path: Path) -> None:
    agg_day(tmp_path / "archive", 0, range(1, 9), nested=False)
    with pytest.raises(StageError, match="holds no archive file"):
        from_folder(tmp_path / "data", tmp_path / "archive")
    said = from_folder(tmp_path / "data", tmp_path / "archive", "symbols=binance:BTCUSDT")
    assert "binance:BTCUSDT aggTrades: 1 file" in said


@pytest.mark.parametrize("below", ["", "BTCUSDT-aggTrades-2024-03-29.zip"])
def test_a_folder_may_be_given_from_anywhere_inside(tmp_path: Path, below: str) -> None:
    path = agg_day(tmp_path / "um" / "spot", 0, range(1, 9))
    assert f"{BTC} aggTrades: 1 file" in from_folder(tmp_path / "tables", path.parent / below)


def test_trades_alone_are_said_to_make_no_bars(tmp_path: Path) -> None:
    agg_day(tmp_path / "archive", 0, range(1, 9))
    assert "trades without best prices on 2024-03-29: no bars" in from_folder(tmp_path / "data", tmp_path / "archive")


def test_a_damaged_file_is_told_and_the_others_are_imported(tmp_path: Path) -> None:
    folder, root = tmp_path / "archive", tmp_path / "data"
    agg_day(folder, 0, range(1, 9))
    damaged = agg_day(folder, 1, range(9, 17))
    damaged.write_bytes(damaged.read_bytes()[:-30])
    with pytest.raises(StageError, match="1 file could not be imported"):
        from_folder(root, folder)
    assert rows(root, TRADES, BTC).height == 8
    agg_day(folder, 1, range(9, 17))
    from_folder(root, folder)
    assert rows(root, TRADES, BTC).height == 16


def test_strangers_in_the_folder_are_named(tmp_path: Path) -> None:
    agg_day(tmp_path / "archive", 0, range(1, 9))
    plain(tmp_path / "archive" / "notes.txt", "hello")
    plain(tmp_path / "archive" / "mine.csv", "a,b\n1,2\n")
    plain(tmp_path / "archive" / "BTCUSDT-aggTrades-2024-03-30.zip.part", "half")
    said = from_folder(tmp_path / "data", tmp_path / "archive")
    assert "notes.txt: no archive has files of this kind" in said
    assert "left out mine.csv: no file of Binance, Bybit or Tardis is named so" in said
    assert ".part" not in said


def test_candles_signals_and_forced_orders_find_their_tables(tmp_path: Path) -> None:
    folder, root = tmp_path / "data/futures/um", tmp_path / "tables"
    candle = f"{DAY_MS},1,4,0.5,2,100,{DAY_MS + 59_999},250,7,60,150,0\n"
    zipped(folder / "klines/BTCUSDT/1m/BTCUSDT-1m-2024-03-29.zip", candle)
    zipped(
        folder / "klines/BTCUSDT/1h/BTCUSDT-1h-2024-03-29.zip",
        candle.replace(str(DAY_MS + 59_999), str(DAY_MS + 3_599_999)),
    )
    zipped(folder / "BTCUSDT-metrics-2024-03-29.zip", "2024-03-29 00:05:00,BTCUSDT,1,2,3,4,5,6\n" * 2)
    zipped(folder / "BTCUSDT-fundingRate-2024-03.zip", f"{DAY_MS},8,0.0001\n")
    order = f"{DAY_MS},SELL,LIMIT,IOC,0.5,69000,69100,FILLED,0.2,0.4\n"
    zipped(folder / "BTCUSDT-liquidationSnapshot-2024-03-29.zip", order * 2)
    said = from_folder(root, folder)
    assert sorted(rows(root, KLINES, BTC)["interval"].to_list()) == ["1h", "1m"]
    assert rows(root, SIGNALS, BTC)["name"].to_list() == [
        "funding_rate_btc", "ls_position_ratio_btc", "ls_ratio_global_btc", "ls_ratio_top_btc", "oi_btc", "oi_usd_btc",
        "taker_ratio_btc",
    ]  # fmt: skip
    assert rows(root, LIQUIDATIONS, BTC).height == 1
    assert "dropped: duplicate 1" in said


@pytest.mark.parametrize("source", ["live", "sim"])
def test_events_of_another_source_are_never_mixed_with(tmp_path: Path, source: str) -> None:
    agg_day(tmp_path / "archive", 0, range(1, 9))
    root = tmp_path / "data"
    from_folder(root, tmp_path / "archive")
    config = load(options={"data_dir": str(root)})
    write_origin(config, Origin(source, identity="x"))  # type: ignore[arg-type]
    agg_day(tmp_path / "archive", 1, range(9, 17))
    if source == "live":
        with pytest.raises(StageError, match="cannot be made again"):
            from_folder(root, tmp_path / "archive")
        assert rows(root, TRADES, BTC).height == 8
    else:
        assert "removed the sim market" in from_folder(root, tmp_path / "archive")
        assert rows(root, TRADES, BTC).height == 16


def test_signals_that_were_deleted_are_imported_again(tmp_path: Path) -> None:
    path = zipped(tmp_path / "data/futures/um" / "BTCUSDT-fundingRate-2024-03.zip", f"{DAY_MS},8,0.0001\n")
    for _ in range(2):
        from_folder(tmp_path / "tables", path)
        assert rows(tmp_path / "tables", SIGNALS, BTC).height == 1
        shutil.rmtree(tmp_path / "tables" / "signals")


def test_signals_may_join_what_was_captured_live(tmp_path: Path) -> None:
    root = tmp_path / "data"
    config = load(options={"data_dir": str(root)})
    write_origin(config, Origin("live"))
    path = zipped(tmp_path / "data/futures/um" / "BTCUSDT-fundingRate-2024-03.zip", f"{DAY_MS},8,0.0001\n")
    from_folder(root, path)
    assert rows(root, SIGNALS, BTC).height == 1
    assert read_origin(config) == Origin("live")
    write_origin(config, Origin("live", simulated=True))
    with pytest.raises(StageError, match="holds live data"):
        from_folder(root, path)


@pytest.mark.parametrize(
    ("pairs", "why"),
    [
        ([], "backfill.path=DIR, or days"),
        (["backfill.from=2024-03-01", "backfill.to=2024-03-02"], "needs to know which"),
        (["backfill.from=2024-03-01", f"symbols={BTC}"], "backfill.path=DIR, or days"),
        (["backfill.from=2024-03-09", "backfill.to=2024-03-02", f"symbols={BTC}"], "is before"),
        (["backfill.from=2024-02-30", "backfill.to=2024-03-02", f"symbols={BTC}"], "is no date"),
        (
            ["backfill.from=2024-03-01", "backfill.to=2024-03-02", f"symbols={BTC}", 'backfill.datasets=["oi"]'],
            "binance has aggTrades",
        ),
        (
            ["backfill.from=2024-03-01", "backfill.to=2024-03-02", "symbols=okx:BTC-USDT", "fees.okx.maker_bps=1",
             "fees.okx.taker_bps=1"],
            "no public archive is known",
        ),
    ],
)  # fmt: skip
def test_settings_that_cannot_work_are_refused(tmp_path: Path, pairs: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        backfilled(tmp_path / "data", *pairs)


def test_a_path_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="does not exist"):
        from_folder(tmp_path / "data", tmp_path / "nowhere")


def test_with_source_archive_the_pipeline_goes_from_files_to_bars(tmp_path: Path) -> None:
    for day in (0, 1):
        agg_day(tmp_path / "archive", day, range(2000 * day + 1, 2000 * day + 2001))
        book_day(tmp_path / "archive", day, 3000)
    command = [sys.executable, str(ROOT / "run_pipeline.py"), "backfill", "bars", "--source", "archive"]
    options = ["--data-dir", str(tmp_path / "data"), "--set", f"backfill.path={tmp_path / 'archive'}"]
    done = subprocess.run(
        [*command, *options, "--set", "bars=time_1m", "--set", "decision=1m"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "2,880 bars" in done.stdout or "2,879 bars" in done.stdout
    assert "SIMULATED" not in done.stdout
    bars = pl.read_parquet(str(tmp_path / "data" / "bars" / "**" / "*.parquet"), hive_partitioning=True)
    assert bars["date"].n_unique() == 2
