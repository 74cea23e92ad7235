"""Each operator against a slow twin that is plain numpy over one window at a time."""

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from research.expression import node
from research.language import compile_features
from research.operators import OPERATORS
from tests.research.feature_programs import SEEDS, Floats, assert_same_bits, random_rows

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


def _slope(sizes: list[int], ratios: list[float]) -> float:
    return 0.5 + float(np.polyfit(np.log(sizes), np.log(ratios), 1)[0])


def _hurst(x: Floats) -> float:
    """R/S box by box, over the expectation that many white boxes have (Anis, Lloyd 1976, summed as they write it)."""
    sizes = [n for n in (8, 16, 32, 64) if n <= x.size // 4]
    ratios = []
    for n in sizes:
        boxes = x[: x.size // n * n].reshape(-1, n)
        walk = np.cumsum(boxes - boxes.mean(axis=1, keepdims=True), axis=1)
        scaled = (np.maximum(walk.max(axis=1), 0) - np.minimum(walk.min(axis=1), 0)) / boxes.std(axis=1)
        i = np.arange(1, n)
        expected = scipy.special.gamma((n - 1) / 2) / scipy.special.gamma(n / 2) / np.sqrt(np.pi)
        ratios.append(np.mean(scaled) / (expected * np.sum(np.sqrt((n - i) / i))))
    return _slope(sizes, ratios)


def _dfa(x: Floats) -> float:
    profile, sizes, n = np.cumsum(x - x.mean()), [], 4
    while n <= x.size // 4:
        sizes.append(n)
        n += n // 2
    ratios = []
    for n in sizes:
        boxes = profile[: x.size // n * n].reshape(-1, n)
        lines = [np.polyval(np.polyfit(np.arange(n), box, 1), np.arange(n)) for box in boxes]
        ratios.append(np.sqrt(np.mean((boxes - lines) ** 2) / ((n * n - 4) / (15 * n))))
    return _slope(sizes, ratios)


def _sample_entropy(x: Floats) -> float:
    def matches(m: int) -> int:
        templates = np.array([x[i : i + m] for i in range(x.size - 2)])
        apart = np.abs(templates[:, None] - templates[None]).max(axis=2)
        return int(np.sum(apart <= 0.2 * x.std())) - len(templates)

    return float(-np.log(matches(3) / matches(2))) if matches(3) else np.log((x.size - 2) * (x.size - 3) / 2)


def _permutation_entropy(x: Floats) -> float:
    orders = np.argsort([x[i : i + 3] for i in range(x.size - 2)], axis=1, kind="stable")
    return float(scipy.stats.entropy(np.unique(orders, axis=0, return_counts=True)[1], base=6))


def _higuchi(x: Floats) -> float:
    """As its author writes it: mean length of the k curves that take every k-th value, from each first one."""
    lengths = []
    for k in range(1, 11):
        curves = [x[m::k] for m in range(k)]
        lengths.append(np.mean([np.mean(np.abs(np.diff(each))) * (x.size - 1) / k / k for each in curves]))
    return float(-np.polyfit(np.log(np.arange(1, 11)), np.log(lengths), 1)[0])


HOPPING: dict[str, Callable[[Floats], float]] = {
    "hurst": _hurst,
    "dfa": _dfa,
    "sampen": _sample_entropy,
    "permen": _permutation_entropy,
    "higuchi": _higuchi,
    "shannon": lambda x: float(scipy.stats.entropy(np.histogram(x, 10)[0], base=10)),
}
"""Of the values in the window, where they are computed at all."""


def turn(name: str, hop: int) -> int:
    """The bar index modulo `hop` at which an operator is computed."""
    order = ("hurst", "dfa", "sampen", "permen", "shannon", "higuchi")
    return order.index(name) * hop // len(order)


def _run(values: Floats) -> float:
    same = np.sign(values[::-1]) == np.sign(values[-1])
    return float(np.sign(values[-1]) * (same.size if same.all() else np.argmin(same)))


def _rank(values: Floats) -> float:
    if values.size == 1:
        return 0.5
    return float((scipy.stats.rankdata(values)[-1] - 1) / (values.size - 1))


def test_every_operator_has_a_twin() -> None:
    by_hand = {"quantile", "fracdiff", "vpin", "microprice", "autocorr", "latest", "hmm"}
    assert {*EXACT, *NEARLY, *WINDOWED, *PAIRED, *WEIGHTED, *HOPPING, *by_hand} == set(OPERATORS)


def operands(seed: int, arity: int) -> Floats:
    """Rows (200, arity) with ties, zeros of both signs, NaN and values of all sizes."""
    columns = [random_rows(seed + k, 200)[:, k % 2] for k in range(arity)]
    columns[0][:4] = 0.0, -0.0, np.inf, -3.0
    return np.column_stack(columns)


def evaluate(name: str, x: Floats, window: str = "") -> Floats:
    columns = [f"x{k}" for k in range(x.shape[1])]
    return compile_features({"f": f"({name}{window} {' '.join(columns)})"}, columns).evaluate(x)[:, 0]


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
@given(SEEDS, st.integers(1, 30))
@settings(max_examples=15, deadline=None)
def test_exponentially_weighted_operators_equal_their_twin(name: str, seed: int, half_life: int) -> None:
    x = random_rows(seed, 120)[:, 1]
    wanted = np.full(120, NAN)
    for end in range(half_life, 121):
        weights = np.where(np.isnan(x[:end]), 0.0, 0.5 ** (np.arange(end)[::-1] / half_life))
        if not np.isnan(x[end - 1]):
            wanted[end - 1] = WEIGHTED[name](np.nan_to_num(x[:end]), weights)
    np.testing.assert_allclose(evaluate(name, x[:, None], f"_{half_life}"), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(HOPPING))
@pytest.mark.parametrize("window", [64, 100])
def test_scaling_exponents_and_entropies_equal_their_twin_and_hold_it(name: str, window: int) -> None:
    x = np.random.default_rng(window).standard_t(4, size=400)
    x[200] = NAN
    got, hop = evaluate(name, x[:, None], f"_{window}"), window // 16
    for row in range(400):
        last = (row - turn(name, hop)) // hop * hop + turn(name, hop)  # the bar index is the row here
        values = x[last - window + 1 : last + 1]
        wanted = HOPPING[name](values) if last >= window - 1 and not np.isnan(values).any() else NAN
        np.testing.assert_allclose(got[row], wanted, rtol=1e-9)


def test_a_constant_window_has_no_memory_no_surprise_and_is_a_line() -> None:
    quiet = {"hurst": 0.5, "dfa": 0.5, "sampen": 0.0, "permen": 0.0, "shannon": 0.0, "higuchi": 1.0}
    assert quiet.keys() == HOPPING.keys()
    for name, wanted in quiet.items():
        assert evaluate(name, np.full((80, 1), 0.1), "_64")[-1] == wanted, name


def test_sample_entropy_where_nothing_matches_is_the_largest_there_is() -> None:
    x = np.arange(8.0)
    assert evaluate("sampen", x[:, None], "_8")[-1] == np.log(6 * 5 / 2)


def test_white_noise_has_exponents_of_one_half() -> None:
    x = np.random.default_rng(4).normal(size=(60_000, 1))
    y = _of_each_1024(("hurst", "dfa"), x)
    np.testing.assert_allclose(y.mean(axis=0), 0.5, atol=4 * 0.035 / np.sqrt(len(y)))


def test_exponents_of_long_memory_are_found() -> None:
    for exponent in (0.3, 0.7):
        x = np.concatenate([_fractional_noise(1024, exponent, seed) for seed in range(40)])
        assert _of_each_1024(("dfa",), x[:, None]).mean() == pytest.approx(exponent, abs=0.03)


def _of_each_1024(names: tuple[str, ...], x: Floats) -> Floats:
    """Operators over 1024 rows, of each 1024: the bars are numbered so that theirs is the turn at row 1023."""
    columns = []
    for name in names:
        program = compile_features({name: f"({name}_1024 a)"}, ["a"])
        index = 1 + turn(name, 64) + np.arange(len(x))
        columns.append(program.evaluate(x, index, take=np.arange(1_023, len(x), 1024)))
    return np.concatenate(columns, axis=1)


def _fractional_noise(n: int, exponent: float, seed: int) -> Floats:
    """Fractional Gaussian noise by circulant embedding (Davies, Harte, Biometrika 74, 1987)."""
    k = np.arange(n + 1.0)
    power = 2 * exponent
    covariance = 0.5 * ((k + 1) ** power - 2 * k**power + np.abs(k - 1) ** power)
    spectrum = np.fft.fft(np.concatenate([covariance, covariance[-2:0:-1]])).real
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=spectrum.size) + 1j * rng.normal(size=spectrum.size)
    return np.fft.fft(np.sqrt(np.maximum(spectrum, 0) / spectrum.size) * noise).real[:n]


@given(SEEDS, st.integers(1, 30), st.floats(0.0, 1.0))
@settings(max_examples=20, deadline=None)
def test_a_fractional_difference_is_a_sum_of_binomial_weights(seed: int, window: int, order: float) -> None:
    x = random_rows(seed, 90)[:, 0]
    got = compile_features({"f": f"(fracdiff_{window} x {order!r})"}, ["x"]).evaluate(x[:, None])[:, 0]
    weights = [(-1) ** k * scipy.special.binom(order, k) for k in range(window)]
    wanted = [np.dot(weights, x[end - window : end][::-1]) if end >= window else NAN for end in range(1, 91)]
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def test_fractional_differences_of_order_0_and_1_are_the_value_and_its_change() -> None:
    x = np.random.default_rng(2).normal(size=(30, 1))
    program = compile_features({"same": "(fracdiff_5 a 0)", "change": "(fracdiff_5 a 1)"}, ["a"])
    got = program.evaluate(x)[4:]
    np.testing.assert_allclose(got, np.column_stack([x[4:, 0], np.diff(x[:, 0])[3:]]), rtol=1e-12)


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


@given(SEEDS, st.floats(0.01, 0.999), st.floats(0.01, 0.999))
@settings(max_examples=15, deadline=None)
def test_the_regime_filter_is_bayes_rule_over_all_paths_so_far(seed: int, stay_0: float, stay_1: float) -> None:
    """Against the sum over every path of the two states, of which there are 2^n."""
    odds = np.random.default_rng(seed).normal(0.0, 3.0, 9)
    odds[4] = NAN
    got = compile_features({"f": f"(hmm x {stay_0!r} {stay_1!r})"}, ["x"]).evaluate(odds[:, None])[:, 0]
    leave_0, leave_1 = 1 - stay_0, 1 - stay_1
    move = np.array([[stay_0, leave_0], [leave_1, stay_1]])
    for n in range(1, 10):
        weight = np.zeros(2)
        for path in itertools.product((0, 1), repeat=n):
            chance = (leave_0 if path[0] else leave_1) / (leave_0 + leave_1)
            chance *= np.prod([move[a, b] for a, b in itertools.pairwise(path)])
            weight[path[-1]] += chance * np.exp(np.nansum(odds[:n] * np.array(path)))
        wanted = NAN if np.isnan(odds[n - 1]) else weight[1] / weight.sum()
        np.testing.assert_allclose(got[n - 1], wanted, rtol=1e-9, atol=1e-12)


def test_the_regime_filter_survives_whatever_comes_and_finds_its_way_back() -> None:
    for stay_0, stay_1 in ((0.999999, 0.999999), (1.0, 1.0), (0.0, 0.0), (0.0, 1.0)):
        x = np.concatenate([np.full(100_000, 1e300), np.full(100_000, -1e300), np.zeros(50), np.full(50, -5.0)])
        got = compile_features({"f": f"(hmm x {stay_0} {stay_1})"}, ["x"]).evaluate(x[:, None])[:, 0]
        assert ((got >= 0.0) & (got <= 1.0)).all()
        if stay_0 == 0.999999:
            np.testing.assert_array_equal(got[[99_999, 199_999]], [1.0, 0.0])
            assert got[100_000] == 0.0


def test_a_window_too_short_to_mean_something_is_refused() -> None:
    with pytest.raises(ValueError, match="needs at least 64 bars, 5 is 5"):
        compile_features({"f": "(hurst_5 a)"}, ["a"])


def test_moments_of_infinite_values_are_not_known() -> None:
    x = np.array([1.0, 2.0, np.inf, 3.0, -np.inf, 5.0, 4.0, 6.0, 7.0, 5.0])
    for name in ("skew", "kurt", "cov", "corr", "beta", "zscore"):
        columns = np.column_stack([x, x]) if name in PAIRED else x[:, None]
        np.testing.assert_array_equal(np.isfinite(evaluate(name, columns, "_3")), np.arange(10) >= 7, name)


def test_an_infinite_value_has_no_weight_in_what_remembers_everything() -> None:
    x = np.array([1.0, np.inf, 3.0, -np.inf, 5.0])
    got = evaluate("ewm_mean", x[:, None], "_1")
    np.testing.assert_allclose(got, [1.0, NAN, np.average([1, 3], weights=[1, 4]), NAN, 93 / 21])


def test_exponentially_weighted_operators_equal_those_of_polars() -> None:
    x = np.random.default_rng(9).normal(size=500)
    series = pl.Series(x)
    for name, theirs in (
        ("ewm_mean", series.ewm_mean(half_life=20, adjust=True)),
        ("ewm_std", series.ewm_std(half_life=20, adjust=True, bias=True)),
    ):
        np.testing.assert_allclose(evaluate(name, x[:, None], "_20")[19:], theirs.to_numpy()[19:], rtol=1e-12)


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
    bars = max(5, operator.least)
    window = f"_{bars}" if operator.window else ""
    args = " ".join("0.5" if place in operator.levels else "a" for place in range(operator.arity))
    program = compile_features({"f": f"({operator.name}{window} {args})"}, ["a"])
    assert operator.form.startswith(f"({operator.name}")
    wanted = {"0": 0, "k": bars, "w - 1": bars - 1, "w - 1 + w/16": bars - 1 + max(bars // 16, 1) - 1}
    assert program.warmup_bars == operator.warmup_bars(bars) == wanted[operator.warmup]
    assert operator.doc
    assert operator.units
