"""The daily waves: found where planted, gone where they are taken away, refused where they cannot be known."""

import numpy as np
import pytest

from research.fitting.seasonality import WAVES, fit_season, season_text
from research.language import compile_features

MINUTE = np.arange(4 * 1440)
SECOND, DAY = MINUTE % 1440 * 60.0, 20_000 + MINUTE // 1440


def planted(seed: int, level: float) -> np.ndarray:
    angle = 2 * np.pi * SECOND / 86_400
    wave = 0.7 * np.cos(angle) - 0.4 * np.sin(angle) + 0.2 * np.sin(3 * angle)
    return level + wave + 0.1 * np.random.default_rng(seed).normal(size=MINUTE.size)


def test_planted_waves_are_found_whatever_the_symbols_levels() -> None:
    y = np.concatenate([planted(1, 5.0), planted(2, -30.0)])
    y[::50] = np.nan
    waves = fit_season(y, np.tile(SECOND, 2), np.tile(DAY, 2), np.repeat([0, 1], MINUTE.size))
    wanted = np.zeros(2 * WAVES)
    wanted[[0, 1, 5]] = 0.7, -0.4, 0.2
    np.testing.assert_allclose(waves, wanted, atol=0.01)


def test_the_expression_takes_the_waves_away_on_days_that_the_fit_never_saw() -> None:
    is_past = DAY < 20_002
    y = planted(3, 5.0)
    waves = fit_season(y[is_past], SECOND[is_past], DAY[is_past], np.zeros(is_past.sum(), np.int64))
    program = compile_features({"f": f"(sub y {season_text(waves)})"}, ["y", "second_of_day"])
    left = program.evaluate(np.column_stack([y, SECOND]))[~is_past, 0]
    assert left.std() == pytest.approx(0.1, rel=0.05)
    assert left.mean() == pytest.approx(5.0, abs=0.02)


def test_hours_that_were_seen_on_one_day_only_are_refused() -> None:
    rows = MINUTE < 2 * 1440 - 60
    with pytest.raises(ValueError, match="every hour of the day on 2 days, some hour was seen on 1"):
        fit_season(planted(1, 0.0)[rows], SECOND[rows], DAY[rows], np.zeros(rows.sum(), np.int64))
