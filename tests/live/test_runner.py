"""The runner computes what the batch computes, to the bit, and acts only where it may."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core.config import Config, Labels
from core.errors import StageError
from core.units import NS_PER_MS, NS_PER_S
from ingest.events import BookUpdate, Event, Gap, Kline
from ingest.feeds import Step
from ingest.merge import Merger, Tagged
from live import journal
from live.journal import Journal, Recording
from live.manifest import Bundle, load_bundle
from live.paper import PaperAccount
from live.parity import against_capture, compare
from live.runner import Outcome, Runner, exchange_times, header, received_ns, started_panel
from live.session import Witness, by_instrument, slices
from live.start import cold_start, require_compared
from research.bars.events import GAP, TRADE, as_events
from tests.live.synthetic import BARS, BEGIN_NS, FEATURES, JOINED, MAKER, NAMES, TAKER, market, write

Run = Callable[..., Recording]


def merged_market(markets: dict[str, list[Event]]) -> list[Tagged]:
    """The markets of some instruments as one stream."""
    tagged = [Tagged(name.split(":")[0], event) for name, events in markets.items() for event in events]
    return sorted(tagged, key=lambda one: received_ns(one.event))


def cut(stream: list[Tagged], at_ns: list[int], end_ns: int) -> list[Step]:
    """The stream in steps that end at given times."""
    steps, rest = [], list(stream)
    for now_ns in [*sorted(at_ns), end_ns]:
        steps.append(Step(now_ns, [one for one in rest if received_ns(one.event) < now_ns]))
        rest = [one for one in rest if received_ns(one.event) >= now_ns]
    return steps


@pytest.fixture
def follow(tmp_path: Path, cfg: Config) -> Run:
    """Runs a session over a stream and reads its journal."""

    def run(
        bundle: Bundle, steps: list[Step], names: tuple[str, ...], mode: str = "paper", trade_from_ns: int = 0
    ) -> Recording:
        folder = tmp_path / f"session-{len(list(tmp_path.iterdir()))}"
        starts = {name: cold_start(bundle, name) for name in names}
        log = Journal.create(folder, header(bundle, mode, starts), starts)
        account = PaperAccount(cfg, bundle.manifest.candidate, names) if mode == "paper" else None
        runner = Runner(bundle, starts, log, account, lambda: 0, trade_from_ns)
        for step in steps:
            for part in slices(step, runner.bar_ns, runner.now_ns):
                runner.feed(by_instrument(part.events, runner.instruments), part.now_ns, 0)
        log.close()
        return journal.read(folder)

    return run


@pytest.fixture
def cfg() -> Config:
    return Config(labels=Labels(horizons_s=(1.0, 10.0)))


def stream_of(seconds: float) -> list[Tagged]:
    return merged_market({NAMES[0]: market(seconds, 1), NAMES[1]: market(seconds, 2, 3_000.0, "ETHUSDT")})


END_NS = BEGIN_NS + 90 * NS_PER_S
ON_VOLUME = (
    *JOINED[:2],
    ("other", "(corr_9 (delta_1 close_price) (of_bybit:ETHUSDT (delta_1 close_price)))"),
    ("standing", "(at_1s (cs_rank (sum_3 ofi_qty)))"),
)


@pytest.mark.parametrize(
    ("features", "bars"), [(FEATURES, BARS), (JOINED, BARS), (JOINED, "time_1s"), (ON_VOLUME, "volume_0.2")]
)
def test_the_runner_computes_what_the_batch_computes_to_the_bit(
    features: tuple[tuple[str, str], ...], bars: str, follow: Run, tmp_path: Path
) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", features=features, bars=bars))
    session = follow(bundle, cut(stream_of(90), [BEGIN_NS + k * NS_PER_S // 3 for k in range(270)], END_NS), NAMES)
    parity = compare(session, bundle)
    assert parity.bars_compared > 170
    assert parity.decisions_compared > 100
    assert parity.holds
    assert (parity.max_abs_bar_diff, parity.max_abs_feature_diff) == (0.0, 0.0)
    assert parity.max_abs_score_diff <= 1e-6


def test_candles_of_the_stream_are_in_no_bar(follow: Run, tmp_path: Path) -> None:
    bundle, ends = load_bundle(write(tmp_path / "bundle")), [BEGIN_NS + k * NS_PER_S for k in range(20)]
    venue, symbol = NAMES[0].split(":")
    candles = [
        Tagged(venue, Kline(symbol, at_ns - 1, at_ns, "1s", at_ns, at_ns, *[1.0] * 6, None, None, None))
        for at_ns in ends[1:]
    ]
    plain = follow(bundle, cut(stream_of(20), ends, END_NS), NAMES)
    both = follow(bundle, cut([*candles, *stream_of(20)], ends, END_NS), NAMES)
    assert plain.bars.tobytes() == both.bars.tobytes()
    assert plain.decisions.tobytes() == both.decisions.tobytes()


def with_late_gaps(steps: list[Step], name: str) -> list[Step]:
    """The steps with gaps that are told 30 ms to 5 s after their end, within a bar that is open and long after it."""
    venue, symbol = name.split(":")
    told = list(steps)
    for k, (stream, late_ms) in product(range(30, len(steps), 997), (("trades", 30), ("top_of_book", 5_000))):
        at_ns = steps[k].now_ns - late_ms * NS_PER_MS
        gap = Tagged(venue, Gap(symbol, stream, at_ns - NS_PER_S, at_ns, "told late", False))
        told[k] = Step(steps[k].now_ns, [gap, *told[k].events])
    return told


@pytest.mark.parametrize(("features", "bars"), [(FEATURES, BARS), (JOINED, BARS), (ON_VOLUME, "volume_0.2")])
def test_a_gap_that_is_told_late_is_taken_when_it_is_told(
    features: tuple[tuple[str, str], ...], bars: str, follow: Run, tmp_path: Path
) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", features=features, bars=bars))
    ticks = [BEGIN_NS + k * NS_PER_S // 50 for k in range(50 * 90)]
    steps = with_late_gaps(cut(stream_of(90), ticks, END_NS), NAMES[0])
    session = follow(bundle, steps, NAMES)
    gaps = session.events[session.events["kind"] == GAP]
    assert len(gaps) == 12
    assert (np.diff(session.events["recv_ns"][session.events["instrument"] == 0]) >= 0).all()
    parity = compare(session, bundle)
    assert parity.holds
    assert parity.decisions_compared > 60
    witness = Witness(bundle, NAMES)
    for step in steps:
        witness.take(step)
    assert against_capture(session, witness.bars({name: cold_start(bundle, name) for name in NAMES})).missing == 0


def test_slices_go_on_from_the_time_that_is_reached() -> None:
    gap = Tagged("binance_um", Gap("BTCUSDT", "trades", 10, 150, "told late", False))
    quote = market(1)[0]
    events = [gap, *(Tagged("binance_um", msgspec.structs.replace(quote, recv_ns=ns)) for ns in (510, 950))]
    assert [step.now_ns for step in slices(Step(1_000, events), 200, 500)] == [600, 1_000, 1_000]
    assert [step.now_ns for step in slices(Step(1_000, events), 0, 500)] == [501, 511, 951, 1_000]


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(BEGIN_NS, END_NS), max_size=12), features=st.sampled_from([FEATURES, JOINED]))
def test_the_journal_does_not_depend_on_how_the_stream_was_cut(
    cuts: list[int], features: tuple[tuple[str, str], ...], follow: Run, tmp_path: Path
) -> None:
    bundle, stream = load_bundle(write(tmp_path / "bundle", features=features)), stream_of(30)
    whole, pieces = (follow(bundle, cut(stream, at_ns, END_NS), NAMES) for at_ns in ([], cuts))
    for stream_name in ("bars", "features", "decisions", "fills"):
        for number in range(len(NAMES)):
            left, right = (records_of(session, stream_name, number) for session in (whole, pieces))
            same = [left[name].tobytes() == right[name].tobytes() for name in left.dtype.names or () if name != "seq"]
            assert all(same), stream_name


def records_of(session: Recording, stream: str, number: int) -> Any:
    records = getattr(session, stream)
    return records[records["instrument"] == number]


def perturbed(session: Recording, stream: str, field: str) -> Recording:
    """The session with one value of one record moved by the least that a float can move."""
    records = getattr(session, stream).copy()
    values = records[field].reshape(records.size, -1)
    values[records.size // 2, 0] = np.nextafter(values[records.size // 2, 0], np.inf)
    return msgspec.structs.replace(session, **{stream: records})


@pytest.mark.parametrize(("stream", "field"), [("features", "values"), ("bars", "values")])
def test_parity_fails_for_one_unit_in_the_last_place(stream: str, field: str, follow: Run, tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle"))
    session = follow(bundle, cut(stream_of(60), [], END_NS), NAMES)
    assert compare(session, bundle).holds
    parity = compare(perturbed(session, stream, field), bundle)
    assert not parity.holds
    if stream == "features":
        assert parity.max_abs_feature_diff > 0.0


def test_events_after_a_decision_are_in_none_of_its_features(follow: Run, tmp_path: Path) -> None:
    bundle, stream, until_ns = (
        load_bundle(write(tmp_path / "bundle", features=JOINED)),
        stream_of(60),
        END_NS - 47 * NS_PER_S,
    )
    early = [one for one in stream if received_ns(one.event) < until_ns]
    others = merged_market({NAMES[0]: market(60, 3), NAMES[1]: market(60, 4, 3_000.0, "ETHUSDT")})
    late = [one for one in others if received_ns(one.event) >= until_ns]
    sessions = [follow(bundle, cut(each, [], END_NS), NAMES).features for each in (stream, [*early, *late])]
    left, right = ([rows[rows["instrument"] == k] for rows in sessions for k in (0, 1)][which::2] for which in (0, 1))
    for mine, other in (left, right):
        same = mine["decision_ns"] <= until_ns
        assert same.sum() > 20
        assert mine["values"][same].tobytes() == other["values"][other["decision_ns"] <= until_ns].tobytes()
        assert mine["values"][~same].tobytes() != other["values"][other["decision_ns"] > until_ns].tobytes()


def test_a_symbol_that_features_join_must_be_followed(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", features=JOINED))
    with pytest.raises(StageError, match=r"(?s)bybit:ETHUSDT is none of the symbols of the run, binance_um:BTCUSDT"):
        started_panel(bundle, {NAMES[0]: cold_start(bundle, NAMES[0])})


def test_features_that_compare_symbols_want_those_of_the_training(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", features=JOINED))
    require_compared(bundle, NAMES[::-1])
    with pytest.raises(StageError, match=r"were binance_um:BTCUSDT, bybit:ETHUSDT, and would now be bybit:ETHUSDT:"):
        require_compared(bundle, NAMES[1:])
    require_compared(load_bundle(write(tmp_path / "plain")), NAMES[1:])


def test_parity_fails_for_a_decision_that_is_not_the_rules(follow: Run, tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle"))
    session = follow(bundle, cut(stream_of(60), [], END_NS), NAMES)
    decisions = session.decisions.copy()
    decisions["side"][7] = -decisions["side"][7] or 1
    parity = compare(msgspec.structs.replace(session, decisions=decisions), bundle)
    assert not parity.decisions_equal


def test_parity_fails_for_an_event_that_the_runner_did_not_take(follow: Run, tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle"))
    session = follow(bundle, cut(stream_of(60), [], END_NS), NAMES)
    at = np.flatnonzero(session.events["kind"] == TRADE)[200]
    assert not compare(msgspec.structs.replace(session, events=np.delete(session.events, at)), bundle).holds


def test_parity_fails_from_another_start_state(follow: Run, tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle"))
    warm = follow(bundle, cut(stream_of(60), [], END_NS), NAMES)
    late = msgspec.structs.replace(warm, events=warm.events[warm.events["recv_ns"] > BEGIN_NS + 20 * NS_PER_S])
    assert not compare(late, bundle).holds


def test_in_shadow_there_are_scores_and_no_orders(follow: Run, tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", verdict="no edge"))
    session = follow(bundle, cut(stream_of(60), [], END_NS), NAMES, mode="shadow")
    assert session.decisions.size > 50
    assert session.fills.size == 0
    assert set(session.decisions["outcome"]) == {Outcome.SHADOW}
    assert np.isfinite(session.decisions["score"]).all()


def test_nothing_is_ordered_before_the_stretch_that_is_to_be_traded(follow: Run, tmp_path: Path) -> None:
    bundle, from_ns = load_bundle(write(tmp_path / "bundle")), BEGIN_NS + 40 * NS_PER_S
    session = follow(bundle, cut(stream_of(60), [], END_NS), NAMES, trade_from_ns=from_ns)
    early = session.decisions["decision_ns"] < from_ns
    assert set(session.decisions["outcome"][early]) == {Outcome.NOT_YET}
    assert Outcome.ORDERED in session.decisions["outcome"][~early]


def test_a_cold_runner_decides_nothing_until_its_windows_are_full(follow: Run, tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle"))
    session = follow(bundle, cut(stream_of(60), [], END_NS), NAMES)
    warmup_ns = bundle.program.main.warmup_bars * NS_PER_S // 5
    assert session.decisions["decision_ns"].min() >= BEGIN_NS + warmup_ns


@pytest.mark.parametrize("candidate", [TAKER, MAKER], ids=["taker", "maker"])
def test_one_order_per_symbol_and_side_at_a_time(candidate: Any, follow: Run, tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", candidate))
    session = follow(bundle, cut(stream_of(90), [], END_NS + 30 * NS_PER_S), NAMES)
    fills = session.fills
    assert fills.size > 5
    assert (fills["fill_ns"] > 0).any()
    for number in range(len(NAMES)):
        for side in (1, -1):
            mine = fills[(fills["instrument"] == number) & (fills["side"] == side)]
            assert (mine["decision_ns"][1:] >= mine["end_ns"][:-1]).all()
    assert np.isfinite(fills["net_bps"]).all()


def test_a_witness_of_the_same_events_sees_the_same_bars(follow: Run, tmp_path: Path) -> None:
    bundle, stream = load_bundle(write(tmp_path / "bundle")), stream_of(60)
    session = follow(bundle, cut(stream, [], END_NS), NAMES)
    witness = Witness(bundle, NAMES)
    for step in cut(stream, [BEGIN_NS + 30 * NS_PER_S], END_NS):
        witness.take(step)
    seen = witness.bars({name: cold_start(bundle, name) for name in NAMES})
    capture = against_capture(session, seen)
    assert (capture.share_equal, capture.p99_rel_diff, capture.missing) == (1.0, 0.0, 0)
    seen[NAMES[0]][1][::10, 0] *= 1.001
    worse = against_capture(session, seen)
    assert worse.share_equal == pytest.approx(0.95, abs=0.01)
    assert worse.p99_rel_diff == pytest.approx(0.001, rel=0.01)


def test_connections_are_merged_on_watermarks_before_the_runner_sees_them(follow: Run, tmp_path: Path) -> None:
    bundle, stream = load_bundle(write(tmp_path / "bundle")), stream_of(30)
    merger, steps = Merger(2), []
    connections = [(name.split(":")[0], [one for one in stream if name.startswith(one.venue)]) for name in NAMES]
    ahead_ns = (0, 2 * NS_PER_S // 5)  # the second connection is read that far ahead of the first
    for now_ns in range(BEGIN_NS, END_NS, NS_PER_S // 10):
        for number, (venue, waiting) in enumerate(connections):
            until_ns = now_ns + ahead_ns[number]
            while waiting and received_ns(waiting[0].event) < until_ns:
                event = waiting.pop(0).event
                merger.push(number, venue, received_ns(event), [event])
            merger.push(number, venue, until_ns, [])
        steps.append(Step(merger.now_ns, merger.pop()))
    direct = follow(bundle, cut(stream, [], steps[-1].now_ns), NAMES)
    merged = follow(bundle, steps, NAMES)
    for number in range(len(NAMES)):
        left, right = (records_of(session, "bars", number)["values"] for session in (direct, merged))
        assert left.shape[0] > 100
        np.testing.assert_array_equal(left, right)


def test_slices_end_where_bars_may_close_and_lose_nothing() -> None:
    quote = market(1)[0]
    times = [10, 190, 200, 200, 399, 1_000]
    events = [Tagged("binance_um", msgspec.structs.replace(quote, recv_ns=ns)) for ns in times]
    cut_ = list(slices(Step(1_100, events), 200))
    assert [step.now_ns for step in cut_] == [200, 400, 1_100]
    assert [len(step.events) for step in cut_] == [2, 3, 1]
    per_receipt = list(slices(Step(1_100, events), 0))
    assert [step.now_ns for step in per_receipt] == [11, 191, 201, 400, 1_001, 1_100]
    assert [len(step.events) for step in per_receipt] == [1, 1, 2, 1, 1, 0]


def test_each_row_of_an_event_has_its_venues_time() -> None:
    seen: list[Event] = [
        BookUpdate("X", 5, 8, 1, [(99.0, 1.0), (98.0, 1.0)], [(101.0, 1.0)]),
        Gap("X", "book_deltas", 6, 9, "update 5 does not follow 3", False),
    ]
    assert exchange_times(seen) == [5, 5, 5, 9]
    assert as_events(seen, with_depth=True)["recv_ns"].tolist() == [8, 8, 8, 9]
