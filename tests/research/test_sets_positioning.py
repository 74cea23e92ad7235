"""The set `positioning`: 0 where nothing is known, moved by every series, and the figures that its words say."""

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from core.config import Config, Features
from core.units import NS_PER_MINUTE, NS_PER_S
from ingest.signal_names import delivered
from ingest.signals import merge_signals, signal_rows
from research.catalogue import ALL, CATALOGUE, choose, compile_texts
from research.sets.positioning import SETS
from tests.research.test_joined_features import CLOCKS, NAMES, made_up, put
from tests.research.test_signal_features import BEGIN_NS, BTC, ETH, Row, built, series

POSITIONING = SETS["positioning"]
PROGRAM = compile_texts(choose(("positioning",), {}, "time_1s"), "time_1s")
DAYS_BEFORE = 10
POSITIVE = ("ls_ratio_global", "ls_ratio_top", "ls_position_ratio", "taker_ratio", "oi", "oi_total")
EVERY = {
    **dict.fromkeys(POSITIVE, 5),
    **dict.fromkeys(("premium", "basis", "funding_rate_predicted"), 5),
    **dict.fromkeys(("liq_long", "liq_short"), 60),
    **dict.fromkeys(("funding_rate", "funding_velocity"), 480),
}
"""Minutes between two values."""


def walk(name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and values of a series up to five minutes before the bars end: around 1, or 0 where it may be negative."""
    step_ns = EVERY[name] * NS_PER_MINUTE
    last = (BEGIN_NS + 5 * NS_PER_MINUTE) // step_ns
    count = max(DAYS_BEFORE * 1440 // EVERY[name], 40)
    times = (last - count + 1 + np.arange(count)) * step_ns
    steps = 0.001 * np.random.default_rng(seed).normal(size=count).cumsum()
    return times, np.exp(steps) if name in POSITIVE else steps


def rows_of(name: str, seed: int) -> list[Row]:
    times, values = walk(name, seed)
    stored = f"{name}_btc_1h" if name.startswith("liq") else f"{name}_btc"
    resolution = {5: "5m", 60: "1h", 480: "settlement"}[EVERY[name]]
    if name.startswith("liq"):
        values = 0.5 + 0.4 * np.sin(1e4 * values)
    return [(stored, t, v, resolution, t + NS_PER_S) for t, v in zip(times.tolist(), values.tolist(), strict=True)]


@pytest.fixture(scope="module")
def cfg(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Features of the set over ten minutes of two symbols, of which one has series."""
    root = tmp_path_factory.mktemp("data")
    for name in NAMES:
        for clock in CLOCKS[:1]:
            put(root, name, clock, made_up(name, clock))
    for seed, name in enumerate(EVERY):
        place = ("all", "BTC") if name == "oi_total" else tuple(BTC.split(":"))
        merge_signals(root, *place, signal_rows(rows_of(name, seed)))
    found = Config(data_dir=str(root), bars="time_1s", features=Features(sets=("positioning",)))
    built(found)
    return found


def test_every_feature_is_explained_and_reads_what_is_delivered() -> None:
    assert all(each.says and each.unit and each.source for each in POSITIONING.values())
    assert {layer.name for layer in PROGRAM.signals} == {n + "_1h" * n.startswith("liq") for n in EVERY}
    assert {layer.name for layer in PROGRAM.signals} <= set(delivered(Config().poll))
    assert not set(POSITIONING) & set(CATALOGUE)
    assert not PROGRAM.is_chained
    assert PROGRAM.warmup_bars == 0


def test_all_leaves_the_set_out_and_both_may_be_named() -> None:
    assert list(choose((ALL,), {}, "time_200ms")) == list(CATALOGUE)
    assert list(choose((ALL, "positioning"), {}, "time_200ms")) == [*CATALOGUE, *POSITIONING]
    assert list(choose(("positioning",), {}, "volume_10")) == list(POSITIONING)


def test_what_nobody_polled_is_nothing(cfg: Config) -> None:
    nothing = {name: 60.0 if name == "ls_age_min" else 0.0 for name in POSITIONING}
    assert {name: set(series(cfg, name, ETH).values()) for name in POSITIONING} == {
        name: {value} for name, value in nothing.items()
    }


def test_every_feature_moves_or_at_least_says_something(cfg: Config) -> None:
    silent = [name for name in POSITIONING if set(series(cfg, name).values()) == {0.0}]
    assert silent == []
    still = {name for name in POSITIONING if len(set(series(cfg, name).values())) == 1}
    slow = {name for name in POSITIONING if name.startswith(("liq", "funding_settled", "funding_velocity"))}
    assert still <= slow, "a new value of five minutes came amid the bars"


def newest(name: str) -> np.ndarray:
    """The values known at the second 301: those known 30 s before."""
    times, values = walk(name, list(EVERY).index(name))
    return values[times + 31 * NS_PER_S <= BEGIN_NS + 301 * NS_PER_S]


def z(values: np.ndarray) -> float:
    return float((values[-1] - values.mean()) / values.std())


def test_figures_are_what_their_words_say(cfg: Config) -> None:
    ratio, interest, funding, basis = (newest(name) for name in ("ls_ratio_global", "oi", "funding_rate", "basis"))
    expected = {
        "ls_global_log": math.log(ratio[-1]),
        "ls_global_change_1h": math.log(ratio[-1] / ratio[-13]),
        "ls_global_z_1d": z(ratio[-288:]),
        "ls_global_rank_7d": (ratio[-2016:-1] < ratio[-1]).mean() - 0.5,
        "ls_top_gap_log": math.log(newest("ls_ratio_top")[-1] / ratio[-1]),
        "oi_change_bps_1d": 1e4 * math.log(interest[-1] / interest[-289]),
        "oi_share": interest[-1] / newest("oi_total")[-1],
        "funding_settled_bps_3d": 1e4 * funding[-9:].mean(),
        "funding_settled_z_10d": z(funding[-30:]),
        "funding_surprise_bps": 1e4 * (newest("funding_rate_predicted")[-1] - funding[-1]),
        "basis_change_bps_4h": 1e4 * (basis[-1] - basis[-49]),
        "taker_log_1h": np.log(newest("taker_ratio")[-12:]).mean(),
    }
    longs, shorts = (0.5 + 0.4 * np.sin(1e4 * newest(name)[-1]) for name in ("liq_long", "liq_short"))
    expected["liq_ratio_signed_1h"] = (longs - shorts) / (longs + shorts)
    found = {name: series(cfg, name)[301] for name in expected}
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_an_hour_without_liquidations_is_nobodys_whatever_the_hour_before_was(cfg: Config, tmp_path: Path) -> None:
    put(tmp_path, BTC, "time_1s", made_up(BTC, "time_1s"))
    hours = walk("liq_long", 0)[0][-3:-1].tolist()
    hour_before = {"liq_long_btc_1h": 5.0, "liq_short_btc_1h": 0.0, "liq_ratio_btc_1h": 1.0}
    rows = [(name, hours[0], value, "1h", hours[0]) for name, value in hour_before.items()]
    rows += [(name, hours[1], 0.0, "1h", hours[1]) for name in ("liq_long_btc_1h", "liq_short_btc_1h")]
    merge_signals(tmp_path, *BTC.split(":"), signal_rows(rows))
    quiet = msgspec.structs.replace(cfg, data_dir=str(tmp_path))
    built(quiet)
    assert series(quiet, "liq_ratio_signed_1h")[301] == 0.0


def test_a_series_that_stops_is_nothing_after_half_an_hour(cfg: Config, tmp_path: Path) -> None:
    put(tmp_path, BTC, "time_1s", made_up(BTC, "time_1s"))
    late = [row for row in rows_of("ls_ratio_global", 0) if row[1] <= BEGIN_NS - 25 * NS_PER_MINUTE]
    merge_signals(tmp_path, *BTC.split(":"), signal_rows(late))
    stopped = msgspec.structs.replace(cfg, data_dir=str(tmp_path))
    built(stopped)
    values = series(stopped, "ls_global_log")
    assert values[300] != 0.0
    assert values[301] == 0.0
