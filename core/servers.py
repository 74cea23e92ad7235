"""Starting the simulated exchange and the replay server: processes of their own, known to us by URL alone.

They are named here as modules, not imported: `core` and `ingest` must not depend on what pretends to be an exchange.
A server prints `listening on 127.0.0.1:PORT` when it is ready, and ends when its standard input closes, so that it
never outlives us.
"""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Literal

import msgspec

from core.config import ROOT, Config, Hosts
from core.errors import ConfigError, StageError
from core.store import hash_of

EXCHANGE_MODULE = "backtest.market.exchange_server"
REPLAY_MODULE = "backtest.market.replay_server"
DIRECT_MODULE = "backtest.market.direct"
READY_TO_WRITE = "ready to write"
_READY = "listening on "
_BAD_SETTING = 2  # the exit code of a server that cannot work with the configuration (core/cli.py)


@contextmanager
def hosts(config: Config, stretch: Literal["history", "fresh"] = "history") -> Iterator[Hosts]:
    """The hosts to connect to: the real ones, or a local server's for as long as the context is open.

    `stretch` is the simulated market's: `history` is the first `sim.hours`, `fresh` the `sim.live_minutes` after it.
    Raises StageError if the server does not start, ConfigError if a setting is why.
    """
    if config.source in ("live", "archive"):
        yield config.capture.hosts
        return
    module = EXCHANGE_MODULE if config.source == "sim" else REPLAY_MODULE
    with _server(module, ["--stretch", stretch], msgspec.json.encode(config)) as address:
        yield local_hosts(address)


@contextmanager
def wall_clock_hosts(config: Config, module: str = EXCHANGE_MODULE) -> Iterator[Hosts]:
    """The hosts of a local server that behaves as the venues do: in the present, for whoever speaks their protocols.

    `--source live` with these in `capture.hosts` captures from it. Raises as `hosts` does.
    """
    with _server(module, ["--wall"], msgspec.json.encode(config)) as address:
        yield local_hosts(address)


def local_hosts(address: str) -> Hosts:
    """All venues at one local `host:port`: their paths differ, so one server can be all of them."""
    ws, http = f"ws://{address}", f"http://{address}"
    return Hosts(
        **{name: (ws if name.endswith("_ws") else http) for name in Hosts.__struct_fields__},
    )


def simulate_directly(config: Config, begin: Callable[[], None]) -> None:
    """Let the simulated market write the event tables itself, without sockets. Raises as `hosts` does.

    `begin` is called when the market stands, and before it writes anything.
    """
    with _process(DIRECT_MODULE, [], msgspec.json.encode(config)) as (process, answer):
        if answer != READY_TO_WRITE:
            raise _failure(f"{DIRECT_MODULE} did not start", process.wait())
        begin()
        _tell(process, b"")
        # With a timeout, however long, it looks again and again: polars' handler of Ctrl-C wakes no plain waitpid.
        if code := process.wait(timeout=threading.TIMEOUT_MAX):
            raise _failure(f"{DIRECT_MODULE} failed", code)


def simulator_fingerprint() -> str:
    """A hash of the simulated market's code: other code, another market from the same seed."""
    sources = sorted((ROOT / "backtest" / "market").glob("*.py"))
    return hash_of([path.read_bytes() for path in sources if not path.stem.endswith("server")])


def _failure(what: str, code: int) -> ConfigError | StageError:
    """The error that a process of ours ended with, by its exit code."""
    kind = ConfigError if code == _BAD_SETTING else StageError
    return kind(f"{what} (exit code {code}): its message is above")


@contextmanager
def _server(module: str, arguments: Sequence[str], config_json: bytes) -> Iterator[str]:
    with _process(module, arguments, config_json) as (process, answer):
        if not answer.startswith(_READY):
            raise _failure(f"{module} did not start", process.wait())
        yield answer.removeprefix(_READY).strip()


def _tell(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    """Write a line to a process's standard input. If it has ended, its exit code says more than the broken pipe."""
    assert process.stdin is not None
    with suppress(BrokenPipeError):
        process.stdin.write(line + b"\n")
        process.stdin.flush()


@contextmanager
def _process(
    module: str, arguments: Sequence[str], config_json: bytes
) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """A process that was given the configuration, and the first line it says. It is ended with the context."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        _tell(process, config_json)
        yield process, process.stdout.readline().decode().rstrip()
    finally:
        with suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
