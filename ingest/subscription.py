"""Subscriptions of one connection: asked for at the venue's pace, and read until all are acknowledged."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from core.errors import StageError
from ingest.transport import Interrupted, Socket, Take, send_requests
from ingest.venues import Decoder, Plan


class Subscription:
    """The requests of one new connection. `acknowledged` is called at the very frame that answers the last of them."""

    def __init__(self, plan: Plan, decoder: Decoder, acknowledged: Callable[[], None]) -> None:
        self._plan = plan
        self._decoder = decoder
        self._acknowledged = acknowledged
        self._awaited = len(plan.requests)
        self._answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._take: Take | None = None
        decoder.refused.clear()

    def counting(self, take: Take) -> Take:
        """`take`, which counts the answers among the messages, from the very first."""
        self._take = take
        return self._count

    async def complete(self, socket: Socket, timeout_s: float) -> None:
        """Ask, and wait until all is answered. Raises StageError for a refusal, Interrupted or TimeoutError else."""
        plan, refused = self._plan, self._decoder.refused
        if plan.requests:
            per_s = 0.0 if socket.is_virtual else plan.requests_per_s
            await first_of(send_requests(socket, plan.requests, per_s), _end(socket))
            async with asyncio.timeout(timeout_s):
                await first_of(_done(self._answered), _end(socket))
        if refused:
            raise StageError(f"{plan.url} refused a subscription: {refused[0]}: check `symbols`")
        assert self._take is not None
        socket.take = self._take

    def _count(self, message: bytes) -> None:
        assert self._take is not None
        decoder, before = self._decoder, self._decoder.ignored["ack"]
        self._take(message)
        self._awaited -= decoder.ignored["ack"] - before
        if self._answered.done() or (self._awaited > 0 and not decoder.refused):
            return
        self._answered.set_result(None)
        if not decoder.refused:
            self._acknowledged()


async def first_of(*works: Coroutine[Any, Any, None]) -> None:
    """Run all until the first is done, and end the others. Raises what it raised."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()


async def _done(future: "asyncio.Future[None]") -> None:
    await asyncio.wait([future])


async def _end(socket: Socket) -> None:
    """Raises why the connection ended."""
    await asyncio.wait([socket.ended])
    why = socket.ended.result()
    raise why if isinstance(why, StageError) else Interrupted(f"{why} before subscriptions were acknowledged")
