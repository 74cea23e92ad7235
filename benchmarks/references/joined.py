"""References of the sets that join: `cross` (the leader's bars are `b.leader`) and `positioning` (`b.signals`, by name
the values of a slow series that are known by now, and `b.signal_time_s`)."""

import numpy as np
import scipy.stats

from benchmarks.references.default import in_deviations, one_sided
from benchmarks.references.windows import Bars, Floats, Reference, change, corr, lag, last, slope

_LM = "numpy.corrcoef, lead less lag"
_OLS = "scipy.stats.linregress"
_Z = "scipy.stats.zscore"


def beta(b: Bars) -> float:
    return slope(b.r1, b.leader.r1, 300)


def leads(b: Bars) -> float:
    own, leader = b.r1, b.leader.r1
    return corr(own, lag(leader, 1), 300) - corr(leader, lag(own, 1), 300)


def residual(b: Bars, seconds: float) -> float:
    own, leader = (change(x.log_mid, seconds)[-1] for x in (b, b.leader))
    return 1e4 * (own - beta(b) * leader)


CROSS = {
    "leader_corr_60s": Reference("numpy.corrcoef", lambda b: corr(b.r1, b.leader.r1, 60), rtol=1e-7),
    "leader_corr_300s": Reference("numpy.corrcoef", lambda b: corr(b.r1, b.leader.r1, 300), rtol=1e-7),
    "leader_beta_300s": Reference(_OLS, beta, rtol=1e-7),
    "leader_lag_300s": Reference(_LM, leads, rtol=1e-7),
    **{
        f"leader_return_bps_{s}s": Reference(
            "definition", lambda b, n=5 * s: 1e4 * np.log(b.leader.close_price[-1] / b.leader.close_price[-1 - n]),
            rtol=1e-7,
        )
        for s in (1, 10)
    },
    **{
        f"leader_residual_bps_{s}s": Reference(
            "scipy.stats.linregress: residual", lambda b, s=s: residual(b, s), rtol=1e-7
        )
        for s in (1, 10)
    },
    "leader_ofi_5s": Reference("Cont, Kukanov, Stoikov 2014", lambda b: in_deviations(b.leader.ofi_qty, 25), rtol=1e-8),
    "leader_trade_imbalance_5s": Reference(
        "definition", lambda b: one_sided(b.leader.signed_usd, b.leader.usd, 5), rtol=1e-8
    ),
    "leader_volatility_ratio_300s": Reference(
        "definition", lambda b: last(b.r, 300).std() / last(b.leader.r, 300).std(), rtol=1e-8
    ),
}  # fmt: skip


def log_last(b: Bars, name: str) -> float:
    return np.log(b.signals[name][-1])


def log_change(b: Bars, name: str, values: int) -> float:
    return np.log(b.signals[name][-1] / b.signals[name][-1 - values])


def bent(x: Floats, values: int) -> float:
    """The change of the change."""
    return x[-1] - 2 * x[-1 - values] + x[-1 - 2 * values]


def z(x: Floats, values: int) -> float:
    return scipy.stats.zscore(x[-values:])[-1]


def rank(x: Floats) -> float:
    return (scipy.stats.rankdata(x)[-1] - 1) / (x.size - 1) - 0.5


def minutes_old(b: Bars) -> float:
    return (86_400 * b.day[-1] + b.second_of_day[-1] - b.signal_time_s["ls_ratio_global"][-1]) / 60


def signed_share(b: Bars) -> float:
    longs, shorts = (b.signals[name][-1] for name in ("liq_long_1h", "liq_short_1h"))
    return 2 * longs / (longs + shorts) - 1


_HOUR, _DAY = 12, 288  # values of five minutes


def _ratios(name: str, series: str) -> dict[str, Reference]:
    """What all three ratios of longs to shorts have."""
    return {
        f"{name}_log": Reference("definition", lambda b: log_last(b, series)),
        f"{name}_change_1h": Reference("definition", lambda b: log_change(b, series, _HOUR), rtol=1e-8),
        f"{name}_z_1d": Reference(_Z, lambda b: z(b.signals[series], _DAY), rtol=1e-7),
    }


CROWD = {
    **_ratios("ls_global", "ls_ratio_global"),
    "ls_global_change_1d": Reference("definition", lambda b: log_change(b, "ls_ratio_global", _DAY), rtol=1e-8),
    "ls_global_acceleration_1h": Reference(
        "definition", lambda b: bent(np.log(b.signals["ls_ratio_global"]), _HOUR), rtol=1e-7
    ),
    "ls_global_rank_7d": Reference("scipy.stats.rankdata", lambda b: rank(b.signals["ls_ratio_global"][-2016:])),
    "ls_age_min": Reference("definition", minutes_old),
    **_ratios("ls_top", "ls_ratio_top"),
    **_ratios("ls_position", "ls_position_ratio"),
    "ls_top_gap_log": Reference(
        "definition", lambda b: log_last(b, "ls_ratio_top") - log_last(b, "ls_ratio_global"), rtol=1e-8
    ),
    "ls_size_gap_log": Reference(
        "definition", lambda b: log_last(b, "ls_position_ratio") - log_last(b, "ls_ratio_top"), rtol=1e-8
    ),
}

TRADED = {
    "taker_log": Reference("definition", lambda b: log_last(b, "taker_ratio")),
    "taker_log_1h": Reference("definition", lambda b: np.mean(np.log(b.signals["taker_ratio"][-_HOUR:])), rtol=1e-8),
    "taker_z_1d": Reference(_Z, lambda b: z(np.log(b.signals["taker_ratio"]), _DAY), rtol=1e-7),
    **{
        f"oi_change_bps_{name}": Reference("definition", lambda b, n=n: 1e4 * log_change(b, "oi", n), rtol=1e-8)
        for name, n in (("1h", _HOUR), ("4h", 48), ("1d", _DAY))
    },
    "oi_acceleration_bps_1h": Reference("definition", lambda b: 1e4 * bent(np.log(b.signals["oi"]), _HOUR), rtol=1e-7),
    "oi_z_1d": Reference(_Z, lambda b: z(np.log(b.signals["oi"]), _DAY), rtol=1e-7),
    "oi_share": Reference("definition", lambda b: b.signals["oi"][-1] / b.signals["oi_total"][-1]),
    "liq_ratio_signed_1h": Reference("definition", signed_share, rtol=1e-8),
    "liq_long_z_1d": Reference(_Z, lambda b: z(np.log1p(b.signals["liq_long_1h"]), 24), rtol=1e-7),
    "liq_short_z_1d": Reference(_Z, lambda b: z(np.log1p(b.signals["liq_short_1h"]), 24), rtol=1e-7),
}

CARRY = {
    "funding_settled_bps": Reference("definition", lambda b: 1e4 * b.signals["funding_rate"][-1]),
    "funding_settled_bps_3d": Reference("definition", lambda b: 1e4 * np.mean(b.signals["funding_rate"][-9:])),
    "funding_settled_z_10d": Reference(_Z, lambda b: z(b.signals["funding_rate"], 30), rtol=1e-7),
    "funding_velocity_bps_per_h": Reference("definition", lambda b: 1e4 * b.signals["funding_velocity"][-1]),
    "funding_surprise_bps": Reference(
        "definition",
        lambda b: 1e4 * b.signals["funding_rate_predicted"][-1] - 1e4 * b.signals["funding_rate"][-1], rtol=1e-8,
    ),
    "premium_bps_1h": Reference("definition", lambda b: 1e4 * np.mean(b.signals["premium"][-_HOUR:]), rtol=1e-8),
    "premium_z_1d": Reference(_Z, lambda b: z(b.signals["premium"], _DAY), rtol=1e-7),
    "basis_bps_1h": Reference("definition", lambda b: 1e4 * np.mean(b.signals["basis"][-_HOUR:]), rtol=1e-8),
    "basis_change_bps_4h": Reference(
        "definition", lambda b: 1e4 * (b.signals["basis"][-1] - b.signals["basis"][-49]), rtol=1e-8
    ),
    "basis_z_1d": Reference(_Z, lambda b: z(b.signals["basis"], _DAY), rtol=1e-7),
}  # fmt: skip

REFERENCES = CROSS | CROWD | TRADED | CARRY
