"""Archive files over HTTP: a few at a time, resumed where a connection was cut, verified before they get their name.

A partial download is `NAME.part`. 404 means that the archive has no such file, which is normal. Binance publishes a
sha256 beside each file: one that lacks it is marked as unverified. What others send is verified by the checksums inside
gzip and zip when it is read.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import httpx
from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, wait_random_exponential

from core.errors import StageError
from ingest.archives.formats import ArchiveFile, unverified_mark
from ingest.archives.importing import sha256_of
from ingest.venues import is_local

Outcome = Literal["there", "absent"]
_ATTEMPTS: Final = 8
_CHECKSUM_ATTEMPTS: Final = 3
_TIMEOUT_S: Final = 30.0
_LONGEST_BACKOFF_S: Final = 30.0
_LONGEST_WAIT_S: Final = 120.0
_TOO_MANY: Final = (418, 429)
_ABSENT, _PARTIAL, _BEYOND_END = 404, 206, 416


class _Busy(Exception):
    """The server asks us to come back later."""


@dataclass
class Downloader:
    """Downloads of one run. `connections` bounds how many are under way; `headers` go with each request."""

    connections: int
    headers: Mapping[str, str]
    backoff_s: float = 0.5

    async def in_order(
        self, files: Sequence[ArchiveFile], checked: Callable[[ArchiveFile], bool]
    ) -> AsyncIterator[tuple[ArchiveFile, Outcome | StageError]]:
        """Each file with what became of it, in the order given, while later ones are on their way.

        `checked` tells the files that have a sha256 beside them.
        """
        local = bool(files) and is_local(files[0].url)
        async with httpx.AsyncClient(
            timeout=httpx.Timeout(_TIMEOUT_S, pool=None),  # a long download may keep others waiting for longer
            limits=httpx.Limits(max_connections=self.connections),
            headers={"accept-encoding": "identity", **self.headers},
            follow_redirects=True,
            trust_env=not local,
        ) as client:
            pending: list[asyncio.Task[Outcome | StageError]] = []
            try:
                for at, file in enumerate(files):
                    ahead = files[at + len(pending) : at + 2 * self.connections]
                    pending += [asyncio.create_task(self._attempt(client, each, checked(each))) for each in ahead]
                    yield file, await pending.pop(0)
            finally:
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)

    async def _attempt(self, client: httpx.AsyncClient, file: ArchiveFile, checked: bool) -> Outcome | StageError:
        try:
            return await self._download(client, file, checked)
        except StageError as error:
            return error

    async def _download(self, client: httpx.AsyncClient, file: ArchiveFile, checked: bool) -> Outcome:
        """Get a file unless it is there. A wrong checksum is tried once more from the start."""
        if file.path.exists():
            return "there"
        part = file.path.with_name(file.path.name + ".part")
        part.parent.mkdir(parents=True, exist_ok=True)
        for _ in range(2):
            if not await self._whole(client, file.url, part):
                return "absent"
            wanted = await self._checksum(client, file.url) if checked else ""
            found = await asyncio.to_thread(sha256_of, part) if wanted else ""
            if wanted == found:
                _mark(file, unverified=checked and not wanted)
                part.replace(file.path)
                return "there"
            part.unlink()
        raise StageError(f"{file.url}: its sha256 is {found}, its .CHECKSUM says {wanted}, twice: try again later")

    async def _whole(self, client: httpx.AsyncClient, url: str, part: Path) -> bool:
        """Get all of a file, however often the connection is cut, as long as each round of attempts brings some."""
        while True:
            size = _size(part)
            try:
                return await self._patiently(self._body, client, url, part)
            except StageError:
                if _size(part) <= size:
                    raise

    async def _checksum(self, client: httpx.AsyncClient, url: str) -> str:
        """The published sha256, empty where there is none, even when it is asked for again."""
        for attempt in range(_CHECKSUM_ATTEMPTS):
            await asyncio.sleep(self.backoff_s * attempt)
            text: list[str] = []
            await self._patiently(_read_text, client, f"{url}.CHECKSUM", text)
            if words := "".join(text).split():
                return words[0].lower()
        return ""

    async def _patiently(self, get: Callable[..., Awaitable[bool]], *args: Any) -> bool:
        """Call `get(client, url, ...)` until it ends; False where the server has no such file. Raises StageError."""
        url = args[1]
        retrying = AsyncRetrying(
            retry=retry_if_exception(_is_transient),
            wait=wait_random_exponential(multiplier=self.backoff_s, max=_LONGEST_BACKOFF_S),
            stop=stop_after_attempt(_ATTEMPTS),
            reraise=True,
        )
        try:
            return await retrying(get, *args)
        except httpx.HTTPStatusError as error:
            raise StageError(_refusal(url, error.response)) from error
        except (httpx.HTTPError, _Busy) as error:
            raise StageError(f"GET {url} failed {_ATTEMPTS} times: {type(error).__name__}: {error}") from error

    async def _body(self, client: httpx.AsyncClient, url: str, part: Path) -> bool:
        """Add to the part what is missing of it, or begin anew where the server does not resume."""
        begun = _size(part)
        headers = {"range": f"bytes={begun}-"} if begun else {}
        async with client.stream("GET", url, headers=headers) as response:
            if response.status_code == _BEYOND_END:
                part.unlink()  # of another size than what is there now, or whole but never verified
                raise _Busy("the partial file does not fit")
            if not await _is_there(response):
                return False
            resumed = response.status_code == _PARTIAL and f"bytes {begun}-" in response.headers.get(
                "content-range", ""
            )
            with part.open("ab" if resumed else "wb") as out:
                async for piece in response.aiter_raw():  # as it comes: what is gathered is lost with the connection
                    out.write(piece)
        return True


def _mark(file: ArchiveFile, unverified: bool) -> None:
    """Leave a mark beside a file that could not be verified, before it gets its name."""
    mark = unverified_mark(file.path)
    if unverified:
        mark.touch()
    else:
        mark.unlink(missing_ok=True)


async def _read_text(client: httpx.AsyncClient, url: str, into: list[str]) -> bool:
    async with client.stream("GET", url) as response:
        if not await _is_there(response):
            return False
        into.append((await response.aread()).decode(errors="replace"))
    return True


async def _is_there(response: httpx.Response) -> bool:
    """False for 404. Raises _Busy after the wait that the server asks for, HTTPStatusError for refusals."""
    if response.status_code == _ABSENT:
        return False
    if response.status_code in _TOO_MANY or response.status_code >= 500:
        await asyncio.sleep(_retry_after_s(response))
        raise _Busy(f"HTTP {response.status_code}")
    if response.is_error:
        await response.aread()
    response.raise_for_status()
    return True


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _retry_after_s(response: httpx.Response) -> float:
    text = response.headers.get("retry-after", "")
    return min(float(text), _LONGEST_WAIT_S) if text.isdigit() else 0.0


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, _Busy | httpx.TransportError)


def _refusal(url: str, response: httpx.Response) -> str:
    hint = ": is the key in TARDIS_API_KEY valid?" if response.status_code in (401, 403) and "/v1/" in url else ""
    return f"GET {url} was refused with HTTP {response.status_code}{hint} {response.text[:200]}".rstrip()
