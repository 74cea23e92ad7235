""" "edge" or "no edge", with the reasons: the four criteria of method section 5, each with what it saw and needed."""

import math
from typing import Any, Final, Literal, NamedTuple

from scipy.stats import norm

from research.inference import MIN_BLOCKS, Ratio, block_s, joint_z

MIN_WALK_FORWARD, MIN_HOLDOUT = 100, 30  # round trips
MIN_HOLDOUT_HOLDS: Final = 30  # the hold-out in units of R + T
FIRST_LOOK_Z: Final = 2.33
MIN_DEFLATED_SHARPE: Final = 0.95


class Stretch(NamedTuple):
    """What the chosen policies did over one stretch: round trips (fills), span, mean net per order, its interval."""

    n: int
    hours: float
    mean_net_bps: float | None
    ratio: Ratio | None


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
    """The verdict on a policy that binds a position for `held_s` = R + T."""
    z = None
    if walk_forward.ratio and holdout.ratio:
        z = joint_z([(walk_forward.ratio.z, walk_forward.n), (holdout.ratio.z, holdout.n)])
    needed = look_z(look)
    criteria = [
        _enough(walk_forward, holdout, held_s),
        _significant(z, needed, look),
        _positive(holdout),
        _deflated(deflated),
    ]
    reasons = [criterion.reason for criterion in criteria if not criterion.passed]
    passed: Literal["edge", "no edge"] = "no edge" if reasons else "edge"
    return Verdict(passed, reasons, z, needed, [criterion._asdict() for criterion in criteria])


def _enough(walk_forward: Stretch, holdout: Stretch, held_s: float) -> Criterion:
    span = MIN_HOLDOUT_HOLDS * held_s / 3600.0
    facts = (
        f"{walk_forward.n} round trips in walk-forward (needs {MIN_WALK_FORWARD}), "
        f"{holdout.n} in a hold-out of {holdout.hours:.1f} h (needs {MIN_HOLDOUT} and {span:.1f} h)"
    )
    passed = walk_forward.n >= MIN_WALK_FORWARD and holdout.n >= MIN_HOLDOUT and holdout.hours >= span
    if passed:
        return Criterion("enough data", True, facts)
    if walk_forward.n == 0:
        return Criterion("enough data", False, f"no candidate had a net t above 0 on its past in any block; {facts}")
    return Criterion("enough data", False, f"insufficient data: {hours_needed(walk_forward, holdout, held_s)}; {facts}")


def hours_needed(walk_forward: Stretch, holdout: Stretch, held_s: float) -> str:
    """How long a capture the same policies would need for criterion (a) and a printed interval, as text."""
    if holdout.n == 0:
        return "needs more than can be said: the winner made no round trip in the hold-out"
    factor = max(
        MIN_WALK_FORWARD / walk_forward.n,
        MIN_HOLDOUT / holdout.n,
        MIN_HOLDOUT_HOLDS * held_s / 3600.0 / holdout.hours,
        MIN_BLOCKS * block_s(held_s) / 3600.0 / holdout.hours,
    )
    return f"needs {math.ceil(factor * (walk_forward.hours + holdout.hours))} h"


def _significant(z: float | None, needed: float, look: int) -> Criterion:
    if z is None:
        return Criterion("joint z", False, f"joint z unknown: under {MIN_BLOCKS} blocks with trades in a stretch")
    return Criterion("joint z", z >= needed, f"joint z is {z:.2f}, needs {needed:.2f} (look {look} at this hold-out)")


def _positive(holdout: Stretch) -> Criterion:
    if holdout.mean_net_bps is None:
        return Criterion("hold-out mean", False, "no trades in the hold-out")
    mean = holdout.mean_net_bps
    return Criterion("hold-out mean", mean > 0.0, f"hold-out mean is {mean:+.2f} bps net, needs to be above 0")


def _deflated(value: float | None) -> Criterion:
    if value is None:
        return Criterion("deflated Sharpe", False, "deflated Sharpe unknown: net series too short or constant")
    return Criterion(
        "deflated Sharpe", value >= MIN_DEFLATED_SHARPE, f"deflated Sharpe is {value:.3f}, needs {MIN_DEFLATED_SHARPE}"
    )
