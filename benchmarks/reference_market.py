"""The made-up market on which features meet their references: a symbol, the leader beside it, and slow series.

20 minutes of bars of 200 ms with jumps, quiet bars, liquidations and twenty levels; ten days of slow series before.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Final, NamedTuple

import numpy as np

from core.units import NS_PER_MINUTE, NS_PER_S
from research.bars.bar_pass import ClosedBars
from research.bars.columns import MAX_LEVELS, bar_columns
from research.catalogue import CATALOGUE, DEFINITIONS, EVERY_COLUMN, JOINED_SETS, feature_rows
from research.programs.panel import Panel
from research.programs.panel_program import compile_panel
from research.programs.program import Floats
from research.programs.signal_columns import SignalColumns, SignalValues
from tests.research.made_up_bars import BAR, STEP_NS, trading

BARS: Final = 6000
ROWS: Final = (5199, 5586, BARS - 1)
"""The bars at which values are compared: all windows are full, the longest of 15 minutes."""
JOINED: Final = {name: each.text for made in JOINED_SETS.values() for name, each in made.items()}
_OWN, _LEADER = _SYMBOLS = ("binance_um:ETHUSDT", "binance_um:BTCUSDT")
FRIDAY: Final = "2026-01-09T07:42Z"
"""The begin of a market whose rows lie on both sides of 08:00: settlements, a session's end, new slow values."""
_DELAY_NS: Final = 31 * NS_PER_S
_MINUTES: Final = {
    **dict.fromkeys(("ls_ratio_global", "ls_ratio_top", "ls_position_ratio", "taker_ratio", "oi", "oi_total"), 5),
    **dict.fromkeys(("premium", "basis", "funding_rate_predicted"), 5),
    **dict.fromkeys(("liq_long_1h", "liq_short_1h"), 60),
    **dict.fromkeys(("funding_rate", "funding_velocity"), 480),
}
"""Of each slow series, between two values."""


class Market(NamedTuple):
    """Bars by symbol, slow series of the first one by name."""

    bars: dict[str, ClosedBars]
    series: dict[str, SignalValues]


def market(seed: int, begin: str = FRIDAY, is_funding_told: bool = True) -> Market:
    """Bars and series that are known everywhere, but for the time of the next funding where it is not told."""
    begin_ns = int(datetime.fromisoformat(begin).timestamp()) * NS_PER_S
    close_ns = begin_ns + STEP_NS * np.arange(1, BARS + 1)
    times = close_ns - STEP_NS, close_ns, close_ns // STEP_NS - 1
    bars = {name: ClosedBars(*times, trading(BARS, seed + 100 * k)) for k, name in enumerate(_SYMBOLS)}
    if not is_funding_told:
        bars[_OWN].values[:, bar_columns(MAX_LEVELS).index("funding_s")] = np.nan
    made = {name: _walk(minutes, int(close_ns[-1]), seed + k) for k, (name, minutes) in enumerate(_MINUTES.items())}
    return Market(bars, made)


def _walk(minutes: int, end_ns: int, seed: int) -> SignalValues:
    """Positive values up to the market's end, each known half a minute after its time."""
    step_ns = minutes * NS_PER_MINUTE
    count = max(10 * 1440 // minutes, 40)
    time_ns = (end_ns // step_ns - np.arange(count)[::-1]) * step_ns
    values = 0.5 * np.exp(0.01 * np.random.default_rng(seed).normal(size=count).cumsum())
    return SignalValues(time_ns + _DELAY_NS, time_ns, time_ns + 6 * step_ns, values)


def features_of(made: Market, texts: Mapping[str, str]) -> Floats:
    """Our values (rows, texts) at ROWS."""
    program = compile_panel(texts, EVERY_COLUMN, BAR, CATALOGUE | DEFINITIONS | JOINED)
    panel = Panel(program, _SYMBOLS, signals={_OWN: SignalColumns(program.signals, made.series)})
    joined, bars = panel.join(lambda name, _: made.bars[name]), made.bars[_OWN]
    return panel.evaluate(_OWN, panel.rows(_OWN, bars, joined), bars, np.array(ROWS))


def columns_to(made: Market, row: int) -> dict[str, Floats]:
    """What references take, up to the bar `row`, as `windows.bars` names it."""
    columns = {}
    for prefix, bars in zip(("", "leader|"), made.bars.values(), strict=True):
        columns[f"{prefix}bar_index"] = bars.bar_index[: row + 1]
        rows = feature_rows(bars.values, bars.close_ns)[: row + 1]
        columns |= {f"{prefix}{name}": x for name, x in zip(EVERY_COLUMN, rows.T, strict=True)}
    for name, each in made.series.items():
        known = each.usable_ns <= made.bars[_OWN].close_ns[row]
        columns |= {f"signals|{name}": each.value[known], f"signal_time_s|{name}": each.time_ns[known] / 1e9}
    return columns
