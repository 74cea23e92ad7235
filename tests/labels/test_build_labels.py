"""The stage on a small captured day: what it writes, counts and rebuilds; and where the record is broken."""

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest

from core import store
from core.cells import SIDES, THROUGH, TOUCH, MakerCell, TakerCell, gate_rule
from core.cli import run_stages
from core.config import Config, Fee, load
from core.errors import StageError
from core.labelled import require_settings
from core.run_record import RunRecord
from core.schema import BARS, LABELS, TOP_OF_BOOK, TRADES
from core.store import Partition, day_start_ns
from core.units import NS_PER_MS, NS_PER_S
from labels.build_labels import cell_lines, decision_times, run, sound_decisions
from labels.grid import Grid, MakerLabels, TakerLabels, Terms
from labels.tally import CellSums, tally
from tests.labels.toy_market import Quote, day_of, ns

DATE = "2026-01-05"
MIDNIGHT = day_start_ns("2026-01-06")


def settings(root: Path, **labels: Any) -> Config:
    pairs = [f"labels.{name}={value}" for name, value in labels.items()]
    return load(None, pairs, {"data_dir": str(root), "source": "sim"}, root=root)


def labelled(config: Config) -> RunRecord:
    return run_stages(config, {"labels": run})


def captured(
    root: Path, minutes: float, until_ns: int = MIDNIGHT, venue: str = "binance_um", moves: bool = True
) -> None:
    """Quotes, trades and bars of the last `minutes` before `until_ns`, received 1.3 s before the venue's own time."""
    rng = np.random.default_rng(5)
    n = int(minutes * 60 * 10)
    recv = until_ns - n * 100 * NS_PER_MS + np.arange(n) * 100 * NS_PER_MS + 37
    exch = (recv + 1_300 * NS_PER_MS) // NS_PER_MS * NS_PER_MS
    bid = 600_000 + (np.cumsum(rng.integers(-20, 21, n)) if moves else np.zeros(n, np.int64))
    quotes = pl.DataFrame(
        {
            "exch_ns": exch, "recv_ns": recv, "update_id": np.arange(n),
            "bid_price": bid / 10, "bid_qty": np.ones(n), "ask_price": (bid + 1) / 10, "ask_qty": np.ones(n),
            "exch_assumed": np.zeros(n, np.bool_), "recv_assumed": np.zeros(n, np.bool_),
        }
    )  # fmt: skip
    sells = pl.DataFrame(
        {"exch_ns": exch, "recv_ns": recv + 1, "trade_id": np.arange(n).astype(str), "price": bid / 10}
    ).with_columns(
        qty=pl.lit(0.01), taker_side=pl.lit("sell", TRADES.columns["taker_side"]), recv_assumed=pl.lit(False)
    )
    closes = recv // NS_PER_S * NS_PER_S + NS_PER_S
    bars = pl.DataFrame({"open_ns": closes - NS_PER_S, "close_ns": closes}).unique(maintain_order=True)
    bars = bars.with_columns(bar_index=pl.col("close_ns") // NS_PER_S, bid_price=pl.lit(1.0))
    for table, frame, clock in ((TOP_OF_BOOK, quotes, "recv_ns"), (TRADES, sells, "recv_ns"), (BARS, bars, "open_ns")):
        for date, rows in store.split_by_date(frame, clock):
            part = Partition(table.name, venue, "BTCUSDT", date, "time_200ms" if table is BARS else "")
            store.append(root, part, rows, int(rows[clock][0]), 0)


def test_the_table_has_a_column_for_every_cell_and_no_nan(tmp_path: Path) -> None:
    captured(tmp_path, 5)
    labelled(settings(tmp_path))
    frame = store.read(tmp_path, store.partitions(tmp_path, LABELS)[0])
    makers = [
        MakerCell(delta, hold, rule)
        for delta in (0.0, 2.0, 5.0, 10.0)
        for hold in (10.0, 60.0, 300.0, 900.0)
        for rule in (TOUCH, THROUGH, gate_rule(0), gate_rule(50), gate_rule(1000))
    ]
    expected = {"decision_ns"}
    for taker in map(TakerCell, (1.0, 10.0, 60.0, 300.0, 900.0)):
        expected |= {taker.ret_bps, taker.direction, taker.end_ns, taker.net_bps(1), taker.net_bps(-1)}
    for maker in makers:
        for side in (1, -1):
            expected |= {maker.fill_ns(side), maker.gross_bps(side), maker.net_bps(side), maker.end_ns(side)}
            expected.add(maker.limit(side))
    assert set(frame.columns) == expected
    assert not any(frame[name].is_nan().any() for name, dtype in frame.schema.items() if dtype.is_float())
    assert frame.height > 280
    short = MakerCell(2.0, 10.0)
    assert frame[short.net_bps(1)].null_count() < frame[MakerCell(2.0, 60.0).net_bps(1)].null_count() < frame.height
    assert frame[MakerCell(2.0, 900.0).net_bps(1)].null_count() == frame.height


def test_the_report_has_a_row_per_cell_and_says_what_was_dropped(tmp_path: Path) -> None:
    captured(tmp_path, 5)
    record = labelled(settings(tmp_path))
    rows = record.sections["labels"]
    assert len(rows) == 2 * 5 + 2 * 4 * 5 * 4
    assert {row["n"] for row in rows if row["horizon_s"] == 900.0} == {0}
    assert {row["mean_net_bps"] for row in rows if row["horizon_s"] == 900.0} == {None}
    touched = next(row for row in rows if (row["rule"], row["delta_bps"], row["horizon_s"]) == (TOUCH, 0.0, 10.0))
    assert 0.0 < touched["fill_rate"] <= 1.0
    text = (record.folder / "report.txt").read_text()
    assert "T=900 s fits nowhere in the data" in text
    assert "T=60 s, decision x cells not labelled: end of data" in text
    assert "net bps per order" in text
    assert "SIMULATED" in text


@pytest.mark.parametrize(
    ("rejected", "told"), [(4, ""), (30, " | rejected=0.300, as post-only would cross at arrival")]
)
def test_where_many_orders_would_cross_at_arrival_the_line_says_so(rejected: int, told: str) -> None:
    maker = [
        CellSums("maker", side, 0.0, 10.0, THROUGH, 100, 20, 50, rejected, -1.0, -200.0) for side in SIDES.values()
    ]
    line = f"  maker touch, any decision: fill_rate=0.200 | net bps per order T=10 -2.00 | n=200{told}"
    assert cell_lines(maker) == [line]


def test_an_unchanged_day_is_not_rebuilt_and_a_change_rebuilds_it(tmp_path: Path) -> None:
    captured(tmp_path, 3)
    first = labelled(settings(tmp_path))
    path = store.files(tmp_path, store.partitions(tmp_path, LABELS)[0])[0]
    written = path.stat().st_mtime_ns
    again = labelled(settings(tmp_path))
    assert again.sections["labels"] == first.sections["labels"]
    assert path.stat().st_mtime_ns == written
    labelled(settings(tmp_path, entry_latency_ms=50))
    assert path.stat().st_mtime_ns != written


def test_a_partition_tells_the_settings_it_was_built_with(tmp_path: Path) -> None:
    captured(tmp_path, 2)
    built = settings(tmp_path)
    labelled(built)
    part = store.partitions(tmp_path, LABELS)[0]
    require_settings(built, part)
    cheap = msgspec.structs.replace(built, fees={"binance_um": Fee(0.0, 0.5)})
    for other in (cheap, settings(tmp_path, exit_latency_ms=50), msgspec.structs.replace(built, decision="2s")):
        with pytest.raises(StageError, match="run `labels` with the same settings"):
            require_settings(other, part)


def test_a_labelled_order_without_a_number_is_an_error_and_not_0() -> None:
    end_ns, known = np.array([[5, 5, 0]]), np.array([[1.0, 2.0, np.nan]], np.float32)
    makers = MakerLabels(*(np.zeros(0),) * 6)
    terms = Terms(np.zeros(0), np.zeros(0), np.array([NS_PER_S]), np.zeros(0, np.int64), *(0,) * 4, 0.0, 1.0, None, 0)

    def summed(net: np.ndarray) -> list[float]:
        grid = Grid(TakerLabels(known, known, np.stack([net, net]), end_ns), makers, np.zeros((2, 1, 9), np.int64))
        return [cell.net_bps for cell in tally(grid, terms, 3, 2, {}).cells]

    assert summed(known) == [3.0, 3.0]
    with pytest.raises(StageError, match="1 of 2 labelled orders"):
        summed(np.array([[1.0, np.nan, np.nan]], np.float32))


def test_a_day_continues_into_the_next(tmp_path: Path) -> None:
    """Labels before midnight need events after it: with the next day captured they equal those of one long day."""
    captured(tmp_path / "across", 8, until_ns=MIDNIGHT + 180 * NS_PER_S)
    captured(tmp_path / "within", 8, until_ns=MIDNIGHT - 600 * NS_PER_S)
    frames = []
    for folder, shift_ns in (("across", 0), ("within", 780 * NS_PER_S)):
        labelled(settings(tmp_path / folder))
        days = [store.read(tmp_path / folder, part) for part in store.partitions(tmp_path / folder, LABELS)]
        frame = pl.concat(days)
        times = [name for name in frame.columns if name.endswith("_ns")]
        frames.append(frame.with_columns(pl.col(times) + shift_ns))
    assert len(store.partitions(tmp_path / "across", LABELS)) == 2
    assert frames[0].equals(frames[1])


def test_a_stretch_shorter_than_the_shortest_horizon_gives_no_rows_and_says_so(tmp_path: Path) -> None:
    captured(tmp_path, 0.1)
    record = labelled(settings(tmp_path, horizons_s="[10, 60]"))
    assert store.read(tmp_path, store.partitions(tmp_path, LABELS)[0]).height == 0
    assert "no decision can be labelled" in (record.folder / "report.txt").read_text()


def test_a_constant_price_and_no_prints_are_labelled(tmp_path: Path) -> None:
    captured(tmp_path, 2, moves=False)
    for part in store.partitions(tmp_path, TRADES):
        store.write(tmp_path, part, pl.DataFrame(schema=TRADES.columns))
    labelled(settings(tmp_path))
    frame = store.read(tmp_path, store.partitions(tmp_path, LABELS)[0])
    cell = MakerCell(0.0, 10.0)
    assert frame[cell.fill_ns(1)].null_count() == frame.height
    assert set(frame[cell.net_bps(1)].drop_nulls()) == {0.0}
    assert set(frame[TakerCell(1.0).direction]) == {0}


def test_coin_margined_symbols_are_skipped_and_said(tmp_path: Path) -> None:
    captured(tmp_path, 2)
    captured(tmp_path, 2, venue="binance_cm")
    record = labelled(settings(tmp_path))
    assert {part.exchange for part in store.partitions(tmp_path, LABELS)} == {"binance_um"}
    assert "binance_cm:BTCUSDT is captured only" in (record.folder / "report.txt").read_text()


def test_without_bars_the_message_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"run_pipeline\.py bars"):
        labelled(settings(tmp_path))


def test_decisions_lie_on_the_grid_from_the_first_bar_with_a_book() -> None:
    closes = np.arange(1, 11) * 200 * NS_PER_MS
    bars = pl.DataFrame({"close_ns": closes, "bid_price": [None, float("nan")] + [1.0] * 8})
    assert decision_times(bars, "time_200ms", NS_PER_S).tolist() == [NS_PER_S, 2 * NS_PER_S]
    assert decision_times(bars, "volume_10", NS_PER_S).tolist() == closes[2:].tolist()


def test_decisions_without_a_sound_book_are_counted_by_reason() -> None:
    quotes = [Quote(1_000, 1_005, 1000.0, 1001.0), Quote(2_000, 2_005, 1001.0, 1001.0)]
    quotes += [Quote(3_000, 3_005, 1000.0, 1001.0), Quote(70_000, 70_005, 1000.0, 1001.0)]
    day = day_of(quotes, [], gaps=[("trades", 3_500, 3_700, False)])
    asked = np.array([ns(t) for t in (1_005, 1_500, 2_500, 3_500, 3_600, 3_700, 63_004, 63_005, 70_005, 70_006)])
    decisions, dropped = sound_decisions(asked, day)
    assert dropped == {"no book": 1, "gap": 2, "crossed book": 1, "stale book": 1}
    assert [int(t - ns(0)) // NS_PER_MS for t in decisions.t_ns] == [1_500, 3_500, 63_004, 63_005, 70_006]
    assert [int(t - ns(0)) // NS_PER_MS for t in decisions.clear_ns[:4]] == [2_005, 3_500, 63_005, 63_005]
    assert decisions.clear_kind[:3].tolist() == [1, 0, 2]
