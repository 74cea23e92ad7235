"""The export stage, and its files in hftbacktest itself."""

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from core.cli import run_stages
from core.config import load
from core.errors import ConfigError, StageError
from core.schema import BOOK_DELTAS, GAPS, TOP_OF_BOOK, TRADES, Table
from core.store import Partition, partitions, read, write
from core.units import NS_PER_DAY, NS_PER_S
from ingest import capture, export_events
from ingest.book_rebuild import PRICES, best_frame
from ingest.event_array import BUY, CLEAR, DEPTH, FOR_EXCHANGE, FOR_LOCAL, SELL, SNAPSHOT, TRADE
from ingest.events import BookUpdate, Gap, Quote, Trade
from ingest.packing import frame_of
from ingest.stored_books import rebuilder_at, slices

ROOT = Path(__file__).resolve().parents[2]
HFTBACKTEST = ROOT / ".venv-hftbacktest" / "bin" / "python"
START_NS = 1_767_592_800 * NS_PER_S
DATE = "2026-01-05"
TICK, LOT = 0.1, 0.001


def at(second: float) -> int:
    return START_NS + round(second * NS_PER_S)


def put(root: Path, table: Table, events: list[Any], date: str = DATE) -> None:
    write(root, Partition(table.name, "binance_um", "BTCUSDT", date), frame_of(table, events))


def exported(data: Path, *pairs: str) -> dict[str, Any]:
    """The arrays of an export, by file name."""
    config = load(pairs=[f"export_events.path={data / 'out'}", *pairs], options={"data_dir": str(data)})
    run_stages(config, {"export_events": export_events.run})
    found = {}
    for path in sorted((data / "out").glob("*.npz")):
        with np.load(path) as saved:
            found[path.name] = saved["data"]
    return found


def kinds(data: Any) -> list[int]:
    """The events that the strategy sees, without the flags of who sees them."""
    return [int(event) & ~(FOR_LOCAL | FOR_EXCHANGE) for event in data["ev"] if int(event) & FOR_LOCAL]


def changing_book() -> list[BookUpdate]:
    updates = [BookUpdate("BTCUSDT", at(0), at(0), 0, [(99.0, 1.0)], [(101.0, 1.0)], True)]
    updates += [BookUpdate("BTCUSDT", at(s), at(s), s, [(99.0, 1.0 + s)], []) for s in range(1, 6)]
    return [*updates, BookUpdate("BTCUSDT", at(6), at(6), 6, [(98.0, 1.0)], [(102.0, 1.0)], True)]


def test_a_stretch_begins_with_the_book_as_it_stood_and_a_gap_ends_in_a_cleared_one(tmp_path: Path) -> None:
    put(tmp_path, BOOK_DELTAS, changing_book())
    put(tmp_path, TRADES, [Trade("BTCUSDT", at(s), at(s), str(s), 99.0, 1.0, "sell") for s in (0, 5)])
    put(tmp_path, GAPS, [Gap("BTCUSDT", "book_deltas", at(3), at(6), "lost", True)])
    (data,) = exported(tmp_path, "export_events.start=2026-01-05T06:00:02Z").values()
    book = [SNAPSHOT | BUY, SNAPSHOT | SELL, DEPTH | BUY, DEPTH | BUY]
    assert kinds(data) == [*book, TRADE | SELL, CLEAR, SNAPSHOT | BUY, SNAPSHOT | SELL]
    assert data["qty"][:4].tolist() == [2.0, 1.0, 3.0, 4.0]
    assert data["local_ts"][0] == at(2)


def test_a_day_goes_on_from_the_day_before(tmp_path: Path) -> None:
    put(
        tmp_path,
        BOOK_DELTAS,
        [BookUpdate("BTCUSDT", 1, at(-40_000), 0, [(9.0, 1.0)], [(11.0, 1.0)], True)],
        "2026-01-04",
    )
    put(tmp_path, BOOK_DELTAS, [BookUpdate("BTCUSDT", at(0), at(0), 5, [(9.5, 1.0)], [])])
    arrays = exported(tmp_path)
    assert list(arrays) == [f"binance_um-BTCUSDT-{date}.npz" for date in ("2026-01-04", DATE)]
    assert kinds(arrays[f"binance_um-BTCUSDT-{DATE}.npz"]) == [SNAPSHOT | BUY, SNAPSHOT | SELL, DEPTH | BUY]


def test_without_depth_the_best_prices_are_the_book(tmp_path: Path) -> None:
    put(tmp_path, TOP_OF_BOOK, [Quote("BTCUSDT", at(s), at(s), s, 99.0, 1.0 + s, 101.0, 1.0) for s in range(3)])
    (data,) = exported(tmp_path).values()
    assert kinds(data) == [CLEAR, SNAPSHOT | BUY, SNAPSHOT | SELL, DEPTH | BUY, DEPTH | BUY]


def test_a_clock_that_ran_behind_is_set_right_alike_for_all_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(
        tmp_path, TOP_OF_BOOK, [Quote("BTCUSDT", at(s), at(s) - 40_000_000, s, 99.0, 1.0, 101.0, 1.0) for s in range(3)]
    )
    put(tmp_path, TRADES, [Trade("BTCUSDT", at(1), at(1) - 90_000_000, "1", 99.0, 1.0, "buy")])
    (data,) = exported(tmp_path, "export_events.base_latency_ms=2").values()
    assert (data["local_ts"] - data["exch_ts"]).min() == 2_000_000
    assert "90.000 ms behind" in capsys.readouterr().out


def test_a_start_within_a_second_is_kept_to_the_nanosecond(tmp_path: Path) -> None:
    quotes = [Quote("BTCUSDT", at(0) + ns, at(0) + ns, ns, 99.0, 1.0 + ns, 101.0, 1.0) for ns in range(3)]
    put(tmp_path, TOP_OF_BOOK, quotes)
    (data,) = exported(tmp_path, "export_events.start=2026-01-05T06:00:00.000000001Z").values()
    assert data["local_ts"].min() == at(0) + 1
    (data,) = exported(tmp_path, "export_events.end=2026-01-05T06:00:00.000000001Z").values()
    assert data["local_ts"].max() == at(0)


@pytest.mark.parametrize("start", ["2026-01-05T06:00:00", "2026-01-05T06:00:00+01:00", "2026-02-30T06:00:00Z"])
def test_a_start_that_is_no_utc_time_is_refused(tmp_path: Path, start: str) -> None:
    put(tmp_path, TOP_OF_BOOK, [Quote("BTCUSDT", at(0), at(0), 1, 99.0, 1.0, 101.0, 1.0)])
    with pytest.raises(ConfigError, match=r"export_events\.start"):
        exported(tmp_path, f"export_events.start={start}")


def test_an_export_of_nothing_says_what_was_asked_for(tmp_path: Path) -> None:
    put(tmp_path, TOP_OF_BOOK, [Quote("BTCUSDT", at(0), at(0), 1, 99.0, 1.0, 101.0, 1.0)])
    with pytest.raises(StageError, match="of any symbol between 2027"):
        exported(tmp_path, "export_events.start=2027-01-05T06:00:00Z")
    with pytest.raises(ConfigError, match=r"export_events\.end"):
        exported(tmp_path, "export_events.start=2027-01-05T06:00:00Z", "export_events.end=2026-01-05T06:00:00Z")


@pytest.mark.slow
def test_hftbacktest_sees_our_book_and_all_trades_and_fills_a_market_maker(market_data: Path, tmp_path: Path) -> None:
    if not HFTBACKTEST.exists():
        pytest.skip("hftbacktest needs another NumPy: see benchmarks/requirements-hftbacktest.txt")
    source = market_data / "raw" / "binance_20240808" / "usdm_btcusdt.jsonl.zst"
    pairs = [f"replay.path={source}", "capture.depth=100ms"]
    config = load(pairs=pairs, options={"source": "replay", "data_dir": str(tmp_path)})
    run_stages(config, {"capture": capture.run})
    (name,) = exported(tmp_path)
    script = [HFTBACKTEST, ROOT / "benchmarks" / "run_hftbacktest.py", str(TICK), str(LOT), tmp_path / "out" / name]
    ran = subprocess.run(script, capture_output=True, text=True, check=True, timeout=300)
    seen = json.loads(ran.stdout.splitlines()[-1])
    assert seen["fills"] > 100
    samples = seen["seen"]
    assert len(samples) > 300
    (trades,) = [read(tmp_path, part) for part in partitions(tmp_path, TRADES)]
    assert samples[-1][5] == trades.height
    book = our_book(tmp_path)
    began_ns = min(int(book["recv_ns"][0]), int(trades["recv_ns"][0]))  # the file's clock is ours, but later
    differing = [sample for sample in samples if not agrees(sample, book, began_ns)]
    assert differing == []


def our_book(data: Path) -> pl.DataFrame:
    """Our best prices after each message of the book."""
    (part,) = partitions(data, BOOK_DELTAS)
    rebuilder = rebuilder_at(data, part, part.starts_ns)
    frames = []
    for rows in slices(data, part, part.starts_ns, part.starts_ns + NS_PER_DAY):
        applied = rebuilder.follow(rows)
        frames.append(best_frame(applied, rebuilder.best_after(applied)))
    return pl.concat(frames).drop_nulls()


def agrees(sample: list[float], book: pl.DataFrame, began_ns: int) -> bool:
    """Whether a look at hftbacktest's book shows ours at that time."""
    after_ns, bid_tick, bid_qty, ask_tick, ask_qty, _ = sample
    row = book["recv_ns"].search_sorted(began_ns + round(after_ns), side="right")
    theirs = bid_tick * TICK, bid_qty, ask_tick * TICK, ask_qty
    return np.allclose(theirs, book.select(PRICES).row(int(row) - 1), rtol=0, atol=1e-6)
