"""Files that take turns: whoever reads one sees what one `put` wrote, for as long as it reads."""

import errno
import mmap
import multiprocessing
import os
import time
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path

import pytest

from core import turned_file
from core.turned_file import TurnedFile

PUTS = 300


def content_of(number: int) -> bytes:
    """Some hundred kilobytes that tell whether they are of one `put`."""
    return number.to_bytes(4, "little") * (30_000 + number)


def turned(folder: Path) -> TurnedFile:
    return TurnedFile(folder / "table" / "rows", folder / "spare" / "rows")


def test_the_file_holds_what_was_put_last_and_folders_are_made(tmp_path: Path) -> None:
    file = turned(tmp_path)
    for number in (1, 9, 5):  # shorter than before, too
        file.put(content_of(number), fsync=number == 5)
        assert (tmp_path / "table" / "rows").read_bytes() == content_of(number)
    assert [path.name for path in (tmp_path / "table").iterdir()] == ["rows"]


def test_two_files_take_turns(tmp_path: Path) -> None:
    file, inodes = turned(tmp_path), set()
    for number in range(10):
        file.put(content_of(number))
        inodes.add(os.stat(tmp_path / "table" / "rows").st_ino)
    assert len(inodes) == 2


def test_who_reads_a_file_goes_on_reading_what_it_held(tmp_path: Path) -> None:
    file = turned(tmp_path)
    file.put(content_of(0))
    file.put(content_of(1))
    with (tmp_path / "table" / "rows").open("rb") as opened:
        for number in range(2, 6):
            file.put(content_of(number))
        assert opened.read() == content_of(1)


def test_what_a_backup_has_linked_stays(tmp_path: Path) -> None:
    file = turned(tmp_path)
    for number in range(6):
        file.put(content_of(number))
        os.link(tmp_path / "table" / "rows", tmp_path / f"backup {number}")
    assert [(tmp_path / f"backup {number}").read_bytes() for number in range(6)] == [content_of(n) for n in range(6)]


def test_what_is_mapped_stays_though_its_file_was_closed(tmp_path: Path) -> None:
    file = turned(tmp_path)
    file.put(content_of(0))
    with (tmp_path / "table" / "rows").open("rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ)
    for number in range(1, 6):
        file.put(content_of(number))
    assert mapped[:] == content_of(0)


def _look(path: Path, ends: "Synchronized[bool]", whole: "Synchronized[int]", torn: "Synchronized[int]") -> None:
    while not ends.value:
        with path.open("rb") as opened:
            first = opened.read(1_000)
            time.sleep(0.0005)  # while the file is replaced, twice at times
            content = first + opened.read()
        if content == content_of(int.from_bytes(content[:4], "little")):
            whole.value += 1
        else:
            torn.value += 1


def test_no_reader_ever_sees_a_torn_file(tmp_path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    ends, whole, torn = context.Value("b", False), context.Value("i", 0), context.Value("i", 0)
    file, path = turned(tmp_path), tmp_path / "table" / "rows"
    file.put(content_of(0))
    reader = context.Process(target=_look, args=(path, ends, whole, torn), daemon=True)
    reader.start()
    deadline_s, number = time.monotonic() + 30.0, 0
    while (number < PUTS or whole.value < 50) and time.monotonic() < deadline_s:
        number += 1
        file.put(content_of(number % 5_000))
    ends.value = True
    reader.join()
    assert torn.value == 0
    assert whole.value >= 50


def test_where_names_cannot_be_exchanged_files_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(one: Path, other: Path) -> None:
        raise OSError(errno.EINVAL, "Invalid argument", str(one))

    monkeypatch.setattr(turned_file, "exchange", cannot)
    file = turned(tmp_path)
    for number in range(3):
        file.put(content_of(number))
        assert (tmp_path / "table" / "rows").read_bytes() == content_of(number)


def test_a_table_on_another_disk_is_written_too(tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.exists() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is one file system only")
    target = elsewhere / f"turned-{os.getpid()}"
    file = TurnedFile(target, tmp_path / "rows")
    try:
        for number in range(3):
            file.put(content_of(number))
            assert target.read_bytes() == content_of(number)
    finally:
        target.unlink()


def test_a_write_that_is_refused_leaves_the_file_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = turned(tmp_path)
    for number in range(2):
        file.put(content_of(number))

    def full(descriptor: int, content: memoryview) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        file.put(content_of(2))
    monkeypatch.undo()
    assert (tmp_path / "table" / "rows").read_bytes() == content_of(1)
    assert not (tmp_path / "spare" / "rows").exists()
    file.put(content_of(3))
    assert (tmp_path / "table" / "rows").read_bytes() == content_of(3)
