"""Subscriptions of one connection: asked for at the venue's pace, and read until all are acknowledged."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from core.errors import StageError
from ingest.transport import Interrupted, Socket, send_requests
from ingest.venues import Decoder, Plan


async def subscribe(
    socket: Socket, plan: Plan, decoder: Decoder, timeout_s: float, acknowledged: Callable[[], None]
) -> None:
    """Send the plan's requests and wait until the venue has answered all. `acknowledged` is called at that very frame.

    Frames go where they go already. Raises StageError for a refusal, Interrupted or TimeoutError if no answer comes.
    """
    awaited, take = len(plan.requests), socket.take
    answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    decoder.refused.clear()

    def count(message: bytes) -> None:
        nonlocal awaited
        before = decoder.ignored["ack"]
        take(message)
        awaited -= decoder.ignored["ack"] - before
        if answered.done() or (awaited > 0 and not decoder.refused):
            return
        answered.set_result(None)
        if not decoder.refused:
            acknowledged()

    if not awaited:
        return
    socket.take = count
    await first_of(
        send_requests(socket, plan.requests, 0.0 if socket.is_virtual else plan.requests_per_s), _end(socket)
    )
    async with asyncio.timeout(timeout_s):
        await first_of(_done(answered), _end(socket))
    socket.take = take
    if decoder.refused:
        raise StageError(f"{plan.url} refused a subscription: {decoder.refused[0]}: check `symbols`")


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
