"""report.html from the tree of report.json: pure but for `write_page`, which reads and writes the run's folder.

The page is self-contained: styles and plots are inline, nothing is fetched.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import jinja2
import markupsafe
import msgspec

from backtest import charts
from core.cells import THROUGH
from core.store import write_atomic
from core.units import NS_PER_S

TOP_FEATURES: Final = 15
PSI_LIMIT: Final = 0.2  # the usual rule of thumb: below 0.1 stable, above 0.2 shifted
_ASIDE: Final = frozenset({"operators", "fit", "assess", "correlate", "quality", "poll", "compact", "export_events"})
"""Stages that no verdict is expected of."""
_TEMPLATE: Final = "report.html.j2"


def write_page(folder: Path) -> Path:
    """Write report.html beside the report.json of a run and return its path."""
    report = msgspec.json.decode((folder / "report.json").read_bytes())
    page = folder / "report.html"
    write_atomic(page, render(report).encode())
    return page


def render(report: Mapping[str, Any]) -> str:
    """The page. Sections that a run did not reach are left out, never drawn empty."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.ChainableUndefined)
    plots = {name: markupsafe.Markup(svg) for name, svg in _plots(report).items()}
    return environment.get_template(_TEMPLATE).render(
        r=report,
        charts=plots,
        winner=winning_rule(report.get("winner") or {}),
        truth=flat(report.get("truth") or {}),
        live=flat(report.get("live") or {}),
        data=data_rows(report.get("data") or {}),
        aside=not report.get("error") and {stage["name"] for stage in report.get("stages") or ()} <= _ASIDE,
        same=_same(report.get("assessment") or []),
    )


def _same(assessment: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The clusters of features that say the same, the largest first."""
    groups = {tuple(sorted((row["name"], *row["alike"]))) for row in assessment if row["alike"]}
    return sorted(groups, key=lambda group: (-len(group), group))


def flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested mapping as one level of readable text; lists (curves, long rows) and hashes are left out."""
    found: dict[str, str] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if "sha256" in name:
            continue
        if isinstance(value, Mapping):
            found |= flat(value, f"{name} ")
        elif not isinstance(value, list):
            found[name] = _text(value)
    return found


def winning_rule(winner: Mapping[str, Any]) -> dict[str, str]:
    """The winner's own settings, without those that its kind does not have."""
    candidate = winner.get("candidate") or {}
    return flat(
        {name: value for name, value in {**winner, "candidate": None, **candidate}.items() if value is not None}
    )


def data_rows(data: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row per exchange and table, times as text."""
    return [
        {
            "name": f"{exchange} {table}",
            "rows": facts.get("rows"),
            "first": utc(facts.get("first_ns")),
            "last": utc(facts.get("last_ns")),
            "gaps": facts.get("gaps"),
        }
        for exchange, tables in data.items()
        for table, facts in tables.items()
    ]


def utc(ns: int | None) -> str:
    """`2026-01-05 06:00:00` of a time in nanoseconds, a dash for None."""
    return "–" if ns is None else datetime.fromtimestamp(ns // NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _text(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _plots(report: Mapping[str, Any]) -> dict[str, str]:
    plots = {}
    curve = (report.get("holdout") or {}).get("equity") or {}
    if curve.get("hours"):
        plots["equity"] = charts.equity(curve["hours"], curve["net_usd"], curve["gross_usd"])
    grid = [row for row in report.get("labels") or [] if row.get("kind") == "maker" and row.get("rule") == THROUGH]
    if any(row["n"] for row in grid):
        plots["cells"] = charts.cells(_both_sides(grid))
    if report.get("calibration"):
        plots["calibration"] = charts.calibration(report["calibration"])
    ranked = (report.get("features") or {}).get("importance") or []
    importance = [row for row in ranked if row["mean_abs_shap"]][:TOP_FEATURES]
    if importance:
        names, values = [row["name"] for row in importance], [row["mean_abs_shap"] for row in importance]
        plots["importance"] = charts.bars(names, values, "mean |SHAP|, bps")
    drift = sorted(report.get("drift") or [], key=lambda row: -(row["psi"] or 0.0))[:TOP_FEATURES]
    if drift:
        plots["drift"] = charts.bars([row["name"] for row in drift], [row["psi"] for row in drift], "PSI", PSI_LIMIT)
    return plots


def _both_sides(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Buy and sell cells of one (delta, T) as one row, weighted by their orders."""
    merged: dict[tuple[float, float], list[dict[str, Any]]] = {}
    for row in rows:
        if row["n"]:
            merged.setdefault((row["delta_bps"], row["horizon_s"]), []).append(row)
    return [
        {"delta_bps": delta, "horizon_s": horizon}
        | {
            name: sum(row[name] * row["n"] for row in pair) / sum(row["n"] for row in pair)
            for name in ("fill_rate", "mean_net_bps")
        }
        for (delta, horizon), pair in merged.items()
    ]
