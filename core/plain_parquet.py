"""A small Parquet file that rows are added to: what a shard is while it grows.

Each row is encoded once, plainly (core/plain_rows.py), and a file of all rows so far is headers put before columns of
bytes: 20 us, whatever their number, where Polars takes 0.3 to 0.7 ms and encodes all of them again. One row group, one
page per column, nothing compressed and no statistics: sealed shards are written by Polars.
Format: https://parquet.apache.org/docs/file-format and parquet.thrift there.

The last that the footer says is a checksum of all that stands before it. Such files are written over one another
(core/turned_file.py), so that a power cut may leave pages of two of them: `is_damaged` tells.
"""

import zlib
from collections.abc import Sequence
from functools import cache
from io import BytesIO
from typing import Final, TypeAlias

import numpy as np
import polars as pl

from core.plain_rows import BOOLEAN, BYTE_ARRAY, Column, PlainRows, columns_of
from core.schema import TABLES, Table

_MAGIC: Final = b"PAR1"
_PLAIN, _RLE = 0, 3  # parquet.thrift: Encoding
_UTF8: Final = 0  # ConvertedType
_REQUIRED, _OPTIONAL = 0, 1  # FieldRepetitionType
_ARROW_SCHEMA: Final = "ARROW:schema"  # tells readers of enumerations
_CHECKSUM: Final = "crc32"
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12  # thrift compact protocol: types

_Field: TypeAlias = tuple[int, int, bytes]
"""(id, thrift type, encoded value) of a field of a struct."""
_Mark: TypeAlias = tuple[int, list[int], list[int]]
"""Rows, and the bytes of each column."""


class PlainParquet:
    """Rows of a table. `content` is a whole file of them."""

    def __init__(self, table: Table) -> None:
        self.rows = 0
        self._columns = columns_of(table.name)
        self._values = [bytearray() for _ in self._columns]
        self._known = [bytearray() for _ in self._columns]
        self._abouts, self._ends = _constants(table.name)

    def add(self, rows: PlainRows) -> None:
        """Append rows."""
        for held, more in zip(self._values, rows.values, strict=True):
            held += more
        for held, more in zip(self._known, rows.known, strict=True):
            held += more
        self.rows += rows.height

    def mark(self) -> _Mark:
        """Where the rows end now, to `cut` them there."""
        return self.rows, [*map(len, self._values)], [*map(len, self._known)]

    def cut(self, mark: _Mark) -> None:
        """Take back what was added since."""
        self.rows, values, known = mark
        for held, length in zip([*self._values, *self._known], [*values, *known], strict=True):
            del held[length:]

    def frame(self) -> pl.DataFrame:
        """The rows."""
        return pl.read_parquet(BytesIO(self.content()))

    def content(self) -> bytes:
        """The file, to be written as it is."""
        pieces: list[bytes | bytearray] = [_MAGIC]
        chunks, at, rows = [], len(_MAGIC), _int(self.rows)
        for column, about, held, known in zip(self._columns, self._abouts, self._values, self._known, strict=True):
            levels = _levels(known) if column.nullable else b""
            values = _bits(held) if column.physical == BOOLEAN else held
            head = _page_head(rows, len(levels) + len(values))
            pieces += (head, levels, values)
            size = len(head) + len(levels) + len(values)
            chunks.append(_chunk(about, rows, at, size))
            at += size
        footer = _footer(rows, at, chunks, self._ends)
        body = b"".join([*pieces, footer])
        length = len(footer) + _CHECKSUM_BYTES
        return b"".join([body, b"%08x\0\0" % zlib.crc32(body), length.to_bytes(4, "little"), _MAGIC])


def frame_of_rows(rows: PlainRows) -> pl.DataFrame:
    """Plain rows as a frame."""
    file = PlainParquet(rows.table)
    file.add(rows)
    return file.frame()


def has_checksum(content: bytes) -> bool:
    """Whether a file, or its last `CHECKSUM_END` bytes, are of one that was written here."""
    return content[-CHECKSUM_END:].startswith(_BEFORE_CHECKSUM)


def is_damaged(content: bytes) -> bool:
    """Whether the checksum of a file that has one is not that of its content."""
    at = len(content) - CHECKSUM_END + len(_BEFORE_CHECKSUM)
    return content[at : at + 8] != b"%08x" % zlib.crc32(memoryview(content)[:at])


def _bits(flags: bytearray) -> bytes:
    return np.packbits(np.frombuffer(flags, np.uint8), bitorder="little").tobytes()


def _levels(known: bytearray) -> bytes:
    """Definition levels, 0 for a null, as one bit-packed run of the hybrid encoding behind its length."""
    bits = _bits(known)
    run = _varint(len(bits) << 1 | 1) + bits
    return len(run).to_bytes(4, "little") + run


def _page_head(rows: bytes, size: int) -> bytes:
    """PageHeader of a data page: type, sizes uncompressed and compressed, then a DataPageHeader."""
    length = _int(size)
    return b"\x15\x00\x15%b\x15%b\x2c\x15%b%b\0" % (length, length, rows, _ENCODINGS)


def _chunk(about: bytes, rows: bytes, at: int, size: int) -> bytes:
    """A ColumnChunk: file_offset, then a ColumnMetaData, of which `about` is the begin: number of values, sizes
    uncompressed and compressed, data_page_offset."""
    place, length = _int(at), _int(size)
    return b"\x26%b\x1c%b\x16%b\x16%b\x16%b\x26%b\0\0" % (place, about, rows, length, length, place)


def _footer(rows: bytes, size: int, chunks: Sequence[bytes], ends: tuple[bytes, bytes]) -> bytes:
    """The FileMetaData up to the value of the checksum."""
    schema, about = ends
    group = _struct((1, _LIST, _list(_STRUCT, chunks)), (2, _I64, _int(size)), (3, _I64, rows))
    fields = (1, _I32, _int(1)), (2, _LIST, schema), (3, _I64, rows), (4, _LIST, _list(_STRUCT, [group]))
    return _fields(*fields, (5, _LIST, about))


@cache
def _constants(name: str) -> tuple[list[bytes], tuple[bytes, bytes]]:
    """What is the same for all files of a table: of each column's chunk; the schema, and the begin of the metadata."""
    table = next(table for table in TABLES if table.name == name)
    columns = columns_of(name)
    return [_about(column) for column in columns], (_schema(columns), _arrow_schema(table))


def _about(column: Column) -> bytes:
    """The first fields of a ColumnMetaData: type, encodings, path, codec."""
    return _fields(
        (1, _I32, _int(column.physical)),
        (2, _LIST, _list(_I32, [_int(_PLAIN), _int(_RLE)])),
        (3, _LIST, _list(_BINARY, [_binary(column.name)])),
        (4, _I32, _int(0)),
    )


def _schema(columns: Sequence[Column]) -> bytes:
    """The list of SchemaElement: the root, and a leaf for each column."""
    root = _struct((4, _BINARY, _binary("root")), (5, _I32, _int(len(columns))))
    return _list(_STRUCT, [root, *map(_leaf, columns)])


def _leaf(column: Column) -> bytes:
    repetition = _OPTIONAL if column.nullable else _REQUIRED
    fields = [(1, _I32, _int(column.physical)), (3, _I32, _int(repetition)), (4, _BINARY, _binary(column.name))]
    return _struct(*fields, *([(6, _I32, _int(_UTF8))] if column.physical == BYTE_ARRAY else []))


def _arrow_schema(table: Table) -> bytes:
    """A list of two KeyValue, up to the value of the second: what Polars writes for a frame of these columns, and the
    checksum."""
    file = BytesIO()
    pl.DataFrame(schema=table.columns).write_parquet(file)
    file.seek(0)
    value = pl.read_parquet_metadata(file)[_ARROW_SCHEMA]
    arrow = _struct((1, _BINARY, _binary(_ARROW_SCHEMA)), (2, _BINARY, _binary(value)))
    return _list(_STRUCT, [arrow, _BEFORE_CHECKSUM])


def _struct(*fields: _Field, after: int = 0) -> bytes:
    """A whole struct, or what follows the field `after` of one."""
    return _fields(*fields, after=after) + b"\0"


def _fields(*fields: _Field, after: int = 0) -> bytes:
    """Fields of a struct, in the order of their ids."""
    pieces = []
    for number, kind, value in fields:
        pieces += [bytes(((number - after) << 4 | kind,)), value]
        after = number
    return b"".join(pieces)


def _list(kind: int, values: Sequence[bytes]) -> bytes:
    count = len(values)
    head = bytes((count << 4 | kind,)) if count < 15 else bytes((0xF0 | kind,)) + _varint(count)
    return head + b"".join(values)


def _binary(text: str) -> bytes:
    content = text.encode()
    return _varint(len(content)) + content


def _int(value: int) -> bytes:
    """A non-negative integer, zigzag."""
    return _varint(value << 1)


def _varint(value: int) -> bytes:
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    content = bytearray()
    while value > 0x7F:
        content.append(value & 0x7F | 0x80)
        value >>= 7
    content.append(value)
    return bytes(content)


_ENCODINGS: Final = _struct((2, _I32, _int(_PLAIN)), (3, _I32, _int(_RLE)), (4, _I32, _int(_RLE)), after=1)
"""What follows the number of values in a DataPageHeader."""
_BEFORE_CHECKSUM: Final = _fields((1, _BINARY, _binary(_CHECKSUM)), (2, _BINARY, _varint(8)))
_CHECKSUM_BYTES: Final = 8 + 2  # hexadecimal, and the ends of its struct and of the FileMetaData
CHECKSUM_END: Final = len(_BEFORE_CHECKSUM) + _CHECKSUM_BYTES + 4 + len(_MAGIC)
"""From the name of the checksum to the end of a file."""
