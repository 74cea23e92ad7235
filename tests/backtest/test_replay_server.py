"""Raw captures played again: every frame, in order, at its time; faults named with file and line."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import zstandard
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from backtest.market import recording
from backtest.market.faults import FaultInjector, Ledger
from backtest.market.local_server import running
from backtest.market.pump import VIRTUAL_CLOCK, Pump, WallClock
from backtest.market.recording import open_recordings
from backtest.market.replay_server import Replay, service
from core.config import ROOT, Config, Faults
from core.config import Replay as ReplaySettings
from core.errors import StageError
from core.units import NS_PER_S

NEVER_NS = 2**63 - 1
SPOT = "wss://stream.binance.com:9443/stream"
DEPTH = "https://api.binance.com/api/v3/depth?symbol=X&limit=5"

Told = list[tuple[int, str]]


def line(recv_ns: int, frame: str = "{}", url: str = SPOT) -> str:
    return json.dumps({"recv_ns": recv_ns, "url": url, "frame": frame}, ensure_ascii=False) + "\n"


def write(path: Path, lines: Sequence[str]) -> Path:
    text = "".join(lines).encode()
    path.write_bytes(zstandard.compress(text) if path.suffix == ".zst" else text)
    return path


@asynccontextmanager
async def replay_of(folder: Path, speed: float = 0.0) -> AsyncIterator[str]:
    replay = Replay(open_recordings(folder))
    pump = Pump(replay, speed)
    async with running(pump, *service(replay, pump)) as (address, _):
        yield address


async def listed(address: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False) as rest:
        found: list[dict[str, Any]] = (await rest.get(f"http://{address}/replay/connections")).json()
    return found


def client_of(address: str, number: int) -> connect:
    url = f"ws://{address}/replay/{number}"
    return connect(url, subprotocols=[VIRTUAL_CLOCK], compression=None, max_size=None)


async def play(address: str, number: int, ready: asyncio.Barrier) -> tuple[Told, str]:
    """Frames of one recording with their times, and how it ended: `code reason`."""
    told: Told = []
    async with client_of(address, number) as client:
        await ready.wait()
        await client.send(json.dumps({"clock": NEVER_NS}))
        try:
            while True:
                stamp, _, frame = str(await client.recv()).partition(" ")
                told += [(int(stamp), frame)] if frame else []
        except ConnectionClosed as end:
            return told, f"{end.rcvd.code} {end.rcvd.reason}" if end.rcvd else "no close frame"


async def play_all(folder: Path) -> list[tuple[Told, str]]:
    async with replay_of(folder) as address:
        numbers = [recording["id"] for recording in await listed(address)]
        ready = asyncio.Barrier(len(numbers))
        return list(await asyncio.gather(*(play(address, number, ready) for number in numbers)))


def played(folder: Path) -> list[tuple[Told, str]]:
    async def work() -> list[tuple[Told, str]]:
        return await asyncio.wait_for(play_all(folder), 60)

    return asyncio.run(work())


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 30))


@pytest.mark.parametrize("name", ["bybit_20260809", "binance_altcoins_2021", "binance_spot_nexousdt_20240723"])
def test_every_recorded_frame_comes_in_order_at_its_time(market_data: Path, name: str) -> None:
    folder = market_data / "raw" / name
    for path, (told, end) in zip(sorted(folder.iterdir()), played(folder), strict=True):
        with zstandard.open(path, "rt") as file:
            recorded = [msgspec.json.decode(text) for text in file]
        expected = [
            (entry["recv_ns"], f"{entry['url']} {entry['frame']}" if entry["url"][:4] == "http" else entry["frame"])
            for entry in recorded
        ]
        assert told == expected
        assert end == "1000 end of stream"


def test_recordings_are_listed_with_url_and_file(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [line(5, "snapshot", DEPTH), line(6)])
    write(tmp_path / "b.jsonl.zst", [line(7, url="wss://stream.bybit.com/v5/public/linear")])
    write(tmp_path / "empty.jsonl", [])
    write(tmp_path / "notes.txt", ["not a capture"])

    async def work() -> None:
        async with replay_of(tmp_path) as address:
            assert await listed(address) == [
                {"id": 0, "url": SPOT, "file": "a.jsonl"},
                {"id": 1, "url": "wss://stream.bybit.com/v5/public/linear", "file": "b.jsonl.zst"},
            ]
            for path in ("/replay/2", "/replay/x", "/stream"):
                with pytest.raises(InvalidStatus, match="404"):
                    await connect(f"ws://{address}{path}")

    run(work())


def test_batches_and_recordings_of_unequal_density_lose_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "BATCH_LINES", 3)
    times = {"dense": list(range(100, 160)), "equal": [130] * 8 + [131], "sparse": [90, 150, 10**12, 2 * 10**12]}
    for name, stamps in times.items():
        write(tmp_path / f"{name}.jsonl", [line(stamp, f"{name} {place}") for place, stamp in enumerate(stamps)])
    for (name, stamps), (told, end) in zip(times.items(), played(tmp_path), strict=True):
        assert told == [(stamp, f"{name} {place}") for place, stamp in enumerate(stamps)]
        assert end == "1000 end of stream"


def test_no_frame_comes_after_a_watermark_beyond_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "BATCH_LINES", 3)
    write(tmp_path / "a.jsonl", [line(stamp) for stamp in [130] * 8 + [131, 131]])

    async def work() -> None:
        async with replay_of(tmp_path) as address, client_of(address, 0) as client:
            await client.send(json.dumps({"clock": NEVER_NS}))
            stamps = [int(str(message).partition(" ")[0]) async for message in client]
            assert len(stamps) > 10
            assert stamps == sorted(stamps)

    run(work())


def test_a_last_line_cut_short_is_reported_and_not_fatal(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [line(5), line(6), line(7)[:-9]])
    write(tmp_path / "b.jsonl.zst", [line(8)])
    (first, end), (second, _) = played(tmp_path)
    assert (first, second) == ([(5, "{}"), (6, "{}")], [(8, "{}")])
    assert end == "1000 end of stream; cut line a.jsonl:3"


@pytest.mark.parametrize("fault", ['{"recv_ns": 7, "url": \n', '{"other": 1}\n', line(7, url="wss://elsewhere/ws")])
def test_a_broken_line_ends_the_replay_where_it_stands(tmp_path: Path, fault: str) -> None:
    write(tmp_path / "a.jsonl", [line(5), line(6), fault, line(8)])
    write(tmp_path / "b.jsonl", [line(1), line(6), line(7), line(9)])
    (first, end), (second, other_end) = played(tmp_path)
    assert first == [(5, "{}"), (6, "{}")]
    assert second == [(1, "{}"), (6, "{}")]
    assert end.startswith("1011 a.jsonl:3: ")
    assert other_end == end


def test_a_compressed_file_cut_short_is_played_up_to_there(tmp_path: Path) -> None:
    lines = [line(stamp, "x" * 50 + str(stamp)) for stamp in range(5000)]
    compressor = zstandard.ZstdCompressor().compressobj()
    parts = [compressor.compress(text.encode()) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK) for text in lines]
    (tmp_path / "a.jsonl.zst").write_bytes(b"".join(parts)[:-20])
    [(told, end)] = played(tmp_path)
    assert told == [(stamp, "x" * 50 + str(stamp)) for stamp in range(len(told))]
    assert len(told) > 4900
    assert end.startswith("1000 end of stream")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.jsonl", b'{"exchange": "okex", "message": {}}\n', "a.jsonl:1: not a line of a raw capture"),
        ("a.jsonl.zst", b"this is no zstd", "a.jsonl.zst:1: not readable as zstd"),
        ("a.jsonl", b"", "no frame in"),
        ("a.csv", b"x", "holds no *.jsonl"),
    ],
)
def test_what_is_no_capture_is_refused_before_anything_is_served(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(StageError, match=r"replay\.path") as refused:
        open_recordings(tmp_path)
    assert says in str(refused.value)


def test_plain_clients_get_plain_frames_at_the_recorded_pace(tmp_path: Path) -> None:
    write(
        tmp_path / "a.jsonl", [line(NS_PER_S, "rest", DEPTH)] + [line(NS_PER_S + i * 10**8, f"é{i}") for i in range(5)]
    )

    async def work() -> None:
        async with replay_of(tmp_path) as address, connect(f"ws://{address}/replay/0", compression=None) as client:
            loop = asyncio.get_running_loop()
            began_s, frames = loop.time(), [await client.recv() for _ in range(5)]
            assert frames == [f"é{i}" for i in range(5)]
            assert loop.time() - began_s > 0.35

    run(work())


def test_replay_speed_paces_virtual_clients_too(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [line(NS_PER_S * place) for place in range(1, 6)])

    async def work() -> None:
        async with replay_of(tmp_path, speed=10.0) as address:
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            told, _ = await play(address, 0, asyncio.Barrier(1))
            assert len(told) == 5
            assert loop.time() - began_s > 0.35

    run(work())


def test_a_path_that_does_not_exist_ends_the_process_with_exit_code_1() -> None:
    config = msgspec.json.encode(Config(source="replay", replay=ReplaySettings(path="no/such/folder")))
    command = [sys.executable, "-m", "backtest.market.replay_server", "--stretch", "history"]
    ended = subprocess.run(command, input=config + b"\n", capture_output=True, cwd=ROOT, timeout=30, check=False)
    assert ended.returncode == 1
    assert f"replay.path: {ROOT / 'no/such/folder'} does not exist" in ended.stderr.decode()
    assert "Traceback" not in ended.stderr.decode()
    assert not ended.stdout


def test_at_wall_clock_the_recordings_are_venues(tmp_path: Path) -> None:
    def frame(stream: str, number: int) -> str:
        return json.dumps({"stream": stream, "data": {"e": "x", "s": stream[:7].upper(), "u": number}})

    um, snapshot = "wss://fstream.binance.com/stream", "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT&limit=5"
    names = ["btcusdt@bookTicker", "ethusdt@bookTicker", "btcusdt@depth@0ms", "btcusdt@aggTrade"]
    lines = [line(NS_PER_S + 10**8 * place, frame(names[place % 4], place), um) for place in range(12)]
    write(tmp_path / "a.jsonl", [*lines[:2], line(NS_PER_S + 15 * 10**7, '{"lastUpdateId":7}', snapshot), *lines[2:]])
    write(tmp_path / "b.jsonl", [line(NS_PER_S, "of another venue", "wss://stream.binance.com:9443/ws")])

    async def work() -> None:
        ledger = Ledger()
        injector = FaultInjector(Faults(double={"depth": 1.0}), 1, ledger)
        replay = Replay(open_recordings(tmp_path))
        pump = Pump(replay, 1.0, WallClock(), injector.spoil)
        async with (
            running(pump, *service(replay, pump, injector)) as (address, _),
            httpx.AsyncClient(base_url=f"http://{address}", trust_env=False) as rest,
            connect(f"ws://{address}/public/stream", compression=None) as client,
        ):
            request = {"method": "SUBSCRIBE", "params": ["btcusdt@bookTicker", "btcusdt@depth@500ms"], "id": 1}
            await client.send(json.dumps(request))
            assert json.loads(await client.recv()) == {"result": None, "id": 1}
            heard = [json.loads(text) for text in [await client.recv() for _ in range(6)]]
            assert [each["data"]["u"] for each in heard] == [0, 2, 2, 4, 6, 6]
            assert (await rest.get("/fapi/v1/depth?symbol=BTCUSDT&limit=1000")).json() == {"lastUpdateId": 7}
            assert (await rest.get("/fapi/v1/depth?symbol=ETHUSDT")).status_code == 404
        assert [row["stream"] for row in ledger.of("double")][:2] == ["btcusdt@depth@0ms"] * 2

    run(work())
