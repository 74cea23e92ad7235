"""The report's plots: plain rows in, inline SVG text out. No file, no global state."""

import io
from collections.abc import Sequence
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

Rows = Sequence[dict[str, Any]]

INK: Final = "#1d2733"
ACCENT: Final = "#2f6f9f"
GOOD: Final = "#2e7d4f"
BAD: Final = "#b3423a"
MUTED: Final = "#8a94a0"
_STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",  # text stays text: sharp, searchable and small
    "svg.hashsalt": "report",  # equal input, equal bytes
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.grid": True,
    "grid.color": "#e6e9ed",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
}


def equity(hours: Sequence[float], net_usd: Sequence[float], gross_usd: Sequence[float]) -> str:
    """Cumulative PnL over the hold-out with its drawdown below; the gap between the lines is what costs took."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3.6), layout="constrained")
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        top.step(hours, gross_usd, where="post", color=MUTED, linewidth=1, label="before costs")
        top.step(hours, net_usd, where="post", color=ACCENT, linewidth=1.4, label="after costs")
        top.axhline(0, color=INK, linewidth=0.6)
        top.set_ylabel("USD")
        top.legend(frameon=False, loc="upper left")
        peak, drawdown = 0.0, []
        for value in net_usd:
            peak = max(peak, value)
            drawdown.append(value - peak)
        below.fill_between(hours, drawdown, step="post", color=BAD, alpha=0.35, linewidth=0)
        below.set_ylabel("drawdown")
        below.set_xlabel("hours into the hold-out")
        return _svg(figure)


def cells(rows: Rows) -> str:
    """Fill rate and net bps per order of the unconditional maker cells, by offset, one line per holding time."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(9, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        horizons = sorted({row["horizon_s"] for row in rows})
        for index, horizon in enumerate(horizons):
            mine = sorted((row for row in rows if row["horizon_s"] == horizon), key=lambda row: row["delta_bps"])
            shade = str(0.65 - 0.55 * index / max(1, len(horizons) - 1))
            offsets = [row["delta_bps"] for row in mine]
            right.plot(
                offsets, [row["mean_net_bps"] for row in mine], "o-", ms=3, color=shade, label=f"T = {horizon:g} s"
            )
            if index == 0:  # the fill time is shared by all T
                left.plot(offsets, [row["fill_rate"] for row in mine], "o-", ms=4, color=ACCENT)
        left.set_ylabel("fills per order")
        left.set_ylim(bottom=0)
        right.axhline(0, color=BAD, linewidth=0.8)
        right.set_ylabel("net bps per order")
        right.legend(frameon=False, fontsize=8)
        for axes in (left, right):
            axes.set_xlabel("offset from the touch, bps")
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
        axes.set_xlabel("predicted P(up)")
        axes.set_ylabel("observed share up")
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
    return text[text.index("<svg") :]
