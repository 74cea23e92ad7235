"""Trade ids that count up: a hole is filled when its last id came, and one that is forgotten is not."""

from ingest.events import TradeHole
from ingest.trade_stream import _MOST_HOLES, TradeStream


def broken(count: int) -> tuple[TradeStream, list[TradeHole]]:
    """A stream with so many holes of two trades each: 1-2, 4-5, ..."""
    stream, missed = TradeStream("BTCUSDT", "aggTrade"), list[TradeHole]()
    for number in range(count + 1):
        stream.take(3 * number, number, number, missed)
    return stream, missed


def test_a_hole_is_filled_with_its_last_id() -> None:
    stream, missed = broken(3)
    assert [bool(stream.missing(hole)) for hole in missed] == [True, True, True]
    assert stream.fill(5) == (1, 2)
    assert stream.missing(missed[1])
    assert stream.fill(5) is None
    assert stream.fill(4) == (1, 2)
    assert [bool(stream.missing(hole)) for hole in missed] == [True, False, True]
    assert [stream.fill(number) for number in (0, 3, 9, 100)] == [None] * 4


def test_a_hole_that_is_forgotten_does_not_count_as_filled() -> None:
    stream, missed = broken(_MOST_HOLES + 2)
    assert [stream.fill(number) for number in (1, 2, 4, 5)] == [None] * 4
    assert stream.fill(7) == (2, 3)
    assert all(map(stream.missing, missed))


def test_when_a_venue_counts_anew_the_holes_before_stay_open() -> None:
    stream, missed = broken(2)
    gaps = stream.take(1, 10**11, 10**11, missed)
    assert gaps is not None
    assert "counted anew" in gaps[0].reason
    assert all(map(stream.missing, missed))
