"""Capture: what the exchanges send, as event tables. Live, from the simulated exchange, or from recorded frames.

    python ingest/capture.py [--source sim|replay|live] [--set capture.duration_s=60] ...

Frames that do not decode are counted and sampled into `logs/`; what is known to be missing stands in `gaps`. However a
capture ends, the tables are whole.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import asyncio
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import msgspec
import polars as pl

from core.cli import stage_main
from core.config import DEFAULT_SYMBOLS, ROOT, Config
from core.errors import StageError
from core.origin import Origin, write_origin
from core.run_record import Stage
from core.schema import BOOK_DELTAS, EVENTS, GAPS, LIQUIDATIONS, MARK_PRICES, TOP_OF_BOOK, TRADES, Table
from core.servers import hosts, simulate_directly
from core.store import Partition, files, hash_of, partitions
from core.units import NS_PER_HOUR, NS_PER_S
from ingest.events import Event
from ingest.feed import Feed
from ingest.feeds import make_feeds, opened, rare_collections
from ingest.ownership import identity_of, is_captured, make_room, raw_folder, raw_prefix
from ingest.raw import RawWriter
from ingest.rows import TableWriter
from ingest.venues import is_local

READS: tuple[Table, ...] = ()
WRITES: tuple[Table, ...] = (TOP_OF_BOOK, TRADES, BOOK_DELTAS, LIQUIDATIONS, MARK_PRICES, GAPS)
_CUT_LINE: Final = "cut line "
_LAST_FRAMES_S: Final = 60.0  # for the other connections to deliver what came before a broken line
_TICK_S: Final = 1.0


def run(cfg: Config, stage: Stage) -> None:
    """Capture `cfg.source` into the event tables of the data directory, unless they hold that very market already."""
    if cfg.source == "archive":
        raise StageError("--source archive: archives are read by `backfill`, which this version does not have yet")
    origin = Origin(cfg.source, identity_of(cfg), simulated=cfg.simulated)
    if cfg.source != "live":
        if not is_captured(cfg, origin):
            (cfg.root / "stages" / "capture.json").unlink(missing_ok=True)
        if stage.reuse(hash_of("capture", origin, cfg.capture.keep_raw)):
            return
    if cfg.source == "sim" and cfg.sim.transport == "direct":
        with _terminable():
            simulate_directly(cfg, begin=lambda: _begin(cfg, origin, stage))
    else:
        origin = _capture(cfg, origin, stage)
    _report(cfg, stage)
    write_origin(cfg, msgspec.structs.replace(origin, complete=True))


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


def _begin(cfg: Config, origin: Origin, stage: Stage) -> None:
    """Make room in the data directory and mark it as what is about to be captured."""
    removed = make_room(cfg, origin)
    write_origin(cfg, origin)  # lines that follow say whether the market is simulated
    if removed:
        stage.say(removed, keep=False)


def _capture(cfg: Config, origin: Origin, stage: Stage) -> Origin:
    """Read all feeds to their end; the origin, completed by what they are.

    Tables are flushed and faults are logged whichever way it ends.
    """
    writer = TableWriter(cfg.root, cfg.capture.flush_rows, cfg.capture.flush_s)
    feeds: list[Feed] = []
    began_s = time.perf_counter()
    try:
        with hosts(cfg) as where, rare_collections():
            return asyncio.run(_read(cfg, origin, where, writer, feeds, stage))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        writer.flush()
        if feeds:
            _tell(feeds, time.perf_counter() - began_s, stage)


async def _read(
    cfg: Config, origin: Origin, where: Any, writer: TableWriter, feeds: list[Feed], stage: Stage
) -> Origin:
    """Make, open and read the feeds; `feeds` gets them, for what is to be told about them afterwards."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    symbols = cfg.symbols or (() if cfg.source == "replay" else DEFAULT_SYMBOLS)
    feeds += await make_feeds(cfg, where, symbols, say=partial(stage.say, keep=False))
    if any(is_local(feed.url) for feed in feeds) and cfg.source == "replay":
        origin = msgspec.structs.replace(origin, simulated=True)  # recorded from the simulated exchange
    _begin(cfg, origin, stage)  # only now: what cannot be served must not cost the tables that are there
    if cfg.capture.keep_raw:
        for number, feed in enumerate(feeds):
            feed.keep_raw(RawWriter(_raw_path(cfg, origin, feed.venue, number)))

    def sink(feed: Feed, recv_ns: int, events: list[Event]) -> None:
        if events:
            writer.add(feed.venue, events)

    async with opened(feeds):
        tasks = [asyncio.create_task(feed.run(sink)) for feed in feeds]
        flushing = asyncio.create_task(_tend(cfg, writer, feeds, stage))
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(cfg.capture.duration_s if cfg.source == "live" else None):
                    await _all_of(tasks, grace_s=0.0 if cfg.source == "live" else _LAST_FRAMES_S)
        finally:
            flushing.cancel()
            for reading in tasks:
                reading.cancel()
            await asyncio.gather(flushing, *tasks, return_exceptions=True)
    return origin


async def _all_of(tasks: Sequence[asyncio.Task[None]], grace_s: float) -> None:
    """Wait for all. When the data of one are broken the others get `grace_s` to read what came before."""
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
    if pending and all(isinstance(task.exception(), StageError | None) for task in done):
        await asyncio.wait(pending, timeout=grace_s)
    for task in done:
        task.result()


async def _tend(cfg: Config, writer: TableWriter, feeds: Sequence[Feed], stage: Stage) -> None:
    """Now and then: rows that have waited long go to disk, and the progress bar moves with the feeds' own time."""
    total_s = {"sim": cfg.sim.hours * NS_PER_HOUR / NS_PER_S, "live": cfg.capture.duration_s}.get(cfg.source)
    with stage.progress("capture", total_s) as done:
        first_ns = 0
        while True:
            await asyncio.sleep(_TICK_S)
            writer.flush_old()
            now_ns = min(feed.now_ns for feed in feeds)
            first_ns = first_ns or now_ns
            done((now_ns - first_ns) / NS_PER_S)


def _raw_path(cfg: Config, origin: Origin, venue: str, number: int) -> Path:
    """Live captures are told apart by their time, repeatable ones by what they are."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-" if origin.source == "live" else ""
    prefix = raw_prefix(origin) if origin.identity else "live-"
    return raw_folder(cfg) / f"{prefix}{stamp}{number:02d}-{venue}.jsonl.zst"


def _tell(feeds: Sequence[Feed], seconds: float, stage: Stage) -> None:
    """Counts of what came, and the log of what did not decode."""
    frames = sum(feed.counts.frames for feed in feeds)
    undecoded = sum(feed.counts.undecoded for feed in feeds)
    ignored: Counter[str] = Counter()
    for feed in feeds:
        ignored.update({f"{feed.venue} {why}": count for why, count in feed.decoder.ignored.items() if why != "ack"})
    cut = [feed.farewell.partition(_CUT_LINE)[2] for feed in feeds if _CUT_LINE in feed.farewell]
    cut = sorted({where for text in cut for where in text.replace(_CUT_LINE, "").split("; ")})
    reconnects = sum(feed.counts.reconnects for feed in feeds)
    counts = {"frames": frames, "undecoded": undecoded, "ignored": dict(sorted(ignored.items()))}
    stage.put("capture", counts | {"cut_lines": cut, "reconnects": reconnects})
    stage.rows_in = frames
    rate = f"{frames:,} frames on {len(feeds)} connections in {seconds:.1f} s ({frames / seconds:,.0f} frames/s)"
    stage.say(rate, keep=False)
    if ignored:
        stage.say("no table holds: " + ", ".join(f"{why} {count:,}" for why, count in sorted(ignored.items())))
    for where in cut:
        stage.say(f"last line cut short, left out: {where}")
    if undecoded:
        stage.say(f"{undecoded:,} frames did not decode, samples in {_log(feeds)}")


def _log(feeds: Sequence[Feed]) -> Path:
    """Append samples of undecodable frames to `logs/`, one JSON object per line."""
    path = ROOT / "logs" / f"undecoded-{datetime.now(UTC):%Y-%m-%d}.jsonl"
    path.parent.mkdir(exist_ok=True)
    with path.open("ab") as log:
        for feed in feeds:
            for sample in feed.counts.samples:
                log.write(msgspec.json.encode(sample._asdict()) + b"\n")
    return path


def _report(cfg: Config, stage: Stage) -> None:
    """The sections `data` and `symbols` from what the tables now hold, and a small table of them."""
    data: dict[str, dict[str, dict[str, int]]] = {}
    symbols: set[str] = set()
    for table in EVENTS:
        for part in partitions(cfg.root, table):
            symbols.add(part.instrument)
            rows = data.setdefault(part.exchange, {}).setdefault(table.name, {"rows": 0, "gaps": 0})
            _add_extent(rows, _extent(cfg.root, part, table))
    for part in partitions(cfg.root, GAPS):
        gaps = pl.concat([pl.read_parquet(path, columns=["stream"]) for path in files(cfg.root, part)])
        for stream, count in gaps.group_by("stream").len().rows():
            data.setdefault(part.exchange, {}).setdefault(stream, {"rows": 0, "gaps": 0})["gaps"] += count
    if not symbols:
        raise StageError(f"no event came from --source {cfg.source}: nothing was captured into {cfg.root}")
    _check_books(cfg)
    stage.put("data", data)
    stage.put("symbols", sorted(symbols))
    stage.rows_out = sum(rows["rows"] for tables in data.values() for rows in tables.values())
    for line in _lines(data):
        stage.say(line)


def _check_books(cfg: Config) -> None:
    """Raises StageError for symbols that were asked for and have neither best prices nor a book."""
    if cfg.source not in ("sim", "replay"):
        return
    wanted = cfg.symbols or (() if cfg.source == "replay" else DEFAULT_SYMBOLS)
    priced = {part.instrument for table in (TOP_OF_BOOK, BOOK_DELTAS) for part in partitions(cfg.root, table)}
    missing = sorted(set(wanted) - priced)
    if missing:
        raise StageError(
            f"no best price and no book came of {', '.join(missing)}, only of {', '.join(sorted(priced)) or 'none'}; "
            f"nothing can be built from trades alone: take them out of `symbols`, or capture what holds them"
        )


def _extent(root: Path, part: Partition, table: Table) -> tuple[int, int, int]:
    """(rows, first, last receive time) of a partition."""
    times = pl.col(table.order[0])
    facts = pl.scan_parquet(files(root, part)).select(pl.len(), times.min().alias("first"), times.max().alias("last"))
    rows, first_ns, last_ns = facts.collect().row(0)
    return rows, first_ns, last_ns


def _add_extent(rows: dict[str, int], extent: tuple[int, int, int]) -> None:
    count, first_ns, last_ns = extent
    rows["rows"] += count
    if count:
        rows["first_ns"] = min(rows.get("first_ns", first_ns), first_ns)
        rows["last_ns"] = max(rows.get("last_ns", last_ns), last_ns)


def _lines(data: dict[str, dict[str, dict[str, int]]]) -> list[str]:
    """The section `data` as an aligned table."""
    lines = [f"{'exchange':<14}{'table':<15}{'rows':>12}  {'first (UTC)':<20}{'last':<20}{'gaps':>5}"]
    for exchange, tables in sorted(data.items()):
        for name, rows in tables.items():
            first, last = _utc(rows.get("first_ns")), _utc(rows.get("last_ns"))
            lines.append(f"{exchange:<14}{name:<15}{rows['rows']:>12,}  {first:<20}{last:<20}{rows['gaps']:>5,}")
    return lines


def _utc(ns: int | None) -> str:
    return "–" if ns is None else f"{datetime.fromtimestamp(ns // NS_PER_S, UTC):%Y-%m-%d %H:%M:%S}"


if __name__ == "__main__":
    stage_main("capture", run)
