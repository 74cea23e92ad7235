"""Stage `backtest`: the winner's scores on the hold-out, traded event by event; on a simulated market the oracle, too.

python run_pipeline.py backtest
python backtest/run_backtest.py --set backtest.order_usd=5000
"""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import msgspec
import numpy as np
import polars as pl

from backtest import metrics
from backtest.engine import OUTCOMES, RECORD, Plan, Records, trade
from backtest.oracle import run_oracle
from backtest.policy import limits_of
from core import store
from core.cells import TOUCH
from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.run_record import Stage
from core.schema import FILLS, GAPS, LABELS, MARK_PRICES, SCORES, TOP_OF_BOOK, TRADES
from core.store import Partition
from core.units import NS_PER_S
from labels.build_labels import costs_of, grid_terms, reach_ns, rules_on, sound_decisions
from labels.fills import GATE, THROUGH
from labels.fills import TOUCH as TOUCH_RULE
from labels.grid import Terms
from labels.venue_events import load, neighbours
from research.learning.candidates import HOLD_OUT, Candidate, Winner, held_s, read_winner, winner_path
from research.learning.decision import decide

READS, WRITES = (SCORES, LABELS, TOP_OF_BOOK, TRADES, MARK_PRICES, GAPS), (FILLS,)

VERSION: Final = 4
AGREEMENT_BPS: Final = 1e-3
"""How far an order's net may be from its label's: labels are float32, which takes some 1e-6; a setting takes more."""
WORKERS: Final = 2


class Day(NamedTuple):
    """A symbol-day's orders, the decisions that could not be traded, and how far its nets are from the labels'."""

    orders: pl.DataFrame
    unsound: int
    compared: int
    max_diff_bps: float


def run(cfg: Config, stage: Stage) -> None:
    """Trade the hold-out of every symbol under the winner's rule and the limits."""
    parts = store.require(cfg.root, SCORES, cfg.symbols or ())
    winner = read_winner(cfg.root)
    require_scores(cfg.root, winner)
    key = _key(cfg, parts)
    if stage.reuse(key, whole=has_fills(cfg.root, parts, key)):
        return
    instruments = [list(days) for _, days in groupby(parts, key=lambda part: part.instrument)]
    with ThreadPoolExecutor(WORKERS) as pool:
        made = pool.map(lambda days: _trade_symbol(cfg, winner, days, key), instruments)
        days = [day for symbol in stage.track(made, "backtest", len(instruments)) for day in symbol]
    orders = pl.concat([day.orders for day in days]).sort("decision_ns", "symbol")
    section = metrics.holdout_section(orders, held_s(winner.candidate.cell, cfg.labels))
    section |= {"kept_out_of_broken_record": sum(day.unsound for day in days), "agreement": _agreement(days)}
    require_agreement(section["agreement"])
    stage.rows_in, stage.rows_out = sum(store.rows(cfg.root, part) for part in parts), orders.height
    stage.put("holdout", section)
    stage.put("backtest", {"winner": store.hash_of(winner), "fees": fees_of(cfg, parts)})
    for line in metrics.lines(section, sorted({part.instrument for part in parts})):
        stage.say(line)
    for line in _remarks(section):
        stage.say(line)
    run_oracle(cfg, stage, winner.holdout_window, section)


def require_scores(root: Path, winner: Winner) -> None:
    """Raises StageError unless every symbol that the winner was chosen on has its scores."""
    scored = {part.instrument for part in store.partitions(root, SCORES)}
    missing = [name for name in winner.symbols if name not in scored]
    if missing:
        raise StageError(
            f"table `scores` under {root} holds nothing for {', '.join(missing)}, of the {len(winner.symbols)} symbols "
            "that the winner was chosen on: run `python run_pipeline.py train` again"
        )


def fees_of(cfg: Config, parts: list[Partition]) -> dict[str, dict[str, float]]:
    """Fees in bps of the venues of some partitions."""
    return {venue: msgspec.to_builtins(cfg.fees[venue]) for venue in sorted({part.exchange for part in parts})}


def has_fills(root: Path, parts: list[Partition], key: str) -> bool:
    """Is there a partition of fills for every one of scores, by a run on this key? A run that failed leaves others."""
    return all(store.built_from(root, part.of(FILLS)) == key for part in parts)


def require_agreement(agreement: dict[str, Any]) -> None:
    """Raises StageError where orders earn other nets than their labels say."""
    worst = agreement["max_abs_net_diff_bps"]
    if not worst <= AGREEMENT_BPS:
        raise _mismatch(
            f"orders differ from their labels by up to {worst:.3g} bps net, over the bound of {AGREEMENT_BPS:g}"
        )


def plan_of(cfg: Config, candidate: Candidate, terms: Terms, lot_qty: float, min_notional_usd: float) -> Plan:
    """The engine's plan for a candidate on an instrument whose grid terms are `terms`."""
    gated = candidate.gate_usd is not None
    rule = GATE if gated else (TOUCH_RULE if candidate.rule == TOUCH else THROUGH)
    return Plan(
        is_taker=candidate.kind == "taker",
        rule=rule,
        delta_bps=candidate.delta_bps or 0.0,
        gate_usd=candidate.gate_usd or 0.0,
        hold_ns=round(candidate.horizon_s * NS_PER_S),
        rest_ns=terms.gate_rest_ns if gated else terms.rest_ns,
        entry_latency_ns=terms.entry_latency_ns,
        exit_latency_ns=terms.exit_latency_ns,
        tick=terms.tick,
        lot_qty=lot_qty,
        min_notional_usd=min_notional_usd,
        costs=terms.costs,
        limits=limits_of(cfg.backtest),
        covered_ns=terms.covered_ns,
    )


def order_rows(records: Records, instrument: str) -> pl.DataFrame:
    """Rows of the `fills` table, one per decision with a side; what did not happen is null."""
    frame = pl.DataFrame({name: records[name] for name in records.dtype.names or ()})
    happened = {"arrival_ns": "arrival_ns", "fill_ns": "fill_ns", "fill_recv_ns": "fill_ns"}
    happened |= {"exit_ns": "exit_ns", "exit_price": "exit_ns", "end_ns": "end_ns"}
    return frame.with_columns(
        pl.col("outcome").replace_strict(dict(enumerate(OUTCOMES)), return_dtype=pl.String()),
        pl.col("side").cast(pl.Int8),
        *(pl.when(pl.col(when) > 0).then(pl.col(name)).alias(name) for name, when in happened.items()),
        symbol=pl.lit(instrument),
    )


def _trade_symbol(cfg: Config, winner: Winner, parts: list[Partition], key: str) -> list[Day]:
    """The days of one symbol in order: what one day leaves open counts on the next."""
    days, before = [], np.zeros(0, RECORD)
    for part in parts:
        before, unsound = _trade_day(cfg, winner, part, before)
        orders = order_rows(before, part.instrument)
        # Empty outside the hold-out: what an earlier winner left goes.
        store.write(cfg.root, part.of(FILLS), orders, key)
        days.append(Day(orders, unsound, *_compare(cfg.root, winner.candidate, part, orders)))
    return days


def _trade_day(cfg: Config, winner: Winner, part: Partition, before: Records) -> tuple[Records, int]:
    """Records of one symbol-day, and the number of decisions with a side that a broken record kept out."""
    candidate, column = winner.candidate, f"score_{winner.candidate.model}"
    scores = store.read(cfg.root, part, ["decision_ns", "fold", column]).filter(fold=HOLD_OUT)
    if not scores.height:
        return before[:0], 0
    times_ns = scores["decision_ns"].to_numpy()
    sides = decide(scores[column].to_numpy(), winner.calibration, candidate.threshold, candidate.edge_bps)
    day = load(cfg.root, part, reach_ns(cfg.labels), round(cfg.labels.stale_book_s * NS_PER_S))
    decisions, _ = sound_decisions(times_ns, day)
    sound = np.isin(times_ns, decisions.t_ns)
    rules = rules_on(part, day)
    terms = grid_terms(cfg.labels, costs_of(cfg, part.exchange), rules.tick, day.covered_ns)
    plan = plan_of(cfg, candidate, terms, rules.lot_qty, rules.min_notional_usd)
    records = trade(decisions, sides[sound], day.quotes, day.trades, day.funding, plan, before)
    return records, int(np.count_nonzero(sides[~sound]))


def _compare(root: Path, candidate: Candidate, part: Partition, orders: pl.DataFrame) -> tuple[int, float]:
    """(orders that labels hold too, the largest difference of net bps): two implementations of one definition."""
    cell = candidate.cell
    names = {side: cell.net_bps(side) for side in (1, -1)}
    files = store.files(root, part.of(LABELS))
    if not files or not set(names.values()) <= set(pl.read_parquet_schema(files[0])):
        raise _mismatch(f"the labels of {part.instrument} on {part.date} hold no column {names[1]}")
    labels = store.read(root, part.of(LABELS), ["decision_ns", *names.values()])
    both = (
        orders.filter(pl.col("outcome").is_in(metrics.ENDED))
        .join(labels, on="decision_ns", how="inner", validate="m:1")
        .with_columns(label=pl.when(pl.col("side") > 0).then(pl.col(names[1])).otherwise(pl.col(names[-1])))
        .drop_nulls("label")
    )
    return both.height, float(both.select((pl.col("net_bps") - pl.col("label")).abs().max()).item() or 0.0)


def _mismatch(what: str) -> StageError:
    return StageError(
        f"{what}: labels, scores and backtest were made with different settings (fees, latency, slippage, horizons): "
        "run `python run_pipeline.py labels train backtest` with the same settings"
    )


def _agreement(days: list[Day]) -> dict[str, Any]:
    return {
        "orders_compared": sum(day.compared for day in days),
        "max_abs_net_diff_bps": max((day.max_diff_bps for day in days), default=0.0),
    }


def _remarks(section: dict[str, Any]) -> Iterator[str]:
    agreement = section["agreement"]
    yield (
        f"agreement with the labels: {agreement['orders_compared']:,} orders, largest difference "
        f"{agreement['max_abs_net_diff_bps']:.1e} bps"
    )
    for outcome, count in section["not_sent"].items():
        yield f"not counted: {count:,} decisions with a side, {outcome}"
    if section["kept_out_of_broken_record"]:
        yield f"not counted: {section['kept_out_of_broken_record']:,} decisions with a side, gap or unsound book"


def _key(cfg: Config, parts: list[Partition]) -> str:
    days = {each for part in parts for table in READS[1:] for each in neighbours(cfg.root, part, table)}
    rows = store.fingerprint(cfg.root, [*parts, *sorted(days)])
    truth = [path.read_bytes() for path in sorted((cfg.root / "truth").glob("*"))]
    return store.hash_of(rows, winner_path(cfg.root).read_bytes(), truth, cfg.labels, cfg.fees, cfg.backtest, VERSION)


if __name__ == "__main__":
    stage_main("backtest", run)
