"""What is polled: the built-in declarations (`collectors.toml`) with a user's own, checked beyond their types."""

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from string import Formatter
from typing import Final
from urllib.parse import urlsplit

import msgspec

from core.config import Hosts, Poll
from core.errors import ConfigError
from core.polling import Collector, Declaration, Provider
from core.units import NS_PER_DAY, parse_duration_ns
from ingest.collectors import Target, distance_ns
from ingest.signals import SETTLEMENT

_BUILT_IN: Final = Path(__file__).with_name("collectors.toml")
_PLACEHOLDERS: Final = frozenset({"symbol", "asset", "ASSET", "resolution"})
_LONGEST_DAYS: Final = 31


class Declared(Declaration, frozen=True):
    """All that can be polled, by name."""

    providers: dict[str, Provider]
    collectors: dict[str, Collector]


@cache
def built_in() -> Declared:
    """The declarations of `collectors.toml`."""
    return msgspec.convert(tomllib.loads(_BUILT_IN.read_text()), Declared)


def declared(poll: Poll) -> Declared:
    """The built-in declarations with the user's own, which replace those of the same name.

    Raises ConfigError, with the path of the key, for what the types of core/polling.py cannot say.
    """
    base = built_in()
    both = Declared(base.providers | poll.providers, base.collectors | poll.collectors)
    for name in poll.only:
        if name not in both.collectors:
            raise _error("only", f"no collector is named {name!r}: known are {', '.join(both.collectors)}")
    for name, provider in poll.providers.items():
        _check_provider(name, provider)
    for name, collector in poll.collectors.items():
        _check_collector(name, collector, both.providers)
    _check_names(both.collectors)
    chosen = {name: one for name, one in both.collectors.items() if not poll.only or name in poll.only}
    return Declared(both.providers, chosen)


def targets(what: Declared, symbols: Sequence[str], hosts: Hosts) -> list[Target]:
    """One target per collector and symbol: `venue:SYMBOL`s of its exchange, or its own symbols."""
    found = []
    for name, collector in what.collectors.items():
        provider = what.providers[collector.provider]
        base_url = getattr(hosts, provider.host, provider.host)
        exchange = collector.exchange or collector.provider
        own = [symbol for venue, _, symbol in (one.partition(":") for one in symbols) if venue == exchange]
        found += [Target(name, collector, provider, base_url, symbol) for symbol in collector.symbols or own]
    return found


def _check_provider(name: str, provider: Provider) -> None:
    known = Hosts.__struct_fields__
    if provider.host not in known and urlsplit(provider.host).scheme not in ("http", "https"):
        wants = f"a URL with http:// or https://, or one of {', '.join(known)}"
        raise _error(f"providers.{name}.host", f"{wants}, was {provider.host!r}")


def _check_collector(name: str, one: Collector, providers: Mapping[str, Provider]) -> None:
    where = f"collectors.{name}"
    if one.provider not in providers:
        known = ", ".join(providers)
        raise _error(
            f"{where}.provider", f"{one.provider!r} is not declared: add poll.providers.{one.provider}, or take {known}"
        )
    spans: dict[str, Callable[[], int]] = {
        "every": lambda: parse_duration_ns(one.every),
        "resolution": lambda: distance_ns(None, one),
    }
    for key, text in _templates(one):
        for word in _placeholders(f"{where}.{key}", text):
            if word not in _PLACEHOLDERS:
                known = ", ".join(f"{{{each}}}" for each in sorted(_PLACEHOLDERS))
                raise _error(f"{where}.{key}", f"{{{word}}} stands for nothing: known are {known}")
    if one.resolution == SETTLEMENT and one.history is not None and one.history.step is None:
        raise _error(f"{where}.history.step", 'values at settlements have no fixed distance: set step, as in "1h"')
    for key, span in spans.items():
        if span() > _LONGEST_DAYS * NS_PER_DAY:
            raise _error(f"{where}.{key}", f"at most {_LONGEST_DAYS} days")


def _templates(one: Collector) -> Iterator[tuple[str, str]]:
    yield "path", one.path
    for key, value in one.params.items():
        yield f"params.{key}", str(value)
    for place, series in enumerate(one.series):
        yield f"series[{place}].name", series.name


def _placeholders(where: str, text: str) -> list[str]:
    try:
        return [word for _, word, _, _ in Formatter().parse(text) if word is not None]
    except ValueError as error:
        raise _error(where, f"{text!r} is no template ({error}): write braces in pairs, as in {{symbol}}") from error


def _check_names(collectors: Mapping[str, Collector]) -> None:
    """Two collectors that write one series would revise each other for ever."""
    writers: dict[tuple[str, str, tuple[str, ...]], str] = {}
    for name, one in collectors.items():
        for place, series in enumerate(one.series):
            key = one.exchange or one.provider, series.name, one.symbols
            if key in writers:
                raise _error(
                    f"collectors.{name}.series[{place}].name",
                    f"{series.name} of {key[0]} is written by {writers[key]} already: choose another name",
                )
            writers[key] = name


def _error(path: str, why: str) -> ConfigError:
    return ConfigError(f"configuration: {why} - at `$.poll.{path}`")
