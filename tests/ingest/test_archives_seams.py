"""Days of two providers that meet at midnight: each trade is there once, and what cannot be known is a gap."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from core.schema import GAPS, TRADES
from ingest.archives.seams import UNDECIDED
from tests.ingest.archive_files import DAY_MS, gzipped, zipped
from tests.ingest.backfill_runs import backfilled, everything, rows

BTC = "binance_um:BTCUSDT"
MIDNIGHT_MS = DAY_MS + 86_400_000
Told = Sequence[tuple[object, int]]
"""(id, ms after the midnight between the two days) of trades."""


def binance(folder: Path, day: str, trades: Told) -> None:
    lines = (f"{number},60000,1,{number},{number},{MIDNIGHT_MS + ms},true\n" for number, ms in trades)
    zipped(folder / f"data/futures/um/daily/aggTrades/BTCUSDT/BTCUSDT-aggTrades-2024-03-{day}.zip", "".join(lines))


def tardis(folder: Path, day: str, trades: Told, latency_ms: int = 60) -> None:
    head = "exchange,symbol,timestamp,local_timestamp,id,side,price,amount\n"
    times = ((number, (MIDNIGHT_MS + ms) * 1000) for number, ms in trades)
    lines = (f"binance-futures,BTCUSDT,{us},{us + latency_ms * 1000},{number},sell,60000,1\n" for number, us in times)
    gzipped(folder / f"binance-futures/trades/2024/03/{day}/BTCUSDT.csv.gz", head + "".join(lines))


def imported(root: Path, folder: Path) -> str:
    return backfilled(root, f"backfill.path={folder}", f"symbols={BTC}")[1]


def ids(root: Path) -> list[str]:
    return sorted(rows(root, TRADES, BTC)["trade_id"].to_list())


@pytest.mark.parametrize("first", ["binance", "tardis"])
def test_a_trade_that_both_days_have_is_there_once(tmp_path: Path, first: str) -> None:
    """The venue's file ends with the trades of a day, the recorder's begins with what it received in the next one."""
    folder, root = tmp_path / "archive", tmp_path / "data"
    makers = {
        "binance": lambda: binance(folder, "29", [(6, -5000), (7, -10)]),
        "tardis": lambda: tardis(folder, "30", [(7, -10), (8, 100)]),
    }
    for name in (first, *(makers.keys() - {first})):
        makers[name]()
        said = imported(root, folder)
    assert ids(root) == ["6", "7", "8"]
    assert "in the day beside it already 1" in said
    assert not rows(root, GAPS, BTC).height


def test_an_import_with_another_latency_leaves_each_trade_once(tmp_path: Path) -> None:
    folder, root = tmp_path / "archive", tmp_path / "data"
    binance(folder, "29", [(6, -5000), (7, -10)])
    tardis(folder, "30", [(7, -10), (8, 100)])
    imported(root, folder)
    backfilled(root, f"backfill.path={folder}", f"symbols={BTC}", "backfill.latency_ms=20")
    assert ids(root) == ["6", "7", "8"]
    before = everything(root)
    backfilled(root, f"backfill.path={folder}", f"symbols={BTC}", "backfill.latency_ms=20")
    assert everything(root) == before


def test_a_trade_that_neither_day_has_is_a_gap(tmp_path: Path) -> None:
    """It was received in the day after its own, which is the venue's."""
    folder, root = tmp_path / "archive", tmp_path / "data"
    tardis(folder, "29", [(6, -5000)])
    binance(folder, "30", [(8, 100), (9, 200)])
    imported(root, folder)
    (gap,) = rows(root, GAPS, BTC).rows(named=True)
    assert gap["reason"] == "aggTrade ids 7 to 7 are not in the archive"


@pytest.mark.parametrize("number", ["b7c6-e0", "5100200300", ""])
def test_ids_that_do_not_go_on_leave_it_open_and_say_so(tmp_path: Path, number: str) -> None:
    folder, root = tmp_path / "archive", tmp_path / "data"
    tardis(folder, "29", [(number, -5000)])
    binance(folder, "30", [(8, 100)])
    assert f"{UNDECIDED}: a gap is written at the midnight that begins 2024-03-30" in imported(root, folder)
    (gap,) = rows(root, GAPS, BTC).rows(named=True)
    assert gap["reason"] == UNDECIDED
    assert not gap["mended"]
    assert gap["from_ns"] < MIDNIGHT_MS * 1_000_000 < gap["to_ns"]


def test_a_day_of_another_provider_between_two_is_no_hole(tmp_path: Path) -> None:
    folder, root = tmp_path / "archive", tmp_path / "data"
    binance(folder, "29", [(6, -10)])
    tardis(folder, "30", [(7, 100), (8, 86_390_000)])
    binance(folder, "31", [(9, 86_400_100)])
    imported(root, folder)
    assert ids(root) == ["6", "7", "8", "9"]
    assert not rows(root, GAPS, BTC).height
