"""When snapshots are asked for: at once, then ever more rarely, and afresh after a calm time."""

import asyncio

import pytest

from core.config import Capture, Hosts
from ingest.plans import plans
from ingest.receive_clock import ReceiveClock
from ingest.reception import Reception
from ingest.rest import RestClient, RestError
from ingest.resync import Resync


def resync(name: str, said: list[str] | None = None) -> Resync:
    plan = next(plan for plan in plans([name], Capture(), Hosts()) if "market" not in plan.url)
    reception = Reception(plan, plan.url, ReceiveClock())
    reception.release_to(lambda recv_ns, events: None)
    return Resync(reception, RestClient(), 1.0, (said if said is not None else []).append)


def asked_at(mender: Resync, until_s: float, wanting: list[str]) -> list[float]:
    """Seconds at which a symbol that is always wanting is asked for."""
    ticks = [number * 0.25 for number in range(int(until_s * 4))]
    return [now_s for now_s in ticks if mender._due(wanting, now_s)]


def test_a_book_that_stays_broken_is_asked_for_ever_more_rarely_up_to_once_a_minute() -> None:
    assert asked_at(resync("binance_um:BTCUSDT"), 250, ["BTCUSDT"]) == [0, 1, 3, 7, 15, 31, 63, 123, 183, 243]


def test_after_a_calm_time_pauses_are_short_again() -> None:
    mender = resync("binance_um:BTCUSDT")
    asked_at(mender, 64, ["BTCUSDT"])
    assert mender._due([], 100.0) == []
    assert mender._due(["BTCUSDT"], 1_000.0) == ["BTCUSDT"]
    assert mender._due(["BTCUSDT"], 1_001.0) == ["BTCUSDT"]


def test_where_a_subscription_brings_the_snapshot_a_book_may_mend_by_itself() -> None:
    mender = resync("bybit:BTCUSDT")
    assert mender._due(["BTCUSDT"], 0.0) == []
    assert mender._due([], 3.0) == []
    assert mender._due(["BTCUSDT"], 6.0) == []
    assert mender._due(["BTCUSDT"], 11.0) == ["BTCUSDT"]


def test_why_there_is_no_snapshot_is_said_once_for_each_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    mender = resync("binance_um:BTCUSDT", said)
    reasons = iter(["banned", "banned", "unreachable"])

    async def refuse(url: str, timeout_s: float) -> bytes:
        raise RestError(next(reasons))

    async def scenario() -> None:
        monkeypatch.setattr(mender._rest, "get", refuse)
        for _ in range(3):
            await mender.snapshot("BTCUSDT")

    asyncio.run(scenario())
    assert [text.rsplit(": ")[-1] for text in said] == ["banned", "unreachable"]
