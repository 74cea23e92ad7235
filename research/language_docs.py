"""The feature language described from its own tables: docs/language.md, and the rows of the stage `operators`.

python research/language_docs.py        writes docs/language.md
"""

import sys
from pathlib import Path

if not __package__:
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from collections.abc import Iterable, Sequence
from typing import Final

from core.config import ROOT
from research import language_guide as guide
from research.bars.columns import LEVEL_COLUMNS, MAX_LEVELS, deepest_level
from research.catalogue import (
    CATALOGUE,
    DEFINITIONS,
    EVERY_COLUMN,
    FEATURE_COLUMNS,
    FEATURE_SETS,
    JOINED_SETS,
    REFERENCE_BAR,
    choose,
    compile_texts,
)
from research.programs.expression import node, show
from research.programs.joins import CROSS_SECTIONS
from research.programs.operators import OPERATORS, Operator
from research.programs.panel_program import compile_panel

DOCS: Final = ROOT / "docs" / "language.md"


def example(operator: Operator, window: int, first: int = 0) -> str:
    """A call of an operator on the columns x0 to x3, from the `first` on, with a window in bars where it takes one."""
    columns = [node(f"x{(first + place) % 4}") for place in range(operator.arity)]
    args = [
        node(_level(operator, place)) if place in operator.levels else columns[place] for place in range(len(columns))
    ]
    return show(node(operator.name, args, str(window) if operator.window else ""))


def _level(operator: Operator, place: int) -> float:
    """A number for an operand: of some that share in 1 the first has most, and something is left."""
    return 0.05 if any(place in places[1:] for places in operator.shares) else 0.8


def join_rows() -> list[tuple[str, str]]:
    """Form and meaning of the joins."""
    return [*guide.JOIN_ROWS, *((f"({name} x)", says) for name, says in CROSS_SECTIONS.items())]


def operator_rows() -> list[tuple[str, ...]]:
    """Form, meaning, unit, warm-up in bars, how a bar's time grows with the window, the windows that it takes, where it
    is NaN (beside the rule), source."""
    return [
        (
            each.form, each.doc, each.units, each.warmup + (" ∞" if each.infinite else ""), each.cost,
            f"{each.least:,} to {each.most:,}" if each.window else "", each.nan, each.source,
        )
        for each in OPERATORS.values()
    ]  # fmt: skip


def feature_rows() -> list[tuple[str, ...]]:
    """Set, name, what it says, unit, warm-up in bars of 200 ms, source, expression."""
    named = {**CATALOGUE, **DEFINITIONS}
    rows: list[tuple[str, ...]] = []
    for chosen, features in (FEATURE_SETS | JOINED_SETS).items():
        for name, each in features.items():
            program = compile_panel({name: each.text}, EVERY_COLUMN, REFERENCE_BAR, named).main
            rows.append((chosen, name, each.says, each.unit, f"{program.warmup_bars:,}", each.source, each.text))
    return rows


def set_rows() -> list[tuple[str, ...]]:
    """Set, what it is about, features, warm-up in bars of 200 ms, book levels that it reads, whether it is infinite."""
    rows: list[tuple[str, ...]] = []
    for name, features in (FEATURE_SETS | JOINED_SETS).items():
        texts = choose((name,), {}, REFERENCE_BAR)
        program, levels = compile_texts(texts, REFERENCE_BAR).main, deepest_level(texts.values())
        figures = f"{len(features)}", f"{program.warmup_bars:,}", f"{levels or ''}", "∞" if program.is_infinite else ""
        rows.append((name, guide.ABOUT[name], *figures))
    return rows


def page() -> str:
    """The text of docs/language.md."""
    blocks = [
        guide.HEAD,
        guide.JOINS,
        *_table(("form", "value"), [(f"`{form}`", says) for form, says in join_rows()]),
        guide.JOIN_RULES,
        guide.SIGNALS,
        guide.CLOCKS,
        *_table(("bars", "form", "a bar is full when, or after", "source"), guide.CLOCK_ROWS),
        guide.CLOCK_RULES,
        guide.FITTED,
        guide.ASSESS,
        "## Operators\n",
        guide.COSTS,
        *_table(("form", "meaning", "unit", "warm-up", "cost", "windows", "NaN", "source"), operator_rows()),
        "\n## Columns of a bar\n",
        ", ".join(f"`{name}`" for name in FEATURE_COLUMNS) + ". What each is: research/bars/bar_pass.py.",
        f"\nOf level k of the book, from 1 (the best) to {MAX_LEVELS}: "
        + ", ".join(f"`{name}_k`" for name in LEVEL_COLUMNS)
        + ". A run whose features read levels has the bars stage build as many. "
        "What each is: research/bars/order_book.py.",
        "\n## Definitions\n",
        *_table(("name", "expression"), [(name, f"`{text}`") for name, text in DEFINITIONS.items()]),
        "\n## The catalogue\n",
        guide.CATALOGUE.format(len(CATALOGUE), sum(map(len, JOINED_SETS.values()))),
        *_table(("set", "about", "features", "warm-up", "levels", ""), set_rows()),
        "",
        *_table(
            ("set", "feature", "what it says", "unit", "warm-up", "source", "expression"),
            [(*row[:-1], f"`{row[-1]}`") for row in feature_rows()],
        ),
    ]
    return "\n".join(blocks) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *escaped)]


if __name__ == "__main__":
    DOCS.parent.mkdir(exist_ok=True)
    DOCS.write_text(page())
    print(f"wrote {DOCS}")
