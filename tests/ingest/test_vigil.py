"""What a vigil has of a connection that is lost, made again, or ended: since when each stream is to be told."""

import asyncio
import itertools
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import cast

import pytest

from core.config import Capture, Hosts
from core.units import NS_PER_S
from ingest.events import Event, Gap, Quote
from ingest.plans import plans
from ingest.receive_clock import ReceiveClock
from ingest.reception import Reception
from ingest.transport import Interrupted, Socket
from ingest.vigil import Vigil
from tests.ingest.feed_server import quote

QUOTES, OTHERS = ("BTCUSDT", "top_of_book"), ("ETHUSDT", "top_of_book")


def watched() -> tuple[Vigil, Reception, list[Event]]:
    """The best prices of two symbols, neither of which may be silent for a minute."""
    plan = plans(["binance_um:BTCUSDT", "binance_um:ETHUSDT"], Capture(depth="off"), Hosts())[0]
    reception = Reception(replace(plan, silence_s={QUOTES: 60.0, OTHERS: 60.0}), plan.url, ReceiveClock())
    delivered: list[Event] = []
    reception.release_to(lambda recv_ns, events: delivered.extend(events))
    return Vigil(reception, 10.0, lambda why, since_ns: None), reception, delivered


class Quiet:
    """A connection on which nothing comes, pongs neither."""

    arrivals = 1
    is_spared = False

    def __init__(self) -> None:
        self.pings = 0

    @property
    def up(self) -> Socket:
        return cast(Socket, self)

    def ping(self) -> None:
        self.pings += 1


@pytest.mark.parametrize(("tick_s", "is_dead"), [(0.15, True), (60.0, False)])
def test_a_process_that_was_held_up_does_not_take_its_own_silence_for_the_venues(
    tick_s: float, is_dead: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty ticks later than due are no ten seconds in which something could have been heard."""
    vigil, _, _ = watched()
    clock = SimpleNamespace(monotonic=partial(next, itertools.count(0.0, tick_s)))
    monkeypatch.setattr("ingest.vigil.time", clock)
    monkeypatch.setattr("ingest.vigil._TICK_S", 0.0)
    socket = Quiet()

    async def scenario() -> None:
        watching = asyncio.create_task(vigil.run(socket))
        for _ in range(70 if is_dead else 40):
            await asyncio.sleep(0)
        watching.cancel()
        await watching

    with pytest.raises(Interrupted if is_dead else asyncio.CancelledError):
        asyncio.run(scenario())
    assert socket.pings == 1  # it is asked before


def test_a_stream_that_never_came_is_lost_since_it_was_asked_for_and_others_since_the_last_message() -> None:
    vigil, reception, _ = watched()
    reception.now_ns = asked_ns = reception.present_ns()
    vigil.asked_anew()
    reception.take_now(quote(1).encode())
    lost_ns = reception.now_ns
    assert vigil.lost_with_all(lost_ns, {}) == {QUOTES: lost_ns, OTHERS: asked_ns}
    assert vigil.lost_with_all(lost_ns, {QUOTES: asked_ns}) == {QUOTES: asked_ns, OTHERS: asked_ns}
    reception.now_ns = lost_ns + 5
    vigil.asked_anew()  # what was before is told
    assert vigil.lost_with_all(lost_ns + 9, {})[OTHERS] == lost_ns + 5


def test_what_was_found_silent_is_told_to_the_end_and_nothing_else_is() -> None:
    vigil, reception, delivered = watched()
    reception.take_now(quote(1).encode())
    heard_ns = reception.now_ns
    vigil.asked_anew()
    reception.heard_ns["ETHUSDT", Quote] = heard_ns + 61 * NS_PER_S
    (silent,) = vigil._silence.overdue(heard_ns + 61 * NS_PER_S)
    vigil.finish()
    (gap,) = [event for event in delivered if isinstance(event, Gap)]
    assert (gap.symbol, gap.stream, gap.from_ns, gap.reason) == (*QUOTES, heard_ns, "silent until the capture ended")
    assert silent.since_ns == heard_ns < gap.to_ns
