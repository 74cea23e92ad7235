"""The stage `assess` on a made-up market: what it finds, and what it must not look at."""

import io
import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import schema, store
from core.cells import TakerCell
from core.config import Config, Features, Labels
from core.errors import StageError
from core.journal import Header
from core.run_record import RunRecord
from core.store import Partition
from core.units import NS_PER_S
from live.journal import Journal, state_sha256
from research import assess_features, catalogue
from tests.research.synthetic_tables import DATE, write_market

FEATURES = Features(sets=("ofi",))
NAMES = list(catalogue.choose(FEATURES.sets, {}, "200ms"))
CELLS = Labels(horizons_s=(1.0, 10.0), deltas_bps=(0.0,), gates_usd=(50.0,))
SYMBOLS = ("binance_um:BTCUSDT", "binance_um:ETHUSDT")


@pytest.fixture
def market(tmp_path: Path) -> Config:
    cfg = Config(data_dir=str(tmp_path), symbols=SYMBOLS, features=FEATURES, labels=CELLS)
    write_market(cfg, hours=6.0, edge_bps=20.0, seed=3, names=NAMES, bursts_per_hour=40.0)
    return cfg


def assessed(cfg: Config, width: int = 200) -> tuple[dict[str, Any], str]:
    printed = io.StringIO()
    record = RunRecord(cfg, Console(file=printed, width=width))
    with record.stage("assess") as stage:
        assess_features.run(cfg, stage)
    return {row["name"]: row for row in record.report()["assessment"]["features"]}, printed.getvalue()


def test_the_features_that_see_the_planted_drift_lead_and_noise_has_no_star(market: Config) -> None:
    found, printed = assessed(market)
    assert set(list(found)[:3]) == set(NAMES[:3])
    seen, noise = found[NAMES[0]]["ic"][1], [found[name]["ic"] for name in NAMES[3:]]
    assert seen["horizon_s"] == 10.0
    assert seen["ic"] > 0.02
    assert seen["q"] < 1e-3
    assert sum(each["q"] < 0.05 for row in noise for each in row) <= 1
    assert "*" in next(line for line in printed.splitlines() if line.startswith(NAMES[0] + " "))


def test_returns_of_the_hold_out_are_not_looked_at(market: Config) -> None:
    before, _ = assessed(market)
    parts = store.require(market.root, schema.LABELS, SYMBOLS)
    for part in parts:
        frame = store.read(market.root, part)
        late = pl.int_range(pl.len()) > 0.81 * frame.height
        changed = [
            pl.when(late).then(-pl.col(name) + 7.0).otherwise(pl.col(name)).alias(name)
            for cell in map(TakerCell, CELLS.horizons_s)
            for name in (cell.ret_bps, cell.net_bps(1), cell.net_bps(-1))
        ]
        store.write(market.root, part, frame.with_columns(changed), store.built_from(market.root, part))
    after, _ = assessed(market)
    assert after == {name: row | {"cost_ns": after[name]["cost_ns"]} for name, row in before.items()}


def test_a_move_that_is_over_when_an_order_can_arrive_predicts_nothing(market: Config) -> None:
    """As on bars of volume, which close at the trade that moves the mid, before the quote that tells of it."""
    for part in store.require(market.root, schema.LABELS, SYMBOLS):
        seen = store.read(market.root, part.of(schema.FEATURES, market.bars), ["decision_ns", NAMES[3]])
        frame = store.read(market.root, part)
        moves = [
            (pl.col(cell.ret_bps) + 5.0 * seen[NAMES[3]]).alias(cell.ret_bps)
            for cell in map(TakerCell, CELLS.horizons_s)
        ]
        store.write(market.root, part, frame.with_columns(moves), store.built_from(market.root, part))
    found, _ = assessed(market)
    assert all(abs(each["ic"]) < 0.03 for each in found[NAMES[3]]["ic"])


def test_drift_is_against_the_hold_out(market: Config) -> None:
    for part in store.require(market.root, schema.FEATURES, SYMBOLS, market.bars):
        frame = store.read(market.root, part)
        late = pl.int_range(pl.len()) > 0.8 * frame.height
        moved = pl.when(late).then(pl.col(NAMES[3]) + 2.0).otherwise(pl.col(NAMES[3])).alias(NAMES[3])
        store.write(market.root, part, frame.with_columns(moved), store.built_from(market.root, part))
    found, printed = assessed(market)
    assert found[NAMES[3]]["psi"] > 1.0 > 0.1 > found[NAMES[4]]["psi"]
    assert found[NAMES[3]]["psi_live"] is None
    assert f"moved to the hold-out, PSI > 0.2, the calendar aside: {NAMES[3]} " in printed


def test_drift_is_against_the_last_live_session_too_where_its_features_are_those_assessed(market: Config) -> None:
    texts = catalogue.choose(FEATURES.sets, {}, "200ms")
    rows = np.random.default_rng(3).normal(size=(4_000, len(NAMES)))
    put_session(market.root / "live" / "model" / "old", texts, rows + 3.0)
    rows[:, 3] += 2.0
    put_session(market.root / "live" / "model" / "new", texts | {NAMES[4]: "(lag_1 spread_bps)"}, rows)
    put_session(market.root / "live" / "model" / "other", {"alone": "spread_bps"}, rows[:, :1])
    for age, name in enumerate(["other", "new", "old"]):
        for path in (folder := market.root / "live" / "model" / name).rglob("*"):
            os.utime(path, (1e9 - age, 1e9 - age))
        os.utime(folder, (1e9 - age, 1e9 - age))
    found, printed = assessed(market)
    moved = {name: row["psi_live"] for name, row in found.items()}
    assert moved[NAMES[3]] > 1.0
    assert moved[NAMES[4]] is None, "of that name the session had another feature"
    assert all(moved[name] < 0.1 for name in NAMES if name not in (NAMES[3], NAMES[4]))
    assert "2,000 decisions of the session model/new" in " ".join(printed.split()), "those of the symbols assessed"
    assert f"moved to the live session, PSI > 0.2, the calendar aside: {NAMES[3]} " in printed


def test_a_session_of_one_symbol_is_compared_with_the_training_of_that_symbol(market: Config) -> None:
    """Two symbols of different laws, each of which stands still: no drift, which there is against both together."""
    for name, level in zip(SYMBOLS, (0.0, 5.0), strict=True):
        part = Partition("features", *name.split(":"), DATE, market.bars)
        frame = store.read(market.root, part)
        moved = frame.with_columns(pl.col(NAMES[3]) + level)
        store.write(market.root, part, moved, store.built_from(market.root, part))
    rows = np.random.default_rng(3).normal(size=(4_000, len(NAMES)))
    put_session(market.root / "live" / "model" / "new", catalogue.choose(FEATURES.sets, {}, "200ms"), rows)
    found, _ = assessed(market)
    assert found[NAMES[3]]["psi_live"] < 0.1


def test_a_session_of_a_few_decisions_has_no_drift_but_a_note(market: Config) -> None:
    rows = np.random.default_rng(3).normal(size=(32, len(NAMES)))
    put_session(market.root / "live" / "model" / "new", catalogue.choose(FEATURES.sets, {}, "200ms"), rows + 9.0)
    found, printed = assessed(market)
    assert {row["psi_live"] for row in found.values()} == {None}
    assert "16 decisions of the session model/new are too few for a PSI, which takes 200" in printed


def put_session(folder: Path, features: dict[str, str], rows: np.ndarray) -> None:
    """A session of two symbols, of which the run has one, that decided by these rows in turn."""
    names = (SYMBOLS[0], "bybit:SOLUSDT")
    starts = {name: {"block": np.zeros(1)} for name in names}
    digests = {name: state_sha256(state) for name, state in starts.items()}
    header = Header("model", "paper", names, "time_200ms", (), tuple(features.items()), digests)
    log = Journal.create(folder, header, starts)
    for k, row in enumerate(rows):
        log.feature(k % 2, k * NS_PER_S, row)
    log.close()


def test_the_table_is_sorted_by_the_z_that_it_shows(market: Config) -> None:
    found, printed = assessed(market)
    shown = [float(line.split()[1]) for line in printed.splitlines() if line.startswith("ofi")]
    assert shown == sorted(shown, reverse=True)
    assert shown == [pytest.approx(max(abs(each["z"]) for each in row["ic"]), abs=0.051) for row in found.values()]


def test_a_sentence_above_the_table_is_a_line_with_the_mark_of_its_own(market: Config) -> None:
    _, printed = assessed(market, 80)
    head = printed[: printed.index("\nfeature")].splitlines()[1:]
    assert all(line.endswith("| SIMULATED") for line in head)
    assert [line.split()[0] for line in head] == ["11", "|z|:", "IC:", "PSI:", "cover:", "warm-up:"]


def test_features_of_other_settings_are_an_error(market: Config) -> None:
    with pytest.raises(StageError, match="built with other settings"):
        assessed(msgspec.structs.replace(market, features=Features(sets=("flow",))))


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits_the_screen(market: Config, width: int) -> None:
    _, printed = assessed(market, width)
    assert max(map(len, printed.splitlines())) <= width
    assert sum(line.startswith("ofi") for line in printed.splitlines()) == len(NAMES) * (2 if width == 80 else 1)
    assert all(f" {head} " in printed.replace("\n", " ") for head in ("10s", "PSI", "cover", "warm-up", "ns"))


def test_too_short_a_stretch_says_what_the_coefficients_need(tmp_path: Path) -> None:
    cfg = Config(data_dir=str(tmp_path), symbols=SYMBOLS, features=FEATURES, labels=CELLS)
    write_market(cfg, hours=1.0, edge_bps=0.0, seed=3, names=NAMES)
    _, printed = assessed(cfg)
    assert "IC 10s: 5 blocks of 10 min hold labels, 10 are needed: 1.7 h of training stretch" in printed
    assert max(map(len, assessed(cfg, 80)[1].splitlines())) <= 80
    assert "coefficients stand" not in printed
