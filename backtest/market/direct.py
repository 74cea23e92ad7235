"""The direct transport: the market's tapes straight into the event tables, as a capture of their frames leaves them.

    python -m backtest.market.direct      configuration as a line of JSON on standard input

When the market stands it says so and waits for another line: until then the tables are another's. It stops when
standard input closes. For studies over many markets, where sockets would only cost time. A test proves both transports
equal, row by row.
"""

import itertools
import signal
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from backtest.market.local_server import config_from_stdin
from backtest.market.simulate import market_chunks
from backtest.market.tape import Rows, Tape
from core.cli import guarded
from core.config import Config
from core.schema import BOOK_DELTAS, BOOK_SIDE, LIQUIDATED, LIQUIDATIONS, MARK_PRICES, TAKER_SIDE, TOP_OF_BOOK, TRADES
from core.servers import READY_TO_WRITE
from core.store import Partition, append, split_by_date

Ints = NDArray[np.int64]
_CHUNKS_PER_SHARD: Final = 12


def simulate() -> None:
    """The life of the process. Raises ConfigError for a market that cannot be simulated, before anything is written."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # reaches the whole process group: the parent closes standard input
    config = config_from_stdin()
    chunks = market_chunks(config, "history")
    first = next(chunks)
    print(READY_TO_WRITE, flush=True)
    if not sys.stdin.readline():
        return
    stopped = threading.Event()

    def watch() -> None:
        sys.stdin.read()
        stopped.set()

    threading.Thread(target=watch, daemon=True).start()
    write_tables(config, itertools.takewhile(lambda _: not stopped.is_set(), itertools.chain([first], chunks)))


def write_tables(config: Config, chunks: Iterable[list[Tape]]) -> None:
    """Run the market's history and write its events, and its truth, under the data directory."""
    pending: dict[str, list[Tape]] = defaultdict(list)
    number = 0
    for number, tapes in enumerate(chunks, 1):
        for tape in tapes:
            pending[tape.instrument.name].append(tape)
        if number % _CHUNKS_PER_SHARD == 0:
            _write_all(config, pending, number)
    _write_all(config, pending, number + 1)


def _write_all(config: Config, pending: dict[str, list[Tape]], number: int) -> None:
    is_first = number <= _CHUNKS_PER_SHARD
    for tapes in pending.values():
        for table, frame in _frames(tapes, with_snapshot=is_first, with_depth=config.capture.depth != "off"):
            _append(config.root, table, tapes[0], frame, number)
    pending.clear()


def _frames(tapes: Sequence[Tape], with_snapshot: bool, with_depth: bool) -> list[tuple[str, pl.DataFrame]]:
    frames = [
        (TOP_OF_BOOK.name, _joined(tapes, _quotes)),
        (TRADES.name, _joined(tapes, _trades)),
        (LIQUIDATIONS.name, _joined(tapes, _liquidations)),
        (MARK_PRICES.name, _joined(tapes, _marks)),
    ]
    if with_depth:
        changes = _joined(tapes, _changes)
        frames.append((BOOK_DELTAS.name, pl.concat([_snapshot(tapes[0]), changes]) if with_snapshot else changes))
    return frames


def _joined(tapes: Sequence[Tape], convert: Callable[[Tape], pl.DataFrame]) -> pl.DataFrame:
    return pl.concat([convert(tape) for tape in tapes])


def _quotes(tape: Tape) -> pl.DataFrame:
    return _plain(tape.quotes).with_columns(exch_assumed=pl.lit(False), recv_assumed=pl.lit(False))


def _trades(tape: Tape) -> pl.DataFrame:
    number = pl.col("trade_id").cast(pl.String)
    if tape.instrument.venue == "bybit":
        number = pl.lit("00000000-0000-5000-8000-") + number.str.zfill(12)  # wire.bybit_trade_id, vectorised
    return _plain(tape.trades).with_columns(
        trade_id=number,
        taker_side=_named("taker_side", {1: "buy", -1: "sell"}, TAKER_SIDE),
        recv_assumed=pl.lit(False),
    )


def _liquidations(tape: Tape) -> pl.DataFrame:
    return _plain(tape.liquidations).with_columns(
        _named("liquidated", {1: "long", -1: "short"}, LIQUIDATED), recv_assumed=pl.lit(False)
    )


def _marks(tape: Tape) -> pl.DataFrame:
    """Binance streams no open interest with its marks."""
    streamed = tape.instrument.venue == "bybit"
    interest = pl.col("open_interest") if streamed else pl.lit(None, pl.Float64)
    return _plain(tape.marks).with_columns(open_interest=interest, recv_assumed=pl.lit(False))


def _changes(tape: Tape) -> pl.DataFrame:
    rows = tape.depth
    each = np.repeat(np.arange(rows.size), rows["level_stop"] - rows["level_start"])
    return _book_rows(rows["exch_ns"][each], rows["recv_ns"][each], rows["update_id"][each], tape.levels, False)


def _snapshot(tape: Tape) -> pl.DataFrame:
    """The book that the capture starts from: a REST answer, or Bybit's first message."""
    book = tape.book_at_start
    exch_ns, recv_ns, update_id = (
        np.full(book.levels.size, value, np.int64) for value in (book.exch_ns, tape.from_ns, book.update_id)
    )
    return _book_rows(exch_ns, recv_ns, update_id, book.levels, True)


def _book_rows(exch_ns: Ints, recv_ns: Ints, update_id: Ints, levels: Rows, is_snapshot: bool) -> pl.DataFrame:
    clocks = pl.DataFrame({"exch_ns": exch_ns, "recv_ns": recv_ns, "update_id": update_id})
    named = _plain(levels).with_columns(_named("side", {1: "bid", -1: "ask"}, BOOK_SIDE))
    return pl.concat([clocks, named], how="horizontal").with_columns(
        is_snapshot=pl.lit(is_snapshot), recv_assumed=pl.lit(False)
    )


def _plain(rows: Rows) -> pl.DataFrame:
    return pl.DataFrame({name: np.ascontiguousarray(rows[name]) for name in rows.dtype.names or ()})


def _named(column: str, names: dict[int, str], dtype: pl.Enum) -> pl.Expr:
    return pl.col(column).replace_strict(names, return_dtype=dtype)


def _append(root: Path, table: str, tape: Tape, frame: pl.DataFrame, number: int) -> None:
    of = tape.instrument
    for date, rows in split_by_date(frame, "recv_ns"):
        append(root, Partition(table, of.venue, of.symbol, date), rows, int(rows["recv_ns"][0]), number)


if __name__ == "__main__":
    sys.exit(guarded(simulate))
