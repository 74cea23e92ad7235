"""What is familiar by other names than it has here: indicators of charts, and the line of the language that is each."""

from typing import Final

_TRUE_RANGE: Final = "(sub (max2 high_price (lag_1 close_price)) (min2 low_price (lag_1 close_price)))"

RECIPES: Final[dict[str, tuple[str, str, str]]] = {
    "rsi": (
        "(mul 100 (ratio (sum_14 (max2 (delta_1 close_price) 0)) (sum_14 (abs (delta_1 close_price)))))",
        "0 to 100",
        "relative strength index of 14 bars with plain sums (Cutler's)",
    ),
    "macd": (
        "(mul 1e4 (div (sub (ewm_mean_4 close_price) (ewm_mean_9 close_price)) close_price))",
        "bps",
        "moving averages' convergence: half-lives of 4 and 9 bars are the spans 12 and 26",
    ),
    "atr": (
        f"(mul 1e4 (div (mean_14 {_TRUE_RANGE}) close_price))",
        "bps",
        "average true range of 14 bars",
    ),
    "bollinger": ("(zscore_20 close_price)", "", "place in Bollinger's bands: 2 is the upper one, -2 the lower"),
    "stochastic": (
        "(ratio (sub close_price (min_14 low_price)) (sub (max_14 high_price) (min_14 low_price)))",
        "0 to 1",
        "place of the close in the range of 14 bars (%K), in Donchian's channel",
    ),
    "obv": (
        "(sum_300 (mul (sign (delta_1 close_price)) volume_qty))",
        "base",
        "on-balance volume, of 300 bars since a sum without end is of no scale",
    ),
    "cvd": ("(sum_300 signed_usd)", "usd", "cumulative volume delta of 300 bars"),
    "vwap_gap": (
        "(mul 1e4 (sub (div close_price (div (sum_300 volume_usd) (sum_300 volume_qty))) 1))",
        "bps",
        "close against the volume-weighted average price of 300 bars; of one bar: the definition vwap",
    ),
}
"""Name: expression over columns and definitions on bars of any clock, unit, what it says."""

MEANT: Final[dict[str, tuple[str, ...]]] = {name: (name,) for name in RECIPES} | {
    "vwap": ("vwap_gap",),
    "moving average": ("mean", "ewm_mean"),
    "sma": ("mean",),
    "ema": ("ewm_mean",),
    "ewma": ("ewm_mean",),
    "exponential moving average": ("ewm_mean",),
    "average": ("mean", "ewm_mean"),
    "rolling sum": ("sum",),
    "standard deviation": ("std", "ewm_std"),
    "volatility": ("std", "ewm_std", "ewm_vol"),
    "z score": ("zscore",),
    "bollinger": ("bollinger", "zscore"),
    "bollinger bands": ("bollinger", "zscore"),
    "relative strength": ("rsi",),
    "average true range": ("atr",),
    "on balance volume": ("obv",),
    "cumulative volume delta": ("cvd",),
    "donchian": ("stochastic",),
    "obi": ("imbalance",),
    "book imbalance": ("imbalance",),
    "roc": ("delta", "return_bps"),
    "shift": ("lag",),
    "diff": ("delta",),
    "percentile": ("rank", "quantile"),
}
"""What a phrase of a question stands for, beside what says the phrase: names of operators, features and recipes."""
