"""Random expressions, random rows and bitwise comparison: shared by the tests of the feature language."""

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from research.language import compile_features
from research.machine.opcodes import SHORT
from research.programs.expression import Node, node
from research.programs.operators import OPERATORS

Floats = NDArray[np.float64]
COLUMNS = ("a", "b")
WINDOWS = st.one_of(st.integers(1, 20), st.integers(SHORT - 1, SHORT + 3))
"""Some on either side of where the scheme changes."""


def _call(operands: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    def build(name: str) -> st.SearchStrategy[Node]:
        operator = OPERATORS[name]
        windows = (
            WINDOWS.map(lambda w: str(operator.within(w + operator.least - 1))) if operator.window else st.just("")
        )
        levels = SHARES if operator.shares else LEVELS
        args = [levels if place in operator.levels else operands for place in range(operator.arity)]
        return st.builds(lambda parts, window: node(name, parts, window), st.tuples(*args), windows)

    return st.sampled_from(sorted(OPERATORS)).flatmap(build)


LEVELS = st.floats(0.0, 1.0).map(node)
SHARES = st.floats(0.0, 1 / 3).map(node)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False).map(node)
LEAVES = st.one_of(st.sampled_from([node(name) for name in COLUMNS]), NUMBERS)
EXPRESSIONS = st.recursive(LEAVES, _call, max_leaves=8)
SEEDS = st.integers(0, 2**32 - 1)


def random_rows(seed: int, n: int) -> Floats:
    """Rows (n, 2): a coarse random walk with ties, zeros and constant runs, and noise with some NaN in it."""
    rng = np.random.default_rng(seed)
    walk = np.round(np.cumsum(rng.normal(0.0, 0.4, n) * (rng.random(n) < 0.7)), 1)
    noise = np.where(rng.random(n) < 0.03, np.nan, rng.lognormal(0.0, 2.0, n))
    return np.column_stack([walk, noise])


def assert_same_bits(got: Floats, wanted: Floats) -> None:
    """Equal shape, NaN at the same places, and the same 64 bits everywhere else (so -0.0 is not 0.0)."""
    assert got.shape == wanted.shape
    np.testing.assert_array_equal(np.isnan(got), np.isnan(wanted))
    bits = [
        np.where(np.isnan(y), 0.0, y).view(np.int64) for y in (np.ascontiguousarray(got), np.ascontiguousarray(wanted))
    ]
    np.testing.assert_array_equal(*bits)


def evaluate(name: str, x: Floats, window: str = "") -> Floats:
    """An operator over rows x (n, operands): (n,). `window` as it is written: `_20`."""
    columns = [f"x{k}" for k in range(x.shape[1])]
    return compile_features({"f": f"({name}{window} {' '.join(columns)})"}, columns).evaluate(x)[:, 0]
