"""One file into the tables: killed anywhere and begun again, in memory or not, its rows are there once."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import StageError
from core.schema import TRADES
from core.store import partitions
from ingest.archives.choice import Job, choose
from ingest.archives.importing import import_file, is_imported
from ingest.archives.local import find
from ingest.archives.manifest import Entry, Manifest
from ingest.archives.spool import MOST_ROWS
from tests.ingest.archive_files import DAY_MS, agg_trades, zipped
from tests.ingest.backfill_runs import everything, rows

BTC = "binance_um:BTCUSDT"
NEXT_MS = DAY_MS + 86_400_000
NEAR_MIDNIGHT_MS = DAY_MS + 86_400_000 - 25


def job_of(path: Path) -> Job:
    files = find(path, "", (BTC,)).files
    (job,), _ = choose(files, None, [])
    return job


def imported(root: Path, path: Path, most_rows: int = MOST_ROWS) -> Entry:
    """Import as the stage does: finish what was begun, then do what is not done."""
    manifest = Manifest(root)
    manifest.recover()
    job = job_of(path)
    if is_imported(manifest, job, 10.0):
        return manifest.entries[job.file.key]
    number = manifest.reserve([job.file.key])[job.file.key]
    return import_file(root, job, 10.0, manifest, number, most_rows)


def a_day(folder: Path, ids: list[int], first_ms: int = NEAR_MIDNIGHT_MS) -> Path:
    return zipped(folder / "BTCUSDT-aggTrades-2024-03-29.zip", agg_trades(ids, first_ms))


class Killed(BaseException):
    """Stands for kill -9: nothing after it runs but what `finally` and `with` do."""


@contextmanager
def killed_at(call: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The process dies at the n-th change of the folder: a rename or a removal."""
    left = [call]

    def dying(real: Callable[..., None]) -> Callable[..., None]:
        def change(*args: object, **kwargs: object) -> None:
            left[0] -= 1
            if left[0] == 0:
                raise Killed
            real(*args, **kwargs)

        return change

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(os, "unlink", dying(os.unlink))
        yield


def test_killed_at_any_change_and_begun_again_rows_are_there_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First an import, then one of the same file with other content: both interrupted at each of their steps."""
    first, second = a_day(tmp_path / "first", [1, 2, 3, 7, 8]), a_day(tmp_path / "second", [1, 2, 3, 4, 9])
    imported(tmp_path / "clean", second)
    expected = everything(tmp_path / "clean")
    assert len(expected) == 3  # trades of two days by their receive time, and the gap
    kills = 0
    for call in range(1, 40):
        root = tmp_path / f"killed{call}"
        for path in (first, second):
            try:
                with killed_at(call, monkeypatch):
                    imported(root, path)
            except Killed:
                kills += 1
            imported(root, path)
        assert everything(root) == expected
        assert not list((root / "backfill" / "staging").rglob("*.parquet"))
    assert 10 < kills < 78  # some calls lie behind the end


def test_an_import_of_the_same_bytes_changes_nothing(tmp_path: Path) -> None:
    path = a_day(tmp_path, [1, 2, 3])
    entry = imported(tmp_path / "data", path)
    os.utime(path, ns=(0, 0))
    assert imported(tmp_path / "data", path) == entry


def test_what_was_deleted_from_the_tables_is_imported_again(tmp_path: Path) -> None:
    path, root = a_day(tmp_path, [1, 2, 3]), tmp_path / "data"
    imported(root, path)
    before = everything(root)
    for shard in (root / "trades").rglob("*.parquet"):
        shard.unlink()
    imported(root, path)
    assert everything(root) == before


def test_a_day_that_was_deleted_is_imported_again_with_what_reaches_into_it(tmp_path: Path) -> None:
    """The day before gave the first rows of it, by their receive time."""
    root, second = tmp_path / "data", zipped(tmp_path / "BTCUSDT-aggTrades-2024-03-30.zip", agg_trades([4, 5], NEXT_MS))
    first = a_day(tmp_path, [1, 2, 3])
    for path in (first, second):
        imported(root, path)
    before = everything(root)
    shutil.rmtree(root / "trades/exchange=binance_um/symbol=BTCUSDT/date=2024-03-30")
    for path in (first, second):
        imported(root, path)
    assert everything(root) == before


def test_a_changed_file_whose_rows_were_merged_with_others_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "data"
    imported(root, a_day(tmp_path, [1, 2, 3]))
    for shard in (root / "trades").rglob("*.parquet"):
        shard.rename(shard.with_name("merged.parquet"))
    before = everything(root)
    imported(root, tmp_path / "BTCUSDT-aggTrades-2024-03-29.zip")  # unchanged: nothing to do
    assert everything(root) == before
    with pytest.raises(StageError, match="merged with others"):
        imported(root, a_day(tmp_path, [1, 2, 3, 4]))


def test_rows_lie_in_the_day_of_their_receive_time(tmp_path: Path) -> None:
    root = tmp_path / "data"
    imported(root, a_day(tmp_path, [1, 2, 3]))
    assert [part.date for part in partitions(root, TRADES)] == ["2024-03-29", "2024-03-30"]
    frame = rows(root, TRADES, BTC)
    assert frame["trade_id"].to_list() == ["1", "2", "3"]
    assert (frame["recv_ns"] - frame["exch_ns"]).unique().to_list() == [10_000_000]
    assert frame["recv_assumed"].all()


def test_an_entry_says_which_bytes_and_what_became_of_them(tmp_path: Path) -> None:
    text = agg_trades([5, 6, 6, 7, 10]) + "broken\n"
    entry = imported(tmp_path / "data", zipped(tmp_path / "BTCUSDT-aggTrades-2024-03-29.zip", text))
    assert (entry.rows_read, entry.written) == (6, {"trades": 4, "gaps": 1})
    assert entry.dropped == {"duplicate": 1, "does not parse": 1}
    assert (entry.first_id, entry.last_id, len(entry.sha256)) == (5, 10, 64)


@pytest.mark.parametrize("text", ["<html>\n<body>not found</body>\n", "1,2,3,4,5,6,true\n"])
def test_a_file_that_is_not_what_its_name_says_is_refused_and_not_taken_for_an_empty_one(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(StageError, match="rows is what its name promises"):
        imported(tmp_path / "data", zipped(tmp_path / "BTCUSDT-aggTrades-2024-03-29.zip", text))


def test_a_day_without_a_trade_is_imported_and_empty(tmp_path: Path) -> None:
    entry = imported(tmp_path / "data", zipped(tmp_path / "BTCUSDT-aggTrades-2024-03-29.zip", agg_trades([])))
    assert (entry.rows_read, entry.written) == (0, {})


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=60), st.integers(1, 30))
def test_the_tables_do_not_depend_on_the_memory(
    tmp_path_factory: pytest.TempPathFactory, ids: list[int], most_rows: int
) -> None:
    folder = tmp_path_factory.mktemp("import")
    text = agg_trades([]) + "".join(
        f"{number},70000.{number},1,1,1,{DAY_MS + number * 1_200_000},true\n" for number in ids
    )
    path = zipped(folder / "BTCUSDT-aggTrades-2024-03-29.zip", text)
    imported(folder / "whole", path)
    imported(folder / "cut", path, most_rows)
    assert everything(folder / "cut") == everything(folder / "whole")
