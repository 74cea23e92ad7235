"""Regimes fitted to observations: a hidden Markov model of normal states, by Baum-Welch.

The forward and backward passes are those of Rabiner, "A tutorial on hidden Markov models and selected applications in
speech recognition", Proceedings of the IEEE 77(2), 1989, sections III and V.A; an observation of several numbers has
them independent within a state. How many states there are is told by the Bayesian information criterion.

Observations may overlap: a volatility of 150 bars says at each bar what it said a bar before, but for a 150th. Each
then counts as that share of one, its density taken to that power, in the fit, in the criterion and in the filter's text
(a composite likelihood: Gao, Song, "Composite likelihood Bayesian information criteria for model selection in
high-dimensional data", JASA 105, 2010). Taken for news, repeats would make a filter sure of every tremor, and any
further state worth its numbers.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from research.fitting.not_fitted import NotFitted
from research.machine.hmm import stationary
from research.programs.expression import Node
from research.programs.windows import window_bars

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

MOST_STATES: Final = 4
_STARTS: Final = 4
_START_ROUNDS: Final = 25
_ROUNDS: Final = 200
_GAIN: Final = 1e-7  # of the mean log-likelihood, below which a round adds nothing
_START_ROWS: Final = 200_000  # starts and numbers of states are compared on so many rows, in stretches
_STRETCH: Final = 20_000
_LONGEST_RUN: Final = 65_536  # rows in a pass: what it keeps stays in the caches, and another beginning costs nothing
_LEAST_MOVE: Final = 1e-7  # a state that could never be left or reached would be so whatever comes
_LEAST_SD: Final = 1e-3  # of the whole sample's: a state on one repeated value has an unbounded likelihood
_LEAST_SHARE: Final = 0.01  # of the time: a state that holds less is an outlier, not a regime
_LEAST_STAY: Final = 2.0  # observations, those that overlap counted as one


@dataclass(frozen=True)
class Regimes:
    """Normal states, in order of the mean of the first observation: `mean` and `sd` are (states, observations), `moves`
    (states, states) the chances of the next bar's state. An observation is made of `overlap` bars."""

    mean: Floats
    sd: Floats
    moves: Floats
    overlap: int = 1

    @property
    def states(self) -> int:
        return len(self.mean)

    def odds(self, inputs: Sequence[str]) -> list[str]:
        """Each further state's log likelihood ratio to state 0, given the expressions observed, in the language."""
        first, *rest = (self._log_density(state, inputs) for state in range(self.states))
        ratios = [f"(sub {each} {first})" for each in rest]
        return ratios if self.overlap == 1 else [f"(div {each} {self.overlap})" for each in ratios]

    def chances(self) -> str:
        """The chances of moves as the operator takes them: to stay, then to the others but the last."""
        rows = []
        for state, row in enumerate(self.moves):
            others = [each for each in range(self.states) if each != state]
            rows += [f"{row[each]:.7g}" for each in (state, *others[:-1])]
        return " ".join(rows)

    def text(self, inputs: Sequence[str], state: int) -> str:
        """The probability of a state (1 or more) given the expressions observed, in the language."""
        head = "hmm" if self.states == 2 else f"hmm{self.states}_{state}"
        return f"({head} {' '.join(self.odds(inputs))} {self.chances()})"

    def _log_density(self, state: int, inputs: Sequence[str]) -> str:
        """Six digits tell a mean and a deviation well enough."""
        numbers = zip(inputs, self.mean[state], self.sd[state], strict=True)
        first, *rest = (f"(log_normal {x} {mean:.6g} {sd:.6g})" for x, mean, sd in numbers)
        for each in rest:
            first = f"(add {first} {each})"
        return first


def choose_regimes(x: Floats, begins: Flags, counts: Sequence[int], seed: int, overlap: int = 1) -> tuple[Regimes, str]:
    """The model of the number of states that the criterion prefers, among `counts`, and what it said of each.

    x (n, observations) in order, NaN where one was missed; `begins` (n,) marks where a sequence of its own begins; each
    observation shares all but one of its `overlap` bars with the next. Raises NotFitted where one state explains as
    much, where the states of every number are degenerate, and where too few observations differ.
    """
    x, centre, spread = _standardised(x)
    sample, sample_begins = _stretches(x, begins)
    criteria, reasons = {1: _criterion(_begun(sample, [], 0, overlap), sample, sample_begins)}, {}
    begun = {}
    for count in sorted(set(counts)):
        try:
            begun[count] = _best_start(sample, sample_begins, count, seed, overlap)
            criteria[count] = _criterion(begun[count], sample, sample_begins)
        except NotFitted as error:
            reasons[count] = str(error)
    for count in sorted(criteria, key=lambda each: criteria[each]):
        if count == 1:
            break
        try:
            model, weights = _climb(begun[count], x, begins, _ROUNDS)
            _refuse_degenerate(model, weights)
            found = Regimes(centre + spread * model.mean, spread * model.sd, model.moves, model.overlap)
            return found, _said(criteria, reasons)
        except NotFitted as error:
            reasons[count] = str(error)
    raise NotFitted(f"one state explains the stretch as well: {_said(criteria, reasons)}")


def fit_regimes(x: Floats, begins: Flags, states: int, seed: int = 1, overlap: int = 1) -> Regimes:
    """Maximum likelihood for a given number of states. Raises NotFitted where they are degenerate."""
    x, centre, spread = _standardised(x)
    begun = _best_start(*_stretches(x, begins), states, seed, overlap)
    model, weights = _climb(begun, x, begins, _ROUNDS)
    _refuse_degenerate(model, weights)
    return Regimes(centre + spread * model.mean, spread * model.sd, model.moves, model.overlap)


def regime_features(model: Regimes, inputs: Sequence[str]) -> dict[str, str]:
    """The features of a model: probabilities of the states but the calmest, the last of them the liveliest's; the
    likeliest state; and how unsure that is, from 0 to 1. The later ones name the earlier."""
    names = [f"regime_{state}" for state in range(1, model.states - 1)] + ["regime_turbulent"]
    found = {name: model.text(inputs, state) for state, name in enumerate(names, 1)}
    rest = "1"
    for name in names:
        rest = f"(sub {rest} {name})"
    chances = [rest, *names]
    return found | {"regime_likely": _likeliest(chances), "regime_entropy": _entropy(chances)}


def _likeliest(chances: Sequence[str]) -> str:
    """The number of the largest of some expressions, the first of equals."""
    most, state = chances[0], "0"
    for k, each in enumerate(chances[1:], 1):
        most, state = f"(max2 {most} {each})", f"(if_gt {each} {most} {k} {state})"
    return state


def _entropy(chances: Sequence[str]) -> str:
    """Of chances that add up to 1, over that of equal ones."""
    terms = [f"(mul {each} (log (max2 1e-300 {each})))" for each in chances]
    total = terms[0]
    for each in terms[1:]:
        total = f"(add {total} {each})"
    return f"(mul {-1.0 / math.log(len(chances)):.6g} {total})"


def overlap_bars(tree: Node, bar: str) -> int:
    """In how many bars an expression becomes a new one: the shortest of its outermost rolling windows, 1 without."""
    if tree.is_call and not tree.join and tree.operator.window == "w":
        return window_bars(tree.window, bar)
    inner = (overlap_bars(each, bar) for each in tree.args if not each.is_number and not tree.join)
    return min(inner, default=1)


def _said(criteria: dict[int, float], reasons: dict[int, str]) -> str:
    """The criterion of each number of states less the least, and why others were left out."""
    least = min(criteria.values())
    told = [f"{count}: {criteria[count] - least:,.0f}" for count in sorted(criteria) if count not in reasons]
    return "; ".join([f"BIC above the least {', '.join(told)}", *(f"{n} states: {why}" for n, why in reasons.items())])


def _standardised(x: Floats) -> tuple[Floats, Floats, Floats]:
    """Observations about their mean in their deviation, and both. Squares of them can be added up without loss."""
    known = x[np.isfinite(x).all(axis=1)]
    different = min((np.unique(column).size for column in known.T), default=0)
    if different < 2 * MOST_STATES:
        raise NotFitted(f"regimes need at least {2 * MOST_STATES} different observations, there are {different}")
    centre, spread = known.mean(axis=0), known.std(axis=0)
    return np.ascontiguousarray((x - centre) / spread), centre, spread


def _stretches(x: Floats, begins: Flags) -> tuple[Floats, Flags]:
    """All rows where they are few, else stretches spread evenly over them."""
    if len(x) <= _START_ROWS:
        return x, begins
    firsts = np.linspace(0, len(x) - _STRETCH, _START_ROWS // _STRETCH).astype(np.int64)
    rows = (firsts[:, None] + np.arange(_STRETCH)).ravel()
    cut = begins[rows]
    cut[::_STRETCH] = True
    return x[rows], cut


def _best_start(x: Floats, begins: Flags, states: int, seed: int, overlap: int) -> Regimes:
    """The likeliest of some climbs that begin at evenly cut and at random groups."""
    rng = np.random.default_rng(seed)
    best, most = None, -np.inf
    for start in range(_STARTS):
        cuts = np.arange(1, states) / states if start < 2 else np.sort(rng.uniform(0.05, 0.95, states - 1))
        model, weights = _climb(_begun(x, cuts, start, overlap), x, begins, _START_ROUNDS)
        likelihood = _expected(model, x, begins)[2]
        if likelihood > most:
            best, most, best_weights = model, likelihood, weights
    assert best is not None
    _refuse_degenerate(best, best_weights)
    return best


def _begun(x: Floats, cuts: Sequence[float] | Floats, start: int, overlap: int) -> Regimes:
    """Where a climb begins: groups between quantiles of the first observation, or of its size at every other start."""
    known = x[np.isfinite(x).all(axis=1)]
    key = np.abs(known[:, 0]) if start % 2 else known[:, 0]
    groups = np.array_split(known[np.argsort(key, kind="stable")], [round(cut * len(known)) for cut in cuts])
    states = len(groups)
    mean = np.array([group.mean(axis=0) if len(group) else known.mean(axis=0) for group in groups])
    sd = np.array([group.std(axis=0) if len(group) else known.std(axis=0) for group in groups])
    stay = 1.0 - 0.01 / overlap if states > 1 else 1.0
    moves = np.full((states, states), (1.0 - stay) / max(states - 1, 1))
    np.fill_diagonal(moves, stay)
    return Regimes(mean, np.maximum(sd, _LEAST_SD), moves, overlap)


def _climb(model: Regimes, x: Floats, begins: Flags, rounds: int) -> tuple[Regimes, Floats]:
    """The model after some rounds or once they gain nothing, in order of the states, and the bars in each."""
    rows, before = len(x), -np.inf
    for _ in range(rounds):
        moves, sums, likelihood = _expected(model, x, begins)
        if (likelihood - before) / rows < _GAIN / model.overlap:
            break
        model, before = _maximised(moves, sums, model.overlap), likelihood
    order = np.argsort(model.mean[:, 0], kind="stable")
    ordered = Regimes(model.mean[order], model.sd[order], model.moves[np.ix_(order, order)], model.overlap)
    return ordered, sums[order, 0]


def _refuse_degenerate(model: Regimes, weights: Floats) -> None:
    """Raises NotFitted for a state that is none: on one value, of hardly any time, or gone before it can be seen."""
    for state, (share, stay) in enumerate(zip(weights / weights.sum(), np.diag(model.moves), strict=True)):
        if share < _LEAST_SHARE:
            raise NotFitted(f"state {state} holds {share:.2%} of the time, a regime at least {_LEAST_SHARE:.0%}")
        if (model.sd[state] <= _LEAST_SD * 1.001).any():
            raise NotFitted(f"state {state} sits on one repeated value of an observation")
        bars, least = 1.0 / (1.0 - stay), _LEAST_STAY * model.overlap
        if bars < least:
            raise NotFitted(f"state {state} lasts {bars:,.1f} bars, too short to be seen in less than {least:,.0f}")


def _criterion(model: Regimes, x: Floats, begins: Flags) -> float:
    """The Bayesian information criterion: the lower, the better. Observations that overlap are counted once."""
    seen = float(np.isfinite(x).all(axis=1).sum()) / model.overlap
    numbers = model.states * (model.states - 1) + 2 * model.mean.size
    return float(numbers * math.log(max(seen, 2.0)) - 2.0 * _expected(model, x, begins)[2])


def _maximised(moves: Floats, sums: Floats, overlap: int) -> Regimes:
    """The model that expected moves (k, k) and expected sums of 1, x and x^2 by state (k, 1 + 2 d) ask for."""
    d = sums.shape[1] // 2
    weight = np.maximum(sums[:, :1], 1e-300)
    mean = sums[:, 1 : 1 + d] / weight
    variance = sums[:, 1 + d :] / weight - mean * mean
    chances = np.maximum(moves / np.maximum(moves.sum(axis=1, keepdims=True), 1e-300), _LEAST_MOVE)
    chances /= chances.sum(axis=1, keepdims=True)
    return Regimes(mean, np.sqrt(np.maximum(variance, _LEAST_SD**2)), chances, overlap)


def _runs(begins: Flags) -> Iterator[slice]:
    """Sequences, long ones in pieces."""
    firsts = np.flatnonzero(begins)
    for first, end in zip(firsts, (*firsts[1:], begins.size), strict=True):
        for piece in range(first, end, _LONGEST_RUN):
            yield slice(piece, min(piece + _LONGEST_RUN, end))


def _expected(model: Regimes, x: Floats, begins: Flags) -> tuple[Floats, Floats, float]:
    """Expected moves (k, k), sums of 1, x and x^2 by state (k, 1 + 2 d), and the log-likelihood."""
    states = model.states
    longest = max(min(_LONGEST_RUN, len(x)), 1)
    moves, sums = np.zeros((states, states)), np.zeros((states, 1 + 2 * x.shape[1]))
    work = np.empty((2, longest, states)), np.empty(longest), np.empty((2, states))
    log_sd = np.log(model.sd).sum(axis=1) + 0.5 * x.shape[1] * math.log(2.0 * math.pi)
    start, likelihood = stationary(model.moves), 0.0
    for rows in _runs(begins):
        likelihood += _expect(
            x[rows], model.mean, 1.0 / model.sd, log_sd, model.moves, start, 1.0 / model.overlap, moves, sums, *work
        )
    return moves, sums, likelihood


@njit(cache=True, nogil=True, error_model="numpy")
def _expect(x, mean, per_sd, log_sd, moves, start, share, to_moves, to_sums, tables, scale, back):  # type: ignore[no-untyped-def]
    """A forward and a backward pass over one sequence x (n, d): adds to expected moves and sums, returns the
    log-likelihood. `tables` (2, n, k), `scale` (n,) and `back` (2, k) are for its own use.

    Each forward vector is scaled to 1, the backward ones alike.
    """
    n, states = x.shape[0], mean.shape[0]
    forward, density, now, next_ = tables[0], tables[1], back[0], back[1]
    log_likelihood = 0.0
    for i in range(n):
        log_likelihood += _densities(x[i], mean, per_sd, log_sd, share, density[i])
        total = 0.0
        for j in range(states):
            chance = start[j] if i == 0 else 0.0
            if i > 0:
                for k in range(states):
                    chance += forward[i - 1, k] * moves[k, j]
            forward[i, j] = chance * density[i, j]
            total += forward[i, j]
        scale[i] = total
        log_likelihood += math.log(total)
        for j in range(states):
            forward[i, j] /= total
    for j in range(states):
        now[j] = 1.0
    for i in range(n - 1, -1, -1):
        _add_observation(to_sums, x[i], forward[i], now)
        if i > 0:
            for j in range(states):
                next_[j] = density[i, j] * now[j] / scale[i]
            for k in range(states):
                now[k] = 0.0
                for j in range(states):
                    step = moves[k, j] * next_[j]
                    now[k] += step
                    to_moves[k, j] += forward[i - 1, k] * step
    return log_likelihood


@njit(cache=True, nogil=True, error_model="numpy")
def _densities(value, mean, per_sd, log_sd, share, density):  # type: ignore[no-untyped-def]
    """The states' densities of one observation, to the power of `share`, over the largest; returns the log of that."""
    states, largest = density.size, -np.inf
    for k in range(states):
        away = 0.0
        for c in range(value.size):
            distance = (value[c] - mean[k, c]) * per_sd[k, c]
            away += distance * distance
        density[k] = -share * (0.5 * away + log_sd[k])
        largest = max(largest, density[k])
    if largest - largest != 0.0:
        density[:] = 1.0
        return 0.0
    for k in range(states):
        density[k] = math.exp(density[k] - largest)
    return largest


@njit(cache=True, nogil=True, error_model="numpy")
def _add_observation(sums, value, forward, back):  # type: ignore[no-untyped-def]
    d = value.size
    for c in range(d):
        if value[c] - value[c] != 0.0:
            return
    for k in range(forward.size):
        weight = forward[k] * back[k]
        sums[k, 0] += weight
        for c in range(d):
            sums[k, 1 + c] += weight * value[c]
            sums[k, 1 + d + c] += weight * value[c] * value[c]
