"""Rolling state at the end of a symbol-day: `<data>/state/<table>/exchange=E/symbol=S/date=D/<clock>.npz`.

The next day begins from it, and the runner begins from the last one. A file holds plain arrays (never pickled), the
hash of what the day was built from, and counts, so that a day that is kept need not be read again.
"""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from core.store import Partition, hash_of, write_atomic

Arrays = dict[str, NDArray[Any]]
_INPUTS: Final = "inputs_hash"


def state_path(root: Path, part: Partition) -> Path:
    """Where the state after `part` (a partition of a table that is kept by bar clock) lies."""
    return root / "state" / part.path.parent / f"{part.bars}.npz"


def save_state(root: Path, part: Partition, arrays: Mapping[str, NDArray[Any]], inputs: str) -> None:
    """Write the state after `part`, atomically. `inputs` is the hash of what the day was built from."""
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **{**arrays, _INPUTS: np.array(inputs)})
    write_atomic(state_path(root, part), content.getvalue())


def load_state(root: Path, part: Partition) -> Arrays | None:
    """The state after `part`; None where there is none, or where the file is damaged: then the day is built again."""
    path = state_path(root, part)
    if not path.exists():
        return None
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as saved:
            return dict(saved)
    except (zipfile.BadZipFile, ValueError, EOFError):
        return None


def state_inputs(state: Arrays | None) -> str:
    """The hash that a state was saved with, empty for none."""
    return "" if state is None else str(state[_INPUTS])


def state_hash(state: Arrays | None) -> str:
    """A hash of the arrays: equal states, equal hash, whatever they were built from."""
    rows = [] if state is None else [(name, state[name].tobytes()) for name in sorted(state) if name != _INPUTS]
    return hash_of(*rows)
