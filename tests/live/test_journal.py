"""The journal reads back what went in, to the bit, and a killed writer leaves a whole prefix."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.config import ROOT
from core.errors import StageError
from core.journal import STREAMS, Header, record_dtypes
from live import journal
from live.journal import Journal, state_sha256

START = {"binance_um:BTCUSDT": {"block": np.arange(6, dtype=np.float64).reshape(2, 3), "index": np.array([7])}}


def header(start: dict[str, journal.State] = START) -> Header:
    return Header(
        model_id="m",
        mode="paper",
        instruments=("binance_um:BTCUSDT",),
        bars="time_200ms",
        bar_columns=("bid_price", "ask_price"),
        features=(("f", "bid_price"),),
        start_sha256={name: state_sha256(state) for name, state in start.items()},
    )


def write_one_of_each(writer: Journal, number: int) -> None:
    writer.signal(0, 0, number, number, number, 1.0)
    writer.event(0, 1, -1, number, number - 5, (number + 0.1, float("nan"), 0.0, -0.0))
    times = (np.array([number + late]) for late in (0, 1, 0))
    writer.bars(0, *times, np.array([[number + 0.2, np.nan]]))
    writer.feature(0, number + 1, np.array([number + 0.3]))
    writer.decision(0, number + 1, 1, 2, 12_345, number + 0.4)
    writer.fill(0, number + 1, -1, 0, number + 4, 1.0, 2.0, 6.0)


def test_a_session_reads_back_to_the_bit(tmp_path: Path) -> None:
    writer = Journal.create(tmp_path, header(), START)
    for number in range(5):
        write_one_of_each(writer, number)
    writer.close()
    session = journal.read(tmp_path)
    assert session.header == header()
    assert session.cut_bytes == 0
    assert session.events["recv_ns"].tolist() == [0, 1, 2, 3, 4]
    assert session.events["a"].tolist() == [0.1, 1.1, 2.1, 3.1, 4.1]
    assert np.isnan(session.events["b"]).all()
    assert np.signbit(session.events["d"]).all()
    assert session.bars["values"][:, 0].tolist() == [0.2, 1.2, 2.2, 3.2, 4.2]
    assert session.features["values"].shape == (5, 1)
    assert session.decisions["score"].tolist() == [0.4, 1.4, 2.4, 3.4, 4.4]
    assert session.fills["net_bps"].tolist() == [6.0] * 5
    np.testing.assert_array_equal(session.start["binance_um:BTCUSDT"]["block"], START["binance_um:BTCUSDT"]["block"])


def test_nothing_is_on_disk_before_a_flush_and_all_of_it_after(tmp_path: Path) -> None:
    writer = Journal.create(tmp_path, header(), START)
    write_one_of_each(writer, 0)
    assert journal.read(tmp_path).events.size == 0
    writer.flush()
    assert journal.read(tmp_path).fills.size == 1
    writer.close()


@settings(max_examples=30, deadline=None)
@given(keep=st.integers(0, 5), cut=st.integers(0, 79))
def test_a_cut_record_is_dropped_counted_and_cut_off_on_resuming(
    tmp_path_factory: pytest.TempPathFactory, keep: int, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("session")
    writer = Journal.create(folder, header(), START)
    for number in range(6):
        write_one_of_each(writer, number)
    writer.close()
    size = record_dtypes(header())["events"].itemsize
    os.truncate(folder / "events.rec", keep * size + cut)
    session = journal.read(folder)
    assert session.cut_bytes == cut
    assert session.events["recv_ns"].tolist() == list(range(keep))
    again = Journal.resume(folder)
    write_one_of_each(again, 99)
    again.close()
    assert journal.read(folder).events["recv_ns"].tolist() == [*range(keep), 99]
    assert journal.read(folder).cut_bytes == 0


def test_a_changed_start_state_is_refused(tmp_path: Path) -> None:
    Journal.create(tmp_path, header(), START).close()
    other = {"binance_um:BTCUSDT": START["binance_um:BTCUSDT"] | {"index": np.array([8])}}
    journal._save_state(tmp_path / "start" / "binance_um_BTCUSDT.npz", other["binance_um:BTCUSDT"])
    with pytest.raises(StageError, match="digests differ"):
        journal.read(tmp_path)


def test_a_second_session_in_one_folder_is_refused(tmp_path: Path) -> None:
    Journal.create(tmp_path, header(), START).close()
    with pytest.raises(StageError, match="holds a session already"):
        Journal.create(tmp_path, header(), START)


def test_records_out_of_turn_are_refused(tmp_path: Path) -> None:
    writer = Journal.create(tmp_path, header(), START)
    for number in range(3):
        write_one_of_each(writer, number)
    writer.close()
    content = (tmp_path / "events.rec").read_bytes()
    size = record_dtypes(header())["events"].itemsize
    (tmp_path / "events.rec").write_bytes(content[:size] * 2 + content[size:])
    with pytest.raises(StageError, match="record 1 has number 0"):
        journal.read(tmp_path)


def test_a_folder_without_a_session_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="holds no session"):
        journal.read(tmp_path)


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
sys.path.insert(0, {here!r})
from test_journal import START, header, write_one_of_each
from live.journal import Journal
folder = Path(sys.argv[1])
writer = Journal.resume(folder) if (folder / "header.json").exists() else Journal.create(folder, header(), START)
number = writer._seq["events"]
print("ready", flush=True)
while True:
    write_one_of_each(writer, number)
    number += 1
    if number % 3 == 0:
        writer.flush()
"""


def kill_while_writing(folder: Path, seconds: float) -> None:
    script = WRITER.format(root=str(ROOT), here=str(Path(__file__).parent))
    with subprocess.Popen([sys.executable, "-c", script, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)


def test_a_writer_killed_at_random_moments_leaves_a_whole_prefix_without_duplicates(tmp_path: Path) -> None:
    random = np.random.default_rng(11)
    before = 0
    for _ in range(3):
        kill_while_writing(tmp_path, float(random.uniform(0.005, 0.05)))
        session = journal.read(tmp_path)
        n = session.events.size
        assert n > before
        before = n
        assert_effects_have_causes(session)


def assert_effects_have_causes(session: Any) -> None:
    """Signal k, event k, which made bar k, which made row k, …: no effect without its cause, and none twice."""
    recv_ns = session.events["recv_ns"]
    assert np.unique(recv_ns).size == recv_ns.size
    sizes = [getattr(session, name).size for name in STREAMS]
    assert sizes == sorted(sizes, reverse=True)
    np.testing.assert_array_equal(session.events["a"], recv_ns + 0.1)
