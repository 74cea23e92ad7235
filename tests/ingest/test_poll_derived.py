"""Derived series against hand arithmetic, and from stored tables: velocity, totals, hourly liquidations."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.config import Hosts, Poll
from core.gaps import told_at_their_ends
from core.schema import GAPS, LIQUIDATIONS, MARK_PRICES, SIGNALS
from core.store import Partition, write
from core.units import NS_PER_DAY, NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S
from ingest.declarations import declared, targets
from ingest.derivation import derive, derive_liquidations
from ingest.derived_signals import hourly_liquidations, notional, total, velocity
from ingest.signals import SETTLEMENT, as_of, merge_signals, read_signal, signal_rows

T0 = 1_767_225_600 * NS_PER_S  # 2026-01-01, a whole hour
LAG_NS = 60 * NS_PER_S


def rate(hours: float, value: float, known_h: float) -> tuple[str, int, float, str, int]:
    at_ns, known_ns = T0 + int(hours * NS_PER_HOUR), T0 + int(known_h * NS_PER_HOUR)
    return "funding_rate_btc", at_ns, value, SETTLEMENT, known_ns


def values(frame: pl.DataFrame) -> list[tuple[str, float, float, float]]:
    """(name, hours since T0, value, hours until known) of each row."""
    hours = ((pl.col(name) - T0) / NS_PER_HOUR for name in ("time_ns", "known_ns"))
    times, known = np.round(frame.select(*hours).to_numpy().T, 9)
    return list(zip(frame["name"], times.tolist(), frame["value"], known.tolist(), strict=True))


def test_velocity_is_the_change_per_hour_between_settlements() -> None:
    rows = velocity("btc", signal_rows([rate(0, 1e-4, 0.1), rate(8, 3e-4, 8.1), rate(12, 1e-4, 12.1)]))
    assert values(rows) == [
        ("funding_velocity_btc", 8.0, pytest.approx(2e-4 / 8), 8.1),
        ("funding_velocity_btc", 12.0, pytest.approx(-2e-4 / 4), 12.1),
    ]
    assert velocity("btc", signal_rows([rate(0, 1e-4, 0.1)])).is_empty()
    assert velocity("btc", signal_rows([])).is_empty()


def test_velocity_uses_the_latest_version_and_is_known_with_it() -> None:
    rows = velocity("btc", signal_rows([rate(0, 1e-4, 0.1), rate(0, 2e-4, 20.0), rate(8, 3e-4, 8.1)]))
    assert values(rows) == [("funding_velocity_btc", 8.0, pytest.approx(1e-4 / 8), 20.0)]


def held(name: str, minutes: float, value: float, known_min: float) -> tuple[str, int, float, str, int]:
    return name, T0 + int(minutes * NS_PER_MINUTE), value, "5m", T0 + int(known_min * NS_PER_MINUTE)


def test_a_total_is_there_where_every_part_is_and_known_when_each_has_a_value_at_its_mark_or_after() -> None:
    one = signal_rows([held("oi_btc", minute, 10.0 + minute, minute + 0.5) for minute in (0, 5, 10, 15)])
    two = signal_rows([held("oi_btc", minute, 1.0, minute + 0.1) for minute in (4.9, 9.9, 20.0)])
    rows = total("oi_total_btc", [one, two])
    assert values(rows) == [
        ("oi_total_btc", pytest.approx(5 / 60), 15.0 + 1.0, pytest.approx(10.0 / 60)),
        ("oi_total_btc", pytest.approx(10 / 60), 20.0 + 1.0, pytest.approx(20.1 / 60)),
        ("oi_total_btc", pytest.approx(15 / 60), 25.0 + 1.0, pytest.approx(20.1 / 60)),
    ]
    assert total("oi_total_btc", [one, signal_rows([])]).is_empty()
    assert total("oi_total_btc", []).is_empty()


def test_a_total_is_not_known_before_its_mark() -> None:
    stamped_ahead = signal_rows([held("oi_usd_btc", 5, 1.0, 4)])
    assert values(total("oi_total", [stamped_ahead]))[0][3] == pytest.approx(5 / 60)


def test_a_part_that_stopped_leaves_no_total_instead_of_a_fall() -> None:
    one = signal_rows([held("oi_btc", 5 * step, 10.0, 5 * step + 0.5) for step in range(8)])
    two = signal_rows([held("oi_btc", minute, 1.0, minute + 0.5) for minute in (0, 30, 35)])
    assert [hours * 60 for _, hours, _, _ in values(total("x", [one, two]))] == pytest.approx([0, 5, 30, 35], abs=1e-6)


parts = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 9), st.integers(0, 30)).map(
        lambda drawn: held("oi_btc", 5 * drawn[0], float(drawn[1]), 5 * drawn[0] + drawn[2])
    ),
    max_size=15,
)


@given(parts, parts, st.integers(0, 90))
def test_a_total_never_rests_on_what_became_known_later(
    one: list[tuple[str, int, float, str, int]], two: list[tuple[str, int, float, str, int]], cut_min: int
) -> None:
    """What is known at a cut comes out of what was stored at the cut, by the same rule."""
    cut_ns = T0 + cut_min * NS_PER_MINUTE
    rows = as_of(total("x", [signal_rows(one), signal_rows(two)]), cut_ns)
    then = total("x", [signal_rows([row for row in part if row[4] <= cut_ns]) for part in (one, two)])
    made_then = set(then.select("time_ns", "value").iter_rows())
    assert set(rows.select("time_ns", "value").iter_rows()) <= made_then


def liquidations_of(rows: list[tuple[float, str, float, float]]) -> pl.DataFrame:
    """From (minutes, liquidated, price, qty)."""
    stamped = [(T0 + int(minute * NS_PER_MINUTE),) * 2 + (side, price, qty, False) for minute, side, price, qty in rows]
    return pl.DataFrame(stamped, schema=LIQUIDATIONS.columns, orient="row")


LIQUIDATED = [
    (5.0, "long", 100.0, 3.0),
    (6.0, "short", 50.0, 2.0),
    (59.99, "long", 10.0, 10.0),
    (60.0, "short", 1.0, 7.0),
]


def hours_of(rows: pl.DataFrame, minutes: list[int], closed_h: float) -> dict[tuple[str, float], float]:
    minute = T0 // NS_PER_MINUTE + np.array(minutes, np.int64)
    found = hourly_liquidations("btc", notional("bybit"), rows, minute, LAG_NS, T0 + int(closed_h * NS_PER_HOUR))
    assert set(found["known_ns"] - found["time_ns"]) <= {LAG_NS}
    return {(name, hours): value for name, hours, value, _ in values(found)}


def test_hourly_sums_are_price_times_quantity_of_the_hour_by_receipt() -> None:
    assert hours_of(liquidations_of(LIQUIDATED), list(range(120)), 3.0) == {
        ("liq_long_btc_1h", 1.0): 400.0,
        ("liq_short_btc_1h", 1.0): 100.0,
        ("liq_ratio_btc_1h", 1.0): 400.0 / 500.0,
        ("liq_coverage_btc_1h", 1.0): 1.0,
        ("liq_long_btc_1h", 2.0): 0.0,
        ("liq_short_btc_1h", 2.0): 7.0,
        ("liq_ratio_btc_1h", 2.0): 0.0,
        ("liq_coverage_btc_1h", 2.0): 1.0,
    }


def test_an_hour_without_liquidations_has_sums_of_zero_and_no_ratio_and_one_without_capture_has_nothing() -> None:
    assert hours_of(liquidations_of([]), list(range(30)), 3.0) == {
        ("liq_long_btc_1h", 1.0): 0.0,
        ("liq_short_btc_1h", 1.0): 0.0,
        ("liq_coverage_btc_1h", 1.0): 0.5,
    }
    assert hours_of(liquidations_of([]), [], 3.0) == {}


def test_an_hour_is_not_told_before_its_end_and_the_time_that_storing_takes() -> None:
    assert hours_of(liquidations_of(LIQUIDATED), list(range(60)), 1.0) == {}
    assert hours_of(liquidations_of(LIQUIDATED), list(range(60)), 1.0 + LAG_NS / NS_PER_HOUR) != {}


def test_inverse_contracts_are_dollars_already() -> None:
    rows = liquidations_of([(1.0, "long", 50_000.0, 300.0)])
    assert rows.select(notional("bybit_inverse"))[:, 0].to_list() == [300.0]


def mark_rows(minutes: range) -> pl.DataFrame:
    times = [T0 + minute * NS_PER_MINUTE + NS_PER_S for minute in minutes]
    columns: dict[str, object] = {"exch_ns": times, "recv_ns": times, "mark_price": [1.0] * len(times)}
    nulls = {name: [None] * len(times) for name in MARK_PRICES.columns if name not in columns}
    return pl.DataFrame(columns | nulls | {"recv_assumed": [False] * len(times)}, schema=MARK_PRICES.columns)


def capture(root: Path, venue: str, minutes: range, liquidated: list[tuple[float, str, float, float]]) -> Partition:
    part = Partition(LIQUIDATIONS.name, venue, "BTCUSDT", "2026-01-01")
    write(root, part.of(MARK_PRICES), mark_rows(minutes))
    if liquidated:
        write(root, part, liquidations_of(liquidated))
    return part


def stored(root: Path, name: str, instrument: str) -> list[float]:
    return as_of(read_signal(root, name, instrument), 2**62)["value"].to_list()


BOTH = ("binance_um:BTCUSDT", "bybit:BTCUSDT")


def test_hours_of_our_own_capture_become_signals_per_venue_and_a_total_that_says_so(tmp_path: Path) -> None:
    capture(tmp_path, "binance_um", range(120), LIQUIDATED)
    capture(tmp_path, "bybit", range(30, 120), LIQUIDATED[1:])
    derive_liquidations(tmp_path, BOTH, LAG_NS, T0 + 3 * NS_PER_HOUR)
    assert stored(tmp_path, "liq_long_btc_1h", BOTH[0]) == [400.0, 0.0]
    assert stored(tmp_path, "liq_long_btc_1h", BOTH[1]) == [100.0, 0.0]
    assert stored(tmp_path, "liq_coverage_btc_1h", BOTH[1]) == [pytest.approx(31 / 60), 1.0]
    assert stored(tmp_path, "liq_long_total_btc_1h", "all:BTC") == [500.0, 0.0]
    assert stored(tmp_path, "liq_short_total_btc_1h", "all:BTC") == [200.0, 14.0]
    assert stored(tmp_path, "liq_ratio_total_btc_1h", "all:BTC") == [pytest.approx(5 / 7), 0.0]
    assert stored(tmp_path, "liq_coverage_total_btc_1h", "all:BTC") == [pytest.approx(31 / 60), 1.0]


def test_a_gap_in_the_capture_lowers_the_coverage_unless_it_was_mended(tmp_path: Path) -> None:
    part = capture(tmp_path, "bybit", range(60), LIQUIDATED)
    gap = (LIQUIDATIONS.name, T0 + 10 * NS_PER_MINUTE, T0 + 19 * NS_PER_MINUTE, "disconnected")
    later = (LIQUIDATIONS.name, T0 + 30 * NS_PER_MINUTE, T0 + 39 * NS_PER_MINUTE, "refilled")
    write(tmp_path, part.of(GAPS), told_at_their_ends([(*gap, False), (*later, True)]))
    derive_liquidations(tmp_path, BOTH, LAG_NS, T0 + NS_PER_DAY)
    assert stored(tmp_path, "liq_coverage_btc_1h", BOTH[1])[0] == pytest.approx(50 / 60)


def test_a_gap_that_began_the_day_before_lowers_the_coverage_too(tmp_path: Path) -> None:
    part = capture(tmp_path, "bybit", range(60), [])
    gap = (LIQUIDATIONS.name, T0 - NS_PER_HOUR, T0 + 15 * NS_PER_MINUTE - 1, "disconnected", False)
    before = Partition(GAPS.name, "bybit", "BTCUSDT", "2025-12-31")
    write(tmp_path, before, told_at_their_ends([gap]))
    derive_liquidations(tmp_path, [part.instrument], LAG_NS, T0 + NS_PER_DAY)
    assert stored(tmp_path, "liq_coverage_btc_1h", part.instrument)[0] == pytest.approx(45 / 60)


def test_contracts_of_unknown_size_are_left_out(tmp_path: Path) -> None:
    capture(tmp_path, "binance_cm", range(60), LIQUIDATED[:1])
    assert derive_liquidations(tmp_path, ["binance_cm:BTCUSDT"], LAG_NS, T0 + NS_PER_DAY) == {}


def test_deriving_again_changes_nothing_and_what_came_late_is_a_revision_known_now(tmp_path: Path) -> None:
    capture(tmp_path, "bybit", range(60), LIQUIDATED[:1])
    first = derive_liquidations(tmp_path, BOTH, LAG_NS, T0 + 2 * NS_PER_HOUR)
    assert sum(rows.height for rows in first.values()) == 2 * 4  # the venue, and the total over it
    assert derive_liquidations(tmp_path, BOTH, LAG_NS, T0 + 3 * NS_PER_HOUR) == {}
    capture(tmp_path, "bybit", range(60), LIQUIDATED[:3])
    now_ns = T0 + 5 * NS_PER_HOUR
    derive_liquidations(tmp_path, BOTH, LAG_NS, now_ns)
    versions = read_signal(tmp_path, "liq_long_btc_1h", BOTH[1])
    assert versions["value"].to_list() == [300.0, 400.0]
    assert versions["known_ns"].to_list() == [T0 + NS_PER_HOUR + LAG_NS, now_ns]
    assert stored(tmp_path, "liq_long_total_btc_1h", "all:BTC") == [400.0]
    assert derive_liquidations(tmp_path, BOTH, LAG_NS, now_ns + NS_PER_HOUR) == {}
    assert read_signal(tmp_path, "liq_long_btc_1h", BOTH[1]).equals(versions)


def test_only_the_first_history_counts_as_known_after_each_hour_and_later_hours_when_they_are_derived(
    tmp_path: Path,
) -> None:
    first_ns, after_outage_ns = T0 + 2 * NS_PER_HOUR + 5 * NS_PER_MINUTE, T0 + 6 * NS_PER_HOUR
    capture(tmp_path, "bybit", range(120), LIQUIDATED)
    derive_liquidations(tmp_path, BOTH, LAG_NS, first_ns)
    capture(tmp_path, "bybit", range(240), LIQUIDATED)
    derive_liquidations(tmp_path, BOTH, LAG_NS, after_outage_ns)
    assumed = [T0 + hour * NS_PER_HOUR + LAG_NS for hour in (1, 2)]
    for name, instrument in (("liq_long_btc_1h", BOTH[1]), ("liq_long_total_btc_1h", "all:BTC")):
        assert read_signal(tmp_path, name, instrument)["known_ns"].to_list() == [*assumed, *[after_outage_ns] * 2]


def test_velocities_and_totals_follow_from_what_is_new(tmp_path: Path) -> None:
    asked = targets(declared(Poll()), BOTH, Hosts())
    rates = signal_rows([rate(0, 1e-4, 0.1), rate(8, 2e-4, 8.1)])
    interest = {
        "binance_um": signal_rows([held("oi_btc", 0, 10.0, 1), held("oi_usd_btc", 0, 1000.0, 1)]),
        "bybit": signal_rows([held("oi_btc", 0, 5.0, 2), held("oi_usd_btc", 0, 500.0, 2)]),
    }
    news = {
        (venue, "BTCUSDT"): merge_signals(tmp_path, venue, "BTCUSDT", pl.concat([rates, rows]))
        for venue, rows in interest.items()
    }
    found = derive(tmp_path, news, asked, T0)
    assert set(found) == {("binance_um", "BTCUSDT"), ("bybit", "BTCUSDT"), ("all", "BTC"), ("all", "ALL")}
    assert stored(tmp_path, "oi_total_btc", "all:BTC") == [15.0]
    assert stored(tmp_path, "oi_total", "all:ALL") == [1500.0]
    assert stored(tmp_path, "funding_velocity_btc", BOTH[0]) == [pytest.approx(1e-4 / 8)]
    assert derive(tmp_path, news, asked, T0) == {}
    assert set(read_signal(tmp_path, "oi_total", "all:ALL").columns) == set(SIGNALS.columns)


def test_a_venue_that_joins_changes_totals_from_then_on_and_not_what_was_known_before(tmp_path: Path) -> None:
    def join(venue: str, value: float, known_after_min: float, now_ns: int) -> None:
        rows = signal_rows([held("oi_btc", minute, value, minute + known_after_min) for minute in range(0, 60, 5)])
        news = {(venue, "BTCUSDT"): merge_signals(tmp_path, venue, "BTCUSDT", rows)}
        polled = BOTH if venue == "bybit" else BOTH[:1]
        derive(tmp_path, news, targets(declared(Poll()), polled, Hosts()), now_ns)

    join("binance_um", 100.0, 0.3, T0 + NS_PER_HOUR)
    alone = read_signal(tmp_path, "oi_total_btc", "all:BTC")
    now_ns = T0 + 2 * NS_PER_HOUR
    for at_ns in (now_ns, now_ns + NS_PER_HOUR):  # what was derived again changes nothing either
        join("bybit", 900.0, 6.0, at_ns)
        versions = read_signal(tmp_path, "oi_total_btc", "all:BTC")
        assert as_of(versions, now_ns - 1).equals(alone)
        assert as_of(versions, now_ns)["value"].to_list() == [1000.0] * 12
