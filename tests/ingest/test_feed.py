"""Feeds over real sockets: a small server on loopback that speaks the virtual clock, or plainly, and misbehaves."""

import asyncio
from contextlib import suppress
from itertools import pairwise
from typing import ClassVar

import pytest
from websockets.asyncio.server import ServerConnection, serve

from core.config import Capture, Config
from core.errors import StageError
from core.servers import local_hosts
from ingest.events import BookUpdate, Gap, Quote, Trade
from ingest.feeds import Step, make_feeds, merged, opened
from ingest.rate_limit import RateLimiter
from ingest.rest import RestClient
from ingest.transport import VIRTUAL_CLOCK
from tests.ingest.feed_server import (
    SNAPSHOT,
    depth,
    market_feed,
    public_feed,
    quote,
    read,
    reading,
    server,
    subscribed,
    trade,
    venue,
)


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
            await (await socket.ping())  # it has read all before
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
        await socket.wait_closed()  # the market does not wait for the snapshot

    async def scenario() -> None:
        async with (
            server(play, True, SNAPSHOT, SNAPSHOT.replace(b"100", b"107")) as hosts,
            reading(public_feed(hosts, capture=Capture())) as events,
        ):
            while len(snapshots := [event for event in events.of(BookUpdate) if event.is_snapshot]) < 2:
                await asyncio.sleep(0.01)
        assert [event.update_id for event in snapshots] == [100, 107]
        gaps = [event for event in events if isinstance(event, Gap)]
        found = [(gap.from_ns, gap.to_ns, gap.mended) for gap in gaps if gap.stream == "book_deltas"]
        assert found == [(3000, 4000, False), (4000, found[-1][1], True)]

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


class SilentTunnel:
    """Passes a connection on to a server until `cut`: from then on both sides hear nothing, and nothing is closed."""

    def __init__(self, port: int) -> None:
        self.is_cut = False
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, onward_writer]
        number = len(self._writers)
        await asyncio.gather(self._pass(reader, onward_writer, number), self._pass(onward_reader, writer, number))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if not (self.is_cut and number == 2):  # the first connection
                    writer.write(data)
        writer.close()


def test_a_half_open_connection_is_noticed_and_made_again_and_the_gap_begins_with_its_last_frame() -> None:
    async def scenario() -> None:
        async with venue() as found:
            tunnel = SilentTunnel(int(found.hosts.binance_um_ws.rsplit(":")[-1]))
            async with await asyncio.start_server(tunnel.accept, "127.0.0.1", 0) as through:
                hosts = local_hosts(f"127.0.0.1:{through.sockets[0].getsockname()[1]}")
                feed = public_feed(hosts, False, silence_s=0.6)
                async with subscribed(found, feed) as events:
                    await asyncio.sleep(1.0)  # quiet, but pings are answered
                    assert feed.counts.reconnects == 0
                    await found.push(quote(1))
                    await events.reached(1, Quote)
                    tunnel.is_cut = True
                    await events.reached(1, Gap)
                    await found.push(quote(2))
                    await events.reached(2, Quote)
        first, gap, second = events
        assert gap.reason == "connection lost: no frame and no pong for 0.6 s"
        assert first.recv_ns == gap.from_ns < gap.to_ns < second.recv_ns
        assert feed.counts.reconnects == 1

    asyncio.run(scenario())


def test_streams_that_are_acknowledged_and_never_come_are_told_with_the_likely_cause() -> None:
    """As on the wrong category: the venue acknowledges and is silent."""

    async def scenario() -> None:
        said: list[str] = []
        async with venue() as found:
            feed = public_feed(found.hosts, False, patience_s=0.2, overlap_s=0.2, say=said.append)
            async with reading(feed) as events:
                await events.reached(2, Gap)
        first, second = events[:2]
        assert (first.symbol, first.stream, first.mended) == ("BTCUSDT", "top_of_book", False)
        assert "wrong path or category" in first.reason
        assert first.to_ns == second.from_ns < second.to_ns  # patience doubles
        assert second.to_ns - second.from_ns > 390_000_000
        *_, last = events
        assert last.reason == "silent until the capture ended"
        assert all(before.to_ns == after.from_ns for before, after in pairwise(events))
        assert any("wrong path or category" in text for text in said)

    asyncio.run(scenario())


def test_while_writing_is_behind_nothing_is_read_and_afterwards_everything_is() -> None:
    async def scenario() -> None:
        behind = [False]
        async with venue() as found:
            feed = public_feed(found.hosts, False, silence_s=0.5, patience_s=0.5, behind=lambda: behind[0])
            async with subscribed(found, feed) as events:
                behind[0] = True
                while not feed.counts.paused:
                    await asyncio.sleep(0.01)
                await found.push(*(quote(number) for number in range(1, 1_001)))
                await asyncio.sleep(1.0)  # longer than any patience: what is not read cannot be heard
                assert list(events) == []
                behind[0] = False
                await events.reached(1_000)
        assert [event.update_id for event in events.of(Quote)] == list(range(1, 1_001))
        assert (feed.counts.paused, feed.counts.reconnects, feed.counts.rotations) == (1, 0, 0)

    asyncio.run(scenario())


def test_each_attempt_to_connect_counts_against_the_venues_limit() -> None:
    class Counting(RateLimiter):
        asked: ClassVar[list[str]] = []

        async def acquire(self, url: str, patience_s: float = 0.0) -> None:
            self.asked.append(url)

    async def scenario() -> None:
        async with venue() as found:
            feed = public_feed(found.hosts, False, rotate_after_s=0.1, overlap_s=0.1, rest=RestClient(Counting()))
            async with reading(feed):
                while feed.counts.rotations < 2:
                    await asyncio.sleep(0.01)
            assert 3 <= found.visits <= len(Counting.asked) <= found.visits + 1  # one may be on its way
            assert set(Counting.asked) == {feed.plan.url}

    asyncio.run(scenario())


def test_a_hundred_lost_connections_leave_a_gap_each_and_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every trade is there or in a gap, and once."""
    monkeypatch.setattr("ingest.feed._WAIT_S", (0.0, 0.02))

    async def scenario() -> None:
        async with venue(rest=lambda path: (400, b"{}")) as found:
            feed = market_feed(found.hosts)
            async with reading(feed) as events:
                number = 0
                for _ in range(100):
                    while not found.sockets:
                        await asyncio.sleep(0.005)
                    for _ in range(3):
                        number += 1
                        await found.push(trade(number))
                    await events.reached(1)
                    while not any(event.trade_id == str(number) for event in events.of(Trade)[-3:]):
                        await asyncio.sleep(0.001)
                    number += 2  # while nobody listens
                    found.sockets[0].transport.abort()
                    while found.sockets:
                        await asyncio.sleep(0.001)
            numbers = [int(event.trade_id) for event in events.of(Trade)]
        assert len(numbers) == len(set(numbers)) == 300
        holes = {gap.reason for gap in events.of(Gap) if gap.stream == "trades"}
        assert len(holes) >= 99
        assert found.visits >= 100
        marks = [gap for gap in events.of(Gap) if gap.stream == "mark_prices"]
        assert all(before.to_ns <= after.from_ns for before, after in pairwise(marks))  # each from its own loss

    asyncio.run(scenario())
