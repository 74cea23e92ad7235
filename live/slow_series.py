"""Slow series in a session: what the runner knows of the table `signals`, as it came to know it.

The table is read at the start and again when it changes. A version that is usable later than what was reached takes its
own time, so that the batch, which has the whole table, sees it at the same bar. One that comes too late (a poll that
wrote later than `signals.delay_s` after it knew, a history that was filled) is usable from now on: nothing that was
decided is undone. Both are journaled with the time that they had here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl

from core.journal import Records
from live.journal import Journal, Recording
from research.programs.panel_program import PanelProgram
from research.programs.signal_columns import SignalColumns, SignalValues

_VERSION: Final = ("usable_ns", "time_ns", "until_ns", "value")
Versions = Mapping[str, pl.DataFrame]
"""By series, its versions as signal_table.py reads them."""


@dataclass
class SlowSeries:
    """The versions that a session knows: as the table has them, and as they could be used here."""

    program: PanelProgram
    journal: Journal
    late: int = 0
    """Versions that became readable after a bar that should have seen them."""
    _read: dict[tuple[int, str], pl.DataFrame] = field(default_factory=dict)
    _used: dict[tuple[int, str], pl.DataFrame] = field(default_factory=dict)

    def learn(self, instrument: int, versions: Versions, reached_ns: int) -> SignalColumns | None:
        """The columns of an instrument that knows these versions, whose bars reached a time; None: nothing is new."""
        is_new = False
        for number, layer in enumerate(self.program.signals):
            place, found = (instrument, layer.name), versions.get(layer.name)
            if found is not None and (news := self._news(place, found)).height:
                self._use(place, number, news, reached_ns)
                is_new = True
        return self._columns(instrument) if is_new else None

    def _news(self, place: tuple[int, str], found: pl.DataFrame) -> pl.DataFrame:
        """Versions that were not read before."""
        before = self._read.get(place)
        self._read[place] = found
        return found if before is None else found.join(before, on=_VERSION, how="anti", maintain_order="left")

    def _use(self, place: tuple[int, str], series: int, news: pl.DataFrame, reached_ns: int) -> None:
        self.late += int((news["usable_ns"] <= reached_ns).sum())
        used = news.with_columns(pl.max_horizontal("usable_ns", pl.lit(reached_ns + 1)))
        self._used[place] = pl.concat([self._used[place], used]) if place in self._used else used
        for row in used.select(_VERSION).iter_rows():
            self.journal.signal(place[0], series, *row)

    def _columns(self, instrument: int) -> SignalColumns:
        mine = {name: used for (number, name), used in self._used.items() if number == instrument}
        arrays = {name: [used[each].to_numpy() for each in _VERSION] for name, used in mine.items()}
        return SignalColumns(self.program.signals, {name: _in_order(*each) for name, each in arrays.items()})


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
