"""The columns that tables have after their fixed ones, for the catalogue of tables: type, unit, meaning.

`{T}` and the like stand for what the configuration chooses. What the stages write is compared with these names by
tests/core/test_wide_columns.py.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple


class Wide(NamedTuple):
    """One column, or all whose names differ in the parts in braces."""

    name: str
    kind: str
    unit: str
    meaning: str


def _floats(rows: Iterable[tuple[str, str, str]]) -> tuple[Wide, ...]:
    return tuple(Wide(name, "float64", unit, meaning) for name, unit, meaning in rows)


_QUALITY: Final = _floats(
    (
        ("rows", "", ""),
        ("rate_hz", "1/s", "rows over the span"),
        ("span_s", "s", "from the first to the last that is known of the symbol on this day, gaps included"),
        ("coverage_frac", "fraction", "of the span, without gaps that were not refilled and without silences"),
        ("day_frac", "fraction", "of the UTC day that is covered"),
        ("gap_count", "", "rows in `gaps`"),
        ("gap_s", "s", "in gaps, refilled ones too, overlaps once"),
        ("mended_count", "", "gaps that were mended"),
        ("silence_count", "", "times without a row for longer than `silence_limit_s`"),
        ("silence_s", "s", "in such silences"),
        ("longest_silence_s", "s", "the longest time without a row"),
        ("silence_limit_s", "s", "30 median intervals of the stream itself, 10 to 600 s or 3 intervals of a slow one"),
        ("duplicate_count", "", "rows whose key came before; null without rows"),
        ("crossed_count", "", "rows with bid ≥ ask: of top_of_book as sent, of book_deltas as rebuilt"),
        ("compared_count", "", "book_deltas: best prices of the rebuilt book that the venue's own tell as well"),
        ("agreement_frac", "fraction", "of those, how many are equal in price and quantity"),
        ("skew_ms", "ms", "first percentile of `recv_ns` - `exch_ns`, the median of windows: clock skew, least delay"),
        ("drift_ms_per_hour", "ms/h", "Theil-Sen slope of the skew; null below ten minutes"),
        ("latency_p50_ms", "ms", "`recv_ns` - `exch_ns` above the skew, median"),
        ("latency_p90_ms", "ms", "the same, 90th percentile"),
        ("latency_p99_ms", "ms", "the same, 99th percentile"),
        ("latency_p999_ms", "ms", "the same, 99.9th percentile"),
        ("out_of_order_frac", "fraction", "messages with an earlier `exch_ns` than one before"),
        ("recv_assumed_frac", "fraction", "rows with `recv_assumed`"),
    )
)
_BARS: Final = _floats(
    (
        ("bid_price", "price", "best bid as of the close"),
        ("bid_qty", "base", "quantity at it"),
        ("ask_price", "price", "best ask as of the close"),
        ("ask_qty", "base", "quantity at it"),
        ("open_price", "price", "mid as the bar opens, which is the close before"),
        ("high_price", "price", "highest mid"),
        ("low_price", "price", "lowest mid"),
        ("close_price", "price", "mid as of the close"),
        ("buy_qty", "base", "bought by takers"),
        ("sell_qty", "base", "sold by takers"),
        ("buy_usd", "quote", "bought by takers"),
        ("sell_usd", "quote", "sold by takers"),
        ("buy_count", "", "rows of trades with a buying taker"),
        ("sell_count", "", "rows of trades with a selling taker"),
        ("ofi_qty", "base", "order flow imbalance of the best level (Cont, Kukanov, Stoikov 2014, section 2)"),
        ("quote_count", "", "valid rows of top_of_book"),
        ("liq_long_usd", "quote", "longs that were liquidated"),
        ("liq_short_usd", "quote", "shorts that were liquidated"),
        ("liq_count", "", "liquidations"),
        ("mark_price", "price", "the last one told"),
        ("index_price", "price", "the last one told"),
        ("funding_rate", "fraction", "per interval, the last estimate told"),
        ("open_interest", "base", "one side, the last one told"),
        ("effective_usd", "quote", "sum of 2 side (price - mid before) qty: over the traded usd the effective spread"),
        ("square_usd", "quote²", "sum of the squares of the trades' notionals"),
        ("max_trade_usd", "quote", "the largest trade's notional"),
        ("large_buy_usd", "quote", "bought in trades of at least ten times the mean notional before them"),
        ("large_sell_usd", "quote", "sold in such trades"),
        ("large_count", "", "such trades"),
        ("liq_square_usd", "quote²", "sum of the squares of the liquidations' notionals"),
        ("liq_max_usd", "quote", "the largest liquidation's notional"),
        ("funding_s", "s", "from the close to the next funding; negative where the last told has passed"),
        ("is_empty", "0 or 1", "no valid quote, trade or liquidation: the book is carried forward"),
        ("has_gap", "0 or 1", "a gap became known in it, or it is the first after a silence"),
        ("trade_open_price", "price", "the first price traded in it; null where none was, as in the next three"),
        ("trade_high_price", "price", "the highest price traded"),
        ("trade_low_price", "price", "the lowest price traded"),
        ("trade_close_price", "price", "the last price traded; VWAP: (buy_usd + sell_usd) / (buy_qty + sell_qty)"),
        ("bid_price_{k}", "price", "level k of the book as of the close, 1 the best; where the features read levels"),
        ("bid_qty_{k}", "base", "quantity at it"),
        ("ask_price_{k}", "price", "the same of asks"),
        ("ask_qty_{k}", "base", "quantity at it"),
        ("ofi_qty_{k}", "base", "order flow imbalance of level k"),
    )
)
_T: Final = "{T} is the holding time in s"
_LABELS: Final = (
    Wide("tk_{T}_ret_bps", "float32", "bps", f"mid at the exit against mid at the decision, a buyer's gross; {_T}"),
    Wide("tk_{T}_dir", "int8", "", "its sign: -1, 0 or 1; 0 inside `labels.dead_band_bps`"),
    Wide("tk_{T}_{side}_net_bps", "float32", "bps", "of a taker, after fees, half-spreads, latency and funding"),
    Wide("tk_{T}_end_ns", "int64", "ns", "receipt by which all that the label used is known: for purging"),
    Wide("mk_{side}_{delta}_limit", "float64", "price", "post-only, {delta} from the touch; equal ones are one order"),
    Wide("mk_{side}_{delta}_{rule}_fill_ns", "int64", "ns", "receipt of the fill; null: unfilled or rejected"),
    Wide("mk_{side}_{delta}_{rule}_{T}_gross_bps", "float32", "bps", "exit mid against the decision's; 0: unfilled"),
    Wide("mk_{side}_{delta}_{rule}_{T}_net_bps", "float32", "bps", "closed by taking, after all costs; 0: unfilled"),
    Wide("mk_{side}_{delta}_{rule}_{T}_end_ns", "int64", "ns", "receipt by which all that the label used is known"),
)  # fmt: skip
_SCORES: Final = (
    Wide("score_{family}_{T}", "float64", "bps", "predicted return over {T} s, a buyer's; null: not out of sample"),
)
_OUTCOMES: Final = "closed, unfilled, rejected, open at the end; never sent: side busy, inventory full, too small"
_FILLS: Final = (
    Wide("side", "int8", "", "1: bought first, -1: sold first"),
    Wide("outcome", "text", "", _OUTCOMES),
    Wide("price", "float64", "price", "limit of a maker, entry of a taker"),
    Wide("qty", "float64", "base", ""),
    Wide("arrival_ns", "int64", "ns", "of the order at the venue, the venue's clock"),
    Wide("fill_ns", "int64", "ns", "of the entry, the venue's clock"),
    Wide("fill_recv_ns", "int64", "ns", "when we know of it"),
    Wide("exit_ns", "int64", "ns", "of the exit, the venue's clock"),
    Wide("end_ns", "int64", "ns", "when we know that it is over"),
    Wide("exit_price", "float64", "price", ""),
    Wide("gross_bps", "float64", "bps", "mid at the exit against mid at the decision"),
    Wide("entry_bps", "float64", "bps", "entry against the mid at the decision"),
    Wide("half_spread_bps", "float64", "bps", "paid at the exit"),
    Wide("slippage_bps", "float64", "bps", "assumed: `labels.slippage_bps` per taking leg"),
    Wide("fees_bps", "float64", "bps", "both legs"),
    Wide("funding_bps", "float64", "bps", "paid, where the holding time crosses a settlement"),
    Wide("net_bps", "float64", "bps", "gross + entry - half-spread - slippage - fees - funding"),
    Wide("net_usd", "float64", "quote", "`net_bps` of the notional"),
    Wide("gross_usd", "float64", "quote", "`gross_bps` of the notional"),
    Wide("symbol", "text", "", "`venue:SYMBOL`"),
)  # fmt: skip
_FEATURES: Final = (
    Wide("{feature}", "float64", "its own", "one per feature of `features.sets` and `features.mine`, by its name"),
)
WIDE: Final[dict[str, tuple[Wide, ...]]] = {
    "quality": _QUALITY,
    "bars": _BARS,
    "features": _FEATURES,
    "labels": _LABELS,
    "scores": _SCORES,
    "fills": _FILLS,
}
"""By table, in the order of the columns."""

WORDS: Final[dict[str, str]] = {
    "labels": (
        "{T} is the holding time in s (`10`, `0.5`), {side} `buy` or `sell`, {delta} the offset from the own touch "
        "(`touch`, `2bps`), {rule} `touch`, `through` or `gate50`: README, words in the reports. Null: not labelled."
    ),
    "scores": "{family} is `hgb`, `lightgbm` or `catboost`, {T} the holding time in s.",
    "features": "Names, units and meanings: [the catalogue](language.md#the-catalogue).",
    "fills": "Null: what did not happen.",
    "quality": "Null: does not apply, or is not known.",
    "bars": "What closes a bar, and each definition to the letter: research/bars/bar_pass.py. Null: not known yet.",
}
"""What stands below a table's columns."""


def documented(table: str, column: str) -> bool:
    """Whether a column after the fixed ones is one of those above."""
    return any(
        re.fullmatch(re.sub(r"\\{\w+\\}", r"[\\w.-]+", re.escape(one.name)), column) for one in WIDE.get(table, ())
    )
