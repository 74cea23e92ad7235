""" "edge" or "no edge", with the reasons: the criteria of method section 5, each with what it saw and needed."""

import math
from typing import Any, Final, Literal, NamedTuple

from scipy.stats import norm

from research.learning.inference import MIN_BLOCKS, Ratio, block_s, joint_z

MIN_WALK_FORWARD, MIN_HOLDOUT = 100, 30  # round trips
MIN_HOLDOUT_HOLDS: Final = 30  # the hold-out in units of R + T
FIRST_LOOK_Z: Final = 2.33
MIN_DEFLATED_SHARPE: Final = 0.95
TRADES_PER_HORIZON_S: Final = 12.3
"""Trades per second of T that find 1 bp net in one test at 2 %, 97 % of the time: 120, 740, 3,700 and 11,000 at T = 10,
60, 300 and 900 s."""


class Stretch(NamedTuple):
    """What the chosen policies did over one stretch: round trips (fills), span, mean net per order, its interval.

    `n_blocks` is how many calendar blocks hold trades.
    """

    n: int
    hours: float
    mean_net_bps: float | None
    ratio: Ratio | None
    n_blocks: int = 0

    @property
    def blocks(self) -> int:
        return self.ratio.n_blocks if self.ratio else self.n_blocks


class Criterion(NamedTuple):
    name: str
    passed: bool
    reason: str


class Verdict(NamedTuple):
    verdict: Literal["edge", "no edge"]
    reasons: list[str]
    z: float | None
    z_needed: float
    criteria: list[dict[str, Any]]


def look_z(look: int) -> float:
    """The z that the k-th distinct look at a hold-out must reach.

    The k-th look spends alpha * 6 / (pi² k²), which sums to alpha however often one looks; alpha = 1.63 % puts the
    first look at the 2.33 of a single test.
    """
    return float(norm.isf(norm.sf(FIRST_LOOK_Z) / look**2))


def judge(walk_forward: Stretch, holdout: Stretch, deflated: float | None, look: int, held_s: float) -> Verdict:
    """The verdict on policies that bind a position for `held_s` = R + T at the longest."""
    z = None
    if walk_forward.ratio and holdout.ratio:
        z = joint_z([(walk_forward.ratio.z, walk_forward.n), (holdout.ratio.z, holdout.n)])
    needed = look_z(look)
    criteria = [
        _enough(walk_forward, holdout, held_s),
        _paid(walk_forward),
        _significant(z, needed, look),
        _positive(holdout),
        _deflated(deflated),
    ]
    reasons = [criterion.reason for criterion in criteria if not criterion.passed]
    passed: Literal["edge", "no edge"] = "no edge" if reasons else "edge"
    return Verdict(passed, reasons, z, needed, [criterion._asdict() for criterion in criteria])


class _Need(NamedTuple):
    """Something counted, how much of it there is, and how much there must be."""

    what: str
    seen: float
    least: float


def _needs(walk_forward: Stretch, holdout: Stretch, held_s: float) -> list[_Need]:
    """Criterion (a), and the blocks that an interval takes. Policies that never traded lack no data in walk-forward."""
    needs = [
        _Need("round trips in the hold-out", holdout.n, MIN_HOLDOUT),
        _Need("hours of hold-out", holdout.hours, MIN_HOLDOUT_HOLDS * held_s / 3600.0),
        _Need("blocks with trades in the hold-out", holdout.blocks, MIN_BLOCKS),
    ]
    if walk_forward.n:
        needs += [
            _Need("round trips in walk-forward", walk_forward.n, MIN_WALK_FORWARD),
            _Need("blocks with trades in walk-forward", walk_forward.blocks, MIN_BLOCKS),
        ]
    return needs


def _enough(walk_forward: Stretch, holdout: Stretch, held_s: float) -> Criterion:
    short = [need for need in _needs(walk_forward, holdout, held_s) if need.seen < need.least]
    if not short:
        return Criterion("enough data", True, f"enough data: {walk_forward.n:,} and {holdout.n:,} round trips")
    facts = ", ".join(f"{need.seen:.3g} {need.what} (needs {need.least:.3g})" for need in short)
    return Criterion("enough data", False, f"insufficient data: {hours_needed(walk_forward, holdout, held_s)}; {facts}")


def hours_needed(walk_forward: Stretch, holdout: Stretch, held_s: float) -> str:
    """How long a capture the same policies would need for criterion (a) and a printed interval, as text.

    What was not seen at all is counted as one, and the hours are then a lower bound.
    """
    needs = _needs(walk_forward, holdout, held_s)
    calendar = MIN_BLOCKS * block_s(held_s) / 3600.0
    factor = max(calendar / holdout.hours, *(need.least / (need.seen or 1.0) for need in needs))
    bound = "" if all(need.seen for need in needs) else "more than "
    return f"needs {bound}{math.ceil(factor * (walk_forward.hours + holdout.hours)):,} h"


def hours_to_judge(horizon_s: float, held_s: float, holdout_frac: float, n_symbols: int) -> float:
    """How long a capture a horizon takes before it can be judged: 30 holds of hold-out, and power at 1 bp net.

    The power asks for trades in proportion to T; they are had fastest back to back on every symbol.
    """
    return max(MIN_HOLDOUT_HOLDS / holdout_frac, TRADES_PER_HORIZON_S * horizon_s / n_symbols) * held_s / 3600.0


def _paid(walk_forward: Stretch) -> Criterion:
    if not walk_forward.n:
        return Criterion("paid on its past", False, "no candidate had paid on its past in any block")
    return Criterion("paid on its past", True, f"{walk_forward.n:,} round trips of what had paid on its past")


def _significant(z: float | None, needed: float, look: int) -> Criterion:
    if z is None:
        return Criterion("joint z", False, f"joint z unknown: under {MIN_BLOCKS} blocks with trades in a stretch")
    return Criterion("joint z", z >= needed, f"joint z is {z:.2f}, needs {needed:.2f} (look {look} at this hold-out)")


def _positive(holdout: Stretch) -> Criterion:
    if holdout.mean_net_bps is None:
        return Criterion("hold-out mean", False, "no trades in the hold-out")
    mean = holdout.mean_net_bps
    return Criterion(
        "hold-out mean", mean > 0.0, f"hold-out mean is {mean:+.2f} bps net per order, needs to be above 0"
    )


def _deflated(value: float | None) -> Criterion:
    if value is None:
        return Criterion("deflated Sharpe", False, "deflated Sharpe unknown: net series too short or constant")
    return Criterion(
        "deflated Sharpe", value >= MIN_DEFLATED_SHARPE, f"deflated Sharpe is {value:.3f}, needs {MIN_DEFLATED_SHARPE}"
    )
