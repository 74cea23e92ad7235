"""What a trade costs: instrument rules (tick, lot, least notional), funding, and the arithmetic from prices to net bps.

Fee tiers are settings (`fees.<venue>`); ticks and lots are a dated table, since venues change them; where the table is
silent, or contradicted by the prices seen, they are inferred from the data.
"""

from typing import Final, NamedTuple

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.kernels import njit
from core.store import day_start_ns
from core.units import BPS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Rules(msgspec.Struct, frozen=True):
    """Price and quantity steps of an instrument, and the least notional of an order."""

    tick: float
    lot_qty: float
    min_notional_usd: float


class _Entry(NamedTuple):
    venue: str
    symbol: str
    since: str
    """The first day on which the rules were seen in force, not the day on which the venue made them."""
    rules: Rules


_RULES: Final = (
    # Recorded exchangeInfo of 2021-07-22 (USD-M) and 2021-10-12 (spot).
    _Entry("binance_um", "BTCUSDT", "2021-07-22", Rules(0.01, 0.001, 5.0)),
    _Entry("binance_um", "ETHUSDT", "2021-07-22", Rules(0.01, 0.001, 5.0)),
    _Entry("binance_um", "SOLUSDT", "2021-07-22", Rules(0.001, 1.0, 5.0)),
    _Entry("binance_um", "DOGEUSDT", "2021-07-22", Rules(0.00001, 1.0, 5.0)),
    _Entry("binance", "BTCUSDT", "2021-10-12", Rules(0.01, 0.00001, 10.0)),
    _Entry("binance", "ETHUSDT", "2021-10-12", Rules(0.01, 0.0001, 10.0)),
    # Every recorded price of 2024-08-08 lies on it; the least notional is what the venue then published for BTC.
    _Entry("binance_um", "BTCUSDT", "2024-08-08", Rules(0.1, 0.001, 100.0)),
    # Recorded instruments-info of 2026-08-09.
    _Entry("bybit", "BTCUSDT", "2026-08-09", Rules(0.1, 0.001, 5.0)),
    _Entry("bybit", "ETHUSDT", "2026-08-09", Rules(0.01, 0.01, 5.0)),
    _Entry("bybit", "DOGEUSDT", "2026-08-09", Rules(0.00001, 1.0, 5.0)),
)
_MIN_NOTIONAL_USD: Final = 5.0  # where unknown: what Binance USD-M and Bybit linear ask of most symbols
_ENOUGH_VALUES: Final = 20  # distinct values below which a step coarser than the decimals seen is not believed
_DECIMALS: Final = 10
_ON_STEP: Final = 1e-3  # of a step: prices are decimals, so any real deviation is a whole sub-step


def rules_of(venue: str, symbol: str, date: str, prices: Floats, quantities: Floats) -> Rules:
    """The rules in force on a UTC date: the table's latest entry if the data agree with it, else inferred."""
    known = [row for row in _RULES if (row.venue, row.symbol) == (venue, symbol)]
    past = [row for row in known if day_start_ns(row.since) <= day_start_ns(date)]
    for row in [*reversed(past), *known[:1]]:
        if lies_on(prices, row.rules.tick):
            return row.rules
    return Rules(infer_step(prices), infer_step(quantities), _MIN_NOTIONAL_USD)


def lies_on(values: Floats, step: float) -> bool:
    """True if every value is a multiple of `step`."""
    units = values / step
    return bool(np.all(np.abs(units - np.rint(units)) <= _ON_STEP))


def infer_step(values: Floats) -> float:
    """The coarsest of 1, 2 and 5 x 10^-k on which all values lie; their last decimal where values are few.

    Without values, or with values of more than ten decimals, the finest step: nothing is rounded.
    """
    multiples = (5.0, 2.0, 1.0) if np.unique(values).size >= _ENOUGH_VALUES else (1.0,)
    for decimals in range(_DECIMALS if values.size else 0):
        step = 10.0**-decimals
        if lies_on(values, step):
            return next(round(m * step, _DECIMALS) for m in multiples if lies_on(values, m * step))
    return 10.0**-_DECIMALS


class Funding(NamedTuple):
    """Settlements that the data saw, by time: (k,) arrays. A long pays rate x mark_price, a short gets it."""

    time_ns: Ints
    """On the venue's clock."""
    rate: Floats
    mark_price: Floats


def funding_of(marks: pl.DataFrame) -> Funding:
    """Settlements from `mark_prices` rows: the last rate and mark published before each `next_funding_ns`.

    The interval comes from the data (venues change it at run time). A settlement is believed once a row shows that its
    time has passed.
    """
    columns = ["mark_price", "funding_rate", "next_funding_ns"]
    filled = marks.sort("exch_ns", maintain_order=True).with_columns(pl.col(columns).forward_fill())
    settled = (
        filled.drop_nulls(columns)
        .filter(
            pl.col("exch_ns") < pl.col("next_funding_ns"),
            pl.col("next_funding_ns") <= pl.lit(filled["exch_ns"].max(), pl.Int64),
        )
        .group_by("next_funding_ns")
        .last()
        .sort("next_funding_ns")
    )
    return Funding(
        *(settled[name].to_numpy(writable=True) for name in ("next_funding_ns", "funding_rate", "mark_price"))
    )


class Costs(NamedTuple):
    """Fees of a venue and slippage per taking leg, in bps of the notional."""

    maker_bps: float
    taker_bps: float
    slippage_bps: float


class Parts(NamedTuple):
    """One round trip in bps of the decision's mid: net = gross + entry - half_spread - slippage - fees - funding."""

    gross_bps: float
    """side x (mid at the exit - mid at the decision)."""
    entry_bps: float
    """What the entry price gains against the mid at the decision: positive for a maker inside his own touch."""
    half_spread_bps: float
    slippage_bps: float
    fees_bps: float
    funding_bps: float
    net_bps: float


@njit(cache=True, nogil=True)
def funding_bps(side: int, from_ns: int, to_ns: int, funding: Funding, mid: float) -> float:
    """What holding over (from_ns, to_ns] on the venue's clock pays (negative: receives), in bps of `mid`."""
    paid = 0.0
    for k in range(funding.time_ns.size):  # a handful a day
        if from_ns < funding.time_ns[k] <= to_ns:
            paid += side * funding.rate[k] * funding.mark_price[k] / mid * BPS
    return paid


@njit(cache=True, nogil=True)
def round_trip(
    side: int,
    mid: float,
    entry: float,
    is_taker: bool,
    exit_bid: float,
    exit_ask: float,
    funding_paid_bps: float,
    costs: Costs,
) -> Parts:
    """Enter at `entry`, close by taking the opposite touch of the exit book. `mid` is the mid at the decision."""
    exit_mid = 0.5 * (exit_bid + exit_ask)
    exit_price = exit_bid if side > 0 else exit_ask
    unit = BPS / mid
    gross = side * (exit_mid - mid) * unit
    against_mid = side * (mid - entry) * unit
    half_spread = side * (exit_mid - exit_price) * unit
    entry_fee = costs.taker_bps if is_taker else costs.maker_bps
    fees = (entry_fee * entry + costs.taker_bps * exit_price) / mid
    slipped = costs.slippage_bps * (exit_price + (entry if is_taker else 0.0)) / mid
    net = gross + against_mid - half_spread - slipped - fees - funding_paid_bps
    return Parts(gross, against_mid, half_spread, slipped, fees, funding_paid_bps, net)
