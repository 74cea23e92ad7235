"""From features written in the language to a program. The grammar is in expression.py, the operators in operators.py.

  program = compile_features({"wide": "(if_gt spread_bps (mean_5s spread_bps) 1.0 0.0)"}, ["spread_bps"], bar="200ms")
  y = program.evaluate(x)                       # (n, 1)
  live = program.start()                        # live.step(row) gives the rows of y, to the bit

Everything is a float64; 1 is true and 0 is false. The compiler puts definitions in place of their names, counts windows
of time in bars, computes each distinct sub-expression once and hands its register on after the last use.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from research.programs.assembly import assemble
from research.programs.expression import Node, is_name, node, parse, rebuild
from research.programs.naming import Definitions, Scope, Source, expanded
from research.programs.program import Program
from research.programs.windows import require_clock, window_bars

_EXAMPLE: Final = '{"mine": "(mean_20 imbalance)"}'


def compile_features(
    features: Mapping[str, Source],
    columns: Sequence[str],
    bar: str = "",
    definitions: Definitions | None = None,
) -> Program:
    """A program that computes `features` (name: expression) from rows of `columns`.

    `bar` is the clock of the rows, `200ms` or `time_200ms`: windows of time are counted in it; on any other clock they
    are errors. A join (joins.py) stands for the column that has its text as name: panel_program.py makes programs that
    compute it. `definitions` are names that expressions may use beside the columns; they may use each other, and a
    column of the same name comes first. A column `has_gap` is heeded: see interpreter.py.

    Raises ValueError, with the feature's name and the place in its text, for anything that is not in the language, and
    for a `bar` that is no clock.
    """
    require_clock(bar)
    _require_features(features)
    _require_columns(columns)
    scope = Scope(tuple(columns), definitions or {}, bar, joins_are_columns=True)
    trees = []
    for name, source in features.items():
        try:
            trees.append(expanded(source, scope))
        except ValueError as error:
            raise ValueError(f"feature {name}: {error}") from None
    return assemble(tuple(features), trees, [in_bars(tree, bar) for tree in trees], tuple(columns), bar)


def expand(source: Source, columns: Sequence[str], definitions: Definitions, bar: str | None = None) -> Node:
    """The tree of an expression over the columns alone, each definition in place of its name.

    On the clock `bar`, where it is given, all windows must be good, those inside joins on their own bars. Raises
    ValueError, pointing at the place, for what is not in the language.
    """
    return expanded(source, Scope(tuple(columns), definitions, bar))


def in_bars(tree: Node, bar: str) -> Node:
    """The tree with all windows counted in bars, but for those inside joins, which stand on other bars."""

    def counted(part: Node) -> Node:
        return node(part.head, part.args, str(window_bars(part.window, bar))) if part.window else part

    return rebuild(tree, counted, into_joins=False)


def _require_features(features: Mapping[str, Source]) -> None:
    if not isinstance(features, Mapping) or not features:
        raise ValueError(f"needs features by name, as in {_EXAMPLE}, was {features!r}")
    for name in features:
        if not isinstance(name, str) or not name:
            raise ValueError(f"a feature's name is text, was {name!r}")


def _require_columns(columns: Sequence[str]) -> None:
    if isinstance(columns, str):
        raise ValueError(f"columns are a list of names, was the text {columns!r}: write [{columns!r}]")
    if len(set(columns)) != len(columns):
        twice = sorted({str(name) for name in columns if list(columns).count(name) > 1})
        raise ValueError(f"needs distinct columns, had {', '.join(twice)} more than once")
    for name in columns:
        if not isinstance(name, str) or not (is_name(name) or _is_join(name)):
            raise ValueError(
                f"a column is letters, digits and _, was {name!r}, which no expression can name: rename or drop it"
            )


def _is_join(text: str) -> bool:
    """Whether a column has the text of a join as its name: one that comes from other bars."""
    try:
        return text.startswith("(") and parse(text).join is not None
    except ValueError:
        return False
