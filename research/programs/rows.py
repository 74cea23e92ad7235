"""The rows that a program is given: arrays, and frames of any kind, which are read by the names of their columns.

What cannot be meant is refused: a column that is missing or is no number, masked and complex values, an index that is
not whole.
"""

from collections.abc import Sequence
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.units import NS_PER_DAY, NS_PER_S

Floats: TypeAlias = NDArray[np.float64]
Ints: TypeAlias = NDArray[np.int64]

BAR_INDEX: Final = "bar_index"
"""The column of a frame that numbers its bars, absolutely."""
CLOSE_NS: Final = "close_ns"
"""The column of a frame of which TIME_COLUMNS are made where it lacks them."""
TIME_COLUMNS: Final = ("second_of_day", "day")
_REAL: Final = "biuf"  # kinds of dtypes that are numbers and fit a float64


class Frame(Protocol):
    """Columns by name: a frame of Polars or pandas, a table of Arrow."""

    @property
    def columns(self) -> Any: ...

    def __getitem__(self, name: Any, /) -> Any: ...

    def __len__(self) -> int: ...


Rows: TypeAlias = Floats | pl.DataFrame | Frame


def read_rows(x: Rows, columns: Sequence[str], read: Ints) -> tuple[dict[int, Floats], int]:
    """The columns that are to be read, by their number, and how many rows there are.

    TIME_COLUMNS that a frame lacks are made of its `close_ns`.
    Raises ValueError for rows that are not in memory, do not have these columns, or are not numbers.
    """
    if isinstance(x, pl.LazyFrame):
        raise ValueError("rows must be in memory: give evaluate(frame.collect())")
    names = _names(x)
    if names is None:
        array = floats(x, "rows")
        if array.ndim != 2 or array.shape[1] != len(columns):
            raise ValueError(f"rows must have shape (n, {len(columns)}), one per column {columns}, was {array.shape}")
        return {int(column): array[:, column] for column in read}, array.shape[0]
    made = set(TIME_COLUMNS).difference(names) if CLOSE_NS in names else set()
    missing = [name for name in columns if name not in names and name not in made]
    if missing:
        of_time = f"; {' and '.join(TIME_COLUMNS)} would be made of {CLOSE_NS}" if {*missing} & {*TIME_COLUMNS} else ""
        raise ValueError(f"the frame lacks the columns {missing}, which the program was compiled for{of_time}")
    found = {}
    for column in read:
        name = columns[column]
        found[int(column)] = _time_column(x, name) if name in made else _column(x, name)
    return found, len(x)


def times_of_day(close_ns: Any) -> tuple[Any, Any]:
    """TIME_COLUMNS of closes, be it one: seconds since midnight UTC, and days since 1970."""
    return close_ns % NS_PER_DAY / NS_PER_S, close_ns // NS_PER_DAY


def bar_index_of(x: Rows) -> Any:
    """The column `bar_index` of a frame; None for a frame without one, and for an array."""
    frame: Any = x
    names = _names(frame)
    return frame[BAR_INDEX] if names is not None and BAR_INDEX in names else None


def floats(values: Any, what: str) -> Floats:
    """Values as float64, None as NaN. Raises ValueError for what is no real number, and for a masked array."""
    if isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{what} must not be masked: give .filled(np.nan)")
    array = np.asarray(values)
    is_object = array.dtype.kind == "O" and not any(isinstance(each, str | bytes) for each in array.flat)
    if array.dtype.kind not in _REAL and not is_object:
        raise ValueError(f"{what} must be real numbers, was {array.dtype}: cast to float64 or drop it")
    try:
        return array.astype(np.float64, copy=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} must be real numbers: {error}") from None


def whole_numbers(values: Any, what: str) -> Ints:
    """Values as int64. Raises ValueError for what is not whole numbers by its type."""
    array = np.asarray(values)
    if (array.dtype.kind not in "iu" and array.size) or isinstance(values, np.ma.MaskedArray):
        raise ValueError(f"{what} must be whole numbers, was {array.dtype}: cast to int64, with none missing")
    return np.require(array, np.int64, ["C", "W"])  # a read-only array would compile the kernel a second time


def _names(x: Any) -> list[Any] | None:
    found = getattr(x, "column_names", None) or getattr(x, "columns", None)  # the first is Arrow's
    return None if found is None else list(found)


def _time_column(x: Any, name: str) -> Floats:
    close_ns = whole_numbers(x[CLOSE_NS], f"column {CLOSE_NS}")
    return floats(times_of_day(close_ns)[TIME_COLUMNS.index(name)], name)


def _column(x: Any, name: str) -> Floats:
    values = x[name]
    if isinstance(values, pl.Series):
        if not (values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)):
            raise ValueError(f"column {name} must be real numbers, was {values.dtype}: cast to float64 or drop it")
        return values.cast(pl.Float64).to_numpy()
    array = floats(values, f"column {name}")
    if array.ndim != 1:
        raise ValueError(f"the frame has {array.shape[-1]} columns {name}: drop all but one")
    return array
