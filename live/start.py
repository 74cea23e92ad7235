"""What a session of the runner begins from: which instruments, and the state of each.

The simulated market goes on where capture ended, so the runner does too: bars from the state that the bars stage saved,
features from as many of the last bars as the windows take to fill, which gives the bits of a run without a break, or
from the state that the features stage saved where an operator remembers everything. Elsewhere nothing connects to what
was captured: it begins cold and decides nothing until all windows are full.
"""

from pathlib import Path

import polars as pl

from core import schema, store
from core.config import DEFAULT_SYMBOLS, Config
from core.errors import StageError
from core.store import Partition
from live.journal import State
from live.manifest import Bundle
from live.runner import join_state
from research.bar_columns import BAR_COLUMNS
from research.bars import Bars
from research.catalogue import feature_rows
from research.clocks import parse_clock
from research.day_state import load_state
from research.program import Stream


def start_states(cfg: Config, bundle: Bundle) -> dict[str, State]:
    """The state of each instrument (`venue:SYMBOL`) to follow, in the order of their names."""
    days = last_days(cfg, bundle)
    names = sorted(cfg.symbols or days or DEFAULT_SYMBOLS)
    is_contiguous = cfg.source == "sim"
    return {
        name: _warm_start(cfg.root, bundle, days[name]) if is_contiguous and name in days else cold_start(bundle)
        for name in names
        if name.partition(":")[0] not in schema.INVERSE
    }


def last_days(cfg: Config, bundle: Bundle) -> dict[str, Partition]:
    """The last day of bars of each captured instrument."""
    parts = store.partitions(cfg.root, schema.BARS, cfg.symbols or (), bundle.manifest.bars)
    return {part.instrument: part for part in sorted(parts, key=lambda part: part.date)}


def cold_start(bundle: Bundle) -> State:
    """The state of an instrument that nothing is known of."""
    return join_state(Bars(parse_clock(bundle.manifest.bars)).save(), bundle.program.start(tile=1).save())


def _warm_start(root: Path, bundle: Bundle, day: Partition) -> State:
    """The state after a captured day; cold where the bars stage left none."""
    state = load_state(root, day)
    if state is None:
        return cold_start(bundle)
    bars = Bars(parse_clock(bundle.manifest.bars))
    bars.restore(state)
    return join_state(bars.save(), _features(root, bundle, day).save())


def _features(root: Path, bundle: Bundle, day: Partition) -> Stream:
    """The bundle's features after a captured day. Raises StageError where the features stage left no state of them."""
    stream = bundle.program.start()
    if bundle.program.is_infinite:
        saved = load_state(root, day.of(schema.FEATURES, day.bars))
        try:
            stream.restore(saved or {})
        except (KeyError, ValueError) as error:
            raise StageError(
                f"{day.instrument} {day.date}: no state of the model's features ({error}): run `features`"
            ) from error
        return stream
    rows = _last_bars(root, day, bundle.program.warmup_bars + 1)
    values = rows.select(BAR_COLUMNS).to_numpy()
    stream.run(feature_rows(values, rows["close_ns"].to_numpy()), rows["bar_index"].to_numpy())
    return stream


def _last_bars(root: Path, day: Partition, count: int) -> pl.DataFrame:
    """The last `count` bars up to the end of a day, over as many days as that takes."""
    days = [part for part in store.partitions(root, schema.BARS, [day.instrument], day.bars) if part.date <= day.date]
    found = store.read(root, day)
    for earlier in reversed(days[:-1]):
        if found.height >= count:
            break
        found = pl.concat([store.read(root, earlier), found])
    return found.tail(count)
