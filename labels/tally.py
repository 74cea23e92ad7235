"""What a symbol-day's labels add up to, kept beside the table so that a stage that rebuilds one day reports on all."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.cells import SIDES, THROUGH, TOUCH, gate_rule
from core.errors import StageError
from core.units import NS_PER_S, seconds_label
from labels.grid import END_OF_DATA, MERGED, REJECTED, Grid, Terms
from labels.venue_events import BREAKS

REASONS = (*BREAKS, "end of data")


class CellSums(msgspec.Struct):
    """Sums over the orders of one cell; an order merged into the cell before it is counted there."""

    kind: str
    side: str
    delta_bps: float | None
    horizon_s: float
    rule: str | None
    n: int = 0
    fills: int = 0
    merged: int = 0
    rejected: int = 0
    gross_bps: float = 0.0
    net_bps: float = 0.0

    def add(self, other: "CellSums") -> None:
        self.n += other.n
        self.fills += other.fills
        self.merged += other.merged
        self.rejected += other.rejected
        self.gross_bps += other.gross_bps
        self.net_bps += other.net_bps

    def row(self) -> dict[str, Any]:
        """The row of report.json: means are per order, an unfilled one counting 0; null without orders."""
        return {
            "kind": self.kind,
            "side": self.side,
            "delta_bps": self.delta_bps,
            "horizon_s": self.horizon_s,
            "rule": self.rule,
            "n": self.n,
            "fill_rate": self.fills / self.n if self.n else None,
            "mean_gross_bps": self.gross_bps / self.n if self.n else None,
            "mean_net_bps": self.net_bps / self.n if self.n else None,
            "merged": self.merged,
            "rejected": self.rejected,
        }


class Tally(msgspec.Struct):
    """`decisions` asked for, `dropped` decisions by reason, `unlabelled` decision x cells by hold ("10") and reason."""

    decisions: int
    rows: int
    dropped: dict[str, int]
    unlabelled: dict[str, dict[str, int]]
    cells: list[CellSums]


def total(tallies: Iterable[Tally]) -> Tally:
    """The sum of tallies of one grid."""
    summed = Tally(0, 0, {}, {}, [])
    for tally in tallies:
        summed.decisions += tally.decisions
        summed.rows += tally.rows
        _add_counts(summed.dropped, tally.dropped)
        for hold, counts in tally.unlabelled.items():
            _add_counts(summed.unlabelled.setdefault(hold, {}), counts)
        if not summed.cells:
            summed.cells = [msgspec.structs.replace(cell) for cell in tally.cells]
        else:
            for mine, other in zip(summed.cells, tally.cells, strict=True):
                mine.add(other)
    return summed


def tally(grid: Grid, terms: Terms, decisions: int, rows: int, dropped: dict[str, int]) -> Tally:
    """`Tally` of one symbol-day's grid."""
    return Tally(
        decisions, rows, dropped, _unlabelled(grid, terms), [*_taker_sums(grid, terms), *_maker_sums(grid, terms)]
    )


def rule_names(terms: Terms) -> list[str]:
    """Names of the rules along the grid's axis K."""
    return [TOUCH, THROUGH, *(gate_rule(float(gate)) for gate in terms.gates_usd)]


def _taker_sums(grid: Grid, terms: Terms) -> Iterator[CellSums]:
    for s, (sign, side) in enumerate(SIDES.items()):
        for h, hold_ns in enumerate(terms.taker_holds_ns):
            there = grid.taker.end_ns[h] > 0
            n = int(np.count_nonzero(there))
            gross, net = sign * _sum(grid.taker.ret_bps[h][there]), _sum(grid.taker.net_bps[s, h][there])
            yield CellSums("taker", side, None, float(hold_ns) / NS_PER_S, None, n, n, gross_bps=gross, net_bps=net)


def _maker_sums(grid: Grid, terms: Terms) -> Iterator[CellSums]:
    maker = grid.maker
    for s, side in enumerate(SIDES.values()):
        for d, delta_bps in enumerate(terms.deltas_bps):
            mine = maker.status[s, d] != MERGED
            for r, rule in enumerate(rule_names(terms)):
                for h, hold_ns in enumerate(terms.maker_holds_ns):
                    at = (s, d, r, h)
                    there = maker.end_ns[at] > 0
                    cell = CellSums("maker", side, float(delta_bps), float(hold_ns) / NS_PER_S, rule)
                    cell.n = int(np.count_nonzero(there & mine))
                    cell.merged = int(np.count_nonzero(there & ~mine))
                    cell.rejected = int(np.count_nonzero(there & (maker.status[s, d] == REJECTED)))
                    cell.fills = int(np.count_nonzero(there & mine & (maker.fill_ns[s, d, r] > 0)))
                    cell.gross_bps = _sum(maker.gross_bps[at][there & mine])
                    cell.net_bps = _sum(maker.net_bps[at][there & mine])
                    yield cell


def _sum(values: NDArray[np.float32]) -> float:
    """The sum over labelled orders. Raises StageError where one has no number: it must not count as 0."""
    summed = float(np.sum(values, dtype=np.float64))
    if not math.isfinite(summed):
        unknown = int(np.count_nonzero(~np.isfinite(values)))
        raise StageError(
            f"labels: {unknown:,} of {values.size:,} labelled orders of a cell have no finite return: "
            "look for impossible prices or fees in the capture and the settings"
        )
    return summed


def _unlabelled(grid: Grid, terms: Terms) -> dict[str, dict[str, int]]:
    counts: dict[str, dict[str, int]] = {}
    for kind, holds in enumerate((terms.taker_holds_ns, terms.maker_holds_ns)):
        for h, hold_ns in enumerate(holds):
            mine = counts.setdefault(seconds_label(hold_ns / NS_PER_S), {})
            _add_counts(mine, {REASONS[k]: int(grid.drops[kind, h, k]) for k in range(END_OF_DATA + 1)})
    return counts


def _add_counts(into: dict[str, int], counts: dict[str, int]) -> None:
    for reason, count in counts.items():
        if count:
            into[reason] = into.get(reason, 0) + count
