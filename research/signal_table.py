"""The table `signals` as features read it: the series that a program asks for, instrument by instrument.

A value may be used from `known_ns` + `signals.delay_s` on, never by `time_ns`, and until it is older than
`signals.stale_intervals` of its intervals. What was read is kept; a later look reads the days that changed.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl

from core import store
from core.config import Config, Poll, Signals
from core.errors import ConfigError, StageError
from core.schema import SIGNALS
from core.store import Partition
from core.units import NS_PER_HOUR, NS_PER_S, parse_duration_ns
from ingest.signal_names import Delivered, delivered, names_of, places_of, unknown, without_a_part
from ingest.signals import SETTLEMENT, days_of, usable_ns
from research.programs.expression import parse, parts
from research.programs.panel_program import PanelProgram
from research.programs.pointing import fail_at_word, nearest, text_with
from research.programs.signal_columns import SignalColumns, SignalValues

_COLUMNS: Final = ("usable_ns", "time_ns", "until_ns", "value")
_SETTLED_NS: Final = 8 * NS_PER_HOUR
"""The longest time between two settlements of funding."""
_Stamp = tuple[int, int, int]
_BySeries = Mapping[str, pl.DataFrame]


@dataclass
class SignalTable:
    """Series `names` of the table under `root`. Not for two threads at once."""

    root: Path
    names: Sequence[str]
    settings: Signals
    known: dict[str, Delivered]
    _days: dict[Partition, tuple[_Stamp, _BySeries]] = field(default_factory=dict, init=False, repr=False)

    def versions(self, instrument: str) -> dict[str, pl.DataFrame]:
        """The versions of each series of `venue:SYMBOL` that has any, in the order in which they could be used:
        `usable_ns`, `time_ns`, `until_ns`, `value`.

        Raises StageError where a series has values of two resolutions and its name does not tell which.
        """
        found, read = {}, dict[str, list[_BySeries]]()
        for name in self.names:
            for place in places_of(name, instrument, self.known):
                read[place] = read[place] if place in read else self._read_days(place)
                days = [day[name] for day in read[place] if name in day]
                if days:
                    found[name] = self._versions(name, place, pl.concat(days))
                    break
        return found

    def columns(self, instrument: str, program: PanelProgram) -> SignalColumns:
        return SignalColumns(
            program.signals, {name: values_of(each) for name, each in self.versions(instrument).items()}
        )

    def parts(self, instrument: str) -> list[Partition]:
        """The days of the table in which the series of an instrument may lie."""
        places = dict.fromkeys(place for name in self.names for place in places_of(name, instrument, self.known))
        return [day for place in places for day in days_of(self.root, SIGNALS, place)]

    def stamps(self, instruments: Sequence[str]) -> dict[Partition, _Stamp]:
        """What changes where anything is written: a few us a day of the table."""
        days = dict.fromkeys(day for instrument in instruments for day in self.parts(instrument))
        return {day: stamp for day in days if (stamp := self._stamp(day)) is not None}

    def _read_days(self, place: str) -> list[_BySeries]:
        found = []
        for day in days_of(self.root, SIGNALS, place):
            stamp, known = self._stamp(day), self._days.get(day)
            if stamp is None:
                continue
            if known is None or known[0] != stamp:
                known = self._days[day] = stamp, self._by_series(place, store.read(self.root, day))
            found.append(known[1])
        return found

    def _by_series(self, place: str, rows: pl.DataFrame) -> _BySeries:
        """The rows of each series that is asked for."""
        found: dict[str, pl.DataFrame] = {}
        for (stored, resolution), mine in rows.partition_by("name", "resolution", as_dict=True).items():
            for name in set(names_of(str(stored), str(resolution), place)) & set(self.names):
                found[name] = pl.concat([found[name], mine]) if name in found else mine
        return found

    def _stamp(self, day: Partition) -> _Stamp | None:
        try:
            stat = (self.root / day.path / "data.parquet").stat()
        except FileNotFoundError:
            return None
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _versions(self, name: str, place: str, rows: pl.DataFrame) -> pl.DataFrame:
        held = rows["resolution"].unique().sort().to_list()
        if len(held) > 1:
            raise StageError(
                f"signal {name}: {place} has values of {' and '.join(held)}: say which, as in signal_{name}_{held[0]}"
            )
        span_ns = _SETTLED_NS if held[0] == SETTLEMENT else parse_duration_ns(held[0])
        usable = usable_ns(rows) + int(self.settings.delay_s * NS_PER_S)
        until = pl.col("time_ns") + int(self.settings.stale_intervals * span_ns)
        timed = rows.with_columns(usable.alias("usable_ns"), until.alias("until_ns"))
        return timed.sort("usable_ns", "time_ns", "known_ns").select(_COLUMNS)


def signal_table(cfg: Config, program: PanelProgram, settings: Signals | None = None) -> SignalTable:
    """What a program reads, with the configuration's settings or those of a model."""
    names = [layer.name for layer in program.signals]
    return SignalTable(cfg.root, names, settings or cfg.signals, delivered(cfg.poll) if names else {})


def values_of(versions: pl.DataFrame) -> SignalValues:
    """Versions in the order in which they could be used, as arrays."""
    usable, time, until, value = (versions[name].to_numpy() for name in _COLUMNS)
    return SignalValues(usable, time, until, value)


def missing_lines(names: Sequence[str], held: Mapping[str, Sequence[str]]) -> list[str]:
    """What is told of the series `names` where the table has no value: by instrument, those that it `held`."""
    without: dict[tuple[str, ...], list[str]] = {}
    for name in names:
        without.setdefault(tuple(each for each, mine in sorted(held.items()) if name not in mine), []).append(name)
    remedies = {True: "run `python run_pipeline.py poll`, or `backfill`", False: "NaN there"}
    return [
        f"table `signals`: no value of {', '.join(some)} for {', '.join(whom)}: {remedies[len(whom) == len(held)]}"
        for whom, some in without.items()
        if whom
    ]


def require_delivered(texts: Mapping[str, str], poll: Poll, mine: Mapping[str, str]) -> None:
    """Raises ConfigError for a feature that reads a series which nothing delivers. `mine` are those of `texts` that the
    user wrote, as written."""
    for feature, text in texts.items():
        names = dict.fromkeys(
            part.join.place for part in parts(parse(text)) if part.join is not None and part.join.is_signal
        )
        for name in unknown(names, delivered(poll)) if names else ():
            known = delivered(poll)
            shorter = without_a_part(name, known)
            hint = f", did you mean {shorter}, without the asset?" if shorter else nearest(name, [*known])
            listed = "docs/signals.md says what each is" if hint else _listed(known)
            place = f"$.features.mine.{feature}" if feature in mine else "$.features"
            word = f"signal_{name}"
            try:
                fail_at_word(text_with(word, mine.get(feature, ""), text), word, f"no collector delivers {name}{hint}")
            except ValueError as error:
                raise ConfigError(f"features: {feature}: {error}\n  {listed}\n  - at `{place}`") from None


def _listed(known: Iterable[str]) -> str:
    return textwrap.fill(f"there are {', '.join(sorted(known))}", 100, subsequent_indent="  ")
