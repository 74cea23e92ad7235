"""The sets `cascade` (forced closings that set off more of them) and `carry` (open interest, funding, basis, premium).

A liquidated long sells, a liquidated short buys: the signs follow what is done to the price. Sizes are those of bars
that hold a liquidation, in logarithms: venues publish few liquidations and the sizes span five decades.
"""

from typing import Final

from research.sets.feature import Feature, or_zero

DEFINITIONS: Final = {
    "liq_signed_usd": "(sub liq_short_usd liq_long_usd)",
    "liq_10s_usd": "(sum_10s liq_usd)",
    "has_liq": "(gt liq_usd 0)",
    "liq_size": "(if_gt liq_usd 0 (log liq_usd) 0)",
    "liq_square": "(mul liq_size liq_size)",
    "liq_bars": "(sum_300s has_liq)",
    "liq_mean": "(ratio (sum_300s liq_size) liq_bars)",
    "liq_mean_2": "(ratio (sum_300s liq_square) liq_bars)",
    "liq_mean_3": "(ratio (sum_300s (mul liq_square liq_size)) liq_bars)",
    "liq_mean_4": "(ratio (sum_300s (mul liq_square liq_square)) liq_bars)",
    "liq_m2": "(max2 0 (sub liq_mean_2 (mul liq_mean liq_mean)))",
    "liq_m3": "(sub liq_mean_3 (mul liq_mean (sub (mul 3 liq_mean_2) (mul 2 (mul liq_mean liq_mean)))))",
    "liq_m4": (
        "(sub liq_mean_4 (mul liq_mean (sub (mul 4 liq_mean_3)"
        " (mul liq_mean (sub (mul 6 liq_mean_2) (mul 3 (mul liq_mean liq_mean)))))))"
    ),
    "liq_skew": "(if_gt liq_m2 1e-6 (div liq_m3 (mul liq_m2 (sqrt liq_m2))) 0)",
    "liq_kurt": "(if_gt liq_m2 1e-6 (sub (div liq_m4 (mul liq_m2 liq_m2)) 3) 0)",
    "liq_full_skew": (  # both corrected for the size of the sample
        "(mul liq_skew (div (sqrt (mul liq_bars (sub liq_bars 1))) (sub liq_bars 2)))"
    ),
    "liq_full_kurt": (
        "(mul (add (mul (add liq_bars 1) liq_kurt) 6)"
        " (div (sub liq_bars 1) (mul (sub liq_bars 2) (sub liq_bars 3))))"
    ),
    "liq_seconds": "(sum_1s liq_count)",
    "liq_peak_usd": "(max_60s liq_10s_usd)",
    "is_cascade": "(gt liq_10s_usd (max2 (mul 0.1 (sum_10s traded_usd)) (mul 3 (div (sum_300s liq_usd) 30))))",
    "interest_step": "(delta_10s open_interest)",
    "told_index_basis_bps": "(mul 1e4 (sub (div mid index_price) 1))",
    "index_basis_bps": or_zero("told_index_basis_bps"),
    "index_return_1s": "(delta_1s (log index_price))",
}  # fmt: skip
"""Names for use in features, beside those that all sets share."""

_SARLE: Final = "Pfister, Schwarz, Janczyk, Dale, Freeman 2013"

_CASCADE: Final = {
    "liq_burst_z_300s": Feature(
        "(zscore_300s liq_10s_usd)", "deviations", "liquidations of 10 s against those of five minutes"
    ),
    "liq_velocity_10s": Feature(
        "(ratio (delta_10s liq_10s_usd) (sum_60s traded_usd))", "shares of a minute's volume",
        "whether liquidations grow",
    ),
    "liq_acceleration_10s": Feature(
        "(ratio (delta_10s (delta_10s liq_10s_usd)) (sum_60s traded_usd))", "shares of a minute's volume",
        "whether they grow faster",
    ),
    "liq_long_short_log_300s": Feature(
        "(sub (log1p (ratio (sum_300s liq_long_usd) (mean_300s traded_1s)))"
        " (log1p (ratio (sum_300s liq_short_usd) (mean_300s traded_1s))))", "log ratio",
        "longs liquidated to shorts, each beside a second's volume",
    ),
    "liq_asymmetry_300s": Feature(
        "(ratio (sub (max_300s liq_short_usd) (max_300s liq_long_usd))"
        " (add (max_300s liq_short_usd) (max_300s liq_long_usd)))", "-1 to 1",
        "side of the largest liquidation: 1 a short's",
    ),
    "liq_impact_bps_300s": Feature(
        "(sum_300s (mul bar_return_bps has_liq))", "bps", "what the mid moved in bars with liquidations, added up"
    ),
    "liq_impact_share_300s": Feature(
        "(ratio (sum_300s (mul (abs bar_return_bps) has_liq)) (sum_300s (abs bar_return_bps)))", "0 to 1",
        "share of the path of the mid that was walked in them",
    ),
    "liq_recoil_bps_10s": Feature(
        "(mul (mul 1e4 (delta_10s log_mid)) (sign (lag_10s (sum_10s liq_signed_usd))))", "bps",
        "what the mid went on in the direction of the liquidations of 10 s before: below 0 it came back",
    ),
    "liq_size_skew_300s": Feature("liq_skew", "none", "skewness of the sizes: few large ones if positive"),
    "liq_size_kurt_300s": Feature("liq_kurt", "none", "excess kurtosis of the sizes"),
    "liq_size_bimodality_300s": Feature(
        "(if_gt (mul liq_m2 (gt liq_bars 3)) 1e-6 (div (add (mul liq_full_skew liq_full_skew) 1)"
        " (add liq_full_kurt (div (mul 3 (mul (sub liq_bars 1) (sub liq_bars 1)))"
        " (mul (sub liq_bars 2) (sub liq_bars 3))))) 0)", "0 to 1",
        "Sarle's coefficient: above 5/9 the sizes come in two kinds, retail and large", _SARLE,
    ),
    "liq_concentration_60s": Feature(
        "(ratio (max_60s liq_max_usd) (sum_60s liq_usd))", "0 to 1", "share of the largest single liquidation"
    ),
    "liq_herfindahl_300s": Feature(
        "(ratio (sum_300s liq_square_usd) (mul (sum_300s liq_usd) (sum_300s liq_usd)))", "0 to 1",
        "concentration of what was liquidated: 1 a single one", "Herfindahl 1950",
    ),
    "liq_clustering_300s": Feature(
        "(ratio (sum_300s (mul has_liq (gt (lag_1 (sum_5s liq_usd)) 0))) liq_bars)", "0 to 1",
        "share of liquidations that follow another within 5 s",
    ),
    "liq_dispersion_300s": Feature(
        "(log1p (ratio (mul (std_300s liq_seconds) (std_300s liq_seconds)) (mean_300s liq_seconds)))", "log ratio",
        "variance of their count in a second over its mean: above log 2 they come in bursts", "Fano 1947",
    ),
    "liq_hawkes_5s": Feature(
        "(ratio (ewm_mean_5s liq_count) (ewm_mean_120s liq_count))", "ratio",
        "their intensity, excitation of 5 s half-life against that of 120 s", "Hawkes 1971",
    ),
    "liq_quiet_300s": Feature(
        "(if_gt liq_bars 0 (ratio (argmax_300s has_liq) (run_300s 1)) 1)", "0 to 1",
        "time since the latest one, in five minutes",
    ),
    "liq_to_depth_10s": Feature(
        "(log1p (ratio liq_10s_usd (mul mid (mean_60s depth_qty))))", "log ratio",
        "liquidations in multiples of the size at the touch",
    ),
    "liq_to_interest_bps_300s": Feature(
        or_zero("(mul 1e4 (ratio (sum_300s liq_usd) (mul mid open_interest)))", "300s"), "bps",
        "share of open interest that was liquidated",
    ),
    "cascade_state": Feature(
        "(if_gt is_cascade 0 2 (if_gt (max_60s is_cascade) 0 3 (gt (sum_60s liq_usd) 0)))", "0 to 3",
        "0 none in a minute, 1 some, 2 a cascade (a tenth of the volume and thrice the usual rate), 3 one that is over",
    ),
    "cascade_decay_60s": Feature(
        "(ratio liq_10s_usd liq_peak_usd)", "0 to 1", "liquidations of 10 s against the minute's peak"
    ),
}  # fmt: skip

_INTEREST: Final = {
    "oi_change_bps_300s": Feature(
        or_zero("(mul 1e4 (ratio (delta_300s open_interest) (lag_300s open_interest)))", "300s"), "bps",
        "change of open interest",
    ),
    "oi_velocity_10s": Feature(
        or_zero("(ratio interest_step (std_300s interest_step))", "310s"), "deviations",
        "its change in 10 s against the usual one",
    ),
    "oi_acceleration_10s": Feature(
        or_zero("(ratio (delta_10s interest_step) (std_300s interest_step))", "310s"), "deviations",
        "the change of that change",
    ),
    "oi_to_volume_60s": Feature(
        or_zero("(ratio (delta_60s open_interest) (sum_60s volume_qty))", "60s"), "-1 to 1",
        "share of the volume that opened positions",
    ),
    "oi_return_corr_300s": Feature(
        or_zero("(corr_300s interest_step candle_close)", "310s"), "-1 to 1",
        "whether positions are opened as the price rises: new longs, or shorts that cover if negative",
    ),
}  # fmt: skip

_FUNDING: Final = {
    "funding_velocity_bps_300s": Feature(
        or_zero("(delta_300s told_funding_bps)", "300s"), "bps", "change of the funding estimate"
    ),
    "funding_acceleration_bps_300s": Feature(
        or_zero("(sub (delta_300s told_funding_bps) (lag_300s (delta_300s told_funding_bps)))", "600s"), "bps",
        "the change of that change",
    ),
    "funding_z_900s": Feature(
        or_zero("(zscore_900s told_funding_bps)", "900s"), "deviations", "the estimate against a quarter of an hour"
    ),
    "funding_near_bps": Feature(
        "(mul funding_bps (exp (neg (div (coalesce (max2 0 funding_s) 28800) 900))))", "bps",
        "funding that is due soon: its weight falls by e in a quarter of an hour",
    ),
}  # fmt: skip

_BASIS: Final = {
    "index_basis_bps": Feature("index_basis_bps", "bps", "mid against index: what the contract costs over spot"),
    "index_basis_velocity_60s": Feature(or_zero("(delta_60s told_index_basis_bps)", "60s"), "bps", "its change"),
    "index_basis_acceleration_60s": Feature(
        or_zero("(sub (delta_60s told_index_basis_bps) (lag_60s (delta_60s told_index_basis_bps)))", "120s"), "bps",
        "the change of that change",
    ),
    "index_basis_z_900s": Feature(
        or_zero("(zscore_900s told_index_basis_bps)", "900s"), "deviations", "the same against a quarter of an hour"
    ),
    "premium_z_300s": Feature(
        or_zero("(zscore_300s told_premium_bps)", "300s"), "deviations", "mark against index, by five minutes"
    ),
    "premium_funding_gap_bps": Feature(
        or_zero("(sub (mean_300s told_premium_bps) told_funding_bps)", "300s"), "bps",
        "premium beyond what funding will take: it tends to close",
    ),
    "basis_reversion_300s": Feature(
        or_zero("(neg (beta_300s (delta_1s told_index_basis_bps) (lag_1s told_index_basis_bps)))", "301s"),
        "share per second",
        "how much of a deviation of the basis is gone a second later",
    ),
    "index_lead_300s": Feature(
        or_zero(
            "(sub (corr_300s return_1s (lag_1s index_return_1s)) (corr_300s index_return_1s (lag_1s return_1s)))",
            "302s",
        ),
        "-2 to 2", "whether the index goes first (positive) or the contract",
    ),
}  # fmt: skip

SETS: Final = {"cascade": _CASCADE, "carry": _INTEREST | _FUNDING | _BASIS}
