"""What the names in an expression stand for: columns, signals, definitions, each definition's expression in its place.

A text is checked as it was written, before names are put in: errors point into the text that somebody wrote, be it that
of a definition, and say on which bars it stands where a join has put it on others.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NoReturn, TypeAlias

from research.programs.expression import Node, excerpt, node, parse, parts, show, written
from research.programs.joins import SIGNAL_COLUMNS, Join, signal_name
from research.programs.pointing import fail, fail_at_head, nearest
from research.programs.windows import is_time, require_window

Source: TypeAlias = str | Node
Definitions: TypeAlias = Mapping[str, Source] | Callable[[str], Mapping[str, Source]]
"""Names and what they stand for; where that hangs on the clock, a function of it."""

_DEEPEST: Final = 100  # definitions within each other: each takes a few calls of Python, whose stack is limited


@dataclass(frozen=True)
class Scope:
    """What a name may stand for on the bars of the clock `bar`; windows are checked where that is known (not None).

    With `joins_are_columns` a join must be a column, told by its text. `signal` is the signal around, as it is written.
    `open` are the definitions that are being expanded, to tell one that uses itself.
    """

    columns: tuple[str, ...]
    definitions: Definitions
    bar: str | None = None
    joins_are_columns: bool = False
    signal: str = ""
    open: list[str] = field(default_factory=list)
    made: dict[str, Node] = field(default_factory=dict)
    within: dict[tuple[str | None, str], "Scope"] = field(default_factory=dict)

    @property
    def known(self) -> Mapping[str, Source]:
        """The definitions on this clock."""
        if isinstance(self.definitions, Mapping):
            return self.definitions
        return self.definitions(self.bar or "")

    def inside(self, join: Join) -> "Scope":
        """That of the operand of a join."""
        bar = None if self.bar is None else join.clock(self.bar)
        key = bar, join.place if join.is_signal else ""
        if key not in self.within:
            self.within[key] = (
                Scope(SIGNAL_COLUMNS, {}, None if bar is None else "", signal=f"signal_{join.place}")
                if join.is_signal
                else Scope(self.columns, self.definitions, bar, open=self.open)
            )
        return self.within[key]


def expanded(source: Source, scope: Scope) -> Node:
    """The tree of a source over the columns of the scope alone.

    Raises ValueError, pointing at the place, for what is not in the language.
    """
    if not isinstance(source, str | Node):
        raise ValueError(f"an expression is text or a Node, was {source!r}")
    return _Source(source, parse(source) if isinstance(source, str) else source, scope).expanded()


@dataclass(frozen=True)
class _Source:
    """One text, or tree, that somebody wrote; `scope` is that around it."""

    text: Source
    tree: Node
    scope: Scope

    def expanded(self) -> Node:
        return self._named(self.tree, self.scope)

    def _named(self, tree: Node, scope: Scope) -> Node:
        """A part with what its names stand for."""
        made: dict[Node, Node] = {}
        for part in parts(tree, into_joins=False):
            self._check(part, scope)
            if part.join:
                made[part] = node(part.head, [self._named(part.args[0], scope.inside(part.join))])
            elif part.is_call:
                made[part] = node(part.head, [made[arg] for arg in part.args], part.window)
            else:
                made[part] = part if part.is_number else self._meaning(part, scope)
            self._require_column(part, made[part], scope)
        return made[tree]

    def _require_column(self, part: Node, made: Node, scope: Scope) -> None:
        if scope.joins_are_columns and made.join and show(made) not in scope.columns:
            needed = "a table of values" if made.join.is_signal else "bars of another clock or symbol"
            what = f"{written(part)} needs {needed}, which rows do not hold: use panel_program.compile_panel"
            self._fail(part, scope, what)

    def _check(self, part: Node, scope: Scope) -> None:
        """Raises ValueError for a window, or a join, that the bars on which it stands do not have."""
        join = part.join
        if join and scope.signal:
            self._fail(part, scope, f"{written(part)} stands inside a signal, which has no bars: put it around")
        if scope.bar is None:
            return
        if join and join.is_cross_section and scope.bar and not is_time(scope.bar):
            why = f"{written(part)} compares bars that close at the same instant, which those of {scope.bar} do not"
            self._fail(part, scope, f"{why}: put it on bars of time, as in (at_1s ({written(part)} x))")
        if scope.signal and part.window and not part.window.isdigit():
            why = f"{written(part)} stands inside {scope.signal}, where windows count values"
            self._fail(part, scope, f"{why}: write {part.head}_12 for twelve of them")
        try:
            require_window(part, scope.bar)
        except ValueError as error:
            self._fail(part, scope, str(error))

    def _meaning(self, part: Node, scope: Scope) -> Node:
        """What a name stands for: itself if it is a column, else its definition's expression; the latest value if it is
        a signal."""
        name, known = str(part.head), scope.known
        if name in scope.columns:
            return part
        if scope.signal:
            inside = " and ".join(SIGNAL_COLUMNS)
            self._fail(part, scope, f"a signal has no {name}: inside stand {inside} alone")
        if name not in known and signal_name(name):
            return node(name, [node(SIGNAL_COLUMNS[0])])
        if name in scope.open:
            self._fail(part, scope, f"{name} is defined by itself")
        if name not in known:
            self._fail(part, scope, f"unknown name {name}{nearest(name, scope.columns, *known)}")
        if len(scope.open) >= _DEEPEST:
            self._fail(part, scope, f"more than {_DEEPEST} definitions within each other: write some of them out")
        if name not in scope.made:
            scope.made[name] = _of_definition(name, known[name], scope)
        return scope.made[name]

    def _fail(self, part: Node, scope: Scope, message: str) -> NoReturn:
        """Raise a ValueError that points at the first place where a part stands in that scope."""
        if isinstance(self.text, Node):
            fail(excerpt(part), int(part.is_call), message)
        for count, (each, around) in enumerate(_occurrences(self.tree, self.scope)):
            if each is part and around is scope:
                fail_at_head(self.text, count, message)
        raise AssertionError(f"{written(part)} stands nowhere in {self.text}")


def _of_definition(name: str, source: Source, scope: Scope) -> Node:
    scope.open.append(name)
    try:
        return expanded(source, scope)
    except ValueError as error:
        raise ValueError(f"in the definition of {name}: {error}") from None
    finally:
        scope.open.pop()


def _occurrences(tree: Node, scope: Scope) -> Iterator[tuple[Node, Scope]]:
    """Every part, as often as it stands there and in the order of the text, with the scope that it stands in."""
    yield tree, scope
    inside = scope.inside(tree.join) if tree.join else scope
    for arg in tree.args:
        yield from _occurrences(arg, inside)
