"""The spool: whatever the order, the batches and the memory, shards are the rows sorted, each once."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.schema import TOP_OF_BOOK, TRADES
from core.units import NS_PER_HOUR
from ingest.archives.formats import DUPLICATE, Counts
from ingest.archives.spool import Spool, hole_rows

MINUTE = NS_PER_HOUR // 60
Row = tuple[int, int]
ROWS = st.lists(st.tuples(st.integers(0, 400), st.integers(1, 30)), max_size=60)
"""(minute, id) pairs: an id may come with several times."""


def frame_of(rows: Sequence[Row]) -> pl.DataFrame:
    return pl.DataFrame(
        [(minute * MINUTE, number) for minute, number in rows],
        schema={"recv_ns": pl.Int64, "trade_id": pl.Int64},
        orient="row",
    )


def spool_of(folder: Path, most_rows: int = 1_000_000, contiguous: bool = False) -> Spool:
    return Spool(TRADES, ("trade_id",), contiguous, folder, Counts(), most_rows)


def shards_of(spool: Spool, rows: Sequence[Row], batch: int) -> list[list[Row]]:
    for first in range(0, len(rows), batch):
        spool.add(frame_of(rows[first : first + batch]))
    return [[(recv_ns // MINUTE, int(number)) for recv_ns, number in shard.rows()] for shard in spool.shards()]


def distinct_in_order(rows: Sequence[Row]) -> list[Row]:
    """The obvious twin: sort, then keep the first of each id."""
    met: set[int] = set()
    return [row for row in sorted(rows) if not (row[1] in met or met.add(row[1]))]  # type: ignore[func-returns-value]


@settings(deadline=None, max_examples=50)
@given(ROWS, st.integers(1, 9))
def test_in_memory_the_shard_is_the_rows_sorted_each_once(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], batch: int
) -> None:
    spool = spool_of(tmp_path_factory.mktemp("spool"))
    shards = shards_of(spool, rows, batch)
    assert [row for shard in shards for row in shard] == distinct_in_order(rows)
    assert spool.counts.dropped[DUPLICATE] == len(rows) - len({number for _, number in rows})


@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(0, 400), max_size=80), st.integers(1, 9), st.integers(1, 20))
def test_put_down_in_runs_the_shards_are_the_same_rows_in_order(
    tmp_path_factory: pytest.TempPathFactory, minutes: list[int], batch: int, most_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    rows = [(minute, 1 + minute) for minute in minutes]  # equal rows are what a file repeats
    spool = spool_of(folder, most_rows)
    shards = shards_of(spool, rows, batch)
    assert [row for shard in shards for row in shard] == sorted(set(rows))
    assert spool.counts.dropped[DUPLICATE] == len(rows) - len(set(rows))
    assert not list(folder.rglob("*.parquet"))


def test_a_shard_holds_no_more_than_what_was_allowed_to_be_held(tmp_path: Path) -> None:
    rows = [(minute, 1 + minute) for minute in range(600)]
    shards = shards_of(spool_of(tmp_path, most_rows=150), rows, 50)
    assert [len(shard) for shard in shards] == [120, 120, 120, 120, 120]  # whole hours


@pytest.mark.parametrize("most_rows", [1_000, 4])
def test_a_file_that_is_newest_first_is_turned_round_within_a_millisecond_too(tmp_path: Path, most_rows: int) -> None:
    """Ids as text give no order of their own: the file's is all there is."""
    spool = Spool(TRADES, ("trade_id",), False, tmp_path, Counts(), most_rows)
    names, minutes = ["h", "g", "f", "e", "d", "c", "b", "a"], [9, 9, 9, 5, 5, 2, 1, 1]
    frame = pl.DataFrame({"recv_ns": [minute * MINUTE for minute in minutes], "trade_id": names})
    for first in range(0, 8, 2):
        spool.add(frame[first : first + 2])
    assert pl.concat(spool.shards())["trade_id"].to_list() == sorted(names)


def test_rows_without_an_id_are_no_duplicates_of_each_other(tmp_path: Path) -> None:
    spool = Spool(TRADES, ("trade_id",), False, tmp_path, Counts())
    spool.add(pl.DataFrame({"recv_ns": [1, 2, 3, 4], "trade_id": ["", "x", "", "x"]}))
    assert pl.concat(spool.shards())["recv_ns"].to_list() == [1, 2, 3]


def test_tables_without_unique_columns_keep_equal_rows(tmp_path: Path) -> None:
    spool = Spool(TOP_OF_BOOK, (), False, tmp_path, Counts())
    spool.add(pl.DataFrame({"recv_ns": [2, 1, 2], "update_id": [0, 0, 0]}))
    assert pl.concat(spool.shards())["recv_ns"].to_list() == [1, 2, 2]


@settings(deadline=None, max_examples=50)
@given(st.sets(st.integers(1, 200), min_size=1), st.integers(1, 9), st.sampled_from([5, 40, 1_000]), st.randoms())
def test_every_id_that_is_missing_lies_in_one_hole(
    tmp_path_factory: pytest.TempPathFactory, ids: set[int], batch: int, most_rows: int, random: object
) -> None:
    rows = [(number * 3, number) for number in ids]
    random.shuffle(rows)  # type: ignore[attr-defined]
    spool = spool_of(tmp_path_factory.mktemp("spool"), most_rows, contiguous=True)
    shards_of(spool, rows, batch)
    found = []
    for reason, from_ns, to_ns in hole_rows(spool.gaps).select("reason", "from_ns", "to_ns").rows():
        first, last = (int(word) for word in reason.split() if word.isdigit())
        found += range(first, last + 1)
        assert (from_ns, to_ns) == ((first - 1) * 3 * MINUTE, (last + 1) * 3 * MINUTE)
    assert found == [number for number in range(min(ids), max(ids)) if number not in ids]
    assert (spool.ids.first_id, spool.ids.last_id) == (min(ids), max(ids))
