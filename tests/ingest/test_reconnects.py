"""Lost connections that are not simply made again: refused by the venue, or lost while another was to take over."""

import asyncio
import json
from dataclasses import replace

import pytest

from core.config import Capture
from ingest import feed as feeds
from ingest.events import Gap, Quote
from ingest.plans import plans
from tests.ingest.feed_server import ACK, Venue, feed_of, public_feed, quote, subscribed, venue

REFUSAL = '{"error":{"code":2,"msg":"Invalid request: unknown symbol"},"id":1}'


async def hang_up(found: Venue) -> None:
    for socket in list(found.sockets):
        socket.transport.abort()


def test_a_subscription_that_is_refused_at_a_reconnect_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A symbol was taken off the list: the captures that run beside this one must not end with it."""
    monkeypatch.setattr(feeds, "_REFUSED_RETRY_S", (0.05, 0.1))

    async def scenario() -> None:
        said: list[str] = []
        async with (
            venue(acks=lambda visit, _: REFUSAL if visit in (2, 3, 4) else ACK) as found,
            subscribed(found, public_feed(found.hosts, False, say=said.append)) as events,
        ):
            await found.push(quote(1))
            await events.reached(1, Quote)
            await hang_up(found)
            await events.reached(1, Gap)
            await found.push(quote(2))
            await events.reached(2, Quote)
        first, gap, second = events
        assert first.recv_ns == gap.from_ns < gap.to_ns < second.recv_ns
        assert [text.rpartition("; ")[2] for text in said if "refused a subscription" in text] == [
            "asked again in 0.05 s",
            "asked again in 0.1 s",
            "asked again in 0.1 s",
        ]

    asyncio.run(scenario())


def test_a_symbol_that_was_delisted_is_gone_without_at_a_reconnect_and_its_neighbours_go_on() -> None:
    """Bybit refuses a request as a whole for one topic that it does not know."""

    def acks(visit: int, request: str) -> str:
        number = json.loads(request)["req_id"]
        if visit > 1 and "OLDUSDT" in request:
            return f'{{"success":false,"ret_msg":"error:handler not found","req_id":"{number}","op":"subscribe"}}'
        return f'{{"success":true,"ret_msg":"subscribe","req_id":"{number}","op":"subscribe"}}'

    def best(symbol: str, update_id: int) -> str:
        data = f'{{"s":"{symbol}","b":[["1","1"]],"a":[["2","1"]],"u":{update_id},"seq":1}}'
        return f'{{"topic":"orderbook.1.{symbol}","type":"snapshot","ts":{update_id},"data":{data}}}'

    async def scenario() -> None:
        said: list[str] = []
        async with venue(acks=acks) as found:
            plan = plans(["bybit:BTCUSDT", "bybit:OLDUSDT"], Capture(depth="off"), found.hosts)[0]
            async with subscribed(found, feed_of(replace(plan, silence_s={}), say=said.append)) as events:
                await found.push(best("BTCUSDT", 1), best("OLDUSDT", 1))
                await events.reached(2, Quote)
                await hang_up(found)
                await events.reached(1, Gap)
                await found.push(best("BTCUSDT", 2))
                await events.reached(3, Quote)
        assert [text for text in said if "going on without" in text and "handler not found" in text]
        assert not [text for text in said if "asked again" in text]

    asyncio.run(scenario())


def test_a_connection_that_dies_while_another_was_to_take_over_lost_a_silent_stream_long_before() -> None:
    async def scenario() -> None:
        said: list[str] = []
        async with venue(acks=lambda visit, _: None if visit == 2 else ACK) as found:
            symbols = ["binance_um:BTCUSDT", "binance_um:ETHUSDT"]
            patience_s = {("BTCUSDT", "top_of_book"): 0.4}
            plan = replace(plans(symbols, Capture(depth="off"), found.hosts)[0], silence_s=patience_s)
            async with subscribed(found, feed_of(plan, say=said.append, connect_timeout_s=10.0)) as events:
                await found.push(quote(1))
                await events.reached(1, Quote)
                while found.visits < 2:  # the other one is never acknowledged
                    await found.push(quote(len(events) + 1, "ETHUSDT"))
                    await asyncio.sleep(0.02)
                await hang_up(found)
                await events.reached(2, Gap)
        gaps = {gap.symbol: gap for gap in events.of(Gap)[:2]}
        assert gaps["BTCUSDT"].from_ns == events[0].recv_ns
        assert events[0].recv_ns < gaps["ETHUSDT"].from_ns <= events.of(Quote)[-1].recv_ns
        assert all(gap.reason.startswith("connection lost") for gap in gaps.values())

    asyncio.run(scenario())
