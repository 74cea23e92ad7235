"""The cells of the (side, delta, T) grid and the names of their columns in the `labels` table.

Shared by `labels`, which writes the columns, and `research` and `backtest`, which read them: the two meet in tables,
not in imports (design section 2).

Per horizon T (taker, entered and closed by taking):
  `tk_{T}_ret_bps`   mid at the exit (arrival + T + exit latency) against mid at the decision, in bps, as a buyer sees
                     it: the buyer's gross; null: not labelled
  `tk_{T}_dir`       its sign: -1, 0 or 1 (0 inside the dead band), Int8
  `tk_{T}_buy_net_bps`, `tk_{T}_sell_net_bps`    after both taker fees, both half-spreads, latency and funding
  `tk_{T}_end_ns`    receipt by which all that the label used is known
Per side and delta (maker entry):
  `mk_{side}_{delta}_limit`                      the limit price; cells with equal limits are one order, merged
per fill rule as well:
  `mk_{side}_{delta}_{rule}_fill_ns`             receipt of the fill; null: not filled, or rejected at arrival
and per T as well (taker exit):
  `mk_{side}_{delta}_{rule}_{T}_gross_bps`, `..._net_bps`   0 where unfilled, null where the cell cannot be labelled
  `mk_{side}_{delta}_{rule}_{T}_end_ns`
Gross and net are Float32; their arithmetic is float64 and additive to 1e-9 before it is stored.
"""

from typing import Final

import msgspec

from core.units import seconds_label

SIDES: Final = {1: "buy", -1: "sell"}
TOUCH: Final = "touch"
THROUGH: Final = "through"


def gate_rule(notional_usd: float) -> str:
    """The name of the notional-gate rule that fills after `notional_usd` traded at or through the limit."""
    return f"gate{notional_usd:g}"


def delta_label(delta_bps: float) -> str:
    """`touch` for 0, else the offset in bps as in `2bps`."""
    return "touch" if delta_bps == 0 else f"{delta_bps:g}bps"


class TakerCell(msgspec.Struct, frozen=True, order=True):
    """Take now, close by taking after `horizon_s`. The side is chosen by the score's sign."""

    horizon_s: float

    @property
    def ret_bps(self) -> str:
        return f"tk_{seconds_label(self.horizon_s)}_ret_bps"

    @property
    def direction(self) -> str:
        return f"tk_{seconds_label(self.horizon_s)}_dir"

    @property
    def end_ns(self) -> str:
        return f"tk_{seconds_label(self.horizon_s)}_end_ns"

    def net_bps(self, side: int) -> str:
        return f"tk_{seconds_label(self.horizon_s)}_{SIDES[side]}_net_bps"


class MakerCell(msgspec.Struct, frozen=True, order=True):
    """Rest a post-only order `delta_bps` from the own touch; once filled hold `horizon_s`, then take to close."""

    delta_bps: float
    horizon_s: float
    rule: str = THROUGH

    def _stem(self, side: int) -> str:
        return f"mk_{SIDES[side]}_{delta_label(self.delta_bps)}_{self.rule}"

    def limit(self, side: int) -> str:
        return f"mk_{SIDES[side]}_{delta_label(self.delta_bps)}_limit"

    def fill_ns(self, side: int) -> str:
        return f"{self._stem(side)}_fill_ns"

    def gross_bps(self, side: int) -> str:
        return f"{self._stem(side)}_{seconds_label(self.horizon_s)}_gross_bps"

    def net_bps(self, side: int) -> str:
        return f"{self._stem(side)}_{seconds_label(self.horizon_s)}_net_bps"

    def end_ns(self, side: int) -> str:
        return f"{self._stem(side)}_{seconds_label(self.horizon_s)}_end_ns"
