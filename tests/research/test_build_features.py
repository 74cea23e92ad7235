"""The stage on a small made-up market: decisions, midnight, what is built again, quiet and short stretches."""

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import store
from core.config import Config, Features
from core.errors import ConfigError, StageError
from core.run_record import RunRecord, Stage
from core.schema import BARS, FEATURES
from core.store import Partition
from core.units import NS_PER_S
from research.bars.columns import BAR_COLUMNS, bar_columns
from research.build_features import run
from research.catalogue import SETS
from research.day_state import state_path
from research.language import compile_features
from research.quality.feature_counts import Filling, Stretches, bars_filled, stretches

STEP_NS = NS_PER_S // 5
DAYS = ("2026-01-05", "2026-01-06")
FOLDER = "features/exchange=binance_um/symbol=BTCUSDT/date={}/bars=time_200ms"


def make_bars(first_ns: int, n: int, seed: int, quiet: bool = False) -> pl.DataFrame:
    """`n` bars of 200 ms: a random walk with trades, or nothing but a standing book."""
    rng = np.random.default_rng(seed)
    mid = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.0 if quiet else 1e-4, n)))
    flow = rng.exponential(1.0, (n, 11)) * (not quiet)
    prices = {
        "bid_price": mid - 0.01,
        "ask_price": mid + 0.01,
        "bid_qty": 1.0 + flow[:, 0],
        "ask_qty": 1.0 + flow[:, 1],
    }
    prices |= {"open_price": mid, "high_price": mid, "low_price": mid, "close_price": mid}
    flows = {name: flow[:, k] for k, name in enumerate(BAR_COLUMNS[8:19])}
    unknown = dict.fromkeys(BAR_COLUMNS[19:23], np.full(n, np.nan))
    marks = {"is_empty": np.full(n, float(quiet)), "has_gap": np.zeros(n)}
    open_ns = first_ns + STEP_NS * np.arange(n)
    times = {"open_ns": open_ns, "close_ns": open_ns + STEP_NS, "bar_index": open_ns // STEP_NS}
    values = prices | flows | unknown | marks
    frame = pl.DataFrame(times | {name: values.get(name, np.zeros(n)) for name in BAR_COLUMNS})
    return frame.with_columns(pl.col(BAR_COLUMNS).fill_nan(None))


def put_bars(root: Path, date: str, bars: pl.DataFrame) -> Partition:
    part = Partition("bars", "binance_um", "BTCUSDT", date, "time_200ms")
    store.write(root, part, bars)
    return part


def run_stage(cfg: Config) -> tuple[Stage, RunRecord, str]:
    printed = io.StringIO()
    record = RunRecord(cfg, Console(file=printed, width=400))
    with record.stage("features") as stage:
        run(cfg, stage)
    return stage, record, printed.getvalue()


def features_of(cfg: Config, date: str) -> pl.DataFrame:
    return store.read(cfg.root, Partition("features", "binance_um", "BTCUSDT", date, "time_200ms"))


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    """Two days that meet at midnight, 10 minutes on either side."""
    midnight = store.day_start_ns(DAYS[1])
    both = make_bars(midnight - 3000 * STEP_NS, 6000, seed=1)
    put_bars(tmp_path, DAYS[0], both.head(3000))
    put_bars(tmp_path, DAYS[1], both.tail(3000))
    return Config(data_dir=str(tmp_path), features=Features(sets=("momentum", "ofi")))


def test_what_remembers_everything_goes_on_over_midnight_and_follows_a_change_of_the_past(cfg: Config) -> None:
    mine = {"slow": "(ewm_mean_300 close_price)", "fast": "(mean_10 close_price)"}
    cfg = msgspec.structs.replace(cfg, features=Features(sets=(), mine=mine))
    run_stage(cfg)
    bars = pl.concat([store.read(cfg.root, part) for part in store.partitions(cfg.root, BARS, bars="time_200ms")])
    whole = compile_features(mine, ["close_price"], "200ms").evaluate(bars)
    got = pl.concat([features_of(cfg, date) for date in DAYS])
    rows = np.flatnonzero(bars["close_ns"].is_in(got["decision_ns"].implode()).to_numpy())
    np.testing.assert_array_equal(got.select("slow", "fast").to_numpy(), whole[rows])
    assert features_of(cfg, DAYS[1]).height == 600, "the second day has no warm-up"

    before = features_of(cfg, DAYS[1])
    for path in store.files(cfg.root, Partition("features", "binance_um", "BTCUSDT", DAYS[0], "time_200ms")):
        path.unlink()
    run_stage(cfg)
    assert features_of(cfg, DAYS[1]).equals(before), "the day before is built again, not its forgotten state trusted"

    put_bars(cfg.root, DAYS[0], make_bars(store.day_start_ns(DAYS[1]) - 3000 * STEP_NS, 3000, seed=7))
    run_stage(cfg)
    after = features_of(cfg, DAYS[1])
    assert not after["slow"].equals(before["slow"])
    assert after["fast"][10:].equals(before["fast"][10:])


def test_rows_stand_at_the_decisions_once_the_windows_are_full(cfg: Config) -> None:
    stage, record, printed = run_stage(cfg)
    first, second = (features_of(cfg, date) for date in DAYS)
    assert (first["decision_ns"] % NS_PER_S == 0).all()
    assert (
        first["decision_ns"][0] == store.day_start_ns(DAYS[1]) - 1495 * STEP_NS
    )  # 1500 bars fill, then the next second
    assert second.height == 600
    assert (stage.rows_in, stage.rows_out) == (6000, first.height + second.height)
    section = record.sections["features"]
    assert (section["count"], section["names"]) == (len(first.columns) - 1, first.columns[1:])
    assert "900 of 1,200 decisions have all features; dropped: 300 while windows filled, 0 not finite" in printed


def test_midnight_leaves_no_seam(cfg: Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_stage(cfg)
    both = pl.concat([store.read(cfg.root, part) for part in store.partitions(cfg.root, BARS, bars="time_200ms")])
    whole = Config(data_dir=str(tmp_path_factory.mktemp("whole")), features=cfg.features)
    put_bars(whole.root, DAYS[0], both)
    run_stage(whole)
    assert pl.concat([features_of(cfg, date) for date in DAYS]).equals(features_of(whole, DAYS[0]))


@pytest.mark.parametrize("also", [{}, {"y": "(ewm_mean_2 close_price)"}], ids=["read back", "from states"])
def test_windows_longer_than_a_day_fill_over_several(also: dict[str, str], tmp_path: Path) -> None:
    mine = {"x": "(mean_36 close_price)"} | also
    hour_ns, n = 3600 * NS_PER_S, 24 * 6
    close_ns = store.day_start_ns(DAYS[0]) + hour_ns * (np.arange(n) + 1)
    times = {"open_ns": close_ns - hour_ns, "close_ns": close_ns, "bar_index": close_ns // hour_ns - 1}
    bars = make_bars(0, n, seed=4).with_columns(pl.Series(name, each) for name, each in times.items())
    parts = [Partition("bars", "binance_um", "BTCUSDT", store.date_of_ns(ns), "time_1h") for ns in close_ns[::24] - 1]
    for k, part in enumerate(parts):
        store.write(tmp_path, part, bars[24 * k : 24 * k + 24])
    cfg = Config(data_dir=str(tmp_path), bars="time_1h", decision="1h", features=Features(sets=(), mine=mine))
    _, _, printed = run_stage(cfg)
    assert f"{n - 35} of {n} decisions have all features; dropped: 35 while windows filled, 0 not finite" in printed
    got = pl.concat([store.read(tmp_path, part.of(FEATURES, "time_1h")) for part in parts])
    whole = compile_features(mine, ["close_price"], "1h").evaluate(bars)[35:]
    np.testing.assert_array_equal(got.select(list(mine)).to_numpy(), whole)

    store.write(tmp_path, parts[0], bars[:24].with_columns(close_price=pl.col("close_price") * 2))
    run_stage(cfg)
    again = pl.concat([store.read(tmp_path, part.of(FEATURES, "time_1h")) for part in parts])
    reach = 24  # a window that ends in the third day's first half begins in the first
    assert (again["x"] != got["x"]).to_list() == [k < reach for k in range(n - 35)]


def modified_ns(cfg: Config) -> dict[str, int]:
    return {date: (cfg.root / FOLDER.format(date) / "data.parquet").stat().st_mtime_ns for date in DAYS}


def test_what_did_not_change_is_not_built_again(cfg: Config) -> None:
    _, record, printed = run_stage(cfg)
    built = modified_ns(cfg)
    stage, again, repeated = run_stage(cfg)
    assert stage.reused
    assert modified_ns(cfg) == built
    assert again.sections == record.sections
    assert printed.splitlines()[1] in repeated
    (cfg.root / FOLDER.format(DAYS[1]) / "data.parquet").unlink()
    assert not run_stage(cfg)[0].reused
    assert modified_ns(cfg)[DAYS[0]] == built[DAYS[0]]
    put_bars(cfg.root, DAYS[1], make_bars(store.day_start_ns(DAYS[1]), 3000, seed=2))
    run_stage(cfg)
    assert modified_ns(cfg)[DAYS[0]] == built[DAYS[0]]
    assert modified_ns(cfg)[DAYS[1]] > built[DAYS[1]]


def test_a_change_of_the_day_before_or_of_the_features_builds_again(cfg: Config) -> None:
    run_stage(cfg)
    built = modified_ns(cfg)
    put_bars(cfg.root, DAYS[0], make_bars(store.day_start_ns(DAYS[0]), 3000, seed=2))
    run_stage(cfg)
    rebuilt = modified_ns(cfg)
    assert all(rebuilt[date] > built[date] for date in DAYS)
    run_stage(msgspec.structs.replace(cfg, features=Features(sets=("tob",))))
    assert features_of(cfg, DAYS[0]).columns[1:] == list(SETS["tob"])


def test_a_quiet_market_loses_no_row_once_the_windows_are_full(tmp_path: Path) -> None:
    put_bars(tmp_path, DAYS[0], make_bars(store.day_start_ns(DAYS[0]), 3000, seed=1, quiet=True))
    cfg = Config(data_dir=str(tmp_path))
    stage, _, _ = run_stage(cfg)
    frame = features_of(cfg, DAYS[0])
    assert stage.rows_out == frame.height == 300
    assert frame.select(pl.col(pl.Float64).is_finite().all()).row(0) == (True,) * (frame.width - 1)


def test_a_stretch_shorter_than_the_windows_says_so(tmp_path: Path) -> None:
    put_bars(tmp_path, DAYS[0], make_bars(store.day_start_ns(DAYS[0]), 1000, seed=1))
    longest = r"longest window, that of return_bps_300s, 1,500 bars \(300 s\): capture more"
    with pytest.raises(StageError, match=f"no decision of binance_um:BTCUSDT has all features: .* {longest}"):
        run_stage(Config(data_dir=str(tmp_path)))
    assert features_of(Config(data_dir=str(tmp_path)), DAYS[0]).height == 0, "the table is there, and empty"


def test_a_feature_that_is_often_unknown_is_named(cfg: Config) -> None:
    own = msgspec.structs.replace(cfg, features=Features(sets=("time",), mine={"half": "(log (delta_1 close_price))"}))
    stage, record, printed = run_stage(own)
    row = record.sections["features"]["rows"][0]
    assert list(row["blame"]) == ["half"]
    assert row["unknown"] == row["blame"]["half"] > 300
    assert stage.rows_out == row["decisions"] - row["unknown"] - row["filling"]
    assert f"half was not finite in {row['unknown']:,} decisions" in printed


def test_what_was_never_finite_is_named_and_no_window_is_blamed(cfg: Config) -> None:
    never = {"never": "(log (sub 0 close_price))"}
    with pytest.raises(StageError, match="never all finite once windows were full, look at never") as failed:
        run_stage(msgspec.structs.replace(cfg, features=Features(sets=("time",), mine=never)))
    assert "shorter" not in str(failed.value)


def test_decisions_are_filling_until_the_buckets_of_volume_are_full_also_after_a_gap(cfg: Config) -> None:
    """20 buckets of 100 bars each: 400 s from the first bar, and longer than the 300 s that are left after the gap."""
    second = Partition("bars", "binance_um", "BTCUSDT", DAYS[1], "time_200ms")
    with_gap = pl.when(pl.int_range(pl.len()) == 1500).then(1.0).otherwise(0.0).alias("has_gap")
    put_bars(cfg.root, DAYS[1], store.read(cfg.root, second).with_columns(with_gap))
    mine = {"toxic": "(vpin_20 buy_qty sell_qty 200)", "half": "(log (delta_1 close_price))"}
    _, record, printed = run_stage(msgspec.structs.replace(cfg, features=Features(sets=(), mine={**mine})))
    row = record.sections["features"]["rows"][0]
    assert row["filling"] == pytest.approx(400 + 300, abs=30)
    assert list(row["blame"]) == ["half"]
    assert row["unknown"] == row["blame"]["half"] == pytest.approx((200 + 300) / 2, abs=50)
    frame = features_of(cfg, DAYS[0])
    assert frame["toxic"].is_between(0.0, 1.0).all()
    assert "toxic was not finite" not in printed


def test_too_little_volume_for_the_buckets_is_what_a_user_is_told(cfg: Config) -> None:
    mine = {"toxic": "(vpin_20 buy_qty sell_qty 1e6)"}
    with pytest.raises(StageError, match="too little was traded to fill the buckets of toxic: capture more"):
        run_stage(msgspec.structs.replace(cfg, features=Features(sets=("time",), mine=mine)))


def test_without_bars_the_message_names_the_stage_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"run_pipeline\.py bars"):
        run_stage(Config(data_dir=str(tmp_path)))


def test_bars_without_the_levels_that_features_read_are_an_error_that_says_so(cfg: Config) -> None:
    deep = msgspec.structs.replace(cfg, features=Features(mine={"deep": "(sub bid_qty_3 ask_qty_2)"}))
    with pytest.raises(StageError, match=r"time_200ms hold 0 levels of the book, the features read 3: run .* bars`"):
        run_stage(deep)
    part = store.partitions(cfg.root, BARS, bars="time_200ms")[1]
    more = {name: pl.lit(1.0) for name in bar_columns(3)[len(BAR_COLUMNS) :]}
    store.write(cfg.root, part, store.read(cfg.root, part).with_columns(**more))
    with pytest.raises(StageError, match=rf"{DAYS[0]}: bars of time_200ms hold 0 levels"):
        run_stage(deep)


def test_a_broken_feature_is_an_error_of_the_configuration(cfg: Config) -> None:
    with pytest.raises(ConfigError, match=r"features\.mine\.bad"):
        run_stage(msgspec.structs.replace(cfg, features=Features(mine={"bad": "(sub imbalance"})))


@pytest.mark.parametrize(
    ("gaps", "lost", "expected"),
    [
        ([], [], Stretches(0, 20)),
        ([3, 4, 5], [], Stretches(1, 14)),
        ([0], [10], Stretches(2, 9)),
        ([3], [4, 5], Stretches(1, 14)),
        (range(20), [], Stretches(1, 0)),
    ],
)
def test_bars_with_a_gap_in_a_row_part_two_stretches_once(
    gaps: Sequence[int], lost: Sequence[int], expected: Stretches, tmp_path: Path
) -> None:
    bars = make_bars(store.day_start_ns(DAYS[0]), 20, seed=1)
    marked = bars.with_columns(has_gap=pl.int_range(20).is_in(list(gaps)).cast(pl.Float64))
    part = put_bars(tmp_path, DAYS[0], marked.filter(~pl.int_range(20).is_in(list(lost))))
    assert stretches(tmp_path, [part, replace(part, date=DAYS[1])]) == expected


@pytest.mark.parametrize(
    ("every", "restarts", "span"), [(100, "59 times", "100 bars (20 s)"), (2900, "2 times", "2,900 bars (580 s)")]
)
@pytest.mark.parametrize("is_lost", [False, True])
def test_windows_that_gaps_part_are_told_from_a_stretch_that_is_too_short(
    cfg: Config, every: int, restarts: str, span: str, is_lost: bool
) -> None:
    """A gap in each so many bars, or the bar itself left out."""
    for date in DAYS:
        frame = store.read(cfg.root, Partition("bars", "binance_um", "BTCUSDT", date, "time_200ms"))
        number = pl.col("bar_index") - store.day_start_ns(DAYS[1]) // STEP_NS + 3000
        is_hit = (number % every == 0) & (number > 0)
        marked = frame.filter(~is_hit) if is_lost else frame.with_columns(is_hit.cast(pl.Float64).alias("has_gap"))
        put_bars(cfg.root, date, marked)

    def told(window: int) -> str:
        mine = {"short": "(mean_10 close_price)", "long": f"(mean_{window} close_price)"}
        with pytest.raises(StageError) as failed:
            run_stage(msgspec.structs.replace(cfg, features=Features(sets=(), mine=mine)))
        return str(failed.value)

    why = f"after a gap in the bars, here {restarts}, and the longest stretch without one, {span}, is no longer than"
    assert f"{why} the longest window, that of long, {span}: choose" in told(every + 1)
    assert "the stretch is shorter than the longest window, that of long, 6,000 bars (1200 s): capture" in told(6001)


@pytest.mark.parametrize("cut", range(8))
def test_bars_are_counted_since_the_last_restart_and_since_all_was_joined(cut: int) -> None:
    index, unknown = np.array([7, 8, 9, 12, 13, 14, 15]), np.nan
    has_gap = np.array([False, False, False, False, False, True, False])
    for joined, expected in (
        ([1.0] * 7, [0, 1, 2, 0, 1, -1, 0]),
        ([unknown, 1, unknown, 2, 3, 4, 5], [-1, 0, 1, 0, 1, -1, 0]),
    ):
        columns = np.array(joined)[:, None]
        first, last = bars_filled(index[:cut], has_gap[:cut], columns[:cut], Filling())
        rest, _ = bars_filled(index[cut:], has_gap[cut:], columns[cut:], last)
        np.testing.assert_array_equal([*first, *rest], expected)


def test_a_state_whose_day_is_gone_is_not_gone_on_from(cfg: Config) -> None:
    cfg = msgspec.structs.replace(cfg, features=Features(sets=(), mine={"slow": "(ewm_mean_300 close_price)"}))
    run_stage(cfg)
    for table in ("bars", "features"):
        for path in store.files(cfg.root, Partition(table, "binance_um", "BTCUSDT", DAYS[0], "time_200ms")):
            path.unlink()
    run_stage(cfg)
    assert features_of(cfg, DAYS[1]).height == (3000 - 7 * 300) // 5 + 1


def test_a_state_that_is_lost_is_made_again(cfg: Config) -> None:
    cfg = msgspec.structs.replace(cfg, features=Features(sets=(), mine={"slow": "(ewm_mean_300 close_price)"}))
    run_stage(cfg)
    part = Partition("features", "binance_um", "BTCUSDT", DAYS[1], "time_200ms")
    path = state_path(cfg.root, part)
    state = path.read_bytes()
    path.unlink()
    assert not run_stage(cfg)[0].reused
    assert path.read_bytes() == state
    assert run_stage(cfg)[0].reused
