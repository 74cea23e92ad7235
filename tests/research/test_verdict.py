"""The criteria, one by one, each able to fail the verdict."""

import pytest
from scipy.stats import norm

from research.learning.inference import Ratio
from research.learning.verdict import Stretch, hours_to_judge, judge, look_z

GOOD = Ratio(1.0, 5.0, 0.6, 1.4, 60)
WALK = Stretch(400, 8.4, 1.0, GOOD)
HELD_OUT = Stretch(100, 2.4, 1.2, Ratio(1.2, 3.0, 0.4, 2.0, 14))


def verdict(walk: Stretch = WALK, held_out: Stretch = HELD_OUT, deflated: float | None = 0.99, look: int = 1):
    return judge(walk, held_out, deflated, look, held_s=10.0)


def test_all_criteria_make_an_edge() -> None:
    found = verdict()
    assert (found.verdict, found.reasons) == ("edge", [])
    assert [criterion["passed"] for criterion in found.criteria] == [True] * 5


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"walk": WALK._replace(n=99)}, "insufficient data: needs 11 h"),
        ({"held_out": HELD_OUT._replace(n=29)}, "insufficient data: needs 12 h"),
        ({"held_out": HELD_OUT._replace(hours=0.08)}, "insufficient data"),
        ({"walk": WALK._replace(n=0, ratio=None, mean_net_bps=None)}, "no candidate had paid on its past"),
        ({"held_out": HELD_OUT._replace(ratio=None)}, "joint z unknown"),
        ({"walk": WALK._replace(ratio=GOOD._replace(t=0.5))}, "joint z is 1."),
        ({"held_out": HELD_OUT._replace(mean_net_bps=-0.01)}, "hold-out mean is -0.01"),
        ({"held_out": HELD_OUT._replace(n=0, mean_net_bps=None, ratio=None)}, "no trades in the hold-out"),
        ({"deflated": 0.94}, "deflated Sharpe is 0.940"),
        ({"deflated": None}, "deflated Sharpe unknown"),
    ],
)
def test_each_criterion_can_fail_alone_and_says_why(changed, reason: str) -> None:
    found = verdict(**changed)
    assert found.verdict == "no edge"
    assert any(reason in each for each in found.reasons), found.reasons


def test_only_what_is_short_is_said_and_apart_from_what_never_paid() -> None:
    idle = WALK._replace(n=0, ratio=None, mean_net_bps=None)
    reasons = verdict(idle, HELD_OUT._replace(n=12)).reasons
    assert reasons[0] == "insufficient data: needs 27 h; 12 round trips in the hold-out (needs 30)"
    assert reasons[1] == "no candidate had paid on its past in any block"
    assert not any(reason.startswith("insufficient") for reason in verdict(idle).reasons)


def test_few_blocks_and_an_idle_winner_are_short_data() -> None:
    few = HELD_OUT._replace(ratio=None, n_blocks=5)
    assert verdict(held_out=few).reasons[0] == (
        "insufficient data: needs 22 h; 5 blocks with trades in the hold-out (needs 10)"
    )
    idle = HELD_OUT._replace(n=0, mean_net_bps=None, ratio=None)
    assert verdict(held_out=idle).reasons[0].startswith("insufficient data: needs more than 324 h; 0 round trips")


def test_long_horizons_take_weeks() -> None:
    assert hours_to_judge(10.0, 20.0, 0.2, 4) == pytest.approx(30 / 0.2 * 20 / 3600)
    assert hours_to_judge(300.0, 310.0, 0.2, 4) == pytest.approx(3690 / 4 * 310 / 3600)


def test_every_look_needs_more_and_all_looks_together_spend_less_than_two_percent() -> None:
    assert look_z(1) == pytest.approx(2.33)
    assert look_z(1) < look_z(2) < look_z(20)
    assert sum(norm.sf(look_z(k)) for k in range(1, 2_000)) < 0.0165


def test_a_repeated_look_can_turn_an_edge_down() -> None:
    walk, held_out = WALK._replace(ratio=GOOD._replace(t=2.2)), HELD_OUT._replace(ratio=GOOD._replace(t=1.3))
    assert verdict(walk, held_out).verdict == "edge"
    assert verdict(walk, held_out, look=2).verdict == "no edge"
