"""Binance USD-M on loopback, as fast as frames can be written: raw sockets, one process.

It answers subscriptions, pings and the REST calls that a capture makes, then sends what a `Load` says and keeps a
ledger of it: rows and the sum of their ids per (symbol, table), which the tables must equal.
"""

import base64
import hashlib
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from venue_frames import FIRST_ID, NS_PER_MS, Ledger, TickerFrames, market_frames, message, public_frames

HOST = "127.0.0.1"
PATHS = ("/public/stream", "/market/stream")
SETTLE_S = 0.5  # after the last subscription, before the first frame
CHUNK_FRAMES = 2_048
TICK_S = 0.001
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 section 1.3
Send = Callable[[bytes], None]


@dataclass(frozen=True)
class Load:
    """What to send, for `seconds`: `rate` frames per second in all, 0: as many as are read.

    `mix`: trades, depth and marks beside the best prices; else these alone, and two trades or marks per second and
    symbol, so that no stream is silent.
    """

    symbols: tuple[str, ...]
    seconds: float
    rate: float = 0.0
    mix: bool = False


def server_main(load: Load, core: int, pipe: Connection) -> None:
    """Serve until killed: the port goes into the pipe, then, once all is sent, the ledger."""
    os.sched_setaffinity(0, {core})
    listener = socket.create_server((HOST, 0))
    pipe.send(listener.getsockname()[1])
    done: queue.SimpleQueue[tuple[int, Ledger]] = queue.SimpleQueue()
    threading.Thread(target=_tell, args=(done, len(PATHS) * len(load.symbols), pipe), daemon=True).start()
    served: set[str] = set()
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_converse, args=(connection, load, served, done), daemon=True).start()


def _tell(done: "queue.SimpleQueue[tuple[int, Ledger]]", symbols: int, pipe: Connection) -> None:
    """Put the ledgers of all connections together, when all symbols of both paths have been sent."""
    ledgers: list[Ledger] = []
    while symbols > 0:
        count, ledger = done.get()
        symbols -= count
        ledgers.append(ledger)
    whole = Ledger(
        sum(ledger.frames for ledger in ledgers),
        min(ledger.first_ns for ledger in ledgers),
        max(ledger.last_ns for ledger in ledgers),
        [text for ledger in ledgers for text in ledger.broken],
        {name: entry for ledger in ledgers for name, entry in ledger.rows.items()},
    )
    pipe.send(whole)


class Client:
    """What is known of a client: the streams it asked for, and when it last asked."""

    def __init__(self) -> None:
        self.streams: set[str] = set()
        self.asked_s = time.monotonic()

    @property
    def is_settled(self) -> bool:
        return bool(self.streams) and time.monotonic() - self.asked_s > SETTLE_S


def _converse(
    connection: socket.socket, load: Load, served: set[str], done: "queue.SimpleQueue[tuple[int, Ledger]]"
) -> None:
    """One connection's life. Each symbol is sent once per path: who connects again gets nothing, and it shows."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = _read_head(connection)
    path = head.split(b" ", 2)[1].decode()
    if b"upgrade: websocket" not in head.lower():
        _answer_rest(connection, path)
        return
    key = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"sec-websocket-key")).split(b":")[1]
    accept = base64.b64encode(hashlib.sha1(key.strip() + _GUID).digest())
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )
    lock, client = threading.Lock(), Client()

    def send(data: bytes) -> None:
        with lock:
            connection.sendall(data)

    threading.Thread(target=_listen, args=(connection, send, client), daemon=True).start()
    while not client.is_settled:
        time.sleep(0.05)
    asked = {stream.partition("@")[0].upper() for stream in client.streams}
    symbols = tuple(symbol for symbol in load.symbols if symbol in asked and path + symbol not in served)
    served.update(path + symbol for symbol in symbols)
    ledger, own = Ledger(), replace(load, symbols=symbols, rate=load.rate * len(symbols) / len(load.symbols))
    try:
        if symbols:
            _send_path(path, own, ledger, send)
    except OSError as error:
        ledger.broken.append(f"{path}: {error}")
    if symbols:
        done.put((len(symbols), ledger))


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4_096)
        if not piece:
            return b"GET / "
        head += piece
    return head


def _answer_rest(connection: socket.socket, path: str) -> None:
    """A depth snapshot that lies before the first change, the time, or an empty object."""
    now_ms = time.time_ns() // NS_PER_MS
    body: dict[str, Any] = {"serverTime": now_ms}
    if path.startswith("/fapi/v1/depth"):
        symbol = parse_qs(urlsplit(path).query)["symbol"][0]
        book = {"bids": [["59000.00", "1.000"]], "asks": [["61000.00", "1.000"]]}
        body = {"lastUpdateId": FIRST_ID, "E": now_ms, "T": now_ms, "symbol": symbol, **book}
    text = json.dumps(body).encode()
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(text)}\r\nConnection: close\r\n\r\n"
    )
    connection.sendall(head.encode() + text)
    connection.close()


def _listen(connection: socket.socket, send: Send, client: Client) -> None:
    """Acknowledge subscriptions and answer pings."""
    stream = connection.makefile("rb")
    while head := stream.read(2):
        opcode, length = head[0] & 0x0F, head[1] & 0x7F
        if length >= 126:
            length = int.from_bytes(stream.read(2 if length == 126 else 8), "big")
        mask, payload = stream.read(4), stream.read(length)
        body = bytes(byte ^ mask[place & 3] for place, byte in enumerate(payload))
        if opcode == 0x9:
            send(bytes((0x8A, len(body))) + body)
        elif opcode == 0x8:
            send(bytes((0x88, len(body))) + body)
            return
        elif opcode == 0x1:
            request = json.loads(body)
            client.streams.update(request.get("params", []))
            client.asked_s = time.monotonic()
            send(message(json.dumps({"result": None, "id": request.get("id")}).encode()))


def _send_path(path: str, load: Load, ledger: Ledger, send: Send) -> None:
    if path == "/public/stream" and load.mix:
        _paced(load, ledger, send, 0.7 * load.rate, public_frames(load.symbols, ledger))
    elif path == "/public/stream" and load.rate:
        _paced_tickers(load, ledger, send)
    elif path == "/public/stream":
        _blast_tickers(load, ledger, send)
    elif load.mix:
        _paced(load, ledger, send, 0.3 * load.rate, market_frames(load.symbols, ledger))
    else:
        _paced(load, ledger, send, 2.0 * len(load.symbols), market_frames(load.symbols, ledger))


def _blast_tickers(load: Load, ledger: Ledger, send: Send) -> None:
    """Best prices as fast as they are read; ids count from the time of the start, so that none ever repeats."""
    frames = TickerFrames(load.symbols, CHUNK_FRAMES)
    first = ledger.first_ns = time.time_ns()
    ends_ns = first + int(load.seconds * 1e9)
    while (now_ns := time.time_ns()) < ends_ns:
        ids = first + np.arange(CHUNK_FRAMES)
        first += CHUNK_FRAMES
        send(frames.fill(ids, now_ns // NS_PER_MS))
        _note_tickers(load, ledger, ids)
    ledger.last_ns = time.time_ns()


def _paced_tickers(load: Load, ledger: Ledger, send: Send) -> None:
    """Best prices at an even rate; the id of each is the nanosecond at which it was sent."""
    frames = TickerFrames(load.symbols, CHUNK_FRAMES)
    ledger.first_ns = time.time_ns()
    for due in _ticks(load.seconds, load.rate, len(load.symbols), CHUNK_FRAMES):
        now_ns = time.time_ns()
        ids = now_ns + np.arange(due)
        send(frames.fill(ids, now_ns // NS_PER_MS))
        _note_tickers(load, ledger, ids)
    ledger.last_ns = time.time_ns()


def _note_tickers(load: Load, ledger: Ledger, ids: "np.ndarray[Any, np.dtype[np.int64]]") -> None:
    ledger.frames += ids.size
    for place, symbol in enumerate(load.symbols):
        own = ids[place :: len(load.symbols)]
        ledger.add(symbol, "top_of_book", own.size, sum(own.tolist()))


def _ticks(seconds: float, rate: float, multiple: int, most: int) -> Iterator[int]:
    """How many frames are due, each time some are; always a multiple, so that symbols take turns."""
    began_s, sent = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - began_s) < seconds:
        due = min(int(elapsed_s * rate) - sent, most) // multiple * multiple
        if due:
            yield due
            sent += due
        else:
            time.sleep(TICK_S)


def _paced(load: Load, ledger: Ledger, send: Send, rate: float, frames: Iterator[bytes]) -> None:
    """Frames one by one at an even rate."""
    ledger.first_ns = ledger.first_ns or time.time_ns()
    for due in _ticks(load.seconds, rate, 1, CHUNK_FRAMES):
        send(b"".join(message(next(frames)) for _ in range(due)))
        ledger.frames += due
    ledger.last_ns = max(ledger.last_ns, time.time_ns())
