"""From trees to the flat code of a program: each distinct sub-expression once, registers shared.

A register is handed on after the last use of its value, so that those in use stay in the caches.
"""

import numpy as np

from research.expression import Node, parts, show
from research.interpreter import SCRATCH
from research.opcodes import ARG, CODE_WIDTH, EMIT, LOAD, OP, OUT, STATE, STATE_END, A, D, state_size
from research.program import GAP_COLUMN, Ints, Program


def assemble(
    names: tuple[str, ...], trees: list[Node], in_bars: list[Node], columns: tuple[str, ...], bar: str
) -> Program:
    """The program of features, given as written (`trees`) and with their windows counted in bars (`in_bars`)."""
    local = list(parts(*in_bars, into_joins=False))
    numbers = [part for part in local if part.is_number]
    lines, state_end = _instructions(in_bars, numbers, columns)
    calls = [part for part in local if part.is_call and not part.join]
    keepers = [part for part in calls if _state_of(part)]
    registers = _fold_registers(lines, SCRATCH + len(numbers))
    return Program(
        names=names,
        expressions=tuple(show(tree) for tree in trees),
        columns=columns,
        bar=bar,
        code=lines,
        constants=np.array([part.head for part in numbers], np.float64),
        inputs=_inputs(lines, columns),
        registers=registers,
        state_size=state_end,
        nodes=len(calls),
        warmup_bars=_warmup_bars(in_bars),
        memories=tuple(show(part) for part in keepers),
        memory_ends=lines[lines[:, STATE_END] > lines[:, STATE], STATE_END],
        is_infinite=any(part.operator.infinite for part in keepers),
    )


def _state_of(call: Node) -> int:
    return state_size(call.operator.opcode, int(call.window or 0))


def _inputs(code: Ints, columns: tuple[str, ...]) -> Ints:
    """The columns that a run reads: those of the features and the one that tells gaps."""
    gap = [columns.index(GAP_COLUMN)] if GAP_COLUMN in columns else []
    return np.union1d(code[code[:, OP] == LOAD, ARG], gap).astype(np.int64)


def _instructions(trees: list[Node], numbers: list[Node], columns: tuple[str, ...]) -> tuple[Ints, int]:
    """The code, each value in a register of its own, and the size of the state. Numbers come first and need no code."""
    home = {part: SCRATCH + i for i, part in enumerate(numbers)}
    lines: list[list[int]] = []
    state_end = 0
    for feature, tree in enumerate(trees):
        for part in parts(tree, into_joins=False):
            if part in home:
                continue
            home[part] = SCRATCH + len(home)
            if not part.is_call or part.join:
                lines.append([LOAD, home[part], 0, 0, 0, 0, columns.index(show(part)), 0, 0])
                continue
            opcode, window = part.operator.opcode, int(part.window or 0)
            operands = [home[arg] for arg in part.args] + [0] * (4 - len(part.args))
            state, state_end = state_end, state_end + _state_of(part)
            lines.append([opcode, home[part], *operands, window, state, state_end])
        lines.append([EMIT, 0, home[tree], 0, 0, 0, feature, 0, 0])
    return np.array(lines, np.int64).reshape(-1, CODE_WIDTH), state_end


def _fold_registers(code: Ints, fixed: int) -> int:
    """Let values share registers, in place: one that was read for the last time is free again. Returns how many.

    Registers below `fixed` stay as they are. A result never goes to a register of its own operands, since kernels write
    it while they read.
    """
    operands = code[:, A : D + 1]
    last_use = {int(value): line for line, row in enumerate(operands) for value in row}
    place = {value: value for value in range(fixed)}
    free: list[int] = []
    total = fixed
    for line, row in enumerate(code):
        if row[OP] != EMIT:
            if not free:
                free.append(total)
                total += 1
            place[int(row[OUT])] = free.pop()
        used = {int(value) for value in operands[line]}
        operands[line] = [place[int(value)] for value in operands[line]]
        row[OUT] = place[int(row[OUT])]
        free += [place[value] for value in used if value >= fixed and last_use[value] == line]
    return total


def _warmup_bars(trees: list[Node]) -> int:
    bars: dict[Node, int] = {}
    for part in parts(*trees, into_joins=False):
        bars[part] = max((bars.get(arg, 0) for arg in part.args), default=0)
        if part.window:
            bars[part] += part.operator.warmup_bars(int(part.window))
    return max(bars[tree] for tree in trees)
