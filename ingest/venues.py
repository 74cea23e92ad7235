"""Which venue a URL belongs to, its decoder, and what a connection to it is made of (made by ingest/plans.py)."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import urlsplit

from ingest.binance import BinanceDecoder
from ingest.bybit import BybitDecoder
from ingest.events import Event, Gap, TradeHole
from ingest.open_holes import OpenHole

COIN_M_PATH: Final = "/dstream"
"""Where a local server is COIN-M, whose own path is that of spot."""


class Decoder(Protocol):
    """Frames of a venue's connection to events, without I/O. Connections that overlap may share a decoder.

    `ignored` counts what no table holds, `repeated` the duplicates that were dropped, both by kind of stream;
    `refused` keeps the venue's refusals. A hole in the trade ids is told as a Gap; with `refills` set it goes to
    `missed` too, for the caller to refill by `decode_rest` and to tell once more when it is `mended`. `resume` lets it
    go on from a trade that an earlier process wrote, and from the holes that it left open.
    """

    ignored: Counter[str]
    repeated: Counter[str]
    refused: list[str]
    missed: list[TradeHole]
    refills: bool

    @property
    def wants_snapshot(self) -> list[str]: ...

    def decode(self, frame: str | bytes, recv_ns: int) -> list[Event]: ...

    def decode_rest(self, url: str, body: str | bytes, recv_ns: int) -> list[Event]: ...

    def resume(self, symbol: str, last_id: int, exch_ns: int, recv_ns: int, holes: Sequence[OpenHole] = ()) -> None: ...

    def missing(self, hole: TradeHole) -> list[tuple[int, int]]: ...

    def stream_of(self, frame: bytes) -> tuple[str, str] | None: ...

    def gap_of(self, frame: str | bytes, recv_ns: int, why: str) -> list[Gap]: ...

    def interrupted(self, recv_ns: int) -> list[Event]: ...

    def finish(self, recv_ns: int) -> list[Event]: ...


def venue_of(url: str) -> str:
    """The venue's name. Paths decide where they can, so that a local server can be all venues at one address.

    Raises ValueError for a URL of none of them.
    """
    parts = urlsplit(url)
    host, path = parts.hostname or "", parts.path
    by_path = {"/fapi": "binance_um", "/dapi": "binance_cm", "/api/v3": "binance"}
    for prefix, venue in by_path.items():
        if path.startswith(prefix):
            return venue
    if path.startswith("/v5/"):
        return _bybit_venue(path, parts.query)
    if "dstream" in host or path.startswith(COIN_M_PATH):
        return "binance_cm"
    if "fstream" in host or path.startswith(("/public", "/market")):
        return "binance_um"
    if path.startswith(("/stream", "/ws")) and ("binance" in host or is_local(url)):
        return "binance"
    raise ValueError(f"no decoder for {url[:200]!r}: known are Binance spot, USD-M, COIN-M and Bybit v5 public")


def decoder_for(url: str) -> tuple[str, Decoder]:
    """(venue, a new decoder) for a connection. Raises ValueError for a venue that is not known."""
    venue = venue_of(url)
    match venue:
        case "binance" | "binance_um" | "binance_cm":
            return venue, BinanceDecoder(venue)
        case "bybit" | "bybit_spot" | "bybit_inverse":
            return venue, BybitDecoder(venue)
    raise ValueError(f"no decoder for venue {venue}")


def is_local(url: str) -> bool:
    """Whether a URL is on loopback, where no venue is: the simulated exchange's."""
    host = urlsplit(url).hostname or ""
    return host in ("localhost", "::1", "0.0.0.0") or host.startswith("127.")


def _bybit_venue(path: str, query: str) -> str:
    category = path.rsplit("/", 1)[-1] if path.startswith("/v5/public/") else ""
    for name, venue in (("spot", "bybit_spot"), ("inverse", "bybit_inverse")):
        if category == name or f"category={name}" in query:
            return venue
    if category not in ("", "linear"):
        raise ValueError(f"no decoder for Bybit's {category!r}: known are linear, spot and inverse")
    return "bybit"


@dataclass(frozen=True)
class Plan:
    """One connection to make: where, what to ask for, and which (symbol, table) it will feed."""

    url: str
    requests: tuple[str, ...]
    feeds: tuple[tuple[str, str], ...]
    requests_per_s: float
    ping: str = ""
    """The venue's own ping, a text message; empty where WebSocket pings do."""
    ping_s: float = 20.0
    depth_urls: tuple[tuple[str, str], ...] = ()
    """(symbol, REST URL) of the depth snapshots that the books start from. Their weights: rate_limit.weight_of."""
    trades_url: str = ""
    """Template with {symbol} and {from_id} of the REST call that refills trades; empty where there is none."""
    lifetime_s: float | None = None
    """The venue cuts a connection at 24 h: take a new one, less some jitter, before this. None: no cut is known."""
    silence_s: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """How long a (symbol, table) may be silent before the stream counts as broken; absent: silence is normal."""
