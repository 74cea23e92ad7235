"""Rows as plain bytes: the values of each column one after the other, as the PLAIN encoding of Parquet has them.

What a capture does with some rows, put them behind others, look at their times, write a file of them, is done with
these in microseconds: 10 from ten structs to bytes, where Polars takes 70 to a frame of nine columns (2026-11-21,
benchmarks/bench_writer.py).
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.schema import TABLES, Table

Cells: TypeAlias = Sequence[Any] | NDArray[Any]
"""The values of a column. Of an enumeration: texts, or an array of codes."""

BOOLEAN, INT64, DOUBLE, BYTE_ARRAY = 0, 2, 5, 6  # parquet.thrift: Type


class Column(NamedTuple):
    """How a column of a table is encoded. `physical` is its type in Parquet."""

    name: str
    physical: int
    nullable: bool
    encode: Callable[[Cells], bytes]
    """Values, none of them null. Raises TypeError, KeyError or struct.error for what is no value of the column."""


@dataclass(frozen=True)
class PlainRows:
    """Rows of a table that nothing is added to. `known`: of nullable columns, a byte per row, 0 for a null."""

    table: Table
    height: int
    values: tuple[bytes, ...]
    """By column; booleans have a byte each, texts their length before them."""
    known: tuple[bytes, ...]

    def __len__(self) -> int:
        return self.height

    def ints(self, name: str) -> NDArray[np.int64]:
        """A column of integers that is never null."""
        return np.frombuffer(self.values[_places(self.table.name)[name]], np.int64)

    def flags(self, name: str) -> NDArray[np.bool_]:
        """A column of booleans."""
        return np.frombuffer(self.values[_places(self.table.name)[name]], np.bool_)

    def any(self, name: str) -> bool:
        """Whether a column of booleans, if the table has it, is true in any row."""
        place = _places(self.table.name).get(name)
        return place is not None and 1 in self.values[place]

    @cached_property
    def times(self) -> NDArray[np.int64]:
        """What the table is sorted by."""
        return self.ints(self.table.order[0])

    @property
    def first_ns(self) -> int:
        return int(self.times[0])

    @property
    def last_ns(self) -> int:
        return int(self.times[-1])

    @property
    def is_sorted(self) -> bool:
        return self.height < 2 or bool((self.times[1:] >= self.times[:-1]).all())


def plain_rows(table: Table, height: int, columns: Sequence[Cells]) -> PlainRows:
    """Encode columns of values, in the order of the table. Raises ValueError for what a column cannot hold, such as a
    null where there must be none."""
    values, known = [], []
    for column, cells in zip(columns_of(table.name), columns, strict=True):
        try:
            known.append(bytes([cell is not None for cell in cells]) if column.nullable else b"")
            values.append(column.encode([cell for cell in cells if cell is not None] if column.nullable else cells))
        except (TypeError, KeyError, struct.error) as error:
            raise ValueError(f"{table.name}: {column.name}: {error}") from error
    return PlainRows(table, height, tuple(values), tuple(known))


def plain_rows_of(table: Table, frame: pl.DataFrame) -> PlainRows:
    """Encode a frame. Raises ValueError for a null where the table has none."""
    undue = [name for name in table.columns if name not in table.nullable and frame[name].null_count()]
    if undue:
        raise ValueError(f"{table.name}: nulls in {undue}, which must be known in every row")
    return plain_rows(table, frame.height, [_cells(frame[name], name in table.nullable) for name in table.columns])


def joined(parts: Sequence[PlainRows]) -> PlainRows:
    """The rows of all parts, of one table, one part after the other."""
    if len(parts) == 1:
        return parts[0]
    values = tuple(b"".join(pieces) for pieces in zip(*(part.values for part in parts), strict=True))
    known = tuple(b"".join(pieces) for pieces in zip(*(part.known for part in parts), strict=True))
    return PlainRows(parts[0].table, sum(part.height for part in parts), values, known)


@cache
def columns_of(table_name: str) -> tuple[Column, ...]:
    """How the columns of a table are encoded, in their order."""
    table = next(table for table in TABLES if table.name == table_name)
    return tuple(
        Column(name, _physical(dtype), name in table.nullable, _encoder(dtype)) for name, dtype in table.columns.items()
    )


@cache
def _places(table_name: str) -> dict[str, int]:
    return {column.name: place for place, column in enumerate(columns_of(table_name))}


def _cells(values: pl.Series, nullable: bool) -> Cells:
    if isinstance(values.dtype, pl.Enum) and not nullable:
        return values.to_physical().to_numpy()
    return values.to_list() if nullable or values.dtype == pl.String else values.to_numpy()


def _physical(dtype: pl.DataType) -> int:
    if dtype == pl.Boolean:
        return BOOLEAN
    if dtype == pl.Int64:
        return INT64
    return DOUBLE if dtype == pl.Float64 else BYTE_ARRAY


def _encoder(dtype: pl.DataType) -> Callable[[Cells], bytes]:
    if isinstance(dtype, pl.Enum):
        return _enumeration(list(dtype.categories))
    return _ENCODERS[_physical(dtype)]


def _numbers(letter: str, dtype: type[np.generic]) -> Callable[[Cells], bytes]:
    def encode(values: Cells) -> bytes:
        if isinstance(values, np.ndarray):
            return values.astype(dtype, casting="safe", copy=False).tobytes()
        return struct.pack(f"<{len(values)}{letter}", *values)

    return encode


def _booleans(values: Cells) -> bytes:
    return values.astype(np.bool_, casting="safe").tobytes() if isinstance(values, np.ndarray) else bytes(values)


def _texts(values: Cells) -> bytes:
    lengths = set(map(len, values))
    if len(lengths) == 1:  # as ids mostly are: one join for all
        head = chr(lengths.pop()) + "\0\0\0"
        whole = head + head.join(values)
        if whole.isascii():
            return whole.encode()
    return b"".join([_text(value) for value in values])


def _text(value: str) -> bytes:
    content = value.encode()
    return len(content).to_bytes(4, "little") + content


def _enumeration(texts: list[str]) -> Callable[[Cells], bytes]:
    by_text = {text: _text(text) for text in texts}
    by_code = list(by_text.values())
    alike = np.array(by_code, f"V{len(by_code[0])}") if len(set(map(len, texts))) == 1 else None

    def encode(values: Cells) -> bytes:
        if not isinstance(values, np.ndarray):
            return b"".join(map(by_text.__getitem__, values))
        if alike is not None:
            return alike[values].tobytes()
        return b"".join(map(by_code.__getitem__, values.tolist()))

    return encode


_ENCODERS: Final[dict[int, Callable[[Cells], bytes]]] = {
    BOOLEAN: _booleans,
    INT64: _numbers("q", np.int64),
    DOUBLE: _numbers("d", np.float64),
    BYTE_ARRAY: _texts,
}
