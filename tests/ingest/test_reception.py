"""From message to events: gaps of what did not decode, of a clock that was set, and no structure that grows."""

import itertools
import time
from collections import deque

import pytest

from core.config import Capture, Hosts
from core.gaps import unmended
from core.schema import GAPS
from core.units import NS_PER_S
from ingest.events import Event, Gap, Quote
from ingest.packing import frame_of
from ingest.plans import plans
from ingest.receive_clock import ReceiveClock
from ingest.reception import Reception
from tests.ingest.feed_server import quote, trade


class Delivered(list[Event]):
    def take(self, recv_ns: int, events: list[Event]) -> None:
        self.extend(events)


def reception(table: str = "public") -> tuple[Reception, Delivered]:
    """The USD-M connection for two symbols, and what it delivers."""
    symbols = ["binance_um:BTCUSDT", "binance_um:ETHUSDT"]
    plan = next(plan for plan in plans(symbols, Capture(depth="off"), Hosts()) if table in plan.url)
    found, delivered = Reception(plan, plan.url, ReceiveClock()), Delivered()
    found.release_to(delivered.take)
    return found, delivered


def test_what_came_before_anyone_read_is_kept_in_order() -> None:
    found, _ = reception()
    late = Delivered()
    found.deliver = found._hold
    for number in range(1, 4):
        found.take_now(quote(number).encode())
    found.release_to(late.take)
    found.take_now(quote(4).encode())
    assert [event.update_id for event in late if isinstance(event, Quote)] == [1, 2, 3, 4]


def test_a_bad_frame_is_a_gap_of_its_stream_and_counted() -> None:
    found, delivered = reception()
    found.take_now(quote(1).encode())
    found.take_now(quote(2).encode()[:-20])
    (first, gap) = delivered
    assert isinstance(first, Quote)
    assert isinstance(gap, Gap)
    assert (gap.symbol, gap.stream, gap.mended) == ("BTCUSDT", "top_of_book", False)
    assert gap.from_ns == first.recv_ns < gap.to_ns
    assert (found.counts.frames, found.counts.undecoded) == (2, 1)


def test_a_frame_of_which_nothing_can_be_read_is_a_gap_of_all_streams_since_the_frame_before() -> None:
    found, delivered = reception()
    found.take_now(quote(1).encode())
    found.take_now(b"\xff\x00garbage")
    gaps = [event for event in delivered if isinstance(event, Gap)]
    assert {(gap.symbol, gap.stream) for gap in gaps} == set(found.plan.feeds)
    assert all(gap.from_ns == delivered[0].recv_ns for gap in gaps)  # type: ignore[union-attr]


def test_a_storm_of_bad_frames_leaves_a_handful_of_gaps_and_samples() -> None:
    found, delivered = reception()
    found.take_now(quote(1).encode())
    for number in range(10_000):
        found.take_now(quote(number + 2).encode()[:-20])
    found.take_now(quote(20_000).encode())
    found.finish()
    gaps = [event for event in delivered if isinstance(event, Gap)]
    assert len(gaps) <= 2 + (found.now_ns - gaps[0].to_ns) // NS_PER_S
    assert sum(int(gap.reason.partition(" more")[0]) for gap in gaps[1:]) == 9_999
    assert found.counts.undecoded == 10_000
    assert len(found.counts.samples) == 20


def test_where_no_frame_comes_the_clock_settles_a_broken_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    found, delivered = reception()
    found.take_now(quote(1).encode())
    for number in (2, 3):
        found.take_now(quote(number).encode()[:-20])
    found.settle()
    assert len(delivered) == 2
    ahead_ns = time.time_ns() + 2 * NS_PER_S
    monkeypatch.setattr(found, "present_ns", lambda: ahead_ns)
    found.settle()
    assert isinstance(delivered[2], Gap)
    assert delivered[2].to_ns == ahead_ns
    assert found.now_ns < ahead_ns  # no message came


@pytest.mark.parametrize("step_s", [2, -2])
def test_a_clock_that_is_set_is_a_gap_of_every_stream_and_times_go_on_rising(
    monkeypatch: pytest.MonkeyPatch, step_s: int
) -> None:
    found, delivered = reception()
    now_ns, read_wall = [0], time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: read_wall() + now_ns[0])
    found.take_now(quote(1).encode())
    now_ns[0] = step_s * NS_PER_S
    for number in range(2, 200):
        found.take_now(quote(number).encode())
        time.sleep(1e-4)
    gaps = [event for event in delivered if isinstance(event, Gap)]
    quotes = [event for event in delivered if isinstance(event, Quote)]
    assert {(gap.symbol, gap.stream) for gap in gaps} == set(found.plan.feeds)
    assert {gap.reason for gap in gaps} <= {f"clock set by {step_s * 1_000 + extra:+d} ms" for extra in (-1, 0, 1)}
    assert all(gap.from_ns == quotes[0].recv_ns < gap.to_ns <= quotes[1].recv_ns for gap in gaps)
    times = [event.recv_ns for event in quotes]
    passed_ns = times[-1] - times[1]
    assert all(before < after for before, after in itertools.pairwise(times))
    assert passed_ns > 198 * 1e5 * 0.9  # not frozen, at a nanosecond a frame


def test_nothing_grows_with_the_frames_that_came() -> None:
    found, _ = reception()
    found.release_to(lambda recv_ns, events: None)
    sizes = []
    for number in range(1, 30_001):
        found.take_now(quote(number).encode())
        found.take_now(quote(number, "ETHUSDT").encode()[: -1 if number % 10 else -20])
        if number % 10_000 == 0:
            sizes.append(measure(found))
    assert 20 < sizes[0] == sizes[1] == sizes[2]


def measure(thing: object, seen: set[int] | None = None) -> int:
    """Elements in all containers that hang on an object."""
    seen = set() if seen is None else seen
    if id(thing) in seen or isinstance(thing, type | str | bytes):
        return 0
    seen.add(id(thing))
    if isinstance(thing, dict):
        return len(thing) + sum(measure(value, seen) for value in thing.values())
    if isinstance(thing, list | set | tuple | deque):
        return len(thing) + sum(measure(value, seen) for value in thing)
    slots = [getattr(thing, name, None) for name in getattr(type(thing), "__slots__", ())]
    return sum(measure(value, seen) for value in [*slots, *getattr(thing, "__dict__", {}).values()])


def test_trades_are_heard_by_symbol_and_kind() -> None:
    found, delivered = reception("market")
    found.take_now(trade(1).encode())
    assert list(found.heard_ns) == [("BTCUSDT", type(delivered[0]))]


def test_a_stream_that_repeats_itself_is_heard() -> None:
    (plan,) = plans(["bybit:BTCUSDT"], Capture(depth="off"), Hosts())
    found, delivered = Reception(plan, plan.url, ReceiveClock()), Delivered()
    found.release_to(delivered.take)
    data = '{"s":"BTCUSDT","b":[["1","1"]],"a":[["2","1"]],"u":5,"seq":1}'
    top = '{"topic":"orderbook.1.BTCUSDT","type":"snapshot","ts":%d,"data":' + data + ',"cts":1000}'
    found.take_now((top % 1_000).encode())
    first_ns = found.heard_ns["BTCUSDT", Quote]
    found.take_now((top % 4_000).encode())
    assert len(delivered) == 1
    assert found.heard_ns["BTCUSDT", Quote] == found.now_ns > first_ns


def test_trades_that_were_lost_twice_and_never_came_are_lost_since_the_first_time() -> None:
    found, delivered = reception("market")
    found.decoder.refills = True
    found.take_now(trade(1).encode())
    heard_ns, stream = found.now_ns, ("BTCUSDT", "trades")
    found.lost({stream: heard_ns}, "connection lost")
    found.now_ns = heard_ns + 10 * NS_PER_S
    found.lost({stream: heard_ns + 9 * NS_PER_S}, "connection lost")
    found.finish()
    (gap,) = [event for event in delivered if isinstance(event, Gap)]
    assert (gap.from_ns, gap.to_ns) == (heard_ns, heard_ns + 10 * NS_PER_S)


@pytest.mark.parametrize("number", [2, 5])
def test_trades_that_fall_silent_are_a_gap_until_one_comes_and_then_what_its_id_shows(number: int) -> None:
    found, delivered = reception("market")
    found.decoder.refills = True
    found.take_now(trade(1).encode())
    heard_ns, stream = found.now_ns, ("BTCUSDT", "trades")
    for _ in range(2):  # and again an hour later
        found.lost({stream: heard_ns}, "silent", until_heard=True)
        found.lost({stream: heard_ns}, "connection lost")
    told = [event for event in delivered if isinstance(event, Gap)]
    assert [(gap.from_ns, gap.reason, gap.mended) for gap in told] == [(heard_ns, "silent", False)] * 2
    assert unmended(frame_of(GAPS, told)).height == 2
    found.take_now(trade(number).encode())
    (again,) = [event for event in delivered if isinstance(event, Gap) and event.mended]
    assert (again.to_ns, again.known_ns) == (told[-1].to_ns, told[-1].known_ns)  # when it was told first
    found.lost({stream: heard_ns}, "silent", until_heard=True)  # it has come meanwhile
    found.take_now(trade(number + 1).encode())
    found.finish()
    gaps = frame_of(GAPS, [event for event in delivered if isinstance(event, Gap)])
    holes = unmended(gaps).select("from_ns", "reason").rows()
    assert holes == ([] if number == 2 else [(heard_ns, "aggTrade 1 is followed by 5")])
    assert gaps.height == 3 + len(holes)


def test_what_is_lost_until_another_connection_took_over_ends_where_a_stream_spoke_by_itself() -> None:
    found, delivered = reception()
    found.take_now(quote(1).encode())
    since_ns = found.now_ns
    found.take_now(quote(2).encode())
    spoke_ns = found.now_ns
    found.take_now(quote(7, "ETHUSDT").encode())
    streams = [(symbol, "top_of_book") for symbol in ("BTCUSDT", "ETHUSDT", "XRPUSDT")]
    found.lost({streams[0]: since_ns, streams[1]: found.now_ns, streams[2]: since_ns}, "silent", until_heard=True)
    spans = {event.symbol: (event.from_ns, event.to_ns) for event in delivered if isinstance(event, Gap)}
    assert spans == {
        "BTCUSDT": (since_ns, spoke_ns),
        "ETHUSDT": (found.now_ns, found.now_ns),
        "XRPUSDT": (since_ns, found.now_ns),
    }
    told_ns = {event.known_ns for event in delivered if isinstance(event, Gap)}
    assert len(told_ns) == 1  # at once, when the other had taken over
    assert told_ns.pop() > found.now_ns > spoke_ns
