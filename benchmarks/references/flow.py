"""References of the sets `micro` and `toxicity`."""

import math

import numpy as np
import scipy.stats

from benchmarks.references.windows import (
    Bars,
    Floats,
    Reference,
    answer_bps,
    change,
    corr,
    lag,
    last,
    series,
    share,
    total,
    zscore,
)

_CKS = "Cont, Kukanov, Stoikov 2014: slope on OFI"
_EHO = "Easley, Lopez de Prado, O'Hara 2012: sum |VB - VS| / nV"
_SPREAD = "Huang, Stoll 1996: 2 d (p - m)"
_BOUCHAUD = "Bouchaud, Gefen, Potters, Wyart 2004: response after l"


def _later(b: Bars) -> list[Floats]:
    """Trades of the minute that ended 5 s ago, a bar's buys and its sells as one each: price, later mid, qty, side."""
    rows = slice(-325, -25)
    price, later, qty, side = [], [], [], []
    for sign, usd, traded in ((1, b.buy_usd, b.buy_qty), (-1, b.sell_usd, b.sell_qty)):
        is_traded = traded[rows] > 0
        price.append(usd[rows][is_traded] / traded[rows][is_traded])
        later.append(b.mid[-300:][is_traded])
        qty.append(traded[rows][is_traded])
        side.append(np.full(is_traded.sum(), sign))
    return [np.concatenate(parts) for parts in (price, later, qty, side)]


def realized_spread(b: Bars) -> float:
    """frds divides by the mid at the trade and weights by money: with the price for that mid, what we do."""
    from frds.measures.spread import realized_spread as frds_spread

    price, later, qty, side = _later(b)
    return 100 * frds_spread(price, later, price, qty, side)


def kept_spread(b: Bars) -> float:
    price, later, qty, side = _later(b)
    return 1e4 * np.sum(2 * side * qty * (price - later)) / np.sum(qty * price)


def price_impact(b: Bars) -> float:
    kept = (lag(b.buy_usd, 5) - b.mid * lag(b.buy_qty, 5)) + (b.mid * lag(b.sell_qty, 5) - lag(b.sell_usd, 5))
    return 1e4 * np.sum(last(lag(b.effective_usd, 5) - 2 * kept, 60)) / np.sum(last(lag(b.usd, 5), 60))


def _effective(b: Bars) -> float:
    return 1e4 * np.sum(last(b.effective_usd, 60)) / np.sum(last(b.usd, 60))


def roll(b: Bars) -> float:
    """Over the bars with trades, whatever lies between them (a minute at most)."""
    at = np.flatnonzero(b.qty > 0)
    step = np.diff(np.log(b.usd[at] / b.qty[at]))
    bounce = (step[1:] * step[:-1])[at[2:] >= b.qty.size - 1500]
    return 2e4 * math.sqrt(max(-bounce.mean(), 0.0))


def amihud(b: Bars) -> float:
    """Over the seconds that have volume: the paper's mean is of days with trades."""
    moved, usd = last(np.abs(b.r1), 300), last(b.usd_1s, 300)
    return 1e4 * np.mean(moved[usd > 0] / usd[usd > 0]) * np.mean(usd)


def _root(b: Bars) -> Floats:
    return np.sign(b.signed_1s) * np.sqrt(np.abs(b.signed_1s))


def vpin(b: Bars, size: float | None = None) -> float:
    """Bucket by bucket, as section 1.3 writes it; a bucket has the size of the bar that opens it."""
    sizes = total(b.usd, 300) / 50 if size is None else np.full(b.usd.size, size)
    buckets, opened, net, filled = [], np.nan, 0.0, 0.0
    for buy, sell, fresh in zip(b.buy_usd, b.sell_usd, sizes, strict=True):
        left = 0.0 if np.isnan(fresh) else buy + sell
        while left > 0:
            opened = fresh if filled == 0.0 else opened
            part = min(left, opened - filled)
            net, filled, left = net + part * (buy - sell) / (buy + sell), filled + part, left - part
            if filled >= opened * (1 - 1e-12):
                buckets.append((abs(net), opened))
                net = filled = 0.0
    aside, volume = np.array(buckets[-50:]).T
    return np.sum(aside) / np.sum(volume)


def bulk_vpin(b: Bars) -> float:
    """flowrisk classifies in bulk by the normal distribution of a price move: given the move that it takes for ours."""
    from flowrisk.toxicity.bulk import RecursiveBulkClassMABuckets

    scale = 1e9  # it floors volumes to whole numbers
    made = RecursiveBulkClassMABuckets(5000.0 * scale, 51)
    made.initialize(1000.0)
    for buy, sell in zip(b.buy_usd, b.sell_usd, strict=True):
        if buy + sell > 0:
            made.latest_price = 1000.0
            made.update(
                1000.0 + float(np.clip(scipy.stats.norm.ppf(buy / (buy + sell)), -40, 40)), 1.0, (buy + sell) * scale
            )
    full = np.delete(np.arange(51), made.current_bucket_idx)
    return np.sum(made.get_order_imbalance()[full]) / np.sum(made.get_bucket_volume()[full])


def vpin_change(b: Bars) -> float:
    before = Bars(**{name: getattr(b, name)[:-300] for name in ("usd", "buy_usd", "sell_usd")})
    return vpin(b) - vpin(before)


def _maker(b: Bars) -> Floats:
    return b.ofi_qty - (b.buy_qty - b.sell_qty)


def size_entropy(b: Bars) -> float:
    """Renyi's entropy of order 2 over its largest, that of n equal trades."""
    concentration = np.sum(last(b.square_usd, 60)) / np.sum(last(b.usd, 60)) ** 2
    return -np.log(concentration) / np.log(np.sum(last(b.count, 60)))


def side_entropy(b: Bars) -> float:
    bought, sold = np.sum(last(b.buy_count, 10)), np.sum(last(b.sell_count, 10))
    return scipy.stats.entropy([bought, sold], base=2)


def signed_run(b: Bars) -> float:
    signs = np.sign(last(b.signed_1s, 60))[::-1]
    length = signs.size if (signs == signs[0]).all() else np.argmin(signs == signs[0])
    return signs[0] * length / 300


def _hawkes(x: Floats, half_life_s: float) -> float:
    return series(x).ewm(halflife=5 * half_life_s).mean().iloc[-1]


def branching(b: Bars) -> float:
    counts = last(total(b.count, 5), 300)
    return max(1 - math.sqrt(counts.mean() / counts.var()), 0.0)


REFERENCES = {
    "effective_spread_bps_60s": Reference(_SPREAD, _effective),
    "realized_spread_bps_60s": Reference(_SPREAD, realized_spread, "frds", twin=kept_spread),
    "price_impact_bps_60s": Reference(_SPREAD, price_impact),
    "effective_to_quoted_60s": Reference("definition", lambda b: _effective(b) / np.mean(last(b.spread_bps, 60))),
    "kyle_lambda_bps_300s": Reference(
        "Kyle 1985: slope on signed flow", lambda b: answer_bps(b.r1, b.signed_1s), rtol=1e-7
    ),
    "hasbrouck_lambda_bps_300s": Reference(
        "Hasbrouck 2009: slope on the signed root", lambda b: answer_bps(b.r1, _root(b)), rtol=1e-7
    ),
    "amihud_bps_300s": Reference("Amihud 2002: mean |r| / V", amihud),
    "roll_spread_bps_300s": Reference("Roll 1984: 2 sqrt(-mean dp dp')", roll, rtol=1e-7),
    "ofi_impact_bps_300s": Reference(_CKS, lambda b: answer_bps(b.r1, total(b.ofi_qty, 1)), rtol=1e-7),
    "ofi_fit_300s": Reference(
        "numpy.corrcoef, squared", lambda b: corr(b.r1, total(b.ofi_qty, 1), 300) ** 2, rtol=1e-7
    ),
    "response_bps_1s": Reference(_BOUCHAUD, lambda b: answer_bps(b.r1, lag(b.signed_1s, 1)), rtol=1e-7),
    "response_bps_10s": Reference(
        _BOUCHAUD, lambda b: answer_bps(change(b.log_mid, 10), lag(b.signed_1s, 10)), rtol=1e-7
    ),
    "impact_asymmetry_bps_300s": Reference(
        "definition",
        lambda b: answer_bps(b.r1, total(b.buy_usd, 1)) + answer_bps(b.r1, total(b.sell_usd, 1)),
        rtol=1e-7,
    ),
    "spread_in_volatility_60s": Reference(
        "definition", lambda b: np.mean(last(b.spread_bps, 60)) / (1e4 * np.linalg.norm(last(b.r, 60)))
    ),
    "queue_in_trades_60s": Reference(
        "definition",
        lambda b: np.log1p(
            b.mid[-1] * np.mean(last(b.bid_qty + b.ask_qty, 60)) * np.sum(last(b.count, 60)) / np.sum(last(b.usd, 60))
        ),
    ),
    "vpin": Reference(_EHO, vpin),
    "vpin, buckets of 5000": Reference(
        "bulk classification undone", bulk_vpin, "flowrisk", "(vpin_50 buy_usd sell_usd 5000)", rtol=1e-6
    ),
    "vpin_change_60s": Reference(_EHO, vpin_change),
    "one_sidedness_60s": Reference(
        "definition", lambda b: np.sum(np.abs(last(b.signed_1s, 60))) / np.sum(last(b.usd_1s, 60))
    ),
    "flow_divergence_60s": Reference(
        "definition", lambda b: zscore(total(b.signed_usd, 10), 60) - zscore(change(b.log_mid, 10), 60), rtol=1e-7
    ),
    "flow_return_corr_60s": Reference("numpy.corrcoef", lambda b: corr(b.signed_1s, b.r1, 60), rtol=1e-7),
    "maker_flow_5s": Reference(
        "definition", lambda b: np.sum(last(_maker(b), 5)) / last(_maker(b), 300).std(), rtol=1e-8
    ),
    "maker_taker_corr_60s": Reference(
        "numpy.corrcoef", lambda b: corr(total(_maker(b), 1), total(b.buy_qty - b.sell_qty, 1), 60), rtol=1e-7
    ),
    "taker_share_60s": Reference(
        "definition",
        lambda b: np.sum(last(b.qty, 60)) / (np.sum(last(b.qty, 60)) + np.sum(np.abs(last(_maker(b), 60)))),
    ),
    "large_trade_share_60s": Reference(
        "definition", lambda b: np.sum(last(b.large_buy_usd + b.large_sell_usd, 60)) / np.sum(last(b.usd, 60))
    ),
    "large_trade_imbalance_60s": Reference(
        "definition",
        lambda b: share(
            np.sum(last(b.large_buy_usd - b.large_sell_usd, 60)), np.sum(last(b.large_buy_usd + b.large_sell_usd, 60))
        ),
    ),
    "large_trade_count_60s": Reference("definition", lambda b: np.log1p(np.sum(last(b.large_count, 60)))),
    "large_trade_count_share_60s": Reference(
        "definition", lambda b: np.sum(last(b.large_count, 60)) / np.sum(last(b.count, 60))
    ),
    "largest_trade_share_60s": Reference(
        "definition", lambda b: np.max(last(b.max_trade_usd, 60)) / np.sum(last(b.usd, 60))
    ),
    "size_entropy_60s": Reference("Renyi 1961, order 2", size_entropy),
    "size_tilt_10s": Reference(
        "definition",
        lambda b: (
            share(np.sum(last(b.signed_usd, 10)), np.sum(last(b.usd, 10)))
            - share(np.sum(last(b.signed_count, 10)), np.sum(last(b.count, 10)))
        ),
    ),
    "side_entropy_10s": Reference("scipy.stats.entropy", side_entropy),
    "sign_autocorr_60s": Reference(
        "numpy.corrcoef", lambda b: corr(np.sign(b.signed_1s), lag(np.sign(b.signed_1s), 1), 60), rtol=1e-7
    ),
    "signed_run_60s": Reference("definition", signed_run),
    "hawkes_rate_2s": Reference("Hawkes 1971: by pandas' ewm", lambda b: _hawkes(b.count, 2) / _hawkes(b.count, 60)),
    "hawkes_imbalance_2s": Reference(
        "Bacry, Muzy 2014: by pandas' ewm", lambda b: _hawkes(b.signed_count, 2) / _hawkes(b.count, 2)
    ),
    "branching_300s": Reference("Hardiman, Bouchaud 2014: 1 - sqrt(mean / var)", branching, rtol=1e-7),
}
