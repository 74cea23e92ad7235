"""What types cannot say of a configuration: finite numbers, names that stand once, times and symbols that exist."""

import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec

from core.config_errors import near_to
from core.config_trees import leaves
from core.errors import ConfigError

if TYPE_CHECKING:
    from core.config import Config

_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_LONGEST_S: Final = 86_400.0
_YEARS: Final = range(2000, 2200)  # int64 nanoseconds end in 2262


def check(config: "Config") -> None:
    """Raises ConfigError, with the path of the key, for the first thing that is wrong."""
    for value, path in leaves(msgspec.to_builtins(config), "$"):
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"configuration: expected a finite number, was {value} - at `{path}`")
    _check_repeats(config)
    _check_times(config)
    _check_symbols(config)


def _check_repeats(config: "Config") -> None:
    lists = {
        "symbols": config.symbols or (),
        "bars_also": config.bars_also,
        "capture.klines": config.capture.klines,
        "train.families": config.train.families,
        "train.horizons_s": config.train.horizons_s,
        "train.thresholds": config.train.thresholds,
        "train.edges_bps": config.train.edges_bps,
        "labels.horizons_s": config.labels.horizons_s,
        "labels.deltas_bps": config.labels.deltas_bps,
        "labels.gates_usd": config.labels.gates_usd,
    }
    for path, values in lists.items():
        repeated = [value for place, value in enumerate(values) if value in values[:place]]
        if repeated:
            raise ConfigError(f"{path}: {repeated[0]!r} stands twice: name each once - at `$.{path}`")


def _check_times(config: "Config") -> None:
    for path, text in (("decision", config.decision), ("bars", config.bars.removeprefix("time_"))):
        length = re.fullmatch(r"(\d+)(ms|s|m|h|d)", text)
        if length and int(length[1]) * _UNIT_S[length[2]] > _LONGEST_S:
            raise ConfigError(f"{path}: at most a day, was {text} - at `$.{path}`")
    start = config.sim.start
    dates = {"sim.start": start, "features.fit_until": config.features.fit_until or start}
    dates |= dict(_event_times("features.events", config.features.events))
    for path, text in dates.items():
        try:
            datetime.fromisoformat(text)
        except ValueError as error:
            raise ConfigError(f"{path}: {text} is no date ({error}) - at `$.{path}`") from error
    year = datetime.fromisoformat(start).year
    if year not in _YEARS:
        raise ConfigError(f"sim.start: a year from 2000 to 2199, was {start} - at `$.sim.start`")


def _event_times(path: str, events: object) -> Iterator[tuple[str, str]]:
    """The times of some events, each with its place in the configuration; not those in files."""
    if isinstance(events, dict):
        for name, times in events.items():
            yield from _event_times(f"{path}.{name}", times)
    elif isinstance(events, tuple):
        yield from ((f"{path}[{k}]", str(time)) for k, time in enumerate(events))


def _is_symbol(text: str) -> bool:
    """A symbol as the venues write it, in upper case; some listings have Chinese names. It becomes part of a path."""
    return 0 < len(text) <= 40 and all(sign in "_-" or (sign.isalnum() and sign == sign.upper()) for sign in text)


def _check_symbols(config: "Config") -> None:
    for name in config.symbols or ():
        venue, _, symbol = name.partition(":")
        if not venue or not _is_symbol(symbol):
            example = "venue:SYMBOL, the symbol in upper case, as in binance_um:BTCUSDT"
            raise ConfigError(f"symbols: each is {example}, was {name!r} - at `$.symbols`")
        if venue not in config.fees:
            known = f": known are {', '.join(config.fees)}; set fees.{venue} for the rows of another venue"
            why = f"unknown venue {venue!r} in {name!r}{near_to(venue, config.fees) or known}"
            raise ConfigError(f"symbols: {why} - at `$.symbols`")
