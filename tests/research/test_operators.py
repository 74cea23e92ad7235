"""Each operator against a slow twin that is plain numpy over one window at a time."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from research.language import compile_features
from research.machine.opcodes import state_size
from research.programs.expression import node
from research.programs.operators import OPERATORS, Operator
from tests.research.feature_programs import SEEDS, Floats, assert_same_bits, evaluate, random_rows

NAN = np.nan
Twin = Callable[..., float]


def known(twin: Callable[..., Any]) -> Twin:
    """NaN where any operand is, else what `twin` says."""
    return lambda *values: NAN if np.isnan(values).any() else float(twin(*values))


EXACT: dict[str, Twin] = {
    "add": known(lambda a, b: a + b),
    "sub": known(lambda a, b: a - b),
    "mul": known(lambda a, b: a * b),
    "div": known(lambda a, b: a / b if b != 0 else NAN),
    "ratio": known(lambda a, b: a / b if b != 0 else 0 * a),
    "neg": known(lambda x: -x),
    "abs": known(abs),
    "sign": known(lambda x: x if x == 0 else np.sign(x)),
    "sqrt": known(lambda x: np.sqrt(x) if x >= 0 else NAN),
    "min2": known(lambda a, b: a if a < b else b),
    "max2": known(lambda a, b: a if a > b else b),
    "clip": known(lambda x, low, high: min(max(x, low), high)),
    "coalesce": lambda a, b: b if np.isnan(a) else a,
    "gt": known(lambda a, b: a > b),
    "ge": known(lambda a, b: a >= b),
    "lt": known(lambda a, b: a < b),
    "le": known(lambda a, b: a <= b),
    "eq": known(lambda a, b: a == b),
    "ne": known(lambda a, b: a != b),
    "floor": known(np.floor),
    "known": lambda x: float(not np.isnan(x)),
    "if_gt": lambda a, b, then, other: NAN if np.isnan([a, b]).any() else (then if a > b else other),
}
"""Operators without memory whose bits are IEEE 754's."""

NEARLY: dict[str, Twin] = {
    "log": known(lambda x: np.log(x) if x > 0 else NAN),
    "log1p": known(lambda x: np.log1p(x) if x > -1 else NAN),
    "exp": known(np.exp),
    "tanh": known(np.tanh),
    "sin": known(lambda x: np.sin(x) if np.isfinite(x) else NAN),
    "cos": known(lambda x: np.cos(x) if np.isfinite(x) else NAN),
    "log_normal": known(lambda x, mean, sd: scipy.stats.norm.logpdf(x, mean, sd) if sd > 0 else NAN),
    "power": known(lambda a, b: np.power(a, b)),
}
"""Operators without memory that call the mathematics library."""

WINDOWED: dict[str, Callable[[Floats], float]] = {
    "lag": lambda values: values[0],
    "delta": lambda values: values[-1] - values[0],
    "sum": np.sum,
    "mean": np.mean,
    "std": np.std,
    "zscore": lambda values: 0.0 if np.ptp(values) == 0 else (values[-1] - np.mean(values)) / np.std(values),
    "min": np.min,
    "max": np.max,
    "argmin": lambda values: np.argmin(values[::-1]),
    "argmax": lambda values: np.argmax(values[::-1]),
    "decay": lambda values: np.average(values, weights=np.arange(1, values.size + 1)),
    "run": lambda values: _run(values),
    "skew": lambda values: 0.0 if np.ptp(values) == 0 else scipy.stats.skew(values),
    "kurt": lambda values: 0.0 if np.ptp(values) == 0 else scipy.stats.kurtosis(values),
    "rank": lambda values: _rank(values),
}
"""Of the values in the window, oldest first (for lag and delta those of k + 1 bars)."""


PAIRED: dict[str, Callable[[Floats, Floats], float]] = {
    "cov": lambda x, y: np.cov(x, y, bias=True)[0, 1],
    "corr": lambda x, y: 0.0 if np.ptp(x) == 0 or np.ptp(y) == 0 else np.corrcoef(x, y)[0, 1],
    "beta": lambda x, y: 0.0 if np.ptp(y) == 0 else scipy.stats.linregress(y, x).slope,
}
"""Of two columns' values in the window."""


WEIGHTED: dict[str, Callable[[Floats, Floats], float]] = {
    "ewm_mean": lambda x, weights: np.average(x, weights=weights),
    "ewm_std": lambda x, weights: np.sqrt(np.average((x - np.average(x, weights=weights)) ** 2, weights=weights)),
    "ewm_sum": lambda x, weights: x @ weights,
    "ewm_vol": lambda x, weights: np.sqrt(np.average(x * x, weights=weights)),
}
"""Of all known values so far and their weights."""


def _run(values: Floats) -> float:
    same = np.sign(values[::-1]) == np.sign(values[-1])
    return float(np.sign(values[-1]) * (same.size if same.all() else np.argmin(same)))


def _rank(values: Floats) -> float:
    if values.size == 1:
        return 0.5
    return float((scipy.stats.rankdata(values)[-1] - 1) / (values.size - 1))


def test_every_operator_has_a_twin() -> None:
    by_hand = {"quantile", "vpin", "microprice", "autocorr", "latest"}
    # test_fractal, test_hmm
    elsewhere = {"fracdiff", "hmm", "hmm3", "hmm4", *(name for name, each in OPERATORS.items() if each.hops)}
    assert {*EXACT, *NEARLY, *WINDOWED, *PAIRED, *WEIGHTED, *by_hand, *elsewhere} == set(OPERATORS)


def operands(seed: int, arity: int) -> Floats:
    """Rows (200, arity) with ties, zeros of both signs, NaN and values of all sizes."""
    columns = [random_rows(seed + k, 200)[:, k % 2] for k in range(arity)]
    columns[0][:4] = 0.0, -0.0, np.inf, -3.0
    return np.column_stack(columns)


@pytest.mark.parametrize("name", sorted({**EXACT, **NEARLY}))
@given(SEEDS)
@settings(max_examples=10, deadline=None)
def test_operators_without_memory_equal_their_twin(name: str, seed: int) -> None:
    x = operands(seed, OPERATORS[name].arity)
    with np.errstate(over="ignore", invalid="ignore"):
        wanted = np.array([{**EXACT, **NEARLY}[name](*row) for row in x])
    got = evaluate(name, x)
    if name in EXACT:
        assert_same_bits(got, wanted)
    else:
        cancels = 1e-15 if name == "log_normal" else 0.0  # a sum of three terms
        np.testing.assert_allclose(got, wanted, rtol=4e-16, atol=cancels)


@pytest.mark.parametrize("name", sorted(WINDOWED))
@given(SEEDS, st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_operators_with_memory_equal_their_twin(name: str, seed: int, window: int) -> None:
    x = random_rows(seed, 120)
    reach = window + 1 if name in ("lag", "delta") else window
    for column in x.T:
        wanted = np.full(120, NAN)
        for end in range(reach, 121):
            values = column[end - reach : end]
            if not np.isnan(values).any() or name == "lag":
                wanted[end - 1] = WINDOWED[name](values)
        if name == "delta":
            wanted[reach - 1 :] = column[reach - 1 :] - column[: 121 - reach]
        got = evaluate(name, column[:, None], f"_{window}")
        loose = 1e4 if name in ("skew", "kurt") else 1.0  # third and fourth powers
        np.testing.assert_allclose(got, wanted, rtol=1e-12 * loose, atol=1e-12 * loose * np.nanmax(np.abs(column)))


@pytest.mark.parametrize("name", sorted(PAIRED))
@given(SEEDS, st.integers(2, 30))
@settings(max_examples=15, deadline=None)
def test_operators_of_two_columns_equal_their_twin(name: str, seed: int, window: int) -> None:
    x = np.random.default_rng(seed).normal(size=(120, 2)) * [1.0, 50.0] + [1000.0, 0.0]
    x[40 : 40 + window + 3, seed % 2] = 7.0
    x[100, 1] = NAN
    wanted = np.full(120, NAN)
    for end in range(window, 121):
        rows = x[end - window : end]
        if not np.isnan(rows).any():
            wanted[end - 1] = PAIRED[name](*rows.T)
    np.testing.assert_allclose(evaluate(name, x, f"_{window}"), wanted, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("name", sorted(WEIGHTED))
@given(SEEDS, st.integers(1, 15))
@settings(max_examples=15, deadline=None)
def test_exponentially_weighted_operators_equal_their_twin(name: str, seed: int, half_life: int) -> None:
    x = random_rows(seed, 120)[:, 1]
    wanted = np.full(120, NAN)
    for end in range(7 * half_life, 121):
        weights = np.where(np.isnan(x[:end]), 0.0, 0.5 ** (np.arange(end)[::-1] / half_life))
        if not np.isnan(x[end - 1]):
            wanted[end - 1] = WEIGHTED[name](np.nan_to_num(x[:end]), weights)
    np.testing.assert_allclose(evaluate(name, x[:, None], f"_{half_life}"), wanted, rtol=1e-9, atol=1e-12)


@given(SEEDS, st.integers(3, 30))
@settings(max_examples=15, deadline=None)
def test_the_autocorrelation_of_a_window_is_that_of_pandas(seed: int, window: int) -> None:
    x = random_rows(seed, 120)[:, 0] + np.linspace(0.0, 1.0, 120)
    x[60] = NAN
    got = evaluate("autocorr", x[:, None], f"_{window}")
    for end in range(window, 121):
        values = pd.Series(x[end - window : end])
        wanted = NAN if values.isna().any() else values.autocorr()
        np.testing.assert_allclose(got[end - 1], wanted, rtol=1e-8, atol=1e-8)
    assert np.isnan(got[: window - 1]).all()


@given(SEEDS, st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_the_latest_value_is_that_of_the_last_event_in_the_window(seed: int, window: int) -> None:
    rng = np.random.default_rng(seed)
    x, event = (
        random_rows(seed, 120)[:, 1],
        rng.choice([0.0, 0.0, 0.0, 1.0, -2.0, NAN], 120, p=[0.3, 0.3, 0.3, 0.04, 0.03, 0.03]),
    )
    got = evaluate("latest", np.column_stack([x, event]), f"_{window}")
    for end in range(1, 121):
        rows = [row for row in range(max(end - window, 0), end) if event[row] != 0.0]
        is_known = end >= window and rows and not np.isnan(event[rows[-1]])
        np.testing.assert_array_equal(got[end - 1], x[rows[-1]] if is_known else NAN)


def test_a_window_too_short_to_mean_something_is_refused() -> None:
    with pytest.raises(ValueError, match="needs at least 64 bars, was 5\n"):
        compile_features({"f": "(hurst_5 a)"}, ["a"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "(rank_100001 a)",
            r"\(rank_w x\) takes at most 100000 bars, was 100001, as it costs O\(w\): choose",
        ),
        ("(quantile_1d a 0.5)", "takes at most 100000 bars, 1d is 432000, as it costs"),
        ("(fracdiff_100001 a 0.4)", "takes at most 100000 bars"),
        ("(sampen_10001 a)", r"takes at most 10000 bars, was 10001, as it costs O\(w²\) each w/16 bars"),
        ("(hurst_500001 a)", "takes at most 500000 bars"),
        ("(autocorr_10000000 a)", "takes at most 4000000 bars, was 10000000, as its state takes 224 MB then"),
        ("(skew_5000000 a)", "takes at most 4000000 bars, was 5000000, as its state takes 160 MB then"),
        ("(mean_10000001 a)", "a window holds 1 to 10000000 bars, was 10000001"),
    ],
)
def test_a_window_that_cannot_be_afforded_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compile_features({"f": text}, ["a"], "200ms")


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_no_operator_can_be_made_to_remember_more_than_a_quarter_of_a_gigabyte(operator: Operator) -> None:
    assert state_size(operator.opcode, operator.most) * 8 <= 250e6


COMPARES = ("argmax", "argmin", "lag", "max", "min", "quantile", "rank", "run")
ADDS = ("autocorr", "decay", "delta", "kurt", "mean", "skew", "std", "sum", "zscore")


@pytest.mark.parametrize("name", [*COMPARES, *ADDS])
@pytest.mark.parametrize("longer", [0, 66], ids=["short", "blocks"])
def test_an_infinite_value_counts_where_values_are_compared_and_is_not_known_where_they_are_added(
    name: str, longer: int
) -> None:
    x = np.array([*np.ones(300), np.inf, *np.ones(300)])
    window = 1 if name in ("lag", "delta") else 5 + longer
    level = " 0.5" if name == "quantile" else ""
    got = compile_features({"f": f"({name}_{window} x{level})"}, ["x"]).evaluate(x[:, None])[:, 0]
    assert np.isfinite(got[299])
    assert np.isfinite(got[301 + window :]).all(), "it is forgotten with its bar"
    after = got[301 : max(300 + window, 302)]
    if name in ADDS:
        assert not np.isfinite(after).any()
    else:
        np.testing.assert_array_equal(np.isinf(after), name in ("max", "lag"))
        assert not np.isnan(after).any()


def test_moments_of_infinite_values_are_not_known() -> None:
    x = np.array([1.0, 2.0, np.inf, 3.0, -np.inf, 5.0, 4.0, 6.0, 7.0, 5.0])
    for name in ("skew", "kurt", "cov", "corr", "beta", "zscore"):
        columns = np.column_stack([x, x]) if name in PAIRED else x[:, None]
        np.testing.assert_array_equal(np.isfinite(evaluate(name, columns, "_3")), np.arange(10) >= 7, name)


def test_an_infinite_value_has_no_weight_in_what_remembers_everything() -> None:
    x = np.array([1.0, np.inf, 3.0, -np.inf, 5.0, np.inf, 2.0, -np.inf])
    got = evaluate("ewm_mean", x[:, None], "_1")
    weighted = np.average([1, 3, 5, 2], weights=[1, 4, 16, 64])
    np.testing.assert_allclose(got, [NAN, NAN, NAN, NAN, NAN, NAN, weighted, NAN])


@pytest.mark.parametrize("name", sorted(WEIGHTED))
def test_what_lies_before_the_warm_up_of_exponential_weights_weighs_less_than_1_percent(name: str) -> None:
    x, program = np.ones((400, 1)), compile_features({"f": f"({name}_50 x)"}, ["x"])
    x[:50] = 2.0  # the bars that a run which begins 50 bars later has not seen
    late, whole = program.evaluate(x[50:], np.arange(50, 400))[:, 0], program.evaluate(x)[50:, 0]
    assert program.warmup_bars == 349
    assert np.isnan(late[:349]).all()
    power = 2 if name in ("ewm_std", "ewm_vol") else 1  # a deviation goes by the root of the weight
    unseen = abs(whole[349] ** power - late[349] ** power) / (whole[349] if name == "ewm_sum" else 1.0)
    assert 0.0 < unseen < (0.03 if name == "ewm_vol" else 0.01)  # squares of 2 weigh four times as much


def test_exponentially_weighted_operators_equal_those_of_polars() -> None:
    x = np.random.default_rng(9).normal(size=500)
    series = pl.Series(x)
    for name, theirs in (
        ("ewm_mean", series.ewm_mean(half_life=20, adjust=True)),
        ("ewm_std", series.ewm_std(half_life=20, adjust=True, bias=True)),
    ):
        np.testing.assert_allclose(evaluate(name, x[:, None], "_20")[139:], theirs.to_numpy()[139:], rtol=1e-12)


@given(SEEDS, st.integers(1, 30), st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_a_rolling_quantile_is_numpys(seed: int, window: int, level: float) -> None:
    x = random_rows(seed, 120)[:, 1]
    got = compile_features({"f": f"(quantile_{window} x {level!r})"}, ["x"]).evaluate(x[:, None])[:, 0]
    wanted = np.full(120, NAN)
    for end in range(window, 121):
        wanted[end - 1] = np.quantile(x[end - window : end], level)
    np.testing.assert_allclose(got, wanted, rtol=1e-13)


def test_a_level_must_be_a_number_from_0_to_1() -> None:
    for wrong in ("a", "1.5", "(neg 1)"):
        with pytest.raises(ValueError, match="a number from 0 to 1 here\n.*\n" + " " * 16 + "\\^"):
            compile_features({"f": f"(quantile_5 a {wrong})"}, ["a"])
    with pytest.raises(ValueError, match="from 0 to 1 as operand 2"):
        node("quantile", (node("a"), node(2.0)), "5")


def test_the_z_score_of_rounding_errors_is_zero() -> None:
    x = np.random.default_rng(1).uniform(0.9, 1.1, 100)
    nearly_one = x / 49.0 * 49.0 / x
    assert np.ptp(nearly_one) > 0.0
    np.testing.assert_array_equal(evaluate("zscore", nearly_one[:, None], "_20")[19:], 0.0)


@given(SEEDS, st.integers(1, 40))
@settings(max_examples=20, deadline=None)
def test_rolling_operators_equal_those_of_polars(seed: int, window: int) -> None:
    x = np.random.default_rng(seed).normal(size=300)
    series = pl.Series(x)
    theirs = {
        "sum": series.rolling_sum(window),
        "mean": series.rolling_mean(window),
        "std": series.rolling_std(window, ddof=0),
        "min": series.rolling_min(window),
        "max": series.rolling_max(window),
        "lag": series.shift(window),
        "delta": series.diff(window),
    }
    for name, wanted in theirs.items():
        np.testing.assert_allclose(evaluate(name, x[:, None], f"_{window}"), wanted.to_numpy(), rtol=0, atol=1e-7)


def test_the_other_branch_of_a_choice_may_be_unknown() -> None:
    x = np.array([[2.0, 1.0, 5.0, NAN], [0.0, 1.0, NAN, 6.0], [2.0, 1.0, NAN, 6.0], [NAN, 1.0, 5.0, 6.0]])
    np.testing.assert_array_equal(evaluate("if_gt", x), [5.0, 6.0, NAN, NAN])


def test_a_share_of_nothing_is_none_but_a_division_by_it_is_unknown() -> None:
    x = np.array([[0.0, 0.0], [3.0, 0.0], [NAN, 0.0], [3.0, NAN], [3.0, -2.0]])
    np.testing.assert_array_equal(evaluate("ratio", x), [0.0, 0.0, NAN, NAN, -1.5])
    np.testing.assert_array_equal(evaluate("div", x), [NAN, NAN, NAN, NAN, -1.5])


@pytest.mark.parametrize("operator", OPERATORS.values(), ids=OPERATORS.keys())
def test_the_table_says_how_each_operator_is_written_and_warms_up(operator: Any) -> None:
    bars = operator.within(5)
    window = f"_{bars}" if operator.window else ""
    args = " ".join("0.3" if place in operator.levels else "a" for place in range(operator.arity))
    program = compile_features({"f": f"({operator.name}{window} {args})"}, ["a"])
    assert operator.form.startswith(f"({operator.name}")
    wanted = {"0": 0, "k": bars, "w - 1": bars - 1, "w - 1 + w/16": bars - 1 + max(bars // 16, 1) - 1}
    wanted |= {"7w - 1": 7 * bars - 1}
    assert program.warmup_bars == operator.warmup_bars(bars) == wanted[operator.warmup]
    assert operator.doc
    assert operator.units
