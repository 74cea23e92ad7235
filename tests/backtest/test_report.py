"""The page: every section from the tree of report.json, nothing drawn where a run did not get."""

import re
from html.parser import HTMLParser
from typing import Any

from backtest.report import render
from backtest.report_rows import data_rows, live_facts, winner_facts

SECTIONS = ["symbols", "data", "features", "labels", "models", "taker", "maker"]
SECTIONS += ["selection", "truth", "winner", "holdout", "live"]
EMPTY = {
    **dict.fromkeys(SECTIONS),
    "run_id": "20260105T060000Z",
    "source": "replay",
    "simulated": False,
    "seed": 7,
    "git_sha": None,
    "stages": [{"name": "capture", "rows_in": 3, "rows_out": 2, "seconds": 0.5}],
}
SELECTION = {
    "verdict": "no edge",
    "reasons": ["joint z 0.31 < 2.33"],
    "mean_net_bps": -9.12,
    "ci95": [-10.0, -8.2],
    "z": 0.31,
    "deflated_sharpe": 0.02,
    "n_walk_forward": 1200,
    "n_holdout": 44,
    "trials": 63,
    "holdout_looks": 2,
}
LABEL = {"kind": "maker", "rule": "through", "delta_bps": 2.0, "horizon_s": 10.0}


def full(**changes: Any) -> dict[str, Any]:
    return EMPTY | {"simulated": True, "source": "sim", "selection": SELECTION} | changes


class Links(HTMLParser):
    """Everything the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [
            value for name, value in attrs if name in ("src", "href") and value and not value.startswith("#")
        ]


def test_a_run_that_ended_early_has_a_page_without_a_verdict() -> None:
    page = render(EMPTY)
    assert "no verdict" in page
    assert "SIMULATED" not in page
    assert "<svg" not in page


def test_the_verdict_its_reasons_and_the_figures_stand_on_the_page() -> None:
    page = render(full())
    assert "no edge" in page
    assert "joint z 0.31 &lt; 2.33" in page
    assert "-9.12 bps" in page
    assert "[-10.00, -8.20]" in page


def test_every_heading_with_figures_says_simulated() -> None:
    page = render(full(truth={"oracle": {"net_bps": 3.1}}, winner={"kind": "taker"}))
    headings = re.findall(r"<h2>(.*?)</h2>", page)
    assert [heading for heading in headings if "SIMULATED" not in heading] == ["Stages"]


def test_the_page_fetches_nothing() -> None:
    curve = {"hours": [0.0, 1.0], "net_usd": [0.0, 1.0], "gross_usd": [0.0, 2.0], "drawdown_usd": [0.0, -0.5]}
    links = Links()
    links.feed(render(full(holdout={"equity": curve})))
    assert links.found == []


def test_plots_appear_with_their_sections() -> None:
    label = [LABEL | {"side": side, "n": 10, "fill_rate": 0.5, "mean_net_bps": -3.0} for side in ("buy", "sell")]
    importance = {"count": 1, "importance": [{"name": "ofi_z_5s", "mean_abs_shap": 0.4}]}
    calibration = [{"n": 10, "predicted": 0.5, "observed": 0.4}]
    page = render(full(labels=label, features=importance, calibration=calibration, drift=[{"name": "x", "psi": 0.3}]))
    assert page.count("<svg") == 4
    assert "ofi_z_5s" in page


def test_what_the_screen_left_out_stands_beside_the_importance() -> None:
    rows = [{"name": "a", "t": 5.1, "kept": True, "mine": False}, {"name": "b", "t": -0.2, "kept": False, "mine": True}]
    importance = {"importance": [{"name": "a", "mean_abs_shap": 0.4}], "screen": {"at_most": 12, "rows": rows}}
    page = render(full(features=importance, models=[]))
    assert "1 of 2 features were kept by the screen (at most 12" in page
    assert "<td>b, yours</td><td>-0.20</td><td>screened out</td>" in page


def test_a_cell_without_orders_is_not_drawn() -> None:
    page = render(full(labels=[LABEL | {"side": "buy", "n": 0, "fill_rate": None, "mean_net_bps": None}]))
    assert "<svg" not in page


def test_equal_input_gives_equal_bytes() -> None:
    importance = {"count": 1, "importance": [{"name": "x", "mean_abs_shap": 0.4}]}
    assert render(full(features=importance)) == render(full(features=importance))


def test_facts_have_units_and_leave_out_what_a_kind_does_not_have() -> None:
    taker = {"kind": "taker", "horizon_s": 10.0, "threshold": 0.5, "edge_bps": 0.5, "delta_bps": None, "gate_usd": None}
    assert winner_facts({"candidate": taker, "model": "hgb_10", "held_s": 10.0})[1:] == [
        ("model", "hgb_10"),
        ("holding time T", "10 s"),
        ("position bound for, at most", "10 s"),
        ("least probability", "0.50"),
        ("least predicted move", "0.50 bps"),
    ]
    shadow = {"decisions": 1200, "orders": 0, "net_bps": None, "latency_us": {"p50": 81.2, "p99": None}}
    assert live_facts(shadow) == [("decisions", "1,200"), ("orders", "0"), ("latency, median", "81 µs")]


def test_data_has_one_row_per_exchange_and_table() -> None:
    rows = data_rows({"bybit": {"trades": {"rows": 2, "first_ns": 0, "last_ns": None, "gaps": 1}}})
    assert rows == [{"name": "bybit trades", "rows": 2, "first": "1970-01-01 00:00:00", "last": "–", "gaps": 1}]


def test_a_page_of_a_failed_run_says_why() -> None:
    assert "train: too short" in render(EMPTY | {"error": "train: too short"})


def test_assessed_features_have_a_star_only_where_the_false_discovery_rate_allows_it() -> None:
    page = render(EMPTY | {"assessment": assessment(false_discoveries=0.05)})
    assert page.count('+0.050<span class="star">*</span>') == 1
    assert page.count('+0.050<span class="star"></span>') == 1
    assert page.count("50.0") == 1
    assert "ofi_5s, ofi_z" in page
    looser = render(EMPTY | {"assessment": assessment(false_discoveries=0.3)})
    assert looser.count('<span class="star">*</span>') == 2, "the limit is the stage's"


def test_what_moved_is_marked_unless_it_is_the_calendar_and_live_has_a_column_only_after_a_session() -> None:
    live = {"session": "m/sim", "rows": 4804, "first_ns": 0, "last_ns": 1}
    moved = render(EMPTY | {"assessment": assessment(psi=0.3, psi_live=0.4, live=live)})
    assert moved.count('class="bad"') == 2
    assert "m/sim" in moved
    assert 'class="bad"' not in render(EMPTY | {"assessment": assessment(psi=0.3, must_move=True)})
    assert "PSI live" not in render(EMPTY | {"assessment": assessment(psi=0.1)})


def assessment(false_discoveries: float = 0.05, live: Any = None, **changes: Any) -> dict[str, Any]:
    """The section of one feature with three horizons."""
    found = [{"horizon_s": 10.0, "ic": 0.05, "z": 5.0, "n_blocks": 30, "q": q} for q in (0.01, 0.2)]
    unknown = {"horizon_s": 900.0, "ic": None, "z": None, "n_blocks": 2, "q": None}
    row = {"name": "ofi_z", "coverage_frac": 0.5, "warmup_bars": 1_499, "psi": None, "psi_live": None, "cost_ns": 6.2}
    row |= {"must_move": False, "range": None, "ic": [*found, unknown]} | changes
    rest = {"psi_moved": 0.2, "same_rho": 0.7, "false_discoveries": false_discoveries, "live": live}
    return {"features": [row], "clusters": [["ofi_5s", "ofi_z"]], **rest}


def test_sections_of_stages_on_request_are_drawn_from_what_they_put() -> None:
    steps = [{"step_s": 0.2, "instants": [[900.0]], "correlation": [[1.0, -0.25], [-0.25, 1.0]]}]
    quality = [{"symbol": "bybit:BTCUSDT", "stream": "trades", "rows": 5.0, "coverage_frac": 0.9996, "gap_count": 0.0}]
    fitted = {"until_ns": 0, "features": {"odds": "(log mid)"}}
    page = render(
        EMPTY
        | {"correlations": {"symbols": ["a", "b"], "steps": steps}, "quality": quality, "fit": fitted}
        | {"operators": {"entries": [{"group": "micro", "form": "kyle", "ns": 27.2, "says": "the answer"}]}}
    )
    assert all(text in page for text in ("-0.25", "900 instants", "99.96", "(log mid)", "1970-01-01", "27.2"))


def test_a_stage_that_judges_nothing_has_no_verdict_missing() -> None:
    assessed = EMPTY | {"stages": [EMPTY["stages"][0] | {"name": "assess"}]}
    assert "no verdict" not in render(assessed)
    assert "no verdict" in render(assessed | {"error": "assess: too short"})
