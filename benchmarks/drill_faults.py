"""The fault drill: a live capture against a venue in the present that does wrong, reconciled with what it published.

    python benchmarks/drill_faults.py [--kills 100] [--disconnects 100] [--seconds 20] [--only NAME ...]

A table of faults: how many were injected; what the market published while we captured; `holes` in that, and how many
of them `gaps` does not tell (`unseen`: one message of a stream whose messages do not count on was dropped, which no
protocol shows; `untold`: all others, there must be none); rows refilled by REST and rows that stayed lost; rows that
stand twice, or that no frame explains; frames counted as undecoded; crashes. Some eight minutes on two cores.
"""

import argparse
import itertools
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, Final, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from rich.console import Console

from backtest.market.reconcile import Account, accounts, unexplained
from backtest.market.rehearsal import Rehearsal, rehearsed
from core.config import ROOT, Config, Faults, load
from core.run_record import RunRecord
from core.schema import TOP_OF_BOOK
from core.store import partitions, read
from ingest import capture, receive_clock

SYMBOLS: Final = tuple(f"{venue}:S{number}USDT" for venue in ("binance_um", "bybit") for number in range(8))
KINDS: Final = ("quotes", "trades", "depth", "marks", "liquidations")
CHANCE: Final = 0.05
SILENCE_S: Final = 2.0  # twice the least that is sent: markPrice each second
KILL_WORKERS: Final = 4
NO_FAULTS: Final = Faults()
SLOW_REST: Final = Faults(drop={"trades": 0.2}, rest="timeout", rest_chance=0.7, rest_path="/fapi/v1/aggTrades")
"""Holes in the trades, most of which wait for an answer that does not come when their capture is killed."""

Act = Callable[[Rehearsal], None]


class Outcome(NamedTuple):
    """What a class of faults did."""

    injected: int
    accounts: list[Account]
    ledger: list[dict[str, Any]]
    undecoded: int = 0
    crashes: int = 0
    note: str = ""


class Fault(NamedTuple):
    """A class of faults: what the venue does all the time, or what is done to it now and then."""

    name: str
    settings: Mapping[str, Any] = MappingProxyType({})
    act: Act | None = None
    every_s: float = 1.0
    counted: tuple[str, ...] = ()
    """Names in the ledger."""
    seconds: float | None = None


def captured(fault: Fault, seconds: float, folder: Path) -> Outcome:
    """Capture under a class of faults."""
    with rehearsed(Config(symbols=SYMBOLS, faults=Faults(**fault.settings))) as venue:
        record = RunRecord(config_for(venue, folder, fault.seconds or seconds), Console(quiet=True))
        crashes = 0
        act = fault.act
        with venue.acting(act and (lambda: act(venue)), fault.every_s):
            try:
                with record.stage("capture") as stage:
                    capture.run(record.config, stage)
            except Exception as error:  # a crash is what we count
                print(f"{fault.name}: {type(error).__name__}: {error}")
                crashes = 1
        ledger = venue.ledger
        undecoded = record.report().get("capture", {}).get("undecoded", 0)
        injected = len(ledger.of(*fault.counted)) or len(fault.settings.get("mute", ())) * len(SYMBOLS)
        return Outcome(injected, accounts(folder, venue.tapes), ledger.rows, undecoded, crashes)


def config_for(venue: Rehearsal, folder: Path, seconds: float) -> Config:
    pairs = pairs_for(venue, seconds)
    return load(pairs=pairs, options={"source": "live", "data_dir": str(folder)})


def pairs_for(venue: Rehearsal, seconds: float) -> list[str]:
    hosts = [f"capture.hosts.{name}={getattr(venue.hosts, name)}" for name in venue.hosts.__struct_fields__]
    return [f"symbols={','.join(SYMBOLS)}", f"capture.duration_s={seconds}", f"capture.silence_s={SILENCE_S}", *hosts]


def killed(kills: int, folder: Path, faults: Faults = NO_FAULTS) -> Outcome:
    """Captures that are killed at random moments and started again, several beside each other."""
    with rehearsed(Config(symbols=SYMBOLS, faults=faults)) as venue, ThreadPoolExecutor(KILL_WORKERS) as pool:
        folders = [folder / str(number) for number in range(KILL_WORKERS)]
        shares = [kills // KILL_WORKERS + (number < kills % KILL_WORKERS) for number in range(KILL_WORKERS)]
        once_it_writes = faults is not NO_FAULTS
        work = pool.map(lambda pair: killed_often(venue, *pair, once_it_writes), zip(folders, shares, strict=True))
        losses_s = list(itertools.chain.from_iterable(work))
        found: list[Account] = []
        crashes = 0
        for place in folders:
            ended = subprocess.run(command_for(venue, place, 2.0), capture_output=True, check=False)
            crashes += ended.returncode != 0
            found += accounts(place, venue.tapes)
        note = f"{len(losses_s)} while rows came; lost at most {max(losses_s, default=0.0):.2f} s"
        return Outcome(kills, found, venue.ledger.rows, crashes=crashes, note=note)


def killed_often(venue: Rehearsal, folder: Path, kills: int, once_it_writes: bool) -> list[float]:
    """Seconds from the last row on disk to each kill, of those that came while rows were captured."""
    chances, losses_s = random.Random(str(folder)[-1]), []
    for _ in range(kills):
        began_ns = time.time_ns()
        process = subprocess.Popen(
            command_for(venue, folder, 0), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ)
        )
        while once_it_writes and last_row_ns(folder) < began_ns:
            time.sleep(0.2)
        time.sleep(chances.uniform(0.5, 3.0 if once_it_writes else 9.0))
        killed_ns = time.time_ns()
        process.send_signal(signal.SIGKILL)
        process.wait()
        last_ns = last_row_ns(folder)
        if last_ns > began_ns:
            losses_s.append((killed_ns - last_ns) / 1e9)
    return losses_s


def last_row_ns(folder: Path) -> int:
    times = [read(folder, part, ["recv_ns"])["recv_ns"].max() for part in partitions(folder, TOP_OF_BOOK)]
    return max((int(time) for time in times if isinstance(time, int)), default=0)


def command_for(venue: Rehearsal, folder: Path, seconds: float) -> list[str]:
    command = [sys.executable, str(ROOT / "ingest" / "capture.py"), "--source", "live", "--data-dir", str(folder)]
    return command + [part for pair in pairs_for(venue, seconds) for part in ("--set", pair)]


@contextmanager
def stepped_clock() -> Iterator[Callable[[Rehearsal], None]]:
    """Replaces the wall clock of our receive times while the context is open; sets it by +2 s, -2 s, and so on."""
    steps_ns, set_ns = itertools.cycle((2 * 10**9, -2 * 10**9)), [0]

    def step(venue: Rehearsal) -> None:
        set_ns[0] += next(steps_ns)
        venue.ledger.write("step")

    stepped = SimpleNamespace(time_ns=lambda: time.time_ns() + set_ns[0], monotonic_ns=time.monotonic_ns)
    before, receive_clock.time = receive_clock.time, stepped  # type: ignore[attr-defined, assignment]
    try:
        yield step
    finally:
        receive_clock.time = before  # type: ignore[attr-defined]


def disconnect() -> Act:
    ways = itertools.cycle(("reset", "close", "shutdown"))
    return lambda venue: venue.hit_one(getattr(venue.injector, next(ways)))


def silence(venue: Rehearsal) -> None:
    """One connection says nothing any more."""
    venue.hit_one(lambda outlet: venue.injector.silence(outlet, 60.0))


def old_snapshot(venue: Rehearsal) -> None:
    """A lost connection needs a new snapshot; the first ones that it gets are old."""
    venue.injector.stale_books(12)
    venue.hit_one(venue.injector.reset, with_books=True)


def failing_rest() -> Act:
    """One way after the other, on calls that a lost connection makes necessary."""
    ways = itertools.cycle((500, "garbled", "cut", 503, 429, 418, "timeout", 451, 403))

    def act(venue: Rehearsal) -> None:
        venue.injector.rest_fails(next(ways), 5)
        venue.hit_one(venue.injector.reset, with_books=True)

    return act


def faults_of(disconnects: int) -> list[Fault]:
    chances = dict.fromkeys(KINDS, CHANCE)
    return [
        Fault("no fault"),
        Fault("frames dropped", {"drop": chances}, counted=("drop",)),
        Fault("frames doubled", {"double": chances}, counted=("double",)),
        Fault("frames reordered", {"reorder": chances}, counted=("reorder",)),
        Fault("frames cut short", {"truncate": chances}, counted=("truncate",)),
        Fault("disconnects", {}, disconnect(), 0.6, ("reset", "close", "shutdown"), disconnects * 0.65 + 2),
        Fault("silent socket", {}, silence, 4.0, ("silence",)),
        Fault("half-open TCP", {}, lambda venue: venue.hit_one(venue.injector.half_open), 4.0, ("half_open",)),
        Fault("wrong category", {"mute": ("trades",)}, seconds=20.0),
        Fault("old snapshots", {"stale_s": 3.0}, old_snapshot, 3.0, ("stale_snapshot",)),
        Fault("venue restarts", {}, lambda venue: venue.injector.restart(), 4.0, ("restart",)),
        Fault("REST fails", {"drop": {"trades": CHANCE}}, failing_rest(), 2.0, ("rest",)),
    ]


HEAD: Final = (
    f"{'fault':<18}{'injected':>9}{'published':>10}{'gaps':>6}{'holes':>6}{'unseen':>7}{'untold':>7}{'refilled':>9}"
    f"{'lost':>8}{'doubled':>8}{'extra':>6}{'undecoded':>10}{'crashes':>8}{'s':>6}"
)


def line(name: str, outcome: Outcome, seconds: float) -> str:
    """A row of the table: `holes` in streams; `unseen`, `untold`, `refilled` and `lost` are frames."""
    untold = sum(len(unexplained(each, outcome.ledger)) for each in outcome.accounts)
    unseen = sum(len(each.untold_frames) for each in outcome.accounts) - untold

    def total(field: str) -> int:
        return sum(getattr(each, field) for each in outcome.accounts)

    return (
        f"{name:<18}{outcome.injected:>9,}{total('published'):>10,}{total('gaps'):>6,}{total('holes'):>6,}"
        f"{unseen:>7,}{untold:>7,}{total('refilled'):>9,}{total('lost'):>8,}{total('doubled'):>8,}{total('extra'):>6,}"
        f"{outcome.undecoded:>10,}{outcome.crashes:>8,}{seconds:>6.0f}  {outcome.note}"
    )


def drilled(name: str, work: Callable[[Path], Outcome]) -> bool:
    """Do a class of faults and print its row; whether nothing went wrong that must not."""
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = work(Path(folder))
        print(line(name, outcome, time.perf_counter() - began_s), flush=True)
        wrong = [each for each in outcome.accounts if is_wrong(each, outcome.ledger)]
        for each in wrong:
            keys = unexplained(each, outcome.ledger)
            print(
                f"    {each.venue}:{each.symbol} {each.table}: {each.doubled} doubled, {each.extra} extra, {keys[:2]}"
            )
        return not (wrong or outcome.crashes)


def is_wrong(account: Account, ledger: list[dict[str, Any]]) -> bool:
    """Whether a stream's rows are what no fault may make of them."""
    return bool(unexplained(account, ledger) or account.doubled or account.extra)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--disconnects", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each other class")
    parser.add_argument("--only", nargs="*", default=[], help="classes, by the beginning of their names")
    given = parser.parse_args()
    print(
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, {platform.processor() or platform.machine()}, {os.cpu_count()} cores"
    )
    print(f"{len(SYMBOLS)} symbols, 5 streams each; chance of a frame's fault {CHANCE:g}\n{HEAD}")

    def asked(name: str) -> bool:
        return not given.only or any(name.startswith(begin) for begin in given.only)

    fine = [
        drilled(fault.name, lambda folder, fault=fault: captured(fault, given.seconds, folder))  # type: ignore[misc]
        for fault in faults_of(given.disconnects)
        if asked(fault.name)
    ]
    if asked("clock steps"):
        with stepped_clock() as step:
            fault = Fault("clock steps of 2 s", {}, step, 5.0, ("step",))
            fine.append(drilled(fault.name, lambda folder: captured(fault, given.seconds, folder)))
    if asked("kill -9"):
        fine.append(drilled("kill -9", lambda folder: killed(given.kills, folder)))
    if asked("kill in refill"):
        fine.append(drilled("kill in refill", lambda folder: killed(given.kills // 4, folder, SLOW_REST)))
    return 0 if all(fine) else 1


if __name__ == "__main__":
    sys.exit(main())
