"""The simulated exchange: frames formatted per second, and frames sent over loopback by its process on one core.

python benchmarks/bench_exchange.py [HOURS]

The reader counts messages off raw sockets, since any WebSocket client is slower than the server (see bench_capture.py).
"""

import os
import platform
import resource
import selectors
import socket
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from backtest.market import wire
from backtest.market.simulate import Market
from core.config import DEFAULT_SYMBOLS, Capture, Config, Sim
from core.servers import hosts
from ingest.plans import plans
from ingest.transport import NEVER_NS
from ingest.venues import Plan

_HANDSHAKE: Final = (
    "GET {path} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Protocol: x-virtual-clock\r\n\r\n"
)
_CLOSE: Final = 0x88


class Reader:
    """Counts the messages of one virtual connection; an empty frame after the time is a watermark."""

    def __init__(self, address: tuple[str, int], path: str, requests: tuple[str, ...]) -> None:
        self.frames = self.watermarks = self.bytes = 0
        self.ended = False
        self._buffer = bytearray()
        self.socket = socket.create_connection(address)
        self.socket.sendall(_HANDSHAKE.format(path=path).encode())
        while b"\r\n\r\n" not in self._buffer:
            self._buffer += self.socket.recv(1 << 12)
        del self._buffer[: self._buffer.index(b"\r\n\r\n") + 4]
        for request in requests:
            self.send(request)

    def send(self, text: str) -> None:
        """A masked text frame; a mask of zeros leaves the text as it is."""
        size = bytes([0x80 | len(text)]) if len(text) < 126 else b"\xfe" + len(text).to_bytes(2, "big")
        self.socket.sendall(b"\x81" + size + bytes(4) + text.encode())

    def receive(self) -> None:
        """Take what is there and count the whole messages in it."""
        chunk = self.socket.recv(1 << 20)
        self.bytes += len(chunk)
        self._buffer += chunk
        buffer, at = self._buffer, 0
        while len(buffer) - at >= 4:
            short = buffer[at + 1] < 126
            start = at + (2 if short else 4)
            end = start + (buffer[at + 1] if short else int.from_bytes(buffer[at + 2 : start], "big"))
            if end > len(buffer):
                break
            self.ended |= buffer[at] == _CLOSE
            self.watermarks += buffer[end - 1] == 32
            self.frames += buffer[end - 1] != 32
            at = end
        del buffer[:at]
        self.ended |= not chunk


def bench_format(minutes: float) -> None:
    """Formatting alone, of all streams that capture subscribes to."""
    tapes = Market(Sim(), DEFAULT_SYMBOLS, 7).chunk(minutes)
    frames, began_s = 0, time.perf_counter()
    for tape in tapes:
        if tape.instrument.venue == "bybit":
            texts = (
                wire.bybit_quotes(tape), wire.bybit_trades(tape), wire.bybit_depth(tape, 50),
                wire.bybit_marks(tape, tape.marks[:0]), wire.bybit_liquidations(tape),
            )  # fmt: skip
        else:
            texts = (
                wire.binance_quotes(tape), wire.binance_trades(tape), wire.binance_depth(tape),
                wire.binance_marks(tape), wire.binance_liquidations(tape),
            )  # fmt: skip
        frames += sum(map(len, texts))
    seconds = time.perf_counter() - began_s
    _print("format", frames, seconds)


def bench_server(hours: float) -> None:
    """Simulating, formatting and sending in one process on one core, read on another."""
    _serve(0.1)  # compiles what is not yet compiled
    *_, idle_s = _serve(0.1)
    seconds, readers, cpu_s = _serve(hours)
    frames, marks = (sum(getattr(reader, what) for reader in readers) for what in ("frames", "watermarks"))
    size = sum(reader.bytes for reader in readers)
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    _print("serve (one core)", frames, seconds)
    _print("by its CPU time", frames, cpu_s - idle_s)
    print(f"{hours:g} h on {len(readers)} connections: and {marks:,} watermarks, {size / 1e6:,.0f} MB")
    print(f"peak RSS of the server {peak_mib:,.0f} MiB")


def _print(what: str, frames: int, seconds: float) -> None:
    print(f"{what:<19}{frames:>10,} frames in {seconds:6.2f} s {frames / seconds:>12,.0f} frames/s")


def _serve(hours: float) -> tuple[float, list[Reader], float]:
    """Seconds from the first clock to the end, what was read, CPU seconds of the whole server process."""
    cores, before_s = os.sched_getaffinity(0), _children_cpu_s()
    with tempfile.TemporaryDirectory() as folder:
        config = Config(data_dir=folder, sim=Sim(hours=hours))
        os.sched_setaffinity(0, {min(cores)})  # inherited by the server
        with hosts(config) as where:
            os.sched_setaffinity(0, cores - {min(cores)} or cores)
            host, _, port = where.bybit_ws.removeprefix("ws://").partition(":")
            seconds, readers = _read_all((host, int(port)), plans(DEFAULT_SYMBOLS, Capture(), where))
        os.sched_setaffinity(0, cores)
    return seconds, readers, _children_cpu_s() - before_s


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _read_all(address: tuple[str, int], wanted: list[Plan]) -> tuple[float, list[Reader]]:
    readers = [Reader(address, "/" + plan.url.split("/", 3)[3], plan.requests) for plan in wanted]
    selector, began_s = selectors.DefaultSelector(), time.perf_counter()
    for reader in readers:
        selector.register(reader.socket, selectors.EVENT_READ, reader)
        reader.send(f'{{"clock": {NEVER_NS}}}')
    while not all(reader.ended for reader in readers):
        for key, _ in selector.select():
            key.data.receive()
            if key.data.ended:
                selector.unregister(key.fileobj)
    seconds = time.perf_counter() - began_s
    for reader in readers:
        reader.socket.close()
    return seconds, readers


def main() -> None:
    hours = float(sys.argv[1]) if len(sys.argv) > 1 else 2.0
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.processor() or platform.machine()}, {os.cpu_count()} cores,"
    )
    print(f"Python {platform.python_version()}")
    bench_format(60.0)
    bench_server(hours)


if __name__ == "__main__":
    main()
