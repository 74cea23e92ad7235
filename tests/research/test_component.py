"""The first principal component of the levels' order flow."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console
from sklearn.decomposition import PCA

from core import store
from core.config import Config, Features
from core.run_record import RunRecord
from core.store import Partition
from core.units import NS_PER_MINUTE
from research import fit_features
from research.bars.columns import MAX_LEVELS, bar_columns
from research.catalogue import EVERY_COLUMN
from research.fitting.fitted import chosen_features, read_fitted
from research.language import compile_features
from research.machine.component import LEVELS, component_text, first_component, level_flows
from research.sets.book import DEFINITIONS
from tests.research.made_up_bars import BAR, DEPTH, rows_of, trading, without

LOST = slice(3000, 3350)


def flows(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 1)) * np.linspace(1.0, 0.4, LEVELS) + 0.3 * rng.normal(size=(n, LEVELS))


def test_it_is_that_of_scikit_learn() -> None:
    x = flows(500, 1)
    weights, share = first_component(np.vstack([x, np.full((1, LEVELS), np.nan)]))
    theirs = PCA(1).fit(x)
    vector = theirs.components_[0] * np.sign(theirs.components_[0].sum())
    np.testing.assert_allclose(weights, vector / np.abs(vector).sum(), rtol=1e-9)
    assert share == pytest.approx(theirs.explained_variance_ratio_[0])


def test_a_common_flow_is_found_with_the_weight_of_each_level() -> None:
    weights, share = first_component(flows(100_000, 2))
    np.testing.assert_allclose(weights, np.linspace(1.0, 0.4, LEVELS) / 7.0, atol=3e-3)
    assert share > 0.8
    assert np.abs(weights).sum() == pytest.approx(1.0)


def test_a_level_that_never_moves_is_not_known() -> None:
    x = flows(50, 3)
    x[:, 7] = 0.0
    with pytest.raises(ValueError, match="levels are not known"):
        first_component(x)
    with pytest.raises(ValueError, match="levels are not known"):
        first_component(x[:0])


def test_equal_weights_give_the_mean_of_the_levels() -> None:
    rows, index = rows_of(trading(1000, 4))
    text = component_text(np.full(LEVELS, 0.1), "60s")
    equal = "(ratio (div (sum_60s flows_10) 10) level_qty)"
    y = compile_features({"w": text, "equal": equal}, EVERY_COLUMN, BAR, DEFINITIONS).evaluate(rows, index)
    np.testing.assert_allclose(y[400:, 0], y[400:, 1], rtol=1e-9, atol=1e-12)


def test_bars_without_depth_pull_no_weight_and_are_0_in_the_feature() -> None:
    """70 s are lost: flows in mean sizes are not known while no bar of their minute is, and no larger when it is."""
    whole = trading(6000, 4)
    lost = without(whole, DEPTH, LOST)
    texts = {f"flow_{k}": text for k, text in enumerate(level_flows("60s"))}
    program = compile_features(texts, EVERY_COLUMN, BAR, DEFINITIONS)
    all_known, seen = (program.evaluate(*rows_of(values)) for values in (whole, lost))
    assert np.isnan(seen[LOST][299:]).all()
    assert np.nanmax(np.abs(seen)) < 1.5 * np.nanmax(np.abs(all_known))
    weights, fitted = first_component(all_known)[0], first_component(seen)[0]
    np.testing.assert_allclose(fitted, weights, atol=0.02)
    text = component_text(fitted, "60s")
    y = compile_features({"f": text}, EVERY_COLUMN, BAR, DEFINITIONS).evaluate(*rows_of(lost))[:, 0]
    assert np.isnan(y[:299]).all()
    assert np.isfinite(y[300:]).all()
    assert (y[LOST][299:] == 0.0).all()


def test_the_stage_fits_it_where_the_bars_hold_levels(tmp_path: Path) -> None:
    open_ns = store.day_start_ns("2026-01-05") + NS_PER_MINUTE * np.arange(1440)
    times = {"open_ns": open_ns, "close_ns": open_ns + NS_PER_MINUTE, "bar_index": open_ns // NS_PER_MINUTE}
    columns = dict(zip(bar_columns(MAX_LEVELS), trading(1440, 5).T, strict=True))
    part = Partition("bars", "binance_um", "BTCUSDT", "2026-01-05", "time_1m")
    store.write(tmp_path, part, pl.DataFrame(times | columns))
    features = Features(sets=("fitted", "book"), fit_until="2026-01-06T00:00:00Z")
    cfg = Config(data_dir=str(tmp_path), bars="time_1m", decision="1m", features=features)
    with RunRecord(cfg, Console(quiet=True)).stage("fit") as stage:
        fit_features.run(cfg, stage)
    found = read_fitted(cfg.root, cfg.bars)
    assert found
    assert found.features["ofi_component"].count("ofi_qty_") == LEVELS
    assert "ofi_component" in chosen_features(cfg)
