"""What must hold of every operator in the table, by its place in the table alone: a new one is tested as it comes.

Each operator runs on four columns that are alive for half of the rows and then hold NaN, infinities, zeros and constant
stretches, with a window of one scheme and of the other.
"""

import io

import numpy as np
import pytest

from research.language import compile_features
from research.language_docs import example
from research.machine.opcodes import HOPS, SHORT
from research.programs.operators import OPERATORS, Operator
from research.programs.program import GAP_COLUMN, Program
from tests.research.feature_programs import Floats, assert_same_bits

ROWS = 420
FIRST_BAR = 8_836_000_003
COLUMNS = ("x0", "x1", "x2", "x3")
CUTS = (1, 2, 5, 63, 64, 71, 139, 140, 141, 200, 280, 333, 419)


def _windows(operator: Operator) -> tuple[int, ...]:
    """One that is short, one that is not, of those that mean something; one alone where the scheme is the same and
    only what has settled counts."""
    longer = 7 if operator.settles > 1 else SHORT + 6
    return tuple(sorted({operator.within(7), operator.within(longer)})) if operator.window else (0,)


CASES = [pytest.param(each, w, id=f"{each.name}_{w}") for each in OPERATORS.values() for w in _windows(each)]
every_operator = pytest.mark.parametrize(("operator", "window"), CASES)


def rows(seed: int, n: int = ROWS) -> Floats:
    """Rows (n, 4): a walk on a tick, positive noise, sparse positive noise and a walk; dirt from the middle on."""
    rng = np.random.default_rng(seed)
    walk = 3.0 + np.round(np.cumsum(rng.normal(0.0, 0.1, n)), 1)
    sparse = rng.lognormal(size=n) * (rng.random(n) < 0.7)
    x = np.column_stack([walk, rng.lognormal(0.0, 1.0, n), 1.0 + sparse, np.cumsum(rng.normal(size=n))])
    dirt = rng.random(x.shape)
    dirt[: n // 2] = 1.0
    x[dirt < 0.02], x[(dirt > 0.02) & (dirt < 0.03)], x[(dirt > 0.03) & (dirt < 0.035)] = np.nan, 0.0, -np.inf
    x[-60:-40] = 3.0
    return x


def program_of(operator: Operator, window: int, columns: tuple[str, ...] = COLUMNS) -> Program:
    return compile_features({operator.name: example(operator, window)}, columns)


def bars(n: int = ROWS) -> np.ndarray:
    return FIRST_BAR + np.arange(n)


@every_operator
def test_it_is_known_for_most_of_the_clean_rows_and_not_before_its_warm_up(operator: Operator, window: int) -> None:
    y = program_of(operator, window).evaluate(rows(1), bars())[: ROWS // 2, 0]
    window_bars = {"k": window, "w": operator.settles * window - 1}.get(operator.window, 0)
    assert np.isnan(y[:window_bars]).all()
    assert np.isfinite(y[program_of(operator, window).warmup_bars :]).mean() > 0.5


@every_operator
def test_cutting_the_future_off_changes_nothing(operator: Operator, window: int) -> None:
    program, x = program_of(operator, window), rows(2)
    whole = program.evaluate(x, bars())
    for cut in range(1, ROWS):
        assert_same_bits(program.evaluate(x[:cut], bars(cut))[-20:], whole[max(cut - 20, 0) : cut])


@every_operator
def test_another_future_changes_nothing(operator: Operator, window: int) -> None:
    program, x = program_of(operator, window), rows(3)
    whole = program.evaluate(x, bars())
    for cut in CUTS:
        other = np.concatenate([x[:cut], 1.0 - 7.0 * rows(4)[cut:]])
        assert_same_bits(program.evaluate(other, bars())[:cut], whole[:cut])


@every_operator
def test_the_present_row_counts(operator: Operator, window: int) -> None:
    """A lag too many is as wrong as one too few: what a row says must move the row itself (for lag, the k-th after)."""
    program, x = program_of(operator, window), rows(5)[: ROWS // 2]
    whole, behind = program.evaluate(x, bars(len(x)))[:, 0], window if operator.name == "lag" else 0
    moved, tried = 0, range(len(x) - 100, len(x) - 80)
    for row in tried:
        for change in (np.nan, 1e3, -1e3):
            other = x.copy()
            other[row] = change
            y = program.evaluate(other, bars(len(x)))[row + behind, 0]
            moved += int(not np.array_equal(y, whole[row + behind], equal_nan=True))
    assert moved >= len(tried) // (max(window // HOPS, 1) if operator.hops else 1)


@every_operator
def test_tiles_of_any_size_give_the_same_bits(operator: Operator, window: int) -> None:
    program, x = program_of(operator, window), rows(6)
    whole = program.evaluate(x, bars())
    for tile in (1, 3, 64, 71, 512):
        assert_same_bits(program.evaluate(x, bars(), tile=tile), whole)


@every_operator
def test_a_row_at_a_time_gives_the_bits_of_the_batch(operator: Operator, window: int) -> None:
    program, x = program_of(operator, window), rows(7)
    live = program.start()
    stepped = np.array([live.step(row, FIRST_BAR + k) for k, row in enumerate(x)])
    assert_same_bits(stepped, program.evaluate(x, bars()))


@every_operator
def test_a_run_goes_on_from_the_state_in_a_file(operator: Operator, window: int) -> None:
    program, x = program_of(operator, window), rows(8)
    whole = program.evaluate(x, bars())
    for cut in CUTS:
        stream, other, file = program.start(), program.start(), io.BytesIO()
        stream.run(x[:cut], bars()[:cut])
        np.savez(file, allow_pickle=False, **stream.save())
        file.seek(0)
        with np.load(file, allow_pickle=False) as saved:
            other.restore(saved)
        assert_same_bits(other.run(x[cut:], bars()[cut:]), whole[cut:])


@every_operator
def test_after_the_warm_up_the_start_leaves_no_trace_unless_it_remembers_everything(
    operator: Operator, window: int
) -> None:
    program, x = program_of(operator, window), rows(9)
    whole, traces = program.evaluate(x, bars()), 0
    for start in CUTS[:-2]:
        late, wanted = program.evaluate(x[start:], bars()[start:]), whole[start:]
        if operator.infinite:
            traces += int(not np.array_equal(late, wanted, equal_nan=True))
        else:
            assert_same_bits(late[program.warmup_bars :], wanted[program.warmup_bars :])
    assert traces > 0 or not operator.infinite


@every_operator
def test_a_gap_and_a_jump_of_the_bar_index_are_fresh_starts(operator: Operator, window: int) -> None:
    plain, program, x = program_of(operator, window), program_of(operator, window, (*COLUMNS, GAP_COLUMN)), rows(10)
    for cut in CUTS[:-1]:
        jump = bars() + np.where(np.arange(ROWS) >= cut, 5, 0)
        late = plain.evaluate(x[cut:], jump[cut:])
        assert_same_bits(plain.evaluate(x, jump)[cut:], late)
        has_gap = np.arange(ROWS) == cut - 1
        y = program.evaluate(np.column_stack([x, has_gap]), bars())
        assert np.isnan(y[cut - 1]).all()
        assert_same_bits(y[cut:], plain.evaluate(x[cut:], bars()[cut:]))


@every_operator
def test_nan_is_forgotten_with_its_bar(operator: Operator, window: int) -> None:
    """An operand that is not known leaves no trace behind its window; what remembers everything skips that row."""
    program, x, row = program_of(operator, window), rows(11)[: ROWS // 2], 30
    clean = program.evaluate(x, bars(len(x)))
    x[row] = np.nan
    y = program.evaluate(x, bars(len(x)))
    assert_same_bits(y[:row], clean[:row])
    after = row + program.warmup_bars + 1
    if operator.infinite:
        assert np.isfinite(y[after:]).mean() > 0.9
    else:
        assert_same_bits(y[after:], clean[after:])


@every_operator
def test_taking_some_rows_gives_the_bits_of_all(operator: Operator, window: int) -> None:
    program, x = program_of(operator, window), rows(12)
    take = np.flatnonzero(np.random.default_rng(0).random(ROWS) < 0.3)
    assert_same_bits(program.evaluate(x, bars(), take, tile=100), program.evaluate(x, bars())[take])
