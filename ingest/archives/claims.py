"""Whose a file is: what its columns and its name claim, held against `symbols`.

A file of another symbol or venue must not pass for what was asked for: what it says of itself decides, and where it
says nothing `symbols` must name one alone.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from core.errors import StageError
from ingest.archives import tardis
from ingest.archives.csv_rows import first_lines

_SEPARATORS: Final = re.compile(r"[-_/:\s]")
_QUOTES: Final = "USDT|USDC|FDUSD|BUSD|TUSD|USD"
_PAIR: Final = re.compile(rf"(?<![A-Z0-9])(?:([A-Z0-9]{{2,12}}?)|([A-Z0-9]{{2,5}})[-_])({_QUOTES})(?![A-Z0-9])")
"""A symbol in a name: BTCUSDT, or BTC_USDT where the asset is no longer than a word such as `trades`."""
_HOUSES: Final = frozenset({"ASTER", "BINANCE", "BITGET", "BITMEX", "BYBIT", "COINBASE", "DERIBIT", "KRAKEN", "OKX"})


def plain(symbol: str) -> str:
    """A symbol without what venues and libraries write between its two assets."""
    return _SEPARATORS.sub("", symbol).upper()


def spellings(venue: str) -> list[str]:
    """How files write a venue, in lower case: our name, and Tardis'."""
    theirs = [name for name, ours in tardis.VENUES.items() if ours == venue]
    theirs += ["bybit"] if venue == "bybit_inverse" else []
    return sorted({name.replace(*pair) for name in (venue, *theirs) for pair in (("_", "-"), ("-", "_"))})


def first_row(path: Path) -> dict[str, str]:
    """The first row of a CSV with a header, by its headings in lower case. Raises StageError for a damaged file."""
    head, values = ([field.strip().strip('"') for field in line.split(",")] for line in first_lines(path))
    return dict(zip(map(str.lower, head), values, strict=False))


def owner(path: Path, row: Mapping[str, str], symbols: Sequence[str]) -> str:
    """The `venue:SYMBOL` of a file whose name follows no archive's, from its first row, its name and `symbols`.

    Raises StageError where they contradict each other, or do not tell.
    """
    exchange, symbol = row.get("exchange", ""), row.get("symbol", "")
    houses, pairs = _named(path, _houses), _named(path, _pairs)
    fitting = [name for name in symbols if _fits(name, exchange, symbol, houses, pairs)]
    if len(fitting) == 1:
        return fitting[0]
    if exchange and symbol and not fitting:
        named = re.sub(r"[/:]", "-", symbol).upper()
        return f"{tardis.venue_of(exchange.lower().replace('_', '-'), named)}:{named}"
    if fitting or not symbols:
        raise StageError("it does not say whose it is: name one venue:SYMBOL in `symbols`")
    claims = {"column `exchange`": exchange, "column `symbol`": symbol, "name": " ".join(sorted(houses | pairs))}
    told = [f"its {what} says {said}" for what, said in claims.items() if said]
    raise StageError(f"{', '.join(told)}, but `symbols` {', '.join(symbols)}: name what it is, or leave it out")


def refuse_another(path: Path, venue: str, symbol: str) -> None:
    """Raises StageError if the first row of a file is of another venue or symbol than its name. "": of many symbols."""
    row = first_row(path)
    exchange, named = row.get("exchange", "").lower(), row.get("symbol", "")
    if exchange and exchange not in spellings(venue):
        raise StageError(f"its name says {venue}, its column `exchange` {exchange}")
    if named and symbol and plain(named) != plain(symbol):
        raise StageError(f"its name says {symbol}, its column `symbol` {named}")


def _fits(instrument: str, exchange: str, symbol: str, houses: set[str], pairs: set[str]) -> bool:
    """Whether nothing that a file says of itself speaks against an instrument; columns count for more than names."""
    venue, _, wanted = instrument.partition(":")
    is_here = exchange.lower() in spellings(venue) if exchange else venue.partition("_")[0].upper() in houses
    is_it = plain(symbol) == plain(wanted) if symbol else plain(wanted) in pairs
    return (is_here or not (exchange or houses)) and (is_it or not (symbol or pairs))


def _named(path: Path, look: Callable[[str], set[str]]) -> set[str]:
    """What a file's name holds, or else its folder's."""
    return look(path.name) or look(path.parent.name)


def _houses(name: str) -> set[str]:
    return set(re.split(r"[^A-Z]+", name.upper())) & _HOUSES


def _pairs(name: str) -> set[str]:
    return {(match[1] or match[2]) + match[3] for match in _PAIR.finditer(name.upper().replace("_", "-"))}
