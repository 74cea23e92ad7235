"""The structured log: lines of several threads and days, and a disk that does not take them."""

import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from core.run_record import Stage
from ingest import capture_log
from ingest.capture_log import CaptureLog, log_samples
from ingest.reception import Sample


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.iterdir()) for line in path.read_text().splitlines()]


def test_a_line_says_when_what_and_who(tmp_path: Path) -> None:
    log = CaptureLog(tmp_path / "logs")
    log.write("gap", venue="bybit", from_ns=1)
    (line,) = lines_of(tmp_path / "logs")
    assert abs((datetime.now(UTC) - datetime.fromisoformat(line["time"])).total_seconds()) < 60
    assert (line["event"], line["venue"], line["from_ns"]) == ("gap", "bybit", 1)
    assert line["pid"]
    assert log.path(datetime(2026, 1, 5, 23, 59, tzinfo=UTC)).name == "capture-2026-01-05.jsonl"


def test_lines_of_many_threads_stay_whole(tmp_path: Path) -> None:
    log = CaptureLog(tmp_path)
    threads = [threading.Thread(target=lambda: [log.write("x", text="y" * 500) for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(lines_of(tmp_path)) == 200


def test_a_disk_that_refuses_is_told_once_and_ends_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    log = CaptureLog(tmp_path / "file")
    log.write("one")
    log.write("two")
    assert capsys.readouterr().err.count("capture log:") == 1


def test_samples_are_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture_log, "LOGS", tmp_path)
    feed: Any = SimpleNamespace(counts=SimpleNamespace(samples=[Sample(1, "wss://x", "no JSON", "{")]))
    for _ in range(2):
        log_samples([feed])
    assert [line["why"] for line in lines_of(tmp_path)] == ["no JSON"]


def test_samples_wait_for_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(capture_log, "LOGS", tmp_path / "file" / "logs")
    feed: Any = SimpleNamespace(counts=SimpleNamespace(samples=[Sample(1, "wss://x", "no JSON", "{")]))
    log_samples([feed])
    monkeypatch.setattr(capture_log, "LOGS", tmp_path / "logs")
    log_samples([feed])
    assert [line["why"] for line in lines_of(tmp_path / "logs")] == ["no JSON"]


class FullDisk:
    """Standard output into a file on a disk that is full."""

    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")

    def flush(self) -> None:
        raise OSError(28, "No space left on device")


def test_output_that_takes_nothing_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("sys.stderr", FullDisk())
    CaptureLog(tmp_path / "file").write("one")
    record: Any = SimpleNamespace(console=Console(file=FullDisk()))  # type: ignore[arg-type]
    Stage("capture", record).note("a line")
