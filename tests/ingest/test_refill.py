"""Trades that a stream left out: told at once, fetched by REST page by page, and told again when they were."""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from math import inf
from urllib.parse import parse_qs, urlsplit

import pytest
from websockets.asyncio.server import ServerConnection

from core.config import Capture, Hosts
from core.gaps import unmended
from core.schema import GAPS
from core.units import NS_PER_S
from ingest.events import NOT_RUNNING, Event, Gap, Trade
from ingest.open_holes import OpenHole
from ingest.packing import frame_of
from ingest.plans import plans
from ingest.rate_limit import Stopped
from ingest.receive_clock import ReceiveClock
from ingest.reception import Reception
from ingest.refill import Refill
from ingest.rest import RestClient
from tests.ingest.feed_server import Venue, market_feed, reading, rest_trades, server, subscribed, trade, venue

Rest = Callable[[str], tuple[int, bytes]]
LAST = Trade("BTCUSDT", 1, NS_PER_S, "3", 1.5, 1.0, "buy")
"""Of an earlier process."""


def by_id(most: int, last: int = 10**9) -> Rest:
    """A venue's REST that knows all trades up to `last` and gives `most` at once."""

    def rest(path: str) -> tuple[int, bytes]:
        first = int(parse_qs(urlsplit(path).query)["fromId"][0])
        return 200, rest_trades(first, min(first + most - 1, last))

    return rest


def gaps_and_trades(
    found: Venue, *numbers: int, per_hole: int = 2, until: Sequence[str] = ("at once",), **options: object
) -> tuple[list[Gap], list[Trade]]:
    """What a feed tells of trades with these numbers, once there are so many gaps for each hole, and `until` is not
    empty.
    """

    async def scenario() -> tuple[list[Gap], list[Trade]]:
        async with venue(rest=found.rest) as served:
            feed = market_feed(served.hosts, **options)
            async with subscribed(served, feed) as events:
                await served.push(trade(numbers[0]))
                await asyncio.sleep(0.05)
                await served.push(*(trade(number) for number in numbers[1:]))
                holes = sum(after > before + 1 for before, after in pairwise(numbers))
                await events.reached(per_hole * holes, Gap)
                while not until:
                    await asyncio.sleep(0.01)
            found.asked = served.asked
            assert feed.counts.refilled == sum(event.recv_assumed for event in events.of(Trade))
            return events.of(Gap), events.of(Trade)

    return asyncio.run(scenario())


def test_missed_trades_are_fetched_and_the_gap_is_mended() -> None:
    found = Venue(rest=by_id(1000))
    (told, gap), trades = gaps_and_trades(found, 4, 9, 10)
    assert sorted(int(event.trade_id) for event in trades) == [4, 5, 6, 7, 8, 9, 10]
    before, after = (next(event for event in trades if event.trade_id == name) for name in ("4", "9"))
    assert (gap.symbol, gap.stream, gap.mended) == ("BTCUSDT", "trades", True)
    assert told == Gap("BTCUSDT", "trades", before.recv_ns, after.recv_ns, "aggTrade 4 is followed by 9", False)
    assert (gap.from_ns, gap.to_ns) == (before.recv_ns, after.recv_ns)
    assert gap.reason == "aggTrades 5-8 missed, 4 refilled by REST"
    assert gap.known_ns == told.known_ns == gap.to_ns  # the hole was known when it was met
    filled = [event for event in trades if event.recv_assumed]
    assert [int(event.trade_id) for event in filled] == [5, 6, 7, 8]
    assert all(gap.from_ns <= event.recv_ns <= gap.to_ns for event in filled)
    assert len(found.asked) == 1


def test_a_long_hole_is_fetched_page_by_page_and_holes_one_after_another() -> None:
    found = Venue(rest=by_id(10))
    gaps, trades = gaps_and_trades(found, 1, 27, 28, 30)
    assert sorted(int(event.trade_id) for event in trades) == list(range(1, 31))
    mended = [gap for gap in gaps if gap.mended]
    assert len(mended) == 2
    assert [parse_qs(urlsplit(path).query)["fromId"] for path in found.asked] == [["2"], ["12"], ["22"]]
    assert "0 refilled" in mended[1].reason  # the page before had it


def test_hundreds_of_holes_that_wait_are_all_filled() -> None:
    gaps, trades = gaps_and_trades(Venue(rest=by_id(1000)), *range(0, 600, 2))
    assert sorted(int(event.trade_id) for event in trades) == list(range(599))
    assert gone(gaps) == []


def gone(gaps: list[Gap]) -> list[tuple[int, int]]:
    """The gaps that stay open."""
    frame = frame_of(GAPS, gaps)
    return unmended(frame).select("from_ns", "to_ns").rows()


@pytest.mark.parametrize(
    ("rest", "numbers", "why"),
    [
        (lambda path: (400, b'{"code":-1121,"msg":"Invalid symbol."}'), (1, 5), "0 refilled by REST: .* HTTP 400"),
        (lambda path: (200, rest_trades(2, 9).replace(b'"1.5"', b'"?"', 1)), (1, 7), "trade 2 could not be read"),
        (lambda path: (200, b"garbage"), (1, 5), "0 refilled by REST: the venue gives no trade 2"),
    ],
)
def test_what_cannot_be_fetched_stays_a_gap_and_it_is_said_why(rest: Rest, numbers: tuple[int, ...], why: str) -> None:
    said: list[str] = []
    (gap,), _ = gaps_and_trades(Venue(rest=rest), *numbers, per_hole=1, say=said.append, until=said)
    assert not gap.mended
    assert any(re.search(why, text) for text in said)


@pytest.mark.parametrize(
    ("rest", "numbers", "left"),
    [
        (by_id(10, last=14), (1, 27), r"aggTrades 15-26 missed: the venue gives no trade 15"),
        (lambda path: (200, rest_trades(2, 3)[:-1] + b", " + rest_trades(5, 9)[1:]), (1, 7), r"aggTrades 4-4 missed:"),
    ],
)
def test_of_a_hole_that_is_filled_in_part_only_the_rest_stays_a_gap(
    rest: Rest, numbers: tuple[int, ...], left: str
) -> None:
    def in_the_midst(path: str) -> tuple[int, bytes]:
        status, body = rest(path)
        return status, body.replace(b'"T": 1,', b'"T": 11,')  # 10 ms after the trade before

    (told, still, mended), trades = gaps_and_trades(Venue(rest=in_the_midst), *numbers, per_hole=3)
    assert (told.from_ns, told.to_ns, mended.mended) == (mended.from_ns, mended.to_ns, True)
    assert told.from_ns < still.from_ns < still.to_ns == told.to_ns
    assert re.match(left, still.reason)
    before = int(still.reason.split()[1].split("-")[0]) - 1
    assert still.from_ns == next(trade.recv_ns for trade in trades if trade.trade_id == str(before))
    assert gone([told, still, mended]) == [(still.from_ns, still.to_ns)]
    assert {told.known_ns, still.known_ns, mended.known_ns} == {told.to_ns}


def test_holes_that_still_wait_when_a_capture_breaks_off_stay_told() -> None:
    async def scenario() -> None:
        async with venue(rest=by_id(1000)) as found:
            async with subscribed(found, market_feed(found.hosts)) as events:
                await found.push(trade(1), trade(5))
                await events.reached(2, Trade)
            (gap,) = events.of(Gap)
        assert (gap.mended, gap.reason) == (False, "aggTrade 1 is followed by 5")

    asyncio.run(scenario())


class Stopping(RestClient):
    """Stopped for a time by the venue, as by a 418, after some pages; then it gives all."""

    def __init__(self, stop_s: float, pages: int) -> None:
        super().__init__()
        self.stop_s, self.pages, self.asked = stop_s, pages, 0

    async def get(self, url: str, timeout_s: float = 1.0, headers: Mapping[str, str] | None = None) -> bytes:
        self.asked += 1
        if self.asked == self.pages + 1:
            raise Stopped("binance futures", self.stop_s, "HTTP 418, over its rate limit")
        first = int(parse_qs(urlsplit(url).query)["fromId"][0])
        return rest_trades(first, first + 1)


@pytest.mark.parametrize(("stop_s", "is_mended"), [(0.3, True), (3_600.0, False), (inf, False)])
def test_holes_wait_while_the_venue_must_not_be_asked_unless_that_is_for_good(stop_s: float, is_mended: bool) -> None:
    plan = next(plan for plan in plans(["binance_um:BTCUSDT"], Capture(), Hosts()) if plan.trades_url)
    found, events, said = Reception(plan, plan.url, ReceiveClock()), list[Event](), list[str]()
    found.release_to(lambda _, told: events.extend(told))
    found.decoder.refills = True
    for number in (1, 6, 9):
        found.take_now(trade(number).encode())
    rest = Stopping(stop_s, pages=1)
    refill = Refill(found, rest, 1.0, said.append)

    asked = 4 if is_mended else 2 if stop_s < inf else 3

    async def scenario() -> None:
        refilling = asyncio.create_task(refill.run())
        while rest.asked < asked and not refilling.done():
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.4)  # and no more, though it looks again
        refilling.cancel()

    asyncio.run(scenario())
    assert len(refill._waiting) == (2 if stop_s == 3_600.0 else 0)
    refill.finish()
    assert (gone([event for event in events if isinstance(event, Gap)]) == []) == is_mended
    assert bool(said) != is_mended
    assert rest.asked == asked


def test_an_orderly_end_fetches_what_was_met_last() -> None:
    async def scenario() -> None:
        async with venue(rest=by_id(1000)) as found:
            feed = market_feed(found.hosts)
            async with subscribed(found, feed) as events:
                await found.push(trade(1), trade(5))
                await events.reached(2, Trade)
                assert feed.end()
                await events.reached(None)
            assert len(events.of(Trade)) == 5
            assert gone(events.of(Gap)) == []

    asyncio.run(scenario())


def resumed(
    *numbers: int, last: Trade = LAST, holes: Sequence[OpenHole] = (), gaps: int = 0, trades: int = 0
) -> tuple[list[Gap], list[Trade]]:
    """What a feed tells that goes on from an earlier process, once so many gaps and trades came by those numbers."""

    async def scenario() -> tuple[list[Gap], list[Trade]]:
        async with venue(rest=by_id(1000)) as found:
            feed = market_feed(found.hosts)
            feed.resume(last, holes)
            async with subscribed(found, feed) as events:
                await found.push(*map(trade, numbers))
                await events.reached(gaps, Gap)
                await events.reached(trades, Trade)
                await asyncio.sleep(0)  # `run` has begun
            return events.of(Gap), events.of(Trade)

    return asyncio.run(scenario())


def test_what_was_missed_since_an_earlier_process_is_fetched_too() -> None:
    (told, mended), trades = resumed(3, 7, gaps=2)  # what it has is no row again
    assert sorted(int(event.trade_id) for event in trades) == [4, 5, 6, 7]
    assert (told.from_ns, told.reason) == (NS_PER_S, f"{NOT_RUNNING}: aggTrade 3 is followed by 7")
    assert gone([told, mended]) == []


@pytest.mark.parametrize("numbers", [(), (4,)])
def test_of_an_earlier_processs_trades_none_is_a_gap_if_ids_follow_on_and_all_is_if_none_comes(
    numbers: tuple[int, ...],
) -> None:
    gaps, _ = resumed(*numbers, trades=len(numbers))
    assert [(gap.from_ns, gap.reason) for gap in gaps] == (
        [] if numbers else [(NS_PER_S, "not connected, and no trade since")]
    )


def test_who_acts_on_trades_gets_none_late_but_the_gap() -> None:
    (gap,), trades = gaps_and_trades(Venue(rest=by_id(1000)), 1, 5, refill=False, per_hole=1)
    assert [int(event.trade_id) for event in trades] == [1, 5]
    assert not gap.mended


def test_after_a_lost_connection_only_missed_trades_are_a_gap() -> None:
    """Ids tell what a reconnect cost: nothing here, so the trades have no gap, while other streams of it have."""

    async def play(socket: ServerConnection, visit: int) -> None:
        await socket.send(trade(visit))
        if visit == 1:
            await (await socket.ping())  # it has read all before
            socket.transport.abort()

    async def scenario() -> None:
        async with server(play, virtual=False) as hosts:
            feed = market_feed(hosts)
            async with reading(feed) as events:
                await events.reached(2, Trade)
        gaps = events.of(Gap)
        assert {gap.stream for gap in gaps} == {"mark_prices", "liquidations"}
        assert all(gap.reason.startswith("connection lost") for gap in gaps)

    asyncio.run(scenario())


def test_a_lost_connection_after_which_no_trade_came_is_a_gap_of_the_trades_too() -> None:
    async def play(socket: ServerConnection, visit: int) -> None:
        if visit == 1:
            await socket.send(trade(visit))
            await (await socket.ping())  # it has read all before
            socket.transport.abort()

    async def scenario() -> None:
        async with server(play, virtual=False) as hosts:
            async with reading(market_feed(hosts)) as events:
                await events.reached(2, Gap)
            first = events.of(Trade)[0]
        (gap,) = [gap for gap in events.of(Gap) if gap.stream == "trades"]
        assert gap.from_ns == first.recv_ns < gap.to_ns
        assert gap.reason == "not connected, and no trade since"

    asyncio.run(scenario())
