"""The columns of a bar, and of how many book levels it holds columns.

A bar has BAR_COLUMNS; one with depth also LEVEL_COLUMNS of each level k from 1 (the best), as in `bid_qty_3`. How many
levels are built follows from what the features read (needs.py). `price` is quote per base, `qty` base, `usd` quote
notional; what each column means: bar_pass.py, and of levels order_book.py.
"""

import re
from collections.abc import Iterable
from typing import Final

BAR_COLUMNS: Final = (
    "bid_price", "bid_qty", "ask_price", "ask_qty",
    "open_price", "high_price", "low_price", "close_price",
    "buy_qty", "sell_qty", "buy_usd", "sell_usd", "buy_count", "sell_count",
    "ofi_qty", "quote_count",
    "liq_long_usd", "liq_short_usd", "liq_count",
    "mark_price", "index_price", "funding_rate", "open_interest",
    "effective_usd", "square_usd", "max_trade_usd", "large_buy_usd", "large_sell_usd", "large_count",
    "liq_square_usd", "liq_max_usd", "funding_s",
    "is_empty", "has_gap",
    "trade_open_price", "trade_high_price", "trade_low_price", "trade_close_price",
)  # fmt: skip
LEVEL_COLUMNS: Final = ("bid_price", "bid_qty", "ask_price", "ask_qty", "ofi_qty")
MAX_LEVELS: Final = 20

_OF_LEVEL: Final = re.compile(rf"\b(?:{'|'.join(LEVEL_COLUMNS)})_([1-9]\d*)\b")


def bar_columns(levels: int) -> tuple[str, ...]:
    """The columns of bars with so many book levels, 0 to MAX_LEVELS: BAR_COLUMNS, then level by level."""
    return (*BAR_COLUMNS, *(f"{name}_{k}" for k in range(1, levels + 1) for name in LEVEL_COLUMNS))


def deepest_level(expressions: Iterable[str]) -> int:
    """The largest k of level columns in some expressions over the columns alone; 0 where there is none."""
    return max((int(k) for text in expressions for k in _OF_LEVEL.findall(text)), default=0)
