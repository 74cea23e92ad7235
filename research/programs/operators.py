"""The operators of the feature language: one table that the parser, the compiler and the docs read.

NaN is "not known". It goes into an operator and comes out, unless `nan` says otherwise; it leaves a window when its bar
does. A window gives NaN until it is full.
"""

from dataclasses import dataclass
from typing import Final, Literal

from research.machine import opcodes as machine

WEST: Final = "West 1979"
PEBAY: Final = "Pebay 2008, two blocks"
MAX_WINDOW: Final = 10_000_000
"""Bars in any window: 23 days of 200 ms bars, 240 MB of state. More is a slip of the pen."""
VAN_HERK: Final = "van Herk 1992, two blocks"
_SHOWN: Final = 6  # operands
CHAN: Final = "Chan, Golub, LeVeque 1983"


@dataclass(frozen=True)
class Operator:
    """One operator. `arguments` are its operands in order; `window` says what the number after `_` counts, if it takes
    one: bars (k back, w of them, as a time too), or n of what the operator itself makes.

    `warmup` is how many bars the result lags its operands' own warm-up; `units` is the unit of the result in terms of
    the operands'; `nan` where the result is NaN beside the rule above, or where it is not;
    one that fills `by_volume` lags besides until enough was traded, in however many bars;
    `levels` are the places of operands that must be numbers from 0 to 1, `shares` of those that together are 1 at most;
    `infinite` operators remember everything: their bits depend on where a run began. Those that `hops` are
    computed each w / 16 bars and held in between; `least` bounds the windows that mean something, `most` those that can
    be afforded, and `cost` says how a bar's time grows with the window; an operator `settles` after so many windows.
    """

    name: str
    arguments: tuple[str, ...]
    opcode: int
    doc: str
    units: str
    window: Literal["", "k", "w", "n"] = ""
    nan: str = ""
    levels: frozenset[int] = frozenset()
    by_volume: bool = False
    infinite: bool = False
    hops: bool = False
    least: int = 1
    most: int = MAX_WINDOW
    shares: tuple[range, ...] = ()
    source: str = ""
    cost: str = "O(1)"
    settles: int = 1

    @property
    def arity(self) -> int:
        return len(self.arguments)

    @property
    def warmup(self) -> str:
        """In words, for a window of w or k bars."""
        windows = "" if self.settles == 1 else str(self.settles)
        words = {"": "0", "k": "k", "w": f"{windows}w - 1", "n": "0"}[self.window]
        return words + (f" + w/{machine.HOPS}" if self.hops else "")

    def warmup_bars(self, window: int) -> int:
        """Bars that the first result comes after the operand's first, for a window in bars."""
        hop = max(window // machine.HOPS, 1) if self.hops else 1
        return {"": 0, "k": window, "w": self.settles * window - 1, "n": 0}[self.window] + hop - 1

    def within(self, window: int) -> int:
        """The window nearest to that one which means something."""
        return min(max(window, self.least), self.most)

    @property
    def why_most(self) -> str:
        """What would be too much of a longer window than `most`."""
        if self.cost == "O(1)":
            return f"its state takes {machine.state_size(self.opcode, self.most) * 8 // 10**6} MB then"
        return f"it costs {self.cost}"

    @property
    def form(self) -> str:
        """How it is written: `(mean_w x)`. Of many operands those in the middle are left out."""
        head = f"{self.name}_{self.window}" if self.window else self.name
        shown = self.arguments if self.arity <= _SHOWN else (*self.arguments[: _SHOWN - 2], "…", self.arguments[-1])
        return f"({' '.join((head, *shown))})"


_EWM_NAN: Final = "until 7w bars were seen, and where x is not finite (in that row alone)"
_ODDS_NAN: Final = "where one of odds is not finite (in that row alone)"
_EACH_BAR: Final = "O(w)"
_AT_HOPS: Final = f"O(w) each w/{machine.HOPS} bars"
# Windows that can be afforded: a bar stays below 0.1 ms, one in which something is computed anew below 20 ms, and what
# an operator remembers below 250 MB.
_MOST_EACH_BAR, _MOST_AT_HOPS, _MOST_OF_SQUARES, _MOST_REMEMBERED = 100_000, 500_000, 10_000, 4_000_000
_X: Final = ("x",)
_AB: Final = ("a", "b")


def _by(size: int, count: int) -> tuple[range, ...]:
    """So many groups of so many operands, in order, behind as many as are in a group."""
    return tuple(range(size * (k + 1), size * (k + 2)) for k in range(count))


OPERATORS: Final = {
    operator.name: operator
    for operator in (
        Operator("add", _AB, machine.ADD, "a + b", "of a"),
        Operator("sub", _AB, machine.SUB, "a - b", "of a"),
        Operator("mul", _AB, machine.MUL, "a * b", "a times b"),
        Operator("div", _AB, machine.DIV, "a / b", "a per b", nan="where b is 0"),
        Operator("ratio", _AB, machine.RATIO, "a / b; 0 where b is 0: a share of nothing is none", "a per b"),
        Operator("neg", _X, machine.NEG, "-x", "of x"),
        Operator("abs", _X, machine.ABS, "|x|", "of x"),
        Operator("sign", _X, machine.SIGN, "-1, 0 or 1", "none"),
        Operator("log", _X, machine.LOG, "natural logarithm", "none", nan="where x <= 0"),
        Operator("log1p", _X, machine.LOG1P, "log(1 + x)", "none", nan="where x <= -1"),
        Operator("exp", _X, machine.EXP, "e to the x; infinite above 709.78", "none"),
        Operator("sqrt", _X, machine.SQRT, "square root", "root of x", nan="where x < 0"),
        Operator("floor", _X, machine.FLOOR, "the largest whole number that is not above x", "of x"),
        Operator("tanh", _X, machine.TANH, "hyperbolic tangent", "none"),
        Operator("sin", _X, machine.SIN, "sine of radians", "none"),
        Operator("cos", _X, machine.COS, "cosine of radians", "none"),
        Operator("known", _X, machine.KNOWN, "1 where x is known, else 0", "none", nan="never"),
        Operator("power", _AB, machine.POWER, "a to the power of b", "none", nan="where a < 0 and b is not whole"),
        Operator("min2", _AB, machine.MIN2, "the smaller of a and b", "of a"),
        Operator("max2", _AB, machine.MAX2, "the larger of a and b", "of a"),
        Operator("clip", ("x", "low", "high"), machine.CLIP, "x, at least low and at most high", "of x"),
        Operator(
            "log_normal", ("x", "mean", "sd"), machine.LOG_NORMAL, "logarithm of the normal density at x", "none",
            nan="where sd <= 0",
        ),
        Operator("coalesce", _AB, machine.COALESCE, "a where it is known, else b", "of a", nan="where both are"),
        Operator("gt", _AB, machine.GT, "1 where a > b, else 0", "none"),
        Operator("ge", _AB, machine.GE, "1 where a >= b, else 0", "none"),
        Operator("lt", _AB, machine.LT, "1 where a < b, else 0", "none"),
        Operator("le", _AB, machine.LE, "1 where a <= b, else 0", "none"),
        Operator("eq", _AB, machine.EQ, "1 where a = b, else 0", "none"),
        Operator("ne", _AB, machine.NE, "1 where a differs from b, else 0", "none"),
        Operator(
            "if_gt", ("a", "b", "then", "else"), machine.IF_GT, "then where a > b, else else", "of then",
            nan="where a, b or the chosen one is; the other does not matter",
        ),
        Operator("lag", _X, machine.LAG, "x of k bars ago", "of x", "k"),
        Operator("delta", _X, machine.DELTA, "x less x of k bars ago", "of x", "k"),
        Operator("sum", _X, machine.SUM, "sum over the last w bars, this one included", "of x", "w", source=VAN_HERK),
        Operator("mean", _X, machine.MEAN, "mean over w bars", "of x", "w", source=VAN_HERK),
        Operator("std", _X, machine.STD, "standard deviation over w bars, divided by w", "of x", "w", source=CHAN),
        Operator(
            "zscore", _X, machine.ZSCORE, "(x - mean_w) / std_w; 0 where std_w <= 1e-13 |mean_w|: a constant window",
            "none", "w", source=CHAN,
        ),
        Operator("min", _X, machine.MIN, "minimum over w bars", "of x", "w", source=VAN_HERK),
        Operator("max", _X, machine.MAX, "maximum over w bars", "of x", "w", source=VAN_HERK),
        Operator("argmin", _X, machine.ARGMIN, "bars since the minimum, the latest of equals", "bars", "w"),
        Operator("argmax", _X, machine.ARGMAX, "bars since the maximum, the latest of equals", "bars", "w"),
        Operator("latest", ("x", "event"), machine.LATEST, "x in the latest of w bars in which event was not 0", "of x",
                 "w", nan="where there was none"),
        Operator("decay", _X, machine.DECAY, "mean weighted w, w - 1, … 1 from the newest back", "of x", "w"),
        Operator("run", _X, machine.RUN, "how many bars, at most w, x has had its sign, with that sign", "bars", "w"),
        Operator("skew", _X, machine.SKEW, "skewness over w bars, divided by w; 0 in a constant window", "none", "w",
                 source=PEBAY, most=_MOST_REMEMBERED),
        Operator("kurt", _X, machine.KURT, "excess kurtosis over w bars, divided by w; 0 in a constant window", "none",
                 "w", source=PEBAY, most=_MOST_REMEMBERED),
        Operator("cov", _AB, machine.COV, "covariance over w bars, divided by w", "a times b", "w", source=CHAN,
                 most=_MOST_REMEMBERED),
        Operator("corr", _AB, machine.CORR, "Pearson's correlation over w bars; 0 where one is constant", "none", "w",
                 source=CHAN, most=_MOST_REMEMBERED),
        Operator("beta", _AB, machine.BETA, "slope of the regression of a on b over w bars; 0 where b is constant",
                 "a per b", "w", source=CHAN, most=_MOST_REMEMBERED),
        Operator("autocorr", _X, machine.AUTOCORR, "correlation of x with its neighbour over the w - 1 pairs of w bars",
                 "none", "w", source=CHAN, least=3, most=_MOST_REMEMBERED),
        Operator("ewm_mean", _X, machine.EWM_MEAN, "mean with weights that halve every w bars", "of x", "w",
                 nan=_EWM_NAN, source=WEST, infinite=True, settles=machine.HALF_LIVES),
        Operator("ewm_std", _X, machine.EWM_STD, "standard deviation with weights that halve every w bars", "of x",
                 "w", nan=_EWM_NAN, source=WEST, infinite=True, settles=machine.HALF_LIVES),
        Operator("ewm_sum", _X, machine.EWM_SUM, "sum in which a value loses half of its weight in w bars", "of x",
                 "w", nan=_EWM_NAN, source=WEST, infinite=True, settles=machine.HALF_LIVES),
        Operator("ewm_vol", _X, machine.EWM_VOL, "root of the mean square with weights that halve every w bars", "of x",
                 "w", nan=_EWM_NAN, source="RiskMetrics 1996", infinite=True, settles=machine.HALF_LIVES),
        Operator("hmm", ("odds", "stay_0", "stay_1"), machine.HMM2,
                 "probability of state 1 of two; odds: the log likelihood ratio of 1 to 0, stay_0 and stay_1: numbers",
                 "none", nan="where odds is not finite (in that row alone)", levels=frozenset({1, 2}), infinite=True,
                 source="Rabiner 1989"),
        Operator("hmm3", ("odds_1", "odds_2", "stay_0", "to_01", "stay_1", "to_10", "stay_2", "to_20"), machine.HMM3,
                 "probability of state n, 1 or 2, of 0 to 2; odds_k: the log likelihood ratio of k to 0; then state by "
                 "state the chances to stay and to move to the others in order, but the last, which has the rest",
                 "none", "n", nan=_ODDS_NAN, infinite=True,
                 levels=frozenset(range(2, 8)), shares=_by(2, 3), most=2, source="Rabiner 1989"),
        Operator("hmm4", ("odds_1", "odds_2", "odds_3", "stay_0", "to_01", "to_02", "stay_1", "to_10", "to_12",
                          "stay_2", "to_20", "to_21", "stay_3", "to_30", "to_31"), machine.HMM4,
                 "the same of four states, 0 to 3; twelve chances", "none", "n", nan=_ODDS_NAN, infinite=True,
                 levels=frozenset(range(3, 15)), shares=_by(3, 4), most=3, source="Rabiner 1989"),
        Operator("vpin", ("buy", "sell", "size"), machine.VPIN,
                 "|buy - sell| over buy + sell in the last n full buckets of that size", "none", "n",
                 nan="until n buckets are full, and where a volume is negative or has size 0 (in that row alone)",
                 by_volume=True, infinite=True, source="Easley, Lopez de Prado, O'Hara 2012"),
        Operator("microprice", ("imbalance", "move"), machine.MICROPRICE,
                 "what move is expected to add up to from here on, given the imbalance (-1 to 1) and how w bars went",
                 "of move", "w", source="Stoikov 2018", hops=True, least=8, cost=_AT_HOPS, most=_MOST_AT_HOPS),
        Operator("hurst", _X, machine.HURST, "Hurst exponent of increments by R/S, corrected; 0.5 in a constant window",
                 "none", "w", source="Anis, Lloyd 1976; Weron 2002", hops=True, least=64, cost=_AT_HOPS,
                 most=_MOST_AT_HOPS),
        Operator("dfa", _X, machine.DFA,
                 "exponent of detrended fluctuations of increments, corrected; 0.5 in a constant window", "none", "w",
                 source="Peng et al. 1994", hops=True, least=32, cost=_AT_HOPS, most=_MOST_AT_HOPS),
        Operator("sampen", _X, machine.SAMPEN,
                 "sample entropy, m = 2, r = 0.2 deviations; where nothing matches, the largest of so many bars",
                 "none", "w", source="Richman, Moorman 2000", hops=True, least=8,
                 cost=f"O(w²) each w/{machine.HOPS} bars", most=_MOST_OF_SQUARES),
        Operator("permen", _X, machine.PERMEN, "permutation entropy of order 3, from 0 to 1", "none", "w",
                 source="Bandt, Pompe 2002", hops=True, least=8, cost=_AT_HOPS, most=_MOST_AT_HOPS),
        Operator("shannon", _X, machine.SHANNON, "entropy of ten bins from minimum to maximum, from 0 to 1", "none",
                 "w", hops=True, least=10, cost=_AT_HOPS, most=_MOST_AT_HOPS, source="Shannon 1948"),
        Operator("higuchi", _X, machine.HIGUCHI, "fractal dimension of the curve of x; 1 in a constant window",
                 "none", "w", source="Higuchi 1988", hops=True, least=32, cost=_AT_HOPS, most=_MOST_AT_HOPS),
        Operator("fracdiff", ("x", "d"), machine.FRACDIFF, "fractional difference of order d over the last w bars",
                 "of x", "w", source="Hosking 1981", levels=frozenset({1}), cost=_EACH_BAR, most=_MOST_EACH_BAR),
        Operator("rank", _X, machine.RANK, "share of the other w - 1 values below x, equal ones half", "none", "w",
                 cost=_EACH_BAR, most=_MOST_EACH_BAR),
        Operator("quantile", ("x", "q"), machine.QUANTILE, "the quantile q, a number from 0 to 1, of the last w bars",
                 "of x", "w", source="Hyndman, Fan 1996, type 7", levels=frozenset({1}), cost=_EACH_BAR,
                 most=_MOST_EACH_BAR),
    )
}  # fmt: skip
"""By name, without the window."""
