"""The sets `fractal` (shape, roughness and surprise of the path) and `regime` (which kind of market this is).

Williams' fractals are known only once as many bars have passed after them as before: the formulas wait for those. A top
of equal highs counts once, at its last bar.

The wavelet is Haar's in the maximal overlap transform (Percival, Walden, "Wavelet Methods for Time Series Analysis",
2000, section 5): its coefficient at the scale of T bars is half the mean of the last T less half the mean of the T
before, causal as it stands. Energy shares are of the scales listed, which are bars.

The fractional difference is taken of the mid less its own mean in the window: weights that are cut off add up to more
than 0, and would let the price level through. Its order, 0.4, is a middle one. Stage `fit` finds the least that will
do, of the mid itself (`fractional_level_bps`): about its own mean a series is stationary at any order.
"""

from typing import Final

from research.sets.feature import Feature

_WINGS: Final = ("1s", "5s", "30s")
_SCALES: Final = (1, 2, 4, 8, 16, 32, 64)


def _fractal(side: str, column: str, wing: str) -> str:
    """1 in the bar that confirms a fractal: `column` of a wing ago is beyond the wing after it and the wing before."""
    beyond, at_least = {"max": ("gt", "ge"), "min": ("lt", "le")}[side]
    there, after = f"(lag_{wing} {column})", f"({side}_{wing} {column})"
    return f"(mul ({beyond} {there} {after}) ({at_least} {there} (lag_1 (lag_{wing} {after}))))"


def _total(terms: list[str]) -> str:
    return terms[0] if len(terms) == 1 else f"(add {terms[0]} {_total(terms[1:])})"


def fractional_bps(window: str, order: float) -> str:
    """The fractional difference of the log mid about its mean in the window, in bps."""
    mean = f"(mul (fracdiff_{window} 1 {order!r}) (mean_{window} log_mid))"
    return f"(mul 1e4 (sub (fracdiff_{window} log_mid {order!r}) {mean}))"


def fractional_level_bps(window: str, order: float) -> str:
    """The fractional difference of the log mid, in bps (Lopez de Prado 2018, section 5.5): it remembers the level."""
    return f"(mul 1e4 (fracdiff_{window} log_mid {order!r}))"


DEFINITIONS: Final = {
    **{f"is_top_{w}": _fractal("max", "high_price", w) for w in _WINGS},
    **{f"is_bottom_{w}": _fractal("min", "low_price", w) for w in _WINGS},
    **{f"haar_{k}": f"(mul 0.5 (sub (mean_{k} log_mid) (lag_{k} (mean_{k} log_mid))))" for k in _SCALES},
    **{f"energy_{k}": f"(mean_300s (mul haar_{k} haar_{k}))" for k in _SCALES},
    "energy": _total([f"energy_{k}" for k in _SCALES]),
    "path_300s": "(sum_300s (abs (delta_1 log_mid)))",
    "reach_300s": "(max2 (sub (max_300s log_mid) (lag_300s log_mid)) (sub (lag_300s log_mid) (min_300s log_mid)))",
    "log_bars_300s": "(log (run_300s 1))",
    "now_s": "(add (mul 86400 day) second_of_day)",
    "return_60s": "(delta_60s log_mid)",
}
"""Names for use in features, beside those that all sets share."""

_WILLIAMS: Final = "Williams 1995"
_HAAR: Final = "Percival, Walden 2000"

_FRACTAL: Final = {
    **{
        f"{name}_age_{w}": Feature(
            f"(log1p (if_gt (max_300s is_{name}_{w}) 0 (argmax_300s is_{name}_{w}) (run_300s 1)))", "log bars",
            f"since a fractal {word} with wings of {w} was confirmed, five minutes at most", _WILLIAMS,
        )
        for w in _WINGS
        for name, word in (("top", "high"), ("bottom", "low"))
    },
    **{
        f"{name}_gap_bps_{w}": Feature(
            f"(if_gt (max_300s is_{name}_{w}) 0 (mul 1e4 (log (div close_price"
            f" (latest_300s (lag_{w} {word}_price) is_{name}_{w})))) 0)",
            "bps", f"the mid against the last fractal {word} of wings of {w}; 0 without one in five minutes", _WILLIAMS,
        )
        for w in _WINGS
        for name, word in (("top", "high"), ("bottom", "low"))
    },
    "fractal_rate_300s": Feature(
        "(mean_300s (add is_top_5s is_bottom_5s))", "per bar", "how often the path turns at the scale of 5 s", _WILLIAMS
    ),
    **{
        f"hurst_{w}": Feature(f"(hurst_{w} bar_return_bps)", "none", "memory of returns by R/S: 0.5 has none",
                              "Anis, Lloyd 1976")
        for w in ("60s", "300s")
    },
    **{
        f"dfa_{w}": Feature(f"(dfa_{w} bar_return_bps)", "none", "memory of returns about local trends: 0.5 has none",
                            "Peng et al. 1994")
        for w in ("60s", "300s")
    },
    "dfa_volatility_60s": Feature("(dfa_60s (abs bar_return_bps))", "none", "memory of the size of returns",
                                   "Peng et al. 1994"),
    "higuchi_300s": Feature("(higuchi_300s log_mid)", "1 to 2", "roughness of the path: 1.5 is a random walk",
                            "Higuchi 1988"),
    "katz_300s": Feature(
        "(if_gt path_300s 0 (div log_bars_300s (add log_bars_300s (log (max2 (div reach_300s path_300s)"
        " (exp (mul -0.5 log_bars_300s)))))) 1)",
        "1 to 2", "path walked against the distance reached, 2 at most", "Katz 1988",
    ),
    "shannon_300s": Feature("(shannon_300s bar_return_bps)", "0 to 1", "how evenly returns fill their range",
                            "Shannon 1948"),
    "permutation_60s": Feature("(permen_60s return_1s)", "0 to 1", "how evenly returns take all orders of three",
                               "Bandt, Pompe 2002"),
    "permutation_300s": Feature("(permen_300s return_1s)", "0 to 1", "the same over five minutes",
                                "Bandt, Pompe 2002"),
    "sample_entropy_30s": Feature("(sampen_30s bar_return_bps)", "none", "how little a pattern says of what follows",
                                  "Richman, Moorman 2000"),
    **{
        f"wavelet_share_{k}": Feature(f"(ratio energy_{k} energy)", "0 to 1",
                                      f"share of the scale of {k} bars in the energy of the path", _HAAR)
        for k in _SCALES
    },
    "fractional_bps_60s": Feature(fractional_bps("60s", 0.4), "bps", "the mid, differenced to the order 0.4",
                                  "Lopez de Prado 2018, ch. 5"),
}  # fmt: skip

_REGIME: Final = {
    "variance_ratio_1s_300s": Feature(
        "(ratio (mul 1e8 (mean_300s square_1s)) (mul (run_1s 1) (mean_300s square_bps)))", "ratio",
        "variance of 1 s against that of its bars: below 1 the quotes bounce", "Lo, MacKinlay 1988",
    ),
    "variance_ratio_60s_900s": Feature(
        "(ratio (mean_900s (mul return_60s return_60s)) (mul 60 (mean_900s square_1s)))", "ratio",
        "variance of a minute against sixty of 1 s: above 1 trends", "Lo, MacKinlay 1988",
    ),
    **{
        f"straightness_{w}": Feature(
            f"(ratio (abs (delta_{w} log_mid)) (sum_{w} (abs (delta_1 log_mid))))", "0 to 1",
            "net move over the path walked, of either sign", "Kaufman 1995",
        )
        for w in ("10s", "300s")
    },
    "trend_fit_300s": Feature("(corr_300s log_mid now_s)", "-1 to 1", "how well a straight line fits the mid"),
    "bar_autocorr_60s": Feature("(autocorr_60s bar_return_bps)", "-1 to 1", "whether a bar's return goes on or back"),
    "volatility_autocorr_300s": Feature(
        "(corr_300s (abs return_1s) (lag_1s (abs return_1s)))", "-1 to 1", "whether volatility clusters", "Engle 1982"
    ),
    "volatility_rank_300s": Feature(
        "(rank_300s (std_10s bar_return_bps))", "0 to 1", "where volatility stands among those of five minutes"
    ),
    "volatility_ratio_30s_900s": Feature(
        "(ratio (std_30s bar_return_bps) (std_900s bar_return_bps))", "ratio", "volatility against 15 minutes of it"
    ),
    "spread_rank_300s": Feature(
        "(rank_300s spread_bps)", "0 to 1", "where the spread stands among those of five minutes"
    ),
    "activity_ratio_30s_900s": Feature(
        "(ratio (mean_30s trade_count) (mean_900s trade_count))", "ratio", "trades against 15 minutes of them"
    ),
    "empty_share_60s": Feature("(mean_60s is_empty)", "0 to 1", "share of bars in which nothing happened"),
}  # fmt: skip

SETS: Final = {"fractal": _FRACTAL, "regime": _REGIME}
