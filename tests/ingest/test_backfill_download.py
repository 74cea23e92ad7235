"""The backfill stage as a user runs it, from a local server that plays the archives."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import StageError
from core.schema import SIGNALS, TOP_OF_BOOK, TRADES
from ingest.archives.manifest import Manifest
from tests.ingest.archive_files import DAY_MS, UM, agg_day, book_day, gzipped, zipped
from tests.ingest.archive_server import Archive, serving
from tests.ingest.backfill_runs import backfilled, from_folder, rows

BTC = "binance_um:BTCUSDT"
DAY = 86_400_000


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with serving(tmp_path / "server") as running:
        yield running


def downloaded(archive: Archive, root: Path, *pairs: str) -> str:
    names = ("binance", "bybit", "bybit_books", "tardis")
    hosts = [f"backfill.hosts.{name}={archive.url}" for name in names]
    return backfilled(root, *hosts, "backfill.from=2024-03-29", "backfill.to=2024-03-31", *pairs)[1]


def test_a_range_of_days_is_downloaded_and_imported(archive: Archive, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for day in (0, 1):
        agg_day(archive.folder, day, range(50 * day + 1, 50 * day + 51))
    book_day(archive.folder, 0)
    first = f"{UM}/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2024-03-29.zip"
    archive.faults[first] = ["cut 700", 429]
    funding = archive.folder / "data/futures/um/monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-03.zip"
    zipped(funding, f"{DAY_MS},8,0.0001\n{DAY_MS - 20 * DAY},8,0.0002\n")
    said = downloaded(archive, root, f"symbols={BTC}")
    assert rows(root, TRADES, BTC)["trade_id"].to_list() == [str(number) for number in range(1, 101)]
    assert rows(root, TOP_OF_BOOK, BTC).height == 50
    assert rows(root, SIGNALS, BTC)["value"].to_list() == [0.0001]
    assert f"{BTC} aggTrades: the archive has no file of 2024-03-31" in said
    assert f"{BTC} bookTicker: the archive has no file of 2024-03-30, 2024-03-31" in said
    archive.asked.clear()
    downloaded(archive, root, f"symbols={BTC}")
    assert not any(first in path for path, _ in archive.asked)


def test_a_wrong_checksum_is_told_and_the_next_run_tries_again(archive: Archive, tmp_path: Path) -> None:
    agg_day(archive.folder, 0, range(1, 51))
    published = archive.folder / f"{UM}/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2024-03-29.zip.CHECKSUM"
    published.write_text("0" * 64)
    pairs = [f"symbols={BTC}", 'backfill.datasets=["aggTrades"]']
    with pytest.raises(StageError, match="CHECKSUM"):
        downloaded(archive, tmp_path / "data", *pairs)
    assert not rows(tmp_path / "data", TRADES, BTC).height
    published.unlink()
    downloaded(archive, tmp_path / "data", *pairs)
    assert rows(tmp_path / "data", TRADES, BTC).height == 50


def test_a_download_without_a_checksum_is_told_and_recorded(archive: Archive, tmp_path: Path) -> None:
    path = f"{UM}/aggTrades/BTCUSDT/{agg_day(archive.folder, 0, range(1, 51)).name}"
    archive.faults[f"{path}.CHECKSUM"] = [404] * 9
    pairs = [f"symbols={BTC}", 'backfill.datasets=["aggTrades"]']
    assert "UNVERIFIED BTCUSDT-aggTrades-2024-03-29.zip" in downloaded(archive, tmp_path / "data", *pairs)
    (entry,) = Manifest(tmp_path / "data").entries.values()
    assert entry.unverified
    assert "UNVERIFIED" in from_folder(tmp_path / "again", tmp_path / "data" / "archives", f"symbols={BTC}")


def test_downloads_need_not_be_kept(archive: Archive, tmp_path: Path) -> None:
    agg_day(archive.folder, 0, range(1, 51))
    pairs = [f"symbols={BTC}", 'backfill.datasets=["aggTrades"]', "backfill.keep_files=false"]
    downloaded(archive, tmp_path / "data", *pairs)
    assert not list((tmp_path / "data" / "archives").rglob("*.zip"))
    archive.asked.clear()
    downloaded(archive, tmp_path / "data", *pairs)
    assert not any("2024-03-29" in path for path, _ in archive.asked)


def test_bybit_serves_trades_and_books_from_two_hosts(archive: Archive, tmp_path: Path) -> None:
    text = "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,foreignNotional\n"
    text += (
        f"{DAY_MS / 1000 + 1:.4f},BTCUSDT,Buy,1,70000,x,b,1,1,1\n{DAY_MS / 1000:.4f},BTCUSDT,Buy,1,70000,x,a,1,1,1\n"
    )
    gzipped(archive.folder / "trading/BTCUSDT/BTCUSDT2024-03-29.csv.gz", text)
    said = downloaded(archive, tmp_path / "data", "symbols=bybit:BTCUSDT")
    assert rows(tmp_path / "data", TRADES, "bybit:BTCUSDT")["trade_id"].to_list() == ["a", "b"]
    assert ("orderbook/linear/BTCUSDT/2024-03-29_BTCUSDT_ob500.data.zip", "") in archive.asked
    assert "bybit:BTCUSDT orderbook: the archive has no file of 2024-03-29" in said


def test_tardis_takes_the_key_from_the_environment(
    archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.key = "secret"
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    line = f"binance-futures,BTCUSDT,{DAY_MS}000,{DAY_MS}500,1,buy,70000,1\n"
    gzipped(archive.folder / "v1/binance-futures/trades/2024/03/29/BTCUSDT.csv.gz", head + line)
    pairs = [f"symbols={BTC}", "backfill.provider=tardis", 'backfill.datasets=["trades"]']
    monkeypatch.delenv("TARDIS_API_KEY", raising=False)
    with pytest.raises(StageError, match="TARDIS_API_KEY"):
        downloaded(archive, tmp_path / "data", *pairs)
    monkeypatch.setenv("TARDIS_API_KEY", "secret")
    said = downloaded(archive, tmp_path / "data", *pairs)
    assert rows(tmp_path / "data", TRADES, BTC)["recv_assumed"].to_list() == [False]
    assert "secret" not in said


def test_an_archive_without_any_of_the_files_ends_with_what_is_missing(archive: Archive, tmp_path: Path) -> None:
    with pytest.raises(StageError, match="has none of the files"):
        downloaded(archive, tmp_path / "data", f"symbols={BTC}")
