"""Slow series as features: what a bar may know of the table `signals`, and which days that builds again."""

import io
import re
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import store
from core.config import Config, Features, Signals, load
from core.errors import ConfigError, StageError
from core.run_record import RunRecord
from core.store import Partition
from core.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S
from ingest.signal_docs import page
from ingest.signals import merge_signals, signal_rows
from research.build_features import run
from research.catalogue import compile_texts
from research.fitting.fitted import chosen_features
from research.programs.panel import Panel
from research.sets.positioning import SETS
from run_pipeline import STAGES
from tests.research.test_joined_features import CLOCKS, DAYS, NAMES, features_of, made_up, put

BTC, ETH = NAMES
MIDNIGHT_NS = store.day_start_ns(DAYS[1])
BEGIN_NS = MIDNIGHT_NS - 5 * NS_PER_MINUTE
DELAY_S = 2.0
Row = tuple[str, int, float, str, int]


def known(seconds: float, value: float, name: str = "oi_btc", of: float | None = None, every: str = "1m") -> Row:
    """A value known `seconds` after the bars begin, of the time `of`: as late as it can be if not given."""
    time_s = seconds - 60 if of is None else of
    return name, BEGIN_NS + int(time_s * NS_PER_S), value, every, BEGIN_NS + int(seconds * NS_PER_S)


def put_signals(root: Path, rows: list[Row], instrument: str = BTC) -> None:
    merge_signals(root, *instrument.split(":"), signal_rows(rows))


def config(root: Path, **mine: str) -> Config:
    features = Features(sets=(), mine=mine)
    return Config(data_dir=str(root), bars="time_1s", features=features, signals=Signals(delay_s=DELAY_S))


def built(cfg: Config) -> str:
    """What the stage printed."""
    printed = io.StringIO()
    with RunRecord(cfg, Console(file=printed, width=400)).stage("features") as stage:
        run(cfg, stage)
    return printed.getvalue()


def series(cfg: Config, feature: str = "x", instrument: str = BTC) -> dict[int, float]:
    """A feature by the second of its decision since the bars begin."""
    frame = pl.concat([features_of(cfg, instrument, date) for date in DAYS if features_of(cfg, instrument, date).width])
    seconds = (frame["decision_ns"].to_numpy() - BEGIN_NS) // NS_PER_S
    return dict(zip(seconds.tolist(), frame[feature].to_list(), strict=True))


def modified_ns(cfg: Config) -> list[int]:
    parts = [Partition("features", *name.split(":"), date, cfg.bars) for name in NAMES for date in DAYS]
    return [(cfg.root / part.path / "data.parquet").stat().st_mtime_ns for part in parts]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        for clock in CLOCKS:
            put(tmp_path, name, clock, made_up(name, clock))
    return tmp_path


def test_a_value_is_seen_from_when_it_was_known_and_readable_never_by_its_time(root: Path) -> None:
    put_signals(root, [known(100, 1.0), known(160, 2.0, of=20)])  # the second is of an earlier time than the first
    put_signals(root, [known(200, 3.0, of=140)])
    cfg = config(root, x="(coalesce signal_oi -1)")
    built(cfg)
    found = series(cfg)
    assert found[101] == -1.0, "known, but not on disk yet"
    assert found[102] == 1.0
    assert found[201] == 1.0, "a value of an earlier time that came later is none"
    assert found[202] == 3.0


def test_a_revision_takes_the_place_of_what_it_revises_in_windows_too(root: Path) -> None:
    put_signals(root, [known(100, 1.0, of=10), known(110, 5.0, of=70), known(120, 2.0, of=70), known(130, 3.0, of=130)])
    cfg = config(root, x="signal_oi", mean="(coalesce (signal_oi (mean_2 value)) 0)")
    built(cfg)
    assert [series(cfg)[at] for at in (111, 112, 121, 122, 132)] == [1.0, 5.0, 5.0, 2.0, 3.0]
    assert [series(cfg, "mean")[at] for at in (111, 112, 122, 132)] == [0.0, 3.0, 1.5, 2.5]


def test_a_panel_that_reads_slow_series_is_not_made_without_them() -> None:
    program = compile_texts({"x": "(coalesce (signal_oi value) 0)"}, "time_1s")
    with pytest.raises(
        ValueError, match=r"read slow series \(oi\), and no signals were given: read them .*signal_table"
    ):
        Panel(program, [BTC])
    assert Panel(program, [BTC], signals={}).signals[BTC].names == []


def test_a_value_that_is_stale_is_not_known(root: Path) -> None:
    put_signals(root, [known(100, 1.0, of=90)])
    cfg = config(root, x="(coalesce signal_oi -1)", age="(coalesce (sub now_s (signal_oi time_s)) -1)")
    cfg = msgspec.structs.replace(cfg, signals=Signals(delay_s=DELAY_S, stale_intervals=2.0))
    built(cfg)
    assert (series(cfg)[90 + 120], series(cfg)[90 + 121]) == (1.0, -1.0)
    assert (series(cfg, "age")[102], series(cfg, "age")[150]) == (12.0, 60.0)


def test_windows_inside_a_signal_are_filled_by_what_the_table_has_of_before_the_bars(root: Path) -> None:
    put_signals(root, [known(-60 * k, float(k), of=-60 * k - 60) for k in range(1, 6)])
    cfg = config(root, x="(signal_oi (mean_5 value))")
    built(cfg)
    assert series(cfg)[1] == 3.0


def test_a_day_is_built_again_only_where_its_bars_see_something_new(root: Path) -> None:
    every = [known(60 * k, float(k)) for k in range(1, 10)]
    put_signals(root, every)
    put_signals(root, [known(30, 7.0, "oi_eth", of=0)], ETH)
    cfg = config(root, x="(coalesce (mean_5 signal_oi) 0)")
    built(cfg)
    before = modified_ns(cfg)
    put_signals(root, [known(599, 0.0), known(700, 9.0)])  # readable after the last bar; but within the second day
    put_signals(root, [known(2 * NS_PER_DAY / NS_PER_S, 8.0, of=250)])  # of the first day, known when it is over
    put_signals(root, [known(40, 7.0, "ls_ratio_global_btc")])  # another series
    built(cfg)
    assert [now == then for now, then in zip(modified_ns(cfg), before, strict=True)] == [True, False, True, True]
    before, second = modified_ns(cfg), features_of(cfg, BTC, DAYS[1])
    put_signals(root, [known(20, 6.0, of=-40)])
    built(cfg)
    assert [now == then for now, then in zip(modified_ns(cfg), before, strict=True)] == [False, True, True, True]
    assert features_of(cfg, BTC, DAYS[1]).equals(second)


JOINED = {
    "minute": "(at_10s (signal_oi (delta_2 value)))",
    "other": "(of_ETHUSDT (signal_oi (mean_2 value)))",
    "standing": "(cs_rank signal_oi)",
    "slow": "(mean_20s signal_oi)",
    "dear": "(corr_20s signal_oi close_price)",
}


def many(asset: str, seed: int) -> list[Row]:
    """A value every 7 s of the last minute, some revised, some late."""
    random = np.random.default_rng(seed)
    times = np.arange(-600, 600, 7)
    rows = [known(of + 1 + random.exponential(4), random.normal(), f"oi_{asset}", of, "1m") for of in times.tolist()]
    return rows + [known(of + 9 + random.exponential(9), random.normal(), f"oi_{asset}", of, "1m") for of in times[::3]]


def test_nothing_that_becomes_known_later_changes_a_feature(root: Path) -> None:
    cfg, until_s = config(root, **JOINED), 360
    rows = {BTC: many("btc", 1), ETH: many("eth", 2)}
    for name, mine in rows.items():
        put_signals(root, mine, name)
    built(cfg)
    whole = {name: [series(cfg, each, name) for each in JOINED] for name in NAMES}
    for change in ("truncated", "perturbed"):
        for name, mine in rows.items():
            for path in (root / "signals" / f"exchange={name.split(':')[0]}").glob(f"symbol={name.split(':')[1]}/*/*"):
                path.unlink()
            later = [row for row in mine if row[4] + DELAY_S * NS_PER_S > BEGIN_NS + until_s * NS_PER_S]
            put_signals(root, [row for row in mine if row not in later], name)
            if change == "perturbed":
                put_signals(root, [(*row[:2], -row[2], *row[3:]) for row in later], name)
        built(cfg)
        for name in NAMES:
            for k, each in enumerate(JOINED):
                now = series(cfg, each, name)
                past = {at: value for at, value in whole[name][k].items() if at <= until_s}
                assert len(past) > 200
                assert {at: value for at, value in now.items() if at <= until_s} == past
                assert now != whole[name][k]


def test_totals_over_venues_and_hourly_series_are_found_by_their_names(root: Path) -> None:
    put_signals(root, [known(10, 4.0, "oi_total_btc", every="5m")], "all:BTC")
    put_signals(root, [known(10, 5.0, "oi_total", every="5m")], "all:ALL")
    put_signals(root, [known(10, 6.0, "liq_long_btc_1h", every="1h"), known(10, 7.0, "oi_btc", every="1h")])
    mine = {"a": "signal_oi_total", "b": "signal_oi_total_all", "c": "signal_liq_long_1h", "d": "signal_oi_1h"}
    cfg = config(root, **mine)
    cfg = msgspec.structs.replace(cfg, symbols=(BTC,))
    built(cfg)
    assert [series(cfg, name)[20] for name in mine] == [4.0, 5.0, 6.0, 7.0]


def test_two_resolutions_of_one_name_must_be_told_apart(root: Path) -> None:
    put_signals(root, [known(10, 1.0, every="5m"), known(10, 2.0, every="1h")])
    with pytest.raises(StageError, match=r"signal oi: binance_um:BTCUSDT has values of 1h and 5m: .* signal_oi_1h"):
        built(config(root, x="signal_oi"))
    cfg = config(root, x="(coalesce signal_oi_5m 0)")
    built(cfg)
    assert series(cfg)[20] == 1.0


def test_a_series_that_the_table_lacks_is_told_and_not_known(root: Path) -> None:
    put_signals(root, [known(10, 1.0)])
    printed = built(config(root, x="(coalesce signal_oi 0)", y="(coalesce signal_taker_ratio 1)"))
    assert "table `signals`: no value of oi for binance_um:ETHUSDT: NaN there" in printed
    nowhere = "no value of taker_ratio for binance_um:BTCUSDT, binance_um:ETHUSDT: run `python run_pipeline.py poll`"
    assert nowhere in printed


def test_a_series_that_nothing_delivers_is_a_slip_of_the_pen(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"delivers ls_ratio_globl, did you mean ls_ratio_global\?(.|\n)*mine.x`"):
        chosen_features(config(root, x="signal_ls_ratio_globl"))
    with pytest.raises(ConfigError, match=r"delivers liq_long_btc_1h, did you mean liq_long_1h, without the asset\?"):
        chosen_features(config(root, x="signal_liq_long_btc_1h"))
    with pytest.raises(
        ConfigError, match=r"(?s)\n  \(neg signal_zzzz\)\n       \^\n  there are basis, .*, oi,"
    ) as caught:
        chosen_features(config(root, x="(neg signal_zzzz)"))
    assert max(map(len, str(caught.value).splitlines())) <= 100
    own = """
        [poll.providers.llama]
        host = "https://llama.test"
        [poll.collectors.supply]
        provider = "llama"
        path = "/supply"
        symbols = ["ALL"]
        time = "date"
        resolution = "1d"
        series = [{ name = "supply_usdt", fields = [{ path = "usd" }] }]
        [features]
        sets = []
        mine = { x = "(coalesce signal_supply_usdt 0)" }
    """
    (root / "own.toml").write_text(own)
    cfg = load(str(root / "own.toml"), options={"data_dir": str(root), "bars": "time_1s"})
    put_signals(root, [known(-40, 9.0, "supply_usdt", every="1d")], "llama:ALL")
    built(cfg)
    assert set(series(cfg).values()) == set(series(cfg, instrument=ETH).values()) == {9.0}


MISTAKES = {
    "(signal_oi imbalance)": "a signal has no imbalance: inside stand value and time_s alone",
    "(signal_oi (mean_5m value))": "mean_5m stands inside signal_oi, where windows count values: write mean_12",
    "(signal_oi (at_1m value))": "at_1m stands inside a signal, which has no bars: put it around",
    "(signal_oi (cs_rank value))": "cs_rank stands inside a signal",
    "(at_1m (signal_oi (signal_ls value)))": "signal_ls stands inside a signal",
    "(signal_Oi value)": "signal_ takes the name of a series, as in signal_ls_ratio_global",
    "(mean_5 value)": "unknown name value",
}


@pytest.mark.parametrize(("text", "why"), MISTAKES.items())
def test_what_cannot_stand_in_a_signal_is_told_with_its_place(text: str, why: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(why)) as told:
        chosen_features(config(Path(), x=text))
    assert re.search(r"\n +\^", str(told.value))


def test_the_example_of_the_page_on_signals_is_a_configuration(tmp_path: Path) -> None:
    [example] = re.findall(r"```toml\n(\[features\].+?)```", page(), re.DOTALL)
    (tmp_path / "pipeline.toml").write_text(example)
    chosen = chosen_features(load(root=tmp_path))
    assert {"crowd", "crowd_of_a_day", "interest_1h", *SETS["positioning"]} <= set(chosen)
    command = re.findall(r"^python run_pipeline\.py (poll bars .+)$", page(), re.MULTILINE)
    stages = command[0].split(" --")[0].split()
    assert [name for name in STAGES if name in stages] == stages
