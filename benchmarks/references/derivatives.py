"""References of the sets `cascade` and `carry`."""

import numpy as np
import scipy.stats

from benchmarks.references.windows import (
    Bars,
    Floats,
    Reference,
    balance,
    change,
    corr,
    lag,
    last,
    series,
    share,
    slope,
    total,
    zscore,
)

_SARLE = "Pfister et al. 2013: (g1^2 + 1) / (g2 + 3(n-1)^2/((n-2)(n-3))), scipy's g"


def ten(b: Bars) -> Floats:
    return total(b.liq, 10)


def sizes(b: Bars) -> Floats:
    """Logarithms of what was liquidated in the bars of five minutes that hold any."""
    usd = last(b.liq, 300)
    return np.log(usd[usd > 0])


def bimodality(b: Bars) -> float:
    x = sizes(b)
    n, skew, kurt = x.size, scipy.stats.skew(x, bias=False), scipy.stats.kurtosis(x, bias=False)
    return (skew**2 + 1) / (kurt + 3 * (n - 1) ** 2 / ((n - 2) * (n - 3)))


def long_short(b: Bars) -> float:
    second = np.mean(last(b.usd_1s, 300))
    return np.log1p(np.sum(last(b.liq_long_usd, 300)) / second) - np.log1p(np.sum(last(b.liq_short_usd, 300)) / second)


def recoil(b: Bars) -> float:
    forced = lag(total(b.liq_short_usd - b.liq_long_usd, 10), 10)[-1]
    return 1e4 * change(b.log_mid, 10)[-1] * np.sign(forced)


def clustering(b: Bars) -> float:
    at = np.flatnonzero(b.liq > 0)
    at = at[at >= b.liq.size - 1500]
    follows = [np.any(b.liq[k - 25 : k] > 0) for k in at]
    return np.mean(follows) if follows else 0.0


def dispersion(b: Bars) -> float:
    counts = last(total(b.liq_count, 1), 300)
    return np.log1p(share(counts.var(), counts.mean()))


def hawkes(b: Bars) -> float:
    fast, slow = (series(b.liq_count).ewm(halflife=5 * seconds).mean().iloc[-1] for seconds in (5, 120))
    return fast / slow


def quiet(b: Bars) -> float:
    at = np.flatnonzero(last(b.liq, 300)[::-1] > 0)
    return at[0] / 1500 if at.size else 1.0


def state(b: Bars) -> float:
    is_cascade = ten(b) > np.maximum(0.1 * total(b.usd, 10), total(b.liq, 300) / 10)
    if is_cascade[-1]:
        return 2.0
    return 3.0 if last(is_cascade, 60).any() else float(np.sum(last(b.liq, 60)) > 0)


def index_basis(b: Bars) -> Floats:
    return 1e4 * (b.mid / b.index_price - 1)


def funding(b: Bars) -> Floats:
    return 1e4 * b.funding_rate


def due(b: Bars) -> float:
    """Seconds to the next funding, 8 h where the venue does not tell."""
    return max(b.funding_s[-1], 0.0) if np.isfinite(b.funding_s[-1]) else 28_800.0


def interest_noise(b: Bars) -> float:
    return last(change(b.open_interest, 10), 300).std()


def index_lead(b: Bars) -> float:
    index = change(np.log(b.index_price), 1)
    return corr(b.r1, lag(index, 1), 300) - corr(index, lag(b.r1, 1), 300)


REFERENCES = {
    "liq_burst_z_300s": Reference("scipy.stats.zscore", lambda b: zscore(ten(b), 300), rtol=1e-7),
    "liq_velocity_10s": Reference("definition", lambda b: change(ten(b), 10)[-1] / np.sum(last(b.usd, 60)), rtol=1e-7),
    "liq_acceleration_10s": Reference(
        "definition", lambda b: change(change(ten(b), 10), 10)[-1] / np.sum(last(b.usd, 60)), rtol=1e-7
    ),
    "liq_long_short_log_300s": Reference("definition", long_short),
    "liq_asymmetry_300s": Reference(
        "definition", lambda b: balance(np.max(last(b.liq_short_usd, 300)), np.max(last(b.liq_long_usd, 300)))
    ),
    "liq_impact_bps_300s": Reference("definition", lambda b: 1e4 * np.sum(last(b.r * (b.liq > 0), 300)), rtol=1e-7),
    "liq_impact_share_300s": Reference(
        "definition", lambda b: np.sum(np.abs(last(b.r * (b.liq > 0), 300))) / np.sum(np.abs(last(b.r, 300)))
    ),
    "liq_recoil_bps_10s": Reference("definition", recoil),
    "liq_size_skew_300s": Reference("scipy.stats.skew", lambda b: scipy.stats.skew(sizes(b)), rtol=1e-6),
    "liq_size_kurt_300s": Reference("scipy.stats.kurtosis", lambda b: scipy.stats.kurtosis(sizes(b)), rtol=1e-6),
    "liq_size_bimodality_300s": Reference(_SARLE, bimodality, rtol=1e-6),
    "liq_concentration_60s": Reference(
        "definition", lambda b: share(np.max(last(b.liq_max_usd, 60)), np.sum(last(b.liq, 60)))
    ),
    "liq_herfindahl_300s": Reference(
        "Herfindahl 1950: sum of squared shares",
        lambda b: np.sum(last(b.liq_square_usd, 300)) / np.sum(last(b.liq, 300)) ** 2
    ),
    "liq_clustering_300s": Reference("definition", clustering),
    "liq_dispersion_300s": Reference("Fano 1947: var / mean", dispersion, rtol=1e-7),
    "liq_hawkes_5s": Reference("Hawkes 1971: by pandas' ewm", hawkes),
    "liq_quiet_300s": Reference("definition", quiet),
    "liq_to_depth_10s": Reference(
        "definition", lambda b: np.log1p(ten(b)[-1] / (b.mid[-1] * np.mean(last(b.bid_qty + b.ask_qty, 60))))
    ),
    "liq_to_interest_bps_300s": Reference(
        "definition", lambda b: 1e4 * np.sum(last(b.liq, 300)) / (b.mid[-1] * b.open_interest[-1])
    ),
    "cascade_state": Reference("definition", state),
    "cascade_decay_60s": Reference("definition", lambda b: share(ten(b)[-1], np.max(last(ten(b), 60)))),
    "oi_change_bps_300s": Reference(
        "definition", lambda b: 1e4 * (b.open_interest[-1] / b.open_interest[-1501] - 1), rtol=1e-7
    ),
    "oi_velocity_10s": Reference(
        "definition", lambda b: change(b.open_interest, 10)[-1] / interest_noise(b), rtol=1e-7
    ),
    "oi_acceleration_10s": Reference(
        "definition",
        lambda b: change(change(b.open_interest, 10), 10)[-1] / interest_noise(b),
        rtol=1e-7,
    ),
    "oi_to_volume_60s": Reference("definition", lambda b: change(b.open_interest, 60)[-1] / np.sum(last(b.qty, 60))),
    "oi_return_corr_300s": Reference(
        "numpy.corrcoef", lambda b: corr(change(b.open_interest, 10), change(b.log_mid, 10), 300), rtol=1e-7
    ),
    "funding_velocity_bps_300s": Reference("definition", lambda b: change(funding(b), 300)[-1], rtol=1e-7),
    "funding_acceleration_bps_300s": Reference(
        "definition", lambda b: change(change(funding(b), 300), 300)[-1], rtol=1e-7
    ),
    "funding_z_900s": Reference("scipy.stats.zscore", lambda b: zscore(funding(b), 900), rtol=1e-7),
    "funding_near_bps": Reference("definition", lambda b: funding(b)[-1] * np.exp(-due(b) / 900)),
    "index_basis_bps": Reference("definition", lambda b: index_basis(b)[-1], rtol=1e-7),
    "index_basis_velocity_60s": Reference("definition", lambda b: change(index_basis(b), 60)[-1], rtol=1e-7),
    "index_basis_acceleration_60s": Reference(
        "definition", lambda b: change(change(index_basis(b), 60), 60)[-1], rtol=1e-7
    ),
    "index_basis_z_900s": Reference("scipy.stats.zscore", lambda b: zscore(index_basis(b), 900), rtol=1e-7),
    "premium_z_300s": Reference(
        "scipy.stats.zscore", lambda b: zscore(b.mark_price / b.index_price - 1, 300), rtol=1e-7
    ),
    "premium_funding_gap_bps": Reference(
        "definition", lambda b: 1e4 * np.mean(last(b.mark_price / b.index_price - 1, 300)) - funding(b)[-1], rtol=1e-7
    ),
    "basis_reversion_300s": Reference(
        "scipy.stats.linregress: change on level",
        lambda b: -slope(change(index_basis(b), 1), lag(index_basis(b), 1), 300), rtol=1e-7,
    ),
    "index_lead_300s": Reference("numpy.corrcoef, lead less lag", index_lead, rtol=1e-7),
}  # fmt: skip
