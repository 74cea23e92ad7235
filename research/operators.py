"""The operators of the feature language: one table that the parser, the compiler and the docs read.

NaN is "not known". It goes into an operator and comes out, unless `nan` says otherwise; it leaves a window when its bar
does. A window gives NaN until it is full.
"""

from dataclasses import dataclass
from typing import Final, Literal

from research import interpreter as machine

VAN_HERK: Final = "van Herk 1992, two blocks"
CHAN: Final = "Chan, Golub, LeVeque 1983"


@dataclass(frozen=True)
class Operator:
    """One operator. `arguments` are its operands in order; `window` says what `_k` or `_w` counts, if it takes one.

    `warmup` is how many bars the result lags its operands' own warm-up; `units` is the unit of the result in terms of
    the operands'; `nan` where the result is NaN beside the rule above, or where it is not.
    """

    name: str
    arguments: tuple[str, ...]
    opcode: int
    doc: str
    units: str
    window: Literal["", "k", "w"] = ""
    nan: str = ""
    source: str = ""

    @property
    def arity(self) -> int:
        return len(self.arguments)

    @property
    def warmup(self) -> str:
        return {"": "0", "k": "k", "w": "w - 1"}[self.window]

    def warmup_bars(self, window: int) -> int:
        """Bars that the first result comes after the operand's first, for a window in bars."""
        return {"": 0, "k": window, "w": window - 1}[self.window]

    @property
    def form(self) -> str:
        """How it is written: `(mean_w x)`."""
        head = f"{self.name}_{self.window}" if self.window else self.name
        return f"({' '.join((head, *self.arguments))})"


_X: Final = ("x",)
_AB: Final = ("a", "b")

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
        Operator("min2", _AB, machine.MIN2, "the smaller of a and b", "of a"),
        Operator("max2", _AB, machine.MAX2, "the larger of a and b", "of a"),
        Operator("clip", ("x", "low", "high"), machine.CLIP, "x, at least low and at most high", "of x"),
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
    )
}  # fmt: skip
"""By name, without the window."""
