"""Where an earlier capture left off: from which row to which row a stream is missing."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from core.store import Partition, append, shard_name
from ingest.events import NOT_RUNNING, Event, Gap, Liquidation, Quote, Trade
from ingest.packing import TABLES, frame_of
from ingest.resumption import Resumption, last_row_ns, last_trade

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
    append(root, part, frame_of(table, [event]), event.to_ns if isinstance(event, Gap) else event.recv_ns, number)


def feed_of(*streams: tuple[str, str]) -> Any:
    return SimpleNamespace(venue="binance_um", plan=SimpleNamespace(feeds=streams), refills=False)


def told(events: list[Event]) -> set[tuple[str, str, int, int]]:
    assert all(isinstance(event, Gap) and event.reason == NOT_RUNNING and not event.mended for event in events)
    return {(event.symbol, event.stream, event.from_ns, event.to_ns) for event in events if isinstance(event, Gap)}


def test_the_last_row_is_that_of_the_last_shard_of_the_last_day(tmp_path: Path) -> None:
    assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades") == 0
    for number, recv_ns in enumerate((5, 9, 7), 1):
        put(tmp_path, trade(recv_ns), number)
    assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades") == 9
    put(tmp_path, trade(DAY + 3), date="1970-01-02")
    (tmp_path / "trades/exchange=binance_um/symbol=BTCUSDT/date=1970-01-03").mkdir()
    assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades") == DAY + 3


def test_a_shard_that_begins_with_a_refilled_trade_hides_no_later_one(tmp_path: Path) -> None:
    put(tmp_path, trade(90), 1)
    put(tmp_path, trade(100), 2)
    part = Partition("trades", "binance_um", "BTCUSDT", "1970-01-01")
    append(tmp_path, part, frame_of(TABLES[Trade], [trade(30), trade(40)]), 30, 3)
    (tmp_path / part.path / shard_name(20, 4)).write_bytes((tmp_path / part.path / shard_name(90, 1)).read_bytes())
    assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades") == 100


@pytest.mark.parametrize("content", [b"", b"PAR1 and no end"])
def test_a_shard_that_a_power_cut_tore_is_set_aside_and_told_once(tmp_path: Path, content: bytes) -> None:
    put(tmp_path, trade(DAY - 5))
    today = tmp_path / Partition("trades", "binance_um", "BTCUSDT", "1970-01-02").path
    today.mkdir()
    (today / shard_name(DAY + 7, 0)).write_bytes(content)
    said: list[str] = []
    for _ in range(2):
        assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades", said.append) == DAY - 5
    assert len(said) == 1
    assert str(today / (shard_name(DAY + 7, 0) + ".torn")) in said[0]


def test_a_damaged_shard_is_told_of_and_the_others_count(tmp_path: Path) -> None:
    put(tmp_path, trade(100))
    part = Partition("trades", "binance_um", "BTCUSDT", "1970-01-01")
    (tmp_path / part.path / shard_name(200, 2)).write_bytes(b"PAR1 nonsense PAR1")
    said: list[str] = []
    assert last_row_ns(tmp_path, "binance_um", "BTCUSDT", "trades", said.append) == 100
    assert len(said) == 1
    assert last_trade(tmp_path, "binance_um", "BTCUSDT", 100) is None  # what the other holds may have come later


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
    last = resumption.gaps(feed, 990, [quote(990)])
    assert told(last) == {("BTCUSDT", "top_of_book", 110, 950)}
    assert [event.told_ns for event in last if isinstance(event, Gap)] == [990]
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


def test_trades_that_are_numbered_go_on_from_the_last_on_disk_and_tell_their_gap_themselves(tmp_path: Path) -> None:
    rows = [(90, "7", False), (97, "9", False), (100, "8", False), (100, "6", True)]  # one late, one refilled
    trades = [Trade("BTCUSDT", ns, ns, name, 1.0, 1.0, "buy", assumed) for ns, name, assumed in rows]
    part = Partition("trades", "binance_um", "BTCUSDT", "1970-01-01")
    append(tmp_path, part, frame_of(TABLES[Trade], trades), 90, 1)
    put(tmp_path, quote(110))
    feed = feed_of(("BTCUSDT", "trades"), ("BTCUSDT", "top_of_book"))
    resumed: list[Trade] = []
    feed.refills, feed.resume = True, lambda last, holes: resumed.append(last)
    resumption = Resumption(tmp_path, [feed])
    assert resumed == [trades[1]]
    assert resumption.last_ns == 110
    resumption.opened(feed, 500)
    assert told(resumption.gaps(feed, 600, [])) == {("BTCUSDT", "top_of_book", 110, 500)}


def test_ids_that_are_no_numbers_tell_nothing(tmp_path: Path) -> None:
    put(tmp_path, Trade("BTCUSDT", 5, 5, "a-1", 1.0, 1.0, "buy"))
    assert last_trade(tmp_path, "binance_um", "BTCUSDT", 5) is None
    assert last_trade(tmp_path, "binance_um", "ETHUSDT", 5) is None


def test_a_stream_that_never_came_and_was_told_as_missing_is_missing_since(tmp_path: Path) -> None:
    gap = Gap("BTCUSDT", "trades", 100, 200, "silent", False)
    put(tmp_path, gap)
    feed = feed_of(("BTCUSDT", "trades"), ("ETHUSDT", "trades"))
    resumption = Resumption(tmp_path, [feed])
    resumption.opened(feed, 500)
    assert told(resumption.gaps(feed, 600, [])) == {("BTCUSDT", "trades", 200, 500)}


def test_a_clock_that_was_set_back_makes_no_gap_of_negative_length(tmp_path: Path) -> None:
    put(tmp_path, trade(1_000))
    feed = feed_of(("BTCUSDT", "trades"))
    resumption = Resumption(tmp_path, [feed])
    assert told(resumption.gaps(feed, 400, [trade(400)])) == {("BTCUSDT", "trades", 1_000, 1_000)}
