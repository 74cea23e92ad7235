"""A venue in the present, and what goes wrong on purpose: frames, connections, REST, and the ledger of it."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from backtest.market.exchange import Exchange
from backtest.market.exchange_server import at_wall_clock, service, wall_chunks
from backtest.market.faults import FaultInjector, Ledger
from backtest.market.frame import facts, stream_of
from backtest.market.local_server import running
from backtest.market.pump import Pump
from core.config import Config, Faults
from core.units import NS_PER_S

MARKET = "/market/stream?streams=btcusdt@aggTrade/btcusdt@markPrice@1s/btcusdt@kline_1m"
PUBLIC = "/public/stream?streams=btcusdt@bookTicker/btcusdt@depth@500ms"
SYMBOLS = [f"S{number}USDT" for number in range(8)]
QUOTES = "/public/stream?streams=" + "/".join(f"{symbol.lower()}@bookTicker" for symbol in SYMBOLS)
LISTED = [f"binance_um:{symbol}" for symbol in SYMBOLS]
BYBIT = {"op": "subscribe", "args": [f"{name}.BTCUSDT" for name in ("orderbook.1", "orderbook.50", "publicTrade")]}


class Venue(NamedTuple):
    """A local server in the present."""

    address: str
    pump: Pump
    injector: FaultInjector
    exchange: Exchange

    @property
    def ledger(self) -> Ledger:
        return self.injector.ledger


@asynccontextmanager
async def venue(path: Path | None = None, **faults: Any) -> AsyncIterator[Venue]:
    config = Config(symbols=("binance_um:BTCUSDT", "bybit:BTCUSDT", *LISTED), faults=Faults(**faults))
    exchange = Exchange(wall_chunks(config))
    pump, injector = at_wall_clock(exchange, config, Ledger(path))
    async with running(pump, *service(exchange, pump, injector)) as (address, _):
        timed = asyncio.create_task(injector.run(pump))
        yield Venue(address, pump, injector, exchange)
        timed.cancel()


def connected(address: str, path: str) -> connect:
    return connect(f"ws://{address}{path}", compression=None)


async def heard(client: ClientConnection, seconds: float) -> list[str]:
    """What comes within some seconds."""
    found: list[str] = []
    try:
        async with asyncio.timeout(seconds):
            while True:
                found.append(str(await client.recv()))
    except (TimeoutError, ConnectionClosed):
        return found


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


def ids(texts: list[str], kind: str) -> list[Any]:
    found = [facts(text) for text in texts if stream_of(text)[1] == kind]
    return [fact.last_id for fact in found if fact]


def test_the_market_is_in_the_present_and_goes_on_without_clients() -> None:
    async def work() -> None:
        async with venue() as server:
            while abs(server.pump.now_ns - time.time_ns()) >= NS_PER_S:  # it may have begun some seconds ago
                await asyncio.sleep(0.1)
            async with connected(server.address, MARKET) as client:
                texts = await heard(client, 2.0)
            assert server.pump.wall
            events = [json.loads(text)["data"] for text in texts]
            assert {event["e"] for event in events} >= {"aggTrade", "markPriceUpdate"}
            late_ms = [time.time_ns() // 10**6 - event["E"] for event in events]
            assert min(late_ms) >= 0
            assert max(late_ms) < 6_000
            trades = ids(texts, "trades")
            assert trades == list(range(trades[0], trades[0] + len(trades)))

    run(work())


@pytest.mark.parametrize("kind", ["drop", "double", "reorder", "truncate"])
def test_frames_are_spoiled_as_the_ledger_says(kind: str) -> None:
    async def work() -> None:
        async with venue(**{kind: {"quotes": 0.4}}) as server, connected(server.address, QUOTES) as client:
            texts = await heard(client, 2.0)
            server.injector.faults = Faults()
            texts += await heard(client, 0.2)  # what was under way
            told = [(row["symbol"], row["last_id"]) for row in server.ledger.of(kind)]
            whole = [facts(text) for text in texts if text.endswith("}}")]
            quotes = [(fact.symbol, fact.last_id) for fact in whole if fact]
            counts = Counter(quotes)
            assert len(told) > 3
            if kind == "drop":
                assert not set(told) & set(quotes)
            elif kind == "double":
                assert {one for one, count in counts.items() if count == 2} == set(told)
            elif kind == "reorder":
                assert late(quotes)
                assert late(quotes) <= set(told)
            else:
                assert len(texts) - len(whole) == len(told)
                assert not set(told) & set(quotes)

    run(work())


def test_the_snapshot_that_a_ticker_begins_with_stays_before_what_changes_it() -> None:
    """A connection keeps its order: nobody can take a change of what was not told yet."""

    def ticker(number: int) -> str:
        kind = "delta" if number else "snapshot"
        data = '{"symbol":"BTCUSDT","markPrice":"1"}'
        return f'{{"topic":"tickers.BTCUSDT","type":"{kind}","ts":{number},"data":{data}}}'

    injector, texts = (
        FaultInjector(Faults(reorder={"marks": 1.0}), 1, Ledger()),
        [ticker(number) for number in range(3)],
    )
    sent = injector.spoil(Mock(stopped=False), texts)
    assert sent == [texts[0], texts[2], texts[1]]


def late(quotes: list[tuple[str, Any]]) -> set[tuple[str, Any]]:
    """Those that came after their successor."""
    latest: dict[str, Any] = {}
    found = set()
    for symbol, number in quotes:
        if number < latest.get(symbol, 0):
            found.add((symbol, number))
        latest[symbol] = max(number, latest.get(symbol, 0))
    return found


def test_a_muted_kind_is_acknowledged_and_never_comes() -> None:
    async def work() -> None:
        async with venue(mute=("trades",)) as server, connected(server.address, MARKET) as client:
            texts = await heard(client, 1.5)
            assert {json.loads(text)["data"]["e"] for text in texts} <= {"markPriceUpdate", "kline"}
            assert texts

    run(work())


@pytest.mark.parametrize(("how", "code"), [("reset", 1006), ("close", 1001), ("shutdown", 1001)])
def test_connections_are_ended_in_three_ways(how: str, code: int) -> None:
    async def work() -> None:
        async with venue(**{f"{how}_every_s": 0.3}) as server, connected(server.address, PUBLIC) as client:
            texts = await heard(client, 5.0)
            closed = client.protocol.close_exc
            assert (closed.rcvd.code if closed.rcvd else 1006) == code
            assert ('"serverShutdown"' in "".join(texts)) == (how == "shutdown")
            row = server.ledger.of(how)[0]
            assert (row["path"], row["streams"]) == (PUBLIC, ["btcusdt@bookTicker", "btcusdt@depth@500ms"])

    run(work())


def test_a_silent_connection_stays_open_and_what_it_misses_is_lost() -> None:
    async def work() -> None:
        async with venue() as server, connected(server.address, MARKET) as client:
            await heard(client, 0.3)
            server.injector.silence(server.pump.outlets[0], 3.0)
            await heard(client, 0.4)  # what was under way
            assert not await heard(client, 0.8)
            assert await asyncio.wait_for(client.recv(), 20)

    run(work())


def test_a_half_open_connection_does_not_even_answer_pings() -> None:
    async def work() -> None:
        async with venue() as server, connected(server.address, MARKET) as client:
            await heard(client, 0.5)
            server.injector.half_open(server.pump.outlets[0])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(await client.ping(), 1.0)
            await heard(client, 0.4)  # what was under way
            assert not await heard(client, 0.5)
            client.transport.abort()

    run(work())


def test_a_restart_numbers_bybits_books_from_one() -> None:
    async def work() -> None:
        async with venue() as server, connected(server.address, "/v5/public/linear") as client:
            await client.send(json.dumps(BYBIT))
            await heard(client, 0.6)
            server.injector.restart()
            async with connected(server.address, "/v5/public/linear") as late:
                await late.send(json.dumps(BYBIT))
                found = [json.loads(text) for text in await heard(late, 1.7)]
            books = [frame["data"]["u"] for frame in found if str(frame.get("topic")).startswith("orderbook.1.")]
            assert books[0] == 1  # a subscription of meanwhile begins with no state of before
            frames = [json.loads(text) for text in await heard(client, 0.1)]
            for topic in ("orderbook.50.BTCUSDT", "orderbook.1.BTCUSDT"):
                books = [frame for frame in frames if frame.get("topic") == topic]
                numbers = [frame["data"]["u"] for frame in books]
                first = numbers.index(1)
                assert books[first]["type"] == "snapshot"
                assert numbers[first:] == sorted(set(numbers[first:]))
                assert "50" not in topic or numbers[first:] == list(range(1, len(numbers) - first + 1))
            url = f"http://{server.address}/v5/market/orderbook?category=linear&symbol=BTCUSDT"
            async with httpx.AsyncClient(trust_env=False) as rest:
                assert (await rest.get(url)).json()["result"]["u"] < 20

    run(work())


def test_rest_fails_as_often_as_it_is_told() -> None:
    async def work() -> None:
        async with venue() as server, httpx.AsyncClient(trust_env=False, timeout=0.5) as rest:
            url = f"http://{server.address}/fapi/v1/depth?symbol=BTCUSDT"
            for fault in (403, 418, 429, 451, 500, 503):
                server.injector.rest_fails(fault, 1)
                answer = await rest.get(url)
                assert (answer.status_code, "Retry-After" in answer.headers) == (fault, fault in (418, 429))
            for fault, error in (("timeout", httpx.ReadTimeout), ("cut", httpx.RemoteProtocolError)):
                server.injector.rest_fails(fault, 1)
                with pytest.raises(error):
                    await rest.get(url)
            server.injector.rest_fails("garbled", 1)
            with pytest.raises(json.JSONDecodeError):
                (await rest.get(url)).json()
            assert (await rest.get(url)).json()["lastUpdateId"] > 0
            assert len(server.ledger.of("rest")) == 9

    run(work())


def test_a_stale_snapshot_is_older_than_the_stream() -> None:
    async def work() -> None:
        async with venue(stale_s=1.0) as server, httpx.AsyncClient(trust_env=False) as rest:
            await asyncio.sleep(2.2)
            url = f"http://{server.address}/fapi/v1/depth?symbol=BTCUSDT"
            server.injector.stale_books(1)
            stale, fresh = [(await rest.get(url)).json() for _ in range(2)]
            assert stale["lastUpdateId"] < fresh["lastUpdateId"]
            assert fresh["T"] - stale["T"] >= 500
            assert (await rest.get(url)).headers["X-MBX-USED-WEIGHT-1M"] == "30"

    run(work())


def test_one_who_does_not_read_is_cut_off_and_holds_nobody() -> None:
    async def work() -> None:
        async with (
            venue() as server,
            connected(server.address, PUBLIC) as lazy,
            connected(server.address, PUBLIC) as reads,
        ):
            lazy.transport.pause_reading()
            stuck = server.pump.outlets[0]
            stuck.say("x" * 40_000_000, 0)
            await asyncio.sleep(0.1)
            assert stuck not in server.pump.outlets
            assert await heard(reads, 1.0)
            lazy.transport.abort()

    run(work())


def test_the_ledger_is_a_file_of_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "faults.jsonl"
    ledger = Ledger(path)
    ledger.write("begin", from_ns=5)
    ledger.write("drop", stream="btcusdt@aggTrade", last_id=7)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows == ledger.rows
    assert [row["fault"] for row in rows] == ["begin", "drop"]
