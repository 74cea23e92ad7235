"""What a capture says at its end."""

import io
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from core.config import Config
from core.run_record import RunRecord, Stage
from ingest import capture_log
from ingest.capture_report import data_of, report, tell_counts
from ingest.monitor import Monitor, StreamKey, StreamStatus

S = 1_000_000_000


@pytest.fixture
def said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Stage, io.StringIO]:
    monkeypatch.setattr(capture_log, "LOGS", tmp_path)
    text = io.StringIO()
    record = RunRecord(Config(source="live", data_dir=str(tmp_path)), Console(file=text, width=200))
    return Stage("capture", record), text


def feed_of(frames: int, undecoded: int = 0) -> Any:
    counts = SimpleNamespace(
        frames=frames, undecoded=undecoded, reconnects=0, rotations=0, refilled=0, pauses=0, samples=[]
    )
    decoder, plan = SimpleNamespace(ignored={}), SimpleNamespace(feeds=[("BTCUSDT", "trades")], silence_s={})
    return SimpleNamespace(venue="bybit", url="wss://x", counts=counts, decoder=decoder, plan=plan, farewell="")


def status_of(rows: int, gaps: int) -> StreamStatus:
    key = StreamKey("bybit", "trades", "BTCUSDT")
    return StreamStatus(key, 1, rows, 0.0, None, None, gaps, S * bool(rows), 2 * S * bool(rows), None, 0, 0.0)


def test_what_failed_before_its_first_frame_gets_no_table_of_zeros(said: tuple[Stage, io.StringIO]) -> None:
    stage, text = said
    monitor = Monitor(SimpleNamespace(write=lambda *_, **__: None))  # type: ignore[arg-type]
    monitor.watch([feed_of(0)])
    report(stage, *data_of(monitor.streams()))
    assert text.getvalue() == ""
    assert stage.rows_out == 0


@pytest.mark.parametrize(("rows", "gaps"), [(1, 0), (0, 1)])
def test_a_row_or_a_gap_is_told(rows: int, gaps: int, said: tuple[Stage, io.StringIO]) -> None:
    stage, text = said
    report(stage, *data_of([status_of(rows, gaps)]))
    header, venue, line = text.getvalue().splitlines()
    assert header.split() == ["table", "rows", "first", "(UTC)", "last", "gaps"]
    assert (venue, line.split()[:2]) == ("bybit", ["trades", str(rows)])
    assert line.split()[-1] == str(gaps)


def test_one_is_singular(said: tuple[Stage, io.StringIO]) -> None:
    stage, text = said
    tell_counts([feed_of(1, undecoded=1)], 2.0, stage)
    assert text.getvalue().startswith("1 frame on 1 connection in 2.0 s (0 frames/s)")
    assert "\n1 frame did not decode, samples in " in text.getvalue()


@pytest.mark.parametrize(
    ("last", "told"),
    [
        ("2024-02-28T23:59:59", "23:59:59"),
        ("2024-03-01T00:00:09", "03-01 00:00:09"),
        ("2026-01-01T00:00:00", "2026-01-01 00:00:00"),
    ],
)
def test_the_table_fits_80_signs_beside_the_mark_of_a_simulation(
    last: str, told: str, said: tuple[Stage, io.StringIO]
) -> None:
    stage, text = said
    first_ns, last_ns = (int(datetime.fromisoformat(f"{at}+00:00").timestamp()) * S for at in (FIRST, last))
    facts = {"rows": 1_234_567, "gaps": 12, "first_ns": first_ns, "last_ns": last_ns}
    report(stage, {"binance_um": {"liquidations": facts}}, ["binance_um:BTCUSDT"])
    lines = text.getvalue().splitlines()
    assert told in lines[-1]
    assert max(map(len, lines)) <= (80 if len(told) > 14 else 68)


FIRST = "2024-02-28T07:00:00"
