"""Kill -9: a writer with a reader beside it, killed at random moments, and what is on disk afterwards.

    python benchmarks/drill_kills.py [KILLS] [--data-dir DIR]

Each kill ends a process that writes rows of three streams as fast as shards of a hundred rows can be sealed and merged;
the next one goes on in the same folders. After each: every file is read, no row is there twice, none is missing before
the last, and none that the writer had said was written. Prints how much of what was received was lost, in ms.
"""

import argparse
import mmap
import multiprocessing
import random
import signal
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import numpy.typing as npt

from core.compaction import staging_of
from core.plain_rows import PlainRows
from core.schema import BOOK_DELTAS, TOP_OF_BOOK, TRADES, Table
from core.store import partitions, read
from core.units import NS_PER_MS
from ingest.events import BookUpdate, Event, Quote, Trade
from ingest.rows import TableWriter

SYMBOL: Final = "BTCUSDT"
FLUSH_ROWS: Final = 100
STREAMS: Final = {TOP_OF_BOOK.name: 0, TRADES.name: 1, BOOK_DELTAS.name: 2}
"""Places in the ledger: the last row of each that the writer said was written."""
RECEIVED: Final = 3
TIMES: Final = 8  # from here on: when each of the last events was received
DAY_NS: Final = 1_767_571_200_000_000_000
STEP_NS: Final = 5_000
LIFE: Final = 100_000  # numbers per process
KILL_AFTER_S: Final = (0.02, 1.5)
DURABLE_S: Final = (1.0, 0.02)  # as in use, and so short that shards are sealed and merged all the time


class Ledger:
    """Integers in pages that outlive a process that is killed."""

    SIZE: Final = 65_536

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(8 * self.SIZE))
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 8 * self.SIZE)

    def __getitem__(self, place: int) -> int:
        return int(struct.unpack_from("<q", self._memory, 8 * place)[0])

    def __setitem__(self, place: int, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * place, value)

    def received_ns(self, number: int) -> int:
        return self[self._place(number)]

    def receive(self, number: int) -> None:
        self[self._place(number)] = time.monotonic_ns()
        self[RECEIVED] = number

    def _place(self, number: int) -> int:
        return TIMES + number % (self.SIZE - TIMES)


def event(table: Table, number: int) -> Event:
    """The `number`-th event of a stream; a book update has two rows."""
    ns = DAY_NS + number * STEP_NS
    if table is TRADES:
        return Trade(SYMBOL, ns, ns, str(number), 1.0, 1.0, "buy")
    if table is TOP_OF_BOOK:
        return Quote(SYMBOL, ns, ns, number, 1.0, 2.0, 3.0, 4.0)
    return BookUpdate(SYMBOL, ns, ns, number, [(1.0, 2.0)], [(3.0, 4.0)])


def write_on(root: Path, first: int, durable_s: float) -> None:
    """Write events from the `first` on, until killed."""
    ledger = Ledger(root / "ledger")

    def written(venue: str, table: Table, symbol: str, rows: PlainRows) -> None:
        ledger[STREAMS[table.name]] = (rows.last_ns - DAY_NS) // STEP_NS

    writer = TableWriter(root, FLUSH_ROWS, durable_s, observe=written)
    for number in range(first, first + LIFE):
        ledger.receive(number)
        writer.add("binance_um", [event(table, number) for table in (TOP_OF_BOOK, TRADES, BOOK_DELTAS)])
        writer.tick()
        time.sleep(0.0002)


def kill_once(root: Path, life: int, after_s: float, durable_s: float) -> float:
    """Let a process write for `after_s` and kill it; how many ms of what it had received are not on disk."""
    ledger, first = Ledger(root / "ledger"), life * LIFE
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["benchmarks.drill_kills"])
    process = context.Process(target=write_on, args=(root, first, durable_s), daemon=True)
    process.start()
    while ledger[RECEIVED] <= first and process.is_alive():
        time.sleep(0.001)
    time.sleep(after_s)
    process.kill()
    killed_ns = time.monotonic_ns()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the writer ended by itself"
    lost = max(verify(root) + 1, first)
    return (killed_ns - ledger.received_ns(lost)) / NS_PER_MS if lost <= ledger[RECEIVED] else 0.0


def verify(root: Path) -> int:
    """Raise AssertionError for what must not be on disk; the number of the last event that is there of every stream."""
    ledger = Ledger(root / "ledger")
    last = [_verify_stream(root, table, ledger) for table in (TOP_OF_BOOK, TRADES, BOOK_DELTAS)]
    return min(last)


def _verify_stream(root: Path, table: Table, ledger: Ledger) -> int:
    found = _numbers(root, table)
    if table is BOOK_DELTAS:
        assert (found[0::2] == found[1::2]).all(), "a book update is in pieces"
        found = found[0::2]
    lives, counts = np.unique(found // LIFE, return_counts=True)
    whole = [np.arange(life * LIFE, life * LIFE + count) for life, count in zip(lives, counts, strict=True)]
    assert not whole or (found == np.concatenate(whole)).all(), f"{table.name}: a row is missing, or there twice"
    written, last = ledger[STREAMS[table.name]], int(found[-1]) if found.size else -1
    assert last >= written or not written, f"{table.name}: {written} was written, the last is {last}"
    return last


def _numbers(root: Path, table: Table) -> npt.NDArray[np.int64]:
    """The number of the event of each row on disk, in the order they are read."""
    days = [read(root, part)["recv_ns"].to_numpy() for part in partitions(root, table)]
    return (np.concatenate([np.empty(0, np.int64), *days]) - DAY_NS) // STEP_NS


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kills", nargs="?", type=int, default=100)
    options.add_argument("--data-dir", type=Path, default=None)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(dir=given.data_dir) as folder:
        root = Path(folder)
        lost_ms: dict[float, list[float]] = {durable_s: [] for durable_s in DURABLE_S}
        merging = 0
        for life in range(given.kills):
            durable_s = DURABLE_S[life % len(DURABLE_S)]
            lost_ms[durable_s].append(kill_once(root, life, rng.uniform(*KILL_AFTER_S), durable_s))
            merging += any(staging_of(root).glob("*/*"))
        rows = sum(_numbers(root, table).size for table in (TOP_OF_BOOK, TRADES, BOOK_DELTAS))
        print(f"{given.kills} kills, {merging} while shards were merged: {rows:,} rows, none twice, none missing")
        for durable_s, each in lost_ms.items():
            print(f"durable_s = {durable_s}: lost median {np.median(each):.0f} ms, most {max(each):.0f} ms")


if __name__ == "__main__":
    main()
