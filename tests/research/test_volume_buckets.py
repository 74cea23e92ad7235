"""VPIN against a twin that pours one unit of volume at a time, and what must hold of it on any clock."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from research.language import compile_features
from tests.research.feature_programs import SEEDS, Floats

COLUMNS = ("buy", "sell", "size")


def vpin(x: Floats, buckets: int) -> Floats:
    return compile_features({"f": f"(vpin_{buckets} buy sell size)"}, COLUMNS).evaluate(x)[:, 0]


def poured(x: Floats, buckets: int) -> Floats:
    """The twin: whole units of a bar's volume, bought and sold in turn; not known until so many buckets are full."""
    full: list[tuple[float, float]] = []
    size = filled = net = 0.0
    said = []
    for buy, sell, wanted in x:
        for _ in range(int(buy + sell)):
            size = wanted if filled == 0.0 else size
            filled, net = filled + 1.0, net + (buy - sell) / (buy + sell)
            if filled == size:
                full, filled, net = [*full, (abs(net), size)][-buckets:], 0.0, 0.0
        aside, volume = sum(aside for aside, _ in full), sum(volume for _, volume in full)
        said.append(aside / volume if len(full) == buckets else np.nan)
    return np.array(said)


@given(SEEDS, st.integers(1, 7), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_vpin_equals_its_twin(seed: int, buckets: int, largest: int) -> None:
    rng = np.random.default_rng(seed)
    flow = rng.integers(0, largest, (120, 2)) * (rng.random((120, 1)) < 0.8)
    x = np.column_stack([flow, rng.integers(1, 30, 120)]).astype(float)
    np.testing.assert_allclose(vpin(x, buckets), poured(x, buckets), rtol=1e-12, atol=1e-14)


def test_vpin_by_hand() -> None:
    """Buckets of 10: (6, 4), then (4, 1) and half of (8, 2), which is in the third one for the other half."""
    x = np.array([[6.0, 4.0, 10.0], [0.0, 0.0, 10.0], [4.0, 1.0, 10.0], [8.0, 2.0, 10.0], [0.0, 5.0, 10.0]])
    second, third = abs((4 - 1) + (8 - 2) / 2), abs((8 - 2) / 2 - 5)
    np.testing.assert_allclose(vpin(x, 1), [0.2, 0.2, 0.2, second / 10, third / 10])
    np.testing.assert_allclose(vpin(x, 2), [np.nan, np.nan, np.nan, (2 + second) / 20, (second + third) / 20])
    assert np.isnan(vpin(x, 50)).all()


def test_a_gap_empties_all_buckets() -> None:
    program = compile_features({"f": "(vpin_2 buy sell size)"}, (*COLUMNS, "has_gap"))
    x = np.tile([3.0, 1.0, 4.0, 0.0], (6, 1))
    x[3, 3] = 1.0
    np.testing.assert_array_equal(program.evaluate(x)[:, 0], [np.nan, 0.5, 0.5, np.nan, np.nan, 0.5])


def test_the_clock_of_the_bars_does_not_matter_where_sides_do_not_mix() -> None:
    rng = np.random.default_rng(3)
    trades = np.zeros((3000, 2))
    trades[np.arange(3000), np.repeat(rng.integers(0, 2, 600), 5)] = rng.lognormal(size=3000)
    fine = np.column_stack([trades, np.full(3000, 20.0)])
    coarse = np.column_stack([trades.reshape(-1, 5, 2).sum(axis=1), np.full(600, 20.0)])
    assert np.isfinite(vpin(coarse, 50)[-1])
    np.testing.assert_allclose(vpin(fine, 50)[4::5], vpin(coarse, 50), rtol=1e-9)


def test_a_bar_far_larger_than_all_buckets_leaves_its_own_tilt() -> None:
    x = np.array([[5.0, 5.0, 1.0], [3e12, 1e12, 1.0], [0.0, 0.0, 1.0], [0.25, 0.75, 1.0]])
    np.testing.assert_allclose(vpin(x, 50), [np.nan, 0.5, 0.5, 0.5])


def test_a_row_that_cannot_be_poured_is_not_known_and_adds_nothing() -> None:
    odd = np.array([[np.nan, 1, 2], [-1, 5, 2], [1, np.inf, 2], [1, 1, 0], [1, 1, np.nan], [0, 0, np.nan]])
    calm = np.array([[2.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    got = vpin(np.concatenate([calm, odd, calm]), 1)
    np.testing.assert_array_equal(got, [1, 1, *[np.nan] * 6, 1, 1])


def test_buckets_are_counted_and_not_timed() -> None:
    with pytest.raises(ValueError, match=r"takes a number above 0, as in vpin_50, was given 5s"):
        compile_features({"f": "(vpin_5s buy sell size)"}, COLUMNS, "200ms")
