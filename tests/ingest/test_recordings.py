"""Recordings to tables: by runs of frames as frame by frame, with what is broken, counted and told alike."""

import random
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fuzz_decoders import MUTATIONS
from core.cli import run_stages
from core.config import load
from core.schema import EVENTS, GAPS
from core.store import partitions, read
from ingest import capture, capture_log, recordings
from ingest.raw import RawWriter
from tests.ingest.test_frame_runs import frame_at

URL = "wss://fstream.binance.com/stream"
START_NS = 1_723_161_256_000_000_000


def record_disorder(folder: Path, frames: int) -> None:
    """Quotes, trades and changes of a book, some mutated, doubled or left out, and the book's snapshot among them."""
    rng = random.Random(3)
    with RawWriter(folder / "a.jsonl.zst") as raw:
        for number in range(1, frames):
            recv_ns, frame = (
                START_NS + 3_000_000 * number,
                frame_at(rng.choice(("bookTicker", "aggTrade", "depth")), number),
            )
            if number % 40 == 0 or number % 1_500 < 20:  # now and then many in a row
                name, data, rest = frame.partition(b'"data"')
                frame = name + data + rng.choice(MUTATIONS)(rest, rng)
            for _ in range(rng.choice((0, 1, 1, 1, 1, 1, 2))):
                raw.write(recv_ns, URL, frame.decode(errors="replace"))
            if number == 5:
                raw.write(recv_ns, "https://x/fapi/v1/depth?symbol=BTCUSDT", '{"lastUpdateId":3,"bids":[],"asks":[]}')


def captured(folder: Path, data: Path) -> tuple[dict[str, Any], list[Any]]:
    """What the capture counted, and its tables."""
    config = load(pairs=[f"replay.path={folder}"], options={"source": "replay", "data_dir": str(data)})
    report = run_stages(config, {"capture": capture.run}).report()
    tables = [(part, read(data, part).rows()) for table in (*EVENTS, GAPS) for part in partitions(data, table)]
    return report["capture"], tables


def test_disorder_is_counted_and_told_alike_by_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_log, "LOGS", tmp_path / "logs")
    record_disorder(tmp_path / "raw", 6_000)
    one_by_one = captured(tmp_path / "raw", tmp_path / "one")
    monkeypatch.setattr(recordings, "WORTH_COMPILING_BYTES", 0)
    monkeypatch.setattr(recordings, "_RUN", 700)
    assert captured(tmp_path / "raw", tmp_path / "runs") == one_by_one
    assert one_by_one[0]["undecoded"] > 100
    assert {part.table for part, _ in one_by_one[1]} == {"top_of_book", "trades", "book_deltas", "gaps"}
