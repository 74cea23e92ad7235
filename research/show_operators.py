"""Stage `operators`: what the feature language has, with units, warm-up, source, and what each operator costs here.

    python run_pipeline.py operators

The cost is measured as it is printed: ns per row of one operator on one thread, warm, with a window of 300 bars, its
operands' loading included; that of a catalogue feature is what it costs alone, without what it would share with others.
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from core.cli import stage_main
from core.config import Config
from core.run_record import Stage
from core.schema import Table
from research.catalogue import compile_texts
from research.fitted import chosen_features
from research.language import compile_features
from research.language_docs import example, operator_rows
from research.operators import OPERATORS
from research.program import Floats, Program

READS: tuple[Table, ...] = ()
WRITES: tuple[Table, ...] = ()
_WINDOW: Final = 300
_ROWS: Final = 100_000
_TIMES: Final = 3


def run(cfg: Config, stage: Stage) -> None:
    """Print the operators and the features that the configuration chooses."""
    features = chosen_features(cfg)
    programs = [compile_texts({name: text}, cfg.bars).main for name, text in features.items()]
    width = max(len(program.columns) for program in programs)
    noise = np.random.default_rng(cfg.seed).lognormal(size=(width, _ROWS)).T
    costs = {name: cost_ns(_operator(name), noise[:, :4]) for name in OPERATORS}
    head = ("operator", "meaning", "unit", "warm-up", "ns/row")
    rows = [(*row[:4], f"{costs[name]:.1f}") for name, row in zip(OPERATORS, operator_rows(), strict=True)]
    stage.note(f"{len(OPERATORS)} operators; cost with a window of {_WINDOW} bars, on this machine")
    _say_table(stage, head, rows)
    stage.note(f"\n{len(features)} features on {cfg.bars}")
    _say_table(stage, ("feature", "warm-up", "ns/row", "expression"), _features(programs, noise))
    stage.put("operators", {"count": len(OPERATORS), "ns_per_row": costs})


def _operator(name: str) -> Program:
    operator = OPERATORS[name]
    return compile_features({name: example(operator, _WINDOW)}, [f"x{k}" for k in range(4)])


def _features(programs: Sequence[Program], noise: Floats) -> list[tuple[str, ...]]:
    """One row per program of one feature."""
    rows: list[tuple[str, ...]] = []
    for program in programs:
        cost = cost_ns(program, noise[:, : len(program.columns)])
        rows.append((program.names[0], f"{program.warmup_bars:,}", f"{cost:.1f}", program.expressions[0]))
    return rows


def cost_ns(program: Program, x: Floats) -> float:
    """ns per row of a program, the best of some runs."""
    last = np.array([len(x) - 1])
    taken_s = []
    for _ in range(_TIMES):
        began_s = time.perf_counter()
        program.evaluate(x, take=last)
        taken_s.append(time.perf_counter() - began_s)
    return min(taken_s) / len(x) * 1e9


def _say_table(stage: Stage, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns; numbers to the right."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    right = [head[k] in ("warm-up", "ns/row") for k in range(len(head))]
    for row in (head, *rows):
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        stage.note("  ".join(cells).rstrip())


if __name__ == "__main__":
    stage_main("operators", run)
