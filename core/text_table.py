"""Tables of text that fit the screen: what it is too narrow for is left out column by column, never cut.

Widths are in cells of the terminal: a Chinese sign takes two.
"""

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from rich.cells import cell_len

BETWEEN: Final = 2
"""Spaces between two columns."""


def fitting(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, least_wanted: Sequence[str]) -> list[int]:
    """The places of the columns that fit side by side into `width`; those of `least_wanted` go first, in its order."""
    widths = _widths(heads, rows)
    shown = list(range(len(heads)))
    for name in least_wanted:
        if _together(widths, shown) <= width:
            break
        shown.remove(heads.index(name))
    return shown


def table_lines(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    width: int,
    names: int = 1,
    least_wanted: Sequence[str] = (),
) -> list[str]:
    """A line of headings and one per row. The first `names` columns stand to the left, figures to the right."""
    shown, widths = fitting(heads, rows, width, least_wanted), _widths(heads, rows)
    return [
        (" " * BETWEEN).join(_padded(cells[place], widths[place], place < names) for place in shown).rstrip()
        for cells in (heads, *rows)
    ]


def grouped_lines(
    heads: Sequence[str],
    groups: Mapping[str, Sequence[Sequence[str]]],
    width: int,
    least_wanted: Sequence[str] = (),
) -> list[str]:
    """As `table_lines`, the rows below the name of their group, which would take a column of its own."""
    rows = [(f"  {name}", *rest) for group in groups.values() for name, *rest in group]
    heading, *lines = table_lines(heads, rows, width, 1, least_wanted)
    told, rest_of_them = [heading], iter(lines)
    for name, group in groups.items():
        told += [name, *islice(rest_of_them, len(group))]
    return told


def blocks(heads: Sequence[str], rows: Sequence[Sequence[str]], width: int, names: int = 1) -> list[list[str]]:
    """All columns, as several tables below each other where they do not fit beside each other; each has the names."""
    widths, found = _widths(heads, rows), [list(range(names))]
    for place in range(names, len(heads)):
        if len(found[-1]) > names and _together(widths, [*found[-1], place]) > width:
            found.append(list(range(names)))
        found[-1].append(place)
    chosen = [([heads[at] for at in places], [[row[at] for at in places] for row in rows]) for places in found]
    return [table_lines(some_heads, some_rows, width, names) for some_heads, some_rows in chosen]


def _widths(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(cell_len, column)) for column in zip(heads, *rows, strict=True)]


def _together(widths: Sequence[int], shown: Sequence[int]) -> int:
    return sum(widths[place] for place in shown) + BETWEEN * (len(shown) - 1)


def _padded(text: str, width: int, to_the_left: bool) -> str:
    space = " " * (width - cell_len(text))
    return text + space if to_the_left else space + text
