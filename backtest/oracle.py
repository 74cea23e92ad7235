"""The oracle: the policy that knows the planted bursts, measured through the labels, against what it should earn.

It decides at the first whole second after a burst is receivable, on the burst's side, and holds T = 10 s as a taker
(backtest/market/truth.py has the expectation). If the labels, the clocks or the market were wrong by more than noise,
the oracle would say so; at `sim.edge=0` it must earn nothing.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import polars as pl

from backtest.market.simulate import LAG_MS
from backtest.market.truth import GRID_S, HOLD_S, reference_share
from core import store
from core.cells import TakerCell
from core.config import Config
from core.run_record import Stage
from core.schema import LABELS
from core.units import NS_PER_MS, NS_PER_S

_CELL: Final = TakerCell(HOLD_S)
_ENOUGH: Final = 10
"""Bursts below which a standard error says nothing."""
Window = tuple[int, int]


def run_oracle(cfg: Config, stage: Stage, holdout_window: Window, pipeline: Mapping[str, Any]) -> None:
    """Put the section `truth` and say its lines. On a market that is not simulated the section is null.

    `pipeline` is the section `holdout`, which the oracle over the same stretch (first and last decision) stands beside.
    """
    truth = measure(cfg, holdout_window) if cfg.simulated else None
    if truth is not None:
        truth["holdout"] |= {"pipeline_net_bps": pipeline["net_bps_per_order"], "pipeline_n": pipeline["n_orders"]}
        for line in lines_of(truth):
            stage.say(line)
    stage.put("truth", truth)


def measure(cfg: Config, holdout_window: Window) -> dict[str, Any] | None:
    """What was planted, and what the oracle earned: means per burst in bps, n bursts, the standard error over bursts.

    `gross_bps` is what the bursts that the oracle traded are expected to pay, `net_bps` that less what its round trips
    cost; `oracle` is what it earned. The venues of a symbol share its bursts, so a burst counts once, with the mean
    over venues. Bursts without a label at their decision (the stretch's ends, gaps) are left out and counted. None
    where the truth is not there.
    """
    facts, bursts = read_truth(cfg.root)
    if facts is None or bursts is None:
        return None
    found = [
        _trades(cfg, part, bursts.filter(pl.col("symbol") == part.symbol))
        for part in store.partitions(cfg.root, LABELS, cfg.symbols or ())
        if part.exchange in LAG_MS
    ]
    found = [frame for frame in found if frame.height]
    return _summary(facts, bursts.height, pl.concat(found) if found else None, holdout_window)


def read_truth(root: Path) -> tuple[dict[str, Any] | None, pl.DataFrame | None]:
    """`<data>/truth`: the market's facts and its bursts; None for what is not there."""
    facts, bursts = root / "truth" / "market.json", root / "truth" / "bursts.parquet"
    if not facts.exists() or not bursts.exists():
        return None, None
    return msgspec.json.decode(facts.read_bytes()), pl.read_parquet(bursts)


def decision_ns(start_ns: np.ndarray[Any, Any], venue: str, feed_latency_ms: float) -> np.ndarray[Any, Any]:
    """The first point of the reference grid at which a burst can have been received from a venue."""
    receivable = start_ns + round((LAG_MS[venue] + feed_latency_ms) * NS_PER_MS)
    step = round(GRID_S * NS_PER_S)
    return np.asarray(-(-receivable // step) * step)


def lines_of(truth: Mapping[str, Any]) -> list[str]:
    """The section in lines: over the whole run, and in the hold-out beside what the pipeline found."""
    oracle = truth["oracle"]
    if oracle["n"] == 0:
        return [f"oracle: none of {truth['bursts']} bursts has a label where it decides, every {GRID_S:g} s"]
    verdict = {True: "within 2 se", False: "beyond 2 se: 1 run in 20 is", None: "too few to tell"}
    error = "" if oracle["se_bps"] is None else f" ± {2 * oracle['se_bps']:.2f} (2 se)"
    whole = (
        f"oracle: gross {oracle['gross_bps']:.2f}{error} bps, expected {truth['gross_bps']:.2f} "
        f"({verdict[oracle['within_2_se']]}); cost {truth['cost_bps']:.2f}, net {oracle['net_bps']:.2f}, "
        f"n {oracle['n']} of {truth['bursts']} bursts, T {HOLD_S:g} s"
    )
    late = truth["holdout"]
    mine, found = (_net_text(late[f"{who}_net_bps"]) for who in ("oracle", "pipeline"))
    beside = (
        f"oracle in the hold-out: net {mine} over {late['oracle_n']:,} bursts; "
        f"pipeline: net {found} over {late['pipeline_n']:,} orders"
    )
    return [whole, beside]


def _net_text(net_bps: float | None) -> str:
    return "–" if net_bps is None else f"{net_bps:.2f} bps"


def _trades(cfg: Config, part: store.Partition, bursts: pl.DataFrame) -> pl.DataFrame:
    """One row per burst that has a label in this partition: its symbol, times, drift, gross and net in bps."""
    columns = ["decision_ns", _CELL.ret_bps, _CELL.net_bps(1), _CELL.net_bps(-1)]
    names = pl.read_parquet_schema(store.files(cfg.root, part)[0])
    if not set(columns) <= set(names):
        return pl.DataFrame()
    when = decision_ns(bursts["start_ns"].to_numpy(), part.exchange, cfg.sim.feed_latency_ms)
    labels = store.read(cfg.root, part, columns)
    joined = bursts.with_columns(decision_ns=when).join(labels, on="decision_ns", how="inner")
    is_long = pl.col("side") > 0
    return joined.select(
        "symbol",
        "start_ns",
        "decision_ns",
        pl.col("gross_bps").alias("drift_bps"),
        (pl.col("side") * pl.col(_CELL.ret_bps)).alias("gross_bps"),
        pl.when(is_long).then(pl.col(_CELL.net_bps(1))).otherwise(pl.col(_CELL.net_bps(-1))).alias("net_bps"),
    ).drop_nulls()


def _summary(
    facts: Mapping[str, Any], bursts: int, trades: pl.DataFrame | None, holdout_window: Window
) -> dict[str, Any]:
    head = {"edge_bps": facts["edge_bps"], "bursts": bursts, "horizon_s": HOLD_S}
    if trades is None:
        nothing = dict.fromkeys(("gross_bps", "net_bps", "se_bps", "within_2_se"))
        truth = dict.fromkeys(("gross_bps", "cost_bps", "net_bps"))
        return head | truth | {"oracle": nothing | {"n": 0}, "holdout": {"oracle_net_bps": None, "oracle_n": 0}}
    means = _per_burst(trades)
    gross, net = _mean(means, "gross_bps"), _mean(means, "net_bps")
    expected, cost = _mean(means, "drift_bps") * reference_share(HOLD_S), gross - net
    n = means.height
    se = float(means["gross_bps"].to_numpy().std(ddof=1)) / math.sqrt(n) if n >= _ENOUGH else None
    within = None if se is None else abs(gross - expected) <= 2.0 * se
    late = _per_burst(trades.filter(pl.col("decision_ns").is_between(*holdout_window)))
    return head | {
        "gross_bps": expected,
        "cost_bps": cost,
        "net_bps": expected - cost,
        "oracle": {"gross_bps": gross, "net_bps": net, "n": n, "se_bps": se, "within_2_se": within},
        "holdout": {"oracle_net_bps": _mean(late, "net_bps") if late.height else None, "oracle_n": late.height},
    }


def _per_burst(trades: pl.DataFrame) -> pl.DataFrame:
    return trades.group_by("symbol", "start_ns").mean().sort("symbol", "start_ns")


def _mean(rows: pl.DataFrame, column: str) -> float:
    return float(rows[column].to_numpy().mean())
