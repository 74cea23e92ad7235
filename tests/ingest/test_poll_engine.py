"""The poller: when targets are due, what is stored, what is told, and what a crash or an outage costs."""

import asyncio
import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Hosts, Poll
from core.errors import StageError
from core.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_MS, NS_PER_S
from ingest.declarations import declared, targets
from ingest.derivation import derive
from ingest.poller import Poller, slot_of, slot_start_ns
from ingest.rest import RestError
from ingest.signal_checks import Recent, SignalEvent, age_text, is_stale, out_of_range
from ingest.signals import as_of, read_signal
from ingest.underived import strike_off, underived
from tests.ingest.slow_venue import SlowVenue, funding_rate, open_interest

START_NS = 1_790_000_100 * NS_PER_S + 40 * NS_PER_S  # 20 s after a slot of five minutes with its offset of 20 s
SLOT_NS = 5 * NS_PER_MINUTE
BINANCE = ("binance_um:BTCUSDT",)
WHOLE = int(29.9 * 288) + 1  # five-minute values in what Binance keeps, both ends included
THREE_DAYS = 3 * 288
ONLY_INTEREST = ("binance_um_open_interest",)


class World:
    """A venue, a clock and a data directory."""

    def __init__(self, root: Path, *symbols: str, **settings: Any) -> None:
        self.now_ns = START_NS
        self.venue = SlowVenue(lambda: self.now_ns // NS_PER_MS)
        self.events: list[SignalEvent] = []
        self.root = root
        self.settings = Poll(**settings)
        self.targets = targets(declared(self.settings), symbols or BINANCE, Hosts())

    def poller(self) -> Poller:
        return Poller(self.root, self.settings, self.targets, self.venue, self.events.append, lambda: self.now_ns)

    def poll(self, poller: Poller | None = None) -> Poller:
        """One run, as from cron unless a poller is given."""
        poller = poller or self.poller()
        asyncio.run(poller.collect_due())
        poller.flush_last()
        return poller

    def stored(self, name: str, instrument: str = BINANCE[0]) -> pl.DataFrame:
        return read_signal(self.root, name, instrument)

    def kinds(self) -> list[str]:
        return [event.kind for event in self.events]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path, only=ONLY_INTEREST, history_days=3.0)


def test_the_first_poll_brings_30_days_and_every_value_is_the_venues(tmp_path: Path) -> None:
    world = World(tmp_path, only=ONLY_INTEREST)
    world.poll()
    rows = world.stored("oi_btc")
    assert rows.height == WHOLE
    expected = [open_interest(time_ns // NS_PER_MS) for time_ns in rows["time_ns"]]
    assert rows["value"].to_list() == expected
    assert set(rows["resolution"]) == {"5m"}


def test_old_values_count_as_known_when_a_poll_would_have_had_them_and_new_ones_when_they_came(world: World) -> None:
    world.poll()
    rows = world.stored("oi_btc")
    lag_ns = rows["known_ns"] - rows["time_ns"]
    assert set(lag_ns.head(-2)) == {SLOT_NS + 60 * NS_PER_S}
    assert rows["known_ns"].tail(2).to_list() == [START_NS, START_NS]  # assumed later than they were here
    world.now_ns += SLOT_NS
    world.poll()
    assert world.stored("oi_btc")["known_ns"][-1] == world.now_ns


def test_a_later_poll_asks_for_what_is_new_and_stores_nothing_twice(world: World) -> None:
    world.poll()
    before, asked = world.stored("oi_btc"), len(world.venue.asked)
    world.now_ns += 3 * SLOT_NS
    world.poll()
    after = world.stored("oi_btc")
    assert after.head(before.height).equals(before)
    assert after.height == before.height + 3
    assert len(world.venue.asked) == asked + 1


def test_a_revised_value_is_a_new_row_and_the_old_one_stays_readable(world: World) -> None:
    world.poll()
    time_ms = world.now_ns // NS_PER_MS // 300_000 * 300_000
    world.venue.revisions[time_ms] = 5.0
    first_known_ns, world.now_ns = world.now_ns, world.now_ns + SLOT_NS
    world.poll()
    versions = world.stored("oi_btc").filter(pl.col("time_ns") == time_ms * NS_PER_MS)
    assert versions["value"].to_list() == [open_interest(time_ms), 5.0]
    assert versions["known_ns"].to_list() == [first_known_ns, world.now_ns]
    assert as_of(versions, first_known_ns)["value"].to_list() == [open_interest(time_ms)]


def test_a_value_that_is_revised_an_hour_later_is_seen_too(world: World) -> None:
    world.poll()
    time_ms = world.now_ns // NS_PER_MS // 300_000 * 300_000 - 11 * 300_000
    world.venue.revisions[time_ms] = 5.0
    world.now_ns += SLOT_NS
    world.poll()
    assert world.stored("oi_btc").filter(pl.col("time_ns") == time_ms * NS_PER_MS)["value"].to_list()[1:] == [5.0]


def test_nothing_is_due_twice_in_a_slot_and_each_target_has_its_own(tmp_path: Path) -> None:
    world = World(tmp_path, only=("binance_um_open_interest", "binance_um_funding", "binance_um_premium"))
    poller = world.poll()
    assert not any(poller.is_due(target) for target in world.targets)
    world.now_ns += SLOT_NS
    assert [target.name for target in world.targets if poller.is_due(target)] == [
        "binance_um_open_interest",
        "binance_um_premium",
    ]
    world.now_ns += NS_PER_HOUR
    assert all(world.poller().is_due(target) for target in world.targets)


def test_a_clock_that_was_a_day_ahead_does_not_silence_a_target_for_a_day(world: World) -> None:
    world.now_ns += NS_PER_DAY
    world.poll()
    world.now_ns -= NS_PER_DAY
    assert world.poller().is_due(world.targets[0])


def test_a_stamp_that_lies_ahead_does_not_end_the_series(world: World) -> None:
    world.venue.now_ms = lambda: (world.now_ns + 20 * NS_PER_HOUR) // NS_PER_MS
    world.venue.get, whole = ahead(world.venue), world.venue.get  # type: ignore[method-assign]
    world.poll()
    world.venue.get = whole  # type: ignore[method-assign]
    world.venue.now_ms = lambda: world.now_ns // NS_PER_MS
    before = world.stored("oi_btc").filter(pl.col("time_ns") <= world.now_ns).height
    world.now_ns += SLOT_NS
    world.poll()
    assert world.stored("oi_btc").filter(pl.col("time_ns") <= world.now_ns).height > before


def test_a_stamp_more_than_an_interval_ahead_is_told_and_not_stored(tmp_path: Path) -> None:
    world = World(tmp_path, "bybit:BTCUSDT", only=("bybit_tickers",))
    world.venue.now_ms = lambda: (world.now_ns + SLOT_NS) // NS_PER_MS + 1
    world.poll()
    assert world.stored("premium_btc", "bybit:BTCUSDT").is_empty()
    assert world.kinds() == ["unreadable"]
    assert world.events[0].detail == "time before 2009 or ahead of now, in ms"


def test_a_history_that_is_filled_again_leaves_what_was_observed(world: World) -> None:
    """The note of progress is lost, and the venue has revised a value since."""
    world.poll()
    time_ms = world.now_ns // NS_PER_MS // 300_000 * 300_000
    world.venue.revisions[time_ms] = 5.0
    world.now_ns += 3 * SLOT_NS
    world.poll()
    before = world.stored("oi_btc")
    (world.root / "poll.json").unlink()
    world.now_ns += NS_PER_HOUR
    world.poll()
    assert world.stored("oi_btc").head(before.height).equals(before)


def ahead(venue: SlowVenue) -> Any:
    """A venue that ignores the end that it is asked for."""
    whole = venue.get

    async def get(url: str) -> bytes:
        return await whole(url.replace("endTime=", "ignored="))

    return get


@given(st.integers(0, 2**60))
def test_slots_follow_the_clock(now_ns: int) -> None:
    [target] = targets(declared(Poll(only=ONLY_INTEREST)), BINANCE, Hosts())
    slot = slot_of(target, now_ns)
    assert slot_start_ns(target, slot) <= now_ns < slot_start_ns(target, slot + 1)
    assert (slot_start_ns(target, slot) - 20 * NS_PER_S) % SLOT_NS == 0


def test_sampled_series_are_stamped_with_the_venues_time(tmp_path: Path) -> None:
    world = World(tmp_path, "bybit:ETHUSDT", only=("bybit_tickers",))
    world.poll()
    rows = world.stored("oi_usd_eth", "bybit:ETHUSDT")
    assert rows.row(0) == ("oi_usd_eth", START_NS, 50_000_000.0, "5m", START_NS)
    assert world.stored("premium_eth", "bybit:ETHUSDT")["value"].to_list() == [pytest.approx(0.002)]


def test_settled_funding_of_both_venues_is_there_with_its_whole_history(tmp_path: Path) -> None:
    world = World(tmp_path, "binance_um:BTCUSDT", "bybit:BTCUSDT", only=("binance_um_funding", "bybit_funding"))
    world.poll()
    for instrument in ("binance_um:BTCUSDT", "bybit:BTCUSDT"):
        rows = world.stored("funding_rate_btc", instrument)
        assert rows.height == 90
        assert rows["value"].to_list() == [pytest.approx(funding_rate(each // NS_PER_MS)) for each in rows["time_ns"]]
        assert set(rows["known_ns"] - rows["time_ns"]) == {60 * NS_PER_S}


def test_a_fill_that_was_cut_off_is_asked_for_again_and_leaves_no_hole(tmp_path: Path) -> None:
    world = World(tmp_path, only=ONLY_INTEREST, history_days=10.0)
    world.venue.get, whole = cut_after(world.venue, 3), world.venue.get  # type: ignore[method-assign]
    poller = world.poll()
    assert poller.tallies["binance_um_open_interest/BTCUSDT"].errors == 1
    assert world.stored("oi_btc").height == 3 * 499  # windows are cut off the grid
    world.venue.get = whole  # type: ignore[method-assign]
    world.poll()
    assert world.stored("oi_btc").height == 10 * 288


def cut_after(venue: SlowVenue, count: int) -> Any:
    whole = venue.get

    async def get(url: str) -> bytes:
        if len(venue.asked) >= count:
            raise RestError("GET x failed: ConnectError", is_transient=True)
        return await whole(url)

    return get


def test_what_was_missed_in_an_outage_is_filled_and_known_only_now(world: World) -> None:
    world.poll()
    world.now_ns += 7 * NS_PER_HOUR
    world.poll()
    rows = world.stored("oi_btc").tail(84)
    assert set(rows["known_ns"]) == {world.now_ns}
    assert rows["time_ns"].diff().drop_nulls().unique().to_list() == [SLOT_NS]


def test_one_target_that_is_refused_costs_the_others_nothing(tmp_path: Path) -> None:
    world = World(tmp_path, history_days=3.0)
    whole = world.venue.get

    async def get(url: str) -> bytes:
        if "topLongShortAccountRatio" in url:
            raise RestError('GET x was refused with HTTP 400: {"code":-1121,"msg":"Invalid symbol."}', 400)
        return await whole(url)

    world.venue.get = get  # type: ignore[method-assign]
    poller = world.poll()
    assert [key for key, tally in poller.tallies.items() if tally.errors] == ["binance_um_ls_ratio_top/BTCUSDT"]
    assert world.kinds() == ["refused"]
    assert poller.is_due(next(one for one in world.targets if one.name == "binance_um_ls_ratio_top"))
    assert world.stored("ls_ratio_global_btc").height == THREE_DAYS


def test_stale_series_are_told_once_and_again_when_they_go_on(world: World) -> None:
    poller = world.poll()
    published_until = world.now_ns
    world.venue.now_ms = lambda: published_until // NS_PER_MS
    for _ in range(6):
        world.now_ns += SLOT_NS
        world.poll(poller)
    assert world.kinds() == ["stale", "stale"]  # oi_btc and oi_usd_btc
    world.venue.now_ms = lambda: world.now_ns // NS_PER_MS
    world.now_ns += SLOT_NS
    world.poll(poller)
    assert world.kinds() == ["stale", "stale", "fresh", "fresh"]
    assert world.events[0].series == "oi_btc"


def test_odd_values_are_told_and_stored(world: World) -> None:
    world.poll()
    world.now_ns += SLOT_NS
    time_ms = world.now_ns // NS_PER_MS // 300_000 * 300_000
    world.venue.revisions[time_ms] = -1e6
    world.poll()
    told = {(event.kind, event.series) for event in world.events}
    assert told == {(kind, name) for kind in ("range", "jump") for name in ("oi_btc", "oi_usd_btc")}
    first = world.events[0]
    assert (first.target, first.time_ns, first.value) == (
        "binance_um_open_interest/BTCUSDT",
        time_ms * NS_PER_MS,
        -1e6,
    )
    assert "should be above 0" in first.detail
    assert world.stored("oi_btc")["value"][-1] == -1e6


def test_a_time_in_the_wrong_unit_is_a_fault_and_no_row(world: World) -> None:
    async def get(url: str) -> bytes:
        row = {"sumOpenInterest": "1", "sumOpenInterestValue": "1"}
        return json.dumps([row | {"timestamp": START_NS // NS_PER_S}, row | {"timestamp": START_NS}]).encode()

    world.venue.get = get  # type: ignore[method-assign]
    poller = world.poll()
    assert poller.tallies["binance_um_open_interest/BTCUSDT"].faults["time before 2009 or ahead of now, in ms"] >= 4
    assert world.stored("oi_btc").is_empty()
    assert set(world.kinds()) == {"unreadable"}


def test_rows_that_could_not_be_stored_wait_and_are_stored_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    poller = world.poller()

    async def scenario() -> None:
        await poller.collect_due()
        with monkeypatch.context() as patch:
            patch.setattr("ingest.poller.merge_signals", full)
            with pytest.raises(OSError, match="No space"):
                await poller.flush()
        assert world.stored("oi_btc").is_empty()
        assert not (world.root / "poll.json").exists()
        await poller.flush()

    asyncio.run(scenario())
    assert world.stored("oi_btc").height == THREE_DAYS
    assert not world.poller().is_due(world.targets[0])


def test_what_a_flush_stored_before_it_failed_is_derived_later(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by another process: nothing of it is kept in memory alone."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    poller = world.poller()
    asyncio.run(poller.collect_due())
    with monkeypatch.context() as patch:
        patch.setattr("ingest.poller.write_atomic", full)
        with pytest.raises(OSError, match="No space"):
            poller.flush_last()
    assert world.stored("oi_btc").height == THREE_DAYS
    derive(world.root, underived(world.root), world.targets, world.now_ns)
    strike_off(world.root)
    assert world.stored("oi_total_btc", "all:BTC").height == THREE_DAYS
    assert underived(world.root) == {}


def test_while_nothing_can_be_stored_no_more_is_asked_than_memory_holds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ingest.poller._MOST_WAITING", 1_000)
    poller = world.poller()
    asyncio.run(poller.collect_due())
    asked, world.now_ns = len(world.venue.asked), world.now_ns + SLOT_NS
    asyncio.run(poller.collect_due())
    assert len(world.venue.asked) == asked
    assert "rows wait to be stored" in poller.tallies["binance_um_open_interest/BTCUSDT"].last_error
    world.poll(poller)
    poller.flush_last()
    world.poll(poller)
    assert world.stored("oi_btc").height == THREE_DAYS + 1


def test_a_damaged_note_of_progress_says_what_to_do(world: World) -> None:
    (world.root / "poll.json").write_text("{")
    with pytest.raises(StageError, match="delete it, the history is then asked for again"):
        world.poller()


def test_each_target_is_served_at_each_of_its_slots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six hours of `forever` on a clock that only sleeping moves."""
    world = World(tmp_path, only=("binance_um_premium", "binance_um_funding"))
    poller, real_sleep = world.poller(), asyncio.sleep
    wakes: list[int] = []

    async def sleep(seconds: float) -> None:
        """Whoever sleeps least wakes first: the clock goes to the next one that is due."""
        wake_ns = world.now_ns + round(seconds * NS_PER_S)
        wakes.append(wake_ns)
        while world.now_ns < wake_ns:
            await real_sleep(0)
            if wake_ns == min(wakes):
                world.now_ns = max(world.now_ns, wake_ns)
        wakes.remove(wake_ns)

    async def scenario() -> None:
        monkeypatch.setattr(asyncio, "sleep", sleep)
        keeping = asyncio.create_task(poller.keep_collecting())
        while world.now_ns < START_NS + 6 * NS_PER_HOUR:
            await real_sleep(0)
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)

    asyncio.run(scenario())
    poller.flush_last()
    premium = world.stored("premium_btc")
    assert premium.height >= 72
    assert set((premium["time_ns"].slice(1, 71) - 20 * NS_PER_S) % SLOT_NS) == {0}
    assert len([url for url in world.venue.asked if "fundingRate" in url]) == 7


def test_a_jump_is_judged_by_the_series_own_changes() -> None:
    calm = Recent((each, 100.0 + each % 3) for each in range(100))
    assert calm.jump(130.0, 15.0).startswith("changed by 30")
    assert calm.jump(101.0, 15.0) == ""
    assert Recent((each, 100.0 + each % 3) for each in range(20)).jump(1e9, 15.0) == ""
    assert Recent((each, 100.0) for each in range(100)).jump(101.0, 15.0) == ""  # no spread, no judgement
    steps = Recent((each, 100.0 + (each == 7)) for each in range(100))  # most changes are equal: MAD is 0
    assert steps.jump(160.0, 15.0)
    assert Recent().newest is None


def test_an_older_value_does_not_become_the_newest() -> None:
    recent = Recent([(10, 1.0)])
    recent.add(5, 2.0)
    assert recent.newest == (10, 1.0)


@pytest.mark.parametrize(("age_s", "text"), [(45, "45 s"), (720, "12 min"), (18_000, "5.0 h"), (270_000, "3.1 d")])
def test_ages_are_told_as_people_read_them(age_s: int, text: str) -> None:
    assert age_text(age_s * NS_PER_S) == text


def test_staleness_counts_intervals_and_what_publishing_takes() -> None:
    assert not is_stale(0, 4 * SLOT_NS, SLOT_NS, SLOT_NS, 3.0)
    assert is_stale(0, 4 * SLOT_NS + 1, SLOT_NS, SLOT_NS, 3.0)


def test_ranges_are_open_at_both_ends() -> None:
    series = declared(Poll()).collectors["binance_um_funding"].series[0]
    assert out_of_range(series, -0.05) == "should be above -0.05"
    assert out_of_range(series, 0.05) == "should be below 0.05"
    assert out_of_range(series, 0.049) == ""


def test_history_days_bounds_the_first_poll(tmp_path: Path) -> None:
    world = World(tmp_path, "binance_um:BTCUSDT", "binance_um:ETHUSDT", only=ONLY_INTEREST, history_days=1.0)
    world.poll()
    assert world.stored("oi_eth", "binance_um:ETHUSDT").height == 288
    assert int(world.stored("oi_btc")["time_ns"][0]) >= world.now_ns - NS_PER_DAY
