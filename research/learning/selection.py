"""Which policy is used when: orders that a policy places, and the choice by what was known at the time.

The policy for block k is the one with the best net t-statistic on the out-of-sample scores of the blocks before it; the
winner, used on the hold-out, is chosen on all blocks. By t and not by mean: the best mean of many cells is the one with
the fewest trades.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from core.units import NS_PER_S
from research.learning.candidates import Candidate
from research.learning.dataset import Cell, Outcomes
from research.learning.decision import sides
from research.learning.nested import Score

MIN_CHOICE_BLOCK_S: Final = 60.0
"""Calendar blocks of the t that choices are made by. The ten minutes of the printed intervals would leave the first
choice, made after an hour or so, with seven blocks; a minute still pools the venues that move together."""

Piece = tuple[NDArray[np.int64], NDArray[np.int8], Outcomes]


@dataclass(frozen=True)
class Orders:
    """Orders that one position per symbol and side allows: arrays (m,), ascending in time. Net is 0 where unfilled."""

    row: NDArray[np.int64]
    side: NDArray[np.int8]
    start_ns: NDArray[np.int64]
    end_ns: NDArray[np.int64]
    gross_bps: NDArray[np.float64]
    net_bps: NDArray[np.float64]
    filled: NDArray[np.bool_]

    @property
    def n_fills(self) -> int:
        return int(np.count_nonzero(self.filled))


def place(
    start_ns: NDArray[np.int64], symbol: NDArray[np.int64], decided: NDArray[np.int8], outcomes: Outcomes
) -> Orders:
    """The orders of a policy that wants side `decided` (n,) on each row: one at a time per symbol and side.

    A symbol and side is free again at the first decision at or after the label's end.
    """
    row = _place(start_ns, outcomes.end_ns, symbol, decided, int(symbol.max(initial=0)) + 1)
    side = decided[row]
    which = (side < 0).astype(np.int64)
    return Orders(
        row,
        side,
        start_ns[row],
        outcomes.end_ns[which, row],
        outcomes.gross_bps[which, row],
        outcomes.net_bps[which, row],
        outcomes.filled[which, row],
    )


@njit(cache=True, nogil=True)
def _place(start_ns, end_ns, symbol, sides, n_symbols):  # type: ignore[no-untyped-def]
    free_ns = np.full((n_symbols, 2), np.iinfo(np.int64).min)
    rows, made = np.empty(start_ns.size, np.int64), 0
    for row in range(start_ns.size):
        if sides[row] == 0:
            continue
        which = 0 if sides[row] > 0 else 1
        if start_ns[row] >= free_ns[symbol[row], which]:
            free_ns[symbol[row], which] = end_ns[which, row]
            rows[made] = row
            made += 1
    return rows[:made]


def known_t(
    orders: Orders, opens_ns: NDArray[np.int64], block_s: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The t of net per order, and the fills, as known when each of the blocks opened: two arrays (n_opens,).

    An order counts once its end is past. The t is that of the ratio of sums over calendar blocks
    (inference.ratio_of_sums); NaN under two blocks with orders or where they do not vary.
    """
    t = np.full(opens_ns.size, np.nan)
    known = opens_ns.searchsorted(orders.end_ns, side="right")  # the first block that opens after the end
    fills = np.cumsum(np.bincount(known[orders.filled], minlength=opens_ns.size + 1))[: opens_ns.size]
    if not orders.row.size:
        return t, fills
    calendar = orders.start_ns // round(block_s * NS_PER_S)
    calendar -= calendar[0]
    shape = (opens_ns.size + 1, int(calendar[-1]) + 1)
    cell = known * shape[1] + calendar
    sums = np.bincount(cell, weights=orders.net_bps, minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=0)
    counts = np.bincount(cell, minlength=shape[0] * shape[1]).reshape(shape).cumsum(axis=0)
    for block in range(opens_ns.size):
        t[block] = _t_of_ratio(sums[block], counts[block])
    return t, fills


def _t_of_ratio(sums: NDArray[np.float64], counts: NDArray[np.int64]) -> float:
    """The t of sum(sums) / sum(counts) over the blocks that hold orders; inference has it with its interval."""
    held = counts > 0
    n = int(np.count_nonzero(held))
    if n < 2:
        return float("nan")
    mean = sums.sum() / counts.sum()
    spread = float(np.sum((sums[held] - mean * counts[held]) ** 2))
    if spread <= 1e-18:
        return float("nan")
    return float(mean * counts.sum() / np.sqrt(n / (n - 1) * spread))


def choose(t: NDArray[np.float64], fills: NDArray[np.int64], min_fills_per_block: int) -> int | None:
    """The index of the best t (n,) among candidates with fills (n, blocks) enough: the first of equals, None if none.

    `fills` counts those known when each past block was over. Enough is `min_fills_per_block` on average, and half of
    that in the last one: a policy whose threshold only the first models reached trades no more, however well it did.
    A best t below 0 is still the best: the verdict will say that there is no edge.
    """
    last = np.diff(fills, axis=1, prepend=0)[:, -1]
    usable = np.isfinite(t) & (fills[:, -1] >= min_fills_per_block * fills.shape[1]) & (2 * last >= min_fills_per_block)
    if not usable.any():
        return None
    return int(np.argmax(np.where(usable, t, -np.inf)))


def patched(n_rows: int, pieces: Sequence[Piece]) -> tuple[NDArray[np.int8], Outcomes]:
    """Sides and outcomes of all rows from what each block's own policy decides on its rows.

    `pieces`: (rows, sides (n_rows,), outcomes) per block; rows in no block have side 0.
    """
    made_sides = np.zeros(n_rows, np.int8)
    made = Outcomes(
        np.zeros((2, n_rows)), np.zeros((2, n_rows)), np.zeros((2, n_rows), np.int64), np.zeros((2, n_rows), np.bool_)
    )
    for rows, decided, outcomes in pieces:
        made_sides[rows] = decided[rows]
        for name in ("gross_bps", "net_bps", "end_ns", "filled"):
            getattr(made, name)[:, rows] = getattr(outcomes, name)[:, rows]
    return made_sides, made


@dataclass(frozen=True)
class Search:
    """Every candidate with its t and fills (n_candidates, n_opens) as known at each opening, and the choices made.

    `chosen[k]` is the index of the policy for what opens k-th, the last one the winner's; None where none had fills
    enough.
    """

    candidates: list[Candidate]
    t: NDArray[np.float64]
    fills: NDArray[np.int64]
    chosen: list[int | None]


def search(
    start_ns: NDArray[np.int64],
    symbol: NDArray[np.int64],
    opens_ns: NDArray[np.int64],
    scores: Mapping[tuple[str, float], Score],
    cells: Iterable[tuple[Cell, Outcomes, float]],
    policies_of: Callable[[Cell, str], list[Candidate]],
    min_fills_per_block: int,
) -> Search:
    """Every policy of every model and cell, judged on the rows given: those before the hold-out.

    `opens_ns`: openings of blocks 1, 2, … and of the hold-out. `cells`: each candidate cell with its outcomes (longer
    arrays are cut) and its R + T.
    """
    candidates: list[Candidate] = []
    judged: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
    for cell, outcomes, held_s in cells:
        block_s = max(2.0 * held_s, MIN_CHOICE_BLOCK_S)
        for family in [family for family, horizon_s in scores if horizon_s == cell.horizon_s]:
            score = scores[family, cell.horizon_s]
            for policy in policies_of(cell, family):
                decided = policy_sides(score, policy)[: start_ns.size]
                candidates.append(policy)
                judged.append(known_t(place(start_ns, symbol, decided, outcomes), opens_ns, block_s))
    t, fills = (np.stack(column) for column in zip(*judged, strict=True))
    chosen = [choose(t[:, block], fills[:, : block + 1], min_fills_per_block) for block in range(opens_ns.size)]
    return Search(candidates, t, fills, chosen)


def policy_sides(score: Score, policy: Candidate) -> NDArray[np.int8]:
    """The side that a policy wants on each row, with the calibration that was known there."""
    return sides(score.scores, score.odds, policy.threshold, policy.edge_bps)
