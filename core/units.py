"""Units: time is int64 nanoseconds, returns and costs are basis points. The suffix of a name is its unit."""

from typing import Final

NS_PER_US: Final = 1_000
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
NS_PER_MINUTE: Final = 60 * NS_PER_S
NS_PER_HOUR: Final = 3_600 * NS_PER_S
NS_PER_DAY: Final = 86_400 * NS_PER_S
BPS: Final = 1e4
"""Basis points in one: a fraction times BPS is bps."""

_DURATIONS: Final = {"ms": NS_PER_MS, "s": NS_PER_S, "m": NS_PER_MINUTE, "h": NS_PER_HOUR, "d": NS_PER_DAY}


def parse_duration_ns(text: str) -> int:
    """Nanoseconds of a duration such as `200ms`, `5s`, `1m`, `8h` or `1d`.

    Raises ValueError for anything else, zero included.
    """
    number = text.rstrip("abcdefghijklmnopqrstuvwxyz")
    unit = text[len(number) :]
    if unit not in _DURATIONS or not number.isdigit() or int(number) == 0:
        known = ", ".join(_DURATIONS)
        raise ValueError(f"a duration is a whole number and one of {known} (200ms, 5s), was {text!r}")
    return int(number) * _DURATIONS[unit]


def counted(number: int, what: str) -> str:
    """`1 gap`, `2,000 gaps`: a number and a noun whose plural ends in s."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def seconds_label(seconds: float) -> str:
    """`10` for 10.0 and `0.5` for 0.5: how horizons and offsets are written in names."""
    return f"{seconds:g}"
