"""Features of the language as expressions of Polars and pandas, for comparison."""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import pandas as pd
import polars as pl

from research.programs.expression import Node
from research.programs.windows import window_bars

BAR: Final = "200ms"


def in_polars(tree: Node) -> pl.Expr:
    """The same feature as a Polars expression. A zscore of a constant window is 0 there too."""
    if not tree.is_call:
        return pl.lit(tree.head) if tree.is_number else pl.col(str(tree.head))
    args = [in_polars(arg) for arg in tree.args]
    return _rolling(tree, *args) if tree.window else _plain(tree, *args)


def _rolling(tree: Node, x: pl.Expr) -> pl.Expr:
    w = window_bars(tree.window, BAR)
    if tree.head == "zscore":
        spread = x.rolling_std(w, ddof=0)
        return pl.when(spread == 0).then(0.0).otherwise((x - x.rolling_mean(w)) / spread)
    if tree.head == "std":
        return x.rolling_std(w, ddof=0)
    simple: dict[str | float, Callable[[int], pl.Expr]] = {
        "sum": x.rolling_sum, "mean": x.rolling_mean, "min": x.rolling_min, "max": x.rolling_max,
        "lag": x.shift, "delta": x.diff,
    }  # fmt: skip
    return simple[tree.head](w)


def _plain(tree: Node, a: pl.Expr, b: Any = None, *rest: pl.Expr) -> pl.Expr:
    forms: dict[str | float, Callable[[], pl.Expr]] = {
        "add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b,
        "div": lambda: pl.when(b != 0).then(a / b), "ratio": lambda: pl.when(b != 0).then(a / b).otherwise(0.0),
        "log": a.log, "log1p": a.log1p, "abs": a.abs, "coalesce": lambda: pl.when(a.is_not_nan()).then(a).otherwise(b),
        "floor": a.floor, "max2": lambda: pl.when(a > b).then(a).otherwise(b),
        "ge": lambda: (a >= b).cast(pl.Float64), "lt": lambda: (a < b).cast(pl.Float64),
        "if_gt": lambda: pl.when(a > b).then(rest[0]).otherwise(rest[1]),
    }  # fmt: skip
    return forms[tree.head]()


def in_pandas(frame: pd.DataFrame, trees: list[Node]) -> pd.DataFrame:
    """Rolling features of columns; a column's windows are made once."""
    windows: dict[tuple[str, int], Any] = {}
    made = {}
    for tree in trees:
        x, w = frame[str(tree.args[0].head)], window_bars(tree.window, BAR)
        window = windows.setdefault((str(x.name), w), x.rolling(w))
        made[tree] = _of_window(str(tree.head), x, window)
    return pd.DataFrame({str(tree): values for tree, values in made.items()}, copy=False)


def _of_window(name: str, x: Any, window: Any) -> Any:
    if name == "std":
        return window.std(ddof=0)
    if name == "zscore":
        spread = window.std(ddof=0)
        return ((x - window.mean()) / spread).where(spread != 0, 0.0)
    return getattr(window, name)()


def comparison(names: tuple[str, ...], warmup_bars: int, ours: Any, theirs: Any) -> str:
    """The largest difference after the warm-up, in standard deviations of the feature.

    Where ours is 0 and theirs is not, their running sums have kept a residue of what has left the window: named apart.
    """
    ours, theirs = ours[warmup_bars:], theirs[warmup_bars:]
    apart = np.abs(ours - theirs) / np.maximum(np.nanstd(ours, axis=0), 1e-9)
    is_residue = (apart > 1e-6) & (ours == 0.0)
    worst = np.nanmax(np.where(is_residue, 0.0, apart))
    left = [names[k] for k in np.flatnonzero(is_residue.any(axis=0))]
    residue = f"; residues of up to {np.abs(theirs[is_residue]).max():.3g} for 0 in {', '.join(left)}" if left else ""
    return f"largest difference {worst:.1e} standard deviations{residue}"
