"""Depth snapshots for books that have none to stand on: at the start, and after a change that does not follow."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from core.errors import StageError
from ingest.reception import Reception
from ingest.rest import RestClient

_TICK_S: Final = 0.25
_PAUSE_S: Final = (1.0, 60.0)  # between two snapshots of one symbol: first, and at most
_CALM_S: Final = 600.0  # after which a symbol's pauses are short again
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
        self._wanting_s: dict[str, float] = {}
        self._asked_s: dict[str, tuple[float, float]] = {}
        self._told: dict[str, str] = {}

    async def run(self, resubscribe: Callable[[str], None]) -> None:
        """Mend books for as long as the connection lasts. `resubscribe` is told why, and brings a new snapshot."""
        while True:
            await asyncio.sleep(_TICK_S)
            due = self._due(self._reception.decoder.wants_snapshot, time.monotonic())
            if self._urls:
                due = [symbol for symbol in due if symbol in self._urls]  # a frame may name any
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

    def _due(self, wanting: Sequence[str], now_s: float) -> list[str]:
        """The symbols to ask for now: each once per pause, which doubles. A snapshot costs 20 of 2,400 weights.

        Where a subscription brings the snapshot, a book gets some time to mend by itself.
        """
        if not wanting and not self._wanting_s:
            return []
        patience_s = 0.0 if self._urls else _PATIENCE_S
        self._wanting_s = {symbol: self._wanting_s.get(symbol, now_s) for symbol in wanting}
        due = []
        for symbol, since_s in self._wanting_s.items():
            asked_s, pause_s = self._asked_s.get(symbol, (-_CALM_S, 0.0))
            if now_s - since_s < patience_s or now_s - asked_s < pause_s:
                continue
            calm = now_s - asked_s >= _CALM_S
            self._asked_s[symbol] = now_s, _PAUSE_S[0] if calm else min(2 * pause_s, _PAUSE_S[1])
            due.append(symbol)
        return due

    def _tell(self, symbol: str, why: str) -> None:
        """Say why there is no snapshot, once for each reason."""
        if self._told.get(symbol) != why:
            self._told[symbol] = why
            self._say(f"no snapshot for the book of {self._reception.venue}:{symbol}: {why}")
