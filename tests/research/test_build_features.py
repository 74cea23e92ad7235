"""The stage on a small synthetic market of two days: decisions, midnight, staleness, quiet stretches, user's features."""

import io
from pathlib import Path

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
from core.units import NS_PER_DAY, NS_PER_S
from research.bars import BAR_COLUMNS
from research.build_features import bars_since_restart, run

STEP_NS = NS_PER_S // 5
DAYS = ("2026-01-05", "2026-01-06")


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
    names = "buy_qty sell_qty buy_usd sell_usd buy_count sell_count ofi_qty quote_count liq_long_usd liq_short_usd liq_count"
    flows = {name: flow[:, k] for k, name in enumerate(names.split())}
    unknown = dict.fromkeys(("mark_price", "index_price", "funding_rate", "open_interest"), np.full(n, np.nan))
    marks = {"is_empty": np.full(n, float(quiet)), "has_gap": np.zeros(n)}
    open_ns = first_ns + STEP_NS * np.arange(n)
    times = {"open_ns": open_ns, "close_ns": open_ns + STEP_NS, "bar_index": open_ns // STEP_NS}
    values = prices | flows | unknown | marks
    frame = pl.DataFrame(times | {name: values[name] for name in BAR_COLUMNS})
    return frame.with_columns(pl.col(BAR_COLUMNS).fill_nan(None))


def put_bars(root: Path, date: str, bars: pl.DataFrame) -> Partition:
    part = Partition("bars", "binance_um", "BTCUSDT", date, "time_200ms")
    store.write(root, part, bars)
    return part


def run_stage(cfg: Config) -> tuple[Stage, RunRecord, str]:
    printed = io.StringIO()
    record = RunRecord(cfg, Console(file=printed, width=200))
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


def test_rows_stand_at_the_decisions_once_the_windows_are_full(cfg: Config) -> None:
    stage, record, printed = run_stage(cfg)
    first, second = (features_of(cfg, date) for date in DAYS)
    assert (first["decision_ns"] % NS_PER_S == 0).all()
    assert first["decision_ns"][0] == store.day_start_ns(DAYS[1]) - 1499 * STEP_NS + 4 * STEP_NS - 0
    assert second.height == 600
    assert stage.rows_in == 6000
    assert stage.rows_out == first.height + second.height
    assert record.sections["features"]["count"] == len(first.columns) - 1
    assert record.sections["features"]["names"] == first.columns[1:]
    assert "300 while windows filled, 0 not finite" in printed


def test_midnight_leaves_no_seam(cfg: Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    run_stage(cfg)
    both = pl.concat([store.read(cfg.root, part) for part in store.partitions(cfg.root, BARS, bars="time_200ms")])
    whole = Config(data_dir=str(tmp_path_factory.mktemp("whole")), features=cfg.features)
    put_bars(whole.root, DAYS[0], both)
    run_stage(whole)
    assert pl.concat([features_of(cfg, date) for date in DAYS]).equals(features_of(whole, DAYS[0]))
