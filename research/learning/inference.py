"""How sure a mean net return is: block intervals, joint z, deflated Sharpe ratio (method section 5).

Trades overlap, cluster and hit several symbols at once. Sums over disjoint calendar blocks, pooled over symbols and
venues by time, are nearly independent where single trades are not.
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import kurtosis, norm, skew
from scipy.stats import t as student

from core.units import NS_PER_MINUTE, NS_PER_S

MIN_BLOCKS: Final = 10  # under this the t interval is too wide and its coverage too shaky to print
MIN_BLOCK_S: Final = 600.0
_EULER: Final = 0.5772156649015329
_MAX_Z: Final = 37.0  # beyond it a normal tail is 0 in float64

Floats = NDArray[np.float64]
Times = NDArray[np.int64]


class Ratio(NamedTuple):
    """A ratio of sums: mean per trade in bps, its t statistic, and the 95 % interval on `n_blocks - 1` degrees."""

    mean: float
    t: float
    low: float
    high: float
    n_blocks: int

    @property
    def z(self) -> float:
        """The normal deviate with the same one-sided tail as t: few blocks count for less."""
        return z_of_t(self.t, self.n_blocks - 1)

    @property
    def ci95(self) -> tuple[float, float]:
        return self.low, self.high


def block_s(held_s: float) -> float:
    """Length of a calendar block for trades that bind a position for R + T: max(2 (R + T), 10 min)."""
    return max(2.0 * held_s, MIN_BLOCK_S)


def ratio_of_sums(start_ns: Times, net_bps: Floats, seconds: float, min_blocks: int = MIN_BLOCKS) -> Ratio | None:
    """Mean net per trade and its interval, from sums over the calendar blocks that hold trades.

    `start_ns` (n,) ascending, `net_bps` (n,). None under `min_blocks` blocks, or where the blocks do not vary.
    The variance is that of the ratio estimator, sum of (S_b - mean N_b)² (Cochran, "Sampling Techniques", 1977, 6.4).
    """
    if not start_ns.size:
        return None
    block, first = _blocks(start_ns, seconds)
    sums, counts = np.add.reduceat(net_bps, first), np.diff(np.r_[first, block.size]).astype(np.float64)
    return _ratio(sums, counts, min_blocks)


def n_blocks(start_ns: Times, seconds: float) -> int:
    """How many calendar blocks hold trades."""
    return int(_blocks(start_ns, seconds)[1].size) if start_ns.size else 0


def _blocks(start_ns: Times, seconds: float) -> tuple[Times, Times]:
    """The block of each trade (n,), and where each block's trades begin."""
    block = start_ns // round(seconds * NS_PER_S)
    return block, np.flatnonzero(np.r_[True, block[1:] != block[:-1]])


def _ratio(sums: Floats, counts: Floats, min_blocks: int) -> Ratio | None:
    n = sums.size
    if n < max(min_blocks, 2):
        return None
    mean = float(sums.sum() / counts.sum())
    error = math.sqrt(n / (n - 1) * float(np.sum((sums - mean * counts) ** 2))) / float(counts.sum())
    if error <= 1e-12 * max(abs(mean), 1e-12):
        return None
    reach = float(student.isf(0.025, n - 1)) * error
    return Ratio(mean, mean / error, mean - reach, mean + reach, n)


def z_of_t(t: float, degrees: int) -> float:
    """The standard normal deviate whose upper tail is that of Student's t."""
    tail = float(student.sf(abs(t), degrees))
    z = min(float(norm.isf(tail)), _MAX_Z) if tail > 0.0 else _MAX_Z
    return math.copysign(z, t)


def joint_z(parts: list[tuple[float, int]]) -> float:
    """Independent z values, each weighted by the square root of its number of trades (Stouffer's method)."""
    total = sum(n for _, n in parts)
    return sum(math.sqrt(n) * z for z, n in parts) / math.sqrt(total)


def expected_max_z(n_trials: int) -> float:
    """Expected maximum of N independent standard normals; 0 for one trial.

    Bailey & López de Prado, "The deflated Sharpe ratio", 2014, equation 1.
    """
    if n_trials <= 1:
        return 0.0
    upper = float(norm.isf(1.0 / n_trials)), float(norm.isf(1.0 / (n_trials * math.e)))
    return (1.0 - _EULER) * upper[0] + _EULER * upper[1]


def minute_series(start_ns: Times, net_bps: Floats, windows: list[tuple[int, int]]) -> Floats:
    """Net bps per calendar minute of the closed `windows` (from_ns, to_ns), 0 in minutes without a trade."""
    pieces = []
    for from_ns, to_ns in windows:
        first, last = from_ns // NS_PER_MINUTE, to_ns // NS_PER_MINUTE
        inside = (start_ns >= from_ns) & (start_ns <= to_ns)
        minute = start_ns[inside] // NS_PER_MINUTE - first
        pieces.append(np.bincount(minute, weights=net_bps[inside], minlength=last - first + 1))
    return np.concatenate(pieces) if pieces else np.zeros(0)


def effective_length(series: Floats, lags: int) -> float:
    """T_eff: the length, cut by positive autocorrelation up to `lags` with Bartlett weights (Newey & West, 1987).

    Negative autocorrelation is not credited.
    """
    centred = series - series.mean()
    variance = float(centred @ centred)
    if variance == 0.0:
        return float(series.size)
    inflation = 1.0
    for lag in range(1, min(lags, series.size - 1) + 1):
        weight = 1.0 - lag / (lags + 1.0)
        inflation += 2.0 * weight * float(centred[lag:] @ centred[:-lag]) / variance
    return series.size / max(inflation, 1.0)


def deflated_sharpe(series: Floats, n_trials: int, lags: int = 0) -> float | None:
    """Probability that the true Sharpe ratio of a net series beats the best of N trials without skill.

    SR0 = z_max(N) / sqrt(T_eff). The usual benchmark, the variance across trials, measures how cells differ in cost
    rather than how luck spreads, and nothing ever passes it [method section 5]. Skew and kurtosis as in Bailey & López
    de Prado, 2014, equation 2. None for a series that is too short or constant.
    """
    if series.size < 3 or float(np.ptp(series)) == 0.0:
        return None
    length = effective_length(series, lags)
    ratio = float(series.mean() / series.std(ddof=1))
    spread = 1.0 - float(skew(series)) * ratio + (float(kurtosis(series, fisher=False)) - 1.0) / 4.0 * ratio**2
    if spread <= 0.0 or length <= 1.0:
        return None
    benchmark = expected_max_z(n_trials) / math.sqrt(length)
    return float(norm.cdf((ratio - benchmark) * math.sqrt(length - 1.0) / math.sqrt(spread)))
