"""The features stage with joins: days of several symbols and clocks, built together over midnight; what is stale."""

import io
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import store
from core.config import Config, Features
from core.errors import ConfigError, StageError
from core.run_record import RunRecord
from core.store import Partition
from core.units import NS_PER_DAY, NS_PER_S
from research.bars.bar_pass import ClosedBars
from research.bars.clocks import parse_clock
from research.bars.columns import bar_columns
from research.build_features import run
from research.catalogue import choose, compile_texts
from research.needs import needed_bars
from research.programs.panel import Panel
from tests.research.made_up_bars import trading

DAYS = ("2026-01-05", "2026-01-06")
NAMES = ("binance_um:BTCUSDT", "binance_um:ETHUSDT")
CLOCKS = ("time_1s", "time_10s", "volume_5")
SPAN_S = 300
COLUMNS = bar_columns(0)
MINE = {
    "trend": "(sub close_price (at_10s (mean_20s close_price)))",
    "bought": "(at_volume_5 (sum_2 buy_usd))",
    "with_eth": "(corr_20s bar_return_bps (of_ETHUSDT bar_return_bps))",
    "standing": "(cs_rank (sum_5s signed_usd))",
}


def made_up(name: str, clock: str) -> ClosedBars:
    """Bars from five minutes before midnight to five after."""
    seed = 1 + CLOCKS.index(clock) + 10 * NAMES.index(name)
    step_ns, midnight_ns = parse_clock(clock).step_ns, store.day_start_ns(DAYS[1])
    count = 2 * SPAN_S * NS_PER_S // step_ns if step_ns else 200
    close_ns = midnight_ns - SPAN_S * NS_PER_S + (np.arange(count) + 1) * (step_ns or 2_999_999_999)
    index = close_ns // step_ns - 1 if step_ns else np.arange(count)
    return ClosedBars(close_ns - step_ns, close_ns, index, trading(count, seed)[:, : len(COLUMNS)])


def put(root: Path, name: str, clock: str, bars: ClosedBars) -> None:
    """The bars by day of closing, of any days; a day without any has no partition."""
    days = (bars.close_ns - 1) // NS_PER_DAY
    for day in np.unique(days):
        part, mine = Partition("bars", *name.split(":"), store.date_of_ns(day * NS_PER_DAY), clock), days == day
        values = pl.DataFrame(bars.values[mine], schema=list(COLUMNS)).fill_nan(None)
        times = {each: getattr(bars, each)[mine] for each in ("open_ns", "close_ns", "bar_index")}
        store.write(root, part, pl.DataFrame(times).hstack(values))


def built(cfg: Config) -> str:
    """What the stage printed."""
    printed = io.StringIO()
    record = RunRecord(cfg, Console(file=printed, width=400))
    with record.stage("features") as stage:
        run(cfg, stage)
    return printed.getvalue()


def features_of(cfg: Config, name: str, date: str) -> pl.DataFrame:
    return store.read(cfg.root, Partition("features", *name.split(":"), date, cfg.bars))


def modified_ns(cfg: Config) -> dict[tuple[str, str], int]:
    parts = [Partition("features", *name.split(":"), date, cfg.bars) for name in NAMES for date in DAYS]
    return {(part.symbol, part.date): (cfg.root / part.path / "data.parquet").stat().st_mtime_ns for part in parts}


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    for name in NAMES:
        for clock in CLOCKS:
            put(tmp_path, name, clock, made_up(name, clock))
    return Config(data_dir=str(tmp_path), bars="time_1s", decision="1s", features=Features(sets=(), mine=MINE))


def test_days_are_built_as_one_run_over_all_symbols_and_clocks_would(cfg: Config) -> None:
    printed = built(cfg)
    program = compile_texts(choose((), MINE, cfg.bars), cfg.bars)
    for name, whole in Panel(program, NAMES).run(made_up).items():
        bars = made_up(name, cfg.bars)
        warm = np.isfinite(whole).all(axis=1)
        got = pl.concat([features_of(cfg, name, date) for date in DAYS])
        np.testing.assert_array_equal(got["decision_ns"].to_numpy(), bars.close_ns[warm])
        np.testing.assert_array_equal(got.select(list(MINE)).to_numpy(), whole[warm])
        assert features_of(cfg, name, DAYS[1]).height == SPAN_S, "the second day has no warm-up"
    assert "windows fill in 20 bars of time_1s and 1 bars of volume_5 and 1 bars of time_10s" in printed
    assert "binance_um:BTCUSDT: 580 of 600 decisions have all features; dropped: 20 while windows filled, 0" in printed


WINDOWS = {
    "(at_10s (mean_50s close_price))": 49,
    "(sub (mean_70s close_price) (at_10s (mean_50s close_price)))": 69,
    "(mean_20s (at_10s (delta_2 close_price)))": 48,
    "(of_ETHUSDT (lag_7s close_price))": 7,
    "(cs_rank (at_10s (of_ETHUSDT (lag_2 close_price))))": 29,
}


@pytest.mark.parametrize(("text", "rows"), WINDOWS.items())
def test_warm_up_is_of_all_windows_those_inside_joins_too(text: str, rows: int) -> None:
    program = compile_texts(choose((), {"x": text}, "time_1s"), "time_1s")
    assert program.warmup_bars == rows
    found = Panel(program, NAMES).run(made_up)[NAMES[0]]
    assert np.flatnonzero(np.isfinite(found[:, 0]))[0] == rows


def test_warm_up_on_bars_that_are_not_so_many_rows_is_not_told() -> None:
    assert compile_texts({"x": MINE["bought"]}, "time_1s").warmup_bars is None
    assert compile_texts({"x": "(mean_9 buy_usd)"}, "volume_5").warmup_bars == 8


def test_what_is_built_again_follows_the_bars_that_a_day_was_joined_with(cfg: Config) -> None:
    built(cfg)
    first = modified_ns(cfg)
    assert "unchanged" in built(cfg)
    other = made_up(NAMES[1], "time_10s")
    other.values[-1] *= 1.01
    put(cfg.root, NAMES[1], "time_10s", other)
    built(cfg)
    assert {day for day, at_ns in modified_ns(cfg).items() if at_ns != first[day]} == {
        (name.split(":")[1], DAYS[1]) for name in NAMES
    }
    alone = msgspec.structs.replace(cfg, features=Features(sets=(), mine={"trend": MINE["trend"]}))
    built(alone)
    second = modified_ns(alone)
    other.values[0] *= 1.01
    put(cfg.root, NAMES[1], "time_10s", other)
    built(alone)
    assert {day for day, at_ns in modified_ns(alone).items() if at_ns != second[day]} == {("ETHUSDT", DAYS[0])}, (
        "the state that the next day begins from is the same"
    )


def test_the_bars_stage_is_asked_for_every_clock_and_says_so_where_they_are_missing(cfg: Config) -> None:
    assert [clock.name for clock in needed_bars(cfg).clocks] == ["time_1s", "volume_5", "time_10s"]
    lacking = msgspec.structs.replace(cfg, features=Features(sets=(), mine={"f": "(at_1m close_price)"}))
    with pytest.raises(StageError, match=r"bars=time_1m holds nothing .*run_pipeline\.py bars"):
        built(lacking)
    for name in ("(of_SOLUSDT close_price)", "(of_bybit:ETHUSDT close_price)"):
        wrong = msgspec.structs.replace(cfg, features=Features(sets=(), mine={"f": name}))
        with pytest.raises(ConfigError, match=r"(?s)is none of .* run, binance_um:BTCUSDT.*at `\$\.features\.mine\.f`"):
            built(wrong)
        awaited = msgspec.structs.replace(wrong, symbols=(NAMES[0], "binance_um:SOLUSDT", "bybit:ETHUSDT"))
        with pytest.raises(ConfigError, match=r"(SOL|ETH)USDT has no bars yet, as binance_um:BTCUSDT have: capture it"):
            built(awaited)


def test_a_state_of_other_features_is_not_gone_on_from(cfg: Config) -> None:
    built(cfg)
    for name in NAMES:
        for clock in CLOCKS:
            for path in store.files(cfg.root, Partition("bars", *name.split(":"), DAYS[0], clock)):
                path.unlink()
    other = msgspec.structs.replace(cfg, features=Features(sets=(), mine={"other": "(cs_rank (sum_9s signed_usd))"}))
    built(other)
    assert features_of(other, NAMES[0], DAYS[1]).height == SPAN_S - 8


def test_a_symbol_without_bars_on_a_day_is_not_known_there(cfg: Config) -> None:
    for clock in CLOCKS:
        for path in store.files(cfg.root, Partition("bars", "binance_um", "ETHUSDT", DAYS[0], clock)):
            path.unlink()
    assert "BTCUSDT: 280 of 600 decisions have all features; dropped: 320 while windows filled, 0" in built(cfg)
    assert features_of(cfg, NAMES[0], DAYS[0]).height == 0
    assert features_of(cfg, NAMES[0], DAYS[1]).height == SPAN_S - 20


def test_a_symbol_that_is_away_for_a_day_comes_back_as_in_one_run(tmp_path: Path) -> None:
    """ETHUSDT has no bars on the second day, BTCUSDT none of time then, but some of volume, on which it goes on."""
    minutes = store.day_start_ns(DAYS[0]) + (np.arange(3 * 1440) + 1) * 60 * NS_PER_S
    is_second = (np.arange(minutes.size) // 1440) == 1
    closes = {
        (NAMES[0], "time_1m"): minutes[~is_second],
        (NAMES[0], "volume_5"): minutes[::50] - 1,
        (NAMES[1], "time_1m"): minutes[~is_second],
        (NAMES[1], "volume_5"): minutes[~is_second][::40] - 1,
        ("binance_um:SOLUSDT", "time_1m"): minutes,
        ("binance_um:SOLUSDT", "volume_5"): minutes[::30] - 1,
    }
    made: dict[tuple[str, str], ClosedBars] = {}
    for seed, ((name, clock), close_ns) in enumerate(closes.items()):
        index = close_ns // (60 * NS_PER_S) - 1 if clock == "time_1m" else np.arange(close_ns.size)
        values = trading(close_ns.size, seed)[:, : len(COLUMNS)]
        made[name, clock] = ClosedBars(close_ns - NS_PER_S, close_ns, index, values)
        put(tmp_path, name, clock, made[name, clock])
    mine = {
        "of_eth": "(sub (of_ETHUSDT (at_volume_5 (mean_20 close_price))) close_price)",
        "own": "(at_volume_5 (mean_40 close_price))",
        "slow": "(at_volume_5 (ewm_mean_2 (of_ETHUSDT close_price)))",
    }
    cfg = Config(data_dir=str(tmp_path), bars="time_1m", decision="1m", features=Features(sets=(), mine=mine))
    built(cfg)
    names = sorted({name for name, _ in closes})
    for name, whole in Panel(compile_texts(mine, cfg.bars), names).run(lambda *place: made[place]).items():
        warm = np.isfinite(whole).all(axis=1)
        parts = [Partition("features", *name.split(":"), store.date_of_ns(ns), cfg.bars) for ns in minutes[::1440]]
        got = pl.concat([store.read(tmp_path, part) for part in parts if store.files(tmp_path, part)])
        np.testing.assert_array_equal(got["decision_ns"].to_numpy(), made[name, cfg.bars].close_ns[warm])
        np.testing.assert_array_equal(got.select(list(mine)).to_numpy(), whole[warm])
        assert warm[-1200:].all()
    assert "unchanged" in built(cfg)
