"""Asking providers for targets: one budget and one circuit per provider, whichever collector asks.

Binance's and Bybit's own limits, stops and refusals are known to the RestClient (ingest/rest.py), retries included;
what is added here is the budget that a provider's declaration names, and the circuit that spares one that is down.
"""

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Final, Protocol

from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from core.errors import StageError
from ingest.circuit_breaker import CircuitBreaker
from ingest.collectors import Answer, Busy, Refused, Target, read_answer
from ingest.rate_limit import Budget, pool_of
from ingest.rest import RestError
from ingest.signal_checks import Kind

NOT_ANSWERED: Final = (StageError, Refused, Busy, ValueError)
"""What `Providers.ask` raises."""
_AT_ONCE: Final = 8  # requests under way per pool: enough to fill a budget, few enough to queue nowhere else
_PAGES: Final = 200  # of one window: a cursor that never ends is a venue's slip
_ATTEMPTS: Final = 3
_LONGEST_BACKOFF_S: Final = 5.0
_STATUS: Final = re.compile(r'(?:"code":\s*|retCode )(-?\d+)')


class Get(Protocol):
    """What asks: ingest.rest.RestClient."""

    async def get(self, url: str) -> bytes: ...


class CircuitOpen(StageError):
    """The provider failed too often just now to be asked."""


class Providers:
    """Asks on behalf of targets. `tell(kind, provider, detail)` hears of circuits that open and close."""

    def __init__(
        self,
        rest: Get,
        targets: Iterable[Target],
        tell: Callable[[Kind, str, str], None],
        now_s: Callable[[], float] = time.monotonic,
    ) -> None:
        declared = {target.collector.provider: target.provider for target in targets}
        self.breakers = {name: CircuitBreaker(now_s=now_s) for name in declared}
        self.requests: Counter[str] = Counter()
        """Requests made, by provider."""
        self._budgets = {name: Budget(one.requests, one.per_s) for name, one in declared.items()}
        self._under_way: defaultdict[str, asyncio.Semaphore] = defaultdict(lambda: asyncio.Semaphore(_AT_ONCE))
        self._rest, self._tell, self._now_s = rest, tell, now_s

    async def ask(self, target: Target, url: str) -> Answer:
        """The answer to one request. Raises one of NOT_ANSWERED; only those that may pass count as failures."""
        provider = target.collector.provider
        breaker = self.breakers[provider]
        async with self._under_way[pool_name(target)]:
            if not breaker.allows():
                raise CircuitOpen(f"{provider} failed too often: it is left alone for {breaker.wait_s:.0f} s")
            try:
                answer = await self._insist(target, url)
            except (RestError, Refused, Busy, ValueError) as error:
                self._note(provider, breaker, has_answered=not is_passing(error))
                raise
            except BaseException:  # a stop, a cancelled task, whatever else: a probe must not stay under way
                breaker.abandoned()
                raise
            self._note(provider, breaker, has_answered=True)
            return answer

    async def window(self, target: Target, from_ns: int, to_ns: int) -> AsyncIterator[Answer]:
        """The pages of the values from `from_ns` to `to_ns`. One window holds one page, unless a venue counts anew."""
        past, cursor = target.collector.history, ""
        assert past is not None
        for _ in range(_PAGES):
            answer = await self.ask(target, target.window_url(from_ns, to_ns, cursor))
            yield answer
            if answer.cursor in ("", cursor) or answer.n_rows < past.rows:
                return
            cursor = answer.cursor

    async def history(self, target: Target, floor_ns: int, now_ns: int) -> AsyncIterator[Answer]:
        """Answers, newest window first, back to `floor_ns` or to where the venue has nothing.

        That is where it says so, or where a window is empty: the newest may be, and the next tells why.
        """
        past = target.collector.history
        assert past is not None
        to_ns, empty = now_ns, 0
        while to_ns >= floor_ns and empty < 2:
            from_ns = max(floor_ns, to_ns - (past.rows - 1) * target.step_ns)
            n_rows = 0
            try:
                async for answer in self.window(target, from_ns, to_ns):
                    n_rows += answer.n_rows
                    yield answer
            except (RestError, Refused) as error:
                if status_of(error) in past.ended:
                    return
                raise
            empty = 0 if n_rows else empty + 1 if to_ns == now_ns else 2
            to_ns = from_ns - target.unit_ns

    async def _insist(self, target: Target, url: str) -> Answer:
        """One request, and again what was no JSON or asked for it. The client does so for what HTTP and venues say."""
        retrying = AsyncRetrying(
            retry=retry_if_exception_type((Busy, ValueError)),
            wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_BACKOFF_S),
            stop=stop_after_attempt(_ATTEMPTS),
            reraise=True,
        )
        return await retrying(self._request, target, url)

    async def _request(self, target: Target, url: str) -> Answer:
        await self._within_budget(target.collector.provider)
        return read_answer(target, await self._rest.get(url))

    async def _within_budget(self, provider: str) -> None:
        budget = self._budgets[provider]
        while wait_s := budget.wait_s(1.0, self._now_s()):
            await asyncio.sleep(wait_s)
        budget.spend(1.0, self._now_s())
        self.requests[provider] += 1

    def _note(self, provider: str, breaker: CircuitBreaker, has_answered: bool) -> None:
        before = breaker.openings, breaker.state
        if has_answered:
            breaker.succeeded()
        else:
            breaker.failed()
        if breaker.openings > before[0]:
            self._tell("circuit_open", provider, f"left alone for {breaker.wait_s:.0f} s")
        elif has_answered and before[1] != "closed":
            self._tell("circuit_closed", provider, "")


def pool_name(target: Target) -> str:
    """What requests of a target queue behind: the venue's pool of them, else the provider."""
    pool = pool_of(target.url())
    return pool.name if pool else target.collector.provider


def is_passing(error: Exception) -> bool:
    """Whether the provider failed, rather than said no. What is no JSON is a page that stands in its place."""
    return error.is_transient if isinstance(error, RestError) else not isinstance(error, Refused)


def status_of(error: Exception) -> object:
    """The status of the venue's own that came with a refusal: -1130 of HTTP 400, or a retCode. None without one."""
    if isinstance(error, Refused):
        return error.status
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None
