"""The set `book`: what stands in the book, how it moves, and how it comes back.

It reads twenty levels, so a run that chooses it builds bars with depth. Where the depth is not known what is told of it
is 0; means over a window are of the bars in which it is, and what needs a whole window is 0 until one is known again.
A level that a known book lacks holds nothing. Features of the best level need the best prices only.

Stoikov ("The micro-price", Quantitative Finance 18(12), 2018) adds to the mid what it is expected to gain, given
imbalance and spread, with the expectation fitted on training data. Here it is learnt from the last 900 s, with moves
that are over, as he does over the chain of the imbalance's states (microprice.py), and as a straight line for the gain
of one second: nothing looks ahead, nothing needs training.
Integrated OFI (Cont, Cucuringu, Zhang, "Cross-impact of order flow imbalance in equity markets", Quantitative Finance
23(10), 2023) is a first principal component fitted on training data; its weights are nearly equal there, and here they
are equal. Stage `fit` finds those of a market (component.py).
"""

from collections.abc import Iterable
from functools import reduce
from itertools import pairwise
from typing import Final

from research.sets.feature import Feature, or_zero

_LEVELS: Final = 20
_FLOW_LEVELS: Final = 10  # as in the paper
_FITTED: Final = "Stoikov 2018, linear and fitted on the past"
_CCZ: Final = "Cont, Cucuringu, Zhang 2023"


def _running(total: str, level: str, levels: int) -> dict[str, str]:
    """Sums over the levels from the best on: total_1, total_2, … of `level`, which has the number in place of {}.

    Not known where the best level is not: then the book is unknown, while one that is known may have fewer levels.
    """
    first, *rest = (level.replace("{}", str(k)) for k in range(1, levels + 1))
    more = {f"{total}_{k}": f"(add {total}_{k - 1} (coalesce {text} 0))" for k, text in enumerate(rest, 2)}
    return {f"{total}_1": first, **more}


def known_mean(text: str, window: str) -> str:
    """Mean over the bars of a window in which `text` is known; not known where there are none."""
    return f"(div (sum_{window} (coalesce {text} 0)) (sum_{window} (known {text})))"


def _added(texts: Iterable[str]) -> str:
    return reduce(lambda total, text: f"(add {total} {text})", texts)


def _log_slope(side: str, levels: int) -> str:
    """Naes and Skjeltorp's slope of a side: the mean, over its levels, of the relative growth of log cumulated volume
    per relative step of the price. The first step is that from the mid, and volume is in USD, so that symbols compare.
    """
    logs = [f"(log1p {side}_values_{k})" for k in range(1, levels + 1)]
    prices = [f"{side}_price_{k}" for k in range(1, levels + 1)]
    first = f"(ratio {logs[0]} (abs (sub (div {prices[0]} mid) 1)))"
    steps = (
        f"(coalesce (ratio (ratio (sub {log} {log_before}) {log_before}) (abs (sub (div {price} {before}) 1))) 0)"
        for (log_before, log), (before, price) in zip(pairwise(logs), pairwise(prices), strict=True)
    )
    return f"(div {_added((first, *steps))} {_added(f'(known {price})' for price in prices)})"


DEFINITIONS: Final = {
    **_running("bids", "bid_qty_{}", _LEVELS),
    **_running("asks", "ask_qty_{}", _LEVELS),
    **_running("bid_values", "(mul bid_price_{} bid_qty_{})", _FLOW_LEVELS),
    **_running("ask_values", "(mul ask_price_{} ask_qty_{})", _FLOW_LEVELS),
    **_running("flows", "ofi_qty_{}", _FLOW_LEVELS),
    "level_qty": known_mean("(div (add bids_10 asks_10) 20)", "60s"),  # Q of the paper, eq. 3
    "known_flow_1s": "(sum_1s (div flows_10 (known (add bids_1 asks_1))))",
    "bid_away": "(sub 1 (div (div bid_values_10 bids_10) mid))",
    "ask_away": "(sub (div (div ask_values_10 asks_10) mid) 1)",
    "bid_slope": "(div bids_10 (sub mid bid_price_10))",
    "ask_slope": "(div asks_10 (sub ask_price_10 mid))",
    "bid_log_slope": _log_slope("bid", 10),
    "ask_log_slope": _log_slope("ask", 10),
    "depth_width": "(sub ask_price_10 bid_price_10)",
    "sold_queues": "(ratio (sum_5s sell_qty) (mean_5s bid_qty))",
    "bought_queues": "(ratio (sum_5s buy_qty) (mean_5s ask_qty))",
    "micro_slope": "(beta_300s return_1s (lag_1s imbalance))",
    "fitted_edge_bps": "(mul 1e4 (mul micro_slope imbalance))",
    "log_depth": "(log (max2 1e-12 depth_qty))",
    "hit_usd": "(lag_1s (sum_1s traded_usd))",
}
"""Names for use in features, beside those that all sets share."""


def _balance(a: str, b: str) -> str:
    return f"(ratio (sub {a} {b}) (add {a} {b}))"


def _weighted_mid(levels: int) -> str:
    """The mid of both sides' mean prices, each weighted by the size of the other, in bps of the mid."""
    bids, asks = f"bids_{levels}", f"asks_{levels}"
    bid, ask = f"(div bid_values_{levels} {bids})", f"(div ask_values_{levels} {asks})"
    price = f"(div (add (mul {bid} {asks}) (mul {ask} {bids})) (add {bids} {asks}))"
    return or_zero(f"(mul 1e4 (sub (div {price} mid) 1))")


_DEPTH: Final = {
    **{
        f"imbalance_depth_{k}": Feature(
            or_zero(_balance(f"bids_{k}", f"asks_{k}")), "-1 to 1",
            f"share of bids less that of asks in {k} levels a side", "Cao, Hansch, Wang 2009",
        )
        for k in (2, 3, 5, 10, 20)
    },
    "depth_ratio_1_10": Feature(
        or_zero("(ratio (add bids_1 asks_1) (add bids_10 asks_10))"), "0 to 1",
        "how much of ten levels stands at the best",
    ),
    "depth_ratio_10_20": Feature(
        or_zero("(ratio (add bids_10 asks_10) (add bids_20 asks_20))"), "0 to 1",
        "how much of twenty levels stands in ten",
    ),
    "depth_skew_10": Feature(
        or_zero(_balance("ask_away", "bid_away")), "-1 to 1",
        "whether asks stand farther from the mid than bids, in the mean of their sizes",
    ),
    "front_gap_5": Feature(
        or_zero(f"(sub {_balance('bids_1', 'asks_1')} {_balance('(sub bids_5 bids_1)', '(sub asks_5 asks_1)')})"),
        "-2 to 2",
        "imbalance of the best level less that of the four behind: a front that is not backed",
    ),
    "slope_balance_10": Feature(
        or_zero(_balance("bid_slope", "ask_slope")), "-1 to 1",
        "size per unit of price in ten levels, bids against asks", "after Naes, Skjeltorp 2006",
    ),
    "slope_z_300s": Feature(
        or_zero("(zscore_300s (add bid_slope ask_slope))", "300s"), "deviations",
        "how steep the book is against five minutes, by size per unit of price", "after Naes, Skjeltorp 2006",
    ),
    "log_slope_10": Feature(
        or_zero("(mul 5e-5 (add bid_log_slope ask_log_slope))"), "share per bp",
        "growth of the log of cumulated USD per bp of price, in the mean of ten levels and both sides",
        "Naes, Skjeltorp 2006",
    ),
    "log_slope_balance_10": Feature(
        or_zero(_balance("bid_log_slope", "ask_log_slope")), "-1 to 1", "the same, bids against asks",
        "after Naes, Skjeltorp 2006",
    ),
    "width_ratio_10_300s": Feature(
        or_zero(f"(ratio depth_width {known_mean('depth_width', '300s')})", "300s"), "ratio",
        "distance between the tenth levels against its mean",
    ),
    "weighted_mid_bps_5": Feature(_weighted_mid(5), "bps", "mid weighted over five levels, against the mid"),
    "weighted_mid_bps_10": Feature(_weighted_mid(10), "bps", "mid weighted over ten levels, against the mid"),
}  # fmt: skip

_LEVEL_FLOW: Final = {
    **{
        f"ofi_level_{k}_5s": Feature(
            or_zero(f"(ratio (sum_5s ofi_qty_{k}) level_qty)", "60s"), "levels",
            f"order flow imbalance of level {k} in mean sizes of a level", _CCZ,
        )
        for k in range(1, _FLOW_LEVELS + 1)
    },
    "ofi_integrated_5s": Feature(
        or_zero("(ratio (div (sum_5s flows_10) 10) level_qty)", "60s"), "levels",
        "the mean of the ten levels' imbalances", _CCZ,
    ),
    "ofi_behind_5s": Feature(
        or_zero("(ratio (sub (div (sum_5s (sub flows_10 flows_1)) 9) (sum_5s flows_1)) level_qty)", "60s"), "levels",
        "order flow behind the best level less that at it", _CCZ,
    ),
    "ofi_integrated_impact_bps_300s": Feature(
        or_zero("(mul 1e4 (mul (beta_300s return_1s known_flow_1s) (std_300s known_flow_1s)))", "301s"),
        "bps per deviation", "answer of the price to the ten levels' order flow", _CCZ,
    ),
}  # fmt: skip

_TOUCH: Final = {
    "micro_price_bps": Feature(
        "(microprice_900s imbalance bar_return_bps)", "bps",
        "what the mid is expected to gain in all, given the imbalance: Stoikov's micro-price less the mid, without the"
        " spread in its state", "after Stoikov 2018, learnt from the past",
    ),
    "micro_fitted_bps": Feature(
        "fitted_edge_bps", "bps", "what the mid is expected to gain in a second, given the imbalance", _FITTED
    ),
    "micro_gap_bps": Feature(
        "(sub fitted_edge_bps micro_edge_bps)", "bps", "the same less the weighted mid's: what the weights overstate",
        _FITTED,
    ),
    "queue_pressure_5s": Feature(
        _balance("bought_queues", "sold_queues"), "-1 to 1",
        "whether buyers eat the ask queue faster than sellers the bid queue, each in its own lengths",
    ),
    "queue_turnover_5s": Feature(
        "(log1p (add bought_queues sold_queues))", "log ratio", "how often the queues were eaten in 5 s"
    ),
    "imbalance_persistence_60s": Feature(
        "(corr_60s imbalance (lag_1s imbalance))", "-1 to 1", "whether an imbalance lasts a second"
    ),
    "quotes_per_trade_60s": Feature(
        "(log1p (ratio (sum_60s quote_count) (sum_60s trade_count)))", "log ratio",
        "changes of the best level per trade",
    ),
}  # fmt: skip

_DYNAMICS: Final = {
    "spread_change_bps_5s": Feature("(delta_5s spread_bps)", "bps", "whether the spread is opening"),
    "spread_to_least_300s": Feature(
        "(ratio spread_bps (min_300s spread_bps))", "ratio", "the spread in multiples of its least, mostly a tick"
    ),
    "spread_wide_share_60s": Feature(
        "(mean_60s (gt spread_bps (mul 1.5 (min_300s spread_bps))))", "0 to 1", "how much of the minute it was wider"
    ),
    "spread_variation_60s": Feature(
        "(ratio (std_60s spread_bps) (mean_60s spread_bps))", "ratio", "how unsteady the spread is"
    ),
    "spread_resilience_300s": Feature(
        "(neg (beta_300s (delta_1s spread_bps) (lag_1s spread_bps)))", "share per second",
        "how much of a deviation of the spread is gone a second later", "after Foucault, Kadan, Kandel 2005",
    ),
    "depth_resilience_300s": Feature(
        "(neg (beta_300s (delta_1s log_depth) (lag_1s log_depth)))", "share per second",
        "how much of a deviation of the size at the touch is gone a second later", "after Large 2007",
    ),
    "refill_60s": Feature(
        "(ratio (sum_60s (mul hit_usd (delta_1s log_depth))) (sum_60s hit_usd))", "log ratio",
        "growth of the size at the touch in the second after trades, weighted by them", "after Large 2007",
    ),
    "spread_after_trades_60s": Feature(
        "(ratio (sum_60s (mul hit_usd (delta_1s spread_bps))) (sum_60s hit_usd))", "bps",
        "change of the spread in the second after trades, weighted by them", "Biais, Hillion, Spatt 1995",
    ),
}  # fmt: skip

SETS: Final = {"book": _DEPTH | _LEVEL_FLOW | _TOUCH | _DYNAMICS}
