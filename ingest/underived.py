"""What was stored and nothing was derived from yet: noted before it is stored, struck off when it is derived.

So a crash, or a disk that fills between the two, leaves no hole in the derived series.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import polars as pl

from core.errors import StageError
from core.store import write_atomic
from ingest.signals import read_newest

_FILE: Final = "poll_underived.json"
News = dict[tuple[str, str], pl.DataFrame]
"""Rows that the table did not have, by (exchange, symbol)."""


def note(root: Path, earliest_ns: Mapping[tuple[str, str], int]) -> None:
    """Rows of these (exchange, symbol), from these times on, are about to be stored."""
    noted = _noted(root)
    for (exchange, symbol), time_ns in earliest_ns.items():
        instrument = f"{exchange}:{symbol}"
        noted[instrument] = min(time_ns, noted.get(instrument, time_ns))
    if earliest_ns:
        write_atomic(root / _FILE, msgspec.json.encode(noted))


def underived(root: Path) -> News:
    """The rows to derive from: all of the noted instruments from the noted times on."""
    found = {}
    for instrument, from_ns in _noted(root).items():
        exchange, _, symbol = instrument.partition(":")
        found[exchange, symbol] = read_newest(root, exchange, symbol, from_ns)
    return found


def strike_off(root: Path) -> None:
    """Everything noted is derived from."""
    (root / _FILE).unlink(missing_ok=True)


def _noted(root: Path) -> dict[str, int]:
    """Earliest time by `exchange:SYMBOL`. Raises StageError for a file that is not ours."""
    path = root / _FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, int])
    except FileNotFoundError:
        return {}
    except msgspec.DecodeError as error:
        raise StageError(f"{path} is damaged ({error}): delete it, what it named is then not derived again") from error
