"""Settings that are text of a certain form: each type holds its pattern, and in words what it permits.

The words are what a user reads who wrote something else (core/config_errors.py).
"""

from typing import Annotated, Final

from msgspec import Meta

Duration = Annotated[
    str, Meta(pattern=r"^[1-9]\d*(ms|s|m|h|d)$", description="a length of time such as 200ms, 5s, 1m, 8h or 1d")
]
BarClock = Annotated[
    str,
    Meta(
        pattern=r"^(time_[1-9]\d*(ms|s|m|h|d)|(renko|range|(volume|dollar|tick)(_imbalance|_run)?)_(?!0+(\.0+)?$)\d+(\.\d+)?)$",
        description="a clock and its size such as time_200ms, volume_5, dollar_250000, tick_imbalance_50 or renko_10",
    ),
]
Day = Annotated[str, Meta(pattern=r"^(\d{4}-\d\d-\d\d)?$", description='a UTC day such as "2026-11-22", or empty')]
Instant = Annotated[
    str, Meta(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$", description="a UTC time such as 2026-11-22T09:00:00Z")
]
EventTime = Annotated[
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?(Z|[+-]\d\d:\d\d)$",
        description="a time with its zone such as 2026-11-22T14:00:00Z or 2026-11-22T09:00:00-05:00",
    ),
]
ExactInstant = Annotated[  # down to a nanosecond
    str,
    Meta(
        pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z$",
        description="a UTC time such as 2026-11-22T09:00:00Z or 2026-11-22T09:00:00.250Z",
    ),
]
PollDuration = Annotated[
    str,
    Meta(
        pattern=r"^(once|forever|[1-9]\d*(s|m|h|d))$",
        description="once, forever, or a length of time such as 90m or 7d",
    ),
]
_PORT: Final = r"(:([1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5]))?"
_HOST: Final = rf"(\[[0-9a-fA-F:.]+\]|[\w.-]+){_PORT}"
_LOOPBACK: Final = rf"(localhost|127\.0\.0\.1|\[::1\]){_PORT}"
_WS: Final = "must begin with ws:// or wss://, with the host and its port alone after it"
WsUrl = Annotated[str, Meta(pattern=rf"^wss?://{_HOST}$", description=f"{_WS}, as in ws://127.0.0.1:9000")]
SpotWsUrl = Annotated[  # the two whose paths are alike: ingest/venues.py tells them apart by these hosts
    str,
    Meta(
        pattern=rf"^wss?://({_LOOPBACK}|(?=[^:]*binance){_HOST})$",
        description=f"{_WS}, on loopback or with `binance` in its name",
    ),
]
CoinMWsUrl = Annotated[
    str,
    Meta(
        pattern=rf"^wss?://({_LOOPBACK}|(?=[^:]*dstream){_HOST})$",
        description=f"{_WS}, on loopback or with `dstream` in its name",
    ),
]
RestUrl = Annotated[
    str,
    Meta(
        pattern=rf"^https?://{_HOST}$",
        description="must begin with http:// or https://, with the host and its port alone after it",
    ),
]
ArchiveUrl = Annotated[
    str,
    Meta(
        pattern=rf"^https?://{_HOST}(/[^\s/]+)*$",
        description="must begin with http:// or https:// and a host, and not end with a slash",
    ),
]
