"""Names of slow series as features have them: without the asset, and where in the table a series of an instrument lies.

`oi` of binance_um:BTCUSDT is the row `oi_btc` of that instrument, `oi_total` the row `oi_total_btc` of all:BTC,
`oi_total_all` the row `oi_total` of all:ALL, and `liq_long_1h` is `liq_long_btc_1h`. A name may end in a resolution,
`oi_5m`, where the table holds more than one.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Final, NamedTuple

from core.config import Poll
from core.polling import Collector
from core.units import parse_duration_ns
from ingest.declarations import declared
from ingest.signal_docs import DERIVED
from ingest.signals import ALL, SETTLEMENT, asset_of

_DEPTHS: Final = [
    f"depth_{side}_{pct}pct{unit}" for side in ("bid", "ask") for pct in range(1, 6) for unit in ("", "_usd")
]
"""Of archives alone: Binance's bookDepth."""


class Delivered(NamedTuple):
    """A series that something delivers: the collectors' own places (`exchange:SYMBOL`), if it is not of an instrument
    that is traded."""

    places: tuple[str, ...] = ()


def delivered(poll: Poll) -> dict[str, Delivered]:
    """What collectors, the user's own included, what is derived from them, and archives deliver, by name."""
    found = {_without_asset(name): Delivered() for name, _, _ in DERIVED} | dict.fromkeys(_DEPTHS, Delivered())
    for one in declared(poll).collectors.values():
        places = tuple(f"{one.exchange or one.provider}:{symbol}" for symbol in one.symbols)
        for name in _names(one):
            found[name] = Delivered((*found.get(name, Delivered()).places, *places))
    return found | {"oi_total_all": Delivered()}


def places_of(name: str, instrument: str, known: Mapping[str, Delivered]) -> tuple[str, ...]:
    """Where a series may lie for one instrument, the first that has it first: its own rows, totals over venues, and
    what a collector keeps for no instrument."""
    asset = asset_of(instrument.partition(":")[2]).upper()
    own = known.get(name, Delivered()).places
    return tuple(dict.fromkeys((instrument, f"{ALL}:{asset}", f"{ALL}:{ALL.upper()}", *own)))


def names_of(stored: str, resolution: str, place: str) -> tuple[str, str]:
    """What features call a series that the table holds at a `place`: without a resolution, and with it."""
    exchange, _, symbol = place.partition(":")
    asset = asset_of(symbol)
    if exchange == ALL and asset == ALL:
        bare = f"{stored}_{ALL}"
    else:
        bare = re.sub(f"^(.+)_{re.escape(asset)}(_.+)?$", r"\1\2", stored)
    return bare, f"{bare}_{resolution}"


def unknown(names: Iterable[str], known: Mapping[str, Delivered]) -> list[str]:
    """Names that nothing delivers, neither as they are nor less a resolution at their end."""
    return [name for name in names if name not in known and _without_resolution(name) not in known]


def _without_resolution(name: str) -> str:
    """`oi` of `oi_5m`, `funding_rate` of `funding_rate_settlement`; the name itself, if it ends in none."""
    bare, _, resolution = name.rpartition("_")
    with suppress(ValueError):
        return bare if resolution == SETTLEMENT or parse_duration_ns(resolution) else name
    return name


def without_a_part(name: str, known: Mapping[str, Delivered]) -> str:
    """The delivered name that `name` is but for one part, as `oi` of `oi_btc` and `liq_long_1h` of `liq_long_btc_1h`;
    empty if there is none."""
    words = name.split("_")
    shorter = ("_".join(words[:k] + words[k + 1 :]) for k in reversed(range(len(words))))
    return next((each for each in shorter if not unknown([each], known)), "")


def _names(collector: Collector) -> list[str]:
    return [_without_asset(series.name) for series in collector.series]


def _without_asset(template: str) -> str:
    return template.replace("_{asset}", "").replace("{asset}_", "")
