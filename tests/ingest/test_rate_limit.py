"""Budgets of weight: never over the limit in any window, first come first served, and stops that hold."""

import asyncio
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import StageError
from ingest.rate_limit import Budget, RateLimiter, Stopped, pool_of, weight_of
from ingest.spent_weight import keep_spent, resume_spent

SNAPSHOT = "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=1000"


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 40)), max_size=60))
def test_no_window_ever_holds_more_than_the_limit(asked: list[tuple[float, int]]) -> None:
    budget, now_s, spent = Budget(100, 60.0), 0.0, []
    for pause_s, weight in asked:
        now_s += pause_s
        now_s += budget.wait_s(weight, now_s)
        assert budget.wait_s(weight, now_s) == pytest.approx(0.0, abs=1e-9)
        budget.spend(weight, now_s)
        spent.append((now_s, weight))
    for at_s, _ in spent:
        assert sum(weight for then_s, weight in spent if at_s - 60.0 + 1e-6 < then_s <= at_s) <= 100


def test_a_budget_waits_no_longer_than_it_must_and_forgets_what_is_old() -> None:
    budget = Budget(10, 60.0)
    budget.spend(4, 0.0)
    budget.spend(6, 20.0)
    assert budget.wait_s(1, 30.0) == 30.0
    assert budget.wait_s(5, 30.0) == 50.0
    assert budget.wait_s(4, 60.0) == 0.0
    assert budget.wait_s(10, 80.0) == 0.0
    assert budget.wait_s(1_000, 80.0) == 0.0  # dearer than the whole budget: asked once it is empty, not never


def test_what_others_on_this_address_spent_counts_too() -> None:
    budget = Budget(100, 60.0)
    budget.spend(10, 0.0)
    budget.heard(95, 1.0)
    assert budget.wait_s(5, 1.0) == 0.0
    assert budget.wait_s(6, 1.0) == 59.0
    budget.heard(3, 2.0)  # a new window of the venue's: ours is the stricter
    assert budget.wait_s(6, 2.0) == 58.0


@pytest.mark.parametrize("path", ["/fapi/v1/fundingRate", "/futures/data/openInterestHist", "/fapi/v1/time"])
def test_the_venues_count_of_weight_is_of_its_minute_whatever_was_asked(path: str) -> None:
    limiter = RateLimiter(lambda: 0.0)

    async def scenario() -> None:
        limiter.heard(f"https://fapi.binance.com{path}", 2_400.0)
        for other in ("/fapi/v1/fundingRate", "/futures/data/basis"):
            await limiter.acquire(f"https://fapi.binance.com{other}")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await limiter.acquire(SNAPSHOT)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("url", "pool", "weight"),
    [
        (SNAPSHOT, "binance futures weight", 20),
        ("http://127.0.0.1:1/fapi/v1/aggTrades?symbol=BTCUSDT&fromId=1", "binance futures weight", 20),
        ("https://fapi.binance.com/futures/data/openInterestHist?symbol=BTCUSDT", "binance futures/data", 1),
        ("https://fapi.binance.com/fapi/v1/fundingRate?symbol=BTCUSDT", "binance funding", 1),
        ("https://fapi.binance.com/fapi/v1/fundingInfo", "binance funding", 1),
        ("https://fapi.binance.com/fapi/v1/premiumIndex", "binance futures weight", 10),
        ("https://fapi.binance.com/fapi/v1/klines?symbol=BTCUSDT&limit=1500", "binance futures weight", 10),
        ("https://api.binance.com/api/v3/depth?symbol=BTCUSDT&limit=1000", "binance spot weight", 50),
        ("https://api.bybit.com/v5/market/open-interest?symbol=BTCUSDT", "bybit requests", 1),
        ("wss://stream.bybit.com/v5/public/linear", "connections to stream.bybit.com", 1),
    ],
)
def test_each_request_counts_against_what_the_venue_counts_it_against(url: str, pool: str, weight: int) -> None:
    found = pool_of(url)
    assert found is not None
    assert (found.name, weight_of(url)) == (pool, weight)


def test_the_limiter_keeps_to_the_budget_in_the_order_of_asking(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = {"s": 0.0}
    done: list[tuple[int, float]] = []
    sleep = asyncio.sleep

    async def hasten(seconds: float) -> None:
        clock["s"] += seconds
        await sleep(0)

    async def ask(limiter: RateLimiter, number: int) -> None:
        await limiter.acquire(SNAPSHOT)
        done.append((number, clock["s"]))

    async def scenario() -> None:
        limiter = RateLimiter(lambda: clock["s"])
        await asyncio.gather(*(ask(limiter, number) for number in range(250)))

    monkeypatch.setattr(asyncio, "sleep", hasten)
    asyncio.run(scenario())
    assert [number for number, _ in done] == list(range(250))
    assert [at_s for _, at_s in done] == [0.0] * 120 + [60.0] * 120 + [120.0] * 10


def test_what_a_run_spent_of_five_minutes_counts_in_the_next(tmp_path: Path) -> None:
    async def spend_all() -> None:
        limiter = RateLimiter()
        for _ in range(500):
            await limiter.acquire("https://fapi.binance.com/fapi/v1/fundingRate")
        await limiter.acquire(SNAPSHOT)
        keep_spent(limiter, tmp_path)

    async def next_run() -> None:
        limiter = RateLimiter()
        resume_spent(limiter, tmp_path)
        await limiter.acquire("https://fapi.binance.com/futures/data/basis")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await limiter.acquire("https://fapi.binance.com/fapi/v1/fundingInfo")

    asyncio.run(spend_all())
    asyncio.run(next_run())
    (tmp_path / "poll_spent.json").write_text("{")
    with pytest.raises(StageError, match="delete it"):
        resume_spent(RateLimiter(), tmp_path)


def test_what_a_run_spent_six_minutes_ago_is_forgotten(tmp_path: Path) -> None:
    long_ago = int(time.time()) - 360
    (tmp_path / "poll_spent.json").write_text(f'{{"binance funding": {{"{long_ago}": 500}}}}')
    limiter = RateLimiter()
    resume_spent(limiter, tmp_path)
    asyncio.run(limiter.acquire("https://fapi.binance.com/fapi/v1/fundingInfo"))
    assert [weight for _, weight in limiter.spent(60.0)["binance funding"]] == [1]


def test_a_stop_is_kept_by_all_requests_to_the_provider_and_told() -> None:
    async def scenario() -> None:
        limiter = RateLimiter(lambda: 0.0)
        limiter.stop(SNAPSHOT, 259_200.0, "HTTP 418")
        limiter.stop(SNAPSHOT, 10.0, "HTTP 429")  # shorter: changes nothing
        for path in ("/fapi/v1/depth", "/futures/data/basis", "/fapi/v1/fundingRate"):
            with pytest.raises(Stopped, match=r"^binance futures is not asked for another 259,200 s: HTTP 418$"):
                await limiter.acquire(f"https://fapi.binance.com{path}")
        await limiter.acquire("https://api.bybit.com/v5/market/tickers")

    asyncio.run(scenario())
