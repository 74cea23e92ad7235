"""References of the set `book`."""

import numpy as np

from benchmarks.references.stoikov import micro_price
from benchmarks.references.windows import (
    Bars,
    Floats,
    Reference,
    balance,
    change,
    corr,
    lag,
    last,
    share,
    slope,
    total,
    zscore,
)

_CCZ = "Cont, Cucuringu, Zhang 2023: OFI over the mean size of a level"
_DEPTH = "Cao, Hansch, Wang 2009: (B - A) / (B + A)"
_SLOPE = "scipy.stats.linregress: change on level"


def side(b: Bars, name: str, levels: int) -> Floats:
    """Columns of one side's levels (n, levels), NaN for what is not there."""
    return np.column_stack([getattr(b, f"{name}_{k}") for k in range(1, levels + 1)])


def depth(b: Bars, name: str, levels: int) -> float:
    return np.nansum(side(b, f"{name}_qty", levels)[-1])


def both(b: Bars, levels: int) -> float:
    return depth(b, "bid", levels) + depth(b, "ask", levels)


def imbalance(b: Bars, levels: int) -> float:
    return balance(depth(b, "bid", levels), depth(b, "ask", levels))


def scaled_depth(b: Bars) -> float:
    from frds.measures.lob_slope import DGGW_scaled_depth_difference

    return -DGGW_scaled_depth_difference(side(b, "bid_qty", 20)[-1:], side(b, "ask_qty", 20)[-1:]) / 2


def slopes(b: Bars) -> float:
    from frds.measures.lob_slope import DGGW_ask_slope, DGGW_bid_slope

    bid = DGGW_bid_slope(side(b, "bid_qty", 10)[-1:], b.bid_price_10[-1:], b.mid[-1:])
    ask = DGGW_ask_slope(side(b, "ask_qty", 10)[-1:], b.ask_price_10[-1:], b.mid[-1:])
    return balance(bid, ask)


def slopes_twin(b: Bars) -> float:
    bid, ask = depth(b, "bid", 10), depth(b, "ask", 10)
    return balance(bid / (b.mid - b.bid_price_10)[-1], ask / (b.ask_price_10 - b.mid)[-1])


def slope_z(b: Bars) -> float:
    bids, asks = side(b, "bid_qty", 10).sum(axis=1), side(b, "ask_qty", 10).sum(axis=1)
    return zscore(bids / (b.mid - b.bid_price_10) + asks / (b.ask_price_10 - b.mid), 300)


def log_slope(b: Bars, name: str) -> float:
    """Naes, Skjeltorp 2006: elasticities of ten levels, volume in units of 1 USD."""
    prices, sizes = side(b, f"{name}_price", 10)[-1], side(b, f"{name}_qty", 10)[-1]
    v = np.log(1 + np.cumsum(prices * sizes))
    total = v[0] / abs(prices[0] / b.mid[-1] - 1)
    for k in range(9):
        total += (v[k + 1] / v[k] - 1) / abs(prices[k + 1] / prices[k] - 1)
    return total / 10


def mean_price(b: Bars, name: str, levels: int) -> float:
    prices, sizes = side(b, f"{name}_price", levels)[-1], side(b, f"{name}_qty", levels)[-1]
    return np.average(prices, weights=sizes)


def depth_skew(b: Bars) -> float:
    return balance(mean_price(b, "ask", 10) / b.mid[-1] - 1, 1 - mean_price(b, "bid", 10) / b.mid[-1])


def weighted_mid(b: Bars, levels: int) -> float:
    bids, asks = depth(b, "bid", levels), depth(b, "ask", levels)
    price = np.average([mean_price(b, "bid", levels), mean_price(b, "ask", levels)], weights=[asks, bids])
    return 1e4 * (price / b.mid[-1] - 1)


def front_gap(b: Bars) -> float:
    front, five = (depth(b, "bid", 1), depth(b, "ask", 1)), (depth(b, "bid", 5), depth(b, "ask", 5))
    return balance(*front) - balance(five[0] - front[0], five[1] - front[1])


def width(b: Bars) -> float:
    wide = b.ask_price_10 - b.bid_price_10
    return wide[-1] / last(wide, 300).mean()


def level_size(b: Bars) -> float:
    both = np.column_stack([side(b, "bid_qty", 10), side(b, "ask_qty", 10)])
    return both[-300:].mean()


def flow(b: Bars, *levels: int) -> float:
    """Mean order flow imbalance of some levels over 5 s, in mean sizes of a level."""
    return np.mean([np.sum(last(getattr(b, f"ofi_qty_{k}"), 5)) for k in levels]) / level_size(b)


def integrated_impact(b: Bars) -> float:
    flows = total(side(b, "ofi_qty", 10).sum(axis=1), 1)
    return 1e4 * slope(b.r1, flows, 300) * last(flows, 300).std()


def fitted_edge(b: Bars) -> float:
    return 1e4 * slope(b.r1, lag(b.imbalance, 1), 300) * b.imbalance[-1]


def queues(b: Bars) -> tuple[float, float]:
    bought = np.sum(last(b.buy_qty, 5)) / np.mean(last(b.ask_qty, 5))
    sold = np.sum(last(b.sell_qty, 5)) / np.mean(last(b.bid_qty, 5))
    return bought, sold


def after_trades(b: Bars, x: Floats) -> float:
    weights = last(lag(b.usd_1s, 1), 60)
    return np.average(last(change(x, 1), 60), weights=weights)


def log_depth(b: Bars) -> Floats:
    return np.log(b.bid_qty + b.ask_qty)


REFERENCES = {
    **{
        f"imbalance_depth_{k}": Reference(_DEPTH, lambda b, k=k: imbalance(b, k))
        for k in (2, 3, 5, 10)
    },
    "imbalance_depth_20": Reference(_DEPTH, scaled_depth, "frds", twin=lambda b: imbalance(b, 20)),
    "depth_ratio_1_10": Reference(
        "definition", lambda b: both(b, 1) / both(b, 10)
    ),
    "depth_ratio_10_20": Reference(
        "definition", lambda b: both(b, 10) / both(b, 20)
    ),
    "depth_skew_10": Reference("mean distance from the mid", depth_skew, rtol=1e-7),
    "front_gap_5": Reference("definition", front_gap),
    "slope_balance_10": Reference("size over distance, bids against asks", slopes, "frds", rtol=1e-7, twin=slopes_twin),
    "slope_z_300s": Reference("scipy.stats.zscore of size over distance", slope_z, rtol=1e-7),
    "log_slope_10": Reference(
        "Naes, Skjeltorp 2006", lambda b: 1e-4 * (log_slope(b, "bid") + log_slope(b, "ask")) / 2, rtol=1e-7
    ),
    "log_slope_balance_10": Reference(
        "Naes, Skjeltorp 2006: bids against asks",
        lambda b: balance(log_slope(b, "bid"), log_slope(b, "ask")), rtol=1e-7,
    ),
    "width_ratio_10_300s": Reference("definition", width),
    "weighted_mid_bps_5": Reference("mean prices weighted crosswise", lambda b: weighted_mid(b, 5), rtol=1e-7),
    "weighted_mid_bps_10": Reference("mean prices weighted crosswise", lambda b: weighted_mid(b, 10), rtol=1e-7),
    **{f"ofi_level_{k}_5s": Reference(_CCZ, lambda b, k=k: flow(b, k)) for k in range(1, 11)},
    "ofi_integrated_5s": Reference(_CCZ, lambda b: flow(b, *range(1, 11)), rtol=1e-8),
    "ofi_behind_5s": Reference(_CCZ, lambda b: flow(b, *range(2, 11)) - flow(b, 1), rtol=1e-8),
    "ofi_integrated_impact_bps_300s": Reference(_CCZ, integrated_impact, rtol=1e-7),
    "micro_price_bps": Reference("Stoikov 2018: G1 + B G1 + B^2 G1 + …", micro_price, rtol=1e-7),
    "micro_fitted_bps": Reference("Stoikov 2018: E[dM | I], by OLS", fitted_edge, rtol=1e-7),
    "micro_gap_bps": Reference(
        "Stoikov 2018: E[dM | I] less the weighted mid",
        lambda b: fitted_edge(b) - b.spread_bps[-1] * b.imbalance[-1] / 2,
               rtol=1e-7,
    ),
    "queue_pressure_5s": Reference("definition", lambda b: balance(*queues(b))),
    "queue_turnover_5s": Reference("definition", lambda b: np.log1p(sum(queues(b)))),
    "imbalance_persistence_60s": Reference(
        "numpy.corrcoef", lambda b: corr(b.imbalance, lag(b.imbalance, 1), 60), rtol=1e-7
    ),
    "quotes_per_trade_60s": Reference(
        "definition", lambda b: np.log1p(share(np.sum(last(b.quote_count, 60)), np.sum(last(b.count, 60))))
    ),
    "spread_change_bps_5s": Reference("definition", lambda b: change(b.spread_bps, 5)[-1], rtol=1e-7),
    "spread_to_least_300s": Reference("definition", lambda b: b.spread_bps[-1] / np.min(last(b.spread_bps, 300))),
    "spread_wide_share_60s": Reference(
        "definition",
        lambda b: np.mean([b.spread_bps[k] > 1.5 * np.min(b.spread_bps[k - 1499 : k + 1]) for k in range(-300, -1)]
                          + [b.spread_bps[-1] > 1.5 * np.min(last(b.spread_bps, 300))]),
    ),
    "spread_variation_60s": Reference(
        "coefficient of variation", lambda b: last(b.spread_bps, 60).std() / last(b.spread_bps, 60).mean()
    ),
    "spread_resilience_300s": Reference(
        _SLOPE, lambda b: -slope(change(b.spread_bps, 1), lag(b.spread_bps, 1), 300), rtol=1e-7
    ),
    "depth_resilience_300s": Reference(
        _SLOPE, lambda b: -slope(change(log_depth(b), 1), lag(log_depth(b), 1), 300), rtol=1e-7
    ),
    "refill_60s": Reference("mean weighted by the trades", lambda b: after_trades(b, log_depth(b)), rtol=1e-7),
    "spread_after_trades_60s": Reference(
        "mean weighted by the trades", lambda b: after_trades(b, b.spread_bps), rtol=1e-7
    ),
}  # fmt: skip
