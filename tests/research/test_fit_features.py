"""The stage `fit` on made-up days: what it looks at, what it leaves out of all that follows, what becomes stale."""

import io
import re
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import store
from core.cli import StageRun
from core.config import Config, Features
from core.errors import ConfigError, StageError
from core.run_record import RunRecord
from core.schema import BARS, FEATURES
from core.store import Partition
from core.units import NS_PER_DAY, NS_PER_MINUTE
from research import build_features, fit_features
from research.bars.columns import BAR_COLUMNS
from research.fitting.fitted import Fitted, chosen_features, features_so_far, read_fitted, write_fitted
from research.fitting.stationarity import is_stationary
from research.language import compile_features
from research.needs import needed_bars

BAR = "time_1m"
FIRST_NS = store.day_start_ns("2026-01-05")
N_DAYS = 8
BORDER = "2026-01-11T00:00:00Z"
BORDER_NS = store.day_start_ns("2026-01-11")
ORDERED = {"fractional_bps_least", "regime_likely", "regime_entropy"}  # a step on a grid, texts that name others
REGIMES = {"regime_turbulent", "regime_likely", "regime_entropy"}
NAMES = REGIMES | {"fractional_bps_least", "volume_unseasonal", "volatility_unseasonal"}


def write_day(root: Path, symbol: str, day: int, seed: int) -> None:
    """A day of minute bars: a random walk, livelier in every other third of a day, with a daily wave of volume."""
    rng, n = np.random.default_rng(seed), 1440
    open_ns = FIRST_NS + day * NS_PER_DAY + NS_PER_MINUTE * np.arange(n)
    lively = 1.0 + 4.0 * (np.arange(n) // 480 % 2)
    mid = 100.0 * np.exp(np.cumsum(rng.normal(0.0, 1e-4, n) * lively))
    values = dict.fromkeys(BAR_COLUMNS, np.zeros(n))
    values |= dict.fromkeys(("open_price", "high_price", "low_price", "close_price"), mid)
    values |= {"bid_price": mid - 0.01, "ask_price": mid + 0.01, "bid_qty": np.ones(n), "ask_qty": np.ones(n)}
    wave = np.exp(np.cos(2 * np.pi * np.arange(n) / n))
    values |= {"buy_usd": 1e5 * wave * rng.lognormal(size=n), "sell_usd": 1e5 * wave * rng.lognormal(size=n)}
    times = {"open_ns": open_ns, "close_ns": open_ns + NS_PER_MINUTE, "bar_index": open_ns // NS_PER_MINUTE}
    part = Partition("bars", "binance_um", symbol, store.date_of_ns(open_ns[0]), BAR)
    store.write(root, part, pl.DataFrame(times | values))


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    for day in range(N_DAYS):
        for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
            write_day(tmp_path, symbol, day, seed=10 * day + seed)
    features = Features(sets=("fitted",), mine={"gap": "(sub ask_price bid_price)"}, fit_until=BORDER)
    return Config(data_dir=str(tmp_path), bars=BAR, decision="1m", features=features)


def run_stage(cfg: Config, name: str, run: StageRun) -> tuple[RunRecord, str]:
    printed = io.StringIO()
    record = RunRecord(cfg, Console(file=printed, width=400))
    with record.stage(name) as stage:
        run(cfg, stage)
    return record, printed.getvalue()


def fitted(cfg: Config) -> Fitted:
    run_stage(cfg, "fit", fit_features.run)
    found = read_fitted(cfg.root, cfg.bars)
    assert found
    return found


def decisions(cfg: Config) -> pl.Series:
    return pl.concat(
        store.read(cfg.root, part)["decision_ns"] for part in store.partitions(cfg.root, FEATURES, bars=BAR)
    )


def with_features(cfg: Config, **settings: object) -> Config:
    return msgspec.structs.replace(cfg, features=msgspec.structs.replace(cfg.features, **settings))


def test_numbers_come_from_bars_up_to_the_border_alone(cfg: Config) -> None:
    first = fitted(cfg)
    assert first.features.keys() == NAMES
    assert first.until_ns == BORDER_NS
    for day in (6, 7):  # another future
        write_day(cfg.root, "BTCUSDT", day, seed=99 + day)
    assert fitted(cfg) == first
    for part in store.partitions(cfg.root, BARS, bars=BAR):  # and none at all
        if part.date >= "2026-01-11":
            for path in store.files(cfg.root, part):
                path.unlink()
    assert fitted(cfg) == first
    write_day(cfg.root, "BTCUSDT", 1, seed=7)
    changed = fitted(cfg).features
    assert all(changed[name] != first.features[name] for name in NAMES - ORDERED)


def test_decisions_in_the_fitted_stretch_are_left_out_with_a_count(cfg: Config) -> None:
    fitted(cfg)
    record, printed = run_stage(cfg, "features", build_features.run)
    assert decisions(cfg).min() > BORDER_NS
    row = record.sections["features"]["rows"][0]
    assert (row["fitted"], row["decisions"]) == (6 * 1440, 2 * 1440)
    assert row["kept"] > 2800
    assert "8,640 more lie where numbers were fitted" in printed


def test_a_border_among_what_would_be_tested_on_drops_those_rows(cfg: Config) -> None:
    """The border is wherever the file says: no configuration lets a decision before it into the features."""
    late = with_features(cfg, fit_until="2026-01-12T12:00:00Z")
    fitted(late)
    run_stage(cfg, "features", build_features.run)
    assert decisions(cfg).min() > store.day_start_ns("2026-01-12") + NS_PER_DAY // 2
    everything = with_features(cfg, fit_until="2026-01-13T00:00:00Z")
    _, printed = run_stage(everything, "fit", fit_features.run)
    assert "no decision is after that" in printed
    with pytest.raises(StageError, match=r"fitted on all of it, run `fit` with an earlier features\.fit_until"):
        run_stage(cfg, "features", build_features.run)
    assert decisions(cfg).is_empty()


@pytest.mark.parametrize("outside", ["2026-01-04T00:00:00Z", "2026-01-13T00:01:00Z", "2027-01-01T00:00:00Z"])
def test_a_border_outside_of_the_bars_is_refused_with_their_dates_and_keeps_what_was_fitted(
    cfg: Config, outside: str
) -> None:
    kept = Fitted(BORDER_NS, {"volume_unseasonal": "traded_usd"})
    write_fitted(cfg.root, BAR, kept)
    with pytest.raises(StageError, match=f"from 2026-01-05T00:01:00Z to 2026-01-13T00:00:00Z, was {outside}"):
        run_stage(with_features(cfg, fit_until=outside), "fit", fit_features.run)
    assert read_fitted(cfg.root, BAR) == kept


def test_a_border_long_after_a_break_in_the_bars_fits_nothing(cfg: Config) -> None:
    write_day(cfg.root, "BTCUSDT", 60, seed=1)
    with pytest.raises(StageError, match="no bars of time_1m in the 30 days before 2026-03-01T00:00:00Z"):
        run_stage(with_features(cfg, fit_until="2026-03-01T00:00:00Z"), "fit", fit_features.run)
    assert read_fitted(cfg.root, BAR) is None


@pytest.mark.parametrize(
    ("sets", "remedy"), [(("book",), r"with these settings \|"), (("tob",), "sets that read them")]
)
def test_bars_without_levels_are_to_be_built_with_the_sets_that_read_them(
    cfg: Config, sets: tuple[str, ...], remedy: str
) -> None:
    _, printed = run_stage(with_features(cfg, sets=sets), "fit", fit_features.run)
    line = next(line for line in printed.splitlines() if line.startswith("ofi_component"))
    assert re.search(f"run `bars` .*{remedy}", line)


def test_without_a_border_the_first_share_of_the_time_is_fitted_on(cfg: Config) -> None:
    found = fitted(with_features(cfg, fit_until=None, fit_frac=0.75))
    assert found.until_ns == pytest.approx(BORDER_NS, abs=2 * NS_PER_MINUTE)


def test_a_stretch_too_short_for_a_season_leaves_it_out_and_says_why(cfg: Config) -> None:
    short = with_features(cfg, fit_until="2026-01-06T12:00:00Z")
    _, printed = run_stage(short, "fit", fit_features.run)
    assert "volatility_unseasonal: left out: a season needs every hour of the day on 2 days" in printed
    assert "regimes: left out: needs 1,000 values, the stretch has 0 once windows are full: capture more" in printed
    found = read_fitted(cfg.root, cfg.bars)
    assert found
    assert found.features.keys() == {"fractional_bps_least"}


def test_the_order_that_is_found_leaves_no_unit_root_in_the_feature_itself(cfg: Config) -> None:
    walk = np.random.default_rng(3).standard_normal(50_000).cumsum()
    rows = np.exp(4.6 + walk * 1e-4)[:, None]

    def observe(texts: Mapping[str, str], *_: int) -> list[fit_features.Observed]:
        values = compile_features(texts, ["mid"], cfg.bars, {"log_mid": "(log mid)"}).evaluate(rows)
        return [fit_features.Observed(np.arange(len(rows)), np.arange(len(rows)), values)]

    texts, line = fit_features.fit_order(cfg, observe)
    assert "order 0," not in line, "a random walk is to be differenced"
    definitions = {"log_mid": "(log mid)"}
    delivered = compile_features(texts, ["mid"], cfg.bars, definitions).evaluate(rows)[:, 0]
    level = compile_features({"x": "(mul 1e4 log_mid)"}, ["mid"], cfg.bars, definitions).evaluate(rows)[:, 0]
    assert is_stationary(delivered[np.isfinite(delivered)])
    assert not is_stationary(level)


def test_an_error_does_not_pass_for_a_reason_to_leave_a_number_out(
    cfg: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_features, "regime_features", lambda *_: str(int("no number")))
    with pytest.raises(ValueError, match="invalid literal"):
        run_stage(cfg, "fit", fit_features.run)


def test_features_built_with_other_numbers_are_removed(cfg: Config) -> None:
    fitted(cfg)
    run_stage(cfg, "features", build_features.run)
    run_stage(cfg, "fit", fit_features.run)
    assert not decisions(cfg).is_empty(), "the same numbers again leave all as it is"
    _, printed = run_stage(with_features(cfg, fit_until="2026-01-10T12:00:00Z"), "fit", fit_features.run)
    assert "16 days of features were built with other numbers" in printed
    assert not store.partitions(cfg.root, FEATURES, bars=BAR)


def test_naming_what_was_not_fitted_says_what_to_run(cfg: Config) -> None:
    with pytest.raises(StageError, match=r"nothing was fitted on time_1m.*run `python run_pipeline\.py fit` first"):
        run_stage(cfg, "features", build_features.run)
    assert [clock.name for clock in needed_bars(cfg).clocks] == [BAR], "bars can be built before"
    assert features_so_far(with_features(cfg, mine={})) == {}
    with pytest.raises(StageError, match="close from 2026-01-05T00:01:00Z"):
        run_stage(with_features(cfg, fit_until="2025-01-01T00:00:00Z"), "fit", fit_features.run)


def test_regimes_are_told_from_what_the_configuration_says(cfg: Config) -> None:
    texts = (
        "(log1p (mean_30 traded_usd))",
        "(log (max2 0.05 (ratio (std_150 bar_return_bps) (std_4500 bar_return_bps))))",
    )
    _, printed = run_stage(with_features(cfg, regime_inputs=texts, regime_states=(2,)), "fit", fit_features.run)
    assert "2 regimes" in printed
    found = read_fitted(cfg.root, cfg.bars)
    assert found
    broken = tuple(text.replace(" ", "\n\t", 1) for text in texts)
    run_stage(with_features(cfg, regime_inputs=broken, regime_states=(2,)), "fit", fit_features.run)
    assert read_fitted(cfg.root, cfg.bars) == found, "a line break is a space"
    assert all(text in found.features["regime_turbulent"] for text in texts)
    assert " 150) " in found.features["regime_turbulent"], "an observation is as old as its shortest window"
    for wrong, message in (("(meen_3 spread_bps)", "did you mean mean"), ("(at_5m mid)", "another clock")):
        with pytest.raises(ConfigError, match=f"(?s){message}.*at `\\$.features.regime_inputs`"):
            run_stage(with_features(cfg, regime_inputs=(wrong,)), "fit", fit_features.run)


def test_events_are_features_of_the_run(cfg: Config) -> None:
    own = with_features(cfg, sets=("time",), events=("2026-01-11T13:30:00Z",))
    assert {"minutes_to_event", "minutes_since_event", "gap", "is_us"} <= chosen_features(own).keys()
    with pytest.raises(ConfigError, match=r"features\.mine: 'is_us'.*at `\$\.features\.mine\.is_us`"):
        chosen_features(with_features(own, mine={"is_us": "1"}))


def test_ones_own_feature_takes_the_place_of_no_other(cfg: Config) -> None:
    write_fitted(cfg.root, BAR, Fitted(BORDER_NS, {"ofi_component": "ofi_qty"}))
    own = with_features(cfg, events=("2026-01-11T13:30:00Z",))
    for name, whose in (("ofi_component", "what `fit` found"), ("minutes_to_event", "features.events")):
        with pytest.raises(ConfigError, match=rf"'{name}' is a feature of {whose} - at `\$\.features\.mine\.{name}`"):
            chosen_features(with_features(own, mine={name: "1"}))
    assert chosen_features(with_features(cfg, sets=("time",), mine={"ofi_component": "1"}))["ofi_component"] == "1.0"


def test_bars_hold_the_levels_that_fitted_features_read(cfg: Config) -> None:
    assert needed_bars(cfg).levels == 0
    write_fitted(cfg.root, BAR, Fitted(BORDER_NS, {"ofi_component": "(sum_30 ofi_qty_10)"}))
    assert needed_bars(cfg).levels == 10
    assert needed_bars(with_features(cfg, sets=("time",))).levels == 0


def test_a_damaged_file_is_named_and_replaced(cfg: Config) -> None:
    first = fitted(cfg)
    path = cfg.root / "fitted" / f"{BAR}.toml"
    path.write_text(path.read_text().replace("until_ns", "until"))
    with pytest.raises(StageError, match=r"time_1m\.toml.*run `python run_pipeline\.py fit`, which replaces it"):
        chosen_features(cfg)
    assert fitted(cfg) == first
    path.write_text('until_ns = 1\n[features]\nx = "(add\n1 2)"\n')
    assert fitted(cfg) == first


@pytest.mark.parametrize("text", ["(add\n1 2)", '"\\\t\r\x01', "ä 🙂"])
def test_what_is_written_is_read_whatever_the_text(text: str, tmp_path: Path) -> None:
    written = Fitted(BORDER_NS, {"x": text})
    write_fitted(tmp_path, BAR, written)
    assert read_fitted(tmp_path, BAR) == written
