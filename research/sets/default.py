"""The eight sets of the default study, and the names that all sets share.

Sources: OFI and its scaling by depth: Cont, Kukanov, Stoikov, "The Price Impact of Order Book Events", J. Financial
Econometrics 12(1), 2014. Microprice at the best level: Gatheral, Oomen, "Zero-intelligence realized variance
estimation", Finance and Stochastics 14(2), 2010. Range volatility: Parkinson, J. Business 53(1), 1980.
"""

from typing import Final

from core.units import NS_PER_DAY, NS_PER_S
from research.sets.feature import Feature, or_zero

DEFINITIONS: Final = {
    "mid": "(mul 0.5 (add bid_price ask_price))",
    "spread_bps": "(mul 1e4 (div (sub ask_price bid_price) mid))",
    "depth_qty": "(add bid_qty ask_qty)",
    "imbalance": "(ratio (sub bid_qty ask_qty) depth_qty)",
    "micro_edge_bps": "(mul 0.5 (mul spread_bps imbalance))",  # microprice against mid
    "log_mid": "(log close_price)",
    "bar_return_bps": "(mul 1e4 (delta_1 log_mid))",
    "traded_usd": "(add buy_usd sell_usd)",
    "volume_usd": "traded_usd",
    "volume_qty": "(add buy_qty sell_qty)",
    "vwap": "(coalesce (div volume_usd volume_qty) mid)",  # the bar's; the mid where nothing was traded
    "signed_usd": "(sub buy_usd sell_usd)",
    "trade_count": "(add buy_count sell_count)",
    "signed_count": "(sub buy_count sell_count)",
    "liq_usd": "(add liq_long_usd liq_short_usd)",
    "told_basis_bps": "(mul 1e4 (sub (div mid mark_price) 1))",
    "told_premium_bps": "(mul 1e4 (sub (div mark_price index_price) 1))",
    "told_funding_bps": "(mul 1e4 funding_rate)",
    "basis_bps": or_zero("told_basis_bps"),
    "premium_bps": or_zero("told_premium_bps"),
    "funding_bps": or_zero("told_funding_bps"),
    "range_bps": "(mul 1e4 (log (div (max_10s high_price) (min_10s low_price))))",
}
"""Names for use in features, `features.mine` included, beside the columns and the catalogue's own features.

`told_` ones are not known where the venue has told nothing: windows take these, and not the 0 that stands for it.
"""

_FAST: Final = ("1s", "2s", "5s", "10s", "30s", "60s")
_ASIA, _EUROPE, _US = (0, 8), (7, 16), (13, 21)  # hours UTC
_OFI: Final = "Cont, Kukanov, Stoikov 2014"
_MICRO: Final = "Gatheral, Oomen 2010"


def _session(name: str, hours: tuple[int, int]) -> Feature:
    opens, closes = hours[0] * 3600, hours[1] * 3600
    text = f"(mul (ge second_of_day {opens}) (lt second_of_day {closes}))"
    return Feature(text, "0 or 1", f"the session of {name}, {hours[0]:02} to {hours[1]:02} h UTC")


_TOB: Final = {
    "spread_bps": Feature("spread_bps", "bps", "what a round trip at the touch costs"),
    "spread_z_60s": Feature("(zscore_60s spread_bps)", "deviations", "the spread against its last minute"),
    "imbalance": Feature("imbalance", "-1 to 1", "share of bids less that of asks at the best prices"),
    "imbalance_mean_1s": Feature("(mean_1s imbalance)", "-1 to 1", "the same, smoothed"),
    "imbalance_mean_5s": Feature("(mean_5s imbalance)", "-1 to 1", "the same, smoothed"),
    "imbalance_change_1s": Feature("(delta_1s imbalance)", "-2 to 2", "where the queues are shifting"),
    "micro_edge_bps": Feature("micro_edge_bps", "bps", "mid weighted by the opposite size, against the mid", _MICRO),
    "micro_edge_mean_2s": Feature("(mean_2s micro_edge_bps)", "bps", "the same, smoothed", _MICRO),
    "depth_z_60s": Feature("(zscore_60s (log1p depth_qty))", "deviations", "size at the touch against its last minute"),
    "quote_rate_z_60s": Feature("(zscore_60s (sum_1s quote_count))", "deviations", "how busy the best quotes are"),
}

_ORDER_FLOW: Final = {
    "ofi_1": Feature("(ratio ofi_qty (std_300s ofi_qty))", "deviations", "order flow imbalance of this bar", _OFI),
    **{
        f"ofi_{w}": Feature(
            f"(ratio (sum_{w} ofi_qty) (std_300s ofi_qty))", "deviations of a bar", f"order flow imbalance of {w}", _OFI
        )
        for w in _FAST
    },
    **{
        f"ofi_balance_{w}": Feature(
            f"(ratio (sum_{w} ofi_qty) (sum_{w} (abs ofi_qty)))", "-1 to 1", "how one-sided the order flow is", _OFI
        )
        for w in ("1s", "5s")
    },
    "ofi_per_depth_5s": Feature(
        "(ratio (sum_5s ofi_qty) (mean_60s depth_qty))", "depths", "order flow in multiples of the size at the touch",
        _OFI,
    ),
    "ofi_turn_5s": Feature(
        "(ratio (sub (sum_1s ofi_qty) (lag_5s (sum_1s ofi_qty))) (std_300s ofi_qty))", "deviations of a bar",
        "this second's order flow less that of 5 s ago", _OFI,
    ),
}  # fmt: skip

_FLOW: Final = {
    "signed_flow_1": Feature(
        "(ratio signed_usd (std_300s signed_usd))", "deviations", "bought less sold by takers in this bar"
    ),
    **{
        f"signed_flow_{w}": Feature(
            f"(ratio (sum_{w} signed_usd) (std_300s signed_usd))", "deviations of a bar", f"the same over {w}"
        )
        for w in ("1s", "5s")
    },
    **{
        f"trade_imbalance_{w}": Feature(
            f"(ratio (sum_{w} signed_usd) (sum_{w} traded_usd))", "-1 to 1", f"takers' share bought less sold, {w}"
        )
        for w in _FAST
    },
    **{
        f"count_imbalance_{w}": Feature(
            f"(ratio (sum_{w} signed_count) (sum_{w} trade_count))", "-1 to 1", "the same, counted in trades"
        )
        for w in ("2s", "10s")
    },
    **{
        f"hit_{side}_notional_{w}": Feature(
            f"(log1p (sum_{w} {taker}_usd))", "log USD", f"how much was taken from the {side}s in {w}"
        )
        for w in ("1s", "10s")
        for side, taker in (("bid", "sell"), ("ask", "buy"))
    },
    **{
        f"hit_{side}_z_60s": Feature(
            f"(zscore_60s (log1p (sum_1s {taker}_usd)))", "deviations", "the same against its last minute"
        )
        for side, taker in (("bid", "sell"), ("ask", "buy"))
    },
    "trade_rate_z_60s": Feature("(zscore_60s (sum_1s trade_count))", "deviations", "how busy the tape is"),
    "trade_size_z_60s": Feature(
        "(zscore_60s (log1p (ratio (sum_5s traded_usd) (sum_5s trade_count))))", "deviations",
        "mean size of a trade against its last minute",
    ),
}  # fmt: skip

_MOMENTUM: Final = {
    "return_bps_1": Feature("bar_return_bps", "bps", "return of the mid in this bar"),
    **{
        f"return_bps_{w}": Feature(f"(mul 1e4 (delta_{w} log_mid))", "bps", f"return of the mid in {w}")
        for w in (*_FAST, "300s")
    },
    "return_z_60s": Feature("(zscore_60s (delta_2s log_mid))", "deviations", "return of 2 s against its last minute"),
    "position_in_range_60s": Feature(
        "(ratio (sub close_price (min_60s low_price)) (sub (max_60s high_price) (min_60s low_price)))", "0 to 1",
        "where the mid stands between the minute's low and high",
    ),
    "distance_from_mean_60s": Feature(
        "(mul 1e4 (sub (div close_price (mean_60s close_price)) 1))", "bps", "the mid against its mean"
    ),
}  # fmt: skip

_VOLATILITY: Final = {
    **{
        f"volatility_bps_{w}": Feature(f"(std_{w} bar_return_bps)", "bps of a bar", f"deviation of returns over {w}")
        for w in ("2s", "10s", "60s", "300s")
    },
    "volatility_ratio_10s_300s": Feature(
        "(ratio (std_10s bar_return_bps) (std_300s bar_return_bps))", "ratio", "whether the market is waking up"
    ),
    "range_bps_10s": Feature("range_bps", "bps", "high against low of 10 s", "Parkinson 1980"),
    "range_z_60s": Feature("(zscore_60s range_bps)", "deviations", "the same against its last minute"),
}

_LIQUIDATION: Final = {
    "liq_long_10s": Feature("(log1p (sum_10s liq_long_usd))", "log USD", "longs liquidated: forced sells"),
    "liq_short_10s": Feature("(log1p (sum_10s liq_short_usd))", "log USD", "shorts liquidated: forced buys"),
    "liq_imbalance_60s": Feature(
        "(ratio (sum_60s (sub liq_short_usd liq_long_usd)) (sum_60s liq_usd))", "-1 to 1", "shorts' share less longs'"
    ),
    "liq_count_60s": Feature("(log1p (sum_60s liq_count))", "log count", "how many liquidations were published"),
    "liq_z_300s": Feature(
        "(zscore_300s (log1p liq_usd))", "deviations", "this bar's liquidations against five minutes"
    ),
    "liq_share_10s": Feature(
        "(ratio (sum_10s liq_usd) (sum_10s traded_usd))", "share", "how much of what was traded was forced"
    ),
}

_DERIVATIVES: Final = {
    "basis_bps": Feature("basis_bps", "bps", "mid against mark price"),
    "basis_z_60s": Feature(
        or_zero("(zscore_60s told_basis_bps)", "60s"), "deviations", "the same against its last minute"
    ),
    "basis_change_10s": Feature(or_zero("(delta_10s told_basis_bps)", "10s"), "bps", "its change"),
    "premium_bps": Feature("premium_bps", "bps", "mark against index price"),
    "premium_change_60s": Feature(or_zero("(delta_60s told_premium_bps)", "60s"), "bps", "its change"),
    "funding_bps": Feature("funding_bps", "bps", "running estimate of the next funding; longs pay if positive"),
    "interest_change_bps_60s": Feature(
        or_zero("(mul 1e4 (ratio (delta_60s open_interest) (lag_60s open_interest)))", "60s"), "bps",
        "change of open interest",
    ),
}  # fmt: skip

_TIME: Final = {
    "day_frac": Feature(f"(div second_of_day {NS_PER_DAY // NS_PER_S})", "0 to 1", "time of the day, UTC"),
    "is_asia": _session("Asia", _ASIA),
    "is_europe": _session("Europe", _EUROPE),
    "is_us": _session("the US", _US),
    "hours_to_funding": Feature(
        "(div minutes_to_funding 60)", "hours", "as the venue says, else to 00, 08 or 16 h, as of most contracts"
    ),
}  # fmt: skip

DEFAULT_SETS: Final[dict[str, dict[str, Feature]]] = {
    "tob": _TOB,
    "ofi": _ORDER_FLOW,
    "flow": _FLOW,
    "momentum": _MOMENTUM,
    "volatility": _VOLATILITY,
    "liquidation": _LIQUIDATION,
    "derivatives": _DERIVATIVES,
    "time": _TIME,
}
