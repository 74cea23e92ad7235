"""Exponents, entropies and fractional differences against slow twins, and on paths whose answer is known."""

from collections.abc import Callable

import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from research.language import compile_features
from research.programs.operators import OPERATORS
from tests.research.feature_programs import SEEDS, Floats, evaluate, random_rows

NAN = np.nan


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


def test_every_operator_that_hops_has_a_twin() -> None:
    by_hand = {"microprice"}  # test_microprice.py
    assert HOPPING.keys() | by_hand == {name for name, each in OPERATORS.items() if each.hops}


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
