"""Trades that a stream left out, fetched by REST: Binance numbers its aggregate trades without gaps.

The decoder tells a hole as a gap at once. Here a second row follows, `mended`, when all of it came; or two, when a part
did: what still lacks as a gap of its own, and then that the rest is mended. Whoever kills us in between leaves the hole
told, and no more of it mended than is on disk (ingest/rows.py puts such a row behind the trades).
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from typing import Final

import msgspec

from core.errors import StageError
from core.schema import TRADES
from ingest.events import Event, Gap, Trade, TradeHole
from ingest.open_holes import MOST_TOLD
from ingest.rate_limit import Stopped
from ingest.reception import Reception
from ingest.rest import RestClient

_TICK_S: Final = 0.25
_DRAIN_S: Final = 3.0
_MOST_WAITING: Final = 1_000  # holes


class _AggTrade(msgspec.Struct):
    a: int


@dataclass
class _Waiting:
    """A hole that is to be filled, and the receipts that were assumed for what REST brought of it, by id."""

    hole: TradeHole
    brought_ns: dict[int, int] = field(default_factory=dict)


class Refill:
    """Takes the holes that a decoder met, oldest first, and fills them from `plan.trades_url`."""

    def __init__(self, reception: Reception, rest: RestClient, timeout_s: float, say: Callable[[str], None]) -> None:
        self._reception = reception
        self._rest = rest
        self._timeout_s = timeout_s
        self._say = say
        self._waiting: deque[_Waiting] = deque()
        self._stopped_until_s = 0.0

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
            self._conclude(self._waiting.popleft(), "the capture ended first")

    async def _mend_all(self) -> None:
        """Fill what waits. Where the venue must not be asked for a while, what is left waits until it may be."""
        self._collect()
        while self._waiting and time.monotonic() >= self._stopped_until_s:
            waiting = self._waiting[0]
            try:
                why = await self._fetch(waiting)
            except Stopped as stop:  # said by whoever was told so
                self._stopped_until_s = time.monotonic() + stop.wait_s
                return
            self._conclude(waiting, why)
            self._waiting.popleft()
            self._collect()

    def _collect(self) -> None:
        missed = self._reception.decoder.missed
        self._waiting.extend(map(_Waiting, missed))
        missed.clear()
        while len(self._waiting) > _MOST_WAITING:  # the newest: what is being mended stands first
            self._conclude(self._waiting.pop(), f"more than {_MOST_WAITING} holes wait")

    async def _fetch(self, waiting: _Waiting) -> str:
        """Ask page by page and pass on what is new. Why not all of the hole came; empty if it did. Raises Stopped where
        it may come later."""
        missing = self._reception.decoder.missing
        while left := missing(waiting.hole):  # not if the pages of another hole brought it
            next_id = left[0][0]
            try:
                numbers, trades = await self._page(waiting.hole.symbol, next_id)
            except StageError as error:
                if isinstance(error, Stopped) and error.wait_s < inf:
                    raise
                return str(error)
            self._reception.counts.refilled += len(trades)
            self._reception.tell([*trades], self._reception.present_ns())
            waiting.brought_ns |= {int(trade.trade_id): trade.recv_ns for trade in trades}
            if next_id not in numbers:
                return f"the venue gives no trade {next_id}"
            if missing(waiting.hole)[:1] == left[:1]:
                return f"trade {next_id} could not be read"
        return ""

    async def _page(self, symbol: str, first_id: int) -> tuple[list[int], list[Trade]]:
        """The ids that the venue gives from `first_id` on, and those of its trades that were missing until now."""
        url = self._reception.plan.trades_url.format(symbol=symbol, from_id=first_id)
        body = await self._rest.get(url, self._timeout_s)
        trades = [event for event in self._reception.take_rest(url, body) if isinstance(event, Trade)]
        try:
            return [row.a for row in msgspec.json.decode(body, type=list[_AggTrade])], trades
        except msgspec.DecodeError:
            return [], trades  # it is counted among what did not decode

    def _conclude(self, waiting: _Waiting, why: str) -> None:
        """Tell how it went, where that is other than what the decoder told. What REST did not bring may have come late
        by the stream.
        """
        hole, brought_ns = waiting.hole, waiting.brought_ns
        count = sum(hole.first_id <= number <= hole.last_id for number in brought_ns)
        reason = f"aggTrades {hole.first_id}-{hole.last_id} missed, {count} refilled by REST"
        to_ns = hole.to_ns  # when the hole was told, also
        mended: list[Event] = [Gap(hole.symbol, TRADES.name, hole.from_ns, to_ns, reason, True, to_ns)]
        if left := self._reception.decoder.missing(hole):
            self._say(f"{self._reception.venue}:{hole.symbol} {reason}: {why}")
            ids = ", ".join(f"{first}-{last}" for first, last in left)[:MOST_TOLD]
            since_ns = brought_ns.get(left[0][0] - 1, hole.from_ns)
            rest = Gap(hole.symbol, TRADES.name, since_ns, to_ns, f"aggTrades {ids} missed: {why}", False, to_ns)
            is_shorter = hole.from_ns < since_ns < to_ns  # else nothing is new to who reads `gaps`
            mended = [rest, *mended] if is_shorter else []
        self._reception.tell(mended, self._reception.present_ns())
