"""How a poll is declared: providers, collectors, and where time and value lie in an answer. Data, no code.

The built-in declarations stand in `ingest/collectors.toml`; a user's own have the same form under `[poll.providers]`
and `[poll.collectors]` of the configuration. What cannot be said by a type is checked by `ingest/collectors.py`.
"""

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Name = Annotated[str, Meta(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
SeriesName = Annotated[str, Meta(pattern=r"^[a-z0-9_{}]{1,60}$")]
PollInterval = Annotated[str, Meta(pattern=r"^[1-9]\d*(m|h|d)$")]
Delay = Annotated[str, Meta(pattern=r"^(0s|[1-9]\d*(s|m|h))$")]
Path = Annotated[str, Meta(pattern=r"^/")]


class Declaration(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file."""


class Budget(Declaration, frozen=True):
    """At most `limit` weight within any `per_s` seconds, over all requests whose path starts with `prefix`.

    The longest prefix that fits a request is the one that counts it.
    """

    limit: Annotated[int, Meta(ge=1)]
    per_s: Annotated[float, Meta(gt=0, le=86_400)]
    prefix: str = "/"


class Provider(Declaration, frozen=True):
    """Who answers, how often it may be asked, and how it says no with HTTP 200."""

    host: Annotated[str, Meta(min_length=1)]
    """A base URL, or the name of one in `capture.hosts`."""
    budgets: Annotated[tuple[Budget, ...], Meta(min_length=1)] = (Budget(30, 60.0),)  # unknown limits: be modest
    status: str = ""
    """Path of the status in an answer; empty where HTTP says it all."""
    ok: tuple[str | int, ...] = (0, "0")
    busy: tuple[str | int, ...] = ()
    """Statuses, in answers of any HTTP code, that mean `ask again later`."""
    message: str = ""


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
    days: Annotated[float, Meta(gt=0)] = 36_500.0
    """How far back the venue keeps it."""
    ended: tuple[str | int, ...] = ()
    """Statuses that mean `nothing is kept from then`."""
    status: str = ""
    cursor: str = ""
    """Path of the cursor to the next page of a window, empty where there is none."""


class Collector(Declaration, frozen=True):
    """One request and the series that its answer holds.

    `{symbol}`, `{asset}`, `{ASSET}` and `{resolution}` are replaced in `path` and `params`.
    """

    provider: Name
    path: Path
    series: Annotated[tuple[Series, ...], Meta(min_length=1)]
    time: Annotated[str, Meta(min_length=1)]
    resolution: Annotated[str, Meta(pattern=r"^(settlement|[1-9]\d*(m|h|d))$")]
    exchange: Name = "own"
    """The venue of the partition. Its symbols in `symbols` are asked for, unless the collector has its own."""
    symbols: tuple[str, ...] = ()
    params: dict[str, str | int] = {}
    rows: str = ""
    """Path of the row or rows, empty where the answer is them."""
    time_unit: Literal["s", "ms", "us", "ns"] = "ms"
    every: PollInterval = "5m"
    offset: Delay = "20s"  # after the clock's mark: venues need some seconds to publish an interval
    interval: PollInterval | None = None
    """The longest normal distance between two values where `resolution` does not tell."""
    weight: Annotated[int, Meta(ge=0)] = 1
    history: History | None = None
