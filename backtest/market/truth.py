"""What is planted: the drift of a burst, the reference policy's expected gross, and the files that say so.

The reference policy knows the bursts. It decides at the first point of a 1 s grid after a burst's start is receivable,
enters there on its side and holds T = 10 s. With L the age of the burst at the decision, on the venue's clock, a burst
of drift g pays it g exp(-L / tau) (1 - exp(-T / tau)) (method.md section 6). Starts are Poisson and the decision's mid
is as old as the feed, so L is uniform over the grid's step, whatever the latency:

    E[gross] = g E[u] * (tau / 1 s) (1 - exp(-1 s / tau)) * (1 - exp(-T / tau)),        E[u] = 1

and `sim.edge` = E[gross] gives g.
"""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec
import polars as pl

from core.config import Config, Sim
from core.store import write_atomic
from core.units import NS_PER_S

VERSION: Final = 3
"""Of the simulator: raise it with any change that changes a tape."""
GRID_S: Final = 1.0
HOLD_S: Final = 10.0
DECAY_S: Final = 3.0
BURSTS: Final = {"symbol": pl.String(), "start_ns": pl.Int64(), "side": pl.Int64(), "gross_bps": pl.Float64()}


def start_ns(sim: Sim) -> int:
    """The market's first instant."""
    return int(datetime.fromisoformat(sim.start).timestamp()) * NS_PER_S


def drift_bps(sim: Sim) -> float:
    """g: the whole mean drift of a burst for which the reference policy earns `sim.edge` gross."""
    return sim.edge / reference_share(HOLD_S)


def reference_share(hold_s: float) -> float:
    """The share of a burst's drift that the reference policy is expected to earn when it holds `hold_s`."""
    entered = DECAY_S / GRID_S * (1.0 - math.exp(-GRID_S / DECAY_S))
    return entered * (1.0 - math.exp(-hold_s / DECAY_S))


def write_market(config: Config) -> None:
    """`<data>/truth/market.json`: what is planted and what the reference policy should earn."""
    facts: dict[str, Any] = {
        "version": VERSION,
        "seed": config.seed,
        "edge_bps": config.sim.edge,
        "drift_bps": drift_bps(config.sim),
        "reference": {
            "grid_s": GRID_S,
            "hold_s": HOLD_S,
            "expected_gross_bps": config.sim.edge,
            "mean_age_s": GRID_S / 2,
        },
        "feed_latency_ms": config.sim.feed_latency_ms,
    }
    write_atomic(config.root / "truth" / "market.json", msgspec.json.format(msgspec.json.encode(facts), indent=2))


def write_bursts(config: Config, bursts: Sequence[tuple[str, int, int, float]]) -> None:
    """`<data>/truth/bursts.parquet`: (symbol, start_ns on the leading venue's clock, side, gross_bps)."""
    path = config.root / "truth" / "bursts.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(path.name + ".part")
    pl.DataFrame(list(bursts), schema=BURSTS, orient="row").write_parquet(draft)
    draft.replace(path)
