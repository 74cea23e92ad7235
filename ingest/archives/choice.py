"""Which file fills which table on which day: each symbol-day of a table has one source, never two.

Trades told one by one and in aggregate are the same trades; so are a month's file and its days'. Of files that compete
the one that stands first is taken: by provider, by its order of data sets, daily before monthly. A day that was
imported before stays with the file that filled it, also where a later run asks for other days of the same file: a file
is imported as a whole, so what it does not claim again is removed.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from core.config_errors import near_to
from core.errors import ConfigError
from core.schema import KLINES, SIGNALS, Table
from ingest.archives import binance_vision, bybit_dumps, recorded, tardis
from ingest.archives.formats import ArchiveFile, Dataset
from ingest.archives.manifest import Entry

DATASETS: Final = {
    "tardis": tardis.DATASETS,  # first: it has real receive times
    "binance": binance_vision.DATASETS,
    "bybit": bybit_dumps.DATASETS,
    "recorded": recorded.DATASETS,
}

KLINES_PREFIX: Final = "klines_"


class Slot(NamedTuple):
    """What one source fills. `kind` keeps apart what shares a table without competing."""

    venue: str
    symbol: str
    table: str
    kind: str
    day: str


@dataclass(frozen=True)
class Job:
    """A file to import, and for which tables and days (None: all that it holds)."""

    file: ArchiveFile
    dataset: Dataset
    days: dict[str, frozenset[str] | None]

    @property
    def days_by_table(self) -> dict[str, list[str]]:
        return {table: sorted(self.file.days if days is None else days) for table, days in self.days.items()}


class LeftOut(NamedTuple):
    """A file that is not imported, and why."""

    file: ArchiveFile
    why: str


def dataset_of(file: ArchiveFile) -> Dataset:
    return next(dataset for dataset in DATASETS[file.provider] if dataset.name == file.dataset)


def check_datasets(names: Sequence[str], provider: str) -> None:
    """Raises ConfigError for a name that no data set has, be it of one provider or of all of them (empty)."""
    chosen = [provider] if provider else list(DATASETS)
    known = list(dict.fromkeys(dataset.name for each in chosen for dataset in DATASETS[each]))
    for name in names:
        if name not in known and not (name.startswith(KLINES_PREFIX) and "klines" in known):
            has = f"{provider or 'the archives'} {'has' if provider else 'have'} {', '.join(known)}"
            candles = " (candles: klines_1m)" if "klines" in known else ""
            near = near_to(name, known)
            raise ConfigError(f"backfill.datasets: {has}{candles}, was {name!r}{near} - at `$.backfill.datasets`")


def choose(
    files: Iterable[ArchiveFile], wanted: frozenset[str] | None, entries: Iterable[Entry]
) -> tuple[list[Job], list[LeftOut]]:
    """(jobs in order of symbol, data set and day; files left out). `wanted`: the days asked for, None for all."""
    owners = {slot: entry.key for entry in entries for slot in _slots_of(entry)}
    jobs, left_out, met = [], [], dict[str, ArchiveFile]()
    for file in sorted(files, key=_rank):
        if met.setdefault(file.key, file) is not file:
            left_out.append(LeftOut(file, f"the same as {met[file.key].path}"))
            continue
        dataset = dataset_of(file)
        asked = [day for day in file.days if wanted is None or day in wanted]
        days = {table.name: _claim(owners, file, table, asked) for table in dataset.tables}
        taken = {table: None if len(mine) == len(file.days) else mine for table, mine in days.items() if mine}
        if taken:
            jobs.append(Job(file, dataset, taken))
        elif asked:
            first = owners[_slot(file, dataset.tables[0], asked[0])]
            left_out.append(LeftOut(file, f"the same days are imported from {first}"))
        else:
            left_out.append(LeftOut(file, "outside backfill.from and backfill.to"))
    return sorted(jobs, key=lambda job: (job.file.label, job.file.days)), left_out


def _rank(file: ArchiveFile) -> tuple[int, int, int, str]:
    names = [dataset.name for dataset in DATASETS[file.provider]]
    return list(DATASETS).index(file.provider), names.index(file.dataset), len(file.days), str(file.path)


def _claim(owners: dict[Slot, str], file: ArchiveFile, table: Table, days: list[str]) -> frozenset[str]:
    """The days of a table that are free, which now are the file's, and those that it has filled before."""
    if not days:
        return frozenset()
    before = [day for day in file.days if owners.get(_slot(file, table, day)) == file.key]
    free = [day for day in days if owners.setdefault(_slot(file, table, day), file.key) == file.key]
    return frozenset([*before, *free])


def _slot(file: ArchiveFile, table: Table, day: str) -> Slot:
    kind = file.dataset if table is SIGNALS else file.interval if table is KLINES else ""
    return Slot(file.venue, file.symbol, table.name, kind, day)


def _slots_of(entry: Entry) -> Iterable[Slot]:
    for table, days in entry.tables.items():
        kind = entry.dataset if table == SIGNALS.name else entry.interval if table == KLINES.name else ""
        yield from (Slot(entry.venue, entry.symbol, table, kind, day) for day in days)
