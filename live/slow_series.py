"""Slow series in a session: what the runner knows of the table `signals`, as it came to know it.

The table is read at the start and again when it changes. A version that is usable later than what was reached takes its
own time, so that the batch, which has the whole table, sees it at the same bar. One that comes too late (a poll that
wrote later than `signals.delay_s` after it knew, a history that was filled) is usable from then on: nothing that was
decided is undone. Both are journaled with the time that they had here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from core.journal import Records
from live.journal import Journal, Recording
from research.programs.panel_program import PanelProgram
from research.programs.signal_columns import SignalColumns, SignalValues

_VERSION: Final = ("usable_ns", "time_ns", "until_ns", "value")
Versions = Mapping[str, pl.DataFrame]
"""By series, its versions as signal_table.py reads them."""


class News(NamedTuple):
    """What is new of an instrument: its columns with it, all that was read and as it is used, and how many of the new
    versions are used later than the table says. `begins_ns` is when the first may be used."""

    instrument: int
    columns: SignalColumns
    read: dict[str, pl.DataFrame]
    used: dict[str, pl.DataFrame]
    fresh: dict[str, pl.DataFrame]
    late: int
    begins_ns: int


@dataclass
class SlowSeries:
    """The versions that a session knows: as the table has them, and as they could be used here."""

    program: PanelProgram
    journal: Journal
    late: int = 0
    """Versions that became readable after a bar that should have seen them."""
    _read: dict[int, dict[str, pl.DataFrame]] = field(default_factory=dict)
    _used: dict[int, dict[str, pl.DataFrame]] = field(default_factory=dict)

    def news(self, instrument: int, versions: Versions, from_ns: int) -> News | None:
        """What is new in these versions of an instrument's series, none of it to be used before `from_ns`; None if
        nothing is. Nothing is changed by it: it may be made on another thread."""
        before, used = self._read.get(instrument, {}), dict(self._used.get(instrument, {}))
        found = {name: _unread(each, before.get(name)) for name, each in versions.items()}
        fresh = {name: each for name, each in found.items() if each.height}
        if not fresh:
            return None
        late = sum(int((each["usable_ns"] < from_ns).sum()) for each in fresh.values())
        fresh = {
            name: each.with_columns(pl.max_horizontal("usable_ns", pl.lit(from_ns))) for name, each in fresh.items()
        }
        used |= {name: pl.concat([used[name], each]) if name in used else each for name, each in fresh.items()}
        begins_ns = min(int(each["usable_ns"].to_numpy().min()) for each in fresh.values())
        values = {name: _in_order(*(each[column].to_numpy() for column in _VERSION)) for name, each in used.items()}
        columns = SignalColumns(self.program.signals, values)
        return News(instrument, columns, dict(versions), used, fresh, late, begins_ns)

    def take(self, news: News) -> None:
        """Go on with what is new, and write it down."""
        self.late += news.late
        self._read[news.instrument], self._used[news.instrument] = news.read, news.used
        for number, layer in enumerate(self.program.signals):
            if layer.name in news.fresh:
                for row in news.fresh[layer.name].select(_VERSION).iter_rows():
                    self.journal.signal(news.instrument, number, *row)


def _unread(found: pl.DataFrame, before: pl.DataFrame | None) -> pl.DataFrame:
    return found if before is None else found.join(before, on=_VERSION, how="anti", maintain_order="left")


def journaled(session: Recording, program: PanelProgram) -> dict[str, SignalColumns]:
    """The slow series of each instrument of a session, as it used them."""
    found = {}
    for number, name in enumerate(session.header.instruments):
        mine = session.signals[session.signals["instrument"] == number]
        found[name] = SignalColumns(program.signals, dict(_by_series(mine, program)))
    return found


def _by_series(mine: Records, program: PanelProgram) -> Iterable[tuple[str, SignalValues]]:
    for number, layer in enumerate(program.signals):
        rows = mine[mine["series"] == number]
        yield layer.name, _in_order(*(np.ascontiguousarray(rows[each]) for each in _VERSION))


def _in_order(*versions: np.ndarray) -> SignalValues:
    """By when they could be used, then by time, then as they came."""
    usable_ns, time_ns, until_ns, value = versions
    order = np.lexsort((time_ns, usable_ns))
    return SignalValues(usable_ns[order], time_ns[order], until_ns[order], value[order])
