"""Merging shards: the same rows in the same order and one file, while others write to the folder and read from it."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import compaction, store
from core.atomic import exchange
from core.compaction import CannotExchangeError, compact_partition, merge, put_in_place, small_neighbours, staging_of
from core.errors import StageError
from core.schema import TRADES

PART = store.Partition("trades", "bybit", "BTCUSDT", "2026-01-05")
START = store.day_start_ns("2026-01-05")


def trades(times: list[int], name: str = "") -> pl.DataFrame:
    """Rows at some ns after the start of the day, each with an id of its own."""
    rows = [(START + t, START + t, f"{name}{k}", 100.0, 1.0, "buy", False) for k, t in enumerate(sorted(times))]
    return pl.DataFrame(rows, schema=TRADES.columns, orient="row")


def put_shards(root: Path, shards: list[list[int]]) -> None:
    for number, times in enumerate(shards):
        rows = trades(times, f"{number}-")
        store.append(root, PART, rows, int(rows["recv_ns"][0]) if times else START, number)


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(compaction, "_WINDOW_ROWS", 7)
        patch.setattr(compaction, "_MARK_ROWS", 3)
        yield


@pytest.mark.usefixtures("small_windows")
@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.integers(0, 60), max_size=40), min_size=2, max_size=6))
def test_a_merge_holds_the_rows_of_its_shards_in_their_order(
    tmp_path_factory: pytest.TempPathFactory, shards: list[list[int]]
) -> None:
    root = tmp_path_factory.mktemp("merge")
    put_shards(root, shards)
    before, fingerprint = store.read(root, PART), store.fingerprint(root, [PART])
    assert compact_partition(root, PART)
    assert len(store.files(root, PART)) == 1
    assert pl.read_parquet(store.files(root, PART)[0], hive_partitioning=False).equals(before)
    assert store.fingerprint(root, [PART]) == fingerprint
    assert store.rows(root, PART) == before.height
    assert not compact_partition(root, PART)
    assert not list(staging_of(root).iterdir())


def test_shards_that_are_not_merged_stay_the_same_files(tmp_path: Path) -> None:
    put_shards(tmp_path, [[1], [2], [3], [4]])
    paths = store.files(tmp_path, PART)
    kept = {path.name: path.stat().st_ino for path in (paths[0], paths[3])}
    put_in_place(tmp_path, merge(tmp_path, PART, paths[1:3]))
    after = {path.name: path.stat().st_ino for path in store.files(tmp_path, PART)}
    assert kept.items() <= after.items()
    assert len(after) == 3
    assert store.read(tmp_path, PART)["trade_id"].to_list() == ["0-0", "1-0", "2-0", "3-0"]


def test_a_merge_of_merges_has_a_name_of_its_own(tmp_path: Path) -> None:
    names = set()
    for number in range(4):
        store.append(tmp_path, PART, trades([number]), START, number)
        compact_partition(tmp_path, PART)
        names.add(store.files(tmp_path, PART)[0].name)
        names.add(store.shard_name(START, number))
    assert len(names) == 7  # four shards, of which the first stayed what it was, and three merges


def test_only_long_runs_of_small_shards_are_merged_while_capture_goes_on(tmp_path: Path) -> None:
    put_shards(tmp_path, [[k] for k in range(40)])
    paths = store.files(tmp_path, PART)
    with paths[20].open("ab") as large:
        large.truncate(compaction.SMALL_BYTES)
    assert small_neighbours(paths) == paths[:20]
    assert small_neighbours(paths[20:]) == paths[21:]
    assert small_neighbours(paths[30:]) == []


def test_where_folders_cannot_be_exchanged_the_shards_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_shards(tmp_path, [[1], [2]])

    def refuse(one: Path, other: Path) -> None:
        raise OSError(22, "Invalid argument", str(one))

    monkeypatch.setattr(compaction, "exchange", refuse)
    with pytest.raises(CannotExchangeError):
        compact_partition(tmp_path, PART)
    assert store.rows(tmp_path, PART) == len(store.files(tmp_path, PART)) == 2
    assert not list(staging_of(tmp_path).iterdir())


def test_a_merge_that_does_not_hold_its_rows_is_thrown_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_shards(tmp_path, [[1], [2]])
    monkeypatch.setattr(compaction, "_windows", lambda *_: iter([trades([1])]))
    with pytest.raises(OSError, match="does not hold the rows"):
        compact_partition(tmp_path, PART)
    assert store.rows(tmp_path, PART) == 2


def test_a_damaged_shard_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    put_shards(tmp_path, [[1], [2]])
    store.files(tmp_path, PART)[0].write_bytes(b"PAR1 not really")
    with pytest.raises(StageError, match="2026-01-05"):
        compact_partition(tmp_path, PART)
    assert len(store.files(tmp_path, PART)) == 2


def test_what_a_killed_process_left_is_cleared_away(tmp_path: Path) -> None:
    put_shards(tmp_path, [[1], [2]])
    merge(tmp_path, PART, store.files(tmp_path, PART))  # and killed before it was put in place
    assert store.rows(tmp_path, PART) == 2
    compaction.clear_staging(tmp_path)
    assert not staging_of(tmp_path).exists()


def test_folders_are_exchanged_in_one_step(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    (one / "a").touch()
    exchange(one, other)
    assert os.listdir(other) == ["a"]
    assert not os.listdir(one)


def test_who_reads_while_shards_are_merged_sees_each_row_once(tmp_path: Path) -> None:
    """Shards come and are merged all the time; what a read returns begins with all that was there before it."""
    written = 0
    ended = threading.Event()

    def write() -> None:
        nonlocal written
        for number in range(150):
            store.append(tmp_path, PART, trades([number], f"{number}-"), START + number, number)
            written = number + 1
            if number % 8 == 7:
                compact_partition(tmp_path, PART)
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not ended.is_set():
        before = written
        found = store.read(tmp_path, PART)["trade_id"].to_list()
        middle = store.read_between(tmp_path, PART, ["recv_ns"], START + before // 2, START + before).height
        count = store.rows(tmp_path, PART)
        assert found == [f"{number}-0" for number in range(len(found))]
        assert before <= len(found) <= count <= 150
        assert middle == before - before // 2
        reads += 1
    writer.join()
    assert reads > 5
