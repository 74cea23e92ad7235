"""Gaps that are told long after they ended: bars of the tables are those that the runner had."""

from pathlib import Path

import numpy as np
import pytest

from core.store import Partition, append, split_by_date
from core.units import NS_PER_DAY, NS_PER_MS, NS_PER_S
from ingest.events import Event, Gap
from ingest.packing import TABLES, frame_of
from live import journal
from live.journal import Journal, Recording
from live.manifest import Bundle, load_bundle
from live.runner import Runner, fresh_bars, header, received_ns
from live.start import cold_start
from research.bars.bar_pass import ClosedBars, join_closed
from research.bars.columns import bar_columns
from research.bars.day_events import DayEvents
from tests.live.synthetic import BARS, BEGIN_NS, FEATURES, NAMES, market, write

NAME = NAMES[0]
COUNTED = (*FEATURES[:3], ("flow", "(sub (mean_20 buy_usd) (mean_20 sell_usd))"))
"""Windows that bars of any clock have."""
PART = Partition("bars", "binance_um", "BTCUSDT", "2023-11-14")
END_NS = BEGIN_NS + 60 * NS_PER_S
TICK_NS = 20 * NS_PER_MS


def gap(stream: str, from_s: float, to_s: float, told_s: float, mended: bool = False) -> Gap:
    from_ns, to_ns, told_ns = (BEGIN_NS + round(each * NS_PER_S) for each in (from_s, to_s, told_s))
    return Gap("BTCUSDT", stream, from_ns, to_ns, "silent", mended, told_ns)


LATE = [gap("trades", 20, 22, 27.05), gap("top_of_book", 40, 41, 41.03), gap("mark_prices", 41, 42, 58.1, mended=True)]


def session(bundle: Bundle, events: list[Event], folder: Path) -> Recording:
    """What the runner writes that gets each event as it becomes known."""
    starts = {NAME: cold_start(bundle, NAME)}
    log = Journal.create(folder, header(bundle, "shadow", starts), starts)
    runner, left = Runner(bundle, starts, log, None, lambda: 0), sorted(events, key=received_ns)
    for now_ns in range(BEGIN_NS, END_NS + 1, TICK_NS):
        known = [event for event in left if received_ns(event) < now_ns]
        left = left[len(known) :]
        runner.feed({NAME: known}, now_ns, 0)
    log.close()
    return journal.read(folder)


def batch(bundle: Bundle, events: list[Event], root: Path) -> ClosedBars:
    """The bars of the same events, by way of the tables."""
    for kind, table in TABLES.items():
        frame = frame_of(table, [event for event in events if type(event) is kind])
        for _, rows in split_by_date(frame, table.order[0]):
            append(root, PART.of(table), rows, int(rows[table.order[0]][0]), 0)
    bars = fresh_bars(bundle, NAME)
    made = [bars.push(piece) for piece in DayEvents(root, PART).slices()]
    return join_closed([pieces[0] for pieces in (*made, bars.advance(END_NS))])


@pytest.mark.parametrize("clock", [BARS, "volume_0.2"])
def test_bars_made_of_the_tables_are_to_the_bit_those_that_the_runner_had(clock: str, tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", features=COUNTED, bars=clock))
    events = [*market(60), *LATE]
    lived, made = session(bundle, events, tmp_path / "live"), batch(bundle, events, tmp_path / "data")
    assert len(made) > 90
    np.testing.assert_array_equal(lived.bars["close_ns"], made.close_ns)
    np.testing.assert_array_equal(lived.bars["values"], made.values)
    has_gap = made.values[:, bar_columns(0).index("has_gap")] > 0
    for each in LATE:
        assert (has_gap & (made.open_ns <= each.told_ns) & (each.told_ns <= made.close_ns)).any()
        assert not (has_gap & (made.close_ns > each.to_ns) & (made.close_ns < each.told_ns)).any()


def test_a_gap_that_was_told_on_the_day_after_is_of_that_day(tmp_path: Path) -> None:
    midnight_ns = PART.starts_ns + NS_PER_DAY
    late = Gap("BTCUSDT", "trades", midnight_ns - 9, midnight_ns - 5, "silent", False, midnight_ns + 7)
    append(tmp_path, PART.of(TABLES[Gap]), frame_of(TABLES[Gap], [late]), midnight_ns - 9, 0)
    days = (PART, Partition("bars", "binance_um", "BTCUSDT", "2023-11-15"))
    told = [[event["recv_ns"] for piece in DayEvents(tmp_path, day).slices() for event in piece] for day in days]
    assert told == [[], [midnight_ns + 7]]
