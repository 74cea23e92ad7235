"""From our clock to the venue's: d(t), the least delay between the two that the last minute of receipts shows.

An order decided at receipt time t reaches the matching engine, on its clock, at t - d(t) + latency. d is a low
percentile of recv - exch, so that a skew between the clocks cancels, however large and of whichever sign: recorded
captures run 1.27 s behind the venue and drift 3 ms in 11 minutes. It is causal: receipts before t only.
"""

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.kernels import njit
from core.units import NS_PER_MINUTE

Ints = NDArray[np.int64]

WINDOW_NS: Final = NS_PER_MINUTE
SHARE: Final = 0.01
UNKNOWN: Final = np.iinfo(np.int64).max
"""No receipt yet. The largest value, so that a minimum over streams passes over it."""


def skew_ns(streams: Sequence[tuple[Ints, Ints]], times_ns: Ints) -> Ints:
    """d at each of `times_ns` (sorted): the least of the streams' trailing percentiles, (n,) int64.

    `streams` are (recv_ns, exch_ns) in order of receipt. A batched stream (aggregated trades) shows a larger delay than
    a direct one, so the least is the best estimate. With no receipt in the window the last value holds; before the
    first receipt it is UNKNOWN.
    """
    least = np.full(times_ns.size, UNKNOWN, np.int64)
    for recv_ns, exch_ns in streams:
        delays = recv_ns - exch_ns
        ranks = np.empty(delays.size, np.int64)
        ranks[np.argsort(delays, kind="stable")] = np.arange(delays.size)
        np.minimum(least, _trailing_low(recv_ns, delays, ranks, times_ns, WINDOW_NS, SHARE), out=least)
    return _hold_last(least)


class SkewWindow:
    """`skew_ns` one receipt at a time, for the runner: the same values at the same times."""

    def __init__(self, n_streams: int) -> None:
        self._recent: list[deque[tuple[int, int]]] = [deque() for _ in range(n_streams)]
        self._sorted: list[list[int]] = [[] for _ in range(n_streams)]
        self._last = int(UNKNOWN)

    def push(self, stream: int, recv_ns: int, exch_ns: int) -> None:
        """Take in a receipt; receipts of a stream come in order."""
        self._drop_until(stream, recv_ns - WINDOW_NS)
        self._recent[stream].append((recv_ns, recv_ns - exch_ns))
        insort(self._sorted[stream], recv_ns - exch_ns)

    def at(self, now_ns: int) -> int:
        """d at `now_ns`, which is later than every receipt pushed; UNKNOWN before the first."""
        least = int(UNKNOWN)
        for stream, ordered in enumerate(self._sorted):
            self._drop_until(stream, now_ns - WINDOW_NS)
            if ordered:
                least = min(least, ordered[_rank(len(ordered), SHARE)])
        self._last = self._last if least == UNKNOWN else least
        return self._last

    def _drop_until(self, stream: int, horizon_ns: int) -> None:
        recent, ordered = self._recent[stream], self._sorted[stream]
        while recent and recent[0][0] < horizon_ns:
            _, delay = recent.popleft()
            del ordered[bisect_left(ordered, delay)]


@njit(cache=True, nogil=True)
def _rank(count: int, share: float) -> int:
    """Position of the `share` quantile among `count` sorted values: the ceil(share x count)-th smallest."""
    return max(int(np.ceil(share * count)), 1) - 1


@njit(cache=True, nogil=True)
def _trailing_low(recv_ns: Ints, delays: Ints, ranks: Ints, times_ns: Ints, window_ns: int, share: float) -> Ints:
    """The low quantile of the delays received in [t - window, t) for each t; UNKNOWN where there are none.

    The window is kept as a Fenwick tree over the delays' ranks: two updates per receipt and one descent per time,
    O(log n) each (Fenwick, "A new data structure for cumulative frequency tables", 1994).
    """
    n = delays.size
    by_rank = np.empty(n, np.int64)
    for i in range(n):
        by_rank[ranks[i]] = delays[i]
    tree = np.zeros(n + 1, np.int64)
    found = np.full(times_ns.size, UNKNOWN, np.int64)
    first, last = 0, 0
    for k in range(times_ns.size):
        while last < n and recv_ns[last] < times_ns[k]:
            _add(tree, ranks[last], 1)
            last += 1
        while first < last and recv_ns[first] < times_ns[k] - window_ns:
            _add(tree, ranks[first], -1)
            first += 1
        if last > first:
            found[k] = by_rank[_select(tree, _rank(last - first, share))]
    return found


@njit(cache=True, nogil=True)
def _add(tree: Ints, rank: int, change: int) -> None:
    node = rank + 1
    while node < tree.size:
        tree[node] += change
        node += node & -node


@njit(cache=True, nogil=True)
def _select(tree: Ints, position: int) -> int:
    """The rank of the `position`-th (from 0) value that the tree holds."""
    step = 1
    while step * 2 < tree.size:
        step *= 2
    node = 0
    while step:
        if node + step < tree.size and tree[node + step] <= position:
            node += step
            position -= tree[node]
        step //= 2
    return node


def _hold_last(values: Ints) -> Ints:
    known = np.where(values != UNKNOWN, np.arange(values.size), -1)
    known = np.maximum.accumulate(known) if known.size else known
    return np.where(known >= 0, values[np.maximum(known, 0)], UNKNOWN)
