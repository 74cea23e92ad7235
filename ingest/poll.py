"""Poll: the slow series (funding, open interest, long/short ratios, basis, …) into the signals table.

    python ingest/poll.py --source live [--duration forever] [--set symbols=binance_um:BTCUSDT,…] ...

Once, by default: what is due is collected, up to 30 days of history the first time, and the program ends; every five
minutes from cron is as good as `forever`. What is collected is declared (ingest/collectors.toml, and your own under
`[poll.collectors.NAME]`); what each series means: docs/signals.md.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Final

import msgspec
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from core.cli import stage_main
from core.config import DEFAULT_SYMBOLS, Config, Hosts
from core.errors import ConfigError, StageError
from core.origin import Origin, read_origin, write_origin
from core.run_record import Stage
from core.schema import GAPS, LIQUIDATIONS, MARK_PRICES, SIGNALS, Table
from core.servers import hosts
from core.units import NS_PER_HOUR, NS_PER_MS, NS_PER_S, parse_duration_ns
from ingest.collectors import Target
from ingest.declarations import declared, targets
from ingest.derivation import derive, derive_liquidations
from ingest.derived_signals import has_notional
from ingest.ownership import identity_of
from ingest.poll_report import report
from ingest.poller import Poller
from ingest.rate_limit import RateLimiter
from ingest.rest import RestClient
from ingest.signal_log import SignalLog
from ingest.spent_weight import keep_spent, resume_spent
from ingest.transport import NEVER_NS, VIRTUAL_CLOCK, clock_message
from ingest.underived import News, strike_off, underived
from ingest.venues import is_local

READS: tuple[Table, ...] = (LIQUIDATIONS, MARK_PRICES, GAPS)
WRITES: tuple[Table, ...] = (SIGNALS,)
_FLUSH_S: Final = 2.0  # what a crash costs; a history of many symbols comes in over minutes
_TELL_S: Final = 60.0
ENDLESS: Final = "forever"
ONCE: Final = "once"


def run(cfg: Config, stage: Stage) -> None:
    """Collect what is due, or go on collecting for `poll.duration`, and derive what follows from it."""
    if cfg.source == "replay":
        raise StageError(
            "a recording holds frames, no slow series: poll with --source live or sim into another --data-dir"
        )
    if cfg.source == "sim" and cfg.poll.duration != ONCE:
        raise ConfigError("poll.duration: a simulated market is polled at its end, once - at `$.poll.duration`")
    what, symbols = declared(cfg.poll), cfg.symbols or DEFAULT_SYMBOLS
    _refuse_another_market(cfg)
    with hosts(cfg) as where:
        chosen = targets(what, symbols, where)
        for name in sorted(cfg.poll.collectors.keys() & what.collectors.keys() - {one.name for one in chosen}):
            stage.say(f"collector {name}: no symbol of its exchange is in `symbols`, and it names none of its own")
        if unvalued := [symbol for symbol in symbols if not has_notional(symbol.partition(":")[0])]:
            stage.say(f"liquidations of {', '.join(unvalued)} are not summed: the size of its contracts is not known")
        if not chosen:
            raise StageError(f"nothing to poll for {', '.join(symbols)}: no collector is declared for these venues")
        _mark(cfg, cfg.simulated or any(is_local(target.base_url) for target in chosen if _is_venue(target)))
        end_ns = asyncio.run(_play_out(where)) if cfg.source == "sim" else 0
        asyncio.run(_poll(cfg, stage, chosen, symbols, (lambda: end_ns) if end_ns else time.time_ns))


def _refuse_another_market(cfg: Config) -> None:
    """Raises StageError if the data directory holds another simulated market than the one to be polled."""
    found = read_origin(cfg)
    if found is not None and found.source == "sim" and found.identity != identity_of(cfg):
        raise StageError(
            f"{cfg.root} holds another simulated market: run `capture` with these settings first, or choose another "
            "--data-dir"
        )


def _mark(cfg: Config, simulated: bool) -> None:
    """Mark a data directory that has no mark. Raises StageError where one has the other kind: signals must not mix."""
    found = read_origin(cfg)
    if found is None:
        write_origin(cfg, Origin(cfg.source, identity_of(cfg), cfg.source == "live", simulated))
    elif found.simulated != simulated:
        held, offered = ("simulated", "real") if found.simulated else ("real", "simulated")
        raise StageError(
            f"{cfg.root} holds {held} rows, {offered} signals must not join them: choose another --data-dir"
        )


def _is_venue(target: Target) -> bool:
    """Whether a venue is asked; a provider of one's own may stand on loopback and be no simulation."""
    return target.provider.host in Hosts.__struct_fields__


async def _play_out(where: Hosts) -> int:
    """Let the simulated market run to its end, so that its venues know all of it; the time there."""
    url = f"{where.binance_um_ws}/public/stream"
    async with connect(url, subprotocols=[Subprotocol(VIRTUAL_CLOCK)], compression=None, ping_interval=None) as socket:
        await socket.send(clock_message(NEVER_NS))
        with suppress(ConnectionClosed):
            while True:
                await socket.recv()
    async with RestClient() as rest:
        body = await rest.get(f"{where.binance_um_rest}/fapi/v1/time")
    return int(msgspec.json.decode(body)["serverTime"]) * NS_PER_MS


async def _poll(
    cfg: Config, stage: Stage, chosen: Sequence[Target], symbols: Sequence[str], now_ns: Callable[[], int]
) -> None:
    log = SignalLog()
    async with RestClient(say=partial(stage.say, keep=False)) as rest:
        resume_spent(rest.limiter, cfg.root)
        poller = Poller(cfg.root, cfg.poll, chosen, rest, log.write, now_ns)
        keeper = _Keeper(cfg, poller, symbols, now_ns, partial(stage.say, keep=False), rest.limiter)
        try:
            await _collect(cfg, poller, keeper)
        finally:
            keeper.finish()
            report(stage, poller, keeper.derived, log, now_ns())


async def _collect(cfg: Config, poller: Poller, keeper: "_Keeper") -> None:
    """Until all that is due is there, or the duration is over, or SIGTERM comes, which is how `forever` ends."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    duration = cfg.poll.duration
    tending = asyncio.create_task(keeper.tend())
    try:
        if duration == ONCE:
            await poller.collect_due()
            return
        limit_s = None if duration == ENDLESS else parse_duration_ns(duration) / NS_PER_S
        with suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await poller.keep_collecting()
    except asyncio.CancelledError:
        if duration == ONCE:
            raise KeyboardInterrupt from None
    finally:
        keeper.stopping.set()
        await tending


class _Keeper:
    """Stores what the poller holds, now and then and at the end, and what follows from it."""

    def __init__(
        self,
        cfg: Config,
        poller: Poller,
        symbols: Sequence[str],
        now_ns: Callable[[], int],
        say: Callable[[str], None],
        limiter: RateLimiter,
    ) -> None:
        self.derived: Counter[str] = Counter()
        """New derived rows by series."""
        self.stopping = asyncio.Event()
        self._root, self._poller, self._symbols, self._now_ns, self._say = cfg.root, poller, symbols, now_ns, say
        self._lag_ns = int(cfg.poll.assumed_lag_s * NS_PER_S)
        self._limiter = limiter
        self._hour = -1
        self._told, self._told_s = 0, time.monotonic()
        self._trouble = ""

    async def tend(self) -> None:
        """Store every few seconds, until `stopping`. A disk that is full is told once, and tried again."""
        while not self.stopping.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), _FLUSH_S)
            try:
                keep_spent(self._limiter, self._root)
                await self._poller.flush()
                await asyncio.to_thread(self._derive)
                self._trouble = ""
                self._tell_progress()
            except (OSError, StageError) as error:
                if not self._trouble:
                    self._say(f"cannot store signals: {error}; they wait in memory")
                self._trouble = str(error)

    def _tell_progress(self) -> None:
        """A line a minute at most, and only where something is new."""
        total = sum(self._poller.news.values())
        if total > self._told and time.monotonic() >= self._told_s + _TELL_S:
            failed = sum(tally.errors for tally in self._poller.tallies.values())
            now = f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
            self._say(f"{now}  {total - self._told:,} new rows, {total:,} in all, {failed:,} requests failed")
            self._told, self._told_s = total, time.monotonic()

    def finish(self) -> None:
        """Store the rest. Raises what the disk says."""
        self._hour = -1
        keep_spent(self._limiter, self._root)
        self._poller.flush_last()
        self._derive()

    def _derive(self) -> None:
        """What follows from news is derived once; after a failure or a crash, the next time."""
        now_ns = self._now_ns()
        if news := underived(self._root):
            self._count(derive(self._root, news, self._poller.targets, now_ns))
            strike_off(self._root)
        if (hour := (now_ns - self._lag_ns) // NS_PER_HOUR) != self._hour:
            self._count(derive_liquidations(self._root, self._symbols, self._lag_ns, now_ns))
            self._hour = hour

    def _count(self, news: News) -> None:
        for rows in news.values():
            self.derived.update(rows["name"])


if __name__ == "__main__":
    stage_main("poll", run)
