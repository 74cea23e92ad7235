"""Rows to files at any moment: none twice, none late, none lost to a disk that refuses without a row in `gaps`."""

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.compaction import staging_of
from core.plain_rows import PlainRows, joined
from core.schema import GAPS, MARK_PRICES, TOP_OF_BOOK, TRADES
from core.store import Partition, files, fingerprint, is_sealed, partitions, read
from core.turned_file import TurnedFile
from core.units import NS_PER_DAY
from ingest import tails
from ingest.events import Gap, Mark, Quote, Trade
from ingest.packing import rows_of
from ingest.shards import OLD_S, WORTH_SEALING, ShardSettings, ShardWriter

VENUE = "binance_um"
DAY = 20_000 * NS_PER_DAY


def quotes(times: list[int], symbol: str = "BTCUSDT") -> list[Quote]:
    return [Quote(symbol, DAY + ns, DAY + ns, ns, 1.0, 2.0, 3.0, 4.0) for ns in times]


@dataclass
class Bench:
    """A shard writer with a clock that is set by hand, and what it said, observed and sealed."""

    root: Path
    flush_rows: int = 1000
    waiting_rows: int = 10_000
    grows: bool = True
    now_s: float = 0.0
    said: list[str] = field(default_factory=list)
    observed: list[PlainRows] = field(default_factory=list)
    sealed: list[tuple[str, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.writer = ShardWriter(
            self.root,
            ShardSettings(self.flush_rows, self.waiting_rows, fsync=False, grows=self.grows),
            threading.Lock(),
            self.said.append,
            lambda venue, table, symbol, rows: self.observed.append(rows),
            lambda part, whole: self.sealed.append((part.date, whole)),
            lambda: self.now_s,
        )

    def take(self, times: list[int], write: bool = True, symbol: str = "BTCUSDT") -> None:
        self.writer.take(VENUE, symbol, rows_of(TOP_OF_BOOK, quotes(times, symbol)), write)

    def on_disk(self, symbol: str = "BTCUSDT") -> list[int]:
        """The ids of the rows in all files, each file as any Parquet reader sees it."""
        found = [part for part in partitions(self.root, TOP_OF_BOOK) if part.symbol == symbol]
        paths = [path for part in found for path in files(self.root, part)]
        return [number for path in paths for number in pl.read_parquet(path)["update_id"].to_list()]


@settings(deadline=None, max_examples=60)
@given(
    st.lists(st.tuples(st.lists(st.integers(0, 3 * NS_PER_DAY), min_size=1, max_size=12), st.booleans()), max_size=25),
    st.integers(1, 30),
    st.booleans(),
)
def test_at_any_moment_each_row_is_in_one_file(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[list[int], bool]], flush_rows: int, grows: bool
) -> None:
    bench = Bench(tmp_path_factory.mktemp("shards"), flush_rows, grows=grows)
    taken: list[int] = []
    for times, write in batches:
        bench.now_s += 7.0
        bench.take(times, write)
        taken += times
        on_disk = sorted(bench.on_disk())
        assert len(on_disk) == len(taken) - bench.writer.waiting
    bench.writer.seal_all()
    assert sorted(bench.on_disk()) == sorted(taken)
    assert sorted(number for rows in bench.observed for number in rows.ints("update_id")) == sorted(taken)
    read_back = [ns for part in partitions(bench.root, TOP_OF_BOOK) for ns in read(bench.root, part)["update_id"]]
    assert read_back == sorted(taken)


def test_a_shard_grows_in_place_until_it_is_old(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    part = Partition("top_of_book", VENUE, "BTCUSDT", "2024-10-04")
    for second in range(10):
        bench.now_s = second
        bench.take([second])
    assert len(files(tmp_path, part)) == 1
    assert bench.writer.tail_of(part) == files(tmp_path, part)[0].name
    assert not is_sealed(files(tmp_path, part)[0], TOP_OF_BOOK)
    bench.now_s = OLD_S
    bench.take([10])
    assert bench.writer.tail_of(part) == files(tmp_path, part)[1].name
    assert bench.sealed == [("2024-10-04", False)]
    assert not list(staging_of(tmp_path).iterdir())
    bench.take([11])
    assert len(files(tmp_path, part)) == 2
    assert bench.on_disk() == list(range(12))


def test_a_shard_of_many_rows_is_sealed_when_it_is_old(tmp_path: Path) -> None:
    bench = Bench(tmp_path, flush_rows=1_000_000)
    part = Partition("top_of_book", VENUE, "BTCUSDT", "2024-10-04")
    bench.take(list(range(WORTH_SEALING)))
    bench.now_s = OLD_S
    bench.take([WORTH_SEALING])
    assert is_sealed(files(tmp_path, part)[0], TOP_OF_BOOK)
    assert bench.writer.tail_of(part) == ""
    assert bench.on_disk() == list(range(WORTH_SEALING + 1))


def test_a_long_shard_is_sealed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, flush_rows=10)
    for start in range(0, 40, 4):
        bench.take(list(range(start, start + 4)))
    assert bench.on_disk() == list(range(40))
    assert len(bench.sealed) == 3
    assert [rows.height for rows in bench.observed] == [4] * 10


def test_a_late_row_stands_where_it_belongs(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for times in ([5, 6], [3], [8], [4, 7]):
        bench.take(times)
        assert bench.on_disk() == sorted(bench.on_disk())
    assert bench.on_disk() == [3, 4, 5, 6, 7, 8]


def test_the_fingerprint_of_what_still_grows_is_that_of_its_rows(tmp_path: Path) -> None:
    growing, sealed = Bench(tmp_path / "growing"), Bench(tmp_path / "sealed")
    for bench in (growing, sealed):
        bench.take([1, 2])
        bench.take([3])
    sealed.writer.seal_all()
    parts = partitions(growing.root, TOP_OF_BOOK)
    assert fingerprint(growing.root, parts) == fingerprint(sealed.root, parts)


def test_when_a_day_is_over_its_shard_is_sealed_and_named_for_merging(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.take([1, 2])
    bench.take([3, NS_PER_DAY + 1])
    assert ("2024-10-04", True) in bench.sealed
    bench.take([4])  # late: a shard of its own
    assert sorted(bench.on_disk()) == [1, 2, 3, 4, NS_PER_DAY + 1]


def test_a_second_process_goes_on_with_names_of_its_own(tmp_path: Path) -> None:
    for _ in range(3):
        Bench(tmp_path).take([7])
    assert bench_names(tmp_path) == [f"{DAY + 7:020d}-{number:06d}.parquet" for number in range(3)]
    draft = tmp_path / partitions(tmp_path, TOP_OF_BOOK)[0].path / "x.parquet.part"
    draft.write_bytes(b"half")
    Bench(tmp_path).take([7])
    assert not draft.exists()


def test_what_a_power_cut_tore_is_set_aside_and_told(tmp_path: Path) -> None:
    Bench(tmp_path).take([1])
    torn = files(tmp_path, partitions(tmp_path, TOP_OF_BOOK)[0])[0]
    whole = torn.read_bytes()
    for content in (b"", whole[:-1], whole[:100] + bytes(8) + whole[108:]):  # the last: pages of two moments
        torn.write_bytes(content)
        bench = Bench(tmp_path)
        bench.take([2])
        assert str(torn) in bench.said[0]
        assert set(bench.on_disk()) == {2}
        assert torn.with_name(f"{torn.name}.torn").read_bytes() == content


def bench_names(root: Path) -> list[str]:
    return [path.name for path in files(root, partitions(root, TOP_OF_BOOK)[0])]


def test_rows_of_other_kinds_grow_too(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for k in range(3):
        trade, mark = (
            Trade("X", DAY, DAY + k, f"id {k}", 1.0, 2.0, "sell"),
            Mark("X", DAY, DAY + k, 1.0, None, 0.5, None, None),
        )
        bench.writer.take(VENUE, "X", rows_of(TRADES, [trade]), write=True)
        bench.writer.take(VENUE, "X", rows_of(MARK_PRICES, [mark]), write=True)
    assert read(tmp_path, partitions(tmp_path, TRADES)[0])["trade_id"].to_list() == ["id 0", "id 1", "id 2"]
    assert read(tmp_path, partitions(tmp_path, MARK_PRICES)[0])["funding_rate"].to_list() == [0.5] * 3


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Take all the space there is."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return filler


def test_a_full_disk_is_told_of_once_and_rows_wait_for_space(small_disk: Path) -> None:
    bench = Bench(small_disk)
    bench.take([1, 2])
    filler = fill(small_disk)
    for second in range(1, 6):
        bench.now_s = second
        bench.take([2 + second])
        bench.writer.retry()
    assert "No space left" in bench.writer.trouble
    assert len(bench.said) == 1
    assert "No space left on device" in bench.said[0]
    assert bench.on_disk() == [1, 2]
    assert not list(small_disk.rglob("*.part"))
    filler.unlink()
    bench.now_s += 1.0
    bench.writer.retry()
    assert bench.on_disk() == [1, 2, 3, 4, 5, 6, 7]
    assert bench.writer.trouble == ""
    assert len(bench.said) == 2
    assert bench.writer.dropped == bench.writer.waiting == 0


def test_rows_beyond_the_bound_are_dropped_oldest_first_and_stand_in_gaps(small_disk: Path) -> None:
    bench = Bench(small_disk, waiting_rows=1000)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        bench.take([0], symbol=symbol)
    filler = fill(small_disk)
    for k in range(1, 2000):
        bench.now_s += 0.01
        bench.take([k], symbol="BTCUSDT")
        bench.take([k], symbol="ETHUSDT")
        assert bench.writer.waiting <= 1000
    another = Gap("BTCUSDT", "trades", DAY, DAY + 1, "another", False)
    bench.writer.take(VENUE, "BTCUSDT", rows_of(GAPS, [another]), write=True)
    filler.unlink()
    bench.now_s += 1.0
    bench.writer.retry()
    lost = 0
    for part in partitions(small_disk, GAPS):
        kept = bench.on_disk(symbol=part.symbol)
        assert kept[0] == 0
        assert kept[1:] == list(range(kept[1], 2000))
        gap = read(small_disk, part).row(-1, named=True)
        assert (gap["stream"], gap["mended"]) == ("top_of_book", False)
        assert (gap["from_ns"], gap["to_ns"]) == (DAY + 1, DAY + kept[1] - 1)
        assert gap["reason"].startswith(f"{kept[1] - 1:,} rows dropped: No space left")
        lost += kept[1] - 1
    assert bench.writer.dropped == lost
    assert [read(small_disk, part).height for part in partitions(small_disk, GAPS)] == [2, 1]


@pytest.mark.parametrize("ends", [False, True])
def test_rows_are_not_on_disk_before_the_gap_of_those_dropped_before_them(small_disk: Path, ends: bool) -> None:
    bench = Bench(small_disk, waiting_rows=1000)
    bench.take([0])
    filler = fill(small_disk)
    for k in range(1, 2000):
        bench.take([k])
    for _ in range(5):  # refused again and again: no row in `gaps` each time
        bench.now_s += 1.0
        bench.writer.retry()
    filler.unlink()
    bench.now_s += 1.0
    bench.observed.clear()
    if ends:
        bench.writer.seal_all()
    else:
        bench.writer.retry()
    assert bench.observed[0].table is GAPS
    gaps = joined([each for each in bench.observed if each.table is GAPS])
    (kept,) = (each for each in bench.observed if each.table is not GAPS)
    assert gaps.height == 1
    assert gaps.ints("to_ns")[0] < kept.first_ns
    assert bench.writer.waiting == 0


def refilled_hole() -> tuple[list[Trade], Gap, Gap]:
    """Trades that were fetched, the gap that told of their hole, and the one that says that it is mended."""
    trades = [Trade("X", DAY + k, DAY + k, str(k), 1.0, 2.0, "sell", True) for k in range(2, 50)]
    return trades, Gap("X", "trades", DAY + 1, DAY + 50, "open", False), Gap("X", "trades", DAY + 1, DAY + 50, "", True)


@pytest.mark.parametrize("ends", [False, True])
def test_a_hole_is_not_told_as_mended_while_the_disk_refuses_its_trades(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    bench, is_full = Bench(tmp_path), True
    put, seal = TurnedFile.put, tails.seal_shard

    def refuse(path: Path) -> None:
        if is_full and "/trades/" in str(path):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))

    def put_or_refuse(file: TurnedFile, content: bytes, fsync: bool = False) -> None:
        refuse(file._target)
        put(file, content, fsync)

    def seal_or_refuse(path: Path, rows: pl.DataFrame, fsync: bool) -> None:
        refuse(path)
        seal(path, rows, fsync)

    monkeypatch.setattr(TurnedFile, "put", put_or_refuse)
    monkeypatch.setattr(tails, "seal_shard", seal_or_refuse)
    trades, told, mended = refilled_hole()
    for table, events in ((TRADES, trades), (GAPS, [told]), (GAPS, [mended])):
        bench.writer.take(VENUE, "X", rows_of(table, events), write=True)
    for _ in range(5):
        bench.now_s += 1.0
        bench.writer.retry()
    if ends:
        bench.writer.seal_all()
    (part,) = partitions(tmp_path, GAPS)
    assert read(tmp_path, part)["mended"].to_list() == [False]
    assert bench.writer.waiting == len(trades) + 1
    is_full = False
    bench.now_s += 1.0
    bench.writer.retry()
    assert bench.writer.waiting == 0
    assert read(tmp_path, part)["mended"].to_list() == [False, True]
    assert read(tmp_path, partitions(tmp_path, TRADES)[0]).height == len(trades)


def test_that_a_hole_is_mended_is_on_disk_with_its_trades(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    trades, told, mended = refilled_hole()
    bench.writer.take(VENUE, "X", rows_of(TRADES, trades), write=False)
    bench.writer.take(VENUE, "X", rows_of(GAPS, [told, mended]), write=True)
    (part,) = partitions(tmp_path, GAPS)
    assert read(tmp_path, part)["mended"].to_list() == [False]
    bench.writer.take(VENUE, "X", rows_of(TRADES, trades[:1]), write=True)
    assert read(tmp_path, part)["mended"].to_list() == [False, True]


def test_a_read_only_disk_is_told_of_and_writing_goes_on_after_it(small_disk: Path) -> None:
    bench = Bench(small_disk)
    bench.take([1])
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for symbol in ("BTCUSDT", "NEWUSDT"):  # a folder that is there, and one that is not
        bench.take([2], symbol=symbol)
    assert "Read-only" in bench.writer.trouble
    assert bench.writer.waiting == 2
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    bench.now_s += 1.0
    bench.writer.retry()
    assert (bench.on_disk(), bench.on_disk(symbol="NEWUSDT")) == ([1, 2], [2])
    assert len(bench.said) == 2


def test_each_new_reason_is_told(small_disk: Path) -> None:
    bench = Bench(small_disk)
    bench.take([1])
    filler = fill(small_disk)
    bench.take([2])
    bench.now_s += 1.0
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    bench.writer.retry()
    assert [("No space" in text, "Read-only" in text) for text in bench.said] == [(True, False), (False, True)]
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    filler.unlink()
    bench.now_s += 1.0
    bench.writer.retry()
    assert bench.on_disk() == [1, 2]


def test_a_single_folder_that_cannot_be_written_to_does_not_hold_up_the_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    blocked = tmp_path / "top_of_book" / f"exchange={VENUE}" / "symbol=BTCUSDT"
    blocked.parent.mkdir(parents=True)
    blocked.write_bytes(b"a file where the folder should be")
    for second in range(10):
        bench.now_s = second
        bench.take([second])
        bench.take([second], symbol="ETHUSDT")
        bench.writer.retry()
    assert len(bench.on_disk("ETHUSDT")) >= 8
    assert bench.writer.trouble
    assert len(bench.said) == 1
    blocked.unlink()
    for _ in range(2):
        bench.now_s += 1.0
        bench.writer.retry()
    assert bench.on_disk() == bench.on_disk("ETHUSDT") == list(range(10))
    assert bench.writer.trouble == ""


def test_where_the_folder_is_removed_the_rows_that_are_known_come_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.take([1, 2])
    shutil.rmtree(tmp_path / "top_of_book")
    bench.take([3])
    assert bench.on_disk() == [1, 2, 3]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told_of(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.take([1])
    folder = tmp_path / partitions(tmp_path, TOP_OF_BOOK)[0].path
    folder.chmod(0o500)
    bench.take([2])
    assert "Permission" in bench.writer.trouble
    folder.chmod(0o700)
    bench.now_s += 1.0
    bench.writer.retry()
    assert bench.on_disk() == [1, 2]


def test_many_small_waiting_pieces_are_put_together(small_disk: Path) -> None:
    bench = Bench(small_disk)
    bench.take([0])
    filler = fill(small_disk)
    for k in range(1, 500):
        bench.take([k])
    growing = next(iter(bench.writer._growing.values()))
    assert len(growing.fresh) < 40
    filler.unlink()
    bench.now_s += 1.0
    bench.writer.retry()
    assert bench.on_disk() == list(range(500))
