"""The simulated exchange over real sockets: plain clients, virtual clients, REST."""

import asyncio
import json
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from backtest.market.exchange import Exchange
from backtest.market.exchange_server import service
from backtest.market.local_server import running
from backtest.market.pump import VIRTUAL_CLOCK, WATERMARK_NS, Pump
from backtest.market.tape import Tape
from backtest.market.wire import binance_snapshot, book_at
from core.config import ROOT, Config
from core.servers import EXCHANGE_MODULE
from core.units import NS_PER_S
from ingest.binance import BinanceDecoder
from ingest.bybit import BybitDecoder
from ingest.events import BookUpdate, Gap, Quote

NEVER_NS = 2**63 - 1
PUBLIC = {"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker", "btcusdt@depth@500ms"], "id": 1}
MARKET = {"method": "SUBSCRIBE", "params": ["btcusdt@aggTrade", "btcusdt@markPrice@1s", "btcusdt@forceOrder"], "id": 1}
TOPICS = ["orderbook.1", "orderbook.50", "publicTrade", "tickers", "allLiquidation"]
BYBIT = {"op": "subscribe", "args": [f"{topic}.ETHUSDT" for topic in TOPICS]}

Chunks = list[list[Tape]]


@asynccontextmanager
async def exchange_of(chunks: Chunks, speed: float = 0.0) -> AsyncIterator[tuple[str, Pump]]:
    exchange = Exchange(iter(chunks))
    pump = Pump(exchange, speed)
    async with running(pump, *service(exchange, pump)) as (address, _):
        yield address, pump


def connected(address: str, path: str, virtual: bool = True) -> connect:
    return connect(f"ws://{address}{path}", subprotocols=[VIRTUAL_CLOCK] if virtual else None, compression=None)


async def tell(client: ClientConnection, **message: Any) -> None:
    await client.send(json.dumps(message))


async def ask(client: ClientConnection, **request: Any) -> str:
    """Send a request of the venue's and return its answer."""
    await tell(client, **request)
    return str(await asyncio.wait_for(client.recv(), 5))


async def to_the_end(client: ClientConnection) -> tuple[list[tuple[int, str]], str]:
    """All that a virtual client is told, as (recv_ns, frame), and the reason of the end."""
    told = []
    while True:
        try:
            stamp, _, frame = str(await asyncio.wait_for(client.recv(), 5)).partition(" ")
        except ConnectionClosedOK as end:
            return told, str(end.rcvd and end.rcvd.reason)
        told.append((int(stamp), frame))


async def silent_for(client: ClientConnection, seconds: float) -> bool:
    try:
        await asyncio.wait_for(client.recv(), seconds)
    except TimeoutError:
        return True
    return False


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


async def capture_all(chunks: Chunks) -> dict[str, list[tuple[int, str]]]:
    """What three virtual clients, as our capture makes them, are told."""
    async with (
        exchange_of(chunks) as (address, _),
        connected(address, "/public/stream") as public,
        connected(address, "/market/stream") as market,
        connected(address, "/v5/public/linear") as bybit,
    ):
        clients = {"public": public, "market": market, "bybit": bybit}
        for client, request in zip(clients.values(), (PUBLIC, MARKET, BYBIT), strict=True):
            await tell(client, **request)
        for client in clients.values():
            await tell(client, clock=NEVER_NS)
        ends = await asyncio.gather(*(to_the_end(client) for client in clients.values()))
    assert {reason for _, reason in ends} == {"end of stream"}
    return {name: told for name, (told, _) in zip(clients, ends, strict=True)}


def test_virtual_clients_get_every_row_of_the_market_at_its_time(make_chunks: Any) -> None:
    chunks = make_chunks(2, 60)

    async def work() -> None:
        told = await capture_all(chunks)
        for name, venue, rows in (
            ("public", 0, ("quotes", "depth")),
            ("market", 0, ("trades", "marks", "liquidations")),
            ("bybit", 1, ("quotes", "trades", "depth", "marks", "liquidations")),
        ):
            stamps = [stamp for stamp, frame in told[name] if '"stream":' in frame or '"ts":' in frame]
            expected = np.concatenate([getattr(chunk[venue], kind)["recv_ns"] for chunk in chunks for kind in rows])
            opening = 1 if name == "bybit" else 0  # orderbook.50 begins with its snapshot; tickers have no value yet
            assert stamps[opening:] == sorted(expected.tolist())
            assert stamps[:opening] == [chunks[0][0].from_ns] * opening

    run(work())


def test_frames_of_a_connection_decode_in_order_and_the_books_close(make_chunks: Any) -> None:
    chunks = make_chunks(3, 60)
    snapshot = binance_snapshot(chunks[0][0].instrument, chunks[0][0].book_at_start, 1000)

    async def work() -> None:
        told = await capture_all(chunks)
        binance, bybit = BinanceDecoder("binance_um", keep_levels=True), BybitDecoder("bybit", keep_levels=True)
        binance.decode_rest("https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT", snapshot, chunks[0][0].from_ns)
        assert_complete(binance, told["public"])
        assert_complete(bybit, told["bybit"])

    run(work())


def assert_complete(decoder: BinanceDecoder | BybitDecoder, told: list[tuple[int, str]]) -> None:
    """All quotes are there, and the book knows of no gap."""
    events = [event for stamp, frame in told if frame for event in decoder.decode(frame, stamp)]
    assert sum(isinstance(event, Quote) for event in events) == 180
    assert any(isinstance(event, BookUpdate) for event in events)
    assert not any(isinstance(event, Gap) for event in events)
    assert not decoder.finish(NEVER_NS)
    assert not decoder.wants_snapshot
    assert all(book.book.best() for book in decoder.books.values())


def test_two_captures_of_one_market_are_told_the_same(make_chunks: Any) -> None:
    chunks = make_chunks(2, 40)

    async def work() -> None:
        assert await capture_all(chunks) == await capture_all(chunks)

    run(work())


def test_virtual_time_is_told_at_least_every_100_ms_and_never_falls(make_chunks: Any) -> None:
    chunks = make_chunks(2, 40)

    async def work() -> None:
        for told in (await capture_all(chunks)).values():
            stamps = np.array([stamp for stamp, _ in told])
            assert stamps[-1] == chunks[-1][0].to_ns
            assert np.diff(stamps).min() >= 0
            assert np.diff(stamps).max() <= WATERMARK_NS

    run(work())


def test_nothing_is_sent_before_every_virtual_client_has_said_its_clock(make_chunks: Any) -> None:
    async def work() -> None:
        async with (
            exchange_of(make_chunks(1)) as (address, _),
            connected(address, "/public/stream") as first,
            connected(address, "/v5/public/linear") as second,
        ):
            await ask(first, **PUBLIC)
            await tell(first, clock=NEVER_NS)
            assert await silent_for(first, 0.1)
            await tell(second, clock=NEVER_NS)
            for client in (first, second):
                assert (await to_the_end(client))[1] == "end of stream"

    run(work())


def test_the_market_stays_behind_the_least_clock(make_chunks: Any) -> None:
    chunks = make_chunks(2, 60)
    start_ns = chunks[0][0].from_ns
    limits = [start_ns + NS_PER_S, start_ns + 7 * NS_PER_S, start_ns + 13 * NS_PER_S]

    async def work() -> None:
        async with (
            exchange_of(chunks) as (address, _),
            connected(address, "/public/stream") as slow,
            connected(address, "/market/stream") as fast,
        ):
            await ask(slow, **PUBLIC)
            await ask(fast, **MARKET)
            await tell(fast, clock=NEVER_NS)
            for limit_ns in limits:
                await tell(slow, clock=limit_ns)
                for client, kinds in ((slow, ("quotes", "depth")), (fast, ("trades", "marks", "liquidations"))):
                    stamps = await frames_until(client, limit_ns)
                    assert await silent_for(client, 0.05)
                    rows = np.concatenate([getattr(chunk[0], kind)["recv_ns"] for chunk in chunks for kind in kinds])
                    begin_ns = max((before for before in limits if before < limit_ns), default=start_ns)
                    assert stamps == sorted(rows[(rows >= begin_ns) & (rows < limit_ns)].tolist())

    run(work())


async def frames_until(client: ClientConnection, limit_ns: int) -> list[int]:
    """Times of the frames up to the watermark at `limit_ns`."""
    stamps = []
    while True:
        stamp, _, frame = str(await asyncio.wait_for(client.recv(), 5)).partition(" ")
        if frame:
            stamps.append(int(stamp))
        elif int(stamp) >= limit_ns:
            assert int(stamp) == limit_ns
            return stamps


def test_a_client_that_leaves_no_longer_holds_the_market(make_chunks: Any) -> None:
    async def work() -> None:
        async with exchange_of(make_chunks(1)) as (address, _), connected(address, "/public/stream") as stays:
            async with connected(address, "/market/stream"):
                await ask(stays, **PUBLIC)
                await tell(stays, clock=NEVER_NS)
                assert await silent_for(stays, 0.05)
            told, reason = await to_the_end(stays)
            assert (len(told) > 50, reason) == (True, "end of stream")

    run(work())


def test_acknowledgements_carry_the_virtual_time(make_chunks: Any) -> None:
    chunks = make_chunks(1)

    async def work() -> None:
        async with exchange_of(chunks) as (address, _), connected(address, "/v5/public/linear") as client:
            assert client.subprotocol == VIRTUAL_CLOCK
            stamp, _, frame = (await ask(client, op="ping", req_id="1")).partition(" ")
            assert (int(stamp), json.loads(frame)["ret_msg"]) == (chunks[0][0].from_ns, "pong")

    run(work())


def test_plain_clients_get_plain_frames_of_their_category_in_real_time(make_chunks: Any) -> None:
    async def work() -> None:
        async with (
            exchange_of(make_chunks(1, 200)) as (address, pump),
            connected(address, "/public/ws/btcusdt@bookTicker/btcusdt@aggTrade", virtual=False) as client,
        ):
            began_ns = pump.now_ns
            frames = [json.loads(await asyncio.wait_for(client.recv(), 5)) for _ in range(3)]
            assert client.subprotocol is None
            assert {frame["e"] for frame in frames} == {"bookTicker"}
            await asyncio.sleep(0.3)
            assert pump.now_ns - began_ns < 5 * NS_PER_S

    run(work())


def test_a_stream_of_the_other_category_is_acknowledged_and_never_comes(make_chunks: Any) -> None:
    async def work() -> None:
        async with (
            exchange_of(make_chunks(1, 200), speed=20.0) as (address, _),
            connected(address, "/public/stream", virtual=False) as client,
        ):
            assert json.loads(await ask(client, **MARKET)) == {"result": None, "id": 1}
            assert await silent_for(client, 0.2)
            assert json.loads(await ask(client, method="LIST_SUBSCRIPTIONS", id=2))["result"] == MARKET["params"]

    run(work())


def test_who_subscribes_to_bybit_later_begins_with_the_state_of_the_topic(make_chunks: Any) -> None:
    chunks = make_chunks(2, 100)
    tape = chunks[0][1]
    now_ns = tape.from_ns + 5 * NS_PER_S

    async def work() -> None:
        async with exchange_of(chunks) as (address, _), connected(address, "/v5/public/linear") as client:
            await tell(client, clock=now_ns)
            await frames_until(client, now_ns)
            ack, *opening = [await ask(client, **BYBIT)] + [str(await client.recv()) for _ in range(3)]
            frames = {frame["topic"].rpartition(".")[0]: frame for frame in (json.loads(text[20:]) for text in opening)}
            assert {text.partition(" ")[0] for text in (ack, *opening)} == {str(now_ns)}
            book = book_at(tape, now_ns)
            assert frames["orderbook.50"]["type"] == frames["tickers"]["type"] == "snapshot"
            last = tape.marks[tape.marks["recv_ns"] < now_ns][-1]
            assert float(frames["tickers"]["data"]["markPrice"]) == last["mark_price"]
            assert frames["orderbook.50"]["data"]["u"] == book.update_id

    run(work())


def test_rest_answers_are_of_the_present(make_chunks: Any) -> None:
    chunks = make_chunks(2, 100)
    tape = chunks[0][0]
    now_ns = tape.from_ns + 5 * NS_PER_S

    async def work() -> None:
        async with (
            exchange_of(chunks) as (address, _),
            connected(address, "/public/stream") as client,
            httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as rest,
        ):
            await tell(client, clock=now_ns)
            await frames_until(client, now_ns)
            depth = await rest.get("/fapi/v1/depth?symbol=BTCUSDT&limit=5")
            assert depth.headers[VIRTUAL_CLOCK] == str(now_ns)
            assert depth.json()["lastUpdateId"] == book_at(tape, now_ns).update_id != tape.book_at_start.update_id
            assert [len(depth.json()[side]) for side in ("bids", "asks")] == [5, 5]
            assert (await rest.get("/fapi/v1/time")).json() == {"serverTime": now_ns // 1_000_000}
            filters = (await rest.get("/fapi/v1/exchangeInfo")).json()["symbols"][0]["filters"]
            assert (filters[0]["tickSize"], filters[1]["stepSize"]) == ("0.1", "0.001")
            first = int(tape.trades["trade_id"][3])
            trades = (await rest.get(f"/fapi/v1/aggTrades?symbol=BTCUSDT&fromId={first}&limit=4")).json()
            assert [trade["a"] for trade in trades] == [first, first + 1, first + 2, first + 3]
            assert (await rest.get("/fapi/v1/depth?symbol=NOPE")).status_code == 400
            assert (await rest.get("/nothing")).status_code == 404
            listed = (await rest.get("/v5/market/instruments-info?category=linear")).json()
            assert (listed["retCode"], listed["result"]["list"][0]["symbol"]) == (0, "ETHUSDT")
            assert (await rest.get("/v5/market/time")).json()["result"]["timeNano"] == str(now_ns)
            book = (await rest.get("/v5/market/orderbook?category=linear&symbol=ETHUSDT&limit=3")).json()["result"]
            assert len(book["b"]) == 3
            assert (await rest.get("/v5/market/orderbook?category=linear&symbol=NOPE")).json()["retCode"] == 10001

    run(work())


def test_a_path_where_no_venue_listens_is_refused(make_chunks: Any) -> None:
    async def work() -> None:
        async with exchange_of(make_chunks(1)) as (address, _):
            with pytest.raises(InvalidStatus, match="404"):
                await connected(address, "/private/ws")

    run(work())


def test_who_connects_after_the_end_is_told_so(make_chunks: Any) -> None:
    async def work() -> None:
        async with exchange_of(make_chunks(1)) as (address, _):
            async with connected(address, "/public/stream") as client:
                await tell(client, clock=NEVER_NS)
                assert (await to_the_end(client))[1] == "end of stream"
            async with connected(address, "/market/stream") as client:
                assert await to_the_end(client) == ([], "end of stream")

    run(work())


def test_the_process_ends_as_soon_as_its_parent_is_done_with_it() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", EXCHANGE_MODULE], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(msgspec.json.encode(Config()) + b"\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith(b"listening on ")
        process.stdin.close()
        assert process.wait(10) == 0


def started(*arguments: str, stdin: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", EXCHANGE_MODULE, *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdin=stdin, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_server_of_ones_own_needs_no_standard_input_and_ends_when_told_to(number: int, tmp_path: Path) -> None:
    faults = f'rest = 503\nrest_chance = 1.0\nledger = "{tmp_path}/faults.jsonl"'
    (tmp_path / "mine.toml").write_text(f"[faults]\n{faults}\n")
    given = "--wall", "--port", "0", "--config", str(tmp_path / "mine.toml")
    with started(*given, stdin=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.endswith(", until Ctrl-C\n")
        address = said.removeprefix("listening on ").partition(",")[0]
        answer = httpx.get(f"http://{address}/fapi/v1/time", trust_env=False)
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""
    assert answer.status_code == 503
    assert '"fault":"begin"' in (tmp_path / "faults.jsonl").read_text()


def test_a_server_that_finds_no_configuration_where_one_is_due_says_so() -> None:
    with started("--wall", stdin=subprocess.PIPE) as process:
        _, said = process.communicate("", timeout=30)
    assert process.returncode == 2
    assert said == "error: standard input: expected the configuration as one line of JSON, got nothing\n"


@pytest.mark.parametrize("arguments", [("--port", "9800"), ("--config", "x"), ("--wall", "--port", "65536")])
def test_a_port_is_for_a_venue_in_the_present(arguments: tuple[str, ...]) -> None:
    with started(*arguments, stdin=subprocess.DEVNULL) as process:
        _, said = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "--port" in said.splitlines()[-1]
