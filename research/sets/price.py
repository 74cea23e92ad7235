"""The set `realized`: volatility as the literature estimates it, and momentum of price and volume.

Returns of one second overlap from bar to bar; means of their squares and products are thus averages over all the grids
of seconds that the bars allow (subsampling: Zhang, Mykland, Ait-Sahalia, J. American Statistical Association 100(472),
2005).
Candles are those of the last 10 s, at each bar anew; a candle opens where the one before closed. Highs and lows are
those of the mid.
"""

import math
from typing import Final

from research.sets.feature import Feature

DEFINITIONS: Final = {
    "return_1s": "(delta_1s log_mid)",
    "square_1s": "(mul return_1s return_1s)",
    "away_1s": "(abs return_1s)",
    "square_bps": "(mul bar_return_bps bar_return_bps)",
    "candle_up": "(log (div (max_10s high_price) (lag_10s close_price)))",
    "candle_down": "(log (div (min_10s low_price) (lag_10s close_price)))",
    "candle_close": "(delta_10s log_mid)",
    "bipower_1s": f"(mul {math.pi / 2!r} (mul away_1s (lag_1s away_1s)))",
    "middle_1s": (
        "(max2 (min2 away_1s (lag_1s away_1s)) (min2 (max2 away_1s (lag_1s away_1s)) (lag_2s away_1s)))"
    ),
    "garman_klass": (
        "(sub (mul 0.5 (mul (sub candle_up candle_down) (sub candle_up candle_down)))"
        f" (mul {2 * math.log(2) - 1!r} (mul candle_close candle_close)))"
    ),
    "rogers_satchell": (
        "(add (mul candle_up (sub candle_up candle_close)) (mul candle_down (sub candle_down candle_close)))"
    ),
    "traded_1s": "(sum_1s traded_usd)",
    "vwap_300s": "(div (sum_300s volume_usd) (sum_300s volume_qty))",
}  # fmt: skip
"""Names for use in features, beside those that all sets share."""

_MED: Final = math.pi / (6 - 4 * math.sqrt(3) + math.pi)
_ABDL: Final = "Andersen, Bollerslev, Diebold, Labys 2003"
_BNS: Final = "Barndorff-Nielsen, Shephard 2004"
_BNKS: Final = "Barndorff-Nielsen, Kinnebrock, Shephard 2010"

_REALIZED: Final = {
    **{
        f"realized_bps_{w}": Feature(
            f"(sqrt (sum_{w} square_bps))", "bps", f"realised volatility over {w}, of the bars' returns", _ABDL
        )
        for w in ("60s", "300s", "900s")
    },
    "bipower_bps_300s": Feature(
        "(mul 1e4 (sqrt (mul 300 (mean_300s bipower_1s))))", "bps", "realised volatility without its jumps", _BNS
    ),
    "jump_share_300s": Feature(
        "(max2 0 (ratio (sub (mean_300s square_1s) (mean_300s bipower_1s)) (mean_300s square_1s)))", "0 to 1",
        "share of the realised variance that jumps made", _BNS,
    ),
    "median_bps_300s": Feature(
        f"(mul 1e4 (sqrt (mul {300 * _MED!r} (mean_300s (mul middle_1s middle_1s)))))", "bps",
        "realised volatility by the middle of three returns: robust to jumps and to seconds without a move",
        "Andersen, Dobrev, Schaumburg 2012",
    ),
    "parkinson_bps_300s": Feature(
        f"(sqrt (div (mean_300s (mul range_bps range_bps)) {4 * math.log(2)!r}))", "bps of 10 s",
        "volatility from highs and lows", "Parkinson 1980",
    ),
    "garman_klass_bps_300s": Feature(
        "(mul 1e4 (sqrt (max2 0 (mean_300s garman_klass))))", "bps of 10 s", "volatility from whole candles",
        "Garman, Klass 1980",
    ),
    "rogers_satchell_bps_300s": Feature(
        "(mul 1e4 (sqrt (max2 0 (mean_300s rogers_satchell))))", "bps of 10 s",
        "volatility from whole candles, whatever the drift", "Rogers, Satchell 1991",
    ),
    "volatility_of_volatility_300s": Feature(
        "(ratio (std_300s (std_10s bar_return_bps)) (mean_300s (std_10s bar_return_bps)))", "ratio",
        "how much the volatility of 10 s varies, in its own mean",
    ),
    "volatility_term_60s_900s": Feature(
        "(ratio (sub (mean_60s square_bps) (mean_900s square_bps)) (add (mean_60s square_bps) (mean_900s square_bps)))",
        "-1 to 1", "variance now against that of a quarter of an hour",
    ),
    "volatility_change_60s": Feature(
        "(ratio (sub (sum_60s square_bps) (lag_60s (sum_60s square_bps)))"
        " (add (sum_60s square_bps) (lag_60s (sum_60s square_bps))))", "-1 to 1",
        "this minute's variance and the last's",
    ),
    "upside_bps_300s": Feature(
        "(sqrt (sum_300s (mul square_bps (gt bar_return_bps 0))))", "bps", "realised volatility of rises", _BNKS
    ),
    "downside_bps_300s": Feature(
        "(sqrt (sum_300s (mul square_bps (lt bar_return_bps 0))))", "bps", "realised volatility of falls", _BNKS
    ),
    "semivariance_balance_300s": Feature(
        "(ratio (sum_300s (mul square_bps (sign bar_return_bps))) (sum_300s square_bps))", "-1 to 1",
        "variance of rises less that of falls: signed jumps", "Patton, Sheppard 2015",
    ),
    "return_skew_300s": Feature("(skew_300s return_1s)", "none", "skewness of the returns of a second"),
    "return_kurt_300s": Feature("(kurt_300s return_1s)", "none", "how heavy their tails are"),
    "leverage_300s": Feature(
        "(corr_300s return_1s (delta_1s (std_10s bar_return_bps)))", "-1 to 1",
        "whether volatility rises when the price falls", "Black 1976",
    ),
}  # fmt: skip

_MOMENTUM: Final = {
    "return_autocorr_300s": Feature(
        "(corr_300s return_1s (lag_1s return_1s))", "-1 to 1", "whether a second's return goes on or back"
    ),
    "variance_ratio_300s": Feature(
        "(ratio (mean_300s (mul candle_close candle_close)) (mul 10 (mean_300s square_1s)))", "ratio",
        "variance of 10 s against ten of 1 s: above 1 trends, below 1 reverts", "Lo, MacKinlay 1988",
    ),
    "efficiency_60s": Feature(
        "(ratio (delta_60s log_mid) (sum_60s (abs (delta_1 log_mid))))", "-1 to 1",
        "net move over the path walked: 1 is a straight rise", "Kaufman 1995",
    ),
    "trend_60s": Feature(
        "(ratio (mul 1e4 (delta_60s log_mid)) (sqrt (sum_60s square_bps)))", "deviations",
        "the minute's return in its own realised volatility",
    ),
    "average_gap_10s_60s": Feature(
        "(ratio (mul 1e4 (sub (mean_10s log_mid) (mean_60s log_mid))) (sqrt (sum_60s square_bps)))", "deviations",
        "fast mean of the price against the slow one", "Appel 1979",
    ),
    "aroon_300s": Feature(
        "(ratio (sub (argmin_300s low_price) (argmax_300s high_price)) (sub (run_300s 1) 1))", "-1 to 1",
        "whether the high is younger than the low", "Chande 1995",
    ),
    "drawdown_bps_300s": Feature(
        "(mul 1e4 (log (div close_price (max_300s high_price))))", "bps", "below the high of five minutes"
    ),
    "run_up_bps_300s": Feature(
        "(mul 1e4 (log (div close_price (min_300s low_price))))", "bps", "above the low of five minutes"
    ),
    "vwap_gap_bps_300s": Feature(
        "(if_gt (sum_300s volume_qty) 0 (mul 1e4 (sub (div close_price vwap_300s) 1)) 0)", "bps",
        "mid against the mean price of what was traded",
    ),
    "money_flow_60s": Feature(
        "(ratio (sum_60s (mul traded_usd (sign (sub close_price open_price)))) (sum_60s traded_usd))", "-1 to 1",
        "volume of rising bars less that of falling ones", "Quong, Soudack 1989",
    ),
    "volume_momentum_10s_300s": Feature(
        "(ratio (sub (mean_10s traded_usd) (mean_300s traded_usd)) (add (mean_10s traded_usd) (mean_300s traded_usd)))",
        "-1 to 1", "volume now against that of five minutes",
    ),
    "volume_acceleration_10s": Feature(
        "(ratio (delta_10s (sub (sum_10s traded_usd) (lag_10s (sum_10s traded_usd)))) (sum_60s traded_usd))",
        "shares of a minute", "whether the rise of the volume is itself rising",
    ),
    "volume_variation_300s": Feature(
        "(ratio (std_300s traded_1s) (mean_300s traded_1s))", "ratio", "how bursty the volume of a second is"
    ),
    "volume_volatility_corr_300s": Feature(
        "(corr_300s away_1s traded_1s)", "-1 to 1", "whether volume comes with moves", "Karpoff 1987"
    ),
}  # fmt: skip

SETS: Final = {"realized": _REALIZED | _MOMENTUM}
