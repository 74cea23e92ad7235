"""Silence is noticed stream by stream, patience grows, and a connection that answers no ping is dead."""

import pytest

from core.units import NS_PER_S
from ingest.events import Quote, Trade
from ingest.transport import Interrupted
from ingest.watchdog import Pulse, Silence

QUOTES, TRADES = ("BTCUSDT", "top_of_book"), ("BTCUSDT", "trades")


def names(silent: list) -> list[tuple[str, float]]:
    return [(stream.table, stream.patience_s) for stream in silent]


def test_a_silent_stream_is_noticed_and_gets_twice_the_patience_each_time() -> None:
    heard_ns = {("BTCUSDT", Quote): 9 * NS_PER_S, ("BTCUSDT", Trade): 0}
    silence = Silence({QUOTES: 10.0, TRADES: 10.0}, heard_ns)
    assert silence.overdue(10 * NS_PER_S) == []
    (trades,) = silence.overdue(10 * NS_PER_S + 1)
    assert trades[:4] == ("BTCUSDT", "trades", 0, 10.0)
    heard_ns["BTCUSDT", Quote] = 19 * NS_PER_S
    assert silence.overdue(20 * NS_PER_S) == []
    assert names(silence.overdue(20 * NS_PER_S + 1)) == [("trades", 20.0)]
    silence.restart(25 * NS_PER_S)  # both were asked for anew
    assert silence.overdue(35 * NS_PER_S) == []
    assert names(silence.overdue(35 * NS_PER_S + 1)) == [("top_of_book", 10.0)]


def test_what_fell_silent_together_is_lost_together_whatever_its_patience() -> None:
    heard_ns = {("BTCUSDT", Quote): 9 * NS_PER_S, ("BTCUSDT", Trade): 10 * NS_PER_S, ("ETHUSDT", Quote): 14 * NS_PER_S}
    silence = Silence({QUOTES: 1.0, TRADES: 60.0, ("ETHUSDT", "top_of_book"): 1.0}, heard_ns)
    silent = silence.overdue(14 * NS_PER_S)
    assert names(silent) == [("top_of_book", 1.0)]
    assert silence.lost_with(silent, 14 * NS_PER_S) == {QUOTES: 9 * NS_PER_S, TRADES: 10 * NS_PER_S}


def test_a_quiet_stream_that_spoke_after_another_had_died_is_not_lost_with_it() -> None:
    heard_ns = {("BTCUSDT", Trade): 1 * NS_PER_S, ("ETHUSDT", Trade): 1, ("XRPUSDT", Trade): 1}
    eth, xrp = ("ETHUSDT", "trades"), ("XRPUSDT", "trades")
    silence = Silence({TRADES: 60.0, eth: 60.0, xrp: 60.0}, heard_ns)
    found = []
    for now_s in range(1, 62):
        if now_s in (5, 10, 27):
            heard_ns["XRPUSDT", Trade] = now_s * NS_PER_S
        if now_s in (10, 23):
            heard_ns["ETHUSDT", Trade] = now_s * NS_PER_S
        found += silence.overdue(now_s * NS_PER_S + 1)
    assert names(found) == [("trades", 60.0)]
    lost = silence.lost_with(found, 61 * NS_PER_S + 1)
    assert lost == {TRADES: 1 * NS_PER_S, eth: 23 * NS_PER_S, xrp: 27 * NS_PER_S}  # neither was ever silent for 30 s
    heard_ns["ETHUSDT", Trade] = 62 * NS_PER_S  # 39 s, of itself
    heard_ns["XRPUSDT", Trade] = 90 * NS_PER_S
    assert silence.overdue(62 * NS_PER_S) == []
    assert silence.lost_with(found, 100 * NS_PER_S) == {TRADES: 1 * NS_PER_S}
    assert eth in silence.lost_with(found, 125 * NS_PER_S)  # nothing is alive: that is the connection's silence


def test_a_take_over_for_the_sake_of_others_does_not_begin_a_mute_streams_silence_anew() -> None:
    heard_ns: dict = {("BTCUSDT", Quote): 1}
    silence = Silence({QUOTES: 10.0, TRADES: 60.0}, heard_ns)
    silence.restart(NS_PER_S)
    for now_s in range(2, 62):
        heard_ns["BTCUSDT", Quote] = now_s * NS_PER_S
        if now_s % 20 == 0:
            silence.told([QUOTES], now_s * NS_PER_S)  # another connection, which quotes were lost with
        if now_s == 30:
            silence.restart(now_s * NS_PER_S)  # a connection that is made again: told until here
        found = silence.overdue(now_s * NS_PER_S + 1)
    (trades,) = found
    assert (trades.table, trades.never, trades.since_ns) == ("trades", True, 30 * NS_PER_S)
    silence.told([TRADES], 62 * NS_PER_S)
    assert silence.mute() == {TRADES: 62 * NS_PER_S}
    heard_ns["BTCUSDT", Trade] = 63 * NS_PER_S
    assert silence.mute() == {}


def test_patience_does_not_grow_for_ever() -> None:
    silence, now_ns = Silence({QUOTES: 10.0}, {}), 0
    for _ in range(20):
        now_ns += 3_601 * NS_PER_S
        last = silence.overdue(now_ns)
    assert names(last) == [("top_of_book", 3_600.0)]


def test_patience_falls_back_hour_by_hour_while_the_stream_comes() -> None:
    heard_ns: dict = {}
    silence = Silence({QUOTES: 10.0}, heard_ns)
    for now_s in (11, 32, 73):  # 10 s, 20 s and 40 s of it pass
        (silent,) = silence.overdue(now_s * NS_PER_S)
        silence.restart(now_s * NS_PER_S)
    assert silent.patience_s == 40.0
    for now_s in range(74, 5 * 3_600, 30):
        heard_ns["BTCUSDT", Quote] = now_s * NS_PER_S
        assert silence.overdue(now_s * NS_PER_S) == []
    assert silence.overdue((now_s + 9) * NS_PER_S) == []
    assert names(silence.overdue((now_s + 11) * NS_PER_S)) == [("top_of_book", 10.0)]


def test_a_stream_that_never_came_is_told_with_the_likely_cause() -> None:
    silence = Silence({QUOTES: 10.0, TRADES: 10.0}, {("BTCUSDT", Trade): 1})
    silence.restart(NS_PER_S)
    quotes, trades = silence.overdue(12 * NS_PER_S)
    assert (quotes.never, trades.never) == (True, False)
    assert str(quotes).startswith("top_of_book of BTCUSDT silent for 10 s though acknowledged: asked for on the wrong")
    assert str(trades) == "trades of BTCUSDT silent for 10 s"
    assert quotes.since_ns == NS_PER_S


class Line:
    """A socket as far as a pulse is concerned."""

    def __init__(self) -> None:
        self.arrivals, self.pings = 0, 0

    def ping(self) -> None:
        self.pings += 1


def test_a_quiet_connection_is_asked_once_and_dead_if_it_does_not_answer() -> None:
    line = Line()
    pulse = Pulse(line, 10.0, 0.0)  # type: ignore[arg-type]
    pulse.feel(5.0)
    assert line.pings == 0
    pulse.feel(5.1)
    pulse.feel(9.9)
    assert line.pings == 1
    line.arrivals += 1  # the pong
    pulse.feel(10.1)
    pulse.feel(15.0)
    assert line.pings == 1
    pulse.feel(15.2)
    assert line.pings == 2
    with pytest.raises(Interrupted, match="no frame and no pong for 10 s"):
        pulse.feel(20.2)
