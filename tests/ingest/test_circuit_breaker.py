"""The circuit breaker: it opens, lets one probe through, and closes or waits longer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.circuit_breaker import CircuitBreaker


class Clock:
    def __init__(self) -> None:
        self.s = 0.0

    def __call__(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(failures=3, cool_s=60.0, longest_s=200.0, now_s=clock)
    for _ in range(3):
        assert breaker.allows()
        breaker.failed()
    return breaker


def test_it_opens_after_failures_in_a_row_and_not_before(clock: Clock) -> None:
    breaker = CircuitBreaker(failures=3, now_s=clock)
    for _ in range(2):
        breaker.failed()
        breaker.failed()
        breaker.succeeded()
    assert breaker.state == "closed"
    assert opened(clock).state == "open"


def test_an_open_circuit_lets_nothing_through_until_it_has_cooled(clock: Clock) -> None:
    breaker = opened(clock)
    clock.s = 59.9
    assert not breaker.allows()
    assert breaker.wait_s == pytest.approx(0.1)
    clock.s = 60.0
    assert (breaker.state, breaker.wait_s) == ("half-open", 0.0)


def test_one_probe_passes_and_its_success_closes(clock: Clock) -> None:
    breaker = opened(clock)
    clock.s = 60.0
    assert [breaker.allows() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert (breaker.state, breaker.allows()) == ("closed", True)


def test_a_failed_probe_opens_for_twice_as_long_up_to_the_longest(clock: Clock) -> None:
    breaker = opened(clock)
    for cooled_s, next_s in ((60.0, 120.0), (120.0, 200.0), (200.0, 200.0)):
        clock.s += cooled_s
        assert breaker.allows()
        breaker.failed()
        assert breaker.wait_s == next_s
    assert breaker.openings == 4


def test_a_probe_that_was_not_made_leaves_room_for_another(clock: Clock) -> None:
    breaker = opened(clock)
    clock.s = 60.0
    assert breaker.allows()
    breaker.abandoned()
    assert breaker.allows()


def test_calls_that_were_under_way_when_it_opened_do_not_open_it_for_longer(clock: Clock) -> None:
    breaker = opened(clock)
    clock.s = 30.0
    breaker.failed()
    breaker.failed()
    assert (breaker.wait_s, breaker.openings) == (30.0, 1)


@given(st.lists(st.tuples(st.floats(0, 400), st.booleans()), max_size=80))
def test_nothing_passes_while_it_is_open_whatever_happens(calls: list[tuple[float, bool]]) -> None:
    clock = Clock()
    breaker = CircuitBreaker(failures=2, cool_s=60.0, longest_s=300.0, now_s=clock)
    closed_until_s = 0.0
    for pause_s, good in calls:
        clock.s += pause_s
        if not breaker.allows():
            assert clock.s < closed_until_s
            continue
        assert clock.s >= closed_until_s
        breaker.succeeded() if good else breaker.failed()
        closed_until_s = clock.s + breaker.wait_s
