"""The quality stage on tables that hold known faults, and on what was recorded."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import polars as pl
import pytest

from core.cli import run_stages
from core.config import load
from core.errors import StageError
from core.run_record import RunRecord
from core.schema import BOOK_DELTAS, GAPS, LIQUIDATIONS, QUALITY, TOP_OF_BOOK, TRADES, Table
from core.store import Partition, partitions, read, write
from core.units import NS_PER_S
from ingest import capture, day_quality, quality
from ingest.asked_streams import note_asked, read_starts
from ingest.clock_skew import skew_lines, skews_ms
from ingest.day_quality import measure_day
from ingest.events import BookUpdate, Gap, Liquidation, Quote, Trade
from ingest.packing import frame_of
from ingest.quality_report import report, worst_first
from ingest.rows import TableWriter

START_NS = 1_767_592_800 * NS_PER_S
DATE = "2026-01-05"


def at(second: float) -> int:
    return START_NS + round(second * NS_PER_S)


def put(root: Path, table: Table, events: Sequence[Any], symbol: str = "BTCUSDT", venue: str = "binance_um") -> None:
    write(root, Partition(table.name, venue, symbol, DATE), frame_of(table, events))


def trades(ids: Sequence[int], step_s: float = 1.0, first_s: float = 0.0) -> list[Trade]:
    times = [at(first_s + place * step_s) for place in range(len(ids))]
    return [
        Trade("BTCUSDT", ns - 5_000_000, ns, str(each), 1.5, 1.0, "buy") for ns, each in zip(times, ids, strict=True)
    ]


def figures(root: Path, stream: str, symbol: str = "BTCUSDT", venue: str = "binance_um") -> dict[str, Any]:
    return measure_day(root, venue, symbol, DATE).row(by_predicate=pl.col("stream") == stream, named=True)


def run(data: Path, *pairs: str) -> RunRecord:
    return run_stages(load(pairs=pairs, options={"data_dir": str(data)}), {"quality": quality.run})


def test_gaps_and_silences_are_not_covered_and_refilled_trades_are(tmp_path: Path) -> None:
    put(tmp_path, TRADES, trades(range(100)) + trades(range(100, 201), first_s=500.0))  # 401 s of silence
    lost = [("lost", 20, 30, False), ("lost again", 25, 40, False), ("refilled", 50, 90, True)]
    put(tmp_path, GAPS, [Gap("BTCUSDT", "trades", at(a), at(b), why, mended) for why, a, b, mended in lost])
    row = figures(tmp_path, "trades")
    assert row["span_s"] == 600
    assert row["silence_limit_s"] == pytest.approx(30, rel=0.01)
    assert (row["silence_count"], row["longest_silence_s"]) == (1, 401)
    assert row["coverage_frac"] == pytest.approx(1 - (401 + 20) / 600)
    assert row["day_frac"] == pytest.approx((600 - 421) / 86_400)
    assert (row["gap_count"], row["gap_s"], row["mended_count"]) == (3, 60, 1)


def test_a_stream_that_ends_before_the_others_is_silent_from_there_on(tmp_path: Path) -> None:
    put(tmp_path, TRADES, trades(range(400)))
    put(tmp_path, TOP_OF_BOOK, [Quote("BTCUSDT", at(s), at(s), s, 1.0, 1.0, 2.0, 1.0) for s in range(100)])
    assert figures(tmp_path, "top_of_book")["coverage_frac"] == pytest.approx(99 / 399)
    assert figures(tmp_path, "trades")["coverage_frac"] == 1.0


def test_a_stream_that_dies_early_is_not_covered_by_its_own_silence(tmp_path: Path) -> None:
    put(tmp_path, TOP_OF_BOOK, [Quote("BTCUSDT", at(s), at(s), s, 1.0, 1.0, 2.0, 1.0) for s in range(0, 40_000, 10)])
    put(tmp_path, TRADES, trades(range(29)))
    row = figures(tmp_path, "trades")
    assert row["coverage_frac"] == pytest.approx(28 / 39_990)
    assert row["silence_limit_s"] == pytest.approx(30, rel=0.01)
    assert figures(tmp_path, "top_of_book")["coverage_frac"] == 1.0


def test_no_silence_of_a_slow_stream_is_longer_than_ten_minutes_but_for_one_that_is_as_slow(tmp_path: Path) -> None:
    put(tmp_path, TRADES, trades(range(40), step_s=100.0) + trades([40], first_s=4_600.0))
    put(tmp_path, TRADES, trades(range(20), step_s=900.0), "SLOWUSDT")
    assert figures(tmp_path, "trades")["silence_limit_s"] == 600.0
    assert figures(tmp_path, "trades")["silence_count"] == 1
    assert figures(tmp_path, "trades", "SLOWUSDT")["silence_count"] == 0


def test_bursts_do_not_make_the_time_between_them_a_silence(tmp_path: Path) -> None:
    bursts = [trade for second in range(0, 4_000, 40) for trade in trades(range(9), 0.001, second)]
    put(tmp_path, TRADES, bursts)
    assert figures(tmp_path, "trades")["silence_count"] == 0


def test_liquidations_may_be_silent(tmp_path: Path) -> None:
    put(tmp_path, TRADES, trades(range(400)))
    put(tmp_path, LIQUIDATIONS, [Liquidation("BTCUSDT", at(s), at(s), "long", 1.0, 1.0) for s in (3, 4)])
    assert figures(tmp_path, "liquidations")["coverage_frac"] == 1.0


@pytest.mark.parametrize("at_once", [1_000_000, 7])
def test_duplicates_are_counted_exactly_also_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr(day_quality, "_KEYS_AT_ONCE", at_once)
    put(tmp_path, TRADES, trades([*range(50), 7, 7, 49, *range(50, 60)]))
    put(tmp_path, TRADES, trades([*range(50, 0, -1)]), symbol="ETHUSDT")
    assert figures(tmp_path, "trades")["duplicate_count"] == 3
    assert figures(tmp_path, "trades", "ETHUSDT")["duplicate_count"] == 0


def test_levels_of_one_message_are_no_duplicates_and_a_message_sent_twice_is(tmp_path: Path) -> None:
    levels = [(1.0, 1.0), (0.9, 1.0)], [(2.0, 1.0)]
    updates = [BookUpdate("BTCUSDT", at(s), at(s), s, *levels, s == 0) for s in range(20)]
    put(tmp_path, BOOK_DELTAS, updates)
    assert figures(tmp_path, "book_deltas")["duplicate_count"] == 0
    again = BookUpdate("BTCUSDT", at(7), at(7.5), 7, *levels)
    put(tmp_path, BOOK_DELTAS, [*updates[:8], again, *updates[8:]])
    assert figures(tmp_path, "book_deltas")["duplicate_count"] == 3


def test_crossed_and_locked_books_are_counted(tmp_path: Path) -> None:
    asks = [2.0, 1.0, 0.5, 2.0]
    put(tmp_path, TOP_OF_BOOK, [Quote("BTCUSDT", at(s), at(s), s, 1.0, 1.0, ask, 1.0) for s, ask in enumerate(asks)])
    updates = [BookUpdate("BTCUSDT", at(0), at(0), 1, [(1.0, 1.0)], [(2.0, 1.0)], True)]
    updates += [BookUpdate("BTCUSDT", at(s), at(s), 1 + s, [(1.0 + s, 1.0)], []) for s in (1, 2)]
    put(tmp_path, BOOK_DELTAS, updates)
    assert figures(tmp_path, "top_of_book")["crossed_count"] == 2
    assert figures(tmp_path, "book_deltas")["crossed_count"] == 2


def book_and_tops(venue: str, wrong: int) -> tuple[list[BookUpdate], list[Quote]]:
    """A book of 50 changes, and the venue's best prices, one of them wrong: of the same time, on Bybit 5 ms before."""
    updates = [BookUpdate("BTCUSDT", at(0), at(0), 0, [(1.0, 1.0)], [(2.0, 1.0)], True)]
    updates += [BookUpdate("BTCUSDT", at(s), at(s), s, [(1.0, float(s))], []) for s in range(1, 50)]
    number, ahead_s = (0, 0.0) if venue == "binance_um" else (7_000, 0.005)  # Bybit numbers each depth apart
    tops = [
        Quote("BTCUSDT", at(s - ahead_s), at(s) - 9, number + s, 1.0, float(s) + (s == wrong), 2.0, 1.0)
        for s in range(1, 50)
    ]
    return updates, tops


@pytest.mark.parametrize(("venue", "compared"), [("binance_um", 49), ("bybit", 48)])
def test_the_rebuilt_book_is_compared_with_the_venues_best_prices(tmp_path: Path, venue: str, compared: int) -> None:
    updates, tops = book_and_tops(venue, wrong=9)
    put(tmp_path, BOOK_DELTAS, updates, venue=venue)
    put(tmp_path, TOP_OF_BOOK, tops, venue=venue)
    row = figures(tmp_path, "book_deltas", venue=venue)
    assert row["compared_count"] == compared
    assert row["agreement_frac"] == pytest.approx((compared - 1) / compared)


@pytest.mark.parametrize(
    ("reason", "compared"),
    [("clock set by +2000 ms", 49), ("3 more: a frame did not decode: x", 49), ("update 9-9 does not follow 7", 20)],
)
def test_a_book_is_unknown_from_a_gap_to_the_next_snapshot_unless_the_gap_broke_no_book(
    tmp_path: Path, reason: str, compared: int
) -> None:
    updates, tops = book_and_tops("binance_um", wrong=-1)
    put(tmp_path, BOOK_DELTAS, updates)
    put(tmp_path, TOP_OF_BOOK, tops)
    put(tmp_path, GAPS, [Gap("BTCUSDT", "book_deltas", at(20), at(30), reason, False)])
    row = figures(tmp_path, "book_deltas")
    assert (row["compared_count"], row["agreement_frac"]) == (compared, 1.0)


def test_a_book_is_carried_over_midnight(tmp_path: Path) -> None:
    updates, tops = book_and_tops("binance_um", wrong=-1)
    yesterday = Partition(BOOK_DELTAS.name, "binance_um", "BTCUSDT", "2026-01-04")
    write(
        tmp_path, yesterday, frame_of(BOOK_DELTAS, [BookUpdate("BTCUSDT", 1, at(-40_000), 0, [], [(2.0, 1.0)], True)])
    )
    put(tmp_path, BOOK_DELTAS, updates[1:])
    put(tmp_path, TOP_OF_BOOK, tops)
    row = figures(tmp_path, "book_deltas")
    assert (row["compared_count"], row["agreement_frac"]) == (49, 1.0)


def test_what_did_not_change_is_kept_and_what_did_is_measured_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put(tmp_path, TRADES, trades(range(10)))
    put(tmp_path, TRADES, trades(range(10)), symbol="ETHUSDT")
    run(tmp_path)
    assert [read(tmp_path, part)["rows"].to_list() for part in partitions(tmp_path, QUALITY)] == [[10.0], [10.0]]
    put(tmp_path, TRADES, trades(range(11)))
    capsys.readouterr()
    run(tmp_path)
    assert "1 of 2 symbol-days unchanged" in capsys.readouterr().out
    assert [read(tmp_path, part)["rows"].to_list() for part in partitions(tmp_path, QUALITY)] == [[11.0], [10.0]]


def test_without_events_it_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no events under .*capture"):
        run(tmp_path)


def test_of_many_symbols_the_worst_are_told_first(tmp_path: Path) -> None:
    for number in range(60):
        gap = [Gap("X", "trades", at(0), at(number), "lost", False)] if number else []
        put(tmp_path, TRADES, trades(range(100)), symbol=f"S{number:02d}")
        if gap:
            put(tmp_path, GAPS, gap, symbol=f"S{number:02d}")
    text = told(tmp_path, width=120)
    listed = [line for line in text if line.startswith("binance_um:S")]  # of one day, which needs no column
    assert listed[0].split()[0] == "binance_um:S59"
    assert len(listed) == 15
    assert "and 45 more, none worse: all stand in the table `quality`" in text
    assert any(line.startswith("binance_um trades (60)") and "6,000" in line for line in text)


def told(root: Path, width: int = 80) -> list[str]:
    """The lines of the stage's report."""
    types = dict.fromkeys(day_quality.FIGURES, pl.Float64())
    return report(pl.DataFrame(run(root).report()["quality"], schema_overrides=types), width).split("\n")


def test_a_stream_that_never_sent_a_row_stands_first_with_none(tmp_path: Path) -> None:
    put(tmp_path, TRADES, trades(range(100)))
    put(tmp_path, GAPS, [Gap("BTCUSDT", "mark_prices", at(0), at(50), "no message came", False)])
    put(tmp_path, TOP_OF_BOOK, [Quote("ETHUSDT", at(s), at(s), s, 1.0, 1.0, 2.0, 1.0) for s in (0, 98)], "ETHUSDT")
    first, *others = [line.split() for line in told(tmp_path) if "_um:" in line]
    assert first[:3] == ["binance_um:BTCUSDT", "mark_prices", "0"]
    assert len(others) == 2
    assert figures(tmp_path, "mark_prices")["coverage_frac"] == 0.0


def test_what_was_asked_for_and_never_came_is_missed(tmp_path: Path) -> None:
    def asked(*streams: tuple[str, str], began_ns: int) -> None:
        feed: Any = SimpleNamespace(venue="binance_um", plan=SimpleNamespace(feeds=streams))
        note_asked(tmp_path, began_ns, [feed])

    put(tmp_path, TRADES, trades(range(100)))
    asked(("BTCUSDT", "klines"), began_ns=at(-9e6))  # the capture before the last before the day had ended
    asked(("BTCUSDT", "trades"), ("BTCUSDT", "top_of_book"), began_ns=at(-90_000))
    asked(("BTCUSDT", "liquidations"), ("XRPUSDT", "trades"), began_ns=at(0))
    with (tmp_path / "asked.jsonl").open("ab") as file:
        file.write(b'{"began_ns": 1')  # cut short by a crash
    for _ in range(3):  # and started again and again
        asked(("BTCUSDT", "mark_prices"), began_ns=at(90_000))
    assert [start.began_ns for start in read_starts(tmp_path)] == [at(-9e6), at(-90_000), at(0), at(90_000)]
    with (tmp_path / "asked.jsonl").open("ab") as file:
        file.write(b'{"began_ns":1,"streams":{"binance_um:BTCUSDT":["top')
    rows = {(row["symbol"], row["stream"]): row for row in run(tmp_path).report()["quality"]}
    btc, xrp = "binance_um:BTCUSDT", "binance_um:XRPUSDT"
    assert {*rows} == {(btc, "trades"), (btc, "top_of_book"), (btc, "liquidations"), (xrp, "trades")}
    assert [rows[btc, name]["coverage_frac"] for name in ("trades", "top_of_book", "liquidations")] == [1.0, 0.0, 1.0]
    assert [line.split()[:3] for line in told(tmp_path) if "_um:" in line][:2] == [
        [btc, "top_of_book", "0"],
        [xrp, "trades", "0"],
    ]


@pytest.mark.parametrize("width", [68, 80, 120, 250])
def test_the_report_is_as_wide_as_the_screen_at_the_most(tmp_path: Path, width: int) -> None:
    for symbol in ("1000000MOGUSDT", "BTCUSDT"):
        put(tmp_path, TRADES, trades([*range(1_000), *range(500)], 0.01), symbol=symbol)
        put(tmp_path, LIQUIDATIONS, [Liquidation("X", at(s), at(s), "long", 1.0, 1.0) for s in range(9)], symbol)
        put(tmp_path, GAPS, [Gap("X", "trades", at(0), at(5), "lost", False)], symbol=symbol)
    lines = told(tmp_path, width)
    assert max(map(len, lines)) <= width
    heads = "\n".join(line for line in lines if line.startswith("stream"))
    assert all(head in heads for head in ("rows", "gap s", "doubled", "p99 ms"))
    assert "0 or unknown everywhere: mended" in "\n".join(lines)


def test_a_clock_that_ran_behind_is_told_and_a_delay_is_not(tmp_path: Path) -> None:
    ahead_ns = 1_271_000_000
    put(
        tmp_path,
        TRADES,
        [msgspec.structs.replace(each, exch_ns=each.recv_ns + ahead_ns) for each in trades(range(500))],
    )
    put(tmp_path, TRADES, trades(range(500)), venue="bybit")
    [line] = [line for line in told(tmp_path, 500) if line.startswith("clock: ")]
    assert "it ran mostly 1,271 ms (binance_um) behind the venue's: rows are told" in line
    assert skews_ms(tmp_path) == {"binance_um": -1_271.0, "bybit": 5.0}
    assert not skew_lines({"a": -9.0, "b": 900.0})
    assert "was the clock ahead?" in skew_lines({"a": 1_001.0})[0]


def test_a_few_books_that_were_compared_by_chance_do_not_rank(tmp_path: Path) -> None:
    row = {"rows": 9.0, "coverage_frac": 1.0, "duplicate_count": 0.0, "crossed_count": 0.0, "latency_p99_ms": 1.0}
    frame = pl.DataFrame(
        [
            {"symbol": name, "date": DATE, "stream": "x", "compared_count": compared, "agreement_frac": agree, **row}
            for name, compared, agree in (("a", 2.0, 0.0), ("b", 40.0, 0.9), ("c", None, None))
        ]
    )
    assert worst_first(frame)["symbol"].to_list() == ["b", "a", "c"]


def test_the_recorded_books_agree_with_book_ticker_wherever_both_were_recorded(
    market_data: Path, tmp_path: Path
) -> None:
    source = market_data / "raw" / "binance_20240808" / "usdm_ethusdt.jsonl.zst"
    pairs = [f"replay.path={source}", "capture.depth=100ms"]
    config = load(pairs=pairs, options={"source": "replay", "data_dir": str(tmp_path)})
    run_stages(config, {"capture": capture.run, "quality": quality.run})
    (part,) = partitions(tmp_path, QUALITY)
    rows = {row["stream"]: row for row in read(tmp_path, part).to_dicts()}
    assert (rows["book_deltas"]["compared_count"], rows["book_deltas"]["agreement_frac"]) == (551, 1.0)
    assert rows["book_deltas"]["skew_ms"] == pytest.approx(-1_270.6, abs=0.5)
    for row in rows.values():
        assert (row["coverage_frac"], row["gap_count"], row["duplicate_count"]) == (1.0, 0, 0)


def test_a_day_is_measured_while_it_is_written(tmp_path: Path) -> None:
    """Whole prefixes of what comes, never an error, and at the end all of it."""
    writer = TableWriter(tmp_path, flush_rows=500, durable_s=0.05)
    counts: list[int] = []
    stop = threading.Event()

    def measure() -> None:
        while not stop.is_set():
            if (tmp_path / "trades").exists():
                rows = measure_day(tmp_path, "binance_um", "BTCUSDT", DATE)["rows"].to_list()
                counts.extend(int(each) for each in rows)

    reader = threading.Thread(target=measure)
    reader.start()
    try:
        for first in range(0, 6_000, 100):
            writer.add("binance_um", trades(range(first, first + 100), 0.01, first * 0.01))
            writer.tick()
            while first == 3_000 and not counts:  # one at the least before the end
                time.sleep(0.02)
                writer.tick()
            time.sleep(0.02)
        while len(set(counts)) < 2:
            writer.tick()
            time.sleep(0.02)
    finally:
        stop.set()
        reader.join()
        writer.close()
    assert counts == sorted(counts)
    assert len(set(counts)) > 1
    row = figures(tmp_path, "trades")
    assert (row["rows"], row["duplicate_count"], row["coverage_frac"]) == (6_000, 0, 1.0)
