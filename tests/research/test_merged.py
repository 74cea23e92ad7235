"""Several programs over one pass, and several symbols over one program: the bits of each alone."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.language import compile_features
from research.programs.expression import Node
from research.programs.merged import evaluate_programs, merge
from tests.research.feature_programs import COLUMNS, EXPRESSIONS, SEEDS, assert_same_bits, random_rows

lists_of_programs = st.lists(st.lists(EXPRESSIONS, min_size=1, max_size=2), min_size=1, max_size=4)


@settings(max_examples=40, deadline=None)
@given(lists_of_programs, SEEDS)
def test_programs_together_give_the_bits_of_each_alone(trees: list[list[Node]], seed: int) -> None:
    programs = [compile_features({f"f{k}": tree for k, tree in enumerate(each)}, COLUMNS) for each in trees]
    x = random_rows(seed, 60)
    for program, together in zip(programs, evaluate_programs(programs, x), strict=True):
        assert_same_bits(together, program.evaluate(x))


def test_what_programs_share_is_computed_once() -> None:
    texts = ["(sub a (mean_20 a))", "(mul 2 (sub a (mean_20 a)))", "(std_20 a)"]
    programs = [compile_features({"same_name": text}, ["a"]) for text in texts]
    merged = merge(programs)
    assert merged.program.nodes == 4
    assert sum(program.nodes for program in programs) == 6


def test_a_part_goes_on_from_the_state_of_the_whole() -> None:
    one, other = (compile_features({"f": text}, ["a"]) for text in ("(mean_20 a)", "(zscore_20 a)"))
    x = np.random.default_rng(1).normal(size=(90, 1))
    whole, part = merge([one, other]).program.start(), one.start()
    whole.run(x[:50])
    part.restore(whole.save())
    assert_same_bits(part.run(x[50:]), one.evaluate(x)[50:])


def test_programs_of_other_columns_or_bars_are_refused() -> None:
    one = compile_features({"f": "a"}, ["a"], "1s")
    with pytest.raises(ValueError, match=r"same columns and bars, had 2 on \['1s', '200ms'\]"):
        merge([one, compile_features({"f": "a"}, ["a"], "200ms")])
    with pytest.raises(ValueError, match="same columns and bars, had 0"):
        merge([])


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_symbols_on_threads_give_the_bits_of_each_alone(threads: int) -> None:
    program = compile_features({"f": "(zscore_20 a)", "g": "(ewm_mean_5 (mul a b))"}, COLUMNS)
    symbols = [random_rows(seed, 500 + 100 * seed) for seed in range(7)]
    index = [np.arange(len(x)) + 1000 * k for k, x in enumerate(symbols)]
    for x, first, y in zip(symbols, index, program.evaluate_many(symbols, index, threads), strict=True):
        assert_same_bits(y, program.evaluate(x, first))


def test_a_result_may_be_written_over_an_earlier_one() -> None:
    program = compile_features({"f": "(mean_5 a)", "g": "(sub a b)"}, COLUMNS)
    first, second = random_rows(1, 300), random_rows(2, 300)
    y = program.evaluate(first)
    again = program.evaluate(second, out=y)
    assert np.shares_memory(y, again)
    assert_same_bits(y, program.evaluate(second))
    for wrong in (y[:-1], np.empty((300, 2)), np.empty((2, 300), np.float32).T):
        with pytest.raises(ValueError, match=r"out must be an earlier result of shape \(300, 2\)"):
            program.evaluate(second, out=wrong)


def test_a_frame_and_an_array_give_the_same_bits() -> None:
    program, x = compile_features({"f": "(mean_5 b)"}, COLUMNS), random_rows(3, 20_000)
    assert_same_bits(program.evaluate(pl.DataFrame(x, schema=list(COLUMNS))), program.evaluate(x))
