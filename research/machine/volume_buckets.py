"""VPIN: how one-sided the last n buckets of equal volume are, on any clock of bars.

VPIN = sum |buy - sell| / sum volume over the last n buckets (Easley, Lopez de Prado, O'Hara, "Flow Toxicity and
Liquidity in a High-frequency World", Review of Financial Studies 25(5), 2012, section 1.3). Takers' sides are known
here, so that nothing need be classified in bulk. A bar is split where a bucket is full, its buys and sells alike, and
may fill several. A bucket keeps the size that it was opened with. Until n are full VPIN is not known; how many bars
that takes is for the trades to say.

Sums are those of two blocks of n buckets, as in rolling.py: nothing is subtracted, so nothing drifts.
"""

import numpy as np

from core.kernels import njit_inner
from research.machine.opcodes import HEAD

_SIZE, _FILLED, _NET, _PLACE, _ASIDE, _VOLUME, _VALUE, _HAS_BLOCK = range(8)
"""Of the open bucket: size, volume in it, buys less sells. Next place in the block; the block's sums so far; VPIN;
whether there is a block before, without which fewer than n buckets are full."""


@njit_inner(error_model="numpy")
def fill_buckets(buy, sell, size, to, n, memory, buckets):  # type: ignore[no-untyped-def]
    """VPIN over the last `buckets` full buckets after each of n rows; NaN until there are as many.

    A row in which a volume is negative or not finite, or has nowhere to go since `size` is none, adds nothing and
    gives NaN too.
    """
    if memory[_PLACE] != memory[_PLACE]:
        memory[:] = 0.0
        memory[_VALUE] = np.nan
    filled, net, value = memory[_FILLED], memory[_NET], memory[_VALUE]
    opened = memory[_SIZE] if filled > 0.0 else 0.0
    for i in range(n):
        volume = buy[i] + sell[i]
        if not (buy[i] >= 0.0 and sell[i] >= 0.0 and volume < np.inf and 0.0 <= size[i] < np.inf):
            to[i] = np.nan
            continue
        if volume > 0.0 and size[i] == 0.0:
            to[i] = np.nan
            continue
        opened = size[i] if filled == 0.0 else opened
        if volume < opened - filled:
            filled += volume
            net += buy[i] - sell[i]
        elif volume > 0.0:
            memory[_SIZE], memory[_FILLED], memory[_NET] = opened, filled, net
            _split(volume, (buy[i] - sell[i]) / volume, size[i], memory, buckets)
            opened, filled, net, value = memory[_SIZE], memory[_FILLED], memory[_NET], memory[_VALUE]
        to[i] = value
    memory[_SIZE], memory[_FILLED], memory[_NET], memory[_VALUE] = opened, filled, net, value


@njit_inner(error_model="numpy")
def _split(volume, tilt, size, memory, buckets):  # type: ignore[no-untyped-def]
    """Fill the open bucket and all that follow with a volume of which the share `tilt` is bought less sold."""
    room = memory[_SIZE] - memory[_FILLED]
    _close(abs(memory[_NET] + room * tilt), memory[_SIZE], memory, buckets)
    left = volume - room
    if left > buckets * size:  # those before would leave again at once
        left = buckets * size + left % size
    while left >= size:
        _close(abs(size * tilt), size, memory, buckets)
        left -= size
    memory[_SIZE], memory[_FILLED], memory[_NET] = size, left, left * tilt
    if memory[_HAS_BLOCK] == 0.0:
        return
    place = int(memory[_PLACE])
    aside, volumes = memory[HEAD : HEAD + buckets], memory[HEAD + buckets : HEAD + 2 * buckets]
    memory[_VALUE] = (memory[_ASIDE] + aside[place]) / (memory[_VOLUME] + volumes[place])


@njit_inner(error_model="numpy")
def _close(net, volume, memory, buckets):  # type: ignore[no-untyped-def]
    """Add a full bucket. From `place` on the arrays hold, for the block before, the sums from there to its end."""
    place = int(memory[_PLACE])
    aside, volumes = memory[HEAD : HEAD + buckets], memory[HEAD + buckets : HEAD + 2 * buckets]
    aside[place], volumes[place] = net, volume
    memory[_ASIDE] += net
    memory[_VOLUME] += volume
    memory[_PLACE] = place + 1
    if place + 1 == buckets:
        for i in range(buckets - 2, -1, -1):
            aside[i] += aside[i + 1]
            volumes[i] += volumes[i + 1]
        memory[_ASIDE] = memory[_VOLUME] = memory[_PLACE] = 0.0
        memory[_HAS_BLOCK] = 1.0
