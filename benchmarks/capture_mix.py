"""Frames of the simulated market's mix on the virtual clock, from socket to Parquet: what a finite capture can do.

A server in a process of its own writes frames of the simulated market's mix as fast as they are read: per symbol and
second 6 best prices, 3 trades, 2 depth changes of 10 levels, 1 mark price.
"""

import asyncio
import multiprocessing
import resource
import tempfile
import time
from http import HTTPStatus
from multiprocessing.connection import Connection
from pathlib import Path

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from core.config import DEFAULT_SYMBOLS, Config
from core.servers import local_hosts
from core.units import NS_PER_MS, NS_PER_S
from ingest.events import Event
from ingest.feed import Feed
from ingest.feeds import make_feeds, opened, tuned_interpreter
from ingest.rows import TableWriter
from ingest.transport import VIRTUAL_CLOCK

START_NS = 1_767_592_800 * NS_PER_S
SHARE = {"/public/stream": 8 / 24, "/market/stream": 4 / 24, "/v5/public/linear": 12 / 24}
ROWS_PER_SECOND = {"/public/stream": 2 * (6 + 2 * 10), "/market/stream": 2 * (3 + 1)}
ROWS_PER_SECOND["/v5/public/linear"] = 2 * (6 + 3 + 2 * 10 + 1)
SNAPSHOT_ROWS = 2 * 2  # of the REST answers that the two USD-M books start from
WRITE_BUFFER_BYTES = 1 << 20


def binance_public(second: int, ms: int) -> list[str]:
    """A second's frames of both symbols on the /public connection; `second` gives the ids."""
    frames = []
    levels = ",".join(f'["{60_000 - level / 10:.2f}","{level}.123"]' for level in range(5))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        name = symbol.lower()
        frames += [
            f'{{"stream":"{name}@bookTicker","data":{{"e":"bookTicker","u":{second * 10 + k},"E":{ms},"T":{ms},'
            f'"s":"{symbol}","b":"60000.{k}0","B":"31.210","a":"60000.{k + 1}0","A":"40.660"}}}}'
            for k in range(6)
        ]
        frames += [
            f'{{"stream":"{name}@depth@500ms","data":{{"e":"depthUpdate","E":{ms},"T":{ms},"s":"{symbol}",'
            f'"U":{second * 2 + k},"u":{second * 2 + k},"pu":{second * 2 + k - 1},"b":[{levels}],"a":[{levels}]}}}}'
            for k in range(2)
        ]
    return frames


def binance_market(second: int, ms: int) -> list[str]:
    frames = []
    for symbol in ("BTCUSDT", "ETHUSDT"):
        name = symbol.lower()
        frames += [
            f'{{"stream":"{name}@aggTrade","data":{{"e":"aggTrade","E":{ms},"s":"{symbol}","a":{second * 3 + k},'
            f'"p":"60000.10","q":"0.014","nq":"0.014","f":{second},"l":{second},"T":{ms},"m":true}}}}'
            for k in range(3)
        ]
        frames.append(
            f'{{"stream":"{name}@markPrice@1s","data":{{"e":"markPriceUpdate","E":{ms},"s":"{symbol}",'
            f'"p":"60000.10","i":"60001.20","P":"60001.20","r":"0.00010000","T":{ms}}}}}'
        )
    return frames


def bybit_linear(second: int, ms: int) -> list[str]:
    frames = []
    levels = ",".join(f'["{60_000 - level / 10:.2f}","{level}.123"]' for level in range(5))
    for symbol in ("BTCUSDT", "ETHUSDT"):
        kind = "snapshot" if second == 1 else "delta"
        frames += [
            f'{{"topic":"orderbook.1.{symbol}","type":"snapshot","ts":{ms},"data":{{"s":"{symbol}",'
            f'"b":[["60000.{k}0","3.1"]],"a":[["60000.{k + 1}0","4.2"]],"u":{second * 6 + k},"seq":1}},"cts":{ms}}}'
            for k in range(6)
        ]
        frames += [
            f'{{"topic":"publicTrade.{symbol}","type":"snapshot","ts":{ms},"data":[{{"T":{ms},"s":"{symbol}","S":"Buy",'
            f'"v":"0.001","p":"60000.50","L":"PlusTick","i":"20f43950-d8dd-5b31-9112-{second:08d}{k}","BT":false}}]}}'
            for k in range(3)
        ]
        frames += [
            f'{{"topic":"orderbook.50.{symbol}","type":"{"delta" if k else kind}","ts":{ms},"data":{{"s":"{symbol}",'
            f'"b":[{levels}],"a":[{levels}],"u":{second * 2 + k},"seq":{second}}},"cts":{ms}}}'
            for k in range(2)
        ]
        frames.append(
            f'{{"topic":"tickers.{symbol}","type":"snapshot","data":{{"symbol":"{symbol}","markPrice":"60000.1",'
            f'"indexPrice":"60001.2","openInterest":"492373.72","nextFundingTime":"{ms}","fundingRate":"0.0001"}},'
            f'"cs":{second},"ts":{ms}}}'
        )
    return frames


MAKERS = {"/public/stream": binance_public, "/market/stream": binance_market, "/v5/public/linear": bybit_linear}


def packed(text: str) -> bytes:
    """A WebSocket text message (RFC 6455 section 5.2), unmasked."""
    body = text.encode()
    if len(body) < 126:
        return bytes((0x81, len(body))) + body
    return b"\x81\x7e" + len(body).to_bytes(2, "big") + body


async def blast(socket: ServerConnection, frames: int, path: str) -> int:
    """Write frames with their times, and a watermark each 100 virtual ms, as the simulated exchange does.

    Returns the seconds of market that were sent.
    """
    written, second, make = 0, 0, MAKERS[path]
    while written < frames:
        second += 1
        now_ns = START_NS + second * NS_PER_S
        texts = make(second, now_ns // NS_PER_MS)
        step_ns = NS_PER_S // len(texts)
        stamped = [f"{now_ns + k * step_ns} {text}" for k, text in enumerate(texts)]
        marks = [f"{now_ns + k * 100 * NS_PER_MS} " for k in range(10)] if second % 10 == 0 else []
        socket.transport.write(b"".join(map(packed, marks + stamped)))
        written += len(texts)
        if socket.transport.get_write_buffer_size() > WRITE_BUFFER_BYTES:
            await socket.drain()
            await asyncio.sleep(0)
    return second


async def serve_frames(frames: int, ready: Connection) -> None:
    """Answer subscriptions and snapshots, wait for the clock, blast, close."""

    def answer(_: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade"):
            return None
        body = b'{"lastUpdateId":1,"E":1,"T":1767592800000,"bids":[["60000","1"]],"asks":[["60001","1"]]}'
        return Response(HTTPStatus.OK, "OK", Headers({"Content-Length": str(len(body)), "Connection": "close"}), body)

    async def handler(socket: ServerConnection) -> None:
        assert socket.request is not None
        async for message in socket:
            text = str(message)
            if text.startswith('{"clock"'):
                break
            ack = '{"success":true,"op":"subscribe"}' if '"op"' in text else '{"result":null,"id":1}'
            await socket.send(f"{START_NS} {ack}")
        path = socket.request.path
        ready.send(ROWS_PER_SECOND[path] * await blast(socket, int(frames * SHARE[path]), path))
        await socket.close(1000, "end of stream")

    async with serve(
        handler,
        "127.0.0.1",
        0,
        process_request=answer,
        select_subprotocol=lambda _, __: VIRTUAL_CLOCK,
        compression=None,
        ping_interval=None,
        close_timeout=600,
    ) as server:
        ready.send(server.sockets[0].getsockname()[1])
        await asyncio.Future()


def server_main(frames: int, ready: Connection) -> None:
    asyncio.run(serve_frames(frames, ready))


async def capture(port: int, folder: Path) -> tuple[int, int, float, float]:
    """(frames, rows, wall seconds, CPU seconds) from the first frame asked for to the last row on disk."""
    config = Config(source="sim")
    writer = TableWriter(folder, config.capture.flush_rows)
    feeds = await make_feeds(config, local_hosts(f"127.0.0.1:{port}"), DEFAULT_SYMBOLS)

    def sink(feed: Feed, recv_ns: int, events: list[Event]) -> None:
        if events:
            writer.add(feed.venue, events)

    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with tuned_interpreter():
        async with opened(feeds):
            await asyncio.gather(*(feed.run(sink) for feed in feeds))
        writer.close(merge=False)
    seconds, cpu_seconds = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    assert not any(feed.counts.undecoded for feed in feeds)
    return sum(feed.counts.frames for feed in feeds), sum(writer.rows.values()), seconds, cpu_seconds


def capture_mix(frames: int) -> str:
    """Run it; the result in words."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=server_main, args=(frames, theirs), daemon=True)
    server.start()
    try:
        with tempfile.TemporaryDirectory() as folder:
            seen, rows, seconds, cpu_seconds = asyncio.run(capture(ours.recv(), Path(folder)))
            missing = sum(ours.recv() for _ in SHARE) + SNAPSHOT_ROWS - rows
    finally:
        server.terminate()
        server.join()
    rss_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{seen:,} frames, {rows:,} rows in {seconds:.2f} s wall, {cpu_seconds:.2f} s CPU; peak RSS {rss_mb:.0f} MB\n"
        f"{seen / seconds:,.0f} frames/s wall, {seen / cpu_seconds:,.0f} frames per CPU second\n"
        + (f"FAULTS: {missing:,} rows missing" if missing else "lost 0, doubled 0")
    )
