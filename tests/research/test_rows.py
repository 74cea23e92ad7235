"""What rows may be: arrays of real numbers, and frames of any kind, by the names of their columns."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from core.units import NS_PER_DAY
from research.catalogue import feature_rows
from research.language import compile_features
from tests.research.feature_programs import assert_same_bits

PROGRAM = compile_features({"f": "(sub a b)", "g": "(mean_3 b)"}, ["a", "b"])
X = np.random.default_rng(1).normal(size=(20, 2))
Y = PROGRAM.evaluate(X)


class Columns:
    """As little of a frame as is needed."""

    def __init__(self, **columns: Any) -> None:
        self._columns = columns

    columns = property(lambda self: list(self._columns))

    def __getitem__(self, name: str) -> Any:
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame, lambda columns: Columns(**columns)])
def test_a_frame_is_read_by_the_names_of_its_columns_whatever_their_order(frame: Any) -> None:
    rows = frame({"b": X[:, 1], "z": ["x"] * 20, "a": X[:, 0]})
    assert_same_bits(PROGRAM.evaluate(rows), Y)
    with pytest.raises(ValueError, match=r"the frame lacks the columns \['b'\]"):
        PROGRAM.evaluate(frame({"a": X[:, 0]}))


def test_the_times_that_a_frame_lacks_are_made_of_its_closes_as_the_stage_makes_them() -> None:
    columns = ["a", "second_of_day", "day"]
    program = compile_features({name: name for name in columns}, columns)
    close_ns = np.array([NS_PER_DAY, NS_PER_DAY - 200_000_000, 1_770_000_000_123_456_789])
    wanted = program.evaluate(feature_rows(np.ones((3, 1)), close_ns))
    frames: list[Any] = [pl.DataFrame, pd.DataFrame, lambda columns: Columns(**columns)]
    for frame in frames:
        assert_same_bits(program.evaluate(frame({"close_ns": close_ns, "a": np.ones(3)})), wanted)
    own = pl.DataFrame({"close_ns": close_ns, "a": np.ones(3), "second_of_day": [1.0, 2.0, 3.0]})
    assert program.evaluate(own)[:, 1].tolist() == [1.0, 2.0, 3.0], "what a frame has is taken"
    with pytest.raises(ValueError, match=r"lacks the columns \['second_of_day', 'day'\].* would be made of close_ns"):
        program.evaluate(pl.DataFrame({"a": [1.0]}))


def test_a_frame_without_rows_gives_none() -> None:
    for rows in (pl.DataFrame({"a": [], "b": []}), pd.DataFrame({"a": [], "b": []}), np.empty((0, 2))):
        assert PROGRAM.evaluate(rows).shape == (0, 2)
    assert compile_features({"one": "1"}, ["a"]).evaluate(pl.DataFrame({"a": [1, 2]})).tolist() == [[1.0], [1.0]]


@pytest.mark.parametrize(
    "values",
    [[1, None, 3], [True, None, False], pl.Series([1, None, 3], dtype=pl.Decimal(10, 2)), [None, None, None]],
    ids=["int", "bool", "decimal", "null"],
)
def test_what_a_frame_does_not_know_is_nan(values: Any) -> None:
    program = compile_features({"f": "(known a)"}, ["a"])
    wanted = [float(each is not None) for each in values]
    assert program.evaluate(pl.DataFrame({"a": values}))[:, 0].tolist() == wanted


@pytest.mark.parametrize(
    "values",
    [
        pl.Series(["1", "2"]),
        pl.Series([[1.0], [2.0]]),
        pl.Series([1, 2]).cast(pl.Datetime),
        pd.Series(["1", "2"]),
        pd.Series([1, 2], dtype="datetime64[ns]"),
        np.array([1j, 2j]),
        np.ma.masked_array([1.0, 2.0], mask=[True, False]),
    ],
    ids=["text", "lists", "times", "pandas text", "pandas times", "complex", "masked"],
)
def test_columns_that_are_no_real_numbers_are_named(values: Any) -> None:
    with pytest.raises(ValueError, match="column a must"):
        compile_features({"f": "(neg a)"}, ["a"]).evaluate(Columns(a=values, b=values))


def test_a_column_that_a_frame_has_twice_is_refused() -> None:
    frame = pd.DataFrame(X[:, [0, 1, 1]], columns=["a", "b", "b"])
    with pytest.raises(ValueError, match="the frame has 2 columns b"):
        PROGRAM.evaluate(frame)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((3, 2)) * 1j, "rows must be real numbers, was complex128"),
        (np.full((3, 2), "1"), "rows must be real numbers, was <U1"),
        (np.full((3, 2), "1", object), "rows must be real numbers, was object"),
        (np.full((3, 2), object()), "rows must be real numbers: "),
        (np.ma.masked_array(np.ones((3, 2)), mask=np.eye(3, 2)), r"rows must not be masked: give \.filled\(np\.nan\)"),
        ({"a": [1.0], "b": [2.0]}, "rows must be real numbers: "),
    ],
)
def test_arrays_that_are_no_real_numbers_are_refused_in_batch_and_live(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PROGRAM.evaluate(x)
    if isinstance(x, np.ndarray):
        with pytest.raises(ValueError, match=message.replace("rows", "a row")):
            PROGRAM.start().step(x[0])


def test_lists_and_small_numbers_are_rows_too() -> None:
    rows = [[1, 2], [None, 4], [5.5, True]]
    wanted = PROGRAM.evaluate(np.array(rows, np.float64))
    assert_same_bits(PROGRAM.evaluate(rows), wanted)  # type: ignore[arg-type]
    live = PROGRAM.start()
    assert_same_bits(np.array([live.step(row) for row in rows]), wanted)  # type: ignore[arg-type]
    assert_same_bits(PROGRAM.evaluate(X.astype(np.float32)), PROGRAM.evaluate(X.astype(np.float32).astype(np.float64)))  # type: ignore[arg-type]
