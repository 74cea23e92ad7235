"""The live stage: what it refuses, what it skips, what it reports."""

import io
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import store
from core.config import Config, Features, Live
from core.errors import StageError
from core.origin import Origin, write_origin
from core.run_record import RunRecord
from core.schema import BARS as BARS_TABLE
from core.store import Partition
from live import run_live
from live.journal import Journal, read
from live.manifest import load_bundle
from live.run_live import latency_line, mode_of, model_folder, percentiles_us, run, trading_figures, trading_line
from live.runner import Outcome, fresh_bars, header, join_state
from live.start import cold_start, last_days, start_lines, start_states
from research.bars.bar_pass import Bars
from research.bars.clocks import parse_clock
from research.bars.columns import BAR_COLUMNS
from research.catalogue import choose
from research.day_state import save_state
from tests.live.synthetic import BARS, BEGIN_NS, FEATURES, JOINED, NAMES, write


def ran(cfg: Config) -> tuple[RunRecord, str]:
    out = io.StringIO()
    record = RunRecord(cfg, Console(file=out, width=200))
    with record.stage("live") as stage:
        run(cfg, stage)
    return record, out.getvalue()


@pytest.mark.parametrize("source", ["live", "archive"])
def test_the_venue_is_left_alone_unless_asked_for(source: Literal["live", "archive"], tmp_path: Path) -> None:
    record, said = ran(Config(source=source, data_dir=str(tmp_path)))
    assert "skipped" in said
    assert record.report()["live"] is None
    assert not list(tmp_path.iterdir())


def test_without_an_export_the_stage_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"exported.txt does not exist: run `python run_pipeline\.py export`"):
        ran(Config(data_dir=str(tmp_path)))


def test_bars_that_the_model_cannot_read_are_named_with_what_it_reads(tmp_path: Path) -> None:
    deep = (*FEATURES[:3], ("depth", "(sub bid_qty_5 ask_qty_5)"))
    bundle, part = load_bundle(write(tmp_path / "bundle", features=deep)), captured_bars(tmp_path, "2026-01-05", BARS)
    save_state(tmp_path, part, Bars(parse_clock(BARS)).save(), "")
    with pytest.raises(StageError, match=r"has 0 book levels.* forest reads time_200ms with 5 levels .*run `bars`"):
        start_states(Config(data_dir=str(tmp_path), symbols=NAMES[:1]), bundle)


@pytest.mark.parametrize(
    ("last", "why"),
    [
        (
            "(sub mid (at_1s (mean_15 mid)))",
            r"another text of a3: restore .*train and export again\n.*mean_14.*mean_15",
        ),
        (None, "forest was trained on a3 too, which is not in your features: restore it"),
        ("(sub mid (at_1s (mean_14 mid)))", "no state of the model's features .*: run `features`"),
    ],
)
def test_a_model_of_features_that_were_edited_is_told_from_one_whose_state_is_to_be_made(
    last: str | None, why: str, tmp_path: Path
) -> None:
    mine = {f"a{k}": f"(sub mid (at_1s (mean_1{k + 1} mid)))" for k in range(4)}
    texts = choose((), mine, BARS)
    bundle = load_bundle(write(tmp_path / "bundle", features=tuple(texts.items())))
    part = captured_bars(tmp_path, "2026-01-05", BARS)
    for clock in bundle.program.clocks:
        save_state(tmp_path, part.of(BARS_TABLE, clock), Bars(parse_clock(clock)).save(), "")
    edited = {name: text for name, text in (mine | {"a3": last}).items() if text}
    cfg = Config(data_dir=str(tmp_path), symbols=NAMES[:1], features=Features(sets=(), mine=edited))
    with pytest.raises(StageError, match=f"(?s){why}"):
        start_states(cfg, bundle)


def test_an_instrument_begins_from_its_last_day_of_bars_on_any_clock(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", features=JOINED))
    for date, clock in (("2026-01-05", BARS), ("2026-01-06", "volume_0.5"), ("2026-01-07", "volume_9")):
        captured_bars(tmp_path, date, clock)
    (day,) = last_days(Config(data_dir=str(tmp_path)), bundle).values()
    assert (day.date, day.bars) == ("2026-01-06", BARS)


def captured_bars(root: Path, date: str, clock: str) -> Partition:
    """A day of one bar."""
    part = Partition("bars", *NAMES[0].split(":"), date, clock)
    times = {name: [part.starts_ns + 1] for name in ("open_ns", "close_ns", "bar_index")}
    store.write(root, part, pl.DataFrame(times | {name: [0.0] for name in BAR_COLUMNS}))
    return part


def test_the_model_is_the_last_exported_the_one_in_use_or_the_one_named(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "exported.txt").write_text("challenger\n")
    (folder / "current.txt").write_text("champion\n")
    for asked, expected in (("", "challenger"), ("current", "champion"), ("other", "other")):
        assert model_folder(Config(data_dir=str(tmp_path), live=Live(model=asked))) == folder / expected


def test_a_model_without_an_edge_runs_in_shadow_whatever_is_asked(tmp_path: Path) -> None:
    edge, none = load_bundle(write(tmp_path / "a")), load_bundle(write(tmp_path / "b", verdict="no edge"))
    assert mode_of(Config(), edge) == "paper"
    assert mode_of(Config(live=Live(mode="shadow")), edge) == "shadow"
    assert mode_of(Config(), none) == "shadow"


def test_a_model_of_a_simulated_market_runs_in_shadow_on_a_real_one(tmp_path: Path) -> None:
    made_up, real = (load_bundle(write(tmp_path / name, simulated=name == "a")) for name in "ab")
    venue = Config(source="live", data_dir=str(tmp_path))
    assert (mode_of(venue, made_up), mode_of(venue, real)) == ("shadow", "paper")
    replay = Config(source="replay", data_dir=str(tmp_path))
    assert mode_of(replay, made_up) == "shadow"
    write_origin(replay, Origin("replay", simulated=True))
    assert mode_of(replay, made_up) == "paper"
    write_origin(venue, Origin("live"))
    assert mode_of(venue, made_up) == "shadow"


def test_the_line_says_why_a_model_is_in_shadow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "models" / "forest")

    def stop(*_: object) -> None:
        raise StageError("far enough")

    monkeypatch.setattr(run_live, "start_states", stop)
    out = io.StringIO()
    cfg = Config(source="live", data_dir=str(tmp_path), live=Live(model="forest", allow_live_feed=True))
    with (
        pytest.raises(StageError, match="far enough"),
        RunRecord(cfg, Console(file=out, width=200)).stage("live") as stage,
    ):
        run(cfg, stage)
    assert "forest learned from a simulated market: on a real one it runs in shadow" in out.getvalue()


def test_without_a_model_in_use_the_stage_says_how_to_run_the_last_one(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "exported.txt").write_text("challenger\n")
    with pytest.raises(StageError, match=r"no export had the verdict edge yet; leave live\.model out"):
        model_folder(Config(data_dir=str(tmp_path), live=Live(model="current")))


def test_what_was_not_captured_begins_cold(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle"))
    starts = start_states(Config(data_dir=str(tmp_path), symbols=(*NAMES, "binance_cm:BTCUSD_PERP")), bundle)
    assert list(starts) == sorted(NAMES)
    for name, state in starts.items():
        cold = cold_start(bundle, name)
        assert all(np.array_equal(state[key], cold[key], equal_nan=cold[key].dtype.kind == "f") for key in cold)


REMEMBERING = (*FEATURES[:3], ("trend", "(sub close_price (at_1s (ewm_mean_2 close_price)))"))


@pytest.mark.parametrize(("duration_s", "never"), [(60.0, False), (2.0, True)])
def test_a_cold_start_says_for_how_long_nothing_is_decided_and_what_has_no_past(
    duration_s: float, never: bool, tmp_path: Path
) -> None:
    bundle = load_bundle(write(tmp_path / "bundle", features=REMEMBERING))
    starts = {name: cold_start(bundle, name) for name in NAMES}
    bars = bundle.program.warmup_bars
    assert bars == bundle.program.warmups["trend"]
    live = Config(source="live", data_dir=str(tmp_path), live=Live(duration_s=duration_s))
    (line,) = start_lines(live, bundle, starts)
    assert line.startswith("binance_um:BTCUSDT, bybit:ETHUSDT: a cold start, as nothing connects the venue's streams")
    assert f"no decision for {bars} bars of time_200ms ({bars / 5:g} s), until the windows of trend are full" in line
    assert line.endswith("1 feature without the past that never leaves them: trend")
    assert ("nothing will be decided" in line) == never


@pytest.mark.parametrize(("stored", "gap_at", "left"), [(30, None, 0), (12, None, 7), (30, 25, 15), (15, 14, 19)])
def test_a_start_from_few_bars_or_a_late_gap_says_what_is_left_to_fill(
    stored: int, gap_at: int | None, left: int, tmp_path: Path
) -> None:
    """The windows of FEATURES fill in 19 bars, of as many as were stored since the gap."""
    bundle = load_bundle(write(tmp_path / "bundle"))
    part = Partition("bars", *NAMES[0].split(":"), "2026-01-05", BARS)
    closes = part.starts_ns + np.arange(1, stored + 1)
    columns = {name: np.zeros(stored) for name in BAR_COLUMNS}
    columns["has_gap"] = (np.arange(stored) == gap_at).astype(np.float64)
    times = {"open_ns": closes - 1, "close_ns": closes, "bar_index": np.arange(stored)}
    store.write(tmp_path, part, pl.DataFrame(times | columns))
    bars = fresh_bars(bundle, NAMES[0])
    bars.advance(int(closes[-1]))
    lines = start_lines(Config(data_dir=str(tmp_path)), bundle, {NAMES[0]: join_state(bars, {})})
    assert [f"windows are not full yet: no decision for {left} bars" in line for line in lines] == [True] * bool(left)


def test_figures_count_an_unfilled_order_as_nothing(tmp_path: Path) -> None:
    bundle = load_bundle(write(tmp_path / "bundle"))
    starts = {NAMES[0]: cold_start(bundle, NAMES[0])}
    log = Journal.create(tmp_path / "session", header(bundle, "paper", starts), starts)
    for k, outcome in enumerate([Outcome.ORDERED, Outcome.ORDERED, Outcome.ORDERED, Outcome.LIMITED, Outcome.NO_SIDE]):
        log.decision(0, BEGIN_NS + k, 0 if outcome is Outcome.NO_SIDE else 1, outcome, 5_000, 1.0)
    log.fill(0, BEGIN_NS, 1, BEGIN_NS + 1, BEGIN_NS + 2, 100.0, 4.0, -3.0)
    log.fill(0, BEGIN_NS + 1, 1, 0, BEGIN_NS + 2, 100.0, 0.0, 0.0)
    log.close()
    figures = trading_figures(read(tmp_path / "session"), order_usd=1_000.0)
    assert figures == {
        "decisions": 5,
        "sides": 4,
        "orders": 3,
        "limited": 1,
        "fills": 1,
        "unsettled": 1,
        "fill_rate": 0.5,
        "gross_bps": 4.0,
        "net_bps": -3.0,
        "net_bps_per_order": -1.5,
        "net_usd": pytest.approx(-0.3),
    }


def test_the_trading_line_has_its_denominators() -> None:
    figures = {"sides": 4, "limited": 1, "orders": 3, "fills": 1, "unsettled": 1, "gross_bps": 4.0, "net_bps": -3.0}
    line = trading_line(figures | {"net_bps_per_order": -1.5, "net_usd": -0.3})
    assert line.startswith("sides=4 | limited=1 | orders=3 | fills=1 | avg_gross_bps=4.00 | avg_net_bps=-3.00 | n=1")
    assert "net_bps_per_order=-1.50 | n=2 orders ended" in line
    assert trading_line(figures | {"net_bps": None}) == "sides=4 | limited=1 | orders=3 | fills=1"


def test_latencies_are_null_without_a_decision() -> None:
    assert percentiles_us([]) == {"p50": None, "p99": None}
    assert percentiles_us([1_000, 2_000, 3_000]) == {"p50": 2.0, "p99": 3.0}
    assert latency_line([]) == "latency: no decision was made"
    assert "p50 2.0 us" in latency_line([1_000, 2_000, 3_000])
    assert latency_line([1_000]).endswith("(network and decoding excluded), n=1")
