"""From trees to the flat code of a program: each distinct sub-expression once, registers shared.

A register is handed on after the last use of its value, so that those in use stay in the caches.
"""

from dataclasses import dataclass, field
from typing import Final

import numpy as np

from research.machine import opcodes as machine
from research.machine.interpreter import SCRATCH
from research.machine.opcodes import ARG, CODE_WIDTH, EMIT, LOAD, OP, OUT, A, D, state_size
from research.programs.expression import Node, node, parts, show
from research.programs.program import GAP_COLUMN, Ints, Program

_ROOM: Final = D - A + 1  # for operands in an instruction
_OF_SUMS: Final = frozenset({machine.SUM, machine.MEAN, machine.STD, machine.ZSCORE})
_OF_SQUARES: Final = frozenset({machine.STD, machine.ZSCORE})
_OF_STATES: Final = frozenset({machine.HMM2, machine.HMM3, machine.HMM4})


def assemble(
    names: tuple[str, ...], trees: list[Node], in_bars: list[Node], columns: tuple[str, ...], bar: str
) -> Program:
    """The program of features, given as written (`trees`) and with their windows counted in bars (`in_bars`)."""
    local = list(parts(*in_bars, into_joins=False))
    numbers = [part for part in local if part.is_number]
    calls = [part for part in local if _is_computed(part)]
    code = _Code(columns, {part: SCRATCH + i for i, part in enumerate(numbers)}, _families(calls))
    for feature, tree in enumerate(in_bars):
        code.add_feature(feature, tree)
    lines = np.array(code.lines, np.int64).reshape(-1, CODE_WIDTH)
    spans = [[begin, end] for _, begin, end in code.memories]
    return Program(
        names=names,
        trees=tuple(trees),
        columns=columns,
        bar=bar,
        code=lines,
        constants=np.array([part.head for part in numbers], np.float64),
        inputs=_inputs(lines, columns),
        registers=_fold_registers(lines, SCRATCH + len(numbers)),
        state_size=code.state_end,
        nodes=len(calls),
        warmup_bars=_warmup_bars(in_bars),
        memories=tuple(part for part, _, _ in code.memories),
        memory_spans=np.array(spans, np.int64).reshape(-1, 2),
        is_infinite=any(part.operator.infinite for part in calls),
    )


def _is_computed(part: Node) -> bool:
    """Whether a node is an operator of this program: not a number, a column, or a join, which is a column here."""
    return part.is_call and not part.join


def _families(calls: list[Node]) -> dict[tuple[object, ...], list[Node]]:
    """The sums, means, deviations and z-scores of one operand and window, and the states of one filter: all are made
    from one pass."""
    families: dict[tuple[object, ...], list[Node]] = {}
    for part in calls:
        if part.operator.opcode in _OF_SUMS:
            families.setdefault((part.args, part.window), []).append(part)
        elif part.operator.opcode in _OF_STATES:
            families.setdefault((part.args, ""), []).append(part)
    return families


def _inputs(code: Ints, columns: tuple[str, ...]) -> Ints:
    """The columns that a run reads: those of the features and the one that tells gaps."""
    gap = [columns.index(GAP_COLUMN)] if GAP_COLUMN in columns else []
    return np.union1d(code[code[:, OP] == LOAD, ARG], gap).astype(np.int64)


@dataclass
class _Code:
    """Instructions so far, each value in a register of its own (`home`). Numbers come first and need no instruction.

    `memories` are the state: the operator, where it begins and ends.
    """

    columns: tuple[str, ...]
    home: dict[Node, int]
    families: dict[tuple[object, ...], list[Node]]
    lines: list[list[int]] = field(default_factory=list)
    memories: list[tuple[Node, int, int]] = field(default_factory=list)
    state_end: int = 0

    def add_feature(self, feature: int, tree: Node) -> None:
        for part in parts(tree, into_joins=False):
            if part in self.home:
                continue
            if not _is_computed(part):
                self._add(LOAD, self._new_home(part), (), self.columns.index(show(part)))
            elif part.operator.opcode in _OF_SUMS:
                self._add_family(self.families[part.args, part.window])
            elif part.operator.opcode in _OF_STATES:
                self._add_states(self.families[part.args, ""])
            else:
                opcode, window = part.operator.opcode, int(part.window or 0)
                size = state_size(opcode, window)
                self._keep(part, size)
                self._add(opcode, self._new_home(part), part.args, window, size)
        self._add(EMIT, 0, (tree,), feature)

    def _add_family(self, family: list[Node]) -> None:
        """One pass over the operand, then what is made of it, before another pass takes the scratch registers."""
        (operand,), window = family[0].args, family[0].window
        has_squares = any(part.operator.opcode in _OF_SQUARES for part in family)
        mean, size = node("mean", (operand,), window), state_size(machine.TOTAL, int(window))
        self._keep(mean, size)
        if has_squares:
            size = state_size(machine.MOMENTS, int(window))
            self._keep(node("std", (operand,), window), size)
        self._add(machine.MOMENTS if has_squares else machine.TOTAL, 0, (operand,), int(window), size)
        for part in family:
            self._add(part.operator.opcode, self._new_home(part), part.args, int(window))

    def _add_states(self, family: list[Node]) -> None:
        """One pass of a filter, whose operands are more than an instruction has room for, then its states."""
        first, *_ = family
        opcode, size = first.operator.opcode, state_size(first.operator.opcode, 0)
        self._keep(node(first.head, first.args, first.window and "1"), size)
        self._add(opcode, 0, first.args[:_ROOM], 0, size)
        for begin in range(_ROOM, len(first.args), _ROOM):
            self._add(machine.MORE, 0, first.args[begin : begin + _ROOM], 0)
        for part in family:
            self._add(machine.STATE_OF, self._new_home(part), (), int(part.window or 1) - 1)

    def _keep(self, part: Node, size: int) -> None:
        """State of the next instruction. That of squares begins like that of sums alone, so it goes by both names."""
        if size:
            self.memories.append((part, self.state_end, self.state_end + size))

    def _new_home(self, part: Node) -> int:
        self.home[part] = SCRATCH + len(self.home)
        return self.home[part]

    def _add(self, opcode: int, out: int, args: tuple[Node, ...], arg: int, size: int = 0) -> None:
        operands = [self.home[each] for each in args] + [0] * (_ROOM - len(args))
        self.lines.append([opcode, out, *operands, arg, self.state_end, self.state_end + size])
        self.state_end += size


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
        if row[OUT] >= fixed:
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
