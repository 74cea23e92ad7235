"""Stage `operators`: the operators and the whole catalogue: units, warm-up, NaN, sources, and what each costs here.

    python run_pipeline.py operators
    python run_pipeline.py operators --set operators.find="kyle lambda"

The cost is measured as it is printed: ns per row on one thread, warm, with a window of 300 bars, the loading of its
operands taken off, and of `vpin` with a bucket in 30 bars, as its feature has it; that of a catalogue feature is what
it costs alone, without what it would share with others. All of it stands in the run's report.json and report.html too.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Final

from core.cli import stage_main
from core.config import Config
from core.errors import StageError
from core.run_record import Stage
from core.schema import Table
from core.text_table import table_lines
from research.catalogue import ALL
from research.catalogue_entries import (
    JOIN,
    OPERATOR,
    RECIPE,
    YOURS,
    Entry,
    feature_entries,
    finding,
    operator_entries,
    recipe_entries,
    words_of,
)
from research.language import compile_features
from research.language_docs import example, set_rows
from research.programs.operators import OPERATORS
from research.programs.program import Floats
from research.quality.cost import MOST_OPERANDS, cost_ns, made_up_rows, panel_cost_ns

READS: tuple[Table, ...] = ()
WRITES: tuple[Table, ...] = ()
_WINDOW: Final = 300
_BUCKET_BARS: Final = 30  # as in the catalogue's `vpin`: 50 buckets in 300 s of bars of 200 ms
_ROWS: Final = 100_000
_BELOW: Final = " " * 4


def run(cfg: Config, stage: Stage) -> None:
    """Print the operators and the features, those of `operators.find` alone where it says something."""
    words = words_of(cfg.operators.find)
    found = finding(cfg.operators.find, (*operator_entries(), *recipe_entries(cfg.bars), *feature_entries(cfg)))
    if not found:
        raise StageError(
            f"no operator or feature is said to be {cfg.operators.find!r}: its words, or how they begin, are looked "
            "for in names, meanings, units, expressions, sets and sources; try fewer, or none for the whole catalogue"
        )
    costs, about = _costs_ns(cfg, found), {name: (says, count) for name, says, count, *_ in set_rows()}
    for group, entries in groupby(found, key=lambda entry: entry.group):
        here = list(entries)
        has = group in cfg.features.sets or ALL in cfg.features.sets
        stage.note("\n" + textwrap.fill(_heading(group, len(here), *about.get(group, ("", "")), has), stage.width))
        _say_group(stage, group, here, costs)
    if not words:
        stage.note('\nto find one: --set operators.find="kyle lambda"')
    operators = {entry.name: costs[entry] for entry in found if entry.group == OPERATOR}
    rows = [entry.row(costs.get(entry)) for entry in found]
    stage.put("operators", {"count": len(OPERATORS), "ns_per_row": operators, "entries": rows, "find": " ".join(words)})


def _costs_ns(cfg: Config, entries: Sequence[Entry]) -> dict[Entry, float]:
    """ns per row of each entry that computes something by itself."""
    programs = {entry: entry.program for entry in entries if entry.program is not None}
    noise = made_up_rows(cfg.seed, _ROWS, list(programs.values()))
    operators = [entry for entry in entries if entry.group == OPERATOR]
    by_name = operator_costs_ns(noise[:, :MOST_OPERANDS], [entry.name for entry in operators])
    costs = {entry: by_name[entry.name] for entry in operators}
    return costs | {entry: panel_cost_ns(program, noise) for entry, program in programs.items()}


def operator_costs_ns(x: Floats, names: Sequence[str]) -> dict[str, float]:
    """ns per row of some operators over the columns x (n, MOST_OPERANDS), the loading of them taken off."""
    columns = [f"x{k}" for k in range(MOST_OPERANDS)]
    every = {name: name for name in columns}
    load = cost_ns(compile_features(every, columns), x)
    costs = {}
    for name in names:
        operator = OPERATORS[name]
        window, times = operator.within(_WINDOW), 1 if operator.hops or operator.by_volume else len(columns)
        texts = {f"{name}_{k}": example(operator, window, k) for k in range(times)}
        rows = with_buckets(x) if operator.by_volume else x
        costs[name] = max((cost_ns(compile_features(every | texts, columns), rows) - load) / times, 0.0)
    return costs


def with_buckets(x: Floats) -> Floats:
    """Rows (n, 4) whose third column is a bucket of _BUCKET_BARS bars' volume, bought (the first) and sold (the next).

    A bar that closes a bucket costs ten times one that does not, so a bucket a bar would price what nobody runs.
    """
    rows = x.copy()
    rows[:, 2] = _BUCKET_BARS * float((x[:, 0] + x[:, 1]).mean())
    return rows


def _say_group(stage: Stage, group: str, entries: Sequence[Entry], costs: Mapping[Entry, float]) -> None:
    """A table of figures, and below each row what it means, wrapped to the screen."""
    heads = (group if group in (OPERATOR, JOIN) else "feature", *(("", "") if group == JOIN else ("warm-up", "ns/row")))
    figures = [(entry.form, entry.warmup, _cost(costs.get(entry))) for entry in entries]
    heading, *lines = table_lines(heads, figures, stage.width)
    stage.note(heading)
    for entry, line in zip(entries, lines, strict=True):
        below = (
            textwrap.fill(text, stage.width, initial_indent=_BELOW, subsequent_indent=_BELOW)
            for text in (entry.written, _meaning(entry))
            if text
        )
        stage.note("\n".join((line, *below)))


def _heading(group: str, count: int, about: str, of_all: str, has: bool) -> str:
    """What the group is, and whether this run has it; `about` and `of_all` are of a set."""
    if group == OPERATOR:
        return f"{_some(count, len(OPERATORS))} operators; cost with a window of {_WINDOW} bars, on this machine"
    if group == JOIN:
        return "joins, of operands on other bars; windows inside them count those"
    if group == RECIPE:
        return "no operators of their own: lines to write in [features.mine], windows as you like"
    if group == YOURS:
        return f"{count} of your own, or fitted"
    where = "in this run" if has else f'not in this run: add "{group}" to features.sets'
    return f"set {group}, {_some(count, int(of_all))} features: {about} ({where})"


def _some(count: int, of_all: int) -> str:
    return f"{count}" if count == of_all else f"{count} of {of_all}"


def _meaning(entry: Entry) -> str:
    unit = f"[{entry.unit}] " if entry.unit else ""
    return f"{unit}{entry.says}{f' ({entry.source})' if entry.source else ''}"


def _cost(ns: float | None) -> str:
    if ns is None:
        return ""
    return f"{ns:.1f}" if ns >= 0.1 else "<0.1"


if __name__ == "__main__":
    stage_main("operators", run)
