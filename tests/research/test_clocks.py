"""Names of clocks, and the grid of decisions."""

import numpy as np
import pytest

from core.errors import ConfigError
from core.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from research.bars.clocks import Clock, decision_step_ns, is_decision, parse_clock
from research.bars.event_clocks import DOLLAR, DOLLAR_RUN, RANGE, RENKO, TICK, TICK_IMBALANCE, TIME, VOLUME


@pytest.mark.parametrize(
    ("name", "step_ns", "kind", "size"),
    [
        ("time_100ms", 100 * NS_PER_MS, TIME, 0.0),
        ("time_200ms", 200 * NS_PER_MS, TIME, 0.0),
        ("time_1d", NS_PER_DAY, TIME, 0.0),
        ("volume_10", 0, VOLUME, 10.0),
        ("volume_0.5", 0, VOLUME, 0.5),
        ("dollar_1000000", 0, DOLLAR, 1e6),
        ("tick_500", 0, TICK, 500.0),
        ("renko_2.5", 0, RENKO, 2.5),
        ("range_10", 0, RANGE, 10.0),
        ("tick_imbalance_200", 0, TICK_IMBALANCE, 200.0),
        ("dollar_run_50", 0, DOLLAR_RUN, 50.0),
    ],
)
def test_a_clock_is_read_from_its_name(name: str, step_ns: int, kind: int, size: float) -> None:
    assert parse_clock(name) == Clock(name, step_ns, kind, size)
    assert parse_clock(name).is_time == name.startswith("time")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("time_50ms", "from 100ms to 1d"),
        ("time_2d", "from 100ms to 1d"),
        ("time_7m", "whole number"),
        ("time_5", "duration"),
        ("volume_0", "above 0"),
        ("volume_-1", "above 0"),
        ("volume_nan", "above 0"),
        ("volume_inf", "above 0"),
        ("volume_", "float"),
        ("bogus_10", "a clock is"),
        ("tick", "a clock is"),
        ("", "a clock is"),
    ],
)
def test_any_other_name_is_refused_with_the_path_of_the_key(name: str, why: str) -> None:
    with pytest.raises(ConfigError, match=rf"{why}.*\$\.bars"):
        parse_clock(name)


def test_decisions_on_time_bars_lie_on_their_own_grid() -> None:
    clock = parse_clock("time_200ms")
    step_ns = decision_step_ns(clock, "1s")
    close_ns = 7 * NS_PER_S + np.arange(0, 2 * NS_PER_S + 1, clock.step_ns)
    assert np.flatnonzero(is_decision(close_ns, step_ns)).tolist() == [0, 5, 10]


def test_each_volume_bar_is_a_decision() -> None:
    step_ns = decision_step_ns(parse_clock("volume_3"), "1s")
    assert is_decision(np.array([3, 5, 8]), step_ns).all()


def test_a_decision_inside_a_bar_is_refused() -> None:
    with pytest.raises(ConfigError, match="whole number of bars"):
        decision_step_ns(parse_clock("time_5s"), "1s")
