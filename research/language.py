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

from core.errors import ConfigError
from core.units import parse_duration_ns
from research.bars.clocks import parse_clock
from research.programs.assembly import assemble
from research.programs.expression import Node, node, parse, parts, rebuild, show, written
from research.programs.joins import SIGNAL_COLUMNS, signal_name
from research.programs.pointing import fail_at_word, nearest
from research.programs.program import Program

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

    Raises ValueError, with the feature's name and the place in its text, for anything that is not in the language, and
    for a `bar` that is no clock.
    """
    _require_clock(bar)
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
    return assemble(tuple(features), trees, in_bars, tuple(columns), bar)


def expand(source: Source, columns: Sequence[str], definitions: Mapping[str, Source]) -> Node:
    """The tree of an expression over the columns alone, each definition in place of its name."""
    return _expand(source, _Scope(tuple(columns), dict(definitions)))


def window_bars(window: str, bar: str) -> int:
    """Bars in a window such as `20` or `5s` on the clock `bar`. Raises ValueError where that is no whole number."""
    bars, rest = (int(window), 0) if window.isdigit() else divmod(parse_duration_ns(window), _step_ns(bar))
    if rest:
        raise ValueError(f"a window of {window} is not a whole number of bars of {bar.removeprefix('time_')}")
    if not 1 <= bars <= MAX_WINDOW:
        raise ValueError(f"a window holds 1 to {MAX_WINDOW} bars, {_was(window, bars)}: choose a shorter one")
    return bars


def _was(window: str, bars: int) -> str:
    return f"was {bars}" if window.isdigit() else f"{window} is {bars}"


def _require_clock(bar: str) -> None:
    try:
        if bar:
            parse_duration_ns(bar.removeprefix("time_"))
    except ValueError:
        try:
            parse_clock(bar)
        except ConfigError as error:
            raise ValueError(str(error).removeprefix("bars: ").removesuffix(" - at `$.bars`")) from None


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
    if not isinstance(source, str | Node):
        raise ValueError(f"an expression is text or a Node, was {source!r}")
    tree = parse(source) if isinstance(source, str) else source
    return _named(tree, source, scope, {})


def _named(tree: Node, source: Source, scope: _Scope, done: dict[Node, Node]) -> Node:
    """The tree with what its names stand for, inside a signal its own columns; `done` are parts seen before."""
    if tree.is_number:
        return tree
    if scope is _OF_SIGNALS and tree.join:
        fail_in(source, tree, tree, f"{written(tree)} stands inside a signal, which has no bars: put it around")
    if tree not in done:
        if not tree.is_call:
            done[tree] = _meaning(str(tree.head), source, scope)
        else:
            inside = (_OF_SIGNALS, {}) if tree.join and tree.join.is_signal else (scope, done)
            done[tree] = node(tree.head, (_named(arg, source, *inside) for arg in tree.args), tree.window)
    return done[tree]


def _meaning(name: str, source: Source, scope: _Scope) -> Node:
    """What a name in `source` stands for: itself if it is a column, else its definition's expression; the latest value
    if it is a signal."""
    if name in scope.columns:
        return node(name)
    if scope is _OF_SIGNALS:
        fail_at_word(_text(source), name, f"a signal has no {name}: inside stand {' and '.join(SIGNAL_COLUMNS)} alone")
    if name in scope.open:
        fail_at_word(_text(source), name, f"{name} is defined by itself")
    if name not in scope.definitions and signal_name(name):
        return node(name, [node(SIGNAL_COLUMNS[0])])
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


_OF_SIGNALS: Final = _Scope(SIGNAL_COLUMNS, {})


def _check_joins(tree: Node, columns: tuple[str, ...], source: Source) -> None:
    """Raises ValueError for a join that is no column."""
    for part in parts(tree, into_joins=False):
        if part.join and show(part) not in columns:
            needed = "a table of values" if part.join.is_signal else "bars of another clock or symbol"
            what = f"needs {needed}, which rows do not hold: use panel_program.compile_panel"
            fail_in(source, tree, part, f"{written(part)} {what}")


def in_bars_of(tree: Node, bar: str, source: Source, whole: Node | None = None) -> Node:
    """The tree with all windows counted in bars, but for those inside joins, which stand on other bars.

    The error points into the source, or names the definition's part in the `whole` that the tree is a part of.
    """

    def counted(part: Node) -> Node:
        if not part.window:
            return part
        try:
            bars = window_bars(part.window, bar)
            least, most = part.operator.least, part.operator.most
            if bars < least:
                raise ValueError(f"{part.operator.form} needs at least {least} bars, {_was(part.window, bars)}")
            if bars > most:
                raise ValueError(f"{part.operator.form} takes an n up to {most}, was {bars}")
            return node(part.head, part.args, str(bars))
        except ValueError as error:
            fail_in(source, whole or tree, part, str(error))

    return rebuild(tree, counted, into_joins=False)


def fail_in(source: Source, tree: Node, part: Node, message: str) -> NoReturn:
    """Raise a ValueError that points at a part of an expression: in its `source` where it stands there, else in the
    expanded `tree`."""
    text = _text(source)
    fail_at_word(text if written(part) in text else show(tree), written(part), message)


def _text(source: Source) -> str:
    return source if isinstance(source, str) else show(source)
