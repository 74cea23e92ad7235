"""References of the set `realized`."""

import math

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
    rolled,
    series,
    share,
    total,
)

_ABDL = "Andersen, Bollerslev, Diebold, Labys 2003: root of sum r^2"
_BNS = "Barndorff-Nielsen, Shephard 2004: pi/2 |r||r'|"
_BNKS = "Barndorff-Nielsen, Kinnebrock, Shephard 2010: sum r^2 of one sign"
_MED = "Andersen, Dobrev, Schaumburg 2012: pi / (6 - 4 sqrt 3 + pi) med^2"
_MED_SCALE = math.pi / (6 - 4 * math.sqrt(3) + math.pi)


def _candles(b: Bars) -> tuple[Floats, ...]:
    """Open, high, low, close of the last 10 s, at each bar."""
    high, low = rolled(np.max, b.high_price, 10), rolled(np.min, b.low_price, 10)
    return lag(b.close_price, 10), high, low, b.close_price


def parkinson(b: Bars) -> float:
    from mlfinpy.util.volatility import get_parksinson_vol

    _, high, low, _ = map(series, _candles(b))
    return 1e4 * get_parksinson_vol(high, low, 1500).iloc[-1]


def garman_klass(b: Bars) -> float:
    from mlfinpy.util.volatility import get_garman_class_vol

    return 1e4 * get_garman_class_vol(*map(series, _candles(b)), 1500).iloc[-1]


def parkinson_twin(b: Bars) -> float:
    """Parkinson 1980, equation 7: E[l^2] = 4 ln 2 D."""
    _, high, low, _ = (last(x, 300) for x in _candles(b))
    return 1e4 * np.sqrt(np.mean(np.log(high / low) ** 2) / (4 * np.log(2)))


def garman_klass_twin(b: Bars) -> float:
    opened, high, low, close = (last(np.log(x), 300) for x in _candles(b))
    return 1e4 * np.sqrt(np.mean((high - low) ** 2 / 2 - (2 * np.log(2) - 1) * (close - opened) ** 2))


def rogers_satchell(b: Bars) -> float:
    opened, high, low, close = (last(np.log(x), 300) for x in _candles(b))
    return 1e4 * np.sqrt(np.mean((high - close) * (high - opened) + (low - close) * (low - opened)))


def aroon(b: Bars) -> float:
    from ta.trend import AroonIndicator

    return AroonIndicator(series(b.high_price), series(b.low_price), window=1499).aroon_indicator().iloc[-1] / 100


def aroon_twin(b: Bars) -> float:
    """The bars between the low and the high over those of the window less one; the latest of equals."""
    age_high, age_low = np.argmax(last(b.high_price, 300)[::-1]), np.argmin(last(b.low_price, 300)[::-1])
    return (age_low - age_high) / 1499


def vwap_gap_twin(b: Bars) -> float:
    return 1e4 * (b.close_price[-1] * np.sum(last(b.qty, 300)) / np.sum(last(b.usd, 300)) - 1)


def vwap_gap(b: Bars) -> float:
    from ta.volume import VolumeWeightedAveragePrice

    price = series(np.where(b.qty > 0, b.usd / np.where(b.qty > 0, b.qty, 1), b.mid))
    vwap = VolumeWeightedAveragePrice(price, price, price, series(b.qty), window=1500).volume_weighted_average_price()
    return 1e4 * (b.close_price[-1] / vwap.iloc[-1] - 1)


def _realized(b: Bars, seconds: float) -> float:
    return 1e4 * math.sqrt(np.sum(last(b.r, seconds) ** 2))


def _bipower(b: Bars) -> float:
    size = np.abs(b.r1)
    return np.pi / 2 * np.mean(last(size * lag(size, 1), 300))


def _middle(b: Bars) -> Floats:
    size = np.abs(b.r1)
    return np.median([last(size, 300), last(lag(size, 1), 300), last(lag(size, 2), 300)], axis=0)


def _semivariance(b: Bars, sign: int) -> float:
    r = last(b.r, 300)
    return np.sum(r[np.sign(r) == sign] ** 2)


def _volatility(b: Bars) -> Floats:
    return rolled(np.std, b.r, 10)


def _volume_growth(b: Bars) -> float:
    ten = total(b.usd, 10)
    return share((ten - 2 * lag(ten, 10) + lag(ten, 20))[-1], np.sum(last(b.usd, 60)))


REFERENCES = {
    "realized_bps_60s": Reference(_ABDL, lambda b: _realized(b, 60)),
    "realized_bps_300s": Reference(_ABDL, lambda b: _realized(b, 300)),
    "realized_bps_900s": Reference(_ABDL, lambda b: _realized(b, 900)),
    "bipower_bps_300s": Reference(_BNS, lambda b: 1e4 * math.sqrt(300 * _bipower(b))),
    "jump_share_300s": Reference(_BNS, lambda b: max(1 - _bipower(b) / np.mean(last(b.r1, 300) ** 2), 0.0)),
    "median_bps_300s": Reference(
        _MED, lambda b: 1e4 * math.sqrt(300 * _MED_SCALE * np.mean(_middle(b) ** 2)), rtol=1e-8
    ),
    "parkinson_bps_300s": Reference("Parkinson 1980", parkinson, "mlfinpy", twin=parkinson_twin),
    "garman_klass_bps_300s": Reference("Garman, Klass 1980", garman_klass, "mlfinpy", twin=garman_klass_twin),
    "rogers_satchell_bps_300s": Reference("Rogers, Satchell 1991: u(u - c) + d(d - c)", rogers_satchell),
    "volatility_of_volatility_300s": Reference(
        "scipy.stats.variation", lambda b: scipy.stats.variation(last(_volatility(b), 300)), "", rtol=1e-7
    ),
    "volatility_term_60s_900s": Reference(
        "definition", lambda b: balance(np.mean(last(b.r, 60) ** 2), np.mean(last(b.r, 900) ** 2))
    ),
    "volatility_change_60s": Reference(
        "definition", lambda b: balance(np.sum(last(b.r, 60) ** 2), np.sum(last(b.r, 120)[:300] ** 2))
    ),
    "upside_bps_300s": Reference(_BNKS, lambda b: 1e4 * math.sqrt(_semivariance(b, 1))),
    "downside_bps_300s": Reference(_BNKS, lambda b: 1e4 * math.sqrt(_semivariance(b, -1))),
    "semivariance_balance_300s": Reference(
        "Patton, Sheppard 2015: (RS+ - RS-) / RV", lambda b: balance(_semivariance(b, 1), _semivariance(b, -1))
    ),
    "return_skew_300s": Reference("scipy.stats.skew", lambda b: scipy.stats.skew(last(b.r1, 300)), rtol=1e-7),
    "return_kurt_300s": Reference("scipy.stats.kurtosis", lambda b: scipy.stats.kurtosis(last(b.r1, 300)), rtol=1e-7),
    "leverage_300s": Reference("numpy.corrcoef", lambda b: corr(b.r1, change(_volatility(b), 1), 300), rtol=1e-7),
    "return_autocorr_300s": Reference("numpy.corrcoef", lambda b: corr(b.r1, lag(b.r1, 1), 300), rtol=1e-7),
    "variance_ratio_300s": Reference(
        "Lo, MacKinlay 1988: var(q) / q var(1)",
        lambda b: np.mean(last(change(b.log_mid, 10), 300) ** 2) / (10 * np.mean(last(b.r1, 300) ** 2)),
    ),
    "efficiency_60s": Reference(
        "Kaufman 1995: move over path", lambda b: (b.log_mid[-1] - b.log_mid[-301]) / np.sum(np.abs(last(b.r, 60)))
    ),
    "trend_60s": Reference("definition", lambda b: np.sum(last(b.r, 60)) / np.linalg.norm(last(b.r, 60))),
    "average_gap_10s_60s": Reference(
        "definition",
        lambda b: (last(b.log_mid, 10).mean() - last(b.log_mid, 60).mean()) / np.linalg.norm(last(b.r, 60)),
    ),
    "aroon_300s": Reference("Chande 1995", aroon, "ta", twin=aroon_twin),
    "drawdown_bps_300s": Reference(
        "definition", lambda b: 1e4 * np.log(b.close_price[-1] / last(b.high_price, 300).max())
    ),
    "run_up_bps_300s": Reference(
        "definition", lambda b: 1e4 * np.log(b.close_price[-1] / last(b.low_price, 300).min())
    ),
    "vwap_gap_bps_300s": Reference("VWAP", vwap_gap, "ta", twin=vwap_gap_twin),
    "money_flow_60s": Reference(
        "definition",
        lambda b: share(np.sum(last(b.usd * np.sign(b.close_price - b.open_price), 60)), np.sum(last(b.usd, 60))),
    ),
    "volume_momentum_10s_300s": Reference(
        "definition", lambda b: balance(np.mean(last(b.usd, 10)), np.mean(last(b.usd, 300)))
    ),
    "volume_acceleration_10s": Reference("definition", _volume_growth),
    "volume_variation_300s": Reference("scipy.stats.variation", lambda b: scipy.stats.variation(last(b.usd_1s, 300))),
    "volume_volatility_corr_300s": Reference("numpy.corrcoef", lambda b: corr(np.abs(b.r1), b.usd_1s, 300)),
}
