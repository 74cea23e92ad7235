"""How often a venue may be asked: budgets of weight per stretch of time, and stops that a venue imposed.

One limiter serves all that a process asks (snapshots, refills, backfill, collectors), since venues count per address.
What other processes on this address spend shows in Binance's answers, and is counted too. Limits:
exchange_protocols.md A.5, A.6, A.8, B, C.2 and C.5.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from core.errors import StageError
from ingest.venues import is_local

PATIENCE_S: Final = 90.0
"""A request waits out a stop that is shorter; a longer one it is told of at once. Budgets are always waited for."""


class Stopped(StageError):
    """The venue must not be asked before `wait_s` have gone by."""

    def __init__(self, provider: str, wait_s: float, why: str) -> None:
        until = "for good" if wait_s == float("inf") else f"for another {wait_s:,.0f} s"
        super().__init__(f"{provider} is not asked {until}: {why}")
        self.wait_s = wait_s


class Pool(NamedTuple):
    """Requests that a venue counts together: at most `limit` of weight in `window_s`."""

    name: str
    provider: str
    limit: float
    window_s: float


_BY_PATH: Final = (
    ("/futures/data/", Pool("binance futures/data", "binance futures", 1_000, 300.0)),
    ("/fapi/v1/fundingRate", Pool("binance funding", "binance futures", 500, 300.0)),
    ("/fapi/v1/fundingInfo", Pool("binance funding", "binance futures", 500, 300.0)),
    ("/fapi/", Pool("binance futures weight", "binance futures", 2_400, 60.0)),
    ("/dapi/", Pool("binance futures weight", "binance futures", 2_400, 60.0)),  # one pool since 2026-06-30 (A.3)
    ("/api/v3/", Pool("binance spot weight", "binance spot", 6_000, 60.0)),
    ("/v5/", Pool("bybit requests", "bybit", 600, 5.0)),
)
_MINUTE_S: Final = 60.0
_CONNECTIONS_WINDOW_S: Final = 300.0
_BYBIT_CONNECTIONS: Final = 500
_CONNECTIONS: Final = 300  # Binance spot's; the futures' is not published


def pool_of(url: str) -> Pool | None:
    """What a request, or an attempt to connect to a WebSocket, counts against; None where no limit is known."""
    parts = urlsplit(url)
    if parts.scheme in ("ws", "wss"):
        if is_local(url):
            return None
        host = parts.hostname or ""
        limit = _BYBIT_CONNECTIONS if "bybit" in host else _CONNECTIONS
        return Pool(f"connections to {host}", host, limit, _CONNECTIONS_WINDOW_S)
    return next((pool for prefix, pool in _BY_PATH if parts.path.startswith(prefix)), None)


def weight_of(url: str) -> float:
    """What a request costs its pool. 1 where the venue's list was not seen: Binance's answers correct it."""
    parts = urlsplit(url)
    is_futures, asked = parts.path.startswith(("/fapi/", "/dapi/")), parse_qs(parts.query)
    match parts.path.rsplit("/", 1)[-1]:
        case "depth":
            steps = _FUTURES_DEPTH if is_futures else _SPOT_DEPTH
            return _stepped(steps, int(asked.get("limit", ["500" if is_futures else "100"])[0]))
        case "aggTrades":
            return 20 if is_futures else 4
        case "klines":
            return _stepped(_FUTURES_KLINES, int(asked.get("limit", ["500"])[0])) if is_futures else 2
        case "premiumIndex":
            return 1 if "symbol" in asked else 10
        case "bookTicker":
            return 2 if "symbol" in asked else 5
    return 1


_FUTURES_DEPTH: Final = ((50, 2), (100, 5), (500, 10), (1_000, 20))
_SPOT_DEPTH: Final = ((100, 5), (500, 25), (1_000, 50), (5_000, 250))
_FUTURES_KLINES: Final = ((99, 1), (499, 2), (1_000, 5), (1_500, 10))


def _stepped(steps: tuple[tuple[int, int], ...], count: int) -> int:
    """The weight of the first step that holds `count`."""
    return next((weight for most, weight in steps if count <= most), steps[-1][1])


class Budget:
    """Weight spent in the last `window_s`, at most `limit`. It slides, so the venue may begin its windows anywhere."""

    def __init__(self, limit: float, window_s: float) -> None:
        self._limit = limit
        self._window_s = window_s
        self._spent: deque[tuple[float, float]] = deque()
        self._total = 0.0

    def wait_s(self, weight: float, now_s: float) -> float:
        """How long until `weight` may be spent; 0 for now."""
        self._forget(now_s)
        excess = self._total + min(weight, self._limit) - self._limit
        for at_s, amount in self._spent:
            if excess <= 0:
                break
            excess -= amount
            if excess <= 0:
                return max(0.0, at_s + self._window_s - now_s)
        return 0.0

    def spend(self, weight: float, now_s: float) -> None:
        self._spent.append((now_s, weight))
        self._total += weight

    def heard(self, used: float, now_s: float) -> None:
        """The venue's own count. What is above ours was spent by others on this address."""
        self._forget(now_s)
        if used > self._total:
            self.spend(used - self._total, now_s)

    def spent(self, now_s: float) -> list[tuple[float, float]]:
        """(age in seconds, weight) of what counts yet, the oldest first."""
        self._forget(now_s)
        return [(now_s - at_s, weight) for at_s, weight in self._spent]

    def _forget(self, now_s: float) -> None:
        while self._spent and self._spent[0][0] + self._window_s <= now_s:
            self._total -= self._spent.popleft()[1]


class RateLimiter:
    """The budgets and stops of all venues. `acquire` before each request and each attempt to connect."""

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._budgets: dict[str, Budget] = {}
        self._turns: dict[str, asyncio.Lock] = {}
        self._stops: dict[str, tuple[float, str]] = {}

    async def acquire(self, url: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until the request may be made, in the order of asking. Raises Stopped for a stop beyond patience."""
        pool = pool_of(url)
        if pool is None:
            self._refuse(provider_of(url), patience_s)
            return
        budget, weight = self._budget(pool), weight_of(url)
        async with self._turns.setdefault(pool.name, asyncio.Lock()):
            while wait_s := max(self._refuse(pool.provider, patience_s), budget.wait_s(weight, self._now_s())):
                await asyncio.sleep(wait_s)
            budget.spend(weight, self._now_s())

    def stop(self, url: str, for_s: float, why: str) -> None:
        """No request to this provider for `for_s` (infinite: for good), as it told us."""
        until_s = self._now_s() + for_s
        provider = provider_of(url)
        if until_s > self._stops.get(provider, (0.0, ""))[0]:
            self._stops[provider] = until_s, why

    def stopped_s(self, url: str) -> float:
        """How long the provider must not be asked yet; 0 if it may be."""
        return self._refuse(provider_of(url), float("inf"))

    def heard(self, url: str, used: float) -> None:
        """The provider's count of the weight spent by this address in the running minute, whatever was asked."""
        provider = provider_of(url)
        weights = (pool for _, pool in _BY_PATH if pool.provider == provider and pool.window_s == _MINUTE_S)
        if pool := next(weights, None):  # pools of 5 minutes count requests, not weight
            self._budget(pool).heard(used, self._now_s())

    def spent(self, longer_than_s: float) -> dict[str, list[tuple[float, float]]]:
        """(age in seconds, weight) of what was spent, by the pools of longer windows that were asked."""
        pools = {pool.name: pool for _, pool in _BY_PATH if pool.window_s > longer_than_s}
        return {name: self._budget(pools[name]).spent(self._now_s()) for name in self._budgets.keys() & pools.keys()}

    def resume(self, name: str, spent: Sequence[tuple[float, float]]) -> None:
        """Count what an earlier run spent of a pool: (age in seconds, weight), the oldest first."""
        now_s = self._now_s()
        if pool := next((pool for _, pool in _BY_PATH if pool.name == name), None):
            for age_s, weight in spent:
                self._budget(pool).spend(weight, now_s - age_s)

    def _budget(self, pool: Pool) -> Budget:
        return self._budgets.setdefault(pool.name, Budget(pool.limit, pool.window_s))

    def _refuse(self, provider: str, patience_s: float) -> float:
        """How long the provider is stopped yet. Raises Stopped beyond patience."""
        until_s, why = self._stops.get(provider, (0.0, ""))
        wait_s = until_s - self._now_s()
        if wait_s > patience_s:
            raise Stopped(provider, wait_s, why)
        return max(0.0, wait_s)


def provider_of(url: str) -> str:
    """Whom a stop concerns: the venue, or the host where no limits are known."""
    pool = pool_of(url)
    return pool.provider if pool else urlsplit(url).netloc
