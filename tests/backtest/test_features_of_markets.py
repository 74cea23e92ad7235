"""The whole catalogue on markets that were not made up for it: recorded frames, and the simulated exchange."""

from itertools import takewhile
from pathlib import Path

import numpy as np
from rich.console import Console

from core import store
from core.cli import run_stages
from core.config import load
from core.schema import FEATURES
from core.units import NS_PER_MINUTE
from ingest import capture
from ingest.raw import RawReader
from ingest.venues import decoder_for
from research import build_bars, build_features
from research.bars.bar_pass import Bars, join_closed
from research.bars.clocks import parse_clock
from research.bars.columns import MAX_LEVELS
from research.bars.events import Events, as_events
from research.catalogue import ALL, CATALOGUE, SETS, compile_chosen, feature_rows

BAR = "time_200ms"
FORCED = {
    *SETS["liquidation"],
    *SETS["cascade"],
    *SETS["derivatives"],
    *SETS["carry"],
    *SETS["time"],
    *SETS["calendar"],
}


def recorded(path: Path, minutes: int) -> Events:
    """The first events of one recorded connection, its depth included."""
    until_ns = next(iter(RawReader(path))).recv_ns + minutes * NS_PER_MINUTE
    lines = list(takewhile(lambda line: line.recv_ns < until_ns, RawReader(path)))
    _, decoder = decoder_for(next(line.url for line in lines if line.url.startswith("ws")))
    decoded = []
    for line in lines:
        if line.url.startswith("ws"):
            decoded += decoder.decode(line.frame, line.recv_ns)
        else:
            decoded += decoder.decode_rest(line.url, line.frame, line.recv_ns)
    return as_events(decoded, with_depth=True)


def test_all_features_of_a_recorded_market_are_finite(market_data: Path) -> None:
    """An hour of an illiquid spot pair, 19 bars of 20 empty. None but the features of derivatives stand still."""
    events = recorded(market_data / "raw/binance_spot_nexousdt_20240723/spot_nexousdt.jsonl.zst", minutes=60)
    bars = Bars(parse_clock(BAR), MAX_LEVELS, holds_back=True)
    closed = join_closed([bars.push(events), bars.advance(int(events["recv_ns"][-1]) + 1)])
    program = compile_chosen((ALL,), {}, BAR)
    y = program.evaluate(feature_rows(closed.values, closed.close_ns), closed.bar_index)[program.warmup_bars :]
    assert len(y) > 12_000
    assert np.isfinite(y).mean() == 1.0
    still = {name for name, low, high in zip(CATALOGUE, y.min(axis=0), y.max(axis=0), strict=True) if low == high}
    assert still <= FORCED


def test_all_features_of_the_simulated_exchange_are_finite(tmp_path: Path) -> None:
    pairs = ["sim.hours=0.34", "sim.transport=direct", "symbols=bybit:BTCUSDT", f'features.sets=["{ALL}"]']
    cfg = load(pairs=pairs, options={"source": "sim", "data_dir": str(tmp_path)})
    stages = {"capture": capture.run, "bars": build_bars.run, "features": build_features.run}
    record = run_stages(cfg, stages, Console(quiet=True))
    row = record.sections["features"]["rows"][0]
    assert (row["kept"] > 200, row["unknown"], row["blame"]) == (True, 0, {})
    (day,) = store.partitions(cfg.root, FEATURES, bars=BAR)
    assert store.read(cfg.root, day).width == 1 + len(CATALOGUE)
