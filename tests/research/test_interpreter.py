"""What must hold of every program, whatever its operators: no look-ahead, and bits that do not depend on the run."""

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from research.language import compile_features
from research.programs.expression import Node, parse
from research.programs.program import Program
from tests.research.feature_programs import COLUMNS, EXPRESSIONS, SEEDS, assert_same_bits, random_rows

FIRST_BAR = 8_836_000_003  # an absolute index as of 200 ms bars in 2026
programs = st.lists(EXPRESSIONS, min_size=1, max_size=3)
often = settings(max_examples=60, deadline=None)


def program_of(trees: list[Node]) -> Program:
    return compile_features({f"f{k}": tree for k, tree in enumerate(trees)}, COLUMNS)


def bars(n: int, first: int = FIRST_BAR) -> np.ndarray:
    return first + np.arange(n)


@often
@given(programs, SEEDS, st.integers(1, 170))
def test_no_feature_reads_the_future_that_is_cut_off(trees: list[Node], seed: int, cut: int) -> None:
    program, x = program_of(trees), random_rows(seed, 170)
    assert_same_bits(program.evaluate(x[:cut], bars(cut)), program.evaluate(x, bars(170))[:cut])


@often
@given(programs, SEEDS, st.integers(1, 170))
def test_no_feature_moves_when_the_future_changes(trees: list[Node], seed: int, cut: int) -> None:
    program, x = program_of(trees), random_rows(seed, 170)
    other = np.concatenate([x[:cut], random_rows(seed + 1, 170 - cut) * 7.0 - 1.0])
    assert_same_bits(program.evaluate(other, bars(170))[:cut], program.evaluate(x, bars(170))[:cut])


@often
@given(programs, SEEDS, st.integers(1, 100))
def test_tiles_of_any_size_give_the_same_bits(trees: list[Node], seed: int, tile: int) -> None:
    program, x = program_of(trees), random_rows(seed, 170)
    assert_same_bits(program.evaluate(x, bars(170), tile=tile), program.evaluate(x, bars(170)))


@often
@given(programs, SEEDS)
def test_a_row_at_a_time_gives_the_bits_of_the_batch(trees: list[Node], seed: int) -> None:
    program, x = program_of(trees), random_rows(seed, 120)
    live = program.start()
    rows = np.array([live.step(row, FIRST_BAR + k) for k, row in enumerate(x)])
    assert_same_bits(rows, program.evaluate(x, bars(120)))


@often
@given(programs, SEEDS, st.integers(0, 40))
def test_after_the_warm_up_the_start_leaves_no_trace(trees: list[Node], seed: int, start: int) -> None:
    program, x = program_of(trees), random_rows(seed, 300)
    assume(not program.is_infinite)
    late = program.evaluate(x[start:], bars(300)[start:])
    whole = program.evaluate(x, bars(300))[start:]
    assert_same_bits(late[program.warmup_bars :], whole[program.warmup_bars :])


@often
@given(programs, SEEDS, st.integers(0, 120))
def test_a_run_goes_on_from_saved_state_as_if_it_had_not_stopped(trees: list[Node], seed: int, cut: int) -> None:
    program, x = program_of(trees), random_rows(seed, 120)
    stream = program.start()
    before = stream.run(x[:cut], bars(120)[:cut])
    saved, other = stream.save(), program.start()
    stream.run(x[:cut])  # what the first stream does next must not reach what was saved
    other.restore(saved)
    after = other.run(x[cut:], bars(120)[cut:])
    assert_same_bits(np.concatenate([before, after]), program.evaluate(x, bars(120)))


@often
@given(programs, SEEDS, st.integers(1, 119))
def test_a_jump_of_the_bar_index_is_a_fresh_start(trees: list[Node], seed: int, cut: int) -> None:
    program, x = program_of(trees), random_rows(seed, 120)
    index = bars(120) + np.where(np.arange(120) >= cut, 5, 0)
    both = program.evaluate(x, index)
    assert_same_bits(both[:cut], program.evaluate(x[:cut], index[:cut]))
    assert_same_bits(both[cut:], program.evaluate(x[cut:], index[cut:]))


@often
@given(programs, SEEDS, st.sets(st.integers(0, 119)))
def test_a_bar_with_a_gap_is_nan_and_a_fresh_start(trees: list[Node], seed: int, gaps: set[int]) -> None:
    features = {f"f{k}": tree for k, tree in enumerate(trees)}
    program, x = compile_features(features, (*COLUMNS, "has_gap")), random_rows(seed, 120)
    has_gap = np.isin(np.arange(120), list(gaps))
    got = program.evaluate(np.column_stack([x, has_gap]), bars(120))
    assert np.isnan(got[has_gap]).all()
    for begin, end in _stretches(has_gap):
        assert_same_bits(got[begin:end], program_of(trees).evaluate(x[begin:end], bars(120)[begin:end]))


def _stretches(has_gap: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[True], has_gap, [True]]).astype(int)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@often
@given(programs, SEEDS, st.sets(st.integers(0, 119)), st.integers(1, 70))
def test_taking_some_rows_gives_the_bits_of_all(trees: list[Node], seed: int, rows: set[int], tile: int) -> None:
    program, x = program_of(trees), random_rows(seed, 120)
    take = np.array(sorted(rows), np.int64)
    assert_same_bits(program.evaluate(x, bars(120), take, tile), program.evaluate(x, bars(120))[take])


@often
@given(programs, SEEDS)
def test_features_compiled_together_are_those_compiled_alone(trees: list[Node], seed: int) -> None:
    x = random_rows(seed, 120)
    together = program_of(trees).evaluate(x, bars(120))
    for k, tree in enumerate(trees):
        assert_same_bits(together[:, k : k + 1], program_of([tree]).evaluate(x, bars(120)))


@pytest.mark.parametrize("operator", ["sum", "mean", "std", "zscore", "min", "max"])
def test_nan_leaves_a_window_when_its_bar_does(operator: str) -> None:
    x = np.random.default_rng(3).normal(size=(120, 1))
    x[20] = np.nan
    y = compile_features({"f": f"({operator}_7 a)"}, ["a"]).evaluate(x, bars(120))[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(np.isnan(y)), [*range(6), *range(20, 27)])


@pytest.mark.parametrize("operator", ["sum", "mean", "std", "zscore"])
def test_an_infinite_value_leaves_a_window_when_its_bar_does(operator: str) -> None:
    x = np.random.default_rng(3).normal(size=(120, 1))
    x[20] = np.inf
    y = compile_features({"f": f"({operator}_7 a)"}, ["a"]).evaluate(x, bars(120))[:, 0]
    np.testing.assert_array_equal(np.flatnonzero(~np.isfinite(y)), [*range(6), *range(20, 27)])


def test_windows_give_nan_until_they_are_full_wherever_the_run_starts() -> None:
    program = compile_features({"f": "(sum_7 (delta_3 a))"}, ["a"])
    assert program.warmup_bars == 9
    for first in range(14):
        y = program.evaluate(np.ones((30, 1)), bars(30, FIRST_BAR + first))[:, 0]
        np.testing.assert_array_equal(np.isnan(y), np.arange(30) < 9)


def test_ten_million_steps_of_a_rolling_sum_do_not_drift() -> None:
    n, window = 10_000_000, 1500
    rng = np.random.default_rng(11)
    x = rng.normal(size=(n, 1)) * np.where(np.arange(n) % 999_983 == 0, 1e12, 1.0)[:, None]  # a shock now and then
    program = compile_features({"s": f"(sum_{window} a)", "d": f"(std_{window} a)"}, ["a"])
    ends = np.array([window - 1, 123_456, 999_982, 1_002_000, 5_000_001, 9_998_877, n - 1])
    got = program.evaluate(x, bars(n), ends)
    for row, end in zip(got, ends, strict=True):
        values = x[end - window + 1 : end + 1, 0]
        assert abs(row[0] - math.fsum(values)) <= 1e-13 * math.fsum(np.abs(values))
        assert row[1] == pytest.approx(_exact_std(values), rel=1e-12)


def _exact_std(values: np.ndarray) -> float:
    mean = math.fsum(values) / values.size
    return math.sqrt(math.fsum((values - mean) ** 2) / values.size)


@given(st.floats(-1e12, 1e12), st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_a_constant_window_has_its_value_as_mean_and_no_deviation(value: float, window: int) -> None:
    names = ("mean", "std", "zscore", "min", "max", "delta")
    program = compile_features({name: f"({name}_{window} a)" for name in names}, ["a"])
    y = program.evaluate(np.full((100, 1), value), bars(100))[program.warmup_bars :]
    np.testing.assert_array_equal(y, np.tile([value, 0.0, 0.0, value, value, 0.0], (len(y), 1)))


def test_deviation_of_small_moves_on_a_high_price_keeps_its_digits() -> None:
    rng = np.random.default_rng(5)
    x = 1e9 + np.round(rng.normal(size=2000), 3)
    got = compile_features({"f": "(std_300 a)"}, ["a"]).evaluate(x[:, None])[:, 0]
    wanted = [_exact_std(x[end - 299 : end + 1] - 1e9) for end in range(299, 2000)]
    np.testing.assert_allclose(got[299:], wanted, rtol=1e-9)


def test_a_frame_is_read_by_the_names_of_its_columns() -> None:
    program = compile_features({"f": "(sub a b)"}, ["a", "b"])
    frame = pl.DataFrame({"b": [1, 2], "other": [9.0, 9.0], "a": [5.0, None]})
    np.testing.assert_array_equal(program.evaluate(frame), [[4.0], [np.nan]])
    with pytest.raises(ValueError, match=r"lacks the columns \['b'\]"):
        program.evaluate(frame.drop("b"))


def test_read_only_and_transposed_rows_are_taken() -> None:
    program = compile_features({"f": "(sub a b)"}, ["a", "b"])
    rows = np.arange(6.0).reshape(2, 3).T
    rows.flags.writeable = False
    index = np.arange(3)
    index.flags.writeable = False
    np.testing.assert_array_equal(program.evaluate(rows, index), [[-3.0]] * 3)


def test_no_rows_are_no_rows() -> None:
    program = compile_features({"f": "(sum_3 a)"}, ["a"])
    assert program.evaluate(np.empty((0, 1))).shape == (0, 1)


@pytest.mark.parametrize(
    ("x", "index", "take", "message"),
    [
        (np.zeros((3, 2)), None, None, r"shape \(n, 1\)"),
        (np.zeros(3), None, None, r"shape \(n, 1\)"),
        (np.zeros((3, 1)), np.arange(2), None, r"bar_index must have shape \(3,\)"),
        (np.zeros((3, 1)), None, np.array([2, 1]), "ascending row numbers from 0 to 2"),
        (np.zeros((3, 1)), None, np.array([3]), "ascending row numbers from 0 to 2"),
        (np.zeros((3, 1)), None, np.array([-1]), "ascending row numbers from 0 to 2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(x: np.ndarray, index: object, take: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_features({"f": "a"}, ["a"]).evaluate(x, index, take)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", [np.zeros(1), np.zeros(3), np.zeros((2, 1)), 1.0])
def test_a_live_row_of_another_shape_is_refused(row: np.ndarray) -> None:
    live = compile_features({"f": "(sub a b)"}, COLUMNS).start()
    with pytest.raises(ValueError, match=r"a row must have shape \(2,\)"):
        live.step(row)


def test_the_example_of_the_notebook_runs_on_arrays_and_frames_and_live() -> None:
    program = compile_features(
        {"ofi_z": "(zscore_300 ofi)", "wide": "(if_gt spread_bps (mean_5s spread_bps) 1.0 0.0)"},
        columns=["ofi", "spread_bps"],
        bar="200ms",
    )
    x = np.random.default_rng(4).normal(size=(700, 2))
    y, live = program.evaluate(x), program.start()
    assert y.shape == (700, 2)
    assert np.isfinite(y[299:]).all()
    assert_same_bits(program.evaluate(pl.DataFrame(x, schema=["ofi", "spread_bps"])), y)
    assert_same_bits(np.array([live.step(row) for row in x]), y)


def test_state_of_other_features_is_refused() -> None:
    saved = compile_features({"f": "(sum_3 a)"}, ["a"]).start().save()
    with pytest.raises(ValueError, match=r"saved by other features, which lack \(mean_4 a\)"):
        compile_features({"f": "(sum_4 a)"}, ["a"]).start().restore(saved)
    with pytest.raises(ValueError, match="saved by other features"):
        compile_features({"f": "(sum_3 a)"}, ["a"], bar="1s").start().restore(saved)


@often
@given(programs, SEEDS, st.integers(0, 120), st.integers(0, 2))
def test_a_program_goes_on_from_the_state_of_one_that_holds_its_features(
    trees: list[Node], seed: int, cut: int, chosen: int
) -> None:
    whole, part, x = program_of(trees), program_of([trees[chosen % len(trees)]]), random_rows(seed, 120)
    stream, other = whole.start(), part.start()
    stream.run(x[:cut], bars(120)[:cut])
    other.restore(stream.save())
    wanted = stream.run(x[cut:], bars(120)[cut:])[:, chosen % len(trees)]
    assert_same_bits(other.run(x[cut:], bars(120)[cut:])[:, 0], wanted)


def test_what_remembers_everything_depends_on_the_start_and_says_so() -> None:
    program, x = program_of([parse("(add b (ewm_mean_3 a))")]), random_rows(1, 200)
    assert program.is_infinite
    late, whole = program.evaluate(x[50:], bars(200)[50:]), program.evaluate(x, bars(200))[50:]
    assert np.nanmax(np.abs(late - whole)[40:]) < 1e-3
    assert np.nanmax(np.abs(late - whole)[20:30]) > 0.0


def test_saved_state_survives_a_file(tmp_path: object) -> None:
    program, x = compile_features({"f": "(zscore_5 a)"}, ["a"]), np.random.default_rng(1).normal(size=(20, 1))
    stream = program.start()
    stream.run(x[:11])
    np.savez(f"{tmp_path}/state.npz", allow_pickle=False, **stream.save())
    with np.load(f"{tmp_path}/state.npz", allow_pickle=False) as saved:
        other = program.start()
        other.restore(saved)
    assert_same_bits(other.run(x[11:]), program.evaluate(x)[11:])


@pytest.mark.parametrize(
    ("text", "bars_"),
    [("a", 0), ("(add a 1)", 0), ("(lag_3 a)", 3), ("(mean_3 a)", 2), ("(sub (mean_3 a) (lag_5 b))", 5),
     ("(zscore_4 (delta_2 (mean_3 a)))", 7)],
)  # fmt: skip
def test_the_warm_up_is_the_longest_chain_of_windows(text: str, bars_: int) -> None:
    program = compile_features({"f": text}, COLUMNS)
    y = program.evaluate(np.random.default_rng(2).normal(size=(40, 2)), bars(40))[:, 0]
    assert program.warmup_bars == bars_
    np.testing.assert_array_equal(np.isnan(y), np.arange(40) < bars_)
