"""Mutated frames: a decoder raises DecodeError or gives valid rows, whatever it is sent."""

from pathlib import Path

import pytest

from benchmarks.fuzz_decoders import URLS, built_in, fuzz
from core.schema import EVENTS
from ingest import binance_streams
from ingest.packing import TABLES
from ingest.venues import decoder_for

FRAMES = 50_000
NOWHERE = Path("nowhere")


@pytest.mark.parametrize("venue", URLS)
def test_mutants_are_rows_or_nothing_or_decode_errors(venue: str) -> None:
    outcome = fuzz(venue, FRAMES, seed=1)
    assert outcome.bad == []
    assert min(outcome.errors, outcome.silent, outcome.events.total()) > FRAMES // 20


@pytest.mark.parametrize("venue", URLS)
def test_the_built_in_frames_reach_every_table_of_their_venue(venue: str) -> None:
    decoder, tables = decoder_for(URLS[venue])[1], set()
    for number, (url, frame) in enumerate(built_in(venue)):
        decode = (
            decoder.decode if url.startswith("ws") else lambda body, ns, url=url: decoder.decode_rest(url, body, ns)
        )
        tables |= {TABLES[type(event)].name for event in decode(frame, number)}
    spot = {"top_of_book", "trades", "book_deltas", "klines"}
    wanted = {table.name for table in EVENTS}
    assert tables >= (spot if venue == "bybit_spot" else wanted)


def test_the_same_seed_gives_the_same_frames() -> None:
    first, second, other = (fuzz("bybit", 500, seed, NOWHERE) for seed in (1, 1, 2))
    assert (first.events, first.errors) == (second.events, second.errors) != (other.events, other.errors)


def test_a_fault_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time that no int64 holds, let through."""
    monkeypatch.setattr(binance_streams, "epoch_ns", lambda time: time * 1_000_000)
    assert fuzz("binance_um", 5_000, 1, NOWHERE).bad
