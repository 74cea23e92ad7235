"""From features written in the language to a program. The grammar is in expression.py, the operators in operators.py.

  program = compile_features({"wide": "(if_gt spread_bps (mean_5s spread_bps) 1.0 0.0)"}, ["spread_bps"], bar="200ms")
  y = program.evaluate(x)                       # (n, 1)
  live = program.start()                        # live.step(row) gives the rows of y, to the bit

Everything is a float64; 1 is true and 0 is false. The compiler puts definitions in place of their names, counts windows
of time in bars, computes each distinct sub-expression once and hands its register on after the last use.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeAlias

import numpy as np

from core.units import parse_duration_ns
from research.expression import Node, fail_at_word, nearest, node, parse, parts, rebuild, show, written
from research.interpreter import SCRATCH
from research.opcodes import ARG, CODE_WIDTH, EMIT, LOAD, OP, OUT, STATE, STATE_END, A, D, state_size
from research.program import GAP_COLUMN, Ints, Program

Source: TypeAlias = str | Node
MAX_WINDOW: Final = 10_000_000
"""Bars in a window: 23 days of 200 ms bars, 240 MB of state. More is a slip of the pen."""


def compile_features(
    features: Mapping[str, Source],
    columns: Sequence[str],
    bar: str = "",
    definitions: Mapping[str, Source] | None = None,
) -> Program:
    """A program that computes `features` (name: expression) from rows of `columns`.

    `bar` is the clock of the rows, `200ms` or `time_200ms`: windows of time are counted in it; on any other clock they
    are errors. A join (joins.py) stands for the column that has its text as name: panel_program.py makes programs that
    compute it. `definitions` are names that expressions may use beside the columns; they may use each other, and a
    column of the same name comes first. A column `has_gap` is heeded: see interpreter.py.

    Raises ValueError, with the feature's name and the place in its text, for anything that is not in the language.
    """
    if not features or len(set(columns)) != len(columns):
        raise ValueError(f"needs a feature and distinct columns, had {len(features)} features of {list(columns)}")
    scope = _Scope(tuple(columns), dict(definitions or {}))
    trees, in_bars = [], []
    for name, source in features.items():
        try:
            tree = _expand(source, scope)
            _check_joins(tree, scope.columns, source)
            in_bars.append(in_bars_of(tree, bar, source))
        except ValueError as error:
            raise ValueError(f"feature {name}: {error}") from None
        trees.append(tree)
    return _assemble(tuple(features), trees, in_bars, tuple(columns), bar)


def expand(source: Source, columns: Sequence[str], definitions: Mapping[str, Source]) -> Node:
    """The tree of an expression over the columns alone, each definition in place of its name."""
    return _expand(source, _Scope(tuple(columns), dict(definitions)))


def window_bars(window: str, bar: str) -> int:
    """Bars in a window such as `20` or `5s` on the clock `bar`. Raises ValueError where that is no whole number."""
    bars, rest = (int(window), 0) if window.isdigit() else divmod(parse_duration_ns(window), _step_ns(bar))
    if rest:
        raise ValueError(f"a window of {window} is not a whole number of bars of {bar.removeprefix('time_')}")
    if not 1 <= bars <= MAX_WINDOW:
        raise ValueError(f"a window holds 1 to {MAX_WINDOW} bars, {window} is {bars}: choose a shorter one")
    return bars


def _step_ns(bar: str) -> int:
    try:
        return parse_duration_ns(bar.removeprefix("time_"))
    except ValueError:
        clock = f"these are {bar}" if bar else "no clock was given"
        raise ValueError(f"a window of time needs bars of time, {clock}: count bars instead, as in mean_20") from None


@dataclass(frozen=True)
class _Scope:
    """What a name may stand for. `open` are the definitions being expanded, to tell one that uses itself."""

    columns: tuple[str, ...]
    definitions: dict[str, Source]
    expanded: dict[str, Node] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)


def _expand(source: Source, scope: _Scope) -> Node:
    tree = parse(source) if isinstance(source, str) else source
    meanings = {
        part: _meaning(str(part.head), source, scope) for part in parts(tree) if not part.is_call and not part.is_number
    }
    return rebuild(tree, lambda part: meanings.get(part, part))


def _meaning(name: str, source: Source, scope: _Scope) -> Node:
    """What a name in `source` stands for: itself if it is a column, else its definition's expression."""
    if name in scope.columns:
        return node(name)
    if name in scope.open:
        fail_at_word(_text(source), name, f"{name} is defined by itself")
    if name not in scope.definitions:
        hint = nearest(name, [*scope.columns, *scope.definitions])
        fail_at_word(_text(source), name, f"unknown name {name}{hint}")
    if name not in scope.expanded:
        scope.open.append(name)
        try:
            scope.expanded[name] = _expand(scope.definitions[name], scope)
        except ValueError as error:
            raise ValueError(f"in the definition of {name}: {error}") from None
        scope.open.pop()
    return scope.expanded[name]


def _check_joins(tree: Node, columns: tuple[str, ...], source: Source) -> None:
    """Raises ValueError for a join that is no column."""
    for part in parts(tree, into_joins=False):
        if part.join and show(part) not in columns:
            what = "needs bars of another clock or symbol, which rows do not hold: use panel_program.compile_panel"
            fail_in(source, tree, part, f"{written(part)} {what}")


def in_bars_of(tree: Node, bar: str, source: Source) -> Node:
    """The tree with all windows counted in bars, but for those inside joins, which stand on other bars.

    The error points into the source, or names the definition's part.
    """

    def counted(part: Node) -> Node:
        if not part.window:
            return part
        try:
            bars = window_bars(part.window, bar)
            if bars < part.operator.least:
                least = part.operator.least
                raise ValueError(f"{part.operator.form} needs at least {least} bars, {part.window} is {bars}")
            return node(part.head, part.args, str(bars))
        except ValueError as error:
            fail_in(source, tree, part, str(error))

    return rebuild(tree, counted, into_joins=False)


def fail_in(source: Source, tree: Node, part: Node, message: str) -> NoReturn:
    """Raise a ValueError that points at a part of an expression: in its `source` where it stands there, else in the
    expanded `tree`."""
    text = _text(source)
    fail_at_word(text if written(part) in text else show(tree), written(part), message)


def _text(source: Source) -> str:
    return source if isinstance(source, str) else show(source)


def _assemble(
    names: tuple[str, ...], trees: list[Node], in_bars: list[Node], columns: tuple[str, ...], bar: str
) -> Program:
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
