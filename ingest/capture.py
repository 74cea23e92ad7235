"""Capture: what the exchanges send, as event tables. Live, from the simulated exchange, or from recorded frames.

    python ingest/capture.py [--source sim|replay|live] [--duration 90m] ...

A simulated or replayed market is captured to its end (ingest/finite_capture.py), a live one until it is told to stop
(ingest/live_capture.py). Frames that do not decode are counted and sampled into `logs/`; what is known to be missing
stands in `gaps`. However a capture ends, the tables are whole.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import msgspec

from core.cli import stage_main
from core.config import DEFAULT_SYMBOLS, Config
from core.errors import StageError
from core.locks import RUN, held
from core.origin import Origin, read_origin, write_origin
from core.run_record import Stage
from core.schema import BOOK_DELTAS, EVENTS, GAPS, TOP_OF_BOOK, Table
from core.servers import simulate_directly
from core.store import hash_of, partitions
from ingest.asked_streams import note_asked
from ingest.capture_log import CaptureLog, Source
from ingest.capture_report import data_of, data_on_disk, report, tell_counts
from ingest.clock_skew import skew_lines, skews_ms
from ingest.feed import Feed
from ingest.feeds import tuned_interpreter
from ingest.finite_capture import capture_to_the_end
from ingest.live_capture import capture_live
from ingest.monitor import Monitor
from ingest.ownership import identity_of, is_captured, make_room, raw_path
from ingest.raw import RawWriter
from ingest.venues import is_local

READS: tuple[Table, ...] = ()
WRITES: tuple[Table, ...] = (*EVENTS, GAPS)


def run(cfg: Config, stage: Stage) -> None:
    """Capture `cfg.source` into the event tables of the data directory, unless they hold that very market already."""
    if cfg.source == "archive":
        raise StageError("--source archive: archives are read by the stage `backfill`, not by `capture`")
    origin = Origin(cfg.source, identity_of(cfg), simulated=cfg.simulated)
    if cfg.source == "live":
        _live(cfg, origin, stage)
    else:
        if not is_captured(cfg, origin):
            (cfg.root / "stages" / "capture.json").unlink(missing_ok=True)
        if stage.reuse(hash_of("capture", origin, cfg.capture.keep_raw)):
            return
        _repeatable(cfg, origin, stage)
        _report_repeatable(cfg, stage)
    captured = read_origin(cfg)
    assert captured is not None
    write_origin(cfg, msgspec.structs.replace(captured, complete=True))


def _repeatable(cfg: Config, origin: Origin, stage: Stage) -> None:
    if cfg.source == "sim" and cfg.sim.transport == "direct":
        with _terminable():
            simulate_directly(cfg, begin=lambda: _begin(cfg, origin, stage, ()))
        return
    with _told(stage) as feeds:

        def begin(found: Sequence[Source]) -> None:
            feeds.extend(found)
            # A recording of the simulated exchange is of a simulated market.
            simulated = origin.simulated or any(is_local(feed.url) for feed in found)
            _begin(cfg, msgspec.structs.replace(origin, simulated=simulated), stage, found)

        if cfg.source == "replay" and cfg.replay.transport == "direct" and not cfg.replay.speed:
            from ingest.recordings import capture_recordings  # loads numba, which nothing else of a capture needs

            with _terminable():
                capture_recordings(cfg, stage, begin)
            return
        asyncio.run(capture_to_the_end(cfg, stage, begin))


def _live(cfg: Config, origin: Origin, stage: Stage) -> None:
    """Capture live, and report what that added, whichever way it ends.

    Stages may work on what is captured meanwhile, so only taking the data directory over is done alone.
    """
    log = CaptureLog()
    monitor, known = Monitor(log), list[Feed]()
    with _told(stage, monitor) as feeds:

        def begin(found: Sequence[Feed]) -> None:
            feeds.extend(found)
            known.extend(found)
            before = read_origin(cfg)
            is_ours = before is not None and before.source == "live"
            with nullcontext() if is_ours else held(cfg.root, RUN):
                # On loopback there is no venue, only what pretends to be one.
                simulated = any(is_local(feed.url) for feed in found)
                _begin(cfg, msgspec.structs.replace(origin, simulated=simulated), stage, found)
            note_asked(cfg.root, time.time_ns(), found)

        is_stopped = asyncio.run(capture_live(cfg, stage, begin, log, monitor))
    if not is_stopped:
        _check_came(known, monitor)


def _check_came(feeds: Sequence[Feed], monitor: Monitor) -> None:
    """Raises StageError for symbols of which no row came at all: the venue may not have them."""
    wanted = {f"{feed.venue}:{symbol}" for feed in feeds for symbol, _ in feed.plan.feeds}
    came = {f"{status.key.venue}:{status.key.symbol}" for status in monitor.streams() if status.rows}
    if missing := sorted(wanted - came):
        raise StageError(
            f"no row came of {', '.join(missing)}: does the venue have it, under that name? "
            "What came of the others is kept"
        )


@contextmanager
def _told(stage: Stage, monitor: Monitor | None = None) -> Iterator[list[Source]]:
    """Takes the feeds that are read inside, and tells what they and the monitor saw, whichever way it ends."""
    feeds: list[Source] = []
    began_s = time.perf_counter()
    try:
        with tuned_interpreter():
            yield feeds
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        if feeds:
            tell_counts(feeds, time.perf_counter() - began_s, stage)
        if feeds and monitor is not None:
            report(stage, *data_of(monitor.streams()))


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM ends what is inside as Ctrl-C does, so that a process of ours is not left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _begin(cfg: Config, origin: Origin, stage: Stage, feeds: Sequence[Source]) -> None:
    """Make room in the data directory, mark it as what is about to be captured, and keep raw frames if asked to."""
    removed = make_room(cfg, origin)
    write_origin(cfg, origin)  # lines that follow say whether the market is simulated
    if removed:
        stage.say(removed, keep=False)
    if cfg.capture.keep_raw:
        for number, feed in enumerate(feeds):
            feed.keep_raw(RawWriter(raw_path(cfg, origin, feed.venue, number)))


def _report_repeatable(cfg: Config, stage: Stage) -> None:
    """What the tables hold. Raises StageError where they hold nothing, or not what was asked for."""
    data, symbols = data_on_disk(cfg.root)
    if not symbols:
        raise StageError(f"no event came from --source {cfg.source}: nothing was captured into {cfg.root}")
    _check_books(cfg)
    report(stage, data, symbols)
    for line in skew_lines({} if stage.simulated else skews_ms(cfg.root)):
        stage.say(line)


def _check_books(cfg: Config) -> None:
    """Raises StageError for symbols that were asked for and have neither best prices nor a book."""
    wanted = cfg.symbols or (() if cfg.source == "replay" else DEFAULT_SYMBOLS)
    priced = {part.instrument for table in (TOP_OF_BOOK, BOOK_DELTAS) for part in partitions(cfg.root, table)}
    missing = sorted(set(wanted) - priced)
    if missing:
        raise StageError(
            f"no best price and no book came of {', '.join(missing)}, only of {', '.join(sorted(priced)) or 'none'}; "
            f"nothing can be built from trades alone: take them out of `symbols`, or capture what holds them"
        )


if __name__ == "__main__":
    stage_main("capture", run)
