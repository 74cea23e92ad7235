"""The catalogue: features of market microstructure, each one line of the language over the columns of a bar.

All are scale-free (bps, shares, multiples of a recent deviation, logarithms), so that one model serves all symbols, and
finite in a quiet market: `ratio` is 0 where nothing traded, a z-score is 0 in a constant window, and what a venue does
not publish (mark, funding, open interest, depth) is 0 once the windows are full. Buckets of volume (VPIN) are the
exception: they are full when enough was traded.

They come in named sets, one module for a group of them (sets/); `features.sets` chooses. The default study keeps to
the eight of sets/default.py, whose windows are no longer than 300 s.

Windows are time, whole seconds. A clock that cannot express them (volume bars, bars that no second is a whole number
of) counts in all sets the bars that they hold on the default clock instead, and the names say so: `return_bps_5s` is
there `return_bps_25`. A window with fewer bars than its operator needs has as many as that, and no other is touched by
it: on bars of 1 s `hurst_60s` is `hurst_64`.
"""

import re
from collections import ChainMap
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core import schema
from core.errors import ConfigError
from research.bars.columns import MAX_LEVELS, bar_columns, deepest_level
from research.language import expand
from research.programs.expression import Node, node, parts, rebuild, show
from research.programs.naming import Source
from research.programs.panel_program import PanelProgram, compile_panel
from research.programs.pointing import nearest
from research.programs.program import Program
from research.programs.rows import TIME_COLUMNS, times_of_day
from research.programs.windows import window_bars
from research.sets import book as sets_book
from research.sets import calendar as sets_calendar
from research.sets import cross as sets_cross
from research.sets import default as sets_default
from research.sets import derivatives as sets_derivatives
from research.sets import flow as sets_flow
from research.sets import fractal as sets_fractal
from research.sets import positioning as sets_positioning
from research.sets import price as sets_price
from research.sets.feature import Feature


def feature_columns(levels: int) -> tuple[str, ...]:
    """Columns of the rows that `feature_rows` makes of bars with so many book levels."""
    return (*bar_columns(levels), *TIME_COLUMNS)


FEATURE_COLUMNS: Final = feature_columns(0)
"""What expressions may read of every bar: its columns, and its close as second of the UTC day and days since 1970."""
EVERY_COLUMN: Final = feature_columns(MAX_LEVELS)
"""What they may read at all: those of book levels too, which the bars stage builds for a run whose features do."""

_OF_TABLES: Final = frozenset({*schema.FEATURES.columns, "exchange", "symbol", "date", "bars"})
"""What a row of the table of features is told by, in its columns and its folders."""
REFERENCE_BAR: Final = "time_200ms"
_SHORTEST: Final = "1s"  # of the catalogue's windows of time, all of which are multiples of it
ALL: Final = "all"
FITTED: Final = "fitted"
"""The set of what stage `fit` fitted (fitted.py); `all` does not hold it, since there may be nothing."""

_MORE: Final = (sets_book, sets_flow, sets_price, sets_derivatives, sets_fractal, sets_calendar)
DEFINITIONS: Final[dict[str, str]] = sets_default.DEFINITIONS | {
    name: text for module in (*_MORE, sets_cross) for name, text in module.DEFINITIONS.items()
}
"""Names for use in features, `features.mine` included, beside the columns and the catalogue's own features."""

FEATURE_SETS: Final[dict[str, dict[str, Feature]]] = sets_default.DEFAULT_SETS | {
    name: features for module in _MORE for name, features in module.SETS.items()
}
"""The named sets that `features.sets` chooses from; `all` is all of them."""

JOINED_SETS: Final[dict[str, dict[str, Feature]]] = sets_positioning.SETS | sets_cross.SETS
"""More of them, of features that read the table `signals` or another symbol, which `all` does not hold as a run may
have none."""

SETS: Final = {name: {each: feature.text for each, feature in made.items()} for name, made in FEATURE_SETS.items()}
"""The texts alone."""
_JOINED_TEXTS: Final = {name: {each: one.text for each, one in made.items()} for name, made in JOINED_SETS.items()}
_NAMED: Final = ", ".join((ALL, FITTED, *SETS, *JOINED_SETS))

CATALOGUE: Final = {name: text for features in SETS.values() for name, text in features.items()}

_CALENDAR: Final = frozenset({*SETS["time"], *SETS["calendar"]})


def is_calendar(name: str) -> bool:
    """Whether a feature must move from month to month, whatever the market does."""
    return name in _CALENDAR or name.startswith(sets_calendar.EVENT_PREFIXES)


def choose(sets: Sequence[str], mine: Mapping[str, str], bar: str) -> dict[str, str]:
    """Name and text of the features of a run on the clock `bar`, over EVERY_COLUMN alone: what a manifest keeps.

    In `mine`, and on the bars of joins in it, names of the catalogue and definitions mean what they are on that clock,
    as they are written there and here: `return_bps_5s` and `return_bps_25` are the same on bars of no time.

    Raises ConfigError for an unknown set, and for a feature of `mine` that is not in the language or whose name is
    taken, with its path in the configuration.
    """
    _require_known(sets)
    if not sets and not mine:
        raise ConfigError(f"features.sets: needs a set or features.mine; sets are {_NAMED} - at `$.features.sets`")
    wanted = {name: made for name, made in SETS.items() if name in sets or ALL in sets}
    wanted |= {name: made for name, made in _JOINED_TEXTS.items() if name in sets}
    chosen = dict(_on_clock(name, bar) for features in wanted.values() for name in features)
    before: dict[str, str] = {}
    for name, text in mine.items():
        chosen[name] = _own_feature(name, text, bar, before)
        before[name] = text
    return {name: show(tree) for name, tree in chosen.items()}


def compile_chosen(sets: Sequence[str], mine: Mapping[str, str], bar: str) -> Program:
    """The program of `choose`, for rows that hold the joined columns too where there are any."""
    return compile_texts(choose(sets, mine, bar), bar).main


def compile_texts(texts: Mapping[str, str], bar: str) -> PanelProgram:
    """The program of features over EVERY_COLUMN. Its rows hold no more book levels than they read."""
    return compile_panel(texts, feature_columns(deepest_level(texts.values())), bar)


@cache
def named_on(bar: str) -> dict[str, Source]:
    """What definitions and features of all sets are on a clock, under the names that they have there and those of the
    catalogue: `definitions` for `compile_features` and `compile_panel`, the function itself or what it gives."""
    here: dict[str, tuple[str, Source]] = {name: _on_clock(name, bar) for name in _named()}
    return {name: tree for name, (_, tree) in here.items()} | dict(here.values())


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
    close: int | NDArray[np.int64] = int(close_ns[0]) if close_ns.size == 1 else close_ns  # one bar: 4 us less
    rows[:, width], rows[:, width + 1] = times_of_day(close)
    return rows


def _require_known(sets: Sequence[str]) -> None:
    for name in sets:
        if name not in (ALL, *SETS, *JOINED_SETS):
            hint = nearest(name, (ALL, FITTED, *SETS, *JOINED_SETS))
            raise ConfigError(f"features.sets: no set is {name!r}{hint}; they are {_NAMED} - at `$.features.sets`")


@cache
def _named() -> dict[str, Node]:
    """What definitions and features are on the default clock, by name: the latter where a name is both's."""
    features = CATALOGUE | {name: text for made in _JOINED_TEXTS.values() for name, text in made.items()}
    texts = features | DEFINITIONS
    return {name: expand(features.get(name, text), EVERY_COLUMN, texts) for name, text in texts.items()}


def _own_feature(name: str, text: str, bar: str, before: Mapping[str, str]) -> Node:
    """The feature over the columns alone. It may use names of the catalogue, and those of mine that stand before it."""
    place = f"at `$.features.mine.{name}`"
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
        raise ConfigError(f"features.mine: {name!r} must be letters, digits and _, no digit first - {place}")
    if whose := _whose(name, bar):
        raise ConfigError(f"features.mine: {name!r} is {whose}: name yours otherwise - {place}")

    own: dict[str, Source] = {**before}

    def known(clock: str) -> Mapping[str, Source]:
        return ChainMap(own, named_on(clock))

    try:
        compile_panel({name: text}, EVERY_COLUMN, bar, known)
    except ValueError as error:
        raise ConfigError(f"features.mine: {error}\n  - {place}") from None
    return expand(text, EVERY_COLUMN, known, bar)


def _whose(name: str, bar: str) -> str:
    """What a name that is taken stands for: one name has one meaning, whatever sets are chosen."""
    if name in _OF_TABLES:
        return "a column of the tables of features"
    if name in EVERY_COLUMN:
        return "a column of the bars"
    if name in DEFINITIONS:
        return "a definition of the language"
    return "a feature of the catalogue" if name in named_on(bar) else ""


def _on_clock(name: str, bar: str) -> tuple[str, Node]:
    """Name and tree as they are on the clock `bar`: nothing else of the choice has a say in that."""
    change = _at_least if _holds(_SHORTEST, bar) else _reference_bars
    return _with_windows(name, _named()[name], lambda part: change(part, bar))


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
