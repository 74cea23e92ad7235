"""The runner with slow series: what a poll stores while it runs, it uses as the batch over the same table does."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest

from core.config import Config, Signals
from core.errors import StageError
from core.units import NS_PER_DAY, NS_PER_S
from ingest.signals import merge_signals, signal_rows
from live import journal
from live.journal import Journal, Recording
from live.manifest import Bundle, load_bundle, read_manifest, write_bundle
from live.parity import compare
from live.runner import Runner, header, started_panel
from live.session import by_instrument, keep_learning, slices
from live.start import cold_start
from research.bars.bar_pass import ClosedBars
from research.bars.clocks import parse_clock
from research.signal_table import SignalTable, signal_table
from tests.ingest.test_poll_engine import ONLY_INTEREST, World
from tests.live.synthetic import BEGIN_NS, NAMES, market, write
from tests.live.test_runner import cut, merged_market

BTC, ETH = NAMES
SECONDS, SLOT_S = 200, 120  # the market runs over a slot of the poll, 20 s after five minutes
SLOW = (
    ("level", "(signal_oi (zscore_12 value))"),
    ("step", "(at_1s (mean_3 (signal_oi (delta_2 value))))"),
    ("age", "(div (sub (add (mul 86400 day) second_of_day) (signal_oi time_s)) 600)"),
    ("return_bps", "(mul 1e4 (div (delta_5 close_price) (lag_5 close_price)))"),
)
Act = Callable[[int, Runner], None]
"""What happens beside the session, by the second of the market."""


def table_of(root: Path, bundle: Bundle) -> SignalTable:
    return signal_table(Config(data_dir=str(root)), bundle.program, bundle.manifest.signals_read)


def runner_of(folder: Path, bundle: Bundle) -> tuple[Runner, Journal]:
    starts = {name: cold_start(bundle, name) for name in NAMES}
    log = Journal.create(folder, header(bundle, "shadow", starts), starts)
    return Runner(bundle, starts, log, None, lambda: 0), log


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write(tmp_path / "bundle", features=SLOW))


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "data", only=ONLY_INTEREST, history_days=1.0)
    world.now_ns = BEGIN_NS - 10 * NS_PER_S
    world.poll()
    return world


def session(folder: Path, bundle: Bundle, act: Act) -> tuple[Recording, Runner]:
    """A session over a made-up market, in steps of a second."""
    runner, log = runner_of(folder, bundle)
    stream = merged_market({BTC: market(SECONDS, 1), ETH: market(SECONDS, 2, 3_000.0, "ETHUSDT")})
    ticks = [BEGIN_NS + k * NS_PER_S for k in range(SECONDS + 1)]
    for second, step in enumerate(cut(stream, ticks, ticks[-1])):
        act(second, runner)
        for part in slices(step, runner.bar_ns, runner.now_ns):
            runner.feed(by_instrument(part.events, runner.instruments), part.now_ns, 0)
    log.close()
    return journal.read(folder), runner


def over_the_table(recorded: Recording, bundle: Bundle, table: SignalTable) -> np.ndarray:
    """The model's features at all bars of BTC in a session, from the whole table as it is in the end."""
    signals = {name: table.columns(name, bundle.program) for name in NAMES}
    panel = started_panel(bundle, {name: cold_start(bundle, name) for name in NAMES}, signals=signals)
    bars = [recorded.bars[recorded.bars["instrument"] == number] for number in range(len(NAMES))]
    made = dict(zip(NAMES, bars, strict=True))

    def bars_of(name: str, clock: str) -> ClosedBars:
        step_ns = parse_clock(clock).step_ns  # no feature reads what stands in the bars of a second
        mine = made[name][made[name]["close_ns"] % step_ns == 0]
        return ClosedBars(mine["open_ns"], mine["close_ns"], mine["close_ns"] // step_ns - 1, mine["values"])

    return panel.run(bars_of)[BTC]


def test_what_a_poll_stores_meanwhile_is_used_with_the_bits_of_the_batch(
    tmp_path: Path, bundle: Bundle, world: World
) -> None:
    table, polled = table_of(world.root, bundle), world.stored("oi_btc").height

    def act(second: int, runner: Runner) -> None:
        world.now_ns = BEGIN_NS + second * NS_PER_S
        if second == SLOT_S + 1:
            world.poll()
        if second % 10 == 0:
            runner.learn({name: table.versions(name) for name in NAMES})

    recorded, runner = session(tmp_path / "session", bundle, act)
    assert world.stored("oi_btc").height > polled
    assert runner.slow_series.late == 0
    parity = compare(recorded, bundle)
    assert parity.holds
    assert parity.decisions_compared > SECONDS - 30
    mine = recorded.features[recorded.features["instrument"] == 0]
    batch = over_the_table(recorded, bundle, table_of(world.root, bundle))
    closes = recorded.bars[recorded.bars["instrument"] == 0]["close_ns"]
    np.testing.assert_array_equal(mine["values"], batch[np.isin(closes, mine["decision_ns"])])
    seconds = (mine["decision_ns"] - BEGIN_NS) // NS_PER_S
    changed = seconds[1:][np.diff(mine["values"][:, 0]) != 0]
    assert changed.tolist() == [-10 + 30, SLOT_S + 1 + 30], "known when polled, and delay_s later it may be used"


def test_a_value_that_comes_too_late_counts_from_then_on_and_is_told(
    tmp_path: Path, bundle: Bundle, world: World
) -> None:
    table = table_of(world.root, bundle)

    def act(second: int, runner: Runner) -> None:
        world.now_ns = BEGIN_NS + second * NS_PER_S
        if second == SLOT_S + 1:
            world.poll()
        if second in (0, SLOT_S + 45):
            runner.learn({name: table.versions(name) for name in NAMES})

    recorded, runner = session(tmp_path / "session", bundle, act)
    assert runner.slow_series.late > 0
    assert compare(recorded, bundle).holds
    mine = recorded.features[recorded.features["instrument"] == 0]
    seconds = (mine["decision_ns"] - BEGIN_NS) // NS_PER_S
    assert seconds[1:][np.diff(mine["values"][:, 0]) != 0].tolist() == [-10 + 30, SLOT_S + 45]


def test_what_time_has_overtaken_while_it_was_computed_is_not_taken(tmp_path: Path, bundle: Bundle) -> None:
    put(tmp_path / "data", BEGIN_NS, 1.0)
    runner, log = runner_of(tmp_path / "session", bundle)
    runner.now_ns = BEGIN_NS + NS_PER_DAY
    versions = {BTC: table_of(tmp_path / "data", bundle).versions(BTC)}
    news = runner.slow_news(versions, runner.now_ns + 5)
    runner.now_ns += 5
    assert not runner.take_news(news)
    assert runner.slow_series.late == 0
    assert runner.take_news(runner.slow_news(versions, runner.now_ns + 5))
    assert runner.slow_series.late == 1
    assert not runner.slow_news(versions, runner.now_ns + 5), "what was taken is not news"
    log.close()


def put(root: Path, time_ns: int, value: float) -> None:
    merge_signals(root, *BTC.split(":"), signal_rows([("oi_btc", time_ns, value, "5m", time_ns + NS_PER_S)]))


def test_the_table_is_read_again_when_it_changes_and_what_cannot_be_read_is_told_once(
    tmp_path: Path, bundle: Bundle
) -> None:
    root, told = tmp_path / "data", list[str]()
    runner, log = runner_of(tmp_path / "session", bundle)
    put(root, BEGIN_NS, 1.0)

    async def until(is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not is_so():
                await asyncio.sleep(0.01)

    def known() -> list[float]:
        log.flush()
        return journal.read(log.folder).signals["value"].tolist()

    async def work() -> None:
        task = asyncio.create_task(keep_learning(table_of(root, bundle), runner, 0.01, told.append))
        await until(lambda: known() == [1.0])
        put(root, BEGIN_NS + NS_PER_S, 2.0)
        await until(lambda: known() == [1.0, 2.0])
        [path] = (root / "signals").glob("*/*/*/data.parquet")
        whole = path.read_bytes()
        path.write_bytes(b"no Parquet")
        await until(lambda: bool(told))
        path.write_bytes(whole)
        put(root, BEGIN_NS + NS_PER_DAY, 3.0)
        await until(lambda: known() == [1.0, 2.0, 3.0])
        task.cancel()

    asyncio.run(work())
    log.close()
    assert len(told) == 1
    assert told[0].startswith("cannot read signals: ")


def test_only_instruments_whose_files_changed_are_read_and_none_for_a_model_without_signals(
    tmp_path: Path, bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, reads, read = tmp_path / "data", list[str](), SignalTable.versions
    runner, log = runner_of(tmp_path / "session", bundle)
    monkeypatch.setattr(SignalTable, "versions", lambda table, name: reads.append(name) or read(table, name))

    async def work() -> None:
        without = SignalTable(root, [], Signals(), {})
        async with asyncio.timeout(20):
            await keep_learning(without, runner, 0.01)
            task = asyncio.create_task(keep_learning(table_of(root, bundle), runner, 0.01))
            while set(reads) != {BTC, ETH}:
                await asyncio.sleep(0.01)
            put(root, BEGIN_NS, 1.0)
            while len(reads) < 3:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            task.cancel()

    asyncio.run(work())
    log.close()
    assert reads == [BTC, ETH, BTC]


def test_a_manifest_names_the_signals_and_keeps_how_they_are_read(tmp_path: Path, bundle: Bundle) -> None:
    assert bundle.manifest.signals == ("oi",)
    manifest = msgspec.structs.replace(bundle.manifest, signals=(), signals_read=Signals(delay_s=5.0))
    folder = tmp_path / "bundle"
    write_bundle(folder, manifest, (folder / "model.onnx").read_bytes())
    with pytest.raises(StageError, match=r"its features read the signals \('oi',\), it names \(\)"):
        load_bundle(folder)
    assert read_manifest(folder).signals_read.delay_s == 5.0


def test_no_frame_of_versions_is_changed_by_what_is_learned(tmp_path: Path, bundle: Bundle) -> None:
    put(tmp_path / "data", BEGIN_NS, 1.0)
    runner, log = runner_of(tmp_path / "session", bundle)
    found = table_of(tmp_path / "data", bundle).versions(BTC)
    before = {name: frame.clone() for name, frame in found.items()}
    runner.now_ns = BEGIN_NS + NS_PER_DAY
    runner.learn({BTC: found})
    runner.learn({BTC: found})
    log.close()
    assert all(found[name].equals(frame) for name, frame in before.items())
    assert isinstance(found["oi"], pl.DataFrame)
    recorded = journal.read(tmp_path / "session").signals
    assert recorded["usable_ns"].tolist() == [BEGIN_NS + NS_PER_DAY + 1]
