"""Scheduled events of a run: the times of `features.events`, from the configuration or from files, as features.

    [features.events]
    fomc = ["2026-12-09T14:00:00-05:00"]
    cpi = "cpi.txt"                         # one time a line, what follows it is yours; "#" begins a comment

A file's name hangs on the repository. Features are `minutes_to_fomc` and `minutes_since_fomc`, of a list without a name
`minutes_to_event` and `minutes_since_event`. Their texts hold the times: a model keeps those it was trained with.
"""

from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from core.config import ROOT, Events
from core.errors import ConfigError
from core.setting_types import EventTime
from research.catalogue import CATALOGUE
from research.sets.calendar import event_features

NAMELESS: Final = "event"
_MOST: Final = 1000  # in a list: their texts grow with them


def event_texts(events: Events | dict[str, Events | str], root: Path = ROOT) -> dict[str, str]:
    """Name and text of the features of some events.

    Raises ConfigError for a file that does not hold times, and for a name that makes one of the catalogue's features.
    """
    by_name = events if isinstance(events, dict) else {NAMELESS: events}
    found: dict[str, str] = {}
    for name, times in by_name.items():
        made = event_features(name, _read(name, root / times) if isinstance(times, str) else times)
        for feature in made.keys() & CATALOGUE.keys():
            raise ConfigError(
                f"features.events: {feature} is a feature of the catalogue - at `$.features.events.{name}`"
            )
        found |= made
    return found


def _read(name: str, path: Path) -> list[str]:
    """The first word of each line of a file, which is a time with its zone."""
    where = f"at `$.features.events.{name}`"
    try:
        lines = [line.split("#", 1)[0].replace(",", " ").split() for line in path.read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"features.events.{name}: cannot read {path}: {error} - {where}") from error
    times = [(number, words[0]) for number, words in enumerate(lines, 1) if words]
    if not 0 < len(times) <= _MOST:
        raise ConfigError(f"features.events.{name}: {path} holds {len(times)} times, 1 to {_MOST} are wanted - {where}")
    for number, time in times:
        _require_time(time, f"features.events.{name}: {path}, line {number}: {time}", where)
    return [time for _, time in times]


def _require_time(text: str, what: str, where: str) -> None:
    try:
        time = msgspec.convert(text, EventTime)
        datetime.fromisoformat(time).astimezone(UTC)
    except ValueError as error:
        example = "such as 2026-11-22T14:00:00Z or 2026-11-22T09:00:00-05:00"
        raise ConfigError(f"{what} is no time with its zone {example} ({error}) - {where}") from None
