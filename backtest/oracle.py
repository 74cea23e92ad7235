"""The oracle: the policy that knows the planted bursts, measured through the labels, against what it should earn.

It decides at the first whole second after a burst is receivable, on the burst's side, and holds T = 10 s as a taker
(backtest/market/truth.py has the expectation). If the labels, the clocks or the market were wrong by more than noise,
the oracle would say so; at `sim.edge=0` it must earn nothing.
"""

import math
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


def run_oracle(cfg: Config, stage: Stage) -> None:
    """Put the section `truth` and say its line. On a market that is not simulated the section is null."""
    truth = measure(cfg) if cfg.simulated else None
    stage.put("truth", truth)
    if truth is not None:
        stage.say(line_of(truth))


def measure(cfg: Config) -> dict[str, Any] | None:
    """What the oracle earned: means per burst in bps, n bursts, the standard error over bursts, and the expectation.

    The venues of a symbol share its bursts, so a burst counts once, with the mean over venues. Bursts without a label
    at their decision (the stretch's ends, gaps) are left out and counted. None where the truth or the labels lack.
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
    trades = pl.concat(found) if found else None
    return _summary(facts, bursts.height, trades)


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


def line_of(truth: dict[str, Any]) -> str:
    """The section in a line."""
    if truth["n"] == 0:
        return f"oracle: none of {truth['bursts']} bursts could be labelled"
    verdict = {True: "within 2 se", False: "NOT within 2 se", None: "too few to tell"}[truth["within_2_se"]]
    return (
        f"oracle: gross {truth['gross_bps']:.2f} ± {2 * (truth['se_bps'] or 0.0):.2f} bps, expected "
        f"{truth['expected_gross_bps']:.2f} ({verdict}); cost {truth['cost_bps']:.2f}, net {truth['net_bps']:.2f}, "
        f"n {truth['n']} of {truth['bursts']} bursts, T {HOLD_S:g} s"
    )


def _trades(cfg: Config, part: store.Partition, bursts: pl.DataFrame) -> pl.DataFrame:
    """One row per burst that has a label in this partition: start_ns, symbol, drift, gross and net in bps."""
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
        pl.col("gross_bps").alias("drift_bps"),
        (pl.col("side") * pl.col(_CELL.ret_bps)).alias("gross_bps"),
        pl.when(is_long).then(pl.col(_CELL.net_bps(1))).otherwise(pl.col(_CELL.net_bps(-1))).alias("net_bps"),
    ).drop_nulls()


def _summary(facts: dict[str, Any], bursts: int, trades: pl.DataFrame | None) -> dict[str, Any]:
    head = {"edge_bps": facts["edge_bps"], "bursts": bursts, "horizon_s": HOLD_S}
    nothing = dict.fromkeys(("gross_bps", "cost_bps", "net_bps", "se_bps", "expected_gross_bps", "within_2_se"))
    if trades is None:
        return head | {"n": 0, "oracle": None} | nothing
    means = trades.group_by("symbol", "start_ns").mean().sort("symbol", "start_ns")
    gross, net = float(means["gross_bps"].to_numpy().mean()), float(means["net_bps"].to_numpy().mean())
    expected = float(means["drift_bps"].to_numpy().mean()) * reference_share(HOLD_S)
    n = means.height
    se = float(means["gross_bps"].to_numpy().std(ddof=1)) / math.sqrt(n) if n >= _ENOUGH else None
    return head | {
        "n": n,
        "gross_bps": gross,
        "cost_bps": gross - net,
        "net_bps": net,
        "se_bps": se,
        "expected_gross_bps": expected,
        "within_2_se": None if se is None else abs(gross - expected) <= 2.0 * se,
        "oracle": net,
    }
