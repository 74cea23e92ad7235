"""The stage on made-up event tables."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import schema, store
from core.cli import run_stages
from core.config import Config, Features
from core.errors import ConfigError, StageError
from core.gaps import NOT_ARCHIVED, told_at_their_ends
from core.run_record import RunRecord
from core.store import Partition
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S
from research import build_features
from research.bars.bar_pass import Bars, join_closed
from research.bars.clocks import parse_clock
from research.bars.columns import BAR_COLUMNS, bar_columns
from research.bars.day_events import DayEvents
from research.bars.events import merge_events
from research.build_bars import run
from research.day_state import load_state

DAY, NEXT_DAY = "2026-01-05", "2026-01-06"
MIDNIGHT_NS = store.day_start_ns(NEXT_DAY)


def quotes(recv_ns: np.ndarray, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    bid = np.round(100.0 + np.cumsum(rng.normal(0.0, 0.1, recv_ns.size)), 1)
    qty = rng.integers(1, 9, (2, recv_ns.size)).astype(float)
    columns = {"exch_ns": recv_ns, "recv_ns": recv_ns, "update_id": np.arange(recv_ns.size)}
    prices = {"bid_price": bid, "bid_qty": qty[0], "ask_price": bid + 0.1, "ask_qty": qty[1]}
    measured = dict.fromkeys(("exch_assumed", "recv_assumed"), np.zeros(recv_ns.size, bool))
    return pl.DataFrame({**columns, **prices, **measured})


def trades(recv_ns: np.ndarray, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame({"exch_ns": recv_ns, "recv_ns": recv_ns, "trade_id": np.arange(recv_ns.size).astype(str)})
    side = pl.Series("taker_side", np.array(["buy", "sell"])[rng.integers(0, 2, recv_ns.size)], schema.TAKER_SIDE)
    qty = rng.integers(1, 9, recv_ns.size) / 8.0
    price = pl.Series(rng.integers(990, 1010, recv_ns.size) / 10.0)
    return frame.with_columns(price=price, qty=qty, taker_side=side, recv_assumed=pl.lit(False))


def gap(from_ns: int, to_ns: int, stream: str = "trades") -> pl.DataFrame:
    return told_at_their_ends([(stream, from_ns, to_ns, "test", False)])


def put(root: Path, table: schema.Table, frame: pl.DataFrame, symbol: str = "BTCUSDT", venue: str = "bybit") -> None:
    time = "to_ns" if table is schema.GAPS else "recv_ns"
    for date, rows in store.split_by_date(frame, time):
        store.write(root, Partition(table.name, venue, symbol, date), rows)


def build(root: Path, bars: str = "time_1s", **settings: Any) -> RunRecord:
    config = Config(data_dir=str(root), bars=bars, source="replay", **settings)
    return run_stages(config, {"bars": run}, Console(quiet=True))


def bars_of(root: Path, date: str, bars: str = "time_1s", symbol: str = "BTCUSDT") -> pl.DataFrame:
    return store.read(root, Partition("bars", "bybit", symbol, date, bars))


def over_midnight(seed: int = 1) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Five minutes on both sides of midnight; the last event of the day lies seconds before it."""
    rng = np.random.default_rng(seed)
    offsets = np.sort(rng.choice(600 * 1000, 3000, replace=False)) - 300_000
    recv_ns = MIDNIGHT_NS + offsets[np.abs(offsets) > 3000] * 1_000_000
    return quotes(recv_ns, seed), trades(recv_ns[::3] + 1, seed)


@pytest.mark.parametrize("clock", ["time_1s", "time_100ms", "time_1m", "volume_5"])
def test_two_days_built_apart_are_the_bars_of_one_run(tmp_path: Path, clock: str) -> None:
    top, traded = over_midnight()
    put(tmp_path, schema.TOP_OF_BOOK, top)
    put(tmp_path, schema.TRADES, traded)
    build(tmp_path, clock, decision="1m")
    whole = Bars(parse_clock(clock))
    none = [pl.DataFrame(schema=table.columns) for table in (schema.LIQUIDATIONS, schema.MARK_PRICES, schema.GAPS)]
    once = whole.push(merge_events(top, traded, *none))
    both = pl.concat([bars_of(tmp_path, date, clock) for date in (DAY, NEXT_DAY)])
    assert both["close_ns"].to_list() == once.close_ns.tolist()
    assert both["bar_index"].to_list() == once.bar_index.tolist()
    np.testing.assert_array_equal(both.select(BAR_COLUMNS).to_numpy(), once.values)
    state = load_state(tmp_path, Partition("bars", "bybit", "BTCUSDT", NEXT_DAY, clock))
    assert state is not None
    assert all(state[name].tobytes() == array.tobytes() for name, array in whole.save().items())
    assert (
        bars_of(tmp_path, DAY, clock)["close_ns"][-1] <= MIDNIGHT_NS < bars_of(tmp_path, NEXT_DAY, clock)["close_ns"][0]
    )


def test_a_day_that_nothing_follows_ends_with_its_last_event(tmp_path: Path) -> None:
    start = MIDNIGHT_NS - NS_PER_DAY
    put(tmp_path, schema.TOP_OF_BOOK, quotes(start + np.arange(10) * NS_PER_S + 1))
    build(tmp_path)
    assert bars_of(tmp_path, DAY).height == 9  # the tenth holds the last event and stays open, in the state


def test_a_day_in_slices_is_the_day_in_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, traded = over_midnight(2)
    for name in ("one", "sliced"):
        put(tmp_path / name, schema.TOP_OF_BOOK, top)
        put(tmp_path / name, schema.TRADES, traded)
    build(tmp_path / "one")
    monkeypatch.setattr("research.bars.day_events.SLICE_ROWS", 7)
    build(tmp_path / "sliced")
    for date in (DAY, NEXT_DAY):
        assert bars_of(tmp_path / "sliced", date).equals(bars_of(tmp_path / "one", date))


def test_shards_of_a_capture_are_one_stream(tmp_path: Path) -> None:
    top, traded = over_midnight(3)
    top = top.filter(pl.col("recv_ns") < MIDNIGHT_NS)
    put(tmp_path / "one", schema.TOP_OF_BOOK, top)
    part = Partition("top_of_book", "bybit", "BTCUSDT", DAY)
    for number, rows in enumerate((top[:500], top[500:501], top[501:])):
        store.append(tmp_path / "shards", part, rows, rows["recv_ns"][0], number)
    for name in ("one", "shards"):
        put(tmp_path / name, schema.TRADES, traded)
        build(tmp_path / name)
    assert bars_of(tmp_path / "shards", DAY).equals(bars_of(tmp_path / "one", DAY))


def test_the_section_and_the_lines_count_bars_empties_and_gaps(tmp_path: Path) -> None:
    start = MIDNIGHT_NS - NS_PER_DAY
    put(tmp_path, schema.TOP_OF_BOOK, quotes(start + np.array([0, 1, 4, 5]) * NS_PER_S))
    put(tmp_path, schema.GAPS, gap(start - NS_PER_MINUTE, start + 4 * NS_PER_S))
    record = build(tmp_path)
    row = record.sections["bars"]["rows"][0]
    assert (row["symbol"], row["days"], row["bars"], row["empty"], row["gaps"]) == ("bybit:BTCUSDT", 1, 5, 2, 1)
    assert (row["first_ns"], row["last_ns"]) == (start + NS_PER_S, start + 5 * NS_PER_S)
    assert bars_of(tmp_path, DAY)["has_gap"].to_list() == [0.0, 0.0, 0.0, 0.0, 1.0]
    assert "bybit:BTCUSDT: 5 bars of time_1s in 1 d, 40.0 % empty, 1 with a gap" in printed(record)
    assert record.stages[0]["rows_in"] == 5
    assert record.stages[0]["rows_out"] == 5


def printed(record: RunRecord) -> str:
    return (record.folder / "report.txt").read_text()


def test_a_gap_of_the_depth_alone_does_not_concern_bars(tmp_path: Path) -> None:
    start = MIDNIGHT_NS - NS_PER_DAY
    put(tmp_path, schema.TOP_OF_BOOK, quotes(start + np.arange(5) * NS_PER_S))
    put(tmp_path, schema.GAPS, gap(start, start + 2 * NS_PER_S, "book_deltas"))
    assert build(tmp_path).sections["bars"]["rows"][0]["gaps"] == 0


def test_bars_of_a_hole_that_was_filled_afterwards_are_those_that_were_lived(tmp_path: Path) -> None:
    """With the hole as it was met, killed while it was filled, with it mended, and bought: what a runner sees, whom
    nothing is fetched for."""
    start = MIDNIGHT_NS - NS_PER_DAY
    top = quotes(start + np.arange(12) * NS_PER_S)
    came = trades(start + np.array([1, 2, 8, 9]) * NS_PER_S)
    hole = gap(start + 2 * NS_PER_S, start + 8 * NS_PER_S)
    fetched = trades(start + np.array([2, 4, 5, 8]) * NS_PER_S, 7).with_columns(recv_assumed=pl.lit(True))
    mended = hole.with_columns(mended=pl.lit(True), reason=pl.lit("fetched"))
    both = pl.concat([came, fetched]).sort("recv_ns")
    mended_too = pl.concat([hole, mended])
    for name, traded, gaps in (("lived", came, hole), ("killed", both, hole), ("mended", both, mended_too)):
        put(tmp_path / name, schema.TOP_OF_BOOK, top)
        put(tmp_path / name, schema.TRADES, traded)
        put(tmp_path / name, schema.GAPS, gaps)
        build(tmp_path / name)
    lived = bars_of(tmp_path / "lived", DAY)
    assert lived.equals(bars_of(tmp_path / "mended", DAY))
    assert lived.equals(bars_of(tmp_path / "killed", DAY))
    assert lived["has_gap"].to_list().index(1.0) == 8
    put(tmp_path / "bought", schema.TOP_OF_BOOK, top)
    put(tmp_path / "bought", schema.TRADES, both.with_columns(recv_assumed=pl.lit(True)))
    put(tmp_path / "bought", schema.GAPS, hole.with_columns(reason=pl.lit(f"aggTrade ids 7 to 8 {NOT_ARCHIVED}")))
    build(tmp_path / "bought")
    counts = [
        frame["buy_count"].sum() + frame["sell_count"].sum() for frame in (bars_of(tmp_path / "bought", DAY), lived)
    ]
    assert counts == [both.height, came.height]


def test_a_gap_that_began_the_day_before_marks_the_bar_in_which_it_ends(tmp_path: Path) -> None:
    top, _ = over_midnight()
    put(tmp_path, schema.TOP_OF_BOOK, top)
    over = gap(MIDNIGHT_NS - NS_PER_S, MIDNIGHT_NS + 10 * NS_PER_S)
    store.write(tmp_path, Partition("gaps", "bybit", "BTCUSDT", DAY), over)
    build(tmp_path)
    assert bars_of(tmp_path, DAY)["has_gap"].sum() == 0
    marked = bars_of(tmp_path, NEXT_DAY).filter(pl.col("has_gap") == 1.0)
    assert marked["open_ns"].to_list() == [MIDNIGHT_NS + 10 * NS_PER_S]


def test_what_is_not_known_yet_is_null_and_never_nan(tmp_path: Path) -> None:
    put(tmp_path, schema.TOP_OF_BOOK, over_midnight()[0])
    build(tmp_path)
    frame = bars_of(tmp_path, DAY)
    assert frame["mark_price"].null_count() == frame.height
    assert not any(frame[name].is_nan().any() for name in BAR_COLUMNS)


def test_an_unchanged_day_is_kept_and_a_changed_one_rebuilt_with_those_after_it(tmp_path: Path) -> None:
    top, traded = over_midnight()
    put(tmp_path, schema.TOP_OF_BOOK, top)
    put(tmp_path, schema.TRADES, traded)
    first = build(tmp_path)
    paths = [
        store.files(tmp_path, Partition("bars", "bybit", "BTCUSDT", date, "time_1s"))[0] for date in (DAY, NEXT_DAY)
    ]
    written = [path.stat().st_mtime_ns for path in paths]
    second = build(tmp_path)
    assert second.kept
    assert second.sections["bars"] == first.sections["bars"]
    late = traded.filter(pl.col("recv_ns") >= MIDNIGHT_NS)
    put(tmp_path, schema.TRADES, late[:-5])
    build(tmp_path)
    again = [path.stat().st_mtime_ns for path in paths]
    assert again[0] == written[0]
    assert again[1] > written[1]
    put(tmp_path, schema.TRADES, traded.filter(pl.col("recv_ns") < MIDNIGHT_NS)[:-5])
    build(tmp_path)
    assert all(now > before for now, before in zip((p.stat().st_mtime_ns for p in paths), again, strict=True))


def test_a_deleted_or_damaged_output_is_made_again(tmp_path: Path) -> None:
    put(tmp_path, schema.TOP_OF_BOOK, over_midnight()[0])
    build(tmp_path)
    day = Partition("bars", "bybit", "BTCUSDT", DAY, "time_1s")
    before = store.read(tmp_path, day)
    store.files(tmp_path, day)[0].unlink()
    build(tmp_path)
    assert store.read(tmp_path, day).equals(before)
    state = next((tmp_path / "state").rglob(f"*{DAY}*/time_1s.npz"))
    kept = state.read_bytes()
    state.write_bytes(kept[:100])
    build(tmp_path)
    assert state.read_bytes() == kept


def test_a_day_without_a_best_price_writes_no_bars_and_says_so(tmp_path: Path) -> None:
    top, traded = over_midnight()
    put(tmp_path, schema.TOP_OF_BOOK, top.filter(pl.col("recv_ns") >= MIDNIGHT_NS))
    put(tmp_path, schema.TRADES, traded)
    record = build(tmp_path)
    assert f"bybit:BTCUSDT {DAY}: no bar closed with a best price in it" in printed(record)
    assert not store.files(tmp_path, Partition("bars", "bybit", "BTCUSDT", DAY, "time_1s"))
    assert bars_of(tmp_path, NEXT_DAY).height > 0
    assert build(tmp_path).kept


def test_coin_margined_symbols_are_left_out_with_a_line(tmp_path: Path) -> None:
    top, _ = over_midnight()
    put(tmp_path, schema.TOP_OF_BOOK, top)
    put(tmp_path, schema.TOP_OF_BOOK, top, "BTCUSD_PERP", "binance_cm")
    record = build(tmp_path)
    assert "binance_cm:BTCUSD_PERP" in printed(record)
    assert [row["symbol"] for row in record.sections["bars"]["rows"]] == ["bybit:BTCUSDT"]


def test_nothing_captured_names_the_table_and_the_stage_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"top_of_book.*capture"):
        build(tmp_path)


def test_a_decision_inside_a_bar_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="whole number of bars"):
        build(tmp_path, "time_2s", decision="1s")


def test_rows_of_another_day_are_an_error_and_not_lost(tmp_path: Path) -> None:
    store.write(tmp_path, Partition("top_of_book", "bybit", "BTCUSDT", DAY), over_midnight()[0])
    with pytest.raises(StageError, match="are of another day"):
        build(tmp_path)


ALSO = ("time_1m", "volume_5", "tick_imbalance_20")


def test_clocks_built_in_one_pass_are_those_built_alone(tmp_path: Path) -> None:
    top, traded = over_midnight()
    for name in ("all", "alone"):
        put(tmp_path / name, schema.TOP_OF_BOOK, top)
        put(tmp_path / name, schema.TRADES, traded)
    record = build(tmp_path / "all", bars_also=ALSO)
    assert list(record.sections["bars"]["also"]) == list(ALSO)
    for clock in ("time_1s", *ALSO):
        build(tmp_path / "alone", clock, decision="1m")
        for date in (DAY, NEXT_DAY):
            assert bars_of(tmp_path / "all", date, clock).equals(bars_of(tmp_path / "alone", date, clock))
    assert build(tmp_path / "all", bars_also=ALSO).kept
    written = [path.stat().st_mtime_ns for path in sorted((tmp_path / "all" / "bars").rglob("*.parquet"))]
    build(tmp_path / "all", bars_also=(*ALSO, "time_10s"))  # a further clock leaves the others as they are
    kept = [path for path in sorted((tmp_path / "all" / "bars").rglob("*.parquet")) if "time_10s" not in str(path)]
    assert [path.stat().st_mtime_ns for path in kept] == written


def deltas(recv_ns: np.ndarray) -> pl.DataFrame:
    """A snapshot of three levels a side, then one changed level per message, some of them removed."""
    rng = np.random.default_rng(9)
    n = recv_ns.size
    is_snapshot = np.arange(n) < 6
    side = np.where(np.arange(n) % 2 == 0, "bid", "ask")
    away = np.where(is_snapshot, np.arange(n) // 2, rng.integers(0, 5, n)) / 10.0
    recv_ns = np.where(is_snapshot, recv_ns[0], recv_ns)
    return pl.DataFrame(
        {
            "exch_ns": recv_ns, "recv_ns": recv_ns, "update_id": np.where(is_snapshot, 1, np.arange(n)),
            "side": pl.Series(side, dtype=schema.BOOK_SIDE),
            "price": np.where(side == "bid", 100.0 - away, 100.1 + away),
            "qty": np.where(is_snapshot, 1.0, rng.integers(0, 4, n) / 2.0),
            "is_snapshot": is_snapshot, "recv_assumed": np.zeros(n, bool),
        }
    )  # fmt: skip


def test_levels_go_on_over_midnight_and_are_built_where_features_read_them(tmp_path: Path) -> None:
    top, traded = over_midnight()
    depth = deltas(top["recv_ns"].to_numpy() + 7)
    for table, frame in ((schema.TOP_OF_BOOK, top), (schema.TRADES, traded), (schema.BOOK_DELTAS, depth)):
        put(tmp_path, table, frame)
    mine = Features(sets=(), mine={"deep": "(sub bid_qty_2 ofi_qty_1)"})
    assert build(tmp_path, features=mine).sections["bars"]["levels"] == 2
    none = [pl.DataFrame(schema=table.columns) for table in (schema.LIQUIDATIONS, schema.MARK_PRICES, schema.GAPS)]
    once = Bars(parse_clock("time_1s"), 2).push(merge_events(top, traded, *none, depth))
    both = pl.concat([bars_of(tmp_path, date) for date in (DAY, NEXT_DAY)])
    np.testing.assert_array_equal(both.select(bar_columns(2)).to_numpy(), once.values)
    assert both["bid_price_1"].null_count() < 5
    assert both["ofi_qty_1"].abs().sum() > 100.0
    assert build(tmp_path, features=mine, bars_levels=3).sections["bars"]["levels"] == 3
    assert build(tmp_path, features=Features(sets=("tob",))).sections["bars"]["levels"] == 0
    assert bars_of(tmp_path, DAY).columns[-1] == BAR_COLUMNS[-1]


def test_a_day_is_cut_at_minutes_so_that_no_slice_is_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    top, _ = over_midnight()
    put(tmp_path, schema.TOP_OF_BOOK, top)
    monkeypatch.setattr("research.bars.day_events.SLICE_ROWS", 400)
    sizes = [events.size for events in DayEvents(tmp_path, Partition("bars", "bybit", "BTCUSDT", DAY)).slices()]
    assert sum(sizes) == top.filter(pl.col("recv_ns") < MIDNIGHT_NS).height
    assert len(sizes) > 2
    assert max(sizes) < 400 + 350  # the most in a minute


def test_several_symbols_do_not_touch_each_other(tmp_path: Path) -> None:
    for symbol, seed in (("BTCUSDT", 1), ("ETHUSDT", 2), ("SOLUSDT", 3)):
        top, traded = over_midnight(seed)
        put(tmp_path / "all", schema.TOP_OF_BOOK, top, symbol)
        put(tmp_path / "all", schema.TRADES, traded, symbol)
        put(tmp_path / symbol, schema.TOP_OF_BOOK, top, symbol)
        put(tmp_path / symbol, schema.TRADES, traded, symbol)
        build(tmp_path / symbol)
    build(tmp_path / "all")
    for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT"):
        alone = bars_of(tmp_path / symbol, DAY, symbol=symbol)
        assert bars_of(tmp_path / "all", DAY, symbol=symbol).equals(alone)


def test_bars_do_not_tell_which_symbols_have_a_tomorrow(tmp_path: Path) -> None:
    """One stops two hours before the others, on the last day or on one that others go on from."""
    morning = store.day_start_ns(DAY) + np.arange(0, 4 * 3600, 20) * NS_PER_S
    streams = {"BTCUSDT": morning, "ETHUSDT": morning[: morning.size // 2]}
    for name, returns in (("dies", []), ("returns", ["ETHUSDT"]), ("goes on", ["BTCUSDT"])):
        for symbol, recv_ns in streams.items():
            put(tmp_path / name, schema.TOP_OF_BOOK, quotes(recv_ns, 1), symbol)
            if symbol in returns:
                put(tmp_path / name, schema.TOP_OF_BOOK, quotes(recv_ns + NS_PER_DAY, 2), symbol)
        build(tmp_path / name)
    dies, *others = (bars_of(tmp_path / name, DAY, symbol="ETHUSDT") for name in ("dies", "returns", "goes on"))
    assert dies["close_ns"][-1] > streams["ETHUSDT"][-1] + 9 * NS_PER_MINUTE
    assert all(other.equals(dies) for other in others)


@pytest.mark.parametrize("slice_rows", [1, 100])
def test_the_last_event_of_a_day_is_that_of_any_table(
    slice_rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("research.bars.day_events.SLICE_ROWS", slice_rows)
    start = MIDNIGHT_NS - NS_PER_DAY
    put(tmp_path, schema.TOP_OF_BOOK, quotes(start + np.array([0, 5]) * NS_PER_MINUTE))
    put(tmp_path, schema.TRADES, trades(start + np.array([0, 7, 90]) * NS_PER_MINUTE))
    put(tmp_path, schema.GAPS, gap(start, start + 3 * 3600 * NS_PER_S))
    day = Partition("bars", "bybit", "BTCUSDT", DAY, "time_1s")
    assert DayEvents(tmp_path, day).last_ns() == start + 90 * NS_PER_MINUTE
    assert DayEvents(tmp_path, replace(day, date=NEXT_DAY)).last_ns() == MIDNIGHT_NS


def test_pieces_of_nothing_are_nothing() -> None:
    assert len(join_closed([])) == 0


def test_a_capture_shorter_than_a_bar_is_not_sent_back_to_the_bars_stage(tmp_path: Path) -> None:
    put(tmp_path, schema.TOP_OF_BOOK, quotes(MIDNIGHT_NS + NS_PER_S * np.arange(1, 30)))
    config = Config(
        data_dir=str(tmp_path),
        bars="time_1s",
        decision="1s",
        features=Features(sets=(), mine={"slow": "(at_1m close_price)"}),
    )
    with pytest.raises(StageError, match=r"bars=time_1s holds nothing .*run_pipeline\.py bars"):
        run_stages(config, {"features": build_features.run}, Console(quiet=True))
    run_stages(config, {"bars": run}, Console(quiet=True))
    with pytest.raises(StageError, match="no bar of time_1m closed in what was captured, which is shorter than one"):
        run_stages(config, {"features": build_features.run}, Console(quiet=True))
