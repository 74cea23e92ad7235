"""The pages that are generated from the language's own tables."""

import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from rich.console import Console

from core.config import Config, Features
from core.run_record import RunRecord
from research import show_operators
from research.catalogue import compile_texts
from research.language_docs import DOCS, page
from research.operators import OPERATORS


def test_the_page_of_the_language_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "run `python research/language_docs.py`"


@pytest.mark.parametrize("width", [80, 120])
def test_the_stage_prints_every_operator_and_feature_with_its_cost_and_fits_the_screen(
    tmp_path: Path, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(show_operators, "_ROWS", 2_000)
    printed = io.StringIO()
    cfg = Config(data_dir=str(tmp_path), features=Features(sets=("time",), mine={"own": "(mean_5s mid)"}))
    record = RunRecord(cfg, Console(file=printed, width=width))
    with record.stage("operators") as stage:
        show_operators.run(cfg, stage)
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    together = " ".join(printed.getvalue().split())
    for operator in OPERATORS.values():
        assert any(line.startswith(operator.form) for line in lines), operator.form
        assert " ".join(operator.doc.split()) in together, operator.form
    assert any(line.startswith("own ") for line in lines)
    assert "(mean_5s (mul 0.5 (add bid_price ask_price)))" in together
    costs = msgspec.json.decode(msgspec.json.encode(record.sections))["operators"]["ns_per_row"]
    assert set(costs) == set(OPERATORS)
    assert all(0 <= cost < 1e6 for cost in costs.values())


def test_costs_are_of_rows_without_a_gap_and_of_all_that_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"x": "(sub (mean_50 bid_qty) (at_1m (hurst_100 (of_ETHUSDT (mean_9 bid_qty)))))"}
    program = compile_texts(texts, "time_1s")
    rows = show_operators.made_up_rows(1, 500, [program])
    values = [layer.program.evaluate(rows[:, : len(layer.program.columns)]) for layer in program.layers]
    assert all(np.isfinite(each[-1]).all() for each in values)
    monkeypatch.setattr(show_operators, "cost_ns", lambda layer, x: 6.0)
    assert show_operators.panel_cost_ns(program, rows) == 6.0 + 2 * 6.0 / 60
