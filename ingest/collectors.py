"""Collectors: a declaration and a symbol to requests, and answers to points. Pure, and without a word about any venue.

What to ask and where time and value lie stands in the declaration (core/polling.py).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from typing import Any, Final, NamedTuple
from urllib.parse import quote, urlencode

import msgspec

from core.polling import Collector, Field, Provider, Series
from core.units import NS_PER_MS, NS_PER_S, NS_PER_US, parse_duration_ns
from ingest.signals import SETTLEMENT, asset_of

_UNIT_NS: Final = {"s": NS_PER_S, "ms": NS_PER_MS, "us": NS_PER_US, "ns": 1}


class Refused(Exception):
    """The provider understood and said no, with a status of its own; asking again will not help."""

    def __init__(self, status: object, message: str) -> None:
        super().__init__(f"{status}: {message}" if message else str(status))
        self.status = status


class Busy(Exception):
    """The provider asks to be asked later."""


class Point(NamedTuple):
    """One value as an answer gives it."""

    name: str
    time_ns: int
    value: float


@dataclass(frozen=True)
class Target:
    """One collector for one symbol: what is scheduled, asked and stored as a unit."""

    name: str
    collector: Collector
    provider: Provider
    base_url: str
    symbol: str

    @property
    def key(self) -> str:
        return f"{self.name}/{self.symbol}"

    @property
    def exchange(self) -> str:
        return self.collector.exchange or self.collector.provider

    @property
    def every_ns(self) -> int:
        return parse_duration_ns(self.collector.every)

    @property
    def offset_ns(self) -> int:
        return 0 if self.collector.offset == "0s" else parse_duration_ns(self.collector.offset)

    @property
    def interval_ns(self) -> int:
        """The longest normal distance between two values."""
        return distance_ns(self.collector.interval, self.collector)

    @property
    def step_ns(self) -> int:
        """The shortest distance between two values."""
        return distance_ns(self.collector.history.step if self.collector.history else None, self.collector)

    @property
    def unit_ns(self) -> int:
        return _UNIT_NS[self.collector.time_unit]

    @property
    def span_ns(self) -> int:
        """How long a value is of: known at the end of it at the earliest. 0 for what happens at once."""
        return 0 if self.resolution == SETTLEMENT else parse_duration_ns(self.resolution)

    @property
    def resolution(self) -> str:
        return self.collector.resolution

    @property
    def series(self) -> dict[str, Series]:
        """The declared series by their names for this symbol."""
        words = _words(self.collector, self.symbol)
        return {one.name.format(**words): one for one in self.collector.series}

    def url(self, extra: Mapping[str, str | int] | None = None) -> str:
        words = _words(self.collector, self.symbol)
        path = self.collector.path.format(**{key: quote(word) for key, word in words.items()})
        params = {key: str(value).format(**words) for key, value in self.collector.params.items()}
        query = urlencode(params | {key: str(value) for key, value in (extra or {}).items()})
        return f"{self.base_url}{path}?{query}" if query else f"{self.base_url}{path}"

    def window_url(self, from_ns: int, to_ns: int, cursor: str = "") -> str:
        """The URL of the values from `from_ns` to `to_ns`, both included: at most `history.rows`."""
        past = self.collector.history
        assert past is not None
        times = {past.start: from_ns // self.unit_ns, past.end: to_ns // self.unit_ns, past.limit: past.rows}
        return self.url(times | ({"cursor": cursor} if cursor else {}))


@dataclass
class Answer:
    """What one body held. `faults` counts rows, or values of rows, that could not be read, by what was wrong."""

    points: list[Point] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    n_rows: int = 0
    cursor: str = ""

    def fault(self, what: str) -> None:
        self.faults[what] = self.faults.get(what, 0) + 1


def read_answer(target: Target, body: bytes) -> Answer:
    """Points of a body in its own order. Raises Refused or Busy for a status that says so, ValueError if it is no JSON.

    A row without a time and a value that is no number are faults; one that is given as empty text is not (a contract
    that expires has no funding rate).
    """
    tree = read_body(target.provider, body)
    found, collector = Answer(), target.collector
    rows = look_up(tree, collector.rows) if collector.rows else tree
    if rows is None and _is_elsewhere(tree, collector.rows):
        found.fault(f"nothing at {collector.rows}")
    rows = rows if isinstance(rows, list) else [] if rows is None else [rows]
    found.n_rows = len(rows)
    series = [(name, one.fields) for name, one in target.series.items()]
    for row in rows:
        time = number_at(tree, row, collector.time)
        if time is None:
            found.fault(f"no time at {collector.time}")
            continue
        _read_row(found, tree, row, int(time * target.unit_ns), series)
    if collector.history and collector.history.cursor:
        found.cursor = str(look_up(tree, collector.history.cursor) or "")
    return found


def read_body(provider: Provider, body: bytes) -> Any:
    """The JSON of an answer. Raises Refused or Busy for a status that says so, ValueError if it is no JSON."""
    tree = msgspec.json.decode(body)  # DecodeError is a ValueError
    status = look_up(tree, provider.status) if provider.status else None
    if status is None or status in provider.ok:
        return tree
    message = str(look_up(tree, provider.message) or "")[:200] if provider.message else ""
    raise (Busy(f"{status}: {message}") if status in provider.busy else Refused(status, message))


def look_up(tree: Any, path: str) -> Any:
    """What lies at `a.b.0`, None where the way is cut."""
    for step in path.split("."):
        if isinstance(tree, Mapping):
            tree = tree.get(step)
        elif isinstance(tree, list) and step.isdecimal() and int(step) < len(tree):
            tree = tree[int(step)]
        else:
            return None
    return tree


def _is_elsewhere(tree: Any, path: str) -> bool:
    """Whether the way to nothing is cut where there is something else: an answer that is empty there is no fault."""
    steps = path.split(".")
    on_the_way = [tree, *(look_up(tree, ".".join(steps[:count])) for count in range(1, len(steps)))]
    last = next((found for found in reversed(on_the_way) if found is not None), None)
    return bool(last)


def number_at(tree: Any, row: Any, path: str) -> Decimal | None:
    """The number at a path of the row, or after `$.` of the whole answer; None where there is none, text included.

    Venues write numbers as text or not, and change their minds (exchange_protocols.md A.6).
    """
    found = _raw(tree, row, path)
    if found is None or found == "" or isinstance(found, bool):
        return None
    try:
        number = Decimal(str(found))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None


def _read_row(found: Answer, tree: Any, row: Any, time_ns: int, series: Sequence[tuple[str, Sequence[Field]]]) -> None:
    for name, fields in series:
        present = [(one, _raw(tree, row, one.path)) for one in fields]
        one, raw = next(((one, raw) for one, raw in present if raw is not None), (fields[0], None))
        value = _value(tree, row, one) if raw not in (None, "") else None
        if value is not None:
            found.points.append(Point(name, time_ns, value))
        elif raw != "":
            found.fault(f"no number for {name} at {one.path}")


def _raw(tree: Any, row: Any, path: str) -> Any:
    return look_up(tree, path[2:]) if path.startswith("$.") else look_up(row, path)


def _value(tree: Any, row: Any, one: Field) -> float | None:
    """The field's number. Plain fields keep the nearest double of what the venue wrote."""
    number = number_at(tree, row, one.path)
    per = number_at(tree, row, one.per) if one.per else Decimal(1)
    if number is None or not per:
        return None
    value = float(number / per if one.per else number)
    value = value * one.scale + one.plus
    return value if math.isfinite(value) else None


def _words(collector: Collector, symbol: str) -> dict[str, str]:
    asset = asset_of(symbol)
    return {"symbol": symbol, "asset": asset, "ASSET": asset.upper(), "resolution": collector.resolution}


def distance_ns(own: str | None, collector: Collector) -> int:
    if own is not None:
        return parse_duration_ns(own)
    return parse_duration_ns(collector.every if collector.resolution == SETTLEMENT else collector.resolution)
