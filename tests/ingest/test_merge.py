"""Merging connections: the order (recv_ns, kind, arrival), and nothing passed on before it is complete."""

from hypothesis import given
from hypothesis import strategies as st

from ingest.events import Gap, Quote, Trade
from ingest.merge import Merger
from ingest.transport import NEVER_NS


def quote(recv_ns: int) -> Quote:
    return Quote("X", 0, recv_ns, 0, 1.0, 1.0, 2.0, 1.0)


def trade(recv_ns: int, number: int = 0) -> Trade:
    return Trade("X", 0, recv_ns, str(number), 1.0, 1.0, "buy")


def test_an_event_waits_for_every_connection_to_be_beyond_its_time() -> None:
    merger = Merger(2)
    merger.push(0, "a", 10, [quote(10)])
    assert merger.pop() == []
    merger.push(1, "b", 10, [])
    assert merger.pop() == []  # something may still come at 10
    merger.push(1, "b", 11, [])
    merger.push(0, "a", 12, [])
    assert [tagged.venue for tagged in merger.pop()] == ["a"]
    assert merger.now_ns == 11


def test_at_one_nanosecond_gaps_come_first_then_quotes_then_trades() -> None:
    merger = Merger(2)
    gap = Gap("X", "trades", 1, 5, "lost", False)
    merger.push(0, "a", 5, [trade(5)])
    merger.push(1, "b", 5, [quote(5), gap])
    merger.close(0)
    merger.close(1)
    assert [type(tagged.event) for tagged in merger.pop()] == [Gap, Quote, Trade]


def test_an_ended_connection_holds_nothing_up() -> None:
    merger = Merger(2)
    merger.push(0, "a", 5, [quote(5)])
    merger.close(1)
    merger.push(0, "a", 6, [])
    assert len(merger.pop()) == 1
    merger.close(0)
    assert merger.now_ns == NEVER_NS


PLACES = st.tuples(st.integers(0, 2), st.integers(1, 50), st.booleans())


@given(st.lists(PLACES, max_size=60), st.data())
def test_however_connections_interleave_the_order_is_that_of_one_sort(places: list, data: st.DataObject) -> None:
    streams: list[list] = [[], [], []]
    for number, (connection, recv_ns, is_quote) in enumerate(sorted(places, key=lambda place: place[1])):
        streams[connection].append(quote(recv_ns) if is_quote else trade(recv_ns, number))
    merger, passed = Merger(3), []
    waiting = [list(stream) for stream in streams]
    while any(waiting):
        connection = data.draw(st.sampled_from([k for k in range(3) if waiting[k]]))
        event = waiting[connection].pop(0)
        merger.push(connection, str(connection), event.recv_ns, [event])
        passed += merger.pop()
        assert all(tagged.event.recv_ns < merger.now_ns for tagged in passed)
    for connection in range(3):
        merger.close(connection)
    passed += merger.pop()
    wanted = sorted(
        (event.recv_ns, isinstance(event, Trade), connection)
        for connection, stream in enumerate(streams)
        for event in stream
    )
    found = [(tagged.event.recv_ns, isinstance(tagged.event, Trade), int(tagged.venue)) for tagged in passed]
    assert found == wanted
