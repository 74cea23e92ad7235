"""The calendar's formulas against Python's own calendar; events of one's own."""

import calendar
from bisect import bisect_left, bisect_right
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from research.catalogue import DEFINITIONS
from research.language import compile_features
from research.sets.calendar import HORIZON_MIN, SETS, event_features

COLUMNS = ("funding_s", "second_of_day", "day")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def evaluated(
    texts: dict[str, str], times: list[datetime], funding_s: float = np.nan
) -> dict[str, NDArray[np.float64]]:
    rows = [[funding_s, (time - EPOCH).total_seconds() % 86_400, (time - EPOCH).days] for time in times]
    y = compile_features(texts, COLUMNS, "200ms", DEFINITIONS).evaluate(np.array(rows))
    return dict(zip(texts, y.T, strict=True))


def of_calendar(*names: str) -> dict[str, str]:
    return {name: SETS["calendar"][name].text for name in names}


def last_friday(year: int, month: int) -> datetime:
    days = calendar.monthcalendar(year, month)
    return datetime(year, month, max(week[calendar.FRIDAY] for week in days), 8, tzinfo=UTC)


def test_expiries_are_those_of_pythons_calendar() -> None:
    months = [last_friday(year, month) for year in range(2017, 2042) for month in range(1, 13)]
    weeks = [datetime(2016, 12, 30, 8, tzinfo=UTC) + timedelta(weeks=k) for k in range(1300)]
    quarters = [time for time in months if time.month % 3 == 0]
    times = [datetime(2017, 1, 1, tzinfo=UTC) + timedelta(hours=4 * k) for k in range(50_000)]
    times += [time + timedelta(milliseconds=200 * k) for time in months[:280] for k in (-1, 0, 1)]
    got = evaluated(of_calendar(*(f"minutes_to_{name}_expiry" for name in ("week", "month", "quarter"))), times)
    for name, expiries in (("week", weeks), ("month", months), ("quarter", quarters)):
        wanted = [(expiries[bisect_left(expiries, time)] - time).total_seconds() / 60 for time in times]
        np.testing.assert_allclose(got[f"minutes_to_{name}_expiry"], wanted, rtol=0, atol=1e-5)


def test_a_day_of_the_week_and_the_circles_of_time() -> None:
    names = ("weekday", "is_weekend", "hour", "hour_sin", "hour_cos", "week_sin", "week_cos", "minutes_of_hour")
    monday, saturday = datetime(2026, 1, 5, tzinfo=UTC), datetime(2026, 1, 10, 6, 30, tzinfo=UTC)
    got = evaluated(of_calendar(*names), [monday, saturday])
    week = 2 * np.pi * (5 + 6.5 / 24) / 7
    wanted = {
        "weekday": [0, 5],
        "is_weekend": [0, 1],
        "hour": [0, 6.5],
        "hour_sin": [0, np.sin(2 * np.pi * 6.5 / 24)],
        "hour_cos": [1, np.cos(2 * np.pi * 6.5 / 24)],
        "week_sin": [0, np.sin(week)],
        "week_cos": [1, np.cos(week)],
        "minutes_of_hour": [0, 30],
    }
    for name in names:
        np.testing.assert_allclose(got[name], wanted[name], atol=1e-12, err_msg=name)


def test_sessions_overlap_where_two_markets_are_open() -> None:
    times = [datetime(2026, 1, 5, hour, tzinfo=UTC) for hour in range(24)]
    got = evaluated(of_calendar("is_asia_europe", "is_europe_us", "is_no_session"), times)
    assert np.flatnonzero(got["is_asia_europe"]).tolist() == [7]
    assert np.flatnonzero(got["is_europe_us"]).tolist() == [13, 14, 15]
    assert np.flatnonzero(got["is_no_session"]).tolist() == [21, 22, 23]


def test_funding_is_as_the_venue_says_and_by_rule_where_it_does_not() -> None:
    at = [datetime(2026, 1, 5, 7, 45, tzinfo=UTC)]
    assert evaluated(of_calendar("minutes_to_funding"), at)["minutes_to_funding"][0] == 15
    assert evaluated(of_calendar("minutes_to_funding"), at, funding_s=5400.0)["minutes_to_funding"][0] == 90


EVENTS = st.lists(st.integers(0, 5000), min_size=1, max_size=20)


@given(EVENTS, st.lists(st.integers(-2000, 7000), min_size=1, max_size=20))
def test_events_are_counted_to_and_from_a_day_at_most(events: list[int], asked: list[int]) -> None:
    begin = datetime(2026, 1, 5, tzinfo=UTC)
    texts = event_features("event", [f"{begin + timedelta(minutes=event):%Y-%m-%dT%H:%M:%SZ}" for event in events])
    got = evaluated(texts, [begin + timedelta(minutes=each) for each in asked])
    sorted_events = sorted(events)
    for row, now in enumerate(asked):
        after, before = (
            sorted_events[bisect_left(sorted_events, now) :],
            sorted_events[: bisect_right(sorted_events, now)],
        )
        assert got["minutes_to_event"][row] == min([HORIZON_MIN, *(event - now for event in after)])
        assert got["minutes_since_event"][row] == min([HORIZON_MIN, *(now - event for event in before)])


def test_without_events_there_are_no_features_of_them_and_a_thousand_compile() -> None:
    assert event_features("event", []) == {}
    many = [f"{datetime(2026, 1, 5, tzinfo=UTC) + timedelta(hours=k):%Y-%m-%dT%H:%M:%SZ}" for k in range(1000)]
    got = evaluated(event_features("event", many), [datetime(2026, 1, 20, 10, 40, tzinfo=UTC)])
    assert (got["minutes_to_event"][0], got["minutes_since_event"][0]) == pytest.approx((20, 40))
