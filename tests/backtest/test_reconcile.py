"""The account of a capture against its market can be wrong in every way that it looks for."""

from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from backtest.market.direct import write_tables
from backtest.market.reconcile import Account, accounts, unexplained
from backtest.market.simulate import Market
from backtest.market.tape import Tape
from core.config import Config
from core.gaps import told_at_their_ends
from core.schema import GAPS
from core.store import Partition, partitions, read, table_of, write
from core.units import NS_PER_MS

SYMBOLS = ("binance_um:BTCUSDT", "bybit:BTCUSDT")
Change = Callable[[pl.DataFrame], pl.DataFrame]


@pytest.fixture
def captured(tmp_path: Path) -> tuple[Path, list[list[Tape]]]:
    """Two simulated minutes in a data directory, every frame of them."""
    config = Config(data_dir=str(tmp_path), symbols=SYMBOLS)
    market = Market(config.sim, SYMBOLS, 1)
    chunks = [market.chunk(1.0) for _ in range(2)]
    write_tables(config, chunks)
    return tmp_path, chunks


def of(root: Path, chunks: list[list[Tape]], table: str, venue: str = "binance_um") -> Account:
    return next(each for each in accounts(root, chunks) if (each.venue, each.table) == (venue, table))


def change(root: Path, table: str, how: Change, venue: str = "binance_um") -> pl.DataFrame:
    """Rewrite a table's only partition; returns what it held."""
    [part] = [part for part in partitions(root, table_of(Partition(table, "", "", ""))) if part.exchange == venue]
    rows = read(root, part)
    for path in (root / part.path).iterdir():
        path.unlink()
    write(root, part, how(rows))
    return rows


def tell(root: Path, table: str, from_ns: int, to_ns: int) -> None:
    gap = told_at_their_ends([(table, from_ns, to_ns, "of a test", False)])
    write(root, Partition(GAPS.name, "binance_um", "BTCUSDT", "2026-01-05"), gap)


def without(*places: int) -> Change:
    return lambda rows: rows.with_row_index().filter(~pl.col("index").is_in(places)).drop("index")


def test_a_whole_capture_has_nothing_missing_and_nothing_twice(captured: tuple[Path, list[list[Tape]]]) -> None:
    for each in accounts(*captured):
        assert (each.lost, each.holes, each.doubled, each.extra, each.gaps) == (0, 0, 0, 0, 0)
        assert each.captured == each.published or each.table == "liquidations"


@pytest.mark.parametrize("table", ["trades", "top_of_book", "mark_prices"])
def test_a_hole_is_untold_until_a_gap_covers_it(captured: tuple[Path, list[list[Tape]]], table: str) -> None:
    root, chunks = captured
    rows = change(root, table, without(20, 21))
    account = of(root, chunks, table)
    assert (account.holes, account.lost, account.untold, len(account.untold_frames)) == (1, 2, 1, 2)
    before_ns, after_ns = rows["recv_ns"][19], rows["recv_ns"][22]
    tell(root, table, after_ns, after_ns + 10)
    assert of(root, chunks, table).untold == 1
    tell(root, table, before_ns, after_ns)
    assert of(root, chunks, table).untold == 0


def test_a_refilled_row_is_not_lost_and_its_hole_must_be_told(captured: tuple[Path, list[list[Tape]]]) -> None:
    root, chunks = captured
    change(root, "trades", lambda rows: rows.with_row_index().with_columns(
        recv_assumed=pl.col("index").is_in([20])).drop("index"))  # fmt: skip
    account = of(root, chunks, "trades")
    assert (account.lost, account.refilled, account.holes, account.untold) == (0, 1, 1, 1)


def test_rows_that_stand_twice_or_that_nobody_sent_are_counted(captured: tuple[Path, list[list[Tape]]]) -> None:
    root, chunks = captured
    change(root, "trades", lambda rows: pl.concat([rows, rows[5:7]]).sort("recv_ns"))
    assert of(root, chunks, "trades").doubled == 2
    change(root, "top_of_book", lambda rows: rows.with_columns(
        bid_qty=pl.when(pl.col("recv_ns") == rows["recv_ns"][3]).then(1e9).otherwise("bid_qty")))  # fmt: skip
    account = of(root, chunks, "top_of_book")
    assert (account.extra, account.lost) == (1, 1)


def test_only_what_no_protocol_shows_is_explained_by_the_ledger(captured: tuple[Path, list[list[Tape]]]) -> None:
    root, chunks = captured
    quotes, trades = change(root, "top_of_book", without(20)), change(root, "trades", without(20))
    dropped = {"fault": "drop", "symbol": "BTCUSDT", "last_id": "", "exch_ms": quotes["exch_ns"][20] // NS_PER_MS}
    quoted, traded = of(root, chunks, "top_of_book"), of(root, chunks, "trades")
    assert unexplained(quoted, [dropped]) == []
    assert len(unexplained(quoted, [dropped | {"exch_ms": 1}])) == 1
    assert len(unexplained(traded, [dropped | {"last_id": trades["trade_id"][20]}])) == 1


@pytest.mark.parametrize("is_known", [False, True])
def test_a_change_that_the_first_snapshot_holds_is_not_missing(
    captured: tuple[Path, list[list[Tape]]], is_known: bool
) -> None:
    """Its frame came behind the next one, while the snapshot was asked for; a book that stood would have missed it."""
    root, chunks = captured

    def late_snapshot(rows: pl.DataFrame) -> pl.DataFrame:
        changes = rows.filter(~pl.col("is_snapshot"))
        third, fourth = changes["recv_ns"].unique().sort()[2:4].to_list()
        own = changes.filter(pl.col("recv_ns") == third)
        taken = own.with_columns(
            is_snapshot=pl.lit(True), update_id=pl.col("update_id") + 1, recv_ns=pl.lit(fourth - 1)
        )
        kept = (rows if is_known else changes).filter(pl.col("recv_ns") != third)
        return pl.concat([kept, taken]).sort("recv_ns", maintain_order=True)

    change(root, "book_deltas", late_snapshot)
    account = of(root, chunks, "book_deltas")
    assert (account.lost, account.untold) == ((1, 1) if is_known else (0, 0))
