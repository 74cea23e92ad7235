"""What has been tried and looked at, kept between runs in `<data>/ledger.json`.

Trials are a set: the same (data, features, parameters, cell, threshold) tried again adds nothing. A hold-out is known
by its (data, interval); each distinct configuration that is judged on it is one look, in the order of first looks, so
that a repeated run gets the number that it got the first time.
"""

from pathlib import Path

import msgspec

from core.errors import StageError
from core.store import hash_of, write_atomic


class Look(msgspec.Struct, frozen=True):
    """One configuration judged on a hold-out; `trials` is how many distinct ones its data had seen by then."""

    configuration: str
    trials: int


class Ledger(msgspec.Struct, frozen=True):
    """`trials`: data fingerprint -> hashes of trials, sorted. `looks`: hash of (data, interval) -> looks in order."""

    trials: dict[str, list[str]] = {}
    looks: dict[str, list[Look]] = {}


def with_trials(ledger: Ledger, data: str, trials: set[str]) -> Ledger:
    """The ledger after trying `trials` (hashes) on the data of this fingerprint."""
    known = set(ledger.trials.get(data, ()))
    return msgspec.structs.replace(ledger, trials=ledger.trials | {data: sorted(known | trials)})


def with_look(ledger: Ledger, data: str, interval: tuple[int, int], configuration: str) -> tuple[Ledger, int, int]:
    """(ledger, k, N): `configuration` is the k-th distinct look at this hold-out, after N distinct trials."""
    key = hash_of(data, interval)
    looks = ledger.looks.get(key, [])
    for number, look in enumerate(looks, start=1):
        if look.configuration == configuration:
            return ledger, number, look.trials
    look = Look(configuration, len(ledger.trials.get(data, ())))
    return msgspec.structs.replace(ledger, looks=ledger.looks | {key: [*looks, look]}), len(looks) + 1, look.trials


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
