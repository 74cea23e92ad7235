"""Every family: deterministic, finds a planted signal, indifferent to row weights that are all equal, and exact."""

import numpy as np
import pytest

from research.learning import models
from research.learning.models import FAMILIES


def sample(n: int = 4_000, width: int = 6, seed: int = 1):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, width)).astype(np.float32)
    y = 3.0 * (x[:, 0] > 1.0) * np.sign(x[:, 1]) + rng.normal(size=n)
    return x, y


def fitted(name: str, x, y, weights=None, settings=1, seed=7):
    weights = np.ones(y.size) if weights is None else weights
    return models.fit(FAMILIES[name], x, y, weights, np.arange(y.size) // 100, FAMILIES[name].grid[settings], 30, seed)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_finds_the_signal_and_repeats_itself_to_the_bit(name: str) -> None:
    x, y = sample()
    unseen, truth = sample(seed=2)
    once, again = fitted(name, x, y), fitted(name, x, y)
    np.testing.assert_array_equal(once.predict(unseen), again.predict(unseen))
    assert np.corrcoef(once.predict(unseen), truth)[0, 1] > 0.5


@pytest.mark.parametrize("name", FAMILIES)
def test_a_weight_of_two_is_two_rows(name: str) -> None:
    x, y = sample(1_500)
    weights = np.random.default_rng(3).integers(1, 3, y.size)
    doubled = np.repeat(np.arange(y.size), weights)
    weighed, repeated = fitted(name, x, y, weights.astype(float)), fitted(name, x[doubled], y[doubled])
    unseen = sample(seed=2)[0]
    assert np.corrcoef(weighed.predict(unseen), repeated.predict(unseen))[0, 1] > 0.95


@pytest.mark.parametrize("name", FAMILIES)
def test_thresholds_on_values_route_as_codes_did(name: str) -> None:
    x, y = sample()
    x[::7, 2] = np.nan
    borders = [models._borders(column) for column in x.T]

    def coded(rows):
        return np.column_stack([models._codes(*pair) for pair in zip(rows.T, borders, strict=True)])

    on_codes = FAMILIES[name].fit(coded(x), y, np.ones(y.size), FAMILIES[name].grid[1], 30, 7)
    on_values = models._decoded(on_codes, borders)
    unseen = np.concatenate([sample(seed=4)[0], x])  # with values that are borders themselves
    unseen[::5, 2] = np.nan
    np.testing.assert_array_equal(on_values.predict(unseen), on_codes.predict(coded(unseen)))


def test_borders_part_the_rare_from_the_common() -> None:
    column = np.r_[np.random.default_rng(5).normal(size=20_000), np.full(40, 30.0)].astype(np.float32)
    codes = models._codes(column, models._borders(column))
    assert np.count_nonzero(codes == codes[-1]) < 60  # the last of 48 even bins would hold 400


def test_the_screen_leaves_an_ensemble_over_all_features(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "MAX_FEATURES", 2)
    x, y = sample()
    y = y + 2.0 * x[:, 4]
    ensemble = fitted("lightgbm", x, y)
    assert ensemble.n_features == 6
    used = set(ensemble.feature[ensemble.feature >= 0])
    assert 4 in used
    assert len(used) <= 2


def test_winsorising_cuts_the_absurd_and_leaves_bursts() -> None:
    y = np.r_[np.random.default_rng(1).normal(0.0, 4.7, 10_000), 25.0, 4_000.0]
    cut = models.winsorised(y)
    assert cut[-2] == 25.0
    assert cut[-1] < 60.0
    np.testing.assert_array_equal(models.winsorised(np.full(5, 2.0)), np.full(5, 2.0))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_constant_return_is_predicted_as_it_is(name: str) -> None:
    x, _ = sample(400)
    flat = fitted(name, x, np.full(400, 0.25))
    np.testing.assert_array_equal(flat.predict(x), np.full(400, 0.25))
