"""Events to shards: nothing lost, in order, one partition per day, bounded in memory."""

import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from core.schema import BOOK_DELTAS, EVENTS, GAPS, MARK_PRICES, TOP_OF_BOOK, check
from core.store import Partition, files, partitions, read
from core.units import NS_PER_DAY
from ingest.events import BookUpdate, Gap, Mark, Quote
from ingest.packing import frame_of
from ingest.rows import TableWriter


def quote(recv_ns: int, symbol: str = "BTCUSDT") -> Quote:
    return Quote(symbol, recv_ns - 5, recv_ns, recv_ns, 1.0, 2.0, 3.0, 4.0)


def part(table: str = "top_of_book", date: str = "1970-01-01") -> Partition:
    return Partition(table, "binance_um", "BTCUSDT", date)


def test_a_book_update_becomes_one_row_per_level_bids_first() -> None:
    updates = [
        BookUpdate("X", 1, 2, 3, [(9.0, 1.0), (8.0, 0.0)], [(10.0, 5.0)]),
        BookUpdate("X", 4, 5, 6, [], []),
        BookUpdate("X", 7, 8, 9, [], [(11.0, 6.0)], True),
    ]
    frame = frame_of(BOOK_DELTAS, updates)
    check(BOOK_DELTAS, frame)
    assert frame.rows() == [
        (1, 2, 3, "bid", 9.0, 1.0, False, False),
        (1, 2, 3, "bid", 8.0, 0.0, False, False),
        (1, 2, 3, "ask", 10.0, 5.0, False, False),
        (7, 8, 9, "ask", 11.0, 6.0, True, False),
    ]


def test_what_a_venue_did_not_say_is_null() -> None:
    marks = [Mark("X", 1, 2, 3.0, None, None, None, None), Mark("X", 2, 3, 3.0, 4.0, 0.1, 5, 6.0)]
    frame = frame_of(MARK_PRICES, marks)
    check(MARK_PRICES, frame)
    assert frame.rows() == [(1, 2, 3.0, None, None, None, None, False), (2, 3, 3.0, 4.0, 0.1, 5, 6.0, False)]


def test_rows_received_out_of_order_are_put_in_order() -> None:
    assert frame_of(TOP_OF_BOOK, [quote(7), quote(5), quote(6)])["recv_ns"].to_list() == [5, 6, 7]


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
    for number in range(1, 21):
        writer.add("binance_um", [quote(number), quote(number, f"X{number}USDT")])
        while writer.backlog:
            writer.tick()
            time.sleep(0.005)
        assert read(tmp_path, part()).height == number
    assert len(files(tmp_path, part())) == 1
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
