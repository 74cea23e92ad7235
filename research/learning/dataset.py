"""Features and labels of all symbols on common rows, sorted by start: what training learns from and is judged on.

A row is a decision that has features and whose every candidate cell is labelled, so that all cells are compared on the
same rows; its interval ends with the longest candidate (method section 4). Label columns are many (hundreds), so they
stay on disk until a cell is asked for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core import schema, store
from core.cells import MakerCell, TakerCell
from core.config import Config
from core.errors import StageError
from core.store import Partition
from research.fitting.fitted import chosen_features

Cell = TakerCell | MakerCell
SIDES: Final = (1, -1)
"""Buy first, in every array of two sides."""
_MID_DIGITS: Final = 3  # of bps: half a tick of BTC is 0.008
_IN_MEMORY_BYTES: Final = 600_000_000  # a feature matrix above this (a month of four symbols) is mapped from disk


@dataclass(frozen=True)
class Joined:
    """Rows of one symbol-day: `feature_rows` and `label_rows` (m,) within its tables, `place` (m,) in the dataset."""

    features: Partition
    labels: Partition
    feature_rows: NDArray[np.int64]
    label_rows: NDArray[np.int64]
    place: NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """`start_ns`, `end_ns`, `symbol` (index into `instruments`) are (n,), sorted by start and then symbol.

    `n_unlabelled` counts decisions with features that some candidate cell has no label for.
    """

    root: Path
    feature_names: list[str]
    instruments: list[str]
    parts: list[Joined]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    symbol: NDArray[np.int64]
    n_unlabelled: int

    @property
    def n_rows(self) -> int:
        return int(self.start_ns.size)


@dataclass(frozen=True)
class Outcomes:
    """What a cell pays per row: arrays (2, n), buy first. Net and gross are 0 where not filled, bps."""

    gross_bps: NDArray[np.float64]
    net_bps: NDArray[np.float64]
    end_ns: NDArray[np.int64]
    filled: NDArray[np.bool_]

    def cut(self, rows: slice) -> "Outcomes":
        """The outcomes of some rows, as views."""
        return Outcomes(self.gross_bps[:, rows], self.net_bps[:, rows], self.end_ns[:, rows], self.filled[:, rows])


def join(root: Path, feature_parts: Sequence[Partition], cells: Sequence[Cell]) -> Dataset:
    """The common rows of some feature partitions and their labels, labelled in every cell.

    Raises StageError for a symbol-day without labels, label columns that are not there, feature sets that differ, or
    where no decision has features.
    """
    names = feature_names(root, feature_parts)
    instruments = sorted({part.instrument for part in feature_parts})
    joined = [_join_part(root, part, cells) for part in feature_parts]
    if not any(each.feature_rows.size + each.n_unlabelled for each in joined):
        raise StageError(
            f"no decision of {', '.join(instruments)} has all features: `python run_pipeline.py features` says why"
        )
    start = np.concatenate([each.start_ns for each in joined])
    symbol = np.repeat(
        [instruments.index(part.instrument) for part in feature_parts], [j.start_ns.size for j in joined]
    )
    order = np.lexsort((symbol, start))
    place = np.empty_like(order)
    place[order] = np.arange(order.size)
    bounds = np.cumsum([0, *(each.start_ns.size for each in joined)])
    parts = [
        Joined(part, part.of(schema.LABELS), each.feature_rows, each.label_rows, place[first:last])
        for part, each, first, last in zip(feature_parts, joined, bounds[:-1], bounds[1:], strict=True)
    ]
    end = np.concatenate([each.end_ns for each in joined])
    dropped = sum(each.n_unlabelled for each in joined)
    return Dataset(root, names, instruments, parts, start[order], end[order], symbol[order], dropped)


def feature_matrix(dataset: Dataset, scratch: Path) -> NDArray[np.float32]:
    """Features (n, k) float32 in the dataset's order. A large matrix is a memory map of the file `scratch`."""
    shape = (dataset.n_rows, len(dataset.feature_names))
    if 4 * shape[0] * shape[1] <= _IN_MEMORY_BYTES:
        x = np.empty(shape, np.float32)
    else:
        scratch.parent.mkdir(parents=True, exist_ok=True)
        x = np.memmap(scratch, np.float32, "w+", shape=shape)
    for part in dataset.parts:
        frame = store.read(dataset.root, part.features, dataset.feature_names)
        for column, name in enumerate(dataset.feature_names):
            x[part.place, column] = frame[name].to_numpy()[part.feature_rows]
    return x


def returns_bps(dataset: Dataset, horizon_s: float) -> NDArray[np.float64]:
    """The mid return from each decision until T after entry (n,), in bps, as a buyer sees it: what models learn."""
    return _floats(_gather(dataset, [TakerCell(horizon_s).ret_bps]).to_series())


def entered_bps(taker: Outcomes) -> NDArray[np.float64]:
    """The return of the mid from the entry of a taker, a latency after the decision, until T later (n,), in bps.

    Not from the decision: a bar of volume closes at the very trade that moves the mid, and the quote that tells of it
    comes after; nobody can have that move. A buyer's net less a seller's is twice this: half-spreads, fees and slippage
    cancel, but for fees on the change of the spread, which is why it is rounded (equal mids must tie). Funding that
    falls due in between is in it, paid.
    """
    moved: NDArray[np.float64] = np.round((taker.net_bps[0] - taker.net_bps[1]) / 2.0, _MID_DIGITS)
    return moved + 0.0  # no -0.0


def outcomes(dataset: Dataset, cell: Cell) -> Outcomes:
    """What a cell pays on each row, both sides."""
    frame = _gather(dataset, columns_of(cell))
    if isinstance(cell, TakerCell):
        gross, end_ns = _floats(frame[cell.ret_bps]), _times(frame[cell.end_ns])
        net = np.stack([_floats(frame[cell.net_bps(side)]) for side in SIDES])
        return Outcomes(np.stack([gross, -gross]), net, np.stack([end_ns, end_ns]), np.ones(net.shape, np.bool_))
    gross, net = (np.stack([_floats(frame[of(side)]) for side in SIDES]) for of in (cell.gross_bps, cell.net_bps))
    end_ns, fill_ns = (np.stack([_times(frame[of(side)]) for side in SIDES]) for of in (cell.end_ns, cell.fill_ns))
    # A reporting rule (touch, gate) may lack labels that the candidates have: no order there, net and gross of 0.
    known = np.isfinite(net) & np.isfinite(gross)
    return Outcomes(np.where(known, gross, 0.0), np.where(known, net, 0.0), end_ns, (fill_ns != _NEVER) & known)


def columns_of(cell: Cell) -> list[str]:
    """The label columns of a cell."""
    if isinstance(cell, TakerCell):
        return needed_columns(cell)
    return [*needed_columns(cell), *(cell.fill_ns(side) for side in SIDES)]


def needed_columns(cell: Cell) -> list[str]:
    """Label columns that must be known for a row to be labelled in this cell; the end times come last."""
    if isinstance(cell, TakerCell):
        return [cell.ret_bps, cell.net_bps(1), cell.net_bps(-1), cell.end_ns]
    return [name(side) for name in (cell.gross_bps, cell.net_bps, cell.end_ns) for side in (1, -1)]


_NEVER: Final = np.iinfo(np.int64).min


@dataclass(frozen=True)
class _Rows:
    feature_rows: NDArray[np.int64]
    label_rows: NDArray[np.int64]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    n_unlabelled: int


def _join_part(root: Path, part: Partition, cells: Sequence[Cell]) -> _Rows:
    """Rows of one symbol-day by merging two sorted keys: no row is copied but the times."""
    labels = part.of(schema.LABELS)
    needed = [name for cell in cells for name in needed_columns(cell)]
    ends = [name for name in needed if name.endswith("_end_ns")]
    _require_columns(root, labels, needed)
    frame = store.read(root, labels, ["decision_ns", *needed]).select(
        "decision_ns",
        known=pl.all_horizontal(pl.col(needed).is_not_null()),
        end_ns=pl.max_horizontal(ends),
    )
    decided = store.read(root, part, ["decision_ns"])["decision_ns"].to_numpy()
    labelled = frame["decision_ns"].to_numpy()
    _, feature_rows, label_rows = np.intersect1d(decided, labelled, assume_unique=True, return_indices=True)
    known = frame["known"].to_numpy()[label_rows]
    feature_rows, label_rows = feature_rows[known], label_rows[known]
    end_ns = frame["end_ns"].fill_null(0).to_numpy()[label_rows]
    start_ns = decided[feature_rows]
    # The last event used may have come before the decision (nothing moved since): the interval is then one instant.
    return _Rows(feature_rows, label_rows, start_ns, np.maximum(end_ns, start_ns), decided.size - feature_rows.size)


def _require_columns(root: Path, part: Partition, names: Sequence[str]) -> None:
    paths = store.files(root, part)
    if not paths:
        raise StageError(
            f"table `labels` has nothing for {part.instrument} on {part.date}: run `python run_pipeline.py labels`"
        )
    missing = sorted(set(names) - set(pl.read_parquet_schema(paths[0])))
    if missing:
        raise StageError(
            f"labels of {part.instrument} on {part.date} lack {missing[0]} and {len(missing) - 1} more columns that "
            "train.horizons_s and labels.deltas_bps ask for: run `python run_pipeline.py labels` with the same settings"
        )


def feature_names(root: Path, parts: Sequence[Partition]) -> list[str]:
    """The features of some partitions, in the tables' order. Raises StageError where they differ."""
    sets = {tuple(pl.read_parquet_schema(store.files(root, part)[0])) for part in parts}
    if len(sets) != 1:
        raise StageError("feature partitions differ in their columns: run `python run_pipeline.py features` again")
    return [name for name in sets.pop() if name not in schema.FEATURES.columns]


def expressions(cfg: Config, names: list[str]) -> list[tuple[str, str]]:
    """Name and S-expression of each feature, in the order of the table's columns.

    Raises StageError where the table was built with other features than the configuration chooses.
    """
    chosen = chosen_features(cfg)
    if set(names) != set(chosen):
        odd = ", ".join(sorted(set(names) ^ set(chosen))[:3])
        raise StageError(f"table `features` was built with other settings ({odd} differ): run `features` again")
    return [(name, chosen[name]) for name in names]


def _gather(dataset: Dataset, names: Sequence[str]) -> pl.DataFrame:
    """Label columns, one row per row of the dataset, in its order."""
    pieces = [store.read(dataset.root, part.labels, names)[part.label_rows] for part in dataset.parts]
    order = np.argsort(np.concatenate([part.place for part in dataset.parts]))
    return pl.concat(pieces)[order]


def _floats(column: pl.Series) -> NDArray[np.float64]:
    return column.cast(pl.Float64).fill_null(float("nan")).to_numpy()


def _times(column: pl.Series) -> NDArray[np.int64]:
    return column.cast(pl.Int64).fill_null(_NEVER).to_numpy()
