"""WebSocket connections as venues want them: opened with patience, subscribed at a measured pace, closed with a reason.

On loopback the simulated exchange and the replay server carry receive times in a side channel (WebSocket subprotocol
`x-virtual-clock`): each message is `<recv_ns> <frame>`, an empty frame is a watermark, and `{"clock": ns}` from each
client lets the market go on.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

import msgspec
from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    stop_never,
    wait_random_exponential,
)
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus, WebSocketException
from websockets.frames import DATA_OPCODES, Frame
from websockets.protocol import Event
from websockets.typing import Subprotocol

from core.errors import StageError

VIRTUAL_CLOCK: Final = Subprotocol("x-virtual-clock")
NEVER_NS: Final = 2**63 - 1
_FIRST_ATTEMPTS: Final = 5
_LONGEST_BACKOFF_S: Final = 30.0
_CLOSE_TIMEOUT_S: Final = 2.0
_NORMAL, _BROKEN_DATA = 1000, 1011
_MAX_FRAME_BYTES: Final = 1 << 24
_PASSING_STATUS: Final = (408, 429)


class Interrupted(Exception):
    """A connection that must be made again, and why."""


class EndOfStream(Exception):
    """The server has sent everything. The text is what it said about it."""


class PushSocket(ClientConnection):
    """A client connection that can hand messages over as they are parsed.

    It spares the queue between parser and `recv()`: 2.8 us a frame instead of 4.1, of the 10 that capture has. Nothing
    waits in memory then but one read of the socket (256 KB). What came before `hand_over` is still in the queue.
    """

    _take: Callable[[bytes], None] | None = None

    def hand_over(self, take: Callable[[bytes], None]) -> None:
        """Call `take` with each message from here on. It must not raise."""
        self._fragments: list[bytes] = []
        self._take = take

    def process_event(self, event: Event) -> None:
        if self._take is None or not isinstance(event, Frame) or event.opcode not in DATA_OPCODES:
            super().process_event(event)
        elif event.fin and not self._fragments:
            self._take(bytes(event.data))
        else:
            self._fragments.append(bytes(event.data))
            if event.fin:
                whole = b"".join(self._fragments)
                self._fragments.clear()
                self._take(whole)

    async def queued(self) -> list[bytes]:
        """The messages that wait in the queue; does not wait for more."""
        found: list[bytes] = []
        with suppress(TimeoutError, ConnectionClosed):
            async with asyncio.timeout(0):
                while True:
                    found.append(await self.recv(decode=False))
        return found


def is_transient(error: BaseException) -> bool:
    """Whether connecting again may help. A refusal (HTTP 451, 403, a wrong path) stays one."""
    if isinstance(error, InvalidStatus):
        status = error.response.status_code
        return status >= 500 or status in _PASSING_STATUS
    return isinstance(error, (OSError, EOFError, InvalidHandshake, ConnectionClosed, Interrupted))


async def open_socket(url: str, timeout_s: float, offers_virtual: bool) -> PushSocket:
    """One attempt to connect. Our own servers are asked for the virtual clock, and are never pinged: a busy client
    must not pass for a dead one. Compression is off: it costs more time than loopback or a data centre saves.
    """
    socket = await connect(
        url,
        create_connection=PushSocket,
        subprotocols=[VIRTUAL_CLOCK] if offers_virtual else None,
        compression=None,
        open_timeout=timeout_s,
        close_timeout=_CLOSE_TIMEOUT_S,
        ping_interval=None if offers_virtual else 20.0,
        max_size=None if offers_virtual else _MAX_FRAME_BYTES,  # a recorded list of all instruments is one frame
        proxy=None if offers_virtual else True,
    )
    assert isinstance(socket, PushSocket)
    return socket


async def persistently(
    attempt: Callable[[], Awaitable[None]], url: str, forever: bool, say: Callable[[str], None]
) -> None:
    """Try until it works, with jitter and a cap between the attempts. Raises StageError when there is no hope.

    `forever`: a capture that ran sits out an outage of the network, however long.
    """

    def tell(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        say(f"{url}: {describe(error)}; attempt {state.attempt_number + 1} follows")

    retrying = AsyncRetrying(
        retry=retry_if_exception(is_transient),
        wait=wait_random_exponential(multiplier=0.5, max=_LONGEST_BACKOFF_S),
        stop=stop_never if forever else stop_after_attempt(_FIRST_ATTEMPTS),
        before_sleep=tell,
        reraise=True,
    )
    try:
        await retrying(attempt)
    except (OSError, EOFError, WebSocketException, Interrupted) as error:
        raise StageError(
            f"cannot connect to {url}: {describe(error)}: check the network and capture.hosts, "
            "or run on the simulated exchange (--source sim)"
        ) from error


async def send_requests(socket: ClientConnection, requests: tuple[str, ...], per_s: float) -> None:
    """Send a venue's requests no faster than it permits; over the limit it hangs up. `per_s` 0: at once."""
    for number, request in enumerate(requests):
        if number and per_s:
            await asyncio.sleep(1.0 / per_s)
        await socket.send(request)


def clock_message(now_ns: int) -> str:
    """What tells a virtual server that this client is ready for the market to go on until `now_ns`."""
    return msgspec.json.encode({"clock": now_ns}).decode()


def closing(error: ConnectionClosed, is_virtual: bool) -> Exception:
    """What a closed connection means: the end, broken data, or only an interruption."""
    close = error.rcvd
    if is_virtual and close is not None:
        if close.code == _NORMAL:
            return EndOfStream(close.reason)
        if close.code == _BROKEN_DATA:
            return StageError(close.reason or "the server met an error that it did not name")
    return Interrupted(describe(error))


def describe(error: BaseException | None) -> str:
    """An error in one line, its type where it has no text."""
    if isinstance(error, InvalidStatus):
        return f"HTTP {error.response.status_code}"
    return (str(error).splitlines() or [""])[0] or type(error).__name__
