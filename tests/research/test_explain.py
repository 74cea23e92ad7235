"""SHAP values sum to the prediction, for every family, and rank what matters first."""

import numpy as np
import pytest

from research.learning import explain, models
from research.learning.models import FAMILIES


@pytest.mark.parametrize("name", FAMILIES)
def test_values_sum_to_the_prediction_and_rank_the_signal_first(name: str) -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(3_000, 5)).astype(np.float32)
    y = 2.0 * x[:, 3] + np.sign(x[:, 1]) + 0.1 * rng.normal(size=3_000)
    family = FAMILIES[name]
    ensemble = models.fit(family, x, y, np.ones(y.size), np.arange(y.size) // 50, family.grid[1], 25, 1).with_cover(x)
    values = explain.shap_values(ensemble, x[:200])
    np.testing.assert_allclose(
        values.sum(axis=1) + explain.expected_value(ensemble), ensemble.predict(x[:200]), atol=1e-6, rtol=0
    )
    ranked = explain.importance(ensemble, x, list("abcde"))
    assert [row["name"] for row in ranked[:2]] == ["d", "b"]
    assert ranked[0]["mean_abs_shap"] > 3.0 * ranked[2]["mean_abs_shap"]


def test_covers_are_the_rows_that_pass() -> None:
    x = np.random.default_rng(2).normal(size=(500, 3)).astype(np.float32)
    family = FAMILIES["lightgbm"]
    ensemble = models.fit(family, x, x[:, 0].astype(float), np.ones(500), np.arange(500), family.grid[1], 3, 1)
    counted = ensemble.with_cover(x[:120])
    np.testing.assert_array_equal(counted.cover[counted.roots], [120.0] * counted.n_trees)
    np.testing.assert_array_equal(counted.predict(x), ensemble.predict(x))
