"""When a bar that is not measured in time is full. One rule per kind of clock, asked after each trade or best price.

volume, dollar, tick          so much base quantity, quote notional, or so many trades
renko                         the mid is a whole brick of so many bps beyond the last brick; a turn thus takes two
range                         the mid's high is so many bps above its low, of the bar's open
tick_imbalance, volume_…      |signed flow| reaches what a bar is expected to gather: E[T] |E[b v]| (Lopez de Prado,
                              "Advances in Financial Machine Learning", 2018, section 2.3.2.1-2), b the taker's side
tick_run, volume_run, …       the larger of bought and sold flow reaches E[T] max(E[b=1 flow], E[b=-1 flow]) (2.3.2.3-4)

E[T], the trades in a bar, and the mean flows per trade are exponentially weighted over the bars before (half-life 10).
Two departures from the book, where these bars are known to shrink to one trade or to grow without end: E[T] stays
within a quarter and four times its first value, and an imbalance must also be more than chance gathers in that many
trades, sqrt(E[T]) E|v|. The first bar has as many trades as the clock's size says.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from research.bars.part import part

TIME, VOLUME, DOLLAR, TICK, RENKO, RANGE = range(6)
TICK_IMBALANCE, VOLUME_IMBALANCE, DOLLAR_IMBALANCE, TICK_RUN, VOLUME_RUN, DOLLAR_RUN = range(6, 12)
KINDS: Final = {
    "time": TIME, "volume": VOLUME, "dollar": DOLLAR, "tick": TICK, "renko": RENKO, "range": RANGE,
    "tick_imbalance": TICK_IMBALANCE, "volume_imbalance": VOLUME_IMBALANCE, "dollar_imbalance": DOLLAR_IMBALANCE,
    "tick_run": TICK_RUN, "volume_run": VOLUME_RUN, "dollar_run": DOLLAR_RUN,
}  # fmt: skip

MEMORY_SIZE: Final = 6
SIZE, _TRADES, _BOUGHT, _SOLD, _BRICK_LOW, _BRICK_HIGH = range(MEMORY_SIZE)
_NEARLY: Final = 1.0 - 1e-9  # ten trades of 0.1 sum to a rounding error less than 1.0
_EARLY: Final = 1.0 - 1e-6
_KEEP: Final = 0.5**0.1
_WIDEST: Final = 4.0
_BPS: Final = 1e-4

Floats = NDArray[np.float64]


@part
def is_filled_by_trades(kind: int) -> bool:
    """Whether trades fill a bar of this kind; the others are filled by best prices."""
    return kind != RENKO and kind != RANGE


@part
def flow_of(kind: int) -> int:
    """What a kind that trades fill counts of them: 0 quantity, 1 notional, 2 their number."""
    return kind - VOLUME if kind <= TICK else (kind - TICK_IMBALANCE + 2) % 3


@part
def is_full_of_trades(kind: int, bought: float, sold: float, trades: float, memory: Floats, clock: int) -> bool:
    """Whether the open bar of a clock is full of what takers `bought` and `sold` in it (`flow_of`) in so many trades.

    `memory` (clocks, 6) is the size of a clock's bars and what outlives a bar; it changes when this says yes.
    """
    if kind <= TICK:
        return bool(bought + sold >= memory[clock, SIZE] * _NEARLY)
    return bool(_gathers(kind <= DOLLAR_IMBALANCE, bought, sold, trades, memory, clock))


@part
def flow_until_full(
    kind: int, bought: float, sold: float, trades: float, memory: Floats, clock: int
) -> tuple[int, float]:
    """How much must come at the least before trades can fill the bar: (of what, as `flow_of` has it; how much).

    It may be too little, by rounding and more, never too much: no flow brings an imbalance or a run nearer by more
    than itself.
    """
    size, expected = memory[clock, SIZE], memory[clock, _TRADES]
    if kind <= TICK:
        return flow_of(kind), size * _EARLY - (bought + sold)
    if expected == 0.0:
        return flow_of(TICK), size - trades
    buys, sells = memory[clock, _BOUGHT], memory[clock, _SOLD]
    if kind <= DOLLAR_IMBALANCE:
        return flow_of(kind), _imbalance_due(expected, buys, sells) * _EARLY - abs(bought - sold)
    return flow_of(kind), expected * max(buys, sells) * _EARLY - max(bought, sold)


@part
def quiet_mids(kind: int, high: float, low: float, memory: Floats, clock: int) -> tuple[float, float]:
    """Mids strictly between these neither fill a bar of a kind that best prices fill nor change what it remembers."""
    if kind == RANGE:
        return low, high
    return memory[clock, _BRICK_LOW], memory[clock, _BRICK_HIGH]


@part
def is_full_of_mids(kind: int, first: float, high: float, low: float, last: float, memory: Floats, clock: int) -> bool:
    """The same of bars that best prices fill, from the mids in the bar, which are 0 while there is no book."""
    size = memory[clock, SIZE] * _BPS
    if kind == RANGE:
        return bool(first > 0.0 and high - low >= size * first * _NEARLY)
    return bool(_leaves_brick(size, last, memory, clock))


@part
def _leaves_brick(step: float, mid: float, memory: Floats, clock: int) -> bool:
    """Bricks are equal in logarithms; a jump over several is one bar, and the last brick is where it ended."""
    if mid <= 0.0:
        return False
    low, high = memory[clock, _BRICK_LOW], memory[clock, _BRICK_HIGH]
    if low == 0.0:
        memory[clock, _BRICK_LOW] = memory[clock, _BRICK_HIGH] = mid
        return False
    if low < mid < high:
        return False
    up = math.floor(math.log(mid / high) / math.log1p(step) + 1e-9)
    down = math.floor(math.log(low / mid) / math.log1p(step) + 1e-9)
    if up >= 1.0:
        memory[clock, _BRICK_HIGH] = high * (1.0 + step) ** up
        memory[clock, _BRICK_LOW] = memory[clock, _BRICK_HIGH] / (1.0 + step)
    elif down >= 1.0:
        memory[clock, _BRICK_LOW] = low / (1.0 + step) ** down
        memory[clock, _BRICK_HIGH] = memory[clock, _BRICK_LOW] * (1.0 + step)
    return up >= 1.0 or down >= 1.0


@part
def _gathers(signed: bool, bought: float, sold: float, trades: float, memory: Floats, clock: int) -> bool:
    """Whether imbalance or run reaches what is expected of a bar; if so the expectations learn from this bar."""
    if trades == 0.0:
        return False
    size, expected = memory[clock, SIZE], memory[clock, _TRADES]
    buys, sells = memory[clock, _BOUGHT], memory[clock, _SOLD]
    if expected == 0.0:
        if trades < size:
            return False
        memory[clock, _TRADES], memory[clock, _BOUGHT], memory[clock, _SOLD] = trades, bought / trades, sold / trades
        return True
    if signed:
        is_due = abs(bought - sold) >= _imbalance_due(expected, buys, sells) * _NEARLY
    else:
        is_due = max(bought, sold) >= expected * max(buys, sells) * _NEARLY
    if is_due:
        learnt = _KEEP * expected + (1.0 - _KEEP) * trades
        memory[clock, _TRADES] = min(max(learnt, size / _WIDEST), size * _WIDEST)
        memory[clock, _BOUGHT] = _KEEP * buys + (1.0 - _KEEP) * bought / trades
        memory[clock, _SOLD] = _KEEP * sells + (1.0 - _KEEP) * sold / trades
    return bool(is_due)


@part
def _imbalance_due(trades: float, buys: float, sells: float) -> float:
    """What is expected of a bar, or else what chance gathers in it."""
    return max(trades * abs(buys - sells), math.sqrt(trades) * (buys + sells))
