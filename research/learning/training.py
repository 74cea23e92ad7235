"""From scores to a winner, a verdict and the rows of the report: everything between the fits and the files."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from core.cells import THROUGH, MakerCell, TakerCell, gate_rule
from core.config import Labels, Train
from core.units import NS_PER_HOUR, NS_PER_S
from research.learning import dataset, inference, metrics, selection
from research.learning.candidates import Candidate, candidate_cells, cost_rungs, held_s, policies
from research.learning.dataset import Cell, Dataset, Outcomes
from research.learning.decision import sides
from research.learning.nested import Plan, Score, plan
from research.learning.selection import Orders, Search
from research.learning.verdict import Stretch, Verdict, judge

Scores = Mapping[tuple[str, float], Score]
OutcomesOf = Callable[[Cell], Outcomes]


@dataclass(frozen=True)
class Judged:
    """The winner's case: orders of walk-forward (each block's own choice) and hold-out (the winner's).

    `held_s` is the longest R + T of the winner and the blocks' choices: intervals rest on blocks that suit all of them.
    `walk_stretch` and `holdout_stretch` are what the verdict saw.
    """

    winner: Candidate
    walk_forward: Orders
    holdout: Orders
    held_s: float
    deflated_sharpe: float | None
    verdict: Verdict
    walk_stretch: Stretch
    holdout_stretch: Stretch
    look: int
    trials: int


def longest_held_s(cells: list[Cell], labels: Labels) -> float:
    """The longest R + T among some cells: the default embargo."""
    return max(held_s(cell, labels) for cell in cells)


def split(data: Dataset, train: Train, labels: Labels, cells: list[Cell]) -> Plan | None:
    """All splits of the common rows of some cells, None where the data are too short for them."""
    embargo_s = longest_held_s(cells, labels) if train.embargo_s is None else train.embargo_s
    return plan(
        data.start_ns,
        data.end_ns,
        train.walk_forward_blocks,
        train.inner_folds,
        train.holdout_frac,
        round(embargo_s * NS_PER_S),
    )


def round_trip_bps(outcomes: Outcomes, rows: NDArray[np.int64]) -> float:
    """What taking both ways costs: the median over some rows of minus the mean net of buying and of selling.

    The return and the funding are in both sides with opposite signs and cancel.
    """
    return float(np.median(-outcomes.net_bps[:, rows].mean(axis=0)))


def opening_times(data: Dataset, made: Plan) -> NDArray[np.int64]:
    """When blocks 1, 2, … and the hold-out begin (ns)."""
    return np.array([data.start_ns[split.test[0]] for split in made.splits], dtype=np.int64)


def n_walked(made: Plan) -> int:
    """Decisions in the blocks that walk-forward predicts."""
    return sum(int(split.test.size) for split in made.walk)


def find(
    data: Dataset, made: Plan, scores: Scores, cells: list[Cell], outcomes_of: OutcomesOf, train: Train, labels: Labels
) -> Search:
    """Judge every candidate on the rows before the hold-out and choose for each block."""
    past = made.final.test[0]
    taker = min((cell for cell in cells if isinstance(cell, TakerCell)), key=lambda cell: cell.horizon_s)
    # The rungs rest on block 0 alone, which is the past of every choice.
    rungs_bps = cost_rungs(round_trip_bps(outcomes_of(taker), made.first))
    return selection.search(
        data.start_ns[:past],
        data.symbol[:past],
        opening_times(data, made),
        scores,
        ((cell, outcomes_of(cell), held_s(cell, labels)) for cell in cells),
        lambda cell, family: policies(train, cell, family, rungs_bps),
        train.min_fills_per_fold,
    )


def traded(found: Search, block: int) -> bool:
    """Whether the choice for a walk-forward block is traded: not trading is a candidate too, with a t of 0.

    Only the winner is used whatever its t: a model is exported in any case, and the verdict says what it is worth.
    """
    index = found.chosen[block]
    return index is not None and bool(found.t[index, block] > 0.0)


def block_choices(found: Search) -> list[Candidate | None]:
    """The policy traded in each walk-forward block, None where none had paid so far."""
    return [
        found.candidates[index] if index is not None and traded(found, block) else None
        for block, index in enumerate(found.chosen[:-1])
    ]


def longest_chosen_s(found: Search, winner: Candidate, labels: Labels) -> float:
    """The longest R + T among the policies that the verdict rests on."""
    return longest_held_s([each.cell for each in (winner, *block_choices(found)) if each is not None], labels)


def walk_forward_orders(data: Dataset, made: Plan, scores: Scores, found: Search, outcomes_of: OutcomesOf) -> Orders:
    """Orders of blocks 1, 2, …: each block with the policy chosen before it opened, none where none had paid so far."""
    past = int(made.final.test[0])
    choices = block_choices(found)
    pieces = []
    for choice in dict.fromkeys(choice for choice in choices if choice is not None):
        rows = np.concatenate([split.test for split, taken in zip(made.walk, choices, strict=True) if taken == choice])
        decided = selection.policy_sides(scores[choice.family, choice.horizon_s], choice)
        pieces.append((rows, decided, outcomes_of(choice.cell)))
    decided, outcomes = selection.patched(past, pieces)
    return selection.place(data.start_ns[:past], data.symbol[:past], decided, outcomes)


def holdout_orders(data: Dataset, made: Plan, scores: Scores, winner: Candidate, outcomes_of: OutcomesOf) -> Orders:
    """The winner's orders in the hold-out."""
    decided = np.zeros(data.n_rows, np.int8)
    rows = made.final.test
    decided[rows] = selection.policy_sides(scores[winner.family, winner.horizon_s], winner)[rows]
    return selection.place(data.start_ns, data.symbol, decided, outcomes_of(winner.cell))


def judged(
    data: Dataset, made: Plan, winner: Candidate, walk: Orders, held_out: Orders, held: float, look: int, trials: int
) -> Judged:
    """The verdict on the nested walk-forward and the hold-out together; `held` as in `Judged`."""
    opened, closed = opening_times(data, made)[[0, -1]]
    windows = [(int(opened), int(closed) - 1), (int(closed), int(data.start_ns[-1]))]
    walked, final = (
        _stretch(orders, to_ns - from_ns, held)
        for orders, (from_ns, to_ns) in zip((walk, held_out), windows, strict=True)
    )
    start_ns, net_bps = (
        np.concatenate([getattr(walk, name), getattr(held_out, name)]) for name in ("start_ns", "net_bps")
    )
    series = inference.minute_series(start_ns, net_bps, windows)
    deflated = inference.deflated_sharpe(series, trials, lags=int(np.ceil(2.0 * held / 60.0)))
    verdict = judge(walked, final, deflated, look, held)
    return Judged(winner, walk, held_out, held, deflated, verdict, walked, final, look, trials)


def _stretch(orders: Orders, span_ns: int, held: float) -> Stretch:
    mean, seconds = float(orders.net_bps.mean()) if orders.row.size else None, inference.block_s(held)
    ratio = inference.ratio_of_sums(orders.start_ns, orders.net_bps, seconds)
    return Stretch(orders.n_fills, span_ns / NS_PER_HOUR, mean, ratio, inference.n_blocks(orders.start_ns, seconds))


def selection_section(case: Judged, found: Search) -> dict[str, Any]:
    """Section `selection` of the report. `mean_net_bps` and `ci95` are per order of the hold-out."""
    held_out, interval = case.holdout, case.holdout_stretch.ratio
    return {
        "trials": case.trials,
        "holdout_looks": case.look,
        "n_walk_forward": case.walk_forward.n_fills,
        "n_holdout": held_out.n_fills,
        "z": case.verdict.z,
        "z_needed": case.verdict.z_needed,
        "mean_net_bps": float(held_out.net_bps.mean()) if held_out.row.size else None,
        "ci95": None if interval is None else list(interval.ci95),
        "deflated_sharpe": case.deflated_sharpe,
        "pbo": None,  # needs combinatorial purged CV
        "verdict": case.verdict.verdict,
        "reasons": case.verdict.reasons,
        "criteria": case.verdict.criteria,
        "walk_forward": _per_order(case.walk_forward, case.held_s),
        "holdout": _per_order(held_out, case.held_s),
        "choices": [_choice(found, block) for block in range(len(found.chosen))],
    }


def _per_order(orders: Orders, held: float) -> dict[str, Any]:
    interval = inference.ratio_of_sums(orders.start_ns, orders.net_bps, inference.block_s(held))
    return {
        "n_orders": int(orders.row.size),
        "n_fills": orders.n_fills,
        "net_bps_per_order": float(orders.net_bps.mean()) if orders.row.size else None,
        "t": None if interval is None else interval.t,
        "ci95": None if interval is None else list(interval.ci95),
    }


def _choice(found: Search, block: int) -> dict[str, Any]:
    """What was chosen for block `block + 1` (the last: for the hold-out), and how good it looked by then."""
    index = found.chosen[block]
    last = block == len(found.chosen) - 1
    name = "hold-out" if last else f"block {block + 1}"
    if index is None:
        return {"for": name, "candidate": None, "t": None, "fills": None, "traded": False}
    return {
        "for": name,
        "candidate": msgspec.to_builtins(found.candidates[index]),
        "t": float(found.t[index, block]),
        "fills": int(found.fills[index, block]),
        "traded": last or traded(found, block),
    }


def model_rows(scores: Scores, targets: Mapping[float, NDArray[np.float64]], made: Plan) -> list[dict[str, Any]]:
    """Section `models`: how well each family predicts each horizon out of sample, per block and over all of them."""
    rows = np.concatenate([split.test for split in made.walk])
    return [
        {
            "name": f"{family}_{horizon_s:g}",
            "cell": {"horizon_s": horizon_s},
            "settings": dict(score.settings),
            "folds": [
                {
                    "fold": fold,
                    "n_train": n_train,
                    **metrics.skill(score.scores[split.test], targets[horizon_s][split.test]),
                }
                for fold, (split, n_train) in enumerate(zip(made.walk, score.n_train[:-1], strict=True), start=1)
            ],
            "oof": metrics.skill(score.scores[rows], targets[horizon_s][rows]),
        }
        for (family, horizon_s), score in scores.items()
    ]


def best_families(model_section: list[dict[str, Any]], scores: Scores) -> dict[float, str]:
    """The family with the best out-of-sample R² at each horizon: whose scores the metric grids show."""
    best: dict[float, tuple[float, str]] = {}
    for (family, horizon_s), row in zip(scores, model_section, strict=True):
        r2 = -np.inf if row["oof"]["r2"] is None else row["oof"]["r2"]
        if horizon_s not in best or r2 > best[horizon_s][0]:
            best[horizon_s] = r2, family
    return {horizon_s: family for horizon_s, (_, family) in best.items()}


def grid_rows(
    data: Dataset,
    made: Plan,
    scores: Scores,
    families: Mapping[float, str],
    cells: list[tuple[Cell, float | None]],
    outcomes_of: OutcomesOf,
    train: Train,
    labels: Labels,
) -> Iterator[dict[str, Any]]:
    """Metric rows over the configured thresholds and edges, on the out-of-sample scores of blocks 1, 2, ….

    `cells`: each with the fill gate (USD) it stands for, None for takers and for the rule of the verdict.
    """
    here = slice(int(made.walk[0].test[0]), int(made.final.test[0]))
    for cell, gate_usd in cells:
        family = families[cell.horizon_s]
        score, outcomes = scores[family, cell.horizon_s], outcomes_of(cell).cut(here)
        for threshold, edge_bps in itertools.product(train.thresholds, train.edges_bps):
            decided = sides(score.scores[here], score.odds[here], threshold, edge_bps)
            orders = selection.place(data.start_ns[here], data.symbol[here], decided, outcomes)
            head: dict[str, Any] = {"horizon_s": cell.horizon_s, "family": family}
            if isinstance(cell, MakerCell):
                head |= {"delta_bps": cell.delta_bps, "rule": cell.rule, "fill_usd": gate_usd}
            head |= {"thr": threshold, "edge_bps": edge_bps}
            yield head | metrics.summary(orders, decided.size, held_s(cell, labels))


def policy_row(
    data: Dataset, made: Plan, scores: Scores, policy: Candidate, outcomes_of: OutcomesOf, train: Train, labels: Labels
) -> dict[str, Any]:
    """The metric row of one policy, with its own threshold and edge, over blocks 1, 2, …."""
    alone = msgspec.structs.replace(train, thresholds=(policy.threshold,), edges_bps=(policy.edge_bps,))
    families = {policy.horizon_s: policy.family}
    return next(grid_rows(data, made, scores, families, [(policy.cell, None)], outcomes_of, alone, labels))


def maker_grid(labels: Labels, horizons_s: list[float]) -> list[tuple[Cell, float | None]]:
    """Maker cells under the rule of the verdict and under each notional gate."""
    rules = [(THROUGH, None), *((gate_rule(usd), usd) for usd in labels.gates_usd)]
    return [
        (MakerCell(delta_bps, horizon_s, rule), usd)
        for horizon_s in horizons_s
        if horizon_s >= labels.min_maker_horizon_s
        for delta_bps in labels.deltas_bps
        for rule, usd in rules
    ]


def cells_of(train: Train, labels: Labels, horizons_s: list[float]) -> list[Cell]:
    """Candidate cells at some of the horizons trained for."""
    return [cell for cell in candidate_cells(train, labels) if cell.horizon_s in horizons_s]


def outcomes_reader(data: Dataset) -> OutcomesOf:
    """Outcomes by cell, read when asked for: one cell of a month is hundreds of MB, all of them would not fit."""
    return lambda cell: dataset.outcomes(data, cell)
