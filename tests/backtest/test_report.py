"""The page: every section from the tree of report.json, nothing drawn where a run did not get."""

import re
from html.parser import HTMLParser
from typing import Any

from backtest.report import data_rows, flat, render

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
    curve = {"hours": [0.0, 1.0], "net_usd": [0.0, 1.0], "gross_usd": [0.0, 2.0]}
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


def test_a_cell_without_orders_is_not_drawn() -> None:
    page = render(full(labels=[LABEL | {"side": "buy", "n": 0, "fill_rate": None, "mean_net_bps": None}]))
    assert "<svg" not in page


def test_equal_input_gives_equal_bytes() -> None:
    importance = {"count": 1, "importance": [{"name": "x", "mean_abs_shap": 0.4}]}
    assert render(full(features=importance)) == render(full(features=importance))


def test_nested_figures_are_flattened_and_unknown_ones_dashed() -> None:
    assert flat({"a": {"b": 1.23456, "c": None}, "rows": [1, 2]}) == {"a b": "1.235", "a c": "–"}


def test_data_has_one_row_per_exchange_and_table() -> None:
    rows = data_rows({"bybit": {"trades": {"rows": 2, "first_ns": 0, "last_ns": None, "gaps": 1}}})
    assert rows == [{"name": "bybit trades", "rows": 2, "first": "1970-01-01 00:00:00", "last": "–", "gaps": 1}]


def test_a_page_of_a_failed_run_says_why() -> None:
    assert "train: too short" in render(EMPTY | {"error": "train: too short"})


def test_assessed_features_have_a_star_only_where_the_false_discovery_rate_allows_it() -> None:
    known = {"coverage_frac": 0.5, "warmup_bars": 1_499, "psi": None, "cost_ns": 6.2, "alike": ["ofi_5s"]}
    found = [{"horizon_s": 10.0, "ic": 0.05, "z": 5.0, "n_blocks": 30, "q": q} for q in (0.01, 0.2)]
    unknown = {"horizon_s": 900.0, "ic": None, "z": None, "n_blocks": 2, "q": None}
    page = render(EMPTY | {"assessment": [known | {"name": "ofi_z", "range": None, "ic": [*found, unknown]}]})
    assert page.count("+0.050*") == 1
    assert page.count(">+0.050<") == 1
    assert "50.0 %" in page
    assert "ofi_5s" in page


def test_a_stage_that_judges_nothing_has_no_verdict_missing() -> None:
    assessed = EMPTY | {"stages": [EMPTY["stages"][0] | {"name": "assess"}]}
    assert "no verdict" not in render(assessed)
    assert "no verdict" in render(assessed | {"error": "assess: too short"})
