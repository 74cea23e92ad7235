"""Depth snapshots for books that have none to stand on: at the start, and after a change that does not follow."""

import asyncio
import time
from collections.abc import Callable
from typing import Final

from core.errors import StageError
from ingest.reception import Reception
from ingest.rest import RestClient

_TICK_S: Final = 0.25
_PAUSE_S: Final = (1.0, 60.0)  # between two snapshots of one symbol: first, and at most
_PATIENCE_S: Final = 5.0  # until a book that only a new subscription can mend costs one
_AT_ONCE: Final = 4  # snapshots on their way: 200 symbols start within seconds, and budgets are kept all the same


class Resync:
    """Fetches snapshots where the plan has a URL for them; where only a new subscription brings one, asks for that."""

    def __init__(self, reception: Reception, rest: RestClient, timeout_s: float, say: Callable[[str], None]) -> None:
        self._reception = reception
        self._rest = rest
        self._timeout_s = timeout_s
        self._say = say
        self._urls = dict(reception.plan.depth_urls)
        self._due_s: dict[str, tuple[float, float]] = {}
        self._told: dict[str, str] = {}

    async def run(self, resubscribe: Callable[[str], None]) -> None:
        """Mend books for as long as the connection lasts. `resubscribe` is told why, and brings a new snapshot."""
        while True:
            await asyncio.sleep(_TICK_S)
            wanting = self._reception.decoder.wants_snapshot
            if not wanting:
                continue
            due = [symbol for symbol in wanting if self._is_due(symbol)]
            if self._urls:
                for first in range(0, len(due), _AT_ONCE):
                    await asyncio.gather(*(self.snapshot(symbol) for symbol in due[first : first + _AT_ONCE]))
            elif due:
                resubscribe(f"the book of {due[0]} does not follow on")

    async def snapshot(self, symbol: str) -> None:
        """Fetch a depth snapshot. Without one there is no book, and `gaps` says so; everything else goes on."""
        url = self._urls[symbol]
        try:
            body = await self._rest.get(url, self._timeout_s)
        except StageError as error:
            self._tell(symbol, str(error))
            return
        reception = self._reception
        reception.tell(reception.take_rest(url, body), reception.present_ns())

    def _is_due(self, symbol: str) -> bool:
        """True at most once per pause, which doubles up to a minute: a snapshot costs 20 of 2,400 weights.

        A book that mended itself starts afresh. A subscription brings a snapshot itself, if it is given the time.
        """
        now_s = time.monotonic()
        first_due_s = now_s if self._urls else now_s + _PATIENCE_S
        due_s, pause_s = self._due_s.get(symbol, (first_due_s, _PAUSE_S[0] if self._urls else _PATIENCE_S))
        if now_s < due_s:
            self._due_s[symbol] = due_s, pause_s
            return False
        self._due_s[symbol] = now_s + pause_s, min(2 * pause_s, _PAUSE_S[1])
        return True

    def _tell(self, symbol: str, why: str) -> None:
        """Say why there is no snapshot, once for each reason."""
        if self._told.get(symbol) != why:
            self._told[symbol] = why
            self._say(f"no snapshot for the book of {self._reception.venue}:{symbol}: {why}")
