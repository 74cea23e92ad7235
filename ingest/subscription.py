"""Subscriptions of one connection: asked for at the venue's pace, and read until all are acknowledged."""

import asyncio
import re
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

import msgspec

from core.errors import StageError
from ingest.transport import Interrupted, Socket, Take, send_requests
from ingest.venues import Decoder, Plan

_REQUEST_ID: Final = re.compile(r'"(?:req_)?id":"?(\d+)')
_TOPICS: Final = ("args", "params")


class Subscription:
    """The requests of one new connection. `acknowledged` is called at the very frame that answers the last of them.

    A venue refuses a request as a whole for one topic in it (exchange_protocols.md C.2). With `do_without` that costs
    this topic alone: the others of its request are asked for one by one, and `do_without` is told of it.
    """

    def __init__(
        self,
        plan: Plan,
        decoder: Decoder,
        acknowledged: Callable[[], None],
        do_without: Callable[[str], None] | None = None,
    ) -> None:
        self._plan = plan
        self._decoder = decoder
        self._acknowledged = acknowledged
        self._do_without = do_without
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
            await self._ask(socket, plan.requests, timeout_s)
        if refused and self._do_without is None:
            raise StageError(f"{plan.url} refused a subscription: {refused[0]}: check `symbols`")
        if refused:
            await self._ask_singly(socket, timeout_s)
        assert self._take is not None
        socket.take = self._take

    async def _ask(self, socket: Socket, requests: Sequence[str], timeout_s: float) -> None:
        per_s = 0.0 if socket.is_virtual else self._plan.requests_per_s
        await first_of(send_requests(socket, tuple(requests), per_s), _end(socket))
        async with asyncio.timeout(timeout_s):
            await first_of(_done(self._answered), _end(socket))

    async def _ask_singly(self, socket: Socket, timeout_s: float) -> None:
        """Ask for each topic of the refused requests by itself. Raises StageError if the venue refuses them all."""
        assert self._do_without is not None
        singles = _singles(self._plan.requests, self._decoder.refused)
        self._decoder.refused.clear()
        self._awaited, self._answered = len(singles), asyncio.get_running_loop().create_future()
        await self._ask(socket, singles, timeout_s)
        refused = list(self._decoder.refused)
        if len(refused) == len(singles):
            raise StageError(f"{self._plan.url} refused a subscription: {refused[0]}: check `symbols`")
        self._do_without(f"{self._plan.url} refused what it had: {'; '.join(refused)}: going on without")
        self._decoder.refused.clear()
        self._acknowledged()

    def _count(self, message: bytes) -> None:
        assert self._take is not None
        decoder, before = self._decoder, self._decoder.ignored["ack"] + len(self._decoder.refused)
        self._take(message)
        self._awaited -= decoder.ignored["ack"] + len(decoder.refused) - before
        is_final = decoder.refused and self._do_without is None
        if self._answered.done() or (self._awaited > 0 and not is_final):
            return
        self._answered.set_result(None)
        if not decoder.refused:
            self._acknowledged()


def _singles(requests: Sequence[str], refused: Sequence[str]) -> list[str]:
    """The topics of the requests that were refused, each in one of its own; of all where it is not known which were."""
    ids = {int(found[1]) for text in refused if (found := _REQUEST_ID.search(text))}
    singles = []
    for number, request in enumerate(requests, 1):
        asked = msgspec.json.decode(request)
        key = next(key for key in _TOPICS if key in asked)
        if number in ids or not ids:
            singles += [msgspec.json.encode(asked | {key: [topic]}).decode() for topic in asked[key]]
    return singles


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
