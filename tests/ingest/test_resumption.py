"""Where an earlier capture left off: from which row to which row a stream is missing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from core.store import Partition, append
from ingest.events import Event, Gap, Liquidation, Quote, Trade
from ingest.packing import TABLES, frame_of
from ingest.resumption import REASON, Resumption, last_row_ns

DAY = 86_400 * 1_000_000_000


def trade(recv_ns: int, symbol: str = "BTCUSDT") -> Trade:
    return Trade(symbol, recv_ns, recv_ns, "1", 1.0, 1.0, "buy")


def quote(recv_ns: int, symbol: str = "BTCUSDT") -> Quote:
    return Quote(symbol, recv_ns, recv_ns, 1, 1.0, 1.0, 2.0, 1.0)


def liquidation(recv_ns: int) -> Liquidation:
    return Liquidation("BTCUSDT", recv_ns, recv_ns, "long", 1.0, 1.0)


def put(root: Path, event: Event, number: int = 1, date: str = "1970-01-01") -> None:
    table = TABLES[type(event)]
    part = Partition(table.name, "binance_um", event.symbol, date)
    append(root, part, frame_of(table, [event]), event.recv_ns, number)  # type: ignore[union-attr]


def feed_of(*streams: tuple[str, str]) -> Any:
    return SimpleNamespace(venue="binance_um", plan=SimpleNamespace(feeds=streams))


def told(events: list[Event]) -> set[tuple[str, str, int, int]]:
    assert all(isinstance(event, Gap) and event.reason == REASON and not event.mended for event in events)
    return {(event.symbol, event.stream, event.from_ns, event.to_ns) for event in events if isinstance(event, Gap)}


def test_the_last_row_is_that_of_the_last_shard_of_the_last_day(tmp_path: Path) -> None:
    assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades") == 0
    for number, recv_ns in enumerate((5, 9, 7), 1):
        put(tmp_path, trade(recv_ns), number)
    assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades") == 9
    put(tmp_path, trade(DAY + 3), date="1970-01-02")
    (tmp_path / "trades/exchange=binance_um/symbol=BTCUSDT/date=1970-01-03").mkdir()
    assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades") == DAY + 3


def test_a_gap_ends_with_the_first_row_or_with_the_subscription(tmp_path: Path) -> None:
    put(tmp_path, trade(100))
    put(tmp_path, quote(110))
    feed = feed_of(("BTCUSDT", "trades"), ("BTCUSDT", "top_of_book"))
    resumption = Resumption(tmp_path, [feed])
    assert told(resumption.gaps(feed, 900, [])) == set()
    assert told(resumption.gaps(feed, 905, [trade(905)])) == {("BTCUSDT", "trades", 100, 905)}
    assert told(resumption.gaps(feed, 906, [trade(906)])) == set()
    resumption.opened(feed, 950)
    assert not resumption.is_over
    assert told(resumption.gaps(feed, 990, [quote(990)])) == {("BTCUSDT", "top_of_book", 110, 950)}
    assert resumption.is_over
    assert told(resumption.gaps(feed, 999, [trade(999), quote(999)])) == set()


def test_a_stream_that_may_be_silent_was_captured_as_long_as_its_symbol(tmp_path: Path) -> None:
    put(tmp_path, liquidation(3))
    put(tmp_path, trade(100))
    feed = feed_of(("BTCUSDT", "trades"), ("BTCUSDT", "liquidations"), ("BTCUSDT", "klines"))
    resumption = Resumption(tmp_path, [feed])
    resumption.opened(feed, 500)
    assert told(resumption.gaps(feed, 600, [])) == {
        ("BTCUSDT", "trades", 100, 500),
        ("BTCUSDT", "liquidations", 100, 500),
        ("BTCUSDT", "klines", 100, 500),
    }


def test_what_is_new_misses_nothing(tmp_path: Path) -> None:
    put(tmp_path, trade(100))
    old, new = feed_of(("BTCUSDT", "trades"), ("ETHUSDT", "trades")), feed_of(("ETHUSDT", "top_of_book"))
    resumption = Resumption(tmp_path, [old, new])
    for feed in (old, new):
        resumption.opened(feed, 500)
    assert told(resumption.gaps(new, 600, [quote(600, "ETHUSDT")])) == set()
    assert told(resumption.gaps(old, 600, [trade(600, "ETHUSDT")])) == {("BTCUSDT", "trades", 100, 500)}
    assert resumption.is_over
    assert Resumption(tmp_path / "empty", [old]).is_over


def test_a_clock_that_was_set_back_makes_no_gap_of_negative_length(tmp_path: Path) -> None:
    put(tmp_path, trade(1_000))
    feed = feed_of(("BTCUSDT", "trades"))
    resumption = Resumption(tmp_path, [feed])
    assert told(resumption.gaps(feed, 400, [trade(400)])) == {("BTCUSDT", "trades", 1_000, 1_000)}
