"""What is chosen among: a policy on one cell of the label grid, and the winner as training hands it on.

`<data>/train/winner.json` is a `Winner`; `<data>/train/{model}.npz` its trees. The backtest, the export and the runner
read them here and need none of the training stack.
"""

import itertools
from pathlib import Path
from typing import Any, Final, Literal

import msgspec

from core.cells import THROUGH, MakerCell, TakerCell
from core.config import Labels, Train
from core.errors import StageError
from core.store import write_atomic
from core.units import seconds_label
from research.learning.decision import Calibration

HOLD_OUT: Final = -1
"""The `fold` of the hold-out in the table of scores; others are blocks of walk-forward, 0 is the one that tunes."""
COST_RUNGS: Final = (0.6, 0.7, 0.8, 0.9, 1.0)
"""Edges as shares of a round trip's cost. Taking costs 10 to 11 bps in fees alone, far above the configured grid of 0
to 2 bps, so the grid gets rungs at which a prediction pays for its own trade. Shares below 1, since a squared-loss
model shrinks what it predicts from rare bursts. At the lowest threshold only: a prediction that large is sure of its
sign, and a threshold that changes no order would still count as a trial."""


class Candidate(msgspec.Struct, frozen=True, order=True):
    """One policy: which model's score, on which cell, from which threshold and edge on.

    `rule` is the fill rule that labels a maker's fills (through for every verdict), null for takers; `gate_usd` is set
    for notional-gate rows only, which are reported and never chosen.
    """

    kind: Literal["taker", "maker"]
    family: str
    horizon_s: float
    threshold: float
    edge_bps: float
    delta_bps: float | None = None
    rule: str | None = None
    gate_usd: float | None = None

    @property
    def model(self) -> str:
        """The name of the scores column (after `score_`) and of the model's file."""
        return model_name(self.family, self.horizon_s)

    @property
    def cell(self) -> TakerCell | MakerCell:
        if self.kind == "taker":
            return TakerCell(self.horizon_s)
        return MakerCell(self.delta_bps or 0.0, self.horizon_s, self.rule or THROUGH)


class Winner(msgspec.Struct, frozen=True):
    """All that a backtest, an export or a runner must know of the chosen policy."""

    candidate: Candidate
    calibration: Calibration
    features: list[tuple[str, str]]
    """Name and S-expression, in the model's order."""
    bars: str
    decision: str
    symbols: list[str]
    train_window: tuple[int, int]
    """First decision and last label end (ns) of the rows that the exported model learned from."""
    holdout_window: tuple[int, int]
    """First and last decision (ns) of the hold-out."""
    verdict: Literal["edge", "no edge"]
    reasons: list[str]
    tradeable: bool
    metrics: dict[str, Any]
    data_fingerprint: str


def model_name(family: str, horizon_s: float) -> str:
    """`lightgbm_10` for the model of one family and horizon."""
    return f"{family}_{seconds_label(horizon_s)}"


def model_path(root: Path, model: str) -> Path:
    return root / "train" / f"{model}.npz"


def winner_path(root: Path) -> Path:
    return root / "train" / "winner.json"


def write_winner(root: Path, winner: Winner) -> None:
    write_atomic(winner_path(root), msgspec.json.format(msgspec.json.encode(winner), indent=2) + b"\n")


def read_winner(root: Path) -> Winner:
    """Raises StageError where `train` has not left a winner."""
    try:
        return msgspec.json.decode(winner_path(root).read_bytes(), type=Winner)
    except FileNotFoundError:
        raise StageError(f"{winner_path(root)} does not exist: run `python run_pipeline.py train` first") from None
    except msgspec.DecodeError as error:
        raise StageError(f"{winner_path(root)} cannot be read ({error}): run `train` again") from error


def held_s(cell: TakerCell | MakerCell, labels: Labels) -> float:
    """R + T of a cell: how long one decision can bind a position. R = 0 for takers."""
    resting = labels.rest_s if isinstance(cell, MakerCell) else 0.0
    return resting + cell.horizon_s


def candidate_cells(train: Train, labels: Labels) -> list[TakerCell | MakerCell]:
    """The cells that verdicts may rest on: taker, and maker under `through`, at the horizons trained for."""
    takers = [TakerCell(horizon_s) for horizon_s in train.horizons_s]
    makers = [
        MakerCell(delta_bps, horizon_s)
        for horizon_s in train.horizons_s
        if horizon_s >= labels.min_maker_horizon_s
        for delta_bps in labels.deltas_bps
    ]
    return [*takers, *makers]


def cost_rungs(round_trip_bps: float) -> list[float]:
    """The cost-aware edges in bps, ascending; none where trading costs nothing."""
    return [round(share * round_trip_bps, 2) for share in COST_RUNGS if round_trip_bps > 0.0]


def policies(train: Train, cell: TakerCell | MakerCell, family: str, rungs_bps: list[float]) -> list[Candidate]:
    """Every candidate of one model on one cell: the configured grid, and the rungs at the lowest threshold."""
    maker = isinstance(cell, MakerCell)
    lowest = min(train.thresholds)
    grid = itertools.product(train.thresholds, train.edges_bps)
    rungs = ((lowest, edge_bps) for edge_bps in rungs_bps if edge_bps not in train.edges_bps)
    return [
        Candidate(
            kind="maker" if maker else "taker",
            family=family,
            horizon_s=cell.horizon_s,
            threshold=threshold,
            edge_bps=edge_bps,
            delta_bps=cell.delta_bps if isinstance(cell, MakerCell) else None,
            rule=cell.rule if isinstance(cell, MakerCell) else None,
        )
        for threshold, edge_bps in itertools.chain(grid, rungs)
    ]
