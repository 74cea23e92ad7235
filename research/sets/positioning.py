"""The set `positioning`: who holds what, and at what carry, from slow series (docs/signals.md).

Windows inside a signal count its values: 12 of five minutes are an hour, 288 a day; 3 settlements of 8 h a day. What
a venue does not publish, what nobody polled and what is stale is 0, so that a model of several venues keeps its rows;
`ls_age_min` says how old the accounts' ratio is. Ratios of longs to shorts are logarithms: as many of both is 0.
"""

from typing import Final

from research.sets.feature import Feature

_ACCOUNTS: Final = "globalLongShortAccountRatio; Bybit account-ratio"
_TOP: Final = "topLongShortAccountRatio"
_POSITIONS: Final = "topLongShortPositionRatio"
_TAKERS: Final = "takerlongshortRatio"
_INTEREST: Final = "openInterestHist; Bybit open-interest"
_FUNDING: Final = "fundingRate; Bybit funding/history"
_PREMIUM: Final = "premiumIndex; Bybit tickers"
_BASIS: Final = "futures/data/basis; Bybit tickers"
_LIQUIDATED: Final = "own capture, by the hour"


def _of(series: str, expression: str = "value") -> str:
    """The expression over a series, 0 where it is not known."""
    return f"(coalesce (signal_{series} {expression}) 0)"


def _gap(series: str, other: str) -> str:
    """The logarithm of one ratio less that of another."""
    return f"(coalesce (sub (signal_{series} (log value)) (signal_{other} (log value))) 0)"


_CROWD: Final = {
    "ls_global_log": Feature(
        _of("ls_ratio_global", "(log value)"), "log ratio", "accounts net long to accounts net short", _ACCOUNTS
    ),
    "ls_global_change_1h": Feature(
        _of("ls_ratio_global", "(delta_12 (log value))"), "log ratio", "its change in twelve values", _ACCOUNTS
    ),
    "ls_global_change_1d": Feature(
        _of("ls_ratio_global", "(delta_288 (log value))"), "log ratio", "its change in 288", _ACCOUNTS
    ),
    "ls_global_acceleration_1h": Feature(
        _of("ls_ratio_global", "(delta_12 (delta_12 (log value)))"), "log ratio", "the change of its change", _ACCOUNTS
    ),
    "ls_global_z_1d": Feature(
        _of("ls_ratio_global", "(zscore_288 value)"), "deviations", "the ratio against its last day", _ACCOUNTS
    ),
    "ls_global_rank_7d": Feature(
        _of("ls_ratio_global", "(sub (rank_2016 value) 0.5)"), "-0.5 to 0.5", "its rank in a week, 0 the middle",
        _ACCOUNTS,
    ),
    "ls_age_min": Feature(
        "(coalesce (div (sub now_s (signal_ls_ratio_global time_s)) 60) 60)", "minutes",
        "since the time of the ratio; 60 where none is known", _ACCOUNTS,
    ),
    "ls_top_log": Feature(
        _of("ls_ratio_top", "(log value)"), "log ratio", "the same of the fifth with the largest margin", _TOP
    ),
    "ls_top_change_1h": Feature(_of("ls_ratio_top", "(delta_12 (log value))"), "log ratio", "its change", _TOP),
    "ls_top_z_1d": Feature(_of("ls_ratio_top", "(zscore_288 value)"), "deviations", "against its last day", _TOP),
    "ls_position_log": Feature(
        _of("ls_position_ratio", "(log value)"), "log ratio", "what these hold long to what they hold short", _POSITIONS
    ),
    "ls_position_change_1h": Feature(
        _of("ls_position_ratio", "(delta_12 (log value))"), "log ratio", "its change", _POSITIONS
    ),
    "ls_position_z_1d": Feature(
        _of("ls_position_ratio", "(zscore_288 value)"), "deviations", "against its last day", _POSITIONS
    ),
    "ls_top_gap_log": Feature(
        _gap("ls_ratio_top", "ls_ratio_global"), "log ratio", "large accounts against all: 0 where they agree", _TOP
    ),
    "ls_size_gap_log": Feature(
        _gap("ls_position_ratio", "ls_ratio_top"), "log ratio",
        "size of their long positions against that of their short ones", _POSITIONS,
    ),
}  # fmt: skip

_TRADED: Final = {
    "taker_log": Feature(
        _of("taker_ratio", "(log value)"), "log ratio", "what takers bought to what they sold in five minutes", _TAKERS
    ),
    "taker_log_1h": Feature(_of("taker_ratio", "(mean_12 (log value))"), "log ratio", "its mean of an hour", _TAKERS),
    "taker_z_1d": Feature(_of("taker_ratio", "(zscore_288 (log value))"), "deviations", "against a day", _TAKERS),
    "oi_change_bps_1h": Feature(
        _of("oi", "(mul 1e4 (delta_12 (log value)))"), "bps", "change of open interest", _INTEREST
    ),
    "oi_change_bps_4h": Feature(_of("oi", "(mul 1e4 (delta_48 (log value)))"), "bps", "the same", _INTEREST),
    "oi_change_bps_1d": Feature(_of("oi", "(mul 1e4 (delta_288 (log value)))"), "bps", "the same", _INTEREST),
    "oi_acceleration_bps_1h": Feature(
        _of("oi", "(mul 1e4 (delta_12 (delta_12 (log value))))"), "bps", "the change of its change", _INTEREST
    ),
    "oi_z_1d": Feature(_of("oi", "(zscore_288 (log value))"), "deviations", "against a day", _INTEREST),
    "oi_share": Feature(
        "(coalesce (div signal_oi signal_oi_total) 0)", "0 to 1", "the instrument's share of all that are polled",
        "derived",
    ),
    "liq_ratio_signed_1h": Feature(
        "(coalesce (div (sub signal_liq_long_1h signal_liq_short_1h) (add signal_liq_long_1h signal_liq_short_1h)) 0)",
        "-1 to 1", "whom the last hour liquidated: 1 longs alone, 0 nobody", _LIQUIDATED,
    ),
    "liq_long_z_1d": Feature(
        _of("liq_long_1h", "(zscore_24 (log1p value))"), "deviations", "liquidated longs against the hours of a day",
        _LIQUIDATED,
    ),
    "liq_short_z_1d": Feature(
        _of("liq_short_1h", "(zscore_24 (log1p value))"), "deviations", "the same of shorts", _LIQUIDATED
    ),
}  # fmt: skip

_CARRY: Final = {
    "funding_settled_bps": Feature(
        _of("funding_rate", "(mul 1e4 value)"), "bps", "what longs paid last, per interval", _FUNDING
    ),
    "funding_settled_bps_3d": Feature(
        _of("funding_rate", "(mean_9 (mul 1e4 value))"), "bps", "mean of nine settlements", _FUNDING
    ),
    "funding_settled_z_10d": Feature(
        _of("funding_rate", "(zscore_30 value)"), "deviations", "the last one against thirty", _FUNDING
    ),
    "funding_velocity_bps_per_h": Feature(
        _of("funding_velocity", "(mul 1e4 value)"), "bps per hour", "change between the last two settlements", "derived"
    ),
    "funding_surprise_bps": Feature(
        "(coalesce (mul 1e4 (sub signal_funding_rate_predicted signal_funding_rate)) 0)", "bps",
        "the running estimate less what was settled last", _PREMIUM,
    ),
    "premium_bps_1h": Feature(
        _of("premium", "(mean_12 (mul 1e4 value))"), "bps", "mark over index, mean of an hour", _PREMIUM
    ),
    "premium_z_1d": Feature(_of("premium", "(zscore_288 value)"), "deviations", "against its last day", _PREMIUM),
    "basis_bps_1h": Feature(
        _of("basis", "(mean_12 (mul 1e4 value))"), "bps", "contract over index, mean of an hour", _BASIS
    ),
    "basis_change_bps_4h": Feature(_of("basis", "(mul 1e4 (delta_48 value))"), "bps", "change of the basis", _BASIS),
    "basis_z_1d": Feature(_of("basis", "(zscore_288 value)"), "deviations", "against its last day", _BASIS),
}  # fmt: skip

SETS: Final = {"positioning": _CROWD | _TRADED | _CARRY}
