"""Waves of day and weekend: found where planted, gone where they are taken away, refused where they cannot be known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from research.catalogue import DEFINITIONS
from research.fitting.seasonality import LEAST_WEEKS, WAVES, Season, fit_season, is_weekend, weeks_seen
from research.language import compile_features

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MONDAY = 20_003  # 2024-10-07, in days since 1970


def minutes(days: int, first: int = MONDAY) -> tuple[Floats, Ints]:
    """Second of the day and day of each minute."""
    minute = np.arange(days * 1440)
    return minute % 1440 * 60.0, first + minute // 1440


def planted(seed: int, level: float, second: Floats) -> Floats:
    angle = 2 * np.pi * second / 86_400
    wave = 0.7 * np.cos(angle) - 0.4 * np.sin(angle) + 0.2 * np.sin(3 * angle)
    return level + wave + 0.1 * np.random.default_rng(seed).normal(size=second.size)


def with_weekends(y: Floats, second: Floats, day: Ints) -> Floats:
    """The same, quieter and flatter at weekends."""
    return np.where(is_weekend(day), y - 0.8 - 0.5 * np.cos(2 * np.pi * second / 86_400), y)


def fit(y: Floats, second: Floats, day: Ints) -> Season:
    return fit_season(y, second, day, np.zeros(y.size, np.int64))


def left_of(y: Floats, season: Season, second: Floats, day: Ints) -> Floats:
    """y less the season's text, on rows that stand alone."""
    program = compile_features({"f": f"(sub y {season.text()})"}, ["y", "second_of_day", "day"], "", DEFINITIONS)
    return program.evaluate(np.column_stack([y, second, day.astype(float)]))[:, 0]


def test_planted_waves_are_found_whatever_the_symbols_levels() -> None:
    second, day = minutes(4)
    y = np.concatenate([planted(1, 5.0, second), planted(2, -30.0, second)])
    y[::50] = np.nan
    season = fit_season(y, np.tile(second, 2), np.tile(day, 2), np.repeat([0, 1], second.size))
    wanted = np.zeros(2 * WAVES)
    wanted[[0, 1, 5]] = 0.7, -0.4, 0.2
    np.testing.assert_allclose(season.day, wanted, atol=0.01)
    assert season.weekend is None


def test_the_expression_takes_the_waves_away_on_days_that_the_fit_never_saw() -> None:
    second, day = minutes(4)
    y, is_past = planted(3, 5.0, second), day < MONDAY + 2
    season = fit(y[is_past], second[is_past], day[is_past])
    left = left_of(y, season, second, day)[~is_past]
    assert left.std() == pytest.approx(0.1, rel=0.05)
    assert left.mean() == pytest.approx(5.0, abs=0.02)


def test_weekends_are_told_apart_where_weeks_were_seen_and_taken_away_in_the_next() -> None:
    second, day = minutes(7 * (LEAST_WEEKS + 1))
    y, is_past = with_weekends(planted(4, 5.0, second), second, day), day < MONDAY + 7 * LEAST_WEEKS
    season = fit(y[is_past], second[is_past], day[is_past])
    assert season.weekend is not None
    np.testing.assert_allclose(season.weekend[:2], [-0.8, -0.5], atol=0.02)
    left = left_of(y, season, second, day)[~is_past]
    assert left.std() == pytest.approx(0.1, rel=0.05)
    of_the_day = Season(season.day, None)
    assert left_of(y, of_the_day, second, day)[~is_past].std() > 0.4, "the day alone would not do"


def test_too_few_weekends_are_not_told_apart() -> None:
    second, day = minutes(7 * LEAST_WEEKS - 1)  # a Saturday, and no Sunday, of the last week
    assert weeks_seen(second, day) == LEAST_WEEKS
    rows = (day - MONDAY < 7 * LEAST_WEEKS - 2) | (second < 3600 * 23)
    assert weeks_seen(second[rows], day[rows]) == LEAST_WEEKS - 1
    y = with_weekends(planted(5, 0.0, second), second, day)
    assert fit(y, second, day).weekend is not None
    assert fit(y[rows], second[rows], day[rows]).weekend is None


def test_weeks_are_the_calendars() -> None:
    days = np.arange("2024-10-07", "2024-10-21", dtype="datetime64[D]")
    weekdays = np.is_busday(days)  # Monday to Friday
    np.testing.assert_array_equal(is_weekend(days.astype(np.int64)), ~weekdays)


def test_hours_that_were_seen_on_one_day_only_are_refused() -> None:
    second, day = minutes(2)
    rows = np.arange(second.size) < 2 * 1440 - 60
    with pytest.raises(ValueError, match="every hour of the day on 2 days, some hour was seen on 1"):
        fit(planted(1, 0.0, second)[rows], second[rows], day[rows])
