"""The thread that merges: what a power cut or damage left on the disk must not end the capture that it works for."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.schema import TOP_OF_BOOK
from core.store import Partition, date_of_ns, is_sealed, shard_name
from core.units import NS_PER_DAY
from ingest.events import Quote
from ingest.rows import TableWriter


@pytest.mark.parametrize("content", [b"", b"PAR1 and no end", b"PAR1 nonsense PAR1"])
def test_a_shard_that_cannot_be_read_is_told_of_and_the_rows_of_the_capture_are_sealed(
    tmp_path: Path, content: bytes
) -> None:
    yesterday = str(datetime.now(UTC).date() - timedelta(days=1))
    folder = tmp_path / Partition("trades", "binance_um", "BTCUSDT", yesterday).path
    folder.mkdir(parents=True)
    now_ns = time.time_ns()
    (folder / shard_name(now_ns - NS_PER_DAY, 0)).write_bytes(content)
    said: list[str] = []
    writer = TableWriter(tmp_path, durable_s=1.0, say=said.append)
    writer.add("binance_um", [Quote("BTCUSDT", now_ns, now_ns, 1, 1.0, 1.0, 2.0, 1.0)])
    writer.flush()
    while not said:
        time.sleep(0.01)
    writer.close()
    (sealed,) = (tmp_path / Partition("top_of_book", "binance_um", "BTCUSDT", date_of_ns(now_ns)).path).iterdir()
    assert is_sealed(sealed, TOP_OF_BOOK)
    assert len(said) == 1


def test_a_bug_in_merging_surfaces_when_all_rows_are_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(root: Path) -> list[Partition]:
        raise RuntimeError("a bug")

    monkeypatch.setattr("ingest.compactor._left_behind", broken)
    writer = TableWriter(tmp_path, durable_s=1.0)
    writer.add("binance_um", [Quote("BTCUSDT", 5, 5, 1, 1.0, 1.0, 2.0, 1.0)])
    with pytest.raises(RuntimeError, match="a bug"):
        writer.close()
    (sealed,) = (tmp_path / Partition("top_of_book", "binance_um", "BTCUSDT", "1970-01-01").path).iterdir()
    assert is_sealed(sealed, TOP_OF_BOOK)
