"""Sockets against real servers: every message whole and in order, every ending named, nobody trusted unasked."""

import asyncio
import base64
import hashlib
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Response

from core.errors import StageError
from ingest.transport import (
    VIRTUAL_CLOCK,
    EndOfStream,
    Interrupted,
    Socket,
    open_socket,
    persistently,
    proxy_of,
)

Play = Callable[[ServerConnection], Awaitable[object]]


@asynccontextmanager
async def serving(play: Play, virtual: bool = False, **options: object) -> AsyncIterator[str]:
    """A server that plays one scene to each visitor and waits until they go."""

    async def handler(socket: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            await play(socket)
            await socket.wait_closed()

    choose = (lambda _, offered: VIRTUAL_CLOCK if VIRTUAL_CLOCK in offered else None) if virtual else None
    async with serve(handler, "127.0.0.1", 0, select_subprotocol=choose, **options) as running:  # type: ignore[arg-type]
        yield f"127.0.0.1:{running.sockets[0].getsockname()[1]}"


class Visit:
    """A client's socket and what it was given."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.was_virtual: bool | None = None

    def listen(self, is_virtual: bool) -> Callable[[bytes], None]:
        self.was_virtual = is_virtual
        return self.messages.append

    async def open(self, url: str, virtual: bool = False, timeout_s: float = 2.0) -> Socket:
        return await open_socket(url, timeout_s, virtual, self.listen)


def visit(play: Play, virtual: bool = False, offers: bool = False) -> tuple[Visit, Exception]:
    """Visit a server until the connection ends; what it gave, and why it ended."""

    async def scenario() -> tuple[Visit, Exception]:
        async with serving(play, virtual) as address:
            found = Visit()
            socket = await found.open(f"ws://{address}/", offers)
            await asyncio.wait([socket.ended], timeout=10)
            return found, socket.ended.result()

    return asyncio.run(scenario())


def test_every_message_comes_whole_and_in_order_however_it_is_framed() -> None:
    big = "x" * 3_000_000
    sent = ["first", big, "a" * 126, "b" * 70_000, "", "binary", "one two three", "é"]

    async def play(socket: ServerConnection) -> None:
        for text in sent[:5]:
            await socket.send(text)
        await socket.send(b"binary")
        await socket.send(["one ", "two ", "three"])  # as fragments
        await socket.send("é")
        await socket.close()

    found, _ = visit(play)
    assert found.messages == [text.encode() for text in sent]


def test_what_comes_with_the_handshake_is_not_lost() -> None:
    """A server may speak before the client does, even in the packet that accepts it."""

    async def scenario() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            request = (await reader.readuntil(b"\r\n\r\n")).decode()
            key = request.split("Sec-WebSocket-Key: ")[1].split("\r\n")[0]
            digest = hashlib.sha1(f"{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11".encode()).digest()
            head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            accept = f"Sec-WebSocket-Accept: {base64.b64encode(digest).decode()}\r\n\r\n"
            writer.write(f"{head}{accept}".encode() + b"\x81\x05early")
            await writer.drain()
            await reader.read()
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            found = Visit()
            socket = await found.open(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
            assert found.messages == [b"early"]
            socket.abort()
            await asyncio.sleep(0.05)

    asyncio.run(scenario())


@pytest.mark.parametrize(("virtual", "offers"), [(True, True), (True, False), (False, True), (False, False)])
def test_messages_are_taken_as_stamped_only_if_asked_for_and_granted(virtual: bool, offers: bool) -> None:
    async def play(socket: ServerConnection) -> None:
        await socket.close()

    found, _ = visit(play, virtual, offers)
    assert found.was_virtual is (virtual and offers)


@pytest.mark.parametrize(
    ("code", "reason", "virtual", "meaning"),
    [
        (1000, "end of stream", True, EndOfStream("end of stream")),
        (1011, "a.jsonl:7: broken line", True, StageError("a.jsonl:7: broken line")),
        (1011, "", True, StageError("the server met an error that it did not name")),
        (1001, "restart", True, Interrupted("closed by the server with code 1001 restart")),
        (1000, "", False, Interrupted("closed by the server with code 1000")),
        (1011, "oops", False, Interrupted("closed by the server with code 1011 oops")),
        (3999, "odd", False, Interrupted("closed by the server with code 3999 odd")),
    ],
)
def test_what_the_end_of_a_connection_means(code: int, reason: str, virtual: bool, meaning: Exception) -> None:
    async def play(socket: ServerConnection) -> None:
        await socket.send("last")
        await socket.close(code, reason)

    found, ended = visit(play, virtual, virtual)
    assert (type(ended), str(ended)) == (type(meaning), str(meaning))
    assert found.messages == [b"last"]


def test_a_connection_that_is_cut_or_breaks_the_protocol_is_interrupted() -> None:
    async def cut(socket: ServerConnection) -> None:
        await socket.send("last")
        await (await socket.ping())  # it has read all before
        socket.transport.abort()

    async def babble(socket: ServerConnection) -> None:
        socket.transport.write(b"\xff\x00 this is no frame")

    found, ended = visit(cut)
    assert (found.messages, str(ended)) == ([b"last"], "hung up without a close frame")
    _, ended = visit(babble)
    assert isinstance(ended, Interrupted)
    assert "opcode" in str(ended)


def test_an_error_of_whoever_takes_the_messages_ends_the_connection_with_it() -> None:
    async def play(socket: ServerConnection) -> None:
        for _ in range(3):
            await socket.send("text")

    async def scenario() -> None:
        taken = []

        def take(message: bytes) -> None:
            taken.append(message)
            raise StageError("full")

        async with serving(play) as address:
            socket = await open_socket(f"ws://{address}/", 2.0, False, lambda _: take)
            await asyncio.wait([socket.ended], timeout=5)
            assert str(socket.ended.result()) == "full"
            await asyncio.sleep(0.05)
            assert len(taken) == 1
            await socket.close()

    asyncio.run(scenario())


def test_pings_are_answered_and_sent() -> None:
    async def scenario() -> None:
        answered = asyncio.Event()

        async def play(socket: ServerConnection) -> None:
            await (await socket.ping(b"who"))
            answered.set()

        async with serving(play) as address:
            socket = await Visit().open(f"ws://{address}/")
            await asyncio.wait_for(answered.wait(), 5)
            before = socket.arrivals
            socket.ping()
            while socket.arrivals == before:
                await asyncio.sleep(0.01)
            await socket.close()

    asyncio.run(scenario())


def test_a_paused_socket_leaves_everything_to_the_sender_and_loses_nothing() -> None:
    """Back-pressure: what is not read fills the kernel's buffers, and then the server stands."""
    count, size = 200, 100_000

    async def scenario() -> None:
        sent = 0

        async def play(socket: ServerConnection) -> None:
            nonlocal sent
            for number in range(count):
                await socket.send(f"{number:0{size}d}")
                sent += 1

        async with serving(play, write_limit=1 << 16) as address:
            found = Visit()
            socket = await found.open(f"ws://{address}/")
            socket.pause(True)
            await asyncio.sleep(0.5)
            assert sent < count
            taken = len(found.messages)
            await asyncio.sleep(0.2)
            assert len(found.messages) == taken
            socket.pause(False)
            while len(found.messages) < count:
                await asyncio.sleep(0.01)
            await socket.close()
        assert [int(message[-4:]) for message in found.messages] == list(range(count))

    asyncio.run(asyncio.wait_for(scenario(), 60))


@pytest.mark.parametrize(
    ("status", "forever", "attempts"),
    [
        (451, True, 1),
        (404, True, 1),
        (403, False, 1),  # at the start: a place that the venue does not serve
        (403, True, 2),  # later on: a ban, which passes
        (418, True, 2),
        (503, False, 2),
        (429, False, 2),
    ],
)
def test_a_refusal_is_final_and_an_overload_or_a_ban_is_not(status: int, forever: bool, attempts: int) -> None:
    async def scenario() -> None:
        visits = 0

        def answer(connection: ServerConnection, request: object) -> Response | None:
            nonlocal visits
            visits += 1
            if visits > 1:
                return None
            response = connection.respond(status, "no")  # type: ignore[arg-type]
            response.headers["Retry-After"] = "0"
            return response

        async def play(socket: ServerConnection) -> None:
            await socket.send("hello")

        said: list[str] = []
        async with serving(play, process_request=answer) as address:
            found, url = Visit(), f"ws://{address}/"
            with pytest.raises(StageError, match=f"HTTP {status}") if attempts == 1 else nullcontext():
                socket = await persistently(partial(found.open, url), url, forever, said.append)
                await socket.close()
            assert visits == attempts
            assert len(said) == attempts - 1

    asyncio.run(scenario())


def test_a_server_that_accepts_and_then_says_nothing_is_given_up_in_time() -> None:
    async def scenario() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(-1)
            writer.close()

        async with await asyncio.start_server(mute, "127.0.0.1", 0) as server:
            with pytest.raises(TimeoutError):
                await Visit().open(f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/", timeout_s=0.2)
            await asyncio.sleep(0.3)

    asyncio.run(scenario())


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    make = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    subprocess.run([*make.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    async def play(socket: ServerConnection) -> None:
        await socket.send("secret")

    async def scenario(trusted: bool) -> list[bytes]:
        async with serving(play, ssl=context) as address:
            found, url = Visit(), f"wss://{address.replace('127.0.0.1', 'localhost')}/"
            socket = await persistently(partial(found.open, url), url, forever=True, say=lambda text: None)
            while not found.messages:
                await asyncio.sleep(0.01)
            await socket.close()
            return found.messages

    with pytest.raises(StageError, match="CERTIFICATE_VERIFY_FAILED"):
        asyncio.run(scenario(False))
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    assert asyncio.run(scenario(True)) == [b"secret"]


def test_a_proxy_is_used_for_what_is_not_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy here takes any host to our server, so that a venue's name need not be resolved."""

    async def play(socket: ServerConnection) -> None:
        await socket.send("hello")

    async def scenario() -> None:
        asked: list[str] = []
        async with serving(play) as address:
            host, port = address.split(":")

            async def tunnel(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                asked.append((await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[0])
                onward_reader, onward_writer = await asyncio.open_connection(host, int(port))
                writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
                await asyncio.gather(copy(reader, onward_writer), copy(onward_reader, writer))

            async with await asyncio.start_server(tunnel, "127.0.0.1", 0) as proxy:
                monkeypatch.setenv("all_proxy", f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
                monkeypatch.setenv("no_proxy", "direct.test")
                found = Visit()
                socket = await found.open("ws://venue.test:1234/")
                while not found.messages:
                    await asyncio.sleep(0.01)
                await socket.close()
                await asyncio.sleep(0.05)
        assert asked == ["CONNECT venue.test:1234 HTTP/1.1"]
        assert proxy_of(f"ws://{address}/") is None
        assert proxy_of("wss://direct.test/") is None

    asyncio.run(scenario())


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()
