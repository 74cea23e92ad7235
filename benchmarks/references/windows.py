"""What the references share: how they are written down, and windows over plain arrays of 200 ms bars.

These modules know nothing of the project's code: they need numpy, scipy and pandas, and some the library that they
quote. They run in its tests and, where a library wants other versions than ours, in an environment of their own.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import scipy.stats
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bars = SimpleNamespace
"""The columns of some bars by name, each (n,)."""
PER_S = 5  # bars of 200 ms


THIRD_PARTY, PAPER, DEFINITION = "third party", "paper formula", "definition"
_FUNCTION = re.compile(r"([a-z]+)\.[a-zA-Z]")
_YEAR = re.compile(r"\b(19|20)\d\d\b")


@dataclass(frozen=True)
class Reference:
    """Another way to a feature's value at the last bar: `value` of a namespace of the bars' columns.

    `source` is a paper, a function (`scipy.stats.zscore`) or neither. `library` is the package whose code computes the
    value where the source names none of its functions; `twin` is the same in numpy, for where that is not installed.
    `text` is the expression that the reference stands for, where that is not the feature itself.
    """

    source: str
    value: Callable[[Bars], float]
    library: str = ""
    text: str = ""
    rtol: float = 1e-9
    twin: Callable[[Bars], float] | None = None

    @property
    def package(self) -> str:
        """Import name of the third party whose code computes the statistic, up to its unit and sign; else empty."""
        named = _FUNCTION.match(self.source)
        return self.library or (named[1] if named else "")

    @property
    def kind(self) -> str:
        if self.package:
            return THIRD_PARTY
        return PAPER if _YEAR.search(self.source) else DEFINITION


def bars(columns: dict[str, Any]) -> Bars:
    """The columns by name, with the names that many references use.

    Columns `leader|…` are those of another symbol, as bars in `leader`; `signals|…` are a slow series' values that are
    known at the last bar, by name in `signals`, and `signal_time_s|…` their times.
    """
    b = Bars(**columns)
    for name in ("leader", "signals", "signal_time_s"):
        setattr(b, name, {key.partition("|")[2]: x for key, x in columns.items() if key.startswith(f"{name}|")})
    b.leader = bars(b.leader) if b.leader else None
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


def series(x: Floats) -> Any:
    import pandas as pd  # what mlfinpy and ta take

    return pd.Series(x)


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
    return float(scipy.stats.zscore(last(x, seconds))[-1])


def slope(y: Floats, x: Floats, seconds: float) -> float:
    """Ordinary least squares of y on x and a constant."""
    return float(scipy.stats.linregress(last(x, seconds), last(y, seconds)).slope)


def answer_bps(move: Floats, flow: Floats) -> float:
    return 1e4 * slope(move, flow, 300) * float(last(flow, 300).std())
