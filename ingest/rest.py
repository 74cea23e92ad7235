"""GET requests to venues: connections that are reused, budgets kept, patience for what passes and none for refusals.

What each status means: exchange_protocols.md A.8 (Binance) and C.4, C.5 (Bybit).
"""

import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from core.errors import StageError
from ingest.rate_limit import RateLimiter, provider_of
from ingest.venues import is_local

TIMEOUT_S: Final = 10.0
_ATTEMPTS: Final = 6
_LONGEST_BACKOFF_S: Final = 30.0
_FOREVER_S: Final = float("inf")
_SHORTEST_BAN_S: Final = 120.0  # of Binance's 418, which grows up to 3 days
_SHORTEST_WAIT_S: Final = 1.0  # of a 429
_FORBIDDEN_S: Final = 600.0  # Bybit: after "access too frequent" stop all for 10 min; Binance's firewall alike
_WEIGHT_HEADER: Final = "x-mbx-used-weight-1m"
_RESET_HEADER: Final = "x-bapi-limit-reset-timestamp"
_BYBIT_TOO_MANY, _BYBIT_BUSY = 10006, (10000, 10016)


class RestError(StageError):
    """A request that brought nothing, and why. `status` is HTTP's, 0 where none came; transient: worth trying later."""

    def __init__(self, message: str, status: int = 0, is_transient: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.is_transient = is_transient


class _Envelope(msgspec.Struct):
    """Bybit's: HTTP 200 may carry an error."""

    retCode: int = 0
    retMsg: str = ""


class RestClient:
    """Asks venues. One per run and event loop; `limiter` may be shared with others that ask from this address."""

    def __init__(self, limiter: RateLimiter | None = None, say: Callable[[str], None] = print) -> None:
        self.limiter = limiter or RateLimiter()
        self._say = say
        self._clients: dict[bool, httpx.AsyncClient] = {}

    async def __aenter__(self) -> "RestClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; the next request would open new ones."""
        while self._clients:
            _, client = self._clients.popitem()
            await client.aclose()

    async def get(self, url: str, timeout_s: float = TIMEOUT_S, headers: Mapping[str, str] | None = None) -> bytes:
        """The body of a GET. Raises RestError with the venue's own words, or Stopped while it must not be asked."""
        retrying = AsyncRetrying(
            retry=retry_if_exception(lambda error: isinstance(error, RestError) and error.is_transient),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_BACKOFF_S),
            stop=stop_after_attempt(_ATTEMPTS),
            reraise=True,
        )
        return await retrying(self._get, url, timeout_s, headers)

    async def _get(self, url: str, timeout_s: float, headers: Mapping[str, str] | None) -> bytes:
        """One attempt, when the budget allows it."""
        await self.limiter.acquire(url)
        try:
            response = await self._client(url).get(url, timeout=timeout_s, headers=headers)
        except httpx.RequestError as error:  # an answer that does not decompress is one too
            why = f"{type(error).__name__}: {error}".rstrip(": ")
            raise RestError(f"GET {url} failed: {why}", is_transient=True) from error
        if used := response.headers.get(_WEIGHT_HEADER, ""):
            self.limiter.heard(url, float(used))
        self._check_status(url, response)
        if urlsplit(url).path.startswith("/v5/"):
            self._check_envelope(url, response)
        return response.content

    def _client(self, url: str) -> httpx.AsyncClient:
        """Proxies of the environment are for what is not on this machine."""
        local = is_local(url)
        if local not in self._clients:
            self._clients[local] = httpx.AsyncClient(trust_env=not local)
        return self._clients[local]

    def _check_status(self, url: str, response: httpx.Response) -> None:
        """Raises RestError for anything but success; what concerns all requests to the provider stops them."""
        status = response.status_code
        if response.is_success:
            return
        said = " ".join(response.text[:200].split())
        if status in (418, 429):
            self._stop(url, _retry_after_s(response), f"HTTP {status}, over its rate limit")
        elif status == 403:
            self._stop(url, _FORBIDDEN_S, f"HTTP 403, too many requests or a region it does not serve: {said}")
        elif status == 451:
            self._stop(url, _FOREVER_S, f"HTTP 451, it does not serve this region: {said}")
        passing = status in (408, 418, 429) or status >= 500
        raise RestError(f"GET {url} was refused with HTTP {status}: {said}", status, passing)

    def _check_envelope(self, url: str, response: httpx.Response) -> None:
        """Raises RestError for an error that came with HTTP 200."""
        try:
            said = msgspec.json.decode(response.content, type=_Envelope)
        except msgspec.DecodeError:
            return  # whoever asked knows what it should have been
        if said.retCode == _BYBIT_TOO_MANY:
            self._stop(url, _until_reset_s(response), "retCode 10006, over its rate limit")
        if said.retCode:
            passing = said.retCode == _BYBIT_TOO_MANY or said.retCode in _BYBIT_BUSY
            message = f"GET {url} was refused with retCode {said.retCode}: {said.retMsg[:200]}"
            raise RestError(message, response.status_code, passing)

    def _stop(self, url: str, for_s: float, why: str) -> None:
        self.limiter.stop(url, for_s, why)
        until = "until the next start" if for_s == _FOREVER_S else f"for {for_s:,.0f} s"
        self._say(f"{provider_of(url)}: {why}; it is not asked {until}")


async def fetch(url: str, timeout_s: float = TIMEOUT_S) -> bytes:
    """The body of a single GET. Raises as `RestClient.get` does; who asks more often keeps a client."""
    async with RestClient() as client:
        return await client.get(url, timeout_s)


def _retry_after_s(response: httpx.Response) -> float:
    """What the venue asks us to wait, in seconds or as a date; without it the rest of its minute, or the least ban."""
    is_ban, asked_s = response.status_code == 418, _asked_s(response.headers)
    if asked_s is None:
        return _SHORTEST_BAN_S if is_ban else 60.0 - time.time() % 60.0
    if asked_s <= 0.0 and is_ban:  # no ban ends at once
        return _SHORTEST_BAN_S
    return max(asked_s, _SHORTEST_WAIT_S)


def _asked_s(headers: httpx.Headers) -> float | None:
    """Seconds that `Retry-After` names; a date counts from the answer's own, whatever our clock says."""
    text = headers.get("retry-after", "")
    if text.isdecimal():
        return float(text)
    try:
        until_s = parsedate_to_datetime(text).timestamp()
    except ValueError:
        return None
    try:
        return until_s - parsedate_to_datetime(headers.get("date", "")).timestamp()
    except ValueError:
        return until_s - time.time()


def _until_reset_s(response: httpx.Response) -> float:
    """Bybit says when its counter starts anew, in ms; a second where it does not."""
    text = response.headers.get(_RESET_HEADER, "")
    return min(max(0.0, int(text) / 1e3 - time.time()), 60.0) if text.isdigit() else 1.0
