"""Receive times rise whatever is done to the wall clock, follow it, and its steps are told."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.units import NS_PER_MS, NS_PER_S
from ingest.receive_clock import ReceiveClock


class Clocks:
    """The machine's two clocks, in the test's hands."""

    def __init__(self) -> None:
        self.wall_ns, self.monotonic_ns = 1_000 * NS_PER_S, 5_000

    def go(self, ns: int) -> None:
        self.wall_ns += ns
        self.monotonic_ns += ns

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> "Clocks":
        monkeypatch.setattr(time, "time_ns", lambda: self.wall_ns)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.monotonic_ns)
        return self


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks().patch(monkeypatch)


def test_receive_times_are_the_wall_clocks_and_rise_even_while_it_stands_still(clocks: Clocks) -> None:
    clock = ReceiveClock()
    assert clock.now_ns() == clocks.wall_ns
    assert clock.now_ns() == clocks.wall_ns + 1
    clocks.go(NS_PER_S)
    assert clock.now_ns() == clocks.wall_ns
    assert clock.step_count == 0


def test_a_clock_that_is_set_forward_is_followed_at_once_and_told(clocks: Clocks) -> None:
    clock = ReceiveClock()
    clocks.go(3 * NS_PER_S)
    clock.now_ns()
    assert clock.step_count == 0
    clocks.wall_ns += 2 * NS_PER_S
    at_ns = clock.now_ns()
    clock.now_ns()
    assert at_ns == clocks.wall_ns
    assert clock.steps_since(0) == [(at_ns, 2 * NS_PER_S)]
    assert clock.steps_since(1) == []


def test_a_clock_that_is_set_back_by_2_s_is_met_within_32_s_and_time_never_stands_still(clocks: Clocks) -> None:
    clock = ReceiveClock()
    last_ns = clock.now_ns()
    clocks.wall_ns -= 2 * NS_PER_S
    clock.now_ns()
    seconds = 0
    while last_ns > clocks.wall_ns:
        clocks.go(NS_PER_S)
        seconds += 1
        now_ns = clock.now_ns()
        assert NS_PER_S * 15 // 16 <= now_ns - last_ns <= NS_PER_S
        last_ns = now_ns
    assert seconds == 32
    assert [step_ns for _, step_ns in clock.steps_since(0)] == [-2 * NS_PER_S]


def test_small_corrections_add_up_to_a_step(clocks: Clocks) -> None:
    clock = ReceiveClock()
    for _ in range(6):
        clocks.wall_ns -= 10 * NS_PER_MS
        clocks.go(NS_PER_S)
        clock.now_ns()
    assert [step_ns for _, step_ns in clock.steps_since(0)] == [-60 * NS_PER_MS]


def test_a_process_that_is_held_up_between_two_readings_sees_no_step(
    clocks: Clocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ReceiveClock()
    held = iter([300 * NS_PER_MS])

    def read_wall() -> int:
        wall_ns = clocks.wall_ns
        clocks.go(next(held, 0))
        return wall_ns

    monkeypatch.setattr(time, "time_ns", read_wall)
    assert abs(clock.now_ns() - clocks.wall_ns) < 20 * NS_PER_MS
    clocks.go(NS_PER_MS)
    assert clock.now_ns() == clocks.wall_ns
    assert clock.step_count == 0


@given(
    st.lists(st.tuples(st.integers(0, 10**9), st.integers(-5 * 10**9, 5 * 10**9) | st.just(0)), min_size=1, max_size=50)
)
def test_whatever_the_wall_clock_does_receive_times_rise_and_keep_pace(moves: list[tuple[int, int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        clocks = Clocks().patch(monkeypatch)
        clock = ReceiveClock()
        last_ns = clock.now_ns()
        for passed_ns, step_ns in moves:
            clocks.go(passed_ns)
            clocks.wall_ns += step_ns
            now_ns = clock.now_ns()
            assert now_ns > last_ns
            assert now_ns - last_ns >= passed_ns - (passed_ns >> 4) - len(moves)  # of 1 ns each, where time stood
            assert now_ns >= clocks.wall_ns
            last_ns = now_ns


def test_steps_are_not_kept_forever(clocks: Clocks) -> None:
    clock = ReceiveClock()
    for _ in range(1_000):
        clocks.wall_ns += NS_PER_S
        clock.now_ns()
    assert clock.step_count == 1_000
    assert len(clock.steps_since(0)) == 64


def test_a_clock_that_was_set_back_while_nothing_ran_goes_on_behind_the_last_row(clocks: Clocks) -> None:
    clock = ReceiveClock()
    last_ns = clocks.wall_ns + 2 * NS_PER_S
    behind_ns = clock.go_on_from(last_ns)
    assert behind_ns == pytest.approx(2 * NS_PER_S, abs=10)
    assert clock.steps_since(0) == [(last_ns + 1, -behind_ns)]
    assert last_ns < clock.now_ns() < last_ns + 10
    for _ in range(33):
        clocks.go(NS_PER_S)
        clock.now_ns()
    assert clock.now_ns() - clocks.wall_ns < 10
    assert clock.step_count == 1


def test_a_clock_that_is_later_than_the_last_row_stays(clocks: Clocks) -> None:
    clock = ReceiveClock()
    assert clock.go_on_from(clocks.wall_ns - NS_PER_S) == clock.go_on_from(0) == 0
    assert clock.now_ns() - clocks.wall_ns < 10
    assert clock.step_count == 0
