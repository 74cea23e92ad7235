"""Which files to download for the symbols and days asked for: addresses, hosts, keys."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.config import ArchiveHosts, Backfill
from core.errors import ConfigError
from ingest.archives import binance_vision, bybit_dumps, tardis
from ingest.archives.choice import KLINES_PREFIX, check_datasets
from ingest.archives.formats import ArchiveFile, Provider, days_of

API_KEY: Final = "TARDIS_API_KEY"
_BY_VENUE: Final = {**binance_vision.DEFAULT, **bybit_dumps.DEFAULT}


def plan(settings: Backfill, symbols: tuple[str, ...], days: tuple[str, ...], folder: Path) -> list[ArchiveFile]:
    """The files that hold some days of some symbols, each once. Raises ConfigError for what no archive has."""
    files: dict[str, ArchiveFile] = {}
    for name in symbols:
        venue, _, symbol = name.partition(":")
        provider = settings.provider or _provider_of(venue)
        for dataset in _datasets(settings, provider, venue):
            for day in days:
                file = _file(settings.hosts, provider, venue, symbol, dataset, day, folder)
                files.setdefault(file.url, file)
    return list(files.values())


def headers_for(files: list[ArchiveFile]) -> dict[str, str]:
    """Tardis' key from the environment. Without one it gives the first day of each month."""
    key = os.environ.get(API_KEY, "")
    return {"authorization": f"Bearer {key}"} if key and any(file.provider == "tardis" for file in files) else {}


def _provider_of(venue: str) -> str:
    provider = venue.partition("_")[0]
    if provider not in ("binance", "bybit"):
        raise ConfigError(
            f"symbols: no public archive is known for venue {venue!r}: set backfill.provider=tardis, or backfill.path "
            f"to a folder of files - at `$.symbols`"
        )
    return provider


def _datasets(settings: Backfill, provider: str, venue: str) -> Iterator[str]:
    if settings.datasets:
        check_datasets(settings.datasets, provider)
        yield from settings.datasets
        return
    yield from tardis.DEFAULT if provider == "tardis" else _BY_VENUE.get(venue, ())


def _file(
    hosts: ArchiveHosts, provider: str, venue: str, symbol: str, dataset: str, day: str, folder: Path
) -> ArchiveFile:
    interval = dataset.removeprefix(KLINES_PREFIX) if dataset.startswith(KLINES_PREFIX) else ""
    dataset = "klines" if interval else dataset
    host, kind, days = provider, provider, days_of(day)
    match provider:
        case "binance":
            path = binance_vision.address(venue, symbol, dataset, interval, day)
            days = days_of(day[:7]) if "/monthly/" in path else days
        case "bybit":
            host, path = bybit_dumps.address(venue, symbol, dataset, day)
        case _:
            path = tardis.address(venue, symbol, dataset, day)
    base = getattr(hosts, host).rstrip("/")
    where: Provider = kind  # type: ignore[assignment]
    return ArchiveFile(folder / host / path, where, dataset, venue, symbol, days, interval, f"{base}/{path}")
