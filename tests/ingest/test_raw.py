"""Raw captures: what is written is read, broken lines are named, a cut last line is told."""

from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StageError
from ingest.raw import RawError, RawLine, RawReader, RawWriter, raw_files

GOOD = b'{"recv_ns":1,"url":"wss://x/y","frame":"{}"}\n'
LINES = st.builds(RawLine, st.integers(0, 2**62), st.text(max_size=9), st.text(st.characters(codec="utf-8")))


def read(path: Path) -> tuple[list[RawLine], str | None]:
    reader = RawReader(path)
    return list(reader), reader.cut


@given(st.lists(LINES, max_size=8))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, lines: list[RawLine]) -> None:
    path = tmp_path_factory.mktemp("raw") / "a.jsonl.zst"
    with RawWriter(path) as writer:
        for line in lines:
            writer.write(line.recv_ns, line.url, line.frame.encode())
    assert read(path) == (lines, None)


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.zst"])
def test_a_last_line_cut_short_is_told_and_the_rest_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    content = GOOD * 3 + GOOD[:20]
    path.write_bytes(zstandard.compress(content) if suffix.endswith("zst") else content)
    lines, cut = read(path)
    assert (len(lines), cut) == (3, f"a.{suffix}:4")


def test_a_compressed_file_that_a_crash_left_unfinished_is_read_up_to_there(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    writer = RawWriter(path)
    for number in range(1000):
        writer.write(number, "wss://x", "frame")
    writer.flush()
    writer.write(1000, "wss://x", "lost")  # never flushed: the process is killed here
    lines, cut = read(path)
    assert (len(lines), cut) == (1000, None)
    path.write_bytes(path.read_bytes()[:-40])
    lines, cut = read(path)
    assert len(lines) < 1000
    writer.close()


@pytest.mark.parametrize(
    ("content", "number"),
    [
        (GOOD + b"{broken\n" + GOOD, 2),
        (GOOD + GOOD[:20] + b"\n\n" + GOOD, 2),
        (b'{"recv_ns":1,"url":"u","frame":"\xff"}\n' + GOOD, 1),
        (b'{"test":"x","message":{}}\n', 1),
        (GOOD + b'{"recv_ns":"1","url":"u","frame":"f"}\n', 2),
        (GOOD + b'{"recv_ns":-1,"url":"u","frame":"f"}\n', 2),
        (GOOD + b'{"recv_ns":9223372036854775807,"url":"u","frame":"f"}\n', 2),
    ],
)
def test_a_line_of_something_else_is_named_by_file_and_line(tmp_path: Path, content: bytes, number: int) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    seen = []
    with pytest.raises(RawError, match=rf"^a\.jsonl:{number}: "):
        seen.extend(RawReader(path))


def test_lines_before_a_broken_one_are_given_first(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(GOOD * 5 + b"{broken\n" + GOOD)
    lines = iter(RawReader(path))
    assert len([next(lines) for _ in range(5)]) == 5
    with pytest.raises(RawError):
        next(lines)


def test_what_is_not_zstd_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.zst"
    path.write_bytes(b"plain text\n")
    with pytest.raises(RawError, match=r"^a\.jsonl\.zst:1: not readable as zstd"):
        read(path)


def test_the_files_of_a_folder_come_by_name_and_none_is_an_error(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.jsonl.zst", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in raw_files(tmp_path)] == ["a.jsonl.zst", "b.jsonl"]
    with pytest.raises(StageError, match="does not exist"):
        raw_files(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(StageError, match="holds no"):
        raw_files(tmp_path / "empty")
