"""report.html from the tree of report.json: pure but for `write_page`, which reads and writes the run's folder.

The page is self-contained: styles and plots are inline, nothing is fetched. Its parts lie in `page/`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import jinja2
import markupsafe
import msgspec

from backtest import charts
from backtest.report_rows import backtest_rows, data_rows, live_facts, maker_rows, taker_rows, utc, winner_facts
from core.store import write_atomic
from research.quality.drift import MOVED

TOP_FEATURES: Final = 15
_ASIDE: Final = frozenset({"operators", "fit", "assess", "correlate", "quality", "poll", "compact", "export_events"})
"""Stages that no verdict is expected of."""
_PAGE: Final = Path(__file__).parent / "page"


def write_page(folder: Path) -> Path:
    """Write report.html beside the report.json of a run and return its path."""
    report = msgspec.json.decode((folder / "report.json").read_bytes())
    page = folder / "report.html"
    write_atomic(page, render(report).encode())
    return page


def render(report: Mapping[str, Any]) -> str:
    """The page. Sections that a run did not reach are left out, never drawn empty."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_PAGE), autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True
    )
    return environment.get_template("page.html.j2").render(
        r=report,
        charts={name: markupsafe.Markup(svg) for name, svg in _plots(report).items()},
        winner=winner_facts(report.get("winner") or {}),
        live=live_facts(report.get("live") or {}),
        data=data_rows(report.get("data") or {}),
        backtest=backtest_rows(report.get("holdout") or {}),
        takers=taker_rows(report.get("labels") or []),
        fitted_until=utc((report.get("fit") or {}).get("until_ns")),
        aside=not report.get("error") and {stage["name"] for stage in report.get("stages") or ()} <= _ASIDE,
        psi_moved=MOVED,
    )


def _plots(report: Mapping[str, Any]) -> dict[str, str]:
    plots = {}
    curve = (report.get("holdout") or {}).get("equity") or {}
    if curve.get("hours"):
        plots["equity"] = charts.equity(curve)
    grid = maker_rows(report.get("labels") or [])
    if grid:
        plots["cells"] = charts.cells(grid)
    if report.get("calibration"):
        plots["calibration"] = charts.calibration(report["calibration"])
    ranked = (report.get("features") or {}).get("importance") or []
    importance = [row for row in ranked if row["mean_abs_shap"]][:TOP_FEATURES]
    if importance:
        names, values = [row["name"] for row in importance], [row["mean_abs_shap"] for row in importance]
        plots["importance"] = charts.bars(names, values, "mean |SHAP|, bps")
    known = [row for row in report.get("drift") or [] if row["psi"] is not None]
    drift = sorted(known, key=lambda row: -row["psi"])[:TOP_FEATURES]
    if drift:
        plots["drift"] = charts.bars([row["name"] for row in drift], [row["psi"] for row in drift], "PSI", MOVED)
    return plots
