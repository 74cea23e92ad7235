"""What the references share: how they are written down, and windows over plain arrays of 200 ms bars.

These modules know nothing of the project's code: they need numpy and scipy, and some the library that they quote. They
run in its tests and, where a library wants other versions than ours, in an environment of their own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bars = SimpleNamespace
"""The columns of some bars by name, each (n,)."""
PER_S = 5  # bars of 200 ms


@dataclass(frozen=True)
class Reference:
    """Another way to a feature's value at the last bar: `value` of a namespace of the bars' columns.

    `library` is what it calls beside numpy and scipy. `text` is the expression that it stands for, where that is not
    the feature itself.
    """

    source: str
    value: Callable[[Bars], float]
    library: str = ""
    text: str = ""
    rtol: float = 1e-9


def bars(columns: dict[str, Any]) -> Bars:
    """The columns by name, with the names that many references use."""
    b = Bars(**columns)
    b.mid = (b.bid_price + b.ask_price) / 2
    b.spread_bps = 1e4 * (b.ask_price - b.bid_price) / b.mid
    b.log_mid = np.log(b.close_price)
    b.r, b.r1 = change(b.log_mid, bars=1), change(b.log_mid, 1)
    b.usd, b.qty, b.count = b.buy_usd + b.sell_usd, b.buy_qty + b.sell_qty, b.buy_count + b.sell_count
    b.signed_usd, b.signed_count = b.buy_usd - b.sell_usd, b.buy_count - b.sell_count
    b.usd_1s, b.signed_1s = total(b.usd, 1), total(b.signed_usd, 1)
    b.imbalance = (b.bid_qty - b.ask_qty) / (b.bid_qty + b.ask_qty)
    b.liq = b.liq_long_usd + b.liq_short_usd
    return b


def last(x: Floats, seconds: float) -> Floats:
    return x[-round(PER_S * seconds) :]


def lag(x: Floats, seconds: float = 0, bars: int = 0) -> Floats:
    k = bars or round(PER_S * seconds)
    return np.concatenate([np.full(k, np.nan), x[:-k]])


def change(x: Floats, seconds: float = 0, bars: int = 0) -> Floats:
    return x - lag(x, seconds, bars)


def rolled(of: Callable[..., Floats], x: Floats, seconds: float) -> Floats:
    """`of` (numpy, along axis 1) of each window, NaN until one is full."""
    w = round(PER_S * seconds)
    windows = np.lib.stride_tricks.sliding_window_view(x, w)
    return np.concatenate([np.full(w - 1, np.nan), of(windows, axis=1)])


def total(x: Floats, seconds: float) -> Floats:
    return rolled(np.sum, x, seconds)


def share(a: float, b: float) -> float:
    return float(a / b) if b else 0.0


def balance(a: float, b: float) -> float:
    return share(a - b, a + b)


def corr(x: Floats, y: Floats, seconds: float) -> float:
    return float(np.corrcoef(last(x, seconds), last(y, seconds))[0, 1])


def zscore(x: Floats, seconds: float) -> float:
    return float((x[-1] - last(x, seconds).mean()) / last(x, seconds).std())


def slope(y: Floats, x: Floats, seconds: float) -> float:
    """Ordinary least squares of y on x and a constant."""
    import statsmodels.api as sm  # not in every environment

    return float(sm.OLS(last(y, seconds), sm.add_constant(last(x, seconds))).fit().params[1])


def answer_bps(move: Floats, flow: Floats) -> float:
    return 1e4 * slope(move, flow, 300) * float(last(flow, 300).std())
