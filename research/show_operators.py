"""Stage `operators`: what the feature language has: units, warm-up, NaN, sources, and what each operator costs here.

    python run_pipeline.py operators

The cost is measured as it is printed: ns per row on one thread, warm, with a window of 300 bars, the loading of its
operands taken off; that of a catalogue feature is what it costs alone, without what it would share with others.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from core.cli import stage_main
from core.config import Config
from core.run_record import Stage
from core.schema import Table
from core.text_table import table_lines
from research.bars.clocks import parse_clock
from research.catalogue import EVERY_COLUMN, FEATURE_SETS, SIGNAL_SETS, compile_texts
from research.fitting.fitted import chosen_features
from research.language import compile_features
from research.language_docs import example, join_rows
from research.programs.operators import OPERATORS, Operator
from research.programs.panel_program import PanelProgram
from research.programs.program import GAP_COLUMN, Floats, Program

READS: tuple[Table, ...] = ()
WRITES: tuple[Table, ...] = ()
_WINDOW: Final = 300
_ROWS: Final = 100_000
_TIMES: Final = 3
_BELOW: Final = " " * 4
_MOST_OPERANDS: Final = 4
_FEATURES: Final = {
    name: feature for features in (FEATURE_SETS | SIGNAL_SETS).values() for name, feature in features.items()
}


def run(cfg: Config, stage: Stage) -> None:
    """Print the operators and the features that the configuration chooses."""
    features = chosen_features(cfg)
    programs = [compile_texts({name: text}, cfg.bars) for name, text in features.items()]
    noise = made_up_rows(cfg.seed, _ROWS, programs)
    costs = operator_costs_ns(noise[:, :_MOST_OPERANDS])
    stage.note(f"{len(OPERATORS)} operators; cost with a window of {_WINDOW} bars, on this machine")
    _say(stage, "operator", [_operator_entry(each, costs[name]) for name, each in OPERATORS.items()])
    stage.note("\njoins, of operands on other bars; windows inside them count those")
    _say_joins(stage)
    stage.note(f"\n{len(features)} features on {cfg.bars}")
    _say(stage, "feature", [_feature_entry(program, noise) for program in programs])
    stage.put("operators", {"count": len(OPERATORS), "ns_per_row": costs})


def operator_costs_ns(x: Floats) -> dict[str, float]:
    """ns per row of each operator over the columns x (n, _MOST_OPERANDS), the loading of them taken off."""
    columns = [f"x{k}" for k in range(_MOST_OPERANDS)]
    every = {name: name for name in columns}
    load = cost_ns(compile_features(every, columns), x)
    costs = {}
    for name, operator in OPERATORS.items():
        window, times = operator.within(_WINDOW), 1 if operator.hops else len(columns)
        texts = {f"{name}_{k}": example(operator, window, k) for k in range(times)}
        costs[name] = max((cost_ns(compile_features(every | texts, columns), x) - load) / times, 0.0)
    return costs


@dataclass(frozen=True)
class _Entry:
    """Of an operator or a feature: figures for one line, and what is said below it."""

    figures: tuple[str, str, str, str]  # name, unit, warm-up, ns per row
    says: tuple[str, ...]


def _operator_entry(operator: Operator, cost: float) -> _Entry:
    warmup = operator.warmup + (" ∞" if operator.infinite else "")
    nan, source = f"NaN {operator.nan}" if operator.nan else "", f"[{operator.source}]" if operator.source else ""
    says = "; ".join(part for part in (operator.doc, nan) if part)
    ns = f"{cost:.1f}" if cost >= 0.1 else "<0.1"
    return _Entry((operator.form, operator.units, warmup, ns), (f"{says} {source}".strip(),))


def _feature_entry(program: PanelProgram, noise: Floats) -> _Entry:
    """A feature of the catalogue as it is written there; any other by its expression."""
    name, cost, warmup = program.names[0], panel_cost_ns(program, noise), program.warmup_bars
    known = _FEATURES.get(name)
    says = (known.text, f"{known.says} {f'[{known.source}]' if known.source else ''}".strip()) if known else ()
    figures = name, known.unit if known else "", "–" if warmup is None else f"{warmup:,}", f"{cost:.1f}"
    return _Entry(figures, says or program.expressions)


def _say(stage: Stage, kind: str, entries: Sequence[_Entry]) -> None:
    """The table of the figures, and below each row what it means, wrapped to the screen."""
    heads = (kind, "unit", "warm-up", "ns/row")
    heading, *lines = table_lines(heads, [entry.figures for entry in entries], stage.width, 2, ("unit",))
    stage.note(heading)
    for entry, line in zip(entries, lines, strict=True):
        below = (
            textwrap.fill(text, stage.width, initial_indent=_BELOW, subsequent_indent=_BELOW) for text in entry.says
        )
        stage.note("\n".join((line, *below)))


def _say_joins(stage: Stage) -> None:
    for form, says in join_rows():
        stage.note("\n".join((form, textwrap.fill(says, stage.width, initial_indent=_BELOW, subsequent_indent=_BELOW))))


def made_up_rows(seed: int, n: int, programs: Sequence[PanelProgram]) -> Floats:
    """Rows (n, columns) without a gap, wide enough for every layer of some programs and for any operator."""
    width = max(len(layer.program.columns) for program in programs for layer in program.layers)
    rows = np.random.default_rng(seed).lognormal(size=(max(width, _MOST_OPERANDS), n)).T
    rows[:, EVERY_COLUMN.index(GAP_COLUMN)] = 0.0
    return rows


def panel_cost_ns(program: PanelProgram, x: Floats) -> float:
    """ns per row of a program with all that it joins, one symbol's share: a layer costs as often as its bars close.

    Bars of clocks that are not of time count as one a row.
    """
    row_ns, total = parse_clock(program.bar).step_ns, 0.0
    for layer in program.layers:
        step_ns = parse_clock(layer.clock).step_ns
        share = row_ns / step_ns if row_ns and step_ns else 1.0
        total += share * cost_ns(layer.program, x[:, : len(layer.program.columns)])
    return total


def cost_ns(program: Program, x: Floats) -> float:
    """ns per row of a program, the best of some runs."""
    last = np.array([len(x) - 1])
    taken_s = []
    for _ in range(_TIMES):
        began_s = time.process_time()
        program.evaluate(x, take=last)
        taken_s.append(time.process_time() - began_s)
    return min(taken_s) / len(x) * 1e9


if __name__ == "__main__":
    stage_main("operators", run)
