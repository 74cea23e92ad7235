"""Programs and streams: which bar a row is, saved state, several symbols, and what is refused."""

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from research.language import compile_features
from research.programs.program import Program
from tests.research.feature_programs import assert_same_bits

FIRST = 8_836_000_003
X = np.random.default_rng(1).normal(size=(900, 1))
HANGS_ON_THE_INDEX = {"m": "(mean_300 a)", "h": "(hurst_300 a)"}


def program(bar: str = "", **features: str) -> Program:
    return compile_features(features or {"f": "(mean_20 a)"}, ["a"], bar)


@pytest.mark.parametrize("frame", [pl.DataFrame, pd.DataFrame])
def test_with_the_bars_own_index_the_start_of_a_run_leaves_no_trace(frame: Any) -> None:
    made = program(**HANGS_ON_THE_INDEX)
    rows = frame({"bar_index": FIRST + np.arange(900), "a": X[:, 0]})
    whole, late = made.evaluate(rows), made.evaluate(rows[101:])
    assert_same_bits(late[made.warmup_bars :], whole[101 + made.warmup_bars :])
    assert_same_bits(whole, made.evaluate(X, FIRST + np.arange(900)))
    plain = made.evaluate(X[101:])[made.warmup_bars :]
    assert np.abs(plain - made.evaluate(X)[101 + made.warmup_bars :]).max() > 1e-6, "what the docs warn of"


def test_an_index_that_is_given_comes_before_the_frames_own() -> None:
    rows, given = pl.DataFrame({"bar_index": np.arange(900), "a": X[:, 0]}), np.arange(900) * 2
    assert np.isnan(program().evaluate(rows, given)).all()
    assert np.isfinite(program().evaluate(rows)[19:]).all()


def test_a_stream_that_is_told_the_first_bar_has_the_bits_of_the_batch() -> None:
    made = program(**HANGS_ON_THE_INDEX)
    wanted = made.evaluate(X, FIRST + np.arange(900))
    live, pieces = made.start(bar_index=FIRST), made.start(bar_index=FIRST)
    assert_same_bits(np.array([live.step(row) for row in X]), wanted)
    assert_same_bits(np.concatenate([pieces.run(X[:417]), pieces.run(X[417:])]), wanted)
    late = made.start(bar_index=FIRST + 101).run(X[101:])
    assert_same_bits(late[made.warmup_bars :], wanted[101 + made.warmup_bars :])


@pytest.mark.parametrize(
    "index", [np.arange(900) * 1.0, np.full(900, np.nan), np.arange(900) > 3, [None] * 900, ["1"] * 900]
)
def test_a_bar_index_that_is_not_whole_is_refused(index: Any) -> None:
    with pytest.raises(ValueError, match="bar_index must be whole numbers"):
        program().evaluate(X, index)
    with pytest.raises(ValueError, match="bar_index must be whole numbers"):
        program().evaluate(pl.DataFrame({"a": X[:, 0], "bar_index": index}, strict=False))


@pytest.mark.parametrize("index", [5.0, np.nan, "5"])
def test_a_bar_index_that_is_not_whole_is_refused_live(index: Any) -> None:
    with pytest.raises(ValueError, match="bar_index must be a whole number, was"):
        program().start().step(X[0], index)
    with pytest.raises(ValueError, match="bar_index must be a whole number, was"):
        program().start(bar_index=index)


def test_rows_to_take_are_whole_numbers() -> None:
    with pytest.raises(ValueError, match="take must be whole numbers, was float64"):
        program().evaluate(X, take=np.array([1.5, 2.5]))  # type: ignore[arg-type]


def test_as_many_indices_as_symbols_are_asked_for() -> None:
    with pytest.raises(ValueError, match="one array for each of 3 symbols, was 1"):
        program().evaluate_many([X] * 3, [np.arange(900)])
    assert len(program().evaluate_many([X] * 3)) == 3


@pytest.mark.parametrize(("one", "other"), [("200ms", "time_200ms"), ("time_1s", "1000ms"), ("60s", "1m")])
def test_state_is_of_the_clock_however_it_is_written(one: str, other: str) -> None:
    stream, goes_on = program(one).start(), program(other).start()
    stream.run(X[:500])
    goes_on.restore(stream.save())
    assert_same_bits(goes_on.run(X[500:]), stream.run(X[500:]))


def test_state_of_another_clock_is_refused() -> None:
    with pytest.raises(ValueError, match="saved by other features: start afresh"):
        program("1s").start().restore(program("200ms").start().save())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"state": None}, "damaged: it lacks state"),
        ({"clock": None, "grid": None}, "damaged: it lacks grid, clock"),
        ({"state": np.zeros(3)}, r"damaged: 2 operators have spans \(2, 2\) in 3 numbers"),
        ({"clock": np.zeros(1, np.int64)}, r"damaged: its clock holds \(1,\)"),
        ({"memory_spans": np.zeros((3, 2), np.int64)}, "damaged: 2 operators have spans"),
        ({"memory_spans": np.array([[0, 19], [0, 19]])}, "damaged: 19 numbers stand where 5 should"),
    ],
)
def test_a_damaged_state_is_refused_and_changes_nothing(change: dict[str, Any], message: str) -> None:
    made = program(f="(mean_20 a)", g="(lag_5 a)")
    stream, untouched = made.start(), made.start()
    stream.run(X[:500])
    saved = stream.save() | change
    goes_on = made.start()
    goes_on.run(X[:10])
    untouched.run(X[:10])
    with pytest.raises(ValueError, match=message):
        goes_on.restore({name: value for name, value in saved.items() if value is not None})
    assert_same_bits(goes_on.run(X[10:]), untouched.run(X[10:]))


def test_what_is_saved_belongs_to_nobody() -> None:
    made = program()
    stream = made.start()
    for values in stream.save().values():
        values[...] = "" if values.dtype.kind == "U" else 0
    assert made.memory_spans.tolist() == [[0, 19]]
    assert_same_bits(stream.run(X), made.evaluate(X))


def test_what_lacks_in_a_state_is_told_in_a_line() -> None:
    deep = "(add a " * 100 + "(mean_3 a)" + ")" * 100
    with pytest.raises(ValueError, match="saved by other features, which lack") as caught:
        program(f=f"(lag_3 {deep})").start().restore(program().start().save())
    assert len(str(caught.value)) < 300
