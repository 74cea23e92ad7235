"""A hidden Markov model of two regimes: the forward filter, an operator of the language, and its fit.

In state s an observation x has the density f_s; after each bar the state stays with probability stay_s. The filter
needs the observation's log likelihood ratio log f_1(x) - log f_0(x) alone, so that any densities, and several
observations at once (their ratios added), are a matter of the feature's text. It looks back only: smoothed
probabilities would tell today's regime from tomorrow's bars. The fit is Baum-Welch for normal densities (Rabiner, "A
tutorial on hidden Markov models and selected applications in speech recognition", Proceedings of the IEEE 77(2), 1989,
sections III and V.A).
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from research.fitting.not_fitted import NotFitted

Floats = NDArray[np.float64]
_ROUNDS: Final = 200
_GAIN: Final = 1e-7  # of the mean log-likelihood, below which a round adds nothing
_LONGEST_STAY: Final = 1.0 - 1e-6  # a regime that never ends could never be left, whatever comes
_LEAST_SD: Final = 1e-3  # of the whole sample's: a state on one repeated value has an unbounded likelihood


@njit(cache=True, nogil=True, error_model="numpy")
def filter_forward(odds, stay_0, stay_1, to, n, memory):  # type: ignore[no-untyped-def]
    """P(state 1 | observations so far) over n rows from log likelihood ratios `odds` (n,).

    Begins from the chain's stationary distribution. Where the ratio is not finite the chain moves on unobserved, and
    the result is NaN in that row alone. A prediction lies between 1 - stay_0 and stay_1: it never sticks at 0 or 1.
    """
    p = memory[0]
    for i in range(n):
        leave_0 = 1.0 - stay_0[i]
        if p != p:
            leaving = leave_0 + 1.0 - stay_1[i]
            p = leave_0 / leaving if leaving > 0.0 else 0.5
        p = p * stay_1[i] + (1.0 - p) * leave_0
        if odds[i] - odds[i] == 0.0:
            p = to[i] = _updated(p, odds[i])
        else:
            to[i] = np.nan
    memory[0] = p


@njit(nogil=True, error_model="numpy", inline="always")
def _updated(p, odds):  # type: ignore[no-untyped-def]
    """Bayes' rule, by whichever of the two ratios is below 1: neither overflows."""
    against = math.exp(-abs(odds))
    for_1, for_0 = (p, (1.0 - p) * against) if odds > 0.0 else (p * against, 1.0 - p)
    return for_1 / (for_1 + for_0) if for_1 + for_0 > 0.0 else p


@dataclass(frozen=True)
class Regimes:
    """Two normal states: `mean`, `sd`, `stay` are (state 0, state 1), state 1 the one with the larger mean."""

    mean: tuple[float, float]
    sd: tuple[float, float]
    stay: tuple[float, float]

    def text(self, x: str) -> str:
        """The probability of state 1 given the expression `x`, in the language. Six digits tell it well enough."""
        low, high = (f"(log_normal {x} {m:.6g} {s:.6g})" for m, s in zip(self.mean, self.sd, strict=True))
        return f"(hmm (sub {high} {low}) {self.stay[0]:.7g} {self.stay[1]:.7g})"


def fit_regimes(x: Floats, begins: NDArray[np.bool_]) -> Regimes:
    """Maximum likelihood for observations x (n,), in order; `begins` (n,) marks where a sequence of its own begins.

    NaN is an observation that was missed. Raises NotFitted where too few differ to tell two states apart.
    """
    seen = x[np.isfinite(x)]
    different = np.unique(seen).size
    if different < 4:
        raise NotFitted(f"two regimes need at least 4 different observations, there are {different}")
    model, before = _split_at_median(seen), -np.inf
    for _ in range(_ROUNDS):
        stays, sums, log_likelihood = _expect(x, begins, np.array([model.mean, model.sd, model.stay]))
        if log_likelihood / seen.size - before < _GAIN:
            break
        model, before = _maximise(stays, sums, float(seen.std())), log_likelihood / seen.size
    return model if model.mean[1] >= model.mean[0] else Regimes(model.mean[::-1], model.sd[::-1], model.stay[::-1])


def _split_at_median(seen: Floats) -> Regimes:
    """Where the fit begins: a state of the lower half, one of the upper."""
    middle, least = np.median(seen), _LEAST_SD * seen.std()
    is_high = seen > middle if seen.max() > middle else seen == middle
    halves = seen[~is_high], seen[is_high]
    low, high = (float(half.mean()) for half in halves)
    low_sd, high_sd = (max(float(half.std()), least) for half in halves)
    return Regimes((low, high), (low_sd, high_sd), (0.99, 0.99))


def _maximise(stays: Floats, sums: Floats, spread: float) -> Regimes:
    """The model that expected moves (2, 2) and expected sums of 1, x and x^2 by state (2, 3) ask for."""
    weight, total, square = np.maximum(sums[:, 0], 1e-300), sums[:, 1], sums[:, 2]
    mean = total / weight
    sd = np.sqrt(np.maximum(square / weight - mean * mean, (_LEAST_SD * spread) ** 2))
    left = np.maximum(stays.sum(axis=1), 1e-300)
    stay = np.clip(np.diag(stays) / left, 1e-6, _LONGEST_STAY)
    return Regimes(*(tuple(values.tolist()) for values in (mean, sd, stay)))


@njit(cache=True, nogil=True, error_model="numpy")
def _expect(x, begins, model):  # type: ignore[no-untyped-def]
    """One forward and one backward pass: expected moves (2, 2), sums of 1, x, x^2 by state (2, 3), log-likelihood.

    `model` (3, 2) holds mean, sd and stay by state. Each forward vector is scaled to 1, the backward ones alike.
    """
    n = x.size
    forward, density = np.empty((n, 2)), np.empty((n, 2))
    scale, log_likelihood = np.empty(n), 0.0
    stay_0, stay_1 = model[2, 0], model[2, 1]
    start_1 = (1.0 - stay_0) / (2.0 - stay_0 - stay_1)
    for i in range(n):
        log_likelihood += _densities(x[i], model, density[i])
        p = start_1 if i == 0 or begins[i] else forward[i - 1, 1]
        p = p * stay_1 + (1.0 - p) * (1.0 - stay_0)
        forward[i, 0], forward[i, 1] = (1.0 - p) * density[i, 0], p * density[i, 1]
        scale[i] = forward[i, 0] + forward[i, 1]
        log_likelihood += math.log(scale[i])
        forward[i, 0] /= scale[i]
        forward[i, 1] /= scale[i]
    moves, sums = np.zeros((2, 2)), np.zeros((2, 3))
    back_0 = back_1 = 1.0
    for i in range(n - 1, -1, -1):
        _add_observation(sums, x[i], forward[i, 0] * back_0, forward[i, 1] * back_1)
        if i == 0 or begins[i]:
            back_0 = back_1 = 1.0
            continue
        next_0, next_1 = density[i, 0] * back_0 / scale[i], density[i, 1] * back_1 / scale[i]
        moves[0, 0] += forward[i - 1, 0] * stay_0 * next_0
        moves[0, 1] += forward[i - 1, 0] * (1.0 - stay_0) * next_1
        moves[1, 0] += forward[i - 1, 1] * (1.0 - stay_1) * next_0
        moves[1, 1] += forward[i - 1, 1] * stay_1 * next_1
        back_0 = stay_0 * next_0 + (1.0 - stay_0) * next_1
        back_1 = (1.0 - stay_1) * next_0 + stay_1 * next_1
    return moves, sums, log_likelihood


@njit(cache=True, nogil=True, error_model="numpy")
def _densities(value, model, density):  # type: ignore[no-untyped-def]
    """The states' normal densities of one value over the larger of them; returns the log of that one."""
    density[0] = density[1] = 1.0
    if value - value != 0.0:
        return 0.0
    away_0, away_1 = (value - model[0, 0]) / model[1, 0], (value - model[0, 1]) / model[1, 1]
    log_0 = -0.5 * away_0 * away_0 - math.log(model[1, 0])
    log_1 = -0.5 * away_1 * away_1 - math.log(model[1, 1])
    largest = max(log_0, log_1)
    density[0], density[1] = math.exp(log_0 - largest), math.exp(log_1 - largest)
    return largest - 0.5 * math.log(2.0 * math.pi)


@njit(cache=True, nogil=True, error_model="numpy")
def _add_observation(sums, value, weight_0, weight_1):  # type: ignore[no-untyped-def]
    if value - value == 0.0:
        sums[0, 0] += weight_0
        sums[0, 1] += weight_0 * value
        sums[0, 2] += weight_0 * value * value
        sums[1, 0] += weight_1
        sums[1, 1] += weight_1 * value
        sums[1, 2] += weight_1 * value * value
