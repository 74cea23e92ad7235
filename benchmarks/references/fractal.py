"""References of the sets `fractal`, `regime` and `calendar`, and of operators that they do not use."""

import calendar
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import numpy as np
import scipy.signal
import scipy.special
import scipy.stats

from benchmarks.references.windows import Bars, Floats, Reference, change, corr, lag, last, series, share

_SCALES = (1, 2, 4, 8, 16, 32, 64)


_TURNS = ("hurst", "dfa", "sampen", "permen", "shannon", "higuchi")


def held(b: Bars, operator: str, x: Floats, seconds: float) -> Floats:
    """The window of the last bar at which a costly operator is computed: each sixteenth of its length, in its turn."""
    w = round(5 * seconds)
    hop = w // 16
    after = (int(b.bar_index[-1]) - _TURNS.index(operator) * hop // len(_TURNS)) % hop
    return x[x.size - after - w : x.size - after]


def fractals(x: Floats, extremes: Callable[..., tuple[Floats]], seconds: float) -> Floats:
    """Bars of fractals that are confirmed by now, not older than five minutes since."""
    w = round(5 * seconds)
    found = extremes(x, order=w)[0]
    return found[(found >= x.size - w - 1500) & (found < x.size - w)]


def age(x: Floats, extremes: Callable[..., tuple[Floats]], seconds: float) -> float:
    found = fractals(x, extremes, seconds)
    return float(np.log1p(x.size - 1 - found[-1] - round(5 * seconds) if found.size else 1500))


def gap(b: Bars, x: Floats, extremes: Callable[..., tuple[Floats]], seconds: float) -> float:
    found = fractals(x, extremes, seconds)
    return float(1e4 * np.log(b.close_price[-1] / x[found[-1]])) if found.size else 0.0


def turns(b: Bars) -> float:
    tops, bottoms = fractals(b.high_price, _TOP, 5), fractals(b.low_price, _BOTTOM, 5)
    return (tops.size + bottoms.size) / 1500


_TOP, _BOTTOM = scipy.signal.argrelmax, scipy.signal.argrelmin


def hurst(b: Bars, seconds: float) -> float:
    """R/S of nolds, over its expectation for white noise (nolds' own has a factor (n - 1/2) / n, of Peters)."""
    import nolds

    x = held(b, "hurst", 1e4 * b.r, seconds)
    sizes = [2**k for k in range(3, 20) if 2**k <= x.size // 4]
    scaled = [nolds.measures.rs(x, n, unbiased=False) / (nolds.measures.expected_rs(n) * n / (n - 0.5)) for n in sizes]
    return 0.5 + float(np.polyfit(np.log(sizes), np.log(scaled), 1)[0])


def dfa(x: Floats) -> float:
    """Fluctuations of MFDFA, of order 1 and q = 2, over those of white noise."""
    from MFDFA import MFDFA

    sizes, n = [], 4
    while n <= x.size // 4:
        sizes.append(n)
        n += n // 2
    # MFDFA runs over a series from both ends where boxes leave a rest: one without
    found = [MFDFA(_profile_of(x, n), np.array([n]), order=1, q=2)[1][0, 0] for n in sizes]
    white = [np.sqrt((n * n - 4) / (15 * n)) for n in sizes]
    return 0.5 + float(np.polyfit(np.log(sizes), np.log(np.array(found) / white), 1)[0])


def _profile_of(x: Floats, n: int) -> Floats:
    """x about its mean, cut so that boxes of n leave no rest; MFDFA takes another mean away, a straight line."""
    return (x - x.mean())[: x.size // n * n]


def higuchi(b: Bars) -> float:
    import antropy

    return float(antropy.higuchi_fd(held(b, "higuchi", b.log_mid, 300), kmax=10))


def katz(b: Bars) -> float:
    import antropy

    return min(float(antropy.katz_fd(b.log_mid[-1501:])), 2.0)


def katz_twin(b: Bars) -> float:
    steps, x = np.abs(b.r[-1500:]), b.log_mid[-1501:]
    n = np.log10(np.sum(steps) / np.mean(steps))
    return min(float(n / (n + np.log10(np.max(np.abs(x - x[0])) / np.sum(steps)))), 2.0)


def permutation(b: Bars, seconds: float) -> float:
    import antropy

    return float(antropy.perm_entropy(held(b, "permen", b.r1, seconds), order=3, normalize=True))


def shannon(b: Bars) -> float:
    return float(scipy.stats.entropy(np.histogram(held(b, "shannon", 1e4 * b.r, 300), 10)[0], base=10))


def sample_entropy(b: Bars) -> float:
    import antropy

    return float(antropy.sample_entropy(held(b, "sampen", b.r, 30), order=2))


def shares(b: Bars) -> Floats:
    """Energies of the stationary transform of PyWavelets, whose coefficients stand in the middle of their filters."""
    import pywt

    x = b.log_mid[-2048:]
    details = [detail for _, detail in reversed(pywt.swt(x, "haar", level=len(_SCALES), norm=True))]
    energy = np.array([_energy(detail, k) for detail, k in zip(details, _SCALES, strict=True)])
    return energy / energy.sum()


def _energy(detail: Floats, k: int) -> float:
    """Of the last 1500 coefficients whose filter, 2 k bars long, ends within the series."""
    ahead = 2 * k - 1  # the transform puts it at the other end
    return float(np.mean(detail[detail.size - ahead - 1500 : detail.size - ahead] ** 2))


def fractional(b: Bars) -> float:
    weights = (-1.0) ** np.arange(300) * scipy.special.binom(0.4, np.arange(300))
    x = last(b.log_mid, 60)
    return float(1e4 * weights @ (x - x.mean())[::-1])


_MOVES = {
    2: np.array([[0.99, 0.01], [0.04, 0.96]]),
    3: np.array([[0.97, 0.02, 0.01], [0.03, 0.95, 0.02], [0.01, 0.09, 0.9]]),
    4: np.array([[0.97, 0.01, 0.01, 0.01], [0.02, 0.95, 0.02, 0.01], [0.01, 0.05, 0.9, 0.04], [0.0, 0.1, 0.1, 0.8]]),
}
_STATES = np.array([[0.0, 1.0], [0.5, 2.0], [-0.5, 3.0], [1.0, 5.0]])
"""Mean and deviation in each."""


def regime(b: Bars, states: int) -> float:
    """The last of some states. hmmlearn smooths; at the last bar that is the filter, which forgot how it began."""
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(states)
    model.startprob_, model.transmat_ = np.full(states, 1 / states), _MOVES[states]
    model.means_, model.covars_ = _STATES[:states, :1], _STATES[:states, 1:] ** 2
    return float(model.predict_proba(1e4 * b.r[1:, None])[-1, -1])


def regime_text(states: int) -> str:
    """The same in the language."""
    density = [f"(log_normal bar_return_bps {mean} {sd})" for mean, sd in _STATES[:states]]
    odds = " ".join(f"(sub {each} {density[0]})" for each in density[1:])
    rows = [[row[k], *np.delete(row, k)[:-1]] for k, row in enumerate(_MOVES[states])]
    chances = " ".join(str(float(chance)) for row in rows for chance in row)
    return f"({'hmm' if states == 2 else f'hmm{states}_{states - 1}'} {odds} {chances})"


def variance_ratio(b: Bars) -> float:
    from arch.unitroot import VarianceRatio

    return float(VarianceRatio(b.log_mid[-1501:], 5, trend="n", debiased=False).vr)


def autocorrelation(b: Bars) -> float:
    return float(series(last(b.r, 60)).autocorr())


def straight(b: Bars, seconds: float) -> float:
    return share(abs(change(b.log_mid, seconds)[-1]), np.sum(np.abs(last(b.r, seconds))))


def line_fit(b: Bars) -> float:
    return float(scipy.stats.linregress(np.arange(1500), last(b.log_mid, 300)).rvalue)


def now(b: Bars) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(days=float(b.day[-1]), seconds=float(b.second_of_day[-1]))


def minutes_to(b: Bars, months: tuple[int, ...]) -> float:
    """To 08:00 UTC on the last Friday of the next of some months where it is still ahead."""
    time = now(b)
    days = [(time.year + k // 12, k % 12 + 1) for k in range(time.month - 1, time.month + 11)]
    fridays = [max(week[calendar.FRIDAY] for week in calendar.monthcalendar(*each)) for each in days]
    ends = [datetime(*each, day, 8, tzinfo=UTC) for each, day in zip(days, fridays, strict=True)]
    return (min(end for end in ends if end >= time and end.month in months) - time).total_seconds() / 60


def to_friday(b: Bars) -> float:
    time = now(b)
    days = [time.replace(hour=8, minute=0, second=0, microsecond=0) + timedelta(days=k) for k in range(8)]
    return (min(day for day in days if day >= time and day.weekday() == calendar.FRIDAY) - time).total_seconds() / 60


def funding(b: Bars) -> float:
    known, rule = b.funding_s[-1], 28_800 - b.second_of_day[-1] % 28_800
    return float(max(known, 0) if np.isfinite(known) else rule) / 60


def week(b: Bars) -> float:
    return 2 * np.pi * (now(b).weekday() + b.second_of_day[-1] / 86_400) / 7


def is_hour(b: Bars, opens: int, closes: int) -> float:
    return float(opens <= now(b).hour < closes)


_WILLIAMS = "Williams 1995: beyond all bars of both wings"
_AL = "Anis, Lloyd 1976: R/S over its expectation"
_PENG = "Peng et al. 1994, F over white noise's"
_CAL = "datetime.datetime"

FRACTAL = {
    **{
        f"{name}_age_{s}s": Reference(_WILLIAMS, lambda b, c=column, e=extremes, s=s: age(getattr(b, c), e, s))
        for s in (1, 5, 30)
        for name, column, extremes in (("top", "high_price", _TOP), ("bottom", "low_price", _BOTTOM))
    },
    **{
        f"{name}_gap_bps_{s}s": Reference(_WILLIAMS, lambda b, c=column, e=extremes, s=s: gap(b, getattr(b, c), e, s))
        for s in (1, 5, 30)
        for name, column, extremes in (("top", "high_price", _TOP), ("bottom", "low_price", _BOTTOM))
    },
    "fractal_rate_300s": Reference(_WILLIAMS, turns),
    "hurst_60s": Reference(_AL, lambda b: hurst(b, 60), "nolds"),
    "hurst_300s": Reference(_AL, lambda b: hurst(b, 300), "nolds"),
    "dfa_60s": Reference(_PENG, lambda b: dfa(held(b, "dfa", 1e4 * b.r, 60)), "MFDFA", rtol=1e-6),
    "dfa_300s": Reference(_PENG, lambda b: dfa(held(b, "dfa", 1e4 * b.r, 300)), "MFDFA", rtol=1e-6),
    "dfa_volatility_60s": Reference(_PENG, lambda b: dfa(held(b, "dfa", 1e4 * np.abs(b.r), 60)), "MFDFA", rtol=1e-6),
    "higuchi_300s": Reference("Higuchi 1988", higuchi, "antropy"),
    "katz_300s": Reference("Katz 1988", katz, "antropy", twin=katz_twin),
    "shannon_300s": Reference("scipy.stats.entropy of ten bins", shannon),
    "permutation_60s": Reference("Bandt, Pompe 2002", lambda b: permutation(b, 60), "antropy"),
    "permutation_300s": Reference("Bandt, Pompe 2002", lambda b: permutation(b, 300), "antropy"),
    "sample_entropy_30s": Reference("Richman, Moorman 2000", sample_entropy, "antropy"),
    **{
        f"wavelet_share_{scale}": Reference(
            "Percival, Walden 2000", lambda b, k=k: float(shares(b)[k]), "pywt", rtol=1e-7
        )
        for k, scale in enumerate(_SCALES)
    },
    "fractional_bps_60s": Reference("Hosking 1981: binomial weights", fractional, rtol=1e-7),
    **{
        f"the filter of {k} states": Reference(
            "Rabiner 1989", lambda b, k=k: regime(b, k), "hmmlearn", regime_text(k), rtol=1e-9
        )
        for k in (2, 3, 4)
    },
}  # fmt: skip

REGIME = {
    "variance_ratio_1s_300s": Reference(
        "Lo, MacKinlay 1988: var(q) / q var(1)",
        lambda b: np.mean(last(b.r1, 300) ** 2) / (5 * np.mean(last(b.r, 300) ** 2)),
    ),
    "variance ratio as arch ends it": Reference(
        "Lo, MacKinlay 1988, no drift", variance_ratio, "arch",
        "(div (sum_1496 square_1s) (mul 5 (sum_1500 (mul (delta_1 log_mid) (delta_1 log_mid)))))",
    ),
    "variance_ratio_60s_900s": Reference(
        "Lo, MacKinlay 1988: var(q) / q var(1)",
        lambda b: np.mean(last(change(b.log_mid, 60), 900) ** 2) / (60 * np.mean(last(b.r1, 900) ** 2)),
    ),
    "straightness_10s": Reference("Kaufman 1995: move over path", lambda b: straight(b, 10)),
    "straightness_300s": Reference("Kaufman 1995: move over path", lambda b: straight(b, 300)),
    "trend_fit_300s": Reference("scipy.stats.linregress", line_fit, rtol=1e-6),
    "bar_autocorr_60s": Reference("pandas.Series.autocorr", autocorrelation, rtol=1e-7),
    "volatility_autocorr_300s": Reference(
        "numpy.corrcoef", lambda b: corr(np.abs(b.r1), lag(np.abs(b.r1), 1), 300), rtol=1e-7
    ),
    "volatility_rank_300s": Reference(
        "scipy.stats.rankdata", lambda b: (scipy.stats.rankdata(_deviations(b, 300))[-1] - 1) / 1499
    ),
    "volatility_ratio_30s_900s": Reference(
        "definition", lambda b: share(last(b.r, 30).std(), last(b.r, 900).std()), rtol=1e-8
    ),
    "spread_rank_300s": Reference(
        "scipy.stats.rankdata", lambda b: (scipy.stats.rankdata(last(b.spread_bps, 300))[-1] - 1) / 1499, rtol=1e-3
    ),
    "activity_ratio_30s_900s": Reference(
        "definition", lambda b: share(np.mean(last(b.count, 30)), np.mean(last(b.count, 900)))
    ),
    "empty_share_60s": Reference("definition", lambda b: np.mean(last(b.is_empty, 60))),
}  # fmt: skip


def _deviations(b: Bars, seconds: float) -> Floats:
    """Of 10 s, at each bar of the last so many seconds."""
    windows = np.lib.stride_tricks.sliding_window_view(b.r, 50)
    return windows[-round(5 * seconds) :].std(axis=1)


CALENDAR = {
    "hour": Reference(
        _CAL, lambda b: now(b).hour + now(b).minute / 60 + now(b).second / 3600 + now(b).microsecond / 3.6e9
    ),
    "hour_sin": Reference(_CAL, lambda b: np.sin(np.pi * b.second_of_day[-1] / 43_200)),
    "hour_cos": Reference(_CAL, lambda b: np.cos(np.pi * b.second_of_day[-1] / 43_200)),
    "weekday": Reference(_CAL, lambda b: now(b).weekday()),
    "week_sin": Reference(_CAL, lambda b: np.sin(week(b))),
    "week_cos": Reference(_CAL, lambda b: np.cos(week(b))),
    "is_weekend": Reference(_CAL, lambda b: float(now(b).weekday() in (calendar.SATURDAY, calendar.SUNDAY))),
    "is_asia_europe": Reference(_CAL, lambda b: is_hour(b, 7, 8)),
    "is_europe_us": Reference(_CAL, lambda b: is_hour(b, 13, 16)),
    "is_no_session": Reference(_CAL, lambda b: is_hour(b, 21, 24)),
    "minutes_of_hour": Reference(_CAL, lambda b: now(b).minute + (now(b).second + now(b).microsecond / 1e6) / 60),
    "minutes_to_funding": Reference("the venue's, or 00, 08 and 16 h", funding),
    "minutes_to_week_expiry": Reference(_CAL, to_friday),
    "minutes_to_month_expiry": Reference(_CAL, lambda b: minutes_to(b, tuple(range(1, 13)))),
    "minutes_to_quarter_expiry": Reference(_CAL, lambda b: minutes_to(b, (3, 6, 9, 12))),
}

REFERENCES = FRACTAL | REGIME | CALENDAR
