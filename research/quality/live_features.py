"""What a live session made of the features: a sample of the last one's journal, for the drift from training to live."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from core.journal import mapped_stream, read_header, record_dtypes, sessions, stream_path
from research.learning.purged_cv import thinned
from research.quality.drift import ROWS


class LiveSample(NamedTuple):
    """Decisions of a session: their number, times, and values (n, k) of the features at `places` of those asked for.

    `values` are thinned evenly; `rows` is how many there were. `symbol` (n,) are places among `instruments`.
    """

    session: str
    rows: int
    first_ns: int
    last_ns: int
    places: list[int]
    values: NDArray[np.float32]
    symbol: NDArray[np.int64]


def live_sample(
    root: Path, features: Sequence[tuple[str, str]], bars: str, instruments: Sequence[str]
) -> LiveSample | None:
    """Of the last session on the clock `bars` that decided anything with some of these features; None without one.

    A feature counts if its name and its expression are those of the session: another one's drift says nothing of it.
    """
    for folder in reversed(sessions(root)):
        header = read_header(folder)
        theirs = {feature: place for place, feature in enumerate(header.features)}
        places = [place for place, feature in enumerate(features) if feature in theirs]
        if header.bars != bars or not places:
            continue
        records = mapped_stream(stream_path(folder, "features"), record_dtypes(header)["features"])
        symbols = np.array([instruments.index(name) if name in instruments else -1 for name in header.instruments])
        symbol = symbols[records["instrument"]]
        rows = np.flatnonzero(symbol >= 0)
        if rows.size:
            kept = thinned(rows, ROWS)
            values = records["values"][kept][:, [theirs[features[place]] for place in places]].astype(np.float32)
            times_ns = records["decision_ns"][rows]
            name, first_ns, last_ns = f"{folder.parent.name}/{folder.name}", int(times_ns.min()), int(times_ns.max())
            return LiveSample(name, rows.size, first_ns, last_ns, places, values, symbol[kept])
    return None
