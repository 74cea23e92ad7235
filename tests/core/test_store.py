"""The store: what is written is read back, whole or not at all, and staleness follows the rows."""

import errno
from pathlib import Path

import polars as pl
import pytest

from core import schema, shard_files, store
from core.compaction import compact_partition
from core.errors import StageError
from core.gaps import told_at_their_ends
from core.store import Partition
from core.units import NS_PER_DAY

PART = store.Partition("trades", "bybit", "BTCUSDT", "2026-01-05")
START = store.day_start_ns("2026-01-05")


def trades(times: list[int]) -> pl.DataFrame:
    rows = [(START + t, START + t, str(t), 100.0, 1.0, "buy", False) for t in times]
    return pl.DataFrame(rows, schema=schema.TRADES.columns, orient="row")


def test_a_partition_reads_back_as_written(tmp_path: Path) -> None:
    store.write(tmp_path, PART, trades([1, 2]), "inputs")
    assert store.read(tmp_path, PART).equals(trades([1, 2]))
    assert store.built_from(tmp_path, PART) == "inputs"
    assert store.rows(tmp_path, PART) == 2
    assert store.partitions(tmp_path, schema.TRADES) == [PART]


def test_hive_readers_see_the_partition_columns(tmp_path: Path) -> None:
    store.write(tmp_path, PART, trades([1]))
    row = pl.scan_parquet(tmp_path / "trades", hive_partitioning=True).collect().row(0, named=True)
    assert (row["exchange"], row["symbol"], str(row["date"])) == ("bybit", "BTCUSDT", "2026-01-05")


def test_shards_are_read_in_order_of_time(tmp_path: Path) -> None:
    store.append(tmp_path, PART, trades([5, 6]), START + 5, 1)
    store.append(tmp_path, PART, trades([1, 2]), START + 1, 0)
    assert store.read(tmp_path, PART)["trade_id"].to_list() == ["1", "2", "5", "6"]


def test_writing_replaces_the_shards(tmp_path: Path) -> None:
    store.append(tmp_path, PART, trades([1]), START + 1, 0)
    store.write(tmp_path, PART, trades([2]))
    assert store.read(tmp_path, PART)["trade_id"].to_list() == ["2"]


def test_a_draft_left_by_a_crash_is_not_read(tmp_path: Path) -> None:
    store.write(tmp_path, PART, trades([1]))
    (tmp_path / PART.path / "data.parquet.part").write_bytes(b"half")
    assert store.rows(tmp_path, PART) == 1


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = store.write(tmp_path, PART, trades([1]))
    path.write_bytes(b"PAR1 not really")
    with pytest.raises(StageError, match=r"data\.parquet"):
        store.read(tmp_path, PART)


def test_a_missing_table_names_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"table `labels`.*run_pipeline\.py labels"):
        store.require(tmp_path, schema.LABELS)


@pytest.mark.parametrize(
    ("frame", "why"),
    [
        (trades([2, 1]), "sorted"),
        (trades([1]).drop("qty"), "columns"),
        (trades([1]).with_columns(price=pl.lit(1)), "dtype"),
        (trades([1]).with_columns(price=pl.lit(None, pl.Float64)), "nulls"),
    ],
)
def test_a_frame_that_breaks_the_schema_is_not_written(frame: pl.DataFrame, why: str, tmp_path: Path) -> None:
    with pytest.raises(StageError, match=why):
        store.write(tmp_path, PART, frame)
    assert not store.files(tmp_path, PART)


def test_a_repeated_key_is_refused() -> None:
    features = pl.DataFrame({"decision_ns": [1, 1], "x": [0.0, 0.0]})
    with pytest.raises(ValueError, match="unique"):
        schema.check(schema.FEATURES, features)


def test_the_fingerprint_follows_the_rows_and_nothing_else(tmp_path: Path) -> None:
    here, there = tmp_path / "a", tmp_path / "b"
    store.write(here, PART, trades([1, 2]), "one")
    store.write(there, PART, trades([1, 2]), "two")
    assert store.fingerprint(here, [PART]) == store.fingerprint(there, [PART])
    store.write(there, PART, trades([1, 3]))
    assert store.fingerprint(here, [PART]) != store.fingerprint(there, [PART])


def test_the_fingerprint_does_not_depend_on_how_rows_are_cut_into_shards(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    store.append(one, PART, trades([1, 2, 3]), START + 1, 0)
    store.append(two, PART, trades([1]), START + 1, 0)
    store.append(two, PART, trades([2, 3]), START + 2, 1)
    assert store.fingerprint(one, [PART]) == store.fingerprint(two, [PART])


def test_a_file_of_before_a_column_came_is_read_with_what_stands_for_it(tmp_path: Path) -> None:
    gaps = Partition("gaps", "bybit", "BTCUSDT", "2026-01-05")
    told = told_at_their_ends([("trades", START + n, START + n + 9, "lost", False) for n in range(4)])
    for number, columns in enumerate((told.columns[:-1], told.columns)):  # one of before, one of now
        rows = told[2 * number : 2 * number + 2].with_columns(told_ns=pl.col("to_ns") + number).select(columns)
        about = {store.DIGEST: store.digest_of(rows)}
        store.write_file(tmp_path / gaps.path / store.shard_name(START + 2 * number, number), rows, about)
    expected = told.with_columns(told_ns=pl.col("to_ns") + pl.Series([0, 0, 1, 1]))
    assert store.read(tmp_path, gaps).equals(expected)
    assert store.read_between(tmp_path, gaps, ["from_ns", "told_ns"], START, START + 3).rows()[1] == (
        START + 1,
        START + 10,
    )
    fingerprint = store.fingerprint(tmp_path, [gaps])
    assert compact_partition(tmp_path, gaps)
    (whole,) = store.files(tmp_path, gaps)
    assert pl.read_parquet(whole, hive_partitioning=False).equals(expected)
    assert store.fingerprint(tmp_path, [gaps]) == fingerprint
    assert not compact_partition(tmp_path, gaps)
    store.write_file(whole, expected.drop("told_ns"), {store.DIGEST: store.digest_of(expected.drop("told_ns"))})
    assert compact_partition(tmp_path, gaps)  # one file, and yet not whole


def test_rows_are_split_at_midnight() -> None:
    frame = trades([0, NS_PER_DAY - 1, NS_PER_DAY, 3 * NS_PER_DAY])
    days = [(date, rows.height) for date, rows in store.split_by_date(frame, "recv_ns")]
    assert days == [("2026-01-05", 2), ("2026-01-06", 1), ("2026-01-08", 1)]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("columns", [1, 40, 200])
def test_a_disk_that_is_full_is_told_by_its_number_however_late_it_shows(tmp_path: Path, columns: int) -> None:
    wide = pl.DataFrame({f"column_{number}": [1.0, 2.0] for number in range(columns)})  # 40: full within the footer
    (tmp_path / "a.parquet.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as raised:
        shard_files.seal_shard(tmp_path / "a.parquet", wide, fsync=False)
    assert raised.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []
