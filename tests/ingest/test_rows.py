"""The table writer: nothing lost, in time, bounded in memory, and whole files only whatever ends it."""

import random
import threading
import time
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.drill_kills import kill_once
from core.compaction import staging_of
from core.errors import StageError
from core.plain_rows import PlainRows
from core.schema import EVENTS, GAPS, TOP_OF_BOOK, Table, check
from core.store import Partition, files, is_sealed, partitions, read
from core.units import NS_PER_DAY
from ingest import rows
from ingest.events import BookUpdate, Gap, Quote, Trade
from ingest.packing import rows_of
from ingest.rows import TableWriter


def quote(recv_ns: int, symbol: str = "BTCUSDT") -> Quote:
    return Quote(symbol, recv_ns - 5, recv_ns, recv_ns, 1.0, 2.0, 3.0, 4.0)


def part(table: str = "top_of_book", date: str = "1970-01-01") -> Partition:
    return Partition(table, "binance_um", "BTCUSDT", date)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 2 * NS_PER_DAY), max_size=60), st.integers(1, 20))
def test_every_row_arrives_once_and_in_order(tmp_path_factory: object, times: list[int], flush_rows: int) -> None:
    root: Path = tmp_path_factory.mktemp("rows")  # type: ignore[attr-defined]
    writer = TableWriter(root, flush_rows)
    for recv_ns in times:
        writer.add("binance_um", [quote(recv_ns)])
        if recv_ns % 3 == 0:
            writer.flush()
    writer.flush()
    found = [row for place in partitions(root, TOP_OF_BOOK) for row in read(root, place)["recv_ns"].to_list()]
    assert found == sorted(times)
    assert writer.rows.total() == len(times)


def test_a_day_is_cut_at_midnight(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, 1000)
    writer.add("binance_um", [quote(NS_PER_DAY - 1), quote(NS_PER_DAY)])
    writer.flush()
    assert read(tmp_path, part())["recv_ns"].to_list() == [NS_PER_DAY - 1]
    assert read(tmp_path, part(date="1970-01-02"))["recv_ns"].to_list() == [NS_PER_DAY]


def test_full_buffers_are_written_without_being_asked(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, flush_rows=10_000)
    for start in range(1, 60_001, 100):
        writer.add("binance_um", [quote(start + k) for k in range(100)])
    writer.flush()
    assert 2 <= len(files(tmp_path, part())) <= 6
    assert read(tmp_path, part()).height == 60_000


def test_rows_are_on_disk_within_the_time_that_was_asked_for(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, 1000, durable_s=0.2)
    for number in range(1, 9):
        writer.add("binance_um", [quote(number), quote(number, f"X{number}USDT")])
        while writer.backlog:
            writer.tick()
            time.sleep(0.005)
        assert read(tmp_path, part()).height == number
    assert len(files(tmp_path, part())) == 1
    writer.close()


def test_a_burst_is_on_disk_in_time_though_silence_follows_it(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, durable_s=0.2)
    writer.add("binance_um", [quote(number) for number in range(rows._HAND_OVER_EVENTS)])
    deadline_s = time.monotonic() + 30.0
    while writer.backlog and time.monotonic() < deadline_s:
        writer.tick()
        time.sleep(0.005)
    found = read(tmp_path, part()).height
    writer.close()
    assert found == rows._HAND_OVER_EVENTS


@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.booleans(), st.integers(1, 5)), max_size=20), st.integers(1, 30))
def test_rows_stand_behind_the_events_that_were_given_before_them(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[bool, int]], flush_rows: int
) -> None:
    root = tmp_path_factory.mktemp("both")
    writer, count = TableWriter(root, flush_rows), 0
    for as_rows, more in steps:
        quotes = [Quote("BTCUSDT", 1, 2, number, 1.0, 2.0, 3.0, 4.0) for number in range(count, count + more)]
        count += more
        if as_rows:
            writer.add_rows("binance_um", "BTCUSDT", rows_of(TOP_OF_BOOK, quotes))
        else:
            writer.add("binance_um", quotes)
    writer.flush()
    assert [n for place in partitions(root, TOP_OF_BOOK) for n in _numbers(root, place)] == [*range(count)]
    writer.close()


def test_gaps_are_a_table_of_their_own(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, 1000)
    for from_ns in (5, 1):
        writer.add("binance_um", [Gap("BTCUSDT", "trades", from_ns, 9, "lost", False)])
    writer.flush()
    rows = read(tmp_path, part("gaps"))
    check(GAPS, rows)
    assert rows["from_ns"].to_list() == [1, 5]
    assert not any(partitions(tmp_path, table) for table in EVENTS)


def test_rows_are_never_on_disk_before_the_gap_that_was_told_before_them(tmp_path: Path) -> None:
    seen: list[str] = []
    writer = TableWriter(
        tmp_path, 1000, observe=lambda venue, table, symbol, rows: seen.append(f"{symbol} {table.name}")
    )
    for symbol in ("BTCUSDT", "ETHUSDT"):
        writer.add("binance_um", [quote(1, symbol)])
        writer.flush()
        writer.add("binance_um", [Gap(symbol, "trades", 1, 2, "lost", False), quote(3, symbol)])
    writer.close()
    for symbol in ("BTCUSDT", "ETHUSDT"):
        assert [name for name in seen if symbol in name] == [
            f"{symbol} top_of_book",
            f"{symbol} gaps",
            f"{symbol} top_of_book",
        ]


def test_that_trades_were_fetched_is_never_on_disk_before_them(tmp_path: Path) -> None:
    """The hole, the trade that showed it, what was fetched, and that it was: the sweep may take any stream first."""
    seen: list[str] = []
    writer = TableWriter(tmp_path, 1000, observe=lambda venue, table, symbol, rows: seen.append(table.name))

    def trade(number: int) -> Trade:
        return Trade("BTCUSDT", number, number, str(number), 1.0, 1.0, "buy")

    def hole(mended: bool) -> Gap:
        return Gap("BTCUSDT", "trades", 1, 9, "", mended)

    writer.add("binance_um", [hole(False), trade(9)])
    writer.add("binance_um", [trade(5)])
    writer.add("binance_um", [hole(True)])
    writer.close()
    assert seen == ["gaps", "trades", "gaps"]


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.tuples(st.floats(0.0, 0.3), st.lists(st.integers(0, 7), max_size=6)), max_size=40),
    st.integers(2, 20),
)
def test_rows_older_than_asked_for_are_in_a_file_and_none_is_there_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[float, list[int]]], flush_rows: int
) -> None:
    """The clock moves by steps; the writer is told of each, and nothing is asked of it but `add` and `tick`."""
    root, now_s, added_s = tmp_path_factory.mktemp("ticks"), 0.0, []
    writer = TableWriter(root, flush_rows, durable_s=1.0, read_clock_s=lambda: now_s)
    for step_s, symbols in steps:
        for _ in range(1 + int(step_s / 0.05)):
            now_s += min(step_s, 0.05)
            writer.tick()
        writer.settle()
        on_disk = [number for place in partitions(root, TOP_OF_BOOK) for number in _numbers(root, place)]
        assert len(on_disk) == len(set(on_disk))
        assert set(on_disk) >= {number for number, at_s in enumerate(added_s) if at_s <= now_s - 1.0}
        for symbol in symbols:
            writer.add("binance_um", [quote(len(added_s), f"X{symbol}")])
            added_s.append(now_s)
    writer.close()
    for place in partitions(root, TOP_OF_BOOK):
        assert len(files(root, place)) == 1
    assert sorted(n for place in partitions(root, TOP_OF_BOOK) for n in _numbers(root, place)) == [*range(len(added_s))]


def _numbers(root: Path, place: Partition) -> list[int]:
    return [number for path in files(root, place) for number in pl.read_parquet(path)["update_id"].to_list()]


def test_a_capture_that_ends_leaves_one_sorted_file_per_partition(tmp_path: Path) -> None:
    writer = TableWriter(tmp_path, flush_rows=10)
    for recv_ns in range(100, 0, -1):
        writer.add("binance_um", [quote(recv_ns)])
        writer.flush()
    writer.close()
    assert len(files(tmp_path, part())) == 1
    assert is_sealed(files(tmp_path, part())[0], TOP_OF_BOOK)
    assert read(tmp_path, part())["recv_ns"].to_list() == list(range(1, 101))


def test_shards_are_merged_while_capture_goes_on_and_a_reader_sees_each_row_once(tmp_path: Path) -> None:
    written, ended = 0, threading.Event()

    def observe(venue: str, table: Table, symbol: str, fresh: PlainRows) -> None:
        nonlocal written
        written = int(fresh.ints("update_id")[-1])

    def write() -> None:
        writer = TableWriter(tmp_path, flush_rows=20, durable_s=0.01, observe=observe)
        for number in range(1, 4001):
            writer.add("binance_um", [quote(number)])
            writer.tick()
            time.sleep(0.0003)
        writer.flush()
        ended.set()
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    most_files = reads = 0
    while not ended.is_set():
        before = written
        found = read(tmp_path, part())["update_id"].to_list()
        assert found == list(range(1, len(found) + 1))
        assert len(found) >= before
        most_files = max(most_files, len(files(tmp_path, part())))
        reads += 1
    thread.join()
    assert read(tmp_path, part()).height == 4000
    assert most_files < 100
    assert reads > 5


def test_a_killed_writer_leaves_whole_files_no_row_twice_and_none_missing_that_was_written(tmp_path: Path) -> None:
    """A hundred kills: benchmarks/drill_kills.py."""
    rng = random.Random(7)
    for life in range(10):
        kill_once(tmp_path, life, rng.uniform(0.02, 0.5), durable_s=0.02)


def test_a_new_writer_clears_away_what_a_killed_one_left(tmp_path: Path) -> None:
    stale = staging_of(tmp_path) / "x" / "0.parquet"
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"half")
    TableWriter(tmp_path).close()
    assert not stale.exists()


def test_partitions_that_a_capture_left_in_pieces_are_merged_at_the_next_start(tmp_path: Path) -> None:
    yesterday = time.time_ns() - NS_PER_DAY
    for number in range(3):
        writer = TableWriter(tmp_path, durable_s=0.01)
        writer.add("binance_um", [quote(yesterday + number)])
        writer.close(merge=False)
    place = partitions(tmp_path, TOP_OF_BOOK)[0]
    assert len(files(tmp_path, place)) > 1
    writer = TableWriter(tmp_path, durable_s=1.0)
    while len(files(tmp_path, place)) > 1:
        time.sleep(0.01)
    writer.close()
    assert read(tmp_path, place).height == 3


def test_what_the_thread_died_of_surfaces(tmp_path: Path) -> None:
    def observe(venue: str, table: Table, symbol: str, fresh: PlainRows) -> None:
        raise RuntimeError("a bug")

    writer = TableWriter(tmp_path, observe=observe)
    writer.add("binance_um", [quote(1)])
    with pytest.raises(RuntimeError, match="a bug"):
        writer.flush()
    with pytest.raises(RuntimeError, match="a bug"):
        writer.tick()


def test_a_message_that_cannot_be_told_ends_nothing(tmp_path: Path) -> None:
    def say(text: str) -> None:
        raise OSError(28, "No space left on device")

    writer = TableWriter(tmp_path, durable_s=1.0, say=say)
    folder = tmp_path / part().path
    folder.parent.mkdir(parents=True)
    folder.write_text("where the partition should be")
    writer.add("binance_um", [quote(1)])
    writer.flush()
    assert writer.trouble
    folder.unlink()
    writer.close()
    assert read(tmp_path, part())["recv_ns"].to_list() == [1]


def test_rows_that_no_disk_took_are_an_error_in_the_end(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.write_bytes(b"a file where the folder should be")
    said: list[str] = []
    writer = TableWriter(root, say=said.append)
    writer.add("binance_um", [quote(1), quote(2)])
    writer.flush()
    assert writer.trouble
    assert writer.backlog == 2
    with pytest.raises(StageError, match="2 rows were received and are lost"):
        writer.close()
    assert len([text for text in said if "CANNOT WRITE" in text]) == 1


def test_deep_books_make_a_writer_that_hangs_fall_behind_sooner(tmp_path: Path) -> None:
    hang, levels = threading.Event(), [(float(k), 1.0) for k in range(1, 21)]
    writer = TableWriter(tmp_path, durable_s=1.0, observe=lambda *_: hang.wait() and None)
    writer.add("binance_um", [quote(1)])
    writer._hand_over_all(write=True)
    added = 0
    while not writer.is_behind:
        added += 1
        writer.add("binance_um", [BookUpdate("BTCUSDT", added, added, added, list(levels), list(levels))])
    assert added < rows._MOST_EVENTS // 20  # 40 levels weigh as much as ten events
    hang.set()
    writer.flush()
    assert not writer.is_behind
    assert writer._load == 0
    writer.close()


def test_events_are_not_taken_faster_than_they_are_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "_MOST_EVENTS", 20_000)
    writer = TableWriter(tmp_path)
    most = 0
    for start in range(0, 400_000, 1000):
        writer.add("binance_um", [quote(start + k) for k in range(1000)])
        most = max(most, writer._given - writer._taken)
    assert most <= 20_000 + 2 * rows._HAND_OVER_EVENTS
    writer.close()
    assert read(tmp_path, part()).height == 400_000
