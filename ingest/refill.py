"""Trades that a stream left out, fetched by REST: Binance numbers its aggregate trades without gaps.

Each hole becomes one row of `gaps`, with how it was mended, once that is known.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import msgspec

from core.errors import StageError
from core.schema import TRADES
from ingest.events import Event, Gap, TradeHole
from ingest.reception import Reception
from ingest.rest import RestClient

_TICK_S: Final = 0.25
_DRAIN_S: Final = 3.0
_MOST_TRADES: Final = 100_000  # of one hole: 100 requests of 20 weights, most of the budget of a minute
_MOST_WAITING: Final = 1_000  # holes


class _AggTrade(msgspec.Struct):
    a: int


class Refill:
    """Takes the holes that a decoder met, oldest first, and fills them from `plan.trades_url`."""

    def __init__(self, reception: Reception, rest: RestClient, timeout_s: float, say: Callable[[str], None]) -> None:
        self._reception = reception
        self._rest = rest
        self._timeout_s = timeout_s
        self._say = say
        self._waiting: deque[TradeHole] = deque()

    async def run(self) -> None:
        """Refill for as long as the feed lasts."""
        while True:
            await asyncio.sleep(_TICK_S)
            await self._mend_all()

    async def drain(self) -> None:
        """No trade comes any more: fill what waits, in a time for which who ends a capture need not mind waiting."""
        if self._rest.limiter.stopped_s(self._reception.plan.trades_url) > _DRAIN_S:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_S):
                await self._mend_all()

    def finish(self) -> None:
        """The capture ends: holes that still wait stay open."""
        self._collect()
        while self._waiting:
            self._tell(self._waiting.popleft(), 0, "the capture ended first")

    async def _mend_all(self) -> None:
        self._collect()
        while self._waiting:
            await self._mend(self._waiting[0])
            self._waiting.popleft()
            self._collect()

    def _collect(self) -> None:
        missed = self._reception.decoder.missed
        self._waiting.extend(missed)
        missed.clear()
        while len(self._waiting) > _MOST_WAITING:  # the newest: what is being mended stands first
            self._tell(self._waiting.pop(), 0, f"more than {_MOST_WAITING} holes wait")

    async def _mend(self, hole: TradeHole) -> None:
        """Ask page by page, pass on what is new, and tell how it went."""
        next_id, brought, why = hole.first_id, 0, ""
        if hole.last_id - hole.first_id >= _MOST_TRADES:
            why = f"more than {_MOST_TRADES:,} are not asked for"
        misses = self._reception.decoder.still_misses
        while not why and next_id <= hole.last_id and misses(hole):  # not if the pages of another hole brought it
            try:
                numbers, trades = await self._page(hole.symbol, next_id)
            except StageError as error:
                why = str(error)
                break
            self._reception.counts.refilled += len(trades)
            self._reception.tell(trades, self._reception.present_ns())
            brought += len(trades)
            if next_id not in numbers:
                why = f"the venue gives no trade {next_id}"
                break
            next_id = max(numbers) + 1
        if not why and misses(hole):
            why = "not all of them came"
        self._tell(hole, brought, why)

    async def _page(self, symbol: str, first_id: int) -> tuple[list[int], list[Event]]:
        """The ids that the venue gives from `first_id` on, and those of its trades that were missing until now."""
        url = self._reception.plan.trades_url.format(symbol=symbol, from_id=first_id)
        body = await self._rest.get(url, self._timeout_s)
        trades = self._reception.take_rest(url, body)
        try:
            return [row.a for row in msgspec.json.decode(body, type=list[_AggTrade])], trades
        except msgspec.DecodeError:
            return [], trades  # it is counted among what did not decode

    def _tell(self, hole: TradeHole, brought: int, why: str) -> None:
        """One gap for the hole, with how it was mended. What REST did not have to bring came late by the stream."""
        symbol, first_id, last_id, from_ns, to_ns = hole
        reason = f"aggTrades {first_id}-{last_id} missed, {brought} refilled by REST"
        reason = f"{reason}: {why}" if why else reason
        gaps: list[Event] = [Gap(symbol, TRADES.name, from_ns, to_ns, reason, not why)]
        self._reception.tell(gaps, self._reception.present_ns())
        if why:
            self._say(f"{self._reception.venue}:{symbol} {reason}")
