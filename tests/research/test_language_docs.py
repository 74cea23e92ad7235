"""The pages that are generated from the language's own tables."""

import io
from pathlib import Path

import msgspec
from rich.console import Console

from core.config import Config, Features
from core.run_record import RunRecord
from research.language_docs import DOCS, page
from research.operators import OPERATORS
from research.show_operators import run


def test_the_page_of_the_language_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "run `python research/language_docs.py`"


def test_the_stage_prints_every_operator_and_feature_with_its_cost(tmp_path: Path) -> None:
    printed = io.StringIO()
    cfg = Config(data_dir=str(tmp_path), features=Features(sets=("time",), mine={"own": "(mean_5s mid)"}))
    record = RunRecord(cfg, Console(file=printed, width=400))
    with record.stage("operators") as stage:
        run(cfg, stage)
    lines = printed.getvalue().splitlines()
    for operator in OPERATORS.values():
        assert any(line.startswith(operator.form) and operator.doc in line for line in lines), operator.form
    assert any(line.startswith("own") and "(mean_5s" in line for line in lines)
    costs = msgspec.json.decode(msgspec.json.encode(record.sections))["operators"]["ns_per_row"]
    assert set(costs) == set(OPERATORS)
    assert all(0 < cost < 1e5 for cost in costs.values())
