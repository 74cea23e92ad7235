"""WebSocket connections as venues want them: opened with patience, subscribed at a measured pace, closed with a reason.

On loopback the simulated exchange and the replay server carry receive times in a side channel (WebSocket subprotocol
`x-virtual-clock`): each message is `<recv_ns> <frame>`, an empty frame is a watermark, and `{"clock": ns}` from each
client lets the market go on.
"""

import asyncio
import logging
import ssl
import urllib.request
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar
from urllib.parse import urlsplit

import msgspec
from picows import (
    WSCloseCode,
    WSFrame,
    WSHandshakeError,
    WSInvalidURL,
    WSListener,
    WSMsgType,
    WSTransport,
    WSUpgradeRequest,
    WSUpgradeResponse,
    ws_connect,
)
from python_socks import ProxyError
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_never,
    wait_random_exponential,
)

from core.errors import StageError
from ingest.venues import is_local

VIRTUAL_CLOCK: Final = "x-virtual-clock"
NEVER_NS: Final = 2**63 - 1
_FIRST_ATTEMPTS: Final = 5
_LONGEST_BACKOFF_S: Final = 30.0
_CLOSE_TIMEOUT_S: Final = 2.0
_MAX_MESSAGE_BYTES: Final = 1 << 24
_MAX_RECORDED_BYTES: Final = 1 << 30  # a recorded list of all instruments is one frame
_NORMAL, _BROKEN_DATA = 1000, 1011
_PASSING_STATUS: Final = (408, 429)
_BAN_STATUS: Final = (403, 418)  # of an address that asked too often: passes, if it is left alone meanwhile
_BAN_S: Final = 600.0  # exchange_protocols.md C.5
_SUBPROTOCOL: Final = "Sec-WebSocket-Protocol"
_TEXT: Final = WSMsgType.TEXT
_QUIET: Final = logging.getLogger("picows.capture")
_QUIET.addHandler(logging.NullHandler())  # what happens to a connection is told by the feed, once and in its words

Take = Callable[[bytes], None]
"""Takes one whole message."""
T = TypeVar("T")


class Interrupted(Exception):
    """A connection that must be made again, and why."""


class EndOfStream(Exception):
    """The server has sent everything. The text is what it said about it."""


class Socket(WSListener):
    """A client's connection. Each message goes to `take` as it is parsed, from the very first; nothing is queued.

    `ended` gets the reason when the connection is over, or the error that `take` raised. `arrivals` counts everything
    that came, pongs too: a connection on which it stands still is silent.
    """

    def __init__(self, url: str, most_bytes: int) -> None:
        self.url = url
        self.is_virtual = False
        self.arrivals = 0
        self.take: Take = _drop
        self.ended: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
        self._most_bytes = most_bytes
        self._fragments: list[bytes] = []
        self._transport: WSTransport | None = None

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        self.arrivals += 1
        try:
            if frame.msg_type is _TEXT and frame.fin:
                self.take(frame.get_payload_as_bytes())
            else:
                self._take_other(transport, frame)
        except Exception as error:  # we are called by the socket's parser: whoever runs this feed gets it
            self._end(error)

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        handshake = transport.close_handshake
        if handshake is None:
            self._end(Interrupted("hung up without a close frame"))
        elif handshake.recv is None:
            self._end(Interrupted(f"closed by us: {handshake.sent.reason if handshake.sent else ''}"))
        else:
            self._end(closing(handshake.recv.code.value, handshake.recv.reason or "", self.is_virtual))

    def pause_writing(self) -> None:
        """What we send is small."""

    def resume_writing(self) -> None:
        """What we send is small."""

    def send(self, text: str) -> None:
        assert self._transport is not None
        self._transport.send(_TEXT, text)

    def ping(self) -> None:
        assert self._transport is not None
        self._transport.send_ping()

    def pause(self, paused: bool) -> None:
        """Leave what comes to the kernel and the sender, or take it again."""
        assert self._transport is not None
        stream = self._transport.underlying_transport
        if paused:
            stream.pause_reading()
        else:
            stream.resume_reading()

    async def close(self) -> None:
        """Say good-bye and wait for the answer, not for long: the other side may be gone. What still comes is lost."""
        self.take = _drop
        if self._transport is None:
            return
        self.pause(False)
        self._transport.send_close(WSCloseCode.OK)
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self.ended
        self.abort()

    def abort(self) -> None:
        """End the connection at once."""
        self.take = _drop
        if self._transport is not None:
            self._transport.disconnect(graceful=False)

    def _take_other(self, transport: WSTransport, frame: WSFrame) -> None:
        """Fragments, binary messages, and the frames that only concern the connection. Pings are answered already."""
        match frame.msg_type:
            case WSMsgType.TEXT | WSMsgType.BINARY | WSMsgType.CONTINUATION:
                self._fragments.append(frame.get_payload_as_bytes())
                if sum(map(len, self._fragments)) > self._most_bytes:
                    raise Interrupted(f"a message of more than {self._most_bytes:,} bytes")
                if frame.fin:
                    whole = b"".join(self._fragments)
                    self._fragments.clear()
                    self.take(whole)
            case WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()

    def _end(self, why: Exception) -> None:
        self.take = _drop
        if not self.ended.done():
            self.ended.set_result(why)


def _drop(message: bytes) -> None:
    """Takes what comes before anyone listens, or after the end."""


def is_transient(error: BaseException, forever: bool = False) -> bool:
    """Whether connecting again may help. A refusal (HTTP 451, a wrong path, a wrong certificate) stays one.

    `forever`: to a capture that ran, HTTP 403 is a ban and not a place that the venue does not serve.
    """
    if isinstance(error, WSHandshakeError) and error.response is not None:
        status = int(error.response.status)
        return status >= 500 or status in _PASSING_STATUS or (forever and status in _BAN_STATUS)
    if isinstance(error, ssl.SSLCertVerificationError):
        return False
    return isinstance(error, (OSError, EOFError, WSHandshakeError, ProxyError, Interrupted))


async def open_socket(url: str, timeout_s: float, offers_virtual: bool, listen: Callable[[bool], Take]) -> Socket:
    """One attempt to connect. `listen` says who takes the messages, when it is known whether they are stamped.

    Our own servers are asked for the virtual clock. Compression is not offered: it costs more time than loopback or a
    data centre saves. Certificates are verified against the system's (or SSL_CERT_FILE's) authorities.
    """
    most_bytes = _MAX_RECORDED_BYTES if offers_virtual else _MAX_MESSAGE_BYTES
    socket = Socket(url, most_bytes)

    def upgraded(_: WSUpgradeRequest, response: WSUpgradeResponse) -> Socket:
        socket.is_virtual = offers_virtual and response.headers.get(_SUBPROTOCOL) == VIRTUAL_CLOCK
        socket.take = listen(socket.is_virtual)
        return socket

    async with asyncio.timeout(timeout_s):
        await ws_connect(
            upgraded,
            url,
            websocket_handshake_timeout=timeout_s,
            max_frame_size=most_bytes,
            extra_headers={_SUBPROTOCOL: VIRTUAL_CLOCK} if offers_virtual else None,
            proxy=proxy_of(url),
            logger_name=_QUIET,
        )
    return socket


def proxy_of(url: str) -> str | None:
    """The proxy that the environment names for a WebSocket URL. What is on this machine needs none."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if is_local(url) or urllib.request.proxy_bypass(host):
        return None
    found = urllib.request.getproxies()
    names = ("wss", "https", "all") if parts.scheme == "wss" else ("ws", "http", "all")
    return next((found[name] for name in names if name in found), None)


async def persistently(attempt: Callable[[], Awaitable[T]], url: str, forever: bool, say: Callable[[str], None]) -> T:
    """Try until it works, with jitter and a cap between the attempts. Raises StageError when there is no hope.

    `forever`: a capture that ran sits out an outage of the network, however long.
    """

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        say(f"{url}: {describe(error)}; attempt {state.attempt_number + 1} follows")

    retrying = AsyncRetrying(
        retry=retry_if_exception(partial(is_transient, forever=forever)),
        wait=_pause_s,
        stop=stop_never if forever else stop_after_attempt(_FIRST_ATTEMPTS),
        before_sleep=tell,
        reraise=True,
    )
    try:
        return await retrying(attempt)
    except (OSError, EOFError, WSHandshakeError, WSInvalidURL, ProxyError, Interrupted) as error:
        raise StageError(
            f"cannot connect to {url}: {describe(error)}: check the network and capture.hosts, "
            "or run on the simulated exchange (--source sim)"
        ) from error


_backoff_s = wait_random_exponential(multiplier=0.5, max=_LONGEST_BACKOFF_S)


def _pause_s(state: RetryCallState) -> float:
    """Before the next attempt: what the venue asks for, its ban, or a random time that grows."""
    error = state.outcome.exception() if state.outcome else None
    if isinstance(error, WSHandshakeError) and error.response is not None:
        asked = error.response.headers.get("Retry-After", "")
        if asked.isdigit():
            return float(asked)
        if int(error.response.status) in _BAN_STATUS:
            return _BAN_S
    return _backoff_s(state)


async def send_requests(socket: Socket, requests: tuple[str, ...], per_s: float) -> None:
    """Send a venue's requests no faster than it permits; over the limit it hangs up. `per_s` 0: at once."""
    for number, request in enumerate(requests):
        if number and per_s:
            await asyncio.sleep(1.0 / per_s)
        socket.send(request)


def clock_message(now_ns: int) -> str:
    """What tells a virtual server that this client is ready for the market to go on until `now_ns`."""
    return msgspec.json.encode({"clock": now_ns}).decode()


def closing(code: int, reason: str, is_virtual: bool) -> Exception:
    """What the server's closing of a connection means: the end, broken data, or only an interruption."""
    if is_virtual and code == _NORMAL:
        return EndOfStream(reason)
    if is_virtual and code == _BROKEN_DATA:
        return StageError(reason or "the server met an error that it did not name")
    return Interrupted(f"closed by the server with code {code} {reason}".rstrip())


def describe(error: BaseException | None) -> str:
    """An error in one line, its type where it has no text."""
    if isinstance(error, WSHandshakeError) and error.response is not None:
        return f"HTTP {int(error.response.status)}"
    return (str(error).splitlines() or [""])[0] or type(error).__name__
