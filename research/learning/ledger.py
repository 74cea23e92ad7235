"""What has been tried and looked at, kept between runs in `<data>/ledger.json`.

Data are known by their symbol-days, each with a fingerprint of its rows: two runs share data where they share one, so
that other symbols, features or splits begin no count anew. Trials are a set: the same configuration tried again adds
nothing. Each distinct configuration that is judged on a stretch of time is one look at every hold-out that overlaps
the stretch on shared data; a repeated run gets the number that it got the first time.
"""

from pathlib import Path
from typing import NamedTuple

import msgspec

from core.errors import StageError
from core.store import hash_of, write_atomic


class Data(NamedTuple):
    """What was judged: a fingerprint of all rows, and the symbol-days with the fingerprint of each."""

    fingerprint: str
    days: frozenset[str] = frozenset()


class Look(msgspec.Struct, frozen=True, omit_defaults=True):
    """One configuration judged on a hold-out.

    `trials` is how many distinct ones its data had seen by then, `number` the look's own (0 in a file from before
    looks were shared: its place in the list), `interval` the hold-out in minutes, `data` the fingerprint.
    """

    configuration: str
    trials: int
    number: int = 0
    data: str = ""
    interval: tuple[int, int] | None = None


class Ledger(msgspec.Struct, frozen=True, omit_defaults=True):
    """`trials`: data fingerprint -> hashes of trials, sorted. `looks`: hash of (data, interval) -> looks in order.

    `days`: data fingerprint -> symbol-days, sorted; data that are not there are shared with equal data only.
    """

    trials: dict[str, list[str]] = {}
    looks: dict[str, list[Look]] = {}
    days: dict[str, list[str]] = {}

    def shares(self, data: Data, fingerprint: str) -> bool:
        """Whether what was judged under this fingerprint has a symbol-day in common with `data`."""
        return fingerprint == data.fingerprint or not data.days.isdisjoint(self.days.get(fingerprint, ()))


def with_trials(ledger: Ledger, data: Data, trials: set[str]) -> Ledger:
    """The ledger after trying `trials` (hashes) on these data."""
    known = set(ledger.trials.get(data.fingerprint, ()))
    return msgspec.structs.replace(
        ledger,
        trials=ledger.trials | {data.fingerprint: sorted(known | trials)},
        days=ledger.days | ({data.fingerprint: sorted(data.days)} if data.days else {}),
    )


def n_trials(ledger: Ledger, data: Data) -> int:
    """Distinct trials on data that share a symbol-day with these."""
    return len({each for name, tried in ledger.trials.items() if ledger.shares(data, name) for each in tried})


def with_look(ledger: Ledger, data: Data, interval: tuple[int, int], configuration: str) -> tuple[Ledger, int, int]:
    """(ledger, k, N): `configuration` is the k-th distinct look at this hold-out, after N distinct trials."""
    key = hash_of(data.fingerprint, interval)
    looks = ledger.looks.get(key, [])
    for place, look in enumerate(looks, start=1):
        if look.configuration == configuration:
            return ledger, look.number or place, look.trials
    before = len(looks) + sum(
        len(others)
        for other, others in ledger.looks.items()
        if other != key and _overlaps(ledger, data, interval, others)
    )
    look = Look(configuration, n_trials(ledger, data), before + 1, data.fingerprint, interval)
    return msgspec.structs.replace(ledger, looks=ledger.looks | {key: [*looks, look]}), look.number, look.trials


def _overlaps(ledger: Ledger, data: Data, interval: tuple[int, int], looks: list[Look]) -> bool:
    """Whether the hold-out of some looks (all at the same one) shares time and data with this one."""
    told = next((look for look in looks if look.interval is not None), None)
    if told is None or told.interval is None:
        return False
    return told.interval[0] <= interval[1] and interval[0] <= told.interval[1] and ledger.shares(data, told.data)


def ledger_path(root: Path) -> Path:
    return root / "ledger.json"


def read_ledger(root: Path) -> Ledger:
    """The ledger of a data directory, empty where nothing was tried. Raises StageError if it is damaged."""
    try:
        return msgspec.json.decode(ledger_path(root).read_bytes(), type=Ledger)
    except FileNotFoundError:
        return Ledger()
    except msgspec.DecodeError as error:
        raise StageError(
            f"{ledger_path(root)} is damaged ({error}): restore it, or delete it and say so, "
            "since the looks at the hold-out would count from one again"
        ) from error


def write_ledger(root: Path, ledger: Ledger) -> None:
    write_atomic(ledger_path(root), msgspec.json.encode(ledger, order="sorted"))
