"""What a local venue does wrong on purpose, and the ledger of it (configuration section `faults`).

Frames are dropped, doubled, put behind their successor or cut short on the way to one client; connections are reset,
closed, silenced or left half open; the venue restarts; REST fails. Each fault is a line of the ledger, with the wall
time and, for a frame, its stream and ids, so that what a client recorded can be reconciled with what it was sent.
"""

import asyncio
import socket
import struct
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import msgspec
import numpy as np
from numpy.typing import NDArray
from websockets.frames import CloseCode

from backtest.market.frame import facts, stream_of
from backtest.market.pump import Outlet, Pump
from core.config import Faults, RestFault
from core.units import NS_PER_MS, NS_PER_S

_TICK_S: Final = 0.02
_NOTICE_S: Final = 1.0  # between serverShutdown and the close
_SHUTDOWN: Final = '{"e":"serverShutdown","E":%d}'
_SNAPSHOT: Final = '"type":"snapshot"'
_LINGER_NOT: Final = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close sends RST (socket(7))


class Ledger:
    """The faults so far, in memory and as lines of JSON in a file, if it has a path."""

    def __init__(self, path: Path | None = None) -> None:
        self.rows: list[dict[str, Any]] = []
        self._path = path
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, fault: str, **what: Any) -> None:
        row = {"time_ns": time.time_ns(), "fault": fault} | what
        self.rows.append(row)
        if self._path is not None:
            with self._path.open("ab", buffering=0) as file:  # a line is whole or not there, whenever we are killed
                file.write(msgspec.json.encode(row) + b"\n")

    def of(self, *names: str) -> list[dict[str, Any]]:
        """The rows of these faults."""
        return [row for row in self.rows if row["fault"] in names]


@dataclass
class _Line:
    """What is remembered of one connection: its number, and frames that wait for their successor, by stream."""

    number: int
    held: dict[str, str] = field(default_factory=dict)


class FaultInjector:
    """Does what the configuration says, or what it is told by its methods. One for a server.

    `restart` lets the venue's numbering start anew, where the feed can.
    """

    def __init__(self, faults: Faults, seed: int, ledger: Ledger, restart: Callable[[], None] | None = None) -> None:
        self.faults = faults
        self.ledger = ledger
        self._random = np.random.default_rng(seed)
        self._restart = restart
        self._lines: WeakKeyDictionary[Outlet, _Line] = WeakKeyDictionary()
        self._later: set[asyncio.Task[None]] = set()
        self._rest_left, self._stale_left = faults.rest_calls, faults.stale_snapshots

    def spoil(self, outlet: Outlet, texts: list[str]) -> list[str]:
        """The frames of a step as they are sent."""
        if outlet.stopped or not (texts and self._spoils_frames()):
            return texts
        draws = self._random.random((len(texts), 4))
        sent: list[str] = []
        for text, drawn in zip(texts, draws, strict=True):
            sent += self._spoiled(outlet, text, drawn)
        return sent

    def _spoils_frames(self) -> bool:
        faults = self.faults
        return bool(faults.drop or faults.double or faults.reorder or faults.truncate or faults.mute)

    def _spoiled(self, outlet: Outlet, text: str, drawn: NDArray[np.float64]) -> list[str]:
        """What is sent in place of a frame: nothing, itself, or more."""
        stream, kind = stream_of(text)
        if kind is None:
            return [text]
        faults, line = self.faults, self._line(outlet)
        if kind in faults.mute:
            return []
        if drawn[0] < faults.drop.get(kind, 0.0):
            self._tell("drop", outlet, text)
            return []
        earlier = [line.held.pop(stream)] if stream in line.held else []
        is_first = kind == "marks" and _SNAPSHOT in text  # what its successors change comes before them
        if not (earlier or is_first) and drawn[1] < faults.reorder.get(kind, 0.0):
            self._tell("reorder", outlet, text)
            line.held[stream] = text
            return []
        if drawn[2] < faults.truncate.get(kind, 0.0):
            left = int(self._random.integers(1, len(text)))
            self._tell("truncate", outlet, text, left=left)
            text = text[:left]
        elif drawn[3] < faults.double.get(kind, 0.0):
            self._tell("double", outlet, text)
            return [text, text, *earlier]
        return [text, *earlier]

    def _tell(self, fault: str, outlet: Outlet, text: str, **more: Any) -> None:
        known = facts(text)
        self.ledger.write(fault, connection=self._line(outlet).number, **(known._asdict() if known else {}), **more)

    def _line(self, outlet: Outlet) -> _Line:
        if outlet not in self._lines:
            self._lines[outlet] = _Line(len(self._lines))
        return self._lines[outlet]

    def reset(self, outlet: Outlet) -> None:
        """Hang up with a TCP reset."""
        self._tell_of(outlet, "reset")
        raw = outlet.connection.transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
        outlet.connection.transport.abort()

    def close(self, outlet: Outlet) -> None:
        """Hang up as venues do: with a close frame."""
        self._tell_of(outlet, "close")
        self.hang_up(outlet, CloseCode.GOING_AWAY, "going away")

    def shutdown(self, outlet: Outlet) -> None:
        """Announce the end of the connection, then close it."""
        self._tell_of(outlet, "shutdown")
        event = _SHUTDOWN % (time.time_ns() // NS_PER_MS)
        is_combined = getattr(outlet.session, "combined", False)
        outlet.say(f'{{"stream":"!serverShutdown","data":{event}}}' if is_combined else event, 0)

        async def close() -> None:
            await asyncio.sleep(_NOTICE_S)
            await outlet.close(CloseCode.GOING_AWAY, "server shutdown")

        self._do(close())

    def silence(self, outlet: Outlet, for_s: float) -> None:
        """Send nothing for a while, and stay open; what was to be sent is lost."""
        self._tell_of(outlet, "silence", for_s=for_s)
        outlet.stopped = True

        async def speak() -> None:
            await asyncio.sleep(for_s)
            outlet.stopped = False

        self._do(speak())

    def half_open(self, outlet: Outlet) -> None:
        """Neither read nor write any more, and never close: what a vanished host or a dead NAT entry looks like."""
        self._tell_of(outlet, "half_open")
        outlet.stopped = True
        outlet.connection.transport.pause_reading()

    def restart(self) -> None:
        """The venue publishes no books for a moment, and comes back with books that are numbered anew."""
        if self._restart is not None:
            self.ledger.write("restart")
            self._restart()

    def _tell_of(self, outlet: Outlet, fault: str, **more: Any) -> None:
        request = outlet.connection.request
        streams = list(getattr(outlet.session, "topics", ()))
        path = request.path if request else ""
        self.ledger.write(fault, connection=self._line(outlet).number, path=path, streams=streams, **more)

    def hang_up(self, outlet: Outlet, code: int, why: str) -> None:
        """Close a connection without waiting for its end."""
        self._do(outlet.close(code, why))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._later.add(task)
        task.add_done_callback(self._later.discard)

    async def run(self, pump: Pump) -> None:
        """Do what is due by the clock, until cancelled."""
        acts = self._timed(pump)
        due_s = {name: time.monotonic() + every_s for name, (every_s, _) in acts.items()}
        while acts:
            await asyncio.sleep(_TICK_S)
            for name, (every_s, act) in acts.items():
                able = [outlet for outlet in pump.outlets if outlet.is_open and outlet.listening and not outlet.stopped]
                if time.monotonic() >= due_s[name] and able:
                    due_s[name] = time.monotonic() + every_s
                    act(able[int(self._random.integers(len(able)))])

    def _timed(self, pump: Pump) -> dict[str, tuple[float, Callable[[Outlet], None]]]:
        faults = self.faults
        acts: dict[str, tuple[float, Callable[[Outlet], None]]] = {
            "reset": (faults.reset_every_s, self.reset),
            "close": (faults.close_every_s, self.close),
            "shutdown": (faults.shutdown_every_s, self.shutdown),
            "silence": (faults.silence_every_s, lambda outlet: self.silence(outlet, faults.silence_s)),
            "half_open": (faults.half_open_every_s, self.half_open),
            "restart": (faults.restart_every_s, lambda outlet: self.restart()),
        }
        return {name: act for name, act in acts.items() if act[0] > 0}

    def rest_fails(self, fault: RestFault, calls: int, path: str = "") -> None:
        """Let the next calls fail whose path begins so."""
        self.faults = msgspec.structs.replace(self.faults, rest=fault, rest_calls=calls, rest_path=path)
        self._rest_left = calls

    def calm(self) -> None:
        """Do nothing wrong any more, but for what is under way."""
        self.faults = Faults()

    def stale_books(self, snapshots: int) -> None:
        """Let the next depth snapshots be old."""
        self._stale_left = snapshots

    def rest(self, target: str) -> RestFault | None:
        """How a REST call fails, None if it does not."""
        faults = self.faults
        if faults.rest is None or not target.startswith(faults.rest_path):
            return None
        if faults.rest_calls and self._rest_left <= 0:
            return None
        if not faults.rest_calls and self._random.random() >= faults.rest_chance:
            return None
        self._rest_left -= 1
        self.ledger.write("rest", how=faults.rest, target=target)
        return faults.rest

    def book_age_ns(self, target: str) -> int:
        """How old the depth snapshot of a call is to be, 0: new."""
        if self._stale_left <= 0 or not target.startswith("/fapi/v1/depth"):
            return 0
        self._stale_left -= 1
        self.ledger.write("stale_snapshot", target=target, age_s=self.faults.stale_s)
        return int(self.faults.stale_s * NS_PER_S)
