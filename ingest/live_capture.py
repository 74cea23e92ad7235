"""A live capture while it runs: feeds into the writer, and beside them what keeps it going and shows how it does.

Ends after `capture.duration_s` (0: never), on SIGTERM, or by an error. Whichever it is, all rows that were received are
written and sealed before `capture_live` returns.
"""

import asyncio
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from rich.console import Group

from core.config import DEFAULT_SYMBOLS, Capture, Config
from core.run_record import SIMULATED, Stage
from core.units import NS_PER_S
from ingest.capture_log import CaptureLog, log_samples
from ingest.clock_check import Clocks, check_clocks
from ingest.events import Event
from ingest.feed import Feed
from ingest.feeds import make_feeds
from ingest.monitor import Monitor, by_table, each_stream
from ingest.prometheus import CaptureMetrics, served
from ingest.receive_clock import SLEW, ReceiveClock
from ingest.resumption import Resumption
from ingest.rows import TableWriter
from ingest.status import displayed, span, status_line, status_table

_TICK_S: Final = 0.05  # how often rows that are due go to the writer's thread
_SECOND_S, _MINUTE_S, _HOUR_S = 1.0, 60.0, 3_600.0
_MOST_SUMMED_UP: Final = 50  # streams with a line of their own in the log's minute; above: a line per table


@dataclass
class Session:
    """A running capture, and what it knows of itself."""

    config: Config
    stage: Stage
    log: CaptureLog
    monitor: Monitor
    feeds: list[Feed]
    writer: TableWriter
    resumption: Resumption
    began_s: float = field(default_factory=time.monotonic)
    clocks: Clocks | None = None
    trouble: str = ""

    @property
    def head(self) -> str:
        """How lines of the status begin."""
        head = f"capture {span(time.monotonic() - self.began_s)} into {self.config.data_dir}"
        return f"{head} | {SIMULATED}" if self.stage.simulated else head

    def sink(self, feed: Feed, recv_ns: int, events: Sequence[Event]) -> None:
        """Take what a feed received; where an earlier capture left off, the gap comes first."""
        if not self.resumption.is_over:
            events = [*self.resumption.gaps(feed, recv_ns, events), *events]
        if events:
            self.writer.add(feed.venue, events)


async def capture_live(
    config: Config, stage: Stage, begin: Callable[[Sequence[Feed]], None], log: CaptureLog, monitor: Monitor
) -> bool:
    """Capture until told to end; True if SIGTERM told it. `begin` is called when the feeds are known and before
    anything is written.
    """
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    session = await _session(config, stage, begin, log, monitor)
    metrics = CaptureMetrics(session.monitor, lambda: session.trouble, lambda: session.clocks)
    show = partial(_show, session)
    try:
        with served(metrics, config.capture.metrics_port), displayed(stage.console, show):
            await _work(session, stopped)
    finally:
        # Whoever ends it by SIGTERM may want to start it again: merging a day of many symbols takes a minute.
        session.writer.close(merge=not stopped.is_set())
        log_samples(session.feeds)
        _sum_up(session, "stop")
    return stopped.is_set()


async def _session(
    config: Config, stage: Stage, begin: Callable[[Sequence[Feed]], None], log: CaptureLog, monitor: Monitor
) -> Session:
    def say(text: str) -> None:
        """A line for the terminal and the log, not for the report: over months there are many."""
        stage.note(text)
        log.write("note", text=text)

    def behind() -> bool:
        return writer is not None and writer.is_behind

    writer: TableWriter | None = None
    symbols = config.symbols or DEFAULT_SYMBOLS
    clock = ReceiveClock()
    feeds = await make_feeds(config, config.capture.hosts, symbols, say, behind=behind, clock=clock)
    begin(feeds)
    monitor.watch(feeds)
    resumption = Resumption(config.root, feeds, say)
    if behind_ns := clock.go_on_from(resumption.last_ns):
        say(
            f"the clock was set back: it is {behind_ns / NS_PER_S:.3f} s behind the last row on disk. Receive times go "
            f"on from there, and are ahead of UTC for the next {SLEW * behind_ns / NS_PER_S:.0f} s"
        )
    log.write("start", data_dir=str(config.root), connections=len(feeds), streams=monitor.count())
    writer = _writer(config.root, config.capture, say, monitor)
    return Session(config, stage, log, monitor, feeds, writer, resumption)


def _writer(root: Path, capture: Capture, say: Callable[[str], None], monitor: Monitor) -> TableWriter:
    return TableWriter(
        root,
        capture.flush_rows,
        capture.durable_s,
        waiting_rows=capture.waiting_rows,
        fsync=capture.fsync,
        say=say,
        observe=monitor.observe,
    )


async def _work(session: Session, stopped: asyncio.Event) -> None:
    """Everything that runs at once, until the time is over, SIGTERM came, or one of them failed."""
    reads = [asyncio.create_task(_read(session, feed)) for feed in session.feeds]
    tasks = [*reads, *(asyncio.create_task(work) for work in (_tend(session), _check(session), _end(stopped)))]
    try:
        duration_s = session.config.capture.duration_s or None
        done, _ = await asyncio.wait(tasks, timeout=duration_s, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        await asyncio.gather(*(read for feed, read in zip(session.feeds, reads, strict=True) if feed.end()))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.gather(*(feed.close() for feed in session.feeds))


async def _end(stopped: asyncio.Event) -> None:
    await stopped.wait()


async def _read(session: Session, feed: Feed) -> None:
    """Open a connection and read it for good. Others need not wait for it: venues do not wait for each other."""
    facts = {"venue": feed.venue, "url": feed.url}
    await feed.open()
    session.log.write("subscribe", **facts, requests=len(feed.plan.requests), streams=len(feed.plan.feeds))
    session.resumption.opened(feed, feed.wall_ns())
    await feed.release()
    await feed.run(session.sink)


async def _tend(session: Session) -> None:
    """Rows to the writer's thread, figures each second, a summary each minute."""
    next_second_s = time.monotonic()
    next_minute_s = next_second_s + _MINUTE_S
    while True:
        await asyncio.sleep(_TICK_S)
        session.writer.tick()
        now_s = time.monotonic()
        if now_s >= next_second_s:
            next_second_s = now_s + _SECOND_S
            session.monitor.tick(now_s)
            _watch_writer(session)
        if now_s >= next_minute_s:
            next_minute_s = now_s + _MINUTE_S
            _sum_up(session, "summary")


def _watch_writer(session: Session) -> None:
    """Note when the disk begins to refuse rows, and when it takes them again; the writer itself tells the user."""
    before, session.trouble = session.trouble, session.writer.trouble
    if session.trouble != before:
        session.log.write("trouble", text=session.trouble, waiting_rows=session.writer.backlog)


def _sum_up(session: Session, event: str) -> None:
    """The minute's figures into the log and, where there is no terminal to show them, into a line."""
    monitor = session.monitor
    grouping = each_stream if monitor.count() <= _MOST_SUMMED_UP else by_table
    session.log.write(
        event,
        data_dir=str(session.config.root),
        streams=[status.facts() for status in monitor.streams(grouping)],
        connections=[connection._asdict() for connection in monitor.connections()],
        trouble=session.trouble,
        backlog_rows=session.writer.backlog,
        resident_mb=_resident_mb(),
    )
    if not session.stage.console.is_terminal and event == "summary":
        session.stage.note(status_line(monitor, session.head, session.trouble))


def _resident_mb() -> float | None:
    """Memory of this process; None where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return None
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)


async def _check(session: Session) -> None:
    """Hourly, from the start: the clocks, and samples of what did not decode."""
    while True:
        venues = {feed.venue for feed in session.feeds}
        session.clocks = await check_clocks(venues, session.config.capture.hosts)
        session.log.write("clocks", **session.clocks.facts())
        for line in session.clocks.lines():
            session.stage.note(line)
        log_samples(session.feeds)
        await asyncio.sleep(_HOUR_S)


def _show(session: Session, height: int) -> Group:
    """What the terminal shows."""
    return status_table(session.monitor, session.head, session.trouble, height)
