"""Feeds over real sockets: a small server on loopback that speaks the virtual clock, or plainly, and misbehaves."""

import asyncio

import pytest
from websockets.asyncio.server import ServerConnection, serve

from core.config import Capture, Config
from core.errors import StageError
from core.servers import local_hosts
from ingest.events import BookUpdate, Gap, Quote, Trade
from ingest.feeds import Step, make_feeds, merged, opened
from ingest.transport import VIRTUAL_CLOCK
from tests.ingest.feed_server import SNAPSHOT, depth, public_feed, quote, read, server, trade


def test_virtual_times_are_taken_from_the_server_to_the_end_of_the_stream() -> None:
    async def play(socket: ServerConnection, visit: int) -> None:
        for message in (f"2000 {quote(1)}", "2500 ", f"3000 {quote(2)}", "3000 garbage"):
            await socket.send(message)
        await socket.close(1000, "end of stream; cut line a.jsonl:7")

    async def scenario() -> None:
        async with server(play) as hosts:
            feed = public_feed(hosts)
            events = await read(feed)
        assert [(event.recv_ns, event.update_id) for event in events if isinstance(event, Quote)] == [
            (2000, 1),
            (3000, 2),
        ]
        assert feed.farewell == "end of stream; cut line a.jsonl:7"
        assert (feed.counts.frames, feed.counts.undecoded) == (4, 1)  # the ack too
        assert feed.counts.samples[0].frame == "garbage"

    asyncio.run(scenario())


def test_broken_data_at_the_server_is_an_error_that_names_the_line() -> None:
    async def play(socket: ServerConnection, visit: int) -> None:
        await socket.send(f"2000 {quote(1)}")
        await socket.close(1011, "a.jsonl:7: broken line")

    async def scenario() -> None:
        async with server(play) as hosts:
            await read(public_feed(hosts))

    with pytest.raises(StageError, match=r"^a\.jsonl:7: broken line$"):
        asyncio.run(scenario())


@pytest.mark.parametrize("virtual", [True, False])
def test_a_lost_connection_is_made_again_and_what_was_missed_is_a_gap(virtual: bool) -> None:
    async def play(socket: ServerConnection, visit: int) -> None:
        stamp = f"{visit}000000 " if virtual else ""
        await socket.send(f"{stamp}{quote(visit)}")
        if visit == 1:
            await asyncio.sleep(0.05)
            socket.transport.abort()
        elif virtual:
            await socket.close(1000, "end of stream")

    async def scenario() -> None:
        async with server(play, virtual) as hosts:
            feed = public_feed(hosts, virtual)
            events = await read(feed, until=3)
        first, gap, second = events[:3]
        assert isinstance(first, Quote)
        assert isinstance(second, Quote)
        assert isinstance(gap, Gap)
        assert (gap.symbol, gap.stream, gap.from_ns) == ("BTCUSDT", "top_of_book", first.recv_ns)
        assert gap.reason.startswith("connection lost")
        assert feed.counts.reconnects == 1
        if not virtual:
            assert first.recv_ns < gap.to_ns <= second.recv_ns

    asyncio.run(scenario())


def test_a_book_that_lost_a_change_gets_a_new_snapshot() -> None:
    async def play(socket: ServerConnection, visit: int) -> None:
        for recv_ns, frame in ((2000, depth(99, 101, 98)), (3000, depth(102, 103, 101)), (4000, depth(106, 110, 105))):
            await socket.send(f"{recv_ns} {frame}")
        await asyncio.sleep(1.0)  # real time for the snapshot, which the market does not wait for
        await socket.close(1000, "end of stream")

    async def scenario() -> None:
        async with server(play, True, SNAPSHOT, SNAPSHOT.replace(b"100", b"107")) as hosts:
            events = await read(public_feed(hosts, capture=Capture()))
        snapshots = [event for event in events if isinstance(event, BookUpdate) and event.is_snapshot]
        assert [event.update_id for event in snapshots] == [100, 107]
        gaps = [event for event in events if isinstance(event, Gap)]
        assert ("book_deltas", 3000, True) in [(gap.stream, gap.from_ns, gap.mended) for gap in gaps]

    asyncio.run(scenario())


def test_without_a_snapshot_the_capture_goes_on_and_says_so() -> None:
    async def play(socket: ServerConnection, visit: int) -> None:
        await socket.send(f"2000 {depth(99, 101, 98)}")
        await socket.send(f"3000 {quote(1)}")
        await socket.close(1000, "end of stream")

    async def scenario() -> None:
        async with server(play, True, b'{"code":-1121,"msg":"Invalid symbol."}', status=400) as hosts:
            events = await read(public_feed(hosts, capture=Capture()))
        assert [type(event) for event in events] == [BookUpdate, Quote, Gap]
        assert isinstance(events[-1], Gap)
        assert events[-1].reason == "no book snapshot"

    asyncio.run(scenario())


def test_a_stream_that_falls_silent_is_taken_over_by_another_connection_and_is_a_gap() -> None:
    async def play(socket: ServerConnection, visit: int) -> None:
        await socket.send(quote(visit))

    async def scenario() -> None:
        async with server(play, virtual=False) as hosts:
            feed = public_feed(hosts, virtual=False, patience_s=0.3, overlap_s=0.2)
            events = await read(feed, until=3)
        first, gap, second = events
        assert isinstance(first, Quote)
        assert isinstance(second, Quote)
        assert isinstance(gap, Gap)
        assert gap.reason == "top_of_book of BTCUSDT silent for 0.3 s"
        assert gap.from_ns == first.recv_ns
        assert first.recv_ns + 300_000_000 <= gap.to_ns <= second.recv_ns
        assert feed.counts.reconnects == 0

    asyncio.run(scenario())


def test_a_refused_subscription_and_an_absent_server_are_clear_errors() -> None:
    async def refuse(socket: ServerConnection) -> None:
        async for _ in socket:
            await socket.send('1 {"error":{"code":2,"msg":"Invalid request"},"id":1}')

    async def scenario() -> None:
        async with serve(refuse, "127.0.0.1", 0, select_subprotocol=lambda _, __: VIRTUAL_CLOCK) as running:
            port = running.sockets[0].getsockname()[1]
            with pytest.raises(StageError, match="refused a subscription"):
                await read(public_feed(local_hosts(f"127.0.0.1:{port}")))
        with pytest.raises(StageError, match="cannot connect"):
            await read(public_feed(local_hosts(f"127.0.0.1:{port}")))

    asyncio.run(scenario())


def test_connections_are_merged_by_time_and_the_time_goes_on_without_events() -> None:
    async def play(socket: ServerConnection, visit: int) -> None:
        assert socket.request is not None
        is_public = socket.request.path.startswith("/public")
        frames = (
            [f"2000 {quote(1)}", "2500 ", f"3000 {quote(2)}", "9000 "]
            if is_public
            else [f"2000 {trade(1)}", f"2700 {trade(2)}", "9000 "]
        )
        for message in frames:
            await socket.send(message)
            await asyncio.sleep(0.01 if is_public else 0.001)
        await socket.close(1000, "end of stream")

    async def scenario() -> None:
        config = Config(source="sim", capture=Capture(depth="off"))
        steps: list[Step] = []
        async with server(play) as hosts:
            feeds = await make_feeds(config, hosts, ["binance_um:BTCUSDT"])
            async with opened(feeds):
                async for step in merged(feeds):
                    assert all(tagged.event.recv_ns < step.now_ns for tagged in step.events)  # type: ignore[union-attr]
                    steps.append(step)
        events = [tagged.event for step in steps for tagged in step.events]
        assert [(type(event), getattr(event, "recv_ns", 0)) for event in events] == [
            (Quote, 2000),
            (Trade, 2000),
            (Trade, 2700),
            (Quote, 3000),
        ]
        times = [step.now_ns for step in steps]
        assert times == sorted(times)
        assert times[-1] == 9001

    asyncio.run(scenario())
