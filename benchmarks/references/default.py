"""References of the eight default sets: `tob`, `ofi`, `flow`, `momentum`, `volatility`, `liquidation`, `derivatives`,
`time`."""

import math
from typing import Any

import numpy as np

from benchmarks.references.fractal import now
from benchmarks.references.windows import (
    Bars,
    Floats,
    Reference,
    change,
    last,
    rolled,
    series,
    share,
    total,
    zscore,
)

_CKS = "Cont, Kukanov, Stoikov 2014"
_GO = "Gatheral, Oomen 2010: (B a + A b) / (B + A)"
_Z = "scipy.stats.zscore"
_FAST = (1, 2, 5, 10, 30, 60)


def micro_edge(b: Bars) -> Floats:
    """The mean of the best prices, each weighted by the size of the other side, against the mid."""
    micro = (b.bid_price * b.ask_qty + b.ask_price * b.bid_qty) / (b.bid_qty + b.ask_qty)
    return 1e4 * (micro / b.mid - 1)


def in_deviations(x: Floats, bars: int) -> float:
    """The sum of the last bars in deviations of a bar over 300 s."""
    return np.sum(x[-bars:]) / last(x, 300).std()


def one_sided(signed: Floats, size: Floats, seconds: float) -> float:
    return share(np.sum(last(signed, seconds)), np.sum(last(size, seconds)))


def ofi_turn(b: Bars) -> float:
    return (np.sum(b.ofi_qty[-5:]) - np.sum(b.ofi_qty[-30:-25])) / last(b.ofi_qty, 300).std()


def mean_trade(b: Bars) -> Floats:
    """Log of the mean size of the trades of 5 s, at each bar."""
    usd, count = total(b.usd, 5), total(b.count, 5)
    return np.log1p(np.divide(usd, count, out=np.zeros_like(usd), where=count > 0))


def log_return(b: Bars, bars: int) -> float:
    return 1e4 * math.log(b.close_price[-1] / b.close_price[-1 - bars])


def roc(b: Bars, bars: int) -> float:
    from ta.momentum import ROCIndicator

    return 1e4 * math.log1p(ROCIndicator(series(b.close_price), bars).roc().iloc[-1] / 100)


def stochastic(b: Bars) -> float:
    from ta.momentum import StochasticOscillator

    columns = (series(x) for x in (b.high_price, b.low_price, b.close_price))
    return StochasticOscillator(*columns, window=300).stoch().iloc[-1] / 100


def in_range(b: Bars) -> float:
    low, high = last(b.low_price, 60).min(), last(b.high_price, 60).max()
    return (b.close_price[-1] - low) / (high - low)


def average(b: Bars) -> float:
    from ta.trend import SMAIndicator

    return 1e4 * (b.close_price[-1] / SMAIndicator(series(b.close_price), 300).sma_indicator().iloc[-1] - 1)


def channel(b: Bars) -> float:
    from ta.volatility import DonchianChannel

    made = DonchianChannel(*(series(x) for x in (b.high_price, b.low_price, b.close_price)), window=50)
    return 1e4 * math.log(made.donchian_channel_hband().iloc[-1] / made.donchian_channel_lband().iloc[-1])


def ranges(b: Bars) -> Floats:
    return 1e4 * np.log(rolled(np.max, b.high_price, 10) / rolled(np.min, b.low_price, 10))


def deviation(b: Bars, seconds: float) -> float:
    return series(1e4 * b.r).rolling(round(5 * seconds)).std(ddof=0).iloc[-1]


def basis(b: Bars) -> Floats:
    return 1e4 * (b.mid - b.mark_price) / b.mark_price


def premium(b: Bars) -> Floats:
    return 1e4 * (b.mark_price - b.index_price) / b.index_price


def to_funding(b: Bars) -> float:
    """What the venue tells, else to the next of 00, 08 and 16 h."""
    told = b.funding_s[-1]
    return max(told, 0.0) / 3600 if np.isfinite(told) else 8 - b.second_of_day[-1] / 3600 % 8


def log_sum(x: Floats, seconds: float) -> float:
    return math.log1p(np.sum(last(x, seconds)))


TOB = {
    "spread_bps": Reference(
        "definition", lambda b: 2e4 * (b.ask_price - b.bid_price)[-1] / (b.ask_price + b.bid_price)[-1]
    ),
    "spread_z_60s": Reference(_Z, lambda b: zscore(b.spread_bps, 60), rtol=1e-7),
    "imbalance": Reference(
        "Cao, Hansch, Wang 2009: (B - A) / (B + A)", lambda b: (b.bid_qty - b.ask_qty)[-1] / (b.bid_qty + b.ask_qty)[-1]
    ),
    "imbalance_mean_1s": Reference("definition", lambda b: np.mean(last(b.imbalance, 1))),
    "imbalance_mean_5s": Reference("definition", lambda b: np.mean(last(b.imbalance, 5))),
    "imbalance_change_1s": Reference("definition", lambda b: b.imbalance[-1] - b.imbalance[-6]),
    "micro_edge_bps": Reference(_GO, lambda b: micro_edge(b)[-1], rtol=1e-8),
    "micro_edge_mean_2s": Reference(_GO, lambda b: np.mean(last(micro_edge(b), 2)), rtol=1e-8),
    "depth_z_60s": Reference(_Z, lambda b: zscore(np.log1p(b.bid_qty + b.ask_qty), 60), rtol=1e-7),
    "quote_rate_z_60s": Reference(_Z, lambda b: zscore(total(b.quote_count, 1), 60), rtol=1e-7),
}

ORDER_FLOW = {
    "ofi_1": Reference(_CKS, lambda b: in_deviations(b.ofi_qty, 1), rtol=1e-8),
    **{f"ofi_{s}s": Reference(_CKS, lambda b, s=s: in_deviations(b.ofi_qty, 5 * s), rtol=1e-8) for s in _FAST},
    **{
        f"ofi_balance_{s}s": Reference(_CKS, lambda b, s=s: one_sided(b.ofi_qty, np.abs(b.ofi_qty), s), rtol=1e-8)
        for s in (1, 5)
    },
    "ofi_per_depth_5s": Reference(
        f"{_CKS}: over the mean depth",
        lambda b: np.sum(last(b.ofi_qty, 5)) / np.mean(last(b.bid_qty + b.ask_qty, 60)),
        rtol=1e-8,
    ),
    "ofi_turn_5s": Reference(_CKS, ofi_turn, rtol=1e-8),
}

FLOW = {
    **{
        f"signed_flow_{name}": Reference("definition", lambda b, n=bars: in_deviations(b.signed_usd, n), rtol=1e-8)
        for name, bars in (("1", 1), ("1s", 5), ("5s", 25))
    },
    **{
        f"trade_imbalance_{s}s": Reference("definition", lambda b, s=s: one_sided(b.signed_usd, b.usd, s), rtol=1e-8)
        for s in _FAST
    },
    **{
        f"count_imbalance_{s}s": Reference("definition", lambda b, s=s: one_sided(b.signed_count, b.count, s))
        for s in (2, 10)
    },
    **{
        f"hit_bid_notional_{s}s": Reference("definition", lambda b, s=s: log_sum(b.sell_usd, s)) for s in (1, 10)
    },
    **{
        f"hit_ask_notional_{s}s": Reference("definition", lambda b, s=s: log_sum(b.buy_usd, s)) for s in (1, 10)
    },
    "hit_bid_z_60s": Reference(_Z, lambda b: zscore(np.log1p(total(b.sell_usd, 1)), 60), rtol=1e-7),
    "hit_ask_z_60s": Reference(_Z, lambda b: zscore(np.log1p(total(b.buy_usd, 1)), 60), rtol=1e-7),
    "trade_rate_z_60s": Reference(_Z, lambda b: zscore(total(b.count, 1), 60), rtol=1e-7),
    "trade_size_z_60s": Reference(_Z, lambda b: zscore(mean_trade(b), 60), rtol=1e-7),
}  # fmt: skip

MOMENTUM = {
    **{
        f"return_bps_{name}": Reference(
            "rate of change", lambda b, n=bars: roc(b, n), "ta", rtol=1e-7, twin=lambda b, n=bars: log_return(b, n)
        )
        for name, bars in (("1", 1), *((f"{s}s", 5 * s) for s in (*_FAST, 300)))
    },
    "return_z_60s": Reference(_Z, lambda b: zscore(change(b.log_mid, 2), 60), rtol=1e-7),
    "position_in_range_60s": Reference("Lane 1984: %K", stochastic, "ta", twin=in_range, rtol=1e-8),
    "distance_from_mean_60s": Reference(
        "moving average", average, "ta", rtol=1e-7,
        twin=lambda b: 1e4 * (b.close_price[-1] / np.mean(last(b.close_price, 60)) - 1),
    ),
}  # fmt: skip

VOLATILITY = {
    **{
        f"volatility_bps_{s}s": Reference("pandas.Series.rolling.std", lambda b, s=s: deviation(b, s), rtol=1e-7)
        for s in (2, 10, 60, 300)
    },
    "volatility_ratio_10s_300s": Reference(
        "pandas.Series.rolling.std", lambda b: deviation(b, 10) / deviation(b, 300), rtol=1e-7
    ),
    "range_bps_10s": Reference("Donchian's channel", channel, "ta", twin=lambda b: ranges(b)[-1], rtol=1e-7),
    "range_z_60s": Reference(_Z, lambda b: zscore(ranges(b), 60), rtol=1e-7),
}

LIQUIDATION = {
    "liq_long_10s": Reference("definition", lambda b: log_sum(b.liq_long_usd, 10)),
    "liq_short_10s": Reference("definition", lambda b: log_sum(b.liq_short_usd, 10)),
    "liq_imbalance_60s": Reference("definition", lambda b: one_sided(b.liq_short_usd - b.liq_long_usd, b.liq, 60)),
    "liq_count_60s": Reference("definition", lambda b: log_sum(b.liq_count, 60)),
    "liq_z_300s": Reference(_Z, lambda b: zscore(np.log1p(b.liq), 300), rtol=1e-7),
    "liq_share_10s": Reference("definition", lambda b: one_sided(b.liq, b.usd, 10)),
}

DERIVATIVES = {
    "basis_bps": Reference("definition", lambda b: basis(b)[-1], rtol=1e-7),
    "basis_z_60s": Reference(_Z, lambda b: zscore(basis(b), 60), rtol=1e-7),
    "basis_change_10s": Reference("definition", lambda b: basis(b)[-1] - basis(b)[-51], rtol=1e-7),
    "premium_bps": Reference("definition", lambda b: premium(b)[-1], rtol=1e-7),
    "premium_change_60s": Reference("definition", lambda b: premium(b)[-1] - premium(b)[-301], rtol=1e-7),
    "funding_bps": Reference("definition", lambda b: 1e4 * b.funding_rate[-1]),
    "interest_change_bps_60s": Reference(
        "definition", lambda b: 1e4 * (b.open_interest[-1] / b.open_interest[-301] - 1), rtol=1e-7
    ),
}


def _is_open(b: Bars, opens: int, closes: int) -> float:
    return float(opens <= now(b).hour < closes)


def _day(b: Bars) -> Any:
    return now(b) - now(b).replace(hour=0, minute=0, second=0, microsecond=0)


TIME = {
    "day_frac": Reference("datetime.timedelta", lambda b: _day(b).total_seconds() / 86_400),
    "is_asia": Reference("datetime.hour", lambda b: _is_open(b, 0, 8)),
    "is_europe": Reference("datetime.hour", lambda b: _is_open(b, 7, 16)),
    "is_us": Reference("datetime.hour", lambda b: _is_open(b, 13, 21)),
    "hours_to_funding": Reference("definition", to_funding),
}

REFERENCES = TOB | ORDER_FLOW | FLOW | MOMENTUM | VOLATILITY | LIQUIDATION | DERIVATIVES | TIME
