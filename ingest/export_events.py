"""Export of captured events to another program: hftbacktest's event arrays, one npz file per symbol-day.

    python ingest/export_events.py --set export_events.path=out [--set export_events.start=2026-11-21T09:00:00Z]

Books come from `book_deltas`, starting from the book as it stood; best prices alone make a book of one level where
there is no depth. A day takes some 80 bytes of memory per row.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from core.cli import stage_main
from core.config import ROOT, Config
from core.errors import ConfigError, StageError
from core.run_record import Stage
from core.schema import BOOK_DELTAS, GAPS, TOP_OF_BOOK, TRADES, Table
from core.store import Partition, partitions, read_between
from core.units import NS_PER_DAY, NS_PER_MS, NS_PER_S, counted
from ingest.book_rebuild import PRICES
from ingest.event_array import Events, book_events, standing_book, together, top_events, trade_events, write_npz
from ingest.stored_books import gaps_between, rebuilder_at, slices

READS: tuple[Table, ...] = (TOP_OF_BOOK, TRADES, BOOK_DELTAS, GAPS)
WRITES: tuple[Table, ...] = ()
_TRADE_COLUMNS: Final = ("exch_ns", "recv_ns", "price", "qty", "taker_side")
_NEVER_NS: Final = 2**62


@dataclass(frozen=True)
class Stretch:
    """What is exported of one symbol-day."""

    day: Partition
    from_ns: int
    to_ns: int
    has_depth: bool

    @property
    def books(self) -> Partition:
        return self.day.of(BOOK_DELTAS if self.has_depth else TOP_OF_BOOK)


def run(cfg: Config, stage: Stage) -> None:
    """Write one file per captured symbol-day, all with the same shift of the local clock."""
    settings = cfg.export_events
    from_ns, to_ns = _ns("start", settings.start, 0), _ns("end", settings.end, _NEVER_NS)
    if from_ns >= to_ns:
        raise ConfigError(f"export_events.end: must be after the start {settings.start}, was {settings.end}")
    folder = ROOT / settings.path if settings.path else cfg.root / "exported"
    stretches = stretches_of(cfg.root, cfg.symbols or (), from_ns, to_ns)
    if not stretches:
        raise StageError(
            f"no book and no best prices {_asked(cfg)} under {cfg.root}: "
            f"run `python run_pipeline.py capture` first, or ask for what `quality` lists"
        )
    least_ns = min(_least_latency_ns(cfg.root, stretch) for stretch in stretches)
    shift_ns = round(settings.base_latency_ms * NS_PER_MS) - least_ns if least_ns < 0 else 0
    stage.say(_shift_line(least_ns, shift_ns))
    stage.say(f"into {folder}:")
    for stretch in stage.track(stretches, "export_events"):
        day = stretch.day
        events, what = events_of(cfg.root, stretch)
        path = folder / f"{day.exchange}-{day.symbol}-{day.date}.npz"
        rows = write_npz(path, events, shift_ns)
        stage.rows_in += events.kind.size
        stage.rows_out += rows
        stage.say(f"  {path.name}: {counted(rows, 'event')} ({what}), {path.stat().st_size / 1e6:,.2f} MB")


def stretches_of(root: Path, symbols: "tuple[str, ...]", from_ns: int, to_ns: int) -> list[Stretch]:
    """The symbol-days with a book or best prices between two receive times; depth where there is any."""
    found = {}
    for table in (TOP_OF_BOOK, BOOK_DELTAS):
        for part in partitions(root, table, symbols):
            begins_ns, ends_ns = max(from_ns, part.starts_ns), min(to_ns, part.starts_ns + NS_PER_DAY)
            if begins_ns < ends_ns:
                found[part.instrument, part.date] = Stretch(part.of(TRADES), begins_ns, ends_ns, table is BOOK_DELTAS)
    return [found[key] for key in sorted(found)]


def events_of(root: Path, stretch: Stretch) -> tuple[Events, str]:
    """The events of a symbol-day, and what they are in words."""
    trades = trade_events(read_between(root, stretch.day, _TRADE_COLUMNS, stretch.from_ns, stretch.to_ns))
    parts = _depth(root, stretch) if stretch.has_depth else [_best_prices(root, stretch)]
    changes = sum(part.kind.size for part in parts)
    kind = "book changes" if stretch.has_depth else "best prices"
    return together([trades, *parts]), f"{trades.kind.size:,} trades, {changes:,} {kind}"


def _depth(root: Path, stretch: Stretch) -> list[Events]:
    """The book as it stood, then what changed it."""
    book = rebuilder_at(root, stretch.books, stretch.from_ns)
    parts: list[Events] = []
    stood = book.is_known
    for rows in slices(root, stretch.books, stretch.from_ns, stretch.to_ns):
        if stood:
            parts.append(standing_book(book.ladders, int(rows["exch_ns"][0]), int(rows["recv_ns"][0])))
            stood = False
        parts.append(book_events(book.follow(rows)))
    return parts


def _best_prices(root: Path, stretch: Stretch) -> Events:
    gaps = gaps_between(root, stretch.day.instrument, stretch.from_ns, stretch.to_ns)
    resumes = gaps.filter(pl.col("stream") == TOP_OF_BOOK.name)["to_ns"].sort().to_numpy()
    columns = ("exch_ns", "recv_ns", *PRICES)
    return top_events(read_between(root, stretch.books, columns, stretch.from_ns, stretch.to_ns), resumes)


def _least_latency_ns(root: Path, stretch: Stretch) -> int:
    """The least receive - exchange time of a stretch; what no row has is no bound."""
    found = [_NEVER_NS]
    for part in (stretch.day, stretch.books):
        for from_ns in range(stretch.from_ns, stretch.to_ns, _STEP_NS):
            to_ns = min(from_ns + _STEP_NS, stretch.to_ns)
            frame = read_between(root, part, ("exch_ns", "recv_ns"), from_ns, to_ns)
            if frame.height:
                found.append(int(np.min(frame["recv_ns"].to_numpy() - frame["exch_ns"].to_numpy())))
    return min(found)


_STEP_NS: Final = 3_600 * NS_PER_S


def _shift_line(least_ns: int, shift_ns: int) -> str:
    """What was done about the clocks: hftbacktest knows no latency below 0."""
    if shift_ns:
        return (
            f"the local clock ran up to {-least_ns / NS_PER_MS:,.3f} ms behind the venue's: "
            f"all local times are later by {shift_ns / NS_PER_MS:,.3f} ms"
        )
    return f"least latency {least_ns / NS_PER_MS:,.3f} ms, nothing shifted"


def _ns(key: str, instant: str | None, otherwise: int) -> int:
    """UTC nanoseconds of a setting, exactly. Raises ConfigError for what is in no calendar or not in UTC."""
    if instant is None:
        return otherwise
    second, _, fraction = instant.removesuffix("Z").partition(".")
    try:
        if not instant.endswith("Z"):
            raise ValueError("no Z at its end")
        return int(datetime.fromisoformat(f"{second}Z").timestamp()) * NS_PER_S + int(f"{fraction:0<9}")
    except ValueError as error:
        raise ConfigError(
            f"export_events.{key}: {instant} is no UTC time as in 2026-11-21T09:00:00.5Z ({error}) "
            f"- at `$.export_events.{key}`"
        ) from error


def _asked(cfg: Config) -> str:
    settings = cfg.export_events
    which = f"of {', '.join(cfg.symbols)}" if cfg.symbols else "of any symbol"
    return f"{which} between {settings.start or 'the first'} and {settings.end or 'the last event'}"


if __name__ == "__main__":
    stage_main("export_events", run)
