"""Downloads from a local archive that cuts, refuses, lies and lacks files."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from core.errors import StageError
from ingest.archives.download import Downloader, Outcome
from ingest.archives.formats import ArchiveFile, unverified_mark
from tests.ingest.archive_server import Archive, serving

CONTENT = bytes(range(256)) * 400


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[Archive]:
    with serving(tmp_path / "server") as running:
        (tmp_path / "server").mkdir()
        yield running


def put(archive: Archive, name: str, content: bytes = CONTENT) -> ArchiveFile:
    """A file of the archive, and what a client knows of it."""
    (archive.folder / name).write_bytes(content)
    return known(archive, name)


def known(archive: Archive, name: str) -> ArchiveFile:
    target = archive.folder.parent / "client" / name
    return ArchiveFile(target, "binance", "aggTrades", "binance_um", "X", ("2024-03-29",), url=f"{archive.url}/{name}")


def download(*files: ArchiveFile, checked: bool = True, connections: int = 3) -> list[Outcome | StageError]:
    async def work() -> list[Outcome | StageError]:
        downloader = Downloader(connections, {}, backoff_s=0.001)
        return [outcome async for _, outcome in downloader.in_order(files, lambda _: checked)]

    return asyncio.run(work())


def test_files_come_in_the_order_asked_for_and_whole(archive: Archive) -> None:
    files = [put(archive, f"{number}.zip", CONTENT[: 100 * number]) for number in range(1, 12)]
    assert download(*files) == ["there"] * 11
    for number, file in enumerate(files, 1):
        assert file.path.read_bytes() == CONTENT[: 100 * number]
    assert not list(files[0].path.parent.glob("*.part"))


def test_what_the_archive_lacks_is_absent_and_no_failure(archive: Archive) -> None:
    assert download(known(archive, "a.zip"), put(archive, "b.zip")) == ["absent", "there"]


def test_what_is_there_is_not_asked_for_again(archive: Archive) -> None:
    file = put(archive, "a.zip")
    download(file)
    archive.asked.clear()
    assert download(file) == ["there"]
    assert not archive.asked


def test_a_cut_download_goes_on_where_it_ended(archive: Archive) -> None:
    file = put(archive, "a.zip")
    archive.faults["a.zip"] = ["cut 1000", "cut 2000"]
    assert download(file) == ["there"]
    assert [span for path, span in archive.asked if path == "a.zip"] == ["", "bytes=1000-", "bytes=3000-"]
    assert file.path.read_bytes() == CONTENT


def test_a_download_that_an_earlier_run_began_goes_on(archive: Archive) -> None:
    file = put(archive, "a.zip")
    file.path.parent.mkdir(parents=True)
    file.path.with_name("a.zip.part").write_bytes(CONTENT[:5000])
    assert download(file) == ["there"]
    assert archive.asked[0] == ("a.zip", "bytes=5000-")
    assert file.path.read_bytes() == CONTENT


def test_a_server_that_cannot_resume_is_read_from_the_start(archive: Archive) -> None:
    archive.resumes = False
    archive.faults["a.zip"] = ["cut 1000"]
    file = put(archive, "a.zip")
    assert download(file) == ["there"]
    assert file.path.read_bytes() == CONTENT


@pytest.mark.parametrize("size", [len(CONTENT), len(CONTENT) + 7])
def test_a_part_as_long_as_the_file_or_longer_is_begun_anew(archive: Archive, size: int) -> None:
    file = put(archive, "a.zip")
    file.path.parent.mkdir(parents=True)
    file.path.with_name("a.zip.part").write_bytes(b"x" * size)
    assert download(file) == ["there"]
    assert file.path.read_bytes() == CONTENT


def test_a_part_of_something_else_is_found_out_by_its_checksum(archive: Archive) -> None:
    file = put(archive, "a.zip")
    file.path.parent.mkdir(parents=True)
    file.path.with_name("a.zip.part").write_bytes(b"another file")
    assert download(file) == ["there"]
    assert file.path.read_bytes() == CONTENT


def test_a_wrong_checksum_fails_the_file_and_leaves_nothing(archive: Archive) -> None:
    wrong, right = put(archive, "a.zip"), put(archive, "b.zip")
    (archive.folder / "a.zip.CHECKSUM").write_text(f"{'0' * 64}  a.zip\n")
    failed, outcome = download(wrong, right)
    assert isinstance(failed, StageError)
    assert "CHECKSUM" in str(failed)
    assert outcome == "there"
    assert [path.name for path in wrong.path.parent.iterdir()] == ["b.zip"]


def test_a_file_without_a_checksum_is_taken_as_it_is(archive: Archive) -> None:
    file = put(archive, "a.zip")
    assert download(file, checked=False) == ["there"]
    assert [path for path, _ in archive.asked] == ["a.zip"]


@pytest.mark.parametrize("faults", [[404] * 9, []])
def test_a_file_that_lacks_its_checksum_is_marked_until_it_is_verified(
    archive: Archive, faults: list[int | str]
) -> None:
    file = put(archive, "a.zip")
    archive.faults["a.zip.CHECKSUM"] = faults
    if not faults:
        (archive.folder / "a.zip.CHECKSUM").write_text("\n")
    assert download(file) == ["there"]
    assert len([path for path, _ in archive.asked if path == "a.zip.CHECKSUM"]) == 3
    assert unverified_mark(file.path).exists()
    file.path.unlink()
    archive.faults.clear()
    (archive.folder / "a.zip.CHECKSUM").unlink(missing_ok=True)
    download(file)
    assert not unverified_mark(file.path).exists()


def test_a_checksum_that_is_missing_once_is_asked_for_again(archive: Archive) -> None:
    file = put(archive, "a.zip")
    archive.faults["a.zip.CHECKSUM"] = [404]
    assert download(file) == ["there"]
    assert not unverified_mark(file.path).exists()


@pytest.mark.parametrize("status", [418, 429, 500, 503])
def test_what_passes_is_asked_again(archive: Archive, status: int) -> None:
    archive.faults["a.zip"] = [status, status]
    archive.faults["a.zip.CHECKSUM"] = [status]
    assert download(put(archive, "a.zip")) == ["there"]


def test_what_does_not_pass_ends_after_some_attempts(archive: Archive) -> None:
    archive.faults["a.zip"] = [503] * 100
    (failed,) = download(put(archive, "a.zip"))
    assert isinstance(failed, StageError)
    assert "failed 8 times" in str(failed)


def test_a_refusal_is_told_at_once_in_the_servers_words(archive: Archive) -> None:
    archive.faults["a.zip"] = [403] * 2
    (failed,) = download(put(archive, "a.zip"))
    assert isinstance(failed, StageError)
    assert "HTTP 403" in str(failed)
    assert "not now" in str(failed)
    assert len(archive.asked) == 1


def test_a_file_that_is_cut_a_hundred_times_comes_whole(archive: Archive) -> None:
    archive.faults["a.zip"] = ["cut 1000"] * 100
    file = put(archive, "a.zip")
    assert download(file) == ["there"]
    assert file.path.read_bytes() == CONTENT


def test_whatever_the_faults_files_are_whole_or_failed(archive: Archive) -> None:
    chance = random.Random(5)
    faults: list[int | str] = [429, 500, 503, "cut 0", "cut 10", "cut 70000"]
    files = []
    for number in range(30):
        name = f"{number}.zip"
        files.append(put(archive, name, chance.randbytes(chance.randrange(1, 100_000))))
        archive.faults[name] = chance.choices(faults, k=chance.randrange(5))
        archive.faults[f"{name}.CHECKSUM"] = chance.choices(faults[:3], k=chance.randrange(3))
    assert download(*files) == ["there"] * 30
    for file in files:
        assert file.path.read_bytes() == (archive.folder / file.path.name).read_bytes()
