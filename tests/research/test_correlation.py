"""Correlations of symbols: against NumPy pair by pair, in pieces, and the stage on a market with a known one."""

import io
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from core import store
from core.config import Config
from core.errors import StageError
from core.run_record import RunRecord
from core.store import Partition
from core.units import NS_PER_S
from research.bars.columns import bar_columns
from research.correlate_symbols import run
from research.quality.correlation import co_moments
from tests.research.made_up_bars import resting

NAMES = ("binance_um:BTCUSDT", "binance_um:ETHUSDT", "bybit:BTCUSDT")
DAYS = ("2026-01-05", "2026-01-06")


def unknown_in_places(seed: int, rows: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, 3)) @ rng.normal(size=(3, 4)) + 0.1
    values[rng.random(values.shape) < 0.2] = np.nan
    return np.column_stack([values, np.full(rows, 2.0)])


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 60), cut=st.integers(0, 60))
def test_each_pair_is_judged_where_both_are_known_in_any_pieces(seed: int, rows: int, cut: int) -> None:
    values = unknown_in_places(seed, rows)
    found = co_moments(values[:cut]) + co_moments(values[cut:])
    for i in range(5):
        for j in range(5):
            both = values[np.isfinite(values[:, i]) & np.isfinite(values[:, j])][:, [i, j]]
            assert found.n[i, j] == len(both)
            if len(both) < 3 or 4 in (i, j):
                assert np.isnan(found.correlation[i, j])
                continue
            expected = np.cov(both.T)
            assert found.correlation[i, j] == pytest.approx(np.corrcoef(both.T)[0, 1], abs=1e-9)
            assert found.beta[i, j] == pytest.approx(expected[0, 1] / expected[1, 1], rel=1e-7, abs=1e-9)


def put_day(root: Path, date: str, noise: float, names: tuple[str, ...] = NAMES) -> None:
    """Half an hour of bars: the first symbol and its share `noise` of moves of its own in the others."""
    rng, count = np.random.default_rng(len(names)), 1800
    shared = rng.normal(size=count)
    for k, name in enumerate(names):
        moves = shared + noise * rng.normal(size=count) * (k > 0)
        values = resting(count, close_price=100.0 * np.exp(1e-4 * np.cumsum(moves)))
        close_ns = store.day_start_ns(date) + (np.arange(count) + 1) * NS_PER_S
        times = {"open_ns": close_ns - NS_PER_S, "close_ns": close_ns, "bar_index": close_ns // NS_PER_S - 1}
        columns = {column: values[:, at] for at, column in enumerate(bar_columns(0))}
        store.write(root, Partition("bars", *name.split(":"), date, "time_1s"), pl.DataFrame(times | columns))


def printed_by(cfg: Config) -> tuple[RunRecord, str]:
    printed = io.StringIO()
    record = RunRecord(cfg, Console(file=printed, width=100))
    with record.stage("correlate") as stage:
        run(cfg, stage)
    return record, printed.getvalue()


def test_the_stage_prints_what_was_planted_and_which_pair_moved_from_day_to_day(tmp_path: Path) -> None:
    put_day(tmp_path, DAYS[0], 0.0)
    put_day(tmp_path, DAYS[1], 1.0, NAMES[:2])
    record, printed = printed_by(Config(data_dir=str(tmp_path), bars="time_1s"))
    steps = record.sections["correlations"]["steps"]
    assert [each["step_s"] for each in steps] == [1, 10, 60, 300]
    whole = np.array(steps[0]["correlation"])
    assert whole[0, 2] == pytest.approx(1.0, abs=1e-6)
    assert whole[0, 1] == pytest.approx(2 / np.sqrt(6), abs=0.03)  # on one of two equal days it moves as much alone
    assert steps[0]["by_day"][1][0][2] is None, "the third was not there"
    assert "from day to day: binance_um:BTCUSDT with binance_um:ETHUSDT from 0.7" in printed
    assert "2 binance_um:ETHUSDT  0." in printed
    assert max(map(len, printed.splitlines())) <= 100


def test_bars_that_close_at_instants_of_their_own_are_not_compared(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="bars of volume_10 close at instants of their own"):
        printed_by(Config(data_dir=str(tmp_path), bars="volume_10"))
