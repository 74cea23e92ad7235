"""Every recorded folder through the capture stage: frames, rows, gaps, and the rebuilt books against bookTicker.

    python benchmarks/replay_recorded.py [FOLDER]        (default: ../shared/market_data/raw)

Each folder of raw captures is replayed into tables of its own, whose quality is measured. Single messages, one line
each with `exchange` and `message`, are decoded one by one.
"""

import io
import json
import platform
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import polars as pl
from rich.console import Console

from core.cli import run_stages
from core.config import ROOT, load
from core.schema import QUALITY
from core.store import partitions, read
from ingest import capture, quality
from ingest.events import DecodeError
from ingest.venues import decoder_for

RAW = ROOT.parent / "shared" / "market_data" / "raw"
STREAMS = {  # what a sample's exchange was recorded from
    "binance": "wss://stream.binance.com:9443/stream",
    "binance-futures": "wss://fstream.binance.com/stream",
    "binance-delivery": "wss://dstream.binance.com/stream",
    "bybit": "wss://stream.bybit.com/v5/public/linear",
    "bybit-spot": "wss://stream.bybit.com/v5/public/spot",
}


class Replay(NamedTuple):
    """What a folder came to; `rows` by exchange and table, the rest over all."""

    frames: int
    undecoded: int
    ignored: dict[str, int]
    rows: dict[str, int]
    gaps: int
    doubled: int
    crossed: int
    compared: int
    agreed: int


def replayed(folder: Path, data: Path) -> Replay:
    """Capture a folder of raw captures into `data` and measure it."""
    pairs = [f"replay.path={folder}", "capture.depth=100ms"]
    config = load(pairs=pairs, options={"source": "replay", "data_dir": str(data)})
    stages = {"capture": capture.run, "quality": quality.run}
    report = run_stages(config, stages, Console(file=io.StringIO())).report()
    measured = pl.concat(
        read(data, part).with_columns(exchange=pl.lit(part.exchange)) for part in partitions(data, QUALITY)
    )
    rows = measured.group_by("exchange", "stream").agg(pl.col("rows").sum()).sort("exchange", "stream").rows()
    sums = {name: int(measured[name].sum()) for name in ("gap_count", "duplicate_count", "crossed_count")}
    books = measured.filter(pl.col("compared_count") > 0)
    return Replay(
        report["capture"]["frames"],
        report["capture"]["undecoded"],
        report["capture"]["ignored"],
        {f"{exchange} {stream}": int(count) for exchange, stream, count in rows},
        sums["gap_count"],
        sums["duplicate_count"],
        sums["crossed_count"],
        int(books["compared_count"].sum()),
        round((books["compared_count"] * books["agreement_frac"]).sum()),
    )


def decoded_samples(folder: Path) -> Iterator[tuple[str, Counter[str]]]:
    """(file, what its messages became) for each file of single messages."""
    for path in sorted(folder.glob("*.jsonl")):
        kinds: Counter[str] = Counter()
        for line in path.read_text().splitlines():
            kinds.update(_decoded(path.stem, json.loads(line)["message"]))
        yield path.stem, kinds


def _decoded(exchange: str, message: Any) -> list[str]:
    if exchange not in STREAMS:
        return ["no decoder"]
    decoder = decoder_for(STREAMS[exchange])[1]
    try:
        events = decoder.decode(json.dumps(message, separators=(",", ":")), 1)
    except DecodeError:
        return ["undecoded"]
    return [type(event).__name__ for event in events] or [f"ignored: {next(iter(decoder.ignored), 'no rows')}"]


def lines(name: str, replay: Replay) -> Iterator[str]:
    """A replay in print."""
    agreement = f"{replay.agreed:,} of {replay.compared:,}" if replay.compared else "not both recorded"
    yield (
        f"{name}: {replay.frames:,} frames, {replay.undecoded:,} undecoded, {replay.gaps:,} gaps, "
        f"{replay.doubled:,} doubled, {replay.crossed:,} crossed; book equals bookTicker: {agreement}"
    )
    yield from (f"    {table:<26}{rows:>11,} rows" for table, rows in replay.rows.items())
    yield from (f"    no table holds {why}: {count:,}" for why, count in replay.ignored.items())


def main() -> None:
    raw = Path(sys.argv[1]) if len(sys.argv) > 1 else RAW
    print(f"{datetime.now(UTC):%Y-%m-%d} {platform.machine()} {raw}")
    for folder in sorted(path for path in raw.iterdir() if path.is_dir()):
        if any(folder.glob("*.zst")):
            with tempfile.TemporaryDirectory() as data:
                print("\n".join(lines(folder.name, replayed(folder, Path(data) / "data"))), flush=True)
        else:
            for exchange, kinds in decoded_samples(folder):
                print(f"{folder.name}/{exchange}: " + ", ".join(f"{kind} {n}" for kind, n in sorted(kinds.items())))


if __name__ == "__main__":
    main()
