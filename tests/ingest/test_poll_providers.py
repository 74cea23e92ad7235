"""Providers: budgets over all collectors, circuits, and the walk back through a venue's history."""

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import Hosts, Poll
from core.polling import Collector, Field, Provider, Series
from core.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MS, NS_PER_S
from ingest.collectors import Refused, Target
from ingest.declarations import declared, targets
from ingest.providers import Providers, is_passing, status_of
from ingest.rate_limit import RateLimiter, Stopped
from ingest.rest import RestError
from tests.ingest.slow_venue import SlowVenue

NOW_NS = 1_790_000_100 * NS_PER_S  # a whole number of five minutes


def target_of(key: str, *symbols: str) -> Target:
    asked = symbols or ("binance_um:BTCUSDT", "bybit:BTCUSDT")
    return next(target for target in targets(declared(Poll()), asked, Hosts()) if target.key == key)


INTEREST = target_of("binance_um_open_interest/BTCUSDT")


class Quiet:
    """A provider's stand-in that answers with what it is told to, in turn."""

    def __init__(self, *outcomes: bytes | Exception) -> None:
        self.outcomes = list(outcomes)
        self.asked = 0

    async def get(self, url: str) -> bytes:
        self.asked += 1
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def providers_of(rest: Any, *which: Target, now_s: Callable[[], float] = lambda: 0.0) -> tuple[Providers, list[str]]:
    told: list[str] = []
    return Providers(rest, which or (INTEREST,), lambda kind, who, why: told.append(f"{kind} {who}"), now_s), told


def walked(venue: SlowVenue, target: Target, floor_ns: int, now_ns: int = NOW_NS) -> list[int]:
    """Times (ms) of all values of the target's first series, in the order they came."""

    async def scenario() -> list[int]:
        providers, _ = providers_of(venue, target)
        name = next(iter(target.series))
        answers = [answer async for answer in providers.history(target, floor_ns, now_ns)]
        return [one.time_ns // NS_PER_MS for answer in answers for one in answer.points if one.name == name]

    return asyncio.run(scenario())


@pytest.mark.parametrize(
    "key",
    ["binance_um_open_interest/BTCUSDT", "bybit_open_interest/BTCUSDT", "bybit_ls_ratio_global/BTCUSDT"],
)
def test_the_walk_back_brings_every_value_once(key: str) -> None:
    now_ms = NOW_NS // NS_PER_MS + 40_000  # windows then begin and end between values
    floor_ms = now_ms - int(29.9 * NS_PER_DAY) // NS_PER_MS
    times = walked(SlowVenue(lambda: now_ms), target_of(key), floor_ms * NS_PER_MS, now_ms * NS_PER_MS)
    assert sorted(times) == list(range(-(-floor_ms // 300_000) * 300_000, now_ms + 1, 300_000))


@pytest.mark.parametrize("key", ["binance_um_funding/BTCUSDT", "bybit_funding/BTCUSDT"])
def test_settlements_of_any_distance_are_brought_too(key: str) -> None:
    times = walked(SlowVenue(lambda: NOW_NS // NS_PER_MS), target_of(key), NOW_NS - 100 * NS_PER_DAY)
    assert len(times) == len(set(times)) == 300


def test_the_walk_ends_where_the_venue_says_it_keeps_nothing() -> None:
    venue = SlowVenue(lambda: NOW_NS // NS_PER_MS)
    times = walked(venue, INTEREST, NOW_NS - 60 * NS_PER_DAY)
    assert 28 * 288 < len(times) <= 30 * 288 + 1
    assert venue.asked[-1].count("startTime")


def test_the_walk_ends_at_a_contracts_launch_and_not_at_a_pause_now() -> None:
    venue = SlowVenue(lambda: NOW_NS // NS_PER_MS)
    venue.launched_ms = (NOW_NS - 3 * NS_PER_DAY) // NS_PER_MS
    times = walked(venue, INTEREST, NOW_NS - 29 * NS_PER_DAY)
    assert len(times) == 3 * 288 + 1
    assert len(venue.asked) == 3
    paused = SlowVenue(lambda: (NOW_NS - 2 * NS_PER_DAY) // NS_PER_MS)
    assert len(walked(paused, INTEREST, NOW_NS - 5 * NS_PER_DAY)) == 3 * 288 + 1


def test_nothing_at_all_is_asked_for_twice_and_given_up() -> None:
    venue = SlowVenue(lambda: NOW_NS // NS_PER_MS)
    venue.launched_ms = NOW_NS
    assert walked(venue, INTEREST, NOW_NS - 29 * NS_PER_DAY) == []
    assert len(venue.asked) == 2


def test_a_cursor_is_followed_while_pages_are_full() -> None:
    page = b'{"retCode":0,"result":{"list":[%s],"nextPageCursor":"%s"}}'
    row = b'{"singleOpenInterest":"1","timestamp":"1780963200000"}'
    full = b",".join([row] * 200)
    quiet = Quiet(page % (full, b"a"), page % (full, b"b"), page % (row, b"c"), page % (b"", b""))
    target = target_of("bybit_open_interest/BTCUSDT")

    async def scenario() -> list[int]:
        providers, _ = providers_of(quiet, target)
        return [answer.n_rows async for answer in providers.window(target, NOW_NS - NS_PER_HOUR, NOW_NS)]

    assert asyncio.run(scenario()) == [200, 200, 1]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.providers._LONGEST_BACKOFF_S", 0.0)


@pytest.mark.usefixtures("hasty")
def test_a_page_in_place_of_json_and_a_busy_provider_are_asked_again() -> None:
    rest = Quiet(b"<html>", b'{"code":-1,"msg":"later"}', b"[]")
    target = msgspec.structs.replace(INTEREST.provider, busy=(-1,))

    async def scenario() -> int:
        providers, _ = providers_of(rest)
        return (await providers.ask(dataclasses.replace(INTEREST, provider=target), "x")).n_rows

    assert asyncio.run(scenario()) == 0
    assert rest.asked == 3


BUSY = RestError("GET x was refused with HTTP 503: down", 503, is_transient=True)
NO = RestError('GET x was refused with HTTP 400: {"code":-1121,"msg":"Invalid symbol."}', 400)


def outcomes_of(rest: Quiet, clock: dict[str, float], pauses_s: list[float]) -> tuple[list[str], list[str]]:
    """What became of requests made after pauses, and what was told of the circuit."""

    async def scenario() -> tuple[list[str], list[str]]:
        providers, told = providers_of(rest, now_s=lambda: clock["s"])
        seen = []
        for pause_s in pauses_s:
            clock["s"] += pause_s
            try:
                await providers.ask(INTEREST, "x")
                seen.append("ok")
            except Exception as error:
                seen.append(type(error).__name__)
        return seen, told

    return asyncio.run(scenario())


def test_a_provider_that_is_down_is_left_alone_and_then_probed() -> None:
    rest = Quiet(*[BUSY] * 6, b"[]", b"[]")
    seen, told = outcomes_of(rest, {"s": 0.0}, [0.0] * 7 + [60.0, 119.0, 1.0, 0.0])
    assert seen == ["RestError"] * 5 + ["CircuitOpen"] * 2 + ["RestError", "CircuitOpen", "ok", "ok"]
    assert told == ["circuit_open binance_um", "circuit_open binance_um", "circuit_closed binance_um"]
    assert rest.asked == 8


@pytest.mark.usefixtures("hasty")
def test_a_refusal_and_a_stop_are_no_failures_and_a_page_in_place_of_json_is() -> None:
    seen, told = outcomes_of(Quiet(*[NO] * 9), {"s": 0.0}, [0.0] * 9)
    assert (set(seen), told) == ({"RestError"}, [])
    stopped = [Stopped("binance futures", 900.0, "HTTP 418")] * 9
    seen, told = outcomes_of(Quiet(*stopped), {"s": 0.0}, [0.0] * 9)
    assert (set(seen), told) == ({"Stopped"}, [])
    seen, told = outcomes_of(Quiet(*[b"<html>"] * 27), {"s": 0.0}, [0.0] * 9)
    assert (seen[-1], told) == ("CircuitOpen", ["circuit_open binance_um"])


def test_a_stop_during_the_probe_leaves_the_next_probe_possible() -> None:
    rest = Quiet(*[BUSY] * 5, Stopped("binance futures", 900.0, "HTTP 429"), b"[]")
    seen, _ = outcomes_of(rest, {"s": 0.0}, [0.0] * 5 + [60.0, 0.0])
    assert seen[-2:] == ["Stopped", "ok"]


def test_an_error_that_nobody_expected_leaves_the_next_probe_possible_too() -> None:
    rest = Quiet(*[BUSY] * 5, RuntimeError("closed"), b"[]")
    seen, _ = outcomes_of(rest, {"s": 0.0}, [0.0] * 5 + [60.0, 0.0])
    assert seen[-2:] == ["RuntimeError", "ok"]


@pytest.mark.parametrize(
    ("error", "passing", "status"),
    [
        (BUSY, True, None),
        (NO, False, -1121),
        (RestError("GET x was refused with retCode 10001: params error", 200), False, 10001),
        (Refused("4001", "no plan"), False, "4001"),
        (ValueError("no JSON"), True, None),
    ],
)
def test_errors_are_told_apart(error: Exception, passing: bool, status: object) -> None:
    assert (is_passing(error), status_of(error)) == (passing, status)


class Paced:
    """A venue behind the shared limiter, on a clock that only sleeping moves; knows when each request passed."""

    def __init__(self) -> None:
        self.s = 0.0
        self.limiter = RateLimiter(lambda: self.s)
        self.passed: list[tuple[float, str]] = []

    async def get(self, url: str) -> bytes:
        await self.limiter.acquire(url)
        self.passed.append((self.s, url))
        return b"[]" if "/v5/" not in url else b'{"retCode":0,"result":{"list":[]}}'

    async def sleep(self, seconds: float) -> None:
        self.s += max(0.0, seconds)
        await _REAL_SLEEP(0)


_REAL_SLEEP = asyncio.sleep


def on_fake_time(paced: Paced, work: Coroutine[Any, Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asyncio, "sleep", paced.sleep)
    asyncio.run(work)


def most_within(times: list[float], window_s: float) -> int:
    first, most = 0, 0
    for place, time in enumerate(times):
        while times[first] <= time - window_s + 1e-6:
            first += 1
        most = max(most, place - first + 1)
    return most


def test_no_budget_is_exceeded_in_an_hour_of_50_symbols(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{venue}:COIN{number}USDT" for venue in ("binance_um", "bybit") for number in range(50)]
    every = targets(declared(Poll()), names, Hosts())
    paced = Paced()

    async def hour() -> None:
        providers, _ = providers_of(paced, *every, now_s=lambda: paced.s)
        first = [providers.ask(one, one.url()) for one in every for _ in range(4)]  # as much as a history of two weeks
        await asyncio.gather(*first)
        for _ in range(12):
            paced.s = max(paced.s, (paced.s // 300 + 1) * 300)
            await asyncio.gather(*(providers.ask(one, one.url()) for one in every))

    on_fake_time(paced, hour(), monkeypatch)
    assert paced.s >= 3_600
    by_pool = {"/futures/data/": (1_000, 300.0), "/fapi/v1/fundingRate": (500, 300.0), "/v5/": (600, 5.0)}
    for prefix, (limit, window_s) in by_pool.items():
        times = [time for time, url in paced.passed if prefix in url]
        assert times
        assert most_within(times, window_s) <= limit
    weighed = [time for time, url in paced.passed if "/fapi/" in url]
    assert most_within(weighed, 60.0) <= 2_400
    assert len(paced.passed) == len(every) * 16


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.floats(1, 100), st.lists(st.floats(0, 60), min_size=1, max_size=40))
def test_a_declared_budget_holds_for_any_arrivals(limit: int, per_s: float, pauses_s: list[float]) -> None:
    collector = Collector("mine", "/x", (Series("x", (Field("v"),)),), "t", "5m", symbols=("ALL",))
    target = Target("mine", collector, Provider("http://h", limit, per_s), "http://h", "ALL")
    paced = Paced()

    async def arrivals() -> None:
        providers, _ = providers_of(paced, target, now_s=lambda: paced.s)
        for pause_s in pauses_s:
            paced.s += pause_s
            await asyncio.gather(*(providers.ask(target, target.url()) for _ in range(3)))

    with pytest.MonkeyPatch.context() as patch:
        on_fake_time(paced, arrivals(), patch)
    assert most_within([time for time, _ in paced.passed], per_s) <= limit
    assert len(paced.passed) == 3 * len(pauses_s)
