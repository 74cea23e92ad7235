"""What a vigil has of a connection that is lost, made again, or ended: since when each stream is to be told."""

from dataclasses import replace

from core.config import Capture, Hosts
from core.units import NS_PER_S
from ingest.events import Event, Gap, Quote
from ingest.plans import plans
from ingest.receive_clock import ReceiveClock
from ingest.reception import Reception
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
