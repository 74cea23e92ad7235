"""Joined rows against a Polars join; what is missing is named."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from core import schema, store
from core.cells import MakerCell, TakerCell
from core.config import Config, Labels
from core.errors import StageError
from core.store import Partition
from labels.fees import Costs, round_trip
from research.learning import dataset
from tests.research.synthetic_tables import write_market

CELLS = [TakerCell(10.0), MakerCell(2.0, 10.0), MakerCell(2.0, 60.0)]
LABELS = Labels(deltas_bps=(0.0, 2.0), gates_usd=(50.0,), horizons_s=(1.0, 10.0, 60.0))


@pytest.fixture
def cfg(tmp_path: Path) -> Config:
    made = Config(data_dir=str(tmp_path), symbols=("binance_um:BTCUSDT", "bybit:BTCUSDT"), labels=LABELS)
    write_market(made, hours=0.2, edge_bps=14.0, seed=1, names=["a", "b", "c"])
    return made


def parts_of(cfg: Config) -> list[Partition]:
    return store.require(cfg.root, schema.FEATURES, cfg.symbols or (), cfg.bars)


def slow_join(cfg: Config, part: Partition, needed: list[str]) -> pl.DataFrame:
    labels = store.read(cfg.root, part.of(schema.LABELS))
    return store.read(cfg.root, part).join(labels, on="decision_ns").drop_nulls(needed).sort("decision_ns")


def test_rows_and_columns_equal_a_join(cfg: Config) -> None:
    part = parts_of(cfg)[0]
    features = store.read(cfg.root, part)
    store.write(cfg.root, part, features.filter(pl.col("decision_ns").hash(0) % 5 > 0))
    labels = store.read(cfg.root, part.of(schema.LABELS))
    hidden = pl.when(pl.int_range(pl.len()) % 7 > 0).then(pl.col(CELLS[2].net_bps(-1)))
    store.write(cfg.root, part.of(schema.LABELS), labels.with_columns(hidden.alias(CELLS[2].net_bps(-1))))

    data = dataset.join(cfg.root, parts_of(cfg), CELLS)
    x, maker = dataset.feature_matrix(data, cfg.root / "x"), dataset.outcomes(data, CELLS[1])
    needed = [name for cell in CELLS for name in dataset.needed_columns(cell)]
    assert data.n_unlabelled > 0
    for code, (instrument, each) in enumerate(zip(data.instruments, parts_of(cfg), strict=True)):
        assert each.instrument == instrument
        mine, slow = data.symbol == code, slow_join(cfg, each, needed)
        np.testing.assert_array_equal(data.start_ns[mine], slow["decision_ns"])
        np.testing.assert_array_equal(x[mine], slow.select("a", "b", "c").to_numpy().astype(np.float32))
        ends = [name for name in needed if name.endswith("end_ns")]
        np.testing.assert_array_equal(data.end_ns[mine], slow.select(pl.max_horizontal(ends)).to_series())
        np.testing.assert_array_equal(dataset.returns_bps(data, 10.0)[mine], slow[CELLS[0].ret_bps])
        for which, side in enumerate((1, -1)):
            np.testing.assert_array_equal(maker.net_bps[which, mine], slow[CELLS[1].net_bps(side)])
            np.testing.assert_array_equal(maker.filled[which, mine], slow[CELLS[1].fill_ns(side)].is_not_null())
            np.testing.assert_array_equal(maker.end_ns[which, mine], slow[CELLS[1].end_ns(side)])


def test_a_taker_s_two_nets_tell_the_move_of_the_mid_from_its_entry() -> None:
    """The mid is 1000.5 at the decision, 1003 at arrival, 1002 at the exit; fees on the wider spread do not show."""
    mid, entry, leave, costs = 1000.5, (1002.5, 1003.5), (1001.0, 1003.0), Costs(2.0, 5.0, 1.0)
    buy = round_trip(1, mid, entry[1], True, *leave, 0.0, costs)
    sell = round_trip(-1, mid, entry[0], True, *leave, 0.0, costs)
    taker = dataset.Outcomes(
        np.array([[buy.gross_bps], [sell.gross_bps]]),
        np.array([[buy.net_bps], [sell.net_bps]]),
        np.zeros((2, 1), np.int64),
        np.ones((2, 1), np.bool_),
    )
    assert buy.gross_bps > 0.0
    np.testing.assert_allclose(dataset.entered_bps(taker), -1.0 / mid * 1e4, atol=0.01)


def test_rows_are_sorted_by_start_and_then_symbol(cfg: Config) -> None:
    data = dataset.join(cfg.root, parts_of(cfg), CELLS)
    assert (np.diff(data.start_ns * 2 + data.symbol) > 0).all()
    assert (data.end_ns >= data.start_ns).all()


def test_a_large_matrix_is_mapped_from_disk_with_the_same_values(cfg: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    data = dataset.join(cfg.root, parts_of(cfg), CELLS)
    small = dataset.feature_matrix(data, cfg.root / "x")
    monkeypatch.setattr(dataset, "_IN_MEMORY_BYTES", 10)
    mapped = dataset.feature_matrix(data, cfg.root / "scratch" / "x")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, small)


def test_a_seller_earns_the_mirrored_gross(cfg: Config) -> None:
    taker = dataset.outcomes(dataset.join(cfg.root, parts_of(cfg), CELLS), CELLS[0])
    np.testing.assert_array_equal(taker.gross_bps[1], -taker.gross_bps[0])
    assert taker.filled.all()


def test_missing_labels_and_columns_are_named_with_the_remedy(cfg: Config) -> None:
    with pytest.raises(StageError, match=r"tk_300_.*labels"):
        dataset.join(cfg.root, parts_of(cfg), [TakerCell(300.0)])
    for path in store.files(cfg.root, parts_of(cfg)[1].of(schema.LABELS)):
        path.unlink()
    with pytest.raises(StageError, match=r"bybit:BTCUSDT.*labels"):
        dataset.join(cfg.root, parts_of(cfg), CELLS)


def test_feature_sets_that_differ_between_symbols_are_refused(cfg: Config) -> None:
    part = parts_of(cfg)[0]
    store.write(cfg.root, part, store.read(cfg.root, part).drop("c"))
    with pytest.raises(StageError, match="differ"):
        dataset.join(cfg.root, parts_of(cfg), CELLS)


def test_decisions_without_features_are_not_said_to_lack_labels(cfg: Config) -> None:
    for part in parts_of(cfg):
        store.write(cfg.root, part, store.read(cfg.root, part).clear())
    with pytest.raises(StageError, match=r"no decision of binance_um:BTCUSDT, bybit:BTCUSDT has all features: .* why"):
        dataset.join(cfg.root, parts_of(cfg), CELLS)
