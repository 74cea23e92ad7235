"""The catalogue: features of market microstructure, each one line of the language over the columns of a bar.

All are scale-free (bps, shares, multiples of a recent deviation, logarithms), so that one model serves all symbols, and
finite in a quiet market: `ratio` is 0 where nothing traded, a z-score is 0 in a constant window, and what a venue does
not publish (mark, funding, open interest, depth) is coalesced away before it enters a window.

They come in named sets, one module for a group of them (sets/); `features.sets` chooses. The default study keeps to
the eight of sets/default.py, whose windows are no longer than 300 s.

Windows are time, whole seconds. A clock that cannot express them (volume bars, bars that no second is a whole number
of) counts in all sets the bars that they hold on the default clock instead, and the names say so: `return_bps_5s` is
there `return_bps_25`. A window with fewer bars than its operator needs has as many as that, and no other is touched by
it: on bars of 1 s `hurst_60s` is `hurst_64`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core import schema
from core.errors import ConfigError
from core.units import NS_PER_DAY, NS_PER_S
from research.bars.columns import MAX_LEVELS, bar_columns, deepest_level
from research.language import expand, window_bars
from research.programs.expression import Node, nearest, node, parts, rebuild, show
from research.programs.panel_program import PanelProgram, compile_panel
from research.programs.program import Program
from research.sets import book as sets_book
from research.sets import calendar as sets_calendar
from research.sets import default as sets_default
from research.sets import derivatives as sets_derivatives
from research.sets import flow as sets_flow
from research.sets import fractal as sets_fractal
from research.sets import price as sets_price
from research.sets.feature import Feature


def feature_columns(levels: int) -> tuple[str, ...]:
    """Columns of the rows that `feature_rows` makes of bars with so many book levels."""
    return (*bar_columns(levels), "second_of_day", "day")


FEATURE_COLUMNS: Final = feature_columns(0)
"""What expressions may read of every bar: its columns, and its close as second of the UTC day and days since 1970."""
EVERY_COLUMN: Final = feature_columns(MAX_LEVELS)
"""What they may read at all: those of book levels too, which the bars stage builds for a run whose features do."""

_OF_TABLES: Final = frozenset({*schema.FEATURES.columns, "exchange", "symbol", "date", "bars"})
"""What a row of the table of features is told by, in its columns and its folders."""
REFERENCE_BAR: Final = "200ms"
_SHORTEST: Final = "1s"  # of the catalogue's windows of time, all of which are multiples of it
ALL: Final = "all"
FITTED: Final = "fitted"
"""The set of what stage `fit` fitted (fitted.py); `all` does not hold it, since there may be nothing."""

_MORE: Final = (sets_book, sets_flow, sets_price, sets_derivatives, sets_fractal, sets_calendar)
DEFINITIONS: Final[dict[str, str]] = sets_default.DEFINITIONS | {
    name: text for module in _MORE for name, text in module.DEFINITIONS.items()
}
"""Names for use in features, `features.mine` included, beside the columns and the catalogue's own features."""

FEATURE_SETS: Final[dict[str, dict[str, Feature]]] = sets_default.DEFAULT_SETS | {
    name: features for module in _MORE for name, features in module.SETS.items()
}
"""The named sets that `features.sets` chooses from; `all` is all of them."""

SETS: Final = {name: {each: feature.text for each, feature in made.items()} for name, made in FEATURE_SETS.items()}
"""The texts alone."""
_NAMED: Final = ", ".join((ALL, FITTED, *SETS))

CATALOGUE: Final = {name: text for features in SETS.values() for name, text in features.items()}

_CALENDAR: Final = frozenset({*SETS["time"], *SETS["calendar"]})


def is_calendar(name: str) -> bool:
    """Whether a feature must move from month to month, whatever the market does."""
    return name in _CALENDAR or name.startswith(sets_calendar.EVENT_PREFIXES)


def choose(sets: Sequence[str], mine: Mapping[str, str], bar: str) -> dict[str, str]:
    """Name and text of the features of a run on the clock `bar`, over EVERY_COLUMN alone: what a manifest keeps.

    Raises ConfigError for an unknown set, and for a feature of `mine` that is not in the language or whose name is
    taken, with its path in the configuration.
    """
    _require_known(sets)
    if not sets and not mine:
        raise ConfigError(f"features.sets: needs a set or features.mine; sets are {_NAMED} - at `$.features.sets`")
    wanted = SETS if ALL in sets else {name: SETS[name] for name in SETS if name in sets}
    trees = {name: _expanded(text) for features in wanted.values() for name, text in features.items()}
    chosen = _on_clock(trees, bar)
    known = _known_names()
    for name, text in mine.items():
        chosen[name] = _own_feature(name, text, chosen, bar, known)
        known.setdefault(name, text)
    return {name: show(tree) for name, tree in chosen.items()}


def compile_chosen(sets: Sequence[str], mine: Mapping[str, str], bar: str) -> Program:
    """The program of `choose`, for rows that hold the joined columns too where there are any."""
    return compile_texts(choose(sets, mine, bar), bar).main


def compile_texts(texts: Mapping[str, str], bar: str) -> PanelProgram:
    """The program of features over EVERY_COLUMN. Its rows hold no more book levels than they read."""
    return compile_panel(texts, feature_columns(deepest_level(texts.values())), bar)


def feature_rows(
    values: NDArray[np.float64], close_ns: NDArray[np.int64], joined: int = 0, read: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Rows (n, columns + 2 + joined) of `feature_columns` from bars (n, columns) and their closes (n,).

    In batch and live. The last `joined` columns are for the caller to fill; of the bars' only those to be `read` are
    copied where they are given, and has_gap, which any program reads.
    """
    width = values.shape[1]
    rows = np.empty((values.shape[0], width + 2 + joined), order="F")  # a program reads column by column
    if read is None:
        rows[:, :width] = values
    else:
        for column in read:
            if column < width:
                rows[:, column] = values[:, column]
    rows[:, width] = close_ns % NS_PER_DAY / NS_PER_S
    rows[:, width + 1] = close_ns // NS_PER_DAY
    return rows


def _require_known(sets: Sequence[str]) -> None:
    for name in sets:
        if name not in (ALL, *SETS):
            hint = nearest(name, (ALL, FITTED, *SETS))
            raise ConfigError(f"features.sets: no set is {name!r}{hint}; they are {_NAMED} - at `$.features.sets`")


def _expanded(text: str) -> Node:
    return expand(text, EVERY_COLUMN, _known_names())


def _known_names() -> dict[str, str]:
    """Definitions and features by name. A feature that is a definition under the same name adds nothing."""
    return {name: text for name, text in CATALOGUE.items() if name not in DEFINITIONS} | DEFINITIONS


def _own_feature(name: str, text: str, taken: Mapping[str, Node], bar: str, known: Mapping[str, str]) -> Node:
    """The feature over the columns alone. `known` names, those of mine that stand before it included, may be used."""
    place = f"at `$.features.mine.{name}`"
    if name in _OF_TABLES:
        raise ConfigError(f"features.mine: {name!r} is a column of the tables of features: name it otherwise - {place}")
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in taken or name in EVERY_COLUMN:
        raise ConfigError(f"features.mine: {name!r} must be letters, digits and _, and not a feature's yet - {place}")
    try:
        compile_panel({name: text}, EVERY_COLUMN, bar, known)
    except ValueError as error:
        raise ConfigError(f"features.mine: {error}\n  - {place}") from None
    return expand(text, EVERY_COLUMN, known)


def _on_clock(features: Mapping[str, Node], bar: str) -> dict[str, Node]:
    """The features as they are on the clock `bar`: no other feature of the choice has a say in that."""
    change = _at_least if _holds(_SHORTEST, bar) else _reference_bars
    return dict(_with_windows(name, tree, lambda part: change(part, bar)) for name, tree in features.items())


def _with_windows(name: str, tree: Node, window: Callable[[Node], str]) -> tuple[str, Node]:
    """The feature with other windows of its calls, and its name with those that stand in it."""
    windows = {part.window: window(part) for part in parts(tree) if part.window}
    changed = rebuild(tree, lambda part: node(part.head, part.args, window(part)) if part.window else part)
    return re.sub(r"(?<=_)[1-9]\d*(ms|s)(?=_|$)", lambda each: windows.get(each[0], each[0]), name), changed


def _holds(window: str, bar: str) -> bool:
    try:
        return window_bars(window, bar) > 0
    except ValueError:
        return False


def _at_least(call: Node, bar: str) -> str:
    """The window of a call, or the shortest that its operator takes where that is longer."""
    return call.window if window_bars(call.window, bar) >= call.operator.least else str(call.operator.least)


def _reference_bars(call: Node, bar: str) -> str:
    return str(window_bars(call.window, REFERENCE_BAR))
