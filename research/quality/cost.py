"""What a program costs here: ns per row on one thread, warm."""

import time
from collections.abc import Sequence
from typing import Final

import numpy as np

from research.bars.clocks import parse_clock
from research.catalogue import EVERY_COLUMN
from research.programs.panel_program import PanelProgram
from research.programs.program import GAP_COLUMN, Floats, Program

MOST_OPERANDS: Final = 4
"""Of an operator: rows are at least as wide."""
_TIMES: Final = 3


def made_up_rows(seed: int, n: int, programs: Sequence[PanelProgram]) -> Floats:
    """Rows (n, columns) without a gap, wide enough for every layer of some programs and for any operator."""
    widths = [len(layer.program.columns) for program in programs for layer in program.layers]
    rows = np.random.default_rng(seed).lognormal(size=(max(len(EVERY_COLUMN), MOST_OPERANDS, *widths), n)).T
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
