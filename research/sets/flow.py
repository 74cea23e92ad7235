"""The sets `micro` (what trading costs and how the price answers to it) and `toxicity` (who trades, how informed).

Answers of the price to flow are slopes of regressions over 300 s, in bps per deviation of the flow, so that they
compare across symbols. What looks ahead in the papers (the mid some seconds after a trade) is told here when it is
known: the trade is then lagged. Intensities are those of a Hawkes process with an exponential kernel, given by its
half-life.
"""

import math
from typing import Final

from research.sets.feature import Feature

_AFTER: Final = "5s"  # when the mid is taken to have answered to a trade

DEFINITIONS: Final = {
    "signed_1s": "(sum_1s signed_usd)",
    "ofi_1s_qty": "(sum_1s ofi_qty)",
    "signed_root_1s": "(mul (sign signed_1s) (sqrt (abs signed_1s)))",
    "kept_usd": (  # what takers paid above the mid that stands 5 s after the trade, twice as the spread has two sides
        f"(mul 2 (add (sub (lag_{_AFTER} buy_usd) (mul mid (lag_{_AFTER} buy_qty)))"
        f" (sub (mul mid (lag_{_AFTER} sell_qty)) (lag_{_AFTER} sell_usd))))"
    ),
    "trade_log": "(log (div traded_usd (add buy_qty sell_qty)))",  # of the bar's mean price; unknown without a trade
    "trade_step": "(sub trade_log (lag_1 (latest_60s trade_log (known trade_log))))",
    "bounce": "(mul trade_step (lag_1 (latest_60s trade_step (known trade_step))))",
    "none_yet": "(lag_120s 0)",  # 0 once the windows of bounce are full, before that not known as it is not
    "maker_qty": "(sub ofi_qty (sub buy_qty sell_qty))",
    "large_usd": "(add large_buy_usd large_sell_usd)",
    "buy_share": "(ratio (sum_10s buy_count) (sum_10s trade_count))",
    "fano_5s": "(ratio (mul (std_300s (sum_5s trade_count)) (std_300s (sum_5s trade_count)))"
    " (mean_300s (sum_5s trade_count)))",
    "bucket_usd": "(div (sum_300s traded_usd) 50)",
}  # fmt: skip
"""Names for use in features, beside those that all sets share."""


def _answer(move: str, flow: str, window: str = "300s") -> str:
    """Slope of a move of the log mid on a flow, in bps per deviation of the flow."""
    return f"(mul 1e4 (mul (beta_{window} {move} {flow}) (std_{window} {flow})))"


def _entropy(share: str) -> str:
    """Entropy of (p, 1 - p) in bits."""
    kept = f"(clip {share} 1e-12 1)"
    return f"(neg (div (mul {share} (log {kept})) {math.log(2)!r}))"


_MICRO: Final = {
    "effective_spread_bps_60s": Feature(
        "(mul 1e4 (ratio (sum_60s effective_usd) (sum_60s traded_usd)))", "bps",
        "twice what takers paid above the mid as they traded", "Huang, Stoll 1996",
    ),
    "realized_spread_bps_60s": Feature(
        f"(mul 1e4 (ratio (sum_60s kept_usd) (sum_60s (lag_{_AFTER} traded_usd))))", "bps",
        "twice what makers had kept of it 5 s later", "Huang, Stoll 1996",
    ),
    "price_impact_bps_60s": Feature(
        f"(mul 1e4 (ratio (sum_60s (sub (lag_{_AFTER} effective_usd) kept_usd)) (sum_60s (lag_{_AFTER} traded_usd))))",
        "bps", "what they had lost to the move of the mid", "Huang, Stoll 1996",
    ),
    "effective_to_quoted_60s": Feature(
        "(ratio (mul 1e4 (ratio (sum_60s effective_usd) (sum_60s traded_usd))) (mean_60s spread_bps))", "ratio",
        "spread paid against spread shown: below 1 takers wait for a narrow one, above 1 they walk the book",
    ),
    "kyle_lambda_bps_300s": Feature(
        _answer("return_1s", "signed_1s"), "bps per deviation", "answer of the price to takers' flow", "Kyle 1985"
    ),
    "hasbrouck_lambda_bps_300s": Feature(
        _answer("return_1s", "signed_root_1s"), "bps per deviation",
        "the same to the signed root of the flow: the second's net, where the paper sums the roots of its trades",
        "Hasbrouck 2009",
    ),
    "amihud_bps_300s": Feature(
        "(mul 1e4 (mul (mean_300s traded_1s)"
        " (ratio (sum_300s (ratio away_1s traded_1s)) (sum_300s (gt traded_1s 0)))))",
        "bps per mean second", "move per dollar in the seconds that traded, times the dollars of a mean second",
        "Amihud 2002",
    ),
    "roll_spread_bps_300s": Feature(
        "(mul 2e4 (sqrt (max2 0 (neg (ratio (sum_300s (coalesce bounce none_yet)) (sum_300s (known bounce)))))))",
        "bps", "spread by the bounce of prices from one bar with trades to the next", "Roll 1984",
    ),
    "ofi_impact_bps_300s": Feature(
        _answer("return_1s", "ofi_1s_qty"), "bps per deviation", "answer of the price to order flow imbalance",
        "Cont, Kukanov, Stoikov 2014",
    ),
    "ofi_fit_300s": Feature(
        "(mul (corr_300s return_1s ofi_1s_qty) (corr_300s return_1s ofi_1s_qty))", "0 to 1",
        "share of the price's variance that order flow explains", "Cont, Kukanov, Stoikov 2014",
    ),
    "response_bps_1s": Feature(
        _answer("return_1s", "(lag_1s signed_1s)"), "bps per deviation",
        "answer in the second after the flow: what is left to earn from it", "Bouchaud, Gefen, Potters, Wyart 2004",
    ),
    "response_bps_10s": Feature(
        _answer("(delta_10s log_mid)", "(lag_10s signed_1s)"), "bps per deviation", "answer in the 10 s after the flow",
        "Bouchaud, Gefen, Potters, Wyart 2004",
    ),
    "impact_asymmetry_bps_300s": Feature(
        f"(add {_answer('return_1s', '(sum_1s buy_usd)')} {_answer('return_1s', '(sum_1s sell_usd)')})",
        "bps per deviation", "answer to buying less that to selling: which side finds the thinner book",
    ),
    "spread_in_volatility_60s": Feature(
        "(ratio (mean_60s spread_bps) (sqrt (sum_60s square_bps)))", "ratio",
        "cost of a round trip in realised volatilities of a minute",
    ),
    "queue_in_trades_60s": Feature(
        "(log1p (ratio (mul mid (mean_60s depth_qty)) (ratio (sum_60s traded_usd) (sum_60s trade_count))))",
        "log count", "how many mean trades the best prices hold",
    ),
}  # fmt: skip

_TOXICITY: Final = {
    "vpin": Feature(
        "(vpin_50 buy_usd sell_usd bucket_usd)", "0 to 1",
        "one-sidedness of 50 buckets of volume, each a fiftieth of that of five minutes",
        "Easley, Lopez de Prado, O'Hara 2012",
    ),
    "vpin_change_60s": Feature(
        "(delta_60s (vpin_50 buy_usd sell_usd bucket_usd))", "-1 to 1", "whether flow is becoming toxic",
        "Easley, Lopez de Prado, O'Hara 2012",
    ),
    "one_sidedness_60s": Feature(
        "(ratio (sum_60s (abs signed_1s)) (sum_60s traded_1s))", "0 to 1", "the same by seconds instead of volume",
        "Easley, Engle, O'Hara, Wu 2008",
    ),
    "flow_divergence_60s": Feature(
        "(sub (zscore_60s (sum_10s signed_usd)) (zscore_60s (delta_10s log_mid)))", "deviations",
        "takers' flow beyond what the price followed: absorbed buying if positive",
    ),
    "flow_return_corr_60s": Feature(
        "(corr_60s signed_1s return_1s)", "-1 to 1", "whether the price follows takers"
    ),
    "maker_flow_5s": Feature(
        "(ratio (sum_5s maker_qty) (std_300s maker_qty))", "deviations of a bar",
        "order flow imbalance that no trade made: limit orders come less gone",
    ),
    "maker_taker_corr_60s": Feature(
        "(corr_60s (sum_1s maker_qty) (sum_1s (sub buy_qty sell_qty)))", "-1 to 1",
        "whether makers follow takers (1) or refill against them (-1)",
    ),
    "taker_share_60s": Feature(
        "(ratio (sum_60s (add buy_qty sell_qty)) (add (sum_60s (add buy_qty sell_qty)) (sum_60s (abs maker_qty))))",
        "0 to 1", "part of what happens at the best prices that is trading",
    ),
    "large_trade_share_60s": Feature(
        "(ratio (sum_60s large_usd) (sum_60s traded_usd))", "0 to 1", "share of volume in large trades"
    ),
    "large_trade_imbalance_60s": Feature(
        "(ratio (sum_60s (sub large_buy_usd large_sell_usd)) (sum_60s large_usd))", "-1 to 1", "side of large trades"
    ),
    "large_trade_count_60s": Feature("(log1p (sum_60s large_count))", "log count", "how many large trades there were"),
    "large_trade_count_share_60s": Feature(
        "(ratio (sum_60s large_count) (sum_60s trade_count))", "0 to 1", "share of trades that are large"
    ),
    "largest_trade_share_60s": Feature(
        "(ratio (max_60s max_trade_usd) (sum_60s traded_usd))", "0 to 1", "share of the largest trade in the volume"
    ),
    "size_entropy_60s": Feature(
        "(if_gt (sum_60s trade_count) 1 (ratio (log (ratio (mul (sum_60s traded_usd) (sum_60s traded_usd))"
        " (sum_60s square_usd))) (log (max2 1 (sum_60s trade_count)))) 0)", "0 to 1",
        "entropy of order 2 of the trades' sizes: 1 all alike, 0 one holds the volume", "Renyi 1961",
    ),
    "size_tilt_10s": Feature(
        "(sub (ratio (sum_10s signed_usd) (sum_10s traded_usd)) (ratio (sum_10s signed_count) (sum_10s trade_count)))",
        "-2 to 2", "side of the larger trades: imbalance in money less that in trades",
    ),
    "side_entropy_10s": Feature(
        f"(add {_entropy('buy_share')} {_entropy('(sub 1 buy_share)')})", "0 to 1",
        "entropy of the trades' sides in bits: 0 all one way (or none)", "Shannon 1948",
    ),
    "sign_autocorr_60s": Feature(
        "(corr_60s (sign signed_1s) (lag_1s (sign signed_1s)))", "-1 to 1", "how persistent takers' side is",
        "Lillo, Farmer 2004",
    ),
    "signed_run_60s": Feature(
        "(ratio (run_60s signed_1s) (run_60s 1))", "-1 to 1", "how long flow has had its side, in minutes"
    ),
    "hawkes_rate_2s": Feature(
        "(ratio (ewm_mean_2s trade_count) (ewm_mean_60s trade_count))", "ratio",
        "intensity of trades, excitation of 2 s half-life against that of 60 s", "Hawkes 1971",
    ),
    "hawkes_imbalance_2s": Feature(
        "(ratio (ewm_mean_2s signed_count) (ewm_mean_2s trade_count))", "-1 to 1", "side of the excited trades",
        "Bacry, Muzy 2014",
    ),
    "branching_300s": Feature(
        "(if_gt fano_5s 1 (sub 1 (div 1 (sqrt fano_5s))) 0)", "0 to 1",
        "share of trades that other trades set off, by the variance of counts", "Hardiman, Bouchaud 2014",
    ),
}  # fmt: skip

SETS: Final = {"micro": _MICRO, "toxicity": _TOXICITY}
