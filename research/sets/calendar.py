"""The set `calendar`: where in the day, the week and the venues' year a bar closes, and how far scheduled events are.

All of it is known beforehand, so nothing here looks ahead. Dates are reckoned from 1 March 2000, where a year ends with
its leap day; the formulas hold until February 2100. Options and quarterly futures of Deribit and Binance settle at
08:00 UTC on Fridays: each week's, the month's last, and the last of March, June, September and December.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from research.sets.feature import Feature

HORIZON_MIN: Final = 1440
"""Minutes beyond which an event is neither near nor recent: a day."""

_FRIDAY_8H_S: Final = 115_200  # the first of 1970, which began on a Thursday
_WEEK_S: Final = 604_800
_ANGLE: Final = math.tau / 86_400


def _mod(x: str, n: int) -> str:
    return f"(sub {x} (mul {n} (floor (div {x} {n}))))"


def _settled_minutes(month_ends: str) -> str:
    """To 08:00 UTC on the last Friday before a day. Fridays are the days 1, 8, 15, … since 1970."""
    return f"(div (sub (mul 86400 (add {4 / 3!r} (mul 7 (floor (div (sub {month_ends} 2) 7))))) now_s) 60)"


def _is_between(opens_h: int, closes_h: int) -> str:
    return f"(mul (ge second_of_day {3600 * opens_h}) (lt second_of_day {3600 * closes_h}))"


DEFINITIONS: Final = {
    "weekday": _mod("(add day 3)", 7),
    "friday": f"(sub 1 (mul 7 (floor (div (sub {_FRIDAY_8H_S} now_s) {_WEEK_S}))))",
    "year": "(floor (div (add (mul 4 (sub friday 11017)) 3) 1461))",
    "year_begins": "(add 11017 (floor (div (mul 1461 year) 4)))",
    "next_year_begins": "(add 11017 (floor (div (mul 1461 (add year 1)) 4)))",
    "month": "(floor (div (add (mul 5 (sub friday year_begins)) 2) 153))",
    "month_ends": "(min2 (add year_begins (floor (div (add (mul 153 month) 155) 5))) next_year_begins)",
    "quarter_ends": (
        "(if_gt month 9 (add next_year_begins 31)"
        " (add year_begins (floor (div (add (mul 459 (floor (div (add month 2) 3))) 155) 5))))"
    ),
    "week_frac": f"(div {_mod('(sub now_s 345600)', _WEEK_S)} {_WEEK_S})",  # 1970-01-05 was a Monday
}
"""Names for use in features. Days are counted since 1970, years from March 2000 on, months from March (0) on.

`friday` is the next weekly settlement's, `year` and `month` are those it falls into; they end where the next begins.
"""

_CALENDAR: Final = {
    "hour": Feature("(div second_of_day 3600)", "hours", "of the day, UTC"),
    "hour_sin": Feature(f"(sin (mul {_ANGLE!r} second_of_day))", "-1 to 1", "the day's circle, sine: 1 at 06 h"),
    "hour_cos": Feature(f"(cos (mul {_ANGLE!r} second_of_day))", "-1 to 1", "the day's circle, cosine: 1 at midnight"),
    "weekday": Feature("weekday", "days", "0 is Monday"),
    "week_sin": Feature(f"(sin (mul {math.tau!r} week_frac))", "-1 to 1", "the week's circle from Monday on, sine"),
    "week_cos": Feature(f"(cos (mul {math.tau!r} week_frac))", "-1 to 1", "the week's circle from Monday on, cosine"),
    "is_weekend": Feature("(ge weekday 5)", "0 or 1", "Saturday or Sunday"),
    "is_asia_europe": Feature(_is_between(7, 8), "0 or 1", "Asia and Europe are both open, 07 to 08 h UTC"),
    "is_europe_us": Feature(_is_between(13, 16), "0 or 1", "Europe and the US are both open, 13 to 16 h UTC"),
    "is_no_session": Feature(_is_between(21, 24), "0 or 1", "none of the three is open, 21 to 24 h UTC"),
    "minutes_of_hour": Feature(f"(div {_mod('second_of_day', 3600)} 60)", "minutes", "since the hour struck"),
    "minutes_to_funding": Feature(
        f"(div (coalesce (max2 0 funding_s) (sub 28800 {_mod('second_of_day', 28800)})) 60)", "minutes",
        "as the venue says, else to 00, 08 or 16 h",
    ),
    "minutes_to_week_expiry": Feature(
        f"(div {_mod(f'(sub {_FRIDAY_8H_S} now_s)', _WEEK_S)} 60)", "minutes", "to Friday, 08 h UTC"
    ),
    "minutes_to_month_expiry": Feature(
        _settled_minutes("month_ends"), "minutes", "to the month's last Friday, 08 h UTC"
    ),
    "minutes_to_quarter_expiry": Feature(
        _settled_minutes("quarter_ends"), "minutes", "to the last Friday of March, June, September or December"
    ),
}  # fmt: skip

SETS: Final = {"calendar": _CALENDAR}
EVENT_PREFIXES: Final = ("minutes_to_", "minutes_since_")


def event_features(name: str, events: Sequence[str]) -> dict[str, str]:
    """Minutes to the next and since the last of some events (with their zone, as in 2026-11-21T13:30:00Z), a day at
    most each: `minutes_to_` and `minutes_since_` their name.

    The texts hold the times themselves, as a search tree, so that whoever has the text has the events.
    """
    if not events:
        return {}
    times = sorted({int(datetime.fromisoformat(event).timestamp()) for event in events})
    far = f"(add now_s {60 * HORIZON_MIN})", f"(sub now_s {60 * HORIZON_MIN})"
    after, before = (_tree([*map(str, times)], beyond, k) for k, beyond in enumerate(far))
    waits = f"(sub {after} now_s)", f"(sub now_s {before})"
    texts = (f"(min2 {HORIZON_MIN} (div {wait} 60))" for wait in waits)
    return {f"{prefix}{name}": text for prefix, text in zip(EVENT_PREFIXES, texts, strict=True)}


def _tree(times: Sequence[str], beyond: str, is_last: int) -> str:
    """The first of ascending `times` that is not before now, or the last that is not after it; `beyond` for none."""
    if not times:
        return beyond
    middle = len(times) // 2
    early, time, late = times[:middle], times[middle], times[middle + 1 :]
    if is_last:
        return f"(if_gt {time} now_s {_tree(early, beyond, 1)} {_tree(late, time, 1)})"
    return f"(if_gt now_s {time} {_tree(late, beyond, 0)} {_tree(early, time, 0)})"
