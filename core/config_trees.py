"""Configuration as trees of tables: from a file, from `key=value`, one laid over another."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError

_LISTS: Final = ("symbols", "poll.only", "backfill.datasets")
"""Settings that `--set` takes as names with commas between, too."""


def read_toml(path: Path, needed: bool) -> dict[str, Any]:
    """The tables of a file; none where it does not exist and is not needed. Raises ConfigError for what is no TOML."""
    if not path.exists():
        if needed:
            raise ConfigError(f"--config: {path} does not exist")
        return {}
    try:
        return tomllib.loads(path.read_text())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: not a TOML file: {error}") from error


def parse_pair(pair: str) -> dict[str, Any]:
    """`sim.hours=2` as {"sim": {"hours": 2}}. Raises ConfigError where that is not its form."""
    key, equals, text = pair.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set takes key=value, as in --set sim.hours=2, was {pair!r}")
    value: Any = _parse_value(text)
    if key in _LISTS and isinstance(value, str):
        value = [name.strip() for name in value.split(",") if name.strip()]
    for name in reversed(key.split(".")):
        value = {name: value}
    return dict(value)


def merge(into: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Lays `other` over `into`, table by table; other values, lists too, are replaced as a whole."""
    for key, value in other.items():
        present = into.get(key)
        if isinstance(present, dict) and isinstance(value, Mapping):
            into[key] = dict(present)
            merge(into[key], value)
        else:
            into[key] = value


def leaves(tree: Any, path: str) -> Iterator[tuple[Any, str]]:
    """Each value of a tree of tables and lists, with its path."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(tree, Sequence) and not isinstance(tree, str):
        for place, value in enumerate(tree):
            yield from leaves(value, f"{path}[{place}]")
    else:
        yield tree, path


def _parse_value(text: str) -> Any:
    """A TOML value where it reads as one (12, true, [1, 2]), else the text itself. Settings take times as text."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return text if isinstance(value, date | time) else value
