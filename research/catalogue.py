"""The catalogue: features of market microstructure, each one line of the language over the columns of a bar.

All are scale-free (bps, shares, multiples of a recent deviation, logarithms), so that one model serves all symbols, and
finite in a quiet market: `ratio` is 0 where nothing traded, a z-score is 0 in a constant window, and what a venue does
not publish (mark, funding, open interest) is coalesced away before it enters a window. No window is longer than 300 s.

Windows are time. A clock that cannot express them (volume bars, bars longer than 1 s) counts the bars that they hold on
the default clock instead, and the names say so: `return_bps_5s` is there `return_bps_25`.

Sources: OFI and its scaling by depth: Cont, Kukanov, Stoikov, "The Price Impact of Order Book Events", J. Financial
Econometrics 12(1), 2014. Microprice at the best level: Gatheral, Oomen, "Zero-intelligence realized variance
estimation", Finance and Stochastics 14(2), 2010. Range volatility: Parkinson, J. Business 53(1), 1980.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core.errors import ConfigError
from core.units import NS_PER_DAY, NS_PER_S
from research.bars import BAR_COLUMNS
from research.expression import Node, node, parts, rebuild, show
from research.language import compile_features, expand, window_bars
from research.program import Program

FEATURE_COLUMNS: Final = (*BAR_COLUMNS, "second_of_day")
"""What expressions may read: the columns of a bar, and the time of its close. `feature_rows` makes such rows."""

REFERENCE_BAR: Final = "200ms"
ALL: Final = "all"

DEFINITIONS: Final = {
    "mid": "(mul 0.5 (add bid_price ask_price))",
    "spread_bps": "(mul 1e4 (div (sub ask_price bid_price) mid))",
    "depth_qty": "(add bid_qty ask_qty)",
    "imbalance": "(ratio (sub bid_qty ask_qty) depth_qty)",
    "micro_edge_bps": "(mul 0.5 (mul spread_bps imbalance))",  # microprice against mid
    "log_mid": "(log close_price)",
    "bar_return_bps": "(mul 1e4 (delta_1 log_mid))",
    "traded_usd": "(add buy_usd sell_usd)",
    "signed_usd": "(sub buy_usd sell_usd)",
    "trade_count": "(add buy_count sell_count)",
    "signed_count": "(sub buy_count sell_count)",
    "liq_usd": "(add liq_long_usd liq_short_usd)",
    "basis_bps": "(coalesce (mul 1e4 (sub (div mid mark_price) 1)) 0)",
    "premium_bps": "(coalesce (mul 1e4 (sub (div mark_price index_price) 1)) 0)",
    "funding_bps": "(coalesce (mul 1e4 funding_rate) 0)",
    "interest": "(coalesce open_interest 0)",
    "range_bps": "(mul 1e4 (log (div (max_10s high_price) (min_10s low_price))))",
}
"""Names for use in features, `features.mine` included, beside the columns and the catalogue's own features."""

_FAST: Final = ("1s", "2s", "5s", "10s", "30s", "60s")
_ASIA, _EUROPE, _US = (0, 8), (7, 16), (13, 21)  # hours UTC


def _session(hours: tuple[int, int]) -> str:
    opens, closes = hours[0] * 3600, hours[1] * 3600
    return f"(mul (ge second_of_day {opens}) (lt second_of_day {closes}))"


SETS: Final[dict[str, dict[str, str]]] = {
    "tob": {
        "spread_bps": "spread_bps",
        "spread_z_60s": "(zscore_60s spread_bps)",
        "imbalance": "imbalance",
        "imbalance_mean_1s": "(mean_1s imbalance)",
        "imbalance_mean_5s": "(mean_5s imbalance)",
        "imbalance_change_1s": "(delta_1s imbalance)",
        "micro_edge_bps": "micro_edge_bps",
        "micro_edge_mean_2s": "(mean_2s micro_edge_bps)",
        "depth_z_60s": "(zscore_60s (log1p depth_qty))",
        "quote_rate_z_60s": "(zscore_60s (sum_1s quote_count))",
    },
    "ofi": {
        "ofi_1": "(ratio ofi_qty (std_300s ofi_qty))",
        **{f"ofi_{w}": f"(ratio (sum_{w} ofi_qty) (std_300s ofi_qty))" for w in _FAST},
        "ofi_balance_1s": "(ratio (sum_1s ofi_qty) (sum_1s (abs ofi_qty)))",
        "ofi_balance_5s": "(ratio (sum_5s ofi_qty) (sum_5s (abs ofi_qty)))",
        "ofi_per_depth_5s": "(ratio (sum_5s ofi_qty) (mean_60s depth_qty))",
        "ofi_turn_5s": "(ratio (sub (sum_1s ofi_qty) (lag_5s (sum_1s ofi_qty))) (std_300s ofi_qty))",
    },
    "flow": {
        "signed_flow_1": "(ratio signed_usd (std_300s signed_usd))",
        "signed_flow_1s": "(ratio (sum_1s signed_usd) (std_300s signed_usd))",
        "signed_flow_5s": "(ratio (sum_5s signed_usd) (std_300s signed_usd))",
        **{f"trade_imbalance_{w}": f"(ratio (sum_{w} signed_usd) (sum_{w} traded_usd))" for w in _FAST},
        "count_imbalance_2s": "(ratio (sum_2s signed_count) (sum_2s trade_count))",
        "count_imbalance_10s": "(ratio (sum_10s signed_count) (sum_10s trade_count))",
        "hit_bid_notional_1s": "(log1p (sum_1s sell_usd))",
        "hit_ask_notional_1s": "(log1p (sum_1s buy_usd))",
        "hit_bid_notional_10s": "(log1p (sum_10s sell_usd))",
        "hit_ask_notional_10s": "(log1p (sum_10s buy_usd))",
        "hit_bid_z_60s": "(zscore_60s (log1p (sum_1s sell_usd)))",
        "hit_ask_z_60s": "(zscore_60s (log1p (sum_1s buy_usd)))",
        "trade_rate_z_60s": "(zscore_60s (sum_1s trade_count))",
        "trade_size_z_60s": "(zscore_60s (log1p (ratio (sum_5s traded_usd) (sum_5s trade_count))))",
    },
    "momentum": {
        "return_bps_1": "bar_return_bps",
        **{f"return_bps_{w}": f"(mul 1e4 (delta_{w} log_mid))" for w in (*_FAST, "300s")},
        "return_z_60s": "(zscore_60s (delta_2s log_mid))",
        "position_in_range_60s": (
            "(ratio (sub close_price (min_60s low_price)) (sub (max_60s high_price) (min_60s low_price)))"
        ),
        "distance_from_mean_60s": "(mul 1e4 (sub (div close_price (mean_60s close_price)) 1))",
    },
    "volatility": {
        "volatility_bps_2s": "(std_2s bar_return_bps)",
        "volatility_bps_10s": "(std_10s bar_return_bps)",
        "volatility_bps_60s": "(std_60s bar_return_bps)",
        "volatility_bps_300s": "(std_300s bar_return_bps)",
        "volatility_ratio_10s_300s": "(ratio (std_10s bar_return_bps) (std_300s bar_return_bps))",
        "range_bps_10s": "range_bps",
        "range_z_60s": "(zscore_60s range_bps)",
    },
    "liquidation": {
        "liq_long_10s": "(log1p (sum_10s liq_long_usd))",
        "liq_short_10s": "(log1p (sum_10s liq_short_usd))",
        "liq_imbalance_60s": "(ratio (sum_60s (sub liq_short_usd liq_long_usd)) (sum_60s liq_usd))",
        "liq_count_60s": "(log1p (sum_60s liq_count))",
        "liq_z_300s": "(zscore_300s (log1p liq_usd))",
        "liq_share_10s": "(ratio (sum_10s liq_usd) (sum_10s traded_usd))",
    },
    "derivatives": {
        "basis_bps": "basis_bps",
        "basis_z_60s": "(zscore_60s basis_bps)",
        "basis_change_10s": "(delta_10s basis_bps)",
        "premium_bps": "premium_bps",
        "premium_change_60s": "(delta_60s premium_bps)",
        "funding_bps": "funding_bps",
        "interest_change_bps_60s": "(mul 1e4 (ratio (delta_60s interest) (lag_60s interest)))",
    },
    "time": {
        "day_frac": f"(div second_of_day {NS_PER_DAY // NS_PER_S})",
        "is_asia": _session(_ASIA),
        "is_europe": _session(_EUROPE),
        "is_us": _session(_US),
        "hours_to_funding": (  # at 00, 08 and 16 h: the interval of most contracts
            "(div (sub (if_gt 28800 second_of_day 28800 (if_gt 57600 second_of_day 57600 86400)) second_of_day) 3600)"
        ),
    },
}  # fmt: skip
"""The named sets that `features.sets` chooses from; `all` is all of them."""

CATALOGUE: Final = {name: text for features in SETS.values() for name, text in features.items()}


def choose(sets: Sequence[str], mine: Mapping[str, str], bar: str) -> dict[str, str]:
    """Name and text of the features of a run on the clock `bar`, over FEATURE_COLUMNS alone: what a manifest keeps.

    Raises ConfigError for an unknown set, and for a feature of `mine` that is not in the language or whose name is
    taken, with its path in the configuration.
    """
    unknown = [name for name in sets if name not in (ALL, *SETS)]
    if unknown or not (sets or mine):
        raise ConfigError(f"features.sets: takes {', '.join((ALL, *SETS))}, was {list(sets)} - at `$.features.sets`")
    wanted = SETS if ALL in sets else {name: SETS[name] for name in SETS if name in sets}
    trees = {name: _expanded(text) for features in wanted.values() for name, text in features.items()}
    chosen = _on_clock(trees, bar)
    for name, text in mine.items():
        chosen[name] = _own_feature(name, text, chosen, bar)
    return {name: show(tree) for name, tree in chosen.items()}


def compile_chosen(sets: Sequence[str], mine: Mapping[str, str], bar: str) -> Program:
    """The program of `choose`."""
    return compile_features(choose(sets, mine, bar), FEATURE_COLUMNS, bar)


def feature_rows(values: NDArray[np.float64], close_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Rows of FEATURE_COLUMNS (n, 26) from bars (n, 25) and their closing times (n,): for batch and live alike."""
    rows = np.empty((values.shape[0], len(FEATURE_COLUMNS)), order="F")  # a program reads column by column
    rows[:, :-1] = values
    rows[:, -1] = close_ns % NS_PER_DAY / NS_PER_S
    return rows


def _expanded(text: str) -> Node:
    return expand(text, FEATURE_COLUMNS, _known_names())


def _known_names() -> dict[str, str]:
    """Definitions and features by name. A feature that is a definition under the same name adds nothing."""
    return {name: text for name, text in CATALOGUE.items() if name not in DEFINITIONS} | DEFINITIONS


def _own_feature(name: str, text: str, taken: Mapping[str, Node], bar: str) -> Node:
    place = f"at `$.features.mine.{name}`"
    if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII) or name in taken or name in FEATURE_COLUMNS:
        raise ConfigError(f"features.mine: {name!r} must be letters, digits and _, and not a feature's yet - {place}")
    try:
        compile_features({name: text}, FEATURE_COLUMNS, bar, _known_names())
    except ValueError as error:
        raise ConfigError(f"features.mine: {error}\n  - {place}") from None
    return _expanded(text)


def _on_clock(features: Mapping[str, Node], bar: str) -> dict[str, Node]:
    """The features as they are where `bar` can express all their windows, else with windows of bars."""
    if all(_fits(part.window, bar) for part in parts(*features.values())):
        return dict(features)
    return {
        re.sub(r"(?<=_)[1-9]\d*(ms|s)(?=_|$)", lambda window: _reference_bars(window.group()), name): rebuild(
            tree, lambda part: node(part.head, part.args, _reference_bars(part.window)) if part.window else part
        )
        for name, tree in features.items()
    }


def _fits(window: str, bar: str) -> bool:
    try:
        return not window or window_bars(window, bar) > 0
    except ValueError:
        return False


def _reference_bars(window: str) -> str:
    return str(window_bars(window, REFERENCE_BAR))
