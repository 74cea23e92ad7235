"""Latencies of millions of messages in a few kilobytes: counts in bins that grow with the distance from a base.

A wrong clock moves all latencies of a venue alike, by seconds perhaps, and leaves their differences alone. Bins are
therefore fine round a base that is near the least latency, wherever on the axis that is: 4 % of the distance from it.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

_PER_OCTAVE: Final = 16
_FINEST_NS: Final = 1_000
_OCTAVES: Final = 32  # up to 71 min from the base; what is farther counts as that far
_SIDE: Final = _PER_OCTAVE * _OCTAVES
_AT_ONCE_BYTES: Final = 8_192  # are counted: it costs 40 us, however few there are

Ints = NDArray[np.int64]


def _centres() -> NDArray[np.float64]:
    """Nanoseconds from the base that each bin stands for: the middle of its logarithmic span."""
    distances = _FINEST_NS * (2.0 ** ((np.arange(1, _SIDE + 1) - 0.5) / _PER_OCTAVE) - 1.0)
    return np.concatenate([-distances[::-1], [0.0], distances])


_CENTRES: Final = _centres()


class LatencyCounts:
    """Counts of the latencies (receive time less the venue's, int64 ns, of either sign) of a stretch of time."""

    def __init__(self) -> None:
        self._least_ns: int | None = None
        self._base_ns = 0
        self._counts = np.zeros(_CENTRES.size, np.int64)
        self._uncounted = bytearray()

    def add(self, latencies_ns: NDArray[np.int64]) -> None:
        """Count some latencies. The least of the first ones becomes the base."""
        self._uncounted += latencies_ns.tobytes()
        if len(self._uncounted) >= _AT_ONCE_BYTES:
            self._count()

    @property
    def least_ns(self) -> int | None:
        self._count()
        return self._least_ns

    def points(self) -> tuple[NDArray[np.float64], Ints]:
        """(latency in ns, count) of the bins that hold any."""
        self._count()
        used = np.flatnonzero(self._counts)
        return self._base_ns + _CENTRES[used], self._counts[used]

    def _count(self) -> None:
        if not self._uncounted:
            return
        latencies_ns = np.frombuffer(self._uncounted, np.int64)
        self._uncounted = bytearray()
        least_ns = int(latencies_ns.min())
        if self._least_ns is None:
            self._base_ns = self._least_ns = least_ns
        self._least_ns = min(self._least_ns, least_ns)
        self._counts += np.bincount(_bins(latencies_ns - self._base_ns), minlength=_CENTRES.size)


def _bins(distances_ns: Ints) -> Ints:
    steps = np.ceil(_PER_OCTAVE * np.log2(1.0 + np.abs(distances_ns) / _FINEST_NS)).astype(np.int64)
    bins: Ints = _SIDE + np.sign(distances_ns).astype(np.int64) * np.minimum(steps, _SIDE)
    return bins


def quantiles_ns(counts: Iterable[LatencyCounts], probabilities: Sequence[float]) -> list[float] | None:
    """The latencies below which these shares of all messages lie; None where there is no message."""
    points = [each.points() for each in counts]
    values = np.concatenate([value for value, _ in points]) if points else np.empty(0)
    if not values.size:
        return None
    order = np.argsort(values)
    reached = np.cumsum(np.concatenate([count for _, count in points])[order])
    places = np.searchsorted(reached, np.asarray(probabilities) * reached[-1])
    return [float(value) for value in values[order][np.minimum(places, values.size - 1)]]


def least_ns(counts: Iterable[LatencyCounts]) -> int | None:
    """The least latency, exact; None where there is no message."""
    return min((each.least_ns for each in counts if each.least_ns is not None), default=None)
