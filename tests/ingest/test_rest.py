"""REST against a small HTTP server that answers from a script: what is tried again, what stops all, what is refused."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from ingest.rate_limit import Stopped
from ingest.rest import RestClient, RestError, fetch

Answer = tuple[int, dict[str, str], bytes]
OK: Answer = 200, {}, b"[]"


class Script:
    """The answers still to come (the last one stays), and what was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.connections = 0
        self.delay_s = 0.0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while head := await reader.read(65536):
                self.asked.append(head.split(b" ")[1].decode())
                status, headers, body = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
                await asyncio.sleep(self.delay_s)
                if status == 0:  # hang up without a word
                    return
                fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{fields}\r\n".encode() + body)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(script: Script) -> AsyncIterator[str]:
    """A server of the script; it goes when its clients have gone."""
    visits: list[asyncio.Task[None]] = []
    server = await asyncio.start_server(
        lambda reader, writer: visits.append(asyncio.create_task(script.serve(reader, writer))), "127.0.0.1", 0
    )
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await asyncio.gather(*visits, return_exceptions=True)


def play(script: Script, act: Callable[[RestClient, str], Coroutine[Any, Any, None]]) -> list[str]:
    """Run `act` against a server of the script; what the client said."""
    said: list[str] = []

    async def scenario() -> None:
        async with serving(script) as base, RestClient(say=said.append) as client:
            await act(client, base)

    asyncio.run(scenario())
    return said


def test_connections_are_reused() -> None:
    script = Script(OK)

    async def act(client: RestClient, base: str) -> None:
        for _ in range(5):
            assert await client.get(f"{base}/fapi/v1/time") == b"[]"

    assert play(script, act) == []
    assert (script.connections, len(script.asked)) == (1, 5)


@pytest.mark.parametrize("passing", [(500, {}, b""), (503, {}, b"Service Unavailable."), (408, {}, b""), (0, {}, b"")])
def test_what_passes_is_tried_again(passing: Answer) -> None:
    script = Script(passing, OK)

    async def act(client: RestClient, base: str) -> None:
        assert await client.get(f"{base}/fapi/v1/time") == b"[]"

    play(script, act)
    assert len(script.asked) == 2


def test_a_server_that_answers_too_late_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ingest.rest._ATTEMPTS", 2)

    script = Script(OK)
    script.delay_s = 0.2

    async def scenario() -> None:
        async with serving(script) as base:
            await fetch(f"{base}/x", 0.05)

    with pytest.raises(RestError, match=r"GET http://127.*/x failed: (Read|Connect)Timeout") as caught:
        asyncio.run(scenario())
    assert caught.value.is_transient


def test_over_the_limit_all_requests_wait_as_long_as_the_venue_says() -> None:
    script = Script((429, {"Retry-After": "1"}, b'{"code":-1003}'), OK)

    async def act(client: RestClient, base: str) -> None:
        began_s = time.monotonic()
        await asyncio.gather(client.get(f"{base}/fapi/v1/time"), client.get(f"{base}/futures/data/basis"))
        assert time.monotonic() - began_s >= 0.9

    (said,) = play(script, act)
    assert said == "binance futures: HTTP 429, over its rate limit; it is not asked for 1 s"


def test_a_ban_stops_all_requests_to_the_venue_without_another_attempt() -> None:
    script = Script((418, {"Retry-After": "7200"}, b"banned"))

    async def act(client: RestClient, base: str) -> None:
        for path in ("/fapi/v1/depth?symbol=BTCUSDT", "/futures/data/basis"):
            with pytest.raises(Stopped, match="binance futures is not asked for another 7,200 s: HTTP 418"):
                await client.get(base + path)

    play(script, act)
    assert len(script.asked) == 1


def test_a_ban_of_unknown_length_is_taken_as_the_shortest() -> None:
    async def act(client: RestClient, base: str) -> None:
        with pytest.raises(Stopped) as caught:
            await client.get(f"{base}/api/v3/time")
        assert 90 < caught.value.wait_s <= 120

    play(Script((418, {}, b"")), act)


DAY = "Wed, 01 Jan 2020 00:00:00 GMT"


@pytest.mark.parametrize(
    ("status", "headers", "wait_s"),
    [
        (418, {"Retry-After": "0"}, 120.0),
        (418, {"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}, 120.0),
        (418, {"Retry-After": "Wed, 01 Jan 2020 01:00:00 GMT", "Date": DAY}, 3_600.0),
        (429, {"Retry-After": "0"}, 1.0),
        (429, {"Retry-After": "Wed, 01 Jan 2020 00:00:09 GMT", "Date": DAY}, 9.0),
    ],
)
def test_a_stop_is_never_over_at_once_and_its_date_is_the_venues(
    status: int, headers: dict[str, str], wait_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.rest._ATTEMPTS", 1)

    async def act(client: RestClient, base: str) -> None:
        with pytest.raises(RestError, match=f"HTTP {status}"):
            await client.get(f"{base}/fapi/v1/time")
        with pytest.raises(Stopped) as caught:
            await client.limiter.acquire(f"{base}/fapi/v1/time", patience_s=0.0)
        assert wait_s - 1.0 < caught.value.wait_s <= wait_s

    play(Script((status, headers, b"")), act)


def test_an_answer_that_does_not_decompress_is_tried_again() -> None:
    script = Script((200, {"Content-Encoding": "gzip"}, b"not gzip at all"), OK)

    async def act(client: RestClient, base: str) -> None:
        assert await client.get(f"{base}/fapi/v1/time") == b"[]"

    play(script, act)
    assert len(script.asked) == 2


@pytest.mark.parametrize(
    ("status", "body", "told", "wait_s"),
    [
        (403, b"access too frequent", "not asked for 600 s", 600.0),
        (451, b"restricted location", "until the next start", float("inf")),
    ],
)
def test_a_refusal_of_this_address_stops_all_requests(status: int, body: bytes, told: str, wait_s: float) -> None:
    script = Script((status, {}, body))

    async def act(client: RestClient, base: str) -> None:
        with pytest.raises(RestError, match=f"HTTP {status}: {body.decode()}"):
            await client.get(f"{base}/v5/market/tickers")
        with pytest.raises(Stopped) as caught:
            await client.get(f"{base}/v5/market/tickers")
        assert caught.value.wait_s == pytest.approx(wait_s, abs=1)
        assert body.decode() in str(caught.value)

    (said,) = play(script, act)
    assert told in said
    assert len(script.asked) == 1


def test_a_wrong_request_is_refused_in_the_venues_words_and_stops_nothing() -> None:
    script = Script((400, {}, b'{"code":-1121,"msg":"Invalid symbol."}'), OK)

    async def act(client: RestClient, base: str) -> None:
        with pytest.raises(RestError, match="Invalid symbol") as caught:
            await client.get(f"{base}/fapi/v1/depth?symbol=X")
        assert (caught.value.status, caught.value.is_transient) == (400, False)
        await client.get(f"{base}/fapi/v1/time")

    assert play(script, act) == []


def test_bybit_errors_that_come_with_http_200_are_errors() -> None:
    wrong = 200, {}, b'{"retCode":10001,"retMsg":"params error: symbol invalid","result":{}}'
    over = 200, {"X-Bapi-Limit-Reset-Timestamp": str(int(time.time() * 1e3) + 100)}, b'{"retCode":10006,"retMsg":"x"}'
    fine = 200, {}, b'{"retCode":0,"retMsg":"OK","result":{}}'
    script = Script(wrong, over, fine)

    async def act(client: RestClient, base: str) -> None:
        with pytest.raises(RestError, match="retCode 10001: params error: symbol invalid"):
            await client.get(f"{base}/v5/market/tickers?symbol=X")
        assert await client.get(f"{base}/v5/market/tickers") == fine[2]

    (said,) = play(script, act)
    assert said.startswith("bybit: retCode 10006")
    assert len(script.asked) == 3


def test_weight_that_others_spent_makes_us_wait() -> None:
    script = Script((200, {"X-MBX-USED-WEIGHT-1M": "2399"}, b"[]"))

    async def act(client: RestClient, base: str) -> None:
        await client.get(f"{base}/fapi/v1/time")
        await client.get(f"{base}/fapi/v1/time")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.get(f"{base}/fapi/v1/time")

    play(script, act)
    assert len(script.asked) == 2
