"""CSV in archives: every line is a row, counted as broken, or blank; however it is packed, cut or headed."""

import csv
import zipfile
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import StageError
from ingest.archives.csv_rows import Layout, read_rows, unpacked, whole_lines
from ingest.archives.formats import BROKEN, Counts
from tests.ingest.archive_files import gzipped, plain, zipped

LAYOUT = Layout(
    {"id": pl.Int64(), "price": pl.Float64(), "side": pl.String(), "note": pl.String(), "unread": None},
    ("id", "price", "side"),
    {"px": "price"},
)


def read(path: Path) -> tuple[pl.DataFrame, Counts]:
    counts = Counts()
    frames = list(read_rows(path, LAYOUT, counts))
    return pl.concat([pl.DataFrame(schema=LAYOUT.read), *frames]), counts


@pytest.mark.parametrize("pack", [plain, gzipped, zipped])
def test_a_file_reads_the_same_however_it_is_packed(tmp_path: Path, pack: object) -> None:
    name = {"plain": "a.csv", "gzipped": "a.csv.gz", "zipped": "a.zip"}[pack.__name__]  # type: ignore[attr-defined]
    frame, counts = read(pack(tmp_path / name, "1,2.5,buy,x\n2,3,sell,\n"))  # type: ignore[operator]
    assert frame.rows() == [(1, 2.5, "buy", "x"), (2, 3.0, "sell", None)]
    assert (counts.read, counts.dropped) == (2, {})


def test_a_header_gives_the_order_and_may_spell_names_otherwise(tmp_path: Path) -> None:
    frame, counts = read(plain(tmp_path / "a.csv", "side,PX,new column,id\nbuy,2.5,9,1\n"))
    assert frame.rows() == [(1, 2.5, "buy", None)]
    assert counts.read == 1


def test_columns_that_came_later_are_ignored_without_a_header_too(tmp_path: Path) -> None:
    frame, counts = read(plain(tmp_path / "a.csv", "1,2.5,buy,x,True\n2,3,sell,y,False\n"))
    assert frame["id"].to_list() == [1, 2]
    assert not counts.dropped


def test_a_header_without_a_needed_column_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="lacks price"):
        read(plain(tmp_path / "a.csv", "id,side,note\n1,buy,x\n"))


def test_broken_rows_are_counted_and_sampled_as_they_stand(tmp_path: Path) -> None:
    text = "1,2.5,buy,x\r\n2,oops,buy,x\r\n\r\n3,4\r\n4,5,sell,too,many,fields\r\nNone,1,buy,x\r\n5,6,buy"
    frame, counts = read(plain(tmp_path / "a.csv", text))
    assert frame["id"].to_list() == [1, 4, 5]
    assert (counts.read, counts.dropped) == (6, {BROKEN: 3})
    assert counts.samples == [f"{BROKEN}: 2,oops,buy,x", f"{BROKEN}: 3,4", f"{BROKEN}: None,1,buy,x"]


def test_bytes_that_are_no_text_and_stray_quotes_break_their_own_row_only(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'\xff\xfe1,2,buy,x\n2,3,sell,\xff\n"3,4,buy,x\n4,5,buy,"x\n')
    frame, counts = read(path)
    assert frame["id"].to_list() == [2, 4]
    assert counts.dropped == {BROKEN: 2}


def test_a_file_of_too_few_columns_has_broken_rows_alone(tmp_path: Path) -> None:
    frame, counts = read(plain(tmp_path / "a.csv", "1,2\n3,4\n"))
    assert (frame.height, counts.read, counts.dropped) == (0, 2, {BROKEN: 2})


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"\xef\xbb\xbfid,price,side\n1,2,buy\n")
    assert read(path)[0]["id"].to_list() == [1]


def test_an_empty_file_and_a_header_alone_have_no_rows(tmp_path: Path) -> None:
    for text in ("", "id,price,side,note\n", "\n\n"):
        frame, counts = read(plain(tmp_path / "a.csv", text))
        assert (frame.height, counts.read, counts.dropped) == (0, 0, {})


def test_a_file_cut_short_or_damaged_is_refused(tmp_path: Path) -> None:
    whole = gzipped(tmp_path / "a.csv.gz", "1,2,buy,x\n" * 5000)
    whole.write_bytes(whole.read_bytes()[:-20])
    packed = zipped(tmp_path / "a.zip", "1,2,buy,x\n" * 5000)
    damaged = bytearray(packed.read_bytes())
    damaged[60] ^= 0xFF
    packed.write_bytes(damaged)
    for path in (whole, packed):
        with pytest.raises(StageError, match="cannot be unpacked"):
            read(path)


def test_a_zip_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.csv", "1,2,buy,x\n")
        archive.writestr("b.csv", "1,2,buy,x\n")
    with pytest.raises(StageError, match="one file expected"):
        read(tmp_path / "a.zip")


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=300), st.integers(1, 40))
def test_pieces_end_with_lines_and_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, size: int
) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.csv"
    path.write_bytes(data)
    pieces = list(whole_lines(path, size))
    assert b"".join(pieces) == data
    assert all(piece.endswith(b"\n") for piece in pieces[:-1])


FIELDS = st.sampled_from(["1", "2.5", "-3", "x", "", "None", " 4", "1e3", "99999999999999999999", "nan"])
LINES = st.lists(st.lists(FIELDS, min_size=1, max_size=6), max_size=20)


def kept_by_hand(text: str) -> tuple[int, int]:
    """(lines that are rows, rows kept), line by line with the standard library."""
    rows = list(csv.reader(line for line in text.splitlines() if line.strip()))
    return len(rows), sum(_fits(row) for row in rows)


def _fits(row: list[str]) -> bool:
    if len(row) < 3 or row[2] in ("", "None", "nan"):
        return False
    try:
        return -(2**63) <= int(row[0]) < 2**63 and float(row[1]) == float(row[1])
    except ValueError:
        return False


@settings(deadline=None, max_examples=50)
@given(LINES)
def test_as_many_rows_are_kept_as_a_reader_of_single_lines_keeps(
    tmp_path_factory: pytest.TempPathFactory, lines: list[list[str]]
) -> None:
    text = "id,price,side,note\n" + "".join(",".join(line) + "\n" for line in lines)
    path = plain(tmp_path_factory.mktemp("rows") / "a.csv", text)
    expected = kept_by_hand(text.partition("\n")[2])
    frame, counts = read(path)
    assert (counts.read, frame.height) == expected
    assert counts.read == frame.height + counts.dropped[BROKEN]


def test_what_is_unpacked_is_what_was_packed(tmp_path: Path) -> None:
    with unpacked(zipped(tmp_path / "a.zip", "abc")) as stream:
        assert stream.read() == b"abc"
