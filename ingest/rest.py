"""The few REST calls that capture makes, with patience for what passes and none for what does not."""

import asyncio
from typing import Final

import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from core.errors import StageError
from ingest.venues import is_local

_TIMEOUT_S: Final = 10.0
_ATTEMPTS: Final = 6
_LONGEST_WAIT_S: Final = 30.0
_TOO_MANY: Final = (418, 429)  # 418 is Binance's ban for going on after 429 (exchange_protocols.md A.8)


def is_transient(error: BaseException) -> bool:
    """Whether asking again may help: the network, an overloaded server, a rate limit; never a refusal."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code >= 500 or error.response.status_code in _TOO_MANY
    return isinstance(error, httpx.TransportError)


async def fetch(url: str, timeout_s: float = _TIMEOUT_S) -> bytes:
    """The body of a GET. Raises StageError with the venue's own words when it refuses or stays unreachable."""
    retrying = AsyncRetrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_WAIT_S),
        stop=stop_after_attempt(_ATTEMPTS),
        reraise=True,
    )
    try:
        async with httpx.AsyncClient(timeout=timeout_s, trust_env=not is_local(url)) as client:
            return await retrying(_get, client, url)
    except httpx.HTTPStatusError as error:
        said = error.response.text[:200]
        raise StageError(f"GET {url} was refused with HTTP {error.response.status_code}: {said}") from error
    except httpx.HTTPError as error:
        raise StageError(f"GET {url} failed {_ATTEMPTS} times: {type(error).__name__}: {error}") from error


async def _get(client: httpx.AsyncClient, url: str) -> bytes:
    response = await client.get(url)
    if response.status_code in _TOO_MANY:
        await asyncio.sleep(_retry_after_s(response))
    response.raise_for_status()
    return response.content


def _retry_after_s(response: httpx.Response) -> float:
    """What the venue asks us to wait, at most a minute at a time."""
    text = response.headers.get("retry-after", "")
    return min(float(text), 60.0) if text.isdigit() else 0.0
