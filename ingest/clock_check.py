"""Is the local clock right? What the kernel says of it, and how far the venues' clocks are from it.

A receive time is worth what the clock is worth that gave it. Nothing here corrects a time and nothing is fatal: a
capture says what it found at its start and each hour, and goes on.
"""

import asyncio
import ctypes
import time
from collections.abc import Iterable
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
import msgspec

from core.config import Hosts
from core.units import NS_PER_MS, NS_PER_S
from ingest.venues import is_local

WORST_OFFSET_NS: Final = 50 * NS_PER_MS
"""A clock that is off by more is warned of: a step of that size is a gap (ingest/receive_clock.py)."""
_UNSYNCHRONISED: Final = 0x40  # STA_UNSYNC, and
_NANOSECONDS: Final = 0x2000  # STA_NANO of adjtimex(2)
_ERROR: Final = 5  # the clock's state TIME_ERROR
_UNKNOWN_ERROR_NS: Final = 16 * NS_PER_S  # NTP_PHASE_LIMIT: what the kernel says once nobody has told it the error
_ASKED: Final = 3  # times per venue: the quickest answer bounds the offset best
_TIMEOUT_S: Final = 5.0
_NS_PER_US: Final = 1_000


class KernelClock(NamedTuple):
    """The kernel's view of its clock. Errors as its NTP client estimates them."""

    synchronised: bool
    estimated_error_ns: int
    largest_error_ns: int
    offset_ns: int

    @property
    def error_is_known(self) -> bool:
        """Whether somebody who knows keeps the clock: without, the kernel lets the error grow to its limit."""
        return max(self.estimated_error_ns, self.largest_error_ns) < _UNKNOWN_ERROR_NS


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2), as on all 64-bit Linuxes."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def kernel_clock() -> KernelClock | None:
    """What adjtimex(2) says; None where there is none (macOS), or where a sandbox forbids asking."""
    timex = _Timex()
    try:
        state = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    except (AttributeError, OSError):
        return None
    if state < 0:
        return None
    offset_unit_ns = 1 if timex.status & _NANOSECONDS else _NS_PER_US
    return KernelClock(
        synchronised=state != _ERROR and not timex.status & _UNSYNCHRONISED,
        estimated_error_ns=timex.esterror * _NS_PER_US,
        largest_error_ns=timex.maxerror * _NS_PER_US,
        offset_ns=timex.offset * offset_unit_ns,
    )


class VenueClock(NamedTuple):
    """A venue's clock less ours, known to within half the round trip of asking; `problem` where it did not tell."""

    venue: str
    offset_ns: int
    half_round_trip_ns: int
    problem: str = ""

    def facts(self) -> dict[str, Any]:
        """For the log."""
        if self.problem:
            return {"venue": self.venue, "problem": self.problem}
        offset_ms, half_ms = self.offset_ns / NS_PER_MS, self.half_round_trip_ns / NS_PER_MS
        return {"venue": self.venue, "offset_ms": round(offset_ms, 3), "half_round_trip_ms": round(half_ms, 3)}

    @property
    def is_off(self) -> bool:
        """Whether the clocks differ by more than is tolerable, whatever the way of the answer took."""
        return not self.problem and abs(self.offset_ns) - self.half_round_trip_ns > WORST_OFFSET_NS


def time_url(venue: str, hosts: Hosts) -> str:
    """Where a venue tells the time (exchange_protocols.md A.5, B, C.4); empty for one that is not known."""
    match venue:
        case "binance_um":
            return f"{hosts.binance_um_rest}/fapi/v1/time"
        case "binance":
            return f"{hosts.binance_rest}/api/v3/time"
        case "bybit" | "bybit_spot" | "bybit_inverse":
            return f"{hosts.bybit_rest}/v5/market/time"
    return ""


async def venue_clocks(venues: Iterable[str], hosts: Hosts) -> list[VenueClock]:
    """The clocks of some venues, asked side by side."""
    urls = {venue: url for venue in sorted(set(venues)) if (url := time_url(venue, hosts))}
    return list(await asyncio.gather(*(_venue_clock(venue, url) for venue, url in urls.items())))


async def _venue_clock(venue: str, url: str) -> VenueClock:
    """The quickest of some answers on one connection, so that its opening does not count as the way."""
    try:
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, trust_env=not is_local(url)) as client:
            answers = [await _ask(client, venue, url) for _ in range(_ASKED)]
    except (httpx.HTTPError, msgspec.MsgspecError, ValueError) as error:
        return VenueClock(venue, 0, 0, _why(error, url))
    return min(answers, key=lambda answer: answer.half_round_trip_ns)


def _why(error: Exception, url: str) -> str:
    """Why a venue's clock is not known, in plain words."""
    parts = urlsplit(url)
    host = f"{parts.scheme}://{parts.netloc}"
    match error:
        case httpx.ConnectError():
            return f"cannot connect to {host}"
        case httpx.TimeoutException():
            return f"{host} did not answer within {_TIMEOUT_S:g} s"
        case httpx.HTTPStatusError():
            return f"{host} answered with HTTP {error.response.status_code}"
        case httpx.HTTPError():
            return f"the connection to {host} broke"
    return f"the answer of {host} holds no time"


class _Result(msgspec.Struct):
    timeNano: int


class _Answer(msgspec.Struct):
    """Binance's answer, and Bybit's, which writes its nanoseconds as text."""

    serverTime: int = 0
    result: _Result | None = None


async def _ask(client: httpx.AsyncClient, venue: str, url: str) -> VenueClock:
    wall_ns, began_ns = time.time_ns(), time.monotonic_ns()
    response = await client.get(url)
    half_ns = (time.monotonic_ns() - began_ns) // 2
    response.raise_for_status()
    answer = msgspec.json.decode(response.content, type=_Answer, strict=False)
    venue_ns = answer.result.timeNano if answer.result else answer.serverTime * NS_PER_MS
    if not venue_ns:
        raise ValueError("no time in the answer")
    return VenueClock(venue, venue_ns - (wall_ns + half_ns), half_ns)


class Clocks(NamedTuple):
    """What one check found."""

    kernel: KernelClock | None
    venues: list[VenueClock]

    def lines(self) -> list[str]:
        """For the terminal; what should worry begins with `WARNING`."""
        return [_kernel_line(self.kernel), *(_venue_line(venue) for venue in self.venues)]

    def facts(self) -> dict[str, Any]:
        """For the log."""
        return {
            "synchronised": self.kernel and self.kernel.synchronised,
            "estimated_error_ms": _known_error_ms(self.kernel),
            "venues": [venue.facts() for venue in self.venues],
        }


async def check_clocks(venues: Iterable[str], hosts: Hosts) -> Clocks:
    """Our clock as the kernel sees it, and those of the venues."""
    return Clocks(kernel_clock(), await venue_clocks(venues, hosts))


def _known_error_ms(kernel: KernelClock | None) -> float | None:
    return kernel.estimated_error_ns / NS_PER_MS if kernel and kernel.error_is_known else None


def _kernel_line(kernel: KernelClock | None) -> str:
    if kernel is None:
        return "clock: this system does not say whether it is synchronised"
    errors = "error unknown"
    if kernel.error_is_known:
        errors = f"estimated error {_ms(kernel.estimated_error_ns)}, at most {_ms(kernel.largest_error_ns)}"
    if not kernel.synchronised:
        return f"WARNING clock: not synchronised ({errors}), receive times drift: run chrony"
    warning = "WARNING " if abs(kernel.offset_ns) > WORST_OFFSET_NS else ""
    return f"{warning}clock: synchronised, {errors}"


def _venue_line(venue: VenueClock) -> str:
    if venue.problem:
        return f"clock of {venue.venue}: unknown, {venue.problem}"
    warning = "WARNING " if venue.is_off else ""
    ahead = "ahead of" if venue.offset_ns >= 0 else "behind"
    span = f"{_span(abs(venue.offset_ns))} ± {_ms(venue.half_round_trip_ns)}"
    return f"{warning}clock of {venue.venue}: {span} {ahead} ours"


def _span(ns: int) -> str:
    """Milliseconds, or what says more where those would be many."""
    seconds = ns / NS_PER_S
    if seconds < 10:
        return _ms(ns)
    return f"{seconds:,.1f} s" if seconds < 86_400 else f"{seconds / 86_400:,.1f} days"


def _ms(ns: int) -> str:
    return f"{ns / NS_PER_MS:,.1f} ms"
