"""The pages that are generated from the language's own tables."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from rich.console import Console

from core import store
from core.config import ROOT, Config, Features, Operators
from core.errors import StageError
from core.run_record import RunRecord
from core.store import Partition, day_start_ns
from core.units import NS_PER_HOUR, NS_PER_MINUTE, NS_PER_S
from ingest.signals import merge_signals, signal_rows
from research import show_operators
from research.bars.columns import BAR_COLUMNS
from research.catalogue import CATALOGUE, compile_texts
from research.catalogue_entries import finding, operator_entries, recipe_entries
from research.familiar_names import MEANT, RECIPES
from research.language_docs import DOCS, join_rows, page
from research.programs.operators import OPERATORS
from research.quality import cost


def test_the_page_of_the_language_is_up_to_date() -> None:
    assert DOCS.read_text() == page(), "run `python research/language_docs.py`"


def test_the_example_for_notebooks_runs_on_the_tables_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    n, step_ns = 400, NS_PER_S // 5
    for date in ("2026-01-05", "2026-01-06"):
        close_ns = day_start_ns(date) + step_ns * np.arange(1, n + 1)
        times = {"open_ns": close_ns - step_ns, "close_ns": close_ns, "bar_index": close_ns // step_ns}
        values = dict.fromkeys(BAR_COLUMNS, np.random.default_rng(1).lognormal(size=n)) | {"has_gap": np.zeros(n)}
        part = Partition("bars", "binance_um", "BTCUSDT", date, "time_200ms")
        store.write(tmp_path / "data", part, pl.DataFrame(times | values))
    code = re.search(r"in a notebook:\n\n```python\n(.*?)```", page(), re.DOTALL)
    assert code
    monkeypatch.chdir(tmp_path)
    scope: dict[str, Any] = {}
    exec(code[1], scope)
    is_known = np.isfinite(scope["y"]).all(axis=1)
    assert is_known.tolist() == (299 * [False] + (n - 299) * [True]) * 2, "windows fill anew where days are missing"
    assert scope["y"][:3, 2] * 3600 == pytest.approx([0.2, 0.4, 0.6])
    code = re.search(r"In a notebook a panel is given.*?```python\n(.*?)```", page(), re.DOTALL)
    assert code
    times_ns = [day_start_ns("2026-01-05") - k * 5 * NS_PER_MINUTE for k in range(30)]
    merge_signals(
        tmp_path / "data",
        *("binance_um", "BTCUSDT"),
        signal_rows(
            [("ls_ratio_global_btc", t, np.exp((t - times_ns[-1]) / NS_PER_HOUR), "5m", t + NS_PER_S) for t in times_ns]
        ),
    )
    exec(code[1], scope)
    (crowd,) = scope["y"].values()
    assert crowd.shape == (2 * n, 1)
    assert crowd[n // 2] == pytest.approx(1.0), "an hour later a logarithm is 1 more, until it is stale"
    assert crowd[-1] == 0.0


def test_a_notebook_that_lies_elsewhere_finds_the_language_by_the_line_of_the_page(tmp_path: Path) -> None:
    line = re.search(r"^import sys; .*$", page(), re.MULTILINE)
    assert line
    code = line[0].replace("/path/to/the/repository", str(ROOT)) + "\nfrom research.language import compile_features"
    alone = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_stage_prints_every_operator_and_feature_with_its_cost_and_fits_the_screen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, printed, section = listed(tmp_path, 80, monkeypatch)
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    together = " ".join(printed.split())
    for operator in OPERATORS.values():
        assert any(line.startswith(operator.form) for line in lines), operator.form
        assert " ".join(operator.doc.split()) in together, operator.form
    for form, says in join_rows():
        assert form in lines
        assert " ".join(says.replace("`", "").split()) in together, form
    assert any(line.startswith("own ") for line in lines)
    assert "(mean_5s mid)" in together
    assert set(CATALOGUE) | {"own"} <= {row["name"] for row in section["entries"]}
    assert all(any(line.startswith(f"{name} ") for line in lines) for name in CATALOGUE)
    assert set(section["ns_per_row"]) == set(OPERATORS)
    assert all(0 <= row["ns"] < 1e6 for row in section["entries"] if row["group"] != "join")


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("Kyle's λ", {"kyle_lambda_bps_300s"}),
        ("hmm own", {"own"}),
        ("autocorr", {"autocorr"}),
        ("at_1m", {"(at_1m x)"}),
        ("moving average", {"mean", "ewm_mean"}),
        ("EMA", {"ewm_mean"}),
        ("relative strength", {"rsi"}),
        ("rsi", {"rsi"}),
        ("bollinger", {"zscore", "bollinger"}),
        ("obi", {"imbalance", "imbalance_mean_1s"}),
        ("vwap", {"vwap_gap", "vwap_gap_bps_300s"}),
    ],
)
def test_words_find_what_is_meant(asked: str, found: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, printed, _ = listed(tmp_path, 80, monkeypatch, find=asked, own="(hmm (sub mid 1) 0.9 0.9)")
    assert found <= names
    assert len(names) < 12
    if asked.startswith("Kyle"):
        assert 'not in this run: add "micro" to features.sets' in " ".join(printed.split())
        assert "Kyle 1985" in " ".join(printed.split())


def test_words_are_found_whole_or_by_how_they_begin_and_familiar_names_by_what_they_are_here() -> None:
    entries = [*operator_entries(), *recipe_entries("volume_10")]
    assert {entry.name for entry in finding("rsi", entries)} == {"rsi"}, "no persistence, no version"
    assert {entry.name for entry in finding("ema", entries)} == {"ewm_mean"}, "nor what remains"
    assert {entry.name for entry in finding("weigh", entries)} >= {"ewm_mean"}
    assert not finding("eight", entries)
    assert {name for names in MEANT.values() for name in names} <= {
        *OPERATORS, *RECIPES, "imbalance", "return_bps",
    }  # fmt: skip


def test_words_that_nothing_says_are_an_error_that_says_where_they_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(StageError, match=r"no operator or feature is said to be 'kile'.*names, meanings"):
        listed(tmp_path, 80, monkeypatch, find="kile")


def test_on_another_clock_features_are_listed_as_they_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names, printed, _ = listed(tmp_path, 80, monkeypatch, find="kyle", bars="volume_10")
    assert names == {"kyle_lambda_bps_1500"}
    assert "Kyle 1985" in " ".join(printed.split())
    assert "1500" in printed


def listed(
    data_dir: Path,
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    find: str = "",
    bars: str = "time_200ms",
    own: str = "(mean_5s mid)",
) -> tuple[set[str], str, dict[str, Any]]:
    """The names that the stage lists, what it prints, and its section of the report."""
    monkeypatch.setattr(show_operators, "_ROWS", 2_000)
    printed = io.StringIO()
    mine = {"own": own} if bars.startswith("time") else {}
    chosen = Features(sets=("time",), mine=mine)
    cfg = Config(data_dir=str(data_dir), bars=bars, features=chosen, operators=Operators(find=find))
    record = RunRecord(cfg, Console(file=printed, width=width))
    with record.stage("operators") as stage:
        show_operators.run(cfg, stage)
    section = msgspec.json.decode(msgspec.json.encode(record.sections))["operators"]
    return {row["name"] for row in section["entries"]}, printed.getvalue(), section


def test_costs_are_of_rows_without_a_gap_and_of_all_that_is_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {"x": "(sub (mean_50 bid_qty) (at_1m (hurst_100 (of_ETHUSDT (mean_9 bid_qty)))))"}
    program = compile_texts(texts, "time_1s")
    rows = cost.made_up_rows(1, 500, [program])
    values = [layer.program.evaluate(rows[:, : len(layer.program.columns)]) for layer in program.layers]
    assert all(np.isfinite(each[-1]).all() for each in values)
    monkeypatch.setattr(cost, "cost_ns", lambda layer, x: 6.0)
    assert cost.panel_cost_ns(program, rows) == 6.0 + 2 * 6.0 / 60
