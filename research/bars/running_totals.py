"""Totals that run on for ever with twice a float's precision: a bar's sum is the total then less the one before.

So an event costs the same however many bars it belongs to, and a bar's sum depends on the events alone: not on the
clocks that are built beside it, nor on where the stream was cut. A total is two floats, high and low, that overlap in
no digit ("double-double": Dekker, "A Floating-Point Technique for Extending the Available Precision", Numerische
Mathematik 18, 1971), some 32 decimal digits: after a year of trades a bar's sum is still exact to its last digit or the
next to it, which a sum of floats one after the other is not. Terms must be finite.
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from research.bars.part import part

Floats: TypeAlias = NDArray[np.float64]


MOST: Final = 1e75  # prices and quantities at or above it are not believed: their products would leave the floats


@part
def added(high: float, low: float, term: float) -> tuple[float, float]:
    """The two parts of a total with one more term."""
    total = high + term
    part = total - high
    rest = low + ((high - (total - part)) + (term - part))  # what the sum lost
    return total + rest, rest - ((total + rest) - total)


@part
def add(totals: Floats, place: int, term: float) -> None:
    """Add to the total whose high part stands at `place`, its low part behind it."""
    totals[place], totals[place + 1] = added(totals[place], totals[place + 1], term)


@part
def since(high: float, low: float, old_high: float, old_low: float) -> float:
    """What a total has grown by."""
    grown = high - old_high
    part = grown - high
    lost = (high - (grown - part)) - (old_high + part)
    return grown + (lost + (low - old_low))
