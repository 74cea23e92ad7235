"""Undecodable frames as gaps: the first at once, a storm as one stretch, streams apart."""

from hypothesis import given
from hypothesis import strategies as st

from core.units import NS_PER_MS, NS_PER_S
from ingest.damage import Damage
from ingest.events import Gap


def gap(at_ns: int, symbol: str = "X", from_ns: int = 0) -> Gap:
    return Gap(symbol, "trades", from_ns, at_ns, "a frame did not decode", False)


def test_a_single_bad_frame_is_told_at_once_and_once() -> None:
    damage = Damage()
    first = gap(5)
    assert damage.note([first]) == [first]
    assert damage.settle(5 + NS_PER_S) == []
    assert damage.settle(6 + NS_PER_S) == []
    assert damage.stretches == {}


def test_those_that_follow_are_told_in_one_piece_when_it_is_over() -> None:
    damage = Damage()
    damage.note([gap(0)])
    for number in range(1, 501):
        assert damage.note([gap(number * NS_PER_MS)]) == []
        assert damage.settle(number * NS_PER_MS) == []
    over_ns = 500 * NS_PER_MS + NS_PER_S + 1
    assert damage.settle(over_ns) == [
        Gap("X", "trades", 0, over_ns, "500 more: a frame did not decode", False),
    ]
    assert damage.settle(over_ns + 1) == []


def test_a_long_storm_is_told_each_second() -> None:
    """What is held longer would be missing without a word after a crash."""
    damage = Damage()
    told: list = []
    for number in range(181 * 10):
        now_ns = number * 100 * NS_PER_MS
        told += damage.note([gap(now_ns)])
        told += damage.settle(now_ns)
        assert now_ns - told[-1].to_ns <= NS_PER_S
    assert len(told) <= 182
    assert [after.from_ns for after in told[2:]] == [before.to_ns for before in told[1:-1]]


def test_streams_are_told_apart_and_the_end_of_the_feed_tells_the_rest() -> None:
    damage = Damage()
    damage.note([gap(1, "X"), gap(1, "Y")])
    damage.note([gap(2, "X")])
    assert [(told.symbol, told.to_ns) for told in damage.settle(3, finished=True)] == [("X", 3)]


@given(st.lists(st.tuples(st.integers(0, 3 * NS_PER_S), st.booleans()), max_size=60))
def test_every_bad_frame_lies_in_a_gap(frames: list[tuple[int, bool]]) -> None:
    damage, told, bad, now_ns = Damage(), [], [], 0
    for pause_ns, is_bad in frames:
        before_ns, now_ns = now_ns, now_ns + pause_ns
        told += damage.settle(now_ns)
        if is_bad:
            bad.append((before_ns, now_ns))
            told += damage.note([gap(now_ns, from_ns=before_ns)])
    told += damage.settle(now_ns, finished=True)
    assert all(any(one.from_ns <= now_ns <= one.to_ns for one in told) for _, now_ns in bad)
