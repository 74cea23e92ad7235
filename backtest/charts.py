"""The report's plots: plain rows in, inline SVG text out. No file, no global state."""

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Rows = Sequence[dict[str, Any]]

INK: Final = "#1d2733"
ACCENT: Final = "#2f6f9f"
BAD: Final = "#b3423a"
MUTED: Final = "#8a94a0"
GRID: Final = "#e6e9ed"
_OF_THE_PAGE: Final = {INK: "ink", ACCENT: "accent", BAD: "bad", MUTED: "muted", GRID: "grid"}
"""Colours that the page's style sets, light or dark; alone, a plot has its own."""
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: sharp, searchable and small
    "svg.hashsalt": "report",  # equal input, equal bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
}
_ABOVE: Final[dict[str, Any]] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2}
"""Of a legend: over the axes, where no curve can run through it."""


def equity(curve: Mapping[str, Sequence[float]]) -> str:
    """Cumulative PnL over the hold-out with its drawdown below; the gap between the lines is what costs took."""
    hours = curve["hours"]
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.4, 3.8), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        top.step(hours, curve["gross_usd"], where="post", color=MUTED, linewidth=1, label="before costs")
        top.step(hours, curve["net_usd"], where="post", color=ACCENT, linewidth=1.4, label="after costs")
        top.axhline(0, color=INK, linewidth=0.6)
        top.set_ylabel("USD")
        top.legend(ncols=2, **_ABOVE)
        below.fill_between(hours, curve["drawdown_usd"], step="post", color=BAD, alpha=0.35, linewidth=0.7)
        below.set_ylabel("drawdown,\nUSD")
        below.yaxis.set_major_locator(MaxNLocator(3))
        below.set_xlabel("hours into the hold-out")
        return _svg(figure)


def cells(rows: Rows) -> str:
    """Fill rate and net bps per order of the unconditional maker cells, by offset, one line per holding time."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(10.4, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2)
        horizons = sorted({row["horizon_s"] for row in rows})
        for index, horizon in enumerate(horizons):
            mine = sorted((row for row in rows if row["horizon_s"] == horizon), key=lambda row: row["delta_bps"])
            strength = 0.35 + 0.65 * index / max(1, len(horizons) - 1)
            offsets = [row["delta_bps"] for row in mine]
            net_bps, label = [row["mean_net_bps"] for row in mine], f"T = {horizon:g} s"
            right.plot(offsets, net_bps, "o-", ms=3, color=ACCENT, alpha=strength, label=label)
            if index == 0:  # the fill time is shared by all T
                left.plot(offsets, [row["fill_rate"] for row in mine], "o-", ms=4, color=ACCENT)
        left.set_ylabel("fills per order")
        left.set_ylim(0, 1)
        right.axhline(0, color=BAD, linewidth=0.8)
        right.set_ylabel("net bps per order")
        right.legend(ncols=min(4, len(horizons)), fontsize=8, **_ABOVE)
        for axes in (left, right):
            axes.set_xlabel("offset δ from the touch, bps")
        return _svg(figure)


def calibration(rows: Rows) -> str:
    """Predicted against observed probability that the return has the predicted sign, out of sample."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.4, 3.4), layout="constrained")
        axes = figure.subplots()
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8)
        sizes = [8 + 60 * row["n"] / max(r["n"] for r in rows) for row in rows]
        axes.scatter([row["predicted"] for row in rows], [row["observed"] for row in rows], s=sizes, color=ACCENT)
        for row in rows:
            spread = 1.96 * (row["observed"] * (1 - row["observed"]) / row["n"]) ** 0.5
            axes.plot([row["predicted"]] * 2, [row["observed"] - spread, row["observed"] + spread], color=ACCENT, lw=1)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("predicted probability of a rise")
        axes.set_ylabel("observed share of rises")
        return _svg(figure)


def bars(names: Sequence[str], values: Sequence[float], unit: str, limit: float | None = None) -> str:
    """Horizontal bars, the largest on top; bars beyond the dashed `limit` stand out."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, 0.22 * len(names) + 0.7), layout="constrained")
        axes = figure.subplots()
        colours = [BAD if limit is not None and value > limit else ACCENT for value in values]
        axes.barh(range(len(names)), values, color=colours, height=0.7)
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel(unit)
        axes.grid(axis="y", visible=False)
        _limit_line(axes, limit)
        return _svg(figure)


def _limit_line(axes: Axes, limit: float | None) -> None:
    if limit is not None:
        axes.axvline(limit, color=BAD, linewidth=0.8, linestyle="--")


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    for colour, name in _OF_THE_PAGE.items():
        text = text.replace(colour, f"var(--{name}, {colour})")
    return text[text.index("<svg") :]
