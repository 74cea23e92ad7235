"""The slow series of the simulated venues: positioning ratios, and the time before the market began.

The order flow simulates no accounts, so the ratios are SIMULATED by a formula and carry no information: a mean plus a
sum of three sines (7 h, 31 h, 127 h) whose phases come from the instrument's and the series' names. The same formula
gives open interest, prices and funding of the 30 days before the market's start; from there on they are the market's
own. All are pure functions of time, so that two calls agree and a poller can be checked against them.
"""

from typing import Final, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from backtest.market.record import Record
from backtest.market.tape import MARK, Instrument, Rows
from core.units import NS_PER_DAY, NS_PER_HOUR

Ratio = Literal["global_accounts", "top_accounts", "top_positions"]
PAST_NS: Final = 30 * NS_PER_DAY
FUNDING_NS: Final = 8 * NS_PER_HOUR
_PERIODS_H: Final = (7.0, 31.0, 127.0)
_LONG_SHARE: Final[dict[Ratio, tuple[float, float]]] = {
    "global_accounts": (0.58, 0.10),
    "top_accounts": (0.53, 0.12),
    "top_positions": (0.51, 0.06),
}
"""Mean and amplitude of the long side's share."""
_USD_PER_HOUR: Final = 1e7  # that takers of each side trade, before the start

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def wave(name: str, times_ns: Ints) -> Floats:
    """A smooth series within [-1, 1], its own for each name."""
    phases = [crc32(f"{name} {period}".encode()) / 2**32 for period in _PERIODS_H]
    hours = times_ns / NS_PER_HOUR
    sines = [np.sin(2 * np.pi * (hours / period + phase)) for period, phase in zip(_PERIODS_H, phases, strict=True)]
    mean: Floats = np.mean(sines, axis=0)
    return mean


def long_share(instrument: Instrument, ratio: Ratio, times_ns: Ints) -> Floats:
    """The share of accounts, or of positions, that are long."""
    mean, amplitude = _LONG_SHARE[ratio]
    return mean + amplitude * wave(f"{instrument.name} {ratio}", times_ns)


def grid(record: Record, step_ns: int, now_ns: int) -> Ints:
    """The multiples of `step_ns` that the slow series have, oldest first: up to now, from 30 days before the start."""
    first = (record.start_ns - PAST_NS) // step_ns + 1
    return np.arange(first, now_ns // step_ns + 1, dtype=np.int64) * step_ns


def marks_at(record: Record, times_ns: Ints, now_ns: int) -> Rows:
    """Mark, index, funding and open interest as received by each time; before the market's start, by the formula."""
    known = record.marks_until(now_ns)
    last = np.searchsorted(known["recv_ns"], times_ns, side="right") - 1
    early = last < 0
    rows = np.zeros(times_ns.size, MARK)
    rows[~early] = known[last[~early]]
    rows[early] = _before_the_first(record, known[:1], times_ns[early])
    return rows


def _before_the_first(record: Record, first: Rows, times_ns: Ints) -> Rows:
    """The formula's marks; they end at the market's own first one, so that the series has no jump."""
    of, rows, start = record.tape.instrument, np.zeros(times_ns.size, MARK), np.array([record.start_ns])
    price = first["mark_price"][0] if first.size else of.start_price
    held = first["open_interest"][0] if first.size else 0.0
    moved = [wave(f"{of.name} {what}", times_ns) - wave(f"{of.name} {what}", start) for what in ("price", "interest")]
    rows["exch_ns"] = rows["recv_ns"] = times_ns
    rows["index_price"] = price * (1 + 0.02 * moved[0])
    rows["mark_price"] = rows["index_price"] * (1 + 1e-4 * wave(f"{of.name} premium", times_ns))
    rows["funding_rate"] = 1e-4 * (1 + wave(f"{of.name} funding", times_ns))
    rows["next_funding_ns"] = (times_ns // FUNDING_NS + 1) * FUNDING_NS
    rows["open_interest"] = held * (1 + 0.1 * moved[1])
    return rows


def taken(record: Record, times_ns: Ints, period_ns: int, now_ns: int) -> tuple[Floats, Floats]:
    """Base quantities that takers bought and sold in the period before each time; the formula before the start."""
    trades = record.trades_since(int(times_ns.min(initial=now_ns)) - period_ns, now_ns)
    of, sums = record.tape.instrument, []
    for side in (1, -1):
        of_side = trades[trades["taker_side"] == side]
        total = np.concatenate(([0.0], np.cumsum(of_side["qty"])))
        until, since = (np.searchsorted(of_side["exch_ns"], times_ns - ago) for ago in (0, period_ns))
        leaning = 1 + 0.2 * side * wave(f"{of.name} taker", times_ns)
        formula = _USD_PER_HOUR / of.start_price * period_ns / NS_PER_HOUR * leaning
        sums.append(np.where(times_ns > record.start_ns, total[until] - total[since], formula))
    return sums[0], sums[1]
