"""Starting the simulated exchange and the replay server: processes of their own, known to us by URL alone.

They are named here as modules, not imported: `core` and `ingest` must not depend on what pretends to be an exchange.
A server prints `listening on 127.0.0.1:PORT` when it is ready, and ends when its standard input closes, so that it
never outlives us.
"""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import msgspec

from core.config import ROOT, Config, Hosts
from core.errors import ConfigError, StageError
from core.store import hash_of

EXCHANGE_MODULE = "backtest.market.exchange_server"
REPLAY_MODULE = "backtest.market.replay_server"
DIRECT_MODULE = "backtest.market.direct"
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


def local_hosts(address: str) -> Hosts:
    """All venues at one local `host:port`: their paths differ, so one server can be all of them."""
    ws, http = f"ws://{address}", f"http://{address}"
    return Hosts(
        **{name: (ws if name.endswith("_ws") else http) for name in Hosts.__struct_fields__},
    )


def simulate_directly(config: Config) -> None:
    """Let the simulated market write the event tables itself, without sockets. Raises as `hosts` does."""
    command = [sys.executable, "-m", DIRECT_MODULE]
    done = subprocess.run(command, cwd=ROOT, input=msgspec.json.encode(config) + b"\n")
    if done.returncode:
        raise _failure(f"{DIRECT_MODULE} failed", done.returncode)


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
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(config_json + b"\n")
        process.stdin.flush()
        line = process.stdout.readline().decode()
        if not line.startswith(_READY):
            raise _failure(f"{module} did not start", process.wait())
        yield line.removeprefix(_READY).strip()
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
