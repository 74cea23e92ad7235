"""Connections that take over from one another: nothing is lost and nothing doubles, however often and however badly."""

import asyncio
from itertools import count

from ingest.events import Gap, Quote, Trade
from ingest.rotation import Wish, stream_name
from tests.ingest.feed_server import Venue, market_feed, public_feed, pushing, quote, reading, trade, venue


async def keep_trading(found: Venue, pause_s: float = 0.002) -> None:
    for number in count(1):
        await found.push(trade(number))
        await asyncio.sleep(pause_s)


def ids(trades: list[Trade]) -> list[int]:
    return [int(event.trade_id) for event in trades]


def consecutive(numbers: list[int]) -> bool:
    return numbers == list(range(numbers[0], numbers[0] + len(numbers)))


def test_rotations_lose_nothing_and_double_nothing() -> None:
    async def scenario() -> None:
        async with venue() as found:
            feed = market_feed(found.hosts, rotate_after_s=0.4, overlap_s=0.3)
            with pushing(keep_trading(found)):
                async with reading(feed) as events:
                    while feed.counts.rotations < 4:
                        await events.reached(len(events) + 1)
        assert consecutive(ids(events.of(Trade)))
        assert len(events) > 100
        assert events.of(Gap) == []
        assert feed.counts.reconnects == 0
        assert feed.decoder.repeated["aggTrade"] > 0  # both connections carried them for a while
        assert found.visits >= 5

    asyncio.run(scenario())


def test_after_a_rotation_only_the_new_connection_is_open() -> None:
    async def scenario() -> None:
        async with venue() as found:
            feed = market_feed(found.hosts, rotate_after_s=0.2, overlap_s=0.2)
            with pushing(keep_trading(found)):
                async with reading(feed) as events:
                    while feed.counts.rotations < 3:
                        await events.reached(len(events) + 1)
                        assert len(found.sockets) <= 2
            assert feed._spare is None
        assert found.sockets == []

    asyncio.run(scenario())


def test_a_rotation_that_fails_keeps_the_connection_and_is_tried_again() -> None:
    async def scenario() -> None:
        async with venue(refuse_visits=(2, 3)) as found:
            feed = market_feed(found.hosts, rotate_after_s=0.2, overlap_s=0.2)
            with pushing(keep_trading(found)):
                async with reading(feed) as events:
                    while not feed.counts.rotations:
                        await events.reached(len(events) + 1)
        assert found.visits >= 4
        assert consecutive(ids(events.of(Trade)))
        assert (events.of(Gap), feed.counts.reconnects) == ([], 0)

    asyncio.run(scenario())


def test_when_the_old_connection_dies_while_both_are_up_the_new_one_carries_on() -> None:
    async def scenario() -> None:
        async with venue() as found:
            feed = market_feed(found.hosts, rotate_after_s=0.3, overlap_s=30.0)
            with pushing(keep_trading(found)):
                async with reading(feed) as events:
                    while not feed.decoder.repeated["aggTrade"]:  # the new one carries what the old one does
                        await events.reached(len(events) + 1)
                    found.sockets[0].transport.abort()
                    while not feed.counts.rotations:
                        await events.reached(len(events) + 1)
        assert consecutive(ids(events.of(Trade)))
        assert (events.of(Gap), feed.counts.reconnects) == ([], 0)

    asyncio.run(scenario())


def test_an_announced_shutdown_is_acted_on_before_it_comes() -> None:
    async def scenario() -> None:
        said: list[str] = []
        async with venue() as found:
            feed = market_feed(found.hosts, overlap_s=0.3, say=said.append)
            with pushing(keep_trading(found)):
                async with reading(feed) as events:
                    await events.reached(10)
                    await found.push('{"e":"serverShutdown","E":1}')
                    while not feed.counts.rotations:
                        await events.reached(len(events) + 1)
        assert consecutive(ids(events.of(Trade)))
        assert (events.of(Gap), feed.counts.reconnects, feed.counts.undecoded) == ([], 0, 0)
        assert any("announced" in text for text in said)

    asyncio.run(scenario())


def test_the_overlap_lasts_until_the_new_connection_carries_every_stream_of_the_old() -> None:
    async def scenario() -> None:
        async with venue() as found:
            feed = public_feed(found.hosts, False, rotate_after_s=0.1, overlap_s=10.0)
            async with reading(feed) as events:
                while len(found.sockets) < 2:
                    await asyncio.sleep(0.01)
                old, new = found.sockets
                await old.send(quote(1))
                await new.send(quote(1).replace("bookTicker", "other"))
                await asyncio.sleep(1.2)  # longer than what may count as quiet
                assert feed.counts.rotations == 0
                await new.send(quote(2))
                async with asyncio.timeout(5.0):  # not only when the overlap is over
                    while not feed.counts.rotations:
                        await asyncio.sleep(0.01)
        assert [event.update_id for event in events.of(Quote)] == [1, 2]

    asyncio.run(scenario())


def test_streams_are_told_apart_by_the_name_that_comes_first() -> None:
    assert stream_name(quote(1).encode()) == b"btcusdt@bookTicker"
    assert stream_name(b'{"topic":"orderbook.50.BTCUSDT","type":"delta"}') == b"orderbook.50.BTCUSDT"
    assert len(stream_name(b'{"stream":"' + b"x" * 1_000 + b'"}')) <= 64  # garbage is not kept
    assert stream_name(b"") == b""


def test_a_wish_keeps_the_earliest_time_since_when_a_stream_was_lost() -> None:
    async def scenario() -> None:
        wish, stream = Wish(), ("BTCUSDT", "trades")
        wish.make("first", {stream: 5})
        wish.make("second", {stream: 9, ("ETHUSDT", "trades"): 7})
        await wish.wait()
        assert wish.take() == ("second", {stream: 5, ("ETHUSDT", "trades"): 7})
        assert wish.take() == ("", {})

    asyncio.run(scenario())
