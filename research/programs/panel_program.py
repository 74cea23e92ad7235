"""Features with joins, compiled: programs that run on the bars of several clocks and symbols, and how they are joined.

The operand of a join (joins.py) is an expression on other bars. All operands that stand equally deep and are asked of
the same bars become one program, a layer, whose results are columns of the layers above it; the last layer computes the
features. Those on the values of one slow series become a program too, a `SignalLayer`. So each distinct operand is
computed once on a symbol's bars, whichever features of whichever symbols ask.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from research.bars.clocks import parse_clock
from research.language import compile_features, expand
from research.programs.expression import Node, parts, show, written
from research.programs.joins import SIGNAL_COLUMNS, Join
from research.programs.naming import Definitions, Source
from research.programs.pointing import fail_at_word, text_with
from research.programs.program import Program
from research.programs.windows import window_bars

FEATURES: Final = "features"
"""The key of the last layer."""


@dataclass(frozen=True)
class JoinedColumn:
    """A column that comes from another layer, from the output of that number, by `join`.

    A value holds for `step_ns`, after which its clock has the next bar; 0: until that comes.
    """

    join: Join
    layer: int
    output: int
    step_ns: int


@dataclass(frozen=True)
class SignalLayer:
    """A program on the values of the series `name`, rows of SIGNAL_COLUMNS."""

    name: str
    program: Program


@dataclass(frozen=True)
class Layer:
    """A program on the bars of one clock; `joined` are its last columns but for `signals`, after those of the bars.

    `signals` are outputs of all signal layers, numbered through.

    `key` tells where its expressions are computed: the same for any set of features, so that a program of fewer ones
    can go on from the state of one of more.
    """

    key: str
    clock: str
    program: Program
    joined: tuple[JoinedColumn, ...]
    signals: tuple[int, ...] = ()


@dataclass(frozen=True)
class PanelProgram:
    """The features of all symbols of a run. `layers` stand in an order in which each needs only those before it, and
    all may need those of `signals`.

    `columns` are those that come with each bar, of any clock.
    """

    layers: tuple[Layer, ...]
    columns: tuple[str, ...]
    signals: tuple[SignalLayer, ...] = ()

    @property
    def main(self) -> Program:
        """The program that gives the features once the joined columns are there."""
        return self.layers[-1].program

    @property
    def names(self) -> tuple[str, ...]:
        return self.main.names

    @property
    def expressions(self) -> tuple[str, ...]:
        """The features' texts over the columns alone."""
        return self.main.expressions

    @property
    def bar(self) -> str:
        """The clock of the features' rows."""
        return self.layers[-1].clock

    @property
    def clocks(self) -> tuple[str, ...]:
        """The clocks whose bars are read, that of the features first."""
        return tuple(dict.fromkeys(layer.clock for layer in reversed(self.layers)))

    @property
    def nodes(self) -> int:
        """Distinct operators; a join counts as none."""
        programs = [layer.program for layer in self.layers] + [layer.program for layer in self.signals]
        return sum(program.nodes for program in programs)

    @property
    def crosses_symbols(self) -> bool:
        """Do features of one symbol need bars of another?"""
        return any(column.join.form != "at" for layer in self.layers for column in layer.joined)

    @property
    def compares_symbols(self) -> bool:
        """Do features hang on which symbols are in the run?"""
        return any(column.join.is_cross_section for layer in self.layers for column in layer.joined)

    @property
    def is_chained(self) -> bool:
        """Does a day go on from the state of the day before? It must where an operator remembers everything, and does
        with joins, whose bars would each have to be read as far back as their own windows reach."""
        return len(self.layers) > 1 or self.main.is_infinite

    @property
    def warmup_bars(self) -> int | None:
        """Rows before the first for which all windows are full, those inside joins too, where bars come one by one.

        None where that cannot be said: so many bars of a clock that is not of time are not so many rows.
        """
        return _latest(self.warmups.values())

    @property
    def warmups(self) -> dict[str, int | None]:
        """The same of each feature alone."""
        known: dict[tuple[Node, str], int | None] = {}
        trees = zip(self.names, self.main.trees, strict=True)
        return {name: _warmup(tree, self.bar, known) for name, tree in trees}

    @property
    def remembering(self) -> list[str]:
        """The features with an operator that remembers everything, so that their values hang on where a run began."""
        return [name for name, tree in zip(self.names, self.main.trees, strict=True) if _remembers(tree)]

    def asked(
        self, instruments: Sequence[str], without_bars: Collection[str] = (), texts: Mapping[str, str] | None = None
    ) -> list[tuple[str, ...]]:
        """For each layer the instruments (`venue:SYMBOL`) on whose bars it runs, in a run of `instruments`.

        Those `without_bars` belong to the run too, and there is nothing of them yet. `texts` are features as they were
        written, for errors to point into.
        Raises ValueError, with the feature and the place in its text, where one of them is not in the run.
        """
        wanted: list[set[str]] = [set() for _ in self.layers]
        wanted[-1] = set(instruments)
        for layer, viewers in zip(reversed(self.layers), reversed(wanted), strict=True):
            for column in layer.joined:
                wanted[column.layer] |= {column.join.target(viewer) for viewer in viewers}
                wanted[column.layer] |= set(instruments) if column.join.is_cross_section else set()
        for missing in sorted(set().union(*wanted) - set(instruments)):
            self._fail_missing(missing, instruments, missing in without_bars, texts or {})
        return [tuple(sorted(names)) for names in wanted]

    def _fail_missing(
        self, missing: str, instruments: Sequence[str], is_of_run: bool, texts: Mapping[str, str]
    ) -> None:
        run = ", ".join(sorted(instruments))
        for feature, tree in zip(self.names, self.main.trees, strict=True):
            asking = _asking(tree, set(instruments), missing, instruments)
            if asking is not None:
                near = [each for each in instruments if each.startswith(missing)][:1]
                meant = f"did you mean of_{near[0].partition(':')[2]}?" if near else "name one of these,"
                why = f"{missing} is none of the symbols of the run, {run}: {meant} or add it to `symbols`"
                if is_of_run:
                    why = f"{missing} has no bars yet, as {run} have: capture it and run `bars`, or name one of these"
                word = written(asking)
                text = text_with(word, texts.get(feature, ""), show(tree))
                fail_at_word(text, word, f"feature {feature}: {why}")


def _asking(tree: Node, viewers: set[str], missing: str, instruments: Sequence[str]) -> Node | None:
    """The join through which `tree`, on the bars of `viewers`, asks for a missing instrument; None: none does."""
    for part, join in _joins([tree]):
        targets = {join.target(viewer) for viewer in viewers}
        if missing in targets:
            return part
        seen = targets | set(instruments) if join.is_cross_section else targets
        found = _asking(part.args[0], seen, missing, instruments)
        if found is not None:
            return found
    return None


def compile_panel(
    features: Mapping[str, Source],
    columns: Sequence[str],
    bar: str,
    definitions: Definitions | None = None,
) -> PanelProgram:
    """Like `language.compile_features`, for features with joins. `bar` is a clock's name, such as `time_200ms`.

    `columns` are those of the bars of every clock. Raises ValueError, with the feature's name and the place in its
    text, for anything that is not in the language.
    """
    trees = {name: _expanded(name, source, columns, bar, definitions or {}) for name, source in features.items()}
    found: dict[_Home, dict[Node, None]] = {}
    for tree in trees.values():
        _find_operands(tree, bar, found)
    homes = {home: {show(tree): tree for tree in found[home]} for home in sorted(found)}
    signals = _signal_layers([*trees.values(), *(tree for named in homes.values() for tree in named.values())])
    outputs = [f"(signal_{layer.name} {text})" for layer in signals for text in layer.program.names]
    made = _Made(tuple(columns), homes, {text: number for number, text in enumerate(outputs)})
    layers = [_layer("/".join(map(str, home)), named, home.clock, made) for home, named in homes.items()]
    return PanelProgram((*layers, _layer(FEATURES, trees, bar, made)), made.columns, signals)


def _warmup(tree: Node, bar: str, known: dict[tuple[Node, str], int | None]) -> int | None:
    """Of an expression on the bars of a clock. `known` are those found before, since features share parts."""
    if (tree, bar) not in known:
        on = tree.join.clock(bar) if tree.join else bar
        operands = () if tree.join and tree.join.is_signal else tree.args  # a table has values of before the bars
        before = _latest(_warmup(arg, on, known) for arg in operands)
        own = tree.operator.warmup_bars(window_bars(tree.window, bar)) if tree.window else 0
        known[tree, bar] = None if before is None else _rows_of(before, on, bar) if on != bar else before + own
    return known[tree, bar]


def _remembers(tree: Node) -> bool:
    """Does anything in a tree remember all bars? What the table of a slow series holds needs no memory."""
    calls = [part for part in parts(tree, into_joins=False) if part.is_call and part.join is None]
    return any(call.operator.infinite for call in calls) or any(_remembers(part.args[0]) for part, _ in _joins([tree]))


def _latest(warmups: Iterable[int | None]) -> int | None:
    latest = 0
    for each in warmups:
        if each is None:
            return None
        latest = max(latest, each)
    return latest


def _rows_of(bars: int, clock: str, around: str) -> int | None:
    """How many rows of the clock `around` come before the first that sees a bar which so many of its clock precede."""
    step_ns, row_ns = parse_clock(clock).step_ns, parse_clock(around).step_ns
    return -(-(bars + 1) * step_ns // row_ns) - 1 if step_ns and row_ns else None


class _Home(NamedTuple):
    """Where operands are computed: above how many other joins, on which clock, and for `of_` on which symbol."""

    depth: int
    clock: str
    symbol: str


def _home(join: Join, operand: Node, around: str) -> _Home:
    return _Home(_depth(operand), join.clock(around), join.place if join.form == "of" else "")


def _depth(tree: Node) -> int:
    """The most joins that stand within each other."""
    return max((1 + _depth(part.args[0]) for part, _ in _joins([tree])), default=0)


def _joins(trees: Iterable[Node]) -> list[tuple[Node, Join]]:
    """The joins of bars in some trees, but for those inside other joins."""
    found = [(part, part.join) for part in parts(*trees, into_joins=False)]
    return [(part, join) for part, join in found if join is not None and not join.is_signal]


def _signals(trees: Iterable[Node]) -> list[tuple[Node, Join]]:
    """The signals in some trees, but for those inside joins."""
    found = [(part, part.join) for part in parts(*trees, into_joins=False)]
    return [(part, join) for part, join in found if join is not None and join.is_signal]


def _signal_layers(trees: Iterable[Node]) -> tuple[SignalLayer, ...]:
    """The programs on the values of each series that some trees ask for."""
    asked: dict[str, dict[str, Node]] = {}
    for part, join in _signals(trees):
        asked.setdefault(join.place, {})[show(part.args[0])] = part.args[0]
    named = sorted(asked.items())
    return tuple(SignalLayer(name, compile_features(operands, SIGNAL_COLUMNS)) for name, operands in named)


def _expanded(name: str, source: Source, columns: Sequence[str], bar: str, definitions: Definitions) -> Node:
    """The feature's tree over the columns, all that stands inside its joins checked."""
    try:
        return expand(source, columns, definitions, bar)
    except ValueError as error:
        raise ValueError(f"feature {name}: {error}") from None


def _find_operands(tree: Node, bar: str, found: dict[_Home, dict[Node, None]]) -> None:
    """Note every operand of a join where it is computed, those inside others too."""
    for part, join in _joins([tree]):
        operand = part.args[0]
        found.setdefault(_home(join, operand, bar), {})[operand] = None
        _find_operands(operand, join.clock(bar), found)


class _Made(NamedTuple):
    """What a layer's expressions may read: columns of bars, what operands give where they are computed, and outputs of
    the signal layers, by text."""

    columns: tuple[str, ...]
    homes: Mapping[_Home, Mapping[str, Node]]
    signals: Mapping[str, int]


def _layer(key: str, named: Mapping[str, Node], clock: str, made: _Made) -> Layer:
    joins = {show(part): (join, part.args[0]) for part, join in _joins(named.values())}
    signals = {show(part): made.signals[show(part)] for part, _ in _signals(named.values())}
    program = compile_features(named, (*made.columns, *joins, *signals), clock)
    joined = [_column(join, operand, clock, made.homes) for join, operand in joins.values()]
    return Layer(key, clock, program, tuple(joined), tuple(signals.values()))


def _column(join: Join, operand: Node, around: str, homes: Mapping[_Home, Mapping[str, Node]]) -> JoinedColumn:
    home = _home(join, operand, around)
    output = list(homes[home]).index(show(operand))
    return JoinedColumn(join, list(homes).index(home), output, parse_clock(home.clock).step_ns)
