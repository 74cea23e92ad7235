"""How a poll is declared: providers, collectors, and where time and value lie in an answer. Data, no code.

The built-in declarations stand in `ingest/collectors.toml`; a user's own have the same form under `[poll.providers]`
and `[poll.collectors]` of the configuration. What cannot be said by a type is checked by `ingest/collectors.py`.
"""

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

_NAME: Final = "a name in lower case such as my_provider"
Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$", description=_NAME)]
SeriesName = Annotated[
    str,
    Meta(pattern=r"^[a-z0-9_{}]{1,60}$", description="a name in lower case such as oi_{asset}, at most 60 characters"),
]
PollInterval = Annotated[str, Meta(pattern=r"^[1-9]\d*(m|h|d)$", description="a length of time such as 5m, 8h or 1d")]
Delay = Annotated[str, Meta(pattern=r"^(0s|[1-9]\d*(s|m|h))$", description="a length of time such as 0s, 20s or 5m")]
Path = Annotated[str, Meta(pattern=r"^/", description="a path that begins with /")]
Symbol = Annotated[
    str, Meta(pattern=r"^[\w-]{1,40}$", description="a symbol such as BTCUSDT or ALL, at most 40 characters")
]
Resolution = Annotated[
    str,
    Meta(
        pattern=r"^(settlement|[1-9]\d*(m|h|d))$",
        description="the distance of two values such as 5m, 8h or 1d, or `settlement`",
    ),
]


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Provider(Declaration, frozen=True):
    """Who answers, how often it may be asked, and how it says no with HTTP 200."""

    host: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^\s/]+(/\S*)?|(binance(_um|_cm)?|bybit)_rest)$",
            description="must begin with http:// or https://, or be a name in capture.hosts such as binance_um_rest",
        ),
    ]
    """A base URL, or the name of one in `capture.hosts`."""
    requests: Annotated[int, Meta(ge=1)] = 30  # modest, as the limits of an unknown provider are unknown
    per_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0
    """At most `requests` within any `per_s` seconds; Binance's and Bybit's limits (ingest/rate_limit.py) hold too."""
    status: str = ""
    """Path of the status in an answer that may carry one; empty where HTTP says it all."""
    ok: tuple[str | int, ...] = (0, "0", 200, "200")
    busy: tuple[str | int, ...] = ()
    """Statuses that mean `ask again later`."""
    message: str = ""
    """Path of the words that come with a status."""


class Field(Declaration, frozen=True):
    """value = number at `path` / number at `per` * `scale` + `plus`. Paths are keys and list places with dots.

    A path is looked up in the row, after `$.` in the whole answer.
    """

    path: Annotated[str, Meta(min_length=1)]
    per: str = ""
    scale: float = 1.0
    plus: float = 0.0


class Series(Declaration, frozen=True):
    """One named series of a collector's rows: the first of `fields` that the row has. `{asset}` stands for `btc`."""

    name: SeriesName
    fields: Annotated[tuple[Field, ...], Meta(min_length=1)]
    unit: str = ""
    about: str = ""
    above: float | None = None
    """Values at or beyond `above` and `below` are stored, and told as anomalies."""
    below: float | None = None


class History(Declaration, frozen=True):
    """How the past is asked for: windows of at most `rows` values, between two times in the answer's unit."""

    rows: Annotated[int, Meta(ge=1)]
    start: str = "startTime"
    end: str = "endTime"
    limit: str = "limit"
    step: PollInterval | None = None
    """The shortest distance between two values where `resolution` does not tell."""
    days: Annotated[float, Meta(gt=0)] = 36_500.0
    """How far back the venue keeps it."""
    ended: tuple[str | int, ...] = ()
    """Statuses that mean `nothing is kept from then`."""
    cursor: str = ""
    """Path of the cursor to a window's next page; it is sent as `cursor`. Empty where there is none."""


class Collector(Declaration, frozen=True):
    """One request and the series that its answer holds.

    `{symbol}`, `{asset}`, `{ASSET}` and `{resolution}` are replaced in `path` and `params`.
    """

    provider: Name
    path: Path
    series: Annotated[tuple[Series, ...], Meta(min_length=1)]
    time: Annotated[str, Meta(min_length=1)]
    resolution: Resolution
    exchange: Annotated[str, Meta(pattern=r"^[a-z0-9_]{0,40}$", description=_NAME)] = ""
    """The venue of the partition; empty: the provider. Its symbols in the configuration's `symbols` are asked for."""
    symbols: tuple[Symbol, ...] = ()
    """Own symbols in their place, for what is not of one contract: `["ALL"]`."""
    params: dict[str, str | int] = {}
    rows: str = ""
    """Path of the row or rows, empty where the answer is them."""
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    every: PollInterval = "5m"
    offset: Delay = "20s"  # after the clock's mark: venues need some seconds to publish an interval
    interval: PollInterval | None = None
    """The longest normal distance between two values where `resolution` does not tell."""
    history: History | None = None
